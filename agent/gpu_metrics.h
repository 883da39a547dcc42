/* The GPUs' numbers as metrics, a series a device: skep_gpu_*{gpu=UUID}.
 *
 * Thread: the loop's. */
#ifndef AGENT_GPU_METRICS_H
#define AGENT_GPU_METRICS_H

#include "common/metrics.h"
#include "proto/message.h"

struct gpu_metrics;

/* NOMEM. The registry is borrowed, and freed after this. */
NODISCARD struct status gpu_metrics_open(struct gpu_metrics **out, struct metrics *registry);
void gpu_metrics_close(struct gpu_metrics *m); /* NULL is fine */
/* What is known now; series of devices that are gone, and of numbers that are not told, end. */
void gpu_metrics_set(struct gpu_metrics *m, const struct gpu_inventory *gpu);

#endif

/* The GPUs of this machine, for the loop: a thread of its own reads them again and again, since the
 * driver may take seconds or hang, and what it has read is picked up here. When the driver hangs,
 * the devices stay as they were last seen and the state says since when it does not answer.
 *
 *     gpu_open -> gpu_poll, gpu_poll ... -> gpu_close
 *
 * Or simulated ones, for development: no thread, no driver.
 *
 * Thread: the owner's; none of these waits for the driver, but for gpu_close a little. */
#ifndef AGENT_GPU_GPU_H
#define AGENT_GPU_GPU_H

#include "common/status.h"
#include "proto/message.h"

enum {
    GPU_READ_MS_DEFAULT = 5000,
    GPU_RETRY_MS_DEFAULT = 30 * 1000,
    GPU_SILENT_MS_DEFAULT = 5000,
    GPU_CLOSE_MS = 2000,
    GPU_PATH_BYTES_MAX = 4095,
};

/* So many devices of a kind that is not there. */
struct gpu_simulated {
    const char *model;
    uint64_t memory_bytes;
    uint32_t count;
};

struct gpu_config {
    bool off;                              /* look for nothing */
    const char *library;                   /* NULL: libnvidia-ml.so.1, as the loader finds it */
    const char *node;                      /* for the names of simulated ones */
    const struct gpu_simulated *simulated; /* instead of real ones, when there are any */
    size_t simulated_count;
    /* 0: the defaults above. How often devices are read, how soon a driver that is not there is
     * looked for again, how long one call of the driver may take. */
    uint32_t read_ms, retry_ms, silent_ms;
};

struct gpu;

/* What config points to is copied. NOMEM, LIMIT (more than GPUS_MAX simulated devices, a path that
 * is too long), INTERNAL (no thread). */
NODISCARD struct status gpu_open(struct gpu **out, const struct gpu_config *config,
                                 struct errmsg *msg);
/* NULL is fine. A thread that is held up by the driver for more than GPU_CLOSE_MS is left
 * behind. */
void gpu_close(struct gpu *g);

/* Picks up what was read since. True: something is new since the last time. now_us is of the
 * machine's monotonic clock. */
bool gpu_poll(struct gpu *g, uint64_t now_us);
/* Has the devices read now rather than when it is their time. Returns a number: gpu_seen is at
 * least that once what gpu_inventory tells was read after this. */
uint64_t gpu_refresh(struct gpu *g);
uint64_t gpu_seen(const struct gpu *g);
/* The number in the name of a GPU's device node, /dev/nvidiaN. False for MIG instances and others
 * without. */
bool gpu_minor(const struct gpu *g, const char *uuid, unsigned *out);
/* As of the last gpu_poll, and good until the next. */
struct gpu_inventory *gpu_inventory(struct gpu *g);

#endif

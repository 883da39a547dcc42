/* What the agent counts, as metrics.
 *
 * Thread: the loop's. */
#ifndef AGENT_STATS_H
#define AGENT_STATS_H

#include "agent/core/agent_core.h"
#include "agent/egress/egress.h"
#include "agent/probe/probe.h"
#include "common/metrics.h"
#include "common/net/link.h"
#include "common/wall.h"

/* What is copied together when somebody asks. */
struct agent_counts {
    struct agent_core_stats core;
    struct link_stats link;
    struct probe_sample machine;
    uint64_t schedulers;               /* connected */
    uint64_t lease;                    /* 1 while held */
    uint64_t cpu_millis, memory_bytes; /* capacity */
    struct egress_stats egress;
};

struct stats;

NODISCARD struct status stats_open(struct stats **out);
void stats_close(struct stats *s);
/* An instance became ready that long after its start was asked. */
void stats_started(struct stats *s, uint64_t startup_us);
/* An invocation was answered. */
void stats_ran(struct stats *s, uint64_t run_us);
/* What is known of the GPUs now. */
void stats_gpus(struct stats *s, const struct gpu_inventory *gpu);
/* Which walls of cells are not built on this machine; once, at the start. */
void stats_walls(struct stats *s, wall_set not_needed);
/* Appends the exposition text. NOMEM. */
NODISCARD struct status stats_print(struct stats *s, const struct agent_counts *counts,
                                    struct buffer *out);

#endif

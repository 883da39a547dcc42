/* What a cell uses now, for metrics: read by the agent from the cell's control groups.
 *
 * Thread: any; no shared state. Costs about five file reads. */
#ifndef AGENT_CELL_CELL_USAGE_H
#define AGENT_CELL_CELL_USAGE_H

#include "agent/cell/cgroup.h"

struct cell_usage {
    uint64_t memory_bytes;
    uint64_t memory_peak_bytes; /* 0 where the kernel does not say (v2 before 5.19) */
    uint64_t cpu_usage_us;
    uint32_t pids; /* without the sentry */
};

/* NOT_FOUND when the group is gone; UNSUPPORTED when memory is not mounted; IO. */
NODISCARD struct status cell_usage_read(const struct cgroup_mounts *mounts, const char *path,
                                        struct cell_usage *out, struct errmsg *msg);

/* The value of "key NUMBER" in a flat keyed file; false when the key is not there. */
bool cell_usage_find(const char *text, const char *key, uint64_t *value);

#endif

/* The agent: its core, and around it the connections, the instances, the code, the logs, the clock.
 *
 *     agent_open -> (runs on the loop) -> agent_stop -> on_stopped
 *
 * Stopping leaves the instances running: the next agent of this data folder adopts them.
 *
 * Thread: the loop's. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "common/config.h"
#include "common/status.h"

#include <uv.h>

enum { AGENT_HEARTBEAT_MS = 1000, AGENT_HEARTBEAT_MS_MIN = 100, AGENT_USAGES_MAX = 256 };

/* Where our other programs are. */
struct agent_paths {
    const char *cell;    /* skep-cell */
    const char *gvisor;  /* skep-gvisor; NULL: not installed */
    const char *runners; /* folder of the runners */
    const char *canary;  /* skep-canary; NULL: there is none, and no isolation checks */
};

struct agent;

/* config and paths are borrowed for the agent's life. CONFLICT when another agent has the data
 * folder; on failure nothing is left open, but the loop must be run until it is empty. */
NODISCARD struct status agent_open(struct agent **out, uv_loop_t *loop,
                                   const struct agent_config *config,
                                   const struct agent_paths *paths, struct errmsg *msg);
/* on_stopped comes from the loop; the agent is gone then. */
void agent_stop(struct agent *a, void (*on_stopped)(void *data), void *data);

#endif

/* Does runsc work on this node, and on which platform? Asked once, at the agent's start, of
 * `skep-gvisor probe`, which runs a sandbox that does nothing; the loop goes on meanwhile, and
 * until the answer is there the node has no gVisor.
 *
 * Thread: the loop's. */
#ifndef AGENT_GVISOR_PROBE_H
#define AGENT_GVISOR_PROBE_H

#include "common/config.h"
#include "common/status.h"

#include <uv.h>

enum {
    GVISOR_PLATFORM_BYTES = 16,
    GVISOR_WHY_BYTES = 256,
    GVISOR_PROBE_MS_MAX = 180 * 1000, /* each platform has a deadline of its own */
};

struct gvisor;

/* Begins to ask. program: skep-gvisor, or NULL where it is not installed; runners: folder with the
 * launcher. All texts are borrowed for g's life. NOMEM. What else goes wrong is a reason why there
 * is no gVisor. */
NODISCARD struct status gvisor_open(struct gvisor **out, uv_loop_t *loop,
                                    const struct agent_config *config, const char *program,
                                    const char *runners);
/* The platform's name; "" without gVisor. Borrowed. */
const char *gvisor_platform(const struct gvisor *g);
/* Why there is none; "" with it. Borrowed. */
const char *gvisor_why(const struct gvisor *g);
/* Ends a probe that runs. closed comes from the loop; g is gone then. */
void gvisor_close(struct gvisor *g, void (*closed)(void *data), void *data);

#endif

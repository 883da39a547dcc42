/* Simulated instances: what is behind the agent core's environment. They start slowly or not, run,
 * fail, crash and hang as their function says; a machine's real sums are watched here, whatever
 * anybody believes.
 *
 * Thread: one. */
#ifndef SIMULATIONS_INSTANCES_H
#define SIMULATIONS_INSTANCES_H

#include "simulations/agents.h"

struct status instance_begin(struct agent *a, const struct start *s, struct errmsg *msg);
void instance_stop(struct agent *a, struct id128 id, bool kill);
struct status instance_invoke(struct agent *a, const struct invoke *i, struct errmsg *msg);
void instance_cancel(struct agent *a, struct id128 id, struct id128 invocation, uint32_t attempt);
/* Its processes are gone from now on. */
void instance_end(struct instance_run *i, enum status_code code, const char *message);
/* The agent is back: results that waited for it are read soon. */
void instances_resume(struct agent *a);
void instances_free(struct agent *a);

/* agents.c: into the core, when there is one. */
void agent_instance_ready(struct agent *a, const struct instance_run *i);
void agent_instance_ended(struct agent *a, const struct instance_run *i, enum status_code code,
                          const char *message);
/* False while the agent is down. */
bool agent_result(struct agent *a, const struct result *r);

#endif

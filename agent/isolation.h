/* A round of isolation checks on this node: bait, two instances of the canary, the report.
 *
 *     isolation_check -> bait -> the other cell, ready -> the canary, ready -> INVOKE -> RESULT
 *         -> both killed, bait taken -> isolation_report
 *     whatever goes wrong on the way: the same end, and the report says what
 *
 * The instances are started through the agent's own table, past its core: they are no function's
 * and count for nobody. One round at a time; a check that comes during one takes its answer.
 *
 * Thread: the loop's. */
#ifndef AGENT_ISOLATION_H
#define AGENT_ISOLATION_H

#include "agent/instances.h"
#include "common/status.h"
#include "proto/message.h"

#include <uv.h>

enum {
    ISOLATION_CPU_MILLIS = 50,
    ISOLATION_ROUND_MS = 60 * 1000,
    ISOLATION_PROCESSES_MAX = 16,
};
#define ISOLATION_MEMORY_BYTES (UINT64_C(32) << 20)
/* That the machine must have left for a round. */
#define ISOLATION_MEMORY_LEFT_BYTES (UINT64_C(128) << 20)

struct isolation;

struct isolation_env {
    void *data;
    /* Sends to that connection; m is borrowed. */
    bool (*send)(void *data, uint64_t peer, const struct message *m);
    /* Bytes of memory that the machine has left. */
    uint64_t (*memory_left)(void *data);
};

/* Texts and instances are borrowed for the module's life. canary: the program's path. data: the
 * agent's data folder; what a killed agent left there is swept. NOMEM. */
NODISCARD struct status isolation_open(struct isolation **out, uv_loop_t *loop,
                                       struct instances *instances, const char *canary,
                                       const char *data, const struct isolation_env *env,
                                       struct errmsg *msg);
/* Ends a round without a report; closed comes from the loop, and the module is gone then. Before
 * the instances' close. */
void isolation_close(struct isolation *t, void (*closed)(void *data), void *data);

/* A leader asks for a round. */
void isolation_check(struct isolation *t, uint64_t peer, const struct message *m);

/* The instances' events; true when it is one of a canary's, which is nobody else's business. */
bool isolation_ready(struct isolation *t, struct id128 instance);
bool isolation_ended(struct isolation *t, struct id128 instance, const char *message);
bool isolation_result(struct isolation *t, const struct result *r);

#endif

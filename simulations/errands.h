/* The ledger of durable work: what was asked for, what the instances really did for it, and what
 * the cluster says came of it. Knows nothing of messages.
 *
 *     errand_new -> asked -> (refused | acknowledged) -> executions -> an outcome that stays
 *
 * An errand is at most one invocation, however often it is asked for: either it has an idempotency
 * key, or it is asked for again only after it was certainly refused.
 *
 * Thread: one. */
#ifndef SIMULATIONS_ERRANDS_H
#define SIMULATIONS_ERRANDS_H

#include "common/hash.h"
#include "simulations/functions.h"
#include "simulations/linear.h"
#include "simulations/world.h"

enum { ERRAND_KEY_BYTES = 24 };

/* One attempt that an instance has begun. */
struct execution {
    uint32_t attempt, agent;
    uint64_t term;
    enum status_code code;
    bool completed;
};

struct errand {
    uint64_t number;
    const struct function *function;
    char key[ERRAND_KEY_BYTES]; /* empty: none */
    uint32_t priority, timeout_ms;
    uint64_t delay_ms, deadline_ms; /* 0: none */
    bool final;                     /* of the last batch: must be done */
    uint64_t asked_us;              /* first */
    uint32_t open;                  /* tries whose outcome is not known, or not yet */
    bool acknowledged;
    struct id128 invocation; /* zero: not known */
    uint32_t cancels;        /* asked for */
    struct execution *executions;
    size_t executions_count, executions_capacity;
    /* The success that was committed. */
    bool accepted;
    uint32_t accepted_attempt;
    uint64_t accepted_term;
    enum invocation_state seen; /* the last outcome read; 0: none */
    /* The last invoke that a leader sent, for the bugs in tamper.c. */
    uint32_t sent_attempt;
    uint64_t sent_term;
    struct id128 sent_instance;
    UT_hash_handle hh; /* by invocation, once known */
};

struct errands;

struct errands *errands_new(struct world *w);
void errands_free(struct errands *l);
/* The histories of the client API. */
struct linear *errands_history(struct errands *l);

struct errand *errand_new(struct errands *l, const struct function *f);
uint64_t errands_count(const struct errands *l);
struct errand *errand_at(const struct errands *l, uint64_t number);
/* NULL when it is none of ours. */
struct errand *errand_find(const struct errands *l, struct id128 invocation);
size_t errand_payload(const struct errand *e, uint8_t *out, size_t size);

/* ---- What the clients hear ---- */
void errand_acknowledged(struct errands *l, struct errand *e, struct id128 invocation);
/* An answer to "what came of it": is that true? */
void errand_outcome(struct errands *l, struct errand *e, const struct outcome *o);
/* What two readers of one end must both see. */
uint64_t errand_sum(const struct outcome *o);

/* ---- What the instances do ---- */
/* Is the payload of durable work? */
bool errands_own(struct bytes payload);
/* An attempt begins. NULL: the payload is none of ours; the world has failed. */
struct errand *errand_executes(struct errands *l, const struct invoke *i, uint64_t term,
                               uint32_t agent);
/* ... and is done. Writes the output. */
void errand_executed(struct errands *l, struct errand *e, uint32_t attempt, uint64_t term,
                     enum status_code code, uint8_t *output, size_t size);

/* The output of the last success, whatever the cluster says. Zeros when there was none. */
void errand_last_output(const struct errand *e, uint8_t *output, size_t size);

/* ---- What the state machine does ---- */
/* A committed end of an attempt, about to be applied for the first time anywhere. */
void errand_finishes(struct errands *l, const struct command_finish *f);

#endif

/* What an instance was given and has not answered, in a small mapped file of its folder: it
 * survives the agent, so that a restarted agent still knows whose result comes over the runner's
 * channel.
 *
 * A slot's token is the id of the runner protocol's frames. Its generation rises with each use,
 * over restarts too, so that a late result never meets a later attempt's slot.
 *
 * Thread: the owner's; one process at a time. */
#ifndef AGENT_INFLIGHT_H
#define AGENT_INFLIGHT_H

#include "common/ids.h"
#include "common/status.h"

enum { INFLIGHT_SLOTS_MAX = 1024 };

struct inflight_slot {
    uint64_t token; /* 0: free */
    struct id128 invocation;
    uint32_t attempt;
    uint32_t sent; /* the runner has all of it */
    uint64_t due_unix_ms;
};

/* Private to this module. */
struct inflight_file;

/* All zeros is a valid closed one. */
struct inflight {
    struct inflight_file *file;
    size_t bytes;
    uint64_t *terms; /* of the slots, behind them in the file; NULL in files of the first kind */
    uint16_t *free;  /* slots not in use */
    size_t free_count;
};

/* Makes the file. slots is 1 to INFLIGHT_SLOTS_MAX. IO, NOMEM. */
NODISCARD struct status inflight_create(struct inflight *f, const char *path, uint32_t slots,
                                        struct errmsg *msg);
/* Opens the file of a former agent. CORRUPT, NOT_FOUND, IO, NOMEM. */
NODISCARD struct status inflight_open(struct inflight *f, const char *path, struct errmsg *msg);
/* Safe on zeroed memory and twice; the file stays. */
void inflight_close(struct inflight *f);

/* Takes a slot; *token is never 0. durable_term: of a durable attempt, the term of the leader that
 * sent it; 0 for others. LIMIT when all are taken. */
NODISCARD struct status inflight_put(struct inflight *f, struct id128 invocation, uint32_t attempt,
                                     uint64_t durable_term, uint64_t due_unix_ms, uint64_t *token);
/* 0 for a token that is not in use, for attempts of calls, and in files of the first kind. */
uint64_t inflight_term(const struct inflight *f, uint64_t token);
/* Borrowed until it is removed; NULL for a token that is not in use. */
struct inflight_slot *inflight_find(const struct inflight *f, uint64_t token);
/* 0 when the attempt is not here. Looks at all slots. */
uint64_t inflight_token(const struct inflight *f, struct id128 invocation, uint32_t attempt);
void inflight_remove(struct inflight *f, uint64_t token);

uint32_t inflight_slots(const struct inflight *f);
/* The slot's content, NULL when free: to go through them after inflight_open. */
struct inflight_slot *inflight_at(const struct inflight *f, uint32_t index);

/* Remembers that the runner said READY. */
void inflight_set_ready(struct inflight *f, uint32_t concurrency, uint64_t startup_us);
bool inflight_ready(const struct inflight *f, uint32_t *concurrency, uint64_t *startup_us);

#endif

/* Membership changes and transfers of leadership, one after the other.
 *
 * An add is up to three configuration entries (spare, standby, voter), each begun when the last
 * has been committed; while the library cannot change (after an election, until the first entry
 * of the term has been committed) it is tried again each tick, until CHANGE_TIMEOUT_MS have
 * passed. A change begins and ends in the loop turn, outside libraft.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_CHANGE_H
#define SCHEDULER_REPLICA_CHANGE_H

#include "scheduler/replica/guard.h"
#include "scheduler/replica/replica.h"

enum { CHANGE_TIMEOUT_MS = 60000 };

enum change_kind { CHANGE_ADD, CHANGE_REMOVE, CHANGE_TRANSFER };

/*
 *   WAITING -> RUNNING (libraft has it) -> WAITING (the next step) ... -> gone (answered)
 */
struct change {
    struct change *next;
    enum change_kind kind;
    struct replica_member member; /* only its id, but for CHANGE_ADD */
    replica_change_cb cb;
    void *data;
    bool refused; /* too many were waiting: answered with LIMIT */
    bool running;
    bool stepped; /* libraft has answered, with step_code */
    int step_code;
    uint64_t deadline_ms; /* 0 until first looked at */
    uint64_t tried_tick;  /* guard tick of the last try plus one: tried once a tick */
    uint64_t target;      /* of a transfer that runs; 0 otherwise */
    struct raft_change req;
    struct raft_transfer *transfer; /* freed in the turn, never reused */
};

struct changes {
    struct change *first;
    struct change *last;
    size_t count;
};

/* Queues a change. Ends the process when out of memory. */
void changes_add(struct changes *c, enum change_kind kind, const struct replica_member *member,
                 replica_change_cb cb, void *data);
/* Moves the first change on; `ready` says whether this replica leads and has applied its
 * barrier. True when something happened, so that another round is due. */
bool changes_step(struct changes *c, struct raft *raft, struct guard *guard, bool ready);
/* Answers all that are left with `s`. libraft must be closed. */
void changes_refuse(struct changes *c, struct status s, const char *why);
/* Frees all that are left without an answer. libraft must be closed. */
void changes_drop(struct changes *c);

/* Our code for one of libraft's. */
struct status status_from_raft(int code);

#endif

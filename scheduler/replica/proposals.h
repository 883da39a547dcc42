/* Commands on their way: queued in this loop turn, then in flight until applied here or until
 * leadership is lost.
 *
 *     add -> queued -> submit -> in flight -> applied (OK) | lost (UNKNOWN)
 *                        `-> refused (NOT_LEADER)
 *
 * A command is stored as u32 length | u32 zero | bytes | zeros up to a multiple of 8, as
 * libraft's disk format needs. Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_PROPOSALS_H
#define SCHEDULER_REPLICA_PROPOSALS_H

#include "scheduler/replica/guard.h"
#include "scheduler/replica/replica.h"

enum {
    COMMAND_PREFIX_BYTES = 8,
    PROPOSALS_BATCH_BYTES_MAX = 4 << 20, /* of one raft_apply, or one single command */
    PROPOSALS_BATCH_MAX = 8192,
};

struct proposal {
    uint64_t ticket;
    uint64_t index;
    uint64_t term;
    uint32_t bytes; /* as stored */
};

struct proposals {
    uint64_t *tickets; /* queued, and their stored bytes; same length */
    struct raft_buffer *bufs;
    size_t queued;
    size_t queue_capacity;
    struct proposal *ring; /* in flight, oldest first; capacity is 0 or a power of two */
    size_t head;
    size_t in_flight;
    size_t ring_capacity;
    size_t bytes; /* of all */
};

/* Why a proposal ended; called once a ticket. */
typedef void (*proposal_end)(void *data, uint64_t ticket, struct status s, uint64_t index);

/* Frees everything without answering. */
void proposals_close(struct proposals *p);
/* LIMIT over REPLICA_PROPOSALS_MAX, REPLICA_PROPOSAL_BYTES_MAX or REPLICA_COMMAND_BYTES_MAX;
 * NOMEM. Unchanged then. */
NODISCARD struct status proposals_add(struct proposals *p, uint64_t ticket, struct bytes command);
/* Hands the queue to libraft, in as few raft_apply as the limits allow. NOMEM: libraft may hold
 * half a batch, and the replica must stop. */
NODISCARD struct status proposals_submit(struct proposals *p, struct raft *raft,
                                         struct guard *guard, proposal_end end, void *data);
/* The entry (index, term) has been applied: answers the ticket it belongs to, if there is one. */
void proposals_applied(struct proposals *p, uint64_t index, uint64_t term, proposal_end end,
                       void *data);
/* Answers all in flight with UNKNOWN. */
void proposals_lost(struct proposals *p, proposal_end end, void *data);
/* Answers all queued with `s`. */
void proposals_refuse(struct proposals *p, struct status s, proposal_end end, void *data);

static inline size_t proposals_count(const struct proposals *p)
{
    return p->queued + p->in_flight;
}

/* Whether a command may be over a limit because of those before it. */
static inline bool proposals_are_many(const struct proposals *p)
{
    return proposals_count(p) >= REPLICA_PROPOSALS_MAX ||
           p->bytes > REPLICA_PROPOSAL_BYTES_MAX - REPLICA_COMMAND_BYTES_MAX - COMMAND_PREFIX_BYTES;
}

/* The command inside stored bytes. CORRUPT. */
NODISCARD struct status command_unwrap(struct bytes stored, struct bytes *out);

#endif

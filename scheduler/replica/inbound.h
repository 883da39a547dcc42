/* Puts the parts of one incoming snapshot together. One at a time: there is one leader.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_INBOUND_H
#define SCHEDULER_REPLICA_INBOUND_H

#include "scheduler/replica/wire.h"

enum { INBOUND_IDLE_MS_MAX = 60000 };

struct inbound {
    uint64_t from; /* 0: none so far */
    struct wire_part head;
    uint8_t *data; /* raft_malloc; NULL once handed over */
    uint64_t received;
    uint64_t seen_ms;
};

void inbound_close(struct inbound *in);

/* Takes one part (its configuration is copied). *ack is what to answer. When that was the last
 * one, *complete is set and *out filled: its data and configuration are then the caller's.
 * NOMEM: nothing changed, nothing to answer. */
NODISCARD struct status inbound_put(struct inbound *in, uint64_t from, const struct wire_part *part,
                                    uint64_t now_ms, struct wire_part_ack *ack, bool *complete,
                                    struct raft_install_snapshot *out);
/* Frees a snapshot whose sender has been silent for INBOUND_IDLE_MS_MAX. */
void inbound_tick(struct inbound *in, uint64_t now_ms);

#endif

/* What libraft wants sent, until the end of the loop turn.
 *
 * outbox_send is a raft_io's send: it encodes at once and always answers 0; outbox_ship, called
 * outside libraft, hands the bytes to events.send and then makes the completion calls. A large
 * AppendEntries leaves as several complete ones; an InstallSnapshot leaves as parts, one in
 * flight, the next when the receiver acknowledges, sent again after OUTBOX_RESEND_MS and given
 * up after OUTBOX_RESENDS_MAX times. Its completion call comes when all of it has arrived. A
 * second one to the same member in the same term is not sent while the first is on its way.
 *
 * libraft sends everything that is not acknowledged again with each heartbeat; to a member whose
 * disk stalls that would be tens of MiB twenty times a second. So entries travel only while less
 * than OUTBOX_UNANSWERED_BYTES_MAX went out since the member got on, or after OUTBOX_RESEND_MS;
 * otherwise the message leaves as a heartbeat, as if the network had lost the entries.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_OUTBOX_H
#define SCHEDULER_REPLICA_OUTBOX_H

#include "scheduler/replica/replica.h"
#include "scheduler/replica/wire.h"

#include <raft.h>

enum {
    OUTBOX_MESSAGES_MAX =
        65536, /* a turn; more are dropped with RAFT_TOOMANY, which Raft survives */
    OUTBOX_RESEND_MS = 1000,
    OUTBOX_RESENDS_MAX = 20,
    OUTBOX_UNANSWERED_BYTES_MAX = 16 << 20,
};

struct outbox_item {
    uint64_t id; /* 0: nothing to send, only a completion call */
    char *address;
    bool bulk;
    struct buffer bytes;
    struct raft_io_send *req; /* NULL: no completion call */
    raft_io_send_cb cb;
    int status;
};

struct outbox_list {
    struct outbox_item *items;
    size_t count;
    size_t capacity;
};

/* A snapshot on its way to one member. Configuration and bytes stay libraft's until the
 * completion call. */
struct outbox_bulk {
    uint64_t id; /* 0: free */
    char *address;
    struct wire_part head;
    const uint8_t *data;
    uint64_t acked;
    uint64_t resend_ms;
    unsigned resends;
    struct raft_io_send *req;
    raft_io_send_cb cb;
};

/* What a member has been sent and has not answered. */
struct outbox_peer {
    uint64_t id;         /* 0: free */
    uint64_t unanswered; /* bytes of entries */
    uint64_t last_index; /* it said to have */
    uint64_t resend_ms;
};

struct outbox {
    struct outbox_peer peers[REPLICA_MEMBERS_MAX];
    struct outbox_list queued;
    struct outbox_list spare; /* the array of the last turn, for reuse */
    struct outbox_bulk bulk[REPLICA_MEMBERS_MAX];
    uint64_t now_ms;
    bool muted;
};

void outbox_init(struct outbox *o);
/* Everything must have been shipped or canceled. */
void outbox_close(struct outbox *o);

/* Queues a message. server_id 0 means nowhere: only the completion call is made, with
 * RAFT_NOCONNECTION. req may be NULL. Returns 0 always, as libraft 0.15 frees twice otherwise. */
int outbox_send(struct outbox *o, struct raft_io_send *req, const struct raft_message *message,
                raft_io_send_cb cb);
/* Queues the answer to a part. Dropped when out of memory: the sender sends again. */
void outbox_ack(struct outbox *o, uint64_t to, const char *address,
                const struct wire_part_ack *ack);
/* An acknowledgement has arrived. */
void outbox_acked(struct outbox *o, uint64_t from, const struct wire_part_ack *ack);
/* A member has answered an AppendEntries. */
void outbox_answered(struct outbox *o, uint64_t from,
                     const struct raft_append_entries_result *result);
/* Time passes: parts without an answer are sent again. */
void outbox_tick(struct outbox *o, uint64_t now_ms);

/* Sends what is queued and makes the completion calls. */
void outbox_ship(struct outbox *o, const struct replica_events *events);
static inline bool outbox_is_empty(const struct outbox *o)
{
    return o->queued.count == 0;
}
/* Sends nothing from now on; completion calls are still made, by outbox_ship. */
void outbox_mute(struct outbox *o);
/* Makes every open completion call at once with RAFT_CANCELED. */
void outbox_cancel(struct outbox *o);

#endif

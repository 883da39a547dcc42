#include "scheduler/replica/outbox.h"

#include "common/check.h"
#include "common/mem.h"

#include <string.h>

void outbox_init(struct outbox *o)
{
    *o = (struct outbox){0};
}

void outbox_close(struct outbox *o)
{
    CHECK(o->queued.count == 0);
    mem_free(o->queued.items);
    mem_free(o->spare.items);
    *o = (struct outbox){0};
}

static void item_close(struct outbox_item *item)
{
    mem_free(item->address);
    buffer_close(&item->bytes);
}

/* The next free item of the queue, zeroed; NULL when out of memory or over OUTBOX_MESSAGES_MAX.
 * Completion calls alone may pass the limit: they are bounded by what libraft has in flight. */
static struct outbox_item *item_push(struct outbox_list *list, bool completion_only)
{
    if (list->count >= OUTBOX_MESSAGES_MAX && !completion_only) {
        return NULL;
    }
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        struct outbox_item *items = mem_realloc(list->items, capacity * sizeof *items);
        if (items == NULL) {
            return NULL;
        }
        list->items = items;
        list->capacity = capacity;
    }
    struct outbox_item *item = &list->items[list->count++];
    *item = (struct outbox_item){0};
    return item;
}

/* A completion call without a message. A call that got lost would leave libraft's log with a
 * reference for ever, so this allocation must not fail. */
static void push_completion(struct outbox *o, struct raft_io_send *req, raft_io_send_cb cb,
                            int status)
{
    if (req == NULL || cb == NULL) {
        return;
    }
    struct outbox_item *item = mem_must(item_push(&o->queued, true));
    item->req = req;
    item->cb = cb;
    item->status = status;
}

/* Queues bytes (taken) for a member. Out of memory or over the limit they are dropped, as by a
 * network. */
static void push_bytes(struct outbox *o, uint64_t id, const char *address, bool bulk,
                       struct buffer *bytes)
{
    char *copy = o->muted ? NULL : mem_strdup(address);
    struct outbox_item *item = copy == NULL ? NULL : item_push(&o->queued, false);
    if (item == NULL) {
        mem_free(copy);
        buffer_close(bytes);
        return;
    }
    item->id = id;
    item->address = copy;
    item->bulk = bulk;
    item->bytes = *bytes;
    *bytes = (struct buffer){0};
}

/* How many entries from `first` on travel in one message: at least one. */
static unsigned append_run(const struct raft_append_entries *args, unsigned first)
{
    size_t bytes = 0;
    unsigned count = 0;
    while (first + count < args->n_entries && count < WIRE_ENTRIES_MAX) {
        bytes += args->entries[first + count].buf.len;
        if (count > 0 && bytes > WIRE_APPEND_BYTES_MAX) {
            break;
        }
        count++;
    }
    return count;
}

/* The place of a member; NULL when there are too many, which only lifts the limit. A place whose
 * member has been quiet goes to another. */
static struct outbox_peer *peer_get(struct outbox *o, uint64_t id)
{
    struct outbox_peer *free_one = NULL;
    for (size_t i = 0; i < REPLICA_MEMBERS_MAX; i++) {
        struct outbox_peer *p = &o->peers[i];
        if (p->id == id) {
            return p;
        }
        if (p->id == 0 || o->now_ms > p->resend_ms + OUTBOX_RESEND_MS) {
            free_one = p;
        }
    }
    if (free_one != NULL) {
        *free_one = (struct outbox_peer){.id = id};
    }
    return free_one;
}

/* Whether entries may be sent to that member now; counts them. */
static bool may_send_entries(struct outbox *o, uint64_t id, const struct raft_append_entries *args)
{
    struct outbox_peer *p = args->n_entries == 0 ? NULL : peer_get(o, id);
    if (p == NULL) {
        return true;
    }
    if (p->unanswered >= OUTBOX_UNANSWERED_BYTES_MAX) {
        if (o->now_ms < p->resend_ms) {
            return false;
        }
        p->unanswered = 0;
    }
    if (p->unanswered == 0) {
        p->resend_ms = o->now_ms + OUTBOX_RESEND_MS;
    }
    for (unsigned i = 0; i < args->n_entries; i++) {
        p->unanswered += args->entries[i].buf.len;
    }
    return true;
}

void outbox_answered(struct outbox *o, uint64_t from,
                     const struct raft_append_entries_result *result)
{
    for (size_t i = 0; i < REPLICA_MEMBERS_MAX; i++) {
        struct outbox_peer *p = &o->peers[i];
        if (p->id == from && from != 0 &&
            (result->rejected != 0 || result->last_log_index > p->last_index)) {
            p->unanswered = 0;
            p->last_index = result->last_log_index;
        }
    }
}

static int send_append(struct outbox *o, const struct raft_message *message)
{
    struct raft_append_entries args = message->append_entries;
    if (!may_send_entries(o, message->server_id, &args)) {
        args.n_entries = 0;
        args.entries = NULL;
    }
    unsigned first = 0;
    do {
        struct buffer bytes = {0};
        unsigned count = append_run(&args, first);
        if (!status_is_ok(wire_put_append(&bytes, &args, first, count))) {
            buffer_close(&bytes);
            return RAFT_NOMEM;
        }
        push_bytes(o, message->server_id, message->server_address, false, &bytes);
        first += count;
    } while (first < args.n_entries);
    return 0;
}

static int send_whole(struct outbox *o, const struct raft_message *message)
{
    struct buffer bytes = {0};
    if (!status_is_ok(wire_put(&bytes, message))) {
        buffer_close(&bytes);
        return RAFT_NOMEM;
    }
    push_bytes(o, message->server_id, message->server_address, false, &bytes);
    return 0;
}

static void bulk_end(struct outbox *o, struct outbox_bulk *b, int status)
{
    push_completion(o, b->req, b->cb, status);
    mem_free(b->address);
    *b = (struct outbox_bulk){0};
}

static void bulk_send_part(struct outbox *o, struct outbox_bulk *b)
{
    uint64_t left = b->head.total - b->acked;
    size_t size = left < WIRE_PART_BYTES_MAX ? (size_t)left : WIRE_PART_BYTES_MAX;
    struct wire_part part = b->head;
    part.offset = b->acked;
    part.data = bytes_of(b->data + b->acked, size);
    b->resend_ms = o->now_ms + OUTBOX_RESEND_MS;
    struct buffer bytes = {0};
    if (!status_is_ok(wire_put_part(&bytes, &part))) {
        buffer_close(&bytes);
        return;
    }
    push_bytes(o, b->id, b->address, true, &bytes);
}

static struct outbox_bulk *bulk_find(struct outbox *o, uint64_t id)
{
    for (size_t i = 0; i < REPLICA_MEMBERS_MAX; i++) {
        if (o->bulk[i].id == id) {
            return &o->bulk[i];
        }
    }
    return NULL;
}

/* Starts sending a snapshot and queues its completion call, unless that comes at the end of the
 * transfer. */
static int bulk_start(struct outbox *o, struct raft_io_send *req,
                      const struct raft_message *message, raft_io_send_cb cb)
{
    const struct raft_install_snapshot *args = &message->install_snapshot;
    if (args->data.len == 0 || args->data.len > WIRE_SNAPSHOT_BYTES_MAX) {
        return RAFT_TOOBIG;
    }
    struct outbox_bulk *b = bulk_find(o, message->server_id);
    if (b != NULL && b->head.term == args->term) {
        /* libraft has waited too long and sends again. The transfer under way goes on: one that
         * started anew each time would never end on a slow link. */
        push_completion(o, req, cb, 0);
        return 0;
    }
    if (b != NULL) {
        bulk_end(o, b, 0); /* of an older term: the receiver does not want it */
    } else {
        b = bulk_find(o, 0);
    }
    char *address = mem_strdup(message->server_address);
    if (b == NULL || address == NULL) {
        mem_free(address);
        return b == NULL ? RAFT_BUSY : RAFT_NOMEM;
    }
    *b = (struct outbox_bulk){.id = message->server_id,
                              .address = address,
                              .data = args->data.base,
                              .req = req,
                              .cb = cb};
    b->head = (struct wire_part){.term = args->term,
                                 .last_index = args->last_index,
                                 .last_term = args->last_term,
                                 .conf_index = args->conf_index,
                                 .conf = args->conf,
                                 .total = args->data.len};
    bulk_send_part(o, b);
    return 0;
}

int outbox_send(struct outbox *o, struct raft_io_send *req, const struct raft_message *message,
                raft_io_send_cb cb)
{
    int status = 0;
    if (message->server_id == 0 || o->muted) {
        status = RAFT_NOCONNECTION;
    } else if (message->type == RAFT_IO_APPEND_ENTRIES) {
        status = send_append(o, message);
    } else if (message->type == RAFT_IO_INSTALL_SNAPSHOT) {
        status = bulk_start(o, req, message, cb);
        if (status == 0) {
            return 0;
        }
    } else {
        status = send_whole(o, message);
    }
    push_completion(o, req, cb, status);
    return 0;
}

void outbox_ack(struct outbox *o, uint64_t to, const char *address, const struct wire_part_ack *ack)
{
    struct buffer bytes = {0};
    if (!status_is_ok(wire_put_ack(&bytes, ack))) {
        buffer_close(&bytes);
        return;
    }
    push_bytes(o, to, address, true, &bytes);
}

void outbox_acked(struct outbox *o, uint64_t from, const struct wire_part_ack *ack)
{
    struct outbox_bulk *b = from == 0 ? NULL : bulk_find(o, from);
    if (b == NULL || ack->last_index != b->head.last_index || ack->last_term != b->head.last_term ||
        ack->received > b->head.total) {
        return;
    }
    /* Backwards only to the start, for a receiver that has lost all: a late answer must not
     * start a second stream. */
    if (ack->received <= b->acked && !(ack->received == 0 && b->acked > 0)) {
        return;
    }
    b->acked = ack->received;
    b->resends = 0;
    if (b->acked == b->head.total) {
        bulk_end(o, b, 0);
    } else {
        bulk_send_part(o, b);
    }
}

void outbox_tick(struct outbox *o, uint64_t now_ms)
{
    o->now_ms = now_ms;
    for (size_t i = 0; i < REPLICA_MEMBERS_MAX; i++) {
        struct outbox_bulk *b = &o->bulk[i];
        if (b->id == 0 || now_ms < b->resend_ms) {
            continue;
        }
        b->resends++;
        if (b->resends > OUTBOX_RESENDS_MAX) {
            bulk_end(o, b, RAFT_NOCONNECTION);
        } else {
            bulk_send_part(o, b);
        }
    }
}

void outbox_ship(struct outbox *o, const struct replica_events *events)
{
    struct outbox_list list = o->queued;
    o->queued = o->spare;
    o->spare = (struct outbox_list){0};
    for (size_t i = 0; i < list.count; i++) {
        struct outbox_item *item = &list.items[i];
        if (item->id != 0 && !o->muted) {
            events->send(events->data, item->id, item->address, item->bulk,
                         bytes_of(item->bytes.data, item->bytes.size));
        }
        item_close(item);
    }
    for (size_t i = 0; i < list.count; i++) {
        if (list.items[i].req != NULL) {
            list.items[i].cb(list.items[i].req, list.items[i].status);
        }
    }
    list.count = 0;
    CHECK(o->spare.items == NULL);
    o->spare = list;
}

void outbox_mute(struct outbox *o)
{
    o->muted = true;
}

void outbox_cancel(struct outbox *o)
{
    o->muted = true;
    for (size_t i = 0; i < REPLICA_MEMBERS_MAX; i++) {
        if (o->bulk[i].id != 0) {
            bulk_end(o, &o->bulk[i], RAFT_CANCELED);
        }
    }
    for (size_t i = 0; i < o->queued.count; i++) {
        struct outbox_item *item = &o->queued.items[i];
        item_close(item);
        if (item->req != NULL) {
            item->cb(item->req, RAFT_CANCELED);
        }
    }
    o->queued.count = 0;
}

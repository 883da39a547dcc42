#include "scheduler/replica/proposals.h"

#include "common/check.h"
#include "common/mem.h"

#include <endian.h>
#include <string.h>

void proposals_close(struct proposals *p)
{
    for (size_t i = 0; i < p->queued; i++) {
        raft_free(p->bufs[i].base);
    }
    mem_free(p->tickets);
    mem_free(p->bufs);
    mem_free(p->ring);
    *p = (struct proposals){0};
}

struct status command_unwrap(struct bytes stored, struct bytes *out)
{
    struct reader r = reader_of(stored);
    uint32_t size = reader_u32(&r);
    uint32_t zero = reader_u32(&r);
    if (r.failed || zero != 0 || size > REPLICA_COMMAND_BYTES_MAX || size > r.rest.size ||
        r.rest.size - size >= 8) {
        return status_of(STATUS_CORRUPT);
    }
    *out = bytes_of(r.rest.data, size);
    return status_ok();
}

static size_t stored_bytes(size_t size)
{
    return COMMAND_PREFIX_BYTES + (size + 7) / 8 * 8;
}

static struct status command_wrap(struct bytes command, struct raft_buffer *out)
{
    size_t size = stored_bytes(command.size);
    uint8_t *base = raft_malloc(size);
    if (base == NULL) {
        return status_of(STATUS_NOMEM);
    }
    uint32_t length = htole32((uint32_t)command.size);
    memcpy(base, &length, sizeof length);
    memset(base + sizeof length, 0, COMMAND_PREFIX_BYTES - sizeof length);
    if (command.size > 0) {
        memcpy(base + COMMAND_PREFIX_BYTES, command.data, command.size);
    }
    memset(base + COMMAND_PREFIX_BYTES + command.size, 0,
           size - COMMAND_PREFIX_BYTES - command.size);
    *out = (struct raft_buffer){base, size};
    return status_ok();
}

static struct status queue_reserve(struct proposals *p)
{
    if (p->queued < p->queue_capacity) {
        return status_ok();
    }
    size_t capacity = p->queue_capacity == 0 ? 64 : p->queue_capacity * 2;
    uint64_t *tickets = mem_realloc(p->tickets, capacity * sizeof *tickets);
    if (tickets == NULL) {
        return status_of(STATUS_NOMEM);
    }
    p->tickets = tickets;
    struct raft_buffer *bufs = mem_realloc(p->bufs, capacity * sizeof *bufs);
    if (bufs == NULL) {
        return status_of(STATUS_NOMEM);
    }
    p->bufs = bufs;
    p->queue_capacity = capacity;
    return status_ok();
}

/* Room in the ring for one more than all there are, so that submitting cannot fail for it. */
static struct status ring_reserve(struct proposals *p)
{
    if (proposals_count(p) < p->ring_capacity) {
        return status_ok();
    }
    size_t capacity = p->ring_capacity == 0 ? 64 : p->ring_capacity * 2;
    struct proposal *ring = mem_alloc(capacity * sizeof *ring);
    if (ring == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (size_t i = 0; i < p->in_flight; i++) {
        ring[i] = p->ring[(p->head + i) & (p->ring_capacity - 1)];
    }
    mem_free(p->ring);
    p->ring = ring;
    p->head = 0;
    p->ring_capacity = capacity;
    return status_ok();
}

struct status proposals_add(struct proposals *p, uint64_t ticket, struct bytes command)
{
    if (command.size > REPLICA_COMMAND_BYTES_MAX || proposals_count(p) >= REPLICA_PROPOSALS_MAX ||
        stored_bytes(command.size) > REPLICA_PROPOSAL_BYTES_MAX - p->bytes) {
        return status_of(STATUS_LIMIT);
    }
    TRY(queue_reserve(p));
    TRY(ring_reserve(p));
    TRY(command_wrap(command, &p->bufs[p->queued]));
    p->tickets[p->queued] = ticket;
    p->bytes += p->bufs[p->queued].len;
    p->queued++;
    return status_ok();
}

static void ring_push(struct proposals *p, struct proposal proposal)
{
    CHECK(p->in_flight < p->ring_capacity);
    p->ring[(p->head + p->in_flight) & (p->ring_capacity - 1)] = proposal;
    p->in_flight++;
}

static struct proposal ring_pop(struct proposals *p)
{
    CHECK(p->in_flight > 0);
    struct proposal oldest = p->ring[p->head];
    p->head = (p->head + 1) & (p->ring_capacity - 1);
    p->in_flight--;
    CHECK(p->bytes >= oldest.bytes);
    p->bytes -= oldest.bytes;
    return oldest;
}

/* libraft calls this at the first entry of a batch, or when leadership is lost; what it says is
 * known better from applied indexes, so only the request is freed. */
static void apply_done(struct raft_apply *req, int status, void *result)
{
    (void)status;
    (void)result;
    mem_free(req);
}

static size_t batch_count(const struct proposals *p, size_t first)
{
    size_t bytes = 0;
    size_t count = 0;
    while (first + count < p->queued && count < PROPOSALS_BATCH_MAX) {
        bytes += p->bufs[first + count].len;
        if (count > 0 && bytes > PROPOSALS_BATCH_BYTES_MAX) {
            break;
        }
        count++;
    }
    return count;
}

/* One raft_apply of [first, first + count). NOT_LEADER: nothing happened. */
static struct status submit_batch(struct proposals *p, struct raft *raft, struct guard *guard,
                                  size_t first, size_t count)
{
    struct raft_apply *req = mem_zalloc(1, sizeof *req);
    if (req == NULL) {
        return status_of(STATUS_NOMEM);
    }
    uint64_t index = raft_last_index(raft) + 1;
    uint64_t term = raft->current_term;
    guard_enter(guard);
    int rv = raft_apply(raft, req, &p->bufs[first], (unsigned)count, apply_done);
    guard_leave(guard);
    if (rv != 0) {
        mem_free(req);
        return status_of(rv == RAFT_NOTLEADER ? STATUS_NOT_LEADER : STATUS_NOMEM);
    }
    for (size_t i = 0; i < count; i++) {
        ring_push(p, (struct proposal){.ticket = p->tickets[first + i],
                                       .index = index + i,
                                       .term = term,
                                       .bytes = (uint32_t)p->bufs[first + i].len});
        p->bufs[first + i].base = NULL;
    }
    return status_ok();
}

/* Forgets the first n of the queue, which are in flight now. */
static void queue_drop(struct proposals *p, size_t n)
{
    if (n == 0) {
        return;
    }
    size_t left = p->queued - n;
    memmove(p->tickets, p->tickets + n, left * sizeof *p->tickets);
    memmove(p->bufs, p->bufs + n, left * sizeof *p->bufs);
    p->queued = left;
}

struct status proposals_submit(struct proposals *p, struct raft *raft, struct guard *guard,
                               proposal_end end, void *data)
{
    size_t done = 0;
    struct status s = status_ok();
    while (done < p->queued && status_is_ok(s)) {
        size_t count = batch_count(p, done);
        s = submit_batch(p, raft, guard, done, count);
        if (status_is_ok(s)) {
            done += count;
        }
    }
    queue_drop(p, done);
    if (s.code == STATUS_NOT_LEADER) {
        proposals_refuse(p, s, end, data);
        return status_ok();
    }
    return s;
}

void proposals_applied(struct proposals *p, uint64_t index, uint64_t term, proposal_end end,
                       void *data)
{
    if (p->in_flight == 0) {
        return;
    }
    const struct proposal *oldest = &p->ring[p->head];
    if (oldest->index == index && oldest->term == term) {
        struct proposal done = ring_pop(p);
        end(data, done.ticket, status_ok(), index);
    }
}

void proposals_lost(struct proposals *p, proposal_end end, void *data)
{
    /* Answers may lead to new proposals, but those are queued. */
    for (size_t n = p->in_flight; n > 0; n--) {
        struct proposal lost = ring_pop(p);
        end(data, lost.ticket, status_of(STATUS_UNKNOWN), 0);
    }
}

void proposals_refuse(struct proposals *p, struct status s, proposal_end end, void *data)
{
    size_t count = p->queued;
    for (size_t i = 0; i < count; i++) {
        uint64_t ticket = p->tickets[i];
        CHECK(p->bytes >= p->bufs[i].len);
        p->bytes -= p->bufs[i].len;
        raft_free(p->bufs[i].base);
        end(data, ticket, s, 0);
    }
    queue_drop(p, count);
}

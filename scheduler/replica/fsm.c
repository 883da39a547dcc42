/* The state machine as libraft sees it: applies, snapshots, restores.
 *
 * A snapshot's bytes are u32 magic | u32 version | u64 size | u64 checksum | state, since
 * raft_uv keeps no checksum of uncompressed snapshots. The checksum is against broken disks, not
 * against people. */
#include "scheduler/replica/replica_internal.h"

#include "common/check.h"
#include "common/mem.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

enum {
    SNAPSHOT_MAGIC = 0x534b5053, /* "SPKS" on disk */
    SNAPSHOT_VERSION = 1,
    SNAPSHOT_HEAD_BYTES = 24,
    LANES = 4,
};

static uint64_t rotate(uint64_t v, unsigned bits)
{
    return (v << bits) | (v >> (64 - bits));
}

/* Four lanes of multiply and rotate over little-endian words, folded at the end; any changed
 * word changes the result. */
static uint64_t checksum(const uint8_t *data, size_t size)
{
    const uint64_t odd = 0x9e3779b97f4a7c15ULL;
    uint64_t lane[LANES] = {size, odd, ~size, ~odd};
    size_t words = size / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, data + i * 8, sizeof word);
        lane[i % LANES] = rotate(lane[i % LANES] ^ le64toh(word), 29) * odd;
    }
    uint64_t tail = 0;
    if (size % 8 != 0) {
        memcpy(&tail, data + words * 8, size % 8);
    }
    uint64_t sum = le64toh(tail);
    for (size_t i = 0; i < LANES; i++) {
        sum = rotate(sum ^ lane[i], 31) * odd;
    }
    return sum ^ (sum >> 32);
}

/* The term of an entry that is in the log; 0 when it is not. */
static uint64_t term_at(const struct raft_log *log, uint64_t index)
{
    size_t count =
        log->back >= log->front ? log->back - log->front : log->back + log->size - log->front;
    if (index <= log->offset || index - log->offset > count) {
        return 0;
    }
    return log->entries[(log->front + (size_t)(index - log->offset) - 1) % log->size].term;
}

static void proposed(void *data, uint64_t ticket, struct status s, uint64_t index)
{
    struct replica *r = data;
    r->events.on_proposed(r->events.data, ticket, s, index);
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct replica *r = fsm->data;
    *result = NULL;
    if (r->guard.failed) {
        return RAFT_SHUTDOWN;
    }
    uint64_t index = raft_last_applied(&r->raft) + 1;
    uint64_t term = term_at(&r->raft.log, index);
    struct bytes command;
    if (term == 0 || !status_is_ok(command_unwrap(bytes_of(buf->base, buf->len), &command))) {
        guard_fail(&r->guard, "apply: malformed log entry", RAFT_CORRUPT);
        return RAFT_SHUTDOWN;
    }
    r->events.on_apply(r->events.data, index, term, command);
    proposals_applied(&r->proposals, index, term, proposed, r);
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct replica *r = fsm->data;
    if (r->guard.failed) {
        return RAFT_BUSY;
    }
    struct raft_buffer *pair = mem_zalloc(2, sizeof *pair);
    uint8_t *head = mem_alloc(SNAPSHOT_HEAD_BYTES);
    struct buffer state = {0};
    if (pair == NULL || head == NULL || !status_is_ok(r->events.snapshot(r->events.data, &state))) {
        buffer_close(&state);
        mem_free(pair);
        mem_free(head);
        return RAFT_BUSY; /* tried again at the next apply */
    }
    uint32_t words[2] = {htole32(SNAPSHOT_MAGIC), htole32(SNAPSHOT_VERSION)};
    uint64_t sums[2] = {htole64(state.size), htole64(checksum(state.data, state.size))};
    memcpy(head, words, sizeof words);
    memcpy(head + sizeof words, sums, sizeof sums);
    pair[0] = (struct raft_buffer){head, SNAPSHOT_HEAD_BYTES};
    pair[1] = (struct raft_buffer){state.data, state.size};
    *bufs = pair;
    *n_bufs = state.size == 0 ? 1 : 2;
    if (state.size == 0) {
        buffer_close(&state);
        pair[1].base = NULL;
    }
    return 0;
}

/* libraft has stored the snapshot, or could not; the memory is ours. */
static int fsm_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    (void)fsm;
    if (*bufs == NULL) {
        return 0;
    }
    for (unsigned i = 0; i < *n_bufs; i++) {
        mem_free((*bufs)[i].base);
    }
    mem_free(*bufs);
    *bufs = NULL;
    *n_bufs = 0;
    return 0;
}

static struct status snapshot_unwrap(struct bytes stored, struct bytes *out)
{
    struct reader reader = reader_of(stored);
    uint32_t magic = reader_u32(&reader);
    uint32_t version = reader_u32(&reader);
    uint64_t size = reader_u64(&reader);
    uint64_t sum = reader_u64(&reader);
    if (reader.failed || magic != SNAPSHOT_MAGIC || version != SNAPSHOT_VERSION ||
        size != reader.rest.size || sum != checksum(reader.rest.data, reader.rest.size)) {
        return status_of(STATUS_CORRUPT);
    }
    *out = reader.rest;
    return status_ok();
}

/* On success the buffer is ours to free, on failure libraft's. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct replica *r = fsm->data;
    struct bytes state;
    if (r->guard.failed) {
        return RAFT_SHUTDOWN;
    }
    struct status s = snapshot_unwrap(bytes_of(buf->base, buf->len), &state);
    if (status_is_ok(s)) {
        s = r->events.restore(r->events.data, state);
    }
    if (!status_is_ok(s)) {
        guard_fail(&r->guard, "restore snapshot", RAFT_CORRUPT);
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    return 0;
}

void replica_fsm_init(struct replica *r)
{
    r->fsm = (struct raft_fsm){
        .version = 2,
        .data = r,
        .apply = fsm_apply,
        .snapshot = fsm_snapshot,
        .restore = fsm_restore,
        .snapshot_finalize = fsm_snapshot_finalize,
    };
}

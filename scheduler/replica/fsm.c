/* The state machine as libraft sees it: applies, snapshots, restores.
 *
 * A snapshot: fsm_snapshot pins the state on the loop -> fsm_snapshot_async encodes it on another
 * thread while the loop goes on applying -> replica_snapshot_encoded unpins -> libraft stores it ->
 * fsm_snapshot_finalize, which has the memory freed on another thread. What cannot be pinned or
 * encoded now is tried again after SNAPSHOT_RETRY_MS and one more apply. */
#include "scheduler/replica/replica_internal.h"
#include "scheduler/replica/snapshot_bytes.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

enum { SNAPSHOT_RETRY_MS = 1000 };

static uint64_t now_ms(struct replica *r)
{
    return r->guard.io.time(&r->guard.io);
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
    const struct raft_entry *entry = log_entry(&r->raft.log, index);
    uint64_t term = entry == NULL ? 0 : entry->term;
    struct bytes command;
    if (term == 0 || !status_is_ok(command_unwrap(bytes_of(buf->base, buf->len), &command))) {
        guard_fail(&r->guard, "apply: malformed log entry", RAFT_CORRUPT);
        return RAFT_SHUTDOWN;
    }
    r->events.on_apply(r->events.data, index, term, command);
    pressure_applied(&r->pressure, &r->raft, buf->len);
    proposals_applied(&r->proposals, index, term, proposed, r);
    return 0;
}

/* Pins the state of the last applied command; the encoding comes later, on another thread. */
static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct replica *r = fsm->data;
    *bufs = NULL;
    *n_bufs = 0;
    if (r->guard.failed || r->closing || now_ms(r) < r->snapshot_retry_ms ||
        !pressure_snapshot_fits(&r->pressure)) {
        return RAFT_BUSY; /* tried again after another apply */
    }
    CHECK(r->pin == NULL);
    r->pin = r->events.snapshot_pin(r->events.data);
    if (r->pin == NULL) {
        r->snapshot_retry_ms = now_ms(r) + SNAPSHOT_RETRY_MS;
        return RAFT_BUSY;
    }
    pressure_pinned(&r->pressure, &r->raft);
    r->snapshot_begun_ms = now_ms(r);
    return 0;
}

/* Head and state as libraft's buffers, which take the parts over. */
static int snapshot_bufs(struct parts *state, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct raft_buffer *all = mem_zalloc(state->count + 1, sizeof *all);
    uint8_t *head = mem_alloc(SNAPSHOT_HEAD_BYTES);
    if (all == NULL || head == NULL) {
        mem_free(all);
        mem_free(head);
        return RAFT_NOMEM;
    }
    snapshot_head(state, head);
    all[0] = (struct raft_buffer){head, SNAPSHOT_HEAD_BYTES};
    for (size_t i = 0; i < state->count; i++) {
        all[i + 1] = (struct raft_buffer){state->items[i].data, state->items[i].size};
    }
    *bufs = all;
    *n_bufs = (unsigned)state->count + 1;
    mem_free(state->items);
    *state = (struct parts){0};
    return 0;
}

/* On another thread: touches the pin and what never changes. */
static int fsm_snapshot_async(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    const struct replica *r = fsm->data;
    struct parts state = {0};
    struct status s = r->events.snapshot_encode(r->events.data, r->pin, &state);
    int rv = RAFT_NOMEM;
    if (status_is_ok(s)) {
        rv = parts_size(&state) > REPLICA_SNAPSHOT_BYTES_MAX ? RAFT_TOOBIG
                                                             : snapshot_bufs(&state, bufs, n_bufs);
    }
    parts_close(&state);
    return rv;
}

static void unpin(struct replica *r)
{
    if (r->pin != NULL) {
        r->events.snapshot_unpin(r->events.data, r->pin);
        r->pin = NULL;
    }
}

void replica_snapshot_encoded(void *data, int status)
{
    struct replica *r = data;
    unpin(r);
    if (status != 0 && status != RAFT_CANCELED) {
        r->snapshot_retry_ms = now_ms(r) + SNAPSHOT_RETRY_MS;
        LOG_WARN("snapshot failed", LOG_STR("why", raft_strerror(status)));
    }
}

/* libraft has stored the snapshot, or could not; the memory is ours. It may be called without an
 * encoding, when that could not be begun. */
static int fsm_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct replica *r = fsm->data;
    unpin(r);
    uint64_t bytes = 0;
    for (unsigned i = 0; *bufs != NULL && i < *n_bufs; i++) {
        bytes += (*bufs)[i].len;
    }
    if (bytes > 0) {
        r->pressure.snapshot_bytes = bytes;
        r->snapshot_took_ms = now_ms(r) - r->snapshot_begun_ms;
    }
    works_free(&r->works, (struct works_garbage){*bufs, *bufs == NULL ? 0 : *n_bufs});
    *bufs = NULL;
    *n_bufs = 0;
    return 0;
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
    r->pressure.snapshot_bytes = buf->len;
    raft_free(buf->base);
    return 0;
}

void replica_fsm_init(struct replica *r)
{
    r->fsm = (struct raft_fsm){
        .version = 3,
        .data = r,
        .apply = fsm_apply,
        .snapshot = fsm_snapshot,
        .restore = fsm_restore,
        .snapshot_finalize = fsm_snapshot_finalize,
        .snapshot_async = fsm_snapshot_async,
    };
}

/* Writes. A request of libraft is a guard_request until it is complete:
 *
 *     append   -> (waiting ->) flying, alone or with others -> complete, or held after a failure
 *     truncate -> (waiting ->) the base, which does not tell when it is done
 *     put      -> (put_next ->) the base -> complete, or held
 *
 * What waits begins in guard_turn: the base is in none of its callbacks then. */
#include "scheduler/replica/guard_internal.h"

#include "common/check.h"
#include "common/mem.h"

#include <string.h>

static struct guard_request *request_new(struct guard *g, enum guard_request_kind kind)
{
    struct guard_request *q = mem_zalloc(1, sizeof *q);
    if (q == NULL) {
        guard_fail(g, "replica", RAFT_NOMEM);
        return NULL;
    }
    q->guard = g;
    q->kind = kind;
    q->term = g->raft->current_term;
    return q;
}

static void push(struct guard_queue *queue, struct guard_request *q)
{
    q->next = NULL;
    if (queue->first == NULL) {
        queue->first = q;
    } else {
        queue->last->next = q;
    }
    queue->last = q;
}

static void unlink_request(struct guard_queue *queue, struct guard_request *q)
{
    struct guard_request *before = NULL;
    for (struct guard_request *at = queue->first; at != q; at = at->next) {
        CHECK(at != NULL);
        before = at;
    }
    if (before == NULL) {
        queue->first = q->next;
    } else {
        before->next = q->next;
    }
    if (queue->last == q) {
        queue->last = before;
    }
}

static struct guard_request *pop(struct guard_queue *queue)
{
    struct guard_request *q = queue->first;
    unlink_request(queue, q);
    return q;
}

/* Puts a request back that has been accepted and will never reach the base. */
static void hold(struct guard *g, struct guard_request *q, int status)
{
    if (q->kind == GUARD_TRUNCATE) {
        mem_free(q);
        return;
    }
    q->status = status;
    push(&g->held, q);
}

/* A write does not count any more. */
static void discount(struct guard *g, const struct guard_request *q)
{
    CHECK(g->writes > 0);
    g->writes--;
    if (q->kind == GUARD_APPEND || q->install) {
        CHECK(g->unfinished > 0);
        g->unfinished--;
    }
}

void guard_disk_hold(struct guard *g)
{
    while (g->waiting.first != NULL) {
        struct guard_request *q = pop(&g->waiting);
        if (q->kind == GUARD_APPEND) {
            discount(g, q);
        }
        hold(g, q, RAFT_CANCELED);
    }
    if (g->put_next != NULL) {
        discount(g, g->put_next);
        hold(g, g->put_next, RAFT_CANCELED);
        g->put_next = NULL;
    }
}

/* Tells libraft that a write has ended, and frees the request.
 *
 * CLOSE cures the closing with writes on their way (D2; cured upstream by 0cac59c, 857e17e): at a
 * failed append libraft truncates its log, past the end when several fail, and crashes. While it is
 * closing it only lets go of memory at a success. It also forgets the array of an installation that
 * it discards. */
static void complete(struct guard_request *q)
{
    struct guard *g = q->guard;
    bool quiet = g->closing && guard_has(g, GUARD_CLOSE);
    int status = quiet && q->kind == GUARD_APPEND ? 0 : q->status;
    guard_enter(g);
    g->ending = q;
    if (q->kind == GUARD_APPEND) {
        q->cb.append(q->user.append, status);
    } else {
        CHECK(q->kind == GUARD_PUT);
        q->cb.put(q->user.put, status);
        if (g->closing && q->install) {
            raft_free(q->bufs);
        }
        g->installing = g->installing && !q->install;
    }
    g->ending = NULL;
    if (!g->closing) {
        guard_conf_settle(g);
    }
    guard_leave(g);
    mem_free(q);
}

void guard_disk_release(struct guard *g)
{
    CHECK(g->closing);
    guard_disk_hold(g);
    while (g->held.first != NULL) {
        complete(pop(&g->held));
    }
}

/* FATAL cures D1 and D2 (cured upstream by 0cac59c, 857e17e, a5cef60, 23ed201): after a failed
 * append libraft's leader stays in office with a truncated log, and later writes continue on the
 * disk after the hole; after several it truncates past the end and crashes. So after any storage
 * error libraft is told nothing more and nothing is sent; completions that come later are withheld
 * until it has been closed. */
static bool is_fatal(const struct guard *g, int status)
{
    return status != 0 && !g->closing && guard_has(g, GUARD_FATAL);
}

/* Who calls it with a fatal status lets the guard fail afterwards, so that what waits is held
 * behind. */
static void write_done(struct guard_request *q, int status)
{
    struct guard *g = q->guard;
    discount(g, q);
    q->status = status;
    if (is_fatal(g, status) || (g->failed && !g->closing)) {
        push(&g->held, q);
    } else {
        complete(q);
    }
}

/* The requests of a group stand one behind the other among the flying, and nothing comes between
 * them: what libraft appends while it is told goes to the end or waits. */
static void append_done(struct raft_io_append *req, int status)
{
    struct guard_request *q = req->data;
    struct guard *g = q->guard;
    bool fatal = is_fatal(g, status);
    if (q->confirms) {
        g->truncating = false;
    }
    mem_free(q->merged);
    for (unsigned left = q->group; left > 0; left--) {
        CHECK(q != NULL);
        struct guard_request *next = q->next;
        unlink_request(&g->flying, q);
        if (q->is_cut) {
            CHECK(g->cut > 0);
            g->cut--;
        }
        write_done(q, status);
        q = next;
    }
    if (fatal) {
        guard_fail(g, "write log", status);
    }
}

static void put_done(struct raft_io_snapshot_put *req, int status)
{
    struct guard_request *q = req->data;
    struct guard *g = q->guard;
    bool fatal = is_fatal(g, status);
    g->put_over = true;
    write_done(q, status);
    if (fatal) {
        guard_fail(g, "write snapshot", status);
    }
}

/* Gives the base an append that stands among the flying, and `entries` of it and its group. */
static void begin_append(struct guard *g, struct guard_request *q, const struct raft_entry *entries,
                         unsigned n)
{
    q->confirms = g->truncating;
    q->base.append.data = q;
    int rv = g->base->append(g->base, &q->base.append, entries, n, append_done);
    if (rv != 0) {
        append_done(&q->base.append, rv);
    }
}

static void begin_alone(struct guard *g, struct guard_request *q)
{
    push(&g->flying, q);
    begin_append(g, q, q->entries, q->count);
}

static void begin_put(struct guard *g, struct guard_request *q)
{
    g->putting = true;
    q->base.put.data = q;
    int rv = g->base->snapshot_put(g->base, q->trailing, &q->base.put, q->snapshot, put_done);
    if (rv != 0) {
        put_done(&q->base.put, rv);
    }
}

static void begin_truncate(struct guard *g, struct guard_request *q)
{
    int rv = g->base->truncate(g->base, q->first);
    mem_free(q);
    if (rv != 0) {
        guard_fail(g, "truncate log", rv);
    } else {
        g->truncating = guard_has(g, GUARD_SERIAL);
    }
}

/* SERIAL cures D3 (cured upstream by 50d72f2, ad11428, 23eb201): in raft_uv a truncation and a
 * snapshot are barriers, and one that meets another is never begun: appends wait for ever, or the
 * next start finds a segment past the snapshot. So the base has one of them at a time. A truncation
 * does not tell when it is done; the append that always follows it does. A snapshot's barrier is
 * lifted only after its callback has returned, so the next one begins in the next turn. */
static bool blocked(const struct guard *g)
{
    return guard_has(g, GUARD_SERIAL) && (g->putting || g->truncating);
}

/* MERGE (no cure upstream is known): raft_uv encodes the appends that gather during a write one by
 * one, and for each of them makes its buffer larger by just what is needed and copies it, so the
 * loop works as the square of the bytes that wait: ten seconds for 512 appends of 15 KiB, in which
 * a follower counts as gone. So the base has one append at a time, and what libraft appends
 * meanwhile, up to the next truncation, is the next one. */
static bool append_waits(const struct guard *g)
{
    bool busy = g->flying.first != NULL || g->ending != NULL;
    return g->waiting.first != NULL || (busy && guard_has(g, GUARD_MERGE));
}

static uint64_t bytes_of_append(const struct guard_request *q)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < q->count; i++) {
        bytes += q->entries[i].buf.len;
    }
    return bytes;
}

/* How many of the appends at the head of what waits make one, at least one; and their entries. */
static unsigned group_size(const struct guard *g, unsigned *entries)
{
    unsigned group = 0;
    uint64_t count = 0;
    uint64_t bytes = 0;
    const struct guard_request *q = g->waiting.first;
    for (; q != NULL && q->kind == GUARD_APPEND; q = q->next) {
        count += q->count;
        bytes += bytes_of_append(q);
        if (group > 0 && (count > GUARD_MERGE_ENTRIES_MAX || bytes > GUARD_MERGE_BYTES_MAX)) {
            break;
        }
        *entries = (unsigned)count;
        group++;
    }
    return group;
}

/* Begins the appends at the head of what waits as one; the first alone when memory is short. */
static void begin_group(struct guard *g)
{
    unsigned n = 0;
    unsigned group = guard_has(g, GUARD_MERGE) ? group_size(g, &n) : 1;
    struct raft_entry *merged = group < 2 ? NULL : mem_alloc(n * sizeof *merged);
    struct guard_request *first = pop(&g->waiting);
    if (merged == NULL) {
        begin_alone(g, first);
        return;
    }
    first->group = group;
    first->merged = merged;
    struct raft_entry *at = merged;
    for (struct guard_request *q = first;; q = pop(&g->waiting)) {
        memcpy(at, q->entries, q->count * sizeof *at);
        at += q->count;
        push(&g->flying, q);
        if (--group == 0) {
            break;
        }
    }
    begin_append(g, first, merged, n);
}

static bool head_begins(const struct guard *g)
{
    if (g->waiting.first->kind == GUARD_TRUNCATE) {
        return !blocked(g);
    }
    return g->flying.first == NULL || !guard_has(g, GUARD_MERGE);
}

/* An installation replaces what libraft appended before. A snapshot of the own state is of entries
 * that are stored, so it need not let appends by. */
static bool put_waits(const struct guard *g, const struct guard_request *q)
{
    return blocked(g) || (q->install && g->waiting.first != NULL);
}

static void pump(struct guard *g)
{
    while (g->waiting.first != NULL && !g->failed && head_begins(g)) {
        if (g->waiting.first->kind == GUARD_TRUNCATE) {
            begin_truncate(g, pop(&g->waiting));
        } else {
            begin_group(g);
        }
    }
    if (g->put_next != NULL && !g->failed && !put_waits(g, g->put_next)) {
        struct guard_request *q = g->put_next;
        g->put_next = NULL;
        begin_put(g, q);
    }
}

/* ZERO: libraft's barrier is 8 bytes of whatever the heap held, which go to disk and wire. */
static void zero_barriers(const struct raft_entry *entries, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (entries[i].type == RAFT_BARRIER) {
            memset(entries[i].buf.base, 0, entries[i].buf.len);
        }
    }
}

void guard_turn(struct guard *g)
{
    CHECK(g->depth == 0);
    if (g->put_over) {
        g->put_over = false;
        g->putting = false;
    }
    pump(g);
}

int guard_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[],
                 unsigned n, raft_io_append_cb cb)
{
    struct guard *g = guard_of(io);
    struct guard_request *q = request_new(g, GUARD_APPEND);
    if (q == NULL) {
        return RAFT_NOMEM;
    }
    if (guard_has(g, GUARD_ZERO)) {
        zero_barriers(entries, n);
    }
    q->user.append = req;
    q->cb.append = cb;
    q->entries = entries;
    q->count = n;
    q->group = 1;
    q->last = raft_last_index(g->raft);
    q->first = q->last - n + 1;
    int rv = guard_conf_appended(g, q->first, entries, n);
    if (rv != 0) {
        guard_fail(g, "configuration", rv);
    }
    if (g->failed) {
        push(&g->held, q);
        return 0;
    }
    g->writes++;
    g->unfinished++;
    if (append_waits(g)) {
        push(&g->waiting, q);
    } else {
        begin_alone(g, q);
    }
    return 0;
}

/* What of the appends on their way has been truncated does not count any more. */
static void cut_queue(struct guard *g, struct guard_queue *queue, uint64_t index)
{
    for (struct guard_request *q = queue->first; q != NULL; q = q->next) {
        if (q->kind != GUARD_APPEND || q->last < index) {
            continue;
        }
        q->last = index - 1;
        if (!q->is_cut) {
            q->is_cut = true;
            g->cut++;
        }
    }
}

/* The log in memory ends before `index` now. */
static void log_ends_before(struct guard *g, uint64_t index)
{
    cut_queue(g, &g->flying, index);
    cut_queue(g, &g->waiting, index);
    guard_conf_truncated(g, index);
}

int guard_truncate(struct raft_io *io, raft_index index)
{
    struct guard *g = guard_of(io);
    struct guard_request *q = request_new(g, GUARD_TRUNCATE);
    if (q == NULL) {
        return RAFT_NOMEM;
    }
    q->first = index;
    if (g->failed) {
        mem_free(q);
        return 0;
    }
    log_ends_before(g, index);
    if (g->waiting.first != NULL || blocked(g)) {
        push(&g->waiting, q);
    } else {
        begin_truncate(g, q);
    }
    return 0;
}

static int put_prepare(struct guard *g, struct guard_request *q,
                       const struct raft_snapshot *snapshot)
{
    if (!q->install) {
        /* It is libraft's own r->snapshot.pending. */
        return guard_conf_snapshot(g, (struct raft_snapshot *)snapshot);
    }
    g->installing = true;
    log_ends_before(g, 1);
    return guard_conf_replaced(g, snapshot);
}

int guard_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                       const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct guard *g = guard_of(io);
    struct guard_request *q = request_new(g, GUARD_PUT);
    if (q == NULL) {
        return RAFT_NOMEM;
    }
    q->user.put = req;
    q->cb.put = cb;
    q->snapshot = snapshot;
    q->trailing = trailing;
    q->install = trailing == 0;
    q->bufs = snapshot->bufs;
    int rv = g->failed ? 0 : put_prepare(g, q, snapshot);
    if (rv != 0) {
        guard_fail(g, "snapshot", rv);
    }
    if (g->failed) {
        hold(g, q, RAFT_IOERR);
        return 0;
    }
    CHECK(g->put_next == NULL);
    g->writes++;
    g->unfinished += q->install ? 1 : 0;
    if (put_waits(g, q)) {
        g->put_next = q;
    } else {
        begin_put(g, q);
    }
    return 0;
}

static void get_done(struct raft_io_snapshot_get *req, struct raft_snapshot *snapshot, int status)
{
    struct guard_request *q = req->data;
    struct guard *g = q->guard;
    if (status != 0 && status != RAFT_NOMEM && status != RAFT_CANCELED && !g->closing &&
        guard_has(g, GUARD_FATAL)) {
        guard_fail(g, "read snapshot", status);
    }
    guard_enter(g);
    q->cb.get(q->user.get, snapshot, status);
    guard_leave(g);
    mem_free(q);
}

int guard_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                       raft_io_snapshot_get_cb cb)
{
    struct guard *g = guard_of(io);
    if (g->failed) {
        return RAFT_CANCELED;
    }
    struct guard_request *q = request_new(g, GUARD_GET);
    if (q == NULL) {
        return RAFT_NOMEM;
    }
    q->user.get = req;
    q->cb.get = cb;
    q->base.get.data = q;
    int rv = g->base->snapshot_get(g->base, &q->base.get, get_done);
    if (rv != 0) {
        mem_free(q);
        if (rv != RAFT_NOMEM) {
            guard_fail(g, "read snapshot", rv);
        }
    }
    return rv;
}

/* FATAL again: when a term or vote cannot be written at the start of an election, libraft goes back
 * to being a follower with a candidate's fields, one of which it then frees as an address. So it is
 * told that all is well; nothing it does from here on leaves this process or reaches the disk. */
static int stopped(struct guard *g, const char *what, int rv)
{
    if (rv == 0 || !guard_has(g, GUARD_FATAL)) {
        return rv;
    }
    guard_fail(g, what, rv);
    return 0;
}

int guard_set_term(struct raft_io *io, raft_term term)
{
    struct guard *g = guard_of(io);
    return g->failed ? 0 : stopped(g, "write term", g->base->set_term(g->base, term));
}

int guard_set_vote(struct raft_io *io, raft_id id)
{
    struct guard *g = guard_of(io);
    return g->failed ? 0 : stopped(g, "write vote", g->base->set_vote(g->base, id));
}

/* Writes. A request of libraft is a guard_request until it is complete:
 *
 *     append   -> (waiting ->) flying -> complete, or held after a failure
 *     truncate -> (waiting ->) the base, which does not tell when it is done
 *     put      -> (put_next ->) the base -> complete, or held */
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

static void push(struct guard_request **list, struct guard_request *q)
{
    while (*list != NULL) {
        list = &(*list)->next;
    }
    q->next = NULL;
    *list = q;
}

static void unlink_request(struct guard_request **list, struct guard_request *q)
{
    while (*list != q) {
        CHECK(*list != NULL);
        list = &(*list)->next;
    }
    *list = q->next;
}

static struct guard_request *pop(struct guard_request **list)
{
    struct guard_request *q = *list;
    *list = q->next;
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

void guard_disk_hold(struct guard *g)
{
    while (g->waiting != NULL) {
        struct guard_request *q = pop(&g->waiting);
        g->writes -= q->kind == GUARD_APPEND ? 1 : 0;
        hold(g, q, RAFT_CANCELED);
    }
    if (g->put_next != NULL) {
        hold(g, g->put_next, RAFT_CANCELED);
        g->put_next = NULL;
        g->writes--;
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
    while (g->held != NULL) {
        complete(pop(&g->held));
    }
}

static void pump(struct guard *g);

/* FATAL cures D1 and D2 (cured upstream by 0cac59c, 857e17e, a5cef60, 23ed201): after a failed
 * append libraft's leader stays in office with a truncated log, and later writes continue on the
 * disk after the hole; after several it truncates past the end and crashes. So after any storage
 * error libraft is told nothing more and nothing is sent; completions that come later are withheld
 * until it has been closed. */
static void write_done(struct guard_request *q, int status, const char *what)
{
    struct guard *g = q->guard;
    CHECK(g->writes > 0);
    g->writes--;
    q->status = status;
    if (q->kind == GUARD_APPEND || q->install) {
        CHECK(g->unfinished > 0);
        g->unfinished--;
    }
    if (status != 0 && !g->closing && guard_has(g, GUARD_FATAL)) {
        guard_fail(g, what, status);
    }
    if (g->failed && !g->closing) {
        push(&g->held, q);
        return;
    }
    complete(q);
    pump(g);
}

static void append_done(struct raft_io_append *req, int status)
{
    struct guard_request *q = req->data;
    struct guard *g = q->guard;
    unlink_request(&g->flying, q);
    if (q->is_cut) {
        CHECK(g->cut > 0);
        g->cut--;
    }
    if (q->confirms) {
        g->truncating = false;
    }
    write_done(q, status, "write log");
}

static void put_done(struct raft_io_snapshot_put *req, int status)
{
    struct guard_request *q = req->data;
    struct guard *g = q->guard;
    g->put_over = true;
    write_done(q, status, "write snapshot");
}

/* Gives a request to the base. Its address must not be used after this: the base may complete it
 * at once. */
static void begin(struct guard *g, struct guard_request *q)
{
    int rv;
    switch (q->kind) {
    case GUARD_APPEND:
        q->confirms = g->truncating;
        q->base.append.data = q;
        push(&g->flying, q);
        rv = g->base->append(g->base, &q->base.append, q->entries, q->count, append_done);
        if (rv != 0) {
            append_done(&q->base.append, rv);
        }
        return;
    case GUARD_PUT:
        g->putting = true;
        q->base.put.data = q;
        rv = g->base->snapshot_put(g->base, q->trailing, &q->base.put, q->snapshot, put_done);
        if (rv != 0) {
            put_done(&q->base.put, rv);
        }
        return;
    case GUARD_TRUNCATE:
        rv = g->base->truncate(g->base, q->first);
        mem_free(q);
        if (rv != 0) {
            guard_fail(g, "truncate log", rv);
        } else {
            g->truncating = guard_has(g, GUARD_SERIAL);
        }
        return;
    case GUARD_GET:
        break;
    }
    CHECK(!"a write");
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

static void pump(struct guard *g)
{
    while (g->waiting != NULL && !g->failed) {
        if (g->waiting->kind == GUARD_TRUNCATE && blocked(g)) {
            return;
        }
        begin(g, pop(&g->waiting));
    }
    if (g->put_next != NULL && !blocked(g) && !g->failed) {
        struct guard_request *q = g->put_next;
        g->put_next = NULL;
        begin(g, q);
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
        pump(g);
    }
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
    if (g->waiting != NULL) {
        push(&g->waiting, q);
        return 0;
    }
    begin(g, q);
    return 0;
}

/* What of the appends on their way has been truncated does not count any more. */
static void cut_list(struct guard *g, struct guard_request *list, uint64_t index)
{
    for (struct guard_request *q = list; q != NULL; q = q->next) {
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
    cut_list(g, g->flying, index);
    cut_list(g, g->waiting, index);
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
    if (g->waiting != NULL || blocked(g)) {
        push(&g->waiting, q);
    } else {
        begin(g, q);
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
    if (blocked(g) || g->waiting != NULL) {
        g->put_next = q;
    } else {
        begin(g, q);
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

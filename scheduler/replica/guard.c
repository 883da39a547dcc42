#include "scheduler/replica/guard.h"

#include "common/check.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>

enum request_kind { REQUEST_APPEND, REQUEST_PUT, REQUEST_GET };

/* Stands for a request of libraft at the base, so that its completion passes here first. */
struct guard_request {
    struct guard *guard;
    struct guard_request *next;
    enum request_kind kind;
    int status;
    struct raft_buffer *bufs; /* of a snapshot that is being installed */
    union {
        struct raft_io_append append;
        struct raft_io_snapshot_put put;
        struct raft_io_snapshot_get get;
    } base;
    union {
        struct raft_io_append *append;
        struct raft_io_snapshot_put *put;
        struct raft_io_snapshot_get *get;
    } user;
    union {
        raft_io_append_cb append;
        raft_io_snapshot_put_cb put;
        raft_io_snapshot_get_cb get;
    } cb;
};

static struct guard *guard_of(struct raft_io *io)
{
    return io->impl;
}

static struct guard *guard_of_base(struct raft_io *base)
{
    return base->data;
}

void guard_enter(struct guard *g)
{
    g->depth++;
}

void guard_leave(struct guard *g)
{
    CHECK(g->depth > 0);
    g->depth--;
}

void guard_fail(struct guard *g, const char *what, int raft_code)
{
    if (g->failed) {
        return;
    }
    g->failed = true;
    char why[RAFT_ERRMSG_BUF_SIZE + 128];
    (void)snprintf(why, sizeof why, "%s: %s%s%s", what, raft_strerror(raft_code),
                   g->base->errmsg[0] == '\0' ? "" : ": ", g->base->errmsg);
    g->fatal(g->data, why);
}

static struct guard_request *request_new(struct guard *g, enum request_kind kind)
{
    struct guard_request *q = mem_zalloc(1, sizeof *q);
    if (q == NULL) {
        guard_fail(g, "replica", RAFT_NOMEM);
        return NULL;
    }
    q->guard = g;
    q->kind = kind;
    return q;
}

static void request_hold(struct guard_request *q)
{
    q->next = q->guard->held;
    q->guard->held = q;
}

/* Completes a write towards libraft and frees it. While closing, libraft is unavailable and only
 * lets go of memory on success, where it would truncate its log on failure. */
static void request_complete(struct guard_request *q)
{
    struct guard *g = q->guard;
    int status = g->closing && q->kind == REQUEST_APPEND ? 0 : q->status;
    guard_enter(g);
    if (q->kind == REQUEST_APPEND) {
        q->cb.append(q->user.append, status);
    } else {
        CHECK(q->kind == REQUEST_PUT);
        q->cb.put(q->user.put, status);
        if (g->closing) {
            raft_free(
                q->bufs); /* libraft 0.15 forgets the array when it discards an installation */
        }
    }
    guard_leave(g);
    mem_free(q);
}

static void write_done(struct guard_request *q, int status, const char *what)
{
    struct guard *g = q->guard;
    CHECK(g->writes > 0);
    g->writes--;
    q->status = status;
    if (status != 0 && !g->closing) {
        guard_fail(g, what, status);
    }
    if (g->failed && !g->closing) {
        request_hold(q);
        return;
    }
    request_complete(q);
}

static void append_done(struct raft_io_append *req, int status)
{
    write_done(req->data, status, "write log");
}

static void put_done(struct raft_io_snapshot_put *req, int status)
{
    write_done(req->data, status, "write snapshot");
}

static int guard_append(struct raft_io *io, struct raft_io_append *req,
                        const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct guard *g = guard_of(io);
    struct guard_request *q = request_new(g, REQUEST_APPEND);
    if (q == NULL) {
        return RAFT_NOMEM;
    }
    for (unsigned i = 0; i < n; i++) {
        if (entries[i].type == RAFT_BARRIER) {
            memset(entries[i].buf.base, 0, entries[i].buf.len);
        }
    }
    q->user.append = req;
    q->cb.append = cb;
    q->base.append.data = q;
    if (!g->failed) {
        int rv = g->base->append(g->base, &q->base.append, entries, n, append_done);
        if (rv == 0) {
            g->writes++;
            return 0;
        }
        guard_fail(g, "write log", rv);
    }
    request_hold(q);
    return 0;
}

static int guard_snapshot_put(struct raft_io *io, unsigned trailing,
                              struct raft_io_snapshot_put *req,
                              const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct guard *g = guard_of(io);
    struct guard_request *q = request_new(g, REQUEST_PUT);
    if (q == NULL) {
        return RAFT_NOMEM;
    }
    q->user.put = req;
    q->cb.put = cb;
    q->base.put.data = q;
    q->bufs = trailing == 0 ? snapshot->bufs : NULL;
    if (!g->failed) {
        int rv = g->base->snapshot_put(g->base, trailing, &q->base.put, snapshot, put_done);
        if (rv == 0) {
            g->writes++;
            return 0;
        }
        guard_fail(g, "write snapshot", rv);
    }
    q->status = RAFT_IOERR;
    request_hold(q);
    return 0;
}

static void get_done(struct raft_io_snapshot_get *req, struct raft_snapshot *snapshot, int status)
{
    struct guard_request *q = req->data;
    struct guard *g = q->guard;
    if (status != 0 && status != RAFT_NOMEM && status != RAFT_CANCELED && !g->closing) {
        guard_fail(g, "read snapshot", status);
    }
    guard_enter(g);
    q->cb.get(q->user.get, snapshot, status);
    guard_leave(g);
    mem_free(q);
}

static int guard_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                              raft_io_snapshot_get_cb cb)
{
    struct guard *g = guard_of(io);
    if (g->failed) {
        return RAFT_CANCELED;
    }
    struct guard_request *q = request_new(g, REQUEST_GET);
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

static int guard_set_term(struct raft_io *io, raft_term term)
{
    struct guard *g = guard_of(io);
    int rv = g->failed ? RAFT_IOERR : g->base->set_term(g->base, term);
    if (rv != 0) {
        guard_fail(g, "write term", rv);
    }
    return rv;
}

static int guard_set_vote(struct raft_io *io, raft_id id)
{
    struct guard *g = guard_of(io);
    int rv = g->failed ? RAFT_IOERR : g->base->set_vote(g->base, id);
    if (rv != 0) {
        guard_fail(g, "write vote", rv);
    }
    return rv;
}

static int guard_truncate(struct raft_io *io, raft_index index)
{
    struct guard *g = guard_of(io);
    int rv = g->failed ? RAFT_IOERR : g->base->truncate(g->base, index);
    if (rv != 0) {
        guard_fail(g, "truncate log", rv);
    }
    return 0;
}

static const char *member_address(const struct raft *raft, raft_id id)
{
    for (unsigned i = 0; i < raft->configuration.n; i++) {
        if (raft->configuration.servers[i].id == id) {
            return raft->configuration.servers[i].address;
        }
    }
    return NULL;
}

/* Where a message really goes; NULL: nowhere. */
static const char *destination(const struct guard *g, const struct raft_message *m)
{
    const struct raft *raft = g->raft;
    bool answering = g->answering_id != 0;
    if (answering && m->server_id == g->answering_id) {
        return g->answering_address;
    }
    if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT) {
        if (answering || raft->state != RAFT_FOLLOWER) {
            return NULL;
        }
        return m->server_id == 0 ? NULL : raft->follower_state.current_leader.address;
    }
    return member_address(raft, m->server_id);
}

static int guard_send(struct raft_io *io, struct raft_io_send *req,
                      const struct raft_message *message, raft_io_send_cb cb)
{
    struct guard *g = guard_of(io);
    struct raft_message m = *message;
    m.server_address = destination(g, message);
    if (m.server_address == NULL || g->failed) {
        m.server_id = 0;
        m.server_address = "";
    }
    if (m.type == RAFT_IO_TIMEOUT_NOW) {
        return g->base->send(g->base, NULL, &m,
                             NULL); /* the request may die before its completion */
    }
    return g->base->send(g->base, req, &m, cb);
}

static bool is_answer(const struct raft_message *m)
{
    return m->type == RAFT_IO_APPEND_ENTRIES_RESULT || m->type == RAFT_IO_REQUEST_VOTE_RESULT;
}

/* Frees a message that libraft is not given. */
static void message_drop(struct raft_message *m)
{
    if (m->type == RAFT_IO_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        raft_free(m->append_entries.entries[0].batch);
        raft_free(m->append_entries.entries);
    } else if (m->type == RAFT_IO_INSTALL_SNAPSHOT) {
        raft_free(m->install_snapshot.data.base);
        raft_configuration_close(&m->install_snapshot.conf);
    }
}

void guard_receive(struct guard *g, struct raft_message *message)
{
    CHECK(message->server_id != 0);
    CHECK(g->depth == 0);
    bool stranger = member_address(g->raft, message->server_id) == NULL;
    if (g->failed || g->closing || g->recv == NULL || (stranger && is_answer(message))) {
        message_drop(message);
        return;
    }
    g->answering_id = message->server_id;
    g->answering_address = message->server_address;
    guard_enter(g);
    g->recv(&g->io, message);
    guard_leave(g);
    g->answering_id = 0;
    g->answering_address = NULL;
}

static void base_tick(struct raft_io *base)
{
    struct guard *g = guard_of_base(base);
    if (g->failed || g->closing) {
        return;
    }
    g->ticks++;
    guard_enter(g);
    g->tick(&g->io);
    guard_leave(g);
}

/* The bases do not receive by themselves: replica_receive does, through guard_receive. */
static void base_recv(struct raft_io *base, struct raft_message *message)
{
    guard_receive(guard_of_base(base), message);
}

static int guard_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
                       raft_io_recv_cb recv)
{
    struct guard *g = guard_of(io);
    g->tick = tick;
    g->recv = recv;
    return g->base->start(g->base, msecs, base_tick, base_recv);
}

static void base_closed(struct raft_io *base)
{
    struct guard *g = guard_of_base(base);
    CHECK(g->writes == 0);
    g->close(&g->io);
}

static void guard_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct guard *g = guard_of(io);
    g->closing = true;
    g->close = cb;
    while (g->held != NULL) {
        struct guard_request *q = g->held;
        g->held = q->next;
        request_complete(q);
    }
    g->base->close(g->base, base_closed);
}

static int guard_init_io(struct raft_io *io, raft_id id, const char *address)
{
    struct guard *g = guard_of(io);
    int rv = g->base->init(g->base, id, address);
    memcpy(io->errmsg, g->base->errmsg, sizeof io->errmsg);
    return rv;
}

static int guard_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                      struct raft_snapshot **snapshot, raft_index *start_index,
                      struct raft_entry *entries[], size_t *n_entries)
{
    struct guard *g = guard_of(io);
    int rv = g->base->load(g->base, term, voted_for, snapshot, start_index, entries, n_entries);
    memcpy(io->errmsg, g->base->errmsg, sizeof io->errmsg);
    return rv;
}

static int guard_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
    struct guard *g = guard_of(io);
    return g->base->bootstrap(g->base, conf);
}

static int guard_recover(struct raft_io *io, const struct raft_configuration *conf)
{
    struct guard *g = guard_of(io);
    return g->base->recover(g->base, conf);
}

static raft_time guard_time(struct raft_io *io)
{
    struct guard *g = guard_of(io);
    return g->base->time(g->base);
}

static int guard_random(struct raft_io *io, int min, int max)
{
    struct guard *g = guard_of(io);
    return g->base->random(g->base, min, max);
}

static int guard_async_work(struct raft_io *io, struct raft_io_async_work *req,
                            raft_io_async_work_cb cb)
{
    struct guard *g = guard_of(io);
    return g->base->async_work(g->base, req, cb);
}

void guard_init(struct guard *g, struct raft_io *base, struct raft *raft,
                void (*fatal)(void *data, const char *why), void *data)
{
    *g = (struct guard){.base = base, .raft = raft, .fatal = fatal, .data = data};
    base->data = g;
    g->io = (struct raft_io){
        .version = 2,
        .impl = g,
        .init = guard_init_io,
        .close = guard_close,
        .load = guard_load,
        .start = guard_start,
        .bootstrap = guard_bootstrap,
        .recover = guard_recover,
        .set_term = guard_set_term,
        .set_vote = guard_set_vote,
        .send = guard_send,
        .append = guard_append,
        .truncate = guard_truncate,
        .snapshot_put = guard_snapshot_put,
        .snapshot_get = guard_snapshot_get,
        .time = guard_time,
        .random = guard_random,
        .async_work = guard_async_work,
    };
}

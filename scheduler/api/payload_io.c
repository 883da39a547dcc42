#include "scheduler/api/payload_io.h"

#include "common/check.h"
#include "common/chunks.h"
#include "common/mem.h"

/* The operations on one payload: the first is in the ready queue or on a thread. */
struct chain {
    struct digest digest;
    struct payload_op *ops;
    UT_hash_handle hh;
};

struct worker {
    uv_work_t work;
    struct payload_io *io;
    struct payload_op *op; /* NULL: idle */
};

struct payload_io {
    uv_loop_t *loop;
    struct payload_store *store;
    struct chain *chains;
    struct payload_op *ready;
    struct worker workers[PAYLOAD_IO_WORKERS];
    size_t active;
    bool closing;
    void (*closed)(void *data);
    void *data;
};

/* ---- Data ---- */

struct payload_blob *payload_blob_copy(struct bytes from)
{
    struct payload_blob *d = mem_zalloc(1, sizeof *d);
    if (d == NULL || !status_is_ok(buffer_append(&d->buffer, from.data, from.size))) {
        mem_free(d);
        return NULL;
    }
    d->refs = 1;
    return d;
}

struct payload_blob *payload_blob_ref(struct payload_blob *d)
{
    CHECK(d->refs > 0);
    d->refs++;
    return d;
}

void payload_blob_unref(struct payload_blob *d)
{
    if (d == NULL) {
        return;
    }
    CHECK(d->refs > 0);
    if (--d->refs == 0) {
        if (d->buffer.data != NULL) {
            mem_wipe(d->buffer.data, d->buffer.capacity);
        }
        buffer_close(&d->buffer);
        mem_free(d);
    }
}

/* ---- Queueing ---- */

static bool chained(const struct payload_op *op)
{
    return op->kind == PAYLOAD_OP_PUT || op->kind == PAYLOAD_OP_GET || op->kind == PAYLOAD_OP_HAS ||
           op->kind == PAYLOAD_OP_DELETE;
}

struct payload_io *payload_io_new(uv_loop_t *loop, struct payload_store *store)
{
    struct payload_io *io = mem_zalloc(1, sizeof *io);
    if (io != NULL) {
        io->loop = loop;
        io->store = store;
        for (size_t i = 0; i < PAYLOAD_IO_WORKERS; i++) {
            io->workers[i].io = io;
            io->workers[i].work.data = &io->workers[i];
        }
    }
    return io;
}

/* On a thread. */
static struct status get(struct payload_io *io, struct payload_op *op)
{
    struct payload_blob *d = mem_zalloc(1, sizeof *d);
    if (d == NULL) {
        return status_fail(&op->message, STATUS_NOMEM, "out of memory");
    }
    d->refs = 1;
    struct status status = payload_store_get(io->store, &op->digest, &d->buffer, &op->message);
    if (!status_is_ok(status)) {
        payload_blob_unref(d);
        return status;
    }
    op->data = d;
    return status;
}

static void on_thread(uv_work_t *work)
{
    struct worker *w = work->data;
    struct payload_op *op = w->op;
    struct payload_store *store = w->io->store;
    struct bytes data;
    switch (op->kind) {
    case PAYLOAD_OP_HASH:
        data = payload_blob_bytes(op->data);
        op->status = digest_of(&data, 1, &op->digest);
        break;
    case PAYLOAD_OP_PUT:
        op->status =
            payload_store_put(store, &op->digest, payload_blob_bytes(op->data), &op->message);
        break;
    case PAYLOAD_OP_GET:
        op->status = get(w->io, op);
        break;
    case PAYLOAD_OP_HAS:
        op->status =
            status_of(payload_store_has(store, &op->digest) ? STATUS_OK : STATUS_NOT_FOUND);
        break;
    case PAYLOAD_OP_DELETE:
        op->status = payload_store_delete(store, &op->digest, &op->message);
        break;
    case PAYLOAD_OP_SYNC:
        op->status = payload_store_sync(store, &op->message);
        break;
    default:
        op->call(op->owner);
        op->status = status_ok();
        break;
    }
}

static void closed_check(struct payload_io *io)
{
    if (!io->closing || io->active > 0 || io->closed == NULL) {
        return;
    }
    CHECK(io->chains == NULL && io->ready == NULL);
    void (*closed)(void *) = io->closed;
    void *data = io->data;
    mem_free(io);
    closed(data);
}

static void ready_add(struct payload_io *io, struct payload_op *op)
{
    DL_APPEND2(io->ready, op, ready_prev, ready_next);
}

/* Takes op out of its chain; the next one of it becomes ready. */
static void chain_leave(struct payload_io *io, struct payload_op *op)
{
    if (!chained(op)) {
        return;
    }
    struct chain *c;
    HASH_FIND(hh, io->chains, &op->digest, sizeof op->digest, c);
    CHECK(c != NULL && c->ops == op);
    DL_DELETE(c->ops, op);
    if (c->ops != NULL) {
        ready_add(io, c->ops);
        return;
    }
    HASH_DEL(io->chains, c);
    mem_free(c);
}

static void pump(struct payload_io *io);

/* Cancels what waits; what waits behind it on the same payload becomes ready and is next. */
static void drain(struct payload_io *io)
{
    while (io->ready != NULL) {
        struct payload_op *op = io->ready;
        DL_DELETE2(io->ready, op, ready_prev, ready_next);
        chain_leave(io, op);
        op->status = status_fail(&op->message, STATUS_CANCELED, "the scheduler is stopping");
        op->done(op);
    }
}

static void on_done(uv_work_t *work, int result)
{
    struct worker *w = work->data;
    struct payload_io *io = w->io;
    struct payload_op *op = w->op;
    CHECK(result == 0); /* Nothing is canceled once it was given to libuv. */
    w->op = NULL;
    io->active--;
    chain_leave(io, op);
    op->done(op);
    if (io->closing) {
        drain(io);
    }
    pump(io);
    closed_check(io);
}

static void pump(struct payload_io *io)
{
    for (size_t i = 0; i < PAYLOAD_IO_WORKERS && io->ready != NULL && !io->closing; i++) {
        struct worker *w = &io->workers[i];
        if (w->op != NULL) {
            continue;
        }
        w->op = io->ready;
        DL_DELETE2(io->ready, w->op, ready_prev, ready_next);
        io->active++;
        CHECK(uv_queue_work(io->loop, &w->work, on_thread, on_done) == 0);
    }
}

void payload_io_do(struct payload_io *io, struct payload_op *op)
{
    CHECK(!io->closing && op->done != NULL);
    op->status = status_ok();
    op->message.text[0] = '\0';
    struct chain *c = NULL;
    if (chained(op)) {
        HASH_FIND(hh, io->chains, &op->digest, sizeof op->digest, c);
        if (c == NULL) {
            c = mem_must(mem_zalloc(1, sizeof *c));
            c->digest = op->digest;
            HASH_ADD(hh, io->chains, digest, sizeof c->digest, c);
        }
        DL_APPEND(c->ops, op);
    }
    if (c == NULL || c->ops == op) {
        ready_add(io, op);
    }
    pump(io);
}

void payload_io_close(struct payload_io *io, void (*cb)(void *data), void *data)
{
    io->closing = true;
    drain(io);
    io->closed = cb;
    io->data = data;
    closed_check(io);
}

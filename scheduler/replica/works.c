#include "scheduler/replica/works.h"

#include "common/check.h"
#include "common/mem.h"

enum { FREE_HERE_BYTES_MAX = 1 << 20 };

void works_init(struct works *w, struct raft_io *io, struct guard *guard)
{
    CHECK(io->async_work != NULL);
    *w = (struct works){.io = io, .guard = guard, .begin = io->async_work};
}

void works_end(struct works *w)
{
    w->ended = true;
}

struct work {
    struct raft_io_async_work req;
    struct works *works;
    struct raft_io_async_work *user;
    raft_io_async_work_cb cb;
    void (*done)(void *data, int status);
    void *data;
};

static int work_run(struct raft_io_async_work *req)
{
    struct work *k = req->data;
    return k->user->work(k->user);
}

static void work_done(struct raft_io_async_work *req, int status)
{
    struct work *k = req->data;
    CHECK(k->works->running > 0);
    k->works->running--;
    k->done(k->data, status);
    guard_enter(k->works->guard);
    k->cb(k->user, status);
    guard_leave(k->works->guard);
    mem_free(k);
}

int works_run(struct works *w, struct raft_io_async_work *req, raft_io_async_work_cb cb,
              void (*done)(void *data, int status), void *data)
{
    struct work *k = w->ended ? NULL : mem_zalloc(1, sizeof *k);
    if (k == NULL) {
        return w->ended ? RAFT_CANCELED : RAFT_NOMEM;
    }
    *k = (struct work){.works = w, .user = req, .cb = cb, .done = done, .data = data};
    k->req.data = k;
    k->req.work = work_run;
    int rv = w->begin(w->io, &k->req, work_done);
    if (rv != 0) {
        mem_free(k);
        return rv;
    }
    w->running++;
    return 0;
}

static void garbage_free(struct works_garbage garbage)
{
    for (size_t i = 0; i < garbage.count; i++) {
        mem_free(garbage.bufs[i].base);
    }
    mem_free(garbage.bufs);
}

struct freeing {
    struct raft_io_async_work req;
    struct works *works;
    struct works_garbage garbage;
};

static int freeing_run(struct raft_io_async_work *req)
{
    struct freeing *f = req->data;
    garbage_free(f->garbage);
    f->garbage = (struct works_garbage){0};
    return 0;
}

static void freeing_done(struct raft_io_async_work *req, int status)
{
    struct freeing *f = req->data;
    (void)status; /* canceled: nothing has been freed yet */
    CHECK(f->works->running > 0);
    f->works->running--;
    garbage_free(f->garbage);
    mem_free(f);
}

void works_free(struct works *w, struct works_garbage garbage)
{
    size_t bytes = 0;
    for (size_t i = 0; i < garbage.count; i++) {
        bytes += garbage.bufs[i].len;
    }
    bool here = w->ended || bytes <= FREE_HERE_BYTES_MAX;
    struct freeing *f = here ? NULL : mem_zalloc(1, sizeof *f);
    if (f != NULL) {
        f->req.data = f;
        f->req.work = freeing_run;
        f->works = w;
        f->garbage = garbage;
        if (w->begin(w->io, &f->req, freeing_done) == 0) {
            w->running++;
            return;
        }
    }
    mem_free(f);
    garbage_free(garbage);
}

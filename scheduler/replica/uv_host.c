#include "scheduler/replica/uv_host.h"
#include "scheduler/replica/chores.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum {
    SPACE_TO_START = 3 * SEGMENT_BYTES, /* the open segment and two prepared ones */
    CHORES_MS = 1000,
};

struct uv_host {
    struct replica_host base; /* first: raft_uv knows its io by address */
    struct raft_uv_transport transport;
    void (*disk_close)(struct raft_io *io, raft_io_close_cb cb);
    raft_io_close_cb closed;
    bool disk_closed;
    uint64_t random;
    uv_prepare_t prepare; /* before the loop waits */
    uv_check_t check;     /* after it has run what came */
    uv_idle_t idle;       /* active: do not wait, there is work */
    unsigned handles;     /* not yet closed, and a chore that runs */
    int lock;             /* of the folder */
    struct chores chores;
    uv_work_t chore;
    bool chore_runs;
    uint64_t chores_due_ms;
    bool leaving; /* the handles are being closed */
};

static int dummy_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void)t;
    (void)id;
    (void)address;
    return 0;
}

static int dummy_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void)t;
    (void)cb;
    return 0;
}

static int dummy_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
                         const char *address, raft_uv_connect_cb cb)
{
    (void)t;
    (void)req;
    (void)id;
    (void)address;
    (void)cb;
    return RAFT_NOCONNECTION;
}

static void dummy_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

int uv_disk_init(struct raft_io *io, struct raft_uv_transport *transport, uv_loop_t *loop,
                 const char *folder)
{
    *transport = (struct raft_uv_transport){
        .init = dummy_init,
        .listen = dummy_listen,
        .connect = dummy_connect,
        .close = dummy_close,
    };
    int rv = raft_uv_init(io, loop, folder, transport);
    if (rv != 0) {
        return rv;
    }
    io->version = 2;
    raft_uv_set_segment_size(io, SEGMENT_BYTES);
    raft_uv_set_auto_recovery(io, false);
    rv = raft_uv_set_snapshot_compression(io, false);
    if (rv != 0) {
        raft_uv_close(io);
    }
    return rv;
}

/* SplitMix64 (Steele, Lea, Flood 2014): only spreads elections. */
static uint64_t random_next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ULL;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static struct uv_host *host_of(struct raft_io *io)
{
    return (struct uv_host *)(void *)io; /* base.io is its first field */
}

static int host_random(struct raft_io *io, int min, int max)
{
    if (max <= min) {
        return min;
    }
    uint64_t range = (uint64_t)((int64_t)max - min);
    return min + (int)(random_next(&host_of(io)->random) % range);
}

/* raft_uv 0.15 calls back again when the writer of an older segment is closed last; libraft
 * would free its log twice. */
static void host_disk_closed(struct raft_io *io)
{
    struct uv_host *h = host_of(io);
    if (!h->disk_closed) {
        h->disk_closed = true;
        h->closed(io);
    }
}

/* Completion calls come before raft_uv's close callback, at which libraft frees its log. */
static void host_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct uv_host *h = host_of(io);
    outbox_cancel(h->base.outbox);
    h->closed = cb;
    h->disk_close(io, host_disk_closed);
}

static void host_idle(uv_idle_t *handle)
{
    (void)handle; /* being active is all it is for: the loop does not wait */
}

static void host_wake(struct replica_host *base)
{
    struct uv_host *h = (struct uv_host *)base;
    if (!h->leaving) {
        (void)uv_idle_start(&h->idle, host_idle);
    }
}

/* Leaves the folder, with the last mark; the chores that are left are done here and now. */
static void host_free(struct uv_host *h)
{
    (void)slow_ends_take(&h->chores.ends);
    chores_run(&h->chores);
    slow_ends_leave();
    (void)close(h->lock);
    mem_free(h);
}

/* ---- Chores ---- */

static void host_gone(struct uv_host *h);

static void chore_run(uv_work_t *work)
{
    struct uv_host *h = work->data;
    chores_run(&h->chores);
}

static void chore_found(struct uv_host *h)
{
    h->base.space_known = h->chores.found_space;
    h->base.free_bytes = h->chores.found.free_bytes;
    h->base.total_bytes = h->chores.found.total_bytes;
}

static void chore_done(uv_work_t *work, int status)
{
    struct uv_host *h = work->data;
    (void)status; /* nothing cancels it */
    h->chore_runs = false;
    chore_found(h);
    host_gone(h);
}

static void host_chores(struct uv_host *h)
{
    if (h->chore_runs) {
        return;
    }
    struct chores *c = &h->chores;
    struct replica *r = h->base.replica;
    bool any = slow_ends_take(&c->ends);
    uint64_t now_ms = uv_now(h->idle.loop);
    if (now_ms >= h->chores_due_ms) {
        h->chores_due_ms = now_ms + CHORES_MS;
        c->space = true;
        c->mark = replica_mark(r);
        any = true;
    }
    if (!any) {
        return;
    }
    h->chore.data = h;
    if (uv_queue_work(h->idle.loop, &h->chore, chore_run, chore_done) == 0) {
        h->chore_runs = true;
        h->handles++;
    }
}

static void host_turn(struct uv_host *h)
{
    if (h->leaving) {
        return;
    }
    bool again = replica_turn(h->base.replica);
    if (h->leaving) {
        return;
    }
    if (!again) {
        (void)uv_idle_stop(&h->idle);
    }
    host_chores(h);
}

static void host_prepare(uv_prepare_t *handle)
{
    host_turn(handle->data);
}

static void host_check(uv_check_t *handle)
{
    host_turn(handle->data);
}

static void host_gone(struct uv_host *h)
{
    CHECK(h->handles > 0);
    h->handles--;
    if (h->handles > 0) {
        return;
    }
    raft_uv_close(&h->base.io);
    struct replica *r = h->base.replica;
    if (r != NULL) {
        h->chores.mark = replica_mark(r);
        h->chores.space = true;
    }
    host_free(h);
    if (r != NULL) {
        replica_released(r);
    }
}

static void host_handle_closed(uv_handle_t *handle)
{
    host_gone(handle->data);
}

static void host_leave(struct uv_host *h)
{
    CHECK(!h->leaving);
    h->leaving = true;
    uv_close((uv_handle_t *)&h->prepare, host_handle_closed);
    uv_close((uv_handle_t *)&h->check, host_handle_closed);
    uv_close((uv_handle_t *)&h->idle, host_handle_closed);
}

static void host_release(struct replica_host *base)
{
    host_leave((struct uv_host *)base);
}

static void host_abandon(struct replica_host *base)
{
    base->replica = NULL; /* freed by who made it */
    host_leave((struct uv_host *)base);
}

static void host_handles_init(struct uv_host *h, uv_loop_t *loop)
{
    /* None of these can fail. */
    (void)uv_prepare_init(loop, &h->prepare);
    (void)uv_check_init(loop, &h->check);
    (void)uv_idle_init(loop, &h->idle);
    h->prepare.data = h;
    h->check.data = h;
    h->idle.data = h;
    h->handles = 3;
    (void)uv_prepare_start(&h->prepare, host_prepare);
    (void)uv_check_start(&h->check, host_check);
}

static uint64_t seed_of(const struct replica_config *config)
{
    uint64_t seed = config->random_seed;
    if (seed == 0 && uv_random(NULL, NULL, &seed, sizeof seed, 0, NULL) != 0) {
        seed = uv_hrtime() ^ config->id << 48;
    }
    return seed;
}

/* Before anything is written: when not even the next segments fit, the ballast makes way, so that
 * the member can start, answer and be helped; it takes no proposals below the mark. */
static void host_space(struct uv_host *h, const struct replica_config *config)
{
    struct chores *c = &h->chores;
    chores_init(c, config->folder);
    c->ballast_bytes = config->ballast_bytes;
    c->keep_free = config->free_bytes_min + SPACE_TO_START;
    h->base.mark = folder_mark_read(config->folder);
    c->mark = h->base.mark;
    c->written = h->base.mark;
    struct folder_space space;
    if (status_is_ok(folder_space_read(config->folder, &space)) &&
        space.free_bytes < SPACE_TO_START && folder_ballast_drop(config->folder)) {
        LOG_WARN("disk nearly full, the ballast was given up", LOG_STR("folder", config->folder),
                 LOG_UINT("free_mib", space.free_bytes >> 20));
    }
    chores_run(c);
    chore_found(h);
}

struct status replica_open(struct replica **out, struct uv_loop_s *loop,
                           const struct replica_config *config, const struct replica_events *events,
                           struct errmsg *msg)
{
    TRY(replica_config_check(config, msg));
    TRY(folder_check(config->folder, msg));
    int lock;
    TRY(folder_lock(config->folder, &lock, msg));
    struct status filled = folder_fill_segments(config->folder, SEGMENT_BYTES, msg);
    if (!status_is_ok(filled)) {
        (void)close(lock);
        return filled;
    }
    struct uv_host *h = mem_zalloc(1, sizeof *h);
    if (h == NULL) {
        (void)close(lock);
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    h->lock = lock;
    slow_ends_enter();
    host_space(h, config);
    int rv = uv_disk_init(&h->base.io, &h->transport, loop, config->folder);
    if (rv != 0) {
        struct status s = status_fail(msg, status_from_raft(rv).code, "open %s: %s", config->folder,
                                      h->base.io.errmsg);
        host_free(h);
        return s;
    }
    h->random = seed_of(config);
    h->disk_close = h->base.io.close;
    h->base.io.close = host_close;
    h->base.io.send = replica_host_send;
    h->base.io.random = host_random;
    h->base.wake = host_wake;
    h->base.release = host_release;
    h->base.abandon = host_abandon;
    host_handles_init(h, loop);
    return replica_create(out, &h->base, config, events, msg);
}

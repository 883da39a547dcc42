#include "scheduler/replica/uv_host.h"

#include "common/check.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

enum { SEGMENT_BYTES = 32 << 20 };

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
    unsigned handles;     /* not yet closed */
    bool leaving;         /* the handles are being closed */
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

static void host_turn(struct uv_host *h)
{
    if (!h->leaving && !replica_turn(h->base.replica) && !h->leaving) {
        (void)uv_idle_stop(&h->idle);
    }
}

static void host_prepare(uv_prepare_t *handle)
{
    host_turn(handle->data);
}

static void host_check(uv_check_t *handle)
{
    host_turn(handle->data);
}

static void host_handle_closed(uv_handle_t *handle)
{
    struct uv_host *h = handle->data;
    CHECK(h->handles > 0);
    h->handles--;
    if (h->handles > 0) {
        return;
    }
    raft_uv_close(&h->base.io);
    struct replica *r = h->base.replica;
    mem_free(h);
    if (r != NULL) {
        replica_released(r);
    }
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

struct status replica_open(struct replica **out, struct uv_loop_s *loop,
                           const struct replica_config *config, const struct replica_events *events,
                           struct errmsg *msg)
{
    TRY(replica_config_check(config, msg));
    struct uv_host *h = mem_zalloc(1, sizeof *h);
    if (h == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    int rv = uv_disk_init(&h->base.io, &h->transport, loop, config->folder);
    if (rv != 0) {
        struct status s = status_fail(msg, status_from_raft(rv).code, "open %s: %s", config->folder,
                                      h->base.io.errmsg);
        mem_free(h);
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

#include "agent/log_server.h"

#include "agent/cell/logring.h"
#include "common/check.h"
#include "common/mem.h"

#include <string.h>

#include <utlist.h>

struct follower {
    uint64_t peer;
    uint64_t request;
    struct id128 instance;
    bool follow;
    uint64_t tail_bytes;
    bool open; /* the ring is; a cell that starts makes it a little later */
    struct logring ring;
    uint64_t offset;
    struct follower *prev, *next;
};

struct log_server {
    uv_timer_t tick;
    const struct instances *instances;
    const char *node;
    struct log_server_env env;
    struct follower *followers;
    size_t followers_count;
    struct buffer scratch;
};

static void on_tick(uv_timer_t *timer);

static void follower_free(struct log_server *l, struct follower *f)
{
    DL_DELETE(l->followers, f);
    l->followers_count--;
    logring_close(&f->ring);
    mem_free(f);
    if (l->followers == NULL) {
        (void)uv_timer_stop(&l->tick);
    }
}

static bool log_send(struct log_server *l, uint64_t peer, uint64_t request,
                     const struct log_data *d)
{
    struct message m = {.type = MESSAGE_LOG_DATA, .request = request, .log_data = *d};
    m.log_data.node = l->node;
    return l->env.send(l->env.data, peer, &m);
}

static void log_fail(struct log_server *l, uint64_t peer, const struct message *m,
                     enum status_code code, const char *text)
{
    const struct log_data d = {
        .code = (uint32_t)code, .message = text, .instance = m->logs.instance, .end = true};
    (void)log_send(l, peer, m->request, &d);
}

/* Opens the ring where it is now; the reading begins tail_bytes before its end. */
static bool ring_open(struct log_server *l, struct follower *f, bool *alive)
{
    char path[INSTANCE_MESSAGE_BYTES_MAX + 4096];
    if (!status_is_ok(instances_log(l->instances, f->instance, path, sizeof path, alive))) {
        *alive = false;
        return f->open;
    }
    if (f->open) {
        return true;
    }
    if (!status_is_ok(logring_open(&f->ring, path, NULL))) {
        return false;
    }
    f->open = true;
    uint64_t end = logring_end(&f->ring);
    if (f->tail_bytes != 0 && end > f->tail_bytes) {
        f->offset = end - f->tail_bytes;
    }
    return true;
}

/* Sends what there is. True when all has been read; false when more waits or the ring cannot be
 * read. */
static bool drain(struct log_server *l, struct follower *f, bool *broken)
{
    for (unsigned n = 0; n < LOGS_CHUNKS_TICK_MAX; n++) {
        if (l->env.queued(l->env.data, f->peer) > LOGS_QUEUE_BYTES_MAX) {
            return false;
        }
        uint64_t before = f->offset;
        uint64_t missed = 0;
        l->scratch.size = 0;
        if (!status_is_ok(
                logring_read(&f->ring, &f->offset, LOGS_CHUNK_BYTES, &l->scratch, &missed))) {
            *broken = true;
            return false;
        }
        if (l->scratch.size == 0) {
            return true;
        }
        const struct log_data d = {
            .message = "",
            .instance = f->instance,
            .offset = f->offset - l->scratch.size,
            .missed = missed,
            .data = bytes_of(l->scratch.data, l->scratch.size),
        };
        if (!log_send(l, f->peer, f->request, &d)) {
            f->offset = before;
            return false;
        }
    }
    return false;
}

static void follower_end(struct log_server *l, struct follower *f, enum status_code code,
                         const char *text)
{
    const struct log_data d = {.code = (uint32_t)code,
                               .message = text,
                               .instance = f->instance,
                               .offset = f->offset,
                               .end = true};
    (void)log_send(l, f->peer, f->request, &d);
    follower_free(l, f);
}

/* One step of one follower. */
static void follower_step(struct log_server *l, struct follower *f)
{
    bool alive = false;
    bool broken = false;
    bool open = ring_open(l, f, &alive);
    bool all = open && drain(l, f, &broken);
    if (broken) {
        follower_end(l, f, STATUS_IO, "the log cannot be read");
    } else if ((all && !(f->follow && alive)) || (!open && !alive)) {
        follower_end(l, f, STATUS_OK, "");
    } else if (!open && !f->follow) {
        follower_end(l, f, STATUS_OK, ""); /* the cell has not made it: nothing was written */
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct log_server *l = timer->data;
    struct follower *f;
    struct follower *tmp;
    DL_FOREACH_SAFE(l->followers, f, tmp) {
        follower_step(l, f);
    }
}

static void logs_stop(struct log_server *l, uint64_t peer, uint64_t request)
{
    struct follower *f;
    struct follower *tmp;
    DL_FOREACH_SAFE(l->followers, f, tmp) {
        if (f->peer == peer && f->request == request) {
            follower_free(l, f);
        }
    }
}

void log_server_receive(struct log_server *l, uint64_t peer, const struct message *m)
{
    if (m->logs.stop) {
        logs_stop(l, peer, m->request);
        return;
    }
    char path[INSTANCE_MESSAGE_BYTES_MAX + 4096];
    bool alive;
    if (!status_is_ok(instances_log(l->instances, m->logs.instance, path, sizeof path, &alive))) {
        log_fail(l, peer, m, STATUS_NOT_FOUND, "the instance is not on this node");
        return;
    }
    if (l->followers_count >= LOGS_FOLLOWERS_MAX) {
        log_fail(l, peer, m, STATUS_LIMIT, "too many follow logs on this node");
        return;
    }
    struct follower *f = mem_zalloc(1, sizeof *f);
    if (f == NULL) {
        log_fail(l, peer, m, STATUS_NOMEM, "out of memory");
        return;
    }
    *f = (struct follower){.peer = peer,
                           .request = m->request,
                           .instance = m->logs.instance,
                           .follow = m->logs.follow,
                           .tail_bytes = m->logs.tail_bytes};
    if (l->followers == NULL) {
        (void)uv_timer_start(&l->tick, on_tick, LOGS_TICK_MS, LOGS_TICK_MS);
    }
    DL_APPEND(l->followers, f);
    l->followers_count++;
    follower_step(l, f);
}

void log_server_peer_close(struct log_server *l, uint64_t peer)
{
    struct follower *f;
    struct follower *tmp;
    DL_FOREACH_SAFE(l->followers, f, tmp) {
        if (f->peer == peer) {
            follower_free(l, f);
        }
    }
}

struct status log_server_open(struct log_server **out, uv_loop_t *loop,
                              const struct instances *instances, const char *node,
                              const struct log_server_env *env)
{
    struct log_server *l = mem_zalloc(1, sizeof *l);
    if (l == NULL) {
        return status_of(STATUS_NOMEM);
    }
    *l = (struct log_server){.instances = instances, .node = node, .env = *env};
    CHECK(uv_timer_init(loop, &l->tick) == 0);
    l->tick.data = l;
    *out = l;
    return status_ok();
}

static void on_closed(uv_handle_t *handle)
{
    mem_free(handle->data);
}

void log_server_close(struct log_server *l)
{
    if (l == NULL) {
        return;
    }
    while (l->followers != NULL) {
        follower_free(l, l->followers);
    }
    buffer_close(&l->scratch);
    uv_close((uv_handle_t *)&l->tick, on_closed);
}

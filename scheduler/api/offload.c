#include "scheduler/api/offload.h"

#include "common/check.h"

static void on_thread(void *arg)
{
    struct offload *o = arg;
    o->work(o->data);
    atomic_store(&o->ended, true);
    CHECK(uv_async_send(&o->async) == 0);
}

static void on_closed(uv_handle_t *handle)
{
    struct offload *o = handle->data;
    o->done(o->data);
}

static void on_async(uv_async_t *async)
{
    struct offload *o = async->data;
    if (o->awake != NULL) {
        o->awake(o->data);
    }
    if (atomic_load(&o->ended)) {
        offload_join(o);
        uv_close((uv_handle_t *)&o->async, on_closed);
    }
}

struct status offload_start(struct offload *o, uv_loop_t *loop, struct errmsg *msg)
{
    o->joined = false;
    atomic_init(&o->ended, false);
    if (uv_async_init(loop, &o->async, on_async) != 0) {
        return status_fail(msg, STATUS_UNAVAILABLE, "no more file descriptors");
    }
    o->async.data = o;
    if (uv_thread_create(&o->thread, on_thread, o) != 0) {
        o->joined = true; /* There is none; done tells the owner, who sees that nothing was done. */
        atomic_store(&o->ended, true);
        CHECK(uv_async_send(&o->async) == 0);
    }
    return status_ok();
}

void offload_wake(struct offload *o)
{
    CHECK(uv_async_send(&o->async) == 0);
}

void offload_join(struct offload *o)
{
    if (!o->joined) {
        CHECK(uv_thread_join(&o->thread) == 0);
        o->joined = true;
    }
}

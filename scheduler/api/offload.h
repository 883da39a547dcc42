/* Long work on a thread of its own, so that libuv's few threads stay free for the log's disk. */
#ifndef SCHEDULER_API_OFFLOAD_H
#define SCHEDULER_API_OFFLOAD_H

#include "common/status.h"

#include <stdatomic.h>
#include <uv.h>

/* In memory of the owner until done was called; zeros but for the functions and data. */
struct offload {
    void (*work)(void *data);  /* on the thread */
    void (*awake)(void *data); /* on the loop, after offload_wake; may be NULL */
    void (*done)(void *data);  /* on the loop, exactly once, the last */
    void *data;
    uv_thread_t thread;
    uv_async_t async;
    atomic_bool ended;
    bool joined;
};

/* Sets off work. UNAVAILABLE when there can be none; done is not called then. */
NODISCARD struct status offload_start(struct offload *o, uv_loop_t *loop, struct errmsg *msg);
/* From the thread: awake is called soon. */
void offload_wake(struct offload *o);
/* Blocks until work has returned; awake and done come later all the same. */
void offload_join(struct offload *o);

#endif

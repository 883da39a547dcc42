/* Work on another thread, through the host: libraft's (encoding a snapshot) and ours (freeing what
 * would take long). Counted, so that closing can wait for libraft's: its completion may begin a
 * write, which a closed disk would not take.
 *
 * Thread: the loop's; the work itself runs on another. */
#ifndef SCHEDULER_REPLICA_WORKS_H
#define SCHEDULER_REPLICA_WORKS_H

#include "scheduler/replica/guard.h"

struct works {
    struct raft_io *io;
    struct guard *guard;
    int (*begin)(struct raft_io *io, struct raft_io_async_work *req, raft_io_async_work_cb cb);
    unsigned running;
    bool ended; /* no more: everything is done at once, on the calling thread */
};

/* Buffers to free together with their array. */
struct works_garbage {
    struct raft_buffer *bufs;
    size_t count;
};

/* Over the host's async_work, before it is replaced. */
void works_init(struct works *w, struct raft_io *io, struct guard *guard);
/* From the loop, when work may not be begun any more: libraft is about to be closed. */
void works_end(struct works *w);

/* Runs libraft's request; `done` is called on the loop after it and before its callback. */
NODISCARD int works_run(struct works *w, struct raft_io_async_work *req, raft_io_async_work_cb cb,
                        void (*done)(void *data, int status), void *data);
/* Frees them elsewhere; here, when they are few bytes or that is not possible. */
void works_free(struct works *w, struct works_garbage garbage);

#endif

/* Takes io_destroy off the loop. raft_uv makes one kernel AIO context a log segment and destroys it
 * on the loop when the segment is full or a snapshot is taken; the kernel then waits for an RCU
 * grace period, 25 to 40 ms in which nothing commits. raft_uv reaches the kernel through libc's
 * syscall(), which the file beside this one replaces: everything is passed on, but io_destroy only
 * takes note, and the host has another thread do it.
 *
 * Thread: contexts are noted a thread; the thread that runs raft_uv takes them. */
#ifndef SCHEDULER_REPLICA_AIO_ENDS_H
#define SCHEDULER_REPLICA_AIO_ENDS_H

#include <stdbool.h>
#include <stddef.h>

enum { AIO_ENDS_MAX = 32 }; /* noted a thread; over it they are destroyed at once */

struct aio_ends {
    unsigned long contexts[AIO_ENDS_MAX];
    size_t count;
};

/* Contexts are noted on this thread while at least one host is counted. */
void aio_ends_enter(void);
void aio_ends_leave(void);
/* Moves what this thread has noted to `out`; false when that is nothing. */
bool aio_ends_take(struct aio_ends *out);
/* Destroys them; waits for the kernel. On any thread. */
void aio_ends_destroy(const struct aio_ends *ends);

#endif

/* What raft_uv does that takes the kernel long, done otherwise:
 *   - on the loop it makes one kernel AIO context a log segment and destroys it when the segment is
 *     full or a snapshot is taken; the kernel then waits for an RCU grace period, 25 to 40 ms in
 *     which nothing commits;
 *   - on the loop it removes old snapshots and segments, and the kernel gives back their pages and
 *     blocks: 35 ms for a snapshot of 100 MiB;
 *   - on a worker it writes a snapshot whole and then has it synced, and the log's writes wait in
 *     the disk's queue behind all of it: 120 ms for 100 MiB;
 *   - on a worker it allocates a segment without writing it. The first write of each block then
 *     waits for the file system's journal, is refused where it may not wait, and is made again by a
 *     worker.
 * raft_uv and libuv reach the kernel through libc's syscall(), unlink(), fsync() and
 * posix_fallocate(), which the file beside this one replaces. Everything is passed on, but
 * io_destroy only takes note, and a file that is unlinked is kept open, so that its end comes with
 * the last close; the host has another thread do both. A large file is written back piece by piece
 * before it is synced. A segment is filled with zeros when it is allocated, long before it is
 * needed.
 *
 * Thread: noted a thread; the thread that runs raft_uv takes them. */
#ifndef SCHEDULER_REPLICA_SLOW_ENDS_H
#define SCHEDULER_REPLICA_SLOW_ENDS_H

#include <stdbool.h>
#include <stddef.h>

enum { SLOW_ENDS_PIECE_BYTES = 2 << 20 };   /* written back at once */
enum { SLOW_ENDS_SEGMENT_BYTES = 1 << 20 }; /* what is allocated at once and is a log segment */
enum { SLOW_ENDS_MAX = 32 };                /* of each, noted a thread; over it they end at once */

struct slow_ends {
    unsigned long contexts[SLOW_ENDS_MAX]; /* of kernel AIO */
    int files[SLOW_ENDS_MAX];              /* without a name */
    size_t contexts_count, files_count;
};

/* Ends are noted on this thread while at least one host is counted. */
void slow_ends_enter(void);
void slow_ends_leave(void);
/* Moves what this thread has noted to `out`; false when that is nothing. */
bool slow_ends_take(struct slow_ends *out);
/* Destroys and closes them; waits for the kernel. They are none then. On any thread. */
void slow_ends_finish(struct slow_ends *ends);

#endif

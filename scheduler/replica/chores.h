/* What the disk needs now and then and what may take long, done together on another thread:
 *   - kernel AIO contexts are destroyed (aio_ends.h);
 *   - files that raft_uv will remove are kept open, since removing a large file takes as long as
 *     giving back its pages and blocks, and that is done at the last close, here. raft_uv removes
 *     on the loop: 35 ms for a snapshot of 100 MiB;
 *   - the mark is written, the free space read, the ballast made.
 *
 * Thread: chores_run on any thread, the rest on the loop's, never both at a time. */
#ifndef SCHEDULER_REPLICA_CHORES_H
#define SCHEDULER_REPLICA_CHORES_H

#include "scheduler/replica/aio_ends.h"
#include "scheduler/replica/folder.h"

#include <sys/types.h>

enum { CHORES_FILES_MAX = 64, CHORES_PATH_BYTES_MAX = 4096 };

struct chores {
    char folder[CHORES_PATH_BYTES_MAX];
    uint64_t ballast_bytes; /* 0: none */
    uint64_t keep_free;     /* beside the ballast */
    /* For the next run. */
    struct aio_ends ends;
    bool files; /* look for files to keep open, and close those that are gone */
    bool space; /* read the free space and write the mark */
    uint64_t mark;
    /* What the last run found. */
    struct folder_space found;
    bool found_space;

    uint64_t written; /* as mark */
    struct {
        int fd;
        ino_t inode;
    } kept[CHORES_FILES_MAX];
    size_t kept_count;
};

void chores_init(struct chores *c, const char *folder);
/* Does what is set for the next run, and unsets it. */
void chores_run(struct chores *c);
/* Closes the files. */
void chores_close(struct chores *c);

#endif

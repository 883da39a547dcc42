/* What the disk needs now and then and what may take long, done together on another thread:
 *   - kernel AIO contexts are destroyed, removed files closed (slow_ends.h);
 *   - the mark is written, the free space read, the ballast made.
 *
 * Thread: chores_run on any thread, the rest on the loop's, never both at a time. */
#ifndef SCHEDULER_REPLICA_CHORES_H
#define SCHEDULER_REPLICA_CHORES_H

#include "scheduler/replica/folder.h"
#include "scheduler/replica/slow_ends.h"

enum { CHORES_PATH_BYTES_MAX = 4096 };

struct chores {
    char folder[CHORES_PATH_BYTES_MAX];
    uint64_t ballast_bytes; /* 0: none */
    uint64_t keep_free;     /* beside the ballast */
    /* For the next run. */
    struct slow_ends ends;
    bool space; /* read the free space and write the mark */
    uint64_t mark;
    /* What the last run found. */
    struct folder_space found;
    bool found_space;

    uint64_t written; /* as mark */
};

void chores_init(struct chores *c, const char *folder);
/* Does what is set for the next run, and unsets it. */
void chores_run(struct chores *c);

#endif

/* A member's folder, beside what raft_uv keeps in it:
 *
 *     lock            held by the process that uses the folder
 *     mark            the last entry known to be committed and on this disk, written about once a
 *                     second
 *     ballast         space that is given up when the disk is full
 *     rejoin          the member was wiped: it waits to be added, and founds no cluster
 *     bootstrap.tmp/  the first configuration, while it is made (bootstrap.c)
 *
 * raft_uv takes a log that ends too early for one that was torn by a crash, and forgets a lost
 * metadata file; the mark and folder_check tell such a folder from a good one.
 *
 * Thread: any, one at a time. */
#ifndef SCHEDULER_REPLICA_FOLDER_H
#define SCHEDULER_REPLICA_FOLDER_H

#include "common/status.h"

#include <stdbool.h>
#include <stdint.h>

#define FOLDER_LOCK "lock"
#define FOLDER_MARK "mark"
#define FOLDER_BALLAST "ballast"
#define FOLDER_REJOIN "rejoin"
#define FOLDER_STAGING "bootstrap.tmp"

struct folder_space {
    uint64_t free_bytes; /* without the ballast */
    uint64_t total_bytes;
};

/* CORRUPT with a line that names the file and says what to do, when files are missing that cannot
 * be missing after a crash. An empty folder is fine. IO. */
NODISCARD struct status folder_check(const char *folder, struct errmsg *msg);
/* Takes the lock; the descriptor holds it. CONFLICT when another process has it. IO. */
NODISCARD struct status folder_lock(const char *folder, int *fd, struct errmsg *msg);

/* Open segments have their full size from the start. One that has been cut inside an entry makes
 * raft_uv 0.15 free memory twice when it loads it; made full again, by zeros, it is a log that ends
 * early, which the mark tells from a good one. The folder is locked. IO. */
NODISCARD struct status folder_fill_segments(const char *folder, uint64_t segment_bytes,
                                             struct errmsg *msg);

/* The index in the mark; 0 when there is none or a crash has torn it. */
uint64_t folder_mark_read(const char *folder);
/* Not synchronised with the disk: a mark that is lost only checks less. */
NODISCARD struct status folder_mark_write(const char *folder, uint64_t index);
void folder_mark_remove(const char *folder);

NODISCARD struct status folder_space_read(const char *folder, struct folder_space *out);
/* Makes the ballast when it is missing and `keep_free` bytes are left beside it. Where the file
 * system cannot reserve space there is none. */
void folder_ballast_make(const char *folder, uint64_t bytes, uint64_t keep_free);
/* True when there was one. */
bool folder_ballast_drop(const char *folder);

/* Empties the staging folder and removes it; what is not there is fine, what cannot be removed
 * stays. */
void folder_staging_remove(const char *folder);

/* The file of the newest snapshot, for messages; the folder itself when there is none. */
void folder_newest_snapshot(const char *folder, char *out, size_t capacity);

/* What to do about a damaged folder, after a sentence that says what is damaged. */
#define FOLDER_CURE                                                                                \
    "this copy is damaged: take the scheduler out with skep cluster remove, run skep-scheduler "   \
    "wipe "                                                                                        \
    "on it, start it and add it again (docs/operations.md, \"A damaged disk\")"

#endif

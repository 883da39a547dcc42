/* What waits for the disk, and when no more is taken. Everything that is proposed or received is in
 * memory until it has been written, and everything applied until a snapshot replaces it, so a disk
 * that stalls or fills up must be felt by those who propose, long before memory or disk run out:
 *   - entries not yet written: over PRESSURE_UNWRITTEN_BYTES_MAX a leader refuses proposals, a
 *     follower drops the leader's entries, as a network would;
 *   - entries not yet in a snapshot: over PRESSURE_LOG_BYTES_SNAPSHOT one is taken early, over
 *     PRESSURE_LOG_BYTES_MAX proposals are refused;
 *   - free space: below the mark proposals are refused; below half of it a follower drops entries,
 *     too, and no snapshot is begun that may not fit.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_PRESSURE_H
#define SCHEDULER_REPLICA_PRESSURE_H

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

#define PRESSURE_UNWRITTEN_BYTES_MAX (UINT64_C(64) << 20)
#define PRESSURE_LOG_BYTES_SNAPSHOT (UINT64_C(128) << 20)
#define PRESSURE_LOG_BYTES_MAX (UINT64_C(512) << 20)
#define PRESSURE_TRAILING_BYTES (UINT64_C(64) << 20) /* kept in the log behind a snapshot */
enum { PRESSURE_WHY_BYTES_MAX = 320 };

struct pressure {
    uint64_t free_bytes_min; /* 0: no mark */
    uint64_t threshold;      /* of a snapshot, in entries */
    uint64_t trailing;
    const char *folder; /* for messages; borrowed, may be NULL */

    uint64_t appended; /* index up to which entries are counted in unwritten_bytes */
    uint64_t stored;   /* and up to which they have been taken out again */
    uint64_t unwritten_bytes;
    uint64_t log_bytes;      /* applied since the last snapshot was pinned */
    uint64_t log_entries;    /* likewise */
    uint64_t snapshot_bytes; /* of the last snapshot */
    uint64_t free_bytes;     /* UINT64_MAX: not known */
    uint64_t total_bytes;
    bool disk_low;
    char why[PRESSURE_WHY_BYTES_MAX];
};

/* Counts what has been appended and written since the last call. */
void pressure_follow(struct pressure *p, const struct raft *raft);
/* An entry has been applied. */
void pressure_applied(struct pressure *p, struct raft *raft, uint64_t bytes);
/* A snapshot has been pinned: how much of the log stays behind it. */
void pressure_pinned(struct pressure *p, struct raft *raft);
/* The free space has been read. */
void pressure_space(struct pressure *p, uint64_t free_bytes, uint64_t total_bytes);

/* Why no proposal is taken; NULL: they are. Good until the next call. */
const char *pressure_refuses(struct pressure *p);
/* Whether a leader's entries are to be dropped. */
bool pressure_drops(const struct pressure *p);
/* Whether a snapshot as large as the last is likely to fit on the disk. */
bool pressure_snapshot_fits(const struct pressure *p);

/* The entry in the log; NULL when it is not there. */
const struct raft_entry *log_entry(const struct raft_log *log, uint64_t index);

#endif

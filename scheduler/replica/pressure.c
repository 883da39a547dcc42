#include "scheduler/replica/pressure.h"

#include "common/check.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    SNAPSHOT_BYTES_PER_ENTRY = 128,
    SNAPSHOT_THRESHOLD_MAX = 262144,
    TRAILING_MIN = 256,
    SNAPSHOT_ROOM_BYTES = 64 << 20, /* segments that are begun meanwhile */
};

const struct raft_entry *log_entry(const struct raft_log *log, uint64_t index)
{
    size_t count =
        log->back >= log->front ? log->back - log->front : log->back + log->size - log->front;
    if (index <= log->offset || index - log->offset > count) {
        return NULL;
    }
    return &log->entries[(log->front + (size_t)(index - log->offset) - 1) % log->size];
}

static void count_anew(struct pressure *p, uint64_t from)
{
    p->appended = from;
    p->stored = from;
    p->unwritten_bytes = 0;
}

void pressure_follow(struct pressure *p, const struct raft *raft)
{
    uint64_t last = raft_last_index((struct raft *)raft); /* only reads */
    uint64_t stored = raft->last_stored < last ? raft->last_stored : last;
    if (last < p->appended || stored < p->stored) { /* truncated, or another snapshot */
        count_anew(p, stored);
    }
    while (p->appended < last) {
        const struct raft_entry *e = log_entry(&raft->log, p->appended + 1);
        if (e == NULL) {
            count_anew(p, last);
            return;
        }
        p->unwritten_bytes += e->buf.len;
        p->appended++;
    }
    while (p->stored < stored) {
        const struct raft_entry *e = log_entry(&raft->log, p->stored + 1);
        if (e == NULL || e->buf.len > p->unwritten_bytes) {
            count_anew(p, stored);
            return;
        }
        p->unwritten_bytes -= e->buf.len;
        p->stored++;
    }
}

static unsigned bounded(uint64_t value)
{
    return value > UINT32_MAX ? UINT32_MAX : (unsigned)value;
}

void pressure_applied(struct pressure *p, struct raft *raft, uint64_t bytes)
{
    bool early = p->log_bytes >= PRESSURE_LOG_BYTES_SNAPSHOT;
    p->log_bytes += bytes;
    p->log_entries++;
    if (!early && p->log_bytes >= PRESSURE_LOG_BYTES_SNAPSHOT) {
        raft_set_snapshot_threshold(raft, 1);
    }
}

void pressure_pinned(struct pressure *p, struct raft *raft)
{
    uint64_t each = p->log_entries == 0 ? 0 : p->log_bytes / p->log_entries;
    uint64_t fit = each == 0 ? p->trailing : PRESSURE_TRAILING_BYTES / each;
    uint64_t least = p->trailing < TRAILING_MIN ? p->trailing : TRAILING_MIN;
    uint64_t trailing = fit < least ? least : fit < p->trailing ? fit : p->trailing;
    raft_set_snapshot_trailing(raft, bounded(trailing));
    /* A large state is written less often: each entry pays for a part of the next snapshot. */
    uint64_t fair = p->snapshot_bytes / SNAPSHOT_BYTES_PER_ENTRY;
    fair = fair < SNAPSHOT_THRESHOLD_MAX ? fair : SNAPSHOT_THRESHOLD_MAX;
    raft_set_snapshot_threshold(raft, bounded(fair > p->threshold ? fair : p->threshold));
    p->log_bytes = 0;
    p->log_entries = 0;
}

void pressure_space(struct pressure *p, uint64_t free_bytes, uint64_t total_bytes)
{
    p->free_bytes = free_bytes;
    p->total_bytes = total_bytes;
    uint64_t mark = p->free_bytes_min;
    /* Opens again a little later than it closes, so that it does not flutter. */
    p->disk_low = free_bytes < (p->disk_low ? mark + mark / 8 : mark);
}

const char *pressure_refuses(struct pressure *p)
{
    if (p->disk_low) {
        (void)snprintf(p->why, sizeof p->why,
                       "the scheduler's disk is nearly full: %" PRIu64 " MiB of %" PRIu64
                       " MiB are free at %.160s, %" PRIu64 " must stay free; make room there",
                       p->free_bytes >> 20, p->total_bytes >> 20,
                       p->folder == NULL ? "its data folder" : p->folder, p->free_bytes_min >> 20);
        return p->why;
    }
    if (p->unwritten_bytes > PRESSURE_UNWRITTEN_BYTES_MAX) {
        (void)snprintf(p->why, sizeof p->why,
                       "the scheduler's disk is too slow: %" PRIu64 " MiB wait to be written",
                       p->unwritten_bytes >> 20);
        return p->why;
    }
    if (p->log_bytes > PRESSURE_LOG_BYTES_MAX) {
        (void)snprintf(p->why, sizeof p->why,
                       "the scheduler's disk is too slow: %" PRIu64 " MiB wait for a snapshot",
                       p->log_bytes >> 20);
        return p->why;
    }
    return NULL;
}

bool pressure_drops(const struct pressure *p)
{
    return p->unwritten_bytes > PRESSURE_UNWRITTEN_BYTES_MAX ||
           p->free_bytes < p->free_bytes_min / 2;
}

bool pressure_snapshot_fits(const struct pressure *p)
{
    return p->free_bytes == UINT64_MAX || p->free_bytes_min == 0 ||
           p->free_bytes / 2 > p->snapshot_bytes / 2 + SNAPSHOT_ROOM_BYTES / 2;
}

/* What a simulated member has on its disk, and the changes to it.
 *
 * Thread: one. Ends the process when out of memory. */
#ifndef SIMULATIONS_SIM_DISK_H
#define SIMULATIONS_SIM_DISK_H

#include <raft.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_entry {
    uint64_t term;
    unsigned short type;
    size_t size;
    void *data;
};

struct sim_snapshot {
    uint64_t index; /* 0: none */
    uint64_t term;
    uint64_t conf_index;
    struct raft_configuration conf;
    size_t size;
    void *data;
};

struct sim_disk {
    uint64_t term;
    uint64_t vote;
    uint64_t first; /* index of entries[0] */
    struct sim_entry *entries;
    size_t count;
    size_t capacity;
    struct sim_snapshot snapshot;
};

void sim_disk_init(struct sim_disk *d);
void sim_disk_close(struct sim_disk *d);

/* Appends a copy at the end. */
void sim_disk_append(struct sim_disk *d, uint64_t term, unsigned short type, const void *data,
                     size_t size);
/* Drops the entries from that index on. */
void sim_disk_truncate(struct sim_disk *d, uint64_t index);
/* Takes a snapshot and drops entries it replaces: all when trailing is 0, else those older than
 * `trailing` before it. */
void sim_disk_snapshot(struct sim_disk *d, struct sim_snapshot *take, uint64_t trailing);
/* After a crash: a log that ends before the snapshot is dropped, as raft_uv does when it loads. */
void sim_disk_recover(struct sim_disk *d);
uint64_t sim_disk_last_index(const struct sim_disk *d);

/* Copies, for libraft to own. */
struct raft_entry *sim_disk_load_entries(const struct sim_disk *d);
struct raft_snapshot *sim_snapshot_load(const struct sim_snapshot *s);
/* A copy of what libraft wants stored. */
struct sim_snapshot sim_snapshot_of(const struct raft_snapshot *s);
void sim_snapshot_close(struct sim_snapshot *s);

#endif

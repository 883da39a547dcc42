/* libraft under a virtual clock: replicas whose loop, clock, randomness and disk belong to a
 * world that a simulator moves.
 *
 * The replicas are the real ones (scheduler/replica), over libraft; only their raft_io is
 * simulated. Messages leave by events.send and come back by replica_receive, so that loss, delay
 * and partition are the simulator's. Same seed and same calls give the same history.
 *
 *     sim_raft_new -> sim_raft_bootstrap* -> replica_open_sim*
 *         -> (sim_raft_advance | replica_* | sim_raft_crash)* -> sim_raft_free
 *
 * A disk belongs to a member id and outlives the replica: term and vote are written at once;
 * appends and truncations take time and happen in order; snapshots take longer. A crash keeps a
 * random prefix of what was on its way, down to single entries.
 *
 * Thread: one. */
#ifndef SIMULATIONS_SIM_IO_H
#define SIMULATIONS_SIM_IO_H

#include "scheduler/replica/replica.h"

enum { SIM_REPLICAS_MAX = 16 };

struct sim_raft;

/* How long one write takes: uniformly between the two, per operation. */
struct sim_disk_speed {
    uint64_t min_us;
    uint64_t max_us;
};

/* Ends the process when out of memory, as all of this module does. */
struct sim_raft *sim_raft_new(uint64_t seed);
/* Frees everything; replicas that are still open end as by a crash. */
void sim_raft_free(struct sim_raft *w);

/* The clock starts at one hour, so that no time is 0. */
uint64_t sim_raft_now_us(const struct sim_raft *w);
/* When something will happen next: now when there is work, UINT64_MAX when nothing will. */
uint64_t sim_raft_next_us(const struct sim_raft *w);
/* Lets everything up to and including that time happen; the clock then shows it. Not from inside
 * a callback. */
void sim_raft_advance(struct sim_raft *w, uint64_t to_us);

/* As replica_bootstrap, on the disk of config->id; config->folder is not used here. */
NODISCARD struct status sim_raft_bootstrap(struct sim_raft *w, const struct replica_config *config,
                                           const struct replica_member *members, size_t count,
                                           struct errmsg *msg);
/* As replica_open. EXISTS when that member is running. The replica is closed by replica_close or
 * sim_raft_crash. */
NODISCARD struct status replica_open_sim(struct replica **out, struct sim_raft *w,
                                         const struct replica_config *config,
                                         const struct replica_events *events, struct errmsg *msg);

/* The process of that member dies now: no callbacks, the replica is gone. Not from inside a
 * callback of that replica. */
void sim_raft_crash(struct sim_raft *w, uint64_t id);
/* Its disk is lost, too. The member must be down. */
void sim_raft_wipe(struct sim_raft *w, uint64_t id);
/* Its disk loses the end of the log, as by bit rot in an open segment: what was not known to be
 * committed, and so many entries before. The member must be down. Returns how many; 0: nothing was
 * lost, as the log holds too little. */
uint64_t sim_raft_rot(struct sim_raft *w, uint64_t id, uint64_t entries);
/* Replicas opened from now on run without these cures (enum guard_cure of guard.h). */
void sim_raft_cures_off(struct sim_raft *w, uint32_t cures);
/* Its process stands still, as under SIGSTOP, until it goes on: nothing of it happens. */
void sim_raft_pause(struct sim_raft *w, uint64_t id, bool paused);
/* From now on every write fails, or works again. */
void sim_raft_disk_fail(struct sim_raft *w, uint64_t id, bool fails);
/* So many of a million writes fail from now on; a failed append may be on the disk in part. */
void sim_raft_disk_errors(struct sim_raft *w, uint64_t id, uint32_t per_million);
/* Appends and snapshots fail; term and vote can still be written. */
void sim_raft_disk_full(struct sim_raft *w, uint64_t id, bool full);
void sim_raft_disk_speed(struct sim_raft *w, uint64_t id, struct sim_disk_speed speed);

/* What is on the disk: the index of the last entry or snapshot that would survive a crash now. */
uint64_t sim_raft_disk_last_index(const struct sim_raft *w, uint64_t id);

#endif

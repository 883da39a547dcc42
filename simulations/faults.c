#include "simulations/faults.h"

#include "simulations/agents.h"
#include "simulations/schedulers.h"
#include "simulations/spawners.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

enum {
    NORMAL_DISK_MIN_US = 100,
    NORMAL_DISK_MAX_US = 1500,
    JUMP_MS_MAX = 120000,
    ERRORS_PER_MILLION = 30000,
};

/* ---- Faults ---- */

static uint64_t fault_time(struct world *w)
{
    return world_now(w) + world_between(w, 2000, w->scenario->seconds * 1000 - 2000) * MS_US;
}

static void disk_mend(struct world *w, const struct scheduler *s)
{
    sim_raft_disk_fail(w->raft, s->id, false);
    sim_raft_disk_errors(w->raft, s->id, 0);
    sim_raft_disk_full(w->raft, s->id, false);
}

static void scheduler_back(struct world *w, void *data, uint64_t arg)
{
    (void)arg;
    struct scheduler *s = data;
    if (s->member && s->core == NULL) {
        s->disk_fails = false;
        disk_mend(w, s);
        scheduler_start(s);
    }
}

static void kill_scheduler(struct world *w, struct scheduler *s)
{
    if (s != NULL && s->core != NULL && !w->calm) {
        scheduler_crash(s);
        world_after(w, world_between(w, 100, 4000) * MS_US, scheduler_back, s, 0);
    }
}

/* A failed disk works again; a replica that has not written meanwhile never knew. */
static void disk_back(struct world *w, void *data, uint64_t arg)
{
    (void)arg;
    struct scheduler *s = data;
    if (s->core == NULL) {
        scheduler_back(w, s, 0);
    } else {
        disk_mend(w, s);
    }
}

static void fault_scheduler(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    uint64_t at = world_below(w, w->schedulers->count);
    kill_scheduler(w, &w->schedulers->each[at]);
}

static void fault_leader(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct scheduler *leader = schedulers_leader(w->schedulers);
    if (leader == NULL && !w->calm) {
        world_after(w, 100 * MS_US, fault_leader, NULL, 0);
    }
    kill_scheduler(w, leader);
}

/* The leader as often as anybody else. NULL: that one is down, or faults are over. */
static struct scheduler *pick_scheduler(struct world *w)
{
    struct scheduler *leader = schedulers_leader(w->schedulers);
    struct scheduler *s = &w->schedulers->each[world_below(w, w->schedulers->count)];
    s = leader != NULL && world_chance(w, 500) ? leader : s;
    return s->core == NULL || scheduler_paused(s) || w->calm ? NULL : s;
}

static void fault_pause_scheduler(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct scheduler *s = pick_scheduler(w);
    if (s != NULL) {
        scheduler_pause(s, world_between(w, 50, 6000) * MS_US);
    }
}

enum { DISK_FAILS, DISK_ERRORS, DISK_FULL, DISK_KINDS };

/* A write fails, now or soon: the replica stops, and comes back on a disk that works again. */
static void fault_disk_fails(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct scheduler *s = pick_scheduler(w);
    if (s != NULL) {
        uint64_t kind = world_below(w, DISK_KINDS);
        world_trace(w, "the disk of %s fails: %" PRIu64, s->name, kind);
        s->disk_fails = true;
        sim_raft_disk_fail(w->raft, s->id, kind == DISK_FAILS);
        sim_raft_disk_errors(w->raft, s->id, kind == DISK_ERRORS ? ERRORS_PER_MILLION : 0);
        sim_raft_disk_full(w->raft, s->id, kind == DISK_FULL);
        world_after(w, world_between(w, 500, 5000) * MS_US, disk_back, s, 0);
    }
}

/* The wall clock is set: forth or back, by seconds or minutes. */
static void fault_clock(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct scheduler *s = pick_scheduler(w);
    if (s != NULL) {
        uint64_t most_ms = world_chance(w, 500) ? 3000 : JUMP_MS_MAX;
        s->clock_ahead_ms = (int64_t)world_below(w, 2 * most_ms) - (int64_t)most_ms;
        world_trace(w, "the clock of %s is set to %" PRId64 " ms", s->name, s->clock_ahead_ms);
    }
}

static void transfer_done(void *data, struct status s, const char *message)
{
    struct world *w = data;
    world_trace(w, "transfer: %s %s", status_name(s.code), message);
}

static void fault_transfer(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct scheduler *leader = schedulers_leader(w->schedulers);
    struct scheduler *to = pick_scheduler(w);
    if (leader != NULL && to != NULL && to != leader && !w->calm) {
        world_trace(w, "transfer from %s to %s", leader->name, to->name);
        replica_transfer(leader->replica, to->id, transfer_done, w);
    }
}

static void agent_back(struct world *w, void *data, uint64_t arg)
{
    (void)w;
    (void)arg;
    struct agent *a = data;
    if (a->core == NULL) {
        agent_start(a);
    }
}

static void fault_agent(struct world *w, void *data, uint64_t lose)
{
    (void)data;
    struct agent *a = &w->agents->each[world_below(w, w->agents->count)];
    if (a->core == NULL || w->calm) {
        return;
    }
    if (lose != 0) {
        agent_lose(a);
    } else {
        agent_crash(a);
    }
    world_after(w, world_between(w, 100, 7000) * MS_US, agent_back, a, 0);
}

static void fault_pause_agent(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct agent *a = &w->agents->each[world_below(w, w->agents->count)];
    if (a->core != NULL && !agent_paused(a) && !w->calm) {
        agent_pause(a, world_between(w, 100, 9000) * MS_US);
    }
}

static void fault_slow_agent(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct agent *a = &w->agents->each[world_below(w, w->agents->count)];
    if (!w->calm) {
        a->endpoint->lag_us = world_between(w, 5, 800) * MS_US;
        world_trace(w, "%s is slow: %" PRIu64 " us", a->name, a->endpoint->lag_us);
    }
}

static void fault_lying_agent(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct agent *a = &w->agents->each[world_below(w, w->agents->count)];
    a->lies = !w->calm;
}

static void fault_reset(struct world *w, void *data, uint64_t arg)
{
    if (w->calm) {
        return;
    }
    network_reset_one(w->network);
    world_after(w, 1 + world_around(w, w->scenario->reset_ms) * MS_US, fault_reset, data, arg);
}

static void fault_disk(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    uint64_t id = 1 + world_below(w, w->schedulers->count);
    if (!w->calm) {
        world_trace(w, "the disk of s%" PRIu64 " is slow", id);
        sim_raft_disk_speed(w->raft, id,
                            (struct sim_disk_speed){1000, world_between(w, 2000, 100000)});
    }
}

/* ---- Partitions: of one kind around one victim; to be undone they are walked again ---- */

enum partition_kind {
    PARTITION_PEERS,      /* a scheduler does not reach the others, nor they it */
    PARTITION_DEAF,       /* a scheduler does not hear the others */
    PARTITION_DUMB,       /* the others do not hear a scheduler */
    PARTITION_CLIENTS,    /* a scheduler reaches the other schedulers and the operator only */
    PARTITION_AGENTS,     /* every third agent is cut off */
    PARTITION_ONE_AGENT,  /* an agent and one scheduler do not reach each other */
    PARTITION_DEAF_AGENT, /* an agent reaches the schedulers, and hears none of them */
    PARTITION_KINDS,
};

static void cut_pair(struct world *w, struct endpoint *a, struct endpoint *b, bool cut)
{
    network_block(w->network, a, b, cut);
    network_block(w->network, b, a, cut);
}

static void partition_set(struct world *w, enum partition_kind kind, uint64_t victim, bool cut)
{
    struct schedulers *all = w->schedulers;
    struct scheduler *s = &all->each[victim % all->count];
    for (uint32_t i = 0; i < all->count && kind <= PARTITION_DUMB; i++) {
        struct endpoint *other = all->each[i].endpoint;
        if (other != s->endpoint && kind != PARTITION_DUMB) {
            network_block(w->network, other, s->endpoint, cut);
        }
        if (other != s->endpoint && kind != PARTITION_DEAF) {
            network_block(w->network, s->endpoint, other, cut);
        }
    }
    for (uint32_t i = 0; i < w->agents->count; i++) {
        struct endpoint *agent = w->agents->each[i].endpoint;
        bool chosen = kind == PARTITION_CLIENTS ||
                      (kind == PARTITION_AGENTS && i % 3 == victim % 3) ||
                      (kind == PARTITION_ONE_AGENT && i == victim % w->agents->count);
        for (uint32_t k = 0; k < all->count && kind == PARTITION_DEAF_AGENT; k++) {
            if (i == victim % w->agents->count) {
                network_block(w->network, all->each[k].endpoint, agent, cut);
            }
        }
        for (uint32_t k = 0; k < all->count && chosen; k++) {
            if (kind == PARTITION_AGENTS || &all->each[k] == s) {
                cut_pair(w, agent, all->each[k].endpoint, cut);
            }
        }
    }
    for (uint32_t i = 0; i < w->clients->count && kind == PARTITION_CLIENTS; i++) {
        cut_pair(w, w->clients->each[i].endpoint, s->endpoint, cut);
    }
    for (uint32_t i = 0; i < spawners_count(w->spawners) && kind == PARTITION_CLIENTS; i++) {
        cut_pair(w, spawners_endpoint(w->spawners, i), s->endpoint, cut);
    }
}

static void partition_end(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    world_trace(w, "partition %" PRIu64 " around %" PRIu64 " ends", arg >> 32, arg & 0xffffffff);
    partition_set(w, (enum partition_kind)(arg >> 32), arg & 0xffffffff, false);
}

static void fault_partition(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct scheduler *leader = schedulers_leader(w->schedulers);
    uint64_t kind = world_below(w, PARTITION_KINDS);
    uint64_t victim = leader != NULL && world_chance(w, 500) ? leader->number : world_below(w, 60);
    if (w->calm) {
        return;
    }
    world_trace(w, "partition %" PRIu64 " around %" PRIu64, kind, victim);
    partition_set(w, (enum partition_kind)kind, victim, true);
    world_after(w, world_between(w, 300, 7000) * MS_US, partition_end, NULL, kind << 32 | victim);
}

static const struct {
    size_t count; /* where the scenario says how often */
    event_fn fn;
    uint64_t arg;
} rows[] = {
#define ROW(field, fn, arg)                                                                        \
    {                                                                                              \
        offsetof(struct scenario, field), fn, arg                                                  \
    }
    ROW(partitions, fault_partition, 0),
    ROW(scheduler_crashes, fault_scheduler, 0),
    ROW(scheduler_pauses, fault_pause_scheduler, 0),
    ROW(disk_failures, fault_disk_fails, 0),
    ROW(slow_disks, fault_disk, 0),
    ROW(clock_jumps, fault_clock, 0),
    ROW(transfers, fault_transfer, 0),
    ROW(agent_crashes, fault_agent, 0),
    ROW(node_losses, fault_agent, 1),
    ROW(agent_pauses, fault_pause_agent, 0),
    ROW(slow_agents, fault_slow_agent, 0),
    ROW(lying_agents, fault_lying_agent, 0),
#undef ROW
};

void faults_plan(struct world *w)
{
    const struct scenario *s = w->scenario;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        uint32_t count;
        memcpy(&count, (const char *)s + rows[r].count, sizeof count);
        for (uint32_t i = 0; i < count; i++) {
            world_at(w, fault_time(w), rows[r].fn, NULL, rows[r].arg);
        }
    }
    if (s->leader_crash) {
        world_at(w, fault_time(w), fault_leader, NULL, 0);
    }
    if (s->reset_ms > 0) {
        world_after(w, s->reset_ms * MS_US, fault_reset, NULL, 0);
    }
    network_loss(w->network, s->raft_lost, s->raft_doubled, s->raft_late);
}

void faults_disks(struct world *w)
{
    for (uint32_t i = 0; i < w->schedulers->count; i++) {
        sim_raft_disk_speed(w->raft, i + 1,
                            (struct sim_disk_speed){NORMAL_DISK_MIN_US, NORMAL_DISK_MAX_US});
    }
}

void faults_heal(struct world *w)
{
    network_heal(w->network);
    faults_disks(w);
    for (uint32_t i = 0; i < w->schedulers->count; i++) {
        struct scheduler *s = &w->schedulers->each[i];
        disk_back(w, s, 0);
    }
    for (uint32_t i = 0; i < w->agents->count; i++) {
        w->agents->each[i].lies = false;
        agent_back(w, &w->agents->each[i], 0);
    }
}

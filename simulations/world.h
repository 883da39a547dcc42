/* The simulated world: its clock, its events, its randomness, its trace, and what lives in it.
 * Inside of simulations/.
 *
 * Everything that happens is an event in one heap, ordered by time and then by sequence, or happens
 * inside sim_raft, whose clock is the world's. Processes that die leave events behind; each carries
 * the epoch of its process and is dropped when that has passed.
 *
 * Thread: one. */
#ifndef SIMULATIONS_WORLD_H
#define SIMULATIONS_WORLD_H

#include "common/arena.h"
#include "common/check.h"
#include "common/mem.h"
#include "proto/codec.h"
#include "simulations/sim_io.h"
#include "simulations/simulation.h"

#include <stdint.h>

enum {
    SCHEDULERS_MAX = 5,
    AGENTS_MAX = 64,
    CLIENTS_MAX = 16,
    HOPS_MAX = 24, /* schedulers that one call asks, at most */
    TRACE_LINE_BYTES_MAX = 400,
};

#define SECOND_US UINT64_C(1000000)
#define MS_US UINT64_C(1000)
#define NEVER_US UINT64_MAX

struct world;
struct network;

typedef void (*event_fn)(struct world *w, void *data, uint64_t arg);

struct event {
    uint64_t at_us;
    uint64_t sequence;
    event_fn fn;
    void *data;
    uint64_t arg;
};

/* What a scenario asks for. Rates are mean intervals in virtual milliseconds; 0: never. */
struct scenario {
    const char *name;
    const char *text;
    uint32_t schedulers, agents, clients;
    uint32_t seconds;                            /* of faults and load */
    uint32_t think_ms;                           /* mean pause of a client between calls */
    uint32_t raft_lost, raft_doubled, raft_late; /* of a thousand packets */
    uint32_t reset_ms;                           /* a random connection breaks */
    /* How often, at random times. */
    uint32_t partitions, scheduler_crashes, scheduler_pauses, disk_failures, clock_jumps, transfers;
    uint32_t agent_crashes, node_losses, agent_pauses, slow_agents, lying_agents, slow_disks;
    uint32_t spawners, spawn_ms; /* clients of durable work; mean pause of one between requests */
    bool leader_crash, operators, wild_instances;
    uint32_t spares; /* schedulers beyond those that found the cluster; members come and go */
};

struct world {
    const struct scenario *scenario;
    struct sim_raft *raft;
    uint64_t random;
    struct event *heap;
    size_t heap_count, heap_capacity;
    uint64_t sequence;
    uint64_t events;
    uint64_t hash;
    FILE *trace;
    enum simulation_bug bug;
    bool calm; /* faults are over: instances behave */
    bool done;
    char failure[SIMULATION_FAILURE_BYTES_MAX];
    struct network *network;
    struct schedulers *schedulers;
    struct agents *agents;
    struct clients *clients;
    struct errands *errands;
    struct spawners *spawners;
    struct racers *racers;
    struct operators *operators;
    struct checks *checks;
    uint64_t bug_count;
};

/* ---- Time and events ---- */
uint64_t world_now(const struct world *w);
uint64_t world_unix_ms(const struct world *w);
void world_at(struct world *w, uint64_t at_us, event_fn fn, void *data, uint64_t arg);
void world_after(struct world *w, uint64_t delay_us, event_fn fn, void *data, uint64_t arg);
/* Runs until w->done or a check fails. Nothing left to do is a failure. */
void world_run(struct world *w);

/* ---- Randomness ---- */
uint64_t world_random(struct world *w);
uint64_t world_below(struct world *w, uint64_t limit);
/* Uniform, both ends included. */
uint64_t world_between(struct world *w, uint64_t low, uint64_t high);
bool world_chance(struct world *w, uint32_t permille);
/* Around the mean: uniform from 0 to twice the mean. */
uint64_t world_around(struct world *w, uint64_t mean);
/* True on every n-th call while that bug is asked for. */
bool world_bug(struct world *w, enum simulation_bug bug, uint64_t n);

/* ---- Trace and failure ---- */
void world_trace(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The first failure stays; the run ends. */
void world_fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The first 8 hex digits of an id's random part, for traces. */
uint32_t world_short(struct id128 id);

#endif

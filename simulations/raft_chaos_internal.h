/* What the parts of raft_chaos share. Thread: one. */
#ifndef SIMULATIONS_RAFT_CHAOS_INTERNAL_H
#define SIMULATIONS_RAFT_CHAOS_INTERNAL_H

#include "scheduler/replica/replica_internal.h"
#include "simulations/raft_chaos.h"
#include "simulations/raft_chaos_checks.h"
#include "simulations/sim_io.h"

#define MS ((uint64_t)1000)
struct packet {
    uint64_t at_us;
    uint64_t sequence;
    uint32_t from;
    uint32_t to;
    size_t size;
    uint8_t *data;
};

enum life { LIFE_NONE, LIFE_UP, LIFE_DOWN, LIFE_REMOVED, LIFE_ROTTEN };

struct node {
    struct chaos *chaos;
    struct replica *replica; /* NULL unless up */
    uint64_t id;
    char address[24];
    struct chaos_state state;
    enum life life;
    bool fatal;
    bool closing;
    bool closed;
    uint64_t start_us; /* of one that is down */
};

struct chaos {
    struct raft_chaos_options options;
    struct sim_raft *world;
    struct node nodes[CHAOS_IDS]; /* by id; 0 is unused */
    struct packet *heap;
    size_t packets;
    size_t capacity;
    uint64_t sequence;
    uint64_t random;
    bool cut[CHAOS_IDS][CHAOS_IDS];
    unsigned drop_percent;
    unsigned double_percent;
    uint64_t delay_us_max;
    bool healing;
    uint64_t changer;  /* the server that has a membership change on its way; 0: none */
    uint64_t removing; /* whom it removes; 0: none */
    uint64_t joiner;
    uint64_t behind;        /* cut off before another server's disk rots; 0: none yet */
    uint64_t idle_until_us; /* no commands before */
    uint32_t thresholds[CHAOS_IDS];
    uint32_t trailing;
    uint64_t tickets;
    uint64_t *hashes; /* by ticket */
    size_t hashes_capacity;
    uint64_t probe_ticket;
    bool probe_acknowledged;
    struct chaos_checks checks;
    struct raft_chaos_result result;
};
static inline uint64_t chaos_draw(struct chaos *c)
{
    c->random += 0x9e3779b97f4a7c15ULL; /* SplitMix64 (Steele, Lea, Flood 2014) */
    uint64_t z = c->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static inline uint64_t chaos_below(struct chaos *c, uint64_t limit)
{
    return limit == 0 ? 0 : chaos_draw(c) % limit;
}

static inline uint64_t chaos_between(struct chaos *c, uint64_t low, uint64_t high)
{
    return low + chaos_below(c, high - low + 1);
}

static inline bool chaos_chance(struct chaos *c, unsigned percent)
{
    return chaos_below(c, 100) < percent;
}

static inline bool chaos_does(const struct chaos *c, enum raft_chaos_fault fault)
{
    return (c->options.faults & (uint32_t)fault) != 0;
}

static inline uint64_t chaos_now_us(const struct chaos *c)
{
    return sim_raft_now_us(c->world);
}

#define TRACE(c, ...)                                                                              \
    do {                                                                                           \
        if ((c)->options.trace != NULL) {                                                          \
            (void)fprintf((c)->options.trace, "%9.3f ",                                            \
                          (double)(chaos_now_us(c) % 3600000000U) / 1e6);                          \
            (void)fprintf((c)->options.trace, __VA_ARGS__);                                        \
            (void)fputc('\n', (c)->options.trace);                                                 \
        }                                                                                          \
    } while (0)
/* raft_chaos.c: servers. */
struct node *chaos_node_new(struct chaos *c, uint64_t id);
void chaos_node_start(struct node *n);
void chaos_node_crash(struct node *n);
void chaos_node_close(struct node *n);
/* One that is up and not on its way out; NULL: none. */
struct node *chaos_random_node(struct chaos *c);
struct node *chaos_leader(struct chaos *c);

/* raft_chaos_faults.c */
/* Some faults, or none. */
void chaos_fault(struct chaos *c);
/* A chance for faults that have to happen at one moment of an election or installation. */
void chaos_fault_moment(struct chaos *c);
void chaos_heal_cuts(struct chaos *c);

#endif

/* What raft_chaos checks while it runs. Thread: one. */
#ifndef SIMULATIONS_RAFT_CHAOS_CHECKS_H
#define SIMULATIONS_RAFT_CHAOS_CHECKS_H

#include "common/buffer.h"
#include "simulations/raft_chaos.h"

enum { CHAOS_IDS = 16, CHAOS_TERMS_MAX = 8192 };

struct chaos_entry {
    uint64_t command; /* a hash; 0: nothing has been applied here */
    uint64_t chain;   /* of all commands up to here */
    bool acknowledged;
};

struct chaos_checks {
    struct chaos_entry *entries; /* by index */
    size_t capacity;
    uint64_t acknowledged_last; /* index */
    uint8_t leaders[CHAOS_TERMS_MAX];
    uint8_t votes[CHAOS_IDS][CHAOS_TERMS_MAX];
    uint64_t terms;
    enum raft_chaos_verdict verdict;
    char why[200];
};

/* A state machine: how far, and what. */
struct chaos_state {
    uint64_t index;
    uint64_t chain;
};

void chaos_checks_close(struct chaos_checks *c);
/* The first violation counts. */
void chaos_violated(struct chaos_checks *c, enum raft_chaos_verdict verdict, const char *format,
                    ...) __attribute__((format(printf, 3, 4)));
void chaos_applied(struct chaos_checks *c, uint64_t id, struct chaos_state *s, uint64_t index,
                   struct bytes command);
void chaos_restored(struct chaos_checks *c, uint64_t id, const struct chaos_state *s);
void chaos_acknowledged(struct chaos_checks *c, uint64_t id, uint64_t index, uint64_t command);
/* A message leaves: what it says about votes and leaders. */
void chaos_sent(struct chaos_checks *c, uint64_t from, uint64_t to, struct bytes message);
uint64_t chaos_hash(struct bytes command);

#endif

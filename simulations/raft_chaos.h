/* Bare Raft under chaos: replicas of opaque commands (scheduler/replica with its guard, over real
 * libraft and simulated disks), a bad network, crashes, broken disks, membership changes and
 * transfers, under virtual time; then everything is healed and has to agree.
 *
 * Checked all the time: no two servers apply different commands at one index; what was
 * acknowledged stays; one leader and one vote of each server in a term. At the end: a leader, all
 * members equal in state and configuration.
 *
 * Same options, same run. Thread: one. */
#ifndef SIMULATIONS_RAFT_CHAOS_H
#define SIMULATIONS_RAFT_CHAOS_H

#include "common/status.h"

#include <stdint.h>
#include <stdio.h>

enum raft_chaos_fault {
    CHAOS_CRASH = 1 << 0,        /* c: processes die and come back */
    CHAOS_CUT = 1 << 1,          /* p: one-way cuts */
    CHAOS_DELAY = 1 << 2,        /* d: messages lost, doubled, late, out of order */
    CHAOS_SLOW = 1 << 3,         /* s: slow disks */
    CHAOS_SNAPSHOT = 1 << 4,     /* z: snapshots often, with few entries kept */
    CHAOS_TRANSFER = 1 << 5,     /* t: leadership is transferred */
    CHAOS_MEMBERS = 1 << 6,      /* m: members come and go */
    CHAOS_ERROR = 1 << 7,        /* f: single writes fail */
    CHAOS_FULL = 1 << 8,         /* n: full disks */
    CHAOS_ROT = 1 << 9,          /* r: one disk loses the end of its log */
    CHAOS_NO_PRE_VOTE = 1 << 10, /* v: no pre-vote, as servers had that were set up so */
    CHAOS_ELECTIONS = 1 << 11,   /* e: leaders are crashed or cut off as soon as they lead */
    CHAOS_STOP = 1 << 12,        /* q: processes are closed, with writes on their way */
};

enum raft_chaos_verdict {
    CHAOS_CLEAN,
    CHAOS_DIVERGED, /* two servers applied different commands at an index */
    CHAOS_LOST,     /* an acknowledged command is gone */
    CHAOS_LEADERS,  /* two leaders in a term */
    CHAOS_VOTES,    /* two votes in a term */
    CHAOS_STUCK,    /* no progress after healing */
    CHAOS_UNEQUAL,  /* members disagree about state or members after healing */
};

struct raft_chaos_options {
    uint64_t seed;
    uint32_t faults;    /* enum raft_chaos_fault */
    uint32_t cures_off; /* enum guard_cure */
    uint32_t servers;   /* 0: 3 or 5, by the seed */
    uint32_t chaos_ms;  /* 0: 4000 */
    FILE *trace;        /* NULL: none */
};

struct raft_chaos_result {
    enum raft_chaos_verdict verdict;
    char why[200];
    uint64_t acknowledged;
    uint64_t crashes;
    uint64_t terms;
    uint64_t snapshots; /* installed */
    uint64_t virtual_ms;
    uint64_t refused; /* starts that were refused for a rotten disk */
};

/* The faults named by their letters; 0: unknown ones among them. */
uint32_t raft_chaos_faults(const char *letters);
const char *raft_chaos_verdict_name(enum raft_chaos_verdict v);
/* Runs one seed. 0: clean; else the verdict. With cures off it may crash. */
int raft_chaos_run(const struct raft_chaos_options *options, struct raft_chaos_result *out);
/* The same in a process of its own. The signal that ended it is in *out_signal, 0: none; then the
 * verdict is not set. Ends the process when there can be no other. */
int raft_chaos_fork(const struct raft_chaos_options *options, struct raft_chaos_result *out,
                    int *out_signal);

#endif

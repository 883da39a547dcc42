/* A whole cluster in one process: the real scheduler core over the real replica, the real agent
 * core and the real codec, under a virtual clock and a simulated network, with simulated disks and
 * instances. Everything is drawn from one seed: the same seed gives the same trace. Checkers watch
 * while faults are injected; afterwards everything heals and must converge.
 *
 * Thread: one. */
#ifndef SIMULATIONS_SIMULATION_H
#define SIMULATIONS_SIMULATION_H

#include "common/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { SIMULATION_FAILURE_BYTES_MAX = 512 };

/* Deliberate mistakes in the simulator's own layer between the parts: a checker is trusted once it
 * has been seen to find one. */
#define SIMULATION_BUGS(X)                                                                         \
    X(NONE, "none", "nothing")                                                                     \
    X(SKIP_APPLY, "skip-apply", "one replica does not apply one command")                          \
    X(APPLY_TWICE, "apply-twice", "one replica applies one command twice")                         \
    X(ZOMBIE, "zombie", "instances that the agent believes gone live on")                          \
    X(DOUBLE_MESSAGE, "double-message", "every tenth message reaches the scheduler's core twice")  \
    X(STALE_TERM, "stale-term", "every leader claims the same term")                               \
    X(DROP_RESULT, "drop-result", "every fiftieth result vanishes between agent and scheduler")    \
    X(NO_ADOPT, "no-adopt", "a restarted agent does not adopt what it finds")                      \
    X(FALSE_OUTPUT, "false-output", "every fiftieth result carries another call's output")         \
    X(DOUBLE_ACCEPT, "double-accept", "an invocation's last success counts, not its first")        \
    X(ACK_EARLY, "ack-early", "a spawn is acknowledged before it is committed")                    \
    X(EXPIRE_EARLY, "expire-early", "what expires is found by a clock that is a day ahead")        \
    X(SNAPSHOT_KEY, "snapshot-key", "snapshots forget idempotency keys")                           \
    X(SNAPSHOT_JOB, "snapshot-job", "snapshots miss the last durable invocation")                  \
    X(ATTEMPT_RESET, "attempt-reset", "every retry is attempt 1")                                  \
    X(ANY_ATTEMPT, "any-attempt", "a result of an older attempt is taken for the current one's")   \
    X(OLD_LEADER, "old-leader", "agents obey leaders of older terms")                              \
    X(CANCEL_LOST, "cancel-lost", "every third cancel is acknowledged and forgotten")              \
    X(STALE_READ, "stale-read", "any scheduler answers what came of an invocation")                \
    X(SPAWN_TWICE, "spawn-twice", "every twentieth spawn without a key is proposed twice")         \
    X(NO_KEY, "no-key", "idempotency keys are lost on the way into the log")                       \
    X(NO_DELAY, "no-delay", "delays are lost on the way into the log")                             \
    X(NO_LIMIT, "no-limit", "limits of concurrency are lost on the way into the log")

enum simulation_bug {
#define SIMULATION_BUG_ENUM(upper, name, text) SIMULATION_BUG_##upper,
    SIMULATION_BUGS(SIMULATION_BUG_ENUM)
#undef SIMULATION_BUG_ENUM
        SIMULATION_BUG_COUNT_
};

/* NOT_FOUND with a message that lists the names. */
NODISCARD struct status simulation_bug_parse(const char *name, enum simulation_bug *out,
                                             struct errmsg *msg);
/* One line a bug and one a scenario. */
void simulation_list(FILE *to);

bool simulation_known(const char *scenario);

struct simulation_options {
    uint64_t seed;
    const char *scenario; /* NULL: "spine" */
    enum simulation_bug bug;
    FILE *trace; /* NULL: none */
};

struct simulation_result {
    uint64_t hash; /* of the trace; 0: scenario raft has none */
    uint64_t events;
    uint64_t virtual_ms;
    uint64_t calls, calls_ok; /* that clients made; that were answered OK */
    uint64_t spawned, done;   /* acknowledged spawns; those of them that succeeded */
    uint64_t commands;        /* acknowledged */
    uint64_t leaders;         /* terms that had one */
    /* what the first failed check said; empty: all held */
    char failure[SIMULATION_FAILURE_BYTES_MAX];
};

/* Runs one scenario to its end or to the first failed check. FAILED: a check failed, see failure;
 * NOT_FOUND: no such scenario. A CHECK inside the parts that fails ends the process. */
NODISCARD struct status simulation_run(const struct simulation_options *options,
                                       struct simulation_result *out);

#endif

/* Machines with an agent process: the real agent core, over simulated instances. Instances belong
 * to the machine and outlive the agent; a restarted agent adopts them.
 *
 * Thread: one. */
#ifndef SIMULATIONS_AGENTS_H
#define SIMULATIONS_AGENTS_H

#include "agent/core/agent_core.h"
#include "simulations/clients.h"
#include "simulations/network.h"

struct agent;

struct errand;

/* An attempt inside an instance: of a call, or of an errand when that is not NULL. */
struct run {
    struct run *prev, *next;
    struct instance_run *owner;
    struct id128 invocation;
    uint32_t attempt;
    uint64_t attempt_term;
    struct request *call;
    uint32_t hop;
    struct errand *errand;
    uint64_t deadline_us;
    bool finished; /* its result waits for an agent */
    enum status_code code;
    uint8_t output[OUTPUT_BYTES];
};

/* A simulated instance; it stays in memory after its end, so that events may name it. */
struct instance_run {
    struct instance_run *prev, *next; /* of its machine, oldest first, gone ones too */
    struct agent *agent;
    struct id128 id;
    struct digest revision;
    const struct function *function;
    uint32_t cpu_millis, concurrency;
    uint64_t memory_bytes, timeout_ms, began_us, startup_us;
    bool ready, gone, stopping;
    uint32_t running; /* not finished */
    struct run *runs; /* whose results the agent has not had */
};

struct agent {
    struct world *world;
    uint32_t number;
    char name[16];
    struct endpoint *endpoint;
    struct agent_core *core; /* NULL while the process is down */
    bool lost;               /* the machine is gone */
    uint64_t boot;
    uint64_t clock_offset_us;
    uint64_t armed_us; /* when the next tick is due */
    bool lies;         /* sends wrong numbers, doubled results and results of what it never ran */
    uint32_t cpu_millis, cpu_used;
    uint64_t memory_bytes, memory_used;
    struct pair labels[1];
    struct instance_run *instances;
    struct run *ended_runs; /* of no use any more, but events may name them */
    /* Of the message that is being received. */
    const struct scheduler *sender;
    uint64_t sender_term;
    struct arena decode;
    struct buffer encode;
};

struct agents {
    struct world *world;
    struct agent each[AGENTS_MAX];
    uint32_t count;
};

struct agents *agents_new(struct world *w, uint32_t count);
void agents_free(struct agents *a);
void agents_start(struct agents *a);
/* The process starts and adopts what is there. A lost machine comes back empty. */
void agent_start(struct agent *a);
void agent_crash(struct agent *a);
void agent_lose(struct agent *a);
/* The process stands still: its instances go on. */
void agent_pause(struct agent *a, uint64_t for_us);
bool agent_paused(const struct agent *a);

#endif

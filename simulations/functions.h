/* The functions that the scenarios deploy, and how their instances behave. Revisions have made-up
 * digests.
 *
 * Thread: any; constants. */
#ifndef SIMULATIONS_FUNCTIONS_H
#define SIMULATIONS_FUNCTIONS_H

#include "proto/message.h"
#include "simulations/world.h"

struct function {
    const char *name;
    uint32_t cpu_millis, memory_mib;
    uint32_t scale_min, scale_max, concurrency, queue_max;
    uint32_t idle_ms, timeout_ms, startup_timeout_ms;
    /* Of durable work. */
    uint32_t retries, backoff_ms_min, backoff_ms_max, running_max, poison_max;
    uint32_t start_ms_min, start_ms_max, run_us_min, run_us_max;
    /* Of a thousand, while the world is not calm. */
    uint32_t start_fails, start_hangs, fails, crashes, hangs;
    const char *zone; /* a label that its node must have; NULL: none */
};

enum { FUNCTIONS_COUNT = 8 };

extern const struct function functions[FUNCTIONS_COUNT];

/* NULL when there is none. */
const struct function *function_find(const char *name);
struct digest function_revision(const struct function *f, uint32_t version);
/* Everything borrowed lives in the arena. */
void function_spec(const struct function *f, uint32_t version, struct arena *a,
                   struct function_spec *out);

#endif

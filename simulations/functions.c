#include "simulations/functions.h"

#include "scheduler/core/spec.h"

#include <string.h>

const struct function functions[FUNCTIONS_COUNT] = {
    {.name = "fast",
     .cpu_millis = 100,
     .memory_mib = 64,
     .scale_max = 20,
     .concurrency = 4,
     .queue_max = 200,
     .idle_ms = 2000,
     .timeout_ms = 5000,
     .startup_timeout_ms = 3000,
     .start_ms_min = 5,
     .start_ms_max = 80,
     .run_us_min = 300,
     .run_us_max = 20000},
    {.name = "slow",
     .cpu_millis = 250,
     .memory_mib = 128,
     .scale_max = 12,
     .concurrency = 1,
     .queue_max = 50,
     .idle_ms = 1500,
     .timeout_ms = 8000,
     .startup_timeout_ms = 3000,
     .start_ms_min = 100,
     .start_ms_max = 900,
     .run_us_min = 100000,
     .run_us_max = 900000},
    {.name = "flaky",
     .cpu_millis = 150,
     .memory_mib = 64,
     .scale_max = 10,
     .concurrency = 2,
     .queue_max = 100,
     .idle_ms = 1000,
     .timeout_ms = 4000,
     .startup_timeout_ms = 2000,
     .start_ms_min = 10,
     .start_ms_max = 200,
     .run_us_min = 1000,
     .run_us_max = 60000,
     .fails = 150,
     .crashes = 40,
     .hangs = 10,
     .retries = 3,
     .backoff_ms_min = 100,
     .backoff_ms_max = 1000},
    {.name = "stuck",
     .cpu_millis = 100,
     .memory_mib = 32,
     .scale_max = 8,
     .concurrency = 3,
     .queue_max = 20,
     .idle_ms = 1000,
     .timeout_ms = 700,
     .startup_timeout_ms = 1500,
     .start_ms_min = 10,
     .start_ms_max = 300,
     .run_us_min = 1000,
     .run_us_max = 100000,
     .hangs = 60,
     .retries = 1,
     .backoff_ms_min = 50,
     .backoff_ms_max = 50,
     .running_max = 4},
    {.name = "stillborn",
     .cpu_millis = 100,
     .memory_mib = 32,
     .scale_max = 6,
     .concurrency = 2,
     .queue_max = 40,
     .idle_ms = 800,
     .timeout_ms = 6000,
     .startup_timeout_ms = 800,
     .start_ms_min = 20,
     .start_ms_max = 400,
     .run_us_min = 1000,
     .run_us_max = 30000,
     .start_fails = 300,
     .start_hangs = 50},
    {.name = "warm",
     .cpu_millis = 100,
     .memory_mib = 48,
     .scale_min = 3,
     .scale_max = 10,
     .concurrency = 2,
     .queue_max = 50,
     .idle_ms = 1000,
     .timeout_ms = 5000,
     .startup_timeout_ms = 3000,
     .start_ms_min = 20,
     .start_ms_max = 300,
     .run_us_min = 1000,
     .run_us_max = 50000},
    {.name = "big",
     .cpu_millis = 900,
     .memory_mib = 400,
     .scale_max = 6,
     .concurrency = 1,
     .queue_max = 10,
     .idle_ms = 500,
     .timeout_ms = 6000,
     .startup_timeout_ms = 3000,
     .start_ms_min = 50,
     .start_ms_max = 400,
     .run_us_min = 20000,
     .run_us_max = 300000,
     .zone = "a"},
    {.name = "narrow",
     .cpu_millis = 50,
     .memory_mib = 16,
     .scale_max = 4,
     .concurrency = 4,
     .queue_max = 50,
     .idle_ms = 1000,
     .timeout_ms = 3000,
     .startup_timeout_ms = 3000,
     .retries = 2,
     .backoff_ms_min = 200,
     .backoff_ms_max = 2000,
     .running_max = 3,
     .poison_max = 2,
     .start_ms_min = 5,
     .start_ms_max = 100,
     .run_us_min = 1000,
     .run_us_max = 200000,
     .fails = 30,
     .crashes = 20},
};

const struct function *function_find(const char *name)
{
    for (size_t i = 0; i < FUNCTIONS_COUNT; i++) {
        if (strcmp(functions[i].name, name) == 0) {
            return &functions[i];
        }
    }
    return NULL;
}

struct digest function_revision(const struct function *f, uint32_t version)
{
    struct digest d;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (const char *p = f->name; *p != '\0'; p++) {
        h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    }
    for (size_t i = 0; i < sizeof d.v; i++) {
        h = (h ^ version ^ i) * UINT64_C(0x100000001b3);
        d.v[i] = (uint8_t)(h >> 32);
    }
    return d;
}

void function_spec(const struct function *f, uint32_t version, struct arena *a,
                   struct function_spec *out)
{
    *out = (struct function_spec){.name = f->name,
                                  .runtime = "c",
                                  .handler = "handler",
                                  .cpu_millis = f->cpu_millis,
                                  .memory_bytes = (uint64_t)f->memory_mib << 20,
                                  .processes_max = 16,
                                  .scale_min = f->scale_min,
                                  .scale_max = f->scale_max,
                                  .concurrency = f->concurrency,
                                  .idle_ms = f->idle_ms,
                                  .queue_max = f->queue_max,
                                  .timeout_ms = f->timeout_ms,
                                  .startup_timeout_ms = f->startup_timeout_ms,
                                  .package_bytes = 1000 + version,
                                  .retries_max = f->retries,
                                  .retry_backoff_ms = f->backoff_ms_min,
                                  .retry_factor_milli = 2000,
                                  .retry_cap_ms = f->backoff_ms_max,
                                  .running_max = f->running_max,
                                  .poison_max = f->poison_max};
    uint8_t *chunk = mem_must(arena_alloc(a, DIGEST_BYTES));
    struct digest revision = function_revision(f, version);
    memcpy(chunk, revision.v, DIGEST_BYTES);
    out->chunks = bytes_of(chunk, DIGEST_BYTES);
    if (f->zone != NULL) {
        out->require = mem_must(arena_zalloc(a, 1, sizeof *out->require));
        out->require[0] = (struct pair){.key = "zone", .value = f->zone};
        out->require_count = 1;
    }
    struct errmsg msg = {.text = ""};
    struct status checked = function_spec_check(out, &msg);
    CHECK(status_is_ok(checked));
}

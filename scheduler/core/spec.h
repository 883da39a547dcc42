/* Is a revision's specification one that this cluster can run? The command line checks a manifest
 * with its file and line; the schedulers check again, because they trust no client.
 *
 * Thread: any; no shared state. */
#ifndef SCHEDULER_CORE_SPEC_H
#define SCHEDULER_CORE_SPEC_H

#include "common/manifest_limits.h"
#include "common/status.h"
#include "proto/message.h"

enum {
    SPEC_COMMAND_MAX = MANIFEST_COMMAND_ARGS_MAX,
    SPEC_ENV_MAX = 100,
    SPEC_LABELS_MAX = MANIFEST_REQUIRE_MAX,
    SPEC_TEXT_BYTES_MAX = 4096,
    SPEC_CPU_MILLIS_MAX = MANIFEST_CPU_MILLIS_MAX,
    SPEC_PROCESSES_MAX = 32768,
    SPEC_SCALE_MAX = MANIFEST_SCALE_MAX_MAX,
    SPEC_CONCURRENCY_MAX = 1024,
    SPEC_QUEUE_MAX = MANIFEST_QUEUE_MAX,
    SPEC_CHUNKS_MAX = 1024,
    SPEC_RETRIES_MAX = MANIFEST_RETRIES_MAX,
    SPEC_FACTOR_MILLI_MIN = MANIFEST_FACTOR_MILLI_MIN,
    SPEC_FACTOR_MILLI_MAX = MANIFEST_FACTOR_MILLI_MAX,
    SPEC_RUNNING_MAX = MANIFEST_RUNNING_MAX,
    SPEC_RATE_MILLI_MAX = MANIFEST_RATE_MILLI_MAX,
    SPEC_BURST_MAX = MANIFEST_BURST_MAX,
    SPEC_DURABLE_QUEUE_MAX = MANIFEST_DURABLE_QUEUE_MAX,
    SPEC_POISON_MAX = MANIFEST_POISON_MAX,
    SPEC_CATCH_UP_MAX = MANIFEST_CATCH_UP_MAX,
};
#define SPEC_MEMORY_BYTES_MIN MANIFEST_MEMORY_BYTES_MIN
#define SPEC_MEMORY_BYTES_MAX MANIFEST_MEMORY_BYTES_MAX
_Static_assert((int)SCHEDULES_MAX == (int)MANIFEST_SCHEDULES_MAX,
               "a manifest has as many schedules as a function may have");
_Static_assert((int)SPAWN_INLINE_BYTES_MAX == (int)MANIFEST_SCHEDULE_PAYLOAD_BYTES_MAX,
               "a schedule's payload stays inside the log");

/* Zeros in what is said of durable work are what a client of before it sends: no retries, no
 * limits. INVALID or LIMIT, naming the field and what it may be. */
NODISCARD struct status function_spec_check(const struct function_spec *spec, struct errmsg *msg);

/* data_class is phi: its payloads never stand in the log. */
bool spec_is_sensitive(const struct function_spec *spec);

#endif

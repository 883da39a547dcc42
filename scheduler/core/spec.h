/* Is a revision's specification one that this cluster can run? The command line checks a manifest
 * with its file and line; the schedulers check again, because they trust no client.
 *
 * Thread: any; no shared state. */
#ifndef SCHEDULER_CORE_SPEC_H
#define SCHEDULER_CORE_SPEC_H

#include "common/status.h"
#include "proto/message.h"

enum {
    SPEC_COMMAND_MAX = 62,
    SPEC_ENV_MAX = 100,
    SPEC_LABELS_MAX = 16,
    SPEC_TEXT_BYTES_MAX = 4096,
    SPEC_CPU_MILLIS_MAX = 1024 * 1000,
    SPEC_PROCESSES_MAX = 32768,
    SPEC_SCALE_MAX = 10000,
    SPEC_CONCURRENCY_MAX = 1024,
    SPEC_QUEUE_MAX = 100000,
    SPEC_CHUNKS_MAX = 1024,
    SPEC_RETRIES_MAX = 100,
    SPEC_FACTOR_MILLI_MIN = 1000,
    SPEC_FACTOR_MILLI_MAX = 100 * 1000,
    SPEC_RUNNING_MAX = 100000,
    SPEC_RATE_MILLI_MAX = 1000 * 1000 * 1000,
    SPEC_BURST_MAX = 1000 * 1000,
    SPEC_DURABLE_QUEUE_MAX = 4000000,
    SPEC_POISON_MAX = 100,
    SPEC_CATCH_UP_MAX = 100,
};
#define SPEC_MEMORY_BYTES_MIN (UINT64_C(4) << 20)
#define SPEC_MEMORY_BYTES_MAX (UINT64_C(16) << 40)

/* Zeros in what is said of durable work are what a client of before it sends: no retries, no
 * limits. INVALID or LIMIT, naming the field and what it may be. */
NODISCARD struct status function_spec_check(const struct function_spec *spec, struct errmsg *msg);

#endif

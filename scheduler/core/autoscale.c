#include "scheduler/core/autoscale.h"

#include "common/check.h"

uint32_t autoscale_start(const struct autoscale_view *v)
{
    CHECK(v->concurrency > 0);
    if (v->backoff) {
        return 0;
    }
    uint64_t existing = (uint64_t)v->ready + v->starting;
    uint64_t wanted = v->scale_min;
    uint64_t for_queue = ((uint64_t)v->queued + v->concurrency - 1) / v->concurrency;
    if (v->queued > 0 && v->ready + for_queue > wanted) {
        wanted = v->ready + for_queue;
    }
    if (wanted > v->scale_max) {
        wanted = v->scale_max;
    }
    return wanted > existing ? (uint32_t)(wanted - existing) : 0;
}

bool autoscale_may_stop(const struct autoscale_view *v, uint64_t idle_ms, uint64_t idle_ms_max)
{
    return v->queued == 0 && idle_ms >= idle_ms_max && v->ready > v->scale_min;
}

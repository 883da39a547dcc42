/* How many instances a function should gain or lose now. Pure functions over a view of the
 * function, so that other policies can take this one's place behind the same interface.
 *
 * Thread: any; no shared state. */
#ifndef SCHEDULER_CORE_AUTOSCALE_H
#define SCHEDULER_CORE_AUTOSCALE_H

#include <stdbool.h>
#include <stdint.h>

/* A function as the autoscaler sees it. */
struct autoscale_view {
    uint32_t queued;      /* calls that wait for a slot */
    uint32_t starting;    /* instances of the current revision on their way */
    uint32_t ready;       /* instances of the current revision that serve */
    uint32_t concurrency; /* slots of one instance */
    uint32_t scale_min;
    uint32_t scale_max;
    bool backoff; /* starts failed lately and the next may not be tried yet */
};

/* Instances to start now. The queue is not empty: enough that every queued call has a slot, less
 * those on their way; at least up to scale_min, never above scale_max. */
uint32_t autoscale_start(const struct autoscale_view *v);

/* May an instance that has been idle for idle_ms stop now? */
bool autoscale_may_stop(const struct autoscale_view *v, uint64_t idle_ms, uint64_t idle_ms_max);

#endif

/* A log-linear histogram of whole numbers in fixed memory, for latencies and sizes. Values below 64
 * are kept exactly; above, each doubling is split into 32 equal buckets, so that a percentile is at
 * most 1/32 (3.2 %) above the true one and never below it. The idea is Gil Tene's HdrHistogram
 * (hdrhistogram.github.io).
 *
 * Thread: the owner's; give each thread its own and merge. 15 KiB: not for the stack of a deep
 * call. */
#ifndef COMMON_HISTOGRAM_H
#define COMMON_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum {
    HISTOGRAM_SUB_BITS = 5,
    HISTOGRAM_SUBS = 1 << HISTOGRAM_SUB_BITS,
    HISTOGRAM_BUCKETS = (64 - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUBS,
};

/* All zeros is a valid empty one; assigning it is the reset. */
struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t count;
    uint64_t sum; /* stays at UINT64_MAX once it gets there */
    uint64_t min; /* 0 while empty */
    uint64_t max;
};

void histogram_record(struct histogram *h, uint64_t value);
/* The same value `times` times. */
void histogram_record_many(struct histogram *h, uint64_t value, uint64_t times);
/* Adds what `from` holds; they may not be the same. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The smallest recorded value, up to bucket width, that at least percent % of the values do not
 * exceed; percent from 0 to 100, kept to four decimals. 0 gives min, 100 max exactly. 0 when empty.
 */
uint64_t histogram_percentile(const struct histogram *h, double percent);
/* 0 when empty. */
double histogram_mean(const struct histogram *h);

/* The bucket of a value and the largest value in a bucket, for those who print or send the counts.
 */
size_t histogram_bucket(uint64_t value);
uint64_t histogram_bucket_max(size_t bucket);

#endif

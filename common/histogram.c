#include "common/histogram.h"

#include "common/check.h"

size_t histogram_bucket(uint64_t value)
{
    if (value < 2 * HISTOGRAM_SUBS) {
        return (size_t)value;
    }
    /* Of a value with its highest bit at `top`, the HISTOGRAM_SUB_BITS bits below that one are
     * kept. */
    unsigned top = 63 - (unsigned)__builtin_clzll(value);
    unsigned shift = top - HISTOGRAM_SUB_BITS;
    return (size_t)shift * HISTOGRAM_SUBS + (size_t)(value >> shift);
}

uint64_t histogram_bucket_max(size_t bucket)
{
    CHECK(bucket < HISTOGRAM_BUCKETS);
    if (bucket < 2 * HISTOGRAM_SUBS) {
        return bucket;
    }
    size_t shift = bucket / HISTOGRAM_SUBS - 1;
    uint64_t kept = bucket - shift * HISTOGRAM_SUBS;
    uint64_t low = kept << shift;
    return low + ((UINT64_C(1) << shift) - 1);
}

void histogram_record(struct histogram *h, uint64_t value)
{
    histogram_record_many(h, value, 1);
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

void histogram_record_many(struct histogram *h, uint64_t value, uint64_t times)
{
    if (times == 0) {
        return;
    }
    if (h->count == 0 || value < h->min) {
        h->min = value;
    }
    if (value > h->max) {
        h->max = value;
    }
    h->counts[histogram_bucket(value)] += times;
    h->count += times;
    uint64_t product;
    if (__builtin_mul_overflow(value, times, &product)) {
        product = UINT64_MAX;
    }
    h->sum = add_capped(h->sum, product);
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    CHECK(into != from);
    if (from->count == 0) {
        return;
    }
    if (into->count == 0 || from->min < into->min) {
        into->min = from->min;
    }
    if (from->max > into->max) {
        into->max = from->max;
    }
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        into->counts[i] += from->counts[i];
    }
    into->count += from->count;
    into->sum = add_capped(into->sum, from->sum);
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
    CHECK(percent >= 0 && percent <= 100);
    /* In whole millionths: 99.9 % of 1000 is 999 and not 999.0000000000001, which would round up.
     */
    const uint64_t whole = 1000000;
    uint64_t millionths = (uint64_t)(percent * 10000 + 0.5);
    uint64_t rank = (uint64_t)(((unsigned __int128)h->count * millionths + (whole - 1)) / whole);
    if (rank == 0) {
        return h->min;
    }
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen >= rank) {
            uint64_t value = histogram_bucket_max(i);
            return value < h->max ? value : h->max;
        }
    }
    return h->max;
}

double histogram_mean(const struct histogram *h)
{
    return h->count == 0 ? 0 : (double)h->sum / (double)h->count;
}

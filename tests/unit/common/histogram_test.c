#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/histogram.h"

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct histogram h, other;

static int reset(void **state)
{
    (void)state;
    memset(&h, 0, sizeof h);
    memset(&other, 0, sizeof other);
    return 0;
}

static void buckets_cover_all_values_without_gap_or_overlap(void **state)
{
    (void)state;
    uint64_t low = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t high = histogram_bucket_max(i);
        assert_true(high >= low);
        assert_int_equal(histogram_bucket(low), i);
        assert_int_equal(histogram_bucket(high), i);
        /* The promised width. */
        assert_true(high - low <= low / HISTOGRAM_SUBS);
        low = high + 1;
    }
    assert_true(low == 0); /* the last bucket ends at UINT64_MAX */
}

static void empty_gives_zeros(void **state)
{
    (void)state;
    assert_int_equal(histogram_percentile(&h, 0), 0);
    assert_int_equal(histogram_percentile(&h, 50), 0);
    assert_int_equal(histogram_percentile(&h, 100), 0);
    assert_true(histogram_mean(&h) <= 0);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 60; i++) {
        histogram_record(&h, i);
    }
    assert_int_equal(h.count, 60);
    assert_int_equal(h.min, 1);
    assert_int_equal(h.max, 60);
    assert_int_equal(h.sum, 1830);
    assert_int_equal(histogram_percentile(&h, 50), 30);
    assert_int_equal(histogram_percentile(&h, 90), 54);
    assert_int_equal(histogram_percentile(&h, 100), 60);
    assert_true(histogram_mean(&h) > 30.4 && histogram_mean(&h) < 30.6);
}

static void one_value_is_every_percentile(void **state)
{
    (void)state;
    histogram_record(&h, UINT64_C(123456789));
    static const double percents[] = {0, 0.0001, 50, 99.99, 100};
    for (size_t i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        assert_int_equal(histogram_percentile(&h, percents[i]), UINT64_C(123456789));
    }
}

/* The rank of 99.9 % of 1000 is 999; in floating point it would be a little more, and so the
 * maximum. */
static void rank_is_not_rounded_up_by_binary_fractions(void **state)
{
    (void)state;
    histogram_record_many(&h, 1, 999);
    histogram_record(&h, 50);
    assert_int_equal(histogram_percentile(&h, 99.9), 1);
    assert_int_equal(histogram_percentile(&h, 99.91), 50);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Against the sorted values, over twelve orders of magnitude. */
static void percentiles_are_within_the_promised_error(void **state)
{
    (void)state;
    enum { VALUES = 10000 };
    static uint64_t values[VALUES];
    uint64_t x = 42;
    for (size_t i = 0; i < VALUES; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        values[i] = x >> (20 + i % 40);
        histogram_record(&h, values[i]);
    }
    qsort(values, VALUES, sizeof values[0], compare);
    for (unsigned percent = 1; percent <= 100; percent++) {
        uint64_t exact = values[(size_t)VALUES * percent / 100 - 1];
        uint64_t got = histogram_percentile(&h, percent);
        assert_true(got >= exact);
        assert_true(got - exact <= exact / HISTOGRAM_SUBS);
    }
}

static void extremes_are_recorded(void **state)
{
    (void)state;
    histogram_record(&h, 0);
    histogram_record(&h, UINT64_MAX);
    assert_int_equal(h.count, 2);
    assert_int_equal(histogram_percentile(&h, 50), 0);
    assert_true(histogram_percentile(&h, 100) == UINT64_MAX);
    histogram_record_many(&h, UINT64_MAX, UINT64_MAX / 2);
    assert_true(h.sum == UINT64_MAX);
}

static void merge_is_as_if_recorded_together(void **state)
{
    (void)state;
    static struct histogram both;
    memset(&both, 0, sizeof both);
    for (uint64_t i = 0; i < 1000; i++) {
        histogram_record(i % 3 == 0 ? &h : &other, i * i);
        histogram_record(&both, i * i);
    }
    histogram_merge(&h, &other);
    assert_memory_equal(&h, &both, sizeof both);
}

static void merge_with_an_empty_one_changes_nothing(void **state)
{
    (void)state;
    static struct histogram before;
    histogram_record(&h, 5);
    before = h;
    histogram_merge(&h, &other);
    assert_memory_equal(&h, &before, sizeof before);
    histogram_merge(&other, &h);
    assert_memory_equal(&other, &before, sizeof before);
}

static void recording_no_times_changes_nothing(void **state)
{
    (void)state;
    histogram_record_many(&h, 7, 0);
    assert_memory_equal(&h, &other, sizeof other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(buckets_cover_all_values_without_gap_or_overlap, reset),
        cmocka_unit_test_setup(empty_gives_zeros, reset),
        cmocka_unit_test_setup(small_values_are_exact, reset),
        cmocka_unit_test_setup(one_value_is_every_percentile, reset),
        cmocka_unit_test_setup(rank_is_not_rounded_up_by_binary_fractions, reset),
        cmocka_unit_test_setup(percentiles_are_within_the_promised_error, reset),
        cmocka_unit_test_setup(extremes_are_recorded, reset),
        cmocka_unit_test_setup(merge_is_as_if_recorded_together, reset),
        cmocka_unit_test_setup(merge_with_an_empty_one_changes_nothing, reset),
        cmocka_unit_test_setup(recording_no_times_changes_nothing, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

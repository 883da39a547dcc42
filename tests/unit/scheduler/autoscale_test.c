#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/core/autoscale.h"

static void starts_what_the_table_says(void **state)
{
    (void)state;
    static const struct {
        const char *why;
        struct autoscale_view view; /* queued, starting, ready, concurrency, min, max, backoff */
        uint32_t start;
    } rows[] = {
        {"nothing asked for", {0, 0, 0, 1, 0, 10, false}, 0},
        {"up to scale_min", {0, 0, 0, 1, 3, 10, false}, 3},
        {"scale_min counts those on their way", {0, 2, 0, 1, 3, 10, false}, 1},
        {"scale_min counts those that serve", {0, 0, 3, 1, 3, 10, false}, 0},
        {"one queued call, one instance", {1, 0, 0, 1, 0, 10, false}, 1},
        {"a slot for each queued call", {5, 0, 0, 1, 0, 10, false}, 5},
        {"concurrency shares an instance", {5, 0, 0, 4, 0, 10, false}, 2},
        {"exactly full instances", {8, 0, 0, 4, 0, 10, false}, 2},
        {"those on their way will serve the queue", {5, 5, 0, 1, 0, 10, false}, 0},
        {"less those on their way", {5, 2, 0, 1, 0, 10, false}, 3},
        {"the queue comes on top of busy instances", {2, 0, 3, 1, 0, 10, false}, 2},
        {"never above scale_max", {100, 0, 3, 1, 0, 10, false}, 7},
        {"at scale_max", {100, 4, 6, 1, 0, 10, false}, 0},
        {"above scale_max already", {100, 4, 8, 1, 0, 10, false}, 0},
        {"scale_min above what the queue asks for", {1, 0, 0, 1, 4, 10, false}, 4},
        {"nothing while starts failed lately", {5, 0, 0, 1, 3, 10, true}, 0},
        {"numbers as large as they get", {UINT32_MAX, 0, 0, 1, 0, UINT32_MAX, false}, UINT32_MAX},
        {"large ones do not wrap", {UINT32_MAX, UINT32_MAX, UINT32_MAX, 1, 0, 10, false}, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t start = autoscale_start(&rows[i].view);
        if (start != rows[i].start) {
            fail_msg("%s: %u to start, %u expected", rows[i].why, start, rows[i].start);
        }
    }
}

static void stops_as_the_table_says(void **state)
{
    (void)state;
    static const struct {
        const char *why;
        struct autoscale_view view;
        uint64_t idle_ms, idle_ms_max;
        bool stop;
    } rows[] = {
        {"idle long enough", {0, 0, 1, 1, 0, 10, false}, 1000, 1000, true},
        {"a moment too early", {0, 0, 1, 1, 0, 10, false}, 999, 1000, false},
        {"the last one of scale_min stays", {0, 0, 1, 1, 1, 10, false}, 5000, 1000, false},
        {"one above scale_min goes", {0, 0, 2, 1, 1, 10, false}, 5000, 1000, true},
        {"not while calls wait", {1, 0, 2, 1, 0, 10, false}, 5000, 1000, false},
        {"starting ones do not keep scale_min", {0, 5, 1, 1, 1, 10, false}, 5000, 1000, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (autoscale_may_stop(&rows[i].view, rows[i].idle_ms, rows[i].idle_ms_max) !=
            rows[i].stop) {
            fail_msg("%s: %s expected", rows[i].why, rows[i].stop ? "a stop" : "no stop");
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_what_the_table_says),
        cmocka_unit_test(stops_as_the_table_says),
    };
    return cmocka_run_group_tests_name("autoscale", tests, NULL, NULL);
}

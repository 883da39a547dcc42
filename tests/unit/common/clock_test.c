#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"

#include <cmocka.h>

/* 2026-01-01T00:00:00Z */
#define UNIX_MS UINT64_C(1767225600000)

static void virtual_clock_stands_until_advanced(void **state)
{
    (void)state;
    struct clock_virtual v;
    clock_virtual_init(&v, UNIX_MS);
    const struct clock *c = &v.clock;
    assert_int_equal(clock_now_us(c), 0);
    assert_int_equal(clock_unix_ms(c), UNIX_MS);
    clock_virtual_advance_us(&v, 1999);
    assert_int_equal(clock_now_us(c), 1999);
    assert_int_equal(clock_now_ms(c), 1);
    assert_int_equal(clock_unix_ms(c), UNIX_MS + 1);
    clock_virtual_advance_ms(&v, 10);
    assert_int_equal(clock_now_us(c), 11999);
}

static void step_moves_unix_time_alone(void **state)
{
    (void)state;
    struct clock_virtual v;
    clock_virtual_init(&v, UNIX_MS);
    clock_virtual_advance_ms(&v, 500);
    clock_virtual_step_unix_ms(&v, -3600000);
    assert_int_equal(clock_now_ms(&v.clock), 500);
    assert_int_equal(clock_unix_ms(&v.clock), UNIX_MS + 500 - 3600000);
    clock_virtual_step_unix_ms(&v, 3600001);
    assert_int_equal(clock_unix_ms(&v.clock), UNIX_MS + 501);
    assert_int_equal(clock_now_ms(&v.clock), 500);
}

/* Below where it began, which is a negative offset inside. */
static void unix_time_can_step_down_to_1970(void **state)
{
    (void)state;
    struct clock_virtual v;
    clock_virtual_init(&v, 1000);
    clock_virtual_advance_ms(&v, 5000);
    clock_virtual_step_unix_ms(&v, -6000);
    assert_int_equal(clock_unix_ms(&v.clock), 0);
}

static void two_virtual_clocks_are_apart(void **state)
{
    (void)state;
    struct clock_virtual a, b;
    clock_virtual_init(&a, 0);
    clock_virtual_init(&b, 0);
    clock_virtual_advance_ms(&a, 1);
    assert_int_equal(clock_now_ms(&b.clock), 0);
}

static void real_clock_never_goes_back(void **state)
{
    (void)state;
    const struct clock *c = clock_real();
    uint64_t last = clock_now_us(c);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = clock_now_us(c);
        assert_true(now >= last);
        last = now;
    }
    assert_true(clock_unix_ms(c) > UINT64_C(1600000000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(virtual_clock_stands_until_advanced),
        cmocka_unit_test(step_moves_unix_time_alone),
        cmocka_unit_test(unix_time_can_step_down_to_1970),
        cmocka_unit_test(two_virtual_clocks_are_apart),
        cmocka_unit_test(real_clock_never_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

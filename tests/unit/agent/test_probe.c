#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/probe/probe.h"

static void busy_ticks_leave_out_idle_iowait_and_guests(void **state)
{
    (void)state;
    uint64_t busy;
    assert_true(probe_parse_stat("cpu  1 2 4 1000 2000 8 16 4000 8000 8000\ncpu0 9 9 9 9 9 9 9 9\n",
                                 &busy));
    assert_int_equal(busy, 1 + 2 + 4 + 8 + 16);
    assert_false(probe_parse_stat("cpu  1 2 3\n", &busy));
    assert_false(probe_parse_stat("", &busy));
}

static void meminfo_is_in_kib(void **state)
{
    (void)state;
    uint64_t total;
    uint64_t available;
    assert_true(probe_parse_meminfo("MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:   4 kB\n",
                                    &total, &available));
    assert_int_equal(total, 16 << 10);
    assert_int_equal(available, 4 << 10);
    assert_false(probe_parse_meminfo("MemTotal: 16 kB\n", &total, &available));
}

static void pressure_is_a_share_in_thousandths(void **state)
{
    (void)state;
    uint32_t milli;
    assert_true(probe_parse_psi(
        "some avg10=12.50 avg60=0.10 avg300=0.00 total=1\nfull avg10=9.00\n", &milli));
    assert_int_equal(milli, 125);
    assert_false(probe_parse_psi("full avg10=9.00\n", &milli));
}

static void load_is_in_thousandths(void **state)
{
    (void)state;
    uint32_t milli;
    assert_true(probe_parse_milli("1.25 0.50 0.10 1/100 999\n", &milli));
    assert_int_equal(milli, 1250);
    assert_false(probe_parse_milli("none", &milli));
}

static void this_machine_can_be_read(void **state)
{
    (void)state;
    struct probe p;
    struct probe_sample s;
    probe_init(&p, "/tmp");
    probe_read(&p, 1000000, &s);
    assert_int_equal(s.cpu_used_millis, 0);
    assert_true(s.memory_total_bytes > 0);
    assert_true(s.disk_free_bytes > 0);
}

static void processors_in_use_come_from_two_samples(void **state)
{
    (void)state;
    struct probe p;
    struct probe_sample s;
    probe_init(&p, "/tmp");
    probe_read(&p, 1000000, &s);
    p.busy_ticks = 0; /* everything since the boot, within one second */
    probe_read(&p, 2000000, &s);
    assert_true(s.cpu_used_millis > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(busy_ticks_leave_out_idle_iowait_and_guests),
        cmocka_unit_test(meminfo_is_in_kib),
        cmocka_unit_test(pressure_is_a_share_in_thousandths),
        cmocka_unit_test(load_is_in_thousandths),
        cmocka_unit_test(this_machine_can_be_read),
        cmocka_unit_test(processors_in_use_come_from_two_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

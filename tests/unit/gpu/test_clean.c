#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/gpu/clean.h"

#include <stdio.h>
#include <string.h>

static struct clean clean;
static struct gpu_report reports[2];
static struct gpu_inventory inventory;

static const uint64_t MIB = 1 << 20;

static int setup(void **state)
{
    (void)state;
    clean = (struct clean){.count = 0};
    for (size_t i = 0; i < 2; i++) {
        reports[i] = (struct gpu_report){.uuid = i == 0 ? "GPU-0" : "GPU-1",
                                         .parent = "",
                                         .known = GPU_KNOWS_MEMORY | GPU_KNOWS_PROCESSES,
                                         .memory_bytes = 80 << 10,
                                         .memory_used_bytes = 500 * MIB};
    }
    inventory = (struct gpu_inventory){.state = GPU_STATE_OK, .gpus = reports, .gpus_count = 2};
    return 0;
}

static void hold(const char *uuid, uint64_t due)
{
    clean_use(&clean, &uuid, uuid != NULL, due);
}

static void a_free_device_without_processes_is_clean(void **state)
{
    (void)state;
    assert_false(clean_read(&clean, &inventory, 0));
    assert_string_equal(reports[0].dirty, "");
    assert_false(clean_waits(&clean));
}

static void foreign_processes_make_a_free_device_dirty(void **state)
{
    (void)state;
    reports[1].processes = 2;
    assert_true(clean_read(&clean, &inventory, 0));
    assert_string_equal(reports[0].dirty, "");
    assert_string_equal(reports[1].dirty, "2 processes that are no instance's");
    assert_true(clean_waits(&clean));
    reports[1].processes = 0;
    assert_true(clean_read(&clean, &inventory, 0));
    assert_string_equal(reports[1].dirty, "");
}

static void an_instance_may_use_what_it_holds(void **state)
{
    (void)state;
    (void)clean_read(&clean, &inventory, 0);
    hold("GPU-0", 1);
    reports[0].processes = 1;
    reports[0].memory_used_bytes = 70000 * MIB;
    assert_false(clean_read(&clean, &inventory, 1));
    assert_string_equal(reports[0].dirty, "");
}

static void a_device_waits_for_a_reading_of_after_its_instance(void **state)
{
    (void)state;
    (void)clean_read(&clean, &inventory, 0);
    hold("GPU-0", 1);
    hold(NULL, 5);
    assert_true(clean_read(&clean, &inventory, 4));
    assert_string_equal(reports[0].dirty, "is checked after its last instance");
    assert_true(clean_waits(&clean));
    assert_true(clean_read(&clean, &inventory, 5));
    assert_string_equal(reports[0].dirty, "");
    assert_false(clean_waits(&clean));
}

static void memory_must_be_back_to_what_it_was(void **state)
{
    (void)state;
    (void)clean_read(&clean, &inventory, 0);
    hold("GPU-0", 1);
    hold(NULL, 2);
    reports[0].memory_used_bytes = 500 * MIB + CLEAN_TOLERANCE_BYTES + 1;
    assert_true(clean_read(&clean, &inventory, 2));
    assert_string_equal(reports[0].dirty, "564 MiB in use, 500 when it was free");
    reports[0].memory_used_bytes--;
    assert_true(clean_read(&clean, &inventory, 3));
    assert_string_equal(reports[0].dirty, "");
}

static void the_baseline_falls_and_never_rises(void **state)
{
    (void)state;
    (void)clean_read(&clean, &inventory, 0);
    for (unsigned k = 0; k < 10; k++) { /* each step is within the tolerance */
        reports[0].memory_used_bytes += 30 * MIB;
        (void)clean_read(&clean, &inventory, 0);
    }
    assert_string_equal(reports[0].dirty, "800 MiB in use, 500 when it was free");
    reports[0].memory_used_bytes = 100 * MIB;
    (void)clean_read(&clean, &inventory, 0);
    reports[0].memory_used_bytes = 500 * MIB;
    (void)clean_read(&clean, &inventory, 0);
    assert_string_equal(reports[0].dirty, "500 MiB in use, 100 when it was free");
}

static void a_device_of_an_adopted_instance_gets_its_baseline_when_nobody_holds_it(void **state)
{
    (void)state;
    hold("GPU-0", 1);
    reports[0].memory_used_bytes = 9000 * MIB;
    reports[0].processes = 1;
    (void)clean_read(&clean, &inventory, 1);
    hold(NULL, 2);
    (void)clean_read(&clean, &inventory, 2);
    assert_string_equal(reports[0].dirty, "1 process that is no instance's");
    reports[0].processes = 0;
    reports[0].memory_used_bytes = 400 * MIB;
    (void)clean_read(&clean, &inventory, 3);
    assert_string_equal(reports[0].dirty, "");
}

static void a_driver_that_tells_nothing_leaves_a_device_dirty(void **state)
{
    (void)state;
    reports[0].known = 0;
    (void)clean_read(&clean, &inventory, 0);
    assert_string_equal(reports[0].dirty, "the driver tells neither its memory nor its processes");
    reports[0].known = GPU_KNOWS_PROCESSES;
    (void)clean_read(&clean, &inventory, 0);
    assert_string_equal(reports[0].dirty, "");
}

static void old_readings_judge_nothing(void **state)
{
    (void)state;
    inventory.state = GPU_STATE_SILENT;
    reports[0].processes = 1;
    assert_false(clean_read(&clean, &inventory, 0));
    assert_string_equal(reports[0].dirty, "");
}

static void devices_that_came_and_went_do_not_fill_the_table(void **state)
{
    (void)state;
    char uuid[32];
    inventory.gpus_count = 1;
    reports[0].uuid = uuid;
    for (unsigned k = 0; k < 3 * GPUS_MAX; k++) {
        (void)snprintf(uuid, sizeof uuid, "MIG-%u", k);
        reports[0].processes = 1;
        (void)clean_read(&clean, &inventory, 0);
        assert_string_equal(reports[0].dirty, "1 process that is no instance's");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, setup)
        TEST(a_free_device_without_processes_is_clean),
        TEST(foreign_processes_make_a_free_device_dirty),
        TEST(an_instance_may_use_what_it_holds),
        TEST(a_device_waits_for_a_reading_of_after_its_instance),
        TEST(memory_must_be_back_to_what_it_was),
        TEST(the_baseline_falls_and_never_rises),
        TEST(a_device_of_an_adopted_instance_gets_its_baseline_when_nobody_holds_it),
        TEST(a_driver_that_tells_nothing_leaves_a_device_dirty),
        TEST(old_readings_judge_nothing),
        TEST(devices_that_came_and_went_do_not_fill_the_table),
    };
    return cmocka_run_group_tests_name("clean", tests, NULL, NULL);
}

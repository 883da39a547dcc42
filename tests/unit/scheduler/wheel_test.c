#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/core/wheel.h"

#include <stdlib.h>
#include <string.h>

enum { ENTRIES = 500, ROUND_US = WHEEL_SLOTS * WHEEL_SLOT_US };

static struct wheel wheel;

static int start_at_zero(void **state)
{
    (void)state;
    wheel_init(&wheel, 0);
    return 0;
}

static void an_empty_wheel_has_nothing(void **state)
{
    (void)state;
    assert_null(wheel_expired(&wheel, 0));
    assert_null(wheel_expired(&wheel, 100 * (uint64_t)ROUND_US));
}

static void an_entry_is_never_seen_early_and_at_most_a_slot_late(void **state)
{
    (void)state;
    const uint64_t deadlines[] = {0,
                                  1,
                                  WHEEL_SLOT_US - 1,
                                  WHEEL_SLOT_US,
                                  WHEEL_SLOT_US + 1,
                                  123456,
                                  ROUND_US,
                                  ROUND_US + 5,
                                  3 * (uint64_t)ROUND_US + 77};
    for (size_t i = 0; i < sizeof deadlines / sizeof deadlines[0]; i++) {
        wheel_init(&wheel, 0);
        struct wheel_entry e = {0};
        wheel_add(&wheel, &e, deadlines[i]);
        for (uint64_t now = 0; now < deadlines[i]; now += WHEEL_SLOT_US / 2) {
            assert_null(wheel_expired(&wheel, now));
        }
        if (deadlines[i] > 0) {
            assert_null(wheel_expired(&wheel, deadlines[i] - 1));
        }
        assert_ptr_equal(wheel_expired(&wheel, deadlines[i] + WHEEL_SLOT_US), &e);
        assert_null(e.next);
    }
}

static void a_deadline_in_the_past_is_seen_at_once(void **state)
{
    (void)state;
    struct wheel_entry e = {0};
    assert_null(wheel_expired(&wheel, 10 * (uint64_t)ROUND_US));
    wheel_add(&wheel, &e, 5);
    assert_ptr_equal(wheel_expired(&wheel, 10 * (uint64_t)ROUND_US), &e);
}

static void entries_of_one_slot_come_in_the_order_they_went_in(void **state)
{
    (void)state;
    struct wheel_entry a = {0}, b = {0}, c = {0};
    wheel_add(&wheel, &a, 100);
    wheel_add(&wheel, &b, 100);
    wheel_add(&wheel, &c, 100);
    assert_ptr_equal(wheel_expired(&wheel, ROUND_US), &a);
    assert_ptr_equal(wheel_expired(&wheel, ROUND_US), &b);
    assert_ptr_equal(wheel_expired(&wheel, ROUND_US), &c);
    assert_null(wheel_expired(&wheel, ROUND_US));
}

static void earlier_slots_come_first(void **state)
{
    (void)state;
    struct wheel_entry late = {0}, early = {0};
    wheel_add(&wheel, &late, 50 * WHEEL_SLOT_US);
    wheel_add(&wheel, &early, 2 * WHEEL_SLOT_US);
    assert_ptr_equal(wheel_expired(&wheel, 60 * WHEEL_SLOT_US), &early);
    assert_ptr_equal(wheel_expired(&wheel, 60 * WHEEL_SLOT_US), &late);
}

static void an_entry_of_a_later_round_waits_for_it(void **state)
{
    (void)state;
    struct wheel_entry now = {0}, later = {0};
    wheel_add(&wheel, &later, 5 * WHEEL_SLOT_US + (uint64_t)ROUND_US);
    wheel_add(&wheel, &now, 5 * WHEEL_SLOT_US);
    assert_ptr_equal(wheel_expired(&wheel, 10 * WHEEL_SLOT_US), &now);
    assert_null(wheel_expired(&wheel, 10 * WHEEL_SLOT_US));
    assert_ptr_equal(wheel_expired(&wheel, 6 * WHEEL_SLOT_US + (uint64_t)ROUND_US), &later);
}

static void after_a_long_pause_everything_due_is_seen(void **state)
{
    (void)state;
    static struct wheel_entry entries[ENTRIES];
    memset(entries, 0, sizeof entries);
    for (size_t i = 0; i < ENTRIES; i++) {
        wheel_add(&wheel, &entries[i], i * 3 * WHEEL_SLOT_US);
    }
    uint64_t now = 50 * (uint64_t)ROUND_US;
    for (size_t i = 0; i < ENTRIES; i++) {
        assert_non_null(wheel_expired(&wheel, now));
    }
    assert_null(wheel_expired(&wheel, now));
}

static void a_removed_entry_is_not_seen(void **state)
{
    (void)state;
    struct wheel_entry a = {0}, b = {0};
    wheel_add(&wheel, &a, 100);
    wheel_add(&wheel, &b, 100);
    wheel_remove(&a);
    assert_ptr_equal(wheel_expired(&wheel, ROUND_US), &b);
    assert_null(wheel_expired(&wheel, ROUND_US));
    wheel_remove(&a); /* In no wheel: nothing happens. */
    wheel_add(&wheel, &a, ROUND_US);
    assert_ptr_equal(wheel_expired(&wheel, 2 * ROUND_US), &a);
}

/* Against a plain list: whatever the order of adding, removing and looking, the same are seen. */
static void random_entries_are_seen_as_in_a_plain_list(void **state)
{
    (void)state;
    static struct wheel_entry entries[ENTRIES];
    memset(entries, 0, sizeof entries);
    unsigned seed = 12345;
    uint64_t now = 0;
    for (int step = 0; step < 20000; step++) {
        size_t k = (size_t)rand_r(&seed) % ENTRIES;
        if (entries[k].next == NULL) {
            wheel_add(&wheel, &entries[k],
                      now + (uint64_t)rand_r(&seed) % (3 * (uint64_t)ROUND_US));
        } else if (rand_r(&seed) % 4 == 0) {
            wheel_remove(&entries[k]);
        }
        now += (uint64_t)rand_r(&seed) % (2 * WHEEL_SLOT_US);
        for (struct wheel_entry *e = wheel_expired(&wheel, now); e != NULL;
             e = wheel_expired(&wheel, now)) {
            assert_true(e->deadline_us <= now);
        }
        for (size_t i = 0; i < ENTRIES && step % 64 == 0; i++) {
            assert_true(entries[i].next == NULL || entries[i].deadline_us + WHEEL_SLOT_US > now);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_empty_wheel_has_nothing, start_at_zero),
        cmocka_unit_test_setup(an_entry_is_never_seen_early_and_at_most_a_slot_late, start_at_zero),
        cmocka_unit_test_setup(a_deadline_in_the_past_is_seen_at_once, start_at_zero),
        cmocka_unit_test_setup(entries_of_one_slot_come_in_the_order_they_went_in, start_at_zero),
        cmocka_unit_test_setup(earlier_slots_come_first, start_at_zero),
        cmocka_unit_test_setup(an_entry_of_a_later_round_waits_for_it, start_at_zero),
        cmocka_unit_test_setup(after_a_long_pause_everything_due_is_seen, start_at_zero),
        cmocka_unit_test_setup(a_removed_entry_is_not_seen, start_at_zero),
        cmocka_unit_test_setup(random_entries_are_seen_as_in_a_plain_list, start_at_zero),
    };
    return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}

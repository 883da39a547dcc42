#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "scheduler/core/catalog.h"

#include <string.h>

#include <cmocka.h>

static uint64_t applied;

static struct status put(struct catalog *c, uint32_t key, const char *wrapped, const char *by,
                         bool rewrap, struct errmsg *msg)
{
    const struct command cmd = {.type = COMMAND_KEY_PUT,
                                .time_ms = 1000 + applied,
                                .by = "scheduler",
                                .command_key_put = {.key = key,
                                                    .wrapped = bytes_of(wrapped, strlen(wrapped)),
                                                    .wrapped_by = by,
                                                    .rewrap = rewrap}};
    return catalog_apply(c, ++applied, &cmd, msg);
}

static void keys_come_one_after_the_other(void **state)
{
    (void)state;
    struct catalog c = {0};
    struct errmsg msg = {.text = ""};
    applied = 0;
    assert_null(keys_current(&c.keys));
    assert_int_equal(put(&c, 0, "w", "f", false, &msg).code, STATUS_CONFLICT);
    assert_int_equal(put(&c, 2, "w", "f", false, &msg).code, STATUS_CONFLICT);
    assert_true(status_is_ok(put(&c, 1, "one", "f", false, &msg)));
    assert_true(status_is_ok(put(&c, 2, "two", "f", false, &msg)));
    const struct data_key *k = keys_current(&c.keys);
    assert_int_equal(k->id, 2);
    assert_int_equal(k->index, 4);
    assert_int_equal(k->time_ms, 1003);
    assert_int_equal(k->wrapped_size, 3);
    assert_memory_equal(k->wrapped, "two", 3);
    catalog_close(&c);
}

/* Two leaders made the same next key: the second is refused, it does not replace the first. */
static void a_key_is_never_replaced_by_another(void **state)
{
    (void)state;
    struct catalog c = {0};
    struct errmsg msg = {.text = ""};
    applied = 0;
    assert_true(status_is_ok(put(&c, 1, "one", "f", false, &msg)));
    uint64_t before = catalog_digest(&c);
    assert_int_equal(put(&c, 1, "other", "g", false, &msg).code, STATUS_CONFLICT);
    assert_non_null(strstr(msg.text, "another rotation came first"));
    assert_memory_equal(c.keys.items[0].wrapped, "one", 3);
    assert_true(catalog_digest(&c) != before); /* index and time went on */
    catalog_close(&c);
}

static void a_known_key_is_wrapped_anew(void **state)
{
    (void)state;
    struct catalog c = {0};
    struct errmsg msg = {.text = ""};
    applied = 0;
    assert_true(status_is_ok(put(&c, 1, "one", "f", false, &msg)));
    assert_int_equal(put(&c, 2, "x", "g", true, &msg).code, STATUS_NOT_FOUND);
    assert_int_equal(put(&c, 0, "x", "g", true, &msg).code, STATUS_NOT_FOUND);
    assert_true(status_is_ok(put(&c, 1, "anew", "g", true, &msg)));
    assert_int_equal(c.keys.count, 1);
    assert_string_equal(c.keys.items[0].wrapped_by, "g");
    assert_memory_equal(c.keys.items[0].wrapped, "anew", 4);
    assert_int_equal(c.keys.items[0].index, 1); /* what it was sealed since */
    catalog_close(&c);
}

static void what_is_no_wrapped_key_is_refused(void **state)
{
    (void)state;
    struct catalog c = {0};
    struct errmsg msg = {.text = ""};
    char large[KEY_WRAPPED_BYTES_MAX + 2], by[KEY_WRAPPED_BY_BYTES_MAX + 2];
    memset(large, 'w', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    memset(by, 'f', sizeof by - 1);
    by[sizeof by - 1] = '\0';
    applied = 0;
    assert_int_equal(put(&c, 1, "", "f", false, &msg).code, STATUS_INVALID);
    assert_int_equal(put(&c, 1, large, "f", false, &msg).code, STATUS_INVALID);
    assert_int_equal(put(&c, 1, "w", "", false, &msg).code, STATUS_INVALID);
    assert_int_equal(put(&c, 1, "w", by, false, &msg).code, STATUS_INVALID);
    assert_int_equal(c.keys.count, 0);
    assert_true(status_is_ok(put(&c, 1, large + 1, by + 1, false, &msg)));
    catalog_close(&c);
}

static void there_is_a_most_of_keys(void **state)
{
    (void)state;
    struct catalog c = {0};
    struct errmsg msg = {.text = ""};
    applied = 0;
    for (uint32_t id = 1; id <= KEYS_MAX; id++) {
        assert_true(status_is_ok(put(&c, id, "w", "f", false, &msg)));
    }
    assert_int_equal(put(&c, KEYS_MAX + 1, "w", "f", false, &msg).code, STATUS_LIMIT);
    assert_true(status_is_ok(put(&c, KEYS_MAX, "anew", "g", true, &msg)));
    catalog_close(&c);
}

static void keys_travel_in_snapshots(void **state)
{
    (void)state;
    struct catalog c = {0}, d = {0};
    struct errmsg msg = {.text = ""};
    struct arena a = {0};
    struct state s;
    applied = 0;
    assert_true(status_is_ok(put(&c, 1, "one", "f", false, &msg)));
    assert_true(status_is_ok(put(&c, 2, "two", "f", false, &msg)));
    assert_true(status_is_ok(put(&c, 1, "anew", "g", true, &msg)));
    assert_true(status_is_ok(catalog_export(&c, &a, &s)));
    assert_true(status_is_ok(catalog_import(&d, &s, &msg)));
    assert_int_equal(catalog_digest(&c), catalog_digest(&d));
    s.keys[1].key = 3; /* a gap */
    assert_int_equal(catalog_import(&d, &s, &msg).code, STATUS_CORRUPT);
    arena_close(&a);
    catalog_close(&c);
    catalog_close(&d);
}

static void each_field_of_a_key_is_in_the_digest(void **state)
{
    (void)state;
    struct catalog c = {0};
    struct errmsg msg = {.text = ""};
    applied = 0;
    assert_true(status_is_ok(put(&c, 1, "one", "f", false, &msg)));
    struct data_key *k = c.keys.items, kept = *k;
    uint64_t before = catalog_digest(&c);
    k->wrapped[0]++;
    assert_true(catalog_digest(&c) != before);
    *k = kept;
    k->wrapped_by[0]++;
    assert_true(catalog_digest(&c) != before);
    *k = kept;
    k->time_ms++;
    assert_true(catalog_digest(&c) != before);
    *k = kept;
    k->index++;
    assert_true(catalog_digest(&c) != before);
    *k = kept;
    assert_int_equal(catalog_digest(&c), before);
    catalog_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_come_one_after_the_other),
        cmocka_unit_test(a_key_is_never_replaced_by_another),
        cmocka_unit_test(a_known_key_is_wrapped_anew),
        cmocka_unit_test(what_is_no_wrapped_key_is_refused),
        cmocka_unit_test(there_is_a_most_of_keys),
        cmocka_unit_test(keys_travel_in_snapshots),
        cmocka_unit_test(each_field_of_a_key_is_in_the_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

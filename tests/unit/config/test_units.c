#include "common/units.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint64_t parsed(enum unit unit, const char *text)
{
    uint64_t value = 0;
    struct errmsg msg = {""};
    struct status s = unit_parse(unit, text, strlen(text), &value, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(s));
    return value;
}

static enum status_code refused(enum unit unit, const char *text, size_t size)
{
    uint64_t value = 77;
    struct errmsg msg = {""};
    struct status s = unit_parse(unit, text, size, &value, &msg);
    assert_false(status_is_ok(s));
    assert_int_equal(value, 77);
    assert_string_not_equal(msg.text, "");
    return s.code;
}

static void processors_are_thousandths(void **state)
{
    (void)state;
    assert_int_equal(parsed(UNIT_CPU, "500m"), 500);
    assert_int_equal(parsed(UNIT_CPU, "2"), 2000);
    assert_int_equal(parsed(UNIT_CPU, "1.5"), 1500);
    assert_int_equal(parsed(UNIT_CPU, "0.25"), 250);
    assert_int_equal(parsed(UNIT_CPU, "0.001"), 1);
}

static void bytes_need_a_binary_suffix(void **state)
{
    (void)state;
    assert_int_equal(parsed(UNIT_BYTES, "7B"), 7);
    assert_int_equal(parsed(UNIT_BYTES, "64Ki"), 64 << 10);
    assert_int_equal(parsed(UNIT_BYTES, "256Mi"), 256 << 20);
    assert_int_equal(parsed(UNIT_BYTES, "2Gi"), UINT64_C(2) << 30);
    assert_int_equal(parsed(UNIT_BYTES, "1Ti"), UINT64_C(1) << 40);
    assert_int_equal(refused(UNIT_BYTES, "1024", 4), STATUS_INVALID);
    assert_int_equal(refused(UNIT_BYTES, "1KB", 3), STATUS_INVALID);
    assert_int_equal(refused(UNIT_BYTES, "1.5Gi", 5), STATUS_INVALID);
}

static void durations_are_milliseconds(void **state)
{
    (void)state;
    assert_int_equal(parsed(UNIT_DURATION, "300ms"), 300);
    assert_int_equal(parsed(UNIT_DURATION, "5s"), 5000);
    assert_int_equal(parsed(UNIT_DURATION, "2m"), 120000);
    assert_int_equal(parsed(UNIT_DURATION, "1h"), 3600000);
    assert_int_equal(refused(UNIT_DURATION, "5", 1), STATUS_INVALID);
    assert_int_equal(refused(UNIT_DURATION, "1d", 2), STATUS_INVALID);
}

static void counts_have_no_suffix(void **state)
{
    (void)state;
    assert_int_equal(parsed(UNIT_COUNT, "0"), 0);
    assert_int_equal(parsed(UNIT_COUNT, "007"), 7);
    assert_true(parsed(UNIT_COUNT, "18446744073709551615") == UINT64_MAX);
    assert_int_equal(refused(UNIT_COUNT, "1k", 2), STATUS_INVALID);
}

static void factors_are_thousandths(void **state)
{
    (void)state;
    assert_int_equal(parsed(UNIT_FACTOR, "2"), 2000);
    assert_int_equal(parsed(UNIT_FACTOR, "2.0"), 2000);
    assert_int_equal(parsed(UNIT_FACTOR, "1.25"), 1250);
    assert_int_equal(refused(UNIT_FACTOR, "500m", 4), STATUS_INVALID);
    assert_int_equal(refused(UNIT_FACTOR, "1.2345", 6), STATUS_INVALID);
    char text[UNIT_STRING_BYTES];
    unit_format(UNIT_FACTOR, 1050, text);
    assert_string_equal(text, "1.05");
    unit_format(UNIT_FACTOR, 2000, text);
    assert_string_equal(text, "2");
}

static void rates_are_thousandths_a_second(void **state)
{
    (void)state;
    assert_int_equal(parsed(UNIT_RATE, "10/s"), 10000);
    assert_int_equal(parsed(UNIT_RATE, "0.5/s"), 500);
    assert_int_equal(parsed(UNIT_RATE, "600/m"), 10000);
    assert_int_equal(parsed(UNIT_RATE, "100/m"), 1666);
    assert_int_equal(parsed(UNIT_RATE, "90/h"), 25);
    assert_int_equal(parsed(UNIT_RATE, "1/h"), 0);
    assert_int_equal(refused(UNIT_RATE, "10", 2), STATUS_INVALID);
    assert_int_equal(refused(UNIT_RATE, "10/d", 4), STATUS_INVALID);
    assert_int_equal(refused(UNIT_RATE, "10/", 3), STATUS_INVALID);
    assert_int_equal(refused(UNIT_RATE, "1./s", 4), STATUS_INVALID);
    char text[UNIT_STRING_BYTES];
    unit_format(UNIT_RATE, 1666, text);
    assert_string_equal(text, "1.666/s");
    unit_format(UNIT_RATE, 10000, text);
    assert_string_equal(text, "10/s");
}

static void signs_blanks_and_other_bases_are_refused(void **state)
{
    static const char *const bad[] = {"",    "-1",    "+1",       " 1",  "1 ", "0x1",
                                      "1e3", "1_000", "\xc2\xbd", "1\n", "."};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (int unit = UNIT_COUNT; unit < UNITS_COUNT; unit++) {
            assert_int_equal(refused((enum unit)unit, bad[i], strlen(bad[i])), STATUS_INVALID);
        }
    }
    assert_int_equal(refused(UNIT_COUNT, "1\0002", 3), STATUS_INVALID);
    assert_int_equal(refused(UNIT_CPU, "1.", 2), STATUS_INVALID);
    assert_int_equal(refused(UNIT_CPU, "1.5m", 4), STATUS_INVALID);
    assert_int_equal(refused(UNIT_CPU, "1.0001", 6), STATUS_INVALID);
}

static void overflow_is_a_limit(void **state)
{
    (void)state;
    assert_int_equal(refused(UNIT_COUNT, "18446744073709551616", 20), STATUS_LIMIT);
    assert_int_equal(refused(UNIT_BYTES, "16777216Ti", 10), STATUS_LIMIT);
    assert_true(parsed(UNIT_BYTES, "16777215Ti") == UINT64_C(16777215) << 40);
    assert_int_equal(refused(UNIT_CPU, "18446744073709551.616", 21), STATUS_LIMIT);
    assert_int_equal(refused(UNIT_COUNT, "000000000000000000000000000000000000001", 39),
                     STATUS_INVALID);
}

static void what_is_formatted_reads_back(void **state)
{
    static const uint64_t values[] = {0,       1,       10,      999,     1000, 1500,      60000,
                                      3600000, 5400000, 1 << 10, 3 << 20, 1025, UINT64_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        for (int unit = UNIT_COUNT; unit < UNITS_COUNT; unit++) {
            char text[UNIT_STRING_BYTES];
            unit_format((enum unit)unit, values[i], text);
            assert_true(parsed((enum unit)unit, text) == values[i]);
        }
    }
}

static void quotes_escape_and_cut(void **state)
{
    char out[QUOTE_STRING_BYTES];
    char longer[200];
    (void)state;
    text_quote("a\n\"\\\x7f\xff", 6, out);
    assert_string_equal(out, "a\\x0a\\x22\\x5c\\x7f\\xff");
    memset(longer, '\n', sizeof longer);
    text_quote(longer, sizeof longer, out);
    assert_true(strlen(out) < sizeof out);
    assert_string_equal(out + strlen(out) - 3, "...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processors_are_thousandths),
        cmocka_unit_test(bytes_need_a_binary_suffix),
        cmocka_unit_test(durations_are_milliseconds),
        cmocka_unit_test(counts_have_no_suffix),
        cmocka_unit_test(factors_are_thousandths),
        cmocka_unit_test(rates_are_thousandths_a_second),
        cmocka_unit_test(signs_blanks_and_other_bases_are_refused),
        cmocka_unit_test(overflow_is_a_limit),
        cmocka_unit_test(what_is_formatted_reads_back),
        cmocka_unit_test(quotes_escape_and_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

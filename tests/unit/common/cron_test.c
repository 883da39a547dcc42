#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/cron.h"
#include "common/dates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t ms_of(const char *text)
{
    uint64_t ms = 0;
    assert_int_equal(date_parse(text, &ms, NULL).code, STATUS_OK);
    return ms;
}

static struct cron parsed(const char *text)
{
    struct cron c;
    struct errmsg msg = {.text = ""};
    struct status s = cron_parse(text, &c, &msg);
    if (s.code != STATUS_OK) {
        fail_msg("%s: %s", text, msg.text);
    }
    return c;
}

static void expect_next(const char *cron, const char *after, const char *next)
{
    struct cron c = parsed(cron);
    char got[DATE_STRING_BYTES];
    date_format(cron_next(&c, ms_of(after)), got);
    if (strcmp(got, next) != 0) {
        fail_msg("\"%s\" after %s: %s, not %s", cron, after, got, next);
    }
}

static void next_is_strictly_later(void **state)
{
    (void)state;
    expect_next("* * * * *", "2027-01-01T00:00:00Z", "2027-01-01T00:01:00Z");
    expect_next("* * * * *", "2027-01-01T00:00:59.999Z", "2027-01-01T00:01:00Z");
    expect_next("30 2 * * *", "2027-01-01T02:30:00Z", "2027-01-02T02:30:00Z");
    expect_next("30 2 * * *", "2027-01-01T02:29:59Z", "2027-01-01T02:30:00Z");
}

static void lists_ranges_steps_and_names_are_read(void **state)
{
    (void)state;
    expect_next("5,35 * * * *", "2027-01-01T00:05:00Z", "2027-01-01T00:35:00Z");
    expect_next("0 9-17 * * mon-fri", "2027-01-01T17:00:00Z", "2027-01-04T09:00:00Z");
    expect_next("*/20 * * * *", "2027-01-01T00:41:00Z", "2027-01-01T01:00:00Z");
    expect_next("10-30/10 * * * *", "2027-01-01T00:10:00Z", "2027-01-01T00:20:00Z");
    expect_next("7/20 * * * *", "2027-01-01T00:07:00Z", "2027-01-01T00:27:00Z");
    expect_next("0 0 1 JAN,jul *", "2027-01-01T00:00:00Z", "2027-07-01T00:00:00Z");
    expect_next("0 0 * * SUN", "2027-01-01T00:00:00Z", "2027-01-03T00:00:00Z");
    expect_next("0 0 * * 7", "2027-01-01T00:00:00Z", "2027-01-03T00:00:00Z");
    expect_next("0 0 * * 5-7", "2027-01-02T00:00:00Z", "2027-01-03T00:00:00Z");
    expect_next("  0\t0  * *   * ", "2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z");
}

static void shorthands_mean_their_fields(void **state)
{
    (void)state;
    expect_next("@hourly", "2027-01-01T00:00:00Z", "2027-01-01T01:00:00Z");
    expect_next("@daily", "2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z");
    expect_next("@midnight", "2027-01-01T12:00:00Z", "2027-01-02T00:00:00Z");
    expect_next("@weekly", "2027-01-01T00:00:00Z", "2027-01-03T00:00:00Z");
    expect_next("@monthly", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z");
    expect_next("@yearly", "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z");
    expect_next("@annually", "2027-06-01T00:00:00Z", "2028-01-01T00:00:00Z");
}

static void every_counts_from_1970(void **state)
{
    (void)state;
    expect_next("@every 90s", "1970-01-01T00:00:00Z", "1970-01-01T00:01:30Z");
    expect_next("@every 90s", "1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z");
    expect_next("@every 1h", "2027-01-01T00:10:00Z", "2027-01-01T01:00:00Z");
}

static void leap_days_come_in_leap_years(void **state)
{
    (void)state;
    expect_next("0 0 29 2 *", "2027-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
    expect_next("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z");
    expect_next("0 0 31 * *", "2027-03-31T00:00:00Z", "2027-05-31T00:00:00Z");
    /* *-weekday with a step keeps both: a leap day that is a Sunday, 28 years apart. */
    expect_next("0 0 29 2 */7", "2004-03-01T00:00:00Z", "2032-02-29T00:00:00Z");
    expect_next("0 0 29 2 */7", "2088-03-01T00:00:00Z", "2128-02-29T00:00:00Z");
}

static void day_and_weekday_both_given_mean_either(void **state)
{
    (void)state;
    expect_next("0 0 13 * 5", "2027-01-02T00:00:00Z", "2027-01-08T00:00:00Z");
    expect_next("0 0 13 * 5", "2027-01-08T00:00:00Z", "2027-01-13T00:00:00Z");
    expect_next("0 0 31 2 1", "2027-02-01T00:00:00Z", "2027-02-08T00:00:00Z");
}

static void the_end_of_time_has_no_next(void **state)
{
    (void)state;
    struct cron c = parsed("@yearly");
    assert_int_equal(cron_next(&c, ms_of("9999-01-01T00:00:00Z")), 0);
    assert_int_equal(cron_next(&c, UINT64_MAX), 0);
    c = parsed("@every 8784h");
    assert_int_equal(cron_next(&c, UINT64_MAX), 0);
    c = parsed("* * * * *");
    assert_int_equal(cron_next(&c, ms_of("9999-12-31T23:59:00Z")), 0);
}

static void wrong_texts_are_refused_with_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"", "minute is missing"},
        {"* * * *", "weekday is missing"},
        {"* * * * * *", "more than five"},
        {"60 * * * *", "\"60\" is not a minute of 0 to 59"},
        {"* 24 * * *", "hour"},
        {"* * 0 * *", "day of month"},
        {"* * 32 * *", "day of month"},
        {"* * * 13 *", "month"},
        {"* * * 0 *", "month"},
        {"* * * * 8", "weekday"},
        {"5-1 * * * *", "5-1"},
        {"*/0 * * * *", "*/0"},
        {"1,,2 * * * *", "1,,2"},
        {"1, * * * *", "1,"},
        {"- * * * *", "-"},
        {"1- * * * *", "1-"},
        {"a * * * *", "a"},
        {"99999999999 * * * *", "minute"},
        {"*5 * * * *", "*5"},
        {"* * * janu *", "janu"},
        {"*/mon * * * *", "*/mon"},
        {"* * * * */mon", "*/mon"},
        {"0 0 31 2 *", "never comes"},
        {"0 0 30,31 feb *", "never comes"},
        {"0 0 31 4,6,9,11 *", "never comes"},
        {"@sometimes", "@hourly"},
        {"@every", "@hourly"},
        {"@every 5", "5"},
        {"@every 10ms", "1s to 8784h"},
        {"@every 9999h", "1s to 8784h"},
        {"@every 1h 2h", "1h 2h"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cron c = {.every_ms = 7};
        struct errmsg msg = {.text = ""};
        assert_int_equal(cron_parse(rows[i].text, &c, &msg).code, STATUS_INVALID);
        assert_int_equal(c.every_ms, 7);
        if (strstr(msg.text, rows[i].part) == NULL) {
            fail_msg("\"%s\": %s", rows[i].text, msg.text);
        }
    }
    char longer[CRON_TEXT_BYTES_MAX + 2];
    memset(longer, '1', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    struct cron c;
    assert_int_equal(cron_parse(longer, &c, NULL).code, STATUS_INVALID);
}

/* ---- Against an oracle: each minute asked by the C library's calendar ---- */

static bool oracle(const struct cron *c, time_t s)
{
    struct tm tm;
    assert_non_null(gmtime_r(&s, &tm));
    bool day = (c->days >> tm.tm_mday & 1) != 0;
    bool weekday = (c->weekdays >> tm.tm_wday & 1) != 0;
    return (c->minutes >> tm.tm_min & 1) != 0 && (c->hours >> tm.tm_hour & 1) != 0 &&
           (c->months >> (tm.tm_mon + 1) & 1) != 0 && (c->either ? day || weekday : day && weekday);
}

static void next_agrees_with_a_search_minute_by_minute(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "*/7 3,4 * * *",           "0 0 29 2 *",   "15 6 1-7 * 1",        "59 23 31 12 *",
        "*/59 */23 */30 */11 */6", "0 12 * 2 mon", "1-3,50 22 28-31 * *", "30 0 31 * 5",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct cron c = parsed(texts[i]);
        time_t at = (time_t)(ms_of("2027-12-20T23:17:00Z") / 1000);
        time_t end = at + (time_t)(90 * 86400);
        uint64_t next = cron_next(&c, (uint64_t)at * 1000);
        for (time_t s = at + 60; s < end; s += 60) {
            bool wanted = oracle(&c, s);
            assert_int_equal(wanted, next == (uint64_t)s * 1000);
            if (wanted) {
                next = cron_next(&c, (uint64_t)s * 1000);
            }
        }
        assert_true(next >= (uint64_t)end * 1000);
    }
}

/* Random fields, from many places of the calendar. */
static void next_agrees_on_random_schedules(void **state)
{
    (void)state;
    unsigned seed = 20270131;
    for (int n = 0; n < 300; n++) {
        char text[CRON_TEXT_BYTES_MAX];
        unsigned a = (unsigned)rand_r(&seed), b = (unsigned)rand_r(&seed);
        (void)snprintf(text, sizeof text, "%u-%u/%u %u-23/%u %u,%u */%u %u", a % 30, 30 + a % 30,
                       1 + b % 9, a / 7 % 24, 1 + b % 5, 1 + a % 28, 1 + b % 28, 1 + b % 3, a % 8);
        struct cron c = parsed(text);
        time_t from = (time_t)(86400ULL * (10000 + b % 40000) + a % 86400);
        uint64_t next = cron_next(&c, (uint64_t)from * 1000);
        assert_int_equal(next % 60000, 0);
        assert_true(next > (uint64_t)from * 1000);
        assert_true(oracle(&c, (time_t)(next / 1000)));
        for (time_t s = from - from % 60 + 60; (uint64_t)s * 1000 < next; s += 60) {
            assert_false(oracle(&c, s));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(next_is_strictly_later),
        cmocka_unit_test(lists_ranges_steps_and_names_are_read),
        cmocka_unit_test(shorthands_mean_their_fields),
        cmocka_unit_test(every_counts_from_1970),
        cmocka_unit_test(leap_days_come_in_leap_years),
        cmocka_unit_test(day_and_weekday_both_given_mean_either),
        cmocka_unit_test(the_end_of_time_has_no_next),
        cmocka_unit_test(wrong_texts_are_refused_with_what_is_wrong),
        cmocka_unit_test(next_agrees_with_a_search_minute_by_minute),
        cmocka_unit_test(next_agrees_on_random_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/dates.h"

#include <string.h>
#include <time.h>

/* Against the C library's own calendar, which is another's work. */
static void days_agree_with_the_c_library(void **state)
{
    (void)state;
    for (uint64_t day = 0; day < 2000000; day += 13) {
        time_t s = (time_t)(day * 86400 + day % 86400);
        struct tm tm;
        assert_non_null(gmtime_r(&s, &tm));
        struct date d;
        date_of_unix((uint64_t)s, &d);
        assert_int_equal(d.year, tm.tm_year + 1900);
        assert_int_equal(d.month, tm.tm_mon + 1);
        assert_int_equal(d.day, tm.tm_mday);
        assert_int_equal(d.hour, tm.tm_hour);
        assert_int_equal(d.minute, tm.tm_min);
        assert_int_equal(d.second, tm.tm_sec);
        assert_int_equal(d.weekday, tm.tm_wday);
        assert_int_equal(date_days(d.year, d.month, d.day), day);
    }
}

static void leap_years_follow_the_gregorian_rule(void **state)
{
    (void)state;
    assert_true(date_leap_year(2000));
    assert_false(date_leap_year(2100));
    assert_true(date_leap_year(2028));
    assert_false(date_leap_year(2027));
    assert_int_equal(date_days_of_month(2100, 2), 28);
    assert_int_equal(date_days_of_month(2000, 2), 29);
}

static void times_after_the_year_9999_give_its_end(void **state)
{
    (void)state;
    struct date d;
    date_of_unix(UINT64_MAX, &d);
    assert_int_equal(d.year, 9999);
    assert_int_equal(d.month, 12);
    assert_int_equal(d.day, 31);
    assert_int_equal(d.second, 59);
}

static void parse_reads_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } rows[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2027-01-31T08:30:00Z", UINT64_C(1801384200000)},
        {"2027-01-31t08:30:00z", UINT64_C(1801384200000)},
        {"2027-01-31 08:30:00Z", UINT64_C(1801384200000)},
        {"2027-01-31T08:30:00.5Z", UINT64_C(1801384200500)},
        {"2027-01-31T08:30:00.123456789Z", UINT64_C(1801384200123)},
        {"2027-01-31T10:30:00+02:00", UINT64_C(1801384200000)},
        {"2027-01-31T03:00:00-05:30", UINT64_C(1801384200000)},
        {"2028-02-29T00:00:00Z", UINT64_C(1835395200000)},
        {"2016-12-31T23:59:60Z", UINT64_C(1483228799000)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t ms = 1;
        struct errmsg msg;
        assert_int_equal(date_parse(rows[i].text, &ms, &msg).code, STATUS_OK);
        assert_int_equal(ms, rows[i].ms);
    }
}

static void parse_refuses_what_is_no_time(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",
        "now",
        "2027-01-31",
        "2027-01-31T08:30:00",
        "2027-01-31T08:30Z",
        "2027-02-29T00:00:00Z",
        "2027-13-01T00:00:00Z",
        "2027-00-01T00:00:00Z",
        "2027-01-00T00:00:00Z",
        "2027-01-31T24:00:00Z",
        "2027-01-31T08:60:00Z",
        "2027-01-31T08:30:61Z",
        "2027-01-31T08:30:00.Z",
        "2027-01-31T08:30:00.1234567890Z",
        "2027-01-31T08:30:00+2:00",
        "2027-01-31T08:30:00+24:00",
        "2027-01-31T08:30:00Zx",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-00:01",
        "12027-01-31T08:30:00Z",
        "2027-01-31T08:30:00Z ",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t ms = 77;
        struct errmsg msg = {.text = ""};
        assert_int_equal(date_parse(rows[i], &ms, &msg).code, STATUS_INVALID);
        assert_int_equal(ms, 77);
        assert_non_null(strstr(msg.text, rows[i]));
    }
}

static void format_writes_what_parse_reads(void **state)
{
    (void)state;
    for (uint64_t ms = 0; ms < UINT64_C(200000000000000); ms += UINT64_C(1234567891000)) {
        char text[DATE_STRING_BYTES];
        uint64_t back;
        date_format(ms, text);
        assert_int_equal(date_parse(text, &back, NULL).code, STATUS_OK);
        assert_int_equal(back, ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(days_agree_with_the_c_library),
        cmocka_unit_test(leap_years_follow_the_gregorian_rule),
        cmocka_unit_test(times_after_the_year_9999_give_its_end),
        cmocka_unit_test(parse_reads_every_form),
        cmocka_unit_test(parse_refuses_what_is_no_time),
        cmocka_unit_test(format_writes_what_parse_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "common/dates.h"

#include "common/check.h"
#include "common/units.h"

#include <stdio.h>
#include <string.h>

enum { DAY_S = 86400, DAYS_OF_400_YEARS = 146097 };

bool date_leap_year(uint32_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

uint32_t date_days_of_month(uint32_t year, uint32_t month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    CHECK(month >= 1 && month <= 12);
    return month == 2 && date_leap_year(year) ? 29 : days[month - 1];
}

/* The year is taken to begin in March, so that the leap day is its last. */
uint64_t date_days(uint32_t year, uint32_t month, uint32_t day)
{
    CHECK(year >= DATE_YEAR_MIN && year <= DATE_YEAR_MAX && month >= 1 && month <= 12);
    uint64_t y = month <= 2 ? year - 1 : year;
    uint64_t m = month <= 2 ? month + 9 : month - 3;
    uint64_t of_year = (153 * m + 2) / 5 + day - 1;
    return y * 365 + y / 4 - y / 100 + y / 400 + of_year - 719468;
}

void date_of_unix(uint64_t unix_s, struct date *out)
{
    uint64_t last = (date_days(DATE_YEAR_MAX, 12, 31) + 1) * DAY_S - 1;
    uint64_t s = unix_s > last ? last : unix_s;
    uint64_t days = s / DAY_S;
    uint64_t from_0 = days + 719468; /* since 0000-03-01 */
    uint64_t era = from_0 / DAYS_OF_400_YEARS;
    uint64_t of_era = from_0 % DAYS_OF_400_YEARS;
    uint64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    uint64_t m = (5 * of_year + 2) / 153;
    *out = (struct date){
        .year = (uint32_t)(y + era * 400 + (m >= 10 ? 1 : 0)),
        .month = (uint32_t)(m < 10 ? m + 3 : m - 9),
        .day = (uint32_t)(of_year - (153 * m + 2) / 5 + 1),
        .hour = (uint32_t)(s % DAY_S / 3600),
        .minute = (uint32_t)(s % 3600 / 60),
        .second = (uint32_t)(s % 60),
        .weekday = (uint32_t)((days + 4) % 7), /* 1970-01-01 was a Thursday. */
    };
}

/* ---- Texts ---- */

/* Exactly `digits` of them. */
static bool take_number(const char **at, unsigned digits, uint32_t *out)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < digits; i++, (*at)++) {
        if (**at < '0' || **at > '9') {
            return false;
        }
        value = value * 10 + (uint32_t)(**at - '0');
    }
    *out = value;
    return true;
}

static bool take_char(const char **at, const char *any)
{
    if (**at == '\0' || strchr(any, **at) == NULL) {
        return false;
    }
    (*at)++;
    return true;
}

static bool take_fraction(const char **at, uint32_t *ms)
{
    *ms = 0;
    if (**at != '.') {
        return true;
    }
    (*at)++;
    unsigned digits = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++, digits++) {
        *ms = digits < 3 ? *ms * 10 + (uint32_t)(**at - '0') : *ms;
    }
    for (unsigned i = digits; i < 3; i++) {
        *ms *= 10;
    }
    return digits > 0 && digits <= 9;
}

/* Z, or how many minutes the text's clock is ahead of UTC. */
static bool take_offset(const char **at, int32_t *minutes)
{
    *minutes = 0;
    if (take_char(at, "Zz")) {
        return true;
    }
    bool behind = **at == '-';
    uint32_t h, m;
    if (!take_char(at, "+-") || !take_number(at, 2, &h) || !take_char(at, ":") ||
        !take_number(at, 2, &m) || h > 23 || m > 59) {
        return false;
    }
    *minutes = (behind ? -1 : 1) * (int32_t)(h * 60 + m);
    return true;
}

static bool parse(const char *text, uint64_t *unix_ms)
{
    struct date d = {0};
    uint32_t ms;
    int32_t ahead;
    const char *at = text;
    if (!take_number(&at, 4, &d.year) || !take_char(&at, "-") || !take_number(&at, 2, &d.month) ||
        !take_char(&at, "-") || !take_number(&at, 2, &d.day) || !take_char(&at, "Tt ") ||
        !take_number(&at, 2, &d.hour) || !take_char(&at, ":") || !take_number(&at, 2, &d.minute) ||
        !take_char(&at, ":") || !take_number(&at, 2, &d.second) || !take_fraction(&at, &ms) ||
        !take_offset(&at, &ahead) || *at != '\0') {
        return false;
    }
    if (d.year < DATE_YEAR_MIN || d.month < 1 || d.month > 12 || d.day < 1 ||
        d.day > date_days_of_month(d.year, d.month) || d.hour > 23 || d.minute > 59 ||
        d.second > 60) {
        return false;
    }
    int64_t s = (int64_t)(date_days(d.year, d.month, d.day) * DAY_S + (uint64_t)d.hour * 3600 +
                          (uint64_t)d.minute * 60 + (d.second > 59 ? 59 : d.second)) -
                (int64_t)ahead * 60;
    if (s < 0 || s >= (int64_t)(date_days(DATE_YEAR_MAX, 12, 31) + 1) * DAY_S) {
        return false;
    }
    *unix_ms = (uint64_t)s * 1000 + ms;
    return true;
}

struct status date_parse(const char *text, uint64_t *unix_ms, struct errmsg *msg)
{
    if (parse(text, unix_ms)) {
        return status_ok();
    }
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, strlen(text), quoted);
    return status_fail(msg, STATUS_INVALID,
                       "\"%s\" is not a time such as 2027-01-31T08:30:00Z (RFC 3339)", quoted);
}

void date_format(uint64_t unix_ms, char out[DATE_STRING_BYTES])
{
    struct date d;
    date_of_unix(unix_ms / 1000, &d);
    char text[64];
    (void)snprintf(text, sizeof text, "%04u-%02u-%02uT%02u:%02u:%02uZ", d.year, d.month, d.day,
                   d.hour, d.minute, d.second);
    memcpy(out, text, DATE_STRING_BYTES - 1);
    out[DATE_STRING_BYTES - 1] = '\0';
}

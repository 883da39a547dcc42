#include "common/cron.h"

#include "common/dates.h"
#include "common/units.h"

#include <string.h>

/* 29 February on a given weekday may be 40 years away. */
enum { MONTHS_SEARCHED_MAX = 41 * 12, FIELDS = 5, NAME_BYTES = 3 };

struct field {
    const char *title;
    uint32_t min, max;
    const char *const *names; /* of min and those after it */
    uint32_t names_count;
};

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                          "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

enum { MINUTE, HOUR, DAY, MONTH, WEEKDAY };
static const struct field fields[FIELDS] = {
    [MINUTE] = {"minute", 0, 59, NULL, 0},           [HOUR] = {"hour", 0, 23, NULL, 0},
    [DAY] = {"day of month", 1, 31, NULL, 0},        [MONTH] = {"month", 1, 12, month_names, 12},
    [WEEKDAY] = {"weekday", 0, 7, weekday_names, 7},
};

static const struct {
    const char *name, *fields;
} shorthands[] = {
    {"@hourly", "0 * * * *"},   {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
    {"@weekly", "0 0 * * 0"},   {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
    {"@annually", "0 0 1 1 *"},
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

/* A number or a name of the field. */
static bool take_value(const struct field *f, const char **at, uint32_t *out)
{
    if (**at >= '0' && **at <= '9') {
        uint32_t value = 0;
        for (; **at >= '0' && **at <= '9'; (*at)++) {
            value = value * 10 + (uint32_t)(**at - '0');
            if (value > 9999) {
                return false;
            }
        }
        *out = value;
        return true;
    }
    for (uint32_t i = 0; i < f->names_count; i++) {
        const char *name = f->names[i];
        if (lower((*at)[0]) == name[0] && lower((*at)[1]) == name[1] &&
            lower((*at)[2]) == name[2]) {
            *at += NAME_BYTES;
            *out = f->min + i;
            return true;
        }
    }
    return false;
}

/* One entry of a list: *, N, N-M, with /STEP. */
static bool take_entry(const struct field *f, const char **at, uint64_t *bits)
{
    uint32_t from = f->min, to = f->max, step = 1;
    bool one = false;
    if (**at == '*') {
        (*at)++;
        to = f->min == 0 && f->names_count == 7 ? 6 : f->max; /* Sunday once. */
    } else {
        if (!take_value(f, at, &from)) {
            return false;
        }
        one = **at != '-';
        if (!one) {
            (*at)++;
            if (!take_value(f, at, &to)) {
                return false;
            }
        }
    }
    if (**at == '/') {
        (*at)++;
        if (**at < '0' || **at > '9' || !take_value(f, at, &step) || step == 0) {
            return false;
        }
    } else if (one) {
        to = from;
    }
    if (from < f->min || to > f->max || from > to) {
        return false;
    }
    for (uint32_t v = from; v <= to; v += step) {
        *bits |= UINT64_C(1) << v;
    }
    return true;
}

/* *star: it begins with *. */
static bool take_field(const struct field *f, const char **at, uint64_t *bits, bool *star)
{
    *bits = 0;
    *star = **at == '*';
    for (;;) {
        if (!take_entry(f, at, bits)) {
            return false;
        }
        if (**at != ',') {
            return **at == '\0' || blank(**at);
        }
        (*at)++;
    }
}

static struct status take_fields(const char *text, struct cron *out, struct errmsg *msg)
{
    uint64_t bits[FIELDS];
    bool star[FIELDS];
    const char *at = text;
    for (size_t i = 0; i < FIELDS; i++) {
        while (blank(*at)) {
            at++;
        }
        char quoted[QUOTE_STRING_BYTES];
        size_t size = strcspn(at, " \t");
        text_quote(at, size, quoted);
        if (size == 0) {
            return status_fail(msg, STATUS_INVALID,
                               "the %s is missing: five fields are wanted, as in \"30 2 * * *\"",
                               fields[i].title);
        }
        if (!take_field(&fields[i], &at, &bits[i], &star[i])) {
            return status_fail(msg, STATUS_INVALID, "\"%s\" is not a %s of %u to %u", quoted,
                               fields[i].title, fields[i].min, fields[i].max);
        }
    }
    while (blank(*at)) {
        at++;
    }
    if (*at != '\0') {
        return status_fail(msg, STATUS_INVALID, "there is more than five fields");
    }
    *out = (struct cron){
        .minutes = bits[MINUTE],
        .hours = (uint32_t)bits[HOUR],
        .days = (uint32_t)bits[DAY],
        .months = (uint32_t)bits[MONTH],
        .weekdays = (uint32_t)((bits[WEEKDAY] | bits[WEEKDAY] >> 7) & 0x7F),
        .either = !star[DAY] && !star[WEEKDAY],
    };
    return status_ok();
}

static struct status take_every(const char *text, struct cron *out, struct errmsg *msg)
{
    uint64_t ms;
    while (blank(*text)) {
        text++;
    }
    TRY(unit_parse(UNIT_DURATION, text, strlen(text), &ms, msg));
    if (ms < CRON_EVERY_MS_MIN || ms > CRON_EVERY_MS_MAX) {
        return status_fail(msg, STATUS_INVALID, "@every takes 1s to 8784h");
    }
    *out = (struct cron){.every_ms = ms};
    return status_ok();
}

struct status cron_parse(const char *text, struct cron *out, struct errmsg *msg)
{
    char quoted[QUOTE_STRING_BYTES];
    size_t size = strnlen(text, CRON_TEXT_BYTES_MAX + 1);
    if (size > CRON_TEXT_BYTES_MAX) {
        return status_fail(msg, STATUS_INVALID, "more than %d bytes", CRON_TEXT_BYTES_MAX);
    }
    text_quote(text, size, quoted);
    struct cron c;
    if (strncmp(text, "@every", 6) == 0 && blank(text[6])) {
        TRY(take_every(text + 6, &c, msg));
    } else if (text[0] == '@') {
        const char *wanted = NULL;
        for (size_t i = 0; i < sizeof shorthands / sizeof shorthands[0]; i++) {
            wanted = strcmp(text, shorthands[i].name) == 0 ? shorthands[i].fields : wanted;
        }
        if (wanted == NULL) {
            return status_fail(msg, STATUS_INVALID,
                               "\"%s\" is not one of @hourly, @daily, @weekly, @monthly, @yearly, "
                               "@every TIME",
                               quoted);
        }
        TRY(take_fields(wanted, &c, msg));
    } else {
        TRY(take_fields(text, &c, msg));
    }
    if (cron_next(&c, 0) == 0) {
        return status_fail(msg, STATUS_INVALID, "\"%s\" never comes", quoted);
    }
    *out = c;
    return status_ok();
}

/* ---- The next time ---- */

static uint32_t bit_from(uint64_t bits, uint32_t from)
{
    uint64_t rest = from < 64 ? bits >> from << from : 0;
    return rest == 0 ? 64 : (uint32_t)__builtin_ctzll(rest);
}

static bool day_fits(const struct cron *c, uint32_t day, uint64_t since_1970)
{
    bool by_day = (c->days >> day & 1) != 0;
    bool by_weekday = (c->weekdays >> (since_1970 + 4) % 7 & 1) != 0;
    return c->either ? by_day || by_weekday : by_day && by_weekday;
}

/* The first minute of a day at or after `minute` of it; false when there is none. */
static bool minute_in_day(const struct cron *c, uint32_t minute, uint32_t *out)
{
    uint32_t hour = bit_from(c->hours, minute / 60);
    if (hour > 23) {
        return false;
    }
    uint32_t of_hour = bit_from(c->minutes, hour == minute / 60 ? minute % 60 : 0);
    if (of_hour > 59) {
        hour = bit_from(c->hours, hour + 1);
        of_hour = bit_from(c->minutes, 0);
    }
    if (hour > 23 || of_hour > 59) {
        return false;
    }
    *out = hour * 60 + of_hour;
    return true;
}

uint64_t cron_next(const struct cron *c, uint64_t after_ms)
{
    const uint64_t end_ms = (date_days(DATE_YEAR_MAX, 12, 31) + 1) * 86400000;
    if (after_ms >= end_ms) {
        return 0;
    }
    if (c->every_ms != 0) {
        uint64_t next = (after_ms / c->every_ms + 1) * c->every_ms;
        return next < end_ms ? next : 0;
    }
    uint64_t first_minute = after_ms / 60000 + 1; /* the first that may be it */
    if (first_minute * 60000 >= end_ms) {
        return 0;
    }
    struct date d;
    date_of_unix(first_minute * 60, &d);
    uint32_t day = d.day, minute = d.hour * 60 + d.minute;
    for (int i = 0; i < MONTHS_SEARCHED_MAX && d.year <= DATE_YEAR_MAX; i++) {
        uint32_t last = (c->months >> d.month & 1) != 0 ? date_days_of_month(d.year, d.month) : 0;
        uint64_t before = date_days(d.year, d.month, 1) - 1;
        for (; day <= last; day++, minute = 0) {
            uint32_t of_day;
            if (day_fits(c, day, before + day) && minute_in_day(c, minute, &of_day)) {
                return ((before + day) * 1440 + of_day) * 60000;
            }
        }
        d.year += d.month == 12;
        d.month = d.month == 12 ? 1 : d.month + 1;
        day = 1;
        minute = 0;
    }
    return 0;
}

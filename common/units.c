#include "common/units.h"

#include "common/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct suffix {
    const char *text;
    uint64_t factor;
};

enum { SUFFIXES_MAX = 5, DECIMALS_MAX = 3 };

/* One row a unit; suffixes rise. */
static const struct {
    const char *noun;
    const char *example;
    struct suffix suffixes[SUFFIXES_MAX];
} units[] = {
    [UNIT_COUNT] = {"a whole number", "10", {{"", 1}}},
    [UNIT_CPU] = {"an amount of processors", "500m or 1.5", {{"m", 1}, {"", 1000}}},
    [UNIT_BYTES] = {"an amount of bytes",
                    "64Ki, 256Mi or 1Gi",
                    {{"B", 1},
                     {"Ki", UINT64_C(1) << 10},
                     {"Mi", UINT64_C(1) << 20},
                     {"Gi", UINT64_C(1) << 30},
                     {"Ti", UINT64_C(1) << 40}}},
    [UNIT_DURATION] = {"a duration",
                       "300ms, 5s, 2m or 1h",
                       {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}}},
    [UNIT_FACTOR] = {"a factor", "2 or 1.5", {{"", 1000}}},
    /* A rate is divided by the seconds of its suffix afterwards. */
    [UNIT_RATE] = {"a rate", "10/s, 600/m or 90/h", {{"/s", 1000}, {"/m", 1000}, {"/h", 1000}}},
};

void text_quote(const char *text, size_t size, char out[QUOTE_STRING_BYTES])
{
    enum { ESCAPE_BYTES = 4, TAIL_BYTES = 4 }; /* "\xNN"; "..." and its NUL */
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (used + ESCAPE_BYTES + TAIL_BYTES > QUOTE_STRING_BYTES) {
            memcpy(out + used, "...", TAIL_BYTES);
            return;
        }
        if (c >= ' ' && c < 0x7F && c != '"' && c != '\\') {
            out[used++] = (char)c;
        } else {
            used += (size_t)snprintf(out + used, QUOTE_STRING_BYTES - used, "\\x%02x", c);
        }
    }
    out[used] = '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const struct suffix *suffix_find(enum unit unit, const char *text, size_t size)
{
    for (size_t i = 0; i < SUFFIXES_MAX && units[unit].suffixes[i].text != NULL; i++) {
        const struct suffix *s = &units[unit].suffixes[i];
        if (strlen(s->text) == size && memcmp(s->text, text, size) == 0) {
            return s;
        }
    }
    return NULL;
}

static struct status not_a_unit(enum unit unit, const char *text, size_t size, struct errmsg *msg)
{
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, size, quoted);
    return status_fail(msg, STATUS_INVALID, "\"%s\" is not %s; write for example %s", quoted,
                       units[unit].noun, units[unit].example);
}

/* The digits at *at, moving it behind them; false when they do not fit. */
static bool take_digits(const char *text, size_t size, size_t *at, uint64_t *value)
{
    *value = 0;
    for (; *at < size && is_digit(text[*at]); (*at)++) {
        if (__builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, (uint64_t)(text[*at] - '0'), value)) {
            return false;
        }
    }
    return true;
}

static uint64_t rate_seconds(const char *suffix)
{
    return suffix[1] == 'h' ? 3600 : suffix[1] == 'm' ? 60 : 1;
}

struct status unit_parse(enum unit unit, const char *text, size_t size, uint64_t *out,
                         struct errmsg *msg)
{
    CHECK((size_t)unit < sizeof units / sizeof units[0]);
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, size, quoted);
    if (size == 0 || size > UNIT_TEXT_BYTES_MAX || !is_digit(text[0])) {
        return not_a_unit(unit, text, size, msg);
    }
    size_t at = 0;
    uint64_t whole;
    if (!take_digits(text, size, &at, &whole)) {
        return status_fail(msg, STATUS_LIMIT, "\"%s\" is too large", quoted);
    }
    uint64_t thousandths = 0;
    bool point = unit == UNIT_CPU || unit == UNIT_FACTOR || unit == UNIT_RATE;
    bool decimals = point && at < size && text[at] == '.';
    if (decimals) {
        size_t first = ++at;
        for (uint64_t place = 100; at < size && is_digit(text[at]) && at - first < DECIMALS_MAX;
             place /= 10) {
            thousandths += place * (uint64_t)(text[at++] - '0');
        }
        if (at == first || (at != size && unit != UNIT_RATE)) {
            return not_a_unit(unit, text, size, msg);
        }
    }
    const struct suffix *s = suffix_find(unit, text + at, size - at);
    if (s == NULL) {
        return not_a_unit(unit, text, size, msg);
    }
    uint64_t value;
    if (__builtin_mul_overflow(whole, s->factor, &value) ||
        __builtin_add_overflow(value, thousandths, &value)) {
        return status_fail(msg, STATUS_LIMIT, "\"%s\" is too large", quoted);
    }
    *out = unit == UNIT_RATE ? value / rate_seconds(s->text) : value;
    return status_ok();
}

void unit_format(enum unit unit, uint64_t value, char out[UNIT_STRING_BYTES])
{
    CHECK((size_t)unit < sizeof units / sizeof units[0]);
    const struct suffix *best = &units[unit].suffixes[0];
    if ((unit == UNIT_FACTOR || unit == UNIT_RATE) && value % 1000 != 0) {
        char digits[8];
        (void)snprintf(digits, sizeof digits, "%03u", (unsigned)(value % 1000));
        for (size_t i = DECIMALS_MAX; digits[i - 1] == '0'; i--) {
            digits[i - 1] = '\0';
        }
        (void)snprintf(out, UNIT_STRING_BYTES, "%" PRIu64 ".%s%s", value / 1000, digits,
                       best->text);
        return;
    }
    if (unit == UNIT_FACTOR || unit == UNIT_RATE) {
        (void)snprintf(out, UNIT_STRING_BYTES, "%" PRIu64 "%s", value / 1000, best->text);
        return;
    }
    for (size_t i = 1; i < SUFFIXES_MAX && units[unit].suffixes[i].text != NULL; i++) {
        const struct suffix *s = &units[unit].suffixes[i];
        if (value != 0 && value % s->factor == 0) {
            best = s;
        }
    }
    (void)snprintf(out, UNIT_STRING_BYTES, "%" PRIu64 "%s", value / best->factor, best->text);
}

/* Dates of the proleptic Gregorian calendar, in UTC, and texts of them.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_DATES_H
#define COMMON_DATES_H

#include "common/status.h"

#include <stdint.h>

struct date {
    uint32_t year;
    uint32_t month; /* 1 to 12 */
    uint32_t day;   /* 1 to 31 */
    uint32_t hour, minute, second;
    uint32_t weekday; /* 0: Sunday */
};

/* The years that dates are read and made of. */
enum { DATE_YEAR_MIN = 1970, DATE_YEAR_MAX = 9999 };

bool date_leap_year(uint32_t year);
uint32_t date_days_of_month(uint32_t year, uint32_t month);
/* Days from 1970-01-01 to a date that exists, of the years above. */
uint64_t date_days(uint32_t year, uint32_t month, uint32_t day);
/* The date of a Unix time in seconds, up to the end of DATE_YEAR_MAX; later ones give that end. */
void date_of_unix(uint64_t unix_s, struct date *out);

/* RFC 3339: 2027-01-31T08:30:00Z, with a fraction of a second of up to nine digits (cut to
 * milliseconds) and +HH:MM or -HH:MM instead of Z. INVALID, quoting the text; *out is written only
 * on success. */
NODISCARD struct status date_parse(const char *text, uint64_t *unix_ms, struct errmsg *msg);
/* 2027-01-31T08:30:00Z and a NUL. */
enum { DATE_STRING_BYTES = 21 };
void date_format(uint64_t unix_ms, char out[DATE_STRING_BYTES]);

#endif

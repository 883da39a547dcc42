/* Times that come again, as schedules write them: the five fields of crontab(5), its @names, and
 * "@every 90s". All in UTC, so that no hour is skipped or doubled.
 *
 *     minute (0-59) hour (0-23) day of month (1-31) month (1-12, jan-dec) weekday (0-7, sun-sat)
 *
 * A field is a list of *, N, N-M, each with /STEP behind it if wanted; N/STEP runs to the field's
 * end. Weekdays 0 and 7 are Sunday. As in crontab(5), when neither the day of the month nor the
 * weekday begins with *, a day that fits one of them will do.
 *
 * "@every D" means the multiples of D since 1970-01-01T00:00:00Z: every scheduler names the same
 * times without remembering any.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_CRON_H
#define COMMON_CRON_H

#include "common/status.h"

#include <stdint.h>

enum { CRON_TEXT_BYTES_MAX = 256, CRON_EVERY_MS_MIN = 1000 };
#define CRON_EVERY_MS_MAX (UINT64_C(366) * 24 * 3600 * 1000)

struct cron {
    uint64_t every_ms; /* 0: the fields below */
    uint64_t minutes;  /* bits */
    uint32_t hours, days, months, weekdays;
    bool either; /* the day of the month or the weekday */
};

/* Reads the whole of text. INVALID, quoting what is wrong; also for times that never come, such as
 * the 31st of February. *out is written only on success. */
NODISCARD struct status cron_parse(const char *text, struct cron *out, struct errmsg *msg);

/* The first time after after_ms, both in Unix milliseconds; 0 when there is none before the year
 * 10000. The work is bounded. */
uint64_t cron_next(const struct cron *c, uint64_t after_ms);

#endif

/* Amounts as people write them: processors (500m, 1.5), bytes (256Mi), durations (300ms, 5s),
 * factors (1.5), rates (10/s, 600/m) and counts. And text that is safe to print.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_UNITS_H
#define COMMON_UNITS_H

#include "common/status.h"

#include <stdint.h>

/* Processors are thousandths ("500m", "2", "1.5": at most three digits behind the point). Bytes are
 * a whole number and one of B, Ki, Mi, Gi, Ti, which is required. Durations are milliseconds: a
 * whole number and one of ms, s, m, h, required. Counts are whole numbers. Factors are
 * thousandths, as "2" or "1.5". Rates are thousandths a second, as "10/s", "0.5/s", "600/m" or
 * "90/h", rounded down. Nothing is signed; no blanks, no exponents, no other base than ten. */
enum unit { UNIT_COUNT, UNIT_CPU, UNIT_BYTES, UNIT_DURATION, UNIT_FACTOR, UNIT_RATE };
enum { UNITS_COUNT = UNIT_RATE + 1 };

enum { UNIT_TEXT_BYTES_MAX = 32, UNIT_STRING_BYTES = 32, QUOTE_STRING_BYTES = 80 };

/* Reads the whole of text, which may hold any bytes. INVALID for what is not such an amount, LIMIT
 * for what does not fit 64 bits; the message quotes the text and says what is expected. *out is
 * written only on success. */
NODISCARD struct status unit_parse(enum unit unit, const char *text, size_t size, uint64_t *out,
                                   struct errmsg *msg);

/* Writes the shortest exact form, which unit_parse reads back as the same value. */
void unit_format(enum unit unit, uint64_t value, char out[UNIT_STRING_BYTES]);

/* A copy that is safe to print: bytes outside printable ASCII, quotes and backslashes become \xNN;
 * long texts end in "...". */
void text_quote(const char *text, size_t size, char out[QUOTE_STRING_BYTES]);

#endif

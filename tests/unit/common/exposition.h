/* A strict reader of Prometheus' text format 0.0.4, to judge what metrics_print writes. */
#ifndef TESTS_UNIT_COMMON_EXPOSITION_H
#define TESTS_UNIT_COMMON_EXPOSITION_H

#include "common/buffer.h"

#include <stdbool.h>

/* NULL when the text is right in every respect below, otherwise what is wrong with it (a static
 * text): UTF-8; every line ended; names, labels and numbers well formed; HELP, then TYPE, then
 * samples of each family, once and together; no sample twice; buckets of a histogram rising up to
 * +Inf, which equals its count. */
const char *exposition_error(struct bytes text);

/* The number behind the sample, as it is written, or NULL; valid until the next call. series is
 * name{labels}. */
const char *exposition_value(struct bytes text, const char *series);

#endif

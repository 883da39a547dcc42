/* What a canary answered: its lines (agent/canary/canary.h), which are a stranger's bytes as much
 * as those of any function.
 *
 * Thread: any; no shared state. */
#ifndef AGENT_CANARY_REPORT_H
#define AGENT_CANARY_REPORT_H

#include "common/buffer.h"
#include "common/status.h"
#include "proto/message.h"

enum { CANARY_REPORT_BYTES_MAX = 64 << 10 };

struct canary_report {
    /* texts are in the report: do not copy */
    struct isolation_result results[ISOLATION_RESULTS_MAX];
    size_t count;
    char checks[ISOLATION_RESULTS_MAX][ISOLATION_CHECK_BYTES];
    char details[ISOLATION_RESULTS_MAX][ISOLATION_DETAIL_BYTES];
};

/* INVALID for what is no line of a canary or a check told twice, LIMIT for too many or too long
 * ones; *out has no results then. Bytes of details that are not printable become '?'. */
NODISCARD struct status canary_report_decode(struct bytes text, struct canary_report *out,
                                             struct errmsg *msg);
/* A result that tells the nonce got at it, whatever it says; it says so then. */
void canary_report_prove(struct canary_report *r, const char *nonce);
/* Adds each check of the table that is missing, as not run, as far as there is room. */
void canary_report_complete(struct canary_report *r);

#endif

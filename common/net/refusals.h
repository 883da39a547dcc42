/* Why peers are refused: the kinds, their counters and a log that a flood cannot fill.
 *
 * Each (address without port, kind) is logged the first time and then at most once a minute with
 * the number of times it was left out; all together at most REFUSAL_LINES_PER_SECOND_MAX.
 *
 * Thread: the loop's. */
#ifndef COMMON_NET_REFUSALS_H
#define COMMON_NET_REFUSALS_H

#include "common/net/link.h"

enum refusal {
    REFUSAL_NONE,
    REFUSAL_NO_CERTIFICATE,
    REFUSAL_UNTRUSTED,
    REFUSAL_EXPIRED, /* or not valid yet */
    REFUSAL_REVOKED,
    REFUSAL_PROTOCOL,
    REFUSAL_IDENTITY,
    REFUSAL_TIMEOUT,
    REFUSAL_LIMIT,
    REFUSAL_FRAME,
    REFUSAL_BY_PEER, /* the peer refused us */
    REFUSAL_COUNT_
};

enum {
    REFUSAL_ROWS_MAX = 256,
    REFUSAL_LINES_PER_SECOND_MAX = 20,
    REFUSAL_REPEAT_MS = 60 * 1000,
    REFUSAL_HOST_BYTES = 64,
};

struct refusal_row {
    char host[REFUSAL_HOST_BYTES];
    enum refusal kind;
    uint64_t logged_ms;
    uint64_t left_out;
};

struct refusal_log {
    struct refusal_row rows[REFUSAL_ROWS_MAX];
    uint64_t second; /* the second that `lines` counts */
    unsigned lines;
};

/* "untrusted", for logs. */
const char *refusal_name(enum refusal kind);

/* The status a caller gets for it. */
struct status refusal_status(enum refusal kind);

/* Counts it in stats. */
void refusal_count(struct link_stats *stats, enum refusal kind);

/* May a line for this address be written now? *left_out: how many were left out since the last. */
bool refusal_log_admit(struct refusal_log *log, uint64_t now_ms, enum refusal kind,
                       const char *address, uint64_t *left_out);

#endif

#include "common/net/refusals.h"

#include "common/check.h"

#include <stdio.h>
#include <string.h>

struct refusal_kind {
    const char *name;
    size_t counter; /* offset in struct link_stats */
    enum status_code code;
};

#define COUNTER(field) offsetof(struct link_stats, field)
static const struct refusal_kind kinds[REFUSAL_COUNT_] = {
    [REFUSAL_NO_CERTIFICATE] = {"no certificate", COUNTER(refused_no_certificate), STATUS_DENIED},
    [REFUSAL_UNTRUSTED] = {"untrusted", COUNTER(refused_untrusted), STATUS_DENIED},
    [REFUSAL_EXPIRED] = {"expired", COUNTER(refused_expired), STATUS_DENIED},
    [REFUSAL_REVOKED] = {"revoked", COUNTER(refused_revoked), STATUS_DENIED},
    [REFUSAL_PROTOCOL] = {"protocol", COUNTER(refused_protocol), STATUS_UNAVAILABLE},
    [REFUSAL_IDENTITY] = {"identity", COUNTER(refused_identity), STATUS_DENIED},
    [REFUSAL_TIMEOUT] = {"timeout", COUNTER(refused_timeout), STATUS_TIMEOUT},
    [REFUSAL_LIMIT] = {"limit", COUNTER(refused_limit), STATUS_LIMIT},
    [REFUSAL_FRAME] = {"frame", COUNTER(refused_frame), STATUS_CORRUPT},
    [REFUSAL_BY_PEER] = {"by peer", COUNTER(refused_by_peer), STATUS_DENIED},
};

const char *refusal_name(enum refusal kind)
{
    CHECK(kind > REFUSAL_NONE && kind < REFUSAL_COUNT_);
    return kinds[kind].name;
}

struct status refusal_status(enum refusal kind)
{
    CHECK(kind > REFUSAL_NONE && kind < REFUSAL_COUNT_);
    return status_of(kinds[kind].code);
}

void refusal_count(struct link_stats *stats, enum refusal kind)
{
    CHECK(kind > REFUSAL_NONE && kind < REFUSAL_COUNT_);
    uint64_t *counter = (uint64_t *)(void *)((char *)stats + kinds[kind].counter);
    (*counter)++;
}

static void host_of(const char *address, char out[REFUSAL_HOST_BYTES])
{
    const char *colon = strrchr(address, ':');
    size_t size = colon == NULL ? strlen(address) : (size_t)(colon - address);
    (void)snprintf(out, REFUSAL_HOST_BYTES, "%.*s", (int)size, address);
}

/* The row of host and kind, or the one that was logged longest ago, made theirs. */
static struct refusal_row *row_for(struct refusal_log *log, const char *host, enum refusal kind)
{
    struct refusal_row *oldest = &log->rows[0];
    for (size_t i = 0; i < REFUSAL_ROWS_MAX; i++) {
        struct refusal_row *row = &log->rows[i];
        if (row->kind == kind && strcmp(row->host, host) == 0) {
            return row;
        }
        if (row->logged_ms < oldest->logged_ms) {
            oldest = row;
        }
    }
    *oldest = (struct refusal_row){.kind = kind};
    (void)snprintf(oldest->host, sizeof oldest->host, "%s", host);
    return oldest;
}

bool refusal_log_admit(struct refusal_log *log, uint64_t now_ms, enum refusal kind,
                       const char *address, uint64_t *left_out)
{
    char host[REFUSAL_HOST_BYTES];
    host_of(address, host);
    struct refusal_row *row = row_for(log, host, kind);
    if (row->logged_ms != 0 && now_ms - row->logged_ms < REFUSAL_REPEAT_MS) {
        row->left_out++;
        return false;
    }
    if (log->second != now_ms / 1000) {
        log->second = now_ms / 1000;
        log->lines = 0;
    }
    if (log->lines >= REFUSAL_LINES_PER_SECOND_MAX) {
        row->left_out++;
        return false;
    }
    log->lines++;
    *left_out = row->left_out;
    row->left_out = 0;
    row->logged_ms = now_ms == 0 ? 1 : now_ms;
    return true;
}

#include "agent/canary_report.h"

#include "agent/canary/check_table.h"

#include <stdio.h>
#include <string.h>

static uint32_t verdict_of(char letter)
{
    switch (letter) {
    case 'h':
        return ISOLATION_HELD;
    case 'b':
        return ISOLATION_BREACHED;
    case 'n':
        return ISOLATION_NOT_APPLICABLE;
    case 'r':
        return ISOLATION_NOT_RUN;
    default:
        return 0;
    }
}

static bool name_is_good(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        bool good = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9') ||
                    text[i] == '-';
        if (!good) {
            return false;
        }
    }
    return size > 0 && size < ISOLATION_CHECK_BYTES;
}

static bool report_has(const struct canary_report *r, const char *name, size_t size)
{
    for (size_t i = 0; i < r->count; i++) {
        if (strlen(r->checks[i]) == size && memcmp(r->checks[i], name, size) == 0) {
            return true;
        }
    }
    return false;
}

static void add(struct canary_report *r, const char *name, size_t name_size, uint32_t verdict,
                const char *detail, size_t detail_size)
{
    size_t n = r->count++;
    memcpy(r->checks[n], name, name_size);
    r->checks[n][name_size] = '\0';
    for (size_t i = 0; i < detail_size; i++) {
        r->details[n][i] = detail[i] >= ' ' && detail[i] <= '~' ? detail[i] : '?';
    }
    r->details[n][detail_size] = '\0';
    r->results[n] = (struct isolation_result){
        .check = r->checks[n], .verdict = verdict, .detail = r->details[n]};
}

/* "NAME LETTER DETAIL" */
static struct status line_take(struct canary_report *r, const char *line, size_t size,
                               struct errmsg *msg)
{
    const char *space = memchr(line, ' ', size);
    size_t name_size = space == NULL ? 0 : (size_t)(space - line);
    if (space == NULL || size < name_size + 3 || space[2] != ' ' || verdict_of(space[1]) == 0 ||
        !name_is_good(line, name_size)) {
        return status_fail(msg, STATUS_INVALID, "line %zu is none of a canary", r->count + 1);
    }
    size_t detail_size = size - name_size - 3;
    if (report_has(r, line, name_size)) {
        return status_fail(msg, STATUS_INVALID, "line %zu tells a check again", r->count + 1);
    }
    if (r->count == ISOLATION_RESULTS_MAX || detail_size >= ISOLATION_DETAIL_BYTES) {
        return status_fail(msg, STATUS_LIMIT, "line %zu is too long, or one too many",
                           r->count + 1);
    }
    add(r, line, name_size, verdict_of(space[1]), space + 3, detail_size);
    return status_ok();
}

struct status canary_report_decode(struct bytes text, struct canary_report *out, struct errmsg *msg)
{
    out->count = 0;
    if (text.size > CANARY_REPORT_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "over %d bytes", CANARY_REPORT_BYTES_MAX);
    }
    const char *at = (const char *)text.data;
    for (size_t left = text.size; left > 0;) {
        const char *end = memchr(at, '\n', left);
        size_t size = end == NULL ? left : (size_t)(end - at);
        struct status s = line_take(out, at, size, msg);
        if (!status_is_ok(s)) {
            out->count = 0;
            return s;
        }
        size += end != NULL;
        at += size;
        left -= size;
    }
    return status_ok();
}

void canary_report_prove(struct canary_report *r, const char *nonce)
{
    for (size_t i = 0; i < r->count; i++) {
        if (strstr(r->details[i], nonce) == NULL) {
            continue;
        }
        r->results[i].verdict = ISOLATION_BREACHED;
        size_t used = strlen(r->details[i]);
        (void)snprintf(r->details[i] + used, sizeof r->details[i] - used, " (the bait: proven)");
    }
}

void canary_report_complete(struct canary_report *r)
{
    static const char *const names[] = {
#define NAME_ROW(function, name, what) name,
        CANARY_CHECKS(NAME_ROW)
#undef NAME_ROW
    };
    static const char detail[] = "the canary did not answer";
    for (size_t i = 0; i < CANARY_CHECKS_COUNT && r->count < ISOLATION_RESULTS_MAX; i++) {
        if (!report_has(r, names[i], strlen(names[i]))) {
            add(r, names[i], strlen(names[i]), ISOLATION_NOT_RUN, detail, sizeof detail - 1);
        }
    }
}

#include "cli/lines.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 256 << 10 };

void lines_close(struct lines *l)
{
    buffer_close(&l->read);
}

/* A whole line of what is read already. */
static bool lines_cut(struct lines *l, struct bytes *line)
{
    uint8_t *from = l->read.data + l->at;
    size_t rest = l->read.size - l->at;
    const uint8_t *end =
        rest > l->searched ? memchr(from + l->searched, '\n', rest - l->searched) : NULL;
    if (end == NULL && (!l->ended || rest == 0)) {
        l->searched = rest;
        return false;
    }
    size_t size = end != NULL ? (size_t)(end - from) : rest;
    *line = bytes_of(from, size);
    l->at += size + (end != NULL);
    l->bytes += size + (end != NULL);
    l->searched = 0;
    l->number++;
    return true;
}

/* False when nothing can be read now. */
static bool lines_readable(const struct lines *l, bool wait)
{
    struct pollfd p = {.fd = l->fd, .events = POLLIN};
    int got = poll(&p, 1, wait ? -1 : 0);
    return got > 0 || (got < 0 && errno != EINTR);
}

static struct status lines_read(struct lines *l, struct errmsg *msg)
{
    buffer_consume(&l->read, l->at);
    l->at = 0;
    TRY(buffer_reserve(&l->read, READ_BYTES));
    ssize_t got = read(l->fd, l->read.data + l->read.size, READ_BYTES);
    if (got < 0 && errno != EINTR && errno != EAGAIN) {
        return status_fail(msg, status_from_errno(errno), "standard input: %s", strerror(errno));
    }
    l->read.size += got > 0 ? (size_t)got : 0;
    l->ended = got == 0;
    return status_ok();
}

enum lines_next lines_take(struct lines *l, bool wait, struct bytes *line, struct status *failed,
                           struct errmsg *msg)
{
    while (!lines_cut(l, line)) {
        if (l->ended) {
            return LINES_END;
        }
        if (l->read.size - l->at > l->line_bytes_max) {
            *failed = status_fail(msg, STATUS_INVALID, "line %" PRIu64 " has more than %zu bytes",
                                  l->number + 1, l->line_bytes_max);
            return LINES_FAILED;
        }
        if (!lines_readable(l, wait)) {
            return LINES_LATER;
        }
        struct status s = lines_read(l, msg);
        if (!status_is_ok(s)) {
            *failed = s;
            return LINES_FAILED;
        }
    }
    if (line->size > l->line_bytes_max) {
        *failed = status_fail(msg, STATUS_INVALID, "line %" PRIu64 " has more than %zu bytes",
                              l->number, l->line_bytes_max);
        return LINES_FAILED;
    }
    return LINES_LINE;
}

#include "agent/cell/logpump.h"

#include "common/cleanup.h"

#include <errno.h>
#include <unistd.h>

enum {
    US_PER_MS = 1000,
    CHUNK_BYTES = 64 << 10,
    DRAIN_CHUNKS_MAX = 256, /* of a pipe whose writers are dead: its capacity, by pages */
};

void logpump_init(struct logpump *p, struct logring *log, int fd, uint64_t now_us)
{
    *p = (struct logpump){.log = log, .fd = fd, .budget = LOGPUMP_BURST_BYTES, .filled_us = now_us};
}

void logpump_tick(struct logpump *p, uint64_t now_us)
{
    uint64_t ms = (now_us - p->filled_us) / US_PER_MS;
    p->filled_us += ms * US_PER_MS;
    p->budget += ms < 1000 ? (int64_t)ms * LOGPUMP_BYTES_PER_MS : (int64_t)LOGPUMP_BURST_BYTES;
    if (p->budget > LOGPUMP_BURST_BYTES) {
        p->budget = LOGPUMP_BURST_BYTES;
    }
}

int logpump_poll_fd(const struct logpump *p)
{
    return p->budget > 0 ? p->fd : -1;
}

bool logpump_pauses(const struct logpump *p)
{
    return p->budget <= 0 && p->fd >= 0;
}

bool logpump_move(struct logpump *p)
{
    static uint8_t chunk[CHUNK_BYTES];
    ssize_t size = read(p->fd, chunk, sizeof chunk);
    if (size < 0) {
        return errno == EINTR;
    }
    if (size == 0) { /* The cell closed its output; poll would say so for ever. */
        (void)close(p->fd);
        p->fd = -1;
        return false;
    }
    logring_write(p->log, bytes_of(chunk, (size_t)size));
    p->budget -= size;
    return true;
}

void logpump_close(struct logpump *p)
{
    for (int i = 0; p->fd >= 0 && i < DRAIN_CHUNKS_MAX && logpump_move(p); i++) {
    }
    cleanup_close(&p->fd);
    p->fd = -1;
}

/* The file: 64 bytes of header, then ring_bytes of ring. The byte with offset o lies at o %
 * ring_bytes.
 *
 * The writer announces before it overwrites (`reserved`) and publishes after (`end`); a reader
 * takes `end`, copies, and then looks at `reserved` again: what may have been overwritten meanwhile
 * is dropped from the copy's front and counted as missed. */
#include "agent/cell/logring.h"

#include "common/check.h"
#include "common/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOGRING_MAGIC "skeplog1"
enum { HEADER_BYTES = 64, HEADER_TRIES_MAX = 8 };

struct header {
    char magic[8];
    uint64_t ring_bytes;
    uint64_t reserved;
    uint64_t end;
};
static_assert(sizeof(struct header) <= HEADER_BYTES, "the header has its place");

static bool size_is_valid(uint64_t bytes)
{
    return bytes >= LOGRING_BYTES_MIN && bytes <= LOGRING_BYTES_MAX && (bytes & (bytes - 1)) == 0;
}

static bool header_is_valid(const struct header *h)
{
    return memcmp(h->magic, LOGRING_MAGIC, sizeof h->magic) == 0 && size_is_valid(h->ring_bytes) &&
           h->end <= h->reserved && h->reserved - h->end <= h->ring_bytes &&
           h->reserved <= UINT64_MAX / 2;
}

static bool pwrite_all(int fd, const void *data, size_t size, uint64_t at)
{
    const uint8_t *from = data;
    while (size > 0) {
        ssize_t n = pwrite(fd, from, size, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        from += n;
        size -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

static bool header_read(int fd, struct header *out)
{
    return pread(fd, out, sizeof *out, 0) == (ssize_t)sizeof *out;
}

/* Until two reads agree: one read is not atomic against the writer. */
static struct status header_read_stable(int fd, struct header *out)
{
    struct header again;
    for (int i = 0; i < HEADER_TRIES_MAX; i++) {
        if (!header_read(fd, out) || !header_read(fd, &again)) {
            return status_of(STATUS_IO);
        }
        if (memcmp(out, &again, sizeof again) == 0) {
            return status_of(header_is_valid(out) ? STATUS_OK : STATUS_CORRUPT);
        }
    }
    /* A busy writer: `end` of the older read is at worst behind. */
    return status_of(header_is_valid(out) ? STATUS_OK : STATUS_CORRUPT);
}

static bool header_write(const struct logring *r, uint64_t reserved)
{
    struct header h = {.ring_bytes = r->ring_bytes, .reserved = reserved, .end = r->end};
    memcpy(h.magic, LOGRING_MAGIC, sizeof h.magic);
    return pwrite_all(r->fd, &h, sizeof h, 0);
}

struct status logring_create(struct logring *r, int folder_fd, const char *file, uint64_t bytes,
                             struct errmsg *msg)
{
    if (!size_is_valid(bytes)) {
        return status_fail(msg, STATUS_INVALID, "log ring: %llu bytes is not a valid size",
                           (unsigned long long)bytes);
    }
    AUTO_CLOSE int fd =
        openat(folder_fd, file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", file, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return status_fail(msg, STATUS_INVALID, "open %s: not a regular file", file);
    }
    struct logring made = {.fd = fd, .ring_bytes = bytes, .end = 0};
    struct header h;
    if (header_read(fd, &h) && header_is_valid(&h) && h.ring_bytes == bytes) {
        made.end = h.reserved; /* A writer that died in a write: its bytes count as written. */
    } else if (ftruncate(fd, 0) != 0 || ftruncate(fd, (off_t)(HEADER_BYTES + bytes)) != 0) {
        return status_fail(msg, status_from_errno(errno), "size %s: %s", file, strerror(errno));
    }
    if (!header_write(&made, made.end)) {
        return status_fail(msg, status_from_errno(errno), "write %s: %s", file, strerror(errno));
    }
    *r = made;
    fd_steal(&fd);
    return status_ok();
}

struct status logring_open(struct logring *r, const char *path, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    struct header h;
    if (!S_ISREG(st.st_mode) || !header_read(fd, &h)) {
        return status_fail(msg, STATUS_CORRUPT, "open %s: not a log ring", path);
    }
    struct status s = header_read_stable(fd, &h);
    if (!status_is_ok(s) || (uint64_t)st.st_size != HEADER_BYTES + h.ring_bytes) {
        return status_fail(msg, STATUS_CORRUPT, "open %s: not a log ring", path);
    }
    *r = (struct logring){.fd = fd_steal(&fd), .ring_bytes = h.ring_bytes};
    return status_ok();
}

void logring_close(struct logring *r)
{
    if (r->ring_bytes != 0) {
        (void)close(r->fd);
    }
    *r = (struct logring){0};
}

void logring_write(struct logring *r, struct bytes data)
{
    CHECK(r->ring_bytes != 0);
    if (data.size == 0) {
        return;
    }
    if (data.size > r->ring_bytes) {
        size_t cut = data.size - (size_t)r->ring_bytes;
        r->end += cut; /* Written and overwritten at once. */
        data = bytes_of(data.data + cut, (size_t)r->ring_bytes);
    }
    if (!header_write(r, r->end + data.size)) {
        return;
    }
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t at = r->end % r->ring_bytes;
    size_t first = data.size;
    if (first > r->ring_bytes - at) {
        first = (size_t)(r->ring_bytes - at);
    }
    bool written = pwrite_all(r->fd, data.data, first, HEADER_BYTES + at) &&
                   pwrite_all(r->fd, data.data + first, data.size - first, HEADER_BYTES);
    if (written) {
        r->end += data.size;
    }
    atomic_thread_fence(memory_order_seq_cst);
    (void)header_write(r, r->end);
}

static bool pread_all(int fd, void *to, size_t size, uint64_t at)
{
    uint8_t *out = to;
    while (size > 0) {
        ssize_t n = pread(fd, out, size, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        out += n;
        size -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

static uint64_t oldest(const struct logring *r, uint64_t reserved)
{
    return reserved > r->ring_bytes ? reserved - r->ring_bytes : 0;
}

struct status logring_read(const struct logring *r, uint64_t *offset, size_t max,
                           struct buffer *out, uint64_t *missed)
{
    CHECK(r->ring_bytes != 0);
    struct header h;
    TRY(header_read_stable(r->fd, &h));
    if (h.ring_bytes != r->ring_bytes) {
        return status_of(STATUS_CORRUPT);
    }
    uint64_t from = *offset > h.end ? h.end : *offset;
    uint64_t start = from < oldest(r, h.reserved) ? oldest(r, h.reserved) : from;
    start = start > h.end ? h.end : start;
    size_t size = max < h.end - start ? max : (size_t)(h.end - start);
    TRY(buffer_reserve(out, size));
    uint64_t at = start % r->ring_bytes;
    size_t first = size < r->ring_bytes - at ? size : (size_t)(r->ring_bytes - at);
    uint8_t *to = size > 0 ? out->data + out->size : NULL;
    if (size > 0 && (!pread_all(r->fd, to, first, HEADER_BYTES + at) ||
                     !pread_all(r->fd, to + first, size - first, HEADER_BYTES))) {
        return status_of(STATUS_IO);
    }
    atomic_thread_fence(memory_order_seq_cst);
    struct header after;
    TRY(header_read_stable(r->fd, &after));
    uint64_t lost = oldest(r, after.reserved) > start ? oldest(r, after.reserved) - start : 0;
    size_t cut = lost < size ? (size_t)lost : size;
    if (cut > 0) {
        memmove(to, to + cut, size - cut);
    }
    out->size += size - cut;
    *missed += start + cut - from;
    *offset = start + size;
    return status_ok();
}

uint64_t logring_end(const struct logring *r)
{
    struct header h;
    return status_is_ok(header_read_stable(r->fd, &h)) ? h.end : 0;
}

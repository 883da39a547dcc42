/* The file is "skep-data-keys-v1\n" | SHA-256 of the content | content: the digest tells a damaged
 * file from a foreign cluster key. */
#include "common/seal/keys_file.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char mark[] = "skep-data-keys-v1\n";
enum { MARK_BYTES = sizeof mark - 1, SUM_BYTES = 32, HEAD_BYTES = MARK_BYTES + SUM_BYTES };

static struct status fail_errno(struct errmsg *msg, const char *verb, const char *path)
{
    int error = errno;
    return status_fail(msg, status_from_errno(error), "%s %s: %s", verb, path, strerror(error));
}

static bool sum_of(struct bytes content, uint8_t out[SUM_BYTES])
{
    return EVP_Digest(content.data, content.size, out, NULL, EVP_sha256(), NULL) == 1;
}

/* ---- Writing ---- */

static struct status write_all(int fd, const char *path, const void *data, size_t size,
                               struct errmsg *msg)
{
    const char *at = data;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno(msg, "write", path);
        }
        at += n;
        size -= (size_t)n;
    }
    return status_ok();
}

static struct status sync_folder(const char *path, struct errmsg *msg)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t size = slash == NULL ? 0 : (size_t)(slash - path) + (slash == path);
    (void)snprintf(folder, sizeof folder, "%.*s", (int)size, path);
    AUTO_CLOSE int fd = open(size == 0 ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        return fail_errno(msg, "write", path);
    }
    return status_ok();
}

static struct status write_new(const char *path, struct bytes content, struct errmsg *msg)
{
    uint8_t sum[SUM_BYTES];
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fail_errno(msg, "write", path);
    }
    if (!sum_of(content, sum)) {
        return status_fail(msg, STATUS_NOMEM, "write %s: out of memory", path);
    }
    TRY(write_all(fd, path, mark, MARK_BYTES, msg));
    TRY(write_all(fd, path, sum, sizeof sum, msg));
    TRY(write_all(fd, path, content.data, content.size, msg));
    return fsync(fd) == 0 ? status_ok() : fail_errno(msg, "write", path);
}

struct status keys_file_write(const char *path, struct bytes content, struct errmsg *msg)
{
    char temporary[PATH_MAX];
    int used = snprintf(temporary, sizeof temporary, "%s.new", path);
    if (used < 0 || (size_t)used >= sizeof temporary) {
        return status_fail(msg, STATUS_INVALID, "write %.80s...: the path is too long", path);
    }
    struct status s = write_new(temporary, content, msg);
    if (status_is_ok(s) && rename(temporary, path) != 0) {
        s = fail_errno(msg, "write", path);
    }
    if (!status_is_ok(s)) {
        (void)unlink(temporary);
        return s;
    }
    return sync_folder(path, msg);
}

/* ---- Reading ---- */

static struct status read_all(int fd, const char *path, size_t size, struct buffer *out,
                              struct errmsg *msg)
{
    if (!status_is_ok(buffer_reserve(out, size))) {
        return status_fail(msg, STATUS_NOMEM, "read %s: out of memory", path);
    }
    size_t used = 0;
    while (used < size) {
        ssize_t n = read(fd, out->data + out->size + used, size - used);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? fail_errno(msg, "read", path)
                         : status_fail(msg, STATUS_CORRUPT, "read %s: cut short", path);
        }
        used += (size_t)n;
    }
    out->size += size;
    return status_ok();
}

static struct status check_content(const char *path, struct bytes all, struct errmsg *msg)
{
    uint8_t sum[SUM_BYTES];
    if (all.size < HEAD_BYTES || memcmp(all.data, mark, MARK_BYTES) != 0 ||
        !sum_of(bytes_of(all.data + HEAD_BYTES, all.size - HEAD_BYTES), sum) ||
        memcmp(sum, all.data + MARK_BYTES, sizeof sum) != 0) {
        return status_fail(msg, STATUS_CORRUPT, "%s is damaged", path);
    }
    return status_ok();
}

struct status keys_file_read(const char *path, struct buffer *out, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        return fail_errno(msg, "read", path);
    }
    if (!S_ISREG(st.st_mode) || st.st_size < HEAD_BYTES) {
        return status_fail(msg, STATUS_CORRUPT, "%s is damaged", path);
    }
    if (st.st_size > KEYS_FILE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "read %s: over %d bytes", path, KEYS_FILE_BYTES_MAX);
    }
    size_t before = out->size;
    struct status s = read_all(fd, path, (size_t)st.st_size, out, msg);
    if (status_is_ok(s)) {
        s = check_content(path, bytes_of(out->data + before, out->size - before), msg);
    }
    if (!status_is_ok(s)) {
        out->size = before;
        return s;
    }
    memmove(out->data + before, out->data + before + HEAD_BYTES, out->size - before - HEAD_BYTES);
    out->size -= HEAD_BYTES;
    return status_ok();
}

/* The file is "skep-data-keys-v1\n" | SHA-256 of the content | content: the digest tells a damaged
 * file from a foreign cluster key. */
#include "common/seal/keys_file.h"

#include "common/cleanup.h"
#include "common/pki/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
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

static struct status file_make(struct bytes content, struct buffer *out)
{
    uint8_t sum[SUM_BYTES];
    if (!sum_of(content, sum)) {
        return status_of(STATUS_NOMEM);
    }
    TRY(buffer_append(out, mark, MARK_BYTES));
    TRY(buffer_append(out, sum, sizeof sum));
    return buffer_append(out, content.data, content.size);
}

struct status keys_file_write(const char *path, struct bytes content, struct errmsg *msg)
{
    struct buffer file = {0};
    struct status s = file_make(content, &file);
    s = status_is_ok(s) ? pki_write_bytes(path, true, bytes_of(file.data, file.size), msg)
                        : status_fail(msg, s.code, "write %s: out of memory", path);
    buffer_close(&file);
    return s;
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

/* Certificates and keys in files.
 *
 * Thread: any; blocks on the disk. */
#include "common/cleanup.h"
#include "common/mem.h"
#include "common/pki/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MODE_PUBLIC = 0644, MODE_OTHERS = 0077 };

static struct status fail_errno(struct errmsg *msg, const char *verb, const char *path)
{
    int error = errno;
    return status_fail(msg, status_from_errno(error), "%s %s: %s", verb, path, strerror(error));
}

static struct status check_file(int fd, const char *path, bool secret, size_t *size,
                                struct errmsg *msg)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return fail_errno(msg, "read", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return status_fail(msg, STATUS_INVALID, "read %s: not a file", path);
    }
    if (secret && (st.st_mode & MODE_OTHERS) != 0) {
        return status_fail(msg, STATUS_DENIED,
                           "private key %s is open to others (mode %04o); run 'chmod 600 %s', and "
                           "make a new key if others may have read it",
                           path, (unsigned)(st.st_mode & 07777), path);
    }
    if (st.st_size > PKI_PEM_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "read %s: over %d bytes", path, PKI_PEM_BYTES_MAX);
    }
    *size = (size_t)st.st_size;
    return status_ok();
}

/* The next `size` bytes of the file. A file that shrinks while it is read is an error, not a short
 * text. */
static struct status read_all(int fd, const char *path, char *out, size_t size, struct errmsg *msg)
{
    size_t used = 0;
    while (used < size) {
        ssize_t n = read(fd, out + used, size - used);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno(msg, "read", path);
        }
        if (n == 0) {
            return status_fail(msg, STATUS_CONFLICT, "read %s: it changed while it was read", path);
        }
        used += (size_t)n;
    }
    return status_ok();
}

struct status pki_read(const char *path, bool secret, char **pem, struct errmsg *msg)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return fail_errno(msg, "read", path);
    }
    size_t size = 0;
    TRY(check_file(fd, path, secret, &size, msg));
    char *text = mem_zalloc(1, size + 1);
    if (text == NULL) {
        return status_fail(msg, STATUS_NOMEM, "read %s: out of memory", path);
    }
    struct status s = read_all(fd, path, text, size, msg);
    if (status_is_ok(s) && memchr(text, '\0', size) != NULL) {
        s = status_fail(msg, STATUS_INVALID, "read %s: not a PEM text", path);
    }
    if (!status_is_ok(s)) {
        mem_wipe(text, size);
        mem_free(text);
        return s;
    }
    *pem = text;
    return status_ok();
}

static struct status write_all(int fd, const char *path, struct bytes data, struct errmsg *msg)
{
    size_t used = 0;
    while (used < data.size) {
        ssize_t n = write(fd, data.data + used, data.size - used);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno(msg, "write", path);
        }
        used += (size_t)n;
    }
    return status_ok();
}

struct status pki_sync_folder(const char *path, struct errmsg *msg)
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

static struct status write_temporary(int fd, const char *path, bool secret, struct bytes data,
                                     struct errmsg *msg)
{
    TRY(write_all(fd, path, data, msg));
    /* mkostemp made it 0600. */
    if ((!secret && fchmod(fd, MODE_PUBLIC) != 0) || fsync(fd) != 0) {
        return fail_errno(msg, "write", path);
    }
    return status_ok();
}

struct status pki_write_bytes(const char *path, bool secret, struct bytes data, struct errmsg *msg)
{
    char temporary[PATH_MAX];
    int used = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    if (used < 0 || (size_t)used >= sizeof temporary) {
        return status_fail(msg, STATUS_INVALID, "write %.80s...: the path is too long", path);
    }
    AUTO_CLOSE int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        return fail_errno(msg, "write", path);
    }
    struct status s = write_temporary(fd, path, secret, data, msg);
    if (status_is_ok(s) && rename(temporary, path) != 0) {
        s = fail_errno(msg, "write", path);
    }
    if (!status_is_ok(s)) {
        (void)unlink(temporary);
        return s;
    }
    return pki_sync_folder(path, msg); /* The rename is on the disk only once the folder is. */
}

struct status pki_write(const char *path, bool secret, const char *pem, struct errmsg *msg)
{
    size_t size = strnlen(pem, PKI_PEM_BYTES_MAX + 1);
    if (size > PKI_PEM_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "write %s: over %d bytes", path, PKI_PEM_BYTES_MAX);
    }
    return pki_write_bytes(path, secret, bytes_of(pem, size), msg);
}

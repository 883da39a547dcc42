#include "scheduler/backup/s3.h"

#include "common/cleanup.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 16 << 10 };

static const char *blank_skip(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r')) {
        at++;
    }
    return at;
}

static const char *blank_trim(const char *begin, const char *end)
{
    while (end > begin && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r')) {
        end--;
    }
    return end;
}

/* One KEY = VALUE; keys that we do not need are left alone. False: the value does not fit. */
static bool line_take(const char *at, const char *end, struct s3_credentials *out)
{
    const struct {
        const char *key;
        char *value;
    } keys[] = {{"aws_access_key_id", out->access_key},
                {"aws_secret_access_key", out->secret_key},
                {"aws_session_token", out->session_token}};
    const char *equals = memchr(at, '=', (size_t)(end - at));
    if (equals == NULL) {
        return true;
    }
    const char *key_end = blank_trim(at, equals), *value = blank_skip(equals + 1, end);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        size_t size = strlen(keys[i].key);
        if ((size_t)(key_end - at) != size || memcmp(at, keys[i].key, size) != 0) {
            continue;
        }
        size_t value_size = (size_t)(blank_trim(value, end) - value);
        if (value_size >= S3_SECRET_BYTES_MAX || memchr(value, '\0', value_size) != NULL) {
            return false;
        }
        memcpy(keys[i].value, value, value_size);
        keys[i].value[value_size] = '\0';
    }
    return true;
}

struct status s3_credentials_parse(const char *path, const char *text, size_t size,
                                   struct s3_credentials *out, struct errmsg *msg)
{
    struct s3_credentials c = {.access_key = ""};
    const char *at = text, *end = text + size;
    bool fits = true, section = false;
    while (at < end && fits) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        line_end = line_end == NULL ? end : line_end;
        const char *begin = blank_skip(at, line_end);
        if (begin < line_end && *begin == '[') {
            if (section) {
                break; /* The first section is ours. */
            }
            section = true;
        } else if (begin < line_end && *begin != '#') {
            fits = line_take(begin, line_end, &c);
        }
        at = line_end + 1;
    }
    if (!fits || c.access_key[0] == '\0' || c.secret_key[0] == '\0') {
        mem_wipe(&c, sizeof c);
        return status_fail(msg, STATUS_INVALID,
                           "%s: lines aws_access_key_id = ... and aws_secret_access_key = ... are "
                           "needed",
                           path);
    }
    *out = c;
    mem_wipe(&c, sizeof c);
    return status_ok();
}

struct status s3_credentials_read(const char *path, struct s3_credentials *out, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    if ((st.st_mode & 077) != 0) {
        return status_fail(msg, STATUS_DENIED, "%s: others may read it; it is a secret: chmod 0600",
                           path);
    }
    char text[FILE_BYTES_MAX];
    size_t size = 0;
    ssize_t got = 1;
    while (got > 0 && size < sizeof text) {
        got = read(fd, text + size, sizeof text - size);
        size += got > 0 ? (size_t)got : 0;
    }
    struct status s = status_ok();
    if (got < 0) {
        s = status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    } else if (size == sizeof text) {
        s = status_fail(msg, STATUS_LIMIT, "%s: over %d bytes", path, FILE_BYTES_MAX - 1);
    } else {
        s = s3_credentials_parse(path, text, size, out, msg);
    }
    mem_wipe(text, sizeof text);
    return s;
}

/* No XML parser: of this answer we want a few elements that hold plain text, and keys are only
 * taken when they are exactly what we name our own files. */
#include "scheduler/backup/s3.h"

#include <stdio.h>
#include <string.h>

static const char *find(struct bytes in, const char *text)
{
    return in.size == 0 ? NULL : memmem(in.data, in.size, text, strlen(text));
}

static struct bytes from(struct bytes in, const char *at)
{
    size_t skipped = (size_t)(at - (const char *)in.data);
    return bytes_of(at, in.size - skipped);
}

/* The text between <name> and </name>. */
static bool element(struct bytes in, const char *name, struct bytes *out)
{
    char open[64], close[64];
    (void)snprintf(open, sizeof open, "<%s>", name);
    (void)snprintf(close, sizeof close, "</%s>", name);
    const char *begin = find(in, open);
    if (begin == NULL) {
        return false;
    }
    struct bytes rest = from(in, begin + strlen(open));
    const char *end = find(rest, close);
    if (end == NULL) {
        return false;
    }
    *out = bytes_of(rest.data, (size_t)(end - (const char *)rest.data));
    return true;
}

void s3_element(struct bytes answer, const char *name, char *out, size_t out_size)
{
    struct bytes text = bytes_of("", 0);
    (void)element(answer, name, &text);
    (void)snprintf(out, out_size, "%.*s", (int)(text.size < out_size ? text.size : out_size - 1),
                   (const char *)text.data);
}

static uint64_t number(struct bytes text)
{
    uint64_t n = 0;
    for (size_t i = 0; i < text.size && i < 18 && text.data[i] >= '0' && text.data[i] <= '9'; i++) {
        n = n * 10 + (uint64_t)(text.data[i] - '0');
    }
    return n;
}

static struct status object_take(struct bytes object, const char *prefix,
                                 const struct name *cluster, struct target_list *out)
{
    struct bytes key, size = bytes_of(NULL, 0);
    size_t head = strlen(prefix);
    struct target_entry e;
    if (!element(object, "Key", &key) || key.size < head ||
        (head > 0 && memcmp(key.data, prefix, head) != 0) ||
        !target_name_parse(cluster, (const char *)key.data + head, key.size - head, &e)) {
        return status_ok();
    }
    (void)element(object, "Size", &size);
    e.bytes = number(size);
    return target_list_add(out, &e);
}

struct status s3_list_parse(struct bytes answer, const char *prefix, const struct name *cluster,
                            struct target_list *out, char token[S3_TOKEN_BYTES_MAX],
                            struct errmsg *msg)
{
    token[0] = '\0';
    if (find(answer, "<ListBucketResult") == NULL) {
        return status_fail(msg, STATUS_CORRUPT, "the answer is not the list of a bucket");
    }
    struct bytes truncated, next;
    if (element(answer, "IsTruncated", &truncated) && truncated.size == 4 &&
        memcmp(truncated.data, "true", 4) == 0) {
        if (!element(answer, "NextContinuationToken", &next) || next.size == 0 ||
            next.size >= S3_TOKEN_BYTES_MAX || memchr(next.data, '\0', next.size) != NULL) {
            return status_fail(msg, STATUS_CORRUPT, "the bucket's list ends without its next page");
        }
        memcpy(token, next.data, next.size);
        token[next.size] = '\0';
    }
    struct bytes rest = answer, object;
    while (element(rest, "Contents", &object)) {
        struct status s = object_take(object, prefix, cluster, out);
        if (!status_is_ok(s)) {
            return status_fail(msg, s.code, "too many backups in the bucket");
        }
        rest = from(rest, (const char *)object.data + object.size);
    }
    return status_ok();
}

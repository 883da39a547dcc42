/* What the texts of scheduler.yaml's backup section may be. */
#include "common/config.h"
#include "common/units.h"

#include <string.h>

enum { BUCKET_BYTES_MIN = 3, BUCKET_BYTES_MAX = 63, PREFIX_BYTES_MAX = 512, REGION_BYTES_MAX = 63 };

static const char lower_digits[] = "abcdefghijklmnopqrstuvwxyz0123456789.-";
/* Those that stand for themselves in an address and in what is signed of it. */
static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";

static struct status refuse(const char *text, const char *why, struct errmsg *msg)
{
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, strlen(text), quoted);
    return status_fail(msg, STATUS_INVALID, "\"%s\" %s", quoted, why);
}

static struct status bucket_check(const char *text, struct errmsg *msg)
{
    const char *bucket = text + strlen(CONFIG_BACKUP_S3);
    size_t size = strspn(bucket, lower_digits);
    const char *prefix = bucket + size;
    if (size < BUCKET_BYTES_MIN || size > BUCKET_BYTES_MAX ||
        (prefix[0] != '\0' && prefix[0] != '/')) {
        return refuse(text, "names no bucket: 3 to 63 of a-z, 0-9, dot and minus", msg);
    }
    prefix += prefix[0] == '/' ? 1 : 0;
    if (prefix[strspn(prefix, plain)] != '\0' || strlen(prefix) > PREFIX_BYTES_MAX ||
        prefix[0] == '/' || strstr(prefix, "//") != NULL || strstr(prefix, "..") != NULL) {
        return refuse(text, "has a prefix of other characters than a-z, A-Z, 0-9, ._-/", msg);
    }
    return status_ok();
}

struct status backup_to_check(const char *text, struct errmsg *msg)
{
    if (strncmp(text, CONFIG_BACKUP_FOLDER, strlen(CONFIG_BACKUP_FOLDER)) == 0) {
        return path_check(text + strlen(CONFIG_BACKUP_FOLDER), msg);
    }
    if (strncmp(text, CONFIG_BACKUP_S3, strlen(CONFIG_BACKUP_S3)) == 0) {
        return bucket_check(text, msg);
    }
    return refuse(text, "is neither file:/PATH nor s3://BUCKET/PREFIX", msg);
}

struct status backup_endpoint_check(const char *text, struct errmsg *msg)
{
    const char *host = NULL;
    if (strncmp(text, "https://", 8) == 0) {
        host = text + 8;
    } else if (strncmp(text, "http://", 7) == 0) {
        host = text + 7;
    }
    if (host == NULL || host[0] == '\0' || host[0] == '/' || host[0] == ':' ||
        strlen(host) > CONFIG_ADDRESS_BYTES_MAX) {
        return refuse(text, "is not of the form https://HOST[:PORT]", msg);
    }
    for (const char *at = host; *at != '\0'; at++) {
        bool last_slash = *at == '/' && at[1] == '\0';
        if ((strchr(plain, *at) == NULL && strchr(":[]", *at) == NULL) ||
            (*at == '/' && !last_slash)) {
            return refuse(text, "is not of the form https://HOST[:PORT]", msg);
        }
    }
    return status_ok();
}

struct status backup_region_check(const char *text, struct errmsg *msg)
{
    size_t size = strlen(text);
    return size > 0 && size <= REGION_BYTES_MAX && strspn(text, lower_digits) == size
               ? status_ok()
               : refuse(text, "is not a region, such as eu-central-1", msg);
}

#include "common/image_ref.h"

#include <stdio.h>
#include <string.h>

static const char digest_mark[] = "@sha256:";

struct status image_ref_parse(const char *text, struct image_ref *out, struct errmsg *msg)
{
    struct image_ref r = {.pinned = false};
    const char *at = strchr(text, '@');
    size_t size = at == NULL ? strlen(text) : (size_t)(at - text);
    TRY(name_parse("the image's name", text, size, &r.name, msg));
    if (strcmp(r.name.text, IMAGE_DEFAULT) == 0) {
        return status_fail(msg, STATUS_INVALID, "no image may be named " IMAGE_DEFAULT);
    }
    if (at != NULL) {
        if (strncmp(at, digest_mark, sizeof digest_mark - 1) != 0) {
            return status_fail(msg, STATUS_INVALID,
                               "an image's version is given as NAME@sha256:DIGEST");
        }
        TRY(digest_parse(at + sizeof digest_mark - 1, &r.digest, msg));
        r.pinned = true;
    }
    *out = r;
    return status_ok();
}

void image_ref_format(const char *name, const struct digest *digest, char out[IMAGE_REF_BYTES])
{
    char hex[DIGEST_STRING_BYTES];
    digest_format(digest, hex);
    (void)snprintf(out, IMAGE_REF_BYTES, "%.*s%s%s", NAME_BYTES_MAX, name, digest_mark, hex);
}

uint32_t image_chunks_count(uint64_t bytes)
{
    return (uint32_t)((bytes + IMAGE_CHUNK_BYTES - 1) / IMAGE_CHUNK_BYTES);
}

uint32_t image_lists_count(uint64_t bytes)
{
    return (image_chunks_count(bytes) + IMAGE_LIST_CHUNKS - 1) / IMAGE_LIST_CHUNKS;
}

/* How an image is named: NAME (its newest version) or NAME@sha256:DIGEST (that one), and what
 * bounds images everywhere.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_IMAGE_REF_H
#define COMMON_IMAGE_REF_H

#include "common/ids.h"
#include "common/status.h"

#include <stdint.h>

/* Of the erofs file. */
#define IMAGE_BYTES_MAX (UINT64_C(4) << 30)

enum {
    IMAGE_CHUNK_BYTES = 256 << 10,
    IMAGE_LIST_CHUNKS = IMAGE_CHUNK_BYTES / DIGEST_BYTES, /* whose digests one list chunk holds */
    IMAGE_CHUNKS_MAX = (int)(IMAGE_BYTES_MAX / IMAGE_CHUNK_BYTES),
    IMAGE_LISTS_MAX = (IMAGE_CHUNKS_MAX + IMAGE_LIST_CHUNKS - 1) / IMAGE_LIST_CHUNKS,
    IMAGE_REF_BYTES = NAME_BYTES_MAX + sizeof "@sha256:" + DIGEST_STRING_BYTES,
    IMAGE_ENV_MAX = 64,   /* variables of an image's configuration */
    IMAGE_WORDS_MAX = 64, /* of its entrypoint */
    IMAGE_TEXT_BYTES_MAX = 4096,
};

/* In skep.yaml: the node's own root. */
#define IMAGE_DEFAULT "default"

struct image_ref {
    struct name name;
    bool pinned; /* digest is given */
    struct digest digest;
};

/* INVALID, LIMIT; the message says what is wrong with the text. */
NODISCARD struct status image_ref_parse(const char *text, struct image_ref *out,
                                        struct errmsg *msg);
/* NAME@sha256:DIGEST */
void image_ref_format(const char *name, const struct digest *digest, char out[IMAGE_REF_BYTES]);

/* How many chunks, and how many chunks of their digests, an image of so many bytes has. */
uint32_t image_chunks_count(uint64_t bytes);
uint32_t image_lists_count(uint64_t bytes);

#endif

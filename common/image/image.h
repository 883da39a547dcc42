/* An image is made: from an OCI image layout (a folder, or an archive of one), an archive of
 * `docker save`, or a plain folder, into one erofs file that is the same, byte for byte, whenever
 * the same files go in: no times, all owned by root, a fixed UUID, names in order.
 *
 *     source -> (archive -> layout) -> digests checked -> layers unpacked into a temporary folder
 *     -> mkfs.erofs (erofs-utils, a process of its own) -> digests of the file and its chunks
 *
 * Temporary files are made below $TMPDIR (/tmp without) and gone afterwards.
 *
 * Thread: the owner's, blocking; starts a process. */
#ifndef COMMON_IMAGE_IMAGE_H
#define COMMON_IMAGE_IMAGE_H

#include "common/arena.h"
#include "common/buffer.h"
#include "common/image/oci.h"
#include "common/status.h"

#include <stdint.h>

struct image_built {
    int fd; /* of the erofs file, which has no name any more */
    uint64_t bytes;
    struct digest digest;
    struct digest *chunks; /* of each IMAGE_CHUNK_BYTES of it */
    uint32_t chunks_count;
    struct oci_config config; /* in arena; empty for a folder */
    struct arena arena;
    uint64_t entries, skipped; /* skipped: device nodes, pipes, sockets */
};

/* NOT_FOUND, DENIED, INVALID, UNSUPPORTED, CORRUPT (a digest does not fit), LIMIT, IO, NOMEM; the
 * message names the file and what is wrong. *out is written only on success. */
NODISCARD struct status image_build(const char *source, struct image_built *out,
                                    struct errmsg *msg);
void image_built_close(struct image_built *b);

/* Replaces what out holds by chunk number index, or by the list of digests number index. IO,
 * NOMEM. */
NODISCARD struct status image_built_chunk(const struct image_built *b, uint32_t index,
                                          struct buffer *out, struct errmsg *msg);
struct bytes image_built_list(const struct image_built *b, uint32_t index);

#endif

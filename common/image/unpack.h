/* Layers of an image, unpacked one over the other into a folder. Nothing of an archive is trusted.
 *
 * Every entry is made with a name of one part in a folder that openat2 reached below the root
 * without a link; what stands in its way is removed first, never written through. Files, folders,
 * symbolic links (their text is whatever it is: it is followed in cells only, below their root) and
 * hard links to what is in the root already. Device nodes, pipes and sockets are left out and
 * counted. Modes are kept without the set-user-id and set-group-id bits, and with what the owner
 * needs to read; owners and times are not kept.
 *
 * `.wh.NAME` removes what lower layers have at NAME, `.wh..wh..opq` all that they have in its
 * folder (OCI image-spec, layer.md); what the same layer brings stays, in whatever order it comes.
 *
 * Thread: the owner's, blocking. */
#ifndef COMMON_IMAGE_UNPACK_H
#define COMMON_IMAGE_UNPACK_H

#include "common/status.h"

#include <stdint.h>

enum {
    IMAGE_ENTRIES_MAX = 500000, /* of all layers together */
    IMAGE_PATH_BYTES_MAX = 4095,
    IMAGE_DEPTH_MAX = 100,
};
/* What all files of all layers hold together. */
#define IMAGE_UNPACKED_BYTES_MAX (UINT64_C(8) << 30)

struct image_unpack {
    int root; /* the folder; the owner's */
    uint64_t entries;
    uint64_t bytes;
    uint64_t skipped; /* device nodes, pipes and sockets */
    uint64_t bytes_max;
    struct unpack_made *made; /* paths of the layer that is being unpacked, and their folders */
};

/* Of an empty folder. Closed by image_unpack_close, which leaves root open. */
void image_unpack_init(struct image_unpack *u, int root);
void image_unpack_close(struct image_unpack *u);

/* A layer: a tar archive, also compressed by gzip or zstd, read from fd's beginning. CORRUPT for
 * what is no such archive, INVALID for what may not be in one, LIMIT, IO, NOMEM; the message names
 * the entry. The folder holds a part of the layer after a failure. */
NODISCARD struct status image_unpack_layer(struct image_unpack *u, int fd, struct errmsg *msg);
/* A folder, by the same rules; whiteouts in it mean nothing special. */
NODISCARD struct status image_unpack_folder(struct image_unpack *u, const char *folder,
                                            struct errmsg *msg);

/* An archive that holds a layout: its files and folders alone, and nothing special in them. */
NODISCARD struct status image_unpack_outer(struct image_unpack *u, int fd, struct errmsg *msg);

#endif

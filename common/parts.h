/* A growing list of buffers: what is too large to be one.
 *
 * Thread: the owner's. */
#ifndef COMMON_PARTS_H
#define COMMON_PARTS_H

#include "common/buffer.h"

enum { PARTS_BYTES = 1 << 20 }; /* how large a part should become */

/* All zeros is a valid empty list. */
struct parts {
    struct buffer *items;
    size_t count, capacity;
    size_t bytes; /* of all but the last, kept by parts_next */
};

/* The part to append to next: the last one while it is below PARTS_BYTES, else a new one. NULL when
 * out of memory. The pointer is good until the next call. */
struct buffer *parts_next(struct parts *p);
/* Appends a blob (u32 size, little-endian, and the bytes) whole to one part. NOMEM. */
NODISCARD struct status parts_put_blob(struct parts *p, struct bytes blob);
/* Of all parts. */
size_t parts_size(const struct parts *p);
/* Frees all buffers and the list, which is empty and usable afterwards. */
void parts_close(struct parts *p);

#endif

/* A small file written whole: the wrapped data keys beside a scheduler's state, so that it can open
 * its own log from the first entry on, whatever wrapped the keys when the entry was written.
 *
 * Thread: any; blocks on the disk. */
#ifndef COMMON_SEAL_KEYS_FILE_H
#define COMMON_SEAL_KEYS_FILE_H

#include "common/buffer.h"
#include "common/status.h"

enum { KEYS_FILE_BYTES_MAX = 1 << 20 };

/* Replaces the file atomically (temporary file beside it, fsync, rename), mode 0600. */
NODISCARD struct status keys_file_write(const char *path, struct bytes content, struct errmsg *msg);
/* Appends its content. NOT_FOUND, LIMIT, CORRUPT (not such a file, or damaged), IO, NOMEM. */
NODISCARD struct status keys_file_read(const char *path, struct buffer *out, struct errmsg *msg);

#endif

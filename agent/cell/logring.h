/* A bounded log in one file: a header and a ring of bytes. One writer (skep-cell), any number of readers in other processes. A reader follows by
 * offset: the offset counts all bytes ever written; bytes older than the ring's size are gone and the reader is told how many it missed.
 *
 * Thread: a handle belongs to one thread; reader and writer may be different processes (the positions are atomic in the mapped file). */
#ifndef AGENT_CELL_LOGRING_H
#define AGENT_CELL_LOGRING_H

#include "common/buffer.h"
#include "common/status.h"

struct logring {
    void *map;
    size_t map_bytes;
    uint64_t ring_bytes;
};

/* Creates or opens the file for writing; bytes is a power of two between 4 KiB and 256 MiB. */
NODISCARD struct status logring_create(struct logring *r, int folder_fd, const char *file, uint64_t bytes, struct errmsg *msg);
/* Opens for reading; a file that is not a ring is CORRUPT (the writer may be hostile: everything read is bounded). */
NODISCARD struct status logring_open(struct logring *r, const char *path, struct errmsg *msg);
void logring_close(struct logring *r);
void logring_write(struct logring *r, struct bytes data);
/* Copies at most max bytes from *offset on into out (appended); moves *offset; *missed counts bytes that were overwritten. NOMEM. */
NODISCARD struct status logring_read(const struct logring *r, uint64_t *offset, size_t max, struct buffer *out, uint64_t *missed);
uint64_t logring_end(const struct logring *r);

#endif

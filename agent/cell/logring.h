/* A bounded log in one file: a header and a ring of bytes. One writer (skep-cell), any number of
 * readers in other processes. A reader follows by offset: the offset counts all bytes ever written;
 * bytes older than the ring's size are gone and the reader is told how many it missed.
 *
 * Both sides use pread and pwrite, no mapping: a full disk costs log lines, not the writer, and a
 * writer that cuts the file cannot end its readers by SIGBUS.
 *
 * Thread: a handle belongs to one thread; reader and writer may be different processes. */
#ifndef AGENT_CELL_LOGRING_H
#define AGENT_CELL_LOGRING_H

#include "common/buffer.h"
#include "common/status.h"

enum { LOGRING_BYTES_MIN = 4 << 10, LOGRING_BYTES_MAX = 256 << 20 };

/* All zeros is a closed ring. */
struct logring {
    int fd;
    uint64_t ring_bytes; /* 0: closed */
    uint64_t end;        /* of the writer */
};

/* Creates or opens the file for writing; bytes is a power of two between LOGRING_BYTES_MIN and
 * LOGRING_BYTES_MAX, INVALID otherwise. A file that is a ring of that size is continued, any other
 * is replaced. */
NODISCARD struct status logring_create(struct logring *r, int folder_fd, const char *file,
                                       uint64_t bytes, struct errmsg *msg);
/* Opens for reading; a file that is not a ring is CORRUPT (the writer may be hostile: everything
 * read is bounded). */
NODISCARD struct status logring_open(struct logring *r, const char *path, struct errmsg *msg);
/* Safe on zeroed memory and twice. */
void logring_close(struct logring *r);
/* Appends, overwriting the oldest bytes. A write error loses the data and nothing else. */
void logring_write(struct logring *r, struct bytes data);
/* Copies at most max bytes from *offset on into out (appended); moves *offset; adds to *missed the
 * bytes that were overwritten before they could be read. An offset beyond the end is set back to
 * the end. NOMEM, IO, CORRUPT; nothing is changed then. */
NODISCARD struct status logring_read(const struct logring *r, uint64_t *offset, size_t max,
                                     struct buffer *out, uint64_t *missed);
/* How many bytes were ever written; 0 when the header cannot be read. */
uint64_t logring_end(const struct logring *r);

#endif

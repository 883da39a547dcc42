/* How much of a disk may be used: what fills up leaves room for the log beside it.
 *
 * Thread: any. */
#ifndef COMMON_PAYLOADS_DISK_H
#define COMMON_PAYLOADS_DISK_H

#include <stdbool.h>
#include <stdint.h>

struct disk_room {
    uint64_t free_bytes;
    uint64_t least_bytes; /* that should stay free */
};

/* Is less free on the descriptor's file system than bytes_min, or than a twentieth of it when that
 * is less? out is filled in when so. A file system that does not tell has room. */
bool disk_is_short(int fd, uint64_t bytes_min, struct disk_room *out);

#endif

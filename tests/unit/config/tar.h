/* Hand-made tar archives, for what a well-behaved writer would not write. */
#ifndef TESTS_UNIT_CONFIG_TAR_H
#define TESTS_UNIT_CONFIG_TAR_H

#include "common/buffer.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { TAR_BLOCK_BYTES = 512 };
enum {
    TAR_FILE = '0',
    TAR_HARDLINK = '1',
    TAR_SYMLINK = '2',
    TAR_CHARACTER = '3',
    TAR_BLOCK = '4',
    TAR_FOLDER = '5',
    TAR_FIFO = '6'
};

/* Appends one ustar header (POSIX.1-1988). size is what the header claims. */
static inline void tar_header(struct buffer *out, char type, const char *path, const char *target,
                              uint64_t size)
{
    uint8_t h[TAR_BLOCK_BYTES] = {0};
    (void)snprintf((char *)h, 100, "%s", path);
    memcpy(h + 100, "0000644", 7);
    memcpy(h + 108, "0000000", 7);
    memcpy(h + 116, "0000000", 7);
    (void)snprintf((char *)h + 124, 12, "%011llo", (unsigned long long)size);
    memcpy(h + 136, "00000000000", 11);
    memset(h + 148, ' ', 8);
    h[156] = (uint8_t)type;
    (void)snprintf((char *)h + 157, 100, "%s", target != NULL ? target : "");
    memcpy(h + 257, "ustar", 6);
    memcpy(h + 263, "00", 2);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof h; i++) {
        sum += h[i];
    }
    (void)snprintf((char *)h + 148, 8, "%06o", sum);
    if (!status_is_ok(buffer_append(out, h, sizeof h))) {
        abort();
    }
}

/* Appends data up to a block's end. */
static inline void tar_data(struct buffer *out, const char *data)
{
    static const uint8_t zeros[TAR_BLOCK_BYTES];
    size_t size = strlen(data);
    size_t padding = (TAR_BLOCK_BYTES - size % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES;
    if (!status_is_ok(buffer_append(out, data, size)) ||
        !status_is_ok(buffer_append(out, zeros, padding))) {
        abort();
    }
}

static inline void tar_file(struct buffer *out, const char *path, const char *data)
{
    tar_header(out, TAR_FILE, path, NULL, strlen(data));
    tar_data(out, data);
}

static inline void tar_end(struct buffer *out)
{
    static const uint8_t zeros[2 * TAR_BLOCK_BYTES];
    if (!status_is_ok(buffer_append(out, zeros, sizeof zeros))) {
        abort();
    }
}

#endif

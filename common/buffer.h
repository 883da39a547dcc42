/* Byte ranges and a growing byte buffer.
 *
 * Thread: the owner's. */
#ifndef COMMON_BUFFER_H
#define COMMON_BUFFER_H

#include "common/status.h"

#include <stddef.h>
#include <stdint.h>

/* A borrowed range of bytes. data may be NULL when size is 0. */
struct bytes {
    const uint8_t *data;
    size_t size;
};

static inline struct bytes bytes_of(const void *data, size_t size)
{
    return (struct bytes){data, size};
}

/* True when both hold the same bytes. Not constant-time: for secrets use CRYPTO_memcmp. */
bool bytes_equal(struct bytes a, struct bytes b);

/* A growing buffer. All zeros is a valid empty one. */
struct buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

/* Frees what is inside; the buffer is empty and usable afterwards. Safe on zeroed memory and
 * twice. */
void buffer_close(struct buffer *b);

/* Makes room for `more` further bytes. NOMEM; unchanged then. */
NODISCARD struct status buffer_reserve(struct buffer *b, size_t more);

/* Appends a copy. NOMEM; unchanged then. */
NODISCARD struct status buffer_append(struct buffer *b, const void *data, size_t size);

/* Appends formatted text without its terminating NUL. NOMEM; unchanged then. */
NODISCARD struct status buffer_printf(struct buffer *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Drops the first n bytes, moving the rest down. n is at most size. */
void buffer_consume(struct buffer *b, size_t n);

/* A bounded reader: it cannot run past the end. After the first failure `failed` stays set and all
 * reads return zeros, so that a decoder may read a whole structure and test once. Numbers are
 * little-endian. */
struct reader {
    struct bytes rest;
    bool failed;
};

static inline struct reader reader_of(struct bytes from)
{
    return (struct reader){from, false};
}

uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
/* The next `size` bytes, borrowed from the input. */
struct bytes reader_bytes(struct reader *r, size_t size);
/* A u32 length and that many bytes; fails when the length is above `max`. */
struct bytes reader_blob(struct reader *r, size_t max);

/* The writing half, little-endian; NOMEM leaves the buffer unchanged. */
NODISCARD struct status buffer_put_u8(struct buffer *b, uint8_t value);
NODISCARD struct status buffer_put_u16(struct buffer *b, uint16_t value);
NODISCARD struct status buffer_put_u32(struct buffer *b, uint32_t value);
NODISCARD struct status buffer_put_u64(struct buffer *b, uint64_t value);
/* A u32 length and the bytes. */
NODISCARD struct status buffer_put_blob(struct buffer *b, struct bytes blob);

#endif

#include "common/buffer.h"

#include "common/check.h"
#include "common/mem.h"

#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { BUFFER_BYTES_MIN = 64 };

bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

void buffer_close(struct buffer *b)
{
    mem_free(b->data);
    *b = (struct buffer){0};
}

struct status buffer_reserve(struct buffer *b, size_t more)
{
    CHECK(b->size <= b->capacity);
    if (more <= b->capacity - b->size) {
        return status_ok();
    }
    if (more > SIZE_MAX / 2 - b->size) {
        return status_of(STATUS_NOMEM);
    }
    size_t capacity = b->capacity < BUFFER_BYTES_MIN ? BUFFER_BYTES_MIN : b->capacity;
    while (capacity - b->size < more) {
        capacity *= 2;
    }
    uint8_t *data = mem_realloc(b->data, capacity);
    if (data == NULL) {
        return status_of(STATUS_NOMEM);
    }
    b->data = data;
    b->capacity = capacity;
    return status_ok();
}

struct status buffer_append(struct buffer *b, const void *data, size_t size)
{
    TRY(buffer_reserve(b, size));
    if (size > 0) {
        memcpy(b->data + b->size, data, size);
        b->size += size;
    }
    return status_ok();
}

struct status buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int needed = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(needed >= 0);
    struct status s = buffer_reserve(b, (size_t)needed + 1);
    if (status_is_ok(s)) {
        (void)vsnprintf((char *)b->data + b->size, (size_t)needed + 1, format, again);
        b->size += (size_t)needed;
    }
    va_end(again);
    return s;
}

void buffer_consume(struct buffer *b, size_t n)
{
    CHECK(n <= b->size);
    if (n == 0) {
        return;
    }
    memmove(b->data, b->data + n, b->size - n);
    b->size -= n;
}

struct bytes reader_bytes(struct reader *r, size_t size)
{
    if (r->failed || size > r->rest.size) {
        r->failed = true;
        return (struct bytes){0};
    }
    struct bytes taken = {r->rest.data, size};
    if (size > 0) {
        r->rest.data += size;
        r->rest.size -= size;
    }
    return taken;
}

uint8_t reader_u8(struct reader *r)
{
    struct bytes b = reader_bytes(r, 1);
    return b.size == 0 ? 0 : b.data[0];
}

uint16_t reader_u16(struct reader *r)
{
    struct bytes b = reader_bytes(r, sizeof(uint16_t));
    uint16_t value = 0;
    if (b.size > 0) {
        memcpy(&value, b.data, sizeof value);
    }
    return le16toh(value);
}

uint32_t reader_u32(struct reader *r)
{
    struct bytes b = reader_bytes(r, sizeof(uint32_t));
    uint32_t value = 0;
    if (b.size > 0) {
        memcpy(&value, b.data, sizeof value);
    }
    return le32toh(value);
}

uint64_t reader_u64(struct reader *r)
{
    struct bytes b = reader_bytes(r, sizeof(uint64_t));
    uint64_t value = 0;
    if (b.size > 0) {
        memcpy(&value, b.data, sizeof value);
    }
    return le64toh(value);
}

struct bytes reader_blob(struct reader *r, size_t max)
{
    uint32_t size = reader_u32(r);
    if (size > max) {
        r->failed = true;
        return (struct bytes){0};
    }
    return reader_bytes(r, size);
}

struct status buffer_put_u8(struct buffer *b, uint8_t value)
{
    return buffer_append(b, &value, sizeof value);
}

struct status buffer_put_u16(struct buffer *b, uint16_t value)
{
    value = htole16(value);
    return buffer_append(b, &value, sizeof value);
}

struct status buffer_put_u32(struct buffer *b, uint32_t value)
{
    value = htole32(value);
    return buffer_append(b, &value, sizeof value);
}

struct status buffer_put_u64(struct buffer *b, uint64_t value)
{
    value = htole64(value);
    return buffer_append(b, &value, sizeof value);
}

struct status buffer_put_blob(struct buffer *b, struct bytes blob)
{
    if (blob.size > UINT32_MAX) {
        return status_of(STATUS_LIMIT);
    }
    TRY(buffer_reserve(b, sizeof(uint32_t) + blob.size));
    TRY(buffer_put_u32(b, (uint32_t)blob.size));
    return buffer_append(b, blob.data, blob.size);
}

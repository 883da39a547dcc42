#include "tests/unit/proto/wire.h"

#include "common/check.h"

enum { WIRE_VARINT = 0, WIRE_BYTES = 2, ENVELOPE_VERSION = 1 };

void wire_varint(struct buffer *out, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        CHECK(status_is_ok(buffer_put_u8(out, byte)));
        value >>= 7;
    } while (value > 0);
}

void wire_number(struct buffer *out, unsigned field, uint64_t value)
{
    wire_varint(out, field << 3 | WIRE_VARINT);
    wire_varint(out, value);
}

void wire_bytes(struct buffer *out, unsigned field, const void *data, size_t size)
{
    wire_varint(out, field << 3 | WIRE_BYTES);
    wire_varint(out, size);
    CHECK(status_is_ok(buffer_append(out, data, size)));
}

void wire_envelope(struct buffer *out, uint64_t version, unsigned body,
                   const struct buffer *content)
{
    wire_number(out, ENVELOPE_VERSION, version);
    if (body != 0) {
        wire_bytes(out, body, content->data == NULL ? (const uint8_t *)"" : content->data,
                   content->size);
    }
}

/* Protobuf wire format by hand, for bytes that the encoder would not make. */
#ifndef TESTS_UNIT_PROTO_WIRE_H
#define TESTS_UNIT_PROTO_WIRE_H

#include "common/buffer.h"

void wire_varint(struct buffer *out, uint64_t value);
void wire_number(struct buffer *out, unsigned field, uint64_t value);
void wire_bytes(struct buffer *out, unsigned field, const void *data, size_t size);
/* The numbers of skep.proto: an envelope of this version with this body, whose bytes are given. */
void wire_envelope(struct buffer *out, uint64_t version, unsigned body,
                   const struct buffer *content);

#endif

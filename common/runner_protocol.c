#include "common/runner_protocol.h"

#include "common/check.h"

#include <endian.h>
#include <string.h>

enum { RUNNER_FLAGS_ALL = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE };

void runner_header_encode(const struct runner_header *h, uint8_t out[RUNNER_HEADER_BYTES])
{
    CHECK(h->size <= RUNNER_PACKET_DATA_MAX);
    uint16_t status = htole16(h->status);
    uint32_t size = htole32(h->size);
    uint64_t id = htole64(h->id);
    uint64_t arg = htole64(h->arg);
    out[0] = h->type;
    out[1] = h->flags;
    memcpy(out + 2, &status, sizeof status);
    memcpy(out + 4, &size, sizeof size);
    memcpy(out + 8, &id, sizeof id);
    memcpy(out + 16, &arg, sizeof arg);
}

struct status runner_packet_decode(struct bytes packet, struct runner_header *h, struct bytes *data,
                                   struct errmsg *msg)
{
    struct reader r = reader_of(packet);
    struct runner_header read = {0};
    read.type = reader_u8(&r);
    read.flags = reader_u8(&r);
    read.status = reader_u16(&r);
    read.size = reader_u32(&r);
    read.id = reader_u64(&r);
    read.arg = reader_u64(&r);
    if (r.failed) {
        return status_fail(msg, STATUS_INVALID, "packet of %zu bytes is shorter than its header",
                           packet.size);
    }
    if (read.type < RUNNER_READY || read.type > RUNNER_STOP) {
        return status_fail(msg, STATUS_INVALID, "packet has unknown type %u", read.type);
    }
    if ((read.flags & ~RUNNER_FLAGS_ALL) != 0) {
        return status_fail(msg, STATUS_INVALID, "packet has unknown flags 0x%x", read.flags);
    }
    if (read.size > RUNNER_PACKET_DATA_MAX) {
        return status_fail(msg, STATUS_INVALID, "packet of %u data bytes is over the limit of %d",
                           read.size, RUNNER_PACKET_DATA_MAX);
    }
    if (read.size != r.rest.size) {
        return status_fail(msg, STATUS_INVALID, "packet says %u data bytes and has %zu", read.size,
                           r.rest.size);
    }
    *h = read;
    *data = r.rest;
    return status_ok();
}

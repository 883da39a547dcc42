/* The decoder of messages between replicas: what it accepts must encode to the same bytes again. */
#include "common/check.h"
#include "scheduler/replica/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct status put_again(struct buffer *out, const struct wire_message *m)
{
    switch (m->type) {
    case WIRE_PART:
        return wire_put_part(out, &m->part);
    case WIRE_PART_ACK:
        return wire_put_ack(out, &m->ack);
    default:
        return wire_put(out, &m->raft);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_message m;
    if (!status_is_ok(wire_decode(bytes_of(data, size), &m))) {
        return 0;
    }
    struct buffer again = {0};
    if (status_is_ok(put_again(&again, &m))) {
        CHECK(bytes_equal(bytes_of(again.data, again.size), bytes_of(data, size)));
    }
    buffer_close(&again);
    wire_close(&m);
    return 0;
}

/* Packets as a hostile runner or agent could send them. The input is a list of packets, each behind
 * a u16 size; packets larger than what is left take what is left. The size 0xffff stands for a
 * packet of the largest size, made of zeros behind the next 24 bytes, so that a few input bytes can
 * reach the limit of a frame. */
#include "common/runner_frames.h"

#include "common/check.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZE_LARGEST = 0xffff, ROUND_TRIP_BYTES_MAX = 4 * RUNNER_PACKET_DATA_MAX };

static struct bytes next_packet(struct reader *r, uint8_t largest[RUNNER_PACKET_BYTES_MAX])
{
    size_t size = reader_u16(r);
    if (size != SIZE_LARGEST) {
        return reader_bytes(r, size < r->rest.size ? size : r->rest.size);
    }
    struct bytes head = reader_bytes(r, RUNNER_HEADER_BYTES);
    if (head.size != RUNNER_HEADER_BYTES) {
        return head;
    }
    memcpy(largest, head.data, head.size);
    uint32_t data_size = RUNNER_PACKET_DATA_MAX;
    memcpy(largest + 4, &data_size, sizeof data_size);
    return bytes_of(largest, RUNNER_PACKET_BYTES_MAX);
}

/* What was assembled must survive being split and assembled again. */
static void round_trip(const struct runner_frame *frame)
{
    struct runner_split split;
    CHECK(status_is_ok(runner_split_init(&split, frame, NULL)));
    struct runner_frames again = {0};
    struct runner_frame out = {0};
    bool complete = false;
    uint8_t packet[RUNNER_PACKET_BYTES_MAX]; /* out borrows from it */
    while (!runner_split_done(&split)) {
        struct bytes part;
        runner_split_packet(&split, packet, &part);
        if (part.size > 0) {
            memcpy(packet + RUNNER_HEADER_BYTES, part.data, part.size);
        }
        struct bytes whole = bytes_of(packet, RUNNER_HEADER_BYTES + part.size);
        CHECK(!complete);
        CHECK(status_is_ok(runner_frames_take(&again, whole, &out, &complete, NULL)));
        runner_split_advance(&split);
    }
    CHECK(complete);
    CHECK(out.type == frame->type);
    CHECK(out.id == frame->id);
    CHECK(bytes_equal(out.data, frame->data));
    runner_frames_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t largest[RUNNER_PACKET_BYTES_MAX];
    struct reader r = reader_of(bytes_of(data, size));
    struct runner_frames frames = {0};
    while (r.rest.size > 0 && !r.failed) {
        struct bytes packet = next_packet(&r, largest);
        struct runner_frame frame = {0};
        bool complete = false;
        struct errmsg msg = {0};
        struct status s = runner_frames_take(&frames, packet, &frame, &complete, &msg);
        CHECK(frames.open_count <= RUNNER_FRAMES_OPEN_MAX);
        CHECK_IMPLIES(!status_is_ok(s), !complete);
        CHECK_IMPLIES(!status_is_ok(s), msg.text[0] != '\0');
        if (complete) {
            CHECK(frame.data.size <= RUNNER_FRAME_BYTES_MAX);
            if (frame.data.size <= ROUND_TRIP_BYTES_MAX) {
                round_trip(&frame);
            }
        }
    }
    runner_frames_close(&frames);
    return 0;
}

/* Packets to frames and back. */
#include "common/runner_frames.h"

#include "common/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint8_t packet[RUNNER_PACKET_BYTES_MAX];

/* A packet in `packet`. */
static struct bytes make(uint8_t type, uint8_t flags, uint64_t id, const void *data, size_t size)
{
    struct runner_header h = {
        .type = type, .flags = flags, .size = (uint32_t)size, .id = id, .arg = 7};
    runner_header_encode(&h, packet);
    if (size > 0) {
        memcpy(packet + RUNNER_HEADER_BYTES, data, size);
    }
    return bytes_of(packet, RUNNER_HEADER_BYTES + size);
}

static void golden_bytes(void **state)
{
    (void)state;
    static const uint8_t golden[] = {
        3,    3,    14,   0,    2,    0,    0,    0,    0x08, 0x07, 0x06, 0x05, 0x04,
        0x03, 0x02, 0x01, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 'h',  'i',
    };
    struct runner_header h = {
        .type = RUNNER_RESULT,
        .flags = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE,
        .status = STATUS_FAILED,
        .size = 2,
        .id = 0x0102030405060708,
        .arg = 0x1112131415161718,
    };
    uint8_t out[RUNNER_HEADER_BYTES];
    runner_header_encode(&h, out);
    assert_memory_equal(out, golden, RUNNER_HEADER_BYTES);
    struct runner_header read = {0};
    struct bytes data = {0};
    struct status s = runner_packet_decode(bytes_of(golden, sizeof golden), &read, &data, NULL);
    assert_true(status_is_ok(s));
    assert_memory_equal(&read, &h, sizeof h);
    assert_true(bytes_equal(data, bytes_of("hi", 2)));
}

static void expect_refused(struct bytes from, const char *text)
{
    struct runner_header h = {.type = 99};
    struct bytes data = {0};
    struct errmsg msg = {0};
    assert_int_equal(runner_packet_decode(from, &h, &data, &msg).code, STATUS_INVALID);
    assert_string_equal(msg.text, text);
    assert_int_equal(h.type, 99);
}

static void refuses_malformed_packets(void **state)
{
    (void)state;
    expect_refused(bytes_of(NULL, 0), "packet of 0 bytes is shorter than its header");
    struct bytes p = make(RUNNER_INVOKE, RUNNER_FLAG_FIRST, 1, "abc", 3);
    expect_refused(bytes_of(p.data, 23), "packet of 23 bytes is shorter than its header");
    expect_refused(bytes_of(p.data, p.size - 1), "packet says 3 data bytes and has 2");
    expect_refused(bytes_of(p.data, p.size + 1), "packet says 3 data bytes and has 4");
    expect_refused(make(0, RUNNER_FLAG_FIRST, 1, NULL, 0), "packet has unknown type 0");
    expect_refused(make(8, RUNNER_FLAG_FIRST, 1, NULL, 0), "packet has unknown type 8");
    expect_refused(make(RUNNER_STOP, 4, 1, NULL, 0), "packet has unknown flags 0x4");
    (void)make(RUNNER_INVOKE, RUNNER_FLAG_FIRST, 1, NULL, 0);
    packet[6] = 1;
    expect_refused(bytes_of(packet, sizeof packet),
                   "packet of 65536 data bytes is over the limit of 32768");
}

/* Takes a packet that must be good; says whether it ended a frame. */
static bool take(struct runner_frames *f, struct bytes p, struct runner_frame *out)
{
    bool complete = false;
    assert_true(status_is_ok(runner_frames_take(f, p, out, &complete, NULL)));
    return complete;
}

static void round_trip(size_t size)
{
    uint8_t *data = malloc(size + 1);
    assert_non_null(data);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 31 >> 3);
    }
    struct runner_frame sent = {RUNNER_RESULT, STATUS_FAILED, 5, 6, bytes_of(data, size)};
    struct runner_split split;
    assert_true(status_is_ok(runner_split_init(&split, &sent, NULL)));
    struct runner_frames f = {0};
    struct runner_frame got = {0};
    size_t packets = 0;
    bool complete = false;
    while (!runner_split_done(&split)) {
        struct bytes part;
        assert_false(complete);
        runner_split_packet(&split, packet, &part);
        if (part.size > 0) {
            memcpy(packet + RUNNER_HEADER_BYTES, part.data, part.size);
        }
        complete = take(&f, bytes_of(packet, RUNNER_HEADER_BYTES + part.size), &got);
        runner_split_advance(&split);
        packets++;
    }
    assert_true(complete);
    size_t expected = size == 0 ? 1 : (size + RUNNER_PACKET_DATA_MAX - 1) / RUNNER_PACKET_DATA_MAX;
    assert_int_equal(packets, expected);
    assert_int_equal(got.type, sent.type);
    assert_int_equal(got.status, sent.status);
    assert_int_equal(got.id, sent.id);
    assert_int_equal(got.arg, sent.arg);
    assert_true(bytes_equal(got.data, sent.data));
    assert_int_equal(f.open_count, 0);
    runner_frames_close(&f);
    free(data);
}

static void frames_of_all_sizes_survive(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,
                                   1,
                                   RUNNER_PACKET_DATA_MAX - 1,
                                   RUNNER_PACKET_DATA_MAX,
                                   RUNNER_PACKET_DATA_MAX + 1,
                                   2 * RUNNER_PACKET_DATA_MAX,
                                   RUNNER_FRAME_BYTES_MAX - 1,
                                   RUNNER_FRAME_BYTES_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        round_trip(sizes[i]);
    }
}

static void a_frame_over_the_limit_is_not_sent(void **state)
{
    (void)state;
    struct runner_frame frame = {.data = {packet, RUNNER_FRAME_BYTES_MAX + 1}};
    struct runner_split split = {.sent = 99};
    struct errmsg msg = {0};
    assert_int_equal(runner_split_init(&split, &frame, &msg).code, STATUS_LIMIT);
    assert_int_equal(split.sent, 99);
}

static void a_frame_over_the_limit_is_dropped(void **state)
{
    (void)state;
    static const uint8_t block[RUNNER_PACKET_DATA_MAX];
    struct runner_frames f = {0};
    struct runner_frame out = {0};
    uint8_t flags = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE;
    for (size_t size = 0; size < RUNNER_FRAME_BYTES_MAX; size += sizeof block) {
        assert_false(take(&f, make(RUNNER_INVOKE, flags, 1, block, sizeof block), &out));
        flags = RUNNER_FLAG_MORE;
    }
    bool complete = false;
    struct bytes p = make(RUNNER_INVOKE, 0, 1, block, 1);
    assert_int_equal(runner_frames_take(&f, p, &out, &complete, NULL).code, STATUS_LIMIT);
    assert_false(complete);
    assert_int_equal(f.open_count, 0);
    assert_int_equal(f.dropped_count, 1);
    runner_frames_close(&f);
}

static void frames_may_interleave(void **state)
{
    (void)state;
    struct runner_frames f = {0};
    struct runner_frame out = {0};
    uint8_t begin = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE;
    assert_false(take(&f, make(RUNNER_INVOKE, begin, 1, "a", 1), &out));
    assert_false(take(&f, make(RUNNER_INVOKE, begin, 2, "x", 1), &out));
    assert_true(take(&f, make(RUNNER_CANCEL, RUNNER_FLAG_FIRST, 1, NULL, 0), &out));
    assert_int_equal(out.type, RUNNER_CANCEL);
    assert_true(take(&f, make(RUNNER_INVOKE, 0, 1, "b", 1), &out));
    assert_true(bytes_equal(out.data, bytes_of("ab", 2)));
    assert_true(take(&f, make(RUNNER_INVOKE, 0, 2, "y", 1), &out));
    assert_true(bytes_equal(out.data, bytes_of("xy", 2)));
    runner_frames_close(&f);
}

static void a_first_packet_drops_the_unfinished_frame(void **state)
{
    (void)state;
    struct runner_frames f = {0};
    struct runner_frame out = {0};
    uint8_t begin = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE;
    assert_false(take(&f, make(RUNNER_INVOKE, begin, 1, "old", 3), &out));
    assert_false(take(&f, make(RUNNER_INVOKE, begin, 1, "new", 3), &out));
    assert_true(take(&f, make(RUNNER_INVOKE, 0, 1, "er", 2), &out));
    assert_true(bytes_equal(out.data, bytes_of("newer", 5)));
    assert_int_equal(f.dropped_count, 1);
    assert_false(take(&f, make(RUNNER_INVOKE, begin, 1, "old", 3), &out));
    assert_true(take(&f, make(RUNNER_INVOKE, RUNNER_FLAG_FIRST, 1, "short", 5), &out));
    assert_int_equal(f.open_count, 0);
    runner_frames_close(&f);
}

static void a_tail_without_a_head_is_refused(void **state)
{
    (void)state;
    struct runner_frames f = {0};
    struct runner_frame out = {.id = 42};
    bool complete = false;
    struct errmsg msg = {0};
    struct bytes p = make(RUNNER_INVOKE, 0, 3, "x", 1);
    assert_int_equal(runner_frames_take(&f, p, &out, &complete, &msg).code, STATUS_INVALID);
    assert_string_equal(msg.text, "packet goes on with frame 3, which was not begun");
    assert_int_equal(out.id, 42);
    p = make(RUNNER_RESULT, RUNNER_FLAG_MORE, 3, "x", 1);
    assert_int_equal(runner_frames_take(&f, p, &out, &complete, &msg).code, STATUS_INVALID);
    assert_int_equal(f.open_count, 0);
}

static void the_oldest_unfinished_frame_makes_room(void **state)
{
    (void)state;
    struct runner_frames f = {0};
    struct runner_frame out = {0};
    uint8_t begin = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE;
    for (uint64_t id = 0; id <= RUNNER_FRAMES_OPEN_MAX; id++) {
        assert_false(take(&f, make(RUNNER_INVOKE, begin, id, "a", 1), &out));
    }
    assert_int_equal(f.open_count, RUNNER_FRAMES_OPEN_MAX);
    assert_int_equal(f.dropped_count, 1);
    bool complete = false;
    struct bytes p = make(RUNNER_INVOKE, 0, 0, "b", 1);
    assert_int_equal(runner_frames_take(&f, p, &out, &complete, NULL).code, STATUS_INVALID);
    for (uint64_t id = 1; id <= RUNNER_FRAMES_OPEN_MAX; id++) {
        assert_true(take(&f, make(RUNNER_INVOKE, 0, id, "b", 1), &out));
        assert_int_equal(out.id, id);
    }
    runner_frames_close(&f);
    runner_frames_close(&f);
}

static void an_unfinished_frame_can_be_dropped(void **state)
{
    (void)state;
    struct runner_frames f = {0};
    struct runner_frame out = {0};
    uint8_t begin = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE;
    assert_false(take(&f, make(RUNNER_INVOKE, begin, 9, "a", 1), &out));
    assert_false(runner_frames_drop(&f, RUNNER_RESULT, 9));
    assert_false(runner_frames_drop(&f, RUNNER_INVOKE, 8));
    assert_true(runner_frames_drop(&f, RUNNER_INVOKE, 9));
    assert_false(runner_frames_drop(&f, RUNNER_INVOKE, 9));
    runner_frames_close(&f);
}

static void out_of_memory_drops_the_frame_and_no_other(void **state)
{
    (void)state;
    struct runner_frames f = {0};
    struct runner_frame out = {0};
    uint8_t begin = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE;
    assert_false(take(&f, make(RUNNER_INVOKE, begin, 1, "a", 1), &out));
    bool complete = false;
    struct bytes p = make(RUNNER_INVOKE, begin, 2, "b", 1);
    mem_fault(0, 1);
    assert_int_equal(runner_frames_take(&f, p, &out, &complete, NULL).code, STATUS_NOMEM);
    assert_int_equal(mem_fault_clear(), 1);
    assert_true(take(&f, make(RUNNER_INVOKE, 0, 1, "b", 1), &out));
    assert_true(bytes_equal(out.data, bytes_of("ab", 2)));
    assert_int_equal(f.open_count, 0);
    runner_frames_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_bytes),
        cmocka_unit_test(refuses_malformed_packets),
        cmocka_unit_test(frames_of_all_sizes_survive),
        cmocka_unit_test(a_frame_over_the_limit_is_not_sent),
        cmocka_unit_test(a_frame_over_the_limit_is_dropped),
        cmocka_unit_test(frames_may_interleave),
        cmocka_unit_test(a_first_packet_drops_the_unfinished_frame),
        cmocka_unit_test(a_tail_without_a_head_is_refused),
        cmocka_unit_test(the_oldest_unfinished_frame_makes_room),
        cmocka_unit_test(an_unfinished_frame_can_be_dropped),
        cmocka_unit_test(out_of_memory_drops_the_frame_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "common/mem.h"
#include "common/net/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAYLOAD_MAX = 1000 };

/* Three frames: a heartbeat, 300 bytes, none. */
static size_t stream_make(uint8_t *out)
{
    size_t used = 0;
    frame_header_encode(out, FRAME_HEARTBEAT, 0, 1);
    used += FRAME_HEADER_BYTES;
    frame_header_encode(out + used, FRAME_DATA, 300, 2);
    used += FRAME_HEADER_BYTES;
    for (size_t i = 0; i < 300; i++) {
        out[used++] = (uint8_t)(i * 7);
    }
    frame_header_encode(out + used, FRAME_DATA, 0, 3);
    return used + FRAME_HEADER_BYTES;
}

static void check_frame(const struct frame *f, unsigned number)
{
    static const size_t sizes[] = {0, 300, 0};
    assert_true(number < 3);
    assert_int_equal(f->kind, number == 0 ? FRAME_HEARTBEAT : FRAME_DATA);
    assert_int_equal(f->payload.size, sizes[number]);
    for (size_t i = 0; i < f->payload.size; i++) {
        assert_int_equal(f->payload.data[i], (uint8_t)(i * 7));
    }
}

static void the_header_has_its_golden_bytes(void **state)
{
    (void)state;
    static const uint8_t golden[] = {0x04, 0x03, 0x02, 0x01, 2,    0,    0,    0,
                                     0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11};
    uint8_t header[FRAME_HEADER_BYTES];
    frame_header_encode(header, FRAME_DATA, 0x01020304, 0x1112131415161718);
    assert_memory_equal(header, golden, sizeof golden);
}

/* However the stream is cut, the same frames come out. */
static void frames_are_read_from_pieces_of_any_size(void **state)
{
    (void)state;
    uint8_t stream[512];
    size_t size = stream_make(stream);
    for (size_t cut = 1; cut <= size; cut++) {
        struct frame_reader r;
        unsigned frames = 0;
        frame_reader_init(&r, PAYLOAD_MAX);
        for (size_t at = 0; at < size; at += cut) {
            size_t n = size - at < cut ? size - at : cut;
            uint8_t *piece = malloc(n); /* exact, so that reading past it is seen */
            assert_non_null(piece);
            memcpy(piece, stream + at, n);
            frame_reader_feed(&r, bytes_of(piece, n));
            struct frame f;
            bool got;
            assert_true(status_is_ok(frame_reader_next(&r, &f, &got, NULL)));
            while (got) {
                check_frame(&f, frames++);
                assert_true(status_is_ok(frame_reader_next(&r, &f, &got, NULL)));
            }
            free(piece);
        }
        assert_int_equal(frames, 3);
        frame_reader_close(&r);
    }
}

static enum status_code read_header(uint32_t length, uint8_t kind, uint8_t flags, uint8_t zero,
                                    uint64_t sequence)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct frame_reader r;
    struct frame f;
    bool got;
    struct errmsg msg = {{0}};
    frame_header_encode(header, FRAME_DATA, length, sequence);
    header[4] = kind;
    header[5] = flags;
    header[7] = zero;
    frame_reader_init(&r, PAYLOAD_MAX);
    frame_reader_feed(&r, bytes_of(header, sizeof header));
    struct status s = frame_reader_next(&r, &f, &got, &msg);
    if (!status_is_ok(s)) {
        assert_true(msg.text[0] != '\0');
    }
    frame_reader_close(&r);
    return s.code;
}

static void wrong_headers_are_refused(void **state)
{
    (void)state;
    assert_int_equal(read_header(5, FRAME_DATA, 0, 0, 1), STATUS_OK);
    assert_int_equal(read_header(5, 0, 0, 0, 1), STATUS_INVALID);
    assert_int_equal(read_header(5, FRAME_BYE + 1, 0, 0, 1), STATUS_INVALID);
    assert_int_equal(read_header(5, FRAME_DATA, 1, 0, 1), STATUS_INVALID);
    assert_int_equal(read_header(5, FRAME_DATA, 0, 1, 1), STATUS_INVALID);
    assert_int_equal(read_header(5, FRAME_DATA, 0, 0, 0), STATUS_CORRUPT);
    assert_int_equal(read_header(5, FRAME_DATA, 0, 0, 2), STATUS_CORRUPT);
}

static void the_length_limit_is_exact(void **state)
{
    (void)state;
    assert_int_equal(read_header(PAYLOAD_MAX, FRAME_DATA, 0, 0, 1), STATUS_OK);
    assert_int_equal(read_header(PAYLOAD_MAX + 1, FRAME_DATA, 0, 0, 1), STATUS_LIMIT);
    assert_int_equal(read_header(UINT32_MAX, FRAME_DATA, 0, 0, 1), STATUS_LIMIT);
    assert_int_equal(read_header(1, FRAME_HEARTBEAT, 0, 0, 1), STATUS_LIMIT);
    assert_int_equal(read_header(FRAME_BYE_BYTES_MAX, FRAME_BYE, 0, 0, 1), STATUS_OK);
    assert_int_equal(read_header(FRAME_BYE_BYTES_MAX + 1, FRAME_BYE, 0, 0, 1), STATUS_LIMIT);
}

static void an_announced_length_takes_no_memory(void **state)
{
    (void)state;
    uint8_t header[FRAME_HEADER_BYTES];
    struct frame_reader r;
    struct frame f;
    bool got;
    frame_header_encode(header, FRAME_DATA, 64 << 20, 1);
    frame_reader_init(&r, 64 << 20);
    frame_reader_feed(&r, bytes_of(header, sizeof header));
    assert_true(status_is_ok(frame_reader_next(&r, &f, &got, NULL)));
    assert_false(got);
    assert_true(r.partial.capacity <= 4096);
    frame_reader_close(&r);
}

static void reading_survives_oom(void **state)
{
    (void)state;
    uint8_t stream[512];
    (void)stream_make(stream);
    struct frame_reader r;
    struct frame f;
    bool got;
    frame_reader_init(&r, PAYLOAD_MAX);
    frame_reader_feed(&r, bytes_of(stream, 8));
    mem_fault(0, 1);
    struct status s = frame_reader_next(&r, &f, &got, NULL);
    assert_int_equal(mem_fault_clear(), 1);
    assert_int_equal(s.code, STATUS_NOMEM);
    frame_reader_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_header_has_its_golden_bytes),
        cmocka_unit_test(frames_are_read_from_pieces_of_any_size),
        cmocka_unit_test(wrong_headers_are_refused),
        cmocka_unit_test(the_length_limit_is_exact),
        cmocka_unit_test(an_announced_length_takes_no_memory),
        cmocka_unit_test(reading_survives_oom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

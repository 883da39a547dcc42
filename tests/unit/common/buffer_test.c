#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buffer.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void assert_ok(struct status s)
{
    assert_int_equal(s.code, STATUS_OK);
}

static void appended_bytes_are_kept_in_order(void **state)
{
    (void)state;
    struct buffer b = {0};
    for (int i = 0; i < 1000; i++) {
        uint8_t byte = (uint8_t)i;
        assert_ok(buffer_append(&b, &byte, 1));
    }
    assert_int_equal(b.size, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(b.data[i], (uint8_t)i);
    }
    buffer_close(&b);
}

static void close_is_safe_twice_and_leaves_a_usable_buffer(void **state)
{
    (void)state;
    struct buffer b = {0};
    buffer_close(&b);
    assert_ok(buffer_append(&b, "x", 1));
    buffer_close(&b);
    buffer_close(&b);
    assert_int_equal(b.size, 0);
    assert_null(b.data);
    assert_ok(buffer_append(&b, "y", 1));
    assert_int_equal(b.data[0], 'y');
    buffer_close(&b);
}

static void appending_nothing_is_fine(void **state)
{
    (void)state;
    struct buffer b = {0};
    assert_ok(buffer_append(&b, NULL, 0));
    assert_int_equal(b.size, 0);
    buffer_close(&b);
}

static void reserve_of_the_impossible_is_nomem(void **state)
{
    (void)state;
    struct buffer b = {0};
    assert_ok(buffer_append(&b, "abc", 3));
    assert_int_equal(buffer_reserve(&b, SIZE_MAX).code, STATUS_NOMEM);
    assert_int_equal(buffer_reserve(&b, SIZE_MAX - 3).code, STATUS_NOMEM);
    assert_int_equal(buffer_reserve(&b, SIZE_MAX / 2).code, STATUS_NOMEM);
    assert_int_equal(b.size, 3);
    assert_memory_equal(b.data, "abc", 3);
    buffer_close(&b);
}

static void reserved_room_takes_the_bytes_without_allocating(void **state)
{
    (void)state;
    struct buffer b = {0};
    assert_ok(buffer_reserve(&b, 300));
    mem_fault(0, 1);
    for (int i = 0; i < 300; i++) {
        assert_ok(buffer_put_u8(&b, 7));
    }
    assert_int_equal(mem_fault_clear(), 0);
    buffer_close(&b);
}

static void printf_appends_without_the_nul(void **state)
{
    (void)state;
    struct buffer b = {0};
    assert_ok(buffer_printf(&b, "%s-%d", "a", 12));
    assert_ok(buffer_printf(&b, "%s", ""));
    assert_ok(buffer_printf(&b, "%0100d", 1));
    assert_int_equal(b.size, 104);
    assert_memory_equal(b.data, "a-12000", 7);
    assert_int_equal(b.data[103], '1');
    buffer_close(&b);
}

static void consume_moves_the_rest_down(void **state)
{
    (void)state;
    struct buffer b = {0};
    assert_ok(buffer_append(&b, "abcdef", 6));
    buffer_consume(&b, 0);
    buffer_consume(&b, 2);
    assert_int_equal(b.size, 4);
    assert_memory_equal(b.data, "cdef", 4);
    buffer_consume(&b, 4);
    assert_int_equal(b.size, 0);
    buffer_close(&b);
}

/* Every appending function, on a buffer that must grow for it. */
static struct status append_kind(struct buffer *b, int kind)
{
    static const uint8_t bytes[200] = {1};
    switch (kind) {
    case 0:
        return buffer_append(b, bytes, sizeof bytes);
    case 1:
        return buffer_printf(b, "%0200d", 1);
    case 2:
        return buffer_put_u8(b, 1);
    case 3:
        return buffer_put_u16(b, 1);
    case 4:
        return buffer_put_u32(b, 1);
    case 5:
        return buffer_put_u64(b, 1);
    default:
        return buffer_put_blob(b, bytes_of(bytes, sizeof bytes));
    }
}

static void every_append_survives_oom_unchanged(void **state)
{
    (void)state;
    for (int kind = 0; kind <= 6; kind++) {
        struct buffer b = {0};
        while (b.size < b.capacity || b.size == 0) {
            assert_ok(buffer_put_u8(&b, 0xAA));
        }
        const struct buffer before = b;
        mem_fault(0, 1);
        struct status s = append_kind(&b, kind);
        assert_int_equal(mem_fault_clear(), 1);
        assert_int_equal(s.code, STATUS_NOMEM);
        assert_ptr_equal(b.data, before.data);
        assert_int_equal(b.size, before.size);
        assert_int_equal(b.capacity, before.capacity);
        for (size_t i = 0; i < b.size; i++) {
            assert_int_equal(b.data[i], 0xAA);
        }
        buffer_close(&b);
    }
}

static void numbers_are_little_endian(void **state)
{
    (void)state;
    static const uint8_t golden[] = {0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04,
                                     0x0F, 0x0E, 0x0D, 0x0C, 0x0B, 0x0A, 0x09,
                                     0x08, 0x02, 0,    0,    0,    'h',  'i'};
    struct buffer b = {0};
    assert_ok(buffer_put_u8(&b, 0x01));
    assert_ok(buffer_put_u16(&b, 0x0203));
    assert_ok(buffer_put_u32(&b, 0x04050607));
    assert_ok(buffer_put_u64(&b, UINT64_C(0x08090A0B0C0D0E0F)));
    assert_ok(buffer_put_blob(&b, bytes_of("hi", 2)));
    assert_int_equal(b.size, sizeof golden);
    assert_memory_equal(b.data, golden, sizeof golden);

    struct reader r = reader_of(bytes_of(b.data, b.size));
    assert_int_equal(reader_u8(&r), 0x01);
    assert_int_equal(reader_u16(&r), 0x0203);
    assert_int_equal(reader_u32(&r), 0x04050607);
    assert_true(reader_u64(&r) == UINT64_C(0x08090A0B0C0D0E0F));
    assert_true(bytes_equal(reader_blob(&r, 2), bytes_of("hi", 2)));
    assert_false(r.failed);
    assert_int_equal(r.rest.size, 0);
    buffer_close(&b);
}

/* For each size the read that needs one byte more fails and gives zero. */
static void reader_stops_at_the_end(void **state)
{
    (void)state;
    static const uint8_t ones[8] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    struct reader r = reader_of(bytes_of(ones, 0));
    assert_int_equal(reader_u8(&r), 0);
    assert_true(r.failed);
    r = reader_of(bytes_of(ones, 1));
    assert_int_equal(reader_u16(&r), 0);
    assert_true(r.failed);
    r = reader_of(bytes_of(ones, 3));
    assert_int_equal(reader_u32(&r), 0);
    assert_true(r.failed);
    r = reader_of(bytes_of(ones, 7));
    assert_true(reader_u64(&r) == 0);
    assert_true(r.failed);
    r = reader_of(bytes_of(ones, 8));
    assert_true(reader_u64(&r) == UINT64_MAX);
    assert_false(r.failed);
}

static void failure_stays(void **state)
{
    (void)state;
    static const uint8_t data[4] = {1, 2, 3, 4};
    struct reader r = reader_of(bytes_of(data, sizeof data));
    (void)reader_bytes(&r, 5);
    assert_true(r.failed);
    assert_int_equal(reader_u8(&r), 0);
    assert_int_equal(reader_u32(&r), 0);
    assert_int_equal(reader_bytes(&r, 1).size, 0);
    assert_int_equal(reader_blob(&r, 10).size, 0);
    assert_true(r.failed);
}

static void blob_at_and_over_its_limit(void **state)
{
    (void)state;
    static const uint8_t data[] = {3, 0, 0, 0, 'a', 'b', 'c'};
    struct reader r = reader_of(bytes_of(data, sizeof data));
    assert_int_equal(reader_blob(&r, 3).size, 3);
    assert_false(r.failed);
    r = reader_of(bytes_of(data, sizeof data));
    assert_int_equal(reader_blob(&r, 2).size, 0);
    assert_true(r.failed);
}

static void blob_that_claims_more_than_there_is_fails(void **state)
{
    (void)state;
    static const uint8_t data[] = {0xFF, 0xFF, 0xFF, 0xFF, 'a'};
    struct reader r = reader_of(bytes_of(data, sizeof data));
    assert_int_equal(reader_blob(&r, SIZE_MAX).size, 0);
    assert_true(r.failed);
}

static void empty_blob_is_no_failure(void **state)
{
    (void)state;
    struct buffer b = {0};
    assert_ok(buffer_put_blob(&b, (struct bytes){0}));
    struct reader r = reader_of(bytes_of(b.data, b.size));
    assert_int_equal(reader_blob(&r, 0).size, 0);
    assert_false(r.failed);
    buffer_close(&b);
}

static void blob_over_32_bits_is_refused(void **state)
{
    (void)state;
    struct buffer b = {0};
    const struct bytes huge = {(const uint8_t *)"", (size_t)UINT32_MAX + 1};
    assert_int_equal(buffer_put_blob(&b, huge).code, STATUS_LIMIT);
    assert_int_equal(b.size, 0);
}

static void equal_looks_at_size_and_content(void **state)
{
    (void)state;
    assert_true(bytes_equal((struct bytes){0}, bytes_of("x", 0)));
    assert_true(bytes_equal(bytes_of("ab", 2), bytes_of("ab", 2)));
    assert_false(bytes_equal(bytes_of("ab", 2), bytes_of("ab", 1)));
    assert_false(bytes_equal(bytes_of("ab", 2), bytes_of("ac", 2)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appended_bytes_are_kept_in_order),
        cmocka_unit_test(close_is_safe_twice_and_leaves_a_usable_buffer),
        cmocka_unit_test(appending_nothing_is_fine),
        cmocka_unit_test(reserve_of_the_impossible_is_nomem),
        cmocka_unit_test(reserved_room_takes_the_bytes_without_allocating),
        cmocka_unit_test(printf_appends_without_the_nul),
        cmocka_unit_test(consume_moves_the_rest_down),
        cmocka_unit_test(every_append_survives_oom_unchanged),
        cmocka_unit_test(numbers_are_little_endian),
        cmocka_unit_test(reader_stops_at_the_end),
        cmocka_unit_test(failure_stays),
        cmocka_unit_test(blob_at_and_over_its_limit),
        cmocka_unit_test(blob_that_claims_more_than_there_is_fails),
        cmocka_unit_test(empty_blob_is_no_failure),
        cmocka_unit_test(blob_over_32_bits_is_refused),
        cmocka_unit_test(equal_looks_at_size_and_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

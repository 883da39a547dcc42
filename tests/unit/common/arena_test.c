#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/mem.h"

#include <string.h>

#include <cmocka.h>

static void memory_is_aligned_and_apart(void **state)
{
    (void)state;
    struct arena a = {0};
    unsigned char *p[200];
    for (size_t i = 0; i < 200; i++) {
        p[i] = arena_alloc(&a, i * 7);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        memset(p[i], (int)i, i * 7);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < i * 7; k++) {
            assert_int_equal(p[i][k], (unsigned char)i);
        }
    }
    arena_close(&a);
    arena_close(&a);
}

static void blocks_larger_than_ordinary_are_served(void **state)
{
    (void)state;
    struct arena a = {0};
    char *small = arena_text(&a, "small", 5);
    unsigned char *big = arena_alloc(&a, 10 * ARENA_BLOCK_BYTES);
    assert_non_null(big);
    memset(big, 1, 10 * ARENA_BLOCK_BYTES);
    assert_string_equal(small, "small");
    arena_close(&a);
}

static void zalloc_clears_used_memory(void **state)
{
    (void)state;
    struct arena a = {0};
    memset(arena_alloc(&a, 4096), 0xFF, 4096);
    arena_reset(&a);
    const unsigned char *p = arena_zalloc(&a, 16, 256);
    assert_non_null(p);
    for (size_t i = 0; i < 4096; i++) {
        assert_int_equal(p[i], 0);
    }
    arena_close(&a);
}

static void overflowing_count_is_refused(void **state)
{
    (void)state;
    struct arena a = {0};
    assert_null(arena_zalloc(&a, SIZE_MAX / 2, 3));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 8));
    arena_close(&a);
}

static void limit_at_its_boundary(void **state)
{
    (void)state;
    struct arena a = {.bytes_max = 1024};
    assert_non_null(arena_alloc(&a, 512));
    assert_non_null(arena_alloc(&a, 512));
    assert_null(arena_alloc(&a, 16));
    assert_int_equal(a.bytes_max, 1024);
    arena_reset(&a);
    assert_non_null(arena_alloc(&a, 1024));
    assert_null(arena_alloc(&a, 16));
    arena_close(&a);
}

/* A message of very many tiny texts may not take more than the limit either. */
static void limit_counts_what_alignment_adds(void **state)
{
    (void)state;
    struct arena a = {.bytes_max = 1024};
    for (int i = 0; i < 64; i++) {
        assert_non_null(arena_alloc(&a, 1));
    }
    assert_null(arena_alloc(&a, 1));
    arena_close(&a);
}

static void text_is_copied_with_a_nul(void **state)
{
    (void)state;
    struct arena a = {0};
    char from[] = "abcdef";
    char *text = arena_text(&a, from, 3);
    from[0] = 'X';
    assert_string_equal(text, "abc");
    assert_string_equal(arena_text(&a, "", 0), "");
    arena_close(&a);
}

static void reset_keeps_one_block_for_the_next_use(void **state)
{
    (void)state;
    struct arena a = {0};
    for (int i = 0; i < 100; i++) {
        assert_non_null(arena_alloc(&a, 1000));
    }
    arena_reset(&a);
    assert_int_equal(a.bytes, 0);
    mem_fault(0, 1);
    assert_non_null(arena_alloc(&a, 1000));
    assert_int_equal(mem_fault_clear(), 0);
    arena_close(&a);
}

static void out_of_memory_leaves_what_was_there(void **state)
{
    (void)state;
    struct arena a = {0};
    mem_fault(0, 1);
    assert_null(arena_alloc(&a, 10));
    assert_int_equal(mem_fault_clear(), 1);
    char *text = arena_text(&a, "kept", 4);
    assert_non_null(text);
    size_t before = a.bytes;
    mem_fault(0, 1);
    assert_null(arena_alloc(&a, 2 * ARENA_BLOCK_BYTES));
    assert_int_equal(mem_fault_clear(), 1);
    assert_int_equal(a.bytes, before);
    assert_string_equal(text, "kept");
    assert_non_null(arena_alloc(&a, 10));
    arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_and_apart),
        cmocka_unit_test(blocks_larger_than_ordinary_are_served),
        cmocka_unit_test(zalloc_clears_used_memory),
        cmocka_unit_test(overflowing_count_is_refused),
        cmocka_unit_test(limit_at_its_boundary),
        cmocka_unit_test(limit_counts_what_alignment_adds),
        cmocka_unit_test(text_is_copied_with_a_nul),
        cmocka_unit_test(reset_keeps_one_block_for_the_next_use),
        cmocka_unit_test(out_of_memory_leaves_what_was_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

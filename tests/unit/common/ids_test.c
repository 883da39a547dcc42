#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/ids.h"

#include <string.h>

#include <cmocka.h>

static const struct id128 samples[] = {
    {0, 0},
    {0, 1},
    {0, UINT64_MAX},
    {1, 0},
    {UINT64_C(0x0198A1B2C3D4E5F6), UINT64_C(0x123456789ABCDEF0)},
    {UINT64_MAX, UINT64_MAX - 1},
    {UINT64_MAX, UINT64_MAX},
};
enum { SAMPLES = sizeof samples / sizeof samples[0] };

static void ids_survive_the_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        char text[ID_STRING_BYTES];
        struct id128 back;
        id_format(samples[i], INVOCATION_PREFIX, text);
        assert_int_equal(strlen(text), ID_STRING_BYTES - 1);
        assert_int_equal(id_parse(text, INVOCATION_PREFIX, &back, NULL).code, STATUS_OK);
        assert_int_equal(id_compare(back, samples[i]), 0);
    }
}

static void texts_sort_as_ids_do(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        for (size_t k = 0; k < SAMPLES; k++) {
            char a[ID_STRING_BYTES], b[ID_STRING_BYTES];
            id_format(samples[i], 'i', a);
            id_format(samples[k], 'i', b);
            int texts = strcmp(a, b);
            int ids = id_compare(samples[i], samples[k]);
            assert_int_equal(texts < 0, ids < 0);
            assert_int_equal(texts > 0, ids > 0);
        }
    }
}

static void later_ids_sort_behind_whatever_their_random_bits(void **state)
{
    (void)state;
    const struct id128 early = id_make(1000, UINT64_MAX, UINT64_MAX);
    const struct id128 late = id_make(1001, 0, 0);
    assert_true(id_compare(early, late) < 0);
    assert_int_equal(early.high >> 16, 1000);
}

static void id_of_a_known_value_has_a_known_text(void **state)
{
    (void)state;
    char text[ID_STRING_BYTES];
    id_format((struct id128){0, 33}, INSTANCE_PREFIX, text);
    assert_string_equal(text, "i-00000000000000000000000011");
    id_format((struct id128){UINT64_MAX, UINT64_MAX}, INVOCATION_PREFIX, text);
    assert_string_equal(text, "v-7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
}

static void only_zero_is_zero(void **state)
{
    (void)state;
    assert_true(id_is_zero((struct id128){0, 0}));
    assert_false(id_is_zero((struct id128){1, 0}));
    assert_false(id_is_zero((struct id128){0, 1}));
}

static void what_is_no_id_is_refused_and_out_untouched(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "v",
        "v-",
        "v-0000000000000000000000000",   /* one short */
        "v-000000000000000000000000000", /* one long */
        "i-00000000000000000000000000",  /* another kind */
        "v_00000000000000000000000000",
        "v-80000000000000000000000000", /* over 128 bits */
        "v-0000000000000000000000000U", /* Crockford leaves out I, L, O, U */
        "v-0000000000000000000000000a",
        "v-0000000000000000000000000 ",
        "v-000000000000\3770000000000000",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct id128 out = {7, 7};
        struct errmsg msg = {""};
        assert_int_equal(id_parse(wrong[i], 'v', &out, &msg).code, STATUS_INVALID);
        assert_true(msg.text[0] != '\0');
        assert_int_equal(out.high, 7);
        assert_int_equal(out.low, 7);
    }
}

/* An id of a stranger ends up in a log or on a terminal. */
static void messages_quote_what_they_refuse(void **state)
{
    (void)state;
    static const char *const wrong[] = {"v-\nlevel=error", "v-000000000\x1b[31m0000000000000"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct id128 id;
        struct digest digest;
        struct errmsg msg = {""};
        assert_int_equal(id_parse(wrong[i], 'v', &id, &msg).code, STATUS_INVALID);
        assert_null(strpbrk(msg.text, "\n\x1b"));
        assert_int_equal(digest_parse(wrong[i], &digest, &msg).code, STATUS_INVALID);
        assert_null(strpbrk(msg.text, "\n\x1b"));
    }
}

static void names_at_their_limits(void **state)
{
    (void)state;
    char text[300];
    memset(text, 'n', sizeof text);
    struct name name = {"before"};
    struct errmsg msg = {""};
    assert_int_equal(name_parse("function", text, NAME_BYTES_MAX + 1, &name, &msg).code,
                     STATUS_LIMIT);
    assert_int_equal(name_parse("function", text, sizeof text, &name, &msg).code, STATUS_LIMIT);
    assert_string_equal(name.text, "before");
    assert_non_null(strstr(msg.text, "function"));
    assert_non_null(strstr(msg.text, "300 bytes"));
    assert_int_equal(name_parse("function", text, NAME_BYTES_MAX, &name, &msg).code, STATUS_OK);
    assert_int_equal(strlen(name.text), NAME_BYTES_MAX);
    assert_int_equal(name_parse("function", "a", 1, &name, &msg).code, STATUS_OK);
    assert_string_equal(name.text, "a");
}

static void names_hold_only_their_characters(void **state)
{
    (void)state;
    static const char *const right[] = {"a", "0", "a.b-c_d", "9.", "a--"};
    static const char *const wrong[] = {"",    ".",   "..",   "-a",  "_a",       "A",   "a/b", "/",
                                        "a b", "a\n", "a\\b", "a\"", "\xC3\xA9", "a:b", "a%2f"};
    struct name name;
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        assert_int_equal(name_parse("node", right[i], strlen(right[i]), &name, NULL).code,
                         STATUS_OK);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct errmsg msg = {""};
        assert_int_equal(name_parse("node", wrong[i], strlen(wrong[i]), &name, &msg).code,
                         STATUS_INVALID);
        assert_non_null(strstr(msg.text, "node"));
    }
}

static void nul_and_line_end_in_a_name_are_escaped_in_the_message(void **state)
{
    (void)state;
    struct name name;
    struct errmsg msg = {""};
    assert_int_equal(name_parse("node", "a\0b\nc", 5, &name, &msg).code, STATUS_INVALID);
    assert_non_null(strstr(msg.text, "\"a\\x00b\\x0ac\""));
    assert_null(strchr(msg.text, '\n'));
}

static void digests_survive_the_round_trip(void **state)
{
    (void)state;
    struct digest d;
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        d.v[i] = (uint8_t)(i * 37);
    }
    char text[DIGEST_STRING_BYTES];
    digest_format(&d, text);
    assert_int_equal(strlen(text), 64);
    struct digest back;
    assert_int_equal(digest_parse(text, &back, NULL).code, STATUS_OK);
    assert_int_equal(digest_compare(&d, &back), 0);
    back.v[31] ^= 1;
    assert_true(digest_compare(&d, &back) != 0);
}

static void what_is_no_digest_is_refused(void **state)
{
    (void)state;
    char text[DIGEST_STRING_BYTES + 1];
    struct digest d;
    memset(text, '0', sizeof text);
    text[63] = '\0';
    assert_int_equal(digest_parse(text, &d, NULL).code, STATUS_INVALID);
    text[63] = '0';
    text[65] = '\0';
    assert_int_equal(digest_parse(text, &d, NULL).code, STATUS_INVALID);
    text[64] = '\0';
    assert_int_equal(digest_parse(text, &d, NULL).code, STATUS_OK);
    static const char wrong[] = "gA \n/:";
    for (size_t i = 0; wrong[i] != '\0'; i++) {
        text[63] = wrong[i];
        assert_int_equal(digest_parse(text, &d, NULL).code, STATUS_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_survive_the_round_trip),
        cmocka_unit_test(texts_sort_as_ids_do),
        cmocka_unit_test(later_ids_sort_behind_whatever_their_random_bits),
        cmocka_unit_test(id_of_a_known_value_has_a_known_text),
        cmocka_unit_test(only_zero_is_zero),
        cmocka_unit_test(what_is_no_id_is_refused_and_out_untouched),
        cmocka_unit_test(messages_quote_what_they_refuse),
        cmocka_unit_test(names_at_their_limits),
        cmocka_unit_test(names_hold_only_their_characters),
        cmocka_unit_test(nul_and_line_end_in_a_name_are_escaped_in_the_message),
        cmocka_unit_test(digests_survive_the_round_trip),
        cmocka_unit_test(what_is_no_digest_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

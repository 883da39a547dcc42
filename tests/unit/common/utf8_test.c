#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/utf8.h"

#include <cmocka.h>

static void first_and_last_character_of_each_length(void **state)
{
    (void)state;
    assert_int_equal(utf8_size("\x01"), 1);
    assert_int_equal(utf8_size("\x7F"), 1);
    assert_int_equal(utf8_size("\xC2\x80"), 2);
    assert_int_equal(utf8_size("\xDF\xBF"), 2);
    assert_int_equal(utf8_size("\xE0\xA0\x80"), 3);
    assert_int_equal(utf8_size("\xED\x9F\xBF"), 3);
    assert_int_equal(utf8_size("\xEE\x80\x80"), 3);
    assert_int_equal(utf8_size("\xEF\xBF\xBF"), 3);
    assert_int_equal(utf8_size("\xF0\x90\x80\x80"), 4);
    assert_int_equal(utf8_size("\xF4\x8F\xBF\xBF"), 4);
}

static void malformed_starts_have_no_size(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "\x80",
        "\xBF",
        "\xC0\x80", /* overlong */
        "\xC1\xBF",
        "\xE0\x9F\xBF",
        "\xF0\x8F\xBF\xBF",
        "\xED\xA0\x80", /* surrogates */
        "\xED\xBF\xBF",
        "\xF4\x90\x80\x80", /* over U+10FFFF */
        "\xF5\x80\x80\x80",
        "\xFF",
        "\xC2", /* cut short, or with a wrong byte behind */
        "\xC2\x41",
        "\xE1\x80",
        "\xE1\x80\x41",
        "\xF1\x80\x80",
        "\xF1\x80\x80\xC0",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(utf8_size(wrong[i]), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_and_last_character_of_each_length),
        cmocka_unit_test(malformed_starts_have_no_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* 2026-01-01T00:00:00.000042Z */
#define AT_US UINT64_C(1767225600000042)

static char line[LOG_LINE_BYTES_MAX];

static void format_size(size_t room, enum log_format format, const char *event,
                        const struct log_field *fields, size_t count)
{
    memset(line, '#', sizeof line);
    size_t size =
        log_line(line, room, format, AT_US, LOG_LEVEL_WARN, "agent", event, fields, count);
    assert_true(size > 0);
    assert_true(size <= room);
    assert_int_equal(line[size - 1], '\n');
    assert_null(memchr(line, '\n', size - 1)); /* one event, one line */
    if (room < sizeof line) {
        assert_int_equal(line[room], '#'); /* nothing is written behind the room */
    }
    line[size - 1] = '\0';
}

static void format_line(enum log_format format, const char *event, const struct log_field *fields,
                        size_t count)
{
    format_size(sizeof line, format, event, fields, count);
}

static void kv_line_has_the_documented_form(void **state)
{
    (void)state;
    const struct log_field fields[] = {LOG_STR("peer", "n1"), LOG_INT("delta", -5),
                                       LOG_UINT("bytes", UINT64_MAX), LOG_BOOL("tls", true)};
    format_line(LOG_FORMAT_KV, "peer connected", fields, 4);
    assert_string_equal(line, "time=2026-01-01T00:00:00.000042Z level=warn component=agent "
                              "event=\"peer connected\" peer=n1 delta=-5 "
                              "bytes=18446744073709551615 tls=true");
}

static void forged_line_stays_inside_its_value(void **state)
{
    (void)state;
    const struct log_field fields[] = {
        LOG_STR("name", "x\ntime=2026-01-01T00:00:00Z level=error event=\"root login\"")};
    format_line(LOG_FORMAT_KV, "refused", fields, 1);
    assert_non_null(strstr(line, "name=\"x\\u000atime=2026-01-01T00:00:00Z level=error "
                                 "event=\\\"root login\\\"\""));
}

static void values_that_need_quotes_get_them(void **state)
{
    (void)state;
    static const char *const needy[] = {"",         "a b", "a=b",  "a\"b",    "a\\b",
                                        "\x1b[31m", "\t",  "\x7f", "\xC3\xA9"};
    for (size_t i = 0; i < sizeof needy / sizeof needy[0]; i++) {
        const struct log_field fields[] = {LOG_STR("k", needy[i])};
        format_line(LOG_FORMAT_KV, "e", fields, 1);
        const char *value = strstr(line, " k=");
        assert_non_null(value);
        assert_int_equal(value[3], '"');
        assert_int_equal(line[strlen(line) - 1], '"');
        for (const char *at = line; *at != '\0'; at++) {
            assert_true((unsigned char)*at >= ' ' && *at != 0x7F);
        }
    }
}

static void no_text_is_an_empty_value(void **state)
{
    (void)state;
    const struct log_field fields[] = {LOG_STR("k", NULL)};
    format_line(LOG_FORMAT_KV, "e", fields, 1);
    assert_non_null(strstr(line, " k=\"\""));
}

static json_t *parse(void)
{
    json_error_t error;
    json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        print_error("%s: %s\n", error.text, line);
    }
    assert_non_null(root);
    assert_true(json_is_object(root));
    return root;
}

static void json_line_says_the_same(void **state)
{
    (void)state;
    const struct log_field fields[] = {
        LOG_STR("peer", "a\"b\\c\nd\x01"),
        LOG_INT("delta", -5),
        LOG_UINT("bytes", 7),
        LOG_BOOL("tls", false),
    };
    format_line(LOG_FORMAT_JSON, "peer connected", fields, 4);
    json_t *root = parse();
    assert_string_equal(json_string_value(json_object_get(root, "time")),
                        "2026-01-01T00:00:00.000042Z");
    assert_string_equal(json_string_value(json_object_get(root, "level")), "warn");
    assert_string_equal(json_string_value(json_object_get(root, "component")), "agent");
    assert_string_equal(json_string_value(json_object_get(root, "event")), "peer connected");
    assert_string_equal(json_string_value(json_object_get(root, "peer")), "a\"b\\c\nd\x01");
    assert_int_equal(json_integer_value(json_object_get(root, "delta")), -5);
    assert_int_equal(json_integer_value(json_object_get(root, "bytes")), 7);
    assert_true(json_is_false(json_object_get(root, "tls")));
    json_decref(root);
}

/* Whatever the room, so the cut falls into every part of the fields. */
static void cut_json_is_still_json(void **state)
{
    (void)state;
    char text[200];
    memset(text, '\n', sizeof text);
    text[sizeof text - 1] = '\0';
    const struct log_field fields[] = {LOG_STR("first", "a"), LOG_STR("long", text),
                                       LOG_UINT("last", 1)};
    for (size_t room = 200; room < 1500; room += 7) {
        format_size(room, LOG_FORMAT_JSON, "e", fields, 3);
        json_decref(parse());
    }
}

static void json_cut_inside_its_event_is_still_json(void **state)
{
    (void)state;
    char event[LOG_LINE_BYTES_MAX + 100];
    memset(event, 'e', sizeof event);
    event[sizeof event - 1] = '\0';
    format_line(LOG_FORMAT_JSON, event, NULL, 0);
    json_decref(parse());
}

/* A peer's name may hold any bytes, and JSON is UTF-8. */
static void json_of_bytes_that_are_not_utf8_is_still_json(void **state)
{
    (void)state;
    static const char *const texts[] = {"\xFF", "a\x80", "\xC3", "\xED\xA0\x80",
                                        "\xF5\x80\x80\x80"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const struct log_field fields[] = {LOG_STR("k", texts[i])};
        format_line(LOG_FORMAT_JSON, "e", fields, 1);
        json_decref(parse());
    }
}

static void terminal_controls_are_escaped(void **state)
{
    (void)state;
    const struct log_field fields[] = {LOG_STR("k", "\x1b[0m\xC2\x9B\x9B\xC3\xA9")};
    format_line(LOG_FORMAT_KV, "e", fields, 1);
    assert_non_null(strstr(line, " k=\"\\u001b[0m\\u009b\\u009b\xC3\xA9\""));
}

static void long_kv_line_is_cut_and_says_so(void **state)
{
    (void)state;
    char text[LOG_LINE_BYTES_MAX + 1];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    const struct log_field fields[] = {LOG_STR("long", text)};
    format_line(LOG_FORMAT_KV, "e", fields, 1);
    size_t size = strlen(line);
    assert_true(size > LOG_LINE_BYTES_MAX - 16);
    assert_string_equal(line + size - 3, "...");
}

static void line_that_just_fits_is_whole(void **state)
{
    (void)state;
    const struct log_field fields[] = {LOG_STR("k", "value")};
    format_line(LOG_FORMAT_KV, "e", fields, 1);
    size_t whole = strlen(line);
    size_t room = 32;
    do {
        room++;
        format_size(room, LOG_FORMAT_KV, "e", fields, 1);
    } while (strcmp(line + strlen(line) - 3, "...") == 0);
    assert_int_equal(strlen(line), whole);
    assert_true(room < whole + 16);
}

static void no_room_writes_nothing(void **state)
{
    (void)state;
    for (size_t room = 0; room <= 7; room++) {
        memset(line, '#', sizeof line);
        assert_int_equal(
            log_line(line, room, LOG_FORMAT_KV, AT_US, LOG_LEVEL_INFO, "c", "e", NULL, 0), 0);
        assert_int_equal(line[0], '#');
    }
}

static void macros_write_one_line_above_the_level(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    log_open("test", LOG_LEVEL_WARN, LOG_FORMAT_KV, fds[1]);
    assert_false(log_enabled(LOG_LEVEL_INFO));
    LOG_INFO("not this one");
    LOG_WARN("bare");
    LOG_ERROR("full", LOG_STR("a", "b"), LOG_UINT("n", 3));
    log_open("skep", LOG_LEVEL_INFO, LOG_FORMAT_KV, STDERR_FILENO);
    char got[512];
    ssize_t size = read(fds[0], got, sizeof got - 1);
    assert_true(size > 0);
    got[size] = '\0';
    assert_null(strstr(got, "not this one"));
    assert_non_null(strstr(got, "level=warn component=test event=bare\n"));
    assert_non_null(strstr(got, "level=error component=test event=full a=b n=3\n"));
    (void)close(fds[0]);
    (void)close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kv_line_has_the_documented_form),
        cmocka_unit_test(forged_line_stays_inside_its_value),
        cmocka_unit_test(values_that_need_quotes_get_them),
        cmocka_unit_test(no_text_is_an_empty_value),
        cmocka_unit_test(json_line_says_the_same),
        cmocka_unit_test(cut_json_is_still_json),
        cmocka_unit_test(json_cut_inside_its_event_is_still_json),
        cmocka_unit_test(json_of_bytes_that_are_not_utf8_is_still_json),
        cmocka_unit_test(terminal_controls_are_escaped),
        cmocka_unit_test(long_kv_line_is_cut_and_says_so),
        cmocka_unit_test(line_that_just_fits_is_whole),
        cmocka_unit_test(no_room_writes_nothing),
        cmocka_unit_test(macros_write_one_line_above_the_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Records as tables, lines and JSON; payloads and durations from outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIGEST_TEXT "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct pair first_row[] = {{.key = "name", .value = "thumb"},
                                  {.key = "count", .value = "12", .value_kind = 1},
                                  {.key = "current", .value = "true", .value_kind = 2},
                                  {.key = "revision", .value = DIGEST_TEXT}};
static struct pair second_row[] = {{.key = "name", .value = "a-longer-name"},
                                   {.key = "current", .value = "false", .value_kind = 2}};
static struct record rows[] = {{.fields = first_row, .fields_count = 4},
                               {.fields = second_row, .fields_count = 2}};
static const struct records records = {.rows = rows, .rows_count = 2};

static void prints(bool json, const struct records *r, const char *const *columns,
                   const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    assert_non_null(to);
    assert_int_equal(output_records(to, json, r, columns), CLI_DONE);
    assert_int_equal(fclose(to), 0);
    assert_string_equal(text, expected);
    free(text);
}

static void a_table_has_its_columns_as_wide_as_needed(void **state)
{
    (void)state;
    static const char *const columns[] = {"name", "count", "current", NULL};
    prints(false, &records, columns,
           "name           count  current\n"
           "thumb          12     true\n"
           "a-longer-name         false\n");
}

static void a_table_shows_the_first_digits_of_a_revision(void **state)
{
    (void)state;
    static const char *const columns[] = {"revision", "name", NULL};
    prints(false, &records, columns,
           "revision      name\n"
           "0123456789ab  thumb\n"
           "              a-longer-name\n");
}

static void an_empty_table_is_its_head(void **state)
{
    (void)state;
    static const char *const columns[] = {"name", "count", NULL};
    const struct records none = {.rows_count = 0};
    prints(false, &none, columns, "name  count\n");
    prints(false, &none, NULL, "");
}

static void without_columns_each_field_is_a_line(void **state)
{
    (void)state;
    prints(false, &records, NULL,
           "name                   thumb\n"
           "count                  12\n"
           "current                true\n"
           "revision               " DIGEST_TEXT "\n"
           "name                   a-longer-name\n"
           "current                false\n");
}

static void json_keeps_kinds_order_and_whole_values(void **state)
{
    (void)state;
    static const char *const columns[] = {"name", NULL}; /* of tables only */
    prints(true, &records, columns,
           "[\n"
           "  {\n"
           "    \"name\": \"thumb\",\n"
           "    \"count\": 12,\n"
           "    \"current\": true,\n"
           "    \"revision\": \"" DIGEST_TEXT "\"\n"
           "  },\n"
           "  {\n"
           "    \"name\": \"a-longer-name\",\n"
           "    \"current\": false\n"
           "  }\n"
           "]\n");
}

static void json_of_nothing_is_an_empty_list(void **state)
{
    (void)state;
    const struct records none = {.rows_count = 0};
    prints(true, &none, NULL, "[]\n");
}

static void json_escapes_and_survives_bytes_that_are_no_text(void **state)
{
    (void)state;
    struct pair fields[] = {{.key = "a", .value = "quote \" and\nline"},
                            {.key = "b", .value = "\xff\xfe"}};
    struct record row = {.fields = fields, .fields_count = 2};
    const struct records r = {.rows = &row, .rows_count = 1};
    prints(true, &r, NULL,
           "[\n"
           "  {\n"
           "    \"a\": \"quote \\\" and\\nline\",\n"
           "    \"b\": \"?\"\n"
           "  }\n"
           "]\n");
}

static void a_very_long_value_does_not_widen_its_column(void **state)
{
    (void)state;
    char value[200];
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    struct pair long_fields[] = {{.key = "name", .value = value}, {.key = "count", .value = "1"}};
    struct pair short_fields[] = {{.key = "name", .value = "n"}, {.key = "count", .value = "2"}};
    struct record both[] = {{.fields = long_fields, .fields_count = 2},
                            {.fields = short_fields, .fields_count = 2}};
    const struct records r = {.rows = both, .rows_count = 2};
    static const char *const columns[] = {"name", "count", NULL};
    char expected[512];
    (void)snprintf(expected, sizeof expected, "name  count\n%s  1\nn     2\n", value);
    prints(false, &r, columns, expected);
}

/* ---- Failing ---- */

static void each_code_ends_the_program_as_documented(void **state)
{
    (void)state;
    static const struct {
        enum status_code code;
        enum exit_code exit;
    } table[] = {
        {STATUS_OK, CLI_DONE},
        {STATUS_INVALID, CLI_USAGE},
        {STATUS_NOT_FOUND, CLI_FAILED},
        {STATUS_EXISTS, CLI_FAILED},
        {STATUS_LIMIT, CLI_FAILED},
        {STATUS_DENIED, CLI_DENIED},
        {STATUS_UNAVAILABLE, CLI_UNREACHABLE},
        {STATUS_TIMEOUT, CLI_FAILED},
        {STATUS_CANCELED, CLI_FAILED},
        {STATUS_UNKNOWN, CLI_UNKNOWN},
        {STATUS_IO, CLI_FAILED},
        {STATUS_NOMEM, CLI_FAILED},
        {STATUS_CORRUPT, CLI_FAILED},
        {STATUS_NOT_LEADER, CLI_UNREACHABLE},
        {STATUS_FAILED, CLI_FAILED},
        {STATUS_CRASHED, CLI_FAILED},
        {STATUS_UNSUPPORTED, CLI_USAGE},
        {STATUS_CONFLICT, CLI_FAILED},
        {STATUS_INTERNAL, CLI_FAILED},
    };
    assert_int_equal(sizeof table / sizeof table[0], STATUS_CODE_MAX_);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (cli_exit_code(table[i].code) != table[i].exit) {
            fail_msg("%s ends with %d", status_name(table[i].code),
                     (int)cli_exit_code(table[i].code));
        }
    }
}

/* ---- Input ---- */

static void a_file_is_read_up_to_the_limit(void **state)
{
    (void)state;
    char path[] = "/tmp/skep-output-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    assert_int_equal(close(fd), 0);
    struct buffer b = {0};
    struct errmsg msg = {.text = ""};
    assert_int_equal(input_read(path, 10, &b, &msg).code, STATUS_OK);
    assert_int_equal(b.size, 10);
    assert_memory_equal(b.data, "0123456789", 10);
    buffer_close(&b);
    assert_int_equal(input_read(path, 9, &b, &msg).code, STATUS_INVALID);
    assert_non_null(strstr(msg.text, "larger than the 9 bytes"));
    buffer_close(&b);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(input_read(path, 9, &b, &msg).code, STATUS_NOT_FOUND);
    assert_non_null(strstr(msg.text, path));
    buffer_close(&b);
}

static void a_folder_is_no_payload(void **state)
{
    (void)state;
    struct buffer b = {0};
    struct errmsg msg = {.text = ""};
    assert_int_not_equal(input_read("/tmp", 10, &b, &msg).code, STATUS_OK);
    assert_non_null(strstr(msg.text, "/tmp: "));
    buffer_close(&b);
}

static void durations_have_units_and_a_default(void **state)
{
    (void)state;
    uint64_t ms = 0;
    struct errmsg msg = {.text = ""};
    assert_int_equal(duration_of("--timeout", NULL, 77, &ms, &msg).code, STATUS_OK);
    assert_int_equal(ms, 77);
    assert_int_equal(duration_of("--timeout", "500ms", 0, &ms, &msg).code, STATUS_OK);
    assert_int_equal(ms, 500);
    assert_int_equal(duration_of("--timeout", "5m", 0, &ms, &msg).code, STATUS_OK);
    assert_int_equal(ms, 300000);
    assert_int_equal(duration_of("--timeout", "soon", 0, &ms, &msg).code, STATUS_INVALID);
    uint32_t timeout_ms = 1;
    assert_int_equal(timeout_of(NULL, &timeout_ms, &msg).code, STATUS_OK);
    assert_int_equal(timeout_ms, 0);
    assert_int_equal(timeout_of("24h", &timeout_ms, &msg).code, STATUS_OK);
    assert_int_equal(timeout_ms, 24 * 3600 * 1000);
    assert_int_equal(timeout_of("86400001ms", &timeout_ms, &msg).code, STATUS_INVALID);
    assert_string_equal(msg.text, "--timeout: at most 24h is allowed");
    assert_non_null(strstr(msg.text, "--timeout"));
    assert_int_equal(ms, 300000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_has_its_columns_as_wide_as_needed),
        cmocka_unit_test(a_table_shows_the_first_digits_of_a_revision),
        cmocka_unit_test(an_empty_table_is_its_head),
        cmocka_unit_test(without_columns_each_field_is_a_line),
        cmocka_unit_test(json_keeps_kinds_order_and_whole_values),
        cmocka_unit_test(json_of_nothing_is_an_empty_list),
        cmocka_unit_test(json_escapes_and_survives_bytes_that_are_no_text),
        cmocka_unit_test(a_very_long_value_does_not_widen_its_column),
        cmocka_unit_test(each_code_ends_the_program_as_documented),
        cmocka_unit_test(a_file_is_read_up_to_the_limit),
        cmocka_unit_test(a_folder_is_no_payload),
        cmocka_unit_test(durations_have_units_and_a_default),
    };
    return cmocka_run_group_tests_name("cli output", tests, NULL, NULL);
}

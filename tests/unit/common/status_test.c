#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

#include <errno.h>
#include <string.h>

#include <cmocka.h>

static void every_code_has_its_name_and_wire_number(void **state)
{
    (void)state;
    static const struct {
        enum status_code code;
        unsigned number;
        const char *name;
    } rows[] = {
        {STATUS_OK, 0, "OK"},
        {STATUS_INVALID, 1, "INVALID"},
        {STATUS_NOT_FOUND, 2, "NOT_FOUND"},
        {STATUS_EXISTS, 3, "EXISTS"},
        {STATUS_LIMIT, 4, "LIMIT"},
        {STATUS_DENIED, 5, "DENIED"},
        {STATUS_UNAVAILABLE, 6, "UNAVAILABLE"},
        {STATUS_TIMEOUT, 7, "TIMEOUT"},
        {STATUS_CANCELED, 8, "CANCELED"},
        {STATUS_UNKNOWN, 9, "UNKNOWN"},
        {STATUS_IO, 10, "IO"},
        {STATUS_NOMEM, 11, "NOMEM"},
        {STATUS_CORRUPT, 12, "CORRUPT"},
        {STATUS_NOT_LEADER, 13, "NOT_LEADER"},
        {STATUS_FAILED, 14, "FAILED"},
        {STATUS_CRASHED, 15, "CRASHED"},
        {STATUS_UNSUPPORTED, 16, "UNSUPPORTED"},
        {STATUS_CONFLICT, 17, "CONFLICT"},
        {STATUS_INTERNAL, 18, "INTERNAL"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal((unsigned)rows[i].code, rows[i].number);
        assert_string_equal(status_name(rows[i].code), rows[i].name);
        assert_true(status_text(rows[i].code)[0] != '\0');
        assert_int_equal(status_from_wire(rows[i].number), rows[i].code);
    }
}

static void unknown_wire_numbers_become_internal(void **state)
{
    (void)state;
    assert_int_equal(status_from_wire(STATUS_CODE_MAX_), STATUS_INTERNAL);
    assert_int_equal(status_from_wire(UINT32_MAX), STATUS_INTERNAL);
    assert_string_equal(status_name(STATUS_CODE_MAX_), "INTERNAL");
    assert_string_equal(status_text((enum status_code)1000), "internal error");
}

static void fail_writes_the_line_and_gives_the_code(void **state)
{
    (void)state;
    struct errmsg msg = {"before"};
    struct status s = status_fail(&msg, STATUS_IO, "open %s: %d", "x", 7);
    assert_int_equal(s.code, STATUS_IO);
    assert_false(status_is_ok(s));
    assert_string_equal(msg.text, "open x: 7");
    assert_int_equal(status_fail(NULL, STATUS_LIMIT, "x").code, STATUS_LIMIT);
}

static void fail_cuts_a_long_line(void **state)
{
    (void)state;
    char big[2000];
    memset(big, 'a', sizeof big);
    big[sizeof big - 1] = '\0';
    struct errmsg msg;
    (void)status_fail(&msg, STATUS_IO, "%s", big);
    assert_int_equal(strlen(msg.text), ERRMSG_BYTES_MAX - 1);
}

static void prefixes_build_up_from_the_inside(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    struct status s = status_fail(&msg, STATUS_LIMIT, "no space left on device");
    s = status_prefix(&msg, s, "open seg-%d", 17);
    s = status_prefix(&msg, s, "load snapshot");
    assert_int_equal(s.code, STATUS_LIMIT);
    assert_string_equal(msg.text, "load snapshot: open seg-17: no space left on device");
}

static void prefix_of_no_message_adds_the_codes_text(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    (void)status_prefix(&msg, status_of(STATUS_NOMEM), "load");
    assert_string_equal(msg.text, "load: out of memory");
}

static void prefix_leaves_success_alone(void **state)
{
    (void)state;
    struct errmsg msg = {"untouched"};
    assert_true(status_is_ok(status_prefix(&msg, status_ok(), "load")));
    assert_string_equal(msg.text, "untouched");
    assert_int_equal(status_prefix(NULL, status_of(STATUS_IO), "load").code, STATUS_IO);
}

static void prefix_cuts_the_tail(void **state)
{
    (void)state;
    struct errmsg msg;
    memset(msg.text, 't', sizeof msg.text);
    msg.text[ERRMSG_BYTES_MAX - 1] = '\0';
    (void)status_prefix(&msg, status_of(STATUS_IO), "front");
    assert_int_equal(strlen(msg.text), ERRMSG_BYTES_MAX - 1);
    assert_memory_equal(msg.text, "front: ttt", 10);
}

static void prefix_longer_than_the_room_is_cut(void **state)
{
    (void)state;
    char big[ERRMSG_BYTES_MAX + 100];
    memset(big, 'p', sizeof big);
    big[sizeof big - 1] = '\0';
    struct errmsg msg = {"tail"};
    assert_int_equal(status_prefix(&msg, status_of(STATUS_IO), "%s", big).code, STATUS_IO);
    assert_int_equal(strlen(msg.text), ERRMSG_BYTES_MAX - 1);
    assert_int_equal(msg.text[0], 'p');
}

static struct status through_try(struct status inner, int *reached)
{
    TRY(inner);
    *reached = 1;
    return status_ok();
}

static void try_returns_the_failure_at_once(void **state)
{
    (void)state;
    int reached = 0;
    assert_int_equal(through_try(status_of(STATUS_TIMEOUT), &reached).code, STATUS_TIMEOUT);
    assert_int_equal(reached, 0);
    assert_true(status_is_ok(through_try(status_ok(), &reached)));
    assert_int_equal(reached, 1);
}

static void errno_values_are_translated(void **state)
{
    (void)state;
    assert_int_equal(status_from_errno(0), STATUS_OK);
    assert_int_equal(status_from_errno(ENOENT), STATUS_NOT_FOUND);
    assert_int_equal(status_from_errno(EEXIST), STATUS_EXISTS);
    assert_int_equal(status_from_errno(ENOMEM), STATUS_NOMEM);
    assert_int_equal(status_from_errno(EACCES), STATUS_DENIED);
    assert_int_equal(status_from_errno(EPERM), STATUS_DENIED);
    assert_int_equal(status_from_errno(ECONNREFUSED), STATUS_UNAVAILABLE);
    assert_int_equal(status_from_errno(ETIMEDOUT), STATUS_TIMEOUT);
    assert_int_equal(status_from_errno(ENOSPC), STATUS_LIMIT);
    assert_int_equal(status_from_errno(ENOSYS), STATUS_UNSUPPORTED);
    assert_int_equal(status_from_errno(EBADF), STATUS_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_name_and_wire_number),
        cmocka_unit_test(unknown_wire_numbers_become_internal),
        cmocka_unit_test(fail_writes_the_line_and_gives_the_code),
        cmocka_unit_test(fail_cuts_a_long_line),
        cmocka_unit_test(prefixes_build_up_from_the_inside),
        cmocka_unit_test(prefix_of_no_message_adds_the_codes_text),
        cmocka_unit_test(prefix_leaves_success_alone),
        cmocka_unit_test(prefix_cuts_the_tail),
        cmocka_unit_test(prefix_longer_than_the_room_is_cut),
        cmocka_unit_test(try_returns_the_failure_at_once),
        cmocka_unit_test(errno_values_are_translated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

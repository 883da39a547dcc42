/* Who gets on with whom, and what those who do not are told. This build's numbers are the
 * test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/version.h"

#include <stdio.h>
#include <string.h>

const struct version_range version_own = {.min = 4, .max = 5};

static struct status check(uint32_t min, uint32_t max, struct errmsg *msg)
{
    const struct hello hello = {.version_min = min, .version_max = max, .build = "9.9"};
    msg->text[0] = '\0';
    return version_check("scheduler s1", "agent n1", &hello, msg);
}

static void neighbours_work_together(void **state)
{
    (void)state;
    struct errmsg msg;
    assert_int_equal(check(3, 4, &msg).code, STATUS_OK);
    assert_int_equal(check(4, 5, &msg).code, STATUS_OK);
    assert_int_equal(check(5, 6, &msg).code, STATUS_OK);
    assert_int_equal(check(1, 9, &msg).code, STATUS_OK);
}

static void an_older_peer_is_to_be_upgraded_first(void **state)
{
    (void)state;
    struct errmsg msg;
    assert_int_equal(check(3, 3, &msg).code, STATUS_UNSUPPORTED);
    assert_string_equal(
        msg.text, "upgrade agent n1 first, one version at a time: scheduler s1 speaks protocol "
                  "versions 4 to 5 (Skep " SKEP_VERSION "), agent n1 version 3 (Skep 9.9), and "
                  "only neighbours work together");
}

static void next_to_a_newer_peer_this_one_is_to_be_upgraded_first(void **state)
{
    (void)state;
    struct errmsg msg;
    assert_int_equal(check(6, 7, &msg).code, STATUS_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "upgrade scheduler s1 first"));
    assert_non_null(strstr(msg.text, "versions 4 to 5"));
    assert_non_null(strstr(msg.text, "versions 6 to 7"));
}

static void a_range_upside_down_is_refused(void **state)
{
    (void)state;
    struct errmsg msg;
    assert_int_equal(check(6, 3, &msg).code, STATUS_UNSUPPORTED);
    assert_int_equal(check(5, 4, &msg).code, STATUS_UNSUPPORTED);
    assert_int_equal(check(0, 0, &msg).code, STATUS_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_work_together),
        cmocka_unit_test(an_older_peer_is_to_be_upgraded_first),
        cmocka_unit_test(next_to_a_newer_peer_this_one_is_to_be_upgraded_first),
        cmocka_unit_test(a_range_upside_down_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

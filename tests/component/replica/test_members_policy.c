/* Which scheduler the policy takes out of the cluster. */
#include "scheduler/api/members_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { AFTER = 60000 };

static void off_by_default(void **state)
{
    (void)state;
    const struct policy_member m[] = {{true, 0}, {true, 0}, {true, UINT64_MAX}};
    assert_int_equal(members_policy_dead(m, 3, 0), -1);
}

static void dead_at_the_boundary(void **state)
{
    (void)state;
    struct policy_member m[] = {{true, 0}, {true, 0}, {true, AFTER - 1}};
    assert_int_equal(members_policy_dead(m, 3, AFTER), -1);
    m[2].silent_ms = AFTER;
    assert_int_equal(members_policy_dead(m, 3, AFTER), 2);
}

static void the_longest_silent_goes_first(void **state)
{
    (void)state;
    const struct policy_member m[] = {
        {true, 0}, {true, AFTER}, {true, 0}, {true, 2 * AFTER}, {true, 0}};
    assert_int_equal(members_policy_dead(m, 5, AFTER), 3);
}

static void never_below_a_majority_of_those_that_remain(void **state)
{
    (void)state;
    /* Two of four live: of the three that would remain, a majority; of five, two are none. */
    const struct policy_member four[] = {{true, 0}, {true, 0}, {true, AFTER}, {true, AFTER}};
    assert_int_equal(members_policy_dead(four, 4, AFTER), 2);
    const struct policy_member five[] = {
        {true, 0}, {true, 0}, {true, AFTER}, {true, AFTER}, {true, AFTER}};
    assert_int_equal(members_policy_dead(five, 5, AFTER), -1);
    const struct policy_member two[] = {{true, 0}, {true, AFTER}};
    assert_int_equal(members_policy_dead(two, 2, AFTER), 1);
    const struct policy_member one[] = {{true, AFTER}};
    assert_int_equal(members_policy_dead(one, 1, AFTER), -1);
}

static void a_dead_standby_goes_too(void **state)
{
    (void)state;
    const struct policy_member m[] = {{true, 0}, {true, 0}, {true, 0}, {false, AFTER}};
    assert_int_equal(members_policy_dead(m, 4, AFTER), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(off_by_default),
        cmocka_unit_test(dead_at_the_boundary),
        cmocka_unit_test(the_longest_silent_goes_first),
        cmocka_unit_test(never_below_a_majority_of_those_that_remain),
        cmocka_unit_test(a_dead_standby_goes_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

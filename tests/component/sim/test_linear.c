/* The linearizability checker tells good histories from bad ones, and says so when it cannot. */
#include "simulations/linear.h"

#include "proto/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>
#include <cmocka.h>

enum { KEY = 7 };

/* A value that is set and read, 0 at first: the simplest model, for the search itself. */
enum { REGISTER_SET, REGISTER_GET };

static bool register_step(struct linear_state *s, const struct linear_operation *o)
{
    if (o->verb == REGISTER_SET) {
        s->v[0] = o->argument[0];
        return true;
    }
    return o->open || s->v[0] == o->result[0];
}

static const struct linear_model linear_register = {.name = "register", .step = register_step};

static int open_history(void **state)
{
    *state = linear_new();
    return 0;
}

static int close_history(void **state)
{
    linear_free(*state);
    return 0;
}

static size_t set_begin(struct linear *l, uint64_t value)
{
    return linear_begin(l, &linear_register, KEY, REGISTER_SET, value, 0);
}

static void set(struct linear *l, uint64_t value)
{
    linear_end(l, set_begin(l, value), 0, 0, 0);
}

static size_t get_begin(struct linear *l)
{
    return linear_begin(l, &linear_register, KEY, REGISTER_GET, 0, 0);
}

static void get(struct linear *l, uint64_t value)
{
    linear_end(l, get_begin(l), value, 0, 0);
}

static void assert_verdict(const struct linear *l, enum linear_verdict verdict)
{
    struct linear_report r = linear_check(l, NULL);
    if (r.verdict != verdict) {
        fail_msg("verdict %d, not %d: %s", r.verdict, verdict, r.text);
    }
    assert_true((verdict == LINEAR_HOLDS) == (r.text[0] == '\0'));
}

/* ---- Register ---- */

static void an_empty_history_holds(void **state)
{
    assert_verdict(*state, LINEAR_HOLDS);
}

static void reads_that_follow_writes_hold(void **state)
{
    struct linear *l = *state;
    get(l, 0);
    set(l, 1);
    get(l, 1);
    set(l, 2);
    get(l, 2);
    assert_verdict(l, LINEAR_HOLDS);
}

static void a_stale_read_is_found(void **state)
{
    struct linear *l = *state;
    set(l, 1);
    set(l, 2);
    get(l, 1);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_read_during_a_write_may_see_either(void **state)
{
    struct linear *l = *state;
    set(l, 1);
    size_t write = set_begin(l, 2);
    get(l, 1);
    get(l, 2);
    linear_end(l, write, 0, 0, 0);
    get(l, 2);
    assert_verdict(l, LINEAR_HOLDS);
}

static void a_value_does_not_come_and_go(void **state)
{
    struct linear *l = *state;
    set(l, 1);
    size_t write = set_begin(l, 2);
    get(l, 2);
    get(l, 1);
    linear_end(l, write, 0, 0, 0);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_write_of_unknown_outcome_may_happen_late(void **state)
{
    struct linear *l = *state;
    (void)set_begin(l, 1);
    set(l, 2);
    get(l, 2);
    get(l, 1);
    assert_verdict(l, LINEAR_HOLDS);
}

static void a_write_of_unknown_outcome_may_never_happen(void **state)
{
    struct linear *l = *state;
    (void)set_begin(l, 1);
    get(l, 0);
    get(l, 0);
    assert_verdict(l, LINEAR_HOLDS);
}

static void a_write_happens_once(void **state)
{
    struct linear *l = *state;
    (void)set_begin(l, 1);
    get(l, 1);
    set(l, 2);
    get(l, 1);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_dropped_write_never_happens(void **state)
{
    struct linear *l = *state;
    linear_drop(l, set_begin(l, 1));
    get(l, 1);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void keys_are_checked_one_by_one(void **state)
{
    struct linear *l = *state;
    set(l, 1);
    linear_end(l, linear_begin(l, &linear_register, KEY + 1, REGISTER_GET, 0, 0), 0, 0, 0);
    assert_verdict(l, LINEAR_HOLDS);
    assert_int_equal(linear_check(l, NULL).keys, 2);
    linear_end(l, linear_begin(l, &linear_register, KEY + 1, REGISTER_GET, 0, 0), 1, 0, 0);
    assert_verdict(l, LINEAR_VIOLATED);
    assert_non_null(strstr(linear_check(l, NULL).text, "register 8"));
}

/* ---- Versioned ---- */

static void change(struct linear *l, uint64_t check, bool done, uint64_t index)
{
    size_t o = linear_begin(l, &linear_versioned, KEY, VERSIONED_CHANGE, check, 0);
    linear_end(l, o, done ? 1 : 0, index, 0);
}

static void a_change_at_the_right_index_holds(void **state)
{
    struct linear *l = *state;
    change(l, 0, true, 10);
    change(l, 10, true, 12);
    change(l, 10, false, 0);
    change(l, 12, true, 15);
    assert_verdict(l, LINEAR_HOLDS);
}

static void two_changes_of_one_index_are_found(void **state)
{
    struct linear *l = *state;
    change(l, 0, true, 10);
    change(l, 10, true, 12);
    change(l, 10, true, 13);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_refusal_at_the_right_index_is_found(void **state)
{
    struct linear *l = *state;
    change(l, 0, true, 10);
    change(l, 10, false, 0);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_change_of_unknown_outcome_moves_the_index_or_not(void **state)
{
    struct linear *l = *state;
    change(l, 0, true, 10);
    (void)linear_begin(l, &linear_versioned, KEY, VERSIONED_CHANGE, 10, 0);
    change(l, 10, false, 0);
    change(l, 11, true, 14);
    assert_verdict(l, LINEAR_HOLDS);
}

/* ---- Once ---- */

static void take(struct linear *l, uint64_t identity, bool existing)
{
    size_t o = linear_begin(l, &linear_once, KEY, ONCE_TAKE, 0, 0);
    linear_end(l, o, identity, existing ? 1 : 0, 0);
}

static void the_first_taker_of_a_key_decides(void **state)
{
    struct linear *l = *state;
    take(l, 100, false);
    take(l, 100, true);
    take(l, 100, true);
    assert_verdict(l, LINEAR_HOLDS);
}

static void a_key_taken_twice_is_found(void **state)
{
    struct linear *l = *state;
    take(l, 100, false);
    take(l, 101, false);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_key_that_changes_its_owner_is_found(void **state)
{
    struct linear *l = *state;
    (void)linear_begin(l, &linear_once, KEY, ONCE_TAKE, 0, 0);
    take(l, 100, true);
    take(l, 101, true);
    assert_verdict(l, LINEAR_VIOLATED);
}

/* ---- Invocation ---- */

static void act(struct linear *l, uint32_t verb, uint64_t result, uint64_t sum)
{
    linear_end(l, linear_begin(l, &linear_invocation, KEY, verb, 0, 0), result, sum, 0);
}

static void an_invocation_ends_once(void **state)
{
    struct linear *l = *state;
    act(l, INVOCATION_SPAWN, 0, 0);
    act(l, INVOCATION_READ, INVOCATION_QUEUED, 0);
    act(l, INVOCATION_READ, INVOCATION_DONE, 5);
    act(l, INVOCATION_CANCEL, 0, 0);
    act(l, INVOCATION_READ, INVOCATION_DONE, 5);
    assert_verdict(l, LINEAR_HOLDS);
}

static void an_end_that_is_taken_back_is_found(void **state)
{
    struct linear *l = *state;
    act(l, INVOCATION_SPAWN, 0, 0);
    act(l, INVOCATION_READ, INVOCATION_DONE, 5);
    act(l, INVOCATION_READ, INVOCATION_QUEUED, 0);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_result_that_changes_is_found(void **state)
{
    struct linear *l = *state;
    act(l, INVOCATION_SPAWN, 0, 0);
    act(l, INVOCATION_READ, INVOCATION_DONE, 5);
    act(l, INVOCATION_READ, INVOCATION_DONE, 6);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_canceled_invocation_that_is_done_is_found(void **state)
{
    struct linear *l = *state;
    act(l, INVOCATION_SPAWN, 0, 0);
    act(l, INVOCATION_CANCEL, 1, 0);
    act(l, INVOCATION_READ, INVOCATION_DONE, 5);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_canceled_invocation_stays_canceled(void **state)
{
    struct linear *l = *state;
    act(l, INVOCATION_SPAWN, 0, 0);
    act(l, INVOCATION_CANCEL, 1, 0);
    act(l, INVOCATION_READ, INVOCATION_CANCELED, 5);
    act(l, INVOCATION_CANCEL, 0, 0);
    act(l, INVOCATION_READ, INVOCATION_CANCELED, 5);
    assert_verdict(l, LINEAR_HOLDS);
    act(l, INVOCATION_READ, INVOCATION_CANCELED, 6);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void a_refused_cancel_means_that_it_had_ended(void **state)
{
    struct linear *l = *state;
    act(l, INVOCATION_SPAWN, 0, 0);
    act(l, INVOCATION_CANCEL, 0, 0);
    act(l, INVOCATION_READ, INVOCATION_QUEUED, 0);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void only_a_dead_invocation_is_redriven(void **state)
{
    struct linear *l = *state;
    act(l, INVOCATION_SPAWN, 0, 0);
    act(l, INVOCATION_READ, INVOCATION_DEAD, 0);
    act(l, INVOCATION_REDRIVE, 1, 0);
    act(l, INVOCATION_READ, INVOCATION_QUEUED, 0);
    act(l, INVOCATION_READ, INVOCATION_DONE, 5);
    assert_verdict(l, LINEAR_HOLDS);
    act(l, INVOCATION_REDRIVE, 1, 0);
    assert_verdict(l, LINEAR_VIOLATED);
}

static void an_acknowledged_spawn_that_is_not_there_is_found(void **state)
{
    struct linear *l = *state;
    act(l, INVOCATION_SPAWN, 0, 0);
    act(l, INVOCATION_READ, 0, 0);
    assert_verdict(l, LINEAR_VIOLATED);
}

/* ---- Limits ---- */

/* All writes are at once; a read of something never written makes the search try everything. */
static void hard(struct linear *l, size_t writes)
{
    size_t begun[64];
    assert_true(writes <= 64);
    for (size_t i = 0; i < writes; i++) {
        begun[i] = set_begin(l, i + 1);
    }
    for (size_t i = 0; i < writes; i++) {
        linear_end(l, begun[i], 0, 0, 0);
    }
    get(l, 1000);
}

static void a_hard_history_is_decided_by_memory(void **state)
{
    hard(*state, 12); /* 12! orders, but 12 * 2^11 configurations */
    assert_verdict(*state, LINEAR_VIOLATED);
    assert_true(linear_check(*state, NULL).steps < 1000000);
}

static void too_many_steps_are_reported_and_not_passed(void **state)
{
    hard(*state, 40);
    const struct linear_limits limits = {.steps_max = 10000};
    struct linear_report r = linear_check(*state, &limits);
    assert_int_equal(r.verdict, LINEAR_GAVE_UP);
    assert_non_null(strstr(r.text, "gave up"));
    assert_true(r.steps <= 10001);
}

static void too_much_memory_is_reported_and_not_passed(void **state)
{
    hard(*state, 40);
    const struct linear_limits limits = {.bytes_max = 1 << 20};
    assert_int_equal(linear_check(*state, &limits).verdict, LINEAR_GAVE_UP);
}

static void a_history_over_the_limit_is_reported_and_not_passed(void **state)
{
    struct linear *l = *state;
    for (int i = 0; i < LINEAR_KEY_OPERATIONS_MAX; i++) {
        set(l, 1);
    }
    assert_verdict(l, LINEAR_HOLDS);
    set(l, 1);
    assert_verdict(l, LINEAR_GAVE_UP);
}

static void a_violation_outweighs_a_search_given_up(void **state)
{
    struct linear *l = *state;
    hard(l, 40);
    take(l, 100, false);
    take(l, 101, false);
    const struct linear_limits limits = {.steps_max = 10000};
    assert_int_equal(linear_check(l, &limits).verdict, LINEAR_VIOLATED);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_history, close_history)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_empty_history_holds),
        CASE(reads_that_follow_writes_hold),
        CASE(a_stale_read_is_found),
        CASE(a_read_during_a_write_may_see_either),
        CASE(a_value_does_not_come_and_go),
        CASE(a_write_of_unknown_outcome_may_happen_late),
        CASE(a_write_of_unknown_outcome_may_never_happen),
        CASE(a_write_happens_once),
        CASE(a_dropped_write_never_happens),
        CASE(keys_are_checked_one_by_one),
        CASE(a_change_at_the_right_index_holds),
        CASE(two_changes_of_one_index_are_found),
        CASE(a_refusal_at_the_right_index_is_found),
        CASE(a_change_of_unknown_outcome_moves_the_index_or_not),
        CASE(the_first_taker_of_a_key_decides),
        CASE(a_key_taken_twice_is_found),
        CASE(a_key_that_changes_its_owner_is_found),
        CASE(an_invocation_ends_once),
        CASE(an_end_that_is_taken_back_is_found),
        CASE(a_result_that_changes_is_found),
        CASE(a_canceled_invocation_that_is_done_is_found),
        CASE(a_canceled_invocation_stays_canceled),
        CASE(a_refused_cancel_means_that_it_had_ended),
        CASE(only_a_dead_invocation_is_redriven),
        CASE(an_acknowledged_spawn_that_is_not_there_is_found),
        CASE(a_hard_history_is_decided_by_memory),
        CASE(too_many_steps_are_reported_and_not_passed),
        CASE(too_much_memory_is_reported_and_not_passed),
        CASE(a_history_over_the_limit_is_reported_and_not_passed),
        CASE(a_violation_outweighs_a_search_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "tests/unit/agent/recording.h"

#include <stdio.h>

static void an_invocation_and_its_result(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, 500);
    result_of(r, 1, STATUS_OK, "out");
    recording_expect(r, "invoke v1.1 i1 500\nsend 1 result v1.1 OK out\n");
    struct agent_core_stats s = agent_core_stats(r->core);
    assert_int_equal(s.invokes, 1);
    assert_int_equal(s.results, 1);
    assert_int_equal(s.attempts, 0);
}

static void a_failure_of_the_function_travels(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, 500);
    recording_clear(r);
    result_of(r, 1, STATUS_FAILED, "no such picture");
    recording_expect(r, "send 1 result v1.1 FAILED no such picture\n");
}

static void without_a_timeout_the_functions_counts(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, 0);
    recording_expect(r, "invoke v1.1 i1 700\n");
}

static void timeouts_have_a_limit(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, UINT32_MAX);
    recording_expect(r, "invoke v1.1 i1 86400000\n");
}

static void beyond_the_concurrency_is_refused(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_invoke(r, 1, 5, 2, 1, 0);
    receive_invoke(r, 1, 5, 3, 1, 0);
    recording_expect(r, "invoke v1.1 i1 700\ninvoke v2.1 i1 700\n"
                        "send 1 result v3.1 LIMIT the instance is at its concurrency\n");
    result_of(r, 1, STATUS_OK, "");
    recording_clear(r);
    receive_invoke(r, 1, 5, 4, 1, 0);
    recording_expect(r, "invoke v4.1 i1 700\n");
    assert_int_equal(agent_core_stats(r->core).invokes_refused_busy, 1);
}

static void an_unknown_or_starting_instance_takes_nothing(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, 100, 100);
    recording_clear(r);
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_invoke(r, 1, 5, 2, 2, 0);
    recording_expect(r, "send 1 result v1.1 UNAVAILABLE the instance is starting\n"
                        "send 1 result v2.1 NOT_FOUND the instance is not on this node\n");
}

static void a_repeated_invoke_runs_once(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_invoke(r, 1, 5, 1, 1, 0);
    recording_expect(r, "invoke v1.1 i1 700\n");
    assert_int_equal(agent_core_stats(r->core).invokes_repeated, 1);
}

static void an_invoke_that_the_edge_cannot_pass_on_is_refused(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    r->invoke_code = STATUS_LIMIT;
    receive_invoke(r, 1, 5, 1, 1, 0);
    recording_expect(r, "send 1 result v1.1 LIMIT cannot invoke\n");
    assert_int_equal(agent_core_stats(r->core).attempts, 0);
}

static void invoke_survives_oom(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    for (unsigned delay = 0;; delay++) {
        mem_fault(delay, 1);
        receive_invoke(r, 1, 5, 1, 1, 0);
        if (mem_fault_clear() == 0) {
            break;
        }
        recording_expect(r, "send 1 result v1.1 NOMEM the agent's table of attempts is full\n");
    }
    recording_expect(r, "invoke v1.1 i1 700\n");
}

static void a_timeout_cancels_and_is_answered_when_the_place_is_free(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, 500);
    recording_clear(r);
    uint64_t due_us = r->now_us + 500000;
    assert_true(agent_core_next_us(r->core) == due_us);
    tick_at(r, due_us - 1);
    recording_expect(r, "");
    tick_at(r, due_us);
    recording_expect(r, "cancel v1.1 i1\n");
    result_of(r, 1, STATUS_CANCELED, "canceled");
    recording_expect(r, "send 1 result v1.1 TIMEOUT timeout of 500 ms exceeded\n");
    assert_int_equal(agent_core_stats(r->core).timeouts, 1);
}

static void success_after_the_timeout_is_a_timeout(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, 500);
    tick_at(r, r->now_us + 500000);
    recording_clear(r);
    receive_invoke(r, 1, 5, 2, 1, 500);
    recording_expect(r, "send 1 result v2.1 LIMIT the instance is at its concurrency\n");
    result_of(r, 1, STATUS_OK, "out");
    recording_expect(r, "send 1 result v1.1 TIMEOUT timeout of 500 ms exceeded\n");
    receive_invoke(r, 1, 5, 3, 1, 500);
    recording_expect(r, "invoke v3.1 i1 500\n");
}

static void a_result_of_an_unknown_attempt_is_dropped(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    result_of(r, 1, STATUS_OK, "out");
    recording_expect(r, "");
    assert_int_equal(agent_core_stats(r->core).results_late, 1);
}

static void an_instance_that_does_not_give_up_is_killed(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 500);
    receive_invoke(r, 1, 5, 2, 1, 60000);
    tick_at(r, r->now_us + 500000);
    recording_clear(r);
    uint64_t due_us = r->now_us + (uint64_t)ATTEMPT_GRACE_MS * 1000;
    tick_at(r, due_us - 1);
    recording_expect(r, "");
    tick_at(r, due_us);
    recording_expect(r, "send 1 event i1 STOPPING OK killed: it did not give up an invocation that "
                        "was over\nkill i1\n");
    receive_lead(r, 1, 5, 1000);
    recording_clear(r);
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_CRASHED, "signal 9");
    recording_expect(
        r,
        "send 1 result v1.1 TIMEOUT timeout of 500 ms exceeded\n"
        "send 1 result v2.1 CRASHED instance ended: "
        "killed: it did not give up an invocation that was over\n"
        "send 1 event i1 ENDED TIMEOUT killed: it did not give up an invocation that was over\n");
    assert_int_equal(agent_core_stats(r->core).kills, 1);
}

static void a_cancel_is_passed_on_and_answered_when_the_place_is_free(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, 60000);
    recording_clear(r);
    receive_cancel(r, 1, 5, 1);
    receive_cancel(r, 1, 5, 1);
    receive_cancel(r, 1, 5, 7);
    recording_expect(r, "cancel v1.1 i1\n");
    result_of(r, 1, STATUS_FAILED, "interrupted");
    recording_expect(r, "send 1 result v1.1 CANCELED gave up\n");
}

static void a_cancel_that_is_not_followed_costs_the_instance(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, 60000);
    receive_cancel(r, 1, 5, 1);
    recording_clear(r);
    tick_at(r, r->now_us + (uint64_t)ATTEMPT_GRACE_MS * 1000);
    recording_expect(r, "send 1 event i1 STOPPING OK "
                        "killed: it did not give up an invocation that was over\nkill i1\n");
}

static void a_cancel_does_not_cost_the_neighbours(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 60000);
    receive_invoke(r, 1, 5, 2, 1, 60000);
    receive_cancel(r, 1, 5, 1);
    recording_clear(r);
    tick_at(r, r->now_us + 59 * SECOND_US);
    recording_expect(r, "");
}

static void results_wait_for_a_leader(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_invoke(r, 1, 5, 2, 1, 0);
    agent_core_peer_close(r->core, r->now_us, 1);
    recording_clear(r);
    result_of(r, 1, STATUS_OK, "one");
    result_of(r, 2, STATUS_FAILED, "two");
    recording_expect(r, "");
    assert_int_equal(agent_core_stats(r->core).results_held, 2);
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    recording_clear(r);
    receive_lead(r, 2, 6, 1000);
    recording_expect(r, "lead 2 term=6\n"
                        "send 2 node_register instances=1 attempts=0\n"
                        "send 2 result v1.1 OK one\n"
                        "send 2 result v2.1 FAILED two\n");
    assert_int_equal(agent_core_stats(r->core).results_held, 0);
    assert_int_equal(agent_core_stats(r->core).results_held_bytes, 0);
}

static void results_wait_while_the_lease_is_lost(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 60000);
    agent_core_heartbeat(r->core, r->now_us, &(struct heartbeat){0});
    recording_clear(r);
    r->now_us += SECOND_US + 1;
    result_of(r, 1, STATUS_OK, "one");
    recording_expect(r, "");
    heartbeat_answer(r, 1, 1, STATUS_OK);
    recording_expect(r, "send 1 result v1.1 OK one\n");
}

static void results_wait_while_the_connection_is_full(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 60000);
    receive_invoke(r, 1, 5, 2, 1, 60000);
    recording_clear(r);
    r->send_fails = true;
    result_of(r, 1, STATUS_OK, "one");
    r->send_fails = false;
    result_of(r, 2, STATUS_OK, "two");
    recording_expect(r, "");
    tick_at(r, agent_core_next_us(r->core));
    recording_expect(r, "send 1 result v1.1 OK one\nsend 1 result v2.1 OK two\n");
}

static void an_invoke_whose_result_is_held_is_not_run_again(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 60000);
    r->send_fails = true;
    result_of(r, 1, STATUS_OK, "one");
    r->send_fails = false;
    recording_clear(r);
    receive_invoke(r, 1, 5, 1, 1, 60000);
    recording_expect(r, "");
}

static void held_results_have_a_limit(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    for (unsigned n = 1; n <= RESULTS_HELD_MAX + 1; n++) {
        r->send_fails = false;
        receive_invoke(r, 1, 5, n, 1, 60000);
        r->send_fails = true;
        result_of(r, n, STATUS_OK, "x");
    }
    struct agent_core_stats s = agent_core_stats(r->core);
    assert_int_equal(s.results_held, RESULTS_HELD_MAX);
    assert_int_equal(s.results_held_dropped, 1);
    r->send_fails = false;
    recording_clear(r);
    tick_at(r, agent_core_next_us(r->core));
    r->text[sizeof "send 1 result v2.1 OK x\n" - 1] = '\0';
    assert_string_equal(r->text, "send 1 result v2.1 OK x\n"); /* the oldest gave way */
}

static void held_results_have_a_limit_in_bytes(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    static uint8_t output[PAYLOAD_BYTES_MAX];
    enum { COUNT = RESULTS_HELD_BYTES_MAX / PAYLOAD_BYTES_MAX };
    for (unsigned n = 1; n <= COUNT; n++) {
        r->send_fails = false;
        receive_invoke(r, 1, 5, n, 1, 60000);
        r->send_fails = true;
        const struct result result = {.invocation = invocation_n(n),
                                      .attempt = 1,
                                      .message = "",
                                      .output = bytes_of(output, sizeof output)};
        agent_core_result(r->core, r->now_us, &result);
    }
    struct agent_core_stats s = agent_core_stats(r->core);
    assert_int_equal(s.results_held, COUNT - 1);
    assert_true(s.results_held_bytes <= RESULTS_HELD_BYTES_MAX);
}

static void running_attempts_are_registered_with_a_new_leader(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 500);
    receive_invoke(r, 1, 5, 2, 1, 60000);
    tick_at(r, r->now_us + 500000); /* the first is given up, but its place is still taken */
    recording_clear(r);
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    recording_expect(r, "send 2 node_register instances=1 attempts=2\n");
}

static void next_is_never_too_late(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    tick_at(r, agent_core_next_us(r->core)); /* the startup timeout that no longer is */
    assert_true(agent_core_next_us(r->core) == UINT64_MAX);
    receive_lead(r, 1, 5, 1000);
    receive_invoke(r, 1, 5, 1, 1, 60000);
    receive_invoke(r, 1, 5, 2, 1, 500);
    assert_true(agent_core_next_us(r->core) == r->now_us + 500000);
    result_of(r, 2, STATUS_OK, "");
    uint64_t first_us = r->now_us + 60 * SECOND_US;
    tick_at(r, agent_core_next_us(r->core));
    assert_true(agent_core_next_us(r->core) == first_us);
}

int main(void)
{
#define LED(test) cmocka_unit_test_setup_teardown(test, recording_setup_led, recording_teardown)
    const struct CMUnitTest tests[] = {
        LED(an_invocation_and_its_result),
        LED(a_failure_of_the_function_travels),
        LED(without_a_timeout_the_functions_counts),
        LED(timeouts_have_a_limit),
        LED(beyond_the_concurrency_is_refused),
        LED(an_unknown_or_starting_instance_takes_nothing),
        LED(a_repeated_invoke_runs_once),
        LED(an_invoke_that_the_edge_cannot_pass_on_is_refused),
        LED(invoke_survives_oom),
        LED(a_timeout_cancels_and_is_answered_when_the_place_is_free),
        LED(success_after_the_timeout_is_a_timeout),
        LED(a_result_of_an_unknown_attempt_is_dropped),
        LED(an_instance_that_does_not_give_up_is_killed),
        LED(a_cancel_is_passed_on_and_answered_when_the_place_is_free),
        LED(a_cancel_that_is_not_followed_costs_the_instance),
        LED(a_cancel_does_not_cost_the_neighbours),
        LED(results_wait_for_a_leader),
        LED(results_wait_while_the_lease_is_lost),
        LED(results_wait_while_the_connection_is_full),
        LED(an_invoke_whose_result_is_held_is_not_run_again),
        LED(held_results_have_a_limit),
        LED(held_results_have_a_limit_in_bytes),
        LED(running_attempts_are_registered_with_a_new_leader),
        LED(next_is_never_too_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "tests/unit/scheduler/world.h"

#include <string.h>

static void a_cold_call_starts_an_instance_and_answers_its_result(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 7, "f", "in", 0);
    expect(w, "a1 start i1 f\n");
    world_tick(w, 300);
    agent_ready(w, 1, 1);
    expect(w, "a1 invoke v1.1 i1 in\n");
    agent_result(w, 1, 1, 1, 1, STATUS_OK, "out");
    expect(w, "u1 call_reply 7 OK out\n");
    assert_true(w->last.cold);
    assert_int_equal(w->last.queue_us, 300000);
    assert_int_equal(w->last.run_us, 555);
    assert_string_equal(w->last.node, "n1");
    struct core_stats s = core_stats(w->core);
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.calls_ok, 1);
    assert_int_equal(s.cold_starts, 1);
    assert_int_equal(s.instances_ready, 1);
    assert_int_equal(s.queued + s.running, 0);
}

static void a_warm_call_goes_out_at_once(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 2, 9, "f", "x", 0);
    expect(w, "a1 invoke v2.1 i1 x\n");
    assert_int_equal(core_stats(w->core).running, 1);
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    expect(w, "u2 call_reply 9 OK y\n");
    assert_false(w->last.cold);
    assert_int_equal(w->last.queue_us, 0);
}

static void a_call_behind_a_busy_instance_waits_and_follows(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    world_deploy(w, "f", 1);
    w->spec.scale_max = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "a", 0);
    agent_ready(w, 1, 1);
    user_call(w, 1, 2, "g", "b", 0);
    expect(w, "a1 start i1 g\na1 invoke v1.1 i1 a\n");
    agent_result(w, 1, 1, 1, 1, STATUS_OK, "A");
    expect(w, "u1 call_reply 1 OK A\na1 invoke v2.1 i1 b\n");
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "B");
    expect(w, "u1 call_reply 2 OK B\n");
    assert_false(w->last.cold);
}

static void concurrency_shares_one_instance(void **state)
{
    struct world *w = *state;
    w->spec.concurrency = 2;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "a", 0);
    user_call(w, 1, 2, "g", "b", 0);
    agent_ready(w, 1, 1);
    expect(w, "a1 start i1 g\na1 invoke v1.1 i1 a\na1 invoke v2.1 i1 b\n");
    user_call(w, 1, 3, "g", "c", 0); /* Full: another one starts. */
    expect(w, "a1 start i2 g\n");
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "B");
    expect(w, "u1 call_reply 2 OK B\na1 invoke v3.1 i1 c\n");
}

static void the_most_recently_used_instance_comes_first(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 0);
    user_call(w, 1, 2, "f", "", 0);
    agent_ready(w, 1, 1);
    agent_ready(w, 1, 2);
    agent_result(w, 1, 2, 1, 2, STATUS_OK, "");
    agent_result(w, 1, 1, 1, 1, STATUS_OK, "");
    forget_lines(w);
    user_call(w, 1, 3, "f", "", 0);
    expect(w, "a1 invoke v3.1 i1 \n");
}

static void a_failed_function_answers_its_code_and_message(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "", 0);
    agent_result(w, 1, 2, 1, 1, STATUS_FAILED, "ValueError: no");
    expect(w, "a1 invoke v2.1 i1 \nu1 call_reply 7 FAILED ValueError: no\n");
    assert_int_equal(core_stats(w->core).calls_failed, 1);
}

static void an_unknown_function_is_not_found(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 7, "none", "", 0);
    expect(w, "u1 call_reply 7 NOT_FOUND no function is named none; see skep function list\n");
}

static void calls_over_the_queue_are_a_limit(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 0);
    user_call(w, 1, 2, "f", "", 0);
    expect(w, "a1 start i1 f\na1 start i2 f\n");
    user_call(w, 1, 3, "f", "", 0);
    expect(w,
           "u1 call_reply 3 LIMIT 2 calls of f wait, as many as scaling.queue allows; try again\n");
    assert_int_equal(w->last.retry_after_ms, 200);
    assert_int_equal(core_stats(w->core).calls_limit, 1);
    agent_ready(w, 1, 1);
    forget_lines(w);
    user_call(w, 1, 4, "f", "", 0);
    assert_int_equal(core_stats(w->core).queued, 2);
    assert_int_equal(core_stats(w->core).calls_limit, 1);
}

static void calls_over_what_the_core_holds_are_a_limit(void **state)
{
    const struct core_config config = {.calls_max = 2};
    struct world *w = world_new(&config);
    *state = w;
    world_lead(w, WORLD_TERM);
    user_open(w, 1);
    agent_up(w, 1);
    world_deploy(w, "f", 1);
    user_call(w, 1, 1, "f", "", 0);
    user_call(w, 1, 2, "f", "", 0);
    forget_lines(w);
    user_call(w, 1, 3, "f", "", 0);
    expect(w, "u1 call_reply 3 LIMIT the scheduler holds as many calls as it may; try again\n");
}

static void a_payload_over_its_limit_is_refused(void **state)
{
    struct world *w = *state;
    have_warm(w);
    char *payload = mem_must(mem_zalloc(1, PAYLOAD_BYTES_MAX + 1));
    struct message m = {.type = MESSAGE_CALL, .request = 7, .call = {.function = "f"}};
    m.call.payload = bytes_of(payload, PAYLOAD_BYTES_MAX + 1);
    core_receive(w->core, w->now, 1, &m);
    expect(w, "u1 call_reply 7 LIMIT the payload is larger than 4 MiB\n");
    m.call.payload.size = PAYLOAD_BYTES_MAX;
    core_receive(w->core, w->now, 1, &m);
    assert_int_equal(core_stats(w->core).running, 1);
    mem_free(payload);
}

static void a_call_without_an_asker_is_refused_and_counted(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 0, "f", "", 0);
    user_call(w, 77, 5, "f", "", 0);
    expect(w, "");
    assert_int_equal(core_stats(w->core).messages_refused, 2);
}

static void a_call_without_memory_is_a_limit(void **state)
{
    struct world *w = *state;
    have_warm(w);
    for (unsigned n = 0; n < 2; n++) {
        mem_fault(n, 1);
        user_call(w, 1, 7, "f", "x", 0);
        assert_int_equal(mem_fault_clear(), 1);
        expect(w, "u1 call_reply 7 LIMIT the scheduler is out of memory; try again\n");
    }
    user_call(w, 1, 7, "f", "x", 0);
    expect(w, "a1 invoke v2.1 i1 x\n");
}

static void messages_of_other_kinds_are_refused(void **state)
{
    struct world *w = *state;
    const struct message m = {.type = MESSAGE_RAFT, .request = 3};
    core_receive(w->core, w->now, 1, &m);
    expect(w, "u1 reply 3 UNSUPPORTED the scheduler does not take this message\n");
    assert_int_equal(core_stats(w->core).messages_refused, 1);
}

/* ---- Deadlines ---- */

static void a_queued_call_times_out_at_its_deadline(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 7, "f", "", 1000);
    forget_lines(w);
    world_tick(w, 999);
    expect(w, "");
    world_tick(w, 10);
    expect(w, "u1 call_reply 7 TIMEOUT the deadline passed while the call waited for an instance; "
              "see skep why f\n");
    assert_int_equal(core_stats(w->core).calls_timeout, 1);
    agent_ready(w, 1, 1); /* Nothing is left to run. */
    expect(w, "");
}

static void the_function_gives_the_timeout_when_the_call_does_not(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "", 0);
    assert_in_range(w->last.timeout_ms, 10000, 10001);
    user_call(w, 1, 8, "f", "",
              UINT32_MAX); /* Starts another instance; an attempt gets no more than the function. */
    world_tick(w, 100);
    agent_ready(w, 1, 2);
    assert_in_range(w->last.timeout_ms, 10000, 10001);
}

static void waiting_for_a_start_does_not_shorten_the_attempt(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 7, "f", "", 0);
    world_run(w, 4000);
    agent_ready(w, 1, 1);
    assert_in_range(w->last.timeout_ms, 10000, 10001);
}

static void the_callers_own_timeout_is_for_everything(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 7, "f", "", 6000);
    world_run(w, 4000);
    agent_ready(w, 1, 1);
    assert_in_range(w->last.timeout_ms, 1900, 2001);
}

static void a_running_call_past_its_deadline_is_cancelled_and_keeps_its_slot(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 7, "g", "slow", 1000);
    agent_ready(w, 1, 1);
    user_call(w, 1, 8, "g", "next", 0);
    forget_lines(w);
    world_run(w, 2400);
    expect(w, ""); /* The agent's own answer has a second and a half more. */
    world_run(w, 200);
    expect(w, "a1 cancel v1.1 i1 deadline\nu1 call_reply 7 TIMEOUT the deadline passed while the "
              "call ran\n");
    world_run(w, 1000);
    expect(w, "");
    agent_result(w, 1, 1, 9, 1, STATUS_OK, "of no attempt"); /* It frees no slot. */
    expect(w, "");
    agent_result(w, 1, 1, 1, 1, STATUS_CANCELED, "");
    expect(w, "a1 invoke v2.1 i1 next\n");
    assert_int_equal(core_stats(w->core).results_late, 2);
}

static void the_agents_own_timeout_within_the_grace_is_the_answer(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "", 1000);
    forget_lines(w);
    world_run(w, 2000);
    agent_result(w, 1, 2, 1, 1, STATUS_TIMEOUT, "killed after 1s");
    expect(w, "u1 call_reply 7 TIMEOUT killed after 1s\n");
    assert_int_equal(core_stats(w->core).calls_timeout, 1);
}

static void a_long_pause_still_gives_a_running_call_its_end(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "", 1000);
    forget_lines(w);
    world_tick(w, 2900);
    expect(w, "a1 cancel v2.1 i1 deadline\nu1 call_reply 7 TIMEOUT the deadline passed while the "
              "call ran\n");
}

/* ---- Refusals by the agent ---- */

static void a_refused_attempt_is_tried_again_up_to_the_limit(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "x", 0);
    expect(w, "a1 invoke v2.1 i1 x\n");
    agent_result(w, 1, 2, 1, 1, STATUS_CONFLICT, "busy");
    expect(w, "a1 invoke v2.2 i1 x\n");
    agent_result(w, 1, 2, 2, 1, STATUS_UNAVAILABLE, "busy");
    expect(w, "a1 invoke v2.3 i1 x\n");
    agent_result(w, 1, 2, 3, 1, STATUS_LIMIT, "busy");
    agent_result(w, 1, 2, 4, 1, STATUS_CONFLICT, "busy");
    expect(w, "a1 invoke v2.4 i1 x\na1 invoke v2.5 i1 x\n");
    agent_result(w, 1, 2, 5, 1, STATUS_CONFLICT, "the instance is busy");
    expect(w, "u1 call_reply 7 UNAVAILABLE the instance is busy\n");
    assert_int_equal(core_stats(w->core).calls_requeued, 5);
}

static void a_refused_attempt_goes_back_to_the_front(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "first", 0);
    agent_ready(w, 1, 1);
    user_call(w, 1, 2, "g", "second", 0);
    forget_lines(w);
    agent_result(w, 1, 1, 1, 1, STATUS_CONFLICT, "busy");
    expect(w, "a1 invoke v1.2 i1 first\n");
}

static void an_instance_the_agent_does_not_know_is_replaced(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "x", 0);
    forget_lines(w);
    agent_result(w, 1, 2, 1, 1, STATUS_NOT_FOUND, "no such instance");
    expect(w, "a1 start i2 f\n");
    agent_ready(w, 1, 2);
    expect(w, "a1 invoke v2.2 i2 x\n");
    assert_int_equal(core_stats(w->core).instances, 1);
}

static void a_refused_attempt_past_its_deadline_times_out(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "x", 1000);
    forget_lines(w);
    world_run(w, 1100);
    agent_result(w, 1, 2, 1, 1, STATUS_CONFLICT, "busy");
    expect(w, "u1 call_reply 7 TIMEOUT the deadline passed before an instance took the call\n");
}

static void a_refused_attempt_of_a_deleted_function_is_not_found(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "x", 0);
    user_admin(w, 8, "function.delete", "f", NULL, NULL);
    forget_lines(w);
    agent_result(w, 1, 2, 1, 1, STATUS_CONFLICT, "busy");
    expect(w, "u1 call_reply 7 NOT_FOUND the function was deleted\n");
}

/* ---- Results that come late, twice or from elsewhere ---- */

static void a_result_of_another_agents_instance_is_refused(void **state)
{
    struct world *w = *state;
    have_warm(w);
    agent_open(w, 2);
    forget_lines(w);
    user_call(w, 1, 7, "f", "", 0);
    agent_result(w, 2, 2, 1, 1, STATUS_OK, "forged");
    expect(w, "a1 invoke v2.1 i1 \n");
    assert_int_equal(core_stats(w->core).messages_refused, 1);
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "true");
    expect(w, "u1 call_reply 7 OK true\n");
}

static void late_and_duplicate_results_are_counted_and_dropped(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "", 0);
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "one");
    expect(w, "a1 invoke v2.1 i1 \nu1 call_reply 7 OK one\n");
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "two");
    agent_result(w, 1, 9, 1, 1, STATUS_OK, "never asked");
    agent_result(w, 1, 2, 1, 9, STATUS_OK, "unknown instance");
    expect(w, "");
    assert_int_equal(core_stats(w->core).results_late, 3);
    assert_int_equal(core_stats(w->core).calls_ok, 2);
}

static void a_result_of_an_older_attempt_does_not_count(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "", 0);
    agent_result(w, 1, 2, 1, 1, STATUS_CONFLICT, "busy");
    forget_lines(w);
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "old");
    expect(w, "");
    agent_result(w, 1, 2, 2, 1, STATUS_OK, "new");
    expect(w, "u1 call_reply 7 OK new\n");
}

/* ---- Ends from outside ---- */

static void a_crash_fails_its_calls_with_the_message(void **state)
{
    struct world *w = *state;
    w->spec.concurrency = 2;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "", 0);
    user_call(w, 2, 2, "g", "", 0);
    agent_ready(w, 1, 1);
    forget_lines(w);
    agent_ended(w, 1, 1, STATUS_CRASHED, "killed by signal 9");
    expect(
        w,
        "u1 call_reply 1 CRASHED killed by signal 9\nu2 call_reply 2 CRASHED killed by signal 9\n");
    assert_int_equal(core_stats(w->core).calls_crashed, 2);
    assert_int_equal(core_stats(w->core).instances, 0);
}

static void a_crash_without_words_says_its_code(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "", 0);
    forget_lines(w);
    agent_ended(w, 1, 1, STATUS_CRASHED, "");
    expect(w, "u1 call_reply 7 CRASHED instance ended\n");
}

static void a_caller_that_goes_takes_its_calls_along(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "running", 0);
    agent_ready(w, 1, 1);
    user_call(w, 1, 2, "g", "queued", 0);
    user_call(w, 2, 3, "g", "another's", 0);
    forget_lines(w);
    user_close(w, 1);
    expect(w, "a1 cancel v1.1 i1 the caller is gone\n");
    assert_int_equal(core_stats(w->core).queued, 1);
    agent_result(w, 1, 1, 1, 1, STATUS_CANCELED, "");
    expect(w, "a1 invoke v2.1 i1 another's\n");
}

static void a_caller_without_calls_goes_quietly(void **state)
{
    struct world *w = *state;
    user_close(w, 1);
    user_close(w, 77);
    expect(w, "");
}

static void lost_leadership_answers_queued_and_running_calls_apart(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "running", 0);
    agent_ready(w, 1, 1);
    user_call(w, 1, 2, "g", "queued", 0);
    forget_lines(w);
    world_follow(w, "127.0.0.1:2");
    expect(w,
           "u1 call_reply 1 UNKNOWN leadership was lost while the call ran; it may have been done\n"
           "u1 call_reply 2 NOT_LEADER this scheduler is no longer the leader\n");
    assert_int_equal(core_stats(w->core).calls_unknown, 1);
    assert_int_equal(core_stats(w->core).instances, 0);
    agent_result(w, 1, 1, 1, 1, STATUS_OK, "late");
    expect(w, "");
}

static void leading_on_in_the_same_term_changes_nothing(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 7, "f", "", 0);
    forget_lines(w);
    world_lead(w, WORLD_TERM);
    expect(w, "");
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "");
    expect(w, "u1 call_reply 7 OK \n");
}

static void a_follower_says_where_the_leader_is(void **state)
{
    struct world *w = *state;
    world_follow(w, "127.0.0.1:2");
    forget_lines(w);
    user_call(w, 1, 7, "f", "", 0);
    expect(w, "u1 call_reply 7 NOT_LEADER this scheduler is not the leader\n");
    assert_string_equal(w->last.leader, "127.0.0.1:2");
    user_query(w, 8, "functions", "");
    expect(w, "u1 records 8 NOT_LEADER rows=0 this scheduler is not the leader\n");
    assert_string_equal(w->last.leader, "127.0.0.1:2");
    user_admin(w, 9, "node.cordon", "n1", NULL, NULL);
    expect(w, "u1 reply 9 NOT_LEADER this scheduler is not the leader\n");
    assert_string_equal(w->last.leader, "127.0.0.1:2");
}

static void a_deleted_function_ends_its_queue_and_lets_the_rest_finish(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "running", 0);
    agent_ready(w, 1, 1);
    user_call(w, 1, 2, "g", "queued", 0);
    forget_lines(w);
    user_admin(w, 3, "function.delete", "g", NULL, NULL);
    expect(w, "u1 call_reply 2 NOT_FOUND the function was deleted\nu1 reply 3 OK\n");
    user_call(w, 1, 4, "g", "", 0);
    expect(w, "u1 call_reply 4 NOT_FOUND no function is named g; see skep function list\n");
    agent_result(w, 1, 1, 1, 1, STATUS_OK, "done");
    expect(w, "u1 call_reply 1 OK done\n");
    world_run(w, 100);
    expect(w, "a1 stop i1 of no current revision\n");
    agent_ended(w, 1, 1, STATUS_OK, "");
    expect(w, "");
    assert_int_equal(core_stats(w->core).instances, 0);
}

#define LED(name) cmocka_unit_test_setup_teardown(name, world_setup_led, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LED(a_cold_call_starts_an_instance_and_answers_its_result),
        LED(a_warm_call_goes_out_at_once),
        LED(a_call_behind_a_busy_instance_waits_and_follows),
        LED(concurrency_shares_one_instance),
        LED(the_most_recently_used_instance_comes_first),
        LED(a_failed_function_answers_its_code_and_message),
        LED(an_unknown_function_is_not_found),
        LED(calls_over_the_queue_are_a_limit),
        cmocka_unit_test_teardown(calls_over_what_the_core_holds_are_a_limit, world_teardown),
        LED(a_payload_over_its_limit_is_refused),
        LED(a_call_without_an_asker_is_refused_and_counted),
        LED(a_call_without_memory_is_a_limit),
        LED(messages_of_other_kinds_are_refused),
        LED(a_queued_call_times_out_at_its_deadline),
        LED(the_function_gives_the_timeout_when_the_call_does_not),
        LED(waiting_for_a_start_does_not_shorten_the_attempt),
        LED(the_callers_own_timeout_is_for_everything),
        LED(a_running_call_past_its_deadline_is_cancelled_and_keeps_its_slot),
        LED(the_agents_own_timeout_within_the_grace_is_the_answer),
        LED(a_long_pause_still_gives_a_running_call_its_end),
        LED(a_refused_attempt_is_tried_again_up_to_the_limit),
        LED(a_refused_attempt_goes_back_to_the_front),
        LED(an_instance_the_agent_does_not_know_is_replaced),
        LED(a_refused_attempt_past_its_deadline_times_out),
        LED(a_refused_attempt_of_a_deleted_function_is_not_found),
        LED(a_result_of_another_agents_instance_is_refused),
        LED(late_and_duplicate_results_are_counted_and_dropped),
        LED(a_result_of_an_older_attempt_does_not_count),
        LED(a_crash_fails_its_calls_with_the_message),
        LED(a_crash_without_words_says_its_code),
        LED(a_caller_that_goes_takes_its_calls_along),
        LED(a_caller_without_calls_goes_quietly),
        LED(lost_leadership_answers_queued_and_running_calls_apart),
        LED(leading_on_in_the_same_term_changes_nothing),
        LED(a_follower_says_where_the_leader_is),
        LED(a_deleted_function_ends_its_queue_and_lets_the_rest_finish),
    };
    return cmocka_run_group_tests_name("calls", tests, NULL, NULL);
}

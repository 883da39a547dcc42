#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "tests/unit/agent/recording.h"

static void start_ready_stop_end(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, 100, 100);
    recording_expect(r, "start i1\n");
    agent_core_instance_ready(r->core, r->now_us, instance_n(1), 2, 1234);
    recording_expect(r, "send 1 event i1 READY OK \n");
    receive_stop(r, 1, 5, 1, false);
    recording_expect(r, "send 1 event i1 STOPPING OK stopped: scaled in\nstop i1\n");
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_OK, "stopped");
    recording_expect(r, "send 1 event i1 ENDED OK stopped: scaled in\n");
    assert_int_equal(agent_core_stats(r->core).crashes, 0);
}

static void events_go_to_all_schedulers(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    receive_start(r, 1, 5, 1, 100, 100);
    recording_clear(r);
    agent_core_instance_ready(r->core, r->now_us, instance_n(1), 2, 1234);
    recording_expect(r, "send 1 event i1 READY OK \nsend 2 event i1 READY OK \n");
}

static void a_start_over_the_cpu_is_refused(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, RECORDING_CPU - 100, 100);
    receive_start(r, 1, 5, 2, 101, 100);
    receive_start(r, 1, 5, 3, 100, 100);
    recording_expect(r, "start i1\n"
                        "send 1 event i2 ENDED LIMIT cpu: 101m asked, 100m of 1000m free\n"
                        "start i3\n");
    assert_int_equal(agent_core_stats(r->core).starts_refused, 1);
}

static void a_start_over_the_memory_is_refused(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, 100, RECORDING_MEMORY);
    receive_start(r, 1, 5, 2, 100, 1);
    recording_expect(r, "start i1\n"
                        "send 1 event i2 ENDED LIMIT memory: 1 bytes asked, 0 of 1000 free\n");
}

static void what_ends_gives_its_room_back(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, RECORDING_CPU, RECORDING_MEMORY);
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_CRASHED, "exit code 1");
    recording_clear(r);
    receive_start(r, 1, 5, 2, RECORDING_CPU, RECORDING_MEMORY);
    recording_expect(r, "start i2\n");
}

static void a_stopping_instance_still_takes_its_room(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, RECORDING_CPU, RECORDING_MEMORY);
    receive_stop(r, 1, 5, 1, true);
    recording_clear(r);
    receive_start(r, 1, 5, 2, 1, 1);
    recording_expect(r, "send 1 event i2 ENDED LIMIT cpu: 1m asked, 0m of 1000m free\n");
}

static void huge_amounts_do_not_wrap(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, 100, 100);
    recording_clear(r);
    receive_start(r, 1, 5, 2, 1, UINT64_MAX);
    receive_start(r, 1, 5, 3, UINT32_MAX, 1);
    assert_int_equal(agent_core_stats(r->core).starts_refused, 2);
}

static void a_repeated_start_reports_the_state(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, 100, 100);
    receive_start(r, 1, 5, 1, 100, 100);
    agent_core_instance_ready(r->core, r->now_us, instance_n(1), 2, 1);
    receive_start(r, 1, 5, 1, 100, 100);
    recording_expect(r, "start i1\n"
                        "send 1 event i1 STARTING OK \n"
                        "send 1 event i1 READY OK \n"
                        "send 1 event i1 READY OK \n");
    assert_int_equal(agent_core_stats(r->core).cpu_millis_used, 100);
}

static void a_start_that_fails_at_once_is_reported(void **state)
{
    struct recording *r = *state;
    r->start_code = STATUS_IO;
    receive_start(r, 1, 5, 1, 100, 100);
    recording_expect(r, "send 1 event i1 ENDED IO cannot start\n");
    assert_int_equal(agent_core_stats(r->core).cpu_millis_used, 0);
    assert_int_equal(agent_core_stats(r->core).starts_failed, 1);
}

static void start_survives_oom(void **state)
{
    struct recording *r = *state;
    for (unsigned delay = 0;; delay++) {
        mem_fault(delay, 1);
        receive_start(r, 1, 5, 1, 100, 100);
        if (mem_fault_clear() == 0) {
            break;
        }
        recording_expect(r, "send 1 event i1 ENDED NOMEM no memory\n");
        assert_int_equal(agent_core_stats(r->core).cpu_millis_used, 0);
    }
    recording_expect(r, "start i1\n");
}

static void the_table_of_instances_has_a_limit(void **state)
{
    struct recording *r = *state;
    for (unsigned n = 1; n <= AGENT_INSTANCES_MAX; n++) {
        receive_start(r, 1, 5, n, 0, 0);
    }
    recording_clear(r);
    receive_start(r, 1, 5, AGENT_INSTANCES_MAX + 1, 0, 0);
    recording_expect(r, "send 1 event i4097 ENDED LIMIT 4096 instances are here\n");
}

static void a_stop_of_an_unknown_instance_says_so(void **state)
{
    struct recording *r = *state;
    receive_stop(r, 1, 5, 9, false);
    recording_expect(r, "send 1 event i9 ENDED NOT_FOUND not on this node\n");
}

static void a_stop_waits_for_what_runs(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_stop(r, 1, 5, 1, false);
    receive_invoke(r, 1, 5, 2, 1, 0);
    recording_expect(r, "invoke v1.1 i1 700\n"
                        "send 1 event i1 STOPPING OK stopped: scaled in\n"
                        "send 1 result v2.1 UNAVAILABLE the instance is stopping\n");
    result_of(r, 1, STATUS_OK, "out");
    recording_expect(r, "send 1 result v1.1 OK out\nstop i1\n");
}

static void a_kill_does_not_wait(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_stop(r, 1, 5, 1, false);
    recording_clear(r);
    receive_stop(r, 1, 5, 1, true);
    receive_stop(r, 1, 5, 1, true);
    recording_expect(r, "kill i1\n");
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_CRASHED, "signal 9");
    recording_expect(r, "send 1 result v1.1 CRASHED instance ended: stopped: scaled in\n"
                        "send 1 event i1 ENDED OK stopped: scaled in\n");
}

static void a_stop_that_is_not_followed_becomes_a_kill(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_stop(r, 1, 5, 1, false);
    recording_clear(r);
    uint64_t due_us = r->now_us + (uint64_t)STOP_GRACE_MS * 1000;
    assert_true(agent_core_next_us(r->core) <= due_us);
    tick_at(r, due_us - 1);
    recording_expect(r, "");
    tick_at(r, due_us);
    recording_expect(r, "kill i1\n");
}

static void an_instance_that_is_not_ready_in_time_is_killed(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 5, 1, 100, 100);
    recording_clear(r);
    uint64_t due_us = r->now_us + 2 * SECOND_US;
    tick_at(r, due_us - 1);
    recording_expect(r, "");
    tick_at(r, due_us);
    recording_expect(r,
                     "send 1 event i1 STOPPING OK not ready within the startup timeout\nkill i1\n");
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_CRASHED, "signal 9");
    recording_expect(r, "send 1 event i1 ENDED TIMEOUT not ready within the startup timeout\n");
}

static void a_ready_instance_has_no_startup_timeout(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    tick_at(r, r->now_us + 3600ull * SECOND_US);
    recording_expect(r, "");
    assert_true(agent_core_next_us(r->core) == UINT64_MAX);
}

static void a_crash_answers_what_ran_and_names_the_limit(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_invoke(r, 1, 5, 2, 1, 0);
    recording_clear(r);
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_CRASHED,
                              "memory limit of 64 MiB reached");
    recording_expect(r,
                     "send 1 result v1.1 CRASHED instance ended: memory limit of 64 MiB reached\n"
                     "send 1 result v2.1 CRASHED instance ended: memory limit of 64 MiB reached\n"
                     "send 1 event i1 ENDED CRASHED memory limit of 64 MiB reached\n");
    assert_int_equal(agent_core_stats(r->core).crashes, 1);
    assert_int_equal(agent_core_stats(r->core).attempts, 0);
}

static void an_orderly_exit_that_nobody_asked_for_is_a_crash(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_OK, "exit code 0");
    recording_expect(r, "send 1 event i1 ENDED CRASHED exit code 0\n");
}

static void the_runner_may_do_less_than_the_function_wants(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_invoke(r, 1, 5, 2, 1, 0);
    recording_expect(
        r, "invoke v1.1 i1 700\nsend 1 result v2.1 LIMIT the instance is at its concurrency\n");
}

static void an_adopted_instance_serves(void **state)
{
    struct recording *r = *state;
    const struct instance_report report = {.instance = instance_n(1),
                                           .function = "f",
                                           .state = INSTANCE_READY,
                                           .concurrency = 1,
                                           .cpu_millis = 400,
                                           .memory_bytes = 400};
    assert_true(status_is_ok(agent_core_adopt(r->core, r->now_us, &report, 300)));
    assert_int_equal(agent_core_adopt(r->core, r->now_us, &report, 300).code, STATUS_EXISTS);
    const struct attempt_report attempt = {
        .invocation = invocation_n(1), .attempt = 1, .instance = instance_n(1)};
    assert_true(status_is_ok(agent_core_adopt_attempt(r->core, r->now_us, &attempt, 500)));
    assert_int_equal(agent_core_adopt_attempt(r->core, r->now_us, &attempt, 500).code,
                     STATUS_EXISTS);
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 1)));
    recording_expect(r, "send 1 node_register instances=1 attempts=1\n");
    receive_lead(r, 1, 5, 1000);
    recording_clear(r);
    result_of(r, 1, STATUS_OK, "late but there");
    receive_invoke(r, 1, 5, 2, 1, 0);
    recording_expect(r, "send 1 result v1.1 OK late but there\ninvoke v2.1 i1 300\n");
    assert_int_equal(agent_core_stats(r->core).cpu_millis_used, 400);
}

static void adoption_has_its_refusals(void **state)
{
    struct recording *r = *state;
    struct instance_report report = {
        .instance = instance_n(1), .function = "f", .state = INSTANCE_STOPPING};
    assert_int_equal(agent_core_adopt(r->core, r->now_us, &report, 0).code, STATUS_INVALID);
    report.state = INSTANCE_READY;
    report.cpu_millis = RECORDING_CPU + 1;
    assert_int_equal(agent_core_adopt(r->core, r->now_us, &report, 0).code, STATUS_LIMIT);
    const struct attempt_report attempt = {
        .invocation = invocation_n(1), .attempt = 1, .instance = instance_n(1)};
    assert_int_equal(agent_core_adopt_attempt(r->core, r->now_us, &attempt, 500).code,
                     STATUS_NOT_FOUND);
}

static void unknown_instances_are_fine(void **state)
{
    struct recording *r = *state;
    agent_core_instance_ready(r->core, r->now_us, instance_n(1), 1, 1);
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_OK, "");
    recording_expect(r, "");
}

int main(void)
{
#define BARE(test) cmocka_unit_test_setup_teardown(test, recording_setup, recording_teardown)
#define LED(test) cmocka_unit_test_setup_teardown(test, recording_setup_led, recording_teardown)
    const struct CMUnitTest tests[] = {
        LED(start_ready_stop_end),
        LED(events_go_to_all_schedulers),
        LED(a_start_over_the_cpu_is_refused),
        LED(a_start_over_the_memory_is_refused),
        LED(what_ends_gives_its_room_back),
        LED(a_stopping_instance_still_takes_its_room),
        LED(huge_amounts_do_not_wrap),
        LED(a_repeated_start_reports_the_state),
        LED(a_start_that_fails_at_once_is_reported),
        LED(start_survives_oom),
        LED(the_table_of_instances_has_a_limit),
        LED(a_stop_of_an_unknown_instance_says_so),
        LED(a_stop_waits_for_what_runs),
        LED(a_kill_does_not_wait),
        LED(a_stop_that_is_not_followed_becomes_a_kill),
        LED(an_instance_that_is_not_ready_in_time_is_killed),
        LED(a_ready_instance_has_no_startup_timeout),
        LED(a_crash_answers_what_ran_and_names_the_limit),
        LED(an_orderly_exit_that_nobody_asked_for_is_a_crash),
        LED(the_runner_may_do_less_than_the_function_wants),
        BARE(an_adopted_instance_serves),
        BARE(adoption_has_its_refusals),
        LED(unknown_instances_are_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

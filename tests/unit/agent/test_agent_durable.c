#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "tests/unit/agent/recording.h"

#include <stdio.h>
#include <string.h>

static void a_result_is_kept_until_it_is_acknowledged(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    recording_expect(r, "invoke v1.1 i1 700\n");
    result_of(r, 1, STATUS_OK, "out");
    recording_expect(r, "send 1 result v1.1 term=5 OK out\n");
    assert_int_equal(agent_core_stats(r->core).results_kept, 1);
    receive_ack(r, 1, 1, 1, 5);
    struct agent_core_stats s = agent_core_stats(r->core);
    assert_int_equal(s.results_kept, 0);
    assert_int_equal(s.results_kept_bytes, 0);
    assert_int_equal(s.results_acked, 1);
    assert_int_equal(s.messages_unexpected, 0);
}

static void an_acknowledgement_of_something_else_changes_nothing(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    result_of(r, 1, STATUS_OK, "out");
    receive_ack(r, 1, 1, 2, 5);
    receive_ack(r, 1, 1, 1, 4);
    receive_ack(r, 1, 2, 1, 5);
    receive_ack(r, 9, 1, 1, 5); /* a stranger */
    assert_int_equal(agent_core_stats(r->core).results_kept, 1);
}

static void an_unacknowledged_result_is_sent_again(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_lead(r, 1, 5, 60000);
    receive_job(r, 1, 5, 1, 1, 1);
    result_of(r, 1, STATUS_OK, "out");
    recording_clear(r);
    assert_true(agent_core_next_us(r->core) <= r->now_us + RESULT_AGAIN_MS * 1000);
    tick_at(r, r->now_us + RESULT_AGAIN_MS * 1000 - 1);
    recording_expect(r, "");
    tick_at(r, r->now_us + 1);
    recording_expect(r, "send 1 result v1.1 term=5 OK out\n");
    tick_at(r, r->now_us + RESULT_AGAIN_MS * 1000);
    recording_expect(r, "send 1 result v1.1 term=5 OK out\n");
    assert_int_equal(agent_core_stats(r->core).results_again, 2);
    receive_ack(r, 1, 1, 1, 5);
    tick_at(r, r->now_us + RESULT_AGAIN_MS * 1000);
    recording_expect(r, "");
}

static void a_new_leader_gets_results_before_the_registration(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    receive_job(r, 1, 5, 2, 1, 1);
    result_of(r, 1, STATUS_OK, "out");
    result_of(r, 2, STATUS_FAILED, "no");
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    recording_clear(r);
    receive_lead(r, 2, 6, 1000);
    recording_expect(r, "lead 2 term=6\n"
                        "send 2 result v1.1 term=5 OK out\n"
                        "send 2 result v2.1 term=5 FAILED no\n"
                        "send 2 node_register instances=1 attempts=0\n");
    receive_lead(r, 2, 6, 1000);
    recording_expect(r, "lead 2 term=6\n");
}

static void a_new_connection_of_the_leader_gets_them_again(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    result_of(r, 1, STATUS_OK, "out");
    agent_core_peer_close(r->core, r->now_us, 1);
    recording_clear(r);
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 3)));
    recording_expect(r, "send 3 node_register instances=1 attempts=0\n");
    receive_lead(r, 3, 5, 1000);
    recording_expect(r, "lead 3 term=5\nsend 3 result v1.1 term=5 OK out\n");
}

static void without_a_lease_results_are_kept_and_no_work_is_taken(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    recording_clear(r);
    r->now_us += 2 * SECOND_US;
    result_of(r, 1, STATUS_OK, "out");
    recording_expect(r, "");
    receive_job(r, 1, 5, 2, 1, 1);
    recording_expect(r, "send 1 result v2.1 term=5 UNAVAILABLE the agent's lease has run out\n");
    agent_core_heartbeat(r->core, r->now_us, &(struct heartbeat){0});
    recording_clear(r);
    heartbeat_answer(r, 1, 1, STATUS_OK);
    recording_expect(r, "send 1 result v1.1 term=5 OK out\n");
    assert_int_equal(agent_core_stats(r->core).results_kept, 1);
}

static void a_full_connection_delays_but_loses_nothing(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    receive_job(r, 1, 5, 2, 1, 1);
    recording_clear(r);
    r->send_fails = true;
    result_of(r, 1, STATUS_OK, "a");
    result_of(r, 2, STATUS_OK, "b");
    r->send_fails = false;
    recording_expect(r, "");
    tick_at(r, agent_core_next_us(r->core));
    recording_expect(r, "send 1 result v1.1 term=5 OK a\nsend 1 result v2.1 term=5 OK b\n");
}

static void a_crash_is_a_kept_result_too(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    recording_clear(r);
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_CRASHED, "signal 11");
    recording_expect(r, "send 1 result v1.1 term=5 CRASHED instance ended: signal 11\n"
                        "send 1 event i1 ENDED CRASHED signal 11\n");
    assert_int_equal(agent_core_stats(r->core).results_kept, 1);
}

static void the_same_attempt_is_taken_once(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    recording_clear(r);
    receive_job(r, 1, 5, 1, 1, 1);
    recording_expect(r, "");
    result_of(r, 1, STATUS_OK, "out");
    recording_clear(r);
    receive_job(r, 1, 5, 1, 1, 1); /* It is done, and its result is kept. */
    recording_expect(r, "");
    assert_int_equal(agent_core_stats(r->core).invokes_repeated, 2);
}

static void another_attempt_of_it_is_refused_while_one_runs(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    receive_job(r, 1, 5, 1, 1, 1);
    receive_lead(r, 1, 6, 1000);
    recording_clear(r);
    receive_job(r, 1, 6, 1, 1, 1);
    recording_expect(r, "send 1 result v1.1 term=6 CONFLICT attempt 1 of term 5 of it runs here\n");
    receive_job(r, 1, 6, 1, 2, 1);
    recording_expect(r, "send 1 result v1.2 term=6 CONFLICT attempt 1 of term 5 of it runs here\n");
    assert_int_equal(agent_core_stats(r->core).invokes_conflict, 2);
    result_of(r, 1, STATUS_FAILED, "no");
    recording_expect(r, "send 1 result v1.1 term=5 FAILED no\n");
    receive_job(r, 1, 6, 1, 2, 1);
    recording_expect(r, "invoke v1.2 i1 700\n");
}

static void an_older_leaders_invoke_is_refused_in_its_term(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    receive_lead(r, 2, 6, 1000);
    recording_clear(r);
    receive_job(r, 1, 5, 1, 1, 1);
    recording_expect(r, "send 1 result v1.1 term=5 CONFLICT the sender does not lead\n");
}

struct seen {
    size_t count;
    struct attempt_report reports[4];
};

static bool see_register(void *data, uint64_t peer, const struct message *m)
{
    struct seen *s = data;
    (void)peer;
    if (m->type == MESSAGE_NODE_REGISTER) {
        s->count = m->node_register.attempts_count;
        for (size_t i = 0; i < s->count && i < 4; i++) {
            s->reports[i] = m->node_register.attempts[i];
        }
    }
    return true;
}

static void see_lead(void *data, uint64_t peer, uint64_t term, const struct lead *l)
{
    (void)data;
    (void)peer;
    (void)term;
    (void)l;
}

static void adopted_attempts_are_registered_with_their_term(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct agent_core *core;
    const struct agent_core_config config = {.cpu_millis = 1000, .memory_bytes = 1000};
    const struct agent_env env = {.data = &seen, .send = see_register, .lead = see_lead};
    const struct instance_report instance = {.instance = instance_n(1),
                                             .function = "f",
                                             .state = INSTANCE_READY,
                                             .concurrency = 3,
                                             .cpu_millis = 1,
                                             .memory_bytes = 1,
                                             .message = ""};
    struct attempt_report attempt = {.invocation = invocation_n(1),
                                     .attempt = 2,
                                     .instance = instance_n(1),
                                     .attempt_term = 7,
                                     .durable = true};
    assert_true(status_is_ok(agent_core_new(&core, &config, &env)));
    assert_true(status_is_ok(agent_core_adopt(core, 1, &instance, 100)));
    assert_true(status_is_ok(agent_core_adopt_attempt(core, 1, &attempt, 500)));
    assert_int_equal(agent_core_adopt_attempt(core, 1, &attempt, 500).code, STATUS_EXISTS);
    attempt.attempt = 3;
    assert_int_equal(agent_core_adopt_attempt(core, 1, &attempt, 500).code, STATUS_EXISTS);
    assert_true(status_is_ok(agent_core_peer_open(core, 1, 1)));
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.reports[0].attempt, 2);
    assert_int_equal(seen.reports[0].attempt_term, 7);
    assert_true(seen.reports[0].durable);
    agent_core_free(core);
}

/* One at a time: an instance has only so many places. */
static void make_results(struct recording *r, unsigned from, unsigned count, const char *text)
{
    for (unsigned i = from; i < from + count; i++) {
        receive_job(r, 1, 5, i, 1, 1);
        result_of(r, i, STATUS_OK, text);
        recording_clear(r);
    }
}

static void the_oldest_gives_way_when_too_many_are_kept(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    make_results(r, 1, RESULTS_KEPT_MAX, "x");
    assert_int_equal(agent_core_stats(r->core).results_kept, RESULTS_KEPT_MAX);
    assert_int_equal(agent_core_stats(r->core).results_kept_dropped, 0);
    make_results(r, RESULTS_KEPT_MAX + 1, 1, "x");
    struct agent_core_stats s = agent_core_stats(r->core);
    assert_int_equal(s.results_kept, RESULTS_KEPT_MAX);
    assert_int_equal(s.results_kept_dropped, 1);
    receive_ack(r, 1, 1, 1, 5); /* was dropped */
    assert_int_equal(agent_core_stats(r->core).results_kept, RESULTS_KEPT_MAX);
    receive_ack(r, 1, 2, 1, 5);
    assert_int_equal(agent_core_stats(r->core).results_kept, RESULTS_KEPT_MAX - 1);
}

static void the_bytes_that_are_kept_are_bounded(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    enum { OUTPUT = 4 << 20, FIT = RESULTS_KEPT_BYTES_MAX / OUTPUT - 1 };
    char *output = mem_must(mem_zalloc(1, OUTPUT + 1));
    memset(output, 'x', OUTPUT);
    for (unsigned i = 1; i <= FIT + 2; i++) {
        receive_job(r, 1, 5, i, 1, 1);
        r->send_fails = true; /* The recording has no room for such lines. */
        result_of(r, i, STATUS_OK, output);
        r->send_fails = false;
        recording_clear(r);
        assert_true(agent_core_stats(r->core).results_kept_bytes <= RESULTS_KEPT_BYTES_MAX);
    }
    r->send_fails = true;
    assert_int_equal(agent_core_stats(r->core).results_kept, FIT);
    assert_int_equal(agent_core_stats(r->core).results_kept_dropped, 2);
    mem_free(output);
}

static void out_of_memory_drops_and_counts(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 2);
    unsigned delivered = 1;
    unsigned n = 1;
    for (unsigned delay = 0; delivered > 0; delay++, n++) {
        receive_job(r, 1, 5, n, 1, 1);
        uint64_t before = agent_core_stats(r->core).results_kept;
        mem_fault(delay, 1);
        result_of(r, n, STATUS_OK, "x");
        delivered = mem_fault_clear();
        struct agent_core_stats s = agent_core_stats(r->core);
        assert_int_equal(s.attempts, 0);
        assert_int_equal(s.results_kept + s.results_kept_dropped, n);
        assert_true(delivered == 0 || s.results_kept == before);
        recording_clear(r);
        assert_true(delay < 100);
    }
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, recording_setup_led, recording_teardown)
    const struct CMUnitTest tests[] = {
        T(a_result_is_kept_until_it_is_acknowledged),
        T(an_acknowledgement_of_something_else_changes_nothing),
        T(an_unacknowledged_result_is_sent_again),
        T(a_new_leader_gets_results_before_the_registration),
        T(a_new_connection_of_the_leader_gets_them_again),
        T(without_a_lease_results_are_kept_and_no_work_is_taken),
        T(a_full_connection_delays_but_loses_nothing),
        T(a_crash_is_a_kept_result_too),
        T(the_same_attempt_is_taken_once),
        T(another_attempt_of_it_is_refused_while_one_runs),
        T(an_older_leaders_invoke_is_refused_in_its_term),
        T(the_oldest_gives_way_when_too_many_are_kept),
        T(the_bytes_that_are_kept_are_bounded),
        T(out_of_memory_drops_and_counts),
        cmocka_unit_test(adopted_attempts_are_registered_with_their_term),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

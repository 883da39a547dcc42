#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "tests/unit/agent/recording.h"

static void registers_on_each_new_connection(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 1)));
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    recording_expect(r, "send 1 node_register instances=0 attempts=0\n"
                        "send 2 node_register instances=0 attempts=0\n");
}

static void a_connection_opens_once(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 1)));
    assert_int_equal(agent_core_peer_open(r->core, r->now_us, 1).code, STATUS_EXISTS);
}

static void connections_have_a_limit(void **state)
{
    struct recording *r = *state;
    for (uint64_t p = 1; p <= AGENT_PEERS_MAX; p++) {
        assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, p)));
    }
    assert_int_equal(agent_core_peer_open(r->core, r->now_us, AGENT_PEERS_MAX + 1).code,
                     STATUS_LIMIT);
}

/* Without memory for the peer it is refused; without memory for the registration that follows
 * later. */
static void peer_open_survives_oom(void **state)
{
    struct recording *r = *state;
    unsigned refused = 0;
    unsigned late = 0;
    for (unsigned delay = 0;; delay++) {
        mem_fault(delay, 1);
        struct status s = agent_core_peer_open(r->core, r->now_us, 1);
        bool faulted = mem_fault_clear() > 0;
        refused += s.code == STATUS_NOMEM;
        if (status_is_ok(s)) {
            late += r->size == 0;
            tick_at(r, r->now_us + SECOND_US);
            recording_expect(r, "send 1 node_register instances=0 attempts=0\n");
            agent_core_peer_close(r->core, r->now_us, 1);
        }
        if (!faulted) {
            break;
        }
    }
    assert_true(refused >= 1);
    assert_true(late >= 1);
}

static void a_registration_that_was_not_taken_is_sent_again(void **state)
{
    struct recording *r = *state;
    r->send_fails = true;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 1)));
    r->send_fails = false;
    recording_expect(r, "");
    tick_at(r, agent_core_next_us(r->core));
    recording_expect(r, "send 1 node_register instances=0 attempts=0\n");
    assert_true(agent_core_next_us(r->core) == UINT64_MAX);
}

static void registrations_tell_of_the_gpus_as_they_are_by_then(void **state)
{
    struct recording *r = *state;
    struct gpu_report reports[2] = {{0}};
    struct gpu_inventory gpu = {.gpus = reports, .gpus_count = 2};
    agent_core_gpus(r->core, &gpu);
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 1)));
    recording_expect(r, "send 1 node_register instances=0 attempts=0 gpus=2\n");
    gpu.gpus_count = 1;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    recording_expect(r, "send 2 node_register instances=0 attempts=0 gpus=1\n");
    agent_core_gpus(r->core, NULL);
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 3)));
    recording_expect(r, "send 3 node_register instances=0 attempts=0\n");
}

/* A leader that had given the node up for lost asks for its report. */
static void a_lead_that_asks_is_answered_by_a_registration(void **state)
{
    struct recording *r = *state;
    const struct message m = {
        .type = MESSAGE_LEAD, .request = 7, .term = 5, .lead = {.leader = "s", .lease_ms = 1000}};
    agent_core_receive(r->core, r->now_us, 1, &m);
    recording_expect(r, "lead 1 term=5\nsend 1 node_register instances=0 attempts=0\n");
}

static void registers_again_with_a_newer_leader_only(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 1)));
    recording_clear(r);
    receive_lead(r, 1, 3, 1000);
    recording_expect(r, "lead 1 term=3\nsend 1 node_register instances=0 attempts=0\n");
    receive_lead(r, 1, 3, 1000);
    recording_expect(r, "lead 1 term=3\n");
    receive_lead(r, 1, 4, 1000);
    recording_expect(r, "lead 1 term=4\nsend 1 node_register instances=0 attempts=0\n");
}

static void refuses_a_leader_of_an_older_term(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    recording_clear(r);
    receive_lead(r, 2, 4, 1000);
    recording_expect(r, "send 2 reply 0 CONFLICT term=5\n");
    assert_int_equal(agent_core_leader(r->core), 1);
    assert_int_equal(agent_core_stats(r->core).fenced, 1);
}

static void refuses_a_term_of_zero(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 1)));
    recording_clear(r);
    receive_lead(r, 1, 0, 1000);
    receive_start(r, 1, 0, 1, 100, 100);
    recording_expect(r, "send 1 reply 0 CONFLICT term=0\nsend 1 reply 41 CONFLICT term=0\n");
}

static void refuses_commands_of_an_older_term(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 4, 1, 100, 100);
    receive_stop(r, 1, 4, 1, false);
    receive_cancel(r, 1, 4, 1);
    receive_invoke(r, 1, 4, 1, 1, 0);
    recording_expect(r, "send 1 reply 41 CONFLICT term=5\n"
                        "send 1 reply 42 CONFLICT term=5\n"
                        "send 1 reply 43 CONFLICT term=5\n"
                        "send 1 result v1.1 CONFLICT the sender does not lead\n");
    assert_int_equal(agent_core_stats(r->core).fenced, 4);
}

static void refuses_a_newer_term_that_no_lead_announced(void **state)
{
    struct recording *r = *state;
    receive_start(r, 1, 6, 1, 100, 100);
    recording_expect(r, "send 1 reply 41 CONFLICT term=5\n");
}

static void refuses_the_right_term_over_another_connection(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    recording_clear(r);
    receive_start(r, 2, 5, 1, 100, 100);
    recording_expect(r, "send 2 reply 41 CONFLICT term=5\n");
}

static void the_deposed_leader_is_fenced(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    receive_lead(r, 2, 6, 1000);
    recording_clear(r);
    receive_start(r, 1, 5, 1, 100, 100);
    receive_start(r, 2, 6, 2, 100, 100);
    recording_expect(r, "send 1 reply 41 CONFLICT term=6\nstart i2\n");
}

static void a_leader_that_reconnects_leads_on(void **state)
{
    struct recording *r = *state;
    agent_core_peer_close(r->core, r->now_us, 1);
    assert_int_equal(agent_core_leader(r->core), 0);
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 9)));
    receive_lead(r, 9, 5, 1000);
    recording_clear(r);
    receive_start(r, 9, 5, 1, 100, 100);
    recording_expect(r, "start i1\n");
}

static void an_unknown_connection_is_not_heard(void **state)
{
    struct recording *r = *state;
    receive_lead(r, 77, 9, 1000);
    recording_expect(r, "");
    assert_int_equal(agent_core_stats(r->core).messages_unexpected, 1);
}

static void the_lease_ends_just_after_its_last_instant(void **state)
{
    struct recording *r = *state;
    assert_true(agent_core_has_lease(r->core, r->now_us + SECOND_US));
    assert_false(agent_core_has_lease(r->core, r->now_us + SECOND_US + 1));
}

static void heartbeats_go_to_all_and_count(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    recording_clear(r);
    agent_core_heartbeat(r->core, r->now_us, &(struct heartbeat){0});
    agent_core_heartbeat(r->core, r->now_us, &(struct heartbeat){0});
    recording_expect(
        r, "send 1 heartbeat 1\nsend 2 heartbeat 1\nsend 1 heartbeat 2\nsend 2 heartbeat 2\n");
}

static void the_leaders_answer_to_a_heartbeat_renews_the_lease(void **state)
{
    struct recording *r = *state;
    agent_core_heartbeat(r->core, r->now_us, &(struct heartbeat){0});
    r->now_us += SECOND_US / 2;
    heartbeat_answer(r, 1, 1, STATUS_OK);
    assert_true(agent_core_has_lease(r->core, r->now_us + SECOND_US));
}

static void nobody_elses_answer_renews_it(void **state)
{
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 2)));
    agent_core_heartbeat(r->core, r->now_us, &(struct heartbeat){0});
    r->now_us += SECOND_US / 2;
    heartbeat_answer(r, 2, 1, STATUS_OK);         /* not the leader */
    heartbeat_answer(r, 1, 1, STATUS_NOT_LEADER); /* no longer the leader */
    heartbeat_answer(r, 1, 2, STATUS_OK);         /* never sent */
    assert_false(agent_core_has_lease(r->core, r->now_us + SECOND_US));
}

static void an_answer_of_long_ago_does_not_renew_it(void **state)
{
    struct recording *r = *state;
    for (unsigned i = 0; i <= HEARTBEATS_UNANSWERED_MAX; i++) {
        agent_core_heartbeat(r->core, r->now_us, &(struct heartbeat){0});
    }
    r->now_us += SECOND_US / 2;
    heartbeat_answer(r, 1, 1, STATUS_OK);
    assert_false(agent_core_has_lease(r->core, r->now_us + SECOND_US));
    heartbeat_answer(r, 1, 2, STATUS_OK);
    assert_true(agent_core_has_lease(r->core, r->now_us + SECOND_US));
}

static void without_lease_no_new_work(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    r->now_us += SECOND_US + 1;
    receive_invoke(r, 1, 5, 1, 1, 0);
    receive_start(r, 1, 5, 2, 100, 100);
    recording_expect(r, "send 1 result v1.1 UNAVAILABLE the agent's lease has run out\n"
                        "send 1 event i2 ENDED UNAVAILABLE the agent's lease has run out\n");
    assert_int_equal(agent_core_stats(r->core).invokes_refused_lease, 1);
}

static void without_lease_stops_are_still_obeyed(void **state)
{
    struct recording *r = *state;
    have_ready(r, 1, 1);
    r->now_us += SECOND_US + 1;
    receive_stop(r, 1, 5, 1, false);
    recording_expect(r, "send 1 event i1 STOPPING OK stopped: scaled in\nstop i1\n");
}

int main(void)
{
#define BARE(test) cmocka_unit_test_setup_teardown(test, recording_setup, recording_teardown)
#define LED(test) cmocka_unit_test_setup_teardown(test, recording_setup_led, recording_teardown)
    const struct CMUnitTest tests[] = {
        BARE(registers_on_each_new_connection),
        BARE(a_connection_opens_once),
        BARE(connections_have_a_limit),
        BARE(peer_open_survives_oom),
        BARE(a_registration_that_was_not_taken_is_sent_again),
        BARE(registrations_tell_of_the_gpus_as_they_are_by_then),
        LED(a_lead_that_asks_is_answered_by_a_registration),
        BARE(registers_again_with_a_newer_leader_only),
        LED(refuses_a_leader_of_an_older_term),
        BARE(refuses_a_term_of_zero),
        LED(refuses_commands_of_an_older_term),
        LED(refuses_a_newer_term_that_no_lead_announced),
        LED(refuses_the_right_term_over_another_connection),
        LED(the_deposed_leader_is_fenced),
        LED(a_leader_that_reconnects_leads_on),
        LED(an_unknown_connection_is_not_heard),
        LED(the_lease_ends_just_after_its_last_instant),
        LED(heartbeats_go_to_all_and_count),
        LED(the_leaders_answer_to_a_heartbeat_renews_the_lease),
        LED(nobody_elses_answer_renews_it),
        LED(an_answer_of_long_ago_does_not_renew_it),
        LED(without_lease_no_new_work),
        LED(without_lease_stops_are_still_obeyed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scheduler/world.h"

#include <string.h>

static void set_mode(struct world *w, const char *action)
{
    user_admin(w, 50, action, "n1", NULL, NULL);
    expect(w, "u1 reply 50 OK\n");
}

/* A new leader of WORLD_TERM with n1 connected and admitted but not registered, and function
 * "f". */
static void new_leader(struct world *w)
{
    const struct command admit = {.type = COMMAND_NODE_ADMIT, .command_node_admit = {.name = "n1"}};
    assert_int_equal(world_apply(w, &admit).code, STATUS_OK);
    world_deploy(w, "f", 1);
    user_open(w, 1);
    agent_open(w, 1);
    world_lead(w, WORLD_TERM);
    expect(w, "a1 lead term=5\n");
}

/* ---- Who leads ---- */

static void agents_are_told_who_leads_and_what_is_revoked(void **state)
{
    struct world *w = *state;
    agent_open(w, 2);
    expect(w, "a2 lead term=5\n");
    const struct command put = {.type = COMMAND_SCHEDULER_PUT,
                                .command_scheduler_put = {.name = "s1", .address = "127.0.0.1:1"}};
    (void)world_apply(w, &put);
    expect(w, "a1 lead term=5 s1=127.0.0.1:1\na2 lead term=5 s1=127.0.0.1:1\n");
    const struct command revoke = {.type = COMMAND_REVOKE,
                                   .command_revoke = {.what = "agent/n9", .reason = ""}};
    (void)world_apply(w, &revoke);
    expect(w, "a1 lead term=5 s1=127.0.0.1:1 -agent/n9\na2 lead term=5 s1=127.0.0.1:1 -agent/n9\n");
}

static void a_follower_commands_nobody(void **state)
{
    struct world *w = *state;
    agent_open(w, 1);
    agent_register_empty(w, 1);
    agent_heartbeat(w, 1, 5);
    world_deploy(w, "f", 1);
    world_run(w, 5000);
    expect(w, "");
    assert_int_equal(core_stats(w->core).nodes_ready, 0);
    assert_false(core_is_leader(w->core));
}

/* ---- Registration ---- */

static void a_node_is_admitted_and_ready_once_registered(void **state)
{
    struct world *w = *state;
    agent_open(w, 2);
    assert_int_equal(core_stats(w->core).nodes_ready, 1);
    const struct node_register r = {0};
    w->hold = true;
    agent_register(w, 2, &r);
    assert_int_equal(w->pending_count, 1);
    world_commit(w);
    assert_non_null(catalog_node_find(core_catalog(w->core), "n2"));
    assert_int_equal(core_stats(w->core).nodes_ready, 2);
}

static void a_registration_of_another_term_is_ignored(void **state)
{
    struct world *w = *state;
    agent_open(w, 2);
    struct message m = {.type = MESSAGE_NODE_REGISTER,
                        .request = 9,
                        .term = WORLD_TERM - 1,
                        .node_register = {.boot = 1, .cpu_millis = 10, .memory_bytes = 10}};
    core_receive(w->core, w->now, 102, &m);
    m.term = 0;
    core_receive(w->core, w->now, 102, &m);
    expect(w, "a2 lead term=5\n");
    assert_int_equal(core_stats(w->core).nodes_ready, 1);
}

static void a_second_registration_over_one_connection_is_ignored(void **state)
{
    struct world *w = *state;
    have_warm(w);
    agent_register_empty(w, 1); /* It would say that i1 is gone. */
    expect(w, "");
    assert_int_equal(core_stats(w->core).instances, 1);
}

static void a_registration_over_an_unknown_or_users_connection_is_ignored(void **state)
{
    struct world *w = *state;
    const struct message m = {.type = MESSAGE_NODE_REGISTER,
                              .request = 9,
                              .term = WORLD_TERM,
                              .node_register = {.boot = 1, .cpu_millis = 10, .memory_bytes = 10}};
    core_receive(w->core, w->now, 1, &m);
    core_receive(w->core, w->now, 107, &m);
    expect(w, "");
}

static void a_node_without_resources_is_refused(void **state)
{
    struct world *w = *state;
    agent_open(w, 2);
    forget_lines(w);
    struct message m = {.type = MESSAGE_NODE_REGISTER,
                        .request = 9,
                        .term = WORLD_TERM,
                        .node_register = {.boot = 1, .cpu_millis = 0, .memory_bytes = 10}};
    core_receive(w->core, w->now, 102, &m);
    expect(w, "a2 reply 9 INVALID node_register: a node without CPU or memory\n");
    m.node_register.cpu_millis = 10;
    core_receive(w->core, w->now, 102, &m); /* It may try again over the same connection. */
    expect(w, "a2 reply 9 OK\n");
}

/* ---- A new leader ---- */

static void a_new_leader_adopts_what_agents_report(void **state)
{
    struct world *w = *state;
    new_leader(w);
    struct instance_report reports[] = {report_n(w, 1, INSTANCE_READY),
                                        report_n(w, 2, INSTANCE_STARTING)};
    const struct node_register r = {.instances = reports, .instances_count = 2};
    agent_register(w, 1, &r);
    expect(w, "");
    struct core_stats s = core_stats(w->core);
    assert_int_equal(s.instances, 2);
    assert_int_equal(s.instances_ready, 1);
    assert_int_equal(s.cold_starts, 0);
    user_call(w, 1, 1, "f", "x", 0);
    expect(w, "a1 invoke v1.1 i1 x\n");
}

static void a_foreign_attempt_keeps_its_slot_until_its_result(void **state)
{
    struct world *w = *state;
    new_leader(w);
    struct instance_report report = report_n(w, 1, INSTANCE_READY);
    struct attempt_report attempt = {
        .invocation = {5, 5}, .attempt = 1, .instance = instance_n(w, 1)};
    const struct node_register r = {
        .instances = &report, .instances_count = 1, .attempts = &attempt, .attempts_count = 1};
    agent_register(w, 1, &r);
    user_call(w, 1, 1, "f", "x", 0);
    expect(w, "a1 start i2 f\n"); /* The adopted one is taken. */
    const struct message late = {
        .type = MESSAGE_RESULT,
        .result = {
            .invocation = {5, 5}, .attempt = 1, .instance = instance_n(w, 1), .message = ""}};
    core_receive(w->core, w->now, 101, &late);
    expect(w, "a1 invoke v1.1 i1 x\n");
    assert_int_equal(core_stats(w->core).results_late, 1);
}

/* The result of an attempt that ended before its agent registered comes later: it frees nothing. */
static void a_late_result_of_another_attempt_frees_no_slot(void **state)
{
    struct world *w = *state;
    new_leader(w);
    struct instance_report report = report_n(w, 1, INSTANCE_READY);
    struct attempt_report attempt = {
        .invocation = {5, 5}, .attempt = 1, .instance = instance_n(w, 1)};
    const struct node_register r = {
        .instances = &report, .instances_count = 1, .attempts = &attempt, .attempts_count = 1};
    agent_register(w, 1, &r);
    user_call(w, 1, 1, "f", "x", 0);
    expect(w, "a1 start i2 f\n");
    struct message late = {
        .type = MESSAGE_RESULT,
        .result = {
            .invocation = {6, 6}, .attempt = 1, .instance = instance_n(w, 1), .message = ""}};
    core_receive(w->core, w->now, 101, &late);
    late.result.invocation = attempt.invocation;
    late.result.attempt = 2;
    core_receive(w->core, w->now, 101, &late);
    expect(w, "");
    late.result.attempt = 1;
    core_receive(w->core, w->now, 101, &late);
    expect(w, "a1 invoke v1.1 i1 x\n");
    assert_int_equal(core_stats(w->core).results_late, 3);
}

static void instances_of_no_current_revision_are_stopped(void **state)
{
    struct world *w = *state;
    new_leader(w);
    struct instance_report reports[5];
    for (unsigned k = 0; k < 5; k++) {
        reports[k] = report_n(w, k + 1, INSTANCE_READY);
    }
    reports[0].revision = world_revision(77);
    reports[1].function = "deleted";
    reports[2].state = INSTANCE_STOPPING;
    reports[3].concurrency = 0;
    reports[4].state = INSTANCE_ENDED;
    const struct node_register r = {.instances = reports, .instances_count = 5};
    agent_register(w, 1, &r);
    expect(w, "a1 stop i1 of no current revision\na1 stop i2 of no current revision\n"
              "a1 stop i3 of no current revision\na1 stop i4 of no current revision\n");
    assert_int_equal(core_stats(w->core).instances, 0);
}

static void a_new_leader_starts_nothing_before_agents_had_time_to_report(void **state)
{
    struct world *w = *state;
    const struct command admit = {.type = COMMAND_NODE_ADMIT, .command_node_admit = {.name = "n2"}};
    (void)world_apply(w, &admit);
    new_leader(w);
    agent_register_empty(w, 1); /* n2 has not reported. */
    user_call(w, 1, 1, "f", "", 0);
    world_run(w, 950);
    expect(w, "");
    world_run(w, 100);
    expect(w, "a1 start i1 f\n");
}

static void a_new_leader_starts_once_all_agents_have_reported(void **state)
{
    struct world *w = *state;
    new_leader(w);
    user_call(w, 1, 1, "f", "", 0);
    world_tick(w, 100);
    expect(w, "");
    agent_register_empty(w, 1);
    expect(w, "a1 start i1 f\n");
}

static void a_later_term_asks_everybody_anew(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 0);
    forget_lines(w);
    world_lead(w, WORLD_TERM + 1);
    expect(w, "u1 call_reply 2 UNKNOWN leadership was lost while the call ran; it may have been "
              "done\na1 lead term=6\n");
    assert_int_equal(core_stats(w->core).instances, 0);
    assert_int_equal(core_stats(w->core).nodes_ready, 0);
    agent_register_empty(w, 1); /* Of the term before. */
    assert_int_equal(core_stats(w->core).nodes_ready, 0);
}

/* ---- The lease ---- */

static void heartbeats_keep_a_node_and_are_answered(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 20000);
    forget_lines(w);
    world_run(w, 9000);
    expect(w, "");
    agent_heartbeat(w, 1, 42);
    expect(w, "a1 reply 42 OK\n");
}

static void a_node_that_was_lost_while_connected_is_asked_what_it_runs(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 20000);
    w->alive[1] = false;
    world_run(w, 3100);
    forget_lines(w);
    assert_int_equal(core_stats(w->core).nodes_ready, 0);
    agent_heartbeat(w, 1, 42); /* No lease to renew: no answer, but a question. */
    expect(w, "a1 lead term=5 ask\n");
    struct instance_report report = report_n(w, 1, INSTANCE_READY);
    const struct node_register r = {.instances = &report, .instances_count = 1};
    agent_register(w, 1, &r);
    user_call(w, 1, 3, "f", "x", 0);
    expect(w, "a1 invoke v3.1 i1 x\n");
}

static void a_silent_node_is_lost_with_its_calls(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 20000);
    forget_lines(w);
    w->alive[1] = false;
    world_run(w, 3000);
    expect(w, "");
    world_run(w, 100);
    expect(
        w,
        "u1 call_reply 2 UNKNOWN node n1 was lost (no heartbeat); the call may have been done\n");
    struct core_stats s = core_stats(w->core);
    assert_int_equal(s.instances, 0);
    assert_int_equal(s.nodes_ready, 0);
    assert_int_equal(s.calls_unknown, 1);
}

static void what_was_starting_on_a_lost_node_starts_elsewhere(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 20000);
    agent_up(w, 2);
    w->alive[1] = false;
    world_run(w, 3500);
    expect(w, "a2 start i2 f\n");
    agent_ready(w, 2, 2);
    expect(w, "a2 invoke v1.1 i2 \n");
}

static void a_node_that_returns_within_its_lease_keeps_everything(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 20000);
    agent_close(w, 1);
    world_run(w, 2000);
    agent_open(w, 1);
    struct instance_report report = report_n(w, 1, INSTANCE_READY);
    struct attempt_report attempt = {
        .invocation = invocation_n(w, 2), .attempt = 1, .instance = instance_n(w, 1)};
    const struct node_register r = {
        .instances = &report, .instances_count = 1, .attempts = &attempt, .attempts_count = 1};
    agent_register(w, 1, &r);
    world_run(w, 2000);
    expect(w, "a1 invoke v2.1 i1 \na1 lead term=5\n");
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "kept");
    expect(w, "u1 call_reply 2 OK kept\n");
    user_call(w, 1, 3, "f", "", 0);
    expect(w, "a1 invoke v3.1 i1 \n");
}

static void a_node_that_does_not_return_is_lost(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 20000);
    forget_lines(w);
    agent_close(w, 1);
    world_run(w, 3100);
    expect(
        w,
        "u1 call_reply 2 UNKNOWN node n1 was lost (not connected); the call may have been done\n");
}

static void calls_wait_until_a_returning_node_has_reported(void **state)
{
    struct world *w = *state;
    have_warm(w);
    agent_close(w, 1);
    user_call(w, 1, 2, "f", "x", 0);
    expect(w, "");
    agent_open(w, 1);
    world_tick(w, 100);
    expect(w, "a1 lead term=5\n"); /* Sent now, its report would lack the call. */
    struct instance_report report = report_n(w, 1, INSTANCE_READY);
    const struct node_register r = {.instances = &report, .instances_count = 1};
    agent_register(w, 1, &r);
    expect(w, "a1 invoke v2.1 i1 x\n");
}

static void calls_that_a_restarted_agent_does_not_know_are_unknown(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "x", 0);
    agent_close(w, 1);
    agent_open(w, 1);
    forget_lines(w);
    struct instance_report report = report_n(w, 1, INSTANCE_READY);
    const struct node_register r = {.instances = &report, .instances_count = 1};
    agent_register(w, 1, &r);
    expect(
        w,
        "u1 call_reply 2 UNKNOWN the agent restarted while the call ran; it may have been done\n");
    user_call(w, 1, 3, "f", "y", 0);
    expect(w, "a1 invoke v3.1 i1 y\n");
}

static void instances_missing_from_a_report_are_replaced_once(void **state)
{
    struct world *w = *state;
    w->spec.scale_min = 2;
    world_deploy(w, "g", 2);
    world_run(w, 50);
    agent_ready(w, 1, 1);
    agent_ready(w, 1, 2);
    user_call(w, 1, 1, "g", "", 0);
    agent_close(w, 1);
    agent_open(w, 1);
    forget_lines(w);
    agent_register_empty(w, 1);
    expect(w, "u1 call_reply 1 UNKNOWN the instance was gone when its agent reported\n"
              "a1 start i3 g\na1 start i4 g\n");
    agent_ready(w, 1, 3); /* Known: not killed. */
    expect(w, "");
    assert_int_equal(core_stats(w->core).instances, 2);
}

static void a_newer_connection_takes_the_place_of_the_old_one(void **state)
{
    struct world *w = *state;
    have_warm(w);
    agent_open_as(w, 1, 7); /* n1 again, before the old connection is seen to end */
    struct instance_report report = report_n(w, 1, INSTANCE_READY);
    const struct node_register r = {.instances = &report, .instances_count = 1};
    agent_register(w, 7, &r); /* over peer 107 */
    expect(w, "a7 lead term=5\n");
    agent_ended(w, 1, 1, STATUS_CRASHED, "from the old connection");
    core_peer_close(w->core, w->now, 101);
    expect(w, "");
    user_call(w, 1, 2, "f", "", 0);
    expect(w, "a7 invoke v2.1 i1 \n");
}

/* ---- Modes ---- */

static void a_cordoned_node_gets_nothing_new_and_serves_on(void **state)
{
    struct world *w = *state;
    have_warm(w);
    set_mode(w, "node.cordon");
    user_call(w, 1, 2, "f", "a", 0);
    expect(w, "a1 invoke v2.1 i1 a\n");
    user_call(w, 1, 3, "f", "b", 0);
    world_run(w, 200);
    expect(w, "");
    set_mode(w, "node.uncordon");
    world_run(w, 50);
    expect(w, "a1 start i2 f\n");
}

static void a_draining_node_empties_as_its_calls_end(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 0);
    forget_lines(w);
    agent_up(w, 2);
    set_mode(w, "node.drain");
    world_run(w, 100);
    expect(w, "");
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "done");
    expect(w, "u1 call_reply 2 OK done\n");
    user_call(w, 1, 3, "f", "", 0); /* Goes elsewhere, though i1 is free. */
    expect(w, "a2 start i2 f\n");
    world_run(w, 100);
    expect(w, "a1 stop i1 the node is draining\n");
}

static void a_drain_that_is_taken_back_leaves_the_instance_in_use(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 0);
    forget_lines(w);
    set_mode(w, "node.drain");
    world_run(w, 100);
    set_mode(w, "node.uncordon");
    world_run(w, 100);
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "");
    forget_lines(w);
    user_call(w, 1, 3, "f", "", 0);
    expect(w, "a1 invoke v3.1 i1 \n");
}

static void a_removed_node_is_lost_at_once_and_forgotten_when_it_goes(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 0);
    forget_lines(w);
    user_admin(w, 3, "node.remove", "n1", NULL, NULL);
    expect(w, "u1 call_reply 2 UNKNOWN node n1 was lost (removed by an operator); the call may "
              "have been done\n"
              "u1 reply 3 OK\n");
    assert_int_equal(core_stats(w->core).nodes_ready, 0);
    assert_int_equal(core_node_peer(w->core, "n1"), 101);
    agent_close(w, 1);
    world_run(w, 4000);
    expect(w, "");
    assert_int_equal(core_node_peer(w->core, "n1"), 0);
}

static void labels_decide_where_a_function_may_run(void **state)
{
    struct world *w = *state;
    struct pair zone = {.key = "zone", .value = "b"};
    w->spec.require = &zone;
    w->spec.require_count = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "", 0);
    expect(w, "");
    agent_open(w, 2);
    const struct node_register r = {.labels = &zone, .labels_count = 1};
    agent_register(w, 2, &r);
    expect(w, "a2 lead term=5\na2 start i1 g\n");
}

#define LED(name) cmocka_unit_test_setup_teardown(name, world_setup_led, world_teardown)
#define FRESH(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LED(agents_are_told_who_leads_and_what_is_revoked),
        FRESH(a_follower_commands_nobody),
        LED(a_node_is_admitted_and_ready_once_registered),
        LED(a_registration_of_another_term_is_ignored),
        LED(a_second_registration_over_one_connection_is_ignored),
        LED(a_registration_over_an_unknown_or_users_connection_is_ignored),
        LED(a_node_without_resources_is_refused),
        FRESH(a_new_leader_adopts_what_agents_report),
        FRESH(a_foreign_attempt_keeps_its_slot_until_its_result),
        FRESH(a_late_result_of_another_attempt_frees_no_slot),
        FRESH(instances_of_no_current_revision_are_stopped),
        FRESH(a_new_leader_starts_nothing_before_agents_had_time_to_report),
        FRESH(a_new_leader_starts_once_all_agents_have_reported),
        LED(a_later_term_asks_everybody_anew),
        LED(heartbeats_keep_a_node_and_are_answered),
        LED(a_node_that_was_lost_while_connected_is_asked_what_it_runs),
        LED(a_silent_node_is_lost_with_its_calls),
        LED(what_was_starting_on_a_lost_node_starts_elsewhere),
        LED(a_node_that_returns_within_its_lease_keeps_everything),
        LED(a_node_that_does_not_return_is_lost),
        LED(calls_wait_until_a_returning_node_has_reported),
        LED(calls_that_a_restarted_agent_does_not_know_are_unknown),
        LED(instances_missing_from_a_report_are_replaced_once),
        LED(a_newer_connection_takes_the_place_of_the_old_one),
        LED(a_cordoned_node_gets_nothing_new_and_serves_on),
        LED(a_draining_node_empties_as_its_calls_end),
        LED(a_drain_that_is_taken_back_leaves_the_instance_in_use),
        LED(a_removed_node_is_lost_at_once_and_forgotten_when_it_goes),
        LED(labels_decide_where_a_function_may_run),
    };
    return cmocka_run_group_tests_name("nodes", tests, NULL, NULL);
}

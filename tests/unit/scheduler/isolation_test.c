/* When nodes are checked, and what their reports do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scheduler/world.h"

#include <stdio.h>
#include <string.h>

enum { AGENT_PEERS = 100 };

static void agent_up_with_canary(struct world *w, unsigned n)
{
    agent_open(w, n);
    agent_register(w, n, &(struct node_register){.canary = true});
    forget_lines(w);
}

static int setup(void **state)
{
    (void)world_setup(state);
    struct world *w = *state;
    world_lead(w, WORLD_TERM);
    user_open(w, 1);
    agent_up_with_canary(w, 1);
    return 0;
}

static void report(struct world *w, unsigned n, uint64_t round, enum isolation_verdict verdict)
{
    struct isolation_result results[] = {
        {.check = "host-file", .verdict = ISOLATION_HELD, .detail = "not there"},
        {.check = "raw-socket", .verdict = verdict, .detail = "it opened"},
    };
    const struct message m = {.type = MESSAGE_ISOLATION_REPORT,
                              .term = WORLD_TERM,
                              .isolation_report = {.round = round,
                                                   .isolation = "cell",
                                                   .message = "",
                                                   .results = results,
                                                   .results_count = 2}};
    core_receive(w->core, w->now, AGENT_PEERS + n, &m);
    world_commit(w);
}

static void report_failure(struct world *w, unsigned n, uint64_t round, const char *why)
{
    const struct message m = {
        .type = MESSAGE_ISOLATION_REPORT,
        .term = WORLD_TERM,
        .isolation_report = {
            .round = round, .isolation = "cell", .code = STATUS_LIMIT, .message = why}};
    core_receive(w->core, w->now, AGENT_PEERS + n, &m);
}

static const struct catalog_node *node_1(struct world *w)
{
    return catalog_node_find(core_catalog(w->core), "n1");
}

static void run_now(struct world *w)
{
    user_admin(w, 7, "isolation.run", "n1", NULL, NULL);
    world_run(w, 100);
}

/* ---- When ---- */

static void a_node_is_checked_a_while_after_it_registers_and_then_once_an_interval(void **state)
{
    struct world *w = *state;
    world_run(w, 9000);
    expect(w, "");
    world_run(w, 55000);
    expect(w, "a1 isolation_check 1 cell\n");
    report(w, 1, 1, ISOLATION_HELD);
    world_run(w, CORE_ISOLATION_MS * 3 / 4);
    expect(w, "");
    world_run(w, CORE_ISOLATION_MS / 2);
    expect(w, "a1 isolation_check 2 cell\n");
}

static void the_setting_changes_the_interval_and_turns_it_off(void **state)
{
    struct world *w = *state;
    user_admin(w, 7, "setting.set", "isolation.interval", "value", "2s");
    expect(w, "u1 reply 7 OK\n");
    world_run(w, 2100);
    expect(w, "a1 isolation_check 1 cell\n");
    report(w, 1, 1, ISOLATION_HELD);
    user_admin(w, 8, "setting.set", "isolation.interval", "value", "0s");
    forget_lines(w);
    world_run(w, 5000);
    expect(w, "");
    user_admin(w, 9, "setting.set", "isolation.interval", "value", "often");
    assert_non_null(strstr(w->text, "u1 reply 9 INVALID"));
    forget_lines(w);
}

static void a_round_is_run_when_it_is_asked_for(void **state)
{
    struct world *w = *state;
    user_admin(w, 7, "isolation.run", "n1", NULL, NULL);
    expect(w, "u1 reply 7 OK 1 nodes\n");
    world_run(w, 100);
    expect(w, "a1 isolation_check 1 cell\n");
    user_admin(w, 8, "isolation.run", "", NULL, NULL);
    expect(w, "u1 reply 8 OK 1 nodes\n");
    user_admin(w, 9, "isolation.run", "n9", NULL, NULL);
    expect(w, "u1 reply 9 NOT_FOUND no node is named n9; see skep node list\n");
}

static void the_schedulers_addresses_go_along(void **state)
{
    struct world *w = *state;
    const struct command put = {.type = COMMAND_SCHEDULER_PUT,
                                .command_scheduler_put = {.name = "s1", .address = "10.0.0.1:9"}};
    (void)world_apply(w, &put);
    forget_lines(w);
    run_now(w);
    expect(w, "u1 reply 7 OK 1 nodes\na1 isolation_check 1 cell 10.0.0.1:9\n");
}

static void an_agent_without_a_canary_is_not_asked(void **state)
{
    struct world *w = *state;
    agent_up(w, 2);
    user_admin(w, 7, "isolation.run", "n2", NULL, NULL);
    expect(w, "u1 reply 7 UNAVAILABLE the node's agent has no canary\n");
    world_run(w, 61000);
    expect(w, "a1 isolation_check 1 cell\n");
}

static void draining_and_lost_nodes_are_left_alone_and_cordoned_ones_are_not(void **state)
{
    struct world *w = *state;
    user_admin(w, 7, "node.drain", "n1", NULL, NULL);
    forget_lines(w);
    world_run(w, 61000);
    expect(w, "");
    user_admin(w, 8, "isolation.run", "n1", NULL, NULL);
    expect(w, "u1 reply 8 UNAVAILABLE the node is draining\n");
    user_admin(w, 9, "node.cordon", "n1", NULL, NULL);
    forget_lines(w);
    world_run(w, 100);
    expect(w, "a1 isolation_check 1 cell\n");
    agent_close(w, 1);
    world_run(w, 4000);
    user_admin(w, 10, "isolation.run", "n1", NULL, NULL);
    expect(w, "u1 reply 10 UNAVAILABLE the node is not connected\n");
}

/* ---- Reports ---- */

static void a_round_that_held_is_shown_and_cordons_nothing(void **state)
{
    struct world *w = *state;
    run_now(w);
    report(w, 1, 1, ISOLATION_HELD);
    assert_int_equal(node_1(w)->mode, NODE_MODE_NORMAL);
    user_query(w, 8, "isolation", "n1");
    expect_records(w, "node=n1 isolation=cell checks=held held=2 breached=0");
    user_query(w, 9, "isolation_checks", "n1");
    expect_records(w, "check=host-file verdict=held detail=not there");
    struct core_stats stats = core_stats(w->core);
    assert_int_equal(stats.isolation_rounds, 1);
    assert_int_equal(stats.isolation_breaches, 0);
}

static void a_failed_check_cordons_the_node_once_with_its_reason(void **state)
{
    struct world *w = *state;
    run_now(w);
    report(w, 1, 1, ISOLATION_BREACHED);
    world_run(w, 100);
    assert_int_equal(node_1(w)->mode, NODE_MODE_CORDONED);
    assert_string_equal(node_1(w)->reason, "isolation check raw-socket failed");
    user_query(w, 8, "nodes", "");
    expect_records(w, "name=n1 state=cordoned reason=isolation check raw-socket failed");
    user_query(w, 9, "isolation", "");
    expect_records(w, "checks=breached held=1 breached=1");
    user_query(w, 10, "why", "n1");
    expect_records(w, "isolation check raw-socket failed: it opened");
    uint64_t index = w->index;
    run_now(w);
    report(w, 1, 2, ISOLATION_BREACHED);
    world_run(w, 100);
    assert_int_equal(w->index, index);
    assert_int_equal(core_stats(w->core).isolation_breaches, 2);
    assert_int_equal(core_stats(w->core).isolation_nodes_breached, 1);
}

static void an_uncordon_holds_until_the_next_failure(void **state)
{
    struct world *w = *state;
    run_now(w);
    report(w, 1, 1, ISOLATION_BREACHED);
    world_run(w, 100);
    user_admin(w, 8, "node.uncordon", "n1", NULL, NULL);
    world_run(w, 1000);
    assert_int_equal(node_1(w)->mode, NODE_MODE_NORMAL);
    assert_string_equal(node_1(w)->reason, "");
    run_now(w);
    report(w, 1, 2, ISOLATION_BREACHED);
    world_run(w, 100);
    assert_int_equal(node_1(w)->mode, NODE_MODE_CORDONED);
}

static void a_cordon_that_cannot_be_proposed_is_proposed_again(void **state)
{
    struct world *w = *state;
    run_now(w);
    w->propose_code = STATUS_LIMIT;
    report(w, 1, 1, ISOLATION_BREACHED);
    world_run(w, 200);
    assert_int_equal(node_1(w)->mode, NODE_MODE_NORMAL);
    w->propose_code = STATUS_OK;
    world_run(w, 200);
    assert_int_equal(node_1(w)->mode, NODE_MODE_CORDONED);
}

static void a_failure_on_a_draining_node_leaves_it_draining(void **state)
{
    struct world *w = *state;
    run_now(w);
    user_admin(w, 8, "node.drain", "n1", NULL, NULL);
    report(w, 1, 1, ISOLATION_BREACHED);
    world_run(w, 200);
    assert_int_equal(node_1(w)->mode, NODE_MODE_DRAINING);
}

static void a_round_that_did_not_run_cordons_nothing_and_forgives_nothing(void **state)
{
    struct world *w = *state;
    run_now(w);
    report_failure(w, 1, 1, "no room\n");
    user_query(w, 8, "isolation", "");
    expect_records(w, "checks=not run held=0");
    expect_records(w, "why=no room?");
    assert_int_equal(node_1(w)->mode, NODE_MODE_NORMAL);
    run_now(w);
    report(w, 1, 2, ISOLATION_BREACHED);
    run_now(w);
    report_failure(w, 1, 3, "no room");
    user_query(w, 9, "isolation", "");
    expect_records(w, "checks=breached held=1 breached=1");
}

static void silence_is_not_run(void **state)
{
    struct world *w = *state;
    run_now(w);
    world_run(w, CORE_ISOLATION_ANSWER_MS + 100);
    user_query(w, 8, "isolation", "");
    expect_records(w, "checks=not run");
    expect_records(w, "why=the agent did not answer");
    report(w, 1, 1, ISOLATION_BREACHED);
    world_run(w, 200);
    assert_int_equal(node_1(w)->mode, NODE_MODE_NORMAL);
    assert_int_equal(core_stats(w->core).isolation_not_run, 1);
}

static void reports_of_other_rounds_and_terms_count_for_nothing(void **state)
{
    struct world *w = *state;
    run_now(w);
    report(w, 1, 9, ISOLATION_BREACHED);
    world_lead(w, WORLD_TERM + 1);
    report(w, 1, 1, ISOLATION_BREACHED);
    world_run(w, 200);
    assert_int_equal(node_1(w)->mode, NODE_MODE_NORMAL);
    assert_int_equal(core_stats(w->core).isolation_rounds, 0);
}

static void a_new_leader_begins_anew(void **state)
{
    struct world *w = *state;
    run_now(w);
    report(w, 1, 1, ISOLATION_HELD);
    world_lead(w, WORLD_TERM + 1);
    const struct message again = {
        .type = MESSAGE_NODE_REGISTER,
        .term = WORLD_TERM + 1,
        .node_register = {
            .boot = 1, .cpu_millis = WORLD_CPU, .memory_bytes = WORLD_MEMORY, .canary = true}};
    core_receive(w->core, w->now, AGENT_PEERS + 1, &again);
    user_query(w, 8, "isolation", "");
    expect_records(w, "checks=not checked yet held=0");
    forget_lines(w);
    world_run(w, 61000);
    assert_non_null(strstr(w->text, "a1 isolation_check "));
    forget_lines(w);
}

static void the_reason_is_part_of_the_replicated_state(void **state)
{
    struct world *w = *state;
    uint64_t before = catalog_digest(core_catalog(w->core));
    user_admin(w, 7, "node.cordon", "n1", "reason", "a new disk");
    assert_string_equal(node_1(w)->reason, "a new disk");
    assert_true(catalog_digest(core_catalog(w->core)) != before);
    char text[300];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    forget_lines(w);
    user_admin(w, 8, "node.cordon", "n1", "reason", text);
    expect(w, "u1 reply 8 LIMIT a reason has at most 255 bytes\n");
    struct arena a = {0};
    struct state s;
    struct catalog copy = {0};
    assert_int_equal(catalog_export(core_catalog(w->core), &a, &s).code, STATUS_OK);
    assert_int_equal(catalog_import(&copy, &s, NULL).code, STATUS_OK);
    assert_string_equal(catalog_node_find(&copy, "n1")->reason, "a new disk");
    catalog_close(&copy);
    arena_close(&a);
}

#define LED(test) cmocka_unit_test_setup_teardown(test, setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LED(a_node_is_checked_a_while_after_it_registers_and_then_once_an_interval),
        LED(the_setting_changes_the_interval_and_turns_it_off),
        LED(a_round_is_run_when_it_is_asked_for),
        LED(the_schedulers_addresses_go_along),
        LED(an_agent_without_a_canary_is_not_asked),
        LED(draining_and_lost_nodes_are_left_alone_and_cordoned_ones_are_not),
        LED(a_round_that_held_is_shown_and_cordons_nothing),
        LED(a_failed_check_cordons_the_node_once_with_its_reason),
        LED(an_uncordon_holds_until_the_next_failure),
        LED(a_cordon_that_cannot_be_proposed_is_proposed_again),
        LED(a_failure_on_a_draining_node_leaves_it_draining),
        LED(a_round_that_did_not_run_cordons_nothing_and_forgives_nothing),
        LED(silence_is_not_run),
        LED(reports_of_other_rounds_and_terms_count_for_nothing),
        LED(a_new_leader_begins_anew),
        LED(the_reason_is_part_of_the_replicated_state),
    };
    return cmocka_run_group_tests_name("scheduler isolation", tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scheduler/world.h"

#include <string.h>

static void scale_min_is_started_and_replaced(void **state)
{
    struct world *w = *state;
    w->spec.scale_min = 2;
    world_deploy(w, "g", 2);
    world_run(w, 100);
    expect(w, "a1 start i1 g\na1 start i2 g\n");
    agent_ready(w, 1, 1);
    agent_ready(w, 1, 2);
    agent_ended(w, 1, 1, STATUS_CRASHED, "gone");
    expect(w, "a1 start i3 g\n");
}

static void scale_max_holds(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "", 0);
    user_call(w, 1, 2, "g", "", 0);
    expect(w, "a1 start i1 g\n");
}

static void instances_spread_over_the_nodes(void **state)
{
    struct world *w = *state;
    agent_up(w, 2);
    user_call(w, 1, 1, "f", "", 0);
    user_call(w, 1, 2, "f", "", 0);
    expect(w, "a1 start i1 f\na2 start i2 f\n");
}

static void what_fits_nowhere_waits_and_is_explained_once(void **state)
{
    struct world *w = *state;
    w->spec.cpu_millis = WORLD_CPU + 1;
    world_deploy(w, "giant", 2);
    user_call(w, 1, 1, "giant", "", 0);
    world_run(w, 500);
    expect(w, "");
    user_query(w, 2, "why", "giant");
    expect(w, "u1 records 2 OK rows=1\n");
    expect_records(w, "no node fits an instance: 1 node: 1 with too little CPU left");
    w->spec.cpu_millis = 100;
    world_deploy(w, "giant", 3); /* The next revision fits. */
    world_run(w, 50);
    expect(w, "a1 start i1 giant\n");
}

static void a_node_that_comes_takes_what_waited(void **state)
{
    struct world *w = *state;
    w->spec.cpu_millis = 600;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "", 0);
    user_call(w, 1, 2, "g", "", 0);
    expect(w, "a1 start i1 g\n");
    agent_open(w, 2);
    agent_register_empty(w, 2);
    expect(w, "a2 lead term=5\na2 start i2 g\n");
}

/* ---- Starts that fail ---- */

static void a_failed_start_fails_the_queue_and_backs_off_longer_each_time(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 0);
    agent_ended(w, 1, 1, STATUS_FAILED, "no such handler");
    expect(w,
           "a1 start i1 f\nu1 call_reply 1 FAILED an instance could not start: no such handler\n");
    assert_int_equal(core_stats(w->core).starts_failed, 1);
    user_call(w, 1, 2, "f", "", 0);
    world_run(w, 450);
    expect(w, ""); /* 500 ms after the first failure */
    world_run(w, 100);
    expect(w, "a1 start i2 f\n");
    agent_ended(w, 1, 2, STATUS_FAILED, "no such handler");
    expect(w, "u1 call_reply 2 FAILED an instance could not start: no such handler\n");
    user_call(w, 1, 3, "f", "", 0);
    world_run(w, 950);
    expect(w, ""); /* 1000 ms after the second */
    world_run(w, 100);
    expect(w, "a1 start i3 f\n");
}

static void a_start_that_ends_without_a_code_is_a_crash(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 0);
    agent_ended(w, 1, 1, STATUS_OK, "it exited");
    expect(w, "a1 start i1 f\nu1 call_reply 1 CRASHED an instance could not start: it exited\n");
}

static void another_revision_ends_the_back_off(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 0);
    agent_ended(w, 1, 1, STATUS_FAILED, "bad code");
    forget_lines(w);
    world_deploy(w, "f", 2);
    user_call(w, 1, 2, "f", "", 0);
    expect(w, "a1 start i2 f\n");
    agent_ended(w, 1, 2, STATUS_FAILED, "bad code");
    user_call(w, 1, 3, "f", "", 0);
    forget_lines(w);
    world_run(w, 550); /* Its first failure: the shortest wait. */
    expect(w, "a1 start i3 f\n");
}

static void a_ready_instance_ends_the_back_off(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 0);
    user_call(w, 1, 2, "f", "", 0);
    agent_ended(w, 1, 1, STATUS_FAILED, "bad luck");
    expect(w, "a1 start i1 f\na1 start i2 f\n"); /* The other one is on its way. */
    agent_ready(w, 1, 2);
    expect(w, "a1 invoke v1.1 i2 \n");
    user_call(w, 1, 3, "f", "", 0);
    expect(w, "a1 start i3 f\na1 start i4 f\n"); /* For the one that waited and the new one. */
}

static void an_agent_that_refuses_a_start_is_asked_again_soon(void **state)
{
    struct world *w = *state;
    const enum status_code codes[] = {STATUS_LIMIT, STATUS_CONFLICT, STATUS_UNAVAILABLE};
    user_call(w, 1, 1, "f", "", 0);
    expect(w, "a1 start i1 f\n");
    for (unsigned k = 0; k < 3; k++) {
        agent_ended(w, 1, k + 1, codes[k], "full");
        expect(w, ""); /* The queue waits. */
        world_run(w, 150);
        expect(w, "");
        world_run(w, 50);
        assert_memory_equal(w->text, "a1 start i", 10);
        forget_lines(w);
    }
    assert_int_equal(core_stats(w->core).starts_failed, 0);
    agent_ready(w, 1, 4);
    expect(w, "a1 invoke v1.1 i4 \n");
}

static void a_start_that_takes_too_long_is_killed(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 60000);
    forget_lines(w);
    world_run(w, 20000); /* startup_timeout and 15 s for the agent to say so itself */
    expect(w, "");
    world_run(w, 100);
    expect(
        w,
        "a1 kill i1 did not become ready in time\n"
        "u1 call_reply 1 TIMEOUT an instance could not start: it did not become ready in time\n");
    agent_ready(w, 1, 1); /* The agent was slow to hear. */
    expect(w, "a1 kill i1 not known to the leader\n");
}

/* ---- Stops ---- */

static void an_idle_instance_stops_after_its_time(void **state)
{
    struct world *w = *state;
    have_warm(w);
    world_run(w, 950);
    expect(w, "");
    world_run(w, 100);
    expect(w, "a1 stop i1 idle for scaling.idle\n");
    assert_int_equal(core_stats(w->core).instances_stopped, 1);
    user_call(w, 1, 2, "f", "", 0); /* A stopping one takes nothing. */
    expect(w, "a1 start i2 f\n");
    agent_ended(w, 1, 1, STATUS_OK, "");
    expect(w, "");
    assert_int_equal(core_stats(w->core).instances, 1);
}

static void idle_instances_stop_down_to_scale_min(void **state)
{
    struct world *w = *state;
    w->spec.scale_min = 1;
    world_deploy(w, "g", 2);
    user_call(w, 1, 1, "g", "", 0);
    user_call(w, 1, 2, "g", "", 0);
    agent_ready(w, 1, 1);
    agent_ready(w, 1, 2);
    agent_result(w, 1, 1, 1, 1, STATUS_OK, "");
    agent_result(w, 1, 2, 1, 2, STATUS_OK, "");
    forget_lines(w);
    world_run(w, 2500);
    expect(w, "a1 stop i1 idle for scaling.idle\n");
    assert_int_equal(core_stats(w->core).instances_ready, 1);
}

static void a_busy_instance_does_not_stop(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 0);
    forget_lines(w);
    world_run(w, 3000);
    expect(w, "");
}

static void a_stop_that_is_not_heard_is_repeated(void **state)
{
    struct world *w = *state;
    have_warm(w);
    world_run(w, 1000);
    expect(w, "a1 stop i1 idle for scaling.idle\n");
    world_run(w, 2000);
    expect(w, "");
    world_run(w, 100);
    expect(w, "a1 kill i1 again\n");
}

/* ---- Room for those who wait ---- */

/* Idle instances i1 and i2 of "f", i1 the least recently used, which fill the node but for 100m;
 * they stay for an hour. */
static void fill_with_idle(struct world *w, uint32_t scale_min)
{
    w->spec.cpu_millis = 450;
    w->spec.idle_ms = 3600000;
    w->spec.scale_min = scale_min;
    world_deploy(w, "f", 9);
    user_call(w, 1, 1, "f", "", 0);
    user_call(w, 1, 2, "f", "", 0);
    agent_ready(w, 1, 1);
    agent_ready(w, 1, 2);
    agent_result(w, 1, 1, 1, 1, STATUS_OK, "");
    world_tick(w, 10);
    agent_result(w, 1, 2, 1, 2, STATUS_OK, "");
    forget_lines(w);
    w->spec.scale_min = 0;
}

static void the_longest_idle_instance_makes_room_for_calls_that_wait(void **state)
{
    struct world *w = *state;
    fill_with_idle(w, 0);
    world_deploy(w, "other", 2);
    user_call(w, 1, 3, "other", "", 0);
    expect(w, "a1 stop i1 to make room for other\n");
    world_run(w, 1000);
    expect(w, ""); /* One at a time: its room comes first. */
    agent_ended(w, 1, 1, STATUS_OK, "");
    world_run(w, 50);
    expect(w, "a1 start i3 other\n");
    assert_int_equal(core_stats(w->core).instances, 2);
}

static void no_room_is_made_for_what_would_not_fit_an_empty_node(void **state)
{
    struct world *w = *state;
    fill_with_idle(w, 0);
    w->spec.cpu_millis = WORLD_CPU + 1;
    world_deploy(w, "giant", 2);
    user_call(w, 1, 3, "giant", "", 0);
    world_run(w, 1000);
    expect(w, "");
    struct pair zone = {.key = "zone", .value = "elsewhere"};
    w->spec.cpu_millis = 450;
    w->spec.require = &zone;
    w->spec.require_count = 1;
    world_deploy(w, "picky", 3);
    user_call(w, 1, 4, "picky", "", 0);
    world_run(w, 1000);
    expect(w, "");
}

static void instances_of_scale_min_make_no_room(void **state)
{
    struct world *w = *state;
    fill_with_idle(w, 2);
    world_deploy(w, "other", 2);
    user_call(w, 1, 3, "other", "", 0);
    world_run(w, 500);
    expect(w, "");
}

static void scale_min_alone_makes_no_room(void **state)
{
    struct world *w = *state;
    fill_with_idle(w, 0);
    w->spec.scale_min = 1;
    world_deploy(w, "other", 2); /* Nobody waits for it. */
    world_run(w, 500);
    expect(w, "");
}

/* ---- Revisions ---- */

static void a_new_revision_takes_the_calls_and_the_old_one_drains(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "old", 0);
    forget_lines(w);
    world_deploy(w, "f", 2);
    user_call(w, 1, 3, "f", "new", 0);
    expect(w, "a1 start i2 f\n");
    world_run(w, 200);
    expect(w, ""); /* The old one is busy. */
    agent_result(w, 1, 2, 1, 1, STATUS_OK, "done");
    expect(w, "u1 call_reply 2 OK done\n"); /* And takes nothing more. */
    world_run(w, 100);
    expect(w, "a1 stop i1 of no current revision\n");
    struct instance_report r = report_n(w, 2, INSTANCE_READY);
    r.revision = world_revision(2);
    const struct message ready = {.type = MESSAGE_INSTANCE_EVENT, .instance_event = {.report = &r}};
    core_receive(w->core, w->now, 101, &ready);
    expect(w, "a1 invoke v3.1 i2 new\n");
}

static void a_rollback_makes_the_old_instances_serve_again(void **state)
{
    struct world *w = *state;
    have_warm(w);
    world_deploy(w, "f", 2);
    user_admin(w, 5, "function.rollback", "f", NULL, NULL);
    forget_lines(w);
    user_call(w, 1, 2, "f", "", 0);
    expect(w, "a1 invoke v2.1 i1 \n");
}

/* ---- Events that do not fit ---- */

static void an_unknown_instance_is_killed_unless_it_ended(void **state)
{
    struct world *w = *state;
    agent_ready(w, 1, 9);
    expect(w, "a1 kill i9 not known to the leader\n");
    agent_ended(w, 1, 9, STATUS_OK, "");
    expect(w, "");
    assert_int_equal(core_stats(w->core).reports_stale, 2);
}

static void an_instance_of_another_node_is_not_touched(void **state)
{
    struct world *w = *state;
    have_warm(w);
    agent_up(w, 2);
    agent_ended(w, 2, 1, STATUS_CRASHED, "a lie");
    expect(w, "");
    assert_int_equal(core_stats(w->core).instances, 1);
    assert_int_equal(core_stats(w->core).reports_stale, 1);
}

static void ready_twice_is_ready_once(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_call(w, 1, 2, "f", "", 0);
    forget_lines(w);
    agent_ready(w, 1, 1);
    expect(w, "");
}

static void events_of_agents_that_have_not_registered_do_not_count(void **state)
{
    struct world *w = *state;
    agent_open(w, 2);
    forget_lines(w);
    agent_ready(w, 2, 9);
    agent_ready(w, 7, 9); /* no such connection */
    expect(w, "");
}

/* ---- What the edge asks ---- */

static void instances_are_found_by_function_and_id(void **state)
{
    struct world *w = *state;
    user_call(w, 1, 1, "f", "", 0);
    user_call(w, 1, 2, "f", "", 0);
    struct id128 found[4];
    assert_int_equal(core_function_instances(w->core, "f", found, 4), 2);
    assert_int_equal(id_compare(found[0], instance_n(w, 2)), 0); /* newest first */
    assert_int_equal(core_function_instances(w->core, "f", found, 1), 1);
    assert_int_equal(core_function_instances(w->core, "none", found, 4), 0);
    const char *node = NULL;
    assert_int_equal(core_instance_peer(w->core, instance_n(w, 1), &node), 101);
    assert_string_equal(node, "n1");
    assert_int_equal(core_instance_peer(w->core, (struct id128){1, 2}, &node), 0);
    assert_int_equal(core_node_peer(w->core, "n1"), 101);
    assert_int_equal(core_node_peer(w->core, "n9"), 0);
}

#define LED(name) cmocka_unit_test_setup_teardown(name, world_setup_led, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LED(scale_min_is_started_and_replaced),
        LED(scale_max_holds),
        LED(instances_spread_over_the_nodes),
        LED(what_fits_nowhere_waits_and_is_explained_once),
        LED(a_node_that_comes_takes_what_waited),
        LED(a_failed_start_fails_the_queue_and_backs_off_longer_each_time),
        LED(a_start_that_ends_without_a_code_is_a_crash),
        LED(another_revision_ends_the_back_off),
        LED(a_ready_instance_ends_the_back_off),
        LED(an_agent_that_refuses_a_start_is_asked_again_soon),
        LED(a_start_that_takes_too_long_is_killed),
        LED(an_idle_instance_stops_after_its_time),
        LED(idle_instances_stop_down_to_scale_min),
        LED(a_busy_instance_does_not_stop),
        LED(a_stop_that_is_not_heard_is_repeated),
        LED(the_longest_idle_instance_makes_room_for_calls_that_wait),
        LED(no_room_is_made_for_what_would_not_fit_an_empty_node),
        LED(instances_of_scale_min_make_no_room),
        LED(scale_min_alone_makes_no_room),
        LED(a_new_revision_takes_the_calls_and_the_old_one_drains),
        LED(a_rollback_makes_the_old_instances_serve_again),
        LED(an_unknown_instance_is_killed_unless_it_ended),
        LED(an_instance_of_another_node_is_not_touched),
        LED(ready_twice_is_ready_once),
        LED(events_of_agents_that_have_not_registered_do_not_count),
        LED(instances_are_found_by_function_and_id),
    };
    return cmocka_run_group_tests_name("instances", tests, NULL, NULL);
}

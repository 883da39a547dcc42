#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scheduler/world.h"

#include <stdio.h>
#include <string.h>

static struct spawn payload(const char *text)
{
    return (struct spawn){.payload = bytes_of(text, strlen(text))};
}

static void spawn(struct world *w, uint64_t request, const char *text)
{
    const struct spawn s = payload(text);
    user_spawn(w, 1, request, &s);
}

/* As have_warm; the warm call was v1. */
static struct world *warm(void **state)
{
    struct world *w = *state;
    have_warm(w);
    return w;
}

/* "f" as w->spec says now. */
static void deploy_with(struct world *w, uint32_t retries_max)
{
    w->spec.retries_max = retries_max;
    world_deploy(w, "f", 2);
    forget_lines(w);
}

static void warm_with(struct world *w, uint32_t retries_max)
{
    deploy_with(w, retries_max);
    have_warm(w);
}

/* ---- From spawn to result ---- */

static void a_spawn_is_acknowledged_run_and_its_result_kept(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    expect(w, "a1 invoke v2.1 i1 x\nu1 spawn_reply 7 OK v2\n");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    expect(w, "a1 ack v2.1\n");
    user_outcome(w, 2, 8, 2, 0);
    expect(w, "u2 outcome 8 v2 done OK y\n");
    assert_int_equal(core_stats(w->core).jobs_done, 1);
}

static void why_tells_where_an_invocation_is(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    char id[ID_STRING_BYTES];
    id_format(invocation_n(w, 2), INVOCATION_PREFIX, id);
    user_query(w, 8, "why", id);
    expect_records(w, "attempt 1 runs on n1");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    user_query(w, 9, "why", id);
    expect_records(w, "done after 1 attempts; see skep result");
}

static void nothing_is_said_or_sent_before_the_commit(void **state)
{
    struct world *w = warm(state);
    w->hold = true;
    spawn(w, 7, "x");
    expect(w, "");
    world_commit(w);
    expect(w, "a1 invoke v2.1 i1 x\nu1 spawn_reply 7 OK v2\n");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    user_outcome(w, 1, 8, 2, 0); /* a leader that has been replaced must not say "queued" */
    expect(w, "");
    world_commit(w);
    expect(w, "a1 ack v2.1\nu1 outcome 8 v2 done OK y\n");
}

static void whoever_waits_gets_the_outcome_when_it_comes(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    forget_lines(w);
    user_outcome(w, 1, 8, 2, 60000);
    user_outcome(w, 2, 9, 2, 1000);
    expect(w, "");
    world_run(w, 1100);
    expect(w, "u2 outcome 9 v2 queued OK \n");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    expect(w, "u1 outcome 8 v2 done OK y\na1 ack v2.1\n");
}

static void a_waiter_that_leaves_is_forgotten(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    user_outcome(w, 2, 8, 2, 60000);
    user_close(w, 2);
    forget_lines(w);
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    expect(w, "a1 ack v2.1\n");
}

static void an_unknown_invocation_is_not_found(void **state)
{
    struct world *w = *state;
    user_outcome(w, 1, 8, 3, 0);
    expect(w, "u1 outcome 8 NOT_FOUND no such durable invocation is known (any more: results leave "
              "after their ttl)\n");
}

static void a_follower_says_where_the_leader_is(void **state)
{
    struct world *w = *state;
    world_follow(w, "10.0.0.9:1");
    spawn(w, 7, "x");
    expect(w, "u1 spawn_reply 7 NOT_LEADER this scheduler is not the leader\n");
    user_outcome(w, 1, 8, 1, 0);
    expect(w, "u1 outcome 8 NOT_LEADER this scheduler is not the leader\n");
}

static void spawns_out_of_range_are_refused(void **state)
{
    struct world *w = *state;
    struct spawn s = {.priority = 10};
    user_spawn(w, 1, 1, &s);
    s = (struct spawn){.ttl_ms = UINT64_MAX};
    user_spawn(w, 1, 2, &s);
    s = (struct spawn){.function = "nobody"};
    user_spawn(w, 1, 3, &s);
    expect(w,
           "u1 spawn_reply 1 INVALID priority 10: 1 to 9 are possible\n"
           "u1 spawn_reply 2 INVALID ttl, deadline, delay and at may be at most 7 days from now\n"
           "u1 spawn_reply 3 NOT_FOUND no function is named nobody; see skep function list\n");
}

/* ---- Keys ---- */

static void a_key_makes_one_invocation(void **state)
{
    struct world *w = warm(state);
    struct spawn s = payload("x");
    s.key = "k";
    user_spawn(w, 1, 7, &s);
    user_spawn(w, 1, 8, &s);
    expect(w, "a1 invoke v2.1 i1 x\nu1 spawn_reply 7 OK v2\nu1 spawn_reply 8 OK v2 existing\n");
    s.payload = bytes_of("other", 5);
    user_spawn(w, 1, 9, &s);
    expect(w, "u1 spawn_reply 9 CONFLICT key k was used for another payload of f\n");
    user_spawn(w, 2, 10, &s); /* Another tenant's key is another key. */
    expect(w, "u2 spawn_reply 10 OK v3\n");
}

static void a_key_lives_as_long_as_its_result(void **state)
{
    struct world *w = warm(state);
    struct spawn s = payload("x");
    s.key = "k";
    s.ttl_ms = 1000;
    user_spawn(w, 1, 7, &s);
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    world_run(w, 900);
    forget_lines(w);
    user_spawn(w, 1, 8, &s);
    expect(w, "u1 spawn_reply 8 OK v2 existing\n");
    world_run(w, 200);
    forget_lines(w);
    user_outcome(w, 1, 9, 2, 0);
    assert_non_null(strstr(w->text, "NOT_FOUND"));
    user_spawn(w, 1, 10, &s);
    assert_non_null(strstr(w->text, "u1 spawn_reply 10 OK v3\n"));
}

/* ---- Failures ---- */

static void a_failure_is_tried_again_after_its_backoff(void **state)
{
    struct world *w = *state;
    warm_with(w, 2);
    spawn(w, 7, "x");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_FAILED, "no");
    forget_lines(w);
    world_run(w, 50);
    expect(w, "");
    world_run(w, 100);
    expect(w, "a1 invoke v2.2 i1 x\n");
    agent_durable_result(w, 1, 2, 2, 1, STATUS_FAILED, "no");
    forget_lines(w);
    world_run(w, 150); /* Twice as long now. */
    expect(w, "");
    world_run(w, 100);
    expect(w, "a1 invoke v2.3 i1 x\n");
    agent_durable_result(w, 1, 2, 3, 1, STATUS_FAILED, "still no");
    user_outcome(w, 1, 8, 2, 0);
    expect(w, "a1 ack v2.3\nu1 outcome 8 v2 dead FAILED still no\n");
    assert_int_equal(core_stats(w->core).jobs_dead, 1);
}

static void a_dead_letter_can_be_redriven_or_purged(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_FAILED, "no");
    forget_lines(w);
    user_query(w, 8, "dead", "f");
    expect(w, "u1 records 8 OK rows=1\n");
    user_on_invocation(w, 9, "dead.redrive", 2);
    expect(w, "a1 invoke v2.2 i1 x\nu1 reply 9 OK\n");
    user_on_invocation(w, 10, "dead.purge", 2);
    expect(w, "u1 reply 10 CONFLICT the invocation has not ended; cancel it first\n");
    agent_durable_result(w, 1, 2, 2, 1, STATUS_FAILED, "no");
    forget_lines(w);
    user_admin(w, 11, "dead.purge", "", "function", "f");
    expect(w, "u1 reply 11 OK 1 done, 0 failed\n");
    user_outcome(w, 1, 12, 2, 0);
    assert_non_null(strstr(w->text, "NOT_FOUND"));
}

static void poison_is_quarantined_after_its_crashes(void **state)
{
    struct world *w = *state;
    w->spec.poison_max = 2;
    warm_with(w, 9);
    spawn(w, 7, "x");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_CRASHED, "segfault");
    world_run(w, 150);
    agent_durable_result(w, 1, 2, 2, 1, STATUS_CRASHED, "segfault");
    forget_lines(w);
    user_outcome(w, 1, 8, 2, 0);
    expect(w, "u1 outcome 8 v2 dead CRASHED poison: its instance crashed 2 times; the last one: "
              "segfault\n");
}

static void an_attempt_lost_with_its_node_is_nobodys_failure(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    agent_up(w, 2);
    forget_lines(w);
    agent_close(w, 1);
    world_run(w, 3300);
    assert_non_null(strstr(w->text, "a2 start i2 f\n"));
    agent_ready(w, 2, 2);
    assert_non_null(strstr(w->text, "a2 invoke v2.2 i2 x\n"));
    forget_lines(w);
    agent_durable_result(w, 2, 2, 2, 2, STATUS_OK, "y");
    expect(w, "a2 ack v2.2\n");
    assert_int_equal(core_stats(w->core).attempts_lost, 1);
}

static void an_instance_killed_for_another_attempt_is_nobodys_failure(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    forget_lines(w);
    agent_ended(w, 1, 1, STATUS_TIMEOUT, "killed: it did not give up an invocation that was over");
    assert_non_null(strstr(w->text, "a1 start i2 f\n"));
    agent_ready(w, 1, 2);
    assert_non_null(strstr(w->text, "a1 invoke v2.2 i2 x\n"));
    core_check(w->core);
}

static void the_first_success_counts_and_later_ends_are_late(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "first");
    forget_lines(w);
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "second");
    expect(w, "a1 ack v2.1\n");
    user_outcome(w, 1, 8, 2, 0);
    expect(w, "u1 outcome 8 v2 done OK first\n");
}

static void a_success_that_comes_late_counts_while_another_attempt_runs(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    agent_up(w, 2);
    agent_close(w, 1);
    world_run(w, 3300);
    agent_ready(w, 2, 2);
    agent_open(w, 1);
    forget_lines(w);
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "late");
    expect(w, "a2 cancel v2.2 i2 the invocation has ended\na1 ack v2.1\n");
    user_outcome(w, 1, 8, 2, 0);
    expect(w, "u1 outcome 8 v2 done OK late\n");
}

static void a_refused_attempt_counts_for_nothing(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_LIMIT, "busy");
    expect(w, "a1 invoke v2.1 i1 x\nu1 spawn_reply 7 OK v2\n");
    world_run(w, 150);
    expect(w, "a1 invoke v2.2 i1 x\n");
}

/* ---- Times ---- */

static void a_delayed_one_waits_for_its_time(void **state)
{
    struct world *w = warm(state);
    struct spawn s = payload("x");
    s.delay_ms = 500;
    user_spawn(w, 1, 7, &s);
    world_run(w, 450);
    expect(w, "u1 spawn_reply 7 OK v2\n");
    world_run(w, 100);
    expect(w, "a1 invoke v2.1 i1 x\n");
}

static void what_has_not_ended_by_its_deadline_is_dead(void **state)
{
    struct world *w = warm(state);
    struct spawn s = payload("x");
    s.deadline_ms = 1000;
    user_spawn(w, 1, 7, &s);
    world_run(w, 1100);
    expect(w, "a1 invoke v2.1 i1 x\nu1 spawn_reply 7 OK v2\n"
              "a1 cancel v2.1 i1 the invocation has ended\n");
    user_outcome(w, 1, 8, 2, 0);
    expect(w, "u1 outcome 8 v2 dead TIMEOUT the deadline passed after 0 attempts\n");
}

static void what_is_too_old_is_not_done_in_a_wave(void **state)
{
    struct world *w = *state;
    w->spec.queue_age_ms = 1000;
    w->spec.scale_max = 1;
    deploy_with(w, 0);
    spawn(w, 7, "x");
    world_run(w, 1500);
    forget_lines(w);
    agent_ready(w, 1, 1);
    user_outcome(w, 1, 8, 1, 0);
    expect(w, "u1 outcome 8 v1 dead TIMEOUT too old: it waited 1500 ms, limits.queue_age is 1000 "
              "ms\n");
    user_on_invocation(w, 9, "dead.redrive", 1); /* Its waiting begins anew. */
    expect(w, "a1 invoke v1.1 i1 x\nu1 reply 9 OK\n");
}

static void a_cancel_ends_it_and_its_attempt(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    forget_lines(w);
    user_on_invocation(w, 8, "invocation.cancel", 2);
    expect(w, "a1 cancel v2.1 i1 the invocation has ended\nu1 reply 8 OK\n");
    user_outcome(w, 1, 9, 2, 0);
    expect(w, "u1 outcome 9 v2 canceled CANCELED canceled\n");
    user_on_invocation(w, 10, "invocation.cancel", 2);
    expect(w, "u1 reply 10 CONFLICT the invocation has ended already\n");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_CANCELED, "canceled");
    expect(w, "a1 ack v2.1\n");
}

static void a_schedule_fires_each_time_once(void **state)
{
    struct world *w = *state;
    struct schedule_spec every = {
        .name = "tick", .cron = "@every 10s", .payload = bytes_of("t", 1)};
    w->spec.schedules = &every;
    w->spec.schedules_count = 1;
    warm_with(w, 0);
    world_run(w, 21000);
    user_query(w, 9, "invocations", "f");
    assert_non_null(strstr(w->text, "rows=2\n"));
    expect_records(w, "tenant=schedules");
}

/* ---- Order and limits ---- */

static void the_urgent_goes_first(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    deploy_with(w, 0);
    spawn(w, 1, "first");
    struct spawn s = payload("low");
    s.priority = 1;
    user_spawn(w, 1, 2, &s);
    s = payload("high");
    s.priority = 9;
    user_spawn(w, 1, 3, &s);
    forget_lines(w);
    agent_ready(w, 1, 1);
    expect(w, "a1 invoke v3.1 i1 high\n");
    agent_durable_result(w, 1, 3, 1, 1, STATUS_OK, "");
    expect(w, "a1 invoke v1.1 i1 first\na1 ack v3.1\n");
}

static void tenants_take_turns(void **state)
{
    struct world *w = *state;
    w->spec.scale_max = 1;
    deploy_with(w, 0);
    for (unsigned n = 0; n < 5; n++) {
        spawn(w, 1 + n, "flood");
    }
    const struct spawn s = payload("other");
    user_spawn(w, 2, 9, &s);
    forget_lines(w);
    agent_ready(w, 1, 1);
    agent_durable_result(w, 1, 1, 1, 1, STATUS_OK, "");
    expect(w, "a1 invoke v1.1 i1 flood\na1 invoke v6.1 i1 other\na1 ack v1.1\n");
}

static void a_function_runs_no_more_than_its_limit(void **state)
{
    struct world *w = *state;
    w->spec.running_max = 1;
    deploy_with(w, 0);
    spawn(w, 1, "a");
    spawn(w, 2, "b");
    world_run(w, 200);
    agent_ready(w, 1, 1);
    world_run(w, 200);
    expect(w, "a1 start i1 f\nu1 spawn_reply 1 OK v1\nu1 spawn_reply 2 OK v2\n"
              "a1 invoke v1.1 i1 a\n");
    agent_durable_result(w, 1, 1, 1, 1, STATUS_OK, "");
    expect(w, "a1 invoke v2.1 i1 b\na1 ack v1.1\n");
}

static void a_tenant_runs_and_queues_no_more_than_its_settings(void **state)
{
    struct world *w = *state;
    w->spec.concurrency = 2;
    warm_with(w, 0);
    user_admin(w, 1, "setting.set", "tenant.user1.running", "value", "1");
    user_admin(w, 2, "setting.set", "tenant.default.queued", "value", "2");
    forget_lines(w);
    spawn(w, 7, "a");
    spawn(w, 8, "b");
    spawn(w, 9, "c");
    expect(w, "a1 invoke v2.1 i1 a\nu1 spawn_reply 7 OK v2\nu1 spawn_reply 8 OK v3\n"
              "u1 spawn_reply 9 LIMIT 2 invocations of user1 are queued, as many as "
              "tenant.user1.queued allows; try again\n");
    assert_true(w->last.retry_after_ms > 0);
    const struct spawn s = payload("d");
    user_spawn(w, 2, 10, &s);
    expect(w, "a1 invoke v4.1 i1 d\nu2 spawn_reply 10 OK v4\n");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "");
    expect(w, "a1 invoke v3.1 i1 b\na1 ack v2.1\n");
}

static void a_rate_spreads_the_starts(void **state)
{
    struct world *w = *state;
    w->spec.rate_milli = 2000;
    w->spec.rate_burst = 1;
    warm_with(w, 0);
    spawn(w, 1, "a");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "");
    spawn(w, 2, "b");
    forget_lines(w);
    world_run(w, 300);
    expect(w, "");
    world_run(w, 300);
    expect(w, "a1 invoke v3.1 i1 b\n");
}

static void a_queue_that_is_full_says_so(void **state)
{
    struct world *w = *state;
    w->spec.durable_queue_max = 1;
    deploy_with(w, 0);
    spawn(w, 1, "a");
    spawn(w, 2, "b");
    assert_non_null(strstr(w->text, "u1 spawn_reply 2 LIMIT 1 invocations of f are queued, as many "
                                    "as limits.queue allows; try again\n"));
    core_check(w->core);
}

static void a_proposal_that_is_refused_is_told_and_loses_nothing(void **state)
{
    struct world *w = warm(state);
    w->propose_code = STATUS_LIMIT;
    spawn(w, 7, "x");
    assert_non_null(strstr(w->text, "u1 spawn_reply 7 LIMIT"));
    assert_true(w->last.retry_after_ms > 0);
    w->propose_code = STATUS_OK;
    spawn(w, 8, "x");
    forget_lines(w);
    w->propose_code = STATUS_LIMIT;
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y"); /* Not committed, not acknowledged. */
    expect(w, "");
    world_run(w, 500); /* And not done over while the agent has the result. */
    expect(w, "");
    w->propose_code = STATUS_OK;
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y"); /* Sent again. */
    expect(w, "a1 ack v2.1\n");
}

static void a_failure_sent_again_is_acknowledged_once_it_is_committed(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    forget_lines(w);
    w->hold = true;
    agent_durable_result(w, 1, 2, 1, 1, STATUS_FAILED, "no");
    agent_durable_result(w, 1, 2, 1, 1, STATUS_FAILED, "no");
    expect(w, "");
    assert_int_equal(w->pending_count, 1);
    world_commit(w);
    expect(w, "a1 ack v2.1\n");
}

static void a_question_under_a_limit_is_told_so(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    forget_lines(w);
    w->propose_code = STATUS_LIMIT;
    user_outcome(w, 1, 8, 2, 0);
    assert_non_null(strstr(w->text, "u1 outcome 8 LIMIT"));
    user_admin(w, 9, "invocation.cancel", "", "function", "f");
    assert_non_null(strstr(w->text, "u1 reply 9 FAILED 0 done, 1 failed"));
    core_check(w->core);
}

static void many_stop_at_the_first_refusal(void **state)
{
    struct world *w = *state;
    spawn(w, 1, "a");
    spawn(w, 2, "b");
    spawn(w, 3, "c");
    forget_lines(w);
    w->propose_code = STATUS_LIMIT;
    user_admin(w, 9, "invocation.cancel", "", "function", "f");
    expect(w, "u1 reply 9 FAILED 0 done, 1 failed; there are more: do it again\n");
}

static void a_schedule_that_is_left_out_is_forgotten(void **state)
{
    struct world *w = *state;
    struct schedule_spec every = {.name = "tick", .cron = "@every 10s"};
    w->spec.schedules = &every;
    w->spec.schedules_count = 1;
    warm_with(w, 0);
    world_run(w, 11000);
    assert_true(jobs_last_fired(&core_catalog(w->core)->jobs, "f", "tick") > 0);
    w->spec.schedules_count = 0;
    world_deploy(w, "f", 3);
    assert_int_equal(jobs_last_fired(&core_catalog(w->core)->jobs, "f", "tick"), 0);
}

static void a_rate_is_not_used_up_by_who_may_not_start(void **state)
{
    struct world *w = *state;
    w->spec.rate_milli = 500; /* One in two seconds. */
    w->spec.rate_burst = 1;
    w->spec.concurrency = 2;
    warm_with(w, 0);
    user_admin(w, 1, "setting.set", "tenant.user1.running", "value", "1");
    spawn(w, 2, "a");
    spawn(w, 3, "b");
    world_run(w, 5000); /* The token is there again; b waits for its tenant. */
    forget_lines(w);
    const struct spawn s = payload("c");
    user_spawn(w, 2, 4, &s);
    assert_non_null(strstr(w->text, "a1 invoke v4.1 i1 c\n"));
}

static void a_function_with_queued_work_is_not_deleted(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    forget_lines(w);
    user_admin(w, 8, "function.delete", "f", NULL, NULL);
    expect(w, "u1 reply 8 CONFLICT 1 durable invocations of f have not ended; wait for them or "
              "cancel them: skep cancel --function f\n");
    user_admin(w, 9, "invocation.cancel", "", "function", "f");
    user_admin(w, 10, "function.delete", "f", NULL, NULL);
    assert_non_null(strstr(w->text, "u1 reply 10 OK"));
}

/* One function holds the whole node with a flood; another one's single spawn gets its turn. */
static void a_flood_gives_back_what_another_function_needs(void **state)
{
    struct world *w = *state;
    w->spec.cpu_millis = 500;
    deploy_with(w, 0);
    for (unsigned n = 0; n < 6; n++) {
        spawn(w, 1 + n, "flood");
    }
    world_run(w, 200);
    agent_ready(w, 1, 1);
    agent_ready(w, 1, 2);
    world_deploy(w, "g", 2);
    struct spawn s = payload("g");
    s.function = "g";
    user_spawn(w, 1, 9, &s);
    world_run(w, 200);
    forget_lines(w);
    agent_durable_result(w, 1, 1, 1, 1, STATUS_OK, "");
    world_run(w, 200);
    assert_non_null(strstr(w->text, "a1 stop i1 to make room for a function with less than its "
                                    "share\n"));
    agent_ended(w, 1, 1, STATUS_OK, "stopped");
    world_run(w, 200);
    assert_non_null(strstr(w->text, "a1 start i3 g\n"));
    core_check(w->core);
}

/* ---- Leaders and snapshots ---- */

static void a_new_leader_takes_over_what_agents_report(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    world_follow(w, "");
    forget_lines(w);
    core_role(w->core, w->now, true, WORLD_TERM + 1, "s1", "127.0.0.1:1");
    world_tick(w, 100);
    struct instance_report i = report_n(w, 1, INSTANCE_READY);
    struct attempt_report a = {.invocation = invocation_n(w, 2),
                               .attempt = 1,
                               .attempt_term = WORLD_TERM,
                               .instance = instance_n(w, 1),
                               .durable = true};
    const struct message m = {.type = MESSAGE_NODE_REGISTER,
                              .term = WORLD_TERM + 1,
                              .node_register = {.boot = 1,
                                                .cpu_millis = WORLD_CPU,
                                                .memory_bytes = WORLD_MEMORY,
                                                .instances = &i,
                                                .instances_count = 1,
                                                .attempts = &a,
                                                .attempts_count = 1}};
    core_receive(w->core, w->now, 101, &m);
    world_run(w, 1500);
    assert_null(strstr(w->text, "invoke"));
    forget_lines(w);
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    expect(w, "a1 ack v2.1\n");
}

static void a_new_leader_waits_for_reports_before_it_runs_anything_again(void **state)
{
    struct world *w = warm(state);
    spawn(w, 7, "x");
    world_follow(w, "");
    forget_lines(w);
    core_role(w->core, w->now, true, WORLD_TERM, "s1", "127.0.0.1:1");
    struct instance_report i = report_n(w, 1, INSTANCE_READY);
    const struct node_register r = {.instances = &i, .instances_count = 1};
    agent_register(w, 1, &r); /* The only node has reported: nothing runs there. */
    assert_non_null(strstr(w->text, "a1 invoke v2.2 i1 x\n"));
    core_check(w->core);
}

static void a_snapshot_holds_every_invocation(void **state)
{
    struct world *w = *state;
    warm_with(w, 3);
    struct spawn s = payload("keyed");
    s.key = "k";
    user_spawn(w, 1, 1, &s);
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "result");
    spawn(w, 2, "waits");
    agent_durable_result(w, 1, 3, 1, 1, STATUS_FAILED, "again");
    s = payload("late");
    s.delay_ms = 100000;
    user_spawn(w, 1, 3, &s);
    struct buffer whole = {0};
    world_snapshot(w, &whole);
    const struct core_config config = {0};
    struct world *other = world_new(&config);
    const struct bytes bytes = bytes_of(whole.data, whole.size);
    assert_int_equal(core_restore(other->core, other->now, bytes, NULL).code, STATUS_OK);
    assert_int_equal(catalog_digest(core_catalog(other->core)),
                     catalog_digest(core_catalog(w->core)));
    other->index = w->index;
    core_check(other->core);
    for (size_t cut = 1; cut < whole.size; cut += 7) {
        const struct bytes part = bytes_of(whole.data, whole.size - cut);
        assert_int_equal(core_restore(other->core, other->now, part, NULL).code, STATUS_CORRUPT);
    }
    buffer_close(&whole);
    void *its_state = other;
    (void)world_teardown(&its_state);
}

static void what_changes_while_a_snapshot_is_pinned_is_not_in_it(void **state)
{
    struct world *w = warm(state);
    spawn(w, 1, "x");
    struct buffer before = {0};
    world_snapshot(w, &before);
    struct core_pin *pin = core_pin(w->core);
    assert_non_null(pin);
    assert_null(core_pin(w->core));
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "y");
    spawn(w, 2, "more");
    user_on_invocation(w, 3, "dead.purge", 2);
    core_check(w->core);
    struct parts parts = {0};
    assert_int_equal(core_pin_encode(pin, &parts).code, STATUS_OK);
    core_unpin(w->core, pin);
    assert_int_equal(parts.count, 1);
    assert_true(bytes_equal(bytes_of(parts.items[0].data, parts.items[0].size),
                            bytes_of(before.data, before.size)));
    parts_close(&parts);
    buffer_close(&before);
    world_run(w, 100);
}

static void payloads_are_dropped_when_nothing_names_them(void **state)
{
    struct world *w = warm(state);
    struct spawn s = {.payload_ref = {{0xaa, 1}}, .payload_bytes = 100000};
    user_spawn(w, 1, 1, &s);
    user_spawn(w, 1, 2, &s);
    forget_lines(w);
    agent_durable_result(w, 1, 2, 1, 1, STATUS_OK, "");
    assert_null(strstr(w->text, "dropped"));
    agent_durable_result(w, 1, 3, 1, 1, STATUS_OK, "");
    assert_non_null(strstr(w->text, "dropped aa\n"));
}

#define LED(name) cmocka_unit_test_setup_teardown(name, world_setup_led, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LED(a_spawn_is_acknowledged_run_and_its_result_kept),
        LED(why_tells_where_an_invocation_is),
        LED(nothing_is_said_or_sent_before_the_commit),
        LED(whoever_waits_gets_the_outcome_when_it_comes),
        LED(a_waiter_that_leaves_is_forgotten),
        LED(an_unknown_invocation_is_not_found),
        LED(a_follower_says_where_the_leader_is),
        LED(spawns_out_of_range_are_refused),
        LED(a_key_makes_one_invocation),
        LED(a_key_lives_as_long_as_its_result),
        LED(a_failure_is_tried_again_after_its_backoff),
        LED(a_dead_letter_can_be_redriven_or_purged),
        LED(poison_is_quarantined_after_its_crashes),
        LED(an_attempt_lost_with_its_node_is_nobodys_failure),
        LED(an_instance_killed_for_another_attempt_is_nobodys_failure),
        LED(the_first_success_counts_and_later_ends_are_late),
        LED(a_success_that_comes_late_counts_while_another_attempt_runs),
        LED(a_refused_attempt_counts_for_nothing),
        LED(a_delayed_one_waits_for_its_time),
        LED(what_has_not_ended_by_its_deadline_is_dead),
        LED(what_is_too_old_is_not_done_in_a_wave),
        LED(a_cancel_ends_it_and_its_attempt),
        LED(a_schedule_fires_each_time_once),
        LED(the_urgent_goes_first),
        LED(tenants_take_turns),
        LED(a_function_runs_no_more_than_its_limit),
        LED(a_tenant_runs_and_queues_no_more_than_its_settings),
        LED(a_rate_spreads_the_starts),
        LED(a_queue_that_is_full_says_so),
        LED(a_proposal_that_is_refused_is_told_and_loses_nothing),
        LED(a_failure_sent_again_is_acknowledged_once_it_is_committed),
        LED(a_question_under_a_limit_is_told_so),
        LED(many_stop_at_the_first_refusal),
        LED(a_schedule_that_is_left_out_is_forgotten),
        LED(a_rate_is_not_used_up_by_who_may_not_start),
        LED(a_function_with_queued_work_is_not_deleted),
        LED(a_flood_gives_back_what_another_function_needs),
        LED(a_new_leader_takes_over_what_agents_report),
        LED(a_new_leader_waits_for_reports_before_it_runs_anything_again),
        LED(a_snapshot_holds_every_invocation),
        LED(what_changes_while_a_snapshot_is_pinned_is_not_in_it),
        LED(payloads_are_dropped_when_nothing_names_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/component/payloads/schedulers.h"

#include <sys/stat.h>

enum { BIG = 1 << 20, SMALL = 100 };

static struct world *world_of(void **state)
{
    return *state;
}

/* ---- Conditions ---- */

static bool core_told(void *data)
{
    return ((struct node *)data)->core_count > 0;
}

static bool client_told(void *data)
{
    return ((struct node *)data)->clients_count > 0;
}

struct at {
    struct world *w;
    struct digest d;
    bool has[NODES];
};

static bool copies_are(void *data)
{
    const struct at *at = data;
    for (size_t i = 0; i < NODES; i++) {
        if (at->w->nodes[i].up && node_has(&at->w->nodes[i], &at->d) != at->has[i]) {
            return false;
        }
    }
    return true;
}

static bool put_twice(void *data)
{
    const struct mail *mail = ((struct world *)data)->mails;
    return mail != NULL && mail->next != NULL;
}

static bool not_mute(void *data)
{
    return !((struct world *)data)->mute;
}

static bool core_told_twice(void *data)
{
    return ((struct node *)data)->core_count == 2;
}

static bool nothing_on_its_way(void *data)
{
    struct payloads_stats stats = payloads_stats(((struct node *)data)->payloads);
    return stats.storing == 0 && stats.storing_bytes == 0 && stats.loading == 0;
}

static bool one_missing(void *data)
{
    return payloads_stats(((struct node *)data)->payloads).missing == 1;
}

static bool nothing_missing(void *data)
{
    struct payloads_stats stats = payloads_stats(((struct node *)data)->payloads);
    return stats.missing == 0 && stats.fetched > 0;
}

/* ---- Messages ---- */

static void spawn(struct node *n, const char *function, struct bytes payload)
{
    const struct message m = {.type = MESSAGE_SPAWN,
                              .request = 5,
                              .spawn = {.function = function,
                                        .payload = payload,
                                        .payload_ref = {{1}},
                                        .payload_bytes = 9,
                                        .key = "k",
                                        .priority = 3}};
    payloads_receive(n->payloads, USER, &m);
}

static void result(struct node *n, uint64_t invocation, struct bytes output)
{
    const struct message m = {.type = MESSAGE_RESULT,
                              .result = {.invocation = {1, invocation},
                                         .attempt = 2,
                                         .instance = {3, 4},
                                         .message = "",
                                         .output = output,
                                         .attempt_term = 6,
                                         .durable = true}};
    payloads_receive(n->payloads, AGENT, &m);
}

static bool invoke(struct node *n, const struct digest *d, uint64_t bytes)
{
    const struct message m = {.type = MESSAGE_INVOKE,
                              .term = 6,
                              .invoke = {.invocation = {1, 2},
                                         .attempt = 2,
                                         .instance = {3, 4},
                                         .timeout_ms = 50,
                                         .durable = true,
                                         .payload_ref = *d,
                                         .payload_bytes = bytes}};
    return payloads_send(n->payloads, AGENT, &m);
}

static bool cancel(struct node *n, uint32_t attempt)
{
    const struct message m = {
        .type = MESSAGE_CANCEL,
        .term = 6,
        .cancel = {.invocation = {1, 2}, .attempt = attempt, .instance = {3, 4}, .reason = ""}};
    return payloads_send(n->payloads, AGENT, &m);
}

static bool outcome(struct node *n, const struct digest *d, uint64_t bytes)
{
    const struct message m = {.type = MESSAGE_OUTCOME,
                              .request = 8,
                              .outcome = {.message = "",
                                          .leader = "",
                                          .invocation = {1, 2},
                                          .function = "echo",
                                          .tenant = "",
                                          .state = INVOCATION_DONE,
                                          .result_message = "",
                                          .output_ref = *d,
                                          .output_bytes = bytes,
                                          .key = "",
                                          .node = "n1"}};
    return payloads_send(n->payloads, USER, &m);
}

static void expect_fed(const struct node *n, enum status_code code)
{
    const struct told *t = &n->core[0];
    assert_int_equal(n->core_count, 1);
    assert_int_equal(t->peer, AGENT);
    assert_int_equal(t->m.type, MESSAGE_RESULT);
    assert_int_equal(t->m.result.code, code);
    assert_true(t->m.result.durable);
    assert_int_equal(t->m.result.attempt, 2);
    assert_int_equal(t->m.result.attempt_term, 6);
    assert_int_equal(t->m.result.invocation.low, 2);
    assert_int_equal(t->m.result.instance.low, 4);
}

/* A restart, so that nothing is in the cache. */
static void forget_cache(struct node *n)
{
    node_stop(n);
    node_start(n);
}

/* ---- In ---- */

static void a_small_payload_goes_to_the_core_as_it_is(void **state)
{
    struct node *n = &world_of(state)->nodes[0];
    spawn(n, "echo", pattern(SPAWN_INLINE_BYTES_MAX, 1));
    assert_int_equal(n->core_count, 1);
    const struct spawn *s = &n->core[0].m.spawn;
    assert_int_equal(s->payload.size, SPAWN_INLINE_BYTES_MAX);
    assert_true(digest_is_zero(&s->payload_ref));
    assert_int_equal(s->payload_bytes, 0);
}

static void a_large_payload_is_on_a_majority_before_the_core_hears_of_it(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = pattern_digest(SPAWN_INLINE_BYTES_MAX + 1, 1);
    w->hold = true;
    spawn(n, "echo", pattern(SPAWN_INLINE_BYTES_MAX + 1, 1));
    struct at here = {w, d, {true, false, false}};
    world_until(w, copies_are, &here);
    world_rest(w);
    assert_int_equal(n->core_count, 0);
    w->hold = false;
    world_until(w, core_told, n);
    assert_true(node_has(&w->nodes[1], &d) || node_has(&w->nodes[2], &d));
    const struct message *m = &n->core[0].m;
    assert_int_equal(m->request, 5);
    assert_int_equal(m->spawn.payload.size, 0);
    assert_int_equal(digest_compare(&m->spawn.payload_ref, &d), 0);
    assert_int_equal(m->spawn.payload_bytes, SPAWN_INLINE_BYTES_MAX + 1);
    assert_string_equal(m->spawn.key, "k");
    assert_int_equal(m->spawn.priority, 3);
    struct at all = {w, d, {true, true, true}};
    world_until(w, copies_are, &all);
}

static void sensitive_payloads_stay_outside_whatever_their_size(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    spawn(n, "phi", pattern(1, 1));
    world_until(w, core_told, n);
    assert_int_equal(n->core[0].m.spawn.payload.size, 0);
    assert_int_equal(n->core[0].m.spawn.payload_bytes, 1);
    assert_false(digest_is_zero(&n->core[0].m.spawn.payload_ref));
}

static void one_scheduler_of_three_may_be_away(void **state)
{
    struct world *w = world_of(state);
    node_stop(&w->nodes[2]);
    spawn(&w->nodes[0], "echo", pattern(BIG, 1));
    world_until(w, core_told, &w->nodes[0]);
}

static void without_a_majority_the_client_is_told_to_try_again(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    node_stop(&w->nodes[1]);
    node_stop(&w->nodes[2]);
    spawn(n, "echo", pattern(BIG, 1));
    world_rest(w);
    assert_int_equal(n->clients_count, 0);
    world_skip_ms(w, PAYLOAD_SPAWN_MS);
    world_until(w, client_told, n);
    const struct message *m = &n->clients[0].m;
    assert_int_equal(m->type, MESSAGE_SPAWN_REPLY);
    assert_int_equal(m->request, 5);
    assert_int_equal(m->spawn_reply.code, STATUS_UNAVAILABLE);
    assert_int_equal(m->spawn_reply.retry_after_ms, PAYLOAD_RETRY_MS);
    assert_non_null(strstr(m->spawn_reply.message, "1 of the 2 schedulers"));
    assert_int_equal(n->core_count, 0);
}

static void a_scheduler_without_a_vote_does_not_count(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = pattern_digest(BIG, 1);
    w->voter[1] = false; /* two voters: both must have it */
    node_stop(&w->nodes[2]);
    spawn(n, "echo", pattern(BIG, 1));
    struct at both = {w, d, {true, true, false}};
    world_until(w, copies_are, &both);
    world_rest(w);
    assert_int_equal(n->core_count, 0);
    node_start(&w->nodes[2]);
    world_until(w, core_told, n);
}

static void a_put_lost_with_its_connection_is_sent_again(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    w->hold = true;
    spawn(n, "echo", pattern(BIG, 1));
    world_until(w, put_twice, w);
    node_stop(&w->nodes[1]);
    node_stop(&w->nodes[2]);
    w->hold = false;
    world_rest(w);
    assert_int_equal(n->core_count, 0);
    node_start(&w->nodes[1]);
    world_until(w, core_told, n);
}

static void the_core_is_not_told_when_the_client_is_gone(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    spawn(n, "echo", pattern(BIG, 1));
    w->user_gone = true;
    world_until(w, nothing_on_its_way, n);
    assert_int_equal(n->core_count, 0);
    assert_int_equal(n->clients_count, 0);
}

static void a_follower_stores_nothing_and_lets_the_core_answer(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[1];
    spawn(n, "echo", pattern(BIG, 1));
    assert_int_equal(n->core_count, 1);
    assert_true(digest_is_zero(&n->core[0].m.spawn.payload_ref));
    world_rest(w);
    assert_int_equal(payloads_stats(n->payloads).count, 0);
}

static void losing_the_lead_meanwhile_is_said(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    w->hold = true;
    spawn(n, "echo", pattern(BIG, 1));
    n->leader = false;
    world_until(w, client_told, n);
    assert_int_equal(n->clients[0].m.spawn_reply.code, STATUS_NOT_LEADER);
    assert_string_equal(n->clients[0].m.spawn_reply.leader, "leader:1");
}

static void more_than_four_mebibytes_are_refused(void **state)
{
    struct node *n = &world_of(state)->nodes[0];
    spawn(n, "echo", pattern(PAYLOAD_BYTES_MAX + 1, 1));
    assert_int_equal(n->clients_count, 1);
    assert_int_equal(n->clients[0].m.spawn_reply.code, STATUS_LIMIT);
    assert_non_null(strstr(n->clients[0].m.spawn_reply.message, "4 MiB"));
    assert_int_equal(n->core_count, 0);
}

static void four_mebibytes_are_taken(void **state)
{
    struct world *w = world_of(state);
    spawn(&w->nodes[0], "echo", pattern(PAYLOAD_BYTES_MAX, 1));
    world_until(w, core_told, &w->nodes[0]);
    assert_int_equal(w->nodes[0].core[0].m.spawn.payload_bytes, PAYLOAD_BYTES_MAX);
}

static void an_unknown_function_costs_no_disk(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    spawn(n, "nobody", pattern(BIG, 1));
    assert_int_equal(n->clients[0].m.spawn_reply.code, STATUS_NOT_FOUND);
    world_rest(w);
    assert_int_equal(payloads_stats(n->payloads).count, 0);
}

static void a_full_store_here_is_a_limit(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    node_stop(n);
    n->store_config.bytes_max = 1000;
    node_start(n);
    spawn(n, "echo", pattern(BIG, 1));
    world_until(w, client_told, n);
    assert_int_equal(n->clients[0].m.spawn_reply.code, STATUS_LIMIT);
    assert_non_null(strstr(n->clients[0].m.spawn_reply.message, "limits.payloads"));
    assert_int_equal(n->core_count, 0);
}

static void full_stores_at_the_others_are_a_limit_at_once(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    for (size_t i = 1; i < NODES; i++) {
        node_stop(&w->nodes[i]);
        w->nodes[i].store_config.bytes_max = 1000;
        node_start(&w->nodes[i]);
    }
    spawn(n, "echo", pattern(BIG, 1));
    world_until(w, client_told, n);
    assert_int_equal(n->clients[0].m.spawn_reply.code, STATUS_LIMIT);
}

static void too_many_on_their_way_are_a_limit_with_a_hint(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    w->hold = true;
    for (unsigned i = 0; i <= PAYLOAD_JOB_BYTES_MAX / 2 / PAYLOAD_BYTES_MAX; i++) {
        spawn(n, "echo", pattern(PAYLOAD_BYTES_MAX, 1));
    }
    assert_int_equal(n->clients_count, 1);
    assert_int_equal(n->clients[0].m.spawn_reply.code, STATUS_LIMIT);
    assert_int_equal(n->clients[0].m.spawn_reply.retry_after_ms, PAYLOAD_RETRY_MS);
    w->user_gone = true;
    world_until(w, nothing_on_its_way, n);
}

static void a_large_output_is_named_in_the_result(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = pattern_digest(BIG, 2);
    result(n, 1, pattern(BIG, 2));
    world_until(w, core_told, n);
    const struct result *r = &n->core[0].m.result;
    assert_int_equal(n->core[0].peer, AGENT);
    assert_int_equal(r->output.size, 0);
    assert_int_equal(digest_compare(&r->output_ref, &d), 0);
    assert_int_equal(r->output_bytes, BIG);
    assert_int_equal(r->attempt_term, 6);
}

static void outputs_of_sensitive_invocations_stay_outside(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    result(n, 1, pattern(SMALL, 2));
    assert_int_equal(n->core[0].m.result.output.size, SMALL);
    result(n, 7, pattern(SMALL, 2));
    assert_int_equal(n->core_count, 1);
    struct digest d = pattern_digest(SMALL, 2);
    struct at all = {w, d, {true, true, true}};
    world_until(w, copies_are, &all);
    world_until(w, core_told_twice, n);
    assert_int_equal(n->core[1].m.result.output.size, 0);
    assert_int_equal(n->core[1].m.result.output_bytes, SMALL);
}

static void an_output_that_finds_no_majority_waits_for_its_agent(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    node_stop(&w->nodes[1]);
    node_stop(&w->nodes[2]);
    result(n, 1, pattern(BIG, 2));
    result(n, 1, pattern(BIG, 2));
    assert_int_equal(payloads_stats(n->payloads).storing, 1);
    world_rest(w);
    world_skip_ms(w, PAYLOAD_RESULT_MS);
    world_until(w, nothing_on_its_way, n);
    assert_int_equal(n->core_count, 0);
    node_start(&w->nodes[1]);
    result(n, 1, pattern(BIG, 2));
    world_until(w, core_told, n);
    assert_int_equal(n->core[0].m.result.output_bytes, BIG);
}

static void an_output_over_four_mebibytes_fails_its_attempt(void **state)
{
    struct node *n = &world_of(state)->nodes[0];
    result(n, 1, pattern(PAYLOAD_BYTES_MAX + 1, 2));
    assert_int_equal(n->core[0].m.result.code, STATUS_FAILED);
    assert_int_equal(n->core[0].m.result.output.size, 0);
}

/* ---- Out ---- */

static void an_invoke_gets_its_payload_from_the_disk(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(n, BIG, 3);
    assert_true(invoke(n, &d, BIG));
    world_until(w, client_told, n);
    const struct message *m = &n->clients[0].m;
    assert_int_equal(n->clients[0].peer, AGENT);
    assert_int_equal(m->type, MESSAGE_INVOKE);
    assert_int_equal(m->term, 6);
    assert_true(bytes_equal(m->invoke.payload, pattern(BIG, 3)));
    assert_true(digest_is_zero(&m->invoke.payload_ref));
    assert_int_equal(m->invoke.timeout_ms, 50);
    assert_true(m->invoke.durable);
}

static void messages_without_a_payload_pass(void **state)
{
    struct node *n = &world_of(state)->nodes[0];
    const struct digest none = {{0}};
    assert_false(invoke(n, &none, 0));
    assert_false(outcome(n, &none, 0));
    assert_false(cancel(n, 2));
}

static void a_payload_that_is_not_here_is_fetched_and_kept(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(&w->nodes[2], BIG, 3);
    world_name(w, &d);
    assert_true(invoke(n, &d, BIG));
    world_until(w, client_told, n);
    assert_true(bytes_equal(n->clients[0].m.invoke.payload, pattern(BIG, 3)));
    struct at here = {w, d, {true, true, true}};
    world_skip_ms(w, 2000); /* the other one looks for it by then */
    world_until(w, copies_are, &here);
}

static void bytes_that_are_not_the_payload_are_refused(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(&w->nodes[1], BIG, 3);
    (void)node_put(&w->nodes[2], BIG, 3);
    w->lie = true; /* the one that is asked first does, whichever that is */
    assert_true(invoke(n, &d, BIG));
    world_until(w, client_told, n);
    assert_false(w->lie);
    assert_true(bytes_equal(n->clients[0].m.invoke.payload, pattern(BIG, 3)));
}

static bool mail_waits(void *data)
{
    return ((struct world *)data)->mails != NULL;
}

static void a_busy_scheduler_is_asked_again(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0], *busy = &w->nodes[1];
    struct digest d = node_put(busy, BIG, 3);
    assert_true(invoke(busy, &d, BIG));
    world_until(w, client_told, busy); /* It is in the cache. */
    busy->queued = PAYLOAD_ROOM_BYTES;
    assert_true(invoke(n, &d, BIG));
    world_rest(w);
    assert_int_equal(n->clients_count, 0);
    forget_cache(busy);
    world_rest(w);
    assert_int_equal(n->clients_count, 0);
    assert_int_equal(n->core_count, 0);
    busy->queued = 0;
    world_until(w, client_told, n);
}

static void a_busy_scheduler_is_not_waited_for_without_end(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(&w->nodes[1], BIG, 3);
    w->nodes[1].queued = PAYLOAD_ROOM_BYTES;
    assert_true(invoke(n, &d, BIG));
    world_rest(w);
    world_skip_ms(w, PAYLOAD_LOAD_MS);
    world_until(w, core_told, n);
    expect_fed(n, STATUS_UNAVAILABLE);
    world_until(w, one_missing, n); /* The fetch has ended. */
}

static void a_payload_that_was_read_for_a_full_link_is_not_sent(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[1];
    struct digest d = node_put(n, BIG, 3);
    const struct message get = {
        .type = MESSAGE_PAYLOAD_GET, .request = 4, .payload_get = {.digest = d}};
    w->hold = true;
    payloads_receive(n->payloads, NODE, &get);
    n->queued = PAYLOAD_ROOM_BYTES;
    world_until(w, mail_waits, w);
    assert_true(w->mails->bytes.size < BIG);
}

static void a_damaged_payload_is_mended_from_another(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    char hex[DIGEST_STRING_BYTES], path[2 * PATH_BYTES];
    struct digest d = node_put(n, BIG, 3);
    (void)node_put(&w->nodes[1], BIG, 3);
    digest_format(&d, hex);
    (void)snprintf(path, sizeof path, "%s/%.2s/%s", n->path, hex, hex + 2);
    assert_int_equal(truncate(path, 5), 0);
    assert_true(invoke(n, &d, BIG));
    world_until(w, client_told, n);
    assert_true(bytes_equal(n->clients[0].m.invoke.payload, pattern(BIG, 3)));
    struct at both = {w, d, {true, true, false}};
    world_until(w, copies_are, &both);
    assert_int_equal(payloads_stats(n->payloads).corrupt, 1);
}

static void an_input_that_nobody_has_ends_the_attempt(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = pattern_digest(BIG, 3);
    assert_true(invoke(n, &d, BIG));
    assert_int_equal(n->core_count, 0);
    world_until(w, core_told, n);
    expect_fed(n, STATUS_UNAVAILABLE);
    assert_int_equal(n->clients_count, 0);
}

static void a_silent_scheduler_is_given_up(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(&w->nodes[1], BIG, 3);
    (void)node_put(&w->nodes[2], BIG, 3);
    w->mute = true; /* the one that is asked first never answers */
    assert_true(invoke(n, &d, BIG));
    world_until(w, not_mute, w);
    world_rest(w);
    assert_int_equal(n->clients_count, 0);
    world_skip_ms(w, PAYLOAD_ASK_MS);
    world_until(w, client_told, n);
    assert_true(bytes_equal(n->clients[0].m.invoke.payload, pattern(BIG, 3)));
}

static void a_payload_that_does_not_come_in_time_ends_the_attempt(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = pattern_digest(BIG, 3);
    w->hold = true;
    assert_true(invoke(n, &d, BIG));
    world_rest(w);
    assert_int_equal(n->core_count, 0);
    world_skip_ms(w, PAYLOAD_LOAD_MS);
    world_until(w, core_told, n);
    expect_fed(n, STATUS_UNAVAILABLE);
}

static void a_cancel_that_overtakes_its_invoke_drops_it(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(n, BIG, 3);
    assert_true(invoke(n, &d, BIG));
    assert_false(cancel(n, 1)); /* another attempt's */
    assert_true(cancel(n, 2));
    assert_int_equal(n->core_count, 0); /* never from inside */
    world_until(w, core_told, n);
    world_rest(w);
    expect_fed(n, STATUS_CANCELED);
    assert_int_equal(n->clients_count, 0);
    assert_false(cancel(n, 2));
}

static void an_agent_that_reads_slowly_is_waited_for(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(n, BIG, 3);
    n->queued = PAYLOAD_ROOM_BYTES;
    assert_true(invoke(n, &d, BIG));
    world_rest(w);
    assert_int_equal(n->clients_count, 0);
    n->queued = 0;
    world_until(w, client_told, n);
}

static void an_agent_that_left_is_sent_nothing(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(n, BIG, 3);
    assert_true(invoke(n, &d, BIG));
    w->agent_gone = true;
    world_until(w, nothing_on_its_way, n);
    assert_int_equal(n->clients_count, 0);
    assert_int_equal(n->core_count, 0);
}

static void an_outcome_gets_its_output(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(n, BIG, 3);
    assert_true(outcome(n, &d, BIG));
    world_until(w, client_told, n);
    const struct message *m = &n->clients[0].m;
    assert_int_equal(m->type, MESSAGE_OUTCOME);
    assert_int_equal(m->request, 8);
    assert_int_equal(m->outcome.code, STATUS_OK);
    assert_true(bytes_equal(m->outcome.output, pattern(BIG, 3)));
    assert_string_equal(m->outcome.node, "n1");
}

static void an_output_that_nobody_has_is_said(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = pattern_digest(BIG, 3);
    assert_true(outcome(n, &d, BIG));
    world_until(w, client_told, n);
    assert_int_equal(n->clients[0].m.outcome.code, STATUS_UNAVAILABLE);
    assert_int_equal(n->clients[0].m.outcome.state, INVOCATION_DONE);
    assert_int_equal(n->core_count, 0);
}

/* ---- Kept ---- */

static void dropped_payloads_go_everywhere(void **state)
{
    struct world *w = world_of(state);
    struct digest d = pattern_digest(BIG, 4);
    spawn(&w->nodes[0], "echo", pattern(BIG, 4));
    struct at all = {w, d, {true, true, true}}, none = {w, d, {false, false, false}};
    world_until(w, copies_are, &all);
    world_until(w, core_told, &w->nodes[0]);
    world_name(w, &d);
    world_rest(w);
    world_drop(w, &d);
    world_rest(w);
    assert_true(copies_are(&all));
    world_skip_ms(w, 6000);
    world_until(w, copies_are, &none);
}

static void a_payload_put_for_a_command_to_come_is_not_deleted(void **state)
{
    struct world *w = world_of(state);
    struct digest d = pattern_digest(BIG, 4);
    world_name(w, &d); /* by an older invocation */
    spawn(&w->nodes[0], "echo", pattern(BIG, 4));
    struct at all = {w, d, {true, true, true}};
    world_until(w, copies_are, &all);
    world_until(w, core_told, &w->nodes[0]);
    world_drop(w, &d);
    world_skip_ms(w, 10000);
    world_rest(w);
    assert_true(copies_are(&all));
    world_name(w, &d);
    world_skip_ms(w, 10000);
    world_rest(w);
    assert_true(copies_are(&all));
}

static void a_payload_named_again_is_not_deleted(void **state)
{
    struct world *w = world_of(state);
    struct digest d = node_put(&w->nodes[0], BIG, 4);
    world_name(w, &d);
    world_drop(w, &d);
    world_name(w, &d);
    world_skip_ms(w, 10000);
    world_rest(w);
    assert_true(node_has(&w->nodes[0], &d));
}

static void nothing_is_deleted_before_the_log_is_applied(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest d = node_put(n, BIG, 4);
    n->settled = false;
    payloads_dropped(n->payloads, &d);
    world_skip_ms(w, 100000);
    world_rest(w);
    assert_true(node_has(n, &d));
    n->settled = true;
    world_rest(w);
    assert_true(node_has(n, &d));
    world_skip_ms(w, 6000);
    struct at gone = {w, d, {false, false, false}};
    world_until(w, copies_are, &gone);
}

static void set_age(const struct node *n, const struct digest *d, time_t age_s)
{
    char hex[DIGEST_STRING_BYTES], path[2 * PATH_BYTES];
    const struct timespec then = {.tv_sec = time(NULL) - age_s};
    const struct timespec times[2] = {then, then};
    digest_format(d, hex);
    (void)snprintf(path, sizeof path, "%s/%.2s/%s", n->path, hex, hex + 2);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void old_payloads_that_nothing_names_go_and_young_ones_stay(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest old = node_put(n, BIG, 5), young = node_put(n, BIG, 6),
                  named = node_put(n, BIG, 7);
    set_age(n, &old, 3600);
    set_age(n, &named, 3600);
    world_name(w, &named);
    forget_cache(n);
    world_rest(w);
    assert_true(node_has(n, &old));
    world_skip_ms(w, 100000); /* Only now it has followed for long enough. */
    struct at gone = {w, old, {false, false, false}};
    world_until(w, copies_are, &gone);
    world_rest(w);
    assert_true(node_has(n, &young));
    assert_true(node_has(n, &named));
}

static void an_emptied_store_is_filled_again(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[2];
    struct errmsg msg = {""};
    struct digest d[8];
    for (uint8_t i = 0; i < 8; i++) {
        d[i] = node_put(&w->nodes[i % 2], BIG, (uint8_t)(10 + i));
        world_name(w, &d[i]);
    }
    node_stop(n);
    assert_true(status_is_ok(package_remove(n->path, &msg)));
    node_start(n);
    world_until(w, nothing_missing, n);
    for (size_t i = 0; i < 8; i++) {
        assert_true(node_has(n, &d[i]));
    }
}

static void what_nobody_has_counts_as_missing(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[1];
    struct digest d = pattern_digest(BIG, 9);
    world_name(w, &d);
    forget_cache(n);
    world_until(w, one_missing, n);
    world_skip_ms(w, 60000);
    world_rest(w);
    assert_true(one_missing(n));
    world_drop(w, &d);
    assert_int_equal(payloads_stats(n->payloads).missing, 0);
}

static void a_replaced_state_is_compared_anew(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[2];
    struct digest d = node_put(&w->nodes[0], BIG, 11);
    world_rest(w);
    n->named[n->named_count++] = d;
    payloads_restored(n->payloads);
    struct at at = {w, d, {true, false, true}};
    world_until(w, copies_are, &at);
}

static void deletions_that_were_not_synced_stay_to_be_synced(void **state)
{
    struct node *n = &world_of(state)->nodes[0];
    struct errmsg msg = {""};
    struct digest d = node_put(n, SMALL, 3);
    char hex[DIGEST_STRING_BYTES], fan[2 * PATH_BYTES], away[2 * PATH_BYTES];
    digest_format(&d, hex);
    (void)snprintf(fan, sizeof fan, "%s/%.2s", n->path, hex);
    (void)snprintf(away, sizeof away, "%s/away", n->path);
    assert_true(status_is_ok(payload_store_delete(n->store, &d, &msg)));
    assert_int_equal(rename(fan, away), 0);
    assert_int_equal(mknod(fan, S_IFREG | 0600, 0), 0);
    assert_false(status_is_ok(payload_store_sync(n->store, &msg)));
    assert_false(status_is_ok(payload_store_sync(n->store, &msg)));
    assert_int_equal(unlink(fan), 0);
    assert_int_equal(rename(away, fan), 0);
    assert_true(status_is_ok(payload_store_sync(n->store, &msg)));
}

/* ---- Ends ---- */

static void stopping_in_the_middle_of_everything_leaves_nothing(void **state)
{
    struct world *w = world_of(state);
    struct node *n = &w->nodes[0];
    struct digest here = node_put(n, BIG, 12), there = node_put(&w->nodes[1], BIG, 13);
    world_name(w, &there);
    world_rest(w);
    payloads_dropped(n->payloads, &here);
    world_skip_ms(w, 10000);
    payloads_tick(n->payloads);
    for (uint8_t i = 0; i < 20; i++) {
        spawn(n, "echo", pattern(BIG, i));
        result(n, 1, pattern(BIG, (uint8_t)(100 + i)));
    }
    assert_true(invoke(n, &there, BIG));
    assert_true(outcome(n, &here, BIG));
    node_stop(n);
    assert_int_equal(n->clients_count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_small_payload_goes_to_the_core_as_it_is),
        TEST(a_large_payload_is_on_a_majority_before_the_core_hears_of_it),
        TEST(sensitive_payloads_stay_outside_whatever_their_size),
        TEST(one_scheduler_of_three_may_be_away),
        TEST(without_a_majority_the_client_is_told_to_try_again),
        TEST(a_scheduler_without_a_vote_does_not_count),
        TEST(a_put_lost_with_its_connection_is_sent_again),
        TEST(the_core_is_not_told_when_the_client_is_gone),
        TEST(a_follower_stores_nothing_and_lets_the_core_answer),
        TEST(losing_the_lead_meanwhile_is_said),
        TEST(more_than_four_mebibytes_are_refused),
        TEST(four_mebibytes_are_taken),
        TEST(an_unknown_function_costs_no_disk),
        TEST(a_full_store_here_is_a_limit),
        TEST(full_stores_at_the_others_are_a_limit_at_once),
        TEST(too_many_on_their_way_are_a_limit_with_a_hint),
        TEST(a_large_output_is_named_in_the_result),
        TEST(outputs_of_sensitive_invocations_stay_outside),
        TEST(an_output_that_finds_no_majority_waits_for_its_agent),
        TEST(an_output_over_four_mebibytes_fails_its_attempt),
        TEST(an_invoke_gets_its_payload_from_the_disk),
        TEST(messages_without_a_payload_pass),
        TEST(a_payload_that_is_not_here_is_fetched_and_kept),
        TEST(bytes_that_are_not_the_payload_are_refused),
        TEST(a_busy_scheduler_is_asked_again),
        TEST(a_busy_scheduler_is_not_waited_for_without_end),
        TEST(a_payload_that_was_read_for_a_full_link_is_not_sent),
        TEST(a_damaged_payload_is_mended_from_another),
        TEST(an_input_that_nobody_has_ends_the_attempt),
        TEST(a_silent_scheduler_is_given_up),
        TEST(a_payload_that_does_not_come_in_time_ends_the_attempt),
        TEST(a_cancel_that_overtakes_its_invoke_drops_it),
        TEST(an_agent_that_reads_slowly_is_waited_for),
        TEST(an_agent_that_left_is_sent_nothing),
        TEST(an_outcome_gets_its_output),
        TEST(an_output_that_nobody_has_is_said),
        TEST(dropped_payloads_go_everywhere),
        TEST(a_payload_put_for_a_command_to_come_is_not_deleted),
        TEST(a_payload_named_again_is_not_deleted),
        TEST(nothing_is_deleted_before_the_log_is_applied),
        TEST(old_payloads_that_nothing_names_go_and_young_ones_stay),
        TEST(an_emptied_store_is_filled_again),
        TEST(what_nobody_has_counts_as_missing),
        TEST(a_replaced_state_is_compared_anew),
        TEST(deletions_that_were_not_synced_stay_to_be_synced),
        TEST(stopping_in_the_middle_of_everything_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

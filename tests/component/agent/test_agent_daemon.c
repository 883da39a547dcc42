/* The agent as a process, with real cells and the C runner, against a scheduler that is a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/pki/pki.h"
#include "tests/component/agent/fake_scheduler.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void assert_output(const struct fake_result *r, const char *text)
{
    if (r->code != STATUS_OK) {
        fail_msg("%s: %s", status_name(r->code), r->message);
    }
    assert_int_equal(r->output.size, strlen(text));
    assert_memory_equal(r->output.data, text, strlen(text));
}

static void it_registers_and_beats(void **state)
{
    struct fake *f = *state;
    FAKE_UNTIL(f, f->heartbeats >= 2);
    assert_int_equal(f->registered_instances, 0);
    assert_true(f->heartbeat.memory_total_bytes > 0);
    assert_true(f->heartbeat.disk_free_bytes > 0);
}

static void an_invocation_runs_in_a_cell(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    fake_invoke(f, 1, 1, "hello", 10000);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL);
    assert_output(fake_result(f, 1), "hello");
    fake_invoke(f, 2, 1, "fail", 10000);
    FAKE_UNTIL(f, fake_result(f, 2) != NULL);
    assert_int_equal(fake_result(f, 2)->code, STATUS_FAILED);
    assert_string_equal(fake_result(f, 2)->message, "no such picture");
}

static void instances_of_one_revision_share_its_code(void **state)
{
    struct fake *f = *state;
    fake_start(f, 1, 1);
    fake_start(f, 2, 1);
    FAKE_UNTIL(f, fake_state(f, 1) == INSTANCE_READY && fake_state(f, 2) == INSTANCE_READY);
    assert_int_equal(f->chunks_given, f->chunks.count);
    fake_ready(f, 3, 1);
    assert_int_equal(f->chunks_given, f->chunks.count);
}

static void a_large_payload_crosses_in_packets(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    size_t size = 3 << 20;
    char *input = malloc(size + 1);
    memset(input, 'x', size);
    input[size] = '\0';
    fake_invoke(f, 1, 1, input, 10000);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL);
    assert_output(fake_result(f, 1), input);
    free(input);
}

static void code_that_is_lost_fails_the_start(void **state)
{
    struct fake *f = *state;
    f->chunks_lost = true;
    fake_start(f, 1, 1);
    FAKE_UNTIL(f, fake_state(f, 1) == INSTANCE_ENDED);
    assert_int_equal(fake_instance(f, 1)->code, STATUS_NOT_FOUND);
    f->chunks_lost = false;
    fake_ready(f, 2, 1);
}

static void an_ordered_stop_is_no_crash(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    fake_stop(f, 1, false);
    FAKE_UNTIL(f, fake_state(f, 1) == INSTANCE_ENDED);
    assert_int_equal(fake_instance(f, 1)->code, STATUS_OK);
}

static void a_crash_is_answered_with_its_cause(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    fake_invoke(f, 1, 1, "exit", 10000);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL && fake_state(f, 1) == INSTANCE_ENDED);
    assert_int_equal(fake_result(f, 1)->code, STATUS_CRASHED);
    assert_non_null(strstr(fake_result(f, 1)->message, "3"));
    assert_int_equal(fake_instance(f, 1)->code, STATUS_CRASHED);
}

static void a_timeout_kills_what_does_not_give_up(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    fake_invoke(f, 1, 1, "hold", 200);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL && fake_state(f, 1) == INSTANCE_ENDED);
    assert_int_equal(fake_result(f, 1)->code, STATUS_TIMEOUT);
    assert_int_equal(fake_instance(f, 1)->code, STATUS_TIMEOUT);
}

/* The agent is killed while an invocation runs; the next one knows the instance and the
 * invocation, and delivers its result. */
static void instances_and_invocations_outlive_the_agent(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 2);
    fake_invoke(f, 1, 1, "slow", 20000);
    fake_invoke(f, 2, 1, "hello", 20000);
    FAKE_UNTIL(f, fake_result(f, 2) != NULL);
    assert_null(fake_result(f, 1));
    assert_int_equal(fake_agent_end(f, SIGKILL), 128 + SIGKILL);
    FAKE_UNTIL(f, f->link == NULL);
    fake_agent_start(f);
    FAKE_UNTIL(f, f->registered);
    assert_int_equal(f->registered_instances, 1);
    assert_int_equal(fake_state(f, 1), INSTANCE_READY);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL);
    assert_output(fake_result(f, 1), "slow but done");
    fake_invoke(f, 3, 1, "again", 10000);
    FAKE_UNTIL(f, fake_result(f, 3) != NULL);
    assert_output(fake_result(f, 3), "again");
}

static void sigterm_leaves_instances_running(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    assert_int_equal(fake_agent_end(f, SIGTERM), 0);
    FAKE_UNTIL(f, f->link == NULL);
    fake_agent_start(f);
    FAKE_UNTIL(f, f->registered);
    assert_int_equal(f->registered_instances, 1);
    fake_invoke(f, 1, 1, "hello", 10000);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL);
    assert_output(fake_result(f, 1), "hello");
}

static void an_instance_that_died_meanwhile_is_not_adopted(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    assert_int_equal(fake_agent_end(f, SIGTERM), 0);
    char path[FAKE_PATH_BYTES + 32];
    (void)snprintf(path, sizeof path, "%s/data", f->folder);
    const char *const args[] = {AGENT_PROGRAM, "stop-instances", "--data", path, NULL};
    assert_int_equal(fake_agent_verb(f, args), 0);
    fake_agent_start(f);
    FAKE_UNTIL(f, f->registered);
    assert_int_equal(f->registered_instances, 0);
}

static void results_wait_for_the_next_leader(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    fake_invoke(f, 1, 1, "slow", 20000);
    fake_invoke(f, 2, 1, "busy?", 20000); /* refused: proves that the first was taken */
    FAKE_UNTIL(f, fake_result(f, 2) != NULL);
    assert_int_equal(fake_result(f, 2)->code, STATUS_LIMIT);
    f->term++;
    link_close(f->link, false, "leader changes");
    FAKE_UNTIL(f, f->registered && f->link != NULL);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL);
    assert_output(fake_result(f, 1), "slow but done");
}

static void logs_are_served_and_followed(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    fake_invoke(f, 1, 1, "print one", 10000);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL);
    fake_send(f, &(struct message){
                     .type = MESSAGE_LOGS,
                     .request = 9,
                     .logs = {.selector = "", .instance = fake_instance_id(1), .follow = true}});
    FAKE_UNTIL(f, f->log.size > 0 && memmem(f->log.data, f->log.size, "print one", 9) != NULL);
    fake_invoke(f, 2, 1, "print two", 10000);
    FAKE_UNTIL(f, memmem(f->log.data, f->log.size, "print two", 9) != NULL);
    assert_false(f->log_ended);
    fake_stop(f, 1, false);
    FAKE_UNTIL(f, f->log_ended);
    assert_int_equal(f->log_code, STATUS_OK);
}

static void logs_of_an_ended_instance_are_kept(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    fake_invoke(f, 1, 1, "print one", 10000);
    FAKE_UNTIL(f, fake_result(f, 1) != NULL);
    fake_stop(f, 1, false);
    FAKE_UNTIL(f, fake_state(f, 1) == INSTANCE_ENDED);
    fake_send(f, &(struct message){.type = MESSAGE_LOGS,
                                   .request = 9,
                                   .logs = {.selector = "", .instance = fake_instance_id(1)}});
    FAKE_UNTIL(f, f->log_ended);
    assert_non_null(memmem(f->log.data, f->log.size, "print one", 9));
}

static void metrics_are_served(void **state)
{
    struct fake *f = *state;
    fake_ready(f, 1, 1);
    fake_send(f, &(struct message){
                     .type = MESSAGE_METRICS_QUERY, .request = 9, .metrics_query = {.target = ""}});
    FAKE_UNTIL(f, f->metrics.size > 0);
    assert_non_null(
        strstr((const char *)f->metrics.data, "skep_agent_instances{state=\"ready\"} 1\n"));
    assert_non_null(strstr((const char *)f->metrics.data, "skep_agent_startup_seconds_count 1\n"));
}

static void the_certificate_is_renewed_in_time(void **state)
{
    struct fake *f = *state;
    char path[FAKE_PATH_BYTES + 16];
    fake_agent_certificate(f, 6);
    fake_agent_start(f);
    FAKE_UNTIL(f, f->renewals > 0);
    (void)snprintf(path, sizeof path, "%s/cert.pem", f->folder);
    struct identity id = {.not_after_s = 0};
    while (id.not_after_s < (int64_t)time(NULL) + 600) {
        char *pem;
        FAKE_UNTIL(f, f->heartbeats > 0);
        f->heartbeats = 0;
        assert_true(status_is_ok(pki_read(path, false, &pem, NULL)));
        assert_true(status_is_ok(pki_identity_of(pem, &id, NULL, NULL)));
        free(pem);
    }
    assert_int_equal(fake_agent_end(f, SIGTERM), 0);
    f->registered = false;
    fake_agent_start(f);
    FAKE_UNTIL(f, f->registered);
}

static void it_joins_with_a_token(void **state)
{
    struct fake *f = *state;
    char address[64];
    char *token;
    char id[SERIAL_STRING_BYTES];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", f->port);
    const char *const addresses[] = {address};
    const struct name cluster = {"test"};
    assert_true(status_is_ok(pki_token_create(f->ca_pem, f->ca_key_pem, &cluster, addresses, 1,
                                              (int64_t)time(NULL), 600, &token, id, NULL)));
    char token_file[FAKE_PATH_BYTES + 16];
    char data[FAKE_PATH_BYTES + 16];
    char config[FAKE_PATH_BYTES + 16];
    (void)snprintf(token_file, sizeof token_file, "%s/token", f->folder);
    (void)snprintf(data, sizeof data, "%s/data", f->folder);
    (void)snprintf(config, sizeof config, "%s/agent.yaml", f->folder);
    assert_true(status_is_ok(pki_write(token_file, true, token, NULL)));
    pki_key_free(token);
    const char *const args[] = {AGENT_PROGRAM, "join", "--token-file", token_file, "--name", "n7",
                                "--data",      data,   "--config-out", config,     NULL};
    assert_int_equal(fake_agent_verb(f, args), 0);
    assert_int_equal(f->joins, 2);
    fake_agent_start(f);
    FAKE_UNTIL(f, f->registered);
    assert_string_equal(link_peer(f->link)->name.text, "n7");
}

/* What a scheduler advertises may not be reachable from here: the connection that works stays. */
static void a_connection_stays_when_its_scheduler_advertises_another_address(void **state)
{
    struct fake *f = *state;
    const struct link *before = f->link;
    fake_lead(f, "s1", "127.0.0.1:9", NULL);
    f->heartbeats = 0;
    FAKE_UNTIL(f, f->heartbeats >= 2);
    assert_ptr_equal(f->link, before);
}

static void a_scheduler_that_left_the_list_is_let_go(void **state)
{
    struct fake *f = *state;
    fake_lead(f, "s2", "127.0.0.1:9", NULL);
    FAKE_UNTIL(f, f->link == NULL);
}

static void a_revoked_scheduler_is_cut_off(void **state)
{
    struct fake *f = *state;
    char address[64];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", f->port);
    fake_lead(f, "s1", address, "scheduler/s1");
    FAKE_UNTIL(f, f->link == NULL);
}

static void two_agents_do_not_share_a_folder(void **state)
{
    struct fake *f = *state;
    char config[FAKE_PATH_BYTES + 16];
    (void)snprintf(config, sizeof config, "%s/agent.yaml", f->folder);
    const char *const args[] = {AGENT_PROGRAM, "--config",  config,         "--cell",
                                CELL_PROGRAM,  "--runners", RUNNERS_FOLDER, NULL};
    assert_int_equal(fake_agent_verb(f, args), 1);
}

int main(void)
{
#define BARE(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
#define REGISTERED(test) cmocka_unit_test_setup_teardown(test, fake_setup_registered, fake_teardown)
    const struct CMUnitTest tests[] = {
        REGISTERED(it_registers_and_beats),
        REGISTERED(an_invocation_runs_in_a_cell),
        REGISTERED(instances_of_one_revision_share_its_code),
        REGISTERED(a_large_payload_crosses_in_packets),
        REGISTERED(code_that_is_lost_fails_the_start),
        REGISTERED(an_ordered_stop_is_no_crash),
        REGISTERED(a_crash_is_answered_with_its_cause),
        REGISTERED(a_timeout_kills_what_does_not_give_up),
        REGISTERED(instances_and_invocations_outlive_the_agent),
        REGISTERED(sigterm_leaves_instances_running),
        REGISTERED(an_instance_that_died_meanwhile_is_not_adopted),
        REGISTERED(results_wait_for_the_next_leader),
        REGISTERED(logs_are_served_and_followed),
        REGISTERED(logs_of_an_ended_instance_are_kept),
        REGISTERED(metrics_are_served),
        BARE(the_certificate_is_renewed_in_time),
        BARE(it_joins_with_a_token),
        REGISTERED(a_connection_stays_when_its_scheduler_advertises_another_address),
        REGISTERED(a_scheduler_that_left_the_list_is_let_go),
        REGISTERED(a_revoked_scheduler_is_cut_off),
        REGISTERED(two_agents_do_not_share_a_folder),
    };
    if (geteuid() != 0) {
        print_message("cells need root here\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

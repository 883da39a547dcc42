/* The Python runner, as an agent sees it. */
#include "tests/component/runners/common_tests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

static const char *const one_env[] = {"SKEP_CONCURRENCY=1", NULL};
static const char *const eight_env[] = {"SKEP_CONCURRENCY=8", NULL};

struct command {
    const char *argv[7];
};

static struct command command_of(const char *handler)
{
    return (struct command){
        {"/usr/bin/python3", "-I", "-B", RUNNER_PROGRAM, FUNCTIONS_FOLDER, handler, NULL}};
}

static void ready(struct harness *h, const char *handler, const char *const *env,
                  uint64_t concurrency)
{
    struct command c = command_of(handler);
    harness_ready(h, c.argv, env, concurrency);
}

/* One at a time, on threads, and on an event loop. */
#define EACH_MODE(name, check)                                                                     \
    static void name##_one(void **state)                                                           \
    {                                                                                              \
        (void)state;                                                                               \
        struct harness h;                                                                          \
        ready(&h, "functions.py:echo", one_env, 1);                                                \
        check(&h);                                                                                 \
        harness_close(&h);                                                                         \
    }                                                                                              \
    static void name##_threads(void **state)                                                       \
    {                                                                                              \
        (void)state;                                                                               \
        struct harness h;                                                                          \
        ready(&h, "functions.py:echo", eight_env, 8);                                              \
        check(&h);                                                                                 \
        harness_close(&h);                                                                         \
    }                                                                                              \
    static void name##_async(void **state)                                                         \
    {                                                                                              \
        (void)state;                                                                               \
        struct harness h;                                                                          \
        ready(&h, "functions.py:async_echo", eight_env, 8);                                        \
        check(&h);                                                                                 \
        harness_close(&h);                                                                         \
    }
#define EACH_MODE_TESTS(name)                                                                      \
    cmocka_unit_test(name##_one), cmocka_unit_test(name##_threads), cmocka_unit_test(name##_async)

static void check_stop(struct harness *h)
{
    for (uint64_t id = 1; id <= 8; id++) {
        harness_invoke(h, id, "work");
    }
    harness_send(h, RUNNER_STOP, 0, 0, NULL, 0);
    for (uint64_t id = 1; id <= 8; id++) {
        assert_int_equal(harness_receive(h)->status, STATUS_OK);
    }
    int status = harness_wait(h);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

EACH_MODE(echoes, check_echo)
EACH_MODE(takes_an_empty_input, check_empty)
EACH_MODE(moves_four_mib_both_ways, check_four_mib_both_ways)
EACH_MODE(a_first_packet_resets_the_frame, check_first_packet_resets)
EACH_MODE(ignores_malformed_packets, check_malformed_packets_are_ignored)
EACH_MODE(cancels_an_unfinished_input, check_cancel_of_an_unfinished_input)
EACH_MODE(ignores_a_frame_over_the_limit, check_frame_over_the_limit_is_ignored)
EACH_MODE(bounds_unfinished_frames, check_unfinished_frames_do_not_pile_up)
EACH_MODE(acknowledges_restored, check_restored_is_acknowledged)
EACH_MODE(sigterm_stops, check_sigterm_stops)
EACH_MODE(finishes_what_came_before_stop, check_stop)

/* One call of one function: what goes in, what comes out. */
struct call_case {
    const char *handler;
    const char *input;
    enum status_code code;
    const char *output;
};

static const struct call_case call_cases[] = {
    {"functions.py:same", "{\"a\": [1, 2.5, null, \"\\u00e9\"]}", STATUS_OK,
     "{\"a\":[1,2.5,null,\"\xc3\xa9\"]}"},
    {"functions.py:same", "not json", STATUS_OK, "not json"},
    {"functions.py:same", "", STATUS_OK, "null"},
    {"functions.py:kind", "not json", STATUS_OK, "\"bytes\""},
    {"functions.py:kind", "[1]", STATUS_OK, "\"list\""},
    {"functions.py:echo", "[1,  2]", STATUS_OK, "[1,  2]"},
    {"functions.py:nothing", "1", STATUS_OK, "\"called\""},
    {"functions.py:about", "1", STATUS_OK, "[1,true,false]"},
    {"functions.py:about_by_name", "1", STATUS_OK, "[2,1]"},
    {"functions.py:wrapped", "1", STATUS_OK, "\"bytes 1\""},
    {"functions.py:thing.method", "1", STATUS_OK, "[\"method\",1]"},
    {"functions.py:Thing.fixed", "1", STATUS_OK, "[\"fixed\",1]"},
    {"json.py:named", "1", STATUS_OK, "\"json.py\""},
    {"functions.py:leaves", "1", STATUS_FAILED,
     "SystemExit: 3\n  functions.py:54 in leaves: sys.exit(3)"},
    {"functions.py:unfit", "1", STATUS_FAILED,
     "the result is neither bytes nor JSON: Object of type object is not JSON serializable"},
    {"functions.py:too_much", "1", STATUS_LIMIT,
     "the output of 4194305 bytes is over the limit of 4194304 bytes"},
};

static void calls_functions_of_many_shapes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof call_cases / sizeof call_cases[0]; i++) {
        const struct call_case *c = &call_cases[i];
        struct harness h;
        ready(&h, c->handler, one_env, 1);
        harness_invoke(&h, 1, c->input);
        harness_expect(&h, 1, c->code, c->output);
        harness_stop(&h);
    }
}

static void an_exception_says_what_and_where(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:fails_deep", one_env, 1);
    harness_invoke(&h, 1, "1");
    harness_expect(&h, 1, STATUS_FAILED,
                   "KeyError: 'deep'\n  functions.py:50 in fails_deep: inner()\n"
                   "  functions.py:46 in inner: raise KeyError(\"deep\")");
    harness_expect_log(&h, "Traceback (most recent call last)");
    harness_stop(&h);
}

static void what_it_prints_is_in_the_log(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:fails", one_env, 1);
    harness_invoke(&h, 1, "1");
    harness_expect_prefix(&h, 1, STATUS_FAILED, "ValueError: no such thing\n");
    harness_expect_log(&h, "about to fail\n");
    harness_stop(&h);
}

static void an_async_exception_fails_the_invocation(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:async_fails", one_env, 1);
    harness_invoke(&h, 1, "1");
    harness_expect_prefix(&h, 1, STATUS_FAILED, "ValueError: no such thing\n  functions.py:");
    harness_stop(&h);
}

static void a_crash_ends_the_process(void **state)
{
    (void)state;
    static const char *const handlers[] = {"functions.py:crashes", "functions.py:dies"};
    for (int i = 0; i < 2; i++) {
        struct harness h;
        ready(&h, handlers[i], one_env, 1);
        harness_invoke(&h, 1, "1");
        assert_true(harness_wait(&h) != 0);
        harness_close(&h);
    }
}

static void meet(const char *handler)
{
    struct harness h;
    ready(&h, handler, eight_env, 8);
    for (uint64_t id = 1; id <= 8; id++) {
        harness_invoke(&h, id, "1");
    }
    for (uint64_t id = 1; id <= 8; id++) {
        const struct runner_frame *f = harness_receive(&h);
        assert_int_equal(f->status, STATUS_OK);
        assert_true(bytes_equal(f->data, bytes_of("\"met\"", 5)));
    }
    harness_stop(&h);
}

static void threads_run_at_once(void **state)
{
    (void)state;
    meet("functions.py:meets");
}

static void coroutines_run_at_once(void **state)
{
    (void)state;
    meet("functions.py:async_meets");
}

static void cancel_is_seen_by_a_thread(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:waits", eight_env, 8);
    harness_invoke(&h, 5, "1");
    harness_expect_log(&h, "waiting");
    harness_send(&h, RUNNER_CANCEL, 5, 0, NULL, 0);
    harness_expect(&h, 5, STATUS_OK, "\"gave up\"");
    harness_stop(&h);
}

static void cancel_ends_a_coroutine(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:async_waits", eight_env, 8);
    harness_invoke(&h, 5, "1");
    harness_expect_log(&h, "waiting");
    harness_send(&h, RUNNER_CANCEL, 5, 0, NULL, 0);
    harness_expect(&h, 5, STATUS_CANCELED, "canceled");
    harness_invoke(&h, 6, "1");
    harness_send(&h, RUNNER_CANCEL, 6, 0, NULL, 0);
    harness_expect_prefix(&h, 6, STATUS_CANCELED, "canceled");
    harness_stop(&h);
}

static void the_deadline_ends_a_coroutine(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:async_waits", eight_env, 8);
    harness_send(&h, RUNNER_INVOKE, 5, 50, "1", 1);
    harness_expect_prefix(&h, 5, STATUS_TIMEOUT, "");
    harness_stop(&h);
}

static void refuses_more_than_it_offered(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:async_waits", eight_env, 8);
    for (uint64_t id = 1; id <= 9; id++) {
        harness_invoke(&h, id, "1");
    }
    harness_expect_prefix(&h, 9, STATUS_LIMIT, "more invocations");
    for (uint64_t id = 1; id <= 8; id++) {
        harness_send(&h, RUNNER_CANCEL, id, 0, NULL, 0);
        harness_expect_prefix(&h, id, STATUS_CANCELED, "canceled");
    }
    harness_stop(&h);
}

static void a_result_makes_room_at_once(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:echo", eight_env, 8);
    uint64_t id = 1;
    while (id <= 8) {
        harness_invoke(&h, id++, "x");
    }
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(harness_receive(&h)->status, STATUS_OK);
        harness_invoke(&h, id++, "x");
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(harness_receive(&h)->status, STATUS_OK);
    }
    harness_stop(&h);
}

static void restored_changes_random_numbers(void **state)
{
    (void)state;
    char drawn[3][32];
    static const uint8_t seeds[3] = {1, 2, 1};
    for (int i = 0; i < 3; i++) {
        struct harness h;
        ready(&h, "functions.py:draws", one_env, 1);
        uint8_t entropy[48] = {seeds[i]};
        entropy[47] = 7;
        harness_send(&h, RUNNER_RESTORED, 1, 123, entropy, sizeof entropy);
        assert_int_equal(harness_receive(&h)->status, STATUS_OK);
        harness_expect_log(&h, "restored with 7 at 123");
        harness_invoke(&h, 2, "1");
        const struct runner_frame *f = harness_receive(&h);
        (void)snprintf(drawn[i], sizeof drawn[i], "%.*s", (int)f->data.size,
                       (const char *)f->data.data);
        harness_stop(&h);
    }
    assert_string_not_equal(drawn[0], drawn[1]);
    assert_string_equal(drawn[0], drawn[2]);
}

/* A function that cannot be loaded: the exit code and the words in the log. */
static void expect_load_failure(const char *handler, const char *log)
{
    struct harness h;
    struct command c = command_of(handler);
    harness_start(&h, c.argv, one_env);
    int status = harness_wait(&h);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    harness_expect_log(&h, log);
    harness_close(&h);
}

static void says_why_it_cannot_load(void **state)
{
    (void)state;
    expect_load_failure("absent.py:f", "no file absent.py in the code");
    expect_load_failure("functions.py:absent", "functions.py has no function absent");
    expect_load_failure("functions.py:MET", "functions.py has no function MET");
    expect_load_failure("broken.py:never", "No module named 'no_such_module'");
    expect_load_failure("stops.py:never", "SystemExit: not today");
    expect_load_failure("../functions/functions.py:echo", "is not inside the code");
    expect_load_failure("functions.py", "is not FILE.py:FUNCTION");
}

static void parks_when_a_snapshot_is_wanted(void **state)
{
    (void)state;
    struct harness h;
    static const char *const env[] = {"SKEP_CONCURRENCY=8", "SKEP_SNAPSHOT=memory", NULL};
    ready(&h, "functions.py:echo", env, 8);
    assert_int_equal(harness_receive(&h)->type, RUNNER_PARK);
    harness_stop(&h);
}

static void the_end_of_the_channel_ends_it(void **state)
{
    (void)state;
    struct harness h;
    ready(&h, "functions.py:echo", one_env, 1);
    (void)shutdown(h.fd, SHUT_WR);
    assert_true(WIFEXITED(harness_wait(&h)));
    harness_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_MODE_TESTS(echoes),
        EACH_MODE_TESTS(takes_an_empty_input),
        EACH_MODE_TESTS(moves_four_mib_both_ways),
        EACH_MODE_TESTS(a_first_packet_resets_the_frame),
        EACH_MODE_TESTS(ignores_malformed_packets),
        EACH_MODE_TESTS(cancels_an_unfinished_input),
        EACH_MODE_TESTS(ignores_a_frame_over_the_limit),
        EACH_MODE_TESTS(bounds_unfinished_frames),
        EACH_MODE_TESTS(acknowledges_restored),
        EACH_MODE_TESTS(sigterm_stops),
        EACH_MODE_TESTS(finishes_what_came_before_stop),
        cmocka_unit_test(calls_functions_of_many_shapes),
        cmocka_unit_test(an_exception_says_what_and_where),
        cmocka_unit_test(what_it_prints_is_in_the_log),
        cmocka_unit_test(an_async_exception_fails_the_invocation),
        cmocka_unit_test(a_crash_ends_the_process),
        cmocka_unit_test(threads_run_at_once),
        cmocka_unit_test(coroutines_run_at_once),
        cmocka_unit_test(cancel_is_seen_by_a_thread),
        cmocka_unit_test(cancel_ends_a_coroutine),
        cmocka_unit_test(the_deadline_ends_a_coroutine),
        cmocka_unit_test(refuses_more_than_it_offered),
        cmocka_unit_test(a_result_makes_room_at_once),
        cmocka_unit_test(restored_changes_random_numbers),
        cmocka_unit_test(says_why_it_cannot_load),
        cmocka_unit_test(parks_when_a_snapshot_is_wanted),
        cmocka_unit_test(the_end_of_the_channel_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

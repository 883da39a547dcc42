/* libskep_runner, as an agent sees it. */
#include "tests/component/runners/common_tests.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

static const char *const plain[] = {FUNCTION_PROGRAM, NULL};
static const char *const inlined[] = {FUNCTION_PROGRAM, "inline", NULL};
static const char *const one_env[] = {"SKEP_CONCURRENCY=1", NULL};
static const char *const eight_env[] = {"SKEP_CONCURRENCY=8", NULL};
static const char *const many_env[] = {"SKEP_CONCURRENCY=64", NULL};

/* The three ways to run: one at a time, threads, inline. */
#define EACH_MODE(name, check)                                                                     \
    static void name##_one(void **state)                                                           \
    {                                                                                              \
        (void)state;                                                                               \
        struct harness h;                                                                          \
        harness_ready(&h, plain, one_env, 1);                                                      \
        check(&h);                                                                                 \
        harness_close(&h);                                                                         \
    }                                                                                              \
    static void name##_threads(void **state)                                                       \
    {                                                                                              \
        (void)state;                                                                               \
        struct harness h;                                                                          \
        harness_ready(&h, plain, eight_env, 8);                                                    \
        check(&h);                                                                                 \
        harness_close(&h);                                                                         \
    }                                                                                              \
    static void name##_inline(void **state)                                                        \
    {                                                                                              \
        (void)state;                                                                               \
        struct harness h;                                                                          \
        harness_ready(&h, inlined, many_env, 64);                                                  \
        check(&h);                                                                                 \
        harness_close(&h);                                                                         \
    }
#define EACH_MODE_TESTS(name)                                                                      \
    cmocka_unit_test(name##_one), cmocka_unit_test(name##_threads), cmocka_unit_test(name##_inline)

static void check_errors(struct harness *h)
{
    harness_invoke(h, 1, "fail");
    harness_expect(h, 1, STATUS_FAILED, "no such thing: 7");
    harness_invoke(h, 2, "silent");
    harness_expect(h, 2, STATUS_FAILED, "the handler returned 5");
    harness_invoke(h, 3, "too much");
    harness_expect_prefix(h, 3, STATUS_LIMIT, "the output is over the limit");
    harness_invoke(h, 4, "fine");
    harness_expect(h, 4, STATUS_OK, "fine");
}

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

static void check_crash(struct harness *h)
{
    harness_invoke(h, 1, "crash");
    int status = harness_wait(h);
    assert_true(status != 0);
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
EACH_MODE(reports_errors, check_errors)
EACH_MODE(finishes_what_came_before_stop, check_stop)
EACH_MODE(a_crash_ends_the_process, check_crash)

static void output_may_have_exactly_the_limit(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, plain, one_env, 1);
    harness_invoke(&h, 1, "exactly");
    const struct runner_frame *f = harness_receive(&h);
    assert_int_equal(f->status, STATUS_OK);
    assert_int_equal(f->data.size, RUNNER_FRAME_BYTES_MAX);
    harness_invoke(&h, 2, "long");
    assert_int_equal(harness_receive(&h)->data.size, 2000);
    harness_stop(&h);
}

static void threads_run_at_once(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, plain, eight_env, 8);
    for (uint64_t id = 1; id <= 8; id++) {
        harness_invoke(&h, id, "meet");
    }
    for (uint64_t id = 1; id <= 8; id++) {
        const struct runner_frame *f = harness_receive(&h);
        assert_int_equal(f->status, STATUS_OK);
        assert_true(bytes_equal(f->data, bytes_of("met", 3)));
    }
    harness_stop(&h);
}

static void cancel_reaches_a_running_handler(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, plain, eight_env, 8);
    harness_invoke(&h, 5, "wait");
    harness_expect_log(&h, "waiting");
    harness_send(&h, RUNNER_CANCEL, 5, 0, NULL, 0);
    harness_expect(&h, 5, STATUS_FAILED, "gave up");
    harness_stop(&h);
}

/* The next invocation is sent the moment a result is there, which must never find the runner full.
 * */
static void a_result_makes_room_at_once(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, plain, eight_env, 8);
    uint64_t id = 1;
    while (id <= 8) {
        harness_invoke(&h, id++, "x");
    }
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(harness_receive(&h)->status, STATUS_OK);
        harness_invoke(&h, id++, "x");
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(harness_receive(&h)->status, STATUS_OK);
    }
    harness_stop(&h);
}

static void refuses_more_than_it_can_hold(void **state)
{
    (void)state;
    struct harness h;
    static const char *const env[] = {"SKEP_CONCURRENCY=2", NULL};
    harness_ready(&h, plain, env, 2);
    for (uint64_t id = 1; id <= 5; id++) {
        harness_invoke(&h, id, "wait");
    }
    harness_expect_prefix(&h, 5, STATUS_LIMIT, "more invocations");
    for (uint64_t id = 1; id <= 4; id++) {
        harness_send(&h, RUNNER_CANCEL, id, 0, NULL, 0);
    }
    for (int i = 0; i < 4; i++) {
        uint16_t status = harness_receive(&h)->status;
        assert_true(status == STATUS_FAILED || status == STATUS_CANCELED);
    }
    harness_stop(&h);
}

static void tells_the_time_left(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, plain, one_env, 1);
    harness_invoke(&h, 1, "left");
    harness_expect(&h, 1, STATUS_OK, "no limit");
    harness_send(&h, RUNNER_INVOKE, 2, 3600000, "left", 4);
    harness_expect(&h, 2, STATUS_OK, "some");
    harness_stop(&h);
}

static void a_huge_time_left_is_no_limit(void **state)
{
    (void)state;
    struct harness h;
    static const char *const env[] = {"SKEP_CONCURRENCY=1", NULL};
    harness_ready(&h, plain, env, 1);
    harness_send(&h, RUNNER_INVOKE, 2, UINT64_MAX, "left", 4);
    harness_expect(&h, 2, STATUS_OK, "no limit");
    harness_stop(&h);
}

static void restored_changes_random_numbers(void **state)
{
    (void)state;
    char drawn[2][32];
    for (int i = 0; i < 2; i++) {
        struct harness h;
        harness_ready(&h, plain, one_env, 1);
        uint8_t entropy[48] = {(uint8_t)(i + 1)};
        entropy[47] = 7;
        harness_send(&h, RUNNER_RESTORED, 1, 123, entropy, sizeof entropy);
        assert_int_equal(harness_receive(&h)->status, STATUS_OK);
        harness_expect_log(&h, "restored with 7 at 123");
        harness_invoke(&h, 2, "random");
        const struct runner_frame *f = harness_receive(&h);
        (void)snprintf(drawn[i], sizeof drawn[i], "%.*s", (int)f->data.size,
                       (const char *)f->data.data);
        harness_stop(&h);
    }
    assert_string_not_equal(drawn[0], drawn[1]);
}

static void restored_can_be_refused(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, plain, one_env, 1);
    uint8_t entropy[48];
    memset(entropy, 0xff, sizeof entropy);
    harness_send(&h, RUNNER_RESTORED, 1, 123, entropy, sizeof entropy);
    assert_int_equal(harness_receive(&h)->status, STATUS_FAILED);
    harness_send(&h, RUNNER_RESTORED, 2, 123, entropy, 5);
    assert_int_equal(harness_receive(&h)->status, STATUS_INVALID);
    harness_stop(&h);
}

static void parks_when_a_snapshot_is_wanted(void **state)
{
    (void)state;
    struct harness h;
    static const char *const env[] = {"SKEP_CONCURRENCY=1", "SKEP_SNAPSHOT=memory", NULL};
    harness_ready(&h, plain, env, 1);
    assert_int_equal(harness_receive(&h)->type, RUNNER_PARK);
    harness_stop(&h);
}

static void the_end_of_the_channel_ends_it(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, plain, eight_env, 8);
    (void)shutdown(h.fd, SHUT_WR);
    int status = harness_wait(&h);
    assert_true(WIFEXITED(status));
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
        EACH_MODE_TESTS(reports_errors),
        EACH_MODE_TESTS(finishes_what_came_before_stop),
        EACH_MODE_TESTS(a_crash_ends_the_process),
        cmocka_unit_test(output_may_have_exactly_the_limit),
        cmocka_unit_test(threads_run_at_once),
        cmocka_unit_test(cancel_reaches_a_running_handler),
        cmocka_unit_test(a_result_makes_room_at_once),
        cmocka_unit_test(refuses_more_than_it_can_hold),
        cmocka_unit_test(tells_the_time_left),
        cmocka_unit_test(a_huge_time_left_is_no_limit),
        cmocka_unit_test(restored_changes_random_numbers),
        cmocka_unit_test(restored_can_be_refused),
        cmocka_unit_test(parks_when_a_snapshot_is_wanted),
        cmocka_unit_test(the_end_of_the_channel_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* skep-command-runner, as an agent sees it. */
#include "tests/component/runners/common_tests.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const cat[] = {RUNNER_PROGRAM, "--", "/bin/cat", NULL};
static const char *const script[] = {RUNNER_PROGRAM, "--", FUNCTIONS_FOLDER "/command.sh", NULL};
static const char *const one_env[] = {"SKEP_CONCURRENCY=1", NULL};
static const char *const four_env[] = {"SKEP_CONCURRENCY=4", NULL};

#define WITH_CAT(name, check)                                                                      \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        struct harness h;                                                                          \
        harness_ready(&h, cat, one_env, 1);                                                        \
        check(&h);                                                                                 \
        harness_close(&h);                                                                         \
    }

WITH_CAT(echoes, check_echo)
WITH_CAT(takes_an_empty_input, check_empty)
WITH_CAT(moves_four_mib_both_ways, check_four_mib_both_ways)
WITH_CAT(a_first_packet_resets_the_frame, check_first_packet_resets)
WITH_CAT(ignores_malformed_packets, check_malformed_packets_are_ignored)
WITH_CAT(cancels_an_unfinished_input, check_cancel_of_an_unfinished_input)
WITH_CAT(ignores_a_frame_over_the_limit, check_frame_over_the_limit_is_ignored)
WITH_CAT(bounds_unfinished_frames, check_unfinished_frames_do_not_pile_up)
WITH_CAT(acknowledges_restored, check_restored_is_acknowledged)
WITH_CAT(sigterm_stops, check_sigterm_stops)

struct call_case {
    const char *input;
    enum status_code code;
    const char *output;
};

static const struct call_case call_cases[] = {
    {"hello", STATUS_OK, "hello\n"},
    {"fail", STATUS_FAILED, "exit code 7: no such thing"},
    {"silent", STATUS_FAILED, "exit code 5"},
    {"crash", STATUS_CRASHED, "killed by signal 11 (Segmentation fault)"},
    {"much", STATUS_LIMIT, "the output is over the limit of 4194304 bytes"},
    {"deaf", STATUS_OK, "deaf\n"},
    {"holds", STATUS_OK, "held\n"},
    {"hello", STATUS_OK, "hello\n"},
};

static void reports_how_a_process_ended(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, script, one_env, 1);
    for (size_t i = 0; i < sizeof call_cases / sizeof call_cases[0]; i++) {
        harness_invoke(&h, i, call_cases[i].input);
        harness_expect(&h, i, call_cases[i].code, call_cases[i].output);
    }
    harness_expect_log(&h, "first words\nno such thing\n");
    harness_stop(&h);
}

static void an_input_nobody_reads_is_no_error(void **state)
{
    (void)state;
    struct harness h;
    static const char *const argv[] = {RUNNER_PROGRAM, "--", "true", NULL};
    harness_ready(&h, argv, one_env, 1);
    static const uint8_t big[1 << 20];
    harness_send(&h, RUNNER_INVOKE, 1, 0, big, sizeof big);
    harness_expect(&h, 1, STATUS_OK, "");
    harness_stop(&h);
}

static void the_environment_names_the_invocation(void **state)
{
    (void)state;
    struct harness h;
    static const char *const env[] = {"FROM_MANIFEST=yes", NULL};
    harness_ready(&h, script, env, 1);
    harness_send(&h, RUNNER_INVOKE, 77, 60000, "environment", 11);
    harness_expect(&h, 77, STATUS_OK, "77 60000 yes\n");
    harness_stop(&h);
}

static void a_program_that_is_not_there_fails_by_name(void **state)
{
    (void)state;
    struct harness h;
    static const char *const argv[] = {RUNNER_PROGRAM, "--", "./no-such-program", NULL};
    harness_ready(&h, argv, one_env, 1);
    harness_invoke(&h, 1, "x");
    harness_expect(&h, 1, STATUS_FAILED, "start ./no-such-program: No such file or directory");
    harness_stop(&h);
}

static void expect_gone(pid_t pid)
{
    int tries = 0;
    while (kill(pid, 0) == 0 && tries++ < 10000) {
        (void)waitpid(pid, NULL, WNOHANG); /* ours, as the reaper of orphans */
        (void)poll(NULL, 0, 1);
    }
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

static void what_a_process_leaves_running_is_killed(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, script, one_env, 1);
    harness_invoke(&h, 1, "leaves");
    const struct runner_frame *f = harness_receive(&h);
    assert_int_equal(f->status, STATUS_OK);
    char text[32] = {0};
    assert_true(f->data.size < sizeof text);
    memcpy(text, f->data.data, f->data.size);
    expect_gone((pid_t)strtol(text, NULL, 10));
    harness_stop(&h);
}

/* As process 1 of a pid namespace it also ends what left the process group. Skipped where
 * namespaces are not allowed. */
static void as_process_one_it_leaves_nothing_running(void **state)
{
    (void)state;
    if (system("unshare -r -p -f true 2>/dev/null") != 0) {
        skip();
    }
    static const char *const argv[] = {"/usr/bin/unshare",
                                       "-r",
                                       "-p",
                                       "-f",
                                       "--kill-child",
                                       RUNNER_PROGRAM,
                                       "--",
                                       FUNCTIONS_FOLDER "/command.sh",
                                       NULL};
    struct harness h;
    harness_ready(&h, argv, one_env, 1);
    harness_invoke(&h, 1, "escapes");
    const struct runner_frame *f = harness_receive(&h);
    assert_int_equal(f->status, STATUS_OK);
    char question[64];
    (void)snprintf(question, sizeof question, "alive %.*s", (int)f->data.size,
                   (const char *)f->data.data);
    harness_invoke(&h, 2, question);
    harness_expect(&h, 2, STATUS_OK, "no\n");
    harness_stop(&h);
}

static void the_deadline_kills_the_group(void **state)
{
    (void)state;
    static const char *const inputs[] = {"wait", "wait-deep", "noise"};
    struct harness h;
    harness_ready(&h, script, one_env, 1);
    for (size_t i = 0; i < 3; i++) {
        harness_send(&h, RUNNER_INVOKE, i, 100, inputs[i], strlen(inputs[i]));
        harness_expect(&h, i, STATUS_TIMEOUT, "deadline exceeded");
    }
    harness_stop(&h);
}

static void cancel_kills_the_group(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, script, one_env, 1);
    harness_invoke(&h, 3, "wait-deep");
    harness_expect_log(&h, "child ");
    harness_send(&h, RUNNER_CANCEL, 3, 0, NULL, 0);
    harness_expect(&h, 3, STATUS_CANCELED, "canceled");
    harness_stop(&h);
}

static void processes_run_at_once(void **state)
{
    (void)state;
    char folder[] = "/tmp/skep-meeting-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char meeting[64];
    (void)snprintf(meeting, sizeof meeting, "MEETING=%s", folder);
    const char *const env[] = {"SKEP_CONCURRENCY=4", meeting, NULL};
    struct harness h;
    harness_ready(&h, script, env, 4);
    for (uint64_t id = 1; id <= 4; id++) {
        harness_invoke(&h, id, "meet");
    }
    for (uint64_t id = 1; id <= 4; id++) {
        const struct runner_frame *f = harness_receive(&h);
        assert_int_equal(f->status, STATUS_OK);
        assert_true(bytes_equal(f->data, bytes_of("met\n", 4)));
    }
    harness_stop(&h);
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

static void refuses_more_than_it_offered(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, script, one_env, 1);
    harness_invoke(&h, 1, "wait");
    harness_invoke(&h, 2, "wait");
    harness_expect_prefix(&h, 2, STATUS_LIMIT, "more invocations");
    harness_invoke(&h, 1, "wait");
    harness_expect_log(&h, "invocation 1 is already running");
    harness_send(&h, RUNNER_CANCEL, 1, 0, NULL, 0);
    harness_expect(&h, 1, STATUS_CANCELED, "canceled");
    harness_stop(&h);
}

static void stop_lets_what_runs_finish(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, cat, four_env, 4);
    for (uint64_t id = 1; id <= 4; id++) {
        harness_invoke(&h, id, "work");
    }
    harness_send(&h, RUNNER_STOP, 0, 0, NULL, 0);
    for (uint64_t id = 1; id <= 4; id++) {
        assert_int_equal(harness_receive(&h)->status, STATUS_OK);
    }
    int status = harness_wait(&h);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    harness_close(&h);
}

static void the_end_of_the_channel_kills_what_runs(void **state)
{
    (void)state;
    struct harness h;
    harness_ready(&h, script, one_env, 1);
    harness_invoke(&h, 1, "wait");
    harness_expect_log(&h, "waiting");
    (void)shutdown(h.fd, SHUT_RDWR);
    int status = harness_wait(&h);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    harness_close(&h);
}

static void without_a_command_it_says_how(void **state)
{
    (void)state;
    struct harness h;
    static const char *const argv[] = {RUNNER_PROGRAM, "cat", NULL};
    harness_start(&h, argv, one_env);
    int status = harness_wait(&h);
    assert_int_equal(WEXITSTATUS(status), 2);
    harness_expect_log(&h, "usage: ");
    harness_close(&h);
}

int main(void)
{
    /* Leftovers whose parent has ended become ours, so that none outlives the test unseen. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echoes),
        cmocka_unit_test(takes_an_empty_input),
        cmocka_unit_test(moves_four_mib_both_ways),
        cmocka_unit_test(a_first_packet_resets_the_frame),
        cmocka_unit_test(ignores_malformed_packets),
        cmocka_unit_test(cancels_an_unfinished_input),
        cmocka_unit_test(ignores_a_frame_over_the_limit),
        cmocka_unit_test(bounds_unfinished_frames),
        cmocka_unit_test(acknowledges_restored),
        cmocka_unit_test(sigterm_stops),
        cmocka_unit_test(reports_how_a_process_ended),
        cmocka_unit_test(an_input_nobody_reads_is_no_error),
        cmocka_unit_test(the_environment_names_the_invocation),
        cmocka_unit_test(a_program_that_is_not_there_fails_by_name),
        cmocka_unit_test(what_a_process_leaves_running_is_killed),
        cmocka_unit_test(as_process_one_it_leaves_nothing_running),
        cmocka_unit_test(the_deadline_kills_the_group),
        cmocka_unit_test(cancel_kills_the_group),
        cmocka_unit_test(processes_run_at_once),
        cmocka_unit_test(refuses_more_than_it_offered),
        cmocka_unit_test(stop_lets_what_runs_finish),
        cmocka_unit_test(the_end_of_the_channel_kills_what_runs),
        cmocka_unit_test(without_a_command_it_says_how),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* skep-gvisor keeps skep-cell's contract, and what it runs is under gVisor's kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/component/cell/harness.h"

#include "agent/cell/cell_usage.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RUNSC "/usr/bin/runsc"

/* Where a sandbox cannot be made: tests/skips.txt says the same. */
#define NEEDS_RUNSC()                                                                              \
    do {                                                                                           \
        if (geteuid() != 0 || access(RUNSC, X_OK) != 0) {                                          \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* The guest at /guest, the launcher in /opt/skep. */
static struct cell_mount mounts[2];

static void open_under(struct harness *h, const char *platform, const char *action,
                       const char *argument)
{
    harness_open(h, action, argument);
    h->program = GVISOR_PROGRAM;
    mounts[0] = h->mount;
    (void)snprintf(mounts[1].source, sizeof mounts[1].source, "%s", GVISOR_RUNNERS);
    (void)snprintf(mounts[1].target, sizeof mounts[1].target, "/opt/skep");
    h->spec.mounts = mounts;
    h->spec.mounts_count = 2;
    (void)snprintf(h->spec.runsc, sizeof h->spec.runsc, "%s", RUNSC);
    (void)snprintf(h->spec.platform, sizeof h->spec.platform, "%s", platform);
}

static void open_guest(struct harness *h, const char *action, const char *argument)
{
    open_under(h, "ptrace", action, argument);
}

/* A program of the machine, in place of the guest. */
static void open_program(struct harness *h, const char *program, const char *argument)
{
    open_guest(h, argument, NULL);
    free(h->args[0]);
    h->args[0] = strdup(program);
}

static void the_kernel_inside_is_gvisors(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_program(&h, "/usr/bin/dmesg", "--notime");
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_EXIT);
    assert_true(harness_log_has(&h, "Starting gVisor"));
    harness_close(&h);
}

static void a_program_runs_and_its_output_is_in_the_log(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "hello", NULL);
    harness_run(&h);
    assert_string_equal(h.end_event.message, "exit code 0");
    assert_int_equal(h.end_event.end, CELL_END_EXIT);
    assert_true(harness_log_has(&h, "hello\n"));
    assert_true(h.started);
    assert_true(h.start_event.startup_us > 0);
    assert_int_equal(h.exit_code, 0);
    harness_close(&h);
}

static void the_exit_code_is_reported(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "exit", "42");
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_EXIT);
    assert_int_equal(h.end_event.detail, 42);
    harness_close(&h);
}

static void a_crash_is_reported_with_its_signal(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "segv", NULL);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_SIGNAL);
    assert_int_equal(h.end_event.detail, SIGSEGV);
    assert_non_null(strstr(h.end_event.message, "Segmentation fault"));
    harness_close(&h);
}

static void the_environment_is_that_of_a_cell(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "environment", NULL);
    (void)snprintf(h.spec.workdir, sizeof h.spec.workdir, "/tmp");
    harness_run(&h);
    assert_true(harness_log_has(&h, "env GUEST=yes\n"));
    assert_true(harness_log_has(&h, "host hive\nfolder /tmp\npid 1\nuid 1000\ngid 1000\n"));
    harness_close(&h);
}

static void the_runner_holds_four_descriptors(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "fds", NULL);
    harness_run(&h);
    assert_true(harness_log_has(&h, "fd 0 "));
    assert_true(harness_log_has(&h, "fd 3 "));
    assert_false(harness_log_has(&h, "fd 4 "));
    assert_false(harness_log_has(&h, "fd 5 "));
    harness_close(&h);
}

static void the_memory_limit_ends_the_sandbox_and_is_named(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "hog", NULL);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_OOM);
    assert_string_equal(h.end_event.message, "memory limit of 64 MiB reached");
    assert_true(h.end_event.memory_peak_bytes > 64 << 20);
    harness_close(&h);
}

static void tmp_is_full_at_its_size(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "fill", "/tmp");
    harness_run(&h);
    assert_true(harness_log_has(&h, "filled 8388608: No space left on device\n"));
    harness_close(&h);
}

static void the_hosts_loopback_is_not_reachable(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "connect", "1");
    harness_run(&h);
    assert_false(harness_log_has(&h, "host: Success\n"));
    harness_close(&h);
}

static void the_runner_channel_carries_packets(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    static const char *const texts[] = {"one", "two packets"};
    struct harness h;
    open_guest(&h, "echo", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    for (size_t i = 0; i < 2; i++) {
        char back[64] = "";
        size_t size = strlen(texts[i]);
        assert_int_equal(send(h.channel_fd, texts[i], size, MSG_NOSIGNAL), size);
        struct pollfd ready = {.fd = h.channel_fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, HARNESS_DEADLINE_MS), 1);
        assert_int_equal(recv(h.channel_fd, back, sizeof back, 0), size);
        assert_string_equal(back, texts[i]);
    }
    harness_close(&h);
}

static void stop_asks_first(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    struct errmsg msg = {""};
    open_guest(&h, "polite", NULL);
    h.spec.stop_ms = 60000;
    harness_start(&h);
    harness_wait_started(&h);
    harness_wait_log(&h, "listening");
    assert_true(status_is_ok(cell_client_send(&h.client, CELL_STOP, &msg)));
    harness_wait_ended(&h);
    assert_int_equal(h.end_event.end, CELL_END_STOPPED);
    assert_int_equal(h.end_event.detail, 7);
    assert_string_equal(h.end_event.message, "stopped on request");
    harness_close(&h);
}

static void stop_becomes_force_after_its_time(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    struct errmsg msg = {""};
    open_guest(&h, "stubborn", NULL);
    h.spec.stop_ms = 50;
    harness_start(&h);
    harness_wait_started(&h);
    harness_wait_log(&h, "deaf");
    assert_true(status_is_ok(cell_client_send(&h.client, CELL_STOP, &msg)));
    harness_wait_ended(&h);
    assert_int_equal(h.end_event.end, CELL_END_STOPPED);
    assert_string_equal(h.end_event.message, "stopped on request, by force");
    harness_close(&h);
}

static void a_kill_before_the_runner_began_ends_it(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    struct errmsg msg = {""};
    open_guest(&h, "stubborn", NULL);
    harness_start(&h);
    assert_true(status_is_ok(cell_client_send(&h.client, CELL_KILL, &msg)));
    harness_wait_ended(&h);
    assert_int_equal(h.end_event.end, CELL_END_STOPPED);
    assert_false(h.started);
    harness_close(&h);
}

static void another_agent_adopts_it(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    struct errmsg msg = {""};
    open_guest(&h, "echo", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    cell_client_close(&h.client);
    (void)close(h.channel_fd);
    h.channel_fd = -1;
    h.started = false;
    assert_true(status_is_ok(cell_client_connect(h.folder, &h.client, &msg)));
    harness_wait_started(&h);
    char back[8] = "";
    assert_int_equal(send(h.channel_fd, "hi", 2, MSG_NOSIGNAL), 2);
    struct pollfd ready = {.fd = h.channel_fd, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, HARNESS_DEADLINE_MS), 1);
    assert_int_equal(recv(h.channel_fd, back, sizeof back, 0), 2);
    harness_close(&h);
}

/* The processes of its control group are all there is of a sandbox. */
static void all_of_it_dies_with_skep_gvisor(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    struct errmsg msg = {""};
    struct cell_usage usage;
    open_guest(&h, "stubborn", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    harness_wait_log(&h, "deaf");
    assert_true(status_is_ok(cell_usage_read(&h.mounts, h.spec.cgroup, &usage, &msg)));
    assert_true(usage.pids > 3);
    int first = (int)syscall(SYS_pidfd_open, (pid_t)h.start_event.pid, 0);
    assert_true(first >= 0);
    assert_int_equal(kill(h.process.pid, SIGKILL), 0);
    struct pollfd ended = {.fd = first, .events = POLLIN};
    assert_int_equal(poll(&ended, 1, HARNESS_DEADLINE_MS), 1);
    (void)close(first);
    harness_wait_ended(&h);
    assert_int_equal(h.exit_code, -SIGKILL);
    assert_true(status_is_ok(cgroup_remove(&h.mounts, h.spec.cgroup, &msg)));
    assert_true(status_is_ok(cgroup_remove(&h.mounts, h.cgroup_parent, &msg)));
    harness_close(&h);
}

static void a_program_that_is_not_there_is_named(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_program(&h, "/app/missing", "");
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_SETUP);
    assert_string_equal(h.end_event.message, "step exec: /app/missing: No such file or directory");
    assert_int_equal(h.exit_code, 1);
    harness_close(&h);
}

static void runsc_itself_says_why_it_cannot(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_under(&h, "unheard-of", "hello", NULL);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_SETUP);
    assert_non_null(strstr(h.end_event.message, "step runsc: "));
    assert_non_null(strstr(h.end_event.message, "platform"));
    harness_close(&h);
}

/* The image has a link where a mount point would go: following it would write onto the machine. */
static void a_mount_point_behind_a_link_is_refused(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    struct harness h;
    open_guest(&h, "hello", NULL);
    char link[HARNESS_PATH_BYTES + 16];
    (void)snprintf(h.spec.root, sizeof h.spec.root, "%s/image", h.folder);
    (void)snprintf(link, sizeof link, "%s/opt", h.spec.root);
    assert_int_equal(mkdir(h.spec.root, 0755), 0);
    assert_int_equal(symlink("/tmp", link), 0);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_SETUP);
    assert_string_equal(h.end_event.message,
                        "step root: /opt/skep: lies behind a link of the image");
    assert_int_not_equal(access("/tmp/skep", F_OK), 0);
    harness_close(&h);
}

/* "ok PLATFORM", or "no" and why. */
static void probe(const char *runsc, const char *platform, char *out, size_t size)
{
    struct harness h;
    char command[4 * HARNESS_PATH_BYTES];
    harness_open(&h, "hello", NULL);
    (void)snprintf(command, sizeof command, "%s probe %s/probe %s %s %s", GVISOR_PROGRAM, h.folder,
                   runsc, platform, GVISOR_RUNNERS);
    FILE *f = popen(command, "re");
    assert_non_null(f);
    assert_non_null(fgets(out, (int)size, f));
    assert_int_equal(pclose(f), 0);
    harness_close(&h);
}

static void the_probe_finds_a_platform(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    char text[512];
    probe(RUNSC, "auto", text, sizeof text);
    assert_memory_equal(text, "ok ", 3);
}

static void the_probe_says_why_there_is_none(void **state)
{
    (void)state;
    NEEDS_RUNSC();
    char text[512];
    probe("/bin/false", "ptrace", text, sizeof text);
    assert_string_equal(text, "no ptrace: step runsc: ended before the runner began\n");
    probe(RUNSC, "abacus", text, sizeof text);
    assert_string_equal(text, "no abacus: no such platform\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_inside_is_gvisors),
        cmocka_unit_test(a_program_runs_and_its_output_is_in_the_log),
        cmocka_unit_test(the_exit_code_is_reported),
        cmocka_unit_test(a_crash_is_reported_with_its_signal),
        cmocka_unit_test(the_environment_is_that_of_a_cell),
        cmocka_unit_test(the_runner_holds_four_descriptors),
        cmocka_unit_test(the_memory_limit_ends_the_sandbox_and_is_named),
        cmocka_unit_test(tmp_is_full_at_its_size),
        cmocka_unit_test(the_hosts_loopback_is_not_reachable),
        cmocka_unit_test(the_runner_channel_carries_packets),
        cmocka_unit_test(stop_asks_first),
        cmocka_unit_test(stop_becomes_force_after_its_time),
        cmocka_unit_test(a_kill_before_the_runner_began_ends_it),
        cmocka_unit_test(another_agent_adopts_it),
        cmocka_unit_test(all_of_it_dies_with_skep_gvisor),
        cmocka_unit_test(a_program_that_is_not_there_is_named),
        cmocka_unit_test(runsc_itself_says_why_it_cannot),
        cmocka_unit_test(a_mount_point_behind_a_link_is_refused),
        cmocka_unit_test(the_probe_finds_a_platform),
        cmocka_unit_test(the_probe_says_why_there_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

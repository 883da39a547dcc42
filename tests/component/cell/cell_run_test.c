/* A cell from start to end: what runs inside, what each limit does, and who hears of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/cell_usage.h"
#include "tests/component/cell/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void a_program_runs_and_its_output_is_in_the_log(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    harness_run(&h);
    assert_string_equal(h.end_event.message, "exit code 0");
    assert_int_equal(h.end_event.end, CELL_END_EXIT);
    assert_int_equal(h.end_event.detail, 0);
    assert_true(harness_log_has(&h, "hello\n"));
    assert_true(h.started);
    assert_true(h.start_event.startup_us > 0);
    assert_int_equal(h.exit_code, 0);
    harness_close(&h);
}

static void the_exit_code_is_reported(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "exit", "42");
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_EXIT);
    assert_int_equal(h.end_event.detail, 42);
    harness_close(&h);
}

static void a_crash_is_reported_with_its_signal(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "segv", NULL);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_SIGNAL);
    assert_int_equal(h.end_event.detail, SIGSEGV);
    assert_non_null(strstr(h.end_event.message, "Segmentation fault"));
    harness_close(&h);
}

static void the_environment_is_only_what_the_spec_says(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "environment", NULL);
    (void)snprintf(h.spec.workdir, sizeof h.spec.workdir, "/tmp");
    harness_run(&h);
    assert_memory_equal(h.log.data,
                        "env GUEST=yes\nhost hive\nfolder /tmp\npid 1\nuid 1000\n"
                        "gid 1000\ngroups 0\nterm open pipe default\n",
                        h.log.size - 1);
    harness_close(&h);
}

static void the_cell_holds_four_descriptors(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "fds", NULL);
    harness_run(&h);
    assert_true(harness_log_has(&h, "fd 0 /dev/n\n"));
    assert_true(harness_log_has(&h, "fd 1 pipe:[\n"));
    assert_true(harness_log_has(&h, "fd 2 pipe:[\n"));
    assert_true(harness_log_has(&h, "fd 3 socket\n"));
    size_t lines = 0;
    for (size_t i = 0; i < h.log.size; i++) {
        lines += h.log.data[i] == '\n' ? 1 : 0;
    }
    assert_int_equal(lines, 4);
    harness_close(&h);
}

static void the_memory_limit_ends_the_cell_and_is_named(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    harness_open(&h, "hog", NULL);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_OOM);
    assert_string_equal(h.end_event.message, "memory limit of 64 MiB reached");
    assert_true(h.end_event.memory_peak_bytes > 60 << 20);
    assert_true(h.end_event.memory_peak_bytes <= 64 << 20);
    harness_close(&h);
}

static void a_child_over_the_memory_limit_ends_the_whole_cell(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    harness_open(&h, "hog_child", NULL);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_OOM);
    assert_string_equal(h.end_event.message, "memory limit of 64 MiB reached");
    harness_close(&h);
}

static void a_fork_bomb_meets_the_process_limit(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    harness_open(&h, "bomb", NULL);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_EXIT);
    assert_true(h.end_event.pids_limit_hits > 0);
    assert_non_null(strstr(h.end_event.message, "process limit of 16 reached "));
    assert_true(harness_log_has(&h, "refused "));
    assert_false(harness_log_has(&h, "refused 0\n"));
    harness_close(&h);
}

static void tmp_is_full_at_its_size(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "fill", "/tmp");
    harness_run(&h);
    assert_true(harness_log_has(&h, "filled 8388608: No space left on device\n"));
    harness_close(&h);
}

static void shared_memory_is_full_at_its_size(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "fill", "/dev/shm");
    harness_run(&h);
    assert_true(harness_log_has(&h, "filled 8388608: No space left on device\n"));
    harness_close(&h);
}

static void tmp_has_a_limit_on_files_too(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "inodes", "/tmp");
    harness_run(&h);
    assert_int_equal(h.end_event.detail, 0);
    assert_true(harness_log_has(&h, "No space left on device"));
    harness_close(&h);
}

static void a_file_over_the_size_limit_is_refused(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "big_file", NULL);
    harness_run(&h);
    /* SIGXFSZ does nothing to process 1 of a namespace: the call fails. */
    assert_int_equal(h.end_event.end, CELL_END_EXIT);
    assert_int_equal(h.end_event.detail, 1);
    harness_close(&h);
}

static void a_flood_of_output_keeps_only_its_end(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "print", "67108864");
    h.spec.log_bytes = 64 << 10;
    harness_run(&h);
    assert_int_equal(h.end_event.detail, 0);
    assert_int_equal(h.log.size - 1, 64 << 10);
    assert_true(harness_log_has(&h, "the end\n"));
    char path[HARNESS_PATH_BYTES + 32];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/log", h.folder);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size <= (64 << 10) + 64);
    harness_close(&h);
}

static void a_spinning_cell_is_killed_on_request(void **state)
{
    (void)state;
    struct harness h;
    struct errmsg msg = {""};
    harness_open(&h, "spin", NULL);
    h.spec.cpu_millis = 100;
    harness_start(&h);
    harness_wait_log(&h, "spinning");
    harness_wait_started(&h);
    assert_true(status_is_ok(cell_client_send(&h.client, CELL_KILL, &msg)));
    harness_wait_ended(&h);
    assert_int_equal(h.end_event.end, CELL_END_STOPPED);
    assert_int_equal(h.end_event.detail, 128 + SIGKILL);
    assert_true(h.exited);
    harness_close(&h);
}

static void usage_shows_what_a_cell_uses(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    struct errmsg msg = {""};
    struct cell_usage usage;
    harness_open(&h, "spin", NULL);
    harness_start(&h);
    harness_wait_log(&h, "spinning");
    do {
        assert_true(status_is_ok(cell_usage_read(&h.mounts, h.spec.cgroup, &usage, &msg)));
    } while (usage.cpu_usage_us < 20000);
    assert_int_equal(usage.pids, 1);
    assert_true(usage.memory_bytes > 0 && usage.memory_bytes < 64 << 20);
    harness_wait_started(&h);
    assert_true(status_is_ok(cell_client_send(&h.client, CELL_KILL, &msg)));
    harness_wait_ended(&h);
    assert_int_equal(cell_usage_read(&h.mounts, h.spec.cgroup, &usage, &msg).code,
                     STATUS_NOT_FOUND);
    harness_close(&h);
}

static void stop_asks_first(void **state)
{
    (void)state;
    struct harness h;
    struct errmsg msg = {""};
    harness_open(&h, "polite", NULL);
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
    struct harness h;
    struct errmsg msg = {""};
    harness_open(&h, "stubborn", NULL);
    h.spec.stop_ms = 50;
    harness_start(&h);
    harness_wait_started(&h);
    harness_wait_log(&h, "deaf");
    assert_true(status_is_ok(cell_client_send(&h.client, CELL_STOP, &msg)));
    harness_wait_ended(&h);
    assert_int_equal(h.end_event.end, CELL_END_STOPPED);
    assert_int_equal(h.end_event.detail, 128 + SIGKILL);
    assert_string_equal(h.end_event.message, "stopped on request, by force");
    harness_close(&h);
}

static void a_signal_to_skep_cell_means_stop(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "polite", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    harness_wait_log(&h, "listening");
    assert_int_equal(kill(h.process.pid, SIGTERM), 0);
    harness_wait_ended(&h);
    assert_int_equal(h.end_event.end, CELL_END_STOPPED);
    assert_int_equal(h.end_event.detail, 7);
    harness_close(&h);
}

static void orphans_end_with_process_1(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "orphans", NULL);
    harness_run(&h);
    assert_int_equal(h.end_event.end, CELL_END_EXIT);
    harness_close(&h);
}

/* The kernel may still be ending the last process in it. */
static void remove_group(const struct harness *h, const char *path)
{
    struct errmsg msg = {""};
    struct status s = cgroup_remove(&h->mounts, path, &msg);
    for (int ms = 0; s.code == STATUS_CONFLICT && ms < HARNESS_DEADLINE_MS; ms++) {
        (void)poll(NULL, 0, 1);
        s = cgroup_remove(&h->mounts, path, &msg);
    }
    if (!status_is_ok(s)) {
        fail_msg("%s", msg.text);
    }
}

static void the_cell_dies_with_skep_cell(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "stubborn", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    harness_wait_log(&h, "deaf");
    int cell = (int)syscall(SYS_pidfd_open, (pid_t)h.start_event.pid, 0);
    assert_true(cell >= 0);
    assert_int_equal(kill(h.process.pid, SIGKILL), 0);
    struct pollfd ended = {.fd = cell, .events = POLLIN};
    assert_int_equal(poll(&ended, 1, HARNESS_DEADLINE_MS), 1);
    (void)close(cell);
    harness_wait_ended(&h);
    assert_int_equal(h.exit_code, -SIGKILL);
    if (h.spec.cgroup[0] != '\0') {
        remove_group(&h, h.spec.cgroup);
        remove_group(&h, h.cgroup_parent);
    }
    harness_close(&h);
}

static void the_host_is_not_reachable_and_the_own_loopback_is(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server, 1), 0);
    assert_int_equal(getsockname(server, (struct sockaddr *)&address, &size), 0);
    char port[16];
    (void)snprintf(port, sizeof port, "%d", ntohs(address.sin_port));
    struct harness h;
    harness_open(&h, "connect", port);
    harness_run(&h);
    assert_true(harness_log_has(&h, "host: Connection refused\n"));
    assert_true(harness_log_has(&h, "own: Success\n"));
    (void)close(server);
    harness_close(&h);
}

/* The cell is inside a network namespace that was made for it, and cannot change anything of it. */
static void a_network_namespace_made_ahead_is_used_and_not_the_cell_s(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_true(own >= 0);
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    int made = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK};
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(ioctl(server, SIOCSIFFLAGS, &up), 0);
    assert_int_equal(bind(server, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server, 1), 0);
    assert_int_equal(getsockname(server, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(setns(own, CLONE_NEWNET), 0);
    char port[16];
    (void)snprintf(port, sizeof port, "%d", ntohs(address.sin_port));
    static const char *const actions[] = {"connect", "netpower"};
    for (size_t i = 0; i < 2; i++) {
        struct harness h;
        harness_open(&h, actions[i], port);
        (void)snprintf(h.spec.netns, sizeof h.spec.netns, "/proc/%d/fd/%d", (int)getpid(), made);
        harness_run(&h);
        assert_int_equal(h.end_event.end, CELL_END_EXIT);
        if (i == 0) {
            assert_true(harness_log_has(&h, "host: Success\n"));
        } else {
            assert_true(harness_log_has(&h, "raw no\npacket no\naddress no\ndown no\n"));
        }
        harness_close(&h);
    }
    (void)close(server);
    (void)close(made);
    (void)close(own);
}

static void closed_output_costs_nothing(void **state)
{
    (void)state;
    struct harness h;
    struct errmsg msg = {""};
    char byte = 0;
    harness_open(&h, "close_output", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    assert_int_equal(recv(h.channel_fd, &byte, 1, 0), 1);
    assert_true(status_is_ok(cell_client_send(&h.client, CELL_KILL, &msg)));
    harness_wait_ended(&h);
    assert_int_equal(h.end_event.end, CELL_END_STOPPED);
    harness_close(&h);
}

static void many_cells_leave_nothing(void **state)
{
    (void)state;
    enum { CELLS = 8 };
    static struct harness h[CELLS];
    for (size_t i = 0; i < CELLS; i++) {
        harness_open(&h[i], "hello", NULL);
        harness_start(&h[i]);
    }
    for (size_t i = 0; i < CELLS; i++) {
        harness_wait_ended(&h[i]);
        assert_int_equal(h[i].end_event.end, CELL_END_EXIT);
    }
    /* A parent that one cell made and another used last stays: its owner removes it. */
    struct errmsg msg = {""};
    if (h[0].cgroup_parent[0] != '\0') {
        assert_true(status_is_ok(cgroup_remove(&h[0].mounts, h[0].cgroup_parent, &msg)));
    }
    for (size_t i = 0; i < CELLS; i++) {
        harness_close(&h[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_runs_and_its_output_is_in_the_log),
        cmocka_unit_test(the_exit_code_is_reported),
        cmocka_unit_test(a_crash_is_reported_with_its_signal),
        cmocka_unit_test(the_environment_is_only_what_the_spec_says),
        cmocka_unit_test(the_cell_holds_four_descriptors),
        cmocka_unit_test(the_memory_limit_ends_the_cell_and_is_named),
        cmocka_unit_test(a_child_over_the_memory_limit_ends_the_whole_cell),
        cmocka_unit_test(a_fork_bomb_meets_the_process_limit),
        cmocka_unit_test(tmp_is_full_at_its_size),
        cmocka_unit_test(shared_memory_is_full_at_its_size),
        cmocka_unit_test(tmp_has_a_limit_on_files_too),
        cmocka_unit_test(a_file_over_the_size_limit_is_refused),
        cmocka_unit_test(a_flood_of_output_keeps_only_its_end),
        cmocka_unit_test(a_spinning_cell_is_killed_on_request),
        cmocka_unit_test(usage_shows_what_a_cell_uses),
        cmocka_unit_test(stop_asks_first),
        cmocka_unit_test(stop_becomes_force_after_its_time),
        cmocka_unit_test(a_signal_to_skep_cell_means_stop),
        cmocka_unit_test(orphans_end_with_process_1),
        cmocka_unit_test(the_cell_dies_with_skep_cell),
        cmocka_unit_test(the_host_is_not_reachable_and_the_own_loopback_is),
        cmocka_unit_test(a_network_namespace_made_ahead_is_used_and_not_the_cell_s),
        cmocka_unit_test(closed_output_costs_nothing),
        cmocka_unit_test(many_cells_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

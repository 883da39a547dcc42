/* What passes between an agent and a cell: the runner channel, the adoption of a cell by a later
 * agent, and what happens when a wall cannot be built. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/component/cell/harness.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void echo(int channel, const char *text)
{
    char back[64] = "";
    assert_int_equal(send(channel, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    struct pollfd ready = {.fd = channel, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, HARNESS_DEADLINE_MS), 1);
    assert_int_equal(recv(channel, back, sizeof back, 0), strlen(text));
    assert_string_equal(back, text);
}

/* The next message of the connection, awaited. */
static struct cell_message next(struct cell_client *client)
{
    struct cell_message m = {0};
    struct errmsg msg = {""};
    for (;;) {
        struct pollfd ready = {.fd = client->fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, HARNESS_DEADLINE_MS), 1);
        assert_true(status_is_ok(cell_client_next(client, &m, &msg)));
        if (m.kind != CELL_MESSAGE_NONE) {
            return m;
        }
    }
}

static void the_runner_channel_carries_packets(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "echo", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    echo(h.channel_fd, "one");
    echo(h.channel_fd, "two packets");
    harness_close(&h);
}

static void a_cell_outlives_its_agent_and_is_adopted(void **state)
{
    (void)state;
    struct harness h;
    struct errmsg msg = {""};
    struct cell_client second;
    harness_open(&h, "echo", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    echo(h.channel_fd, "before");
    /* The agent dies: both of its descriptors are gone. A packet is under way. */
    assert_int_equal(send(h.channel_fd, "under way", 9, MSG_NOSIGNAL), 9);
    cell_client_close(&h.client);
    (void)close(h.channel_fd);
    h.channel_fd = -1;
    struct cell_pid pid;
    assert_true(status_is_ok(cell_pid_read(h.folder, &pid, &msg)));
    assert_int_equal(pid.pid, h.process.pid);
    assert_true(cell_pid_is_alive(&pid));
    assert_true(status_is_ok(cell_client_connect(h.folder, &second, &msg)));
    struct cell_message m = next(&second);
    assert_int_equal(m.kind, CELL_MESSAGE_HELLO);
    h.channel_fd = m.channel_fd;
    m = next(&second);
    assert_int_equal(m.kind, CELL_MESSAGE_EVENT);
    assert_int_equal(m.event.kind, CELL_EVENT_STARTED);
    assert_int_equal(m.event.pid, h.start_event.pid);
    char back[64] = "";
    assert_int_equal(recv(h.channel_fd, back, sizeof back, 0), 9);
    assert_string_equal(back, "under way");
    echo(h.channel_fd, "after");
    assert_true(status_is_ok(cell_client_send(&second, CELL_KILL, &msg)));
    m = next(&second);
    assert_int_equal(m.event.kind, CELL_EVENT_EXITED);
    assert_int_equal(m.event.end, CELL_END_STOPPED);
    assert_int_equal(next(&second).kind, CELL_MESSAGE_CLOSED);
    cell_client_close(&second);
    harness_wait_ended(&h);
    assert_false(cell_pid_is_alive(&pid));
    harness_close(&h);
}

static void a_new_agent_replaces_the_old_one(void **state)
{
    (void)state;
    struct harness h;
    struct errmsg msg = {""};
    struct cell_client second;
    harness_open(&h, "echo", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    assert_true(status_is_ok(cell_client_connect(h.folder, &second, &msg)));
    assert_int_equal(next(&h.client).kind, CELL_MESSAGE_CLOSED);
    struct cell_message m = next(&second);
    assert_int_equal(m.kind, CELL_MESSAGE_HELLO);
    (void)close(m.channel_fd);
    cell_client_close(&second);
    harness_close(&h);
}

static void an_agent_that_talks_nonsense_is_dropped_and_the_cell_goes_on(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "echo", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    assert_int_equal(send(h.client.fd, "nonsense", 8, MSG_NOSIGNAL), 8);
    assert_int_equal(next(&h.client).kind, CELL_MESSAGE_CLOSED);
    echo(h.channel_fd, "still here");
    harness_close(&h);
}

static void the_channel_ends_when_the_runner_ends(void **state)
{
    (void)state;
    struct harness h;
    char byte = 0;
    harness_open(&h, "exit", "3");
    harness_run(&h);
    assert_true(h.channel_fd >= 0);
    assert_int_equal(recv(h.channel_fd, &byte, 1, 0), 0);
    harness_close(&h);
}

static void connecting_after_the_end_is_unavailable(void **state)
{
    (void)state;
    struct harness h;
    struct errmsg msg = {""};
    struct cell_client client;
    harness_open(&h, "hello", NULL);
    harness_run(&h);
    assert_int_equal(cell_client_connect(h.folder, &client, &msg).code, STATUS_UNAVAILABLE);
    harness_close(&h);
}

static void a_folder_serves_one_cell(void **state)
{
    (void)state;
    struct harness h;
    struct errmsg msg = {""};
    struct cell_process other;
    struct cell_client client;
    harness_open(&h, "echo", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    assert_true(
        status_is_ok(cell_start(CELL_PROGRAM, h.folder, STDERR_FILENO, &other, &client, &msg)));
    siginfo_t info = {0};
    assert_int_equal(waitid(P_PIDFD, (id_t)other.pidfd, &info, WEXITED), 0);
    assert_int_equal(info.si_status, 2);
    (void)close(other.pidfd);
    cell_client_close(&client);
    echo(h.channel_fd, "undisturbed");
    harness_close(&h);
}

static void run_failing(struct harness *h, const char *message)
{
    harness_run(h);
    assert_int_equal(h->end_event.end, CELL_END_SETUP);
    if (strstr(h->end_event.message, message) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", h->end_event.message, message);
    }
    assert_false(h->started);
    assert_false(harness_log_has(h, "hello"));
    assert_int_equal(h->exit_code, 1);
}

static void a_missing_mount_source_means_nothing_runs(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    struct cell_mount mounts[2] = {h.mount};
    (void)snprintf(mounts[1].source, sizeof mounts[1].source, "%s/missing", h.folder);
    (void)snprintf(mounts[1].target, sizeof mounts[1].target, "/app");
    h.spec.mounts = mounts;
    h.spec.mounts_count = 2;
    char message[HARNESS_PATH_BYTES + 64];
    (void)snprintf(message, sizeof message, "step open_tree %.100s", mounts[1].source);
    run_failing(&h, message);
    assert_non_null(strstr(h.end_event.message, "No such file or directory"));
    harness_close(&h);
}

static void a_missing_program_means_nothing_runs(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    free(h.args[0]);
    h.args[0] = strdup("/nowhere");
    run_failing(&h, "step exec /nowhere: No such file or directory");
    harness_close(&h);
}

static void a_missing_workdir_means_nothing_runs(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    (void)snprintf(h.spec.workdir, sizeof h.spec.workdir, "/nowhere");
    run_failing(&h, "step working directory /nowhere: No such file or directory");
    harness_close(&h);
}

static void a_missing_root_means_nothing_runs(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    (void)snprintf(h.spec.root, sizeof h.spec.root, "%s/missing", h.folder);
    run_failing(&h, "step root: ");
    harness_close(&h);
}

static void a_mount_into_a_read_only_folder_means_nothing_runs(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    struct cell_mount mounts[2] = {h.mount};
    (void)snprintf(mounts[1].source, sizeof mounts[1].source, "%s", h.folder);
    (void)snprintf(mounts[1].target, sizeof mounts[1].target, "/guest/below");
    h.spec.mounts = mounts;
    h.spec.mounts_count = 2;
    run_failing(&h, "step m");
    harness_close(&h);
}

static void a_wrong_spec_is_reported_with_its_key(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    h.spec.pids_max = 0;
    run_failing(&h, "step spec.json: pids_max: 0 is outside 1-1048576");
    harness_close(&h);
}

static void a_cgroup_in_use_means_nothing_runs(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    static struct harness first;
    static struct harness second;
    harness_open(&first, "echo", NULL);
    harness_start(&first);
    harness_wait_started(&first);
    harness_open(&second, "hello", NULL);
    memcpy(second.spec.cgroup, first.spec.cgroup, sizeof first.spec.cgroup);
    run_failing(&second, "step cgroup: ");
    echo(first.channel_fd, "undisturbed");
    harness_close(&first);
    harness_close(&second);
}

static void an_image_root_is_read_only_and_gets_its_mounts(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    char path[HARNESS_PATH_BYTES + 64];
    static const char *const folders[] = {"/image", "/image/opt", "/image/opt/other", "/image/etc"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s", h.folder, folders[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    (void)snprintf(h.spec.root, sizeof h.spec.root, "%s/image", h.folder);
    (void)snprintf(h.mount.target, sizeof h.mount.target, "/opt/skep/guest");
    free(h.args[0]);
    h.args[0] = strdup("/opt/skep/guest");
    (void)snprintf(h.spec.workdir, sizeof h.spec.workdir, "/opt/other");
    harness_run(&h);
    assert_string_equal(h.end_event.message, "exit code 0");
    assert_true(harness_log_has(&h, "hello"));
    harness_close(&h);
}

static void a_cell_runs_without_control_groups(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "hello", NULL);
    h.spec.cgroup[0] = '\0';
    harness_run(&h);
    assert_string_equal(h.end_event.message, "exit code 0");
    harness_close(&h);
}

static void every_cell_can_have_its_own_outside_user(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    harness_open(&h, "echo", NULL);
    h.spec.uid = 200123;
    harness_start(&h);
    harness_wait_started(&h);
    char path[64];
    struct stat st;
    (void)snprintf(path, sizeof path, "/proc/%u", h.start_event.pid);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, 200123);
    assert_int_equal(st.st_gid, 200123);
    harness_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_runner_channel_carries_packets),
        cmocka_unit_test(a_cell_outlives_its_agent_and_is_adopted),
        cmocka_unit_test(a_new_agent_replaces_the_old_one),
        cmocka_unit_test(an_agent_that_talks_nonsense_is_dropped_and_the_cell_goes_on),
        cmocka_unit_test(the_channel_ends_when_the_runner_ends),
        cmocka_unit_test(connecting_after_the_end_is_unavailable),
        cmocka_unit_test(a_folder_serves_one_cell),
        cmocka_unit_test(a_missing_mount_source_means_nothing_runs),
        cmocka_unit_test(a_missing_program_means_nothing_runs),
        cmocka_unit_test(a_missing_workdir_means_nothing_runs),
        cmocka_unit_test(a_missing_root_means_nothing_runs),
        cmocka_unit_test(a_mount_into_a_read_only_folder_means_nothing_runs),
        cmocka_unit_test(a_wrong_spec_is_reported_with_its_key),
        cmocka_unit_test(a_cgroup_in_use_means_nothing_runs),
        cmocka_unit_test(an_image_root_is_read_only_and_gets_its_mounts),
        cmocka_unit_test(a_cell_runs_without_control_groups),
        cmocka_unit_test(every_cell_can_have_its_own_outside_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

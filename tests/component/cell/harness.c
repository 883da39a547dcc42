#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/component/cell/harness.h"

#include "agent/cell/logring.h"
#include "common/process_stat.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static size_t mounts_count(void)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    assert_non_null(f);
    size_t lines = 0;
    for (int c = fgetc(f); c != EOF; c = fgetc(f)) {
        lines += c == '\n' ? 1 : 0;
    }
    (void)fclose(f);
    return lines;
}

static size_t mounts_before;

/* A mount namespace of the test's own: what other tests mount meanwhile does not show, and what a
 * cell leaves does. */
static void own_mounts(void)
{
    static bool done;
    if (!done && geteuid() == 0) {
        assert_int_equal(unshare(CLONE_NEWNS), 0);
        assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    }
    done = true;
}

void harness_open(struct harness *h, const char *action, const char *argument)
{
    static unsigned serial;
    memset(h, 0, sizeof *h);
    h->channel_fd = -1;
    h->program = CELL_PROGRAM;
    h->deadline_ms = HARNESS_DEADLINE_MS;
    own_mounts();
    mounts_before = mounts_count();
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(h->folder, sizeof h->folder, "%s/skep-cell-test-XXXXXX",
                   tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(h->folder));
    (void)snprintf(h->spec.instance, sizeof h->spec.instance, "i-test-%u", serial);
    (void)snprintf(h->spec.hostname, sizeof h->spec.hostname, "hive");
    h->args[0] = strdup("/guest");
    h->args[1] = strdup(action);
    h->args[2] = argument != NULL ? strdup(argument) : NULL;
    h->env[0] = strdup("GUEST=yes");
    h->spec.args = h->args;
    h->spec.args_count = argument != NULL ? 3 : 2;
    h->spec.env = h->env;
    h->spec.env_count = 1;
    h->spec.mounts = &h->mount;
    h->spec.mounts_count = 1;
    (void)snprintf(h->mount.source, sizeof h->mount.source, "%s", CELL_GUEST);
    (void)snprintf(h->mount.target, sizeof h->mount.target, "/guest");
    h->spec.memory_bytes = 64 << 20;
    h->spec.cpu_millis = 1000;
    h->spec.pids_max = 16;
    h->spec.tmp_bytes = 8 << 20;
    if (geteuid() == 0) {
        struct errmsg msg = {""};
        assert_true(status_is_ok(cgroup_mounts_find(&h->mounts, &msg)));
        (void)snprintf(h->cgroup_parent, sizeof h->cgroup_parent, "skep-test-%d", (int)getpid());
        (void)snprintf(h->spec.cgroup, sizeof h->spec.cgroup, "%s/%u", h->cgroup_parent, serial);
    }
    serial++;
}

void harness_start(struct harness *h)
{
    struct buffer json = {0};
    struct errmsg msg = {""};
    char path[HARNESS_PATH_BYTES + 32];
    assert_true(status_is_ok(cell_spec_encode(&h->spec, &json, &msg)));
    (void)snprintf(path, sizeof path, "%s/spec.json", h->folder);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(json.data, 1, json.size, f), json.size);
    assert_int_equal(fclose(f), 0);
    buffer_close(&json);
    struct status s =
        cell_start(h->program, h->folder, STDERR_FILENO, &h->process, &h->client, &msg);
    if (!status_is_ok(s)) {
        fail_msg("cell_start: %s", msg.text);
    }
    h->running = true;
}

/* Takes what the connection has; false when it has ended. */
static bool take_messages(struct harness *h)
{
    for (;;) {
        struct cell_message m;
        struct errmsg msg = {""};
        if (!status_is_ok(cell_client_next(&h->client, &m, &msg))) {
            fail_msg("%s", msg.text);
        }
        switch (m.kind) {
        case CELL_MESSAGE_NONE:
            return true;
        case CELL_MESSAGE_HELLO:
            assert_int_equal(h->channel_fd, -1);
            h->channel_fd = m.channel_fd;
            break;
        case CELL_MESSAGE_EVENT:
            if (m.event.kind == CELL_EVENT_STARTED) {
                h->started = true;
                h->start_event = m.event;
            } else {
                h->exited = true;
                h->end_event = m.event;
            }
            break;
        case CELL_MESSAGE_CLOSED:
            cell_client_close(&h->client);
            return false;
        }
    }
}

/* Waits for the connection; ends early when skep-cell has ended. */
static void wait_turn(struct harness *h, long until_ms)
{
    struct pollfd polls[] = {
        {.fd = h->client.open ? h->client.fd : -1, .events = POLLIN},
        {.fd = h->process.pidfd, .events = POLLIN},
    };
    long left = until_ms - now_ms();
    if (left <= 0) {
        fail_msg("no progress before the deadline");
    }
    assert_true(poll(polls, 2, (int)left) >= 0);
    if (h->client.open) {
        (void)take_messages(h);
    }
}

static bool has_ended(struct harness *h)
{
    siginfo_t info = {0};
    if (h->running && waitid(P_PIDFD, (id_t)h->process.pidfd, &info, WEXITED | WNOHANG) == 0 &&
        info.si_pid != 0) {
        h->running = false;
        h->exit_code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    }
    return !h->running;
}

void harness_wait_started(struct harness *h)
{
    long until = now_ms() + h->deadline_ms;
    while (!h->started || h->channel_fd < 0) {
        if (h->exited) {
            fail_msg("the cell ended before it started: %s", h->end_event.message);
        }
        wait_turn(h, until);
    }
}

void harness_read_log(struct harness *h)
{
    char path[HARNESS_PATH_BYTES + 32];
    struct errmsg msg = {""};
    struct logring ring;
    (void)snprintf(path, sizeof path, "%s/log", h->folder);
    h->log.size = 0;
    if (!status_is_ok(logring_open(&ring, path, &msg))) {
        return; /* It ended before it had a log. */
    }
    uint64_t offset = 0;
    uint64_t missed = 0;
    assert_true(status_is_ok(logring_read(&ring, &offset, 1 << 20, &h->log, &missed)));
    assert_true(status_is_ok(buffer_append(&h->log, "", 1)));
    logring_close(&ring);
}

void harness_wait_ended(struct harness *h)
{
    long until = now_ms() + h->deadline_ms;
    while (!has_ended(h)) {
        wait_turn(h, until);
    }
    if (h->client.open) {
        (void)take_messages(h);
    }
    struct cell_event report;
    struct errmsg msg = {""};
    if (!status_is_ok(cell_exit_read(h->folder, &report, &msg))) {
        assert_true(h->exit_code != 0 && h->exit_code != 1); /* Killed, or wrongly used. */
    } else if (h->exited) {
        assert_int_equal(report.end, h->end_event.end);
        assert_int_equal(report.detail, h->end_event.detail);
        assert_string_equal(report.message, h->end_event.message);
    } else {
        h->end_event = report;
    }
    harness_read_log(h);
}

void harness_run(struct harness *h)
{
    harness_start(h);
    harness_wait_ended(h);
}

bool harness_log_has(const struct harness *h, const char *text)
{
    return h->log.size > 0 && memmem(h->log.data, h->log.size, text, strlen(text)) != NULL;
}

void harness_wait_log(struct harness *h, const char *text)
{
    long until = now_ms() + h->deadline_ms;
    for (;;) {
        harness_read_log(h);
        if (harness_log_has(h, text)) {
            return;
        }
        if (now_ms() > until || has_ended(h)) {
            fail_msg("the log never said: %s", text);
        }
        (void)poll(NULL, 0, 5);
    }
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void assert_no_cgroup(const struct harness *h)
{
    for (size_t i = 0; h->cgroup_parent[0] != '\0' && i < CGROUP_CONTROLLERS_COUNT_; i++) {
        char path[CGROUP_MOUNT_BYTES_MAX + 128];
        (void)snprintf(path, sizeof path, "%s/%s", h->mounts.of[i].path, h->cgroup_parent);
        if (h->mounts.of[i].path[0] != '\0' && access(path, F_OK) == 0) {
            fail_msg("%s stays behind", path);
        }
    }
}

void harness_close(struct harness *h)
{
    if (h->running) {
        (void)kill(h->process.pid, SIGTERM);
        harness_wait_ended(h);
    }
    cell_client_close(&h->client);
    if (h->process.pidfd > 0) {
        (void)close(h->process.pidfd);
    }
    if (h->channel_fd >= 0) {
        (void)close(h->channel_fd);
    }
    buffer_close(&h->log);
    for (size_t i = 0; i < HARNESS_ARGS_MAX; i++) {
        free(h->args[i]);
    }
    free(h->env[0]);
    assert_int_equal(nftw(h->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    uint64_t start_time = 0;
    if (h->start_event.pid != 0) { /* A zombie may wait for a slow init: it is not ours to reap. */
        struct status s = process_start_time((pid_t)h->start_event.pid, &start_time);
        assert_int_equal(s.code, STATUS_NOT_FOUND);
    }
    assert_no_cgroup(h);
    assert_int_equal(mounts_count(), mounts_before);
}

#include "tests/lib/cell_once.h"

#include "agent/cell/logring.h"
#include "common/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REAP_MS = 60000 };

double cell_once_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

void cell_once_must(bool good, const char *what)
{
    if (!good) {
        (void)fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(125);
    }
}

static void must_status(struct status s, const struct errmsg *msg, const char *what)
{
    if (!status_is_ok(s)) {
        (void)fprintf(stderr, "%s: %s\n", what,
                      msg->text[0] != '\0' ? msg->text : status_text(s.code));
        exit(125);
    }
}

void cell_once_open(struct cell_once *c, const char *group, unsigned serial)
{
    memset(c, 0, sizeof *c);
    c->channel_fd = -1;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(c->folder, sizeof c->folder, "%s/skep-cell-once-XXXXXX",
                   tmp != NULL && strlen(tmp) < 64 ? tmp : "/tmp");
    cell_once_must(mkdtemp(c->folder) != NULL, c->folder);
    (void)snprintf(c->spec.instance, sizeof c->spec.instance, "i-once-%u", serial);
    (void)snprintf(c->spec.hostname, sizeof c->spec.hostname, "hive");
    c->spec.mounts = c->mounts;
    c->spec.memory_bytes = 64 << 20;
    c->spec.cpu_millis = 1000;
    c->spec.pids_max = 64;
    c->spec.tmp_bytes = 16 << 20;
    if (geteuid() == 0 && group != NULL) {
        (void)snprintf(c->spec.cgroup, sizeof c->spec.cgroup, "%s/%u", group, serial);
    }
}

void cell_once_mount(struct cell_once *c, const char *source, const char *target)
{
    errno = E2BIG;
    cell_once_must(c->spec.mounts_count < CELL_ONCE_MOUNTS_MAX, "mounts");
    struct cell_mount *m = &c->mounts[c->spec.mounts_count++];
    (void)snprintf(m->source, sizeof m->source, "%s", source);
    (void)snprintf(m->target, sizeof m->target, "%s", target);
}

void cell_once_prepare(struct cell_once *c)
{
    struct buffer json = {0};
    struct errmsg msg = {""};
    char path[sizeof c->folder + 16];
    must_status(cell_spec_encode(&c->spec, &json, &msg), &msg, "specification");
    (void)snprintf(path, sizeof path, "%s/spec.json", c->folder);
    FILE *f = fopen(path, "we");
    cell_once_must(f != NULL && fwrite(json.data, 1, json.size, f) == json.size, path);
    cell_once_must(fclose(f) == 0, path);
    buffer_close(&json);
}

void cell_once_start(struct cell_once *c, const char *program)
{
    struct errmsg msg = {""};
    must_status(cell_start(program, c->folder, STDERR_FILENO, &c->process, &c->client, &msg), &msg,
                "start");
    c->running = true;
}

static void take_messages(struct cell_once *c)
{
    struct errmsg msg = {""};
    while (c->client.open) {
        struct cell_message m = {0};
        must_status(cell_client_next(&c->client, &m, &msg), &msg, "message");
        if (m.kind == CELL_MESSAGE_NONE) {
            return;
        }
        if (m.kind == CELL_MESSAGE_HELLO) {
            c->channel_fd = m.channel_fd;
        } else if (m.kind == CELL_MESSAGE_CLOSED) {
            cell_client_close(&c->client);
        } else if (m.event.kind == CELL_EVENT_STARTED) {
            c->started = true;
            c->start_event = m.event;
        } else {
            c->ended = true;
            c->end_event = m.event;
        }
    }
}

static void reap(struct cell_once *c)
{
    siginfo_t info = {0};
    if (c->running && waitid(P_PIDFD, (id_t)c->process.pidfd, &info, WEXITED | WNOHANG) == 0 &&
        info.si_pid != 0) {
        c->running = false;
        c->exit_code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    }
}

/* One wait for any of: a message, the end, and (with_channel) a packet on the runner channel. */
static bool turn(struct cell_once *c, double until_ms, bool with_channel)
{
    struct pollfd polls[] = {
        {.fd = c->client.open ? c->client.fd : -1, .events = POLLIN},
        {.fd = c->process.pidfd, .events = POLLIN},
        {.fd = with_channel ? c->channel_fd : -1, .events = POLLIN},
    };
    double left = until_ms - cell_once_now_ms();
    if (left <= 0 || poll(polls, 3, (int)left + 1) < 0) {
        return false;
    }
    take_messages(c);
    reap(c);
    return (polls[2].revents & POLLIN) == 0 || !with_channel;
}

bool cell_once_wait_started(struct cell_once *c, int deadline_ms)
{
    double until = cell_once_now_ms() + deadline_ms;
    while (!c->started && !c->ended && c->running && turn(c, until, false)) {
    }
    return c->started;
}

bool cell_once_wait_ready(struct cell_once *c, int deadline_ms)
{
    double until = cell_once_now_ms() + deadline_ms;
    while (c->channel_fd < 0 && c->running) {
        if (!turn(c, until, false)) {
            return false;
        }
    }
    struct pollfd ready = {.fd = c->channel_fd, .events = POLLIN};
    return poll(&ready, 1, (int)(until - cell_once_now_ms())) == 1 && (ready.revents & POLLIN) != 0;
}

bool cell_once_wait(struct cell_once *c, int deadline_ms)
{
    double until = cell_once_now_ms() + deadline_ms;
    while (c->running && turn(c, until, false)) {
    }
    if (c->running) {
        return false;
    }
    take_messages(c);
    struct errmsg msg = {""};
    if (!c->ended && status_is_ok(cell_exit_read(c->folder, &c->end_event, &msg))) {
        c->ended = true;
    }
    return true;
}

void cell_once_kill(struct cell_once *c)
{
    struct errmsg msg = {""};
    if (!c->client.open || !status_is_ok(cell_client_send(&c->client, CELL_KILL, &msg))) {
        (void)kill(c->process.pid, SIGKILL);
    }
}

void cell_once_read_log(const struct cell_once *c, struct buffer *text)
{
    char path[sizeof c->folder + 16];
    struct errmsg msg = {""};
    struct logring ring = {0};
    uint64_t offset = 0;
    uint64_t missed = 0;
    (void)snprintf(path, sizeof path, "%s/log", c->folder);
    if (!status_is_ok(logring_open(&ring, path, &msg))) {
        return; /* It ended before it had a log. */
    }
    must_status(logring_read(&ring, &offset, CELL_ONCE_LOG_BYTES_MAX, text, &missed), &msg, "log");
    logring_close(&ring);
}

void cell_once_print_log(const struct cell_once *c, int fd)
{
    struct buffer text = {0};
    cell_once_read_log(c, &text);
    for (size_t at = 0; at < text.size;) {
        ssize_t n = write(fd, text.data + at, text.size - at);
        cell_once_must(n > 0, "write");
        at += (size_t)n;
    }
    buffer_close(&text);
}

void cell_once_own_mounts(void)
{
    if (geteuid() == 0) {
        cell_once_must(unshare(CLONE_NEWNS) == 0, "unshare");
        cell_once_must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount");
    }
}

size_t cell_once_count_mounts(void)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    cell_once_must(f != NULL, "mountinfo");
    size_t lines = 0;
    for (int c = fgetc(f); c != EOF; c = fgetc(f)) {
        lines += c == '\n' ? 1 : 0;
    }
    (void)fclose(f);
    return lines;
}

void cell_once_close(struct cell_once *c)
{
    static const char *const files[] = {"spec.json", "cell.pid", "cell.sock", "log", "exit.json"};
    if (c->running) {
        cell_once_kill(c);
        (void)cell_once_wait(c, REAP_MS);
    }
    cell_client_close(&c->client);
    if (c->process.pidfd > 0) {
        (void)close(c->process.pidfd);
    }
    if (c->channel_fd >= 0) {
        (void)close(c->channel_fd);
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[sizeof c->folder + 16];
        (void)snprintf(path, sizeof path, "%s/%s", c->folder, files[i]);
        (void)unlink(path);
    }
    if (rmdir(c->folder) != 0) {
        (void)fprintf(stderr, "%s stays: %s\n", c->folder, strerror(errno));
    }
}

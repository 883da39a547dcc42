/* skep-cell FOLDER [FD]: runs one cell, from its specification in FOLDER to its exit report. See
 * cell.h.
 *
 * Single-threaded from start to end. */
#include "agent/cell/agent_port.h"
#include "agent/cell/confine.h"
#include "agent/cell/launch.h"
#include "agent/cell/supervisor.h"
#include "common/cleanup.h"
#include "common/mem.h"
#include "common/process_stat.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EXIT_RAN = 0, EXIT_SETUP = 1, EXIT_USAGE = 2, AGENT_FD = 3 };

/* 0 to 2 open, the agent's connection (if any) at AGENT_FD, nothing else. */
static int descriptors_arrange(const char *agent_fd_text)
{
    int fd = 0;
    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    cleanup_close(&fd);
    if (agent_fd_text == NULL) {
        (void)close_range(AGENT_FD, ~0U, 0);
        return -1;
    }
    int agent_fd = 0;
    int type = 0;
    socklen_t size = sizeof type;
    if (sscanf(agent_fd_text, "%9d", &agent_fd) != 1 || agent_fd < AGENT_FD ||
        getsockopt(agent_fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) {
        return -2;
    }
    if (agent_fd != AGENT_FD && dup2(agent_fd, AGENT_FD) < 0) {
        return -2;
    }
    (void)close_range(AGENT_FD + 1, ~0U, 0);
    (void)fcntl(AGENT_FD, F_SETFD, FD_CLOEXEC);
    return AGENT_FD;
}

/* Enters the folder, which from now on is the working directory, and claims it. The lock lives as
 * long as the descriptor, which stays open to the end of the process. */
static struct status folder_enter(const char *folder, int *folder_fd, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || fchdir(fd) != 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", folder, strerror(errno));
    }
    if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return status_fail(msg, STATUS_DENIED, "%s: others may write there", folder);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        return status_fail(msg, STATUS_CONFLICT, "%s: another skep-cell is at work there", folder);
    }
    *folder_fd = fd_steal(&fd);
    return status_ok();
}

/* Whole or not at all. */
static struct status file_put(const char *file, struct bytes data, struct errmsg *msg)
{
    char temporary[64];
    (void)snprintf(temporary, sizeof temporary, "%s.new", file);
    (void)unlink(temporary);
    AUTO_CLOSE int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data.data, data.size) != (ssize_t)data.size ||
        rename(temporary, file) != 0) {
        return status_fail(msg, status_from_errno(errno), "write %s: %s", file, strerror(errno));
    }
    return status_ok();
}

static struct status pid_put(struct errmsg *msg)
{
    uint64_t start_time = 0;
    struct status s = process_start_time(getpid(), &start_time);
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "read /proc/self/stat");
    }
    char text[64];
    int size = snprintf(text, sizeof text, "%d %" PRIu64 "\n", (int)getpid(), start_time);
    return file_put("cell.pid", bytes_of(text, (size_t)size), msg);
}

static struct status spec_read(struct cell_spec *spec, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open("spec.json", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open spec.json: %s", strerror(errno));
    }
    struct buffer json = {0};
    struct status s = buffer_reserve(&json, CELL_SPEC_BYTES_MAX + 1);
    ssize_t n = 0;
    while (status_is_ok(s) && json.size <= CELL_SPEC_BYTES_MAX) {
        n = read(fd, json.data + json.size, CELL_SPEC_BYTES_MAX + 1 - json.size);
        if (n <= 0) {
            break;
        }
        json.size += (size_t)n;
    }
    if (n < 0) {
        s = status_fail(msg, STATUS_IO, "read spec.json: %s", strerror(errno));
    }
    if (status_is_ok(s)) {
        s = cell_spec_decode(bytes_of(json.data, json.size), spec, msg);
    }
    buffer_close(&json);
    return status_prefix(msg, s, "step spec.json");
}

static struct status signals_catch(int *fd, struct errmsg *msg)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGCHLD, SIG_DFL); /* Ignored, it would take the exit code away. */
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) {
        return status_fail(msg, STATUS_IO, "sigprocmask: %s", strerror(errno));
    }
    (void)sigdelset(&set, SIGHUP); /* Blocked and never read: a lost terminal means nothing. */
    *fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (*fd < 0) {
        return status_fail(msg, STATUS_IO, "signalfd: %s", strerror(errno));
    }
    return status_ok();
}

struct cell {
    uint64_t born_us;
    struct cell_spec spec;
    struct agent_port port;
    struct logring log;
    struct cgroup cgroup;
    struct cell_event event;
    uint64_t kept; /* capabilities that sleep until the control group goes */
    bool port_open;
};

/* Both ends of the runner channel: *runner_fd is the cell's, the port takes the agent's. */
static struct status channel_open(struct cell *c, int agent_fd, int *runner_fd, struct errmsg *msg)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return status_fail(msg, status_from_errno(errno), "socketpair: %s", strerror(errno));
    }
    struct status s = agent_port_open(&c->port, agent_fd, pair[0], msg);
    if (!status_is_ok(s)) {
        (void)close(pair[1]);
        return s;
    }
    c->port_open = true;
    *runner_fd = pair[1];
    return status_ok();
}

static struct status cell_run(struct cell *c, int folder_fd, int agent_fd, struct errmsg *msg)
{
    AUTO_CLOSE int runner_fd = -1;
    AUTO_CLOSE int signal_fd = -1;
    TRY(channel_open(c, agent_fd, &runner_fd, msg));
    TRY(spec_read(&c->spec, msg));
    TRY(signals_catch(&signal_fd, msg));
    uint64_t log_bytes = c->spec.log_bytes != 0 ? c->spec.log_bytes : CELL_LOG_BYTES_DEFAULT;
    TRY(status_prefix(msg, logring_create(&c->log, folder_fd, "log", log_bytes, msg), "step log"));
    struct supervisor s = {
        .spec = &c->spec,
        .port = &c->port,
        .log = &c->log,
        .cgroup = &c->cgroup,
        .oom_fd = -1,
        .signal_fd = signal_fd,
        .born_us = c->born_us,
    };
    TRY(launch(&c->spec, runner_fd, &c->cgroup, &s.cell, msg));
    /* The agent must see the end of the channel when the runner ends. */
    (void)close(fd_steal(&runner_fd));
    struct status watched = cgroup_watch_oom(&c->cgroup, &s.oom_fd, &s.oom_events, msg);
    if (status_is_ok(watched)) {
        bool needed = geteuid() == 0 && cgroup_close_needs_override(&c->cgroup);
        c->kept = needed ? 1ULL << CAP_DAC_OVERRIDE : 0;
        watched = confine(folder_fd, &c->cgroup, c->kept, msg);
    }
    if (!status_is_ok(watched)) {
        (void)syscall(SYS_pidfd_send_signal, s.cell.pidfd, SIGKILL, NULL, 0);
    }
    supervisor_run(&s);
    c->event = s.event;
    return watched;
}

static void setup_failed(struct cell *c, struct status s, const struct errmsg *msg)
{
    c->event.end = CELL_END_SETUP;
    c->event.detail = 0;
    (void)snprintf(c->event.message, sizeof c->event.message, "%.255s",
                   msg->text[0] != '\0' ? msg->text : status_text(s.code));
}

/* The group goes first, then the report is put in place, then the agent is told. */
static void cell_end(struct cell *c)
{
    struct errmsg msg = {""};
    struct buffer json = {0};
    c->event.kind = CELL_EVENT_EXITED;
    confine_wake(c->kept);
    if (!cgroup_close(&c->cgroup)) {
        (void)fprintf(stderr, "skep-cell: the control group could not be removed\n");
    }
    struct status s = cell_exit_encode(&c->event, &json);
    if (status_is_ok(s)) {
        s = file_put("exit.json", bytes_of(json.data, json.size), &msg);
    }
    if (!status_is_ok(s)) {
        (void)fprintf(stderr, "skep-cell: exit report: %s\n", msg.text);
    }
    if (c->port_open) {
        agent_port_accept(&c->port); /* Who connected in the last instant hears of the end too. */
        agent_port_tell(&c->port, &c->event);
        agent_port_close(&c->port);
    }
    buffer_close(&json);
    logring_close(&c->log);
    cell_spec_close(&c->spec);
}

int main(int argc, char **argv)
{
    uint64_t born_us = clock_us();
    if (argc != 2 && argc != 3) {
        (void)fprintf(stderr, "usage: skep-cell FOLDER [FD]\n");
        return EXIT_USAGE;
    }
    int agent_fd = descriptors_arrange(argc == 3 ? argv[2] : NULL);
    if (agent_fd < -1) {
        (void)fprintf(stderr, "skep-cell: %s: not a SOCK_SEQPACKET descriptor\n", argv[2]);
        return EXIT_USAGE;
    }
    struct errmsg msg = {""};
    int folder_fd = -1;
    struct status s = folder_enter(argv[1], &folder_fd, &msg);
    if (status_is_ok(s)) {
        s = pid_put(&msg);
    }
    if (!status_is_ok(s)) {
        (void)fprintf(stderr, "skep-cell: %s\n", msg.text);
        return EXIT_USAGE;
    }
    static struct cell cell;
    cell.born_us = born_us;
    s = cell_run(&cell, folder_fd, agent_fd, &msg);
    if (!status_is_ok(s)) {
        setup_failed(&cell, s, &msg);
    }
    int code = cell.event.end == CELL_END_SETUP ? EXIT_SETUP : EXIT_RAN;
    cell_end(&cell);
    (void)close(folder_fd);
    /* Nothing is buffered; a sanitizer's own end would want files that are out of reach by now. */
    _exit(code);
}

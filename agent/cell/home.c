#include "agent/cell/home.h"

#include "common/cleanup.h"
#include "common/process_stat.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int home_descriptors(const char *agent_fd_text)
{
    int fd = 0;
    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    cleanup_close(&fd);
    if (agent_fd_text == NULL) {
        (void)close_range(HOME_AGENT_FD, ~0U, 0);
        return -1;
    }
    int agent_fd = 0;
    int type = 0;
    socklen_t size = sizeof type;
    if (sscanf(agent_fd_text, "%9d", &agent_fd) != 1 || agent_fd < HOME_AGENT_FD ||
        getsockopt(agent_fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) {
        return -2;
    }
    if (agent_fd != HOME_AGENT_FD && dup2(agent_fd, HOME_AGENT_FD) < 0) {
        return -2;
    }
    (void)close_range(HOME_AGENT_FD + 1, ~0U, 0);
    (void)fcntl(HOME_AGENT_FD, F_SETFD, FD_CLOEXEC);
    return HOME_AGENT_FD;
}

struct status home_enter(const char *folder, int *folder_fd, struct errmsg *msg)
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
        return status_fail(msg, STATUS_CONFLICT, "%s: another supervisor is at work there", folder);
    }
    *folder_fd = fd_steal(&fd);
    return status_ok();
}

struct status home_put(const char *file, struct bytes data, struct errmsg *msg)
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

struct status home_put_pid(struct errmsg *msg)
{
    uint64_t start_time = 0;
    struct status s = process_start_time(getpid(), &start_time);
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "read /proc/self/stat");
    }
    char text[64];
    int size = snprintf(text, sizeof text, "%d %" PRIu64 "\n", (int)getpid(), start_time);
    return home_put("cell.pid", bytes_of(text, (size_t)size), msg);
}

struct status home_read_spec(struct cell_spec *spec, struct errmsg *msg)
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

struct status home_signals(int *fd, struct errmsg *msg)
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

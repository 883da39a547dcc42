#include "agent/cell/cell_client.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/process_stat.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { CHILD_AGENT_FD = 3, PID_TEXT_BYTES_MAX = 64, FDS_IN_PACKET_MAX = 4 };

static struct status fail_errno(struct errmsg *msg, const char *what, const char *name, int error)
{
    return status_fail(msg, status_from_errno(error), "%s %s: %s", what, name, strerror(error));
}

/* Signals as a fresh program expects them, whatever the daemon blocks or ignores. */
static int attributes_set(posix_spawnattr_t *attributes)
{
    sigset_t set;
    (void)sigemptyset(&set);
    int error = posix_spawnattr_setsigmask(attributes, &set);
    (void)sigfillset(&set);
    if (error == 0) {
        error = posix_spawnattr_setsigdefault(attributes, &set);
    }
    if (error == 0) {
        error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                                         POSIX_SPAWN_SETSIGDEF);
    }
    return error;
}

/* dup2 to itself is defined to clear CLOEXEC (posix_spawn_file_actions_adddup2(3)). */
static int actions_set(posix_spawn_file_actions_t *actions, int log_fd, int agent_fd)
{
    int error = posix_spawn_file_actions_adddup2(actions, log_fd, STDERR_FILENO);
    if (error == 0) {
        error = posix_spawn_file_actions_adddup2(actions, agent_fd, CHILD_AGENT_FD);
    }
    if (error == 0) {
        error = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    }
    if (error == 0) {
        error = posix_spawn_file_actions_addopen(actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    }
    return error;
}

static int spawn(const char *program, const char *folder, int log_fd, int agent_fd, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error != 0) {
        return error;
    }
    error = posix_spawnattr_init(&attributes);
    if (error != 0) {
        goto destroy_actions;
    }
    error = attributes_set(&attributes);
    if (error == 0) {
        error = actions_set(&actions, log_fd, agent_fd);
    }
    if (error == 0) {
        char agent_fd_text[] = "3";
        char *args[] = {(char *)(uintptr_t)program, (char *)(uintptr_t)folder, agent_fd_text, NULL};
        char *env[] = {NULL}; /* skep-cell needs none, and the agent's may hold secrets. */
        static_assert(CHILD_AGENT_FD == 3, "agent_fd_text says so");
        error = posix_spawn(pid, program, &actions, &attributes, args, env);
    }
    (void)posix_spawnattr_destroy(&attributes);
destroy_actions:
    (void)posix_spawn_file_actions_destroy(&actions);
    return error;
}

struct status cell_start(const char *program, const char *folder, int log_fd,
                         struct cell_process *process, struct cell_client *client,
                         struct errmsg *msg)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return fail_errno(msg, "socketpair for", folder, errno);
    }
    AUTO_CLOSE int ours = pair[0];
    AUTO_CLOSE int theirs = pair[1];
    if (fcntl(ours, F_SETFL, O_NONBLOCK) != 0) {
        return fail_errno(msg, "socketpair for", folder, errno);
    }
    /* Above the standard descriptors and the target, so that no action overwrites the source of a
     * later one. */
    AUTO_CLOSE int agent_fd = fcntl(theirs, F_DUPFD_CLOEXEC, CHILD_AGENT_FD + 1);
    AUTO_CLOSE int error_fd = fcntl(log_fd, F_DUPFD_CLOEXEC, CHILD_AGENT_FD + 1);
    if (agent_fd < 0 || error_fd < 0) {
        return fail_errno(msg, "dup for", folder, errno);
    }
    pid_t pid = -1;
    int error = spawn(program, folder, error_fd, agent_fd, &pid);
    if (error != 0) {
        return fail_errno(msg, "start", program, error);
    }
    /* Our child, not yet reaped: the number cannot have been reused. */
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        struct status s = fail_errno(msg, "pidfd_open for", program, errno);
        (void)kill(pid, SIGKILL);
        return s;
    }
    (void)fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    *process = (struct cell_process){.pid = pid, .pidfd = pidfd};
    *client = (struct cell_client){.fd = fd_steal(&ours), .open = true};
    return status_ok();
}

struct status cell_client_connect(const char *folder, struct cell_client *client,
                                  struct errmsg *msg)
{
    AUTO_CLOSE int folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0) {
        return fail_errno(msg, "open", folder, errno);
    }
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return fail_errno(msg, "socket for", folder, errno);
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/cell.sock",
                   folder_fd);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        return fail_errno(msg, "connect to cell.sock in", folder,
                          errno == EAGAIN ? ECONNREFUSED : errno);
    }
    *client = (struct cell_client){.fd = fd_steal(&fd), .open = true};
    return status_ok();
}

/* Takes the first descriptor out of the packet and closes any other. */
static int take_fd(struct msghdr *header)
{
    int taken = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd = -1;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (taken < 0) {
                taken = fd;
            } else {
                (void)close(fd);
            }
        }
    }
    return taken;
}

static bool event_is_valid(const struct cell_event *event)
{
    return (event->kind == CELL_EVENT_STARTED || event->kind == CELL_EVENT_EXITED) &&
           event->end < CELL_ENDS_COUNT_ &&
           memchr(event->message, '\0', sizeof event->message) != NULL;
}

struct status cell_client_next(struct cell_client *client, struct cell_message *out,
                               struct errmsg *msg)
{
    CHECK(client->open);
    union {
        struct cell_event event;
        uint8_t hello;
    } data;
    union {
        char bytes[CMSG_SPACE(sizeof(int) * FDS_IN_PACKET_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = &data, .iov_len = sizeof data};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    ssize_t size = 0;
    do {
        size = recvmsg(client->fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (size < 0 && errno == EINTR);
    *out = (struct cell_message){.kind = CELL_MESSAGE_NONE, .channel_fd = -1};
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return status_ok();
    }
    if (size <= 0) {
        out->kind = CELL_MESSAGE_CLOSED;
        return status_ok();
    }
    AUTO_CLOSE int fd = take_fd(&header);
    if (size == 1 && data.hello == CELL_HELLO && fd >= 0) {
        out->kind = CELL_MESSAGE_HELLO;
        out->channel_fd = fd_steal(&fd);
        return status_ok();
    }
    if (size == (ssize_t)sizeof data.event && fd < 0 && (header.msg_flags & MSG_TRUNC) == 0 &&
        event_is_valid(&data.event)) {
        out->kind = CELL_MESSAGE_EVENT;
        out->event = data.event;
        return status_ok();
    }
    return status_fail(msg, STATUS_CORRUPT, "a packet of %zd bytes from skep-cell is none of ours",
                       size);
}

struct status cell_client_send(struct cell_client *client, enum cell_packet packet,
                               struct errmsg *msg)
{
    CHECK(client->open);
    CHECK(packet == CELL_STOP || packet == CELL_KILL);
    uint8_t byte = (uint8_t)packet;
    ssize_t sent = 0;
    do {
        sent = send(client->fd, &byte, sizeof byte, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent != 1) {
        return status_fail(msg, STATUS_UNAVAILABLE, "send to skep-cell: %s", strerror(errno));
    }
    return status_ok();
}

void cell_client_close(struct cell_client *client)
{
    if (client->open) {
        (void)close(client->fd);
    }
    *client = (struct cell_client){0};
}

static struct status file_read(const char *folder, const char *file, char *text, size_t text_size,
                               size_t *size, struct errmsg *msg)
{
    AUTO_CLOSE int folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int fd =
        folder_fd < 0 ? -1
                      : openat(folder_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s/%s: %s", folder, file,
                           strerror(errno));
    }
    *size = 0;
    while (*size < text_size) {
        ssize_t n = read(fd, text + *size, text_size - *size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return status_fail(msg, STATUS_IO, "read %s/%s: %s", folder, file, strerror(errno));
        }
        if (n == 0) {
            break;
        }
        *size += (size_t)n;
    }
    return status_ok();
}

struct status cell_pid_decode(struct bytes text, struct cell_pid *out, struct errmsg *msg)
{
    char copy[PID_TEXT_BYTES_MAX];
    int pid = 0;
    uint64_t start_time = 0;
    int used = 0;
    if (text.size > 0 && text.size < sizeof copy) {
        memcpy(copy, text.data, text.size);
        copy[text.size] = '\0';
        if (isdigit((unsigned char)copy[0]) && strspn(copy, "0123456789 \n") == text.size &&
            sscanf(copy, "%9d %19" SCNu64 "%n", &pid, &start_time, &used) == 2 && pid > 0 &&
            (copy[used] == '\0' || (copy[used] == '\n' && copy[used + 1] == '\0'))) {
            *out = (struct cell_pid){.pid = pid, .start_time = start_time};
            return status_ok();
        }
    }
    return status_fail(msg, STATUS_INVALID, "cell.pid: not \"PID STARTTIME\"");
}

struct status cell_pid_read(const char *folder, struct cell_pid *out, struct errmsg *msg)
{
    char text[PID_TEXT_BYTES_MAX];
    size_t size = 0;
    TRY(file_read(folder, "cell.pid", text, sizeof text, &size, msg));
    return cell_pid_decode(bytes_of(text, size), out, msg);
}

bool cell_pid_is_alive(const struct cell_pid *pid)
{
    uint64_t start_time = 0;
    return status_is_ok(process_start_time(pid->pid, &start_time)) && start_time == pid->start_time;
}

struct status cell_pid_open(const struct cell_pid *pid, int *pidfd, struct errmsg *msg)
{
    AUTO_CLOSE int fd = (int)syscall(SYS_pidfd_open, pid->pid, 0);
    /* The descriptor first, then the proof that it names the right process. */
    if (fd < 0 || !cell_pid_is_alive(pid)) {
        return status_fail(msg, STATUS_NOT_FOUND, "skep-cell %d has ended", (int)pid->pid);
    }
    *pidfd = fd_steal(&fd);
    return status_ok();
}

struct status cell_exit_read(const char *folder, struct cell_event *out, struct errmsg *msg)
{
    char text[CELL_EXIT_BYTES_MAX + 1];
    size_t size = 0;
    TRY(file_read(folder, "exit.json", text, sizeof text, &size, msg));
    return cell_exit_decode(bytes_of(text, size), out, msg);
}

#include "agent/cell/sentry/sentry.h"

#include "agent/cell/plan.h"
#include "agent/cell/sentry/calls.h"
#include "agent/cell/syscall_table.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

enum {
    DESCRIPTORS_MAX = 256,
    FIRST_FREE_FD = 3,
    NOTICE_BYTES_MAX = 1024, /* of the kernel's structures, which may grow */
    RETRY_MS = 5,
    LINE_BYTES = 128,
};

const char *sentry_step_name(enum sentry_step step)
{
    static const char *const names[SENTRY_STEPS_COUNT_] = {
        [SENTRY_STEP_LISTENER] = "take the notification descriptor",
        [SENTRY_STEP_NAMESPACES] = "enter the cell's namespaces",
        [SENTRY_STEP_IDENTITY] = "become the cell's user",
        [SENTRY_STEP_PRIVILEGES] = "let go of privileges",
        [SENTRY_STEP_SERVE] = "receive notifications",
    };
    return step < SENTRY_STEPS_COUNT_ ? names[step] : "?";
}

/* ---- Answers ---- */

static void send_value(const struct sentry *s, uint64_t id, int64_t value)
{
    struct seccomp_notif_resp response = {
        .id = id,
        .val = value >= 0 ? value : 0,
        .error = value < 0 ? (int)value : 0,
    };
    /* ENOENT: whoever asked has been killed. */
    (void)ioctl(s->listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

void sentry_answer(struct sentry *s, uint64_t id, struct answer a)
{
    if (a.later) {
        return;
    }
    if (a.fd < 0) {
        send_value(s, id, a.value);
        return;
    }
    struct seccomp_notif_addfd add = {
        .id = id,
        .flags = SECCOMP_ADDFD_FLAG_SEND,
        .srcfd = (uint32_t)a.fd,
        .newfd_flags = a.fd_cloexec ? O_CLOEXEC : 0,
    };
    /* EMFILE is the process's own limit. */
    if (ioctl(s->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0 && errno != ENOENT) {
        send_value(s, id, -errno);
    }
    (void)close(a.fd);
}

/* ---- Calls that take time ---- */

static bool is_waiting(const struct sentry *s, uint64_t id)
{
    return ioctl(s->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

static void wait_end(struct sentry *s, size_t at)
{
    (void)close(s->waits[at].fd);
    s->waits[at] = s->waits[--s->waits_count];
}

struct answer sentry_wait(struct sentry *s, const struct wait *w)
{
    for (size_t i = s->waits_count; s->waits_count == SENTRY_WAITS_MAX && i > 0; i--) {
        if (!is_waiting(s, s->waits[i - 1].id)) {
            wait_end(s, i - 1);
        }
    }
    if (s->waits_count == SENTRY_WAITS_MAX) {
        (void)close(w->fd);
        return answer(-ENOBUFS);
    }
    s->waits[s->waits_count++] = *w;
    return answer_later();
}

static void waits_go_on(struct sentry *s)
{
    for (size_t i = s->waits_count; i > 0; i--) {
        struct wait *w = &s->waits[i - 1];
        int result = wait_step(w);
        if (result != -EINPROGRESS) {
            send_value(s, w->id, result);
            wait_end(s, i - 1);
        } else if (!is_waiting(s, w->id)) {
            wait_end(s, i - 1);
        }
    }
}

static void helpers_reap(struct sentry *s)
{
    for (size_t i = s->helpers_count; i > 0; i--) {
        struct helper *h = &s->helpers[i - 1];
        siginfo_t info = {0};
        if (!is_waiting(s, h->id)) {
            (void)syscall(SYS_pidfd_send_signal, h->pidfd, SIGKILL, NULL, 0);
        }
        if (waitid(P_PIDFD, (id_t)h->pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0) {
            (void)close(h->pidfd);
            *h = s->helpers[--s->helpers_count];
        }
    }
}

static void help(struct sentry *s, const struct call *c, handler *run, pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == parent) {
        sentry_answer(s, c->id, run(s, c));
    }
    _exit(0);
}

struct answer sentry_help(struct sentry *s, const struct call *c, handler *run)
{
    helpers_reap(s);
    if (s->helpers_count == SENTRY_HELPERS_MAX) {
        return answer(-EAGAIN);
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        return answer(-EAGAIN);
    }
    if (pid == 0) {
        help(s, c, run, parent);
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        (void)kill(pid, SIGKILL); /* Ours and not reaped: the number is its own. */
        (void)waitpid(pid, NULL, 0);
        return answer(-EAGAIN);
    }
    s->helpers[s->helpers_count++] = (struct helper){.id = c->id, .pidfd = pidfd};
    return answer_later();
}

/* ---- Refusals ---- */

static void refusal_tell(struct sentry *s, const struct call *c, const struct syscall_row *row,
                         int error)
{
    unsigned number = (unsigned)c->number;
    char name[24];
    char line[LINE_BYTES];
    if (number < sizeof s->told * 8) {
        if ((s->told[number / 64] >> (number % 64) & 1) != 0) {
            return;
        }
        s->told[number / 64] |= UINT64_C(1) << (number % 64);
    }
    (void)snprintf(name, sizeof name, "%u", number);
    int size = snprintf(line, sizeof line, "skep refused the system call %s(%#llx, %#llx): %s\n",
                        row != NULL ? row->name : name, (unsigned long long)c->a[0],
                        (unsigned long long)c->a[1], strerrorname_np(error));
    (void)!write(s->log_fd, line, (size_t)size);
}

static struct answer refuse(struct sentry *s, const struct call *c)
{
    const struct syscall_row *row = syscall_find(c->number);
    int error = row != NULL && row->error != 0 ? row->error : ENOSYS;
    refusal_tell(s, c, row, error);
    return answer(-error);
}

/* ---- The loop ---- */

/* Waits until there is a notification; meanwhile connections go on. */
static void await(struct sentry *s)
{
    while (s->waits_count > 0) {
        struct pollfd polls[1 + SENTRY_WAITS_MAX];
        bool retries = false;
        polls[0] = (struct pollfd){.fd = s->listener, .events = POLLIN};
        for (size_t i = 0; i < s->waits_count; i++) {
            const struct wait *w = &s->waits[i];
            polls[i + 1] = (struct pollfd){.fd = w->retry ? -1 : w->fd, .events = POLLOUT};
            retries = retries || w->retry;
        }
        int ready = poll(polls, (nfds_t)s->waits_count + 1, retries ? RETRY_MS : -1);
        if (ready < 0 && errno != EINTR) {
            _exit(SENTRY_EXIT_STEP + SENTRY_STEP_SERVE);
        }
        waits_go_on(s);
        if (ready > 0 && (polls[0].revents & POLLIN) != 0) {
            return;
        }
    }
}

static void serve(struct sentry *s)
{
    union {
        struct seccomp_notif notice;
        uint8_t room[NOTICE_BYTES_MAX];
    } in;
    for (;;) {
        await(s);
        memset(&in, 0, sizeof in.notice);
        if (ioctl(s->listener, SECCOMP_IOCTL_NOTIF_RECV, &in.notice) != 0) {
            if (errno == EINTR || errno == ENOENT) {
                continue;
            }
            _exit(SENTRY_EXIT_STEP + SENTRY_STEP_SERVE);
        }
        uint64_t arguments[6];
        for (size_t i = 0; i < 6; i++) {
            arguments[i] = in.notice.data.args[i];
        }
        const struct call c = {
            .id = in.notice.id,
            .guest = {.proc_fd = s->proc_fd, .tid = (pid_t)in.notice.pid},
            .number = in.notice.data.nr,
            .a = arguments,
        };
        handler *run = call_handler(c.number);
        sentry_answer(s, c.id, run != NULL && c.guest.tid > 0 ? run(s, &c) : refuse(s, &c));
    }
}

/* ---- The beginning ---- */

static void step_check(enum sentry_step step, bool good)
{
    if (!good) {
        (void)fprintf(stderr, "skep-cell: sentry: %s: %s\n", sentry_step_name(step),
                      strerror(errno));
        _exit(SENTRY_EXIT_STEP + (int)step);
    }
}

static int listener_take(int socket_fd)
{
    char byte;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    ssize_t n = 0;
    do {
        n = recvmsg(socket_fd, &header, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    const struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&header) : NULL;
    int fd = -1;
    if (c != NULL && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    }
    return fd;
}

/* Only what is served with stays open. */
static bool descriptors_keep(struct sentry *s)
{
    int *kept[] = {&s->listener, &s->proc_fd, &s->log_fd};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        *kept[i] = fcntl(*kept[i], F_DUPFD_CLOEXEC, DESCRIPTORS_MAX);
        if (*kept[i] < 0) {
            return false;
        }
    }
    if (close_range(FIRST_FREE_FD, DESCRIPTORS_MAX - 1, 0) != 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        *kept[i] = fcntl(*kept[i], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        if (*kept[i] < 0) {
            return false;
        }
    }
    return close_range(DESCRIPTORS_MAX, ~0U, 0) == 0;
}

/* The one right that stays: to read and write memory and descriptors of the cell's processes, which
 * are in the user namespace that it holds for. */
static bool privileges_drop(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    const uint32_t kept = 1U << CAP_SYS_PTRACE;
    data[0].permitted = kept;
    data[0].effective = kept;
    struct rlimit files = {.rlim_cur = DESCRIPTORS_MAX, .rlim_max = DESCRIPTORS_MAX};
    for (unsigned long cap = 0; cap < 64 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0;) {
        cap++;
    }
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0 &&
           syscall(SYS_capset, &header, data) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && setrlimit(RLIMIT_NOFILE, &files) == 0;
}

static bool identity_take(void)
{
    return setresgid(CELL_INSIDE_UID, CELL_INSIDE_UID, CELL_INSIDE_UID) == 0 &&
           setresuid(CELL_INSIDE_UID, CELL_INSIDE_UID, CELL_INSIDE_UID) == 0;
}

void sentry_run(const struct sentry_start *start)
{
    static struct sentry s;
    pid_t parent = getppid();
    s = (struct sentry){.proc_fd = start->proc_fd, .log_fd = start->log_fd};
    step_check(SENTRY_STEP_LISTENER, prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0);
    s.listener = listener_take(start->socket_fd);
    if (s.listener < 0) {
        _exit(0); /* Process 1 has ended before its walls stood; skep-cell tells why. */
    }
    if (start->drop_groups) {
        step_check(SENTRY_STEP_IDENTITY, setgroups(0, NULL) == 0);
    }
    step_check(SENTRY_STEP_NAMESPACES, setns(start->user_fd, CLONE_NEWUSER) == 0 &&
                                           setns(start->mount_fd, CLONE_NEWNS) == 0);
    struct stat proc;
    step_check(SENTRY_STEP_NAMESPACES, stat("/proc", &proc) == 0);
    s.proc_device = proc.st_dev;
    step_check(SENTRY_STEP_IDENTITY, identity_take());
    step_check(SENTRY_STEP_PRIVILEGES, descriptors_keep(&s) && privileges_drop());
    /* The change of user has cleared it. */
    step_check(SENTRY_STEP_PRIVILEGES,
               prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == parent);
    (void)umask(0);
    uint64_t flags = SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP;
    /* Kernels before 6.6: without. */
    (void)ioctl(s.listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags);
    serve(&s);
    _exit(0);
}

#include "agent/cell/walls.h"

#include "agent/cell/filter.h"
#include "agent/cell/landlock.h"
#include "common/check.h"
#include "common/runner_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { HIGH_FD = 100, EXIT_CODE_SETUP = 125 };

struct builder {
    const struct walls *w;
    int trees[PLAN_TREES_MAX];
    int root_fd;
    int report_fd;
    int log_fd;
    int channel_fd;
    int sentry_fd;
};

/* Every step answers 0 or an errno. */
typedef int step_function(struct builder *b, const struct step *s);

static int errno_of(long result)
{
    return result < 0 ? errno : 0;
}

static int do_UNSHARE_CGROUP(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    /* Only now, in the cell's groups: they become the root of what it sees. */
    return errno_of(unshare(CLONE_NEWCGROUP));
}

static int do_PRIVATE_MOUNTS(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    return errno_of(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static int do_OPEN_TREE(struct builder *b, const struct step *s)
{
    int fd = open_tree(AT_FDCWD, s->path,
                       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);
    b->trees[s->tree] = fd;
    if (fd < 0) {
        return errno == ENOENT && (s->flags & STEP_OPTIONAL) != 0 ? 0 : errno;
    }
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID};
    attributes.attr_set |= (s->flags & STEP_ALLOW_EXEC) == 0 ? MOUNT_ATTR_NOEXEC : 0;
    attributes.attr_set |= (s->flags & STEP_ALLOW_DEVICE) == 0 ? MOUNT_ATTR_NODEV : 0;
    return errno_of(
        mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes));
}

static int do_IDENTITY(struct builder *b, const struct step *s)
{
    (void)s;
    if (b->w->drop_groups && setgroups(0, NULL) != 0) {
        return errno;
    }
    if (setresgid(CELL_INSIDE_UID, CELL_INSIDE_UID, CELL_INSIDE_UID) != 0) {
        return errno;
    }
    return errno_of(setresuid(CELL_INSIDE_UID, CELL_INSIDE_UID, CELL_INSIDE_UID));
}

static int do_KEYRING(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    int error = errno_of(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
    return error == ENOSYS ? 0 : error; /* A kernel without keys has none to hide. */
}

static int do_NEW_ROOT(struct builder *b, const struct step *s)
{
    (void)s;
    int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (context < 0 || fsconfig(context, FSCONFIG_SET_STRING, "size", "1m", 0) != 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", "2k", 0) != 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "mode", "0755", 0) != 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0) {
        return errno;
    }
    b->root_fd = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (b->root_fd < 0) {
        return errno;
    }
    (void)close(context);
    if (move_mount(b->root_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0) {
        return errno;
    }
    return errno_of(fchdir(b->root_fd));
}

/* pivot_root(2), "pivot_root(".", ".")": the old root lies on top of the new one until it is
 * detached; paths from "/" already start in the new one. */
static int do_PIVOT(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    return errno_of(syscall(SYS_pivot_root, ".", "."));
}

static int do_DIR(struct builder *b, const struct step *s)
{
    (void)b;
    return mkdir(s->path, 0755) == 0 || errno == EEXIST ? 0 : errno;
}

static int do_LINK(struct builder *b, const struct step *s)
{
    (void)b;
    return errno_of(symlink(s->text, s->path));
}

static int do_FILE(struct builder *b, const struct step *s)
{
    (void)b;
    int fd = open(s->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return errno;
    }
    size_t size = strlen(s->text);
    ssize_t written = write(fd, s->text, size);
    int error = written == (ssize_t)size ? 0 : written < 0 ? errno : EIO;
    (void)close(fd);
    return error;
}

static int make_mount_point(const struct step *s)
{
    if ((s->flags & STEP_TARGET_FILE) == 0) {
        return mkdir(s->path, 0755) == 0 || errno == EEXIST ? 0 : errno;
    }
    int fd = open(s->path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd < 0) {
        return errno;
    }
    (void)close(fd);
    return 0;
}

static int do_ATTACH(struct builder *b, const struct step *s)
{
    int tree = b->trees[s->tree];
    if (tree < 0) {
        return (s->flags & STEP_OPTIONAL) != 0 ? 0 : ENOENT;
    }
    int error = make_mount_point(s);
    if (error == 0) {
        error = errno_of(move_mount(tree, "", AT_FDCWD, s->path, MOVE_MOUNT_F_EMPTY_PATH));
    }
    (void)close(tree);
    b->trees[s->tree] = -1;
    return error;
}

static int do_TMPFS(struct builder *b, const struct step *s)
{
    (void)b;
    return errno_of(mount("tmpfs", s->path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, s->text));
}

static int do_PROC(struct builder *b, const struct step *s)
{
    (void)b;
    return errno_of(mount("proc", s->path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, s->text));
}

static int do_DROP_OLD_ROOT(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    if (umount2(".", MNT_DETACH) != 0) {
        return errno;
    }
    return errno_of(chdir("/"));
}

static int do_ROOT_READONLY(struct builder *b, const struct step *s)
{
    (void)s;
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                                MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
    int error =
        errno_of(mount_setattr(b->root_fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes));
    (void)close(b->root_fd);
    return error;
}

static int do_LOOPBACK(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK};
    int error = errno_of(ioctl(fd, SIOCSIFFLAGS, &request));
    (void)close(fd);
    return error;
}

static int do_HOSTNAME(struct builder *b, const struct step *s)
{
    (void)b;
    if (sethostname(s->text, strlen(s->text)) != 0) {
        return errno;
    }
    return errno_of(setdomainname("(none)", 6));
}

static int do_WORKDIR(struct builder *b, const struct step *s)
{
    (void)b;
    return errno_of(chdir(s->path));
}

static int do_STDIO(struct builder *b, const struct step *s)
{
    /* Out of the way of 0 to 3 first. */
    b->report_fd = fcntl(b->w->report_fd, F_DUPFD_CLOEXEC, HIGH_FD);
    b->log_fd = fcntl(b->w->log_fd, F_DUPFD_CLOEXEC, HIGH_FD);
    b->channel_fd = fcntl(b->w->channel_fd, F_DUPFD_CLOEXEC, HIGH_FD);
    b->sentry_fd = fcntl(b->w->sentry_fd, F_DUPFD_CLOEXEC, HIGH_FD);
    int null_fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (b->report_fd < 0 || b->log_fd < 0 || b->channel_fd < 0 || b->sentry_fd < 0 || null_fd < 0) {
        int error = errno;
        b->report_fd = b->report_fd < 0 ? b->w->report_fd : b->report_fd;
        return error;
    }
    if (dup2(null_fd, STDIN_FILENO) < 0 || dup2(b->log_fd, STDOUT_FILENO) < 0 ||
        dup2(b->log_fd, STDERR_FILENO) < 0 || dup2(b->channel_fd, RUNNER_FD) < 0) {
        return errno;
    }
    return errno_of(close_range(RUNNER_FD + 1, ~0U, CLOSE_RANGE_CLOEXEC));
}

/* What the caller itself may not have the cell does not get either: raising takes a capability
 * outside. */
static int do_RLIMIT(struct builder *b, const struct step *s)
{
    (void)b;
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)s->resource, &now) != 0) {
        return errno;
    }
    rlim_t value = s->value < now.rlim_max ? s->value : now.rlim_max;
    struct rlimit limit = {.rlim_cur = value, .rlim_max = value};
    return errno_of(setrlimit((__rlimit_resource_t)s->resource, &limit));
}

static int do_SECUREBITS(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                         SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                         SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    return errno_of(prctl(PR_SET_SECUREBITS, bits, 0, 0, 0));
}

static int do_BOUNDING(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) {
            return errno == EINVAL && cap > CAP_AUDIT_READ ? 0 : errno;
        }
    }
    return 0;
}

static int do_CAPABILITIES(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
        return errno;
    }
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    return errno_of(syscall(SYS_capset, &header, none));
}

static int do_NO_NEW_PRIVILEGES(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    return errno_of(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* After the last change of credentials, which would clear it. A parent that is gone already no
 * longer holds the other end of the report pipe. */
static int do_PARENT_DEATH(struct builder *b, const struct step *s)
{
    (void)s;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
        return errno;
    }
    struct pollfd report = {.fd = b->report_fd, .events = POLLOUT};
    if (poll(&report, 1, 0) < 0) {
        return errno;
    }
    return (report.revents & POLLERR) != 0 ? ECANCELED : 0;
}

/* One byte with the descriptor beside it. */
static int send_descriptor(int socket_fd, int fd)
{
    char byte = WALLS_READY;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(socket_fd, &header, MSG_NOSIGNAL) == 1 ? 0 : errno;
}

static int do_LANDLOCK(struct builder *b, const struct step *s)
{
    (void)b;
    (void)s;
    return landlock_guest();
}

/* From here on every call that names something waits for the sentry; what is left to do until the
 * exec is native. A call that the sentry has begun ends before a signal is taken, so that none is
 * done twice. */
static int do_FILTER(struct builder *b, const struct step *s)
{
    (void)s;
    struct sock_fprog program = {
        .len = filter_program_size,
        .filter = (struct sock_filter *)(uintptr_t)filter_program,
    };
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (listener < 0) {
        return errno;
    }
    int error = send_descriptor(b->sentry_fd, listener);
    (void)close(listener);
    (void)close(b->sentry_fd);
    return error;
}

static int do_EXEC(struct builder *b, const struct step *s)
{
    const char ready = WALLS_READY;
    if (write(b->report_fd, &ready, 1) != 1) {
        return errno;
    }
    (void)execve(s->path, b->w->args, b->w->env);
    return errno;
}

static step_function *const functions[STEP_KINDS_COUNT_] = {
#define STEP_FUNCTION_ROW(name, text) [STEP_##name] = do_##name,
    STEP_KINDS(STEP_FUNCTION_ROW)
#undef STEP_FUNCTION_ROW
};

/* As a fresh program expects them, whatever skep-cell and its parents blocked or ignored. */
static void reset_signals(void)
{
    for (int i = 1; i < _NSIG; i++) {
        (void)signal(i, SIG_DFL); /* Refused for KILL, STOP and glibc's own, rightly. */
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

void walls_build(const struct walls *w)
{
    static struct builder b;
    b = (struct builder){.w = w, .root_fd = -1, .report_fd = w->report_fd};
    CHECK(w->plan->trees_count <= PLAN_TREES_MAX);
    char go = 0;
    if (read(w->go_fd, &go, 1) != 1) {
        _exit(EXIT_CODE_SETUP);
    }
    (void)setsid();
    (void)umask(022);
    reset_signals();
    for (size_t i = 0; i < w->plan->count; i++) {
        const struct step *s = &w->plan->steps[i];
        int error = functions[s->kind](&b, s);
        if (error != 0) {
            struct walls_report report = {.step = s->kind, .error = error};
            (void)snprintf(report.path, sizeof report.path, "%s", s->path != NULL ? s->path : "");
            (void)!write(b.report_fd, &report, sizeof report);
            break;
        }
    }
    _exit(EXIT_CODE_SETUP);
}

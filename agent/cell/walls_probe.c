#include "agent/cell/walls_probe.h"

#include "agent/cell/cgroup.h"
#include "agent/cell/landlock.h"
#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INSIDE_UID = 1000, PAGE_BYTES = 4096, PROBE_ERRNO = ENOTNAM };

static int errno_of(long result)
{
    return result < 0 ? errno : 0;
}

/* What each probe does inside; 0 or an errno. A wall that stands but does not hold is EPROTO. */

static int try_nothing(void)
{
    return 0;
}

static int try_mounts(void)
{
    return errno_of(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

/* Waits for a child and answers what it exits with. */
static int child_errno(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return errno;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : ECANCELED;
}

static int in_pid_namespace(int (*fn)(void))
{
    pid_t pid = fork();
    if (pid < 0) {
        return errno;
    }
    if (pid == 0) {
        _exit(getpid() == 1 ? fn() : EPROTO);
    }
    return child_errno(pid);
}

static int try_pid(void)
{
    return in_pid_namespace(try_nothing);
}

static int try_net(void)
{
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK};
    return fd < 0 ? errno : errno_of(ioctl(fd, SIOCSIFFLAGS, &request));
}

static int try_uts(void)
{
    return errno_of(sethostname("probe", 5));
}

static int try_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                         SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                         SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) != 0) {
        return errno;
    }
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 &&
            prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) {
            return errno;
        }
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 ||
        syscall(SYS_capset, &header, data) != 0 || syscall(SYS_capget, &header, data) != 0) {
        return errno;
    }
    bool none =
        (data[0].permitted | data[1].permitted | data[0].effective | data[1].effective) == 0;
    return none && prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0 ? 0 : EPROTO;
}

static int try_no_new_privs(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return errno;
    }
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : EPROTO;
}

static int try_seccomp(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | PROBE_ERRNO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    int error = try_no_new_privs();
    if (error != 0) {
        return error;
    }
    AUTO_CLOSE int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                           SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0) {
        return errno;
    }
    return syscall(SYS_getppid) == -1 && errno == PROBE_ERRNO ? 0 : EPROTO;
}

static int try_landlock(void)
{
    int abi = landlock_abi();
    if (abi == 0) {
        return ENOSYS;
    }
    AUTO_CLOSE int ruleset = landlock_open(abi, landlock_rights(abi), true);
    int error = ruleset < 0 ? errno : try_no_new_privs();
    if (error != 0) {
        return error;
    }
    if (!landlock_enter(ruleset)) {
        return errno;
    }
    AUTO_CLOSE int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 && errno == EACCES ? 0 : EPROTO;
}

/* A tmpfs of one page and two names (the root's is one), not mounted anywhere. */
static int scratch_open(int *out)
{
    AUTO_CLOSE int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (context < 0 || fsconfig(context, FSCONFIG_SET_STRING, "size", "4k", 0) != 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", "2", 0) != 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0) {
        return errno;
    }
    *out =
        fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return errno_of(*out);
}

static int try_read_only_root(void)
{
    AUTO_CLOSE int root = -1;
    int error = scratch_open(&root);
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    if (error != 0) {
        return error;
    }
    if (mount_setattr(root, "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
        return errno;
    }
    return mkdirat(root, "x", 0700) != 0 && errno == EROFS ? 0 : EPROTO;
}

static int try_tmpfs_limits(void)
{
    AUTO_CLOSE int root = -1;
    int error = scratch_open(&root);
    if (error != 0) {
        return error;
    }
    AUTO_CLOSE int file = openat(root, "x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    static const char page[PAGE_BYTES];
    if (file < 0 || write(file, page, sizeof page) != (ssize_t)sizeof page) {
        return errno;
    }
    bool full = write(file, page, sizeof page) < 0 && errno == ENOSPC;
    return full && mkdirat(root, "y", 0700) != 0 && errno == ENOSPC ? 0 : EPROTO;
}

static int try_proc_inside(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid,hidepid=2") !=
            0) {
        return errno;
    }
    return access("/proc/1/status", F_OK) == 0 && access("/proc/sys", F_OK) != 0 ? 0 : EPROTO;
}

static int try_proc(void)
{
    return in_pid_namespace(try_proc_inside);
}

static int try_rlimits(void)
{
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_NOFILE, &none) != 0) {
        return errno;
    }
    AUTO_CLOSE int fd = open("/", O_PATH | O_CLOEXEC);
    return fd < 0 && errno == EMFILE ? 0 : EPROTO;
}

struct probe {
    enum wall wall;
    int namespaces; /* besides the user's */
    int (*run)(void);
};

static const struct probe probes[] = {
    {WALL_USER_NAMESPACE, 0, try_nothing},
    {WALL_MOUNT_NAMESPACE, CLONE_NEWNS, try_mounts},
    {WALL_PID_NAMESPACE, CLONE_NEWPID, try_pid},
    {WALL_NET_NAMESPACE, CLONE_NEWNET, try_net},
    {WALL_IPC_NAMESPACE, CLONE_NEWIPC, try_nothing},
    {WALL_UTS_NAMESPACE, CLONE_NEWUTS, try_uts},
    {WALL_CGROUP_NAMESPACE, CLONE_NEWCGROUP, try_nothing},
    {WALL_CAPABILITIES, 0, try_capabilities},
    {WALL_NO_NEW_PRIVS, 0, try_no_new_privs},
    {WALL_SECCOMP, 0, try_seccomp},
    {WALL_LANDLOCK, 0, try_landlock},
    {WALL_READ_ONLY_ROOT, CLONE_NEWNS, try_read_only_root},
    {WALL_TMPFS_LIMITS, CLONE_NEWNS, try_tmpfs_limits},
    {WALL_MASKED_PROC, CLONE_NEWNS | CLONE_NEWPID, try_proc},
    {WALL_RLIMITS, 0, try_rlimits},
};

/* The namespaces exist; the parent maps the user between the two bytes. Never returns. */
__attribute__((noreturn)) static void probe_child(const struct probe *p, int made_fd, int go_fd)
{
    char byte = 'm';
    if (unshare(CLONE_NEWUSER | p->namespaces) != 0) {
        _exit(errno);
    }
    if (write(made_fd, &byte, 1) != 1 || read(go_fd, &byte, 1) != 1) {
        _exit(EPIPE); /* The parent says why. */
    }
    if (setresgid(INSIDE_UID, INSIDE_UID, INSIDE_UID) != 0 ||
        setresuid(INSIDE_UID, INSIDE_UID, INSIDE_UID) != 0) {
        _exit(errno);
    }
    _exit(p->run());
}

static int proc_write(pid_t pid, const char *file, const char *text)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    ssize_t size = (ssize_t)strlen(text);
    return write(fd, text, (size_t)size) == size ? 0 : errno;
}

static int map_write(pid_t pid, uint32_t uid)
{
    char text[64];
    bool root = geteuid() == 0;
    int error = root ? 0 : proc_write(pid, "setgroups", "deny");
    (void)snprintf(text, sizeof text, "%d %u 1\n", INSIDE_UID, root && uid != 0 ? uid : getegid());
    error = error != 0 ? error : proc_write(pid, "gid_map", text);
    (void)snprintf(text, sizeof text, "%d %u 1\n", INSIDE_UID, root && uid != 0 ? uid : geteuid());
    return error != 0 ? error : proc_write(pid, "uid_map", text);
}

static int probe_run(const struct probe *p, uint32_t uid)
{
    int made[2];
    int go[2];
    if (pipe2(made, O_CLOEXEC) != 0) {
        return errno;
    }
    AUTO_CLOSE int made_read = made[0];
    AUTO_CLOSE int made_write = made[1];
    if (pipe2(go, O_CLOEXEC) != 0) {
        return errno;
    }
    AUTO_CLOSE int go_read = go[0];
    AUTO_CLOSE int go_write = go[1];
    pid_t pid = fork();
    if (pid < 0) {
        return errno;
    }
    if (pid == 0) {
        (void)close(made_read);
        (void)close(go_write); /* So that the end of the parent ends the wait. */
        probe_child(p, made_write, go_read);
    }
    (void)close(fd_steal(&made_write));
    (void)close(fd_steal(&go_read));
    char byte;
    int error = 0;
    if (read(made_read, &byte, 1) == 1) {
        error = map_write(pid, uid);
        if (error == 0 && write(go_write, "g", 1) != 1) {
            error = errno;
        }
    }
    (void)close(fd_steal(&go_write));
    int inside = child_errno(pid);
    return error != 0 ? error : inside;
}

static void note(struct walls_found *out, enum wall wall, const char *why)
{
    out->missing |= UINT32_C(1) << wall;
    (void)snprintf(out->why[wall], sizeof out->why[wall], "%s", why);
}

/* One group with nothing but the wall's controller. */
static struct status group_try(const struct walls_question *q, enum wall wall, struct cgroup *g,
                               struct errmsg *msg)
{
    static const struct cgroup_limits small = {
        .memory_bytes = 16 << 20, .cpu_millis = 1000, .pids_max = 16};
    struct cgroup_limits limits = small;
    struct cgroup_mounts mounts;
    char path[CGROUP_PATH_BYTES_MAX];
    wall_set used = wall == WALL_CGROUP_SWAP ? WALL_BIT(CGROUP_MEMORY) : UINT32_C(1) << wall;
    limits.swap_needed = wall == WALL_CGROUP_SWAP;
    limits.io_needed = wall == WALL_CGROUP_IO;
    limits.io_bps = wall == WALL_CGROUP_IO ? q->io_bps : 0;
    (void)snprintf(path, sizeof path, "%s/probe-%d", q->cgroup, (int)getpid());
    TRY(cgroup_mounts_find(&mounts, msg));
    cgroup_mounts_drop(&mounts, WALLS_CGROUP & ~used);
    TRY(cgroup_open(g, &mounts, path, msg));
    struct status s = cgroup_limit(g, &limits, msg);
    if (!cgroup_close(g) && status_is_ok(s)) {
        s = status_fail(msg, STATUS_IO, "the group %s cannot be removed", path);
    }
    return s;
}

static void groups_probe(const struct walls_question *q, struct walls_found *out)
{
    struct cgroup *g = mem_zalloc(1, sizeof *g);
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        struct errmsg msg = {""};
        if ((q->walls & WALLS_CGROUP & (UINT32_C(1) << i)) == 0) {
            continue;
        }
        struct status s = g == NULL ? status_of(STATUS_NOMEM) : group_try(q, (enum wall)i, g, &msg);
        if (!status_is_ok(s)) {
            note(out, (enum wall)i, msg.text[0] != '\0' ? msg.text : status_text(s.code));
        }
    }
    mem_free(g);
}

void walls_probe(const struct walls_question *q, struct walls_found *out)
{
    CHECK((q->walls & WALLS_CGROUP) == 0 || q->cgroup != NULL);
    *out = (struct walls_found){0};
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
        const struct probe *p = &probes[i];
        if ((q->walls & (UINT32_C(1) << p->wall)) == 0) {
            continue;
        }
        int error = probe_run(p, q->uid);
        if (error != 0) {
            note(out, p->wall, error == EPROTO ? "it does not hold" : strerror(error));
        }
        if (error != 0 && p->wall == WALL_USER_NAMESPACE) {
            out->untried = q->walls & ~WALL_BIT(USER_NAMESPACE);
            return;
        }
    }
    groups_probe(q, out);
}

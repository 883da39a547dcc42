/* Files that are not the cell's: of the machine, of the code folder, of the runtime; devices;
 * setuid programs; descriptors that were left open. */
#include "tests/security/cell/escape.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static long do_read(const struct attempt *a)
{
    return try_open(a->path, O_RDONLY | O_NONBLOCK);
}

static long do_write(const struct attempt *a)
{
    return try_open(a->path, O_WRONLY | O_NONBLOCK);
}

/* A file of a name that nobody uses is made in the folder, and removed again. */
static long do_create(const struct attempt *a)
{
    const char *path = text("%s/.skep-escape-%d", a->path, (int)getpid());
    long result = try_open(path, O_WRONLY | O_CREAT | O_EXCL);
    int error = errno;
    (void)unlink(path);
    errno = error;
    return result;
}

/* From however deep a folder to the root. */
#define UP "/../../../../../../../../../../../../../../../.."

/* The bait's secret by a roundabout way; %s is the folder. */
static long do_secret(const struct attempt *a)
{
    char path[512];
    int used = snprintf(path, sizeof path, "%s", a->path);
    if (a->a != 0) {
        used = snprintf(path, sizeof path, "/proc/%ld/%s", bait.pid, a->path);
    }
    (void)snprintf(path + used, sizeof path - (size_t)used, "%s/secret", bait.folder);
    return try_open(path, O_RDONLY);
}

/* A name in the code folder that leads away. */
static long do_app_link(const struct attempt *a)
{
    return try_open(text("%s/%s", bait.app, a->path), O_RDONLY);
}

static long do_openat2(const struct attempt *a)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = (uint64_t)a->a};
    const char *path = text("/../../..%s/secret", bait.folder);
    return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static long do_readlink(const struct attempt *a)
{
    char target[256];
    ssize_t size = readlink(text("/proc/%ld/%s", bait.pid, a->path), target, sizeof target);
    return size;
}

static long do_app(const struct attempt *a)
{
    const char *path = text("%s/%s", bait.app, a->path);
    switch (a->a) {
    case SYS_unlink:
        return unlink(path);
    case SYS_rmdir:
        return rmdir(path);
    case SYS_mkdir:
        return mkdir(path, 0700);
    case SYS_chmod:
        return chmod(path, 0777);
    case SYS_chown:
        return chown(path, 1, 1);
    case SYS_truncate:
        return truncate(path, 1);
    case SYS_symlink:
        return symlink("/", path);
    case SYS_rename:
        return rename(path, text("%s/renamed", bait.app));
    case SYS_link:
        return link(path, text("%s/linked", bait.app));
    case SYS_setxattr:
        return setxattr(path, "trusted.skep", "x", 1, 0);
    case SYS_utimensat:
        return utimensat(AT_FDCWD, path, NULL, 0);
    default:
        return mkfifo(path, 0600);
    }
}

static long do_device(const struct attempt *a)
{
    const char *path = text("%s/node-%ld-%ld", bait.tmp, a->a, a->b);
    mode_t kind = a->path[0] == 'b' ? S_IFBLK : S_IFCHR;
    long result = mknod(path, kind | 0600, makedev((unsigned)a->a, (unsigned)a->b));
    int error = errno;
    (void)unlink(path);
    errno = error;
    return result;
}

static long exec_path(const void *argument)
{
    const struct attempt *a = argument;
    char *const args[] = {(char *)(uintptr_t)a->path, (char *)(uintptr_t)a->path, NULL};
    char *const env[] = {(char *)(uintptr_t)text("BAIT_CHOWN=%s/chowned", bait.folder), NULL};
    (void)execve(text("%s/%s", bait.app, a->path), args, env);
    return -1;
}

/* Programs of the code folder with another owner's power (setuid) or capabilities. */
static long do_exec_app(const struct attempt *a)
{
    return in_child(exec_path, a);
}

static long exec_tmp(const void *argument)
{
    const char *path = argument;
    char *const args[] = {(char *)(uintptr_t)path, NULL};
    (void)execv(path, args);
    return -1;
}

/* Code that the cell brings with it, where nothing may run. */
static long do_exec_tmp(const struct attempt *a)
{
    const char *path = text("%s/run", bait.tmp);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0700);
    if (fd < 0 || write(fd, "#!/bin/true\n", 12) != 12) {
        return -1;
    }
    (void)close(fd);
    if (a->a == 0) {
        return in_child(exec_tmp, path);
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0;
}

/* A setuid copy of the program made by the cell itself. */
static long do_make_setuid(const struct attempt *a)
{
    (void)a;
    struct stat st;
    const char *path = text("%s/made-setuid", bait.tmp);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0700);
    if (fd < 0 || fchown(fd, 0, 0) != 0 || fchmod(fd, 04755) != 0 || fstat(fd, &st) != 0) {
        return -1;
    }
    return st.st_uid == 0 && (st.st_mode & S_ISUID) != 0 ? 0 : refused(EPERM);
}

/* CVE-2019-5736: a descriptor of the running program, kept until it no longer runs, is opened for
 * writing. */
static long do_self_exe(const struct attempt *a)
{
    (void)a;
    int out[2];
    char byte = 0;
    if (pipe2(out, O_CLOEXEC) != 0) {
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(out[1], 1);
        char *const args[] = {(char *)(uintptr_t) "guest", (char *)(uintptr_t) "wait", NULL};
        (void)execv(text("%s/guest", bait.app), args);
        _exit(1);
    }
    (void)!read(out[0], &byte, 1);
    int fd = open(text("/proc/%d/exe", (int)pid), O_PATH | O_CLOEXEC);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    if (fd < 0 || byte != 'w') {
        return refused(EINVAL);
    }
    return try_open(text("/proc/self/fd/%d", fd), O_WRONLY);
}

/* The program of process 1, which is what a runtime left there. */
static long do_write_own_exe(const struct attempt *a)
{
    return passed(try_open(a->path, O_WRONLY), ETXTBSY, -1);
}

/* CVE-2024-21626: any descriptor that leads to a folder or file outside. */
static long do_leaked(const struct attempt *a)
{
    char path[64];
    int error = ENOENT;
    for (int fd = 3; fd < 1024; fd++) {
        struct stat st;
        if (fstat(fd, &st) != 0) {
            continue;
        }
        if (a->a == 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))) {
            return 0;
        }
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d/../../../etc/shadow", fd);
        if (a->a == 1 && openat(fd, "../etc/shadow", O_RDONLY | O_CLOEXEC) >= 0) {
            return 0;
        }
        if (a->a == 2 && open(path, O_RDONLY | O_CLOEXEC) >= 0) {
            return 0;
        }
        if (a->a == 3 && fchdir(fd) == 0) {
            return 0;
        }
        error = errno != 0 ? errno : error;
    }
    return refused(error);
}

/* The same, through what /proc shows of process 1, whom the runtime prepared. */
static long do_leaked_1(const struct attempt *a)
{
    (void)a;
    for (int fd = 0; fd < 256; fd++) {
        char target[256] = "";
        const char *link = text("/proc/%s/fd/%d", getpid() < 100 ? "1" : "self", fd);
        if (readlink(link, target, sizeof target - 1) > 0 && target[0] == '/' &&
            strcmp(target, "/dev/null") != 0) {
            return 0;
        }
    }
    return refused(ENOENT);
}

/* The working directory must be below the cell's root. */
static long do_cwd(const struct attempt *a)
{
    (void)a;
    char folder[512];
    long result = syscall(SYS_getcwd, folder, sizeof folder);
    if (result > 0 && folder[0] != '/') {
        return 0; /* "(unreachable)..." */
    }
    return try_open(text("../../../../../../../..%s/secret", bait.folder), O_RDONLY);
}

/* The classic walk: a root below the working directory lets ".." climb past it. */
static long do_chroot_walk(const struct attempt *a)
{
    (void)a;
    const char *folder = text("%s/walk", bait.tmp);
    (void)mkdir(folder, 0700);
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (chroot(folder) != 0 || fchdir(fd) != 0) {
        return -1;
    }
    return try_open(text(".%s/secret", bait.folder), O_RDONLY);
}

/* One's own user namespace and its maps. */
static long do_map(const struct attempt *a)
{
    (void)unshare(CLONE_NEWUSER);
    int groups = open("/proc/self/setgroups", O_WRONLY | O_CLOEXEC);
    if (a->a == 0) {
        (void)!write(groups, "deny", 4);
    }
    int fd = open(a->path, O_WRONLY | O_CLOEXEC);
    const char *line = a->a == 0 ? "0 0 1\n" : "deny";
    return fd < 0 ? -1 : write(fd, line, strlen(line));
}

static long do_oom_score(const struct attempt *a)
{
    (void)a;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -1 : write(fd, "-1000", 5);
}

/* Every folder of /proc that is a process which the cell did not make. */
static long do_foreign_processes(const struct attempt *a)
{
    (void)a;
    DIR *dir = opendir("/proc");
    const struct dirent *entry = NULL;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char name[32] = "";
        int fd = open(text("/proc/%s/comm", entry->d_name), O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, name, sizeof name - 1) <= 0) {
            (void)close(fd);
            continue;
        }
        (void)close(fd);
        if (strncmp(name, "skep-", 5) == 0 || strncmp(name, "escape_bait", 11) == 0) {
            return 0;
        }
    }
    return refused(ESRCH);
}

#define ROW(name, reference, run, ...)                                                             \
    {                                                                                              \
        name, reference, run, __VA_ARGS__                                                          \
    }
#define HOST "files of the host"
#define PROC "masked /proc"
#define SYS "no /sys (CVE-2022-0492 needs it)"
#define DEV "devices"
#define APP "read-only code"
#define LEAK "CVE-2024-21626"
#define LINKS "symbolic links (CVE-2021-30465, CVE-2018-15664)"
#define REACH "/proc/PID/root and kin"
#define READ(path, reference)                                                                      \
    {                                                                                              \
        "read " path, reference, do_read, path, 0, 0, MAY_LACK | MAY_DENY, NULL                    \
    }
#define WRITE(path, reference)                                                                     \
    {                                                                                              \
        "write " path, reference, do_write, path, 0, 0, MAY_LACK | MAY_DENY, NULL                  \
    }
#define CREATE(path)                                                                               \
    {                                                                                              \
        "create a file in " path, HOST, do_create, path, 0, 0, 0, NULL                             \
    }
#define NODE(name, kind, major, minor)                                                             \
    {                                                                                              \
        "make the node of " name, "mknod", do_device, kind, major, minor, 0, NULL                  \
    }

const struct attempt attempts_paths[] = {
    READ("/etc/shadow", HOST),
    READ("/root", HOST),
    READ("/home", HOST),
    READ("/run", HOST),
    READ("/var/lib", HOST),
    READ("/boot", HOST),
    READ("/var/run/docker.sock", HOST),
    READ("/proc/kcore", PROC),
    READ("/proc/kallsyms", PROC),
    READ("/proc/keys", PROC),
    READ("/proc/timer_list", PROC),
    READ("/proc/iomem", PROC),
    READ("/proc/modules", PROC),
    READ("/proc/slabinfo", PROC),
    READ("/proc/vmallocinfo", PROC),
    READ("/proc/kpagecount", PROC),
    READ("/proc/interrupts", PROC),
    READ("/proc/sys/kernel/core_pattern", PROC),
    READ("/proc/sysvipc/shm", PROC),
    READ("/proc/bus", PROC),
    READ("/proc/fs", PROC),
    READ("/sys/kernel", SYS),
    READ("/sys/fs/cgroup", SYS),
    READ("/sys/class/net", SYS),
    READ("/sys/kernel/debug", SYS),
    READ("/sys/firmware", SYS),
    READ("/dev/mem", DEV),
    READ("/dev/kmem", DEV),
    READ("/dev/port", DEV),
    READ("/dev/kmsg", DEV),
    READ("/dev/vda", DEV),
    READ("/dev/loop0", DEV),
    READ("/dev/tty0", DEV),
    READ("/dev/ptmx", DEV),
    READ("/dev/fuse", "FUSE stalls"),
    READ("/dev/kvm", DEV),
    READ("/dev/net/tun", DEV),
    READ("/dev/userfaultfd", "userfaultfd stalls"),
    READ("/dev/loop-control", DEV),
    READ("/proc/1/root/etc/shadow", REACH),
    READ("/proc/self/root/root", REACH),
    READ("/proc/1/task/1/root/etc/shadow", REACH),
    READ("/../../../../etc/shadow", HOST),
    WRITE("/proc/sysrq-trigger", PROC),
    WRITE("/proc/sys/kernel/core_pattern", "core_pattern pipes"),
    WRITE("/proc/sys/kernel/modprobe", PROC),
    WRITE("/proc/sys/vm/drop_caches", PROC),
    WRITE("/proc/sys/fs/binfmt_misc/register", PROC),
    WRITE("/sys/kernel/uevent_helper", SYS),
    WRITE("/sys/fs/cgroup/memory/release_agent", "CVE-2022-0492"),
    WRITE("/sys/fs/cgroup/memory/notify_on_release", "CVE-2022-0492"),
    WRITE("/sys/fs/cgroup/cgroup.procs", "CVE-2022-0492"),
    WRITE("/etc/passwd", HOST),
    WRITE("/usr/bin/getconf", HOST),
    CREATE("/"),
    CREATE("/usr"),
    CREATE("/usr/bin"),
    CREATE("/etc"),
    CREATE("/dev"),
    ROW("the secret by its path", HOST, do_secret, "", 0, 0, 0, NULL),
    ROW("the secret by ..", HOST, do_secret, "/../../..", 0, 0, 0, NULL),
    ROW("the secret by /proc/self/root", REACH, do_secret, "/proc/self/root", 0, 0, 0, NULL),
    ROW("the secret by /proc/self/cwd", REACH, do_secret, "/proc/self/cwd" UP, 0, 0, 0, NULL),
    ROW("the secret by /proc/1/root", REACH, do_secret, "/proc/1/root", 0, 0, MAY_DENY, NULL),
    ROW("the secret by /proc/1/cwd", REACH, do_secret, "/proc/1/cwd" UP, 0, 0, MAY_DENY, NULL),
    ROW("the secret by the bait's root", REACH, do_secret, "root", 1, 0, 0, NULL),
    ROW("the secret by the bait's cwd", REACH, do_secret, "cwd" UP, 1, 0, 0, NULL),
    ROW("the secret by the bait's thread", REACH, do_secret, "task/../root", 1, 0, 0, NULL),
    ROW("the secret by openat2", HOST, do_openat2, NULL, 0, 0, 0, NULL),
    ROW("the secret by openat2 without own links", HOST, do_openat2, NULL, RESOLVE_NO_MAGICLINKS, 0,
        0, NULL),
    ROW("read the link of the bait's root", REACH, do_readlink, "root", 0, 0, 0, NULL),
    ROW("read the link of the bait's program", REACH, do_readlink, "exe", 0, 0, 0, NULL),
    ROW("a link of the code that leads out", LINKS, do_app_link, "out", 0, 0, 0, NULL),
    ROW("a link of the code with ..", LINKS, do_app_link, "up", 0, 0, 0, NULL),
    ROW("a link of the code through /proc", LINKS, do_app_link, "proc", 0, 0, 0, NULL),
    ROW("a folder of the code that is a link", LINKS, do_app_link, "folder/secret", 0, 0, 0, NULL),
    ROW("unlink code", APP, do_app, "unlinked", SYS_unlink, 0, 0, NULL),
    ROW("rmdir in the code", APP, do_app, "removed", SYS_rmdir, 0, 0, NULL),
    ROW("mkdir in the code", APP, do_app, "made", SYS_mkdir, 0, 0, NULL),
    ROW("chmod of code", APP, do_app, "changed", SYS_chmod, 0, 0, NULL),
    ROW("chown of code", APP, do_app, "changed", SYS_chown, 0, 0, NULL),
    ROW("truncate code", APP, do_app, "changed", SYS_truncate, 0, 0, NULL),
    ROW("rename code", APP, do_app, "moved", SYS_rename, 0, 0, NULL),
    ROW("link code", APP, do_app, "changed", SYS_link, 0, 0, NULL),
    ROW("symlink in the code", APP, do_app, "symlink", SYS_symlink, 0, 0, NULL),
    ROW("times of code", APP, do_app, "changed", SYS_utimensat, 0, 0, NULL),
    ROW("attributes of code", APP, do_app, "changed", SYS_setxattr, 0, MAY_LACK, NULL),
    ROW("a fifo in the code", APP, do_app, "pipe", SYS_mknod, 0, 0, NULL),
    NODE("/dev/mem", "c", 1, 1),
    NODE("/dev/kmem", "c", 1, 2),
    NODE("/dev/port", "c", 1, 4),
    NODE("/dev/kmsg", "c", 1, 11),
    NODE("a disk", "b", 254, 0),
    NODE("a loop device", "b", 7, 0),
    NODE("/dev/fuse", "c", 10, 229),
    ROW("a setuid program of the code", "setuid", do_exec_app, "uid", 0, 0, AS_USER | KEEP_NS,
        NULL),
    ROW("file capabilities of the code", "file capabilities", do_exec_app, "cap", 0, 0,
        AS_USER | KEEP_NS | MAY_LACK, NULL),
    ROW("exec a file of /tmp", "noexec", do_exec_tmp, NULL, 0, 0, 0, NULL),
    ROW("map a file of /tmp executable", "noexec", do_exec_tmp, NULL, 1, 0, 0, NULL),
    ROW("make a setuid program of root", "setuid", do_make_setuid, NULL, 0, 0, 0, NULL),
    ROW("overwrite a program that ran", "CVE-2019-5736", do_self_exe, NULL, 0, 0, 0, NULL),
    ROW("write /proc/self/exe", "CVE-2019-5736", do_write_own_exe, "/proc/self/exe", 0, 0, 0, NULL),
    ROW("write /proc/1/exe", "CVE-2019-5736", do_write_own_exe, "/proc/1/exe", 0, 0, MAY_DENY,
        NULL),
    ROW("a descriptor of a folder or file", LEAK, do_leaked, NULL, 0, 0, 0, NULL),
    ROW("openat from any descriptor", LEAK, do_leaked, NULL, 1, 0, ONLY_HERE,
        "the bait's folder is two levels down; the row above shows the leak itself"),
    ROW("/proc/self/fd/N/..", LEAK, do_leaked, NULL, 2, 0, ONLY_HERE,
        "the bait's folder is two levels down; the next row goes through one"),
    ROW("fchdir to any descriptor", LEAK, do_leaked, NULL, 3, 0, 0, NULL),
    ROW("descriptors of process 1 that have a path", LEAK, do_leaked_1, NULL, 0, 0, 0, NULL),
    ROW("a working directory outside the root", LEAK, do_cwd, NULL, 0, 0, 0, NULL),
    ROW("chroot and climb", "chroot", do_chroot_walk, NULL, 0, 0, 0, NULL),
    ROW("a user map of its own", "CVE-2018-18955", do_map, "/proc/self/uid_map", 0, 0, 0, NULL),
    ROW("a group map of its own", "CVE-2014-8989", do_map, "/proc/self/gid_map", 0, 0, 0, NULL),
    ROW("/proc/self/setgroups", "CVE-2014-8989", do_map, "/proc/self/setgroups", 1, 0, 0, NULL),
    ROW("oom_score_adj", "limits", do_oom_score, NULL, 0, 0, MAY_DENY, NULL),
    ROW("processes of the host in /proc", "/proc", do_foreign_processes, NULL, 0, 0, 0, NULL),
    {0},
};

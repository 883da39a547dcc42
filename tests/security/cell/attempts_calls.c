/* Calls that make or change something of the machine: namespaces, mounts, modules, keys, tracing,
 * the other system call tables, sockets of other families, credentials. */
#include "tests/security/cell/escape.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The call whose number is a->a with these plain arguments; granted also when the errno is a->b. */
static long bare(const struct attempt *a)
{
    return passed(syscall(a->a, 0, 0, 0, 0, 0, 0), a->b != 0 ? (int)a->b : -1, -1);
}

/* The first argument is a bad descriptor. */
static long bad_fd(const struct attempt *a)
{
    return passed(syscall(a->a, -1, 0, 0, 0, 0, 0), (int)a->b, EINVAL);
}

/* The first argument is a path that does not exist. */
static long bad_path(const struct attempt *a)
{
    return passed(syscall(a->a, "/nonexistent/skep", 0, 0, 0, 0, 0), (int)a->b, EINVAL);
}

static long do_mount(const struct attempt *a)
{
    return mount(a->path, "/tmp", a->path, 0, a->b != 0 ? "memory" : NULL);
}

static long do_bind(const struct attempt *a)
{
    (void)a;
    return mount(bait.app, "/tmp", NULL, MS_BIND, NULL);
}

static long do_remount(const struct attempt *a)
{
    (void)a;
    return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL);
}

static long do_shared(const struct attempt *a)
{
    (void)a;
    return mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL);
}

static long do_umount(const struct attempt *a)
{
    (void)a;
    return umount2("/proc", MNT_DETACH);
}

static long do_open_tree(const struct attempt *a)
{
    (void)a;
    return syscall(SYS_open_tree, AT_FDCWD, "/", 1);
}

static long do_fsopen(const struct attempt *a)
{
    return syscall(SYS_fsopen, a->path, 0);
}

static long do_fspick(const struct attempt *a)
{
    (void)a;
    return syscall(SYS_fspick, AT_FDCWD, "/", 0);
}

static long do_mount_setattr(const struct attempt *a)
{
    (void)a;
    uint64_t attr[4] = {0};
    return syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, attr, sizeof attr);
}

static long do_pivot_root(const struct attempt *a)
{
    (void)a;
    return passed(syscall(SYS_pivot_root, "/tmp", "/tmp"), EINVAL, EBUSY);
}

static long do_chroot(const struct attempt *a)
{
    (void)a;
    return chroot("/tmp");
}

static long do_unshare(const struct attempt *a)
{
    return unshare((int)a->a);
}

static long do_setns(const struct attempt *a)
{
    int fd = open(text("/proc/%ld/ns/%s", bait.pid, a->path), O_RDONLY | O_CLOEXEC);
    fd = fd >= 0 ? fd : open(text("/proc/1/ns/%s", a->path), O_RDONLY | O_CLOEXEC);
    return setns(fd, 0);
}

static long do_setns_pidfd(const struct attempt *a)
{
    int fd = (int)syscall(SYS_pidfd_open, bait.pid, 0);
    return fd < 0 ? -1 : setns(fd, (int)a->a);
}

static long do_ns_ioctl(const struct attempt *a)
{
    return ioctl(open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC), (unsigned long)a->a);
}

static long do_clone(const struct attempt *a)
{
    long pid = syscall(SYS_clone, (unsigned long)a->a | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        _exit(0);
    }
    return pid;
}

static long do_clone3(const struct attempt *a)
{
    uint64_t args[8] = {(uint64_t)a->a, 0, 0, 0, SIGCHLD, 0, 0, 0};
    long pid = syscall(SYS_clone3, args, sizeof args);
    if (pid == 0) {
        _exit(0);
    }
    return pid;
}

static long do_bpf_map(const struct attempt *a)
{
    (void)a;
    union bpf_attr attr = {
        .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr);
}

static long do_bpf_program(const struct attempt *a)
{
    (void)a;
    static const struct bpf_insn code[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K}, /* r0 = 0 */
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
                           .insns = (uint64_t)(uintptr_t)code,
                           .insn_cnt = 2,
                           .license = (uint64_t)(uintptr_t) "GPL"};
    return syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
}

static long do_perf(const struct attempt *a)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_CPU_CLOCK};
    return syscall(SYS_perf_event_open, &attr, a->a, a->a == -1 ? 0 : -1, -1, 0);
}

static long do_io_uring(const struct attempt *a)
{
    (void)a;
    char params[120] = {0};
    return syscall(SYS_io_uring_setup, 1, params);
}

static long do_io_setup(const struct attempt *a)
{
    (void)a;
    unsigned long context = 0;
    return syscall(SYS_io_setup, 1, &context);
}

static long do_keyctl(const struct attempt *a)
{
    return syscall(SYS_keyctl, a->a, a->b, 1, 0, 0);
}

static long do_add_key(const struct attempt *a)
{
    (void)a;
    return syscall(SYS_add_key, "user", "skep-escape", "y", 1, -1);
}

static long do_request_key(const struct attempt *a)
{
    (void)a;
    return passed(syscall(SYS_request_key, "user", "skep-none", NULL, 0), ENOKEY, -1);
}

static struct sock_filter allow_all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
static const struct sock_fprog allow_program = {.len = 1, .filter = allow_all};

static long do_seccomp(const struct attempt *a)
{
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, a->a, &allow_program);
}

static long do_prctl(const struct attempt *a)
{
    return passed(prctl((int)a->a, a->b, 0, 0, 0), -1, -1);
}

static long do_prctl_filter(const struct attempt *a)
{
    (void)a;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &allow_program, 0, 0);
}

static long do_prctl_mm(const struct attempt *a)
{
    (void)a;
    unsigned size = 0;
    return prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0);
}

static long do_module(const struct attempt *a)
{
    (void)a;
    char nothing[8] = {0};
    return passed(syscall(SYS_init_module, nothing, 1, ""), ENOEXEC, EFAULT);
}

static long do_kexec(const struct attempt *a)
{
    (void)a;
    return passed(syscall(SYS_kexec_load, 0, 1000, NULL, 0), EINVAL, EADDRNOTAVAIL);
}

static long do_reboot(const struct attempt *a)
{
    (void)a; /* A wrong magic number: judged after the permission. */
    return passed(syscall(SYS_reboot, 1, 2, 3, NULL), EINVAL, -1);
}

static long do_port(const struct attempt *a)
{
    return a->a == SYS_iopl ? syscall(SYS_iopl, 3) : syscall(SYS_ioperm, 0x80, 1, 1);
}

static long do_syslog(const struct attempt *a)
{
    (void)a;
    char line[256];
    return syscall(SYS_syslog, 3, line, sizeof line);
}

/* The frequency that it has is set again. */
static long do_adjtimex(const struct attempt *a)
{
    struct timex t = {0};
    if (syscall(SYS_adjtimex, &t) < 0) {
        return -1;
    }
    t.modes = ADJ_FREQUENCY;
    return a->a == SYS_adjtimex ? syscall(SYS_adjtimex, &t) : syscall(SYS_clock_adjtime, 0, &t);
}

static long do_clock_settime(const struct attempt *a)
{
    (void)a;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return syscall(a->a, a->a == SYS_clock_settime ? 0L : (long)(uintptr_t)&now, &now);
}

static long do_hostname(const struct attempt *a)
{
    return a->a == SYS_sethostname ? sethostname("x", 1) : setdomainname("x", 1);
}

static long do_vhangup(const struct attempt *a)
{
    (void)a;
    (void)setsid();
    return vhangup();
}

static long do_fanotify(const struct attempt *a)
{
    (void)a;
    return syscall(SYS_fanotify_init, 0, 0);
}

static long do_memory_policy(const struct attempt *a)
{
    unsigned long mask = 1;
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    switch (a->a) {
    case SYS_mbind:
        return syscall(SYS_mbind, p, 4096, 2, &mask, 64, 0);
    case SYS_set_mempolicy:
        return syscall(SYS_set_mempolicy, 2, &mask, 64);
    default:
        return syscall(SYS_migrate_pages, 0, 64, &mask, &mask);
    }
}

static long do_modify_ldt(const struct attempt *a)
{
    (void)a;
    char table[64];
    return syscall(SYS_modify_ldt, 0, table, sizeof table);
}

static long do_handle(const struct attempt *a)
{
    char space[256] = {0};
    int mount_id = 0;
    struct file_handle *handle = (struct file_handle *)space;
    handle->handle_bytes = 128;
    const char *path = text("%s/allowed", bait.app);
    long result = name_to_handle_at(AT_FDCWD, path, handle, &mount_id, 0);
    if (result < 0 || a->a == 0) {
        return result;
    }
    return open_by_handle_at(open("/", O_RDONLY | O_CLOEXEC), handle, O_RDONLY);
}

/* The root's inode is guessed, as in "shocker" (2014): ESTALE is a grant. */
static long do_guessed_handle(const struct attempt *a)
{
    (void)a;
    char space[64] = {0};
    struct file_handle *handle = (struct file_handle *)space;
    handle->handle_bytes = 8;
    handle->handle_type = 1;
    handle->f_handle[0] = 2;
    return passed(open_by_handle_at(open("/", O_RDONLY | O_CLOEXEC), handle, O_RDONLY), ESTALE,
                  EOPNOTSUPP);
}

static long call_x32(const void *argument)
{
    (void)argument;
    return syscall(0x40000000 + SYS_getpid);
}

static long call_int80(const void *argument)
{
    (void)argument;
    long result = -1;
#ifdef __x86_64__
    result = 20; /* getpid of i386 */
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    errno = ENOSYS;
#endif
    return result;
}

static long do_other_table(const struct attempt *a)
{
    return in_child(a->a == 0 ? call_x32 : call_int80, NULL);
}

static long read_vsyscall(const void *argument)
{
    (void)argument;
    volatile unsigned char byte = *(volatile unsigned char *)(uintptr_t)0xffffffffff600000UL;
    return byte;
}

static long do_vsyscall(const struct attempt *a)
{
    (void)a;
    return in_child(read_vsyscall, NULL);
}

static long do_personality(const struct attempt *a)
{
    return personality((unsigned long)a->a);
}

/* A terminal of the attempt's own where one can be had, the log's pipe otherwise. */
static long do_tty(const struct attempt *a)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0) {
        (void)grantpt(fd);
        (void)unlockpt(fd);
        fd = open(ptsname(fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
    }
    int zero = 0;
    void *argument = (uint32_t)a->a == TIOCSETD ? (void *)&zero : (void *)(uintptr_t) "x";
    return syscall(SYS_ioctl, fd >= 0 ? fd : 1, a->a, argument);
}

static long do_interface(const struct attempt *a)
{
    (void)a;
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    return ioctl(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), SIOCSIFFLAGS, &request);
}

static long do_socket(const struct attempt *a)
{
    int type = (int)(a->b & 0xffff);
    return socket((int)a->a, type, (int)(a->b >> 16));
}

static long do_identity(const struct attempt *a)
{
    switch (a->a) {
    case SYS_setuid:
        return setuid((uid_t)a->b);
    case SYS_setgid:
        return setgid((gid_t)a->b);
    case SYS_setresuid:
        return setresuid((uid_t)a->b, (uid_t)a->b, (uid_t)a->b);
    default:
        return syscall(SYS_setgroups, 0, NULL);
    }
}

static long do_setfsuid(const struct attempt *a)
{
    (void)a;
    (void)syscall(SYS_setfsuid, 4242);
    return syscall(SYS_setfsuid, -1) == 4242 ? 0 : refused(EPERM);
}

static long capabilities_set(uint32_t effective, uint32_t inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = effective, .permitted = effective, .inheritable = inheritable}};
    return syscall(SYS_capset, &header, data);
}

static long do_capset(const struct attempt *a)
{
    (void)a;
    return capabilities_set(1U << CAP_SYS_ADMIN, 0);
}

static long do_ambient(const struct attempt *a)
{
    (void)a;
    (void)capabilities_set(1U << CAP_SYS_CHROOT, 1U << CAP_SYS_CHROOT);
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_CHROOT, 0, 0);
}

static long do_nice(const struct attempt *a)
{
    (void)a;
    return setpriority(PRIO_PROCESS, 0, -10);
}

static long do_fifo_class(const struct attempt *a)
{
    struct sched_param parameter = {.sched_priority = 1};
    return sched_setscheduler(0, (int)a->a, &parameter);
}

static long do_ioprio(const struct attempt *a)
{
    (void)a;
    return syscall(SYS_ioprio_set, 1, 0, 1 << 13);
}

static long do_traceme(const struct attempt *a)
{
    (void)a;
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static long do_secret_memory(const struct attempt *a)
{
    (void)a;
    return syscall(SYS_memfd_secret, 0);
}

static long do_userfault(const struct attempt *a)
{
    return syscall(SYS_userfaultfd, a->a);
}

#define ROW(name, reference, run, ...)                                                             \
    {                                                                                              \
        name, reference, run, __VA_ARGS__                                                          \
    }
#define NS "namespaces (CVE-2022-0185 and kin begin so)"
#define MOUNTS "mounts"
#define TRACE "other processes"
#define SURFACE "wide kernel surface"
#define MACHINE "the machine"
#define BYPASS "filter bypass"
#define FAMILY "socket families"
#define CRED "credentials"
#define TTY "terminals (TIOCSTI: CVE-2017-5226)"
#define NET2(type, protocol) (((long)(protocol) << 16) | (type))
#define LOADS "making one may load a kernel module outside"

const struct attempt attempts_calls[] = {
    ROW("mount tmpfs", MOUNTS, do_mount, "tmpfs", 0, 0, 0, NULL),
    ROW("mount proc", MOUNTS, do_mount, "proc", 0, 0, 0, NULL),
    ROW("mount sysfs", MOUNTS, do_mount, "sysfs", 0, 0, MAY_LACK, NULL),
    ROW("mount a cgroup v1 hierarchy", "CVE-2022-0492", do_mount, "cgroup", 0, 1, MAY_LACK, NULL),
    ROW("mount cgroup2", "CVE-2022-0492", do_mount, "cgroup2", 0, 0, MAY_LACK, NULL),
    ROW("mount devtmpfs", MOUNTS, do_mount, "devtmpfs", 0, 0, MAY_LACK, NULL),
    ROW("mount securityfs", MOUNTS, do_mount, "securityfs", 0, 0, MAY_LACK, NULL),
    ROW("mount debugfs", MOUNTS, do_mount, "debugfs", 0, 0, MAY_LACK, NULL),
    ROW("bind mount", MOUNTS, do_bind, NULL, 0, 0, 0, NULL),
    ROW("remount the root writable", MOUNTS, do_remount, NULL, 0, 0, 0, NULL),
    ROW("make mounts shared", "mount propagation", do_shared, NULL, 0, 0, 0, NULL),
    ROW("umount /proc", MOUNTS, do_umount, NULL, 0, 0, 0, NULL),
    ROW("open_tree", MOUNTS, do_open_tree, NULL, 0, 0, 0, NULL),
    ROW("fsopen tmpfs", "CVE-2022-0185", do_fsopen, "tmpfs", 0, 0, 0, NULL),
    ROW("fspick", MOUNTS, do_fspick, NULL, 0, 0, 0, NULL),
    ROW("move_mount", MOUNTS, bad_fd, NULL, SYS_move_mount, EFAULT, 0, NULL),
    ROW("fsconfig", "CVE-2022-0185", bad_fd, NULL, SYS_fsconfig, EBADF, 0, NULL),
    ROW("fsmount", MOUNTS, bad_fd, NULL, SYS_fsmount, EBADF, 0, NULL),
    ROW("mount_setattr", MOUNTS, do_mount_setattr, NULL, 0, 0, 0, NULL),
    ROW("pivot_root", MOUNTS, do_pivot_root, NULL, 0, 0, 0, NULL),
    ROW("chroot", MOUNTS, do_chroot, NULL, 0, 0, 0, NULL),
    ROW("unshare user", NS, do_unshare, NULL, CLONE_NEWUSER, 0, 0, NULL),
    ROW("unshare net", NS, do_unshare, NULL, CLONE_NEWNET, 0, 0, NULL),
    ROW("unshare mount", NS, do_unshare, NULL, CLONE_NEWNS, 0, 0, NULL),
    ROW("unshare pid", NS, do_unshare, NULL, CLONE_NEWPID, 0, 0, NULL),
    ROW("unshare ipc", NS, do_unshare, NULL, CLONE_NEWIPC, 0, 0, NULL),
    ROW("unshare uts", NS, do_unshare, NULL, CLONE_NEWUTS, 0, 0, NULL),
    ROW("unshare cgroup", NS, do_unshare, NULL, CLONE_NEWCGROUP, 0, 0, NULL),
    ROW("unshare time", NS, do_unshare, NULL, 0x80, 0, MAY_LACK, NULL),
    ROW("setns net", "setns", do_setns, "net", 0, 0, 0, NULL),
    ROW("setns uts", "setns", do_setns, "uts", 0, 0, 0, NULL),
    ROW("setns mount", "setns", do_setns, "mnt", 0, 0, 0, NULL),
    ROW("setns pid", "setns", do_setns, "pid", 0, 0, 0, NULL),
    ROW("setns by pidfd", "setns", do_setns_pidfd, NULL, CLONE_NEWNET, 0, 0, NULL),
    ROW("owner of a namespace", "setns", do_ns_ioctl, NULL, 0xb701, 0, 0, NULL),
    ROW("clone newuser", NS, do_clone, NULL, CLONE_NEWUSER, 0, 0, NULL),
    ROW("clone newns", NS, do_clone, NULL, CLONE_NEWNS, 0, 0, NULL),
    ROW("clone newnet", NS, do_clone, NULL, CLONE_NEWNET, 0, 0, NULL),
    ROW("clone newpid, high bits set", BYPASS, do_clone, NULL, (1L << 40) | CLONE_NEWPID, 0, 0,
        NULL),
    ROW("clone3 newuser", NS, do_clone3, NULL, CLONE_NEWUSER, 0, 0, NULL),
    ROW("clone3 newnet", NS, do_clone3, NULL, CLONE_NEWNET, 0, 0, NULL),
    ROW("ptrace traceme", TRACE, do_traceme, NULL, 0, 0, 0, NULL),
    ROW("bpf map", SURFACE, do_bpf_map, NULL, 0, 0, MAY_LACK, NULL),
    ROW("bpf program", "CVE-2020-8835, CVE-2021-3490", do_bpf_program, NULL, 0, 0, MAY_LACK, NULL),
    ROW("perf_event_open of itself", SURFACE, do_perf, NULL, 0, 0, MAY_LACK, NULL),
    ROW("perf_event_open of a CPU", SURFACE, do_perf, NULL, -1, 0, MAY_LACK, NULL),
    ROW("userfaultfd", "userfaultfd stalls", do_userfault, NULL, 0, 0, MAY_LACK, NULL),
    ROW("userfaultfd of user faults only", "userfaultfd stalls", do_userfault, NULL, 1, 0, MAY_LACK,
        NULL),
    ROW("io_uring_setup", "CVE-2022-29582 and kin", do_io_uring, NULL, 0, 0, MAY_LACK, NULL),
    ROW("io_uring_enter", "CVE-2022-29582 and kin", bad_fd, NULL, SYS_io_uring_enter, EBADF,
        MAY_LACK, NULL),
    ROW("io_uring_register", "CVE-2022-29582 and kin", bad_fd, NULL, SYS_io_uring_register, EBADF,
        MAY_LACK, NULL),
    ROW("io_setup", SURFACE, do_io_setup, NULL, 0, 0, MAY_LACK, NULL),
    ROW("keyctl: the session keyring", "keyrings (CVE-2016-0728)", do_keyctl, NULL, 0, -3, MAY_LACK,
        NULL),
    ROW("keyctl: a new session", "keyrings (CVE-2016-0728)", do_keyctl, NULL, 1, 0, MAY_LACK, NULL),
    ROW("add_key", "keyrings", do_add_key, NULL, 0, 0, MAY_LACK, NULL),
    ROW("request_key", "keyrings", do_request_key, NULL, 0, 0, MAY_LACK, NULL),
    ROW("seccomp filter", BYPASS, do_seccomp, NULL, 0, 0, 0, NULL),
    ROW("seccomp listener stacked on the sentry's", "seccomp NEW_LISTENER", do_seccomp, NULL,
        SECCOMP_FILTER_FLAG_NEW_LISTENER, 0, 0, NULL),
    ROW("seccomp filter by prctl", BYPASS, do_prctl_filter, NULL, 0, 0, 0, NULL),
    ROW("fanotify_init", SURFACE, do_fanotify, NULL, 0, 0, MAY_LACK, NULL),
    ROW("fanotify_mark", SURFACE, bad_fd, NULL, SYS_fanotify_mark, EBADF, MAY_LACK, NULL),
    ROW("modify_ldt", "CVE-2015-5157", do_modify_ldt, NULL, 0, 0, MAY_LACK, NULL),
    ROW("memfd_secret", SURFACE, do_secret_memory, NULL, 0, 0, MAY_LACK, NULL),
    ROW("mbind", SURFACE, do_memory_policy, NULL, SYS_mbind, 0, MAY_LACK, NULL),
    ROW("set_mempolicy", SURFACE, do_memory_policy, NULL, SYS_set_mempolicy, 0, MAY_LACK, NULL),
    ROW("migrate_pages", SURFACE, do_memory_policy, NULL, SYS_migrate_pages, 0, MAY_LACK, NULL),
    ROW("name_to_handle_at", "shocker (open_by_handle_at)", do_handle, NULL, 0, 0, MAY_LACK, NULL),
    ROW("open_by_handle_at", "shocker (open_by_handle_at)", do_handle, NULL, 1, 0, MAY_LACK, NULL),
    ROW("open_by_handle_at of a guessed root", "shocker (open_by_handle_at)", do_guessed_handle,
        NULL, 0, 0, 0, NULL),
    ROW("init_module", MACHINE, do_module, NULL, 0, 0, MAY_LACK, NULL),
    ROW("finit_module", MACHINE, bad_fd, NULL, SYS_finit_module, EBADF, MAY_LACK, NULL),
    ROW("delete_module", MACHINE, bad_path, NULL, SYS_delete_module, ENOENT, MAY_LACK, NULL),
    ROW("kexec_load", MACHINE, do_kexec, NULL, 0, 0, MAY_LACK, NULL),
    ROW("reboot", MACHINE, do_reboot, NULL, 0, 0, 0, NULL),
    ROW("iopl", MACHINE, do_port, NULL, SYS_iopl, 0, MAY_LACK, NULL),
    ROW("ioperm", MACHINE, do_port, NULL, SYS_ioperm, 0, MAY_LACK, NULL),
    ROW("the kernel's log", MACHINE, do_syslog, NULL, 0, 0, 0, NULL),
    ROW("adjtimex", MACHINE, do_adjtimex, NULL, SYS_adjtimex, 0, 0, NULL),
    ROW("clock_adjtime", MACHINE, do_adjtimex, NULL, SYS_clock_adjtime, 0, 0, NULL),
    ROW("clock_settime", MACHINE, do_clock_settime, NULL, SYS_clock_settime, 0, HARMFUL,
        "would set the machine's clock"),
    ROW("sethostname", MACHINE, do_hostname, NULL, SYS_sethostname, 0, 0, NULL),
    ROW("setdomainname", MACHINE, do_hostname, NULL, SYS_setdomainname, 0, 0, NULL),
    ROW("swapon", MACHINE, bad_path, NULL, SYS_swapon, ENOENT, MAY_LACK, NULL),
    ROW("swapoff", MACHINE, bad_path, NULL, SYS_swapoff, ENOENT, MAY_LACK, NULL),
    ROW("acct", MACHINE, bad_path, NULL, SYS_acct, ENOENT, MAY_LACK, NULL),
    ROW("quotactl", MACHINE, bare, NULL, SYS_quotactl, EINVAL, MAY_LACK, NULL),
    ROW("vhangup", TTY, do_vhangup, NULL, 0, 0, 0, NULL),
    ROW("x32 getpid", BYPASS, do_other_table, NULL, 0, 0, MAY_LACK, NULL),
    ROW("int 0x80 getpid", BYPASS, do_other_table, NULL, 1, 0, MAY_LACK, NULL),
    ROW("an unknown call", BYPASS, bare, NULL, 1999, 0, ONLY_HERE,
        "no kernel has a call of that number; a filter that let it through would be wrong"),
    ROW("read the vsyscall page", BYPASS, do_vsyscall, NULL, 0, 0, MAY_LACK, NULL),
    ROW("personality: no randomisation", "personality", do_personality, NULL, ADDR_NO_RANDOMIZE, 0,
        0, NULL),
    ROW("personality: everything executable", "personality", do_personality, NULL,
        READ_IMPLIES_EXEC, 0, 0, NULL),
    ROW("TIOCSTI", TTY, do_tty, NULL, TIOCSTI, 0, 0, NULL),
    ROW("TIOCSTI, high bits set", TTY, do_tty, NULL, (1L << 32) | TIOCSTI, 0, 0, NULL),
    ROW("TIOCSETD", "CVE-2017-2636", do_tty, NULL, TIOCSETD, 0, 0, NULL),
    ROW("TIOCLINUX", TTY, do_tty, NULL, 0x541c, 0, HARMFUL,
        "outside it works on a virtual console, which a test does not have"),
    ROW("set an interface up", SURFACE, do_interface, NULL, 0, 0, 0, NULL),
    ROW("PR_SET_MM", "prctl", do_prctl_mm, NULL, 0, 0, MAY_LACK | MAY_DENY, NULL),
    ROW("PR_SET_SECUREBITS", "prctl", do_prctl, NULL, PR_SET_SECUREBITS, 0, 0, NULL),
    ROW("PR_SET_KEEPCAPS", "prctl", do_prctl, NULL, PR_SET_KEEPCAPS, 1, 0, NULL),
    ROW("PR_SET_IO_FLUSHER", "prctl", do_prctl, NULL, 57, 1, MAY_LACK | MAY_DENY, NULL),
    ROW("PR_CAP_AMBIENT", CRED, do_ambient, NULL, 0, 0, 0, NULL),
    ROW("netlink route", FAMILY, do_socket, NULL, AF_NETLINK, NET2(SOCK_RAW, 0), 0, NULL),
    ROW("netlink netfilter", "CVE-2022-34918 (nf_tables)", do_socket, NULL, AF_NETLINK,
        NET2(SOCK_RAW, 12), MAY_LACK, NULL),
    ROW("netlink audit", FAMILY, do_socket, NULL, AF_NETLINK, NET2(SOCK_RAW, 9), MAY_LACK, NULL),
    ROW("packet socket", "CVE-2020-14386 (af_packet)", do_socket, NULL, AF_PACKET,
        NET2(SOCK_RAW, 0), MAY_LACK, NULL),
    ROW("vsock", FAMILY, do_socket, NULL, AF_VSOCK, NET2(SOCK_STREAM, 0), HARMFUL, LOADS),
    ROW("AF_ALG", FAMILY, do_socket, NULL, AF_ALG, NET2(SOCK_SEQPACKET, 0), HARMFUL, LOADS),
    ROW("bluetooth", FAMILY, do_socket, NULL, AF_BLUETOOTH, NET2(SOCK_RAW, 1), HARMFUL, LOADS),
    ROW("TIPC", "CVE-2021-43267", do_socket, NULL, AF_TIPC, NET2(SOCK_STREAM, 0), HARMFUL, LOADS),
    ROW("sctp", FAMILY, do_socket, NULL, AF_INET, NET2(SOCK_STREAM, 132), HARMFUL, LOADS),
    ROW("raw icmp", "raw sockets", do_socket, NULL, AF_INET, NET2(SOCK_RAW, 1), 0, NULL),
    ROW("raw tcp", "raw sockets", do_socket, NULL, AF_INET, NET2(SOCK_RAW, 6), 0, NULL),
    ROW("raw icmp over IPv6", "raw sockets", do_socket, NULL, AF_INET6, NET2(SOCK_RAW, 58),
        MAY_LACK, NULL),
    ROW("setuid 0", CRED, do_identity, NULL, SYS_setuid, 0, 0, NULL),
    ROW("setuid of another", CRED, do_identity, NULL, SYS_setuid, 65534, 0, NULL),
    ROW("setresuid 0", CRED, do_identity, NULL, SYS_setresuid, 0, 0, NULL),
    ROW("setgid 0", CRED, do_identity, NULL, SYS_setgid, 0, 0, NULL),
    ROW("setgroups", "CVE-2014-8989", do_identity, NULL, SYS_setgroups, 0, 0, NULL),
    ROW("setfsuid", CRED, do_setfsuid, NULL, 0, 0, 0, NULL),
    ROW("capset", CRED, do_capset, NULL, 0, 0, 0, NULL),
    ROW("negative nice", "priorities", do_nice, NULL, 0, 0, 0, NULL),
    ROW("SCHED_FIFO", "priorities", do_fifo_class, NULL, SCHED_FIFO, 0, MAY_DENY, NULL),
    ROW("SCHED_RR", "priorities", do_fifo_class, NULL, SCHED_RR, 0, MAY_DENY, NULL),
    ROW("ioprio of the real-time class", "priorities", do_ioprio, NULL, 0, 0, MAY_LACK, NULL),
    {0},
};

/* Attempts to get out of a cell. One line each: "NAME: got out" or "NAME: refused (reason)"; the
 * security tests want each name, refused. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

int guest_try(void);

static int got_out;

static void report(const char *name, long result)
{
    if (result >= 0) {
        got_out++;
        printf("%s: got out\n", name);
    } else {
        printf("%s: refused (%s)\n", name, strerror(errno));
    }
    fflush(stdout);
}

static void call_x32(void)
{
    (void)syscall(0x40000000 + SYS_getpid);
}

static void call_int80(void)
{
#ifdef __x86_64__
    long result = 20; /* getpid of i386 */
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
#else
    call_x32();
#endif
}

/* -1 when a signal ended a child that made the call: SIGSYS, or SIGSEGV where the kernel has no
 * such calls. */
static long killed_by_filter(void (*call)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        call();
        _exit(0);
    }
    int status = 0;
    (void)waitpid(pid, &status, 0);
    errno = EPERM;
    if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGSYS || WTERMSIG(status) == SIGSEGV)) {
        return -1;
    }
    return 0;
}

static void try_calls(void)
{
    char buffer[256] = "";
    report("mount", mount("tmpfs", "/tmp", "tmpfs", 0, NULL));
    report("remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    report("umount", umount2("/proc", MNT_DETACH));
    report("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    report("fsopen", syscall(SYS_fsopen, "proc", 0));
    report("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, buffer, 32));
    report("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
    report("chroot", chroot("/tmp"));
    report("unshare user", unshare(CLONE_NEWUSER));
    report("unshare net", unshare(CLONE_NEWNET));
    report("setns", setns(open("/proc/self/ns/net", O_RDONLY), 0));
    report("clone newuser", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    report("clone newns", syscall(SYS_clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0));
    report("clone high bits", syscall(SYS_clone, (1UL << 40) | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));
    report("clone3", syscall(SYS_clone3, buffer, 64));
    report("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
    report("process_vm_readv", syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0));
    report("pidfd_getfd", syscall(SYS_pidfd_getfd, 0, 0, 0));
    report("bpf", syscall(SYS_bpf, 0, buffer, sizeof buffer));
    report("perf_event_open", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
    report("userfaultfd", syscall(SYS_userfaultfd, 0));
    report("io_uring_setup", syscall(SYS_io_uring_setup, 1, buffer));
    report("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    report("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
    report("seccomp", syscall(SYS_seccomp, 1, 0, NULL));
    report("init_module", syscall(SYS_init_module, buffer, 1, ""));
    report("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    report("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, 0));
    report("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL));
    report("iopl", syscall(SYS_iopl, 3));
    report("syslog", syscall(SYS_syslog, 10, NULL, 0));
    report("clock_settime", syscall(SYS_clock_settime, 0, buffer));
    report("sethostname", sethostname("x", 1));
    report("swapon", syscall(SYS_swapon, "/tmp/x", 0));
    report("quotactl", syscall(SYS_quotactl, 0, NULL, 0, NULL));
    report("memfd_secret", syscall(SYS_memfd_secret, 0));
    report("x32 getpid", killed_by_filter(call_x32));
    report("int 0x80 getpid", killed_by_filter(call_int80));
    report("unknown call", syscall(1999));
}

static void try_arguments(void)
{
    report("personality", personality(ADDR_NO_RANDOMIZE));
    report("TIOCSTI", ioctl(1, TIOCSTI, "x"));
    report("TIOCLINUX", ioctl(1, 0x541c, "x"));
    report("FIONREAD high bits", syscall(SYS_ioctl, 1, (1UL << 32) | TIOCSTI, "x"));
    report("PR_SET_MM", prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 0));
    report("PR_SET_SECCOMP", prctl(PR_SET_SECCOMP, 1, 0, 0, 0));
    report("PR_CAP_AMBIENT", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0));
    report("AF_NETLINK", socket(AF_NETLINK, SOCK_RAW, 0));
    report("AF_PACKET", socket(AF_PACKET, SOCK_RAW, 0));
    report("AF_VSOCK", socket(AF_VSOCK, SOCK_STREAM, 0));
    report("AF_ALG", socket(AF_ALG, SOCK_SEQPACKET, 0));
    report("raw socket", socket(AF_INET, SOCK_RAW, 1));
    report("sctp", socket(AF_INET, SOCK_STREAM, 132));
    report("raw tcp", socket(AF_INET, SOCK_RAW, 6));
}

static void try_identity(void)
{
    report("setuid 0", setuid(0));
    report("setgid 0", setgid(0));
    report("setuid other", setuid(65534));
    report("setgroups", syscall(SYS_setgroups, 0, NULL));
    report("capset", ({
               uint32_t header[2] = {0x20080522, 0};
               uint32_t data[6] = {~0U, ~0U, ~0U, ~0U, ~0U, ~0U};
               syscall(SYS_capset, header, data);
           }));
    report("chown", chown("/tmp", 0, 0));
    report("negative nice", ({
               errno = 0;
               int result = setpriority(0, 0, -10);
               result;
           }));
}

static void try_paths(void)
{
    static const char *const unreadable[] = {
        "/etc/shadow",
        "/root",
        "/proc/kcore",
        "/proc/sys/kernel/core_pattern",
        "/proc/keys",
        "/proc/mounts/..",
        "/sys/kernel",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/vda",
        "/dev/tty",
        "/run",
        "/var/run/docker.sock",
        "/proc/1/root/etc/shadow",
        "/proc/sysrq-trigger",
        "/proc/self/root/root",
        "/home",
    };
    for (size_t i = 0; i < sizeof unreadable / sizeof unreadable[0]; i++) {
        char name[128];
        snprintf(name, sizeof name, "read %s", unreadable[i]);
        report(name, open(unreadable[i], O_RDONLY | O_NONBLOCK | O_NOCTTY));
    }
    static const char *const unwritable[] = {
        "/x",        "/usr/x",      "/etc/x",       "/dev/x",
        "/guest",    "/etc/passwd", "/usr/bin/env", "/proc/self/setgroups",
        "/proc/1/x",
    };
    for (size_t i = 0; i < sizeof unwritable / sizeof unwritable[0]; i++) {
        char name[128];
        snprintf(name, sizeof name, "write %s", unwritable[i]);
        report(name, open(unwritable[i], O_WRONLY | O_CREAT, 0600));
    }
    report("write /proc/self/uid_map", ({
               int fd = open("/proc/self/uid_map", O_WRONLY);
               long result = write(fd, "0 1000 1\n", 9);
               int error = errno;
               (void)close(fd);
               errno = error;
               result;
           }));
    report("device node", mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)));
    report("setuid file", ({
               int fd = open("/tmp/run", O_CREAT | O_WRONLY, 0700);
               (void)!write(fd, "#!/guest hello\n", 15);
               (void)close(fd);
               long result = -1;
               pid_t pid = fork();
               if (pid == 0) {
                   char *args[] = {(char *)(uintptr_t) "/tmp/run", NULL};
                   execv("/tmp/run", args);
                   _exit(errno);
               }
               int status = 0;
               (void)waitpid(pid, &status, 0);
               if (WIFEXITED(status) && WEXITSTATUS(status) == EACCES) {
                   errno = EACCES;
               } else {
                   result = 0;
               }
               result;
           }));
    report("chmod root", chmod("/", 0777));
    report("unlink", unlink("/etc/passwd"));
    report("rmdir", rmdir("/usr"));
    report("open outside with ..", open("/../../../../etc/shadow", O_RDONLY));
    report("cwd", ({
               char folder[256];
               getcwd(folder, sizeof folder) != NULL &&folder[0] == '/' ? (errno = 0, -1L) : 0L;
           }));
}

/* Only processes of the cell can be seen and hit. */
static void try_processes(void)
{
    report("kill outside", kill(2000000, 0));
    int seen = 0;
    for (int pid = 2; pid < 5000; pid++) {
        seen += kill(pid, 0) == 0 || errno != ESRCH ? 1 : 0;
    }
    errno = ESRCH;
    report("see other processes", seen > 0 ? 0 : -1);
    report("parent", getppid() == 0 ? (errno = ESRCH, -1L) : 0L);
    report("abstract socket of the host", ({
               struct sockaddr_un to = {.sun_family = AF_UNIX};
               memcpy(to.sun_path, "\0skep-cell-test", 15);
               int fd = socket(AF_UNIX, SOCK_STREAM, 0);
               long result = connect(fd, (struct sockaddr *)&to,
                                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 15));
               result;
           }));
}

int guest_try(void)
{
    try_calls();
    try_arguments();
    try_identity();
    try_paths();
    try_processes();
    printf("tried everything, %d got out\n", got_out);
    return got_out == 0 ? 0 : 1;
}

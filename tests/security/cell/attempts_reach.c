/* What is beside the cell: processes, their memory and descriptors, sockets, queues and shared
 * memory of the host; and limits that must hold. */
#include "tests/security/cell/escape.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

static int bait_pidfd(void)
{
    return (int)syscall(SYS_pidfd_open, bait.pid, 0);
}

static long do_signal(const struct attempt *a)
{
    siginfo_t info = {.si_signo = SIGURG, .si_code = SI_QUEUE};
    switch (a->a) {
    case SYS_kill:
        return kill((pid_t)bait.pid, 0);
    case SYS_tgkill:
        return syscall(SYS_tgkill, bait.pid, bait.pid, 0);
    case SYS_rt_sigqueueinfo: /* SIGURG is ignored by default */
        return syscall(SYS_rt_sigqueueinfo, bait.pid, SIGURG, &info);
    default:
        return syscall(SYS_pidfd_send_signal, bait_pidfd(), 0, NULL, 0);
    }
}

/* Calls that take the number of a process and ask or change something harmless about it. */
static long do_process(const struct attempt *a)
{
    struct rlimit limit;
    cpu_set_t set;
    switch (a->a) {
    case SYS_pidfd_open:
        return bait_pidfd();
    case SYS_prlimit64:
        return syscall(SYS_prlimit64, bait.pid, RLIMIT_NOFILE, NULL, &limit);
    case SYS_sched_getaffinity:
        return sched_getaffinity((pid_t)bait.pid, sizeof set, &set);
    case SYS_setpriority:
        return setpriority(PRIO_PROCESS, (id_t)bait.pid, 0);
    case SYS_getsid:
        return getsid((pid_t)bait.pid);
    case SYS_kcmp:
        return syscall(SYS_kcmp, getpid(), bait.pid, 0, 0, 0);
    case SYS_get_robust_list: {
        void *head = NULL;
        size_t size = 0;
        return syscall(SYS_get_robust_list, bait.pid, &head, &size);
    }
    case SYS_move_pages:
        return syscall(SYS_move_pages, bait.pid, 0, NULL, NULL, NULL, 0);
    case SYS_process_madvise: {
        struct iovec range = {bait_secret, 1};
        range.iov_base = (void *)((uintptr_t)bait_secret & ~(uintptr_t)4095);
        range.iov_len = 4096;
        return syscall(SYS_process_madvise, bait_pidfd(), &range, 1, 20, 0);
    }
    case SYS_process_mrelease:
        return passed(syscall(SYS_process_mrelease, bait_pidfd(), 0), EINVAL, -1);
    default:
        return syscall(SYS_pidfd_getfd, bait_pidfd(), 0, 0);
    }
}

static long do_memory(const struct attempt *a)
{
    char copy[BAIT_SECRET_BYTES] = "secret\n";
    struct iovec own = {copy, sizeof copy};
    struct iovec theirs = {bait_secret, sizeof bait_secret};
    return a->a == SYS_process_vm_readv
               ? process_vm_readv((pid_t)bait.pid, &own, 1, &theirs, 1, 0)
               : process_vm_writev((pid_t)bait.pid, &own, 1, &theirs, 1, 0);
}

/* Memory by /proc: the secret itself must come. */
static long do_proc_memory(const struct attempt *a)
{
    (void)a;
    char copy[BAIT_SECRET_BYTES] = "";
    int fd = open(text("/proc/%ld/mem", bait.pid), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, copy, sizeof copy, (off_t)(uintptr_t)bait_secret) <= 0) {
        return -1;
    }
    return memcmp(copy, "secret\n", sizeof copy) == 0 ? 0 : refused(EIO);
}

static long do_proc_file(const struct attempt *a)
{
    char byte = 0;
    int fd = open(text("/proc/%ld/%s", bait.pid, a->path), O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : read(fd, &byte, 1) >= 0 || errno == EISDIR ? 0 : -1;
}

static long do_ptrace(const struct attempt *a)
{
    if (ptrace((enum __ptrace_request)a->a, (pid_t)bait.pid, NULL, NULL) != 0) {
        return -1;
    }
    if (a->a == PTRACE_ATTACH) {
        (void)waitpid((pid_t)bait.pid, NULL, __WALL);
    }
    return 0; /* The tracer's end detaches. */
}

static long connect_unix(const char *name, size_t size)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, name, size);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    long result = connect(fd, (struct sockaddr *)&to,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size));
    return result < 0 ? -1 : fd;
}

static long do_abstract(const struct attempt *a)
{
    (void)a;
    const char *name = text("skep-escape-%ld", bait.key);
    char full[64] = "";
    size_t size = strlen(name);
    memcpy(full + 1, name, size);
    return connect_unix(full, size + 1);
}

static long do_unix_path(const struct attempt *a)
{
    const char *path = text("%s%s/socket", a->path, bait.folder);
    return connect_unix(path, strlen(path) + 1);
}

/* A descriptor that the host hands out. */
static long do_receive(const struct attempt *a)
{
    const char *path = text("%s/socket", bait.folder);
    char byte = 0;
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    long fd = a->a != 0 ? a->a : connect_unix(path, strlen(path) + 1);
    if (fd < 0 || recvmsg((int)fd, &message, a->a != 0 ? MSG_DONTWAIT : 0) < 0) {
        return -1;
    }
    return CMSG_FIRSTHDR(&message) != NULL ? 0 : refused(ENOMSG);
}

static long connect_ip(uint32_t address, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (struct sockaddr *)&to, sizeof to);
}

static long do_loopback(const struct attempt *a)
{
    (void)a;
    return connect_ip(INADDR_LOOPBACK, (uint16_t)bait.port);
}

/* A datagram leaves without an answer: a route is enough. Where a route can be made, it is: the
 * address is given to the loopback of the attempt's own network namespace. */
static long do_metadata(const struct attempt *a)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(80)};
    struct ifreq request = {.ifr_name = "lo:1"};
    to.sin_addr.s_addr = htonl((uint32_t)a->a);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(&request.ifr_addr, &to, sizeof to);
    (void)ioctl(fd, SIOCSIFADDR, &request);
    (void)snprintf(request.ifr_name, sizeof request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    (void)ioctl(fd, SIOCSIFFLAGS, &request);
    return sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to);
}

static long do_ipc(const struct attempt *a)
{
    switch (a->a) {
    case SYS_shmget:
        return syscall(SYS_shmget, bait.key, 0, 0);
    case SYS_semget:
        return syscall(SYS_semget, bait.key, 0, 0);
    case SYS_msgget:
        return syscall(SYS_msgget, bait.key, 0);
    default:
        return syscall(SYS_mq_open, text("skep-bait-%ld", bait.key), O_RDONLY, 0, NULL);
    }
}

static long do_rlimit(const struct attempt *a)
{
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)a->a, &limit) != 0) {
        return -1;
    }
    if (limit.rlim_max == RLIM_INFINITY) {
        return 0; /* There is no limit to raise. */
    }
    limit.rlim_max++;
    return setrlimit((__rlimit_resource_t)a->a, &limit);
}

/* Children that live at the same time. */
static long do_forks(const struct attempt *a)
{
    for (long i = 0; i < a->a; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)pause();
            _exit(0);
        }
        if (pid < 0) {
            return -1;
        }
    }
    return 0;
}

/* Children that fork as fast as they can, until nothing can be forked for a while; bounded by the
 * number of calls, so that the machine survives it outside too. */
static long do_bomb(const struct attempt *a)
{
    (void)a;
    long made = 0;
    for (int round = 0; round < 400; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            for (int i = 0; i < 4; i++) {
                (void)!fork();
            }
            (void)pause();
            _exit(0);
        }
        made += pid > 0 ? 1 : 0;
    }
    return made == 400 ? 0 : refused(EAGAIN);
}

static long do_touch(const struct attempt *a)
{
    size_t size = (size_t)a->a * MIB;
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return -1;
    }
    for (size_t at = 0; at < size; at += 4096) {
        ((volatile char *)p)[at] = 1;
    }
    return 0;
}

/* Memory that belongs to no process: a file in memory, and pages in a pipe's place. */
static long do_memfd(const struct attempt *a)
{
    static char block[MIB];
    memset(block, 1, sizeof block);
    int fd = (int)syscall(SYS_memfd_create, "skep", 0);
    for (long i = 0; i < a->a; i++) {
        if (write(fd, block, sizeof block) != (ssize_t)sizeof block) {
            return -1;
        }
    }
    return 0;
}

static long do_fill(const struct attempt *a)
{
    static char block[MIB];
    const char *path = text("%s/fill", a->path != NULL ? a->path : bait.tmp);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    long result = fd < 0 ? -1 : 0;
    (void)signal(SIGXFSZ, SIG_IGN);
    for (long i = 0; i < a->a && result == 0; i++) {
        result = write(fd, block, sizeof block) == (ssize_t)sizeof block ? 0 : -1;
    }
    int error = errno;
    (void)unlink(path);
    errno = error;
    return result;
}

static long do_descriptors(const struct attempt *a)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    for (long i = 0; i < a->a; i++) {
        if (dup(0) < 0) {
            return -1;
        }
    }
    return 0;
}

static long do_mlock(const struct attempt *a)
{
    size_t size = (size_t)a->a * MIB;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? -1 : mlock(p, size);
}

static long do_pipe_size(const struct attempt *a)
{
    int ends[2];
    return pipe2(ends, O_CLOEXEC) != 0 ? -1 : fcntl(ends[0], F_SETPIPE_SZ, (int)a->a);
}

#define ROW(name, reference, run, ...)                                                             \
    {                                                                                              \
        name, reference, run, __VA_ARGS__                                                          \
    }
#define SIGNALS "signals to the sentry and the supervisor"
#define OTHERS "other processes"
#define PTRACE "ptrace of the sentry"
#define SOCKETS "sockets of the host"
#define IPC "ipc of the host"
#define LIMITS "limits"
#define BOMB "fork and memory bombs"
#define PROCFILE(name, file)                                                                       \
    {                                                                                              \
        name, "/proc/PID/mem, root, cwd", do_proc_file, file, 0, 0, 0, NULL                        \
    }

const struct attempt attempts_reach[] = {
    ROW("kill", SIGNALS, do_signal, NULL, SYS_kill, 0, 0, NULL),
    ROW("tgkill", SIGNALS, do_signal, NULL, SYS_tgkill, 0, 0, NULL),
    ROW("rt_sigqueueinfo", SIGNALS, do_signal, NULL, SYS_rt_sigqueueinfo, 0, 0, NULL),
    ROW("pidfd_send_signal", SIGNALS, do_signal, NULL, SYS_pidfd_send_signal, 0, 0, NULL),
    ROW("pidfd_open", OTHERS, do_process, NULL, SYS_pidfd_open, 0, 0, NULL),
    ROW("pidfd_getfd", OTHERS, do_process, NULL, SYS_pidfd_getfd, 0, 0, NULL),
    ROW("prlimit", OTHERS, do_process, NULL, SYS_prlimit64, 0, 0, NULL),
    ROW("sched_getaffinity", OTHERS, do_process, NULL, SYS_sched_getaffinity, 0, 0, NULL),
    ROW("setpriority", OTHERS, do_process, NULL, SYS_setpriority, 0, 0, NULL),
    ROW("getsid", OTHERS, do_process, NULL, SYS_getsid, 0, 0, NULL),
    ROW("kcmp", OTHERS, do_process, NULL, SYS_kcmp, 0, MAY_LACK, NULL),
    ROW("get_robust_list", OTHERS, do_process, NULL, SYS_get_robust_list, 0, 0, NULL),
    ROW("move_pages", OTHERS, do_process, NULL, SYS_move_pages, 0, MAY_LACK, NULL),
    ROW("process_madvise", OTHERS, do_process, NULL, SYS_process_madvise, 0, MAY_LACK, NULL),
    ROW("process_mrelease", OTHERS, do_process, NULL, SYS_process_mrelease, 0, MAY_LACK, NULL),
    ROW("process_vm_readv", OTHERS, do_memory, NULL, SYS_process_vm_readv, 0, MAY_LACK, NULL),
    ROW("process_vm_writev", OTHERS, do_memory, NULL, SYS_process_vm_writev, 0, MAY_LACK, NULL),
    ROW("ptrace attach", PTRACE, do_ptrace, NULL, PTRACE_ATTACH, 0, 0, NULL),
    ROW("ptrace seize", PTRACE, do_ptrace, NULL, PTRACE_SEIZE, 0, 0, NULL),
    ROW("memory by /proc/PID/mem", "/proc/PID/mem", do_proc_memory, NULL, 0, 0, 0, NULL),
    PROCFILE("environment of a process", "environ"),
    PROCFILE("maps of a process", "maps"),
    PROCFILE("stack of a process", "syscall"),
    PROCFILE("root of a process", "root"),
    PROCFILE("working directory of a process", "cwd"),
    PROCFILE("descriptors of a process", "fd"),
    PROCFILE("namespaces of a process", "ns"),
    PROCFILE("command line of a process", "cmdline"),
    ROW("abstract socket", SOCKETS, do_abstract, NULL, 0, 0, KEEP_NET, NULL),
    ROW("unix socket by path", SOCKETS, do_unix_path, "", 0, 0, 0, NULL),
    ROW("unix socket by ..", SOCKETS, do_unix_path, "/../..", 0, 0, 0, NULL),
    ROW("unix socket by /proc/self/root", SOCKETS, do_unix_path, "/proc/self/root", 0, 0, 0, NULL),
    ROW("a descriptor from the host", "SCM_RIGHTS", do_receive, NULL, 0, 0, 0, NULL),
    ROW("a descriptor on the runner channel", "SCM_RIGHTS", do_receive, NULL, 3, 0, ONLY_HERE,
        "there is no runner channel outside; the row above receives one"),
    ROW("TCP to the host's loopback", SOCKETS, do_loopback, NULL, 0, 0, KEEP_NET, NULL),
    ROW("metadata address", SOCKETS, do_metadata, NULL, 0xa9fea9feL, 0, 0, NULL),
    ROW("a private address", SOCKETS, do_metadata, NULL, 0x0a000001L, 0, 0, NULL),
    ROW("a public address", SOCKETS, do_metadata, NULL, 0xc0000201L, 0, 0, NULL),
    ROW("an address of a test network", SOCKETS, do_metadata, NULL, 0xc6120001L, 0, 0, NULL),
    ROW("System V shared memory", IPC, do_ipc, NULL, SYS_shmget, 0, 0, NULL),
    ROW("System V semaphores", IPC, do_ipc, NULL, SYS_semget, 0, 0, NULL),
    ROW("System V messages", IPC, do_ipc, NULL, SYS_msgget, 0, 0, NULL),
    ROW("POSIX queue", IPC, do_ipc, NULL, SYS_mq_open, 0, MAY_LACK, NULL),
    ROW("raise RLIMIT_NOFILE", LIMITS, do_rlimit, NULL, RLIMIT_NOFILE, 0, MAY_DENY, NULL),
    ROW("raise RLIMIT_NPROC", LIMITS, do_rlimit, NULL, RLIMIT_NPROC, 0, MAY_DENY, NULL),
    ROW("raise RLIMIT_FSIZE", LIMITS, do_rlimit, NULL, RLIMIT_FSIZE, 0, MAY_DENY, NULL),
    ROW("raise RLIMIT_CORE", LIMITS, do_rlimit, NULL, RLIMIT_CORE, 0, MAY_DENY, NULL),
    ROW("raise RLIMIT_MEMLOCK", LIMITS, do_rlimit, NULL, RLIMIT_MEMLOCK, 0, MAY_DENY, NULL),
    ROW("raise RLIMIT_RTPRIO", LIMITS, do_rlimit, NULL, RLIMIT_RTPRIO, 0, MAY_DENY, NULL),
    ROW("raise RLIMIT_MSGQUEUE", LIMITS, do_rlimit, NULL, RLIMIT_MSGQUEUE, 0, MAY_DENY, NULL),
    ROW("more processes than the limit", BOMB, do_forks, NULL, 300, 0, 0, NULL),
    ROW("a fork bomb", BOMB, do_bomb, NULL, 0, 0, SOLO, NULL),
    ROW("more memory than the limit", BOMB, do_touch, NULL, 160, 0, SOLO, NULL),
    ROW("more memory than the limit, in a memfd", BOMB, do_memfd, NULL, 160, 0, SOLO, NULL),
    ROW("more of /tmp than its size", LIMITS, do_fill, NULL, 24, 0, 0, NULL),
    ROW("more of /dev/shm than its size", LIMITS, do_fill, "/dev/shm", 24, 0, 0, NULL),
    ROW("more descriptors than the limit", LIMITS, do_descriptors, NULL, 1200, 0, 0, NULL),
    ROW("more locked memory than the limit", LIMITS, do_mlock, NULL, 12, 0, 0, NULL),
    ROW("a pipe of 4 MiB", LIMITS, do_pipe_size, NULL, 4 * MIB, 0, MAY_DENY, NULL),
    {0},
};

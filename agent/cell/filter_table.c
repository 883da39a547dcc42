/* The table of system calls. Three answers: allowed; refused with an errno that programs take for
 * "you may not" (EPERM) or "this machine cannot" (the default, ENOSYS: glibc then takes the older
 * call); and, for a few, by arguments. Only register arguments are judged: what a pointer points to
 * can change after the look (a racing thread got through 12,400 times in 50,000).
 *
 * Sources: seccomp(2), syscalls(2); the list of what CPython, Go, Node and OpenJDK need comes from
 * traces. */
#include "agent/cell/filter_table.h"

#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <linux/sched.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

static const char *const allowed[] = {
    /* descriptors and data */
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "preadv2",
    "pwritev2",
    "lseek",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "pipe",
    "pipe2",
    "sendfile",
    "splice",
    "tee",
    "vmsplice",
    "copy_file_range",
    "fadvise64",
    "readahead",
    "flock",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "memfd_create",
    /* paths: the root is read-only, /tmp and /dev/shm are the cell's own */
    "open",
    "openat",
    "openat2",
    "creat",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents",
    "getdents64",
    "getcwd",
    "chdir",
    "fchdir",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "utimensat",
    "futimesat",
    "truncate",
    "umask",
    "statfs",
    "fstatfs",
    "mknod",
    "mknodat",
    "getxattr",
    "lgetxattr",
    "fgetxattr",
    "listxattr",
    "llistxattr",
    "flistxattr",
    "inotify_init",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    /* memory */
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    "msync",
    "mincore",
    "mlock",
    "mlock2",
    "munlock",
    "mlockall",
    "munlockall",
    "membarrier",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "get_mempolicy",
    /* processes and threads, all inside the cell's pid namespace */
    "fork",
    "vfork",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "wait4",
    "waitid",
    "kill",
    "tkill",
    "tgkill",
    "getpid",
    "getppid",
    "gettid",
    "getpgid",
    "getpgrp",
    "setpgid",
    "getsid",
    "setsid",
    "pidfd_open",
    "pidfd_send_signal",
    "set_tid_address",
    "set_robust_list",
    "get_robust_list",
    "rseq",
    "futex",
    "futex_waitv",
    "sched_yield",
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_getparam",
    "sched_setparam",
    "sched_getscheduler",
    "sched_setscheduler",
    "sched_getattr",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_rr_get_interval",
    "getpriority",
    "setpriority",
    "getcpu",
    "arch_prctl",
    "getrlimit",
    "setrlimit",
    "prlimit64",
    "getrusage",
    "restart_syscall",
    /* identity: one user, no capability to gain */
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "capget",
    "capset",
    /* signals */
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "rt_sigsuspend",
    "sigaltstack",
    "pause",
    "signalfd",
    "signalfd4",
    /* time */
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "gettimeofday",
    "time",
    "times",
    "nanosleep",
    "alarm",
    "getitimer",
    "setitimer",
    "timer_create",
    "timer_settime",
    "timer_gettime",
    "timer_getoverrun",
    "timer_delete",
    "timerfd_create",
    "timerfd_settime",
    "timerfd_gettime",
    /* waiting */
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd",
    "eventfd2",
    /* sockets, in the cell's own network namespace; socket and socketpair are below */
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "sendmmsg",
    "recvmmsg",
    "shutdown",
    /* the machine */
    "uname",
    "sysinfo",
    "getrandom",
};

struct refusal {
    const char *name;
    int error;
};

/* Known and dangerous. "ok" (0) answers success without doing it. */
static const struct refusal refused[] = {
    /* namespaces and mounts */
    {"mount", EPERM},
    {"umount2", EPERM},
    {"pivot_root", EPERM},
    {"chroot", EPERM},
    {"unshare", EPERM},
    {"setns", EPERM},
    {"open_tree", EPERM},
    {"move_mount", EPERM},
    {"fsopen", EPERM},
    {"fsconfig", EPERM},
    {"fsmount", EPERM},
    {"fspick", EPERM},
    {"mount_setattr", EPERM},
    {"sethostname", EPERM},
    {"setdomainname", EPERM},
    /* other processes' memory and descriptors */
    {"ptrace", EPERM},
    {"process_vm_readv", EPERM},
    {"process_vm_writev", EPERM},
    {"process_madvise", EPERM},
    {"process_mrelease", EPERM},
    {"pidfd_getfd", EPERM},
    {"kcmp", EPERM},
    {"move_pages", EPERM},
    {"migrate_pages", EPERM},
    {"mbind", EPERM},
    {"set_mempolicy", EPERM},
    {"memfd_secret", EPERM},
    /* wide kernel surfaces */
    {"bpf", EPERM},
    {"perf_event_open", EPERM},
    {"userfaultfd", EPERM},
    {"keyctl", EPERM},
    {"add_key", EPERM},
    {"request_key", EPERM},
    {"seccomp", EPERM},
    {"fanotify_init", EPERM},
    {"fanotify_mark", EPERM},
    {"name_to_handle_at", EPERM},
    {"open_by_handle_at", EPERM},
    {"lookup_dcookie", EPERM},
    {"quotactl", EPERM},
    {"modify_ldt", EPERM},
    {"vhangup", EPERM},
    {"setgroups", EPERM},
    {"remap_file_pages", EPERM},
    /* the machine */
    {"init_module", EPERM},
    {"finit_module", EPERM},
    {"delete_module", EPERM},
    {"kexec_load", EPERM},
    {"kexec_file_load", EPERM},
    {"reboot", EPERM},
    {"swapon", EPERM},
    {"swapoff", EPERM},
    {"acct", EPERM},
    {"iopl", EPERM},
    {"ioperm", EPERM},
    {"syslog", EPERM},
    {"settimeofday", EPERM},
    {"clock_settime", EPERM},
    {"adjtimex", EPERM},
    {"clock_adjtime", EPERM},
    /* extended attributes: as on a file system without them */
    {"setxattr", EOPNOTSUPP},
    {"lsetxattr", EOPNOTSUPP},
    {"fsetxattr", EOPNOTSUPP},
    {"removexattr", EOPNOTSUPP},
    {"lremovexattr", EOPNOTSUPP},
    {"fremovexattr", EOPNOTSUPP},
    /* would flush every disk of the machine; the cell has none of its own */
    {"sync", 0},
    {"syncfs", 0},
    /* flags are behind a pointer: glibc falls back to clone, whose flags are not */
    {"clone3", ENOSYS},
    {"io_uring_setup", ENOSYS},
    {"io_uring_enter", ENOSYS},
    {"io_uring_register", ENOSYS},
};

static const unsigned long clone_flags_refused[] = {
    CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
    CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET,
};

static const unsigned long ioctls_allowed[] = {TCGETS,  TIOCGWINSZ, FIONREAD, FIONBIO,
                                               FIOCLEX, FIONCLEX,   FIOASYNC};

static const int prctls_allowed[] = {
    PR_SET_NAME,
    PR_GET_NAME,
    PR_SET_PDEATHSIG,
    PR_GET_PDEATHSIG,
    PR_GET_DUMPABLE,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_GET_NO_NEW_PRIVS,
    PR_SET_VMA,
    PR_SET_TIMERSLACK,
    PR_GET_TIMERSLACK,
    PR_GET_SECCOMP,
    PR_SET_THP_DISABLE,
    PR_GET_THP_DISABLE,
    PR_CAPBSET_READ,
    PR_GET_SECUREBITS,
    PR_SET_CHILD_SUBREAPER,
    PR_GET_CHILD_SUBREAPER,
    PR_GET_KEEPCAPS,
};

/* personality(0xffffffff) only asks. */
static const unsigned long personalities_allowed[] = {0, 0xffffffffUL};

struct build {
    scmp_filter_ctx context;
    struct errmsg *msg;
};

static struct status rule(struct build *b, uint32_t action, const char *name, unsigned count,
                          const struct scmp_arg_cmp *arguments)
{
    int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) {
        return status_fail(b->msg, STATUS_INVALID, "libseccomp does not know %s", name);
    }
    int error = seccomp_rule_add_array(b->context, action, number, count, arguments);
    /* EACCES: the action is the default one, so there is nothing to add. */
    if (error != 0 && error != -EACCES) {
        return status_fail(b->msg, STATUS_INTERNAL, "rule for %s: %s", name, strerror(-error));
    }
    return status_ok();
}

static struct status rule_if(struct build *b, uint32_t action, const char *name,
                             struct scmp_arg_cmp argument)
{
    return rule(b, action, name, 1, &argument);
}

static struct status plain_rules(struct build *b)
{
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
        TRY(rule(b, SCMP_ACT_ALLOW, allowed[i], 0, NULL));
    }
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        TRY(rule(b, SCMP_ACT_ERRNO((unsigned)refused[i].error), refused[i].name, 0, NULL));
    }
    return status_ok();
}

/* A clone without any namespace flag, and nothing else. */
static struct status clone_rules(struct build *b)
{
    unsigned long all = 0;
    size_t count = sizeof clone_flags_refused / sizeof clone_flags_refused[0];
    for (size_t i = 0; i < count; i++) {
        unsigned long flag = clone_flags_refused[i];
        TRY(rule_if(b, SCMP_ACT_ERRNO(EPERM), "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag)));
        all |= flag;
    }
    return rule_if(b, SCMP_ACT_ALLOW, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, all, 0));
}

/* Unix, and TCP and UDP over IPv4 and IPv6: no raw sockets, no SCTP, no module loaded on demand. */
static struct status socket_rules(struct build *b)
{
    static const int families[] = {AF_INET, AF_INET6};
    static const unsigned long protocols[] = {0, 6, 17}; /* any, TCP, UDP */
    TRY(rule_if(b, SCMP_ACT_ALLOW, "socket", SCMP_A0(SCMP_CMP_EQ, AF_UNIX)));
    TRY(rule_if(b, SCMP_ACT_ALLOW, "socketpair", SCMP_A0(SCMP_CMP_EQ, AF_UNIX)));
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        for (size_t p = 0; p < sizeof protocols / sizeof protocols[0]; p++) {
            struct scmp_arg_cmp both[] = {
                SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[f]),
                SCMP_A2(SCMP_CMP_EQ, protocols[p]),
            };
            TRY(rule(b, SCMP_ACT_ALLOW, "socket", 2, both));
        }
    }
    for (unsigned family = 0; family < AF_INET6; family++) {
        if (family != AF_UNIX && family != AF_INET) {
            TRY(rule_if(b, SCMP_ACT_ERRNO(EAFNOSUPPORT), "socket", SCMP_A0(SCMP_CMP_EQ, family)));
        }
    }
    return rule_if(b, SCMP_ACT_ERRNO(EAFNOSUPPORT), "socket", SCMP_A0(SCMP_CMP_GT, AF_INET6));
}

static struct status argument_rules(struct build *b)
{
    TRY(clone_rules(b));
    TRY(socket_rules(b));
    for (size_t i = 0; i < sizeof ioctls_allowed / sizeof ioctls_allowed[0]; i++) {
        TRY(rule_if(b, SCMP_ACT_ALLOW, "ioctl", SCMP_A1(SCMP_CMP_EQ, ioctls_allowed[i])));
    }
    for (size_t i = 0; i < sizeof prctls_allowed / sizeof prctls_allowed[0]; i++) {
        TRY(rule_if(b, SCMP_ACT_ALLOW, "prctl",
                    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)prctls_allowed[i])));
    }
    for (size_t i = 0; i < sizeof personalities_allowed / sizeof personalities_allowed[0]; i++) {
        TRY(rule_if(b, SCMP_ACT_ALLOW, "personality",
                    SCMP_A0(SCMP_CMP_EQ, personalities_allowed[i])));
    }
    return status_ok();
}

struct status filter_export(int fd, struct errmsg *msg)
{
    struct build b = {.context = seccomp_init(SCMP_ACT_ERRNO(ENOSYS)), .msg = msg};
    if (b.context == NULL) {
        return status_fail(msg, STATUS_NOMEM, "seccomp_init");
    }
    /* A binary tree: 70 us instead of 200 to install, and shorter paths in every call. */
    struct status s = status_ok();
    if (seccomp_attr_set(b.context, SCMP_FLTATR_CTL_OPTIMIZE, 2) != 0) {
        s = status_fail(msg, STATUS_INTERNAL, "libseccomp refuses optimize level 2");
    }
    /* Calls of another architecture (int 0x80, x32) have other numbers: only an attack makes them.
     * */
    if (seccomp_attr_set(b.context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) != 0) {
        s = status_fail(msg, STATUS_INTERNAL, "libseccomp refuses to kill");
    }
    if (status_is_ok(s)) {
        s = plain_rules(&b);
    }
    if (status_is_ok(s)) {
        s = argument_rules(&b);
    }
    if (status_is_ok(s)) {
        int error = seccomp_export_bpf(b.context, fd);
        if (error != 0) {
            s = status_fail(msg, STATUS_INTERNAL, "export: %s", strerror(-error));
        }
    }
    seccomp_release(b.context);
    return s;
}

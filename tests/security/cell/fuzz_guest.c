/* Process 1 of a fuzzed cell: makes random system calls in short-lived workers until its time is
 * up. `fuzz_guest SEED SECONDS`. Every worker's choices follow from the seed, its round and its
 * number. Refuses to run anywhere but as process 1 of a cell. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    WORKERS = 6,
    ROUND_MS = 500,
    CALLS_MAX = 470,
    PAGE = 4096,
    AREA_PAGES = 4,
    WORKER_BYTES = 64 << 20,
};

struct random {
    uint64_t state;
};

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next(struct random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static uint64_t below(struct random *r, uint64_t bound)
{
    return next(r) % bound;
}

/* What names things outside the process comes most often: it is what a sentry serves. */
static const short favourites[] = {
    SYS_open,
    SYS_openat,
    SYS_openat2,
    SYS_creat,
    SYS_stat,
    SYS_lstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_access,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlink,
    SYS_readlinkat,
    SYS_mkdir,
    SYS_mkdirat,
    SYS_rmdir,
    SYS_unlink,
    SYS_unlinkat,
    SYS_rename,
    SYS_renameat,
    SYS_renameat2,
    SYS_link,
    SYS_linkat,
    SYS_symlink,
    SYS_symlinkat,
    SYS_chmod,
    SYS_fchmodat,
    SYS_chown,
    SYS_fchownat,
    SYS_utimensat,
    SYS_truncate,
    SYS_statfs,
    SYS_mknod,
    SYS_mknodat,
    SYS_getxattr,
    SYS_listxattr,
    SYS_chdir,
    SYS_fchdir,
    SYS_getcwd,
    SYS_execve,
    SYS_execveat,
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_sendto,
    SYS_sendmsg,
    SYS_sendmmsg,
    SYS_recvmsg,
    SYS_accept4,
    SYS_listen,
    SYS_setsockopt,
    SYS_getsockopt,
    SYS_ioctl,
    SYS_prctl,
    SYS_clone,
    SYS_clone3,
    SYS_fcntl,
    SYS_dup,
    SYS_dup2,
    SYS_close,
    SYS_pipe2,
    SYS_memfd_create,
    SYS_mmap,
    SYS_mprotect,
    SYS_munmap,
    SYS_inotify_add_watch,
    SYS_seccomp,
    SYS_kill,
    SYS_tgkill,
    SYS_getdents64,
    SYS_splice,
};

static const char *const paths[] = {
    "/",
    ".",
    "..",
    "",
    "/tmp",
    "/tmp/a",
    "/tmp/a/b",
    "/tmp/../tmp/./a",
    "a",
    "../../../../../../etc/shadow",
    "/etc/passwd",
    "/dev/null",
    "/dev/shm/x",
    "/dev/fd/0",
    "/proc",
    "/proc/self/mem",
    "/proc/self/exe",
    "/proc/self/fd/3",
    "/proc/self/root/tmp/a",
    "/proc/1/root",
    "/proc/1/mem",
    "/proc/thread-self/cwd/a",
    "/proc/self/attr/current",
    "/fuzz",
    "/usr/bin/env",
    "/usr/../../usr/bin",
    "//////",
    "/tmp/link",
    "/tmp/fifo",
    "/sys",
    "/nonexistent/x/y/z",
};

static char *area;      /* AREA_PAGES to read and write, then one without access */
static char *forbidden; /* that one */

/* A text that ends exactly at, or runs over, the end of the last good page. */
static uint64_t text_at_the_border(struct random *r)
{
    const char *path = paths[below(r, sizeof paths / sizeof paths[0])];
    size_t size = strlen(path) + (below(r, 2) == 0 ? 1 : 0);
    memcpy(forbidden - size, path, size);
    return (uint64_t)(uintptr_t)(forbidden - size);
}

/* A page of something that the kernel may take for a structure. */
static uint64_t structure(struct random *r)
{
    char *at = area + below(r, 2) * PAGE + below(r, 4) * 256;
    switch (below(r, 6)) {
    case 0: {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        (void)snprintf(address.sun_path, sizeof address.sun_path, "%s",
                       paths[below(r, sizeof paths / sizeof paths[0])]);
        memcpy(at, &address, sizeof address);
        break;
    }
    case 1: { /* an array of ranges, or a message */
        uint64_t words[8];
        for (size_t i = 0; i < 8; i++) {
            words[i] =
                below(r, 3) == 0 ? below(r, 64) : (uint64_t)(uintptr_t)(area + below(r, PAGE));
        }
        memcpy(at, words, sizeof words);
        break;
    }
    case 2: {
        static const unsigned short families[] = {0, 1, 2, 10, 16, 17, 38, 40};
        unsigned short family = families[below(r, 8)];
        memcpy(at, &family, sizeof family);
        break;
    }
    case 3: {
        uint64_t how[3] = {next(r) & 0xfffff, below(r, 512), below(r, 64)};
        memcpy(at, how, sizeof how);
        break;
    }
    default:
        for (size_t i = 0; i < 128; i++) {
            at[i] = (char)next(r);
        }
        break;
    }
    return (uint64_t)(uintptr_t)at;
}

static uint64_t number(struct random *r)
{
    static const uint64_t numbers[] = {
        0,
        1,
        2,
        3,
        4095,
        4096,
        4097,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        1 << 20,
        65535,
        (uint64_t)-1,
        (uint64_t)-2,
        1ULL << 32,
        1ULL << 40,
        (1ULL << 32) | 1,
        0x5412,
        0x541b,
        0x40000000,
    };
    return numbers[below(r, sizeof numbers / sizeof numbers[0])];
}

static uint64_t argument(struct random *r)
{
    switch (below(r, 12)) {
    case 0:
    case 1:
        return (uint64_t)(uintptr_t)paths[below(r, sizeof paths / sizeof paths[0])];
    case 2:
        return text_at_the_border(r);
    case 3:
    case 4:
        return structure(r);
    case 5: /* a descriptor */
        return below(r, 24);
    case 6:
        return (uint64_t)(int64_t)AT_FDCWD;
    case 7:
        return number(r);
    case 8: /* bits */
        return 1ULL << below(r, 40) | (below(r, 2) == 0 ? 1ULL << below(r, 24) : 0);
    case 9:
        return (uint64_t)(uintptr_t)forbidden + below(r, PAGE);
    case 10: /* the kernel's, or no address at all */
        return below(r, 2) == 0 ? 0xffffffff81000000ULL : 0x8000000000000000ULL;
    default:
        return below(r, 128);
    }
}

static long call_number(struct random *r)
{
    uint64_t kind = below(r, 100);
    if (kind < 70) {
        return favourites[below(r, sizeof favourites / sizeof favourites[0])];
    }
    return kind < 98 ? (long)below(r, CALLS_MAX) : (long)(next(r) & 0x400003ff & ~0x40000000L);
}

/* These only end or stop the worker, which takes time from the others. */
static bool is_dull(long call)
{
    static const long dull[] = {SYS_exit,           SYS_exit_group,   SYS_pause,
                                SYS_rt_sigsuspend,  SYS_rt_sigreturn, SYS_nanosleep,
                                SYS_clock_nanosleep};
    for (size_t i = 0; i < sizeof dull / sizeof dull[0]; i++) {
        if (call == dull[i]) {
            return true;
        }
    }
    return false;
}

static void worker(uint64_t seed, volatile uint64_t *count)
{
    struct random r = {.state = seed};
    struct rlimit limit = {.rlim_cur = WORKER_BYTES, .rlim_max = WORKER_BYTES};
    (void)setrlimit(RLIMIT_AS, &limit);
    area = mmap(NULL, (AREA_PAGES + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    if (area == MAP_FAILED) {
        _exit(1);
    }
    forbidden = area + (size_t)AREA_PAGES * PAGE;
    (void)mprotect(forbidden, PAGE, PROT_NONE);
    pid_t own = getpid();
    for (;;) {
        long call = call_number(&r);
        if (is_dull(call)) {
            continue;
        }
        uint64_t a[6];
        for (size_t i = 0; i < 6; i++) {
            a[i] = argument(&r);
        }
        (void)syscall(call, a[0], a[1], a[2], a[3], a[4], a[5]);
        __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
        if (syscall(SYS_getpid) != own) {
            _exit(0); /* A copy of the worker: enough of those come anyway. */
        }
    }
}

static long now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    if (argc != 3 || getpid() != 1) {
        fprintf(stderr, "usage, as process 1 of a cell: fuzz_guest SEED SECONDS\n");
        return 64;
    }
    uint64_t seed = strtoull(argv[1], NULL, 10);
    long until = now_ms() + strtol(argv[2], NULL, 10) * 1000;
    volatile uint64_t *count =
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    (void)mkfifo("/tmp/fifo", 0600);
    (void)symlink("/proc/self/root", "/tmp/link");
    sigset_t ended;
    (void)sigemptyset(&ended);
    (void)sigaddset(&ended, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &ended, NULL);
    uint64_t rounds = 0;
    uint64_t workers = 0;
    for (; now_ms() < until; rounds++) {
        int alive = 0;
        for (long end = now_ms() + ROUND_MS; now_ms() < end;) {
            for (; alive < WORKERS; alive++) {
                pid_t pid = fork();
                if (pid == 0) {
                    worker(seed + workers, count);
                }
                if (pid < 0) {
                    break; /* Copies of workers fill the cell: the end of the round clears it. */
                }
                workers++;
            }
            struct timespec wait = {.tv_nsec = 20 * 1000000L};
            (void)sigtimedwait(&ended, NULL, &wait);
            while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) {
                alive -= alive > 0 ? 1 : 0;
            }
        }
        (void)kill(-1, SIGKILL); /* All but this process, which is the cell's init. */
        while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR) {
        }
    }
    printf("\nfuzzed %llu calls by %llu workers in %llu rounds\n", (unsigned long long)*count,
           (unsigned long long)workers, (unsigned long long)rounds);
    return 0;
}

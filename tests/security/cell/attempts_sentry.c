/* Attempts on the one who serves system calls for the cell: memory that changes or stalls between
 * its look and the kernel's, arguments that it must not trust, calls that block it. Rows with SAME
 * must be answered with the errno that the kernel itself gives outside. */
#include "tests/security/cell/escape.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RACES_OPEN = 50000, RACES = 10000, PAGE = 4096 };

/* --- memory that a second thread changes --- */

struct flip {
    char *target; /* what the call reads */
    const char *one;
    const char *two;
    size_t size;
    atomic_bool stop;
};

static void *flip_main(void *argument)
{
    struct flip *f = argument;
    while (!atomic_load(&f->stop)) {
        memcpy(f->target, f->one, f->size);
        memcpy(f->target, f->two, f->size);
    }
    return NULL;
}

/* 0 as soon as one call answers what only the second text can give. */
static long race(struct flip *f, long (*call)(struct flip *), long times)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, flip_main, f) != 0) {
        return -1;
    }
    long result = -1;
    for (long i = 0; i < times && result < 0; i++) {
        result = call(f);
        if (i % 64 == 63) {
            (void)sched_yield();
        }
    }
    atomic_store(&f->stop, true);
    (void)pthread_join(thread, NULL);
    return result < 0 ? refused(ENOENT) : 0;
}

/* Opened, and it is not the allowed file. */
static long judge_fd(long fd)
{
    char content[BAIT_SECRET_BYTES] = "";
    if (fd < 0) {
        return -1;
    }
    ssize_t size = read((int)fd, content, sizeof content - 1);
    (void)close((int)fd);
    return size > 0 && memcmp(content, "allowed", 7) != 0 ? 0 : -1;
}

static long race_open(struct flip *f)
{
    return judge_fd(syscall(SYS_openat, AT_FDCWD, f->target, O_RDONLY | O_CLOEXEC));
}

static long race_openat2(struct flip *f)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};
    return judge_fd(syscall(SYS_openat2, AT_FDCWD, f->target, &how, sizeof how));
}

static long race_old_open(struct flip *f)
{
    return judge_fd(syscall(SYS_open, f->target, O_RDONLY | O_CLOEXEC));
}

/* The secret has 7 bytes, the allowed file 8. */
static long race_stat(struct flip *f)
{
    struct stat st;
    return stat(f->target, &st) == 0 && st.st_size == 7 ? 0 : -1;
}

static long race_access(struct flip *f)
{
    return access(f->target, F_OK);
}

static long race_readlink(struct flip *f)
{
    char target[64];
    return readlink(f->target, target, sizeof target) > 0 ? 0 : -1;
}

static long do_path_race(const struct attempt *a)
{
    static char path[512];
    static char allowed[512];
    static char forbidden[512];
    static long (*const calls[])(struct flip *) = {race_open, race_openat2, race_old_open,
                                                   race_stat, race_access,  race_readlink};
    (void)snprintf(allowed, sizeof allowed, "%s/%s", bait.app, a->a < 4 ? "allowed" : "none");
    (void)snprintf(forbidden, sizeof forbidden, "%s/%s", a->path != NULL ? a->path : bait.folder,
                   a->b != 0 ? "link" : "secret");
    if (a->path != NULL) {
        (void)snprintf(forbidden, sizeof forbidden, "%s", a->path);
    }
    memcpy(path, allowed, sizeof path);
    struct flip f = {.target = path, .one = allowed, .two = forbidden, .size = 256};
    return race(&f, calls[a->a], a->a == 0 ? RACES_OPEN : RACES);
}

static long race_connect(struct flip *f)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    long result = connect(fd, (struct sockaddr *)f->target, sizeof(struct sockaddr_un));
    (void)close(fd);
    return result;
}

static long do_connect_race(const struct attempt *a)
{
    (void)a;
    static struct sockaddr_un address;
    static struct sockaddr_un none = {.sun_family = AF_UNIX};
    static struct sockaddr_un secret = {.sun_family = AF_UNIX};
    (void)snprintf(none.sun_path, sizeof none.sun_path, "%s/none", bait.tmp);
    (void)snprintf(secret.sun_path, sizeof secret.sun_path, "%s/socket", bait.folder);
    address = none;
    struct flip f = {.target = (char *)&address,
                     .one = (const char *)&none,
                     .two = (const char *)&secret,
                     .size = sizeof address};
    return race(&f, race_connect, RACES / 2);
}

static long race_exec(struct flip *f)
{
    char *const args[] = {(char *)(uintptr_t) "x", (char *)(uintptr_t) "uid", NULL};
    pid_t pid = vfork(); /* Memory stays shared until the exec has read it. */
    if (pid == 0) {
        (void)execv(f->target, args);
        _exit(9);
    }
    int status = 0;
    (void)waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* A program that is not in the cell, by a path that changes. */
static long do_exec_race(const struct attempt *a)
{
    (void)a;
    static char path[512];
    static char allowed[512];
    static char forbidden[512];
    (void)snprintf(allowed, sizeof allowed, "%s/none", bait.app);
    (void)snprintf(forbidden, sizeof forbidden, "%s/program", bait.folder);
    memcpy(path, allowed, sizeof path);
    struct flip f = {.target = path, .one = allowed, .two = forbidden, .size = 256};
    return race(&f, race_exec, 200);
}

/* --- names that a second process changes --- */

/* /tmp/race is by turns a folder and a link to the bait's folder. */
static long do_link_race(const struct attempt *a)
{
    const char *name = text("%s/race-%d", bait.tmp, (int)getpid());
    char real[512];
    char link_name[512];
    char file[512];
    (void)snprintf(real, sizeof real, "%s.real", name);
    (void)snprintf(link_name, sizeof link_name, "%s.link", name);
    (void)snprintf(file, sizeof file, "%s/secret", name);
    (void)mkdir(real, 0700);
    if (symlink(a->path != NULL ? a->path : bait.folder, link_name) != 0) {
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        for (;;) {
            (void)rename(real, name);
            (void)rename(name, real);
            (void)rename(link_name, name);
            (void)rename(name, link_name);
        }
    }
    long result = -1;
    for (long i = 0; i < RACES / 2 && result < 0; i++) {
        result = judge_fd(open(file, O_RDONLY | O_CLOEXEC));
        if (i % 64 == 63) {
            (void)sched_yield();
        }
    }
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    (void)unlink(link_name);
    (void)unlink(name);
    (void)rmdir(name);
    (void)rmdir(real);
    return result < 0 ? refused(ENOENT) : 0;
}

/* --- pointers --- */

static char *pages(int protection)
{
    char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (protection < 0) {
        (void)munmap(p, 2 * PAGE);
    } else {
        (void)mprotect(p + PAGE, PAGE, protection);
    }
    return p;
}

enum bad { UNMAPPED, NO_ACCESS, NO_END, KERNEL, NULL_POINTER, LONG, LONGEST, NOT_CANONICAL };

static const char *bad_text(long kind)
{
    static char longest[PAGE + 1];
    char *p = NULL;
    switch (kind) {
    case UNMAPPED:
        return pages(-1);
    case NO_ACCESS:
        return pages(PROT_NONE) + PAGE;
    case NO_END: /* runs into a page without access */
        p = pages(PROT_NONE);
        memset(p + PAGE - 8, '/', 8);
        return p + PAGE - 8;
    case KERNEL:
        return (const char *)(uintptr_t)0xffffffff81000000UL;
    case NULL_POINTER:
        return NULL;
    case LONG:
        p = pages(PROT_READ);
        memset(p, 'a', PAGE);
        return p;
    case LONGEST: /* 4095 bytes and the end: as long as a path may be */
        memset(longest, '/', PAGE - 1);
        longest[PAGE - 1] = '\0';
        return longest;
    default:
        return (const char *)(uintptr_t)0x8000000000000000UL;
    }
}

static long do_bad_path(const struct attempt *a)
{
    const char *bad = bad_text(a->a);
    char *const none[] = {NULL};
    struct stat st;
    char buffer[64];
    switch (a->b) {
    case SYS_openat:
        return syscall(SYS_openat, AT_FDCWD, bad, O_RDONLY);
    case SYS_newfstatat:
        return syscall(SYS_newfstatat, AT_FDCWD, bad, &st, 0);
    case SYS_execve:
        return syscall(SYS_execve, bad, none, none);
    case SYS_readlinkat:
        return syscall(SYS_readlinkat, AT_FDCWD, bad, buffer, sizeof buffer);
    case SYS_renameat2:
        return syscall(SYS_renameat2, AT_FDCWD, "/nonexistent", AT_FDCWD, bad, 0);
    case SYS_unlinkat:
        return syscall(SYS_unlinkat, AT_FDCWD, bad, 0);
    case SYS_mkdirat:
        return syscall(SYS_mkdirat, AT_FDCWD, bad, 0700);
    case SYS_chdir:
        return syscall(SYS_chdir, bad);
    default:
        return syscall(SYS_faccessat, AT_FDCWD, bad, F_OK);
    }
}

/* Where the answer goes cannot be written. */
static long do_bad_answer(const struct attempt *a)
{
    char *bad = pages(a->a == 0 ? PROT_NONE : PROT_READ) + PAGE;
    switch (a->b) {
    case SYS_newfstatat:
        return syscall(SYS_newfstatat, AT_FDCWD, "/", bad, 0);
    case SYS_statx:
        return syscall(SYS_statx, AT_FDCWD, "/", 0, 0x7ff, bad);
    case SYS_getcwd:
        return syscall(SYS_getcwd, bad, 512);
    case SYS_statfs:
        return syscall(SYS_statfs, "/", bad);
    default:
        return syscall(SYS_readlinkat, AT_FDCWD, "/proc/self", bad, 64);
    }
}

/* A page whose first touch never ends: who reads the path for the cell must not wait for it. */
static long do_userfault_path(const struct attempt *a)
{
    struct {
        uint64_t api, features, ioctls;
    } api = {.api = 0xaa};
    struct {
        uint64_t start, size, mode, ioctls;
    } range = {.size = PAGE, .mode = 1};
    int fd = (int)syscall(SYS_userfaultfd, a->a);
    if (fd < 0) {
        return -1;
    }
    range.start =
        (uint64_t)(uintptr_t)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ioctl(fd, 0xc018aa3f, &api) != 0 || ioctl(fd, 0xc020aa00, &range) != 0) {
        return -1;
    }
    return syscall(SYS_openat, AT_FDCWD, (const char *)(uintptr_t)range.start, O_RDONLY);
}

/* openat2's structure is longer than the kernel's: bytes that are not zero are E2BIG. */
static long do_how(const struct attempt *a)
{
    static char how[PAGE * 2];
    how[a->a - 1] = 1;
    return syscall(SYS_openat2, AT_FDCWD, "/", how, a->a);
}

static long do_flags(const struct attempt *a)
{
    switch (a->b) {
    case SYS_newfstatat: {
        struct stat st;
        return syscall(SYS_newfstatat, AT_FDCWD, "/", &st, a->a);
    }
    case SYS_unlinkat:
        return syscall(SYS_unlinkat, AT_FDCWD, "/nonexistent", a->a);
    case SYS_renameat2:
        return syscall(SYS_renameat2, AT_FDCWD, "/nonexistent", AT_FDCWD, "/nonexistent2", a->a);
    default:
        return syscall(SYS_openat, (int)a->a, "x", O_RDONLY);
    }
}

static long do_address(const struct attempt *a)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *bad = pages(PROT_NONE) + PAGE;
    const void *at = a->b == 0 ? (const void *)&address : (const void *)bad;
    return syscall(a->path != NULL ? SYS_bind : SYS_connect, fd, at, a->a);
}

static long exec_huge(const void *argument)
{
    const struct attempt *a = argument;
    size_t count = (size_t)a->a;
    char **list = calloc(count + 1, sizeof *list);
    char *one = malloc((size_t)a->b + 1);
    if (list == NULL || one == NULL) {
        return -1;
    }
    memset(one, 'a', (size_t)a->b);
    one[a->b] = '\0';
    for (size_t i = 0; i < count; i++) {
        list[i] = one;
    }
    char *none[] = {NULL};
    (void)execve("/proc/self/exe", a->path[0] == 'a' ? list : none,
                 a->path[0] == 'e' ? list : none);
    return -1;
}

static long do_huge(const struct attempt *a)
{
    return in_child(exec_huge, a);
}

static long exec_bad(const void *argument)
{
    const struct attempt *a = argument;
    char *list[] = {(char *)(uintptr_t)bad_text(a->a), NULL};
    (void)execve("/proc/self/exe", a->b == 0 ? list : (char **)(uintptr_t)bad_text(a->a), NULL);
    return -1;
}

static long do_bad_arguments(const struct attempt *a)
{
    return in_child(exec_bad, a);
}

/* --- blocking --- */

/* Others open while this waits for a writer that never comes. */
static long do_blocking(const struct attempt *a)
{
    const char *fifo = text("%s/fifo-%d", bait.tmp, (int)getpid());
    if (mkfifo(fifo, 0600) != 0) {
        return -1;
    }
    for (long i = 0; i < a->a; i++) {
        if (fork() == 0) {
            (void)open(fifo, (int)a->b | O_CLOEXEC);
            _exit(0);
        }
    }
    for (int i = 0; i < 1000; i++) {
        (void)try_open("/proc/self/stat", O_RDONLY);
        (void)sched_yield();
    }
    (void)unlink(fifo);
    return refused(EAGAIN); /* Got here: nothing stalled. */
}

/* A call that is being served when its caller is killed must not confuse who serves it. */
static long do_killed_callers(const struct attempt *a)
{
    for (long i = 0; i < a->a; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            for (;;) {
                (void)try_open("/etc/hosts", O_RDONLY);
            }
        }
        (void)sched_yield();
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    return try_open("/etc/hosts", O_RDONLY) == 0 ? refused(EAGAIN) : 0;
}

static void on_signal(int number)
{
    (void)number;
}

/* Signals that interrupt calls on their way. */
static long do_signal_storm(const struct attempt *a)
{
    (void)signal(SIGUSR1, on_signal);
    pid_t own = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        while (getppid() == own && kill(own, SIGUSR1) == 0) {
        }
        _exit(0);
    }
    long good = 0;
    for (long i = 0; i < a->a; i++) {
        long result = try_open("/etc/hosts", O_RDONLY);
        good += result == 0 || errno == EINTR ? 1 : 0;
    }
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    return good == a->a ? refused(EAGAIN) : 0;
}

/* All descriptors taken: an error to the caller, nothing to the others. */
static long do_full_table(const struct attempt *a)
{
    (void)a;
    int last = 0;
    for (int fd = 0; fd >= 0;) {
        last = fd > last ? fd : last;
        fd = open("/etc/hosts", O_RDONLY | O_CLOEXEC);
    }
    int error = errno;
    for (int fd = 3; fd <= last; fd++) {
        (void)close(fd);
    }
    return error == EMFILE && try_open("/etc/hosts", O_RDONLY) == 0 ? refused(EMFILE) : 0;
}

#define ROW(name, reference, run, ...)                                                             \
    {                                                                                              \
        name, reference, run, __VA_ARGS__                                                          \
    }
#define TOCTOU "TOCTOU on notified arguments"
#define POINTER "pointers the sentry reads"
#define STALL "stalls"
#define NOBODY "nobody serves the calls outside; what counts is that nothing stalls or fails inside"
#define KERNEL_SAYS "must be answered as the kernel answers outside"
#define BAD(call, kind, words)                                                                     \
    {                                                                                              \
#call " of a path " words, POINTER, do_bad_path, NULL, kind, SYS_##call, SAME, KERNEL_SAYS \
    }
#define BADS(call)                                                                                 \
    BAD(call, UNMAPPED, "that is not mapped"), BAD(call, NO_ACCESS, "in a page without access"),   \
        BAD(call, NO_END, "that runs into such a page"), BAD(call, LONG, "of 4096 bytes"),         \
        BAD(call, KERNEL, "in the kernel"), BAD(call, NULL_POINTER, "at 0")
#define ANSWER(call)                                                                               \
    {#call " to a page without access",                                                            \
     POINTER,                                                                                      \
     do_bad_answer,                                                                                \
     NULL,                                                                                         \
     0,                                                                                            \
     SYS_##call,                                                                                   \
     SAME,                                                                                         \
     KERNEL_SAYS},                                                                                 \
    {                                                                                              \
#call " to a read-only page", POINTER, do_bad_answer, NULL, 1, SYS_##call, SAME,           \
            KERNEL_SAYS                                                                            \
    }

const struct attempt attempts_sentry[] = {
    ROW("openat while the path changes", TOCTOU, do_path_race, NULL, 0, 0, 0, NULL),
    ROW("openat2 while the path changes", TOCTOU, do_path_race, NULL, 1, 0, 0, NULL),
    ROW("open while the path changes", TOCTOU, do_path_race, NULL, 2, 0, 0, NULL),
    ROW("stat while the path changes", TOCTOU, do_path_race, NULL, 3, 0, 0, NULL),
    ROW("access while the path changes", TOCTOU, do_path_race, NULL, 4, 0, 0, NULL),
    ROW("readlink while the path changes", TOCTOU, do_path_race, NULL, 5, 1, 0, NULL),
    ROW("openat that turns to /proc/sys", TOCTOU, do_path_race, "/proc/sys/kernel/core_pattern", 0,
        0, 0, NULL),
    ROW("openat that turns to /etc/shadow", TOCTOU, do_path_race, "/etc/shadow", 0, 0, 0, NULL),
    ROW("connect while the address changes", TOCTOU, do_connect_race, NULL, 0, 0, 0, NULL),
    ROW("exec while the path changes", TOCTOU, do_exec_race, NULL, 0, 0, 0, NULL),
    ROW("a folder that turns into a link", "symlink races", do_link_race, NULL, 0, 0, 0, NULL),
    BADS(openat),
    BADS(newfstatat),
    BADS(readlinkat),
    BADS(execve),
    BAD(renameat2, NO_ACCESS, "in a page without access"),
    BAD(unlinkat, NO_ACCESS, "in a page without access"),
    BAD(mkdirat, NO_END, "that runs into a page without access"),
    BAD(chdir, NO_ACCESS, "in a page without access"),
    BAD(faccessat, NOT_CANONICAL, "at no address"),
    BAD(unlinkat, LONG, "of 4096 bytes"),
    ANSWER(newfstatat),
    ANSWER(statx),
    ANSWER(getcwd),
    ANSWER(statfs),
    ANSWER(readlinkat),
    ROW("a path that faults for ever", "userfaultfd stalls", do_userfault_path, NULL, 0, 0,
        MAY_LACK, NULL),
    ROW("a path that faults for ever, for its user", "userfaultfd stalls", do_userfault_path, NULL,
        1, 0, MAY_LACK | ONLY_HERE, "the kernel itself would answer EFAULT"),
    ROW("openat2 with a longer structure", POINTER, do_how, NULL, 64, 0, SAME, KERNEL_SAYS),
    ROW("openat2 with a huge structure", POINTER, do_how, NULL, 5000, 0, SAME, KERNEL_SAYS),
    ROW("openat2 with a short structure", POINTER, do_how, NULL, 8, 0, SAME, KERNEL_SAYS),
    ROW("stat with unknown flags", POINTER, do_flags, NULL, 0x40000000, SYS_newfstatat, SAME,
        KERNEL_SAYS),
    ROW("unlinkat with unknown flags", POINTER, do_flags, NULL, 0x40000000, SYS_unlinkat, SAME,
        KERNEL_SAYS),
    ROW("renameat2 with unknown flags", POINTER, do_flags, NULL, 0x40000000, SYS_renameat2, SAME,
        KERNEL_SAYS),
    ROW("openat from a closed descriptor", POINTER, do_flags, NULL, 900, SYS_openat, SAME,
        KERNEL_SAYS),
    ROW("openat from descriptor 0", POINTER, do_flags, NULL, 0, SYS_openat, SAME, KERNEL_SAYS),
    ROW("connect with a huge address", POINTER, do_address, NULL, 1 << 20, 0, SAME, KERNEL_SAYS),
    ROW("connect with a negative size", POINTER, do_address, NULL, -1, 0, SAME, KERNEL_SAYS),
    ROW("connect with no address", POINTER, do_address, NULL, 0, 0, SAME, KERNEL_SAYS),
    ROW("connect with an address without access", POINTER, do_address, NULL, 16, 1, SAME,
        KERNEL_SAYS),
    ROW("bind with a huge address", POINTER, do_address, "bind", 1 << 20, 0, SAME, KERNEL_SAYS),
    ROW("bind with an address without access", POINTER, do_address, "bind", 16, 1, SAME,
        KERNEL_SAYS),
    ROW("huge argv", "huge argv and env", do_huge, "argv", 64, 100000, SAME, KERNEL_SAYS),
    ROW("an argument that is too long", "huge argv and env", do_huge, "argv", 1, 200000, SAME,
        KERNEL_SAYS),
    ROW("huge env", "huge argv and env", do_huge, "env", 64, 100000, SAME, KERNEL_SAYS),
    ROW("an argument without access", POINTER, do_bad_arguments, NULL, NO_ACCESS, 0, SAME,
        KERNEL_SAYS),
    ROW("an argv in the kernel", POINTER, do_bad_arguments, NULL, KERNEL, 1, SAME, KERNEL_SAYS),
    ROW("a fifo nobody writes", STALL, do_blocking, NULL, 1, O_RDONLY, ONLY_HERE, NOBODY),
    ROW("a fifo nobody reads", STALL, do_blocking, NULL, 1, O_WRONLY, ONLY_HERE, NOBODY),
    ROW("forty fifos nobody writes", STALL, do_blocking, NULL, 40, O_RDONLY, ONLY_HERE, NOBODY),
    ROW("callers killed in their calls", STALL, do_killed_callers, NULL, 300, 0, ONLY_HERE, NOBODY),
    ROW("a storm of signals", STALL, do_signal_storm, NULL, 3000, 0, ONLY_HERE, NOBODY),
    ROW("a full table of descriptors", STALL, do_full_table, NULL, 0, 0, ONLY_HERE, NOBODY),
    {0},
};

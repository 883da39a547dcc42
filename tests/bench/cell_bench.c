/* How long a cell takes to its first byte: from the spawn of skep-cell to the first packet of
 * process 1 on the runner channel, beside posix_spawn of the same static program, bwrap, crun, runc
 * and runsc where they are installed, and Python in and outside a cell. Starts are interleaved, so
 * that all see the same machine. Then what an idle cell holds of memory.
 *
 *     cell_bench [STARTS]
 *
 * After the table, lines of `name value unit`. Peers run as root only. */
#include "tests/bench/oci_peers.h"
#include "tests/lib/cell_once.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT(t) ((char *)(uintptr_t)(t))

extern char **environ;

enum { STARTS_MAX = 10000, STARTS_DEFAULT = 100, DEADLINE_MS = 30000, IDLE_CELLS = 20 };

enum {
    ROW_SPAWN,
    ROW_CELL,
    ROW_CELL_CGROUP,
    ROW_BWRAP,
    ROW_CRUN,
    ROW_RUNC,
    ROW_RUNSC,
    ROW_PYTHON,
    ROW_CELL_PYTHON,
    ROWS_COUNT_,
};

struct row {
    const char *name; /* for people */
    const char *key;  /* of the lines below the table */
    size_t count;
    double cpu_ms;
    double ms[STARTS_MAX];
};

static struct row rows[ROWS_COUNT_] = {
    [ROW_SPAWN] = {.name = "posix_spawn, static program", .key = "spawn"},
    [ROW_CELL] = {.name = "skep-cell, no cgroup", .key = "cell_no_cgroup"},
    [ROW_CELL_CGROUP] = {.name = "skep-cell, cgroup made inline", .key = "cell"},
    [ROW_BWRAP] = {.name = "bwrap, no limits, no filter", .key = "bwrap"},
    [ROW_CRUN] = {.name = "crun, no cgroup, no filter", .key = "crun"},
    [ROW_RUNC] = {.name = "runc, no filter", .key = "runc"},
    [ROW_RUNSC] = {.name = "runsc, ptrace, no cgroup", .key = "runsc"},
    [ROW_PYTHON] = {.name = "posix_spawn, Python", .key = "spawn_python"},
    [ROW_CELL_PYTHON] = {.name = "skep-cell, Python", .key = "cell_python"},
};

/* Of all that was started and reaped so far, grandchildren included: says more than the clock on a
 * busy machine. */
static double cpu_ms(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}

static char *const guest_inside[] = {TEXT("/guest"), NULL};
static char *const guest_outside[] = {TEXT(CELL_BENCH_GUEST), NULL};
static char *const python[] = {TEXT("/usr/bin/python3"), TEXT("-c"),
                               TEXT("import os; os.write(3, b'x')"), NULL};
static char *const wrap[] = {
    TEXT("/usr/bin/bwrap"), TEXT("--unshare-all"), TEXT("--ro-bind"), TEXT(CELL_BENCH_GUEST),
    TEXT("/guest"),         TEXT("--ro-bind"),     TEXT("/usr"),      TEXT("/usr"),
    TEXT("--proc"),         TEXT("/proc"),         TEXT("--dev"),     TEXT("/dev"),
    TEXT("--tmpfs"),        TEXT("/tmp"),          TEXT("/guest"),    NULL,
};

/* What an agent would have done before the start. */
static void cell_prepare(struct cell_once *c, char *const args[], bool with_cgroup, unsigned serial)
{
    char group[64];
    (void)snprintf(group, sizeof group, "skep-bench-%d", (int)getpid());
    cell_once_open(c, with_cgroup ? group : NULL, serial);
    cell_once_mount(c, CELL_BENCH_GUEST, "/guest");
    c->spec.args = (char **)(uintptr_t)args;
    for (c->spec.args_count = 0; args[c->spec.args_count] != NULL; c->spec.args_count++) {
    }
    cell_once_prepare(c);
}

static double cell_once_time(char *const args[], bool with_cgroup, unsigned serial)
{
    static struct cell_once c;
    cell_prepare(&c, args, with_cgroup, serial);
    double begin = cell_once_now_ms();
    cell_once_start(&c, CELL_BENCH_PROGRAM);
    cell_once_must(cell_once_wait_ready(&c, DEADLINE_MS), "no first byte from a cell");
    double end = cell_once_now_ms();
    cell_once_must(cell_once_wait(&c, DEADLINE_MS), "a cell that does not end");
    cell_once_close(&c);
    return end - begin;
}

/* Any program that ends up running the guest, which writes to its descriptor `fd`. All else of 0 to
 * 2 are pipes, since runsc changes the owner of what it is given. */
static double spawn_once(char *const args[], int fd)
{
    int pair[2];
    int ends[2];
    pid_t pid = -1;
    posix_spawn_file_actions_t actions;
    cell_once_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    cell_once_must(pipe2(ends, O_CLOEXEC) == 0, "pipe");
    int high = fcntl(pair[1], F_DUPFD_CLOEXEC, 10);
    int quiet = fcntl(ends[1], F_DUPFD_CLOEXEC, 10);
    (void)close(pair[1]);
    (void)close(ends[1]);
    (void)posix_spawn_file_actions_init(&actions);
    if (fd == STDOUT_FILENO) {
        (void)posix_spawn_file_actions_adddup2(&actions, quiet, 0);
        (void)posix_spawn_file_actions_adddup2(&actions, quiet, 2);
    }
    (void)posix_spawn_file_actions_adddup2(&actions, high, fd);
    double begin = cell_once_now_ms();
    cell_once_must(posix_spawn(&pid, args[0], &actions, NULL, args, environ) == 0, args[0]);
    (void)close(high);
    (void)close(quiet);
    char byte = 0;
    struct pollfd ready = {.fd = pair[0], .events = POLLIN};
    cell_once_must(poll(&ready, 1, DEADLINE_MS) == 1 && read(pair[0], &byte, 1) == 1, args[0]);
    double end = cell_once_now_ms();
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)waitpid(pid, NULL, 0);
    (void)close(pair[0]);
    (void)close(ends[0]);
    return end - begin;
}

static void row_add(int row, double ms, double cpu_before)
{
    struct row *r = &rows[row];
    r->ms[r->count++] = ms;
    r->cpu_ms += cpu_ms() - cpu_before;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double p50(const struct row *r)
{
    return r->ms[r->count / 2];
}

static void rows_print(void)
{
    for (int i = 0; i < ROWS_COUNT_; i++) {
        struct row *r = &rows[i];
        if (r->count == 0) {
            printf("%-30s not on this machine, or not root\n", r->name);
            continue;
        }
        qsort(r->ms, r->count, sizeof *r->ms, compare);
        printf("%-30s p10 %8.3f ms   p50 %8.3f ms   p99 %8.3f ms   cpu %7.3f ms\n", r->name,
               r->ms[r->count / 10], p50(r), r->ms[r->count * 99 / 100],
               r->cpu_ms / (double)r->count);
    }
}

static void lines_print(void)
{
    const struct row *cell = &rows[rows[ROW_CELL_CGROUP].count > 0 ? ROW_CELL_CGROUP : ROW_CELL];
    for (int i = 0; i < ROWS_COUNT_; i++) {
        const struct row *r = &rows[i];
        if (r->count > 0) {
            printf("start_%s_p50 %.3f ms\n", r->key, p50(r));
            printf("start_%s_p99 %.3f ms\n", r->key, r->ms[r->count * 99 / 100]);
        }
        if (r->count > 0 && i >= ROW_BWRAP && i <= ROW_RUNSC) {
            printf("start_%s_ratio %.2f times\n", r->key, p50(r) / p50(cell));
        }
    }
    double cpu = cell->cpu_ms / (double)cell->count;
    printf("cells_per_second_core %.0f starts\n", cpu > 0 ? 1e3 / cpu : 0);
}

static void start_all(struct oci_peers *peers, unsigned serial)
{
    bool is_root = geteuid() == 0;
    double before = cpu_ms();
    row_add(ROW_SPAWN, spawn_once(guest_outside, 3), before);
    before = cpu_ms();
    row_add(ROW_CELL, cell_once_time(guest_inside, false, serial), before);
    if (is_root) {
        before = cpu_ms();
        row_add(ROW_CELL_CGROUP, cell_once_time(guest_inside, true, serial), before);
    }
    if (access(wrap[0], X_OK) == 0) {
        before = cpu_ms();
        row_add(ROW_BWRAP, spawn_once(wrap, 3), before);
    }
    for (int i = 0; is_root && i < OCI_PEERS_COUNT_; i++) {
        char *const *args = oci_peers_args(peers, i, serial);
        if (args[0] != NULL) {
            before = cpu_ms();
            row_add(ROW_CRUN + i, spawn_once(args, STDOUT_FILENO), before);
        }
    }
    before = cpu_ms();
    row_add(ROW_PYTHON, spawn_once(python, 3), before);
    before = cpu_ms();
    row_add(ROW_CELL_PYTHON, cell_once_time(python, is_root, serial), before);
}

/* KiB of the line that begins with name. */
static double file_kib(const char *path, const char *name)
{
    char line[256];
    double kib = 0;
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            kib = strtod(line + strlen(name), NULL);
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return kib;
}

static double kernel_kib(void)
{
    return file_kib("/proc/meminfo", "Slab:") + file_kib("/proc/meminfo", "KernelStack:") +
           file_kib("/proc/meminfo", "PageTables:") + file_kib("/proc/meminfo", "Percpu:");
}

/* What idle cells cost beside what their programs use: skep-cell's share of memory, and how much
 * the kernel's own grew a cell (others on the machine move that figure too). */
static void idle_print(void)
{
    static struct cell_once cells[IDLE_CELLS];
    char *const args[] = {TEXT("/guest"), TEXT("stay"), NULL};
    double kernel_before = kernel_kib();
    double pss = 0;
    for (unsigned i = 0; i < IDLE_CELLS; i++) {
        cell_prepare(&cells[i], args, geteuid() == 0, i);
        cell_once_start(&cells[i], CELL_BENCH_PROGRAM);
    }
    for (unsigned i = 0; i < IDLE_CELLS; i++) {
        char path[64];
        cell_once_must(cell_once_wait_ready(&cells[i], DEADLINE_MS), "no first byte");
        (void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)cells[i].process.pid);
        pss += file_kib(path, "Pss:");
    }
    double kernel = kernel_kib() - kernel_before;
    for (unsigned i = 0; i < IDLE_CELLS; i++) {
        cell_once_close(&cells[i]);
    }
    printf("idle_cell_pss %.0f KiB\n", pss / IDLE_CELLS);
    printf("idle_cell_kernel %.0f KiB\n", kernel / IDLE_CELLS);
}

int main(int argc, char **argv)
{
    static struct oci_peers peers;
    char *end = NULL;
    size_t starts = argc > 1 ? strtoul(argv[1], &end, 10) : STARTS_DEFAULT;
    bool is_number = argc <= 1 || (end != argv[1] && *end == '\0');
    if (!is_number || starts == 0 || starts > STARTS_MAX) {
        (void)fprintf(stderr, "usage: cell_bench [STARTS, at most %d]\n", STARTS_MAX);
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    if (geteuid() == 0) {
        cell_once_own_mounts();
        oci_peers_open(&peers, CELL_BENCH_GUEST);
    }
    for (size_t i = 0; i < starts; i++) {
        start_all(&peers, (unsigned)i);
    }
    printf("first byte of process 1, %zu starts of each, interleaved\n", starts);
    rows_print();
    lines_print();
    idle_print();
    if (geteuid() == 0) {
        oci_peers_close(&peers);
    }
    return 0;
}

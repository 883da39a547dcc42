/* How long a cell takes to its first byte: from the spawn of skep-cell to the first packet of
 * process 1 on the runner channel, beside posix_spawn of the same static program in the same run,
 * and bwrap where it is installed. Starts are interleaved, so that all see the same machine.
 *
 *     cell_bench [STARTS] */
#include "agent/cell/cell_client.h"
#include "agent/cell/cgroup.h"
#include "common/cleanup.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { STARTS_MAX = 10000, STARTS_DEFAULT = 100, DEADLINE_MS = 10000 };

static double now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Of all that was started and reaped so far, grandchildren included: says more than the clock on a
 * busy machine. */
static double cpu_ms(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}

struct row {
    const char *name;
    size_t count;
    double cpu_ms;
    double ms[STARTS_MAX];
};

static void must(bool good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void wait_readable(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    must(poll(&ready, 1, DEADLINE_MS) == 1, "no first byte");
}

/* Writes one specification into a fresh folder; what an agent would have done before the start. */
static void folder_make(char *folder, size_t size, bool with_cgroup, unsigned serial)
{
    static struct cell_spec spec;
    static struct cell_mount mount;
    char program[] = CELL_BENCH_GUEST;
    char *args[] = {(char *)(uintptr_t) "/guest", NULL};
    struct buffer json = {0};
    struct errmsg msg = {""};
    (void)snprintf(folder, size, "/tmp/skep-cell-bench-XXXXXX");
    must(mkdtemp(folder) != NULL, "mkdtemp");
    (void)snprintf(spec.instance, sizeof spec.instance, "i-bench");
    (void)snprintf(mount.source, sizeof mount.source, "%s", program);
    (void)snprintf(mount.target, sizeof mount.target, "/guest");
    spec.args = args;
    spec.args_count = 1;
    spec.mounts = &mount;
    spec.mounts_count = 1;
    spec.memory_bytes = 64 << 20;
    spec.cpu_millis = 1000;
    spec.pids_max = 16;
    spec.tmp_bytes = 8 << 20;
    spec.cgroup[0] = '\0';
    if (with_cgroup) {
        (void)snprintf(spec.cgroup, sizeof spec.cgroup, "skep-bench-%d/%u", (int)getpid(), serial);
    }
    must(status_is_ok(cell_spec_encode(&spec, &json, &msg)), msg.text);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/spec.json", folder);
    AUTO_FILE FILE *f = fopen(path, "we");
    must(f != NULL && fwrite(json.data, 1, json.size, f) == json.size, path);
    buffer_close(&json);
}

static void folder_remove(const char *folder)
{
    static const char *const files[] = {"spec.json", "cell.pid", "cell.sock", "log", "exit.json"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static double cell_once(bool with_cgroup, unsigned serial)
{
    char folder[64];
    struct cell_process process;
    struct cell_client client;
    struct errmsg msg = {""};
    folder_make(folder, sizeof folder, with_cgroup, serial);
    double begin = now_ms();
    must(status_is_ok(
             cell_start(CELL_BENCH_PROGRAM, folder, STDERR_FILENO, &process, &client, &msg)),
         msg.text);
    struct cell_message m = {0};
    do {
        wait_readable(client.fd);
        must(status_is_ok(cell_client_next(&client, &m, &msg)), msg.text);
    } while (m.kind != CELL_MESSAGE_HELLO);
    wait_readable(m.channel_fd);
    double end = now_ms();
    (void)close(m.channel_fd);
    (void)waitid(P_PIDFD, (id_t)process.pidfd, &(siginfo_t){0}, WEXITED);
    (void)close(process.pidfd);
    cell_client_close(&client);
    folder_remove(folder);
    return end - begin;
}

/* Any program that ends up running the guest, which writes to its descriptor 3. */
static double spawn_once(char *const args[])
{
    int pair[2];
    pid_t pid = -1;
    posix_spawn_file_actions_t actions;
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    int high = fcntl(pair[1], F_DUPFD_CLOEXEC, 10);
    (void)close(pair[1]);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, high, 3);
    double begin = now_ms();
    must(posix_spawn(&pid, args[0], &actions, NULL, args, environ) == 0, args[0]);
    (void)close(high);
    wait_readable(pair[0]);
    double end = now_ms();
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(pair[0]);
    (void)waitpid(pid, NULL, 0);
    return end - begin;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void row_print(struct row *r)
{
    if (r->count == 0) {
        printf("%-30s not on this machine\n", r->name);
        return;
    }
    qsort(r->ms, r->count, sizeof *r->ms, compare);
    printf("%-30s p10 %7.3f ms   p50 %7.3f ms   p99 %7.3f ms   cpu %6.3f ms\n", r->name,
           r->ms[r->count / 10], r->ms[r->count / 2], r->ms[r->count * 99 / 100],
           r->cpu_ms / (double)r->count);
}

static void row_add(struct row *r, double ms, double cpu_before)
{
    r->ms[r->count++] = ms;
    r->cpu_ms += cpu_ms() - cpu_before;
}

static char *const direct[] = {(char *)(uintptr_t)CELL_BENCH_GUEST, NULL};
static char *const wrap[] = {
    (char *)(uintptr_t) "/usr/bin/bwrap", (char *)(uintptr_t) "--unshare-all",
    (char *)(uintptr_t) "--ro-bind",      (char *)(uintptr_t)CELL_BENCH_GUEST,
    (char *)(uintptr_t) "/guest",         (char *)(uintptr_t) "--ro-bind",
    (char *)(uintptr_t) "/usr",           (char *)(uintptr_t) "/usr",
    (char *)(uintptr_t) "--proc",         (char *)(uintptr_t) "/proc",
    (char *)(uintptr_t) "--dev",          (char *)(uintptr_t) "/dev",
    (char *)(uintptr_t) "--tmpfs",        (char *)(uintptr_t) "/tmp",
    (char *)(uintptr_t) "/guest",         NULL,
};

int main(int argc, char **argv)
{
    static struct row spawned = {.name = "posix_spawn, static program"};
    static struct row celled = {.name = "skep-cell, no cgroup"};
    static struct row limited = {.name = "skep-cell, cgroup made inline"};
    static struct row wrapped = {.name = "bwrap, no limits, no filter"};
    char *end = NULL;
    size_t asked = argc > 1 ? strtoul(argv[1], &end, 10) : STARTS_DEFAULT;
    bool is_number = argc <= 1 || (end != argv[1] && *end == '\0');
    if (!is_number || asked == 0 || asked > STARTS_MAX) {
        (void)fprintf(stderr, "usage: cell_bench [STARTS, at most %d]\n", STARTS_MAX);
        return 2;
    }
    size_t starts = asked;
    bool has_wrap = access(wrap[0], X_OK) == 0;
    bool is_root = geteuid() == 0;
    for (size_t i = 0; i < starts; i++) {
        double before = cpu_ms();
        row_add(&spawned, spawn_once(direct), before);
        before = cpu_ms();
        row_add(&celled, cell_once(false, (unsigned)i), before);
        if (is_root) {
            before = cpu_ms();
            row_add(&limited, cell_once(true, (unsigned)i), before);
        }
        if (has_wrap) {
            before = cpu_ms();
            row_add(&wrapped, spawn_once(wrap), before);
        }
    }
    printf("first byte of process 1, %zu starts of each, interleaved\n", starts);
    row_print(&spawned);
    row_print(&celled);
    row_print(&limited);
    row_print(&wrapped);
    return 0;
}

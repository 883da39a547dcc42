/* Many cells: some at once, then many one after the other; and what is counted before and after
 * must be the same: processes, mounts, network namespaces and interfaces, control groups, nftables
 * rules.
 *
 *     cell_soak [-n CELLS_AT_ONCE] [-c CYCLES] [-j AT_A_TIME] [-q]
 *
 * -q: no control groups. The whole form is -n 500 -c 10000; counts of the machine move when others
 * work on it. Prints `name value unit` lines. Exit code: 0 nothing stays, 1 something does. */
#include "agent/cell/cgroup.h"
#include "tests/lib/cell_once.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT(t) ((char *)(uintptr_t)(t))

extern char **environ;

enum {
    AT_ONCE_DEFAULT = 50,
    AT_ONCE_MAX = 2000,
    CYCLES_DEFAULT = 200,
    TOGETHER_DEFAULT = 4,
    TOGETHER_MAX = 64,
    DEADLINE_MS = 120000,
    SETTLE_MS = 10000,
    NETNS_MAX = 8192,
};

struct counts {
    size_t processes; /* skep-cell and the guest, by name */
    size_t mounts;
    size_t netns; /* that some process is in */
    size_t interfaces;
    size_t cgroups; /* folders of this run's group */
    size_t rules;   /* lines of nft's list */
};

static char group[64];
static struct cell_once cells[AT_ONCE_MAX];

static size_t folder_count(const char *path)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    const struct dirent *entry = NULL;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        count += entry->d_name[0] != '.' ? 1 : 0;
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return count;
}

/* Whether the process is a skep-cell, or a guest, that descends from this run: both have the name
 * of this run's folders in their command line or its own name. */
static bool is_ours(const char *pid)
{
    char path[300];
    char name[32] = "";
    (void)snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    bool read = fscanf(f, "%*d (%31[^)]", name) == 1;
    (void)fclose(f);
    if (!read || (strcmp(name, "skep-cell") != 0 && strcmp(name, "cell_soak_guest") != 0)) {
        return false;
    }
    if (strcmp(name, "cell_soak_guest") == 0) {
        return true;
    }
    char line[512] = "";
    (void)snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? pread(fd, line, sizeof line - 1, 0) : 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return size > 0 && memmem(line, (size_t)size, "skep-cell-once-", 15) != NULL;
}

static void processes_count(struct counts *c)
{
    static ino_t seen[NETNS_MAX];
    DIR *dir = opendir("/proc");
    const struct dirent *entry = NULL;
    cell_once_must(dir != NULL, "/proc");
    while ((entry = readdir(dir)) != NULL) {
        char path[300];
        struct stat st;
        if (!isdigit((unsigned char)entry->d_name[0])) {
            continue;
        }
        c->processes += is_ours(entry->d_name) ? 1 : 0;
        (void)snprintf(path, sizeof path, "/proc/%s/ns/net", entry->d_name);
        if (stat(path, &st) != 0) {
            continue;
        }
        size_t i = 0;
        while (i < c->netns && seen[i] != st.st_ino) {
            i++;
        }
        if (i == c->netns && c->netns < NETNS_MAX) {
            seen[c->netns++] = st.st_ino;
        }
    }
    (void)closedir(dir);
}

static size_t groups_count(void)
{
    struct cgroup_mounts mounts;
    struct errmsg msg = {""};
    size_t count = 0;
    if (!status_is_ok(cgroup_mounts_find(&mounts, &msg))) {
        return 0;
    }
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        char path[CGROUP_MOUNT_BYTES_MAX + 128];
        (void)snprintf(path, sizeof path, "%s/%s", mounts.of[i].path, group);
        count += mounts.of[i].path[0] != '\0' && access(path, F_OK) == 0 ? 1 : 0;
    }
    return count;
}

static size_t rules_count(void)
{
    int ends[2];
    pid_t pid = -1;
    size_t lines = 0;
    char *const args[] = {TEXT("/usr/sbin/nft"), TEXT("list"), TEXT("ruleset"), NULL};
    posix_spawn_file_actions_t actions;
    if (geteuid() != 0 || access(args[0], X_OK) != 0) {
        return 0;
    }
    cell_once_must(pipe2(ends, O_CLOEXEC) == 0, "pipe");
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    cell_once_must(posix_spawn(&pid, args[0], &actions, NULL, args, environ) == 0, args[0]);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    char block[4096];
    for (ssize_t n = 1; n > 0;) {
        n = read(ends[0], block, sizeof block);
        for (ssize_t i = 0; i < n; i++) {
            lines += block[i] == '\n' ? 1 : 0;
        }
    }
    (void)close(ends[0]);
    (void)waitpid(pid, NULL, 0);
    return lines;
}

static struct counts count_all(void)
{
    struct counts c = {0};
    processes_count(&c);
    c.mounts = cell_once_count_mounts();
    c.interfaces = folder_count("/sys/class/net");
    c.cgroups = groups_count();
    c.rules = rules_count();
    return c;
}

static void counts_print(const char *when, const struct counts *c)
{
    printf("%s_processes %zu count\n%s_mounts %zu count\n%s_netns %zu count\n"
           "%s_interfaces %zu count\n%s_cgroups %zu count\n%s_nft_lines %zu count\n",
           when, c->processes, when, c->mounts, when, c->netns, when, c->interfaces, when,
           c->cgroups, when, c->rules);
    (void)fflush(stdout);
}

/* Ours are none; of what others share no more than before. */
static bool is_clean(const struct counts *before, const struct counts *now)
{
    return now->processes <= before->processes && now->mounts <= before->mounts &&
           now->netns <= before->netns && now->interfaces <= before->interfaces &&
           now->cgroups <= before->cgroups && now->rules <= before->rules;
}

static void cell_begin(struct cell_once *c, bool stays, bool with_group, unsigned serial)
{
    static char *args[] = {TEXT("/cell_soak_guest"), TEXT("stay")};
    cell_once_open(c, with_group ? group : NULL, serial);
    cell_once_mount(c, CELL_SOAK_GUEST, "/cell_soak_guest");
    c->spec.args = args;
    c->spec.args_count = stays ? 2 : 1;
    c->spec.log_bytes = 4 << 10;
    c->spec.memory_bytes = 16 << 20;
    cell_once_prepare(c);
    cell_once_start(c, CELL_PROGRAM);
}

static void all_at_once(unsigned count, bool with_group)
{
    double begin = cell_once_now_ms();
    for (unsigned i = 0; i < count; i++) {
        cell_begin(&cells[i], true, with_group, i);
    }
    for (unsigned i = 0; i < count; i++) {
        cell_once_must(cell_once_wait_ready(&cells[i], DEADLINE_MS), "a cell is not ready");
    }
    printf("at_once %u cells\nat_once_ready %.0f ms\n", count, cell_once_now_ms() - begin);
    struct counts c = count_all();
    counts_print("during", &c);
    cell_once_must(c.processes >= count, "fewer processes than cells");
    for (unsigned i = 0; i < count; i++) {
        cell_once_kill(&cells[i]);
    }
    for (unsigned i = 0; i < count; i++) {
        cell_once_close(&cells[i]);
    }
}

/* Every third cell is killed instead of ending by itself, half of those by killing skep-cell. */
static void cycle_end(struct cell_once *c, unsigned serial, const struct cgroup_mounts *mounts)
{
    struct errmsg msg = {""};
    bool ready = cell_once_wait_ready(c, DEADLINE_MS);
    cell_once_must(ready, "a cell is not ready");
    if (serial % 6 == 0) {
        cell_once_kill(c);
    } else if (serial % 6 == 3) {
        (void)kill(c->process.pid, SIGKILL);
    }
    cell_once_must(cell_once_wait(c, DEADLINE_MS), "a cell does not end");
    if (serial % 6 == 3 && c->spec.cgroup[0] != '\0') { /* The agent's sweep. */
        double until = cell_once_now_ms() + SETTLE_MS;
        while (!status_is_ok(cgroup_remove(mounts, c->spec.cgroup, &msg)) &&
               cell_once_now_ms() < until) {
        }
    }
    cell_once_close(c);
}

static void cycles_run(unsigned count, unsigned together, bool with_group)
{
    struct cgroup_mounts mounts = {0};
    struct errmsg msg = {""};
    (void)!status_is_ok(cgroup_mounts_find(&mounts, &msg));
    double begin = cell_once_now_ms();
    for (unsigned done = 0; done < count; done += together) {
        unsigned now = count - done < together ? count - done : together;
        for (unsigned i = 0; i < now; i++) {
            cell_begin(&cells[i], (done + i) % 3 == 0, with_group, done + i);
        }
        for (unsigned i = 0; i < now; i++) {
            cycle_end(&cells[i], done + i, &mounts);
        }
    }
    double took = cell_once_now_ms() - begin;
    if (with_group) {
        (void)!status_is_ok(cgroup_remove(&mounts, group, &msg));
    }
    printf("cycles %u cells\ncycles_rate %.1f cells/s\n", count, count / took * 1e3);
}

static unsigned number(const char *text, unsigned max)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || value > max) {
        (void)fprintf(stderr, "cell_soak: %s: a number of at most %u\n", text, max);
        exit(2);
    }
    return (unsigned)value;
}

int main(int argc, char **argv)
{
    unsigned at_once = AT_ONCE_DEFAULT;
    unsigned cycles = CYCLES_DEFAULT;
    unsigned together = TOGETHER_DEFAULT;
    bool with_group = true;
    for (int letter = 0; (letter = getopt(argc, argv, "n:c:j:q")) != -1;) {
        switch (letter) {
        case 'n':
            at_once = number(optarg, AT_ONCE_MAX);
            break;
        case 'c':
            cycles = number(optarg, 10000000);
            break;
        case 'j':
            together = number(optarg, TOGETHER_MAX);
            break;
        case 'q':
            with_group = false;
            break;
        default:
            (void)fprintf(stderr, "usage: cell_soak [-n CELLS] [-c CYCLES] [-j AT_A_TIME] [-q]\n");
            return 2;
        }
    }
    (void)snprintf(group, sizeof group, "skep-soak-%d", (int)getpid());
    cell_once_own_mounts();
    struct counts before = count_all();
    counts_print("before", &before);
    all_at_once(at_once, with_group);
    cycles_run(cycles, together > 0 ? together : 1, with_group);
    struct counts after = count_all();
    double until = cell_once_now_ms() + SETTLE_MS;
    while (!is_clean(&before, &after) && cell_once_now_ms() < until) {
        after = count_all(); /* The kernel takes namespaces down in its own time. */
    }
    counts_print("after", &after);
    bool clean = is_clean(&before, &after);
    printf("left_behind %d bool\n", clean ? 0 : 1);
    return clean ? 0 : 1;
}

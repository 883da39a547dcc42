/* Random system calls in cells, one cell after the other, until the time is up; then skep-cell has
 * ended as it should each time, nothing of the cells is left, and a new cell works.
 *
 *     syscall_fuzz [-s SECONDS] [-S SEED] [-c SKEP-CELL]
 *
 * Prints its seed first; the same seed makes the same calls, though not in the same order between
 * workers. Exit code: 0 well, 1 something broke. */
#include "tests/lib/cell_once.h"

#include "agent/cell/cgroup.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { SECONDS_DEFAULT = 30, CELL_SECONDS = 10, GRACE_MS = 120000, MIB = 1 << 20 };

static unsigned failures;

static void check(bool good, const char *what)
{
    if (!good) {
        failures++;
        (void)fprintf(stderr, "syscall_fuzz: %s\n", what);
    }
}

/* The group's folders are gone in every hierarchy. */
static bool group_is_gone(const char *group)
{
    struct cgroup_mounts mounts;
    struct errmsg msg = {""};
    if (!status_is_ok(cgroup_mounts_find(&mounts, &msg))) {
        return true; /* There never was one. */
    }
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        char path[CGROUP_MOUNT_BYTES_MAX + 128];
        (void)snprintf(path, sizeof path, "%s/%s", mounts.of[i].path, group);
        if (mounts.of[i].path[0] != '\0' && access(path, F_OK) == 0) {
            return false;
        }
    }
    return true;
}

/* The guest's last line, which is none of the noise that its workers made. */
static void print_count(const struct cell_once *c)
{
    struct buffer text = {0};
    cell_once_read_log(c, &text);
    const char *line = text.size > 0 ? memmem(text.data, text.size, "\nfuzzed ", 8) : NULL;
    for (; line != NULL && line + 1 < (char *)text.data + text.size && line[1] != '\n'; line++) {
        (void)putchar(line[1]);
    }
    (void)putchar('\n');
    buffer_close(&text);
}

/* One cell; what the guest said last is printed. */
static void fuzz_once(const char *program, uint64_t seed, unsigned seconds, unsigned serial)
{
    static struct cell_once c;
    char group[64];
    char seed_text[32];
    char seconds_text[16];
    (void)snprintf(group, sizeof group, "skep-fuzz-%d", (int)getpid());
    (void)snprintf(seed_text, sizeof seed_text, "%" PRIu64, seed);
    (void)snprintf(seconds_text, sizeof seconds_text, "%u", seconds);
    char *args[] = {(char *)(uintptr_t) "/fuzz", seed_text, seconds_text};
    cell_once_open(&c, group, serial);
    cell_once_mount(&c, FUZZ_GUEST, "/fuzz");
    c.spec.args = args;
    c.spec.args_count = 3;
    c.spec.memory_bytes = 256 * MIB;
    c.spec.cpu_millis = 2000;
    c.spec.log_bytes = 64 << 10;
    cell_once_prepare(&c);
    cell_once_start(&c, program);
    bool ended = cell_once_wait(&c, (int)seconds * 1000 + GRACE_MS);
    check(ended, "the cell did not end");
    check(!ended || c.exit_code == 0, "skep-cell did not end with 0");
    check(!ended || c.ended, "there is no report of the end");
    if (c.ended) {
        print_count(&c);
        (void)printf("seed %" PRIu64 ": %s %d %s\n", seed,
                     cell_end_name((enum cell_end)c.end_event.end), c.end_event.detail,
                     c.end_event.message);
        /* Workers may use up the cell's memory together: then the limit worked. */
        check((c.end_event.end == CELL_END_EXIT && c.end_event.detail == 0) ||
                  c.end_event.end == CELL_END_OOM,
              "process 1 did not end as it should");
    }
    cell_once_close(&c);
    check(group_is_gone(group), "the control group stays");
}

/* After all of it a cell works as before. */
static void sound_once(const char *program)
{
    static struct cell_once c;
    char *args[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
                    (char *)(uintptr_t) "echo well > /tmp/x && cat /tmp/x"};
    cell_once_open(&c, NULL, 0);
    c.spec.args = args;
    c.spec.args_count = 3;
    cell_once_prepare(&c);
    cell_once_start(&c, program);
    check(cell_once_wait(&c, GRACE_MS) && c.ended && c.end_event.end == CELL_END_EXIT &&
              c.end_event.detail == 0,
          "a cell does not work afterwards");
    cell_once_close(&c);
}

int main(int argc, char **argv)
{
    const char *program = CELL_PROGRAM;
    unsigned long seconds = SECONDS_DEFAULT;
    uint64_t seed = 0;
    (void)!getrandom(&seed, sizeof seed, 0);
    seed %= 1000000000;
    for (int letter = 0; (letter = getopt(argc, argv, "s:S:c:")) != -1;) {
        if (letter == 's') {
            seconds = strtoul(optarg, NULL, 10);
        } else if (letter == 'S') {
            seed = strtoull(optarg, NULL, 10);
        } else if (letter == 'c') {
            program = optarg;
        } else {
            (void)fprintf(stderr, "usage: syscall_fuzz [-s SECONDS] [-S SEED] [-c SKEP-CELL]\n");
            return 2;
        }
    }
    (void)printf("syscall_fuzz: seed %" PRIu64 ", %lu s\n", seed, seconds);
    (void)fflush(stdout);
    cell_once_own_mounts();
    size_t mounts = cell_once_count_mounts();
    double until = cell_once_now_ms() + (double)seconds * 1e3;
    for (unsigned serial = 0; serial == 0 || cell_once_now_ms() < until; serial++) {
        unsigned part = seconds < CELL_SECONDS ? (unsigned)seconds : CELL_SECONDS;
        fuzz_once(program, seed + (uint64_t)serial * 1000003, part, serial);
        (void)fflush(stdout);
    }
    sound_once(program);
    check(cell_once_count_mounts() == mounts, "a mount stays, or one is gone");
    (void)printf("syscall_fuzz: %s\n", failures == 0 ? "all well" : "something broke");
    return failures == 0 ? 0 : 1;
}

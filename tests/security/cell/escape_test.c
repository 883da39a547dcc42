/* A cell that tries to get out: every attempt of the table (attempts_*.c) is made inside a cell,
 * where it must be refused, and outside, where it must be seen to succeed unless its row says why
 * it cannot. And how the walls look from outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/component/cell/harness.h"
#include "tests/security/cell/bait.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ATTEMPTS_MIN = 120, SHOWN_MIN = 120, LINE_BYTES = 512, OUTPUT_BYTES = 256 << 10 };

struct world {
    struct bait_world bait;
    struct cell_mount mounts[2];
    char list[OUTPUT_BYTES];    /* NAME|REFERENCE|KIND|WHY, a line each */
    char outside[OUTPUT_BYTES]; /* what the attempts said there */
    char inside[OUTPUT_BYTES];
};

/* Runs the guest as a plain child process and takes what it says. */
static void guest_run(char *const env[], const char *verb, char *out, size_t size)
{
    int ends[2];
    pid_t pid = -1;
    char *const args[] = {(char *)(uintptr_t)ESCAPE_GUEST, (char *)(uintptr_t)verb, NULL};
    posix_spawn_file_actions_t actions;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    assert_int_equal(posix_spawn(&pid, ESCAPE_GUEST, &actions, NULL, args, env), 0);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    size_t used = 0;
    for (ssize_t n = 1; n > 0 && used + 1 < size; used += (size_t)(n > 0 ? n : 0)) {
        n = read(ends[0], out + used, size - 1 - used);
    }
    out[used] = '\0';
    (void)close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int world_setup(void **state)
{
    if (geteuid() != 0) {
        *state = NULL;
        return 0;
    }
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    bait_open(&w->bait, ESCAPE_GUEST);
    guest_run(w->bait.outside, "list", w->list, sizeof w->list);
    *state = w;
    return 0;
}

static int world_teardown(void **state)
{
    struct world *w = *state;
    if (w != NULL) {
        bait_close(&w->bait);
        free(w);
    }
    return 0;
}

/* A cell of the guest with the hostile code folder, and the bait's names in its environment. */
static void cell_prepare(struct world *w, struct harness *h, const char *verb, const char *name)
{
    harness_open(h, verb, name);
    w->mounts[0] = h->mount;
    (void)snprintf(w->mounts[0].source, sizeof w->mounts[0].source, "%s", ESCAPE_GUEST);
    (void)snprintf(w->mounts[1].source, sizeof w->mounts[1].source, "%s", w->bait.app);
    (void)snprintf(w->mounts[1].target, sizeof w->mounts[1].target, "/app");
    h->spec.mounts = w->mounts;
    h->spec.mounts_count = 2;
    h->spec.env = w->bait.inside;
    h->spec.env_count = BAIT_ENV_COUNT;
    h->spec.pids_max = 64;
    h->spec.memory_bytes = 128 << 20;
    h->deadline_ms = 200000;
}

/* What the line of NAME says; empty when there is none. */
static void verdict(const char *output, const char *name, char *out, size_t size)
{
    char head[LINE_BYTES];
    out[0] = '\0';
    int length = snprintf(head, sizeof head, "%s: ", name);
    for (const char *at = output; at != NULL && *at != '\0'; at = strchr(at, '\n')) {
        at += *at == '\n' ? 1 : 0;
        if (strncmp(at, head, (size_t)length) == 0) {
            const char *text = at + length;
            (void)snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
            return;
        }
    }
}

struct row {
    char name[LINE_BYTES];
    char kind[16];
};

/* The row that the cursor is at; moves it; false at the end of the list. */
static bool next_row(const char **at, struct row *row)
{
    if (sscanf(*at, "%500[^|]|%*[^|]|%15[^|]|", row->name, row->kind) != 2) {
        return false;
    }
    const char *end = strchr(*at, '\n');
    *at = end != NULL ? end + 1 : *at + strlen(*at);
    return true;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static void no_attempt_gets_out(void **state)
{
    HARNESS_NEEDS_ROOT();
    struct world *w = *state;
    struct harness h;
    cell_prepare(w, &h, "inside", NULL);
    harness_run(&h);
    (void)snprintf(w->inside, sizeof w->inside, "%s",
                   h.log.data != NULL ? (const char *)h.log.data : "");
    if (h.end_event.end != CELL_END_EXIT || h.end_event.detail != 0 ||
        !harness_log_has(&h, "all tried\n")) {
        fail_msg("%s\nthe cell ended: %s", w->inside, h.end_event.message);
    }
    size_t tried = 0;
    size_t bad = 0;
    struct row row;
    for (const char *at = w->list; next_row(&at, &row);) {
        char said[LINE_BYTES];
        verdict(w->inside, row.name, said, sizeof said);
        tried += strcmp(row.kind, "solo") != 0 ? 1 : 0;
        if (strcmp(row.kind, "solo") != 0 && !starts(said, "refused")) {
            bad++;
            (void)fprintf(stderr, "inside: %s: %s\n", row.name, said);
        }
    }
    bait_check(&w->bait);
    harness_close(&h);
    assert_int_equal(bad, 0);
    assert_true(tried >= ATTEMPTS_MIN);
}

/* Each has a cell of its own, which may well end by it. */
static void no_bomb_gets_out(void **state)
{
    HARNESS_NEEDS_ROOT();
    struct world *w = *state;
    struct row row;
    size_t tried = 0;
    for (const char *at = w->list; next_row(&at, &row);) {
        if (strcmp(row.kind, "solo") == 0) {
            struct harness h;
            cell_prepare(w, &h, "solo", row.name);
            harness_run(&h);
            if (harness_log_has(&h, "got out") || harness_log_has(&h, "stalled") ||
                h.end_event.end == CELL_END_SETUP) {
                fail_msg("%s: %s", row.name, h.log.data != NULL ? (char *)h.log.data : "");
            }
            harness_close(&h);
            tried++;
        }
    }
    bait_check(&w->bait);
    assert_true(tried > 0);
}

/* After the attempts inside: what cannot be shown outside is told, and must be few. */
static void each_attempt_succeeds_outside_or_says_why_not(void **state)
{
    HARNESS_NEEDS_ROOT();
    struct world *w = *state;
    guest_run(w->bait.outside, "outside", w->outside, sizeof w->outside);
    size_t used = strlen(w->outside);
    guest_run(w->bait.outside, "solo_outside", w->outside + used, sizeof w->outside - used);
    size_t shown = 0;
    size_t hidden = 0;
    size_t bad = 0;
    struct row row;
    for (const char *at = w->list; next_row(&at, &row);) {
        char inside[LINE_BYTES];
        char outside[LINE_BYTES];
        verdict(w->inside, row.name, inside, sizeof inside);
        verdict(w->outside, row.name, outside, sizeof outside);
        bool same = strcmp(row.kind, "same") == 0 && starts(outside, "refused") &&
                    strcmp(inside, outside) == 0;
        if (strcmp(outside, "got out") == 0 || strcmp(outside, "stalled") == 0 || same) {
            shown++;
        } else if (starts(outside, "not shown")) {
            hidden++;
            (void)fprintf(stderr, "%s: %s\n", row.name, outside);
        } else {
            bad++;
            (void)fprintf(stderr, "outside: %s: %s (inside: %s)\n", row.name, outside, inside);
        }
    }
    (void)fprintf(stderr, "%zu attempts shown outside, %zu not\n", shown, hidden);
    bait_check(&w->bait);
    assert_int_equal(bad, 0);
    assert_true(shown >= SHOWN_MIN);
}

/* Mount points below the code folder, whose names the function's author chose: links there lead
 * nowhere outside the cell. */
static void mount_points_in_the_code_stay_in_the_cell(void **state)
{
    HARNESS_NEEDS_ROOT();
    struct world *w = *state;
    static const char *const targets[] = {"/app/folder/app", "/app/out", "/app/up", "/app/proc",
                                          "/app/../../../../tmp/x"};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        struct harness h;
        struct cell_mount mounts[3];
        struct stat before;
        struct stat after;
        cell_prepare(w, &h, "list", NULL);
        memcpy(mounts, w->mounts, sizeof w->mounts);
        (void)snprintf(mounts[2].source, sizeof mounts[2].source, "%s", w->bait.app);
        (void)snprintf(mounts[2].target, sizeof mounts[2].target, "%s", targets[i]);
        h.spec.mounts = mounts;
        h.spec.mounts_count = 3;
        assert_int_equal(stat(w->bait.folder, &before), 0);
        harness_run(&h);
        /* Refused or mounted inside: either will do, as long as nothing changed here. */
        assert_int_equal(stat(w->bait.folder, &after), 0);
        assert_int_equal(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
        assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
        bait_check(&w->bait);
        harness_close(&h);
    }
}

static void killing_a_supervisor_ends_its_cell_and_no_other(void **state)
{
    (void)state;
    struct harness one;
    struct harness two;
    harness_open(&one, "echo", NULL);
    one.spec.stop_ms = 50;
    harness_start(&one);
    harness_wait_started(&one);
    harness_open(&two, "echo", NULL);
    two.spec.stop_ms = 50;
    if (two.spec.cgroup[0] != '\0') { /* Not below the group that stays. */
        (void)snprintf(two.cgroup_parent, sizeof two.cgroup_parent, "%s-two", one.cgroup_parent);
        (void)snprintf(two.spec.cgroup, sizeof two.spec.cgroup, "%s/0", two.cgroup_parent);
    }
    harness_start(&two);
    harness_wait_started(&two);
    char packet = 'x';
    (void)kill(one.process.pid, SIGKILL);
    harness_wait_ended(&one);
    assert_int_equal(send(two.channel_fd, &packet, 1, MSG_NOSIGNAL), 1);
    assert_int_equal(recv(two.channel_fd, &packet, 1, 0), 1);
    harness_close(&two);
    /* What a killed supervisor leaves is the agent's to sweep. */
    struct errmsg msg = {""};
    if (one.spec.cgroup[0] != '\0') {
        assert_true(status_is_ok(cgroup_remove(&one.mounts, one.spec.cgroup, &msg)));
        assert_true(status_is_ok(cgroup_remove(&one.mounts, one.cgroup_parent, &msg)));
    }
    harness_close(&one);
}

/* One line of /proc/PID/status, without its name. */
static void status_line(uint32_t pid, const char *name, char *out, size_t out_size)
{
    char path[64];
    char line[256];
    (void)snprintf(path, sizeof path, "/proc/%u/status", pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    out[0] = '\0';
    while (fgets(line, sizeof line, f) != NULL) {
        size_t size = strlen(name);
        if (strncmp(line, name, size) == 0 && line[size] == ':') {
            line[strcspn(line, "\n")] = '\0';
            (void)snprintf(out, out_size, "%s", line + size + 1 + strspn(line + size + 1, " \t"));
        }
    }
    (void)fclose(f);
}

static void assert_status(uint32_t pid, const char *name, const char *want)
{
    char have[256];
    status_line(pid, name, have, sizeof have);
    if (strcmp(have, want) != 0) {
        fail_msg("%s is \"%s\", not \"%s\"", name, have, want);
    }
}

static void process_1_has_no_privilege_left(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    harness_open(&h, "echo", NULL);
    h.spec.stop_ms = 50;
    harness_start(&h);
    harness_wait_started(&h);
    uint32_t pid = h.start_event.pid;
    static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        assert_status(pid, sets[i], "0000000000000000");
    }
    assert_status(pid, "NoNewPrivs", "1");
    assert_status(pid, "Seccomp", "2");
    assert_status(pid, "Uid", "65534\t65534\t65534\t65534");
    assert_status(pid, "Gid", "65534\t65534\t65534\t65534");
    assert_status(pid, "Groups", "");
    harness_close(&h);
}

/* STARTED is sent from the loop, which begins after the drop. */
static void skep_cell_itself_drops_its_privileges(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    harness_open(&h, "echo", NULL);
    h.spec.stop_ms = 50;
    harness_start(&h);
    harness_wait_started(&h);
    uint32_t pid = (uint32_t)h.process.pid;
    assert_status(pid, "CapEff", "0000000000000000");
    assert_status(pid, "CapBnd", "0000000000000000");
    assert_status(pid, "NoNewPrivs", "1");
    harness_close(&h);
}

static void every_namespace_is_the_cells_own(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "echo", NULL);
    h.spec.stop_ms = 50;
    harness_start(&h);
    harness_wait_started(&h);
    static const char *const names[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[64];
        struct stat outside;
        struct stat inside;
        (void)snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        assert_int_equal(stat(path, &outside), 0);
        (void)snprintf(path, sizeof path, "/proc/%u/ns/%s", h.start_event.pid, names[i]);
        assert_int_equal(stat(path, &inside), 0);
        if (outside.st_ino == inside.st_ino) {
            fail_msg("the %s namespace is shared", names[i]);
        }
    }
    harness_close(&h);
}

/* The folder of the instance holds the log and the specification with its secrets: not for the
 * cell. */
static void the_instance_folder_is_not_in_the_cell(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "echo", NULL);
    h.spec.stop_ms = 50;
    harness_start(&h);
    harness_wait_started(&h);
    char path[HARNESS_PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "/proc/%u/root%s", h.start_event.pid, h.folder);
    assert_int_not_equal(access(path, F_OK), 0);
    harness_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_attempt_gets_out),
        cmocka_unit_test(no_bomb_gets_out),
        cmocka_unit_test(each_attempt_succeeds_outside_or_says_why_not),
        cmocka_unit_test(mount_points_in_the_code_stay_in_the_cell),
        cmocka_unit_test(killing_a_supervisor_ends_its_cell_and_no_other),
        cmocka_unit_test(process_1_has_no_privilege_left),
        cmocka_unit_test(skep_cell_itself_drops_its_privileges),
        cmocka_unit_test(every_namespace_is_the_cells_own),
        cmocka_unit_test(the_instance_folder_is_not_in_the_cell),
    };
    return cmocka_run_group_tests(tests, world_setup, world_teardown);
}

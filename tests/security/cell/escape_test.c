/* A cell that tries to get out. The attempts are in tests/component/cell/guest_try.c; here is what
 * must come of them, and how the walls look from outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/component/cell/harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ATTEMPTS = 98 };

static size_t lines_with(const struct harness *h, const char *text)
{
    size_t count = 0;
    const char *at = (const char *)h->log.data;
    while ((at = strstr(at, text)) != NULL) {
        count++;
        at += strlen(text);
    }
    return count;
}

/* The host offers what the guest reaches for: an abstract socket by the name it tries. */
static int listen_abstract(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, "\0skep-cell-test", 15);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    /* EADDRINUSE: another run of this test listens, which serves as well. */
    (void)bind(fd, (struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 15));
    (void)listen(fd, 1);
    return fd;
}

static void no_attempt_gets_out(void **state)
{
    (void)state;
    struct harness h;
    int fd = listen_abstract();
    harness_open(&h, "try", NULL);
    harness_run(&h);
    (void)close(fd);
    if (h.end_event.end != CELL_END_EXIT || h.end_event.detail != 0) {
        (void)fprintf(stderr, "%s\n", h.log.data != NULL ? (char *)h.log.data : "");
        fail_msg("%s", h.end_event.message);
    }
    assert_int_equal(lines_with(&h, ": got out"), 0);
    assert_int_equal(lines_with(&h, ": refused"), ATTEMPTS);
    assert_true(harness_log_has(&h, "tried everything, 0 got out\n"));
    harness_close(&h);
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
        cmocka_unit_test(process_1_has_no_privilege_left),
        cmocka_unit_test(skep_cell_itself_drops_its_privileges),
        cmocka_unit_test(every_namespace_is_the_cells_own),
        cmocka_unit_test(the_instance_folder_is_not_in_the_cell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The second wall: Landlock, control groups, users of cells, and what happens to a cell when a wall
 * is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/landlock.h"
#include "agent/cell/walls_probe.h"
#include "tests/component/cell/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Does it have Landlock of that version? Where it has not, the tests of it say so and end. */
#define NEEDS_LANDLOCK(version)                                                                    \
    do {                                                                                           \
        if (landlock_abi() < (version)) {                                                          \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static void proc_is_not_written_though_the_mount_allows(void **state)
{
    (void)state;
    NEEDS_LANDLOCK(2);
    struct harness h;
    harness_open(&h, "write_proc", NULL);
    harness_run(&h);
    assert_true(harness_log_has(&h, "comm: Permission denied\n"));
    assert_true(harness_log_has(&h, "tmp: written\n"));
    assert_true(harness_log_has(&h, "rename: done\n"));
    assert_true(harness_log_has(&h, "null: written\n"));
    harness_close(&h);
}

/* What it keeps from a path the sentry keeps too; what it is for is shown below, by itself. */
static void a_cell_runs_without_landlock_where_it_is_not_needed(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "write_proc", NULL);
    h.spec.walls_not_needed = WALL_BIT(LANDLOCK);
    harness_run(&h);
    assert_true(harness_log_has(&h, "comm: Permission denied\n"));
    assert_true(harness_log_has(&h, "tmp: written\n"));
    harness_close(&h);
}

static void proc_has_processes_only_and_sys_is_not_there(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, "list_proc", NULL);
    harness_run(&h);
    assert_string_equal((char *)h.log.data,
                        "proc self\nproc thread-self\nsys: No such file or directory\n");
    harness_close(&h);
}

/* ---- Landlock alone: what it refuses to root, whom no mount and no mode stops ---- */

static char inside[64];  /* a folder in /tmp */
static char outside[64]; /* one that the rules do not name */

static int refused(int error)
{
    return error == EACCES ? 0 : 1;
}

static int write_outside(void)
{
    char path[sizeof outside + 2];
    (void)snprintf(path, sizeof path, "%s/f", outside);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return refused(fd < 0 ? errno : 0);
}

static int mkdir_outside(void)
{
    char path[sizeof outside + 2];
    (void)snprintf(path, sizeof path, "%s/d", outside);
    return refused(mkdir(path, 0700) != 0 ? errno : 0);
}

static int read_outside(void)
{
    int fd = open(outside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? 0 : 1;
}

static int write_inside(void)
{
    char path[sizeof inside + 2];
    (void)snprintf(path, sizeof path, "%s/f", inside);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return fd >= 0 && unlink(path) == 0 ? 0 : 1;
}

static int device_inside(void)
{
    char path[sizeof inside + 2];
    (void)snprintf(path, sizeof path, "%s/n", inside);
    int error = mknod(path, S_IFCHR | 0600, 0x0103) != 0 ? errno : 0;
    return error == EACCES || error == EPERM ? 0 : 1;
}

static int execute_inside(void)
{
    char path[sizeof inside + 2];
    (void)snprintf(path, sizeof path, "%s/x", inside);
    char *args[] = {path, NULL};
    (void)execv(path, args);
    return refused(errno);
}

static int execute_outside(void)
{
    char name[] = "true";
    char *args[] = {name, NULL};
    (void)execv("/bin/true", args);
    return 1;
}

static int write_proc(void)
{
    int fd = open("/proc/self/comm", O_WRONLY | O_CLOEXEC);
    return refused(fd < 0 ? errno : 0);
}

static int write_null(void)
{
    int fd = open("/dev/null", O_WRONLY | O_TRUNC | O_CLOEXEC);
    return fd >= 0 ? 0 : 1;
}

static int signal_outside(void)
{
    return kill(getppid(), 0) != 0 && errno == EPERM ? 0 : 1;
}

/* What fn answers in a process under the guest's rules. */
static int under_landlock(int (*fn)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        bool bound = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && landlock_guest() == 0;
        _exit(bound ? fn() : 99);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int folders_make(void **state)
{
    (void)state;
    char copy[256];
    (void)snprintf(inside, sizeof inside, "/tmp/skep-landlock-XXXXXX");
    (void)snprintf(outside, sizeof outside, "/var/tmp/skep-landlock-XXXXXX");
    if (mkdtemp(inside) == NULL || mkdtemp(outside) == NULL) {
        return -1;
    }
    (void)snprintf(copy, sizeof copy, "cp /bin/true %s/x", inside);
    return system(copy); // NOLINT(cert-env33-c): a test's own folder
}

static int folders_remove(void **state)
{
    (void)state;
    char path[sizeof inside + 2];
    (void)snprintf(path, sizeof path, "%s/x", inside);
    return unlink(path) == 0 && rmdir(inside) == 0 && rmdir(outside) == 0 ? 0 : -1;
}

static void nothing_is_written_outside_of_tmp(void **state)
{
    (void)state;
    NEEDS_LANDLOCK(1);
    assert_int_equal(under_landlock(write_outside), 0);
    assert_int_equal(under_landlock(mkdir_outside), 0);
    assert_int_equal(under_landlock(read_outside), 0);
    assert_int_equal(under_landlock(write_proc), 0);
    assert_int_equal(under_landlock(write_null), 0);
}

static void tmp_takes_files_but_no_devices_and_no_programs(void **state)
{
    (void)state;
    NEEDS_LANDLOCK(1);
    assert_int_equal(under_landlock(write_inside), 0);
    assert_int_equal(under_landlock(device_inside), 0);
    assert_int_equal(under_landlock(execute_inside), 0);
    assert_int_equal(under_landlock(execute_outside), 0);
}

static void signals_end_at_the_rules(void **state)
{
    (void)state;
    NEEDS_LANDLOCK(6);
    assert_int_equal(under_landlock(signal_outside), 0);
}

/* ---- Control groups ---- */

static void group_text(const struct harness *h, enum cgroup_controller c, const char *v1,
                       const char *v2, char *out, size_t size)
{
    char path[CGROUP_MOUNT_BYTES_MAX + 512];
    const struct cgroup_mount *m = &h->mounts.of[c];
    (void)snprintf(path, sizeof path, "%s/%s/%s", m->path, h->spec.cgroup, m->v2 ? v2 : v1);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_non_null(fgets(out, (int)size, f));
    (void)fclose(f);
}

static void stop(struct harness *h)
{
    struct errmsg msg = {""};
    assert_true(status_is_ok(cell_client_send(&h->client, CELL_KILL, &msg)));
    harness_wait_ended(h);
    harness_close(h);
}

static void a_cell_is_weighed_by_its_processors(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    char text[128];
    harness_open(&h, "stubborn", NULL);
    h.spec.cpu_millis = 250;
    harness_start(&h);
    harness_wait_started(&h);
    group_text(&h, CGROUP_CPU, "cpu.shares", "cpu.weight", text, sizeof text);
    assert_string_equal(text, h.mounts.of[CGROUP_CPU].v2 ? "25\n" : "256\n");
    group_text(&h, CGROUP_CPU, "cpu.cfs_quota_us", "cpu.max", text, sizeof text);
    assert_string_equal(text, h.mounts.of[CGROUP_CPU].v2 ? "25000 100000\n" : "25000\n");
    stop(&h);
}

static void swap_is_counted_with_memory(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    char text[128];
    harness_open(&h, "stubborn", NULL);
    harness_start(&h);
    harness_wait_started(&h);
    group_text(&h, CGROUP_MEMORY, "memory.memsw.limit_in_bytes", "memory.swap.max", text,
               sizeof text);
    assert_string_equal(text, h.mounts.of[CGROUP_MEMORY].v2 ? "0\n" : "67108864\n");
    stop(&h);
}

static void a_limit_of_disks_is_set(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct walls_question q = {
        .walls = WALL_BIT(CGROUP_IO), .cgroup = "skep-test-io", .io_bps = 1 << 20};
    static struct walls_found found;
    walls_probe(&q, &found);
    if (found.missing != 0) {
        skip(); /* No disk here, or no controller. */
    }
    struct harness h;
    char text[128];
    harness_open(&h, "stubborn", NULL);
    h.spec.io_bps = 1 << 20;
    harness_start(&h);
    harness_wait_started(&h);
    group_text(&h, CGROUP_IO, "blkio.throttle.read_bps_device", "io.max", text, sizeof text);
    assert_non_null(strstr(text, "1048576"));
    stop(&h);
}

static void a_group_is_made_without_what_is_not_needed(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    char path[CGROUP_MOUNT_BYTES_MAX + 512];
    harness_open(&h, "stubborn", NULL);
    if (h.mounts.of[CGROUP_MEMORY].v2) {
        skip(); /* All controllers share the group. */
    }
    h.spec.walls_not_needed = WALL_BIT(CGROUP_CPU) | WALL_BIT(CGROUP_IO);
    harness_start(&h);
    harness_wait_started(&h);
    (void)snprintf(path, sizeof path, "%s/%s", h.mounts.of[CGROUP_CPU].path, h.spec.cgroup);
    assert_int_not_equal(access(path, F_OK), 0);
    (void)snprintf(path, sizeof path, "%s/%s", h.mounts.of[CGROUP_MEMORY].path, h.spec.cgroup);
    assert_int_equal(access(path, F_OK), 0);
    stop(&h);
}

/* ---- Users ---- */

static void a_cell_runs_as_the_user_it_was_given(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct harness h;
    struct stat st;
    char path[64];
    harness_open(&h, "stubborn", NULL);
    h.spec.uid = 2000000042;
    harness_start(&h);
    harness_wait_started(&h);
    harness_wait_log(&h, "deaf");
    (void)snprintf(path, sizeof path, "/proc/%u/task", h.start_event.pid);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, 2000000042);
    assert_int_equal(st.st_gid, 2000000042);
    stop(&h);
}

/* ---- Probes ---- */

static void probes_leave_nothing(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    struct walls_question q = {
        .walls = (UINT32_C(1) << WALLS_COUNT_) - 1, .cgroup = "skep-test-probe", .uid = 2000000000};
    static struct walls_found found;
    struct cgroup_mounts mounts;
    struct errmsg msg = {""};
    walls_probe(&q, &found);
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        assert_int_equal((found.missing >> i) & 1, found.why[i][0] != '\0');
    }
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_true(status_is_ok(cgroup_mounts_find(&mounts, &msg)));
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        char path[CGROUP_MOUNT_BYTES_MAX + 64];
        (void)snprintf(path, sizeof path, "%s/skep-test-probe", mounts.of[i].path);
        assert_true(mounts.of[i].path[0] == '\0' || access(path, F_OK) != 0);
    }
}

int main(void)
{
#define RULES(test) cmocka_unit_test_setup_teardown(test, folders_make, folders_remove)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proc_is_not_written_though_the_mount_allows),
        cmocka_unit_test(a_cell_runs_without_landlock_where_it_is_not_needed),
        cmocka_unit_test(proc_has_processes_only_and_sys_is_not_there),
        RULES(nothing_is_written_outside_of_tmp),
        RULES(tmp_takes_files_but_no_devices_and_no_programs),
        RULES(signals_end_at_the_rules),
        cmocka_unit_test(a_cell_is_weighed_by_its_processors),
        cmocka_unit_test(swap_is_counted_with_memory),
        cmocka_unit_test(a_limit_of_disks_is_set),
        cmocka_unit_test(a_group_is_made_without_what_is_not_needed),
        cmocka_unit_test(a_cell_runs_as_the_user_it_was_given),
        cmocka_unit_test(probes_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

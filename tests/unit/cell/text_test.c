/* The small texts of the kernel and of cell.pid: mount tables, flat keyed files, stat lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/cell_client.h"
#include "agent/cell/cell_usage.h"
#include "agent/cell/cgroup.h"
#include "common/process_stat.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char v1_text[] =
    "26 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "30 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "34 30 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "38 30 0:35 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
    "39 30 0:36 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n";

static void v1_mounts_are_found(void **state)
{
    (void)state;
    struct cgroup_mounts m;
    cgroup_mounts_parse(v1_text, &m);
    assert_string_equal(m.of[CGROUP_MEMORY].path, "/sys/fs/cgroup/memory");
    assert_string_equal(m.of[CGROUP_CPU].path, "/sys/fs/cgroup/cpu,cpuacct");
    assert_string_equal(m.of[CGROUP_CPUACCT].path, "/sys/fs/cgroup/cpu,cpuacct");
    assert_string_equal(m.of[CGROUP_PIDS].path, "/sys/fs/cgroup/pids");
    assert_string_equal(m.v2, "");
    assert_false(m.of[CGROUP_MEMORY].v2);
}

static void v2_has_what_its_root_names(void **state)
{
    (void)state;
    struct cgroup_mounts m;
    cgroup_mounts_parse("31 22 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", &m);
    assert_string_equal(m.v2, "/sys/fs/cgroup");
    assert_string_equal(m.of[CGROUP_MEMORY].path, "");
    cgroup_mounts_add_v2(&m, "cpuset cpu io memory pids\n");
    assert_string_equal(m.of[CGROUP_MEMORY].path, "/sys/fs/cgroup");
    assert_true(m.of[CGROUP_MEMORY].v2);
    assert_true(m.of[CGROUP_CPU].v2);
    assert_true(m.of[CGROUP_PIDS].v2);
    assert_string_equal(m.of[CGROUP_CPUACCT].path, "");
}

static void in_a_hybrid_v1_comes_first(void **state)
{
    (void)state;
    char text[2048];
    struct cgroup_mounts m;
    (void)snprintf(text, sizeof text, "%s40 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 x rw\n",
                   v1_text);
    cgroup_mounts_parse(text, &m);
    cgroup_mounts_add_v2(&m, "memory hugetlb\n");
    assert_string_equal(m.of[CGROUP_MEMORY].path, "/sys/fs/cgroup/memory");
    assert_false(m.of[CGROUP_MEMORY].v2);
    assert_string_equal(m.v2, "/sys/fs/cgroup/unified");
}

static void escaped_mount_points_are_read(void **state)
{
    (void)state;
    struct cgroup_mounts m;
    cgroup_mounts_parse("1 2 0:1 / /a\\040b\\134c rw - cgroup cgroup rw,pids\n", &m);
    assert_string_equal(m.of[CGROUP_PIDS].path, "/a b\\c");
}

static void odd_mount_lines_are_skipped(void **state)
{
    (void)state;
    struct cgroup_mounts m;
    cgroup_mounts_parse("\n - \nx - cgroup\n1 2 - cgroup cgroup rw,memory\n"
                        "1 2 0:1 / /m rw - cgroup cgroup rw,memory2,xpids\nno newline",
                        &m);
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        assert_string_equal(m.of[i].path, "");
    }
}

static void keyed_values_are_found_by_whole_key(void **state)
{
    (void)state;
    uint64_t value = 7;
    const char *text = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 18446744073709551615\nbad x\n";
    assert_true(cell_usage_find(text, "max", &value));
    assert_int_equal(value, 12);
    assert_true(cell_usage_find(text, "oom_kill", &value));
    assert_true(value == UINT64_MAX);
    assert_false(cell_usage_find(text, "oo", &value));
    assert_false(cell_usage_find(text, "bad", &value));
    assert_false(cell_usage_find("", "max", &value));
    assert_true(cell_usage_find("max 3", "max", &value));
    assert_int_equal(value, 3);
}

static void write_file(const char *folder, const char *file, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void usage_is_read_from_v2_files(void **state)
{
    (void)state;
    char folder[] = "/tmp/skep-usage-XXXXXX";
    assert_non_null(mkdtemp(folder));
    struct cgroup_mounts m = {0};
    (void)snprintf(m.v2, sizeof m.v2, "/tmp");
    cgroup_mounts_add_v2(&m, "cpu memory pids");
    const char *path = folder + strlen("/tmp/");
    struct cell_usage usage;
    struct errmsg msg = {""};
    write_file(folder, "memory.current", "1048576\n");
    write_file(folder, "cpu.stat", "usage_usec 777\nuser_usec 700\n");
    write_file(folder, "pids.current", "3\n");
    assert_true(status_is_ok(cell_usage_read(&m, path, &usage, &msg)));
    assert_int_equal(usage.memory_bytes, 1048576);
    assert_int_equal(usage.memory_peak_bytes, 0);
    assert_int_equal(usage.cpu_usage_us, 777);
    assert_int_equal(usage.pids, 2);
    write_file(folder, "memory.peak", "2097152\n");
    assert_true(status_is_ok(cell_usage_read(&m, path, &usage, &msg)));
    assert_int_equal(usage.memory_peak_bytes, 2097152);
    static const char *const files[] = {"memory.current", "memory.peak", "cpu.stat",
                                        "pids.current"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char file[256];
        (void)snprintf(file, sizeof file, "%s/%s", folder, files[i]);
        assert_int_equal(unlink(file), 0);
    }
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(cell_usage_read(&m, path, &usage, &msg).code, STATUS_NOT_FOUND);
}

static void a_group_without_its_controllers_is_refused(void **state)
{
    (void)state;
    static struct cgroup g;
    struct cgroup_mounts m = {0};
    struct errmsg msg = {""};
    assert_int_equal(cgroup_open(&g, &m, "x", &msg).code, STATUS_UNSUPPORTED);
    assert_string_equal(msg.text, "cgroup controller memory is not mounted");
    assert_int_equal(g.count, 0);
}

static void a_start_time_is_found_behind_any_name(void **state)
{
    (void)state;
    uint64_t ticks = 0;
    const char *tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n";
    char text[256];
    (void)snprintf(text, sizeof text, "5 (a) b) (c%s", "");
    assert_int_equal(process_start_time_parse(text, &ticks).code, STATUS_INVALID);
    (void)snprintf(text, sizeof text, "5 (a) b) (c)%s", tail);
    assert_true(status_is_ok(process_start_time_parse(text, &ticks)));
    assert_int_equal(ticks, 4711);
    (void)snprintf(text, sizeof text, "5 (x) Z%s", tail + 2);
    assert_int_equal(process_start_time_parse(text, &ticks).code, STATUS_NOT_FOUND);
    assert_int_equal(process_start_time_parse("5 (x) S 1 2", &ticks).code, STATUS_INVALID);
    assert_int_equal(process_start_time_parse("", &ticks).code, STATUS_INVALID);
    assert_true(status_is_ok(process_start_time(getpid(), &ticks)));
}

static void cell_pid_texts_are_strict(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "12",
                                        "12 ",
                                        " 12 5",
                                        "-1 5",
                                        "0 5",
                                        "12 5x",
                                        "12 5 6",
                                        "x 5",
                                        "12 -5",
                                        "12 5\n\n",
                                        "99999999999 5",
                                        "12 99999999999999999999"};
    struct cell_pid pid;
    struct errmsg msg = {""};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct bytes text = bytes_of(wrong[i], strlen(wrong[i]));
        if (status_is_ok(cell_pid_decode(text, &pid, &msg))) {
            fail_msg("\"%s\" was taken", wrong[i]);
        }
    }
    assert_true(status_is_ok(cell_pid_decode(bytes_of("12 5\n", 5), &pid, &msg)));
    assert_int_equal(pid.pid, 12);
    assert_int_equal(pid.start_time, 5);
}

static void a_reused_pid_is_not_mistaken(void **state)
{
    (void)state;
    struct cell_pid me = {.pid = getpid()};
    struct errmsg msg = {""};
    int fd = -1;
    assert_true(status_is_ok(process_start_time(me.pid, &me.start_time)));
    assert_true(cell_pid_is_alive(&me));
    assert_true(status_is_ok(cell_pid_open(&me, &fd, &msg)));
    (void)close(fd);
    me.start_time++;
    assert_false(cell_pid_is_alive(&me));
    assert_int_equal(cell_pid_open(&me, &fd, &msg).code, STATUS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v1_mounts_are_found),
        cmocka_unit_test(v2_has_what_its_root_names),
        cmocka_unit_test(in_a_hybrid_v1_comes_first),
        cmocka_unit_test(escaped_mount_points_are_read),
        cmocka_unit_test(odd_mount_lines_are_skipped),
        cmocka_unit_test(keyed_values_are_found_by_whole_key),
        cmocka_unit_test(usage_is_read_from_v2_files),
        cmocka_unit_test(a_group_without_its_controllers_is_refused),
        cmocka_unit_test(a_start_time_is_found_behind_any_name),
        cmocka_unit_test(cell_pid_texts_are_strict),
        cmocka_unit_test(a_reused_pid_is_not_mistaken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The plan of a cell: which steps, and above all in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/plan.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static struct cell_spec spec;
static struct cell_mount mounts[CELL_MOUNTS_MAX];
static struct root_entry entries[] = {
    {ENTRY_DIR, false, (char *)(uintptr_t) "/usr", (char *)(uintptr_t) "/usr"},
    {ENTRY_LINK, false, (char *)(uintptr_t) "/lib", (char *)(uintptr_t) "usr/lib"},
    {ENTRY_FILE, true, (char *)(uintptr_t) "/etc/ld.so.cache",
     (char *)(uintptr_t) "/etc/ld.so.cache"},
    {ENTRY_MADE_DIR, false, (char *)(uintptr_t) "/opt", NULL},
};
static struct plan_facts facts;
static struct plan plan;
static char *args[] = {(char *)(uintptr_t) "/opt/skep/run", NULL};

static int setup(void **state)
{
    (void)state;
    memset(&spec, 0, sizeof spec);
    memset(&facts, 0, sizeof facts);
    spec.args = args;
    spec.args_count = 1;
    spec.mounts = mounts;
    spec.mounts_count = 2;
    (void)snprintf(mounts[0].source, sizeof mounts[0].source, "/srv/code");
    (void)snprintf(mounts[0].target, sizeof mounts[0].target, "/app");
    (void)snprintf(mounts[1].source, sizeof mounts[1].source, "/srv/runner");
    (void)snprintf(mounts[1].target, sizeof mounts[1].target, "/opt/skep");
    spec.memory_bytes = 64 << 20;
    spec.cpu_millis = 100;
    spec.pids_max = 10;
    spec.tmp_bytes = 1 << 20;
    facts.entries = entries;
    facts.entries_count = sizeof entries / sizeof entries[0];
    facts.has_cgroup = true;
    facts.has_netns = false;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    plan_close(&plan);
    plan_close(&plan);
    return 0;
}

static void build(void)
{
    struct errmsg msg = {""};
    struct status s = plan_build(&spec, &facts, &plan, &msg);
    if (!status_is_ok(s)) {
        fail_msg("%s", msg.text);
    }
}

/* Where the first step of a kind (and path, when given) stands; fails the test when there is none.
 * */
static size_t at(enum step_kind kind, const char *path)
{
    for (size_t i = 0; i < plan.count; i++) {
        const struct step *s = &plan.steps[i];
        if (s->kind == kind && (path == NULL || (s->path != NULL && strcmp(s->path, path) == 0))) {
            return i;
        }
    }
    fail_msg("no step %s %s", step_name(kind), path != NULL ? path : "");
    return 0;
}

static const struct step *step(enum step_kind kind, const char *path)
{
    return &plan.steps[at(kind, path)];
}

static void privileges_fall_in_order_after_the_last_mount(void **state)
{
    (void)state;
    build();
    static const enum step_kind order[] = {
        STEP_UNSHARE_CGROUP, STEP_PRIVATE_MOUNTS, STEP_OPEN_TREE,    STEP_IDENTITY,
        STEP_NEW_ROOT,       STEP_PIVOT,          STEP_ATTACH,       STEP_PROC,
        STEP_DROP_OLD_ROOT,  STEP_ROOT_READONLY,  STEP_LOOPBACK,     STEP_STDIO,
        STEP_SECUREBITS,     STEP_BOUNDING,       STEP_CAPABILITIES, STEP_NO_NEW_PRIVILEGES,
        STEP_PARENT_DEATH,   STEP_LANDLOCK,       STEP_RLIMIT,       STEP_FILTER,
        STEP_EXEC,
    };
    for (size_t i = 1; i < sizeof order / sizeof order[0]; i++) {
        if (at(order[i - 1], NULL) >= at(order[i], NULL)) {
            fail_msg("%s is not before %s", step_name(order[i - 1]), step_name(order[i]));
        }
    }
    for (size_t i = at(STEP_DROP_OLD_ROOT, NULL); i < plan.count; i++) {
        assert_int_not_equal(plan.steps[i].kind, STEP_ATTACH);
        assert_int_not_equal(plan.steps[i].kind, STEP_TMPFS);
        assert_int_not_equal(plan.steps[i].kind, STEP_OPEN_TREE);
    }
    assert_int_equal(at(STEP_LANDLOCK, NULL) + 1, at(STEP_RLIMIT, NULL));
    for (size_t i = at(STEP_RLIMIT, NULL); i < plan.count - 2; i++) {
        assert_int_equal(plan.steps[i].kind, STEP_RLIMIT);
    }
    assert_int_equal(at(STEP_FILTER, NULL), plan.count - 2);
    assert_int_equal(at(STEP_EXEC, NULL), plan.count - 1);
}

static bool has(enum step_kind kind)
{
    for (size_t i = 0; i < plan.count; i++) {
        if (plan.steps[i].kind == kind) {
            return true;
        }
    }
    return false;
}

static void walls_that_are_not_needed_are_left_out(void **state)
{
    (void)state;
    build();
    assert_true(has(STEP_LANDLOCK) && has(STEP_UNSHARE_CGROUP));
    plan_close(&plan);
    spec.walls_not_needed = WALL_BIT(LANDLOCK);
    build();
    assert_false(has(STEP_LANDLOCK));
    assert_true(has(STEP_UNSHARE_CGROUP));
    plan_close(&plan);
    spec.walls_not_needed = WALL_BIT(CGROUP_NAMESPACE);
    build();
    assert_true(has(STEP_LANDLOCK));
    assert_false(has(STEP_UNSHARE_CGROUP));
}

static void what_no_group_limits_a_process_limits(void **state)
{
    (void)state;
    spec.walls_not_needed = WALL_BIT(CGROUP_PIDS) | WALL_BIT(CGROUP_MEMORY);
    build();
    assert_int_equal(step(STEP_RLIMIT, "nproc")->value, 10);
    assert_int_equal(step(STEP_RLIMIT, "data")->value, 64 << 20);
}

static void sources_are_opened_before_the_user_changes(void **state)
{
    (void)state;
    build();
    for (size_t i = at(STEP_IDENTITY, NULL); i < plan.count; i++) {
        assert_int_not_equal(plan.steps[i].kind, STEP_OPEN_TREE);
    }
}

static void every_tree_is_attached_once(void **state)
{
    (void)state;
    build();
    unsigned opened[PLAN_TREES_MAX] = {0};
    unsigned attached[PLAN_TREES_MAX] = {0};
    for (size_t i = 0; i < plan.count; i++) {
        const struct step *s = &plan.steps[i];
        if (s->kind == STEP_OPEN_TREE) {
            opened[s->tree]++;
        } else if (s->kind == STEP_ATTACH) {
            assert_int_equal(opened[s->tree], 1);
            attached[s->tree]++;
        }
    }
    assert_int_equal(plan.trees_count, 2 + 2 + 5);
    for (size_t i = 0; i < plan.trees_count; i++) {
        assert_int_equal(opened[i], 1);
        assert_int_equal(attached[i], 1);
    }
}

static void devices_hold_no_programs_and_folders_no_devices(void **state)
{
    (void)state;
    build();
    for (size_t i = 0; i < plan.count; i++) {
        const struct step *s = &plan.steps[i];
        if (s->kind != STEP_OPEN_TREE) {
            continue;
        }
        bool is_device = strncmp(s->path, "/dev/", 5) == 0;
        assert_int_equal((s->flags & STEP_ALLOW_DEVICE) != 0, is_device);
        assert_int_equal((s->flags & STEP_ALLOW_EXEC) != 0, !is_device);
    }
}

static void parents_are_made_before_what_is_mounted_in_them(void **state)
{
    (void)state;
    build();
    assert_true(at(STEP_DIR, "/etc") < at(STEP_ATTACH, "/etc/ld.so.cache"));
    assert_true(at(STEP_DIR, "/opt") < at(STEP_ATTACH, "/opt/skep"));
    assert_true(at(STEP_ATTACH, "/usr") < at(STEP_ATTACH, "/app"));
}

static void only_optional_entries_may_be_missing(void **state)
{
    (void)state;
    build();
    assert_int_equal(step(STEP_OPEN_TREE, "/etc/ld.so.cache")->flags & STEP_OPTIONAL,
                     STEP_OPTIONAL);
    assert_int_equal(step(STEP_ATTACH, "/etc/ld.so.cache")->flags,
                     STEP_OPTIONAL | STEP_TARGET_FILE);
    assert_int_equal(step(STEP_OPEN_TREE, "/usr")->flags & STEP_OPTIONAL, 0);
    assert_int_equal(step(STEP_OPEN_TREE, "/srv/code")->flags & STEP_OPTIONAL, 0);
}

static void a_file_mount_gets_a_file_as_its_place(void **state)
{
    (void)state;
    facts.mount_is_file[0] = true;
    build();
    assert_int_equal(step(STEP_ATTACH, "/app")->flags & STEP_TARGET_FILE, STEP_TARGET_FILE);
    assert_int_equal(step(STEP_ATTACH, "/opt/skep")->flags & STEP_TARGET_FILE, 0);
}

static void devices_are_bound_where_devices_work(void **state)
{
    (void)state;
    static struct cell_mount nodes[] = {{"/dev/null", "/dev/nvidia0"},
                                        {"/srv/cap", "/dev/nvidia-caps/nvidia-cap1"}};
    spec.devices = nodes;
    spec.devices_count = 2;
    build();
    assert_int_equal(step(STEP_OPEN_TREE, "/srv/cap")->flags, STEP_ALLOW_DEVICE);
    assert_int_equal(step(STEP_ATTACH, "/dev/nvidia0")->flags, STEP_TARGET_FILE);
    assert_true(at(STEP_DIR, "/dev/nvidia-caps") < at(STEP_ATTACH, "/dev/nvidia-caps/nvidia-cap1"));
    assert_true(at(STEP_OPEN_TREE, "/srv/cap") < at(STEP_IDENTITY, NULL));
    spec.devices = NULL;
    spec.devices_count = 0;
}

static void tmp_has_the_size_of_the_spec(void **state)
{
    (void)state;
    build();
    assert_string_equal(step(STEP_TMPFS, "/tmp")->text, "size=1048576,nr_inodes=1024,mode=1777");
    spec.tmp_bytes = 1ULL << 40;
    plan_close(&plan);
    build();
    assert_string_equal(step(STEP_TMPFS, "/tmp")->text,
                        "size=1099511627776,nr_inodes=65536,mode=1777");
    assert_string_equal(step(STEP_TMPFS, "/dev/shm")->text,
                        "size=67108864,nr_inodes=16384,mode=1777");
}

static void limits_come_from_the_spec(void **state)
{
    (void)state;
    build();
    assert_int_equal(step(STEP_RLIMIT, "core")->value, 1); /* 0 would feed a pipe */
    assert_int_equal(step(STEP_RLIMIT, "nofile")->value, CELL_FILES_DEFAULT);
    assert_int_equal(step(STEP_RLIMIT, "fsize")->value, 1 << 20);
    assert_true(step(STEP_RLIMIT, "nproc")->value > 10);
    assert_int_equal(step(STEP_RLIMIT, "stack")->resource, RLIMIT_STACK);
    assert_int_equal(step(STEP_RLIMIT, "sigpending")->resource, RLIMIT_SIGPENDING);
    plan_close(&plan);
    spec.files_max = 77;
    facts.has_cgroup = false;
    build();
    assert_int_equal(step(STEP_RLIMIT, "nofile")->value, 77);
    assert_int_equal(step(STEP_RLIMIT, "nproc")->value, 10);
    assert_int_equal(step(STEP_RLIMIT, "nproc")->resource, RLIMIT_NPROC);
    assert_int_equal(step(STEP_RLIMIT, "data")->value, 64 << 20);
}

static void the_loopback_of_a_namespace_made_ahead_is_left_alone(void **state)
{
    (void)state;
    facts.has_netns = true;
    build();
    for (size_t i = 0; i < plan.count; i++) {
        assert_int_not_equal(plan.steps[i].kind, STEP_LOOPBACK);
    }
}

static void an_image_brings_its_own_etc(void **state)
{
    (void)state;
    build();
    (void)at(STEP_FILE, "/etc/passwd");
    plan_close(&plan);
    (void)snprintf(spec.root, sizeof spec.root, "/images/x");
    build();
    for (size_t i = 0; i < plan.count; i++) {
        assert_int_not_equal(plan.steps[i].kind, STEP_FILE);
    }
}

static void too_many_entries_are_refused(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    facts.entries_count = PLAN_ENTRIES_MAX + 1;
    assert_int_equal(plan_build(&spec, &facts, &plan, &msg).code, STATUS_LIMIT);
    assert_null(plan.steps);
}

static void too_deep_targets_are_refused_and_nothing_is_left(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    spec.mounts_count = CELL_MOUNTS_MAX;
    for (size_t i = 0; i < CELL_MOUNTS_MAX; i++) {
        (void)snprintf(mounts[i].source, sizeof mounts[i].source, "/srv");
        /* Every target has its own parents. */
        for (size_t k = 0; k + 3 < 600; k += 3) {
            (void)snprintf(mounts[i].target + k, 4, "/%c%c", (char)('a' + i), 'd');
        }
    }
    assert_int_equal(plan_build(&spec, &facts, &plan, &msg).code, STATUS_LIMIT);
    assert_null(plan.steps);
    assert_null(plan.text);
}

static void build_survives_oom(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    for (unsigned delay = 0; delay < 3; delay++) {
        mem_fault(delay, 1);
        struct status s = plan_build(&spec, &facts, &plan, &msg);
        assert_int_equal(mem_fault_clear(), 1);
        assert_int_equal(s.code, STATUS_NOMEM);
        assert_null(plan.steps);
    }
}

#define PLAN_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAN_TEST(privileges_fall_in_order_after_the_last_mount),
        PLAN_TEST(walls_that_are_not_needed_are_left_out),
        PLAN_TEST(what_no_group_limits_a_process_limits),
        PLAN_TEST(sources_are_opened_before_the_user_changes),
        PLAN_TEST(every_tree_is_attached_once),
        PLAN_TEST(devices_hold_no_programs_and_folders_no_devices),
        PLAN_TEST(parents_are_made_before_what_is_mounted_in_them),
        PLAN_TEST(only_optional_entries_may_be_missing),
        PLAN_TEST(a_file_mount_gets_a_file_as_its_place),
        PLAN_TEST(devices_are_bound_where_devices_work),
        PLAN_TEST(tmp_has_the_size_of_the_spec),
        PLAN_TEST(limits_come_from_the_spec),
        PLAN_TEST(the_loopback_of_a_namespace_made_ahead_is_left_alone),
        PLAN_TEST(an_image_brings_its_own_etc),
        PLAN_TEST(too_many_entries_are_refused),
        PLAN_TEST(too_deep_targets_are_refused_and_nothing_is_left),
        PLAN_TEST(build_survives_oom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

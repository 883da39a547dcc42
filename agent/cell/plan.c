#include "agent/cell/plan.h"

#include "common/check.h"
#include "common/mem.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum { INODE_BYTES = 4096, INODES_MIN = 1024, INODES_MAX = 65536, NPROC_SLACK = 16 };
enum { STACK_BYTES = 8 << 20, SIGNALS_MAX = 1024 };

/* A builder keeps the first failure and ignores what comes after, so that a plan reads as a list.
 * */
struct builder {
    struct plan plan;
    struct status status;
    struct errmsg *msg;
};

const char *step_name(enum step_kind kind)
{
    static const char *const names[] = {
#define STEP_NAME_ROW(name, text) [STEP_##name] = text,
        STEP_KINDS(STEP_NAME_ROW)
#undef STEP_NAME_ROW
    };
    CHECK(kind < STEP_KINDS_COUNT_);
    return names[kind];
}

static void add(struct builder *b, struct step step)
{
    if (!status_is_ok(b->status)) {
        return;
    }
    if (b->plan.count == PLAN_STEPS_MAX) {
        b->status = status_fail(b->msg, STATUS_LIMIT, "more than %d steps", PLAN_STEPS_MAX);
        return;
    }
    b->plan.steps[b->plan.count++] = step;
}

__attribute__((format(printf, 2, 3))) static const char *text(struct builder *b, const char *format,
                                                              ...)
{
    char *at = b->plan.text + b->plan.text_size;
    size_t room = PLAN_TEXT_BYTES_MAX - b->plan.text_size;
    va_list args;
    va_start(args, format);
    int size = vsnprintf(at, room, format, args);
    va_end(args);
    if (size < 0 || (size_t)size >= room) {
        if (status_is_ok(b->status)) {
            b->status = status_fail(b->msg, STATUS_LIMIT, "paths take more than %d bytes",
                                    PLAN_TEXT_BYTES_MAX);
        }
        return "";
    }
    b->plan.text_size += (size_t)size + 1;
    return at;
}

static uint32_t add_tree(struct builder *b, const char *source, uint32_t flags)
{
    uint32_t tree = (uint32_t)b->plan.trees_count++;
    add(b, (struct step){.kind = STEP_OPEN_TREE, .path = source, .tree = tree, .flags = flags});
    return tree;
}

static const char *const devices[] = {"null", "zero", "full", "random", "urandom"};
enum { DEVICES_COUNT = sizeof devices / sizeof devices[0] };
static_assert((int)DEVICES_COUNT + (int)CELL_DEVICES_MAX <= (int)PLAN_DEVICES_MAX,
              "each device has its tree");

struct trees {
    uint32_t entries[PLAN_ENTRIES_MAX];
    uint32_t mounts[CELL_MOUNTS_MAX];
    uint32_t devices[DEVICES_COUNT];
    uint32_t own_devices[CELL_DEVICES_MAX]; /* of the specification */
};

static bool entry_is_mounted(const struct root_entry *e)
{
    return e->kind == ENTRY_DIR || e->kind == ENTRY_FILE;
}

static void add_sources(struct builder *b, const struct cell_spec *spec,
                        const struct plan_facts *facts, struct trees *trees)
{
    for (size_t i = 0; i < facts->entries_count; i++) {
        const struct root_entry *e = &facts->entries[i];
        if (entry_is_mounted(e)) {
            trees->entries[i] =
                add_tree(b, e->source, STEP_ALLOW_EXEC | (e->optional ? STEP_OPTIONAL : 0));
        }
    }
    for (size_t i = 0; i < spec->mounts_count; i++) {
        trees->mounts[i] = add_tree(b, spec->mounts[i].source, STEP_ALLOW_EXEC);
    }
    for (size_t i = 0; i < DEVICES_COUNT; i++) {
        trees->devices[i] = add_tree(b, text(b, "/dev/%s", devices[i]), STEP_ALLOW_DEVICE);
    }
    for (size_t i = 0; i < spec->devices_count; i++) {
        trees->own_devices[i] = add_tree(b, spec->devices[i].source, STEP_ALLOW_DEVICE);
    }
}

static bool has_dir(const struct builder *b, const char *path, size_t size)
{
    for (size_t i = 0; i < b->plan.count; i++) {
        const struct step *s = &b->plan.steps[i];
        if (s->kind == STEP_DIR && strncmp(s->path, path, size) == 0 && s->path[size] == '\0') {
            return true;
        }
    }
    return false;
}

/* Every folder above path; those that exist are left alone. */
static void add_parents(struct builder *b, const char *path)
{
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        size_t size = (size_t)(slash - path);
        if (!has_dir(b, path, size)) {
            add(b, (struct step){.kind = STEP_DIR, .path = text(b, "%.*s", (int)size, path)});
        }
    }
}

static void add_attach(struct builder *b, const char *path, uint32_t tree, uint32_t flags)
{
    add_parents(b, path);
    add(b, (struct step){.kind = STEP_ATTACH, .path = path, .tree = tree, .flags = flags});
}

static void add_entries(struct builder *b, const struct plan_facts *facts,
                        const struct trees *trees)
{
    for (size_t i = 0; i < facts->entries_count; i++) {
        const struct root_entry *e = &facts->entries[i];
        switch (e->kind) {
        case ENTRY_DIR:
            add_attach(b, e->path, trees->entries[i], e->optional ? STEP_OPTIONAL : 0);
            break;
        case ENTRY_FILE:
            add_attach(b, e->path, trees->entries[i],
                       STEP_TARGET_FILE | (e->optional ? STEP_OPTIONAL : 0));
            break;
        case ENTRY_LINK:
            add_parents(b, e->path);
            add(b, (struct step){.kind = STEP_LINK, .path = e->path, .text = e->source});
            break;
        case ENTRY_MADE_DIR:
            add(b, (struct step){.kind = STEP_DIR, .path = e->path});
            break;
        }
    }
}

static const char *tmpfs_options(struct builder *b, uint64_t bytes, unsigned mode)
{
    uint64_t inodes = bytes / INODE_BYTES;
    inodes = inodes < INODES_MIN ? INODES_MIN : inodes;
    inodes = inodes > INODES_MAX ? INODES_MAX : inodes;
    return text(b, "size=%" PRIu64 ",nr_inodes=%" PRIu64 ",mode=%o", bytes, inodes, mode);
}

static void add_dev(struct builder *b, const struct cell_spec *spec, const struct trees *trees)
{
    static const char *const links[][2] = {
        {"/dev/fd", "/proc/self/fd"},
        {"/dev/stdin", "/proc/self/fd/0"},
        {"/dev/stdout", "/proc/self/fd/1"},
        {"/dev/stderr", "/proc/self/fd/2"},
    };
    add(b, (struct step){.kind = STEP_DIR, .path = "/dev"});
    for (size_t i = 0; i < DEVICES_COUNT; i++) {
        add(b, (struct step){.kind = STEP_ATTACH,
                             .path = text(b, "/dev/%s", devices[i]),
                             .tree = trees->devices[i],
                             .flags = STEP_TARGET_FILE});
    }
    for (size_t i = 0; i < spec->devices_count; i++) {
        add_attach(b, spec->devices[i].target, trees->own_devices[i], STEP_TARGET_FILE);
    }
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        add(b, (struct step){.kind = STEP_LINK, .path = links[i][0], .text = links[i][1]});
    }
    uint64_t shm = spec->tmp_bytes < CELL_SHM_BYTES_MAX ? spec->tmp_bytes : CELL_SHM_BYTES_MAX;
    add(b, (struct step){.kind = STEP_DIR, .path = "/dev/shm"});
    add(b, (struct step){
               .kind = STEP_TMPFS, .path = "/dev/shm", .text = tmpfs_options(b, shm, 01777)});
}

static void add_root(struct builder *b, const struct cell_spec *spec,
                     const struct plan_facts *facts, const struct trees *trees)
{
    add(b, (struct step){.kind = STEP_NEW_ROOT});
    add(b, (struct step){.kind = STEP_PIVOT});
    add_entries(b, facts, trees);
    if (spec->root[0] == '\0') {
        add(b, (struct step){.kind = STEP_DIR, .path = "/etc"});
        add(b, (struct step){.kind = STEP_FILE,
                             .path = "/etc/passwd",
                             .text = "cell:x:1000:1000:cell:/tmp:/bin/sh\n"});
        add(b, (struct step){.kind = STEP_FILE, .path = "/etc/group", .text = "cell:x:1000:\n"});
        add(b, (struct step){.kind = STEP_FILE,
                             .path = "/etc/hosts",
                             .text = "127.0.0.1 localhost\n::1 localhost\n"});
    }
    for (size_t i = 0; i < spec->mounts_count; i++) {
        add_attach(b, spec->mounts[i].target, trees->mounts[i],
                   facts->mount_is_file[i] ? STEP_TARGET_FILE : 0);
    }
    add_dev(b, spec, trees);
    add(b, (struct step){.kind = STEP_DIR, .path = "/tmp"});
    add(b, (struct step){.kind = STEP_TMPFS,
                         .path = "/tmp",
                         .text = tmpfs_options(b, spec->tmp_bytes, 01777)});
    add(b, (struct step){.kind = STEP_DIR, .path = "/proc"});
    add(b, (struct step){.kind = STEP_PROC, .path = "/proc", .text = "subset=pid,hidepid=2"});
    add(b, (struct step){.kind = STEP_DROP_OLD_ROOT});
    add(b, (struct step){.kind = STEP_ROOT_READONLY});
}

static void add_rlimit(struct builder *b, int resource, const char *name, uint64_t value)
{
    add(b, (struct step){.kind = STEP_RLIMIT, .path = name, .resource = resource, .value = value});
}

static bool needs(const struct cell_spec *spec, wall_set walls)
{
    return (spec->walls_not_needed & walls) == 0;
}

static void add_limits(struct builder *b, const struct cell_spec *spec, bool has_cgroup)
{
    /* Not 0, which still feeds a core_pattern that is a pipe to a program of the machine; 1 byte is
     * too small for a file and is taken for "never" there (core(5), fs/coredump.c). */
    add_rlimit(b, RLIMIT_CORE, "core", 1);
    add_rlimit(b, RLIMIT_NOFILE, "nofile",
               spec->files_max != 0 ? spec->files_max : CELL_FILES_DEFAULT);
    add_rlimit(b, RLIMIT_FSIZE, "fsize", spec->tmp_bytes);
    add_rlimit(b, RLIMIT_MEMLOCK, "memlock", 8 << 20);
    add_rlimit(b, RLIMIT_MSGQUEUE, "msgqueue", 64 << 10);
    add_rlimit(b, RLIMIT_RTPRIO, "rtprio", 0);
    add_rlimit(b, RLIMIT_NICE, "nice", 0);
    /* The same layout of memory, whatever the agent was started with: an unlimited stack would turn
     * most of its randomisation off (mmap_base of arch/x86/mm/mmap.c). */
    add_rlimit(b, RLIMIT_STACK, "stack", STACK_BYTES);
    add_rlimit(b, RLIMIT_SIGPENDING, "sigpending", SIGNALS_MAX);
    /* With a cgroup its limit comes first, because it counts and reports what it refused. */
    bool counted = has_cgroup && needs(spec, WALL_BIT(CGROUP_PIDS));
    add_rlimit(b, RLIMIT_NPROC, "nproc", (uint64_t)spec->pids_max + (counted ? NPROC_SLACK : 0));
    if (!has_cgroup || !needs(spec, WALL_BIT(CGROUP_MEMORY))) {
        add_rlimit(b, RLIMIT_DATA, "data", spec->memory_bytes);
    }
}

static void add_all(struct builder *b, const struct cell_spec *spec, const struct plan_facts *facts,
                    struct trees *trees)
{
    if (needs(spec, WALL_BIT(CGROUP_NAMESPACE))) {
        add(b, (struct step){.kind = STEP_UNSHARE_CGROUP});
    }
    add(b, (struct step){.kind = STEP_PRIVATE_MOUNTS});
    add_sources(b, spec, facts, trees);
    add(b, (struct step){.kind = STEP_IDENTITY});
    add(b, (struct step){.kind = STEP_KEYRING});
    add_root(b, spec, facts, trees);
    if (!facts->has_netns) {
        add(b, (struct step){.kind = STEP_LOOPBACK});
    }
    add(b, (struct step){.kind = STEP_HOSTNAME,
                         .text = spec->hostname[0] != '\0' ? spec->hostname : "cell"});
    add(b, (struct step){.kind = STEP_WORKDIR,
                         .path = spec->workdir[0] != '\0' ? spec->workdir : "/"});
    add(b, (struct step){.kind = STEP_STDIO, .path = "/dev/null"});
    add(b, (struct step){.kind = STEP_SECUREBITS});
    add(b, (struct step){.kind = STEP_BOUNDING});
    add(b, (struct step){.kind = STEP_CAPABILITIES});
    add(b, (struct step){.kind = STEP_NO_NEW_PRIVILEGES});
    add(b, (struct step){.kind = STEP_PARENT_DEATH});
    if (needs(spec, WALL_BIT(LANDLOCK))) {
        add(b, (struct step){.kind = STEP_LANDLOCK});
    }
    /* After what may still need memory of this process. */
    add_limits(b, spec, facts->has_cgroup);
    add(b, (struct step){.kind = STEP_FILTER});
    add(b, (struct step){.kind = STEP_EXEC, .path = spec->args[0]});
}

struct status plan_build(const struct cell_spec *spec, const struct plan_facts *facts,
                         struct plan *out, struct errmsg *msg)
{
    CHECK(spec->args_count > 0);
    CHECK(spec->mounts_count <= CELL_MOUNTS_MAX);
    CHECK(spec->devices_count <= CELL_DEVICES_MAX);
    if (facts->entries_count > PLAN_ENTRIES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "the root has more than %d entries",
                           PLAN_ENTRIES_MAX);
    }
    struct builder b = {.status = status_ok(), .msg = msg};
    b.plan.steps = mem_alloc(PLAN_STEPS_MAX * sizeof *b.plan.steps);
    b.plan.text = mem_alloc(PLAN_TEXT_BYTES_MAX);
    struct trees *trees = mem_zalloc(1, sizeof *trees);
    if (b.plan.steps == NULL || b.plan.text == NULL || trees == NULL) {
        b.status = status_of(STATUS_NOMEM);
    } else {
        add_all(&b, spec, facts, trees);
    }
    mem_free(trees);
    if (!status_is_ok(b.status)) {
        plan_close(&b.plan);
        return b.status;
    }
    CHECK(b.plan.steps[b.plan.count - 1].kind == STEP_EXEC);
    *out = b.plan;
    return status_ok();
}

void plan_close(struct plan *p)
{
    mem_free(p->steps);
    mem_free(p->text);
    *p = (struct plan){0};
}

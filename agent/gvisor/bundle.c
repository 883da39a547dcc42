#include "agent/gvisor/bundle.h"

#include "agent/cell/home.h"
#include "agent/cell/root_scan.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- The folder of mount points ---- */

static struct status point_fail(struct errmsg *msg, const char *path, int error)
{
    return status_fail(msg, status_from_errno(error), "step root: %s: %s", path, strerror(error));
}

/* Opens the folder above path below root_fd, making what is missing; *name is what remains. A link
 * is never followed: it would lead out of the root, onto the machine. */
static struct status parent_open(int root_fd, const char *path, int *out, const char **name,
                                 struct errmsg *msg)
{
    AUTO_CLOSE int fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 0);
    const char *at = path + 1;
    for (const char *slash = strchr(at, '/'); slash != NULL; slash = strchr(at, '/')) {
        char part[NAME_MAX + 1];
        if ((size_t)(slash - at) >= sizeof part) {
            return point_fail(msg, path, ENAMETOOLONG);
        }
        memcpy(part, at, (size_t)(slash - at));
        part[slash - at] = '\0';
        if (mkdirat(fd, part, 0755) != 0 && errno != EEXIST) {
            return point_fail(msg, path, errno);
        }
        int next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0) {
            return errno == ELOOP || errno == ENOTDIR
                       ? status_fail(msg, STATUS_INVALID,
                                     "step root: %s: lies behind a link of the image", path)
                       : point_fail(msg, path, errno);
        }
        (void)close(fd);
        fd = next;
        at = slash + 1;
    }
    *name = at;
    *out = fd_steal(&fd);
    return status_ok();
}

static struct status point_make(int root_fd, const char *path, enum entry_kind kind,
                                const char *link, struct errmsg *msg)
{
    AUTO_CLOSE int parent = -1;
    const char *name = NULL;
    TRY(parent_open(root_fd, path, &parent, &name, msg));
    int rc = 0;
    if (kind == ENTRY_LINK) {
        rc = symlinkat(link, parent, name);
    } else if (kind == ENTRY_FILE) {
        rc = mknodat(parent, name, S_IFREG | 0444, 0);
    } else {
        rc = mkdirat(parent, name, 0755);
    }
    return rc == 0 || errno == EEXIST ? status_ok() : point_fail(msg, path, errno);
}

/* ---- config.json ---- */

/* jansson's answers, gathered: any that failed for want of memory shows at the end. */
struct config {
    json_t *mounts;
    bool failed;
};

static void mount_add(struct config *c, const char *type, const char *source, const char *target,
                      const char *options)
{
    json_t *list = json_array();
    char word[64];
    for (const char *at = options; *at != '\0';) {
        size_t size = strcspn(at, ",");
        (void)snprintf(word, sizeof word, "%.*s", (int)size, at);
        c->failed = c->failed || json_array_append_new(list, json_string(word)) != 0;
        at += size + (at[size] == ',' ? 1 : 0);
    }
    json_t *mount = json_pack("{ss ss ss so}", "destination", target, "type", type, "source",
                              source, "options", list);
    c->failed = c->failed || mount == NULL || json_array_append_new(c->mounts, mount) != 0;
}

static void bind_add(struct config *c, const char *source, const char *target)
{
    mount_add(c, "bind", source, target, "rbind,ro,nosuid,nodev");
}

static void tmpfs_add(struct config *c, const char *target, uint64_t bytes)
{
    char options[128];
    (void)snprintf(options, sizeof options, "nosuid,nodev,noexec,mode=1777,size=%" PRIu64, bytes);
    mount_add(c, "tmpfs", "tmpfs", target, options);
}

static json_t *texts_of(const char *first, char *const *texts, size_t count)
{
    json_t *list = json_array();
    bool failed =
        list == NULL || (first != NULL && json_array_append_new(list, json_string(first)) != 0);
    for (size_t i = 0; i < count && !failed; i++) {
        failed = json_array_append_new(list, json_string(texts[i])) != 0;
    }
    if (failed) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static json_t *limit_of(const char *type, uint64_t value)
{
    return json_pack("{ss sI sI}", "type", type, "soft", (json_int_t)value, "hard",
                     (json_int_t)value);
}

static json_t *process_of(const struct cell_spec *spec)
{
    uint64_t files = spec->files_max != 0 ? spec->files_max : BUNDLE_FILES_DEFAULT;
    json_t *limits =
        json_pack("[o o o]", limit_of("RLIMIT_CORE", 0), limit_of("RLIMIT_NOFILE", files),
                  limit_of("RLIMIT_FSIZE", spec->tmp_bytes));
    return json_pack(
        "{s{si si} so so ss sb s{s[] s[] s[] s[] s[]} so}", "user", "uid", BUNDLE_USER, "gid",
        BUNDLE_USER, "args", texts_of(BUNDLE_LAUNCHER, spec->args, spec->args_count), "env",
        texts_of(NULL, spec->env, spec->env_count), "cwd",
        spec->workdir[0] != '\0' ? spec->workdir : "/", "noNewPrivileges", 1, "capabilities",
        "bounding", "effective", "inheritable", "permitted", "ambient", "rlimits", limits);
}

static json_t *config_of(const struct cell_spec *spec, json_t *mounts)
{
    return json_pack("{ss so s{ss sb} ss sO s{s[{ss} {ss} {ss} {ss} {ss}]}}", "ociVersion", "1.0.2",
                     "process", process_of(spec), "root", "path", "rootfs", "readonly", 1,
                     "hostname", spec->hostname[0] != '\0' ? spec->hostname : "skep", "mounts",
                     mounts, "linux", "namespaces", "type", "pid", "type", "network", "type", "ipc",
                     "type", "uts", "type", "mount");
}

static struct status config_write(const struct cell_spec *spec, const struct config *c,
                                  struct errmsg *msg)
{
    json_t *config = c->failed ? NULL : config_of(spec, c->mounts);
    char *text = config == NULL ? NULL : json_dumps(config, JSON_INDENT(1));
    json_decref(config);
    if (text == NULL) {
        return status_fail(msg, STATUS_NOMEM, "step bundle: out of memory, or a text not UTF-8");
    }
    struct status s = home_put("config.json", bytes_of(text, strlen(text)), msg);
    free(text);
    return status_prefix(msg, s, "step bundle");
}

/* ---- Both ---- */

static struct status entry_put(int root_fd, const struct root_entry *e, struct config *c,
                               struct errmsg *msg)
{
    TRY(point_make(root_fd, e->path, e->kind, e->source, msg));
    if (e->kind == ENTRY_DIR || e->kind == ENTRY_FILE) {
        bind_add(c, e->source, e->path);
    }
    return status_ok();
}

static struct status mounts_put(int root_fd, const struct cell_spec *spec, struct config *c,
                                struct errmsg *msg)
{
    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct cell_mount *m = &spec->mounts[i];
        struct stat st;
        if (stat(m->source, &st) != 0) {
            return point_fail(msg, m->source, errno);
        }
        TRY(point_make(root_fd, m->target, S_ISDIR(st.st_mode) ? ENTRY_DIR : ENTRY_FILE, NULL,
                       msg));
        bind_add(c, m->source, m->target);
    }
    return status_ok();
}

/* gVisor makes /dev and its devices itself; all of /proc and /sys is its own. */
static struct status ours_put(int root_fd, const struct cell_spec *spec, struct config *c,
                              struct errmsg *msg)
{
    static const char *const points[] = {"/proc", "/dev", "/sys", "/tmp"};
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        TRY(point_make(root_fd, points[i], ENTRY_MADE_DIR, NULL, msg));
    }
    mount_add(c, "proc", "proc", "/proc", "nosuid,nodev,noexec");
    tmpfs_add(c, "/tmp", spec->tmp_bytes);
    tmpfs_add(c, "/dev/shm",
              spec->tmp_bytes < BUNDLE_SHM_BYTES_MAX ? spec->tmp_bytes : BUNDLE_SHM_BYTES_MAX);
    return status_ok();
}

static struct status all_put(int root_fd, const struct cell_spec *spec, struct config *c,
                             struct errmsg *msg)
{
    struct root_scan scan;
    TRY(status_prefix(msg, root_scan(spec, &scan, msg), "step root"));
    struct status s = ours_put(root_fd, spec, c, msg);
    for (size_t i = 0; i < scan.count && status_is_ok(s); i++) {
        s = entry_put(root_fd, &scan.entries[i], c, msg);
    }
    root_scan_close(&scan);
    TRY(s);
    return mounts_put(root_fd, spec, c, msg);
}

struct status bundle_write(const struct cell_spec *spec, struct errmsg *msg)
{
    if (mkdir("rootfs", 0755) != 0 && errno != EEXIST) {
        return point_fail(msg, "rootfs", errno);
    }
    AUTO_CLOSE int root_fd = open("rootfs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (root_fd < 0) {
        return point_fail(msg, "rootfs", errno);
    }
    struct config c = {.mounts = json_array()};
    c.failed = c.mounts == NULL;
    struct status s = all_put(root_fd, spec, &c, msg);
    if (status_is_ok(s)) {
        s = config_write(spec, &c, msg);
    }
    json_decref(c.mounts);
    return s;
}

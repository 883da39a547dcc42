#include "agent/cell/root_scan.h"

#include "common/cleanup.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct scan {
    struct root_scan found;
    const struct cell_spec *spec;
    struct errmsg *msg;
};

/* What of the machine the image `host` shows: programs and libraries, and of /etc only what they
 * need to start. Names that are links on the machine (/lib on most) stay links. */
struct host_entry {
    const char *path;
    bool optional;
};
static const struct host_entry host_entries[] = {
    {"/usr", false},
    {"/bin", true},
    {"/sbin", true},
    {"/lib", true},
    {"/lib32", true},
    {"/libx32", true},
    {"/lib64", true},
    {"/etc/alternatives", true},
    {"/etc/ld.so.cache", true},
    {"/etc/localtime", true},
    {"/etc/ssl/certs", true},
    {"/etc/ssl/openssl.cnf", true},
};

/* The cell brings its own. */
static bool name_is_ours(const char *path)
{
    static const char *const ours[] = {"/proc", "/dev", "/sys", "/tmp"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        if (strcmp(path, ours[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool path_is_target(const struct cell_spec *spec, const char *path)
{
    for (size_t i = 0; i < spec->mounts_count; i++) {
        if (strcmp(spec->mounts[i].target, path) == 0) {
            return true;
        }
    }
    return false;
}

static bool path_is_above_target(const struct cell_spec *spec, const char *path)
{
    size_t size = strlen(path);
    for (size_t i = 0; i < spec->mounts_count; i++) {
        const char *target = spec->mounts[i].target;
        if (strncmp(target, path, size) == 0 && target[size] == '/') {
            return true;
        }
    }
    return false;
}

static struct status add(struct scan *s, enum entry_kind kind, const char *path, const char *source,
                         bool optional)
{
    if (s->found.count == PLAN_ENTRIES_MAX) {
        return status_fail(s->msg, STATUS_LIMIT, "the root has more than %d entries",
                           PLAN_ENTRIES_MAX);
    }
    struct root_entry *e = &s->found.entries[s->found.count];
    *e = (struct root_entry){.kind = kind, .optional = optional};
    e->path = mem_strdup(path);
    e->source = source != NULL ? mem_strdup(source) : NULL;
    s->found.count++;
    if (e->path == NULL || (source != NULL && e->source == NULL)) {
        return status_of(STATUS_NOMEM);
    }
    return status_ok();
}

static struct status scan_folder(struct scan *s, const char *source, const char *path);

/* source outside becomes path inside. */
static struct status scan_name(struct scan *s, const char *source, const char *path, bool optional)
{
    struct stat st;
    if (lstat(source, &st) != 0) {
        if (optional && errno == ENOENT) {
            return status_ok();
        }
        return status_fail(s->msg, status_from_errno(errno), "%s: %s", source, strerror(errno));
    }
    if (path_is_target(s->spec, path)) {
        return status_ok();
    }
    if (S_ISLNK(st.st_mode)) {
        char link[CELL_STRING_BYTES_MAX];
        ssize_t size = readlink(source, link, sizeof link);
        if (size < 0 || (size_t)size == sizeof link) {
            return status_fail(s->msg, STATUS_LIMIT, "readlink %s", source);
        }
        link[size] = '\0';
        return add(s, ENTRY_LINK, path, link, false);
    }
    if (S_ISDIR(st.st_mode) && path_is_above_target(s->spec, path)) {
        TRY(add(s, ENTRY_MADE_DIR, path, NULL, false));
        return scan_folder(s, source, path);
    }
    if (S_ISDIR(st.st_mode)) {
        return add(s, ENTRY_DIR, path, source, optional);
    }
    /* Sockets, pipes and device nodes have no place in an image. */
    return S_ISREG(st.st_mode) ? add(s, ENTRY_FILE, path, source, optional) : status_ok();
}

static struct status scan_folder(struct scan *s, const char *source, const char *path)
{
    DIR *dir = opendir(source);
    if (dir == NULL) {
        return status_fail(s->msg, status_from_errno(errno), "open %s: %s", source,
                           strerror(errno));
    }
    struct status status = status_ok();
    const struct dirent *entry = NULL;
    while (status_is_ok(status) && (entry = readdir(dir)) != NULL) {
        char from[CELL_STRING_BYTES_MAX + 256];
        char to[CELL_STRING_BYTES_MAX + 256];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        int from_size = snprintf(from, sizeof from, "%s/%s", source, entry->d_name);
        int to_size = snprintf(to, sizeof to, "%s/%s", path, entry->d_name);
        if ((size_t)from_size >= sizeof from || (size_t)to_size >= sizeof to) {
            status = status_fail(s->msg, STATUS_LIMIT, "%s: path too long", entry->d_name);
        } else if (!name_is_ours(to)) {
            status = scan_name(s, from, to, false);
        }
    }
    (void)closedir(dir);
    return status;
}

static struct status scan_host(struct scan *s)
{
    for (size_t i = 0; i < sizeof host_entries / sizeof host_entries[0]; i++) {
        const struct host_entry *e = &host_entries[i];
        TRY(scan_name(s, e->path, e->path, e->optional));
    }
    return status_ok();
}

struct status root_scan(const struct cell_spec *spec, struct root_scan *out, struct errmsg *msg)
{
    struct scan s = {.spec = spec, .msg = msg};
    s.found.entries = mem_zalloc(PLAN_ENTRIES_MAX, sizeof *s.found.entries);
    if (s.found.entries == NULL) {
        return status_of(STATUS_NOMEM);
    }
    struct status status = spec->root[0] != '\0' ? scan_folder(&s, spec->root, "") : scan_host(&s);
    if (!status_is_ok(status)) {
        root_scan_close(&s.found);
        return status;
    }
    *out = s.found;
    return status_ok();
}

void root_scan_close(struct root_scan *s)
{
    for (size_t i = 0; i < s->count; i++) {
        mem_free(s->entries[i].path);
        mem_free(s->entries[i].source);
    }
    mem_free(s->entries);
    *s = (struct root_scan){0};
}

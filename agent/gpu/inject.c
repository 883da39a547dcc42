#include "agent/gpu/inject.h"

#include "agent/gpu/soname.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WANTED_MAX = 64 };

static struct status text_keep(struct arena *a, const char *text, const char **out)
{
    *out = arena_text(a, text, strlen(text));
    return *out != NULL ? status_ok() : status_of(STATUS_NOMEM);
}

/* The path with all links followed, as a mount needs it. */
static struct status path_resolve(struct arena *a, const char **path, mode_t type,
                                  struct errmsg *msg)
{
    char real[PATH_MAX];
    struct stat st;
    if (realpath(*path, real) == NULL || stat(real, &st) != 0) {
        return status_fail(msg, STATUS_NOT_FOUND, "%s: %s", *path, strerror(errno));
    }
    if ((st.st_mode & S_IFMT) != type) {
        return status_fail(msg, STATUS_UNSUPPORTED, "%s: not a %s", *path,
                           type == S_IFCHR ? "character device" : "file");
    }
    return text_keep(a, real, path);
}

static struct status nodes_resolve(struct gpu_edits *e, struct errmsg *msg)
{
    for (size_t i = 0; i < e->edits.nodes_count; i++) {
        TRY(path_resolve(&e->arena, &e->edits.nodes[i].outside, S_IFCHR, msg));
    }
    return status_ok();
}

/* ---- Libraries and programs ---- */

static void soname_of_file(const char *path, char out[static SONAME_BYTES])
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    out[0] = '\0';
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size <= 0) {
        return;
    }
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) {
        return;
    }
    if (!soname_of(bytes_of(bytes, (size_t)st.st_size), out)) {
        out[0] = '\0';
    }
    (void)munmap(bytes, (size_t)st.st_size);
}

static bool is_in_host_root(const struct cdi_path *m)
{
    static const char *const shown[] = {"/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/"};
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        if (strncmp(m->outside, shown[i], strlen(shown[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Where in the cell a mount of a CDI file goes; false: it is left out. */
static bool place_of(const struct cdi_path *m, char *out, size_t size)
{
    const char *base = strrchr(m->inside, '/') + 1;
    if (strstr(base, ".so") != NULL) {
        char name[SONAME_BYTES];
        soname_of_file(m->outside, name);
        (void)snprintf(out, size, "%s/%s", INJECT_LIBRARIES, name[0] != '\0' ? name : base);
        return true;
    }
    if (strstr(m->inside, "/bin/") != NULL) {
        (void)snprintf(out, size, "%s/%s", INJECT_PROGRAMS, base);
        return true;
    }
    return false;
}

static bool is_taken(const struct cdi_edits *e, size_t count, const char *inside)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(e->mounts[i].inside, inside) == 0) {
            return true;
        }
    }
    return false;
}

static struct status mounts_place(struct gpu_edits *e, bool host_root, struct errmsg *msg)
{
    size_t kept = 0;
    for (size_t i = 0; i < e->edits.mounts_count; i++) {
        struct cdi_path m = e->edits.mounts[i];
        char place[sizeof INJECT_LIBRARIES + CDI_TEXT_BYTES_MAX];
        if (host_root && is_in_host_root(&m)) {
            continue;
        }
        if (!place_of(&m, place, sizeof place)) {
            e->left_out++;
            continue;
        }
        if (is_taken(&e->edits, kept, place)) {
            continue;
        }
        TRY(path_resolve(&e->arena, &m.outside, S_IFREG, msg));
        TRY(text_keep(&e->arena, place, &m.inside));
        bool library = strncmp(place, INJECT_LIBRARIES, sizeof INJECT_LIBRARIES - 1) == 0;
        e->libraries = e->libraries || library;
        e->programs = e->programs || !library;
        e->edits.mounts[kept++] = m;
    }
    e->edits.mounts_count = kept;
    return status_ok();
}

/* ---- Without CDI files ---- */

static struct status node_add(struct gpu_edits *e, const char *dev, const char *name)
{
    char outside[PATH_MAX], inside[64];
    (void)snprintf(outside, sizeof outside, "%s/%s", dev, name);
    (void)snprintf(inside, sizeof inside, "/dev/%s", name);
    struct cdi_path *to = &e->edits.nodes[e->edits.nodes_count++];
    TRY(text_keep(&e->arena, outside, &to->outside));
    return text_keep(&e->arena, inside, &to->inside);
}

static struct status nodes_default(struct gpu_edits *e, const char *dev,
                                   const struct gpu_wanted *wanted, size_t count,
                                   struct errmsg *msg)
{
    e->edits =
        (struct cdi_edits){.nodes = arena_zalloc(&e->arena, count + 2, sizeof(struct cdi_path))};
    if (e->edits.nodes == NULL) {
        return status_of(STATUS_NOMEM);
    }
    TRY(node_add(e, dev, "nvidiactl"));
    TRY(node_add(e, dev, "nvidia-uvm"));
    for (size_t i = 0; i < count; i++) {
        if (wanted[i].mig || !wanted[i].has_minor) {
            return status_fail(
                msg, STATUS_UNSUPPORTED, "GPU %.95s: %s: a CDI file is needed", wanted[i].uuid,
                wanted[i].mig ? "a MIG instance" : "the driver does not tell its node");
        }
        char name[32];
        (void)snprintf(name, sizeof name, "nvidia%u", wanted[i].minor);
        TRY(node_add(e, dev, name));
    }
    return status_ok();
}

/* ---- All of it ---- */

static struct status inject(const struct gpu_sources *sources, const struct gpu_wanted *wanted,
                            size_t count, struct gpu_edits *e, struct errmsg *broken,
                            struct errmsg *msg)
{
    struct cdi_wanted names[WANTED_MAX];
    if (count > WANTED_MAX) {
        return status_fail(msg, STATUS_LIMIT, "more than %d GPUs", WANTED_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        names[i] = (struct cdi_wanted){.names = {wanted[i].uuid, wanted[i].index}};
    }
    struct status s = cdi_collect(sources->folders, sources->folders_count, CDI_KIND_GPU, names,
                                  count, &e->arena, &e->edits, broken, msg);
    if (s.code == STATUS_NOT_FOUND) {
        TRY(nodes_default(e, sources->dev != NULL ? sources->dev : "/dev", wanted, count, msg));
    } else if (s.code == STATUS_CONFLICT) {
        return status_of(STATUS_NOT_FOUND); /* CONFLICT would be the leader's to try again. */
    } else {
        TRY(s);
    }
    TRY(nodes_resolve(e, msg));
    return mounts_place(e, sources->host_root, msg);
}

struct status gpu_inject(const struct gpu_sources *sources, const struct gpu_wanted *wanted,
                         size_t count, struct gpu_edits *out, struct errmsg *broken,
                         struct errmsg *msg)
{
    struct gpu_edits e = {.libraries = false};
    broken->text[0] = '\0';
    struct status s = inject(sources, wanted, count, &e, broken, msg);
    if (!status_is_ok(s)) {
        gpu_edits_close(&e);
        return s;
    }
    *out = e;
    return status_ok();
}

void gpu_edits_close(struct gpu_edits *e)
{
    arena_close(&e->arena);
    *e = (struct gpu_edits){0};
}

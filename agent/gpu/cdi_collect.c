/* The files of the CDI folders, and what they say together of some devices. */
#include "agent/gpu/cdi.h"

#include "common/cleanup.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* All files of a kind, in rising preference. */
struct files {
    struct cdi_spec specs[CDI_FILES_MAX];
    size_t count;
};

static bool name_ends(const char *name, const char *end)
{
    size_t size = strlen(name), end_size = strlen(end);
    return size > end_size && strcmp(name + size - end_size, end) == 0;
}

static int is_cdi(const struct dirent *e)
{
    return name_ends(e->d_name, ".json") || name_ends(e->d_name, ".yaml") ||
           name_ends(e->d_name, ".yml");
}

static struct status file_read(const char *path, struct buffer *out, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    uint8_t bytes[16 << 10];
    ssize_t n;
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    while ((n = read(fd, bytes, sizeof bytes)) > 0) {
        TRY(buffer_append(out, bytes, (size_t)n));
        if (out->size > CDI_BYTES_MAX) {
            return status_fail(msg, STATUS_LIMIT, "%s: more than %d bytes", path, CDI_BYTES_MAX);
        }
    }
    return n == 0
               ? status_ok()
               : status_fail(msg, status_from_errno(errno), "read %s: %s", path, strerror(errno));
}

static struct status file_load(const char *path, const char *kind, struct files *files,
                               struct errmsg *msg)
{
    struct buffer text = {0};
    struct cdi_spec spec;
    struct status s = file_read(path, &text, msg);
    if (status_is_ok(s)) {
        s = cdi_parse(path, bytes_of(text.data, text.size), !name_ends(path, ".json"), &spec, msg);
    }
    buffer_close(&text);
    TRY(s);
    if (strcmp(spec.kind, kind) != 0) {
        cdi_spec_close(&spec);
        return status_ok();
    }
    if (files->count == CDI_FILES_MAX) {
        cdi_spec_close(&spec);
        return status_fail(msg, STATUS_LIMIT, "%s: more than %d files", path, CDI_FILES_MAX);
    }
    files->specs[files->count++] = spec;
    return status_ok();
}

static void folder_load(const char *folder, const char *kind, struct files *files,
                        struct errmsg *broken)
{
    struct dirent **names;
    int count = scandir(folder, &names, is_cdi, alphasort);
    for (int k = 0; k < count; k++) {
        char path[CDI_TEXT_BYTES_MAX + NAME_MAX + 2];
        struct errmsg msg = {{0}};
        (void)snprintf(path, sizeof path, "%.*s/%s", CDI_TEXT_BYTES_MAX, folder, names[k]->d_name);
        if (!status_is_ok(file_load(path, kind, files, &msg)) && broken->text[0] == '\0') {
            *broken = msg;
        }
        free(names[k]);
    }
    if (count >= 0) {
        free(names);
    }
}

static const struct cdi_device *device_in(const struct cdi_spec *spec, const char *name)
{
    for (size_t k = 0; k < spec->devices_count; k++) {
        if (strcmp(spec->devices[k].name, name) == 0) {
            return &spec->devices[k];
        }
    }
    return NULL;
}

static const struct cdi_device *device_find(const struct files *files,
                                            const struct cdi_wanted *wanted, size_t *file)
{
    for (size_t n = 0; n < 2 && wanted->names[n] != NULL; n++) {
        for (size_t i = files->count; i > 0; i--) {
            const struct cdi_device *d = device_in(&files->specs[i - 1], wanted->names[n]);
            if (d != NULL) {
                *file = i - 1;
                return d;
            }
        }
    }
    return NULL;
}

/* ---- Putting edits together ---- */

static struct status paths_add(struct arena *a, struct cdi_path *to, size_t *count, size_t max,
                               const struct cdi_path *from, size_t from_count, struct errmsg *msg)
{
    for (size_t i = 0; i < from_count; i++) {
        bool there = false;
        for (size_t k = 0; k < *count && !there; k++) {
            there = strcmp(to[k].inside, from[i].inside) == 0;
        }
        if (there) {
            continue;
        }
        if (*count == max) {
            return status_fail(msg, STATUS_LIMIT, "CDI: more than %zu nodes or mounts", max);
        }
        to[*count].inside = arena_text(a, from[i].inside, strlen(from[i].inside));
        to[*count].outside = arena_text(a, from[i].outside, strlen(from[i].outside));
        if (to[*count].inside == NULL || to[*count].outside == NULL) {
            return status_of(STATUS_NOMEM);
        }
        (*count)++;
    }
    return status_ok();
}

/* The first value of a variable counts. */
static struct status env_add(struct arena *a, struct cdi_edits *to, const char *text,
                             struct errmsg *msg)
{
    size_t key = (size_t)(strchr(text, '=') - text) + 1;
    for (size_t k = 0; k < to->env_count; k++) {
        if (strncmp(to->env[k], text, key) == 0) {
            return status_ok();
        }
    }
    if (to->env_count == CDI_ENV_MAX) {
        return status_fail(msg, STATUS_LIMIT, "CDI: more than %d variables", CDI_ENV_MAX);
    }
    to->env[to->env_count] = arena_text(a, text, strlen(text));
    return to->env[to->env_count++] != NULL ? status_ok() : status_of(STATUS_NOMEM);
}

static struct status edits_add(struct arena *a, struct cdi_edits *to, const struct cdi_edits *from,
                               struct errmsg *msg)
{
    TRY(paths_add(a, to->nodes, &to->nodes_count, CDI_NODES_MAX, from->nodes, from->nodes_count,
                  msg));
    TRY(paths_add(a, to->mounts, &to->mounts_count, CDI_MOUNTS_MAX, from->mounts,
                  from->mounts_count, msg));
    for (size_t i = 0; i < from->env_count; i++) {
        TRY(env_add(a, to, from->env[i], msg));
    }
    to->hooks += from->hooks;
    return status_ok();
}

static struct status devices_add(const struct files *files, const struct cdi_wanted *wanted,
                                 size_t count, struct arena *a, struct cdi_edits *out,
                                 struct errmsg *msg)
{
    bool used[CDI_FILES_MAX] = {false};
    size_t devices = 0;
    for (size_t i = 0; i < files->count; i++) {
        devices += files->specs[i].devices_count;
    }
    if (devices == 0) {
        return status_fail(msg, STATUS_NOT_FOUND, "no CDI file has devices of this kind");
    }
    for (size_t i = 0; i < count; i++) {
        size_t file;
        const struct cdi_device *d = device_find(files, &wanted[i], &file);
        if (d == NULL) {
            return status_fail(msg, STATUS_CONFLICT, "no CDI file has the device %.95s",
                               wanted[i].names[0]);
        }
        TRY(edits_add(a, out, &d->edits, msg));
        if (!used[file]) {
            used[file] = true;
            TRY(edits_add(a, out, &files->specs[file].edits, msg));
        }
    }
    return status_ok();
}

struct status cdi_collect(const char *const *folders, size_t folders_count, const char *kind,
                          const struct cdi_wanted *wanted, size_t count, struct arena *a,
                          struct cdi_edits *out, struct errmsg *broken, struct errmsg *msg)
{
    struct files *files = mem_zalloc(1, sizeof *files);
    struct cdi_edits edits = {.nodes = arena_zalloc(a, CDI_NODES_MAX, sizeof(struct cdi_path)),
                              .mounts = arena_zalloc(a, CDI_MOUNTS_MAX, sizeof(struct cdi_path)),
                              .env = arena_zalloc(a, CDI_ENV_MAX, sizeof(char *))};
    broken->text[0] = '\0';
    if (files == NULL || edits.nodes == NULL || edits.mounts == NULL || edits.env == NULL) {
        mem_free(files);
        return status_of(STATUS_NOMEM);
    }
    for (size_t i = 0; i < folders_count; i++) {
        folder_load(folders[i], kind, files, broken);
    }
    struct status s = devices_add(files, wanted, count, a, &edits, msg);
    for (size_t i = 0; i < files->count; i++) {
        cdi_spec_close(&files->specs[i]);
    }
    mem_free(files);
    TRY(s);
    *out = edits;
    return status_ok();
}

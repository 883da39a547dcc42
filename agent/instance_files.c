#include "agent/instance_files.h"

#include "agent/cell/cell.h"
#include "agent/inflight.h"
#include "agent/runners/runner_args.h"
#include "common/check.h"
#include "common/cleanup.h"
#include "common/image_ref.h"
#include "common/manifest.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

void instance_meta_of(const struct start *s, const char *cgroup, struct instance_meta *out)
{
    *out = (struct instance_meta){
        .instance = s->instance,
        .revision = s->revision,
        .concurrency = s->spec->concurrency,
        .cpu_millis = s->spec->cpu_millis,
        .memory_bytes = s->spec->memory_bytes,
        .timeout_ms = s->spec->timeout_ms,
    };
    (void)snprintf(out->function.text, sizeof out->function.text, "%s", s->spec->name);
    (void)snprintf(out->cgroup, sizeof out->cgroup, "%s", cgroup);
    struct image_ref ref = {.pinned = false};
    if (s->spec->image != NULL && s->spec->image[0] != '\0') {
        (void)!status_is_ok(image_ref_parse(s->spec->image, &ref, NULL)); /* instances.c checks */
    }
    out->image = ref.digest;
    for (size_t i = 0; i < s->gpus_count && i < GPUS_MAX; i++) {
        (void)snprintf(out->gpus[out->gpus_count++], GPU_TEXT_BYTES, "%s", s->gpus[i].text);
    }
}

struct status instance_meta_encode(const struct instance_meta *m, struct buffer *json)
{
    char instance[ID_STRING_BYTES];
    char revision[DIGEST_STRING_BYTES];
    char image[DIGEST_STRING_BYTES];
    digest_format(&m->image, image);
    id_format(m->instance, INSTANCE_PREFIX, instance);
    digest_format(&m->revision, revision);
    json_t *gpus = json_array();
    for (size_t i = 0; gpus != NULL && i < m->gpus_count; i++) {
        if (json_array_append_new(gpus, json_string(m->gpus[i])) != 0) {
            json_decref(gpus);
            return status_of(STATUS_NOMEM);
        }
    }
    json_t *root =
        json_pack("{ss ss ss sI sI sI sI ss sI ss so}", "instance", instance, "revision", revision,
                  "function", m->function.text, "concurrency", (json_int_t)m->concurrency,
                  "cpu_millis", (json_int_t)m->cpu_millis, "memory_bytes",
                  (json_int_t)m->memory_bytes, "timeout_ms", (json_int_t)m->timeout_ms, "cgroup",
                  m->cgroup, "uid", (json_int_t)m->uid, "image", image, "gpus", gpus);
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text == NULL) {
        return status_of(STATUS_NOMEM);
    }
    struct status s = buffer_append(json, text, strlen(text));
    free(text);
    return s;
}

/* What json_unpack borrows from the parsed text. */
struct meta_texts {
    const char *instance, *revision, *function, *cgroup;
    const char *image; /* NULL: written by an agent that had none */
    json_int_t concurrency, cpu_millis, memory_bytes, timeout_ms, uid;
    const json_t *gpus; /* NULL: an agent of before wrote it */
};

static struct status gpus_of_texts(const json_t *gpus, struct instance_meta *m, struct errmsg *msg)
{
    if (gpus != NULL && (!json_is_array(gpus) || json_array_size(gpus) > GPUS_MAX)) {
        return status_fail(msg, STATUS_INVALID, "gpus: no list of at most %d", GPUS_MAX);
    }
    for (size_t i = 0; i < json_array_size(gpus); i++) {
        const json_t *uuid = json_array_get(gpus, i);
        if (!json_is_string(uuid) || json_string_length(uuid) >= GPU_TEXT_BYTES) {
            return status_fail(msg, STATUS_INVALID, "gpus: no name of a device");
        }
        (void)snprintf(m->gpus[m->gpus_count++], GPU_TEXT_BYTES, "%s", json_string_value(uuid));
    }
    return status_ok();
}

static struct status meta_of_texts(const struct meta_texts *t, struct instance_meta *out,
                                   struct errmsg *msg)
{
    struct instance_meta m = {
        .concurrency = (uint32_t)t->concurrency,
        .cpu_millis = (uint32_t)t->cpu_millis,
        .memory_bytes = (uint64_t)t->memory_bytes,
        .timeout_ms = (uint64_t)t->timeout_ms,
        .uid = (uint32_t)t->uid,
    };
    TRY(id_parse(t->instance, INSTANCE_PREFIX, &m.instance, msg));
    TRY(digest_parse(t->revision, &m.revision, msg));
    TRY(t->image == NULL ? status_ok() : digest_parse(t->image, &m.image, msg));
    TRY(name_parse("function", t->function, strlen(t->function), &m.function, msg));
    if (t->concurrency < 1 || t->concurrency > INFLIGHT_SLOTS_MAX || t->cpu_millis < 0 ||
        t->cpu_millis > INT32_MAX || t->memory_bytes < 0 || t->timeout_ms < 0 || t->uid < 0 ||
        t->uid > UINT32_MAX || strlen(t->cgroup) >= sizeof m.cgroup) {
        return status_fail(msg, STATUS_INVALID, "a value is out of range");
    }
    (void)snprintf(m.cgroup, sizeof m.cgroup, "%s", t->cgroup);
    TRY(gpus_of_texts(t->gpus, &m, msg));
    *out = m;
    return status_ok();
}

struct status instance_meta_decode(struct bytes json, struct instance_meta *out, struct errmsg *msg)
{
    if (json.size > INSTANCE_META_BYTES_MAX) {
        return status_fail(msg, STATUS_CORRUPT, "meta.json: over %d bytes",
                           INSTANCE_META_BYTES_MAX);
    }
    json_error_t error;
    json_t *root = json_loadb((const char *)json.data, json.size, JSON_REJECT_DUPLICATES, &error);
    struct meta_texts t = {.image = NULL, .gpus = NULL};
    if (root == NULL ||
        json_unpack_ex(root, &error, JSON_STRICT, "{ss ss ss sI sI sI sI ss s?I s?s s?o}",
                       "instance", &t.instance, "revision", &t.revision, "function", &t.function,
                       "concurrency", &t.concurrency, "cpu_millis", &t.cpu_millis, "memory_bytes",
                       &t.memory_bytes, "timeout_ms", &t.timeout_ms, "cgroup", &t.cgroup, "uid",
                       &t.uid, "image", &t.image, "gpus", &t.gpus) != 0) {
        json_decref(root);
        return status_fail(msg, STATUS_CORRUPT, "meta.json: %.200s", error.text);
    }
    struct status s = meta_of_texts(&t, out, msg);
    json_decref(root);
    if (!status_is_ok(s)) {
        return status_prefix(msg, status_of(STATUS_CORRUPT), "meta.json");
    }
    return s;
}

static struct status file_write(const char *folder, const char *name, const struct buffer *text,
                                struct errmsg *msg)
{
    char path[INSTANCE_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    for (size_t done = 0; done < text->size;) {
        ssize_t n = write(fd, text->data + done, text->size - done);
        if (n < 0) {
            return status_fail(msg, status_from_errno(errno), "write %s: %s", path,
                               strerror(errno));
        }
        done += (size_t)n;
    }
    return status_ok();
}

struct status instance_meta_read(const char *folder, struct instance_meta *out, struct errmsg *msg)
{
    char path[INSTANCE_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/meta.json", folder);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    char text[INSTANCE_META_BYTES_MAX + 1];
    ssize_t n = pread(fd, text, sizeof text, 0);
    if (n < 0) {
        return status_fail(msg, status_from_errno(errno), "read %s: %s", path, strerror(errno));
    }
    return instance_meta_decode(bytes_of(text, (size_t)n), out, msg);
}

/* ---- The cell's specification ---- */

/* Code, runners, the resolver's file. */
enum { MOUNTS_PLAIN = 3 };

/* cell_spec's heap parts, of fixed size: filled from the front. */
struct spec_parts {
    struct cell_spec spec;
    struct cell_mount *mounts;  /* CELL_MOUNTS_MAX when there are GPUs, MOUNTS_PLAIN otherwise */
    struct cell_mount *devices; /* CELL_DEVICES_MAX, or NULL */
    char *env[CELL_ENV_MAX];
    char env_text[CELL_ENV_MAX][MANIFEST_ENV_KEY_BYTES_MAX + MANIFEST_ENV_VALUE_BYTES_MAX + 2];
};

static bool env_has(const struct function_spec *f, const char *key)
{
    for (size_t i = 0; i < f->env_count; i++) {
        if (strcmp(f->env[i].key, key) == 0) {
            return true;
        }
    }
    return false;
}

static struct status env_add(struct spec_parts *p, const char *key, const char *value,
                             struct errmsg *msg)
{
    if (p->spec.env_count >= CELL_ENV_MAX) {
        return status_fail(msg, STATUS_LIMIT, "env: more than %d variables", CELL_ENV_MAX);
    }
    char *at = p->env_text[p->spec.env_count];
    int n = snprintf(at, sizeof p->env_text[0], "%s=%s", key, value);
    if (n < 0 || (size_t)n >= sizeof p->env_text[0]) {
        return status_fail(msg, STATUS_LIMIT, "env: %.64s is too long", key);
    }
    p->env[p->spec.env_count++] = at;
    return status_ok();
}

static bool env_is_there(const struct spec_parts *p, const char *text)
{
    size_t key = (size_t)(strchr(text, '=') - text) + 1;
    for (size_t i = 0; i < p->spec.env_count; i++) {
        if (strncmp(p->env[i], text, key) == 0) {
            return true;
        }
    }
    return false;
}

/* What CDI files say comes last: the function's variables and ours are there already. */
static struct status gpu_env_fill(struct spec_parts *p, const struct gpu_edits *gpu,
                                  struct errmsg *msg)
{
    if (gpu->libraries && !env_is_there(p, "LD_LIBRARY_PATH=")) {
        TRY(env_add(p, "LD_LIBRARY_PATH", INJECT_LIBRARIES, msg));
    }
    for (size_t i = 0; i < gpu->edits.env_count; i++) {
        const char *text = gpu->edits.env[i];
        char key[CDI_TEXT_BYTES_MAX + 1];
        const char *equals = strchr(text, '=');
        (void)snprintf(key, sizeof key, "%.*s", (int)(equals - text), text);
        if (!env_is_there(p, text)) {
            TRY(env_add(p, key, equals + 1, msg));
        }
    }
    return status_ok();
}

static struct status env_fill(struct spec_parts *p, const struct start *s,
                              const struct instance_place *place, struct errmsg *msg)
{
    const struct function_spec *f = s->spec;
    for (size_t i = 0; i < f->env_count; i++) {
        TRY(env_add(p, f->env[i].key, f->env[i].value, msg));
    }
    char concurrency[16];
    (void)snprintf(concurrency, sizeof concurrency, "%u", f->concurrency);
    char gpus[MANIFEST_ENV_VALUE_BYTES_MAX + 1] = "";
    size_t used = 0;
    for (size_t i = 0; i < s->gpus_count && used < sizeof gpus; i++) {
        used += (size_t)snprintf(gpus + used, sizeof gpus - used, "%s%s", i == 0 ? "" : ",",
                                 s->gpus[i].text);
    }
    if (used >= sizeof gpus) {
        return status_fail(msg, STATUS_LIMIT, "env: the names of the GPUs are too long");
    }
    const struct gpu_edits *gpu = place->gpu;
    bool programs = gpu != NULL && gpu->programs;
    const struct pair ours[] = {
        {.key = "PATH",
         .value = programs ? "/usr/local/bin:/usr/bin:/bin:" INJECT_PROGRAMS
                           : "/usr/local/bin:/usr/bin:/bin"},
        {.key = "HOME", .value = "/tmp"},
        {.key = "SKEP_FUNCTION", .value = f->name},
        {.key = "SKEP_INSTANCE", .value = p->spec.instance},
        {.key = "SKEP_NODE", .value = place->node},
        {.key = "SKEP_CONCURRENCY", .value = concurrency},
    };
    if (s->gpus_count > 0) {
        TRY(env_add(p, "SKEP_GPUS", gpus, msg));
        if (!env_has(f, "NVIDIA_VISIBLE_DEVICES")) {
            TRY(env_add(p, "NVIDIA_VISIBLE_DEVICES", gpus, msg));
        }
    }
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        if (!env_has(f, ours[i].key)) {
            TRY(env_add(p, ours[i].key, ours[i].value, msg));
        }
    }
    return gpu != NULL ? gpu_env_fill(p, gpu, msg) : status_ok();
}

static struct status text_fill(char *to, size_t size, const char *from, const char *what,
                               struct errmsg *msg)
{
    int n = snprintf(to, size, "%s", from);
    if (n < 0 || (size_t)n >= size) {
        return status_fail(msg, STATUS_LIMIT, "%s is too long", what);
    }
    return status_ok();
}

static struct status net_fill(struct spec_parts *p, const struct instance_place *place,
                              struct errmsg *msg)
{
    if (place->netns != NULL) {
        TRY(text_fill(p->spec.netns, sizeof p->spec.netns, place->netns,
                      "the network namespace's path", msg));
    }
    if (place->resolv == NULL || place->resolv[0] == '\0') {
        return status_ok();
    }
    struct cell_mount *m = &p->mounts[p->spec.mounts_count++];
    TRY(text_fill(m->source, CELL_STRING_BYTES_MAX, place->resolv, "the resolver's path", msg));
    return text_fill(m->target, CELL_STRING_BYTES_MAX, "/etc/resolv.conf", "the resolver's target",
                     msg);
}

static struct status path_fill(struct cell_mount *to, const struct cdi_path *from,
                               struct errmsg *msg)
{
    TRY(text_fill(to->source, CELL_STRING_BYTES_MAX, from->outside, "a GPU's path", msg));
    return text_fill(to->target, CELL_STRING_BYTES_MAX, from->inside, "a GPU's path", msg);
}

static struct status gpu_fill(struct spec_parts *p, const struct cdi_edits *e, struct errmsg *msg)
{
    struct cell_spec *spec = &p->spec;
    if (e->mounts_count + spec->mounts_count > CELL_MOUNTS_MAX ||
        e->nodes_count > CELL_DEVICES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "GPU: %zu mounts and %zu nodes, at most %zu and %d",
                           e->mounts_count, e->nodes_count, CELL_MOUNTS_MAX - spec->mounts_count,
                           CELL_DEVICES_MAX);
    }
    for (size_t i = 0; i < e->mounts_count; i++) {
        TRY(path_fill(&p->mounts[spec->mounts_count++], &e->mounts[i], msg));
    }
    for (size_t i = 0; i < e->nodes_count; i++) {
        TRY(path_fill(&p->devices[spec->devices_count++], &e->nodes[i], msg));
    }
    spec->devices = p->devices;
    spec->gpu = e->nodes_count > 0;
    return status_ok();
}

static struct status spec_fill(struct spec_parts *p, const struct start *s,
                               const struct instance_place *place, struct errmsg *msg)
{
    const struct function_spec *f = s->spec;
    struct cell_spec *spec = &p->spec;
    spec->mounts = p->mounts;
    spec->mounts_count = 2;
    spec->env = p->env;
    id_format(s->instance, INSTANCE_PREFIX, spec->instance);
    TRY(text_fill(spec->hostname, sizeof spec->hostname, place->node, "the node's name", msg));
    TRY(text_fill(spec->root, sizeof spec->root, place->root == NULL ? "" : place->root,
                  "cells.root", msg));
    TRY(text_fill(p->mounts[0].source, CELL_STRING_BYTES_MAX, place->code, "the code's path", msg));
    TRY(text_fill(p->mounts[0].target, CELL_STRING_BYTES_MAX, RUNNER_APP_FOLDER,
                  "the code's target", msg));
    TRY(text_fill(p->mounts[1].source, CELL_STRING_BYTES_MAX, place->runners, "the runners' path",
                  msg));
    TRY(text_fill(p->mounts[1].target, CELL_STRING_BYTES_MAX, RUNNER_FILES_FOLDER,
                  "the runners' target", msg));
    TRY(text_fill(spec->workdir, sizeof spec->workdir, RUNNER_APP_FOLDER, "the working folder",
                  msg));
    TRY(text_fill(spec->cgroup, sizeof spec->cgroup, place->cgroup, "the cgroup's path", msg));
    TRY(net_fill(p, place, msg));
    TRY(text_fill(spec->runsc, sizeof spec->runsc, place->runsc == NULL ? "" : place->runsc,
                  "gvisor.program", msg));
    TRY(text_fill(spec->platform, sizeof spec->platform,
                  place->platform == NULL ? "" : place->platform, "the platform", msg));
    spec->memory_bytes = f->memory_bytes;
    spec->cpu_millis = f->cpu_millis;
    spec->pids_max = f->processes_max != 0 ? f->processes_max : MANIFEST_PROCESSES_DEFAULT;
    spec->tmp_bytes = f->tmp_bytes != 0 ? f->tmp_bytes : MANIFEST_TMP_BYTES_DEFAULT;
    if (place->gpu != NULL) {
        TRY(gpu_fill(p, &place->gpu->edits, msg));
    }
    return env_fill(p, s, place, msg);
}

static struct status spec_write(struct spec_parts *p, const char *folder, const struct start *s,
                                const struct instance_place *place, uint32_t uid,
                                struct errmsg *msg)
{
    TRY(spec_fill(p, s, place, msg));
    p->spec.uid = uid;
    p->spec.walls_not_needed = place->walls_not_needed;
    p->spec.io_bps = place->io_bps;
    const char *words[MANIFEST_COMMAND_ARGS_MAX + 1] = {NULL};
    if (s->spec->command_count > MANIFEST_COMMAND_ARGS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "command: more than %d words",
                           MANIFEST_COMMAND_ARGS_MAX);
    }
    for (size_t i = 0; i < s->spec->command_count; i++) {
        words[i] = s->spec->command[i].text;
    }
    const struct runner_recipe recipe = {
        .runtime = s->spec->runtime,
        .handler = s->spec->handler,
        .command = s->spec->command_count > 0 ? words : NULL,
        .command_count = s->spec->command_count,
    };
    struct runner_args args = {0};
    TRY(runner_args_make(&recipe, &args, msg));
    p->spec.args = args.items;
    p->spec.args_count = args.count;
    struct buffer json = {0};
    struct status status = cell_spec_encode(&p->spec, &json, msg);
    if (status_is_ok(status)) {
        status = file_write(folder, "spec.json", &json, msg);
    }
    buffer_close(&json);
    runner_args_close(&args);
    return status;
}

struct status instance_files_write(const char *folder, const struct start *s,
                                   const struct instance_place *place,
                                   const struct instance_meta *meta, struct errmsg *msg)
{
    struct spec_parts *p = mem_zalloc(1, sizeof *p);
    if (p == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    bool gpus = s->gpus_count > 0;
    p->mounts = mem_zalloc(gpus ? CELL_MOUNTS_MAX : MOUNTS_PLAIN, sizeof *p->mounts);
    p->devices = gpus ? mem_zalloc(CELL_DEVICES_MAX, sizeof *p->devices) : NULL;
    struct status status = p->mounts == NULL || (gpus && p->devices == NULL)
                               ? status_fail(msg, STATUS_NOMEM, "out of memory")
                               : spec_write(p, folder, s, place, meta->uid, msg);
    mem_free(p->mounts);
    mem_free(p->devices);
    mem_free(p);
    TRY(status);
    struct buffer json = {0};
    status = instance_meta_encode(meta, &json);
    if (status_is_ok(status)) {
        status = file_write(folder, "meta.json", &json, msg);
    }
    buffer_close(&json);
    return status;
}

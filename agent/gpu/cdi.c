/* Both languages become one tree, of jansson's: a YAML file's scalars are texts there, so that
 * numbers may be either. */
#include "agent/gpu/cdi.h"

#include "common/mem.h"
#include "common/yamldoc.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static json_t *tree_of_yaml(const struct yamlnode *n)
{
    if (n->kind == YAMLNODE_SCALAR) {
        return json_string(n->text);
    }
    json_t *to = n->kind == YAMLNODE_MAP ? json_object() : json_array();
    /* yamldoc bounds the depth. */
    for (const struct yamlnode *c = n->first; to != NULL && c != NULL; c = c->next) {
        json_t *child = tree_of_yaml(c);
        int rc = n->kind == YAMLNODE_MAP ? json_object_set_new(to, c->key, child)
                                         : json_array_append_new(to, child);
        if (rc != 0) {
            json_decref(to);
            return NULL;
        }
    }
    return to;
}

static struct status tree_read(const char *name, struct bytes text, bool yaml, json_t **out,
                               struct errmsg *msg)
{
    if (text.size > CDI_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s: more than %d bytes", name, CDI_BYTES_MAX);
    }
    if (!yaml) {
        json_error_t error;
        *out = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &error);
        return *out != NULL
                   ? status_ok()
                   : status_fail(msg, STATUS_INVALID, "%s:%d: %s", name, error.line, error.text);
    }
    struct yamldoc *d;
    TRY(yamldoc_parse(&d, name, text, msg));
    *out = d->root == NULL ? json_null() : tree_of_yaml(d->root);
    yamldoc_close(d);
    return *out != NULL ? status_ok()
                        : status_fail(msg, STATUS_INVALID, "%s: a text is not UTF-8", name);
}

/* ---- Decoding ---- */

struct decoder {
    struct arena *arena;
    const char *name; /* of the file */
    struct errmsg *msg;
};

__attribute__((format(printf, 2, 3))) static struct status bad(struct decoder *d,
                                                               const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return status_fail(d->msg, STATUS_INVALID, "%s: %s", d->name, text);
}

/* *out stays NULL when the key is not there. */
static struct status text_take(struct decoder *d, const json_t *object, const char *key,
                               const char **out)
{
    const json_t *value = json_object_get(object, key);
    *out = NULL;
    if (value == NULL) {
        return status_ok();
    }
    if (!json_is_string(value) || json_string_length(value) == 0 ||
        json_string_length(value) > CDI_TEXT_BYTES_MAX) {
        return bad(d, "%s: a text of 1 to %d bytes is needed", key, CDI_TEXT_BYTES_MAX);
    }
    *out = arena_text(d->arena, json_string_value(value), json_string_length(value));
    return *out != NULL ? status_ok() : status_of(STATUS_NOMEM);
}

/* Absolute, and without empty, "." and ".." parts. */
static bool path_is_plain(const char *path)
{
    if (path[0] != '/') {
        return false;
    }
    for (const char *at = path + 1;; at++) {
        size_t size = strcspn(at, "/");
        if (size == 0 || (size == 1 && at[0] == '.') || (size == 2 && memcmp(at, "..", 2) == 0)) {
            return false;
        }
        at += size;
        if (*at == '\0') {
            return true;
        }
    }
}

static struct status path_take(struct decoder *d, const json_t *object, const char *key,
                               const char **out)
{
    TRY(text_take(d, object, key, out));
    if (*out != NULL && !path_is_plain(*out)) {
        return bad(d, "%s: not a plain absolute path: %.128s", key, *out);
    }
    return status_ok();
}

static struct status node_take(struct decoder *d, const json_t *entry, struct cdi_path *out)
{
    const char *type;
    TRY(path_take(d, entry, "path", &out->inside));
    TRY(path_take(d, entry, "hostPath", &out->outside));
    TRY(text_take(d, entry, "type", &type));
    if (out->inside == NULL || strncmp(out->inside, "/dev/", 5) != 0) {
        return bad(d, "deviceNodes: a path below /dev is needed");
    }
    if (type != NULL && strcmp(type, "c") != 0 && strcmp(type, "u") != 0) {
        return bad(d, "deviceNodes: type %.32s: only character devices are given to cells", type);
    }
    out->outside = out->outside == NULL ? out->inside : out->outside;
    return status_ok();
}

static struct status mount_take(struct decoder *d, const json_t *entry, struct cdi_path *out)
{
    TRY(path_take(d, entry, "hostPath", &out->outside));
    TRY(path_take(d, entry, "containerPath", &out->inside));
    return out->outside != NULL && out->inside != NULL
               ? status_ok()
               : bad(d, "mounts: hostPath and containerPath are needed");
}

/* How many entries the list has; 0 when it is not there. */
static struct status list_size(struct decoder *d, const json_t *object, const char *key, size_t max,
                               const json_t **list, size_t *size)
{
    *list = json_object_get(object, key);
    *size = 0;
    if (*list == NULL || json_is_null(*list)) {
        return status_ok();
    }
    if (!json_is_array(*list)) {
        return bad(d, "%s: a list is needed", key);
    }
    if (json_array_size(*list) > max) {
        return status_fail(d->msg, STATUS_LIMIT, "%s: %s: more than %zu entries", d->name, key,
                           max);
    }
    *size = json_array_size(*list);
    return status_ok();
}

static struct status
paths_take(struct decoder *d, const json_t *object, const char *key, size_t max,
           struct status (*take)(struct decoder *d, const json_t *entry, struct cdi_path *out),
           struct cdi_path **out, size_t *count)
{
    const json_t *list;
    size_t size;
    TRY(list_size(d, object, key, max, &list, &size));
    *out = arena_zalloc(d->arena, size, sizeof **out);
    if (*out == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (; *count < size; (*count)++) {
        const json_t *entry = json_array_get(list, *count);
        if (!json_is_object(entry)) {
            return bad(d, "%s[%zu]: a mapping is needed", key, *count);
        }
        TRY(take(d, entry, &(*out)[*count]));
    }
    return status_ok();
}

static struct status env_take(struct decoder *d, const json_t *object, struct cdi_edits *out)
{
    const json_t *list;
    size_t size;
    TRY(list_size(d, object, "env", CDI_ENV_MAX, &list, &size));
    out->env = arena_zalloc(d->arena, size, sizeof *out->env);
    if (out->env == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (; out->env_count < size; out->env_count++) {
        const json_t *entry = json_array_get(list, out->env_count);
        const char *text = json_string_value(entry);
        const char *equals = text == NULL ? NULL : strchr(text, '=');
        if (equals == NULL || equals == text || json_string_length(entry) > CDI_TEXT_BYTES_MAX) {
            return bad(d, "env[%zu]: KEY=VALUE of at most %d bytes is needed", out->env_count,
                       CDI_TEXT_BYTES_MAX);
        }
        out->env[out->env_count] = arena_text(d->arena, text, json_string_length(entry));
        if (out->env[out->env_count] == NULL) {
            return status_of(STATUS_NOMEM);
        }
    }
    return status_ok();
}

static struct status edits_take(struct decoder *d, const json_t *parent, struct cdi_edits *out)
{
    const json_t *edits = json_object_get(parent, "containerEdits");
    const json_t *hooks;
    size_t count;
    if (edits == NULL || json_is_null(edits)) {
        return status_ok();
    }
    if (!json_is_object(edits)) {
        return bad(d, "containerEdits: a mapping is needed");
    }
    TRY(paths_take(d, edits, "deviceNodes", CDI_NODES_MAX, node_take, &out->nodes,
                   &out->nodes_count));
    TRY(paths_take(d, edits, "mounts", CDI_MOUNTS_MAX, mount_take, &out->mounts,
                   &out->mounts_count));
    TRY(env_take(d, edits, out));
    TRY(list_size(d, edits, "hooks", CDI_MOUNTS_MAX, &hooks, &count));
    out->hooks = (uint32_t)count;
    return status_ok();
}

static struct status devices_take(struct decoder *d, const json_t *root, struct cdi_spec *out)
{
    const json_t *list;
    size_t size;
    TRY(list_size(d, root, "devices", CDI_DEVICES_MAX, &list, &size));
    out->devices = arena_zalloc(d->arena, size, sizeof *out->devices);
    if (out->devices == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (; out->devices_count < size; out->devices_count++) {
        const json_t *entry = json_array_get(list, out->devices_count);
        struct cdi_device *to = &out->devices[out->devices_count];
        TRY(text_take(d, entry, "name", &to->name));
        if (to->name == NULL) {
            return bad(d, "devices[%zu]: a name is needed", out->devices_count);
        }
        TRY(edits_take(d, entry, &to->edits));
    }
    return status_ok();
}

static struct status version_check(struct decoder *d, const json_t *root)
{
    static const char *const known[] = {"0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "1.0"};
    const char *version;
    TRY(text_take(d, root, "cdiVersion", &version));
    for (size_t i = 0; version != NULL && i < sizeof known / sizeof known[0]; i++) {
        if (strncmp(version, known[i], 3) == 0 && (version[3] == '.' || version[3] == '\0')) {
            return status_ok();
        }
    }
    return status_fail(d->msg, STATUS_UNSUPPORTED, "%s: cdiVersion %.32s is not one of 0.3 to 1.0",
                       d->name, version == NULL ? "(none)" : version);
}

static struct status spec_take(struct decoder *d, const json_t *root, struct cdi_spec *out)
{
    if (!json_is_object(root)) {
        return bad(d, "a mapping is needed");
    }
    TRY(version_check(d, root));
    TRY(text_take(d, root, "kind", &out->kind));
    if (out->kind == NULL) {
        return bad(d, "kind: is missing");
    }
    TRY(edits_take(d, root, &out->edits));
    return devices_take(d, root, out);
}

struct status cdi_parse(const char *name, struct bytes text, bool yaml, struct cdi_spec *out,
                        struct errmsg *msg)
{
    json_t *root;
    TRY(tree_read(name, text, yaml, &root, msg));
    struct cdi_spec spec = {.kind = NULL};
    struct decoder d = {&spec.arena, name, msg};
    struct status s = spec_take(&d, root, &spec);
    json_decref(root);
    if (!status_is_ok(s)) {
        arena_close(&spec.arena);
        return s.code == STATUS_NOMEM ? status_fail(msg, STATUS_NOMEM, "%s: out of memory", name)
                                      : s;
    }
    *out = spec;
    return status_ok();
}

void cdi_spec_close(struct cdi_spec *spec)
{
    arena_close(&spec->arena);
}

/* The codec of spec.json and exit.json: tables of fields, so that both directions read like the
 * format.
 *
 * Thread: any; no shared state. */
#include "agent/cell/cell.h"

#include "agent/cell/logring.h"
#include "common/check.h"
#include "common/mem.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

enum field_kind {
    FIELD_TEXT,
    FIELD_U32,
    FIELD_U64,
    FIELD_ARGS,
    FIELD_ENV,
    FIELD_MOUNTS,
    FIELD_DEVICES,
    FIELD_WALLS
};

struct field {
    const char *key;
    enum field_kind kind;
    bool required;
    size_t offset;
    size_t size; /* of a text, with its NUL */
    uint64_t min;
    uint64_t max;
};

#define TEXT_FIELD(name, needed)                                                                   \
    {                                                                                              \
#name, FIELD_TEXT, needed, offsetof(struct cell_spec, name),                               \
            sizeof((struct cell_spec *)NULL)->name, 0, 0                                           \
    }
#define NUMBER_FIELD(name, kind, needed, low, high)                                                \
    {                                                                                              \
#name, kind, needed, offsetof(struct cell_spec, name), 0, low, high                        \
    }
#define LIST_FIELD(name, kind, needed, high)                                                       \
    {                                                                                              \
#name, kind, needed, 0, 0, (needed) ? 1 : 0, high                                          \
    }

static const struct field fields[] = {
    TEXT_FIELD(instance, true),
    TEXT_FIELD(hostname, false),
    TEXT_FIELD(root, false),
    LIST_FIELD(mounts, FIELD_MOUNTS, false, CELL_MOUNTS_MAX),
    LIST_FIELD(devices, FIELD_DEVICES, false, CELL_DEVICES_MAX),
    NUMBER_FIELD(gpu, FIELD_U32, false, 1, 1),
    LIST_FIELD(args, FIELD_ARGS, true, CELL_ARGS_MAX),
    LIST_FIELD(env, FIELD_ENV, false, CELL_ENV_MAX),
    TEXT_FIELD(workdir, false),
    NUMBER_FIELD(memory_bytes, FIELD_U64, true, CELL_MEMORY_BYTES_MIN, 1ULL << 46),
    NUMBER_FIELD(cpu_millis, FIELD_U32, true, CELL_CPU_MILLIS_MIN, 1000000),
    NUMBER_FIELD(pids_max, FIELD_U32, true, 1, 1 << 20),
    NUMBER_FIELD(tmp_bytes, FIELD_U64, true, 4096, 1ULL << 46),
    NUMBER_FIELD(files_max, FIELD_U32, false, 16, 1 << 20),
    NUMBER_FIELD(log_bytes, FIELD_U64, false, LOGRING_BYTES_MIN, LOGRING_BYTES_MAX),
    NUMBER_FIELD(stop_ms, FIELD_U32, false, 1, 600000),
    TEXT_FIELD(cgroup, false),
    TEXT_FIELD(netns, false),
    NUMBER_FIELD(uid, FIELD_U32, false, 1, UINT32_MAX - 1),
    LIST_FIELD(walls_not_needed, FIELD_WALLS, false, WALLS_COUNT_),
    NUMBER_FIELD(io_bps, FIELD_U64, false, CELL_IO_BPS_MIN, 1ULL << 46),
    TEXT_FIELD(runsc, false),
    TEXT_FIELD(platform, false),
};
enum { FIELDS_COUNT = sizeof fields / sizeof fields[0] };

static char *text_of(const struct cell_spec *spec, const struct field *f)
{
    return (char *)(uintptr_t)spec + f->offset;
}

static uint64_t number_of(const struct cell_spec *spec, const struct field *f)
{
    const char *at = (const char *)spec + f->offset;
    uint64_t value = 0;
    if (f->kind == FIELD_U64) {
        memcpy(&value, at, sizeof value);
    } else {
        uint32_t half = 0;
        memcpy(&half, at, sizeof half);
        value = half;
    }
    return value;
}

static void number_put(struct cell_spec *spec, const struct field *f, uint64_t value)
{
    char *at = (char *)spec + f->offset;
    if (f->kind == FIELD_U64) {
        memcpy(at, &value, sizeof value);
    } else {
        uint32_t half = (uint32_t)value;
        memcpy(at, &half, sizeof half);
    }
}

void cell_spec_close(struct cell_spec *spec)
{
    for (size_t i = 0; i < spec->args_count; i++) {
        mem_free(spec->args[i]);
    }
    for (size_t i = 0; i < spec->env_count; i++) {
        mem_free(spec->env[i]);
    }
    mem_free(spec->args);
    mem_free(spec->env);
    mem_free(spec->mounts);
    mem_free(spec->devices);
    memset(spec, 0, sizeof *spec);
}

/* Encoding. */

static int append_chunk(const char *data, size_t size, void *to)
{
    return status_is_ok(buffer_append(to, data, size)) ? 0 : -1;
}

/* jansson says no to a text for two reasons; only one of them is memory. */
static struct status set_text(json_t *object, const char *key, const char *text, struct errmsg *msg)
{
    json_t *value = json_string(text);
    if (value == NULL) {
        return status_fail(msg, STATUS_INVALID, "%s: not UTF-8", key);
    }
    return json_object_set_new(object, key, value) == 0 ? status_ok() : status_of(STATUS_NOMEM);
}

static struct status set_texts(json_t *object, const char *key, char *const *texts, size_t count,
                               struct errmsg *msg)
{
    json_t *list = json_array();
    if (list == NULL || json_object_set_new(object, key, list) != 0) {
        return status_of(STATUS_NOMEM);
    }
    for (size_t i = 0; i < count; i++) {
        json_t *value = json_string(texts[i]);
        if (value == NULL) {
            return status_fail(msg, STATUS_INVALID, "%s[%zu]: not UTF-8", key, i);
        }
        if (json_array_append_new(list, value) != 0) {
            return status_of(STATUS_NOMEM);
        }
    }
    return status_ok();
}

static struct status set_mounts(json_t *object, const char *key, const struct cell_mount *mounts,
                                size_t count, struct errmsg *msg)
{
    json_t *list = json_array();
    if (list == NULL || json_object_set_new(object, key, list) != 0) {
        return status_of(STATUS_NOMEM);
    }
    for (size_t i = 0; i < count; i++) {
        json_t *mount = json_object();
        if (mount == NULL || json_array_append_new(list, mount) != 0) {
            return status_of(STATUS_NOMEM);
        }
        TRY(set_text(mount, "source", mounts[i].source, msg));
        TRY(set_text(mount, "target", mounts[i].target, msg));
    }
    return status_ok();
}

static struct status set_walls(json_t *object, const char *key, wall_set walls)
{
    json_t *list = json_array();
    if (list == NULL || json_object_set_new(object, key, list) != 0) {
        return status_of(STATUS_NOMEM);
    }
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        if ((walls & (UINT32_C(1) << i)) != 0 &&
            json_array_append_new(list, json_string(wall_row((enum wall)i)->name)) != 0) {
            return status_of(STATUS_NOMEM);
        }
    }
    return status_ok();
}

static struct status field_encode(json_t *object, const struct cell_spec *spec,
                                  const struct field *f, struct errmsg *msg)
{
    switch (f->kind) {
    case FIELD_TEXT:
        return set_text(object, f->key, text_of(spec, f), msg);
    case FIELD_U32:
    case FIELD_U64:
        if (json_object_set_new(object, f->key, json_integer((json_int_t)number_of(spec, f))) !=
            0) {
            return status_of(STATUS_NOMEM);
        }
        return status_ok();
    case FIELD_ARGS:
        return set_texts(object, f->key, spec->args, spec->args_count, msg);
    case FIELD_ENV:
        return set_texts(object, f->key, spec->env, spec->env_count, msg);
    case FIELD_MOUNTS:
        return set_mounts(object, f->key, spec->mounts, spec->mounts_count, msg);
    case FIELD_DEVICES:
        return set_mounts(object, f->key, spec->devices, spec->devices_count, msg);
    case FIELD_WALLS:
        return set_walls(object, f->key, spec->walls_not_needed);
    }
    CHECK(false);
    return status_of(STATUS_INTERNAL);
}

struct status cell_spec_encode(const struct cell_spec *spec, struct buffer *json,
                               struct errmsg *msg)
{
    json_t *object = json_object();
    if (object == NULL) {
        return status_of(STATUS_NOMEM);
    }
    size_t before = json->size;
    struct status s = status_ok();
    for (size_t i = 0; i < FIELDS_COUNT && status_is_ok(s); i++) {
        s = field_encode(object, spec, &fields[i], msg);
    }
    if (status_is_ok(s) && json_dump_callback(object, append_chunk, json, JSON_INDENT(1)) != 0) {
        s = status_of(STATUS_NOMEM);
    }
    json_decref(object);
    if (!status_is_ok(s)) {
        json->size = before;
    }
    return s;
}

/* Decoding. */

static struct status text_decode(const char *key, const json_t *value, char *out, size_t out_size,
                                 struct errmsg *msg)
{
    if (!json_is_string(value)) {
        return status_fail(msg, STATUS_INVALID, "%s: a string is needed", key);
    }
    size_t size = json_string_length(value);
    if (size >= out_size) {
        return status_fail(msg, STATUS_LIMIT, "%s: %zu bytes, at most %zu", key, size,
                           out_size - 1);
    }
    memcpy(out, json_string_value(value), size + 1);
    return status_ok();
}

static struct status number_decode(const struct field *f, const json_t *value,
                                   struct cell_spec *out, struct errmsg *msg)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return status_fail(msg, STATUS_INVALID, "%s: a whole number is needed", f->key);
    }
    uint64_t number = (uint64_t)json_integer_value(value);
    bool is_default = number == 0 && !f->required;
    if (!is_default && (number < f->min || number > f->max)) {
        return status_fail(msg, STATUS_INVALID, "%s: %" PRIu64 " is outside %" PRIu64 "-%" PRIu64,
                           f->key, number, f->min, f->max);
    }
    number_put(out, f, number);
    return status_ok();
}

static struct status list_check(const struct field *f, const json_t *value, struct errmsg *msg)
{
    if (!json_is_array(value)) {
        return status_fail(msg, STATUS_INVALID, "%s: a list is needed", f->key);
    }
    size_t count = json_array_size(value);
    if (count < f->min) {
        return status_fail(msg, STATUS_INVALID, "%s: at least one is needed", f->key);
    }
    if (count > f->max) {
        return status_fail(msg, STATUS_LIMIT, "%s: %zu entries, at most %" PRIu64, f->key, count,
                           f->max);
    }
    return status_ok();
}

/* One entry more than counted, and NULL: the list is an argv. */
static struct status texts_decode(const struct field *f, const json_t *value, char ***out,
                                  size_t *out_count, struct errmsg *msg)
{
    TRY(list_check(f, value, msg));
    size_t count = json_array_size(value);
    char **list = mem_zalloc(count + 1, sizeof *list);
    if (list == NULL) {
        return status_of(STATUS_NOMEM);
    }
    *out = list; /* Owned by the spec from here on, and closed with it. */
    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(value, i);
        if (!json_is_string(entry)) {
            return status_fail(msg, STATUS_INVALID, "%s[%zu]: a string is needed", f->key, i);
        }
        if (json_string_length(entry) >= CELL_STRING_BYTES_MAX) {
            return status_fail(msg, STATUS_LIMIT, "%s[%zu]: at most %d bytes", f->key, i,
                               CELL_STRING_BYTES_MAX - 1);
        }
        list[i] = mem_strdup(json_string_value(entry));
        if (list[i] == NULL) {
            return status_of(STATUS_NOMEM);
        }
        *out_count = i + 1;
    }
    return status_ok();
}

static struct status mount_decode(const char *list, const json_t *value, size_t index,
                                  struct cell_mount *out, struct errmsg *msg)
{
    if (!json_is_object(value)) {
        return status_fail(msg, STATUS_INVALID, "%s[%zu]: an object is needed", list, index);
    }
    const char *key = NULL;
    json_t *entry = NULL;
    json_object_foreach((json_t *)(uintptr_t)value, key, entry) {
        struct status s;
        if (strcmp(key, "source") == 0) {
            s = text_decode(key, entry, out->source, sizeof out->source, msg);
        } else if (strcmp(key, "target") == 0) {
            s = text_decode(key, entry, out->target, sizeof out->target, msg);
        } else {
            return status_fail(msg, STATUS_INVALID, "%s[%zu]: unknown key %.64s", list, index, key);
        }
        if (!status_is_ok(s)) {
            return status_prefix(msg, s, "%s[%zu]", list, index);
        }
    }
    return status_ok();
}

static struct status mounts_decode(const struct field *f, const json_t *value,
                                   struct cell_mount **out, size_t *out_count, struct errmsg *msg)
{
    TRY(list_check(f, value, msg));
    size_t count = json_array_size(value);
    struct cell_mount *mounts = mem_zalloc(count, sizeof *mounts);
    if (mounts == NULL) {
        return status_of(STATUS_NOMEM);
    }
    *out = mounts; /* Owned by the spec from here on, and closed with it. */
    *out_count = count;
    for (size_t i = 0; i < count; i++) {
        TRY(mount_decode(f->key, json_array_get(value, i), i, &mounts[i], msg));
    }
    return status_ok();
}

static struct status walls_decode(const struct field *f, const json_t *value, struct cell_spec *out,
                                  struct errmsg *msg)
{
    TRY(list_check(f, value, msg));
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        enum wall wall = WALLS_COUNT_;
        if (!json_is_string(entry)) {
            return status_fail(msg, STATUS_INVALID, "%s[%zu]: a string is needed", f->key, i);
        }
        if (!status_is_ok(wall_find_excusable(json_string_value(entry), &wall, msg))) {
            return status_prefix(msg, status_of(STATUS_INVALID), "%s[%zu]", f->key, i);
        }
        out->walls_not_needed |= UINT32_C(1) << wall;
    }
    return status_ok();
}

static struct status field_decode(const struct field *f, const json_t *value, struct cell_spec *out,
                                  struct errmsg *msg)
{
    switch (f->kind) {
    case FIELD_TEXT:
        return text_decode(f->key, value, text_of(out, f), f->size, msg);
    case FIELD_U32:
    case FIELD_U64:
        return number_decode(f, value, out, msg);
    case FIELD_ARGS:
        return texts_decode(f, value, &out->args, &out->args_count, msg);
    case FIELD_ENV:
        return texts_decode(f, value, &out->env, &out->env_count, msg);
    case FIELD_MOUNTS:
        return mounts_decode(f, value, &out->mounts, &out->mounts_count, msg);
    case FIELD_DEVICES:
        return mounts_decode(f, value, &out->devices, &out->devices_count, msg);
    case FIELD_WALLS:
        return walls_decode(f, value, out, msg);
    }
    CHECK(false);
    return status_of(STATUS_INTERNAL);
}

/* True for a path without empty, "." and ".." components; the first byte is the caller's to judge.
 * */
static bool components_are_plain(const char *path)
{
    for (const char *at = path;; at++) {
        size_t size = strcspn(at, "/");
        if (size == 0 || (size == 1 && at[0] == '.') ||
            (size == 2 && at[0] == '.' && at[1] == '.')) {
            return false;
        }
        at += size;
        if (*at == '\0') {
            return true;
        }
    }
}

static bool path_is_plain(const char *path)
{
    return path[0] == '/' && components_are_plain(path + 1);
}

static bool path_is_under(const char *path, const char *folder)
{
    size_t size = strlen(folder);
    return strncmp(path, folder, size) == 0 && (path[size] == '\0' || path[size] == '/');
}

static struct status mounts_check(const struct cell_spec *spec, struct errmsg *msg)
{
    static const char *const reserved[] = {"/proc", "/dev", "/sys", "/tmp"};
    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct cell_mount *m = &spec->mounts[i];
        if (!path_is_plain(m->source)) {
            return status_fail(msg, STATUS_INVALID, "mounts[%zu].source: not a plain path: %.128s",
                               i, m->source);
        }
        if (!path_is_plain(m->target)) {
            return status_fail(msg, STATUS_INVALID, "mounts[%zu].target: not a plain path: %.128s",
                               i, m->target);
        }
        for (size_t k = 0; k < sizeof reserved / sizeof reserved[0]; k++) {
            if (path_is_under(m->target, reserved[k])) {
                return status_fail(msg, STATUS_INVALID, "mounts[%zu].target: %s is the cell's own",
                                   i, reserved[k]);
            }
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(m->target, spec->mounts[k].target) == 0) {
                return status_fail(msg, STATUS_INVALID, "mounts[%zu].target: %.128s is there twice",
                                   i, m->target);
            }
        }
    }
    return status_ok();
}

static struct status devices_check(const struct cell_spec *spec, struct errmsg *msg)
{
    static const char *const reserved[] = {"null", "zero",  "full",   "random", "urandom",
                                           "fd",   "stdin", "stdout", "stderr", "shm"};
    static const char dev[] = "/dev/";
    for (size_t i = 0; i < spec->devices_count; i++) {
        const struct cell_mount *d = &spec->devices[i];
        if (!path_is_plain(d->source)) {
            return status_fail(msg, STATUS_INVALID, "devices[%zu].source: not a plain path: %.128s",
                               i, d->source);
        }
        if (!path_is_plain(d->target) || strncmp(d->target, dev, sizeof dev - 1) != 0) {
            return status_fail(msg, STATUS_INVALID,
                               "devices[%zu].target: not a plain path below /dev: %.128s", i,
                               d->target);
        }
        for (size_t k = 0; k < sizeof reserved / sizeof reserved[0]; k++) {
            if (path_is_under(d->target + sizeof dev - 1, reserved[k])) {
                return status_fail(msg, STATUS_INVALID,
                                   "devices[%zu].target: %.128s is the cell's own", i, d->target);
            }
        }
        for (size_t k = 0; k < i; k++) {
            const char *other = spec->devices[k].target;
            if (path_is_under(d->target, other) || path_is_under(other, d->target)) {
                return status_fail(msg, STATUS_INVALID,
                                   "devices[%zu].target: %.128s is there twice", i, d->target);
            }
        }
    }
    return status_ok();
}

static bool hostname_is_plain(const char *name)
{
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
           strlen(name);
}

static struct status spec_check(const struct cell_spec *spec, struct errmsg *msg)
{
    if (spec->instance[0] == '\0' || !hostname_is_plain(spec->instance)) {
        return status_fail(msg, STATUS_INVALID, "instance: not an id");
    }
    if (!hostname_is_plain(spec->hostname)) {
        return status_fail(msg, STATUS_INVALID, "hostname: letters, digits, . - _ only");
    }
    if (spec->root[0] != '\0' && !path_is_plain(spec->root)) {
        return status_fail(msg, STATUS_INVALID, "root: not a plain path: %.128s", spec->root);
    }
    if (spec->runsc[0] != '\0' && !path_is_plain(spec->runsc)) {
        return status_fail(msg, STATUS_INVALID, "runsc: not a plain path: %.128s", spec->runsc);
    }
    if (!hostname_is_plain(spec->platform)) {
        return status_fail(msg, STATUS_INVALID, "platform: not a name");
    }
    if (spec->args[0][0] != '/') {
        return status_fail(msg, STATUS_INVALID, "args[0]: not an absolute path: %.128s",
                           spec->args[0]);
    }
    for (size_t i = 0; i < spec->env_count; i++) {
        const char *equals = strchr(spec->env[i], '=');
        if (equals == NULL || equals == spec->env[i]) {
            return status_fail(msg, STATUS_INVALID, "env[%zu]: not KEY=VALUE", i);
        }
    }
    if (spec->workdir[0] != '\0' && strcmp(spec->workdir, "/") != 0 &&
        !path_is_plain(spec->workdir)) {
        return status_fail(msg, STATUS_INVALID, "workdir: not a plain path: %.128s", spec->workdir);
    }
    if ((spec->log_bytes & (spec->log_bytes - 1)) != 0) {
        return status_fail(msg, STATUS_INVALID, "log_bytes: %" PRIu64 " is not a power of two",
                           spec->log_bytes);
    }
    if (spec->cgroup[0] != '\0' && !components_are_plain(spec->cgroup)) {
        return status_fail(msg, STATUS_INVALID, "cgroup: not a plain relative path: %.128s",
                           spec->cgroup);
    }
    if (spec->netns[0] != '\0' && !path_is_plain(spec->netns)) {
        return status_fail(msg, STATUS_INVALID, "netns: not a plain path: %.128s", spec->netns);
    }
    TRY(devices_check(spec, msg));
    return mounts_check(spec, msg);
}

static struct status object_decode(json_t *object, struct cell_spec *out, struct errmsg *msg)
{
    if (!json_is_object(object)) {
        return status_fail(msg, STATUS_INVALID, "an object is needed");
    }
    size_t known = 0;
    for (size_t i = 0; i < FIELDS_COUNT; i++) {
        const json_t *value = json_object_get(object, fields[i].key);
        if (value != NULL) {
            known++;
            TRY(field_decode(&fields[i], value, out, msg));
        } else if (fields[i].required) {
            return status_fail(msg, STATUS_INVALID, "%s: required", fields[i].key);
        }
    }
    if (known != json_object_size(object)) {
        const char *key = NULL;
        json_t *value = NULL;
        json_object_foreach(object, key, value) {
            bool found = false;
            for (size_t i = 0; i < FIELDS_COUNT && !found; i++) {
                found = strcmp(key, fields[i].key) == 0;
            }
            if (!found) {
                return status_fail(msg, STATUS_INVALID, "unknown key %.64s", key);
            }
        }
    }
    return spec_check(out, msg);
}

static json_t *json_read(struct bytes json, size_t max, const char *what, struct status *s,
                         struct errmsg *msg)
{
    if (json.size > max) {
        *s = status_fail(msg, STATUS_LIMIT, "%s: %zu bytes, at most %zu", what, json.size, max);
        return NULL;
    }
    json_error_t error;
    json_t *root = json_loadb((const char *)json.data, json.size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        *s = status_fail(msg, STATUS_INVALID, "%s: line %d: %s", what, error.line, error.text);
    }
    return root;
}

struct status cell_spec_decode(struct bytes json, struct cell_spec *out, struct errmsg *msg)
{
    struct status s = status_ok();
    json_t *root = json_read(json, CELL_SPEC_BYTES_MAX, "spec", &s, msg);
    if (root == NULL) {
        return s;
    }
    struct cell_spec *spec = mem_zalloc(1, sizeof *spec);
    if (spec == NULL) {
        json_decref(root);
        return status_of(STATUS_NOMEM);
    }
    s = object_decode(root, spec, msg);
    json_decref(root);
    if (status_is_ok(s)) {
        *out = *spec;
    } else {
        cell_spec_close(spec);
    }
    mem_free(spec);
    return s;
}

/* exit.json. */

static const char *const end_names[CELL_ENDS_COUNT_] = {
    [CELL_END_EXIT] = "exit",   [CELL_END_SIGNAL] = "signal",   [CELL_END_OOM] = "oom",
    [CELL_END_SETUP] = "setup", [CELL_END_STOPPED] = "stopped",
};

const char *cell_end_name(enum cell_end end)
{
    CHECK(end < CELL_ENDS_COUNT_);
    return end_names[end];
}

struct status cell_exit_encode(const struct cell_event *event, struct buffer *json)
{
    char message[CELL_MESSAGE_BYTES_MAX];
    size_t size = strnlen(event->message, sizeof message - 1);
    for (size_t i = 0; i < size; i++) {
        char c = event->message[i];
        message[i] = c >= ' ' && c <= '~' && c != '"' && c != '\\' ? c : '?';
    }
    message[size] = '\0';
    return buffer_printf(json,
                         "{\"end\": \"%s\", \"detail\": %" PRId32 ", \"pid\": %" PRIu32
                         ", \"startup_us\": %" PRIu64 ", \"memory_peak_bytes\": %" PRIu64
                         ", \"pids_limit_hits\": %" PRIu64 ", \"message\": \"%s\"}\n",
                         cell_end_name(event->end), event->detail, event->pid, event->startup_us,
                         event->memory_peak_bytes, event->pids_limit_hits, message);
}

static struct status exit_number(const json_t *object, const char *key, int64_t min, int64_t max,
                                 int64_t *out, struct errmsg *msg)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < min ||
        json_integer_value(value) > max) {
        return status_fail(msg, STATUS_INVALID, "%s: not a number in its range", key);
    }
    *out = json_integer_value(value);
    return status_ok();
}

static struct status exit_decode(const json_t *root, struct cell_event *event, struct errmsg *msg)
{
    char end[16];
    TRY(text_decode("end", json_object_get(root, "end"), end, sizeof end, msg));
    while (event->end < CELL_ENDS_COUNT_ && strcmp(end, end_names[event->end]) != 0) {
        event->end++;
    }
    if (event->end == CELL_ENDS_COUNT_) {
        return status_fail(msg, STATUS_INVALID, "end: unknown name");
    }
    int64_t detail = 0;
    int64_t pid = 0;
    int64_t startup_us = 0;
    int64_t peak = 0;
    int64_t hits = 0;
    TRY(exit_number(root, "detail", INT32_MIN, INT32_MAX, &detail, msg));
    TRY(exit_number(root, "pid", 0, UINT32_MAX, &pid, msg));
    TRY(exit_number(root, "startup_us", 0, INT64_MAX, &startup_us, msg));
    TRY(exit_number(root, "memory_peak_bytes", 0, INT64_MAX, &peak, msg));
    TRY(exit_number(root, "pids_limit_hits", 0, INT64_MAX, &hits, msg));
    TRY(text_decode("message", json_object_get(root, "message"), event->message,
                    sizeof event->message, msg));
    if (json_object_size(root) != 7) {
        return status_fail(msg, STATUS_INVALID, "unknown key");
    }
    event->kind = CELL_EVENT_EXITED;
    event->detail = (int32_t)detail;
    event->pid = (uint32_t)pid;
    event->startup_us = (uint64_t)startup_us;
    event->memory_peak_bytes = (uint64_t)peak;
    event->pids_limit_hits = (uint64_t)hits;
    return status_ok();
}

struct status cell_exit_decode(struct bytes json, struct cell_event *out, struct errmsg *msg)
{
    struct status s = status_ok();
    json_t *root = json_read(json, CELL_EXIT_BYTES_MAX, "exit report", &s, msg);
    if (root == NULL) {
        return s;
    }
    struct cell_event event = {0};
    s = exit_decode(root, &event, msg);
    json_decref(root);
    if (status_is_ok(s)) {
        *out = event;
    }
    return s;
}

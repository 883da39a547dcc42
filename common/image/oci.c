#include "common/image/oci.h"

#include "common/check.h"
#include "common/units.h"

#include <jansson.h>
#include <string.h>

static const char digest_prefix[] = "sha256:";

/* ---- Values ---- */

static struct status json_load(const char *what, struct bytes text, json_t **out,
                               struct errmsg *msg)
{
    if (text.size > OCI_JSON_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s has %zu bytes, at most %d are allowed", what,
                           text.size, OCI_JSON_BYTES_MAX);
    }
    json_error_t error;
    *out = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &error);
    if (*out == NULL) {
        char quoted[QUOTE_STRING_BYTES];
        text_quote(error.text, strlen(error.text), quoted);
        return status_fail(msg, STATUS_INVALID, "%s, line %d: %s", what, error.line, quoted);
    }
    return status_ok();
}

/* NULL when it is not there or no text. */
static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static struct status digest_take(const char *where, const char *text, struct digest *out,
                                 struct errmsg *msg)
{
    if (text == NULL || strncmp(text, digest_prefix, sizeof digest_prefix - 1) != 0) {
        return status_fail(msg, text == NULL ? STATUS_INVALID : STATUS_UNSUPPORTED,
                           "%s: no sha256 digest", where);
    }
    return status_prefix(msg, digest_parse(text + sizeof digest_prefix - 1, out, msg), "%s", where);
}

static struct status blob_take(const char *where, const json_t *from, struct oci_blob *out,
                               struct errmsg *msg)
{
    const json_t *size = json_object_get(from, "size");
    TRY(digest_take(where, text_of(from, "digest"), &out->digest, msg));
    if (!json_is_integer(size) || json_integer_value(size) < 0) {
        return status_fail(msg, STATUS_INVALID, "%s: no size", where);
    }
    out->bytes = (uint64_t)json_integer_value(size);
    return status_ok();
}

static const char *arena_copy(struct arena *a, const char *text)
{
    return arena_text(a, text, strlen(text));
}

/* Appends the texts of a list, which may be missing or null. */
static struct status texts_take(const char *where, const json_t *list, struct arena *a,
                                const char **out, size_t *count, size_t max, struct errmsg *msg)
{
    if (list == NULL || json_is_null(list)) {
        return status_ok();
    }
    if (!json_is_array(list)) {
        return status_fail(msg, STATUS_INVALID, "%s: is no list", where);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text == NULL) {
            return status_fail(msg, STATUS_INVALID, "%s: entry %zu is no text", where, i);
        }
        if (*count == max || strlen(text) > IMAGE_TEXT_BYTES_MAX) {
            return status_fail(msg, STATUS_LIMIT, "%s: more than %zu entries, or one over %d bytes",
                               where, max, IMAGE_TEXT_BYTES_MAX);
        }
        out[*count] = arena_copy(a, text);
        if (out[(*count)++] == NULL) {
            return status_fail(msg, STATUS_NOMEM, "out of memory");
        }
    }
    return status_ok();
}

/* ---- The index ---- */

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);
    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

enum platform { PLATFORM_OURS, PLATFORM_NONE, PLATFORM_OTHER };

static enum platform platform_of(const json_t *entry)
{
    const json_t *p = json_object_get(entry, "platform");
    const char *architecture = text_of(p, "architecture");
    const char *os = text_of(p, "os");
    if (architecture == NULL) {
        return PLATFORM_NONE;
    }
    return strcmp(architecture, "amd64") == 0 && (os == NULL || strcmp(os, "linux") == 0)
               ? PLATFORM_OURS
               : PLATFORM_OTHER;
}

static struct status index_take(const json_t *root, struct oci_target *out, struct errmsg *msg)
{
    const json_t *list = json_object_get(root, "manifests");
    if (!json_is_array(list)) {
        return status_fail(msg, STATUS_INVALID, "index: has no manifests");
    }
    if (json_array_size(list) > OCI_MANIFESTS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "index: more than %d manifests", OCI_MANIFESTS_MAX);
    }
    const json_t *found[2] = {NULL, NULL}; /* by platform, without one */
    size_t counts[2] = {0, 0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        enum platform p = platform_of(entry);
        if (p != PLATFORM_OTHER) {
            found[p] = entry;
            counts[p]++;
        }
    }
    enum platform use = counts[PLATFORM_OURS] > 0 ? PLATFORM_OURS : PLATFORM_NONE;
    if (counts[use] != 1) {
        return status_fail(msg, counts[use] == 0 ? STATUS_UNSUPPORTED : STATUS_INVALID,
                           counts[use] == 0 ? "index: no image for linux/amd64"
                                            : "index: holds %zu images for linux/amd64; one is "
                                              "imported at a time",
                           counts[use]);
    }
    struct oci_target t = {.is_index = false};
    TRY(blob_take("index: manifest", found[use], &t.blob, msg));
    const char *type = text_of(found[use], "mediaType");
    t.is_index = type != NULL &&
                 (ends_with(type, ".index.v1+json") || ends_with(type, ".manifest.list.v2+json"));
    *out = t;
    return status_ok();
}

struct status oci_index_decode(struct bytes json, struct oci_target *out, struct errmsg *msg)
{
    json_t *root;
    TRY(json_load("index", json, &root, msg));
    struct status s = index_take(root, out, msg);
    json_decref(root);
    return s;
}

/* ---- The manifest ---- */

static bool layer_type_ok(const char *type)
{
    static const char *const ends[] = {".tar", ".tar+gzip", ".tar.gzip", ".tar+zstd"};
    for (size_t i = 0; type != NULL && i < sizeof ends / sizeof ends[0]; i++) {
        if (ends_with(type, ends[i])) {
            return strstr(type, "foreign") == NULL;
        }
    }
    return false;
}

static struct status manifest_take(const json_t *root, struct arena *a, struct oci_manifest *out,
                                   struct errmsg *msg)
{
    struct oci_manifest m = {.layers_count = 0};
    const json_t *layers = json_object_get(root, "layers");
    TRY(blob_take("manifest: config", json_object_get(root, "config"), &m.config, msg));
    if (!json_is_array(layers)) {
        return status_fail(msg, STATUS_INVALID, "manifest: has no layers");
    }
    if (json_array_size(layers) > OCI_LAYERS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "manifest: more than %d layers", OCI_LAYERS_MAX);
    }
    m.layers_count = json_array_size(layers);
    m.layers = arena_zalloc(a, m.layers_count, sizeof m.layers[0]);
    if (m.layers == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < m.layers_count; i++) {
        const json_t *layer = json_array_get(layers, i);
        const char *type = text_of(layer, "mediaType");
        if (!layer_type_ok(type)) {
            char quoted[QUOTE_STRING_BYTES];
            text_quote(type == NULL ? "" : type, type == NULL ? 0 : strlen(type), quoted);
            return status_fail(msg, STATUS_UNSUPPORTED,
                               "manifest: layer %zu is a \"%s\"; a tar archive, plain, gzip or "
                               "zstd, can be imported",
                               i, quoted);
        }
        TRY(blob_take("manifest: layer", layer, &m.layers[i], msg));
    }
    *out = m;
    return status_ok();
}

struct status oci_manifest_decode(struct bytes json, struct arena *a, struct oci_manifest *out,
                                  struct errmsg *msg)
{
    json_t *root;
    TRY(json_load("manifest", json, &root, msg));
    struct status s = manifest_take(root, a, out, msg);
    json_decref(root);
    return s;
}

/* ---- The configuration ---- */

static struct status diff_ids_take(const json_t *list, struct arena *a, struct oci_config *c,
                                   struct errmsg *msg)
{
    if (!json_is_array(list) || json_array_size(list) > OCI_LAYERS_MAX) {
        return status_fail(msg, STATUS_INVALID, "config: rootfs.diff_ids is no list of at most %d",
                           OCI_LAYERS_MAX);
    }
    c->diff_ids_count = json_array_size(list);
    c->diff_ids = arena_zalloc(a, c->diff_ids_count, sizeof c->diff_ids[0]);
    if (c->diff_ids == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < c->diff_ids_count; i++) {
        TRY(digest_take("config: rootfs.diff_ids", json_string_value(json_array_get(list, i)),
                        &c->diff_ids[i], msg));
    }
    return status_ok();
}

static struct status config_take(const json_t *root, struct arena *a, struct oci_config *out,
                                 struct errmsg *msg)
{
    struct oci_config c = {.workdir = ""};
    const char *architecture = text_of(root, "architecture");
    const char *os = text_of(root, "os");
    if (architecture == NULL || strcmp(architecture, "amd64") != 0 ||
        (os != NULL && strcmp(os, "linux") != 0)) {
        char quoted[QUOTE_STRING_BYTES];
        text_quote(architecture == NULL ? "" : architecture,
                   architecture == NULL ? 0 : strlen(architecture), quoted);
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "config: the image is for architecture \"%s\"; linux on amd64 is "
                           "needed",
                           quoted);
    }
    const json_t *run = json_object_get(root, "config");
    const char *workdir = text_of(run, "WorkingDir");
    if (workdir != NULL) {
        if (strlen(workdir) > IMAGE_TEXT_BYTES_MAX) {
            return status_fail(msg, STATUS_LIMIT, "config: WorkingDir is too long");
        }
        c.workdir = arena_copy(a, workdir);
        TRY(c.workdir == NULL ? status_fail(msg, STATUS_NOMEM, "out of memory") : status_ok());
    }
    TRY(texts_take("config: Env", json_object_get(run, "Env"), a, c.env, &c.env_count,
                   IMAGE_ENV_MAX, msg));
    TRY(texts_take("config: Entrypoint", json_object_get(run, "Entrypoint"), a, c.entrypoint,
                   &c.entrypoint_count, IMAGE_WORDS_MAX, msg));
    TRY(texts_take("config: Cmd", json_object_get(run, "Cmd"), a, c.entrypoint, &c.entrypoint_count,
                   IMAGE_WORDS_MAX, msg));
    TRY(diff_ids_take(json_object_get(json_object_get(root, "rootfs"), "diff_ids"), a, &c, msg));
    *out = c;
    return status_ok();
}

struct status oci_config_decode(struct bytes json, struct arena *a, struct oci_config *out,
                                struct errmsg *msg)
{
    json_t *root;
    TRY(json_load("config", json, &root, msg));
    struct status s = config_take(root, a, out, msg);
    json_decref(root);
    return s;
}

/* ---- docker's manifest.json ---- */

static struct status docker_take(const json_t *root, struct arena *a, struct docker_manifest *out,
                                 struct errmsg *msg)
{
    if (!json_is_array(root) || json_array_size(root) != 1) {
        return status_fail(msg, STATUS_INVALID,
                           "manifest.json: holds %zu images; one is imported at a time",
                           json_array_size(root));
    }
    const json_t *image = json_array_get(root, 0);
    const char *config = text_of(image, "Config");
    const json_t *layers = json_object_get(image, "Layers");
    if (config == NULL || !json_is_array(layers)) {
        return status_fail(msg, STATUS_INVALID, "manifest.json: lacks Config or Layers");
    }
    struct docker_manifest m = {.layers_count = 0};
    m.config = arena_copy(a, config);
    m.layers = arena_zalloc(a, OCI_LAYERS_MAX, sizeof m.layers[0]);
    if (m.config == NULL || m.layers == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    TRY(texts_take("manifest.json: Layers", layers, a, m.layers, &m.layers_count, OCI_LAYERS_MAX,
                   msg));
    *out = m;
    return status_ok();
}

struct status docker_manifest_decode(struct bytes json, struct arena *a,
                                     struct docker_manifest *out, struct errmsg *msg)
{
    json_t *root;
    TRY(json_load("manifest.json", json, &root, msg));
    struct status s = docker_take(root, a, out, msg);
    json_decref(root);
    return s;
}

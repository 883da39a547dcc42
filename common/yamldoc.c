#include "common/yamldoc.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

/* ---- Paths and errors ---- */

/* The child whose key is the longest one that path starts with, or the list entry that path names;
 * *rest is what follows. */
static const struct yamlnode *child_at(const struct yamlnode *n, const char *path,
                                       const char **rest)
{
    const struct yamlnode *best = NULL;
    size_t best_size = 0;
    if (*path == '[') {
        unsigned index = 0;
        int used = 0;
        if (sscanf(path, "[%9u]%n", &index, &used) != 1 || used == 0) {
            return NULL;
        }
        best = n->kind == YAMLNODE_LIST ? n->first : NULL;
        while (best != NULL && best->index != index) {
            best = best->next;
        }
        best_size = (size_t)used;
    } else if (n->kind == YAMLNODE_MAP) {
        for (const struct yamlnode *c = n->first; c != NULL; c = c->next) {
            size_t size = strlen(c->key);
            if (size > best_size && strncmp(c->key, path, size) == 0 &&
                (path[size] == '\0' || path[size] == '.' || path[size] == '[')) {
                best = c;
                best_size = size;
            }
        }
    }
    *rest = path + best_size + (path[best_size] == '.' ? 1 : 0);
    return best;
}

/* The deepest node on the path that exists; *whole tells whether it is the path's end. */
static const struct yamlnode *deepest_at(const struct yamldoc *d, const char *path, bool *whole)
{
    const struct yamlnode *n = d->root;
    *whole = false;
    while (n != NULL && *path != '\0') {
        const char *rest = path;
        const struct yamlnode *child = child_at(n, path, &rest);
        if (child == NULL) {
            return n;
        }
        n = child;
        path = rest;
    }
    *whole = n != NULL;
    return n;
}

const struct yamlnode *yamldoc_find(const struct yamldoc *d, const char *path)
{
    bool whole;
    const struct yamlnode *n = deepest_at(d, path, &whole);
    return whole ? n : NULL;
}

struct status yamldoc_blame(const struct yamldoc *d, const char *path, struct status s,
                            struct errmsg *msg)
{
    bool whole;
    const struct yamlnode *n = deepest_at(d, path, &whole);
    return status_prefix(msg, s, "%s:%" PRIu32 "%s%s", d->name, n != NULL ? n->line : 1,
                         *path != '\0' ? ": " : "", path);
}

struct status yamldoc_fail(const struct yamldoc *d, const char *path, enum status_code code,
                           struct errmsg *msg, const char *format, ...)
{
    struct errmsg what = {""};
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what.text, sizeof what.text, format, args);
    va_end(args);
    struct status s = yamldoc_blame(d, path, status_of(code), &what);
    if (msg != NULL) {
        *msg = what;
    }
    return s;
}

/* Appends the node's dotted path, which is cut when it does not fit. */
static void path_of(const struct yamlnode *n, char path[YAMLDOC_PATH_BYTES])
{
    const struct yamlnode *chain[YAMLDOC_DEPTH_MAX + 1];
    size_t depth = 0;
    for (; n != NULL && n->parent != NULL && depth < YAMLDOC_DEPTH_MAX + 1; n = n->parent) {
        chain[depth++] = n;
    }
    size_t used = 0;
    path[0] = '\0';
    while (depth-- > 0 && used < YAMLDOC_PATH_BYTES - 1) {
        size_t room = YAMLDOC_PATH_BYTES - used;
        int wrote =
            chain[depth]->key != NULL
                ? snprintf(path + used, room, "%s%s", used > 0 ? "." : "", chain[depth]->key)
                : snprintf(path + used, room, "[%" PRIu32 "]", chain[depth]->index);
        CHECK(wrote >= 0);
        used += (size_t)wrote;
    }
}

__attribute__((format(printf, 5, 6))) static struct status
fail_node(const struct yamldoc *d, const struct yamlnode *n, enum status_code code,
          struct errmsg *msg, const char *format, ...)
{
    char path[YAMLDOC_PATH_BYTES];
    path_of(n, path);
    struct errmsg what = {""};
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what.text, sizeof what.text, format, args);
    va_end(args);
    struct status s = status_prefix(&what, status_of(code), "%s:%" PRIu32 "%s%s", d->name, n->line,
                                    path[0] != '\0' ? ": " : "", path);
    if (msg != NULL) {
        *msg = what;
    }
    return s;
}

static struct status fail_line(const struct yamldoc *d, size_t line, enum status_code code,
                               struct errmsg *msg, const char *text)
{
    return status_fail(msg, code, "%s:%zu: %s", d->name, line + 1, text);
}

/* ---- The tree ---- */

static void tree_free(struct yamlnode *root)
{
    struct yamlnode *n = root;
    while (n != NULL) {
        if (n->first != NULL) {
            struct yamlnode *child = n->first;
            n->first = child->next;
            n = child;
            continue;
        }
        struct yamlnode *parent = n->parent;
        mem_free(n->key);
        mem_free(n->text);
        mem_free(n);
        n = parent;
    }
}

struct builder {
    struct yamldoc *d;
    struct yamlnode *at; /* the open map or list; NULL at the top */
    size_t depth;
    char *key; /* read, its value not yet */
    uint32_t key_line;
    bool ended; /* the first document's end came */
};

static struct status key_take(struct builder *b, const yaml_event_t *e, struct errmsg *msg)
{
    const char *text = (const char *)e->data.scalar.value;
    size_t size = e->data.scalar.length;
    size_t line = e->start_mark.line;
    if (size == 0 || size > YAMLDOC_KEY_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s:%zu: a key has 1 to %d bytes, this has %zu",
                           b->d->name, line + 1, YAMLDOC_KEY_BYTES_MAX, size);
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] <= ' ' || text[i] >= 0x7F) {
            char quoted[QUOTE_STRING_BYTES];
            text_quote(text, size, quoted);
            return status_fail(msg, STATUS_INVALID,
                               "%s:%zu: the key \"%s\" may hold only visible ASCII characters",
                               b->d->name, line + 1, quoted);
        }
    }
    b->key = mem_dup(text, size + 1); /* libyaml ends its texts with a NUL */
    b->key_line = (uint32_t)line + 1;
    if (b->key == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (const struct yamlnode *c = b->at->first; c != NULL; c = c->next) {
        if (strcmp(c->key, b->key) == 0) {
            char path[YAMLDOC_PATH_BYTES];
            path_of(c, path);
            return status_fail(msg, STATUS_INVALID,
                               "%s:%" PRIu32 ": %s: is given twice, first in line %" PRIu32,
                               b->d->name, b->key_line, path, c->line);
        }
    }
    return status_ok();
}

static struct status node_add(struct builder *b, enum yamlnode_kind kind, size_t line,
                              struct yamlnode **out, struct errmsg *msg)
{
    if (b->d->nodes_count == YAMLDOC_NODES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s:%zu: holds more than %d values", b->d->name,
                           line + 1, YAMLDOC_NODES_MAX);
    }
    struct yamlnode *n = mem_zalloc(1, sizeof *n);
    if (n == NULL) {
        return status_of(STATUS_NOMEM);
    }
    b->d->nodes_count++;
    n->kind = kind;
    n->line = b->key != NULL ? b->key_line : (uint32_t)line + 1;
    n->key = PTR_STEAL(b->key);
    n->parent = b->at;
    if (b->at == NULL) {
        b->d->root = n;
    } else {
        n->index = b->at->count++;
        *(b->at->last != NULL ? &b->at->last->next : &b->at->first) = n;
        b->at->last = n;
    }
    *out = n;
    return status_ok();
}

static struct status container_start(struct builder *b, enum yamlnode_kind kind, size_t line,
                                     struct errmsg *msg)
{
    if (b->depth == YAMLDOC_DEPTH_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s:%zu: is nested deeper than %d levels", b->d->name,
                           line + 1, YAMLDOC_DEPTH_MAX);
    }
    struct yamlnode *n;
    TRY(node_add(b, kind, line, &n, msg));
    b->at = n;
    b->depth++;
    return status_ok();
}

static struct status scalar_add(struct builder *b, const yaml_event_t *e, struct errmsg *msg)
{
    struct yamlnode *n;
    const char *text = (const char *)e->data.scalar.value;
    size_t size = e->data.scalar.length;
    TRY(node_add(b, YAMLNODE_SCALAR, e->start_mark.line, &n, msg));
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (plain && (size == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)) {
        return fail_node(b->d, n, STATUS_INVALID, msg, "has no value");
    }
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < ' ' && c != '\t' && c != '\n') || c == 0x7F) {
            return fail_node(b->d, n, STATUS_INVALID, msg, "holds the control character \\x%02x",
                             c);
        }
    }
    n->text = mem_dup(text, size + 1);
    return n->text != NULL ? status_ok() : status_of(STATUS_NOMEM);
}

static bool has_tag_or_anchor(const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return e->data.scalar.anchor != NULL || e->data.scalar.tag != NULL;
    case YAML_SEQUENCE_START_EVENT:
        return e->data.sequence_start.anchor != NULL || e->data.sequence_start.tag != NULL;
    case YAML_MAPPING_START_EVENT:
        return e->data.mapping_start.anchor != NULL || e->data.mapping_start.tag != NULL;
    default:
        return e->type == YAML_ALIAS_EVENT;
    }
}

static struct status event_take(struct builder *b, const yaml_event_t *e, struct errmsg *msg)
{
    size_t line = e->start_mark.line;
    if (has_tag_or_anchor(e)) {
        return fail_line(b->d, line, STATUS_INVALID, msg,
                         "aliases, anchors and tags are not allowed");
    }
    bool key_due = b->at != NULL && b->at->kind == YAMLNODE_MAP && b->key == NULL;
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        return b->ended ? fail_line(b->d, line, STATUS_INVALID, msg, "holds a second document")
                        : status_ok();
    case YAML_DOCUMENT_END_EVENT:
        b->ended = true;
        return status_ok();
    case YAML_SCALAR_EVENT:
        return key_due ? key_take(b, e, msg) : scalar_add(b, e, msg);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        if (key_due) {
            return fail_line(b->d, line, STATUS_INVALID, msg, "a key must be a text");
        }
        return container_start(
            b, e->type == YAML_MAPPING_START_EVENT ? YAMLNODE_MAP : YAMLNODE_LIST, line, msg);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->at = b->at->parent;
        b->depth--;
        return status_ok();
    default:
        return status_ok();
    }
}

static struct status syntax_error(const struct yamldoc *d, const yaml_parser_t *p,
                                  struct errmsg *msg)
{
    if (p->error == YAML_MEMORY_ERROR) {
        return status_of(STATUS_NOMEM);
    }
    const char *problem = p->problem != NULL ? p->problem : "is not YAML";
    if (p->error == YAML_READER_ERROR) {
        size_t line = 0;
        for (size_t i = 0; i < d->size && i < p->problem_offset; i++) {
            line += d->bytes[i] == '\n';
        }
        return fail_line(d, line, STATUS_INVALID, msg, problem);
    }
    return fail_line(d, p->problem_mark.line, STATUS_INVALID, msg, problem);
}

/* Builds the tree from the document's bytes. What was built so far stays in d and is freed with it.
 * */
static struct status tree_build(struct yamldoc *d, struct errmsg *msg)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        return status_of(STATUS_NOMEM);
    }
    yaml_parser_set_input_string(&parser, d->bytes, d->size);
    struct builder b = {.d = d};
    struct status s = status_ok();
    for (bool more = true; more && status_is_ok(s);) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            s = syntax_error(d, &parser, msg);
            break;
        }
        more = event.type != YAML_STREAM_END_EVENT;
        s = event_take(&b, &event, msg);
        yaml_event_delete(&event);
    }
    mem_free(b.key);
    yaml_parser_delete(&parser);
    return s;
}

/* ---- Opening ---- */

void yamldoc_close(struct yamldoc *d)
{
    if (d != NULL) {
        tree_free(d->root);
        mem_free(d->bytes);
        mem_free(d->name);
        mem_free(d);
    }
}

struct status yamldoc_parse(struct yamldoc **out, const char *name, struct bytes text,
                            struct errmsg *msg)
{
    if (text.size > YAMLDOC_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s: has more than %d bytes", name,
                           YAMLDOC_BYTES_MAX);
    }
    struct yamldoc *d = mem_zalloc(1, sizeof *d);
    struct status s = status_of(STATUS_NOMEM);
    if (d != NULL) {
        d->name = mem_strdup(name);
        d->bytes = mem_dup(text.data, text.size);
        d->size = text.size;
        if (d->name != NULL && d->bytes != NULL) {
            s = tree_build(d, msg);
        }
    }
    if (!status_is_ok(s)) {
        yamldoc_close(d);
        return s.code == STATUS_NOMEM ? status_fail(msg, STATUS_NOMEM, "%s: out of memory", name)
                                      : s;
    }
    *out = d;
    return status_ok();
}

struct status yamldoc_open(struct yamldoc **out, const char *path, struct errmsg *msg)
{
    /* O_NONBLOCK: a fifo must not hold us. */
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return status_fail(msg, STATUS_INVALID, "%s: is not a regular file", path);
    }
    size_t room = YAMLDOC_BYTES_MAX + 1;
    uint8_t *bytes = mem_alloc(room);
    if (bytes == NULL) {
        return status_fail(msg, STATUS_NOMEM, "%s: out of memory", path);
    }
    size_t size = 0;
    ssize_t got;
    do {
        got = read(fd, bytes + size, room - size);
        size += got > 0 ? (size_t)got : 0;
    } while ((got > 0 && size < room) || (got < 0 && errno == EINTR));
    struct status s = got < 0 ? status_fail(msg, STATUS_IO, "%s: %s", path, strerror(errno))
                              : yamldoc_parse(out, path, bytes_of(bytes, size), msg);
    mem_free(bytes);
    return s;
}

/* ---- The schema ---- */

static struct status check_value(const struct yamldoc *d, const struct yamlnode *n,
                                 const cyaml_schema_value_t *schema, struct errmsg *msg);

static const cyaml_schema_field_t *field_find(const cyaml_schema_field_t *fields, const char *key)
{
    for (; fields->key != NULL; fields++) {
        if (strcmp(fields->key, key) == 0) {
            return fields;
        }
    }
    return NULL;
}

static bool has_child(const struct yamlnode *n, const char *key)
{
    for (const struct yamlnode *c = n->first; c != NULL; c = c->next) {
        if (strcmp(c->key, key) == 0) {
            return true;
        }
    }
    return false;
}

static struct status check_map(const struct yamldoc *d, const struct yamlnode *n,
                               const cyaml_schema_field_t *fields, struct errmsg *msg)
{
    if (n->kind != YAMLNODE_MAP) {
        return fail_node(d, n, STATUS_INVALID, msg, "must be a mapping of keys to values");
    }
    for (const struct yamlnode *c = n->first; c != NULL; c = c->next) {
        const cyaml_schema_field_t *field = field_find(fields, c->key);
        if (field == NULL) {
            return fail_node(d, c, STATUS_INVALID, msg, "unknown key");
        }
        TRY(check_value(d, c, &field->value, msg));
    }
    for (; fields->key != NULL; fields++) {
        if ((fields->value.flags & CYAML_FLAG_OPTIONAL) == 0 && !has_child(n, fields->key)) {
            char path[YAMLDOC_PATH_BYTES];
            path_of(n, path);
            return status_fail(msg, STATUS_INVALID, "%s:%" PRIu32 ": %s%s%s: is missing", d->name,
                               n->line, path, path[0] != '\0' ? "." : "", fields->key);
        }
    }
    return status_ok();
}

static struct status check_text(const struct yamldoc *d, const struct yamlnode *n,
                                const cyaml_schema_value_t *schema, struct errmsg *msg)
{
    if (n->kind != YAMLNODE_SCALAR) {
        return fail_node(d, n, STATUS_INVALID, msg, "must be a single value");
    }
    size_t size = strlen(n->text);
    if (size < schema->string.min) {
        return fail_node(d, n, STATUS_INVALID, msg, "is empty");
    }
    if (size > schema->string.max) {
        return fail_node(d, n, STATUS_LIMIT, msg, "has %zu bytes, at most %" PRIu32 " are allowed",
                         size, schema->string.max);
    }
    return status_ok();
}

static struct status check_list(const struct yamldoc *d, const struct yamlnode *n,
                                const cyaml_schema_value_t *schema, struct errmsg *msg)
{
    if (n->kind != YAMLNODE_LIST) {
        return fail_node(d, n, STATUS_INVALID, msg, "must be a list");
    }
    if (n->count < schema->sequence.min || n->count > schema->sequence.max) {
        return fail_node(d, n, STATUS_LIMIT, msg,
                         "has %" PRIu32 " entries; %" PRIu32 " to %" PRIu32 " are allowed",
                         n->count, schema->sequence.min, schema->sequence.max);
    }
    for (const struct yamlnode *c = n->first; c != NULL; c = c->next) {
        TRY(check_value(d, c, schema->sequence.entry, msg));
    }
    return status_ok();
}

static struct status check_value(const struct yamldoc *d, const struct yamlnode *n,
                                 const cyaml_schema_value_t *schema, struct errmsg *msg)
{
    switch (schema->type) {
    case CYAML_MAPPING:
        return check_map(d, n, schema->mapping.fields, msg);
    case CYAML_SEQUENCE:
        return check_list(d, n, schema, msg);
    case CYAML_STRING:
        return check_text(d, n, schema, msg);
    default:
        CHECK(schema->type == CYAML_IGNORE);
        return status_ok();
    }
}

/* ---- libcyaml ---- */

static void *cyaml_memory(void *ctx, void *p, size_t size)
{
    (void)ctx;
    if (size == 0) {
        mem_free(p);
        return NULL;
    }
    return mem_realloc(p, size);
}

static const cyaml_config_t cyaml_settings = {
    .mem_fn = cyaml_memory,
    .log_level = CYAML_LOG_ERROR,
    .flags = CYAML_CFG_NO_ALIAS,
};

struct status yamldoc_load(const struct yamldoc *d, const cyaml_schema_value_t *schema, void **out,
                           struct errmsg *msg)
{
    CHECK(schema->type == CYAML_MAPPING);
    if (d->root == NULL) {
        return status_fail(msg, STATUS_INVALID, "%s: is empty", d->name);
    }
    TRY(check_value(d, d->root, schema, msg));
    if (d->root->count == 0) {
        return status_fail(msg, STATUS_INVALID, "%s: is empty", d->name);
    }
    cyaml_data_t *loaded = NULL;
    cyaml_err_t error = cyaml_load_data(d->bytes, d->size, &cyaml_settings, schema, &loaded, NULL);
    if (error != CYAML_OK || loaded == NULL) {
        enum status_code code = error == CYAML_ERR_OOM ? STATUS_NOMEM : STATUS_INVALID;
        return status_fail(msg, code, "%s: %s", d->name,
                           code == STATUS_NOMEM ? status_text(code) : cyaml_strerror(error));
    }
    *out = loaded;
    return status_ok();
}

void yamldoc_unload(const cyaml_schema_value_t *schema, void *loaded)
{
    if (loaded != NULL) {
        cyaml_err_t error = cyaml_free(&cyaml_settings, schema, loaded, 0);
        CHECK(error == CYAML_OK);
    }
}

struct status yamldoc_save(const cyaml_schema_value_t *schema, const void *from, struct buffer *out)
{
    char *text = NULL;
    size_t size = 0;
    cyaml_err_t error = cyaml_save_data(&text, &size, &cyaml_settings, schema, from, 0);
    if (error != CYAML_OK) {
        return status_of(error == CYAML_ERR_OOM ? STATUS_NOMEM : STATUS_INVALID);
    }
    struct status s =
        size > YAMLDOC_BYTES_MAX ? status_of(STATUS_LIMIT) : buffer_append(out, text, size);
    mem_free(text);
    return s;
}

/* ---- Amounts ---- */

static struct status number_take(const struct yamldoc *d, const struct yamldoc_number *row,
                                 const char *text, uint8_t *out, struct errmsg *msg)
{
    uint64_t value;
    struct status s = unit_parse(row->unit, text, strlen(text), &value, msg);
    if (!status_is_ok(s)) {
        return yamldoc_blame(d, row->path, s, msg);
    }
    if (value < row->min || value > row->max) {
        char min[UNIT_STRING_BYTES];
        char max[UNIT_STRING_BYTES];
        unit_format(row->unit, row->min, min);
        unit_format(row->unit, row->max, max);
        return yamldoc_fail(d, row->path, STATUS_LIMIT, msg,
                            "%s is out of range; %s to %s are allowed", text, min, max);
    }
    if (row->out_size == sizeof(uint32_t)) {
        CHECK(row->max <= UINT32_MAX);
        uint32_t narrow = (uint32_t)value;
        memcpy(out, &narrow, sizeof narrow);
    } else {
        CHECK(row->out_size == sizeof value);
        memcpy(out, &value, sizeof value);
    }
    return status_ok();
}

struct status yamldoc_numbers(const struct yamldoc *d, const struct yamldoc_number *rows,
                              size_t count, const void *raw, void *out, struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        const char *text;
        memcpy(&text, (const uint8_t *)raw + rows[i].text_offset, sizeof text);
        if (text != NULL) {
            TRY(number_take(d, &rows[i], text, (uint8_t *)out + rows[i].out_offset, msg));
        }
    }
    return status_ok();
}

/* The command line's contexts: the half of config.h that is also written. */
#include "common/config.h"

#include "common/cleanup.h"
#include "common/mem.h"
#include "common/yamldoc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const cyaml_schema_value_t address_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, YAMLDOC_BYTES_MAX)};

static const cyaml_schema_field_t context_fields[] = {
    YAMLDOC_REQUIRED_TEXT("name", struct context, name),
    CYAML_FIELD_SEQUENCE("schedulers", CYAML_FLAG_POINTER, struct context, schedulers,
                         &address_schema, 1, CONFIG_SCHEDULERS_MAX),
    YAMLDOC_REQUIRED_TEXT("ca", struct context, ca),
    YAMLDOC_REQUIRED_TEXT("cert", struct context, cert),
    YAMLDOC_REQUIRED_TEXT("key", struct context, key),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t context_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct context, context_fields)};

static const cyaml_schema_field_t contexts_fields[] = {
    YAMLDOC_TEXT("current", struct context_config, current),
    CYAML_FIELD_SEQUENCE("contexts", CYAML_FLAG_POINTER, struct context_config, contexts,
                         &context_schema, 0, CONFIG_CONTEXTS_MAX),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t contexts_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct context_config, contexts_fields)};

static void context_close(struct context *c)
{
    mem_free(c->name);
    for (uint32_t i = 0; i < c->schedulers_count; i++) {
        mem_free(c->schedulers[i]);
    }
    mem_free(c->schedulers);
    mem_free(c->ca);
    mem_free(c->cert);
    mem_free(c->key);
    *c = (struct context){0};
}

void context_config_close(struct context_config *c)
{
    if (c == NULL) {
        return;
    }
    for (uint32_t i = 0; i < c->contexts_count; i++) {
        context_close(&c->contexts[i]);
    }
    mem_free(c->contexts);
    mem_free(c->current);
    mem_free(c);
}

struct context_config *context_config_new(void)
{
    return mem_zalloc(1, sizeof(struct context_config));
}

static struct context *context_get(const struct context_config *c, const char *name)
{
    for (uint32_t i = 0; i < c->contexts_count; i++) {
        if (strcmp(c->contexts[i].name, name) == 0) {
            return &c->contexts[i];
        }
    }
    return NULL;
}

/* key receives the faulty key, in the context. */
static struct status context_check(const struct context *c, char key[YAMLDOC_PATH_BYTES],
                                   struct errmsg *msg)
{
    struct name name;
    (void)snprintf(key, YAMLDOC_PATH_BYTES, "name");
    TRY(name_parse("the context's name", c->name, strlen(c->name), &name, msg));
    for (uint32_t i = 0; i < c->schedulers_count; i++) {
        (void)snprintf(key, YAMLDOC_PATH_BYTES, "schedulers[%u]", i);
        TRY(address_check(c->schedulers[i], 1, msg));
    }
    (void)snprintf(key, YAMLDOC_PATH_BYTES, "schedulers");
    if (c->schedulers_count == 0 || c->schedulers_count > CONFIG_SCHEDULERS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %u entries; 1 to %d are allowed",
                           c->schedulers_count, CONFIG_SCHEDULERS_MAX);
    }
    const struct {
        const char *key;
        const char *path;
    } paths[] = {{"ca", c->ca}, {"cert", c->cert}, {"key", c->key}};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        (void)snprintf(key, YAMLDOC_PATH_BYTES, "%s", paths[i].key);
        TRY(path_check(paths[i].path, msg));
    }
    return status_ok();
}

static struct status contexts_check(const struct yamldoc *d, const struct context_config *c,
                                    struct errmsg *msg)
{
    for (uint32_t i = 0; i < c->contexts_count; i++) {
        char key[YAMLDOC_PATH_BYTES] = "";
        char path[2 * YAMLDOC_PATH_BYTES];
        struct status s = context_check(&c->contexts[i], key, msg);
        if (status_is_ok(s) && context_get(c, c->contexts[i].name) != &c->contexts[i]) {
            (void)snprintf(key, sizeof key, "name");
            s = status_fail(msg, STATUS_INVALID, "%s is given twice", c->contexts[i].name);
        }
        (void)snprintf(path, sizeof path, "contexts[%u].%s", i, key);
        TRY(yamldoc_blame(d, path, s, msg));
    }
    if (c->current != NULL && context_get(c, c->current) == NULL) {
        char quoted[QUOTE_STRING_BYTES];
        text_quote(c->current, strlen(c->current), quoted);
        return yamldoc_fail(d, "current", STATUS_INVALID, msg, "there is no context \"%s\"",
                            quoted);
    }
    return status_ok();
}

/* Takes the document. */
static struct status contexts_take(struct yamldoc *d, struct context_config **out,
                                   struct errmsg *msg)
{
    void *raw = NULL;
    struct status s = yamldoc_load(d, &contexts_schema, &raw, msg);
    if (status_is_ok(s)) {
        s = contexts_check(d, raw, msg);
    }
    yamldoc_close(d);
    if (!status_is_ok(s)) {
        yamldoc_unload(&contexts_schema, raw);
        return s;
    }
    *out = raw; /* cyaml's memory is ours: yamldoc loads with mem_alloc */
    return status_ok();
}

struct status context_config_load(const char *path, struct context_config **out, struct errmsg *msg)
{
    struct yamldoc *d;
    TRY(yamldoc_open(&d, path, msg));
    return contexts_take(d, out, msg);
}

struct status context_config_parse(const char *name, struct bytes text, struct context_config **out,
                                   struct errmsg *msg)
{
    struct yamldoc *d;
    TRY(yamldoc_parse(&d, name, text, msg));
    return contexts_take(d, out, msg);
}

struct status context_find(const struct context_config *c, const char *name,
                           const struct context **out, struct errmsg *msg)
{
    const char *wanted = name != NULL ? name : c->current;
    if (wanted == NULL && c->contexts_count == 1) {
        *out = &c->contexts[0];
        return status_ok();
    }
    char all[ERRMSG_BYTES_MAX / 2] = "none";
    for (uint32_t i = 0, used = 0; i < c->contexts_count && used < sizeof all; i++) {
        int wrote =
            snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", c->contexts[i].name);
        used += wrote > 0 ? (uint32_t)wrote : 0;
    }
    if (wanted == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no context is chosen; there are: %s", all);
    }
    *out = context_get(c, wanted) != NULL ? context_get(c, wanted) : *out;
    if (context_get(c, wanted) == NULL) {
        char quoted[QUOTE_STRING_BYTES];
        text_quote(wanted, strlen(wanted), quoted);
        return status_fail(msg, STATUS_NOT_FOUND, "there is no context \"%s\"; there are: %s",
                           quoted, all);
    }
    return status_ok();
}

static struct status context_copy(const struct context *from, struct context *to)
{
    struct context c = {
        .name = mem_strdup(from->name),
        .schedulers = mem_zalloc(from->schedulers_count, sizeof(char *)),
        .ca = mem_strdup(from->ca),
        .cert = mem_strdup(from->cert),
        .key = mem_strdup(from->key),
    };
    bool whole =
        c.name != NULL && c.schedulers != NULL && c.ca != NULL && c.cert != NULL && c.key != NULL;
    for (uint32_t i = 0; whole && i < from->schedulers_count; i++) {
        c.schedulers[i] = mem_strdup(from->schedulers[i]);
        whole = c.schedulers[i] != NULL;
        c.schedulers_count++;
    }
    if (!whole) {
        context_close(&c);
        return status_of(STATUS_NOMEM);
    }
    *to = c;
    return status_ok();
}

/* Room for one more; the slot behind the last. */
static struct status slot_make(struct context_config *c, struct context **out, struct errmsg *msg)
{
    if (c->contexts_count == CONFIG_CONTEXTS_MAX) {
        return status_fail(msg, STATUS_LIMIT,
                           "there are %d contexts, which is the most there can be",
                           CONFIG_CONTEXTS_MAX);
    }
    struct context *grown = mem_realloc(c->contexts, (c->contexts_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    c->contexts = grown;
    *out = &grown[c->contexts_count];
    return status_ok();
}

struct status context_put(struct context_config *c, const struct context *context, bool current,
                          struct errmsg *msg)
{
    char key[YAMLDOC_PATH_BYTES] = "";
    struct status s = context_check(context, key, msg);
    if (!status_is_ok(s)) {
        return status_prefix(msg, s, "%s", key);
    }
    struct context *slot = context_get(c, context->name);
    bool added = slot == NULL;
    if (added) {
        TRY(slot_make(c, &slot, msg));
    }
    struct context copy;
    char *chosen = current ? mem_strdup(context->name) : NULL;
    s = current && chosen == NULL ? status_of(STATUS_NOMEM) : context_copy(context, &copy);
    if (!status_is_ok(s)) {
        mem_free(chosen);
        return status_fail(msg, s.code, "out of memory");
    }
    if (added) {
        c->contexts_count++;
    } else {
        context_close(slot);
    }
    *slot = copy;
    if (current) {
        mem_free(c->current);
        c->current = chosen;
    }
    return status_ok();
}

struct status context_remove(struct context_config *c, const char *name)
{
    struct context *gone = context_get(c, name);
    if (gone == NULL) {
        return status_of(STATUS_NOT_FOUND);
    }
    if (c->current != NULL && strcmp(c->current, name) == 0) {
        mem_free(c->current);
        c->current = NULL;
    }
    context_close(gone);
    size_t after = (size_t)(&c->contexts[c->contexts_count] - (gone + 1));
    memmove(gone, gone + 1, after * sizeof *gone);
    c->contexts_count--;
    return status_ok();
}

/* ---- Writing ---- */

static struct status file_write(int fd, struct bytes text)
{
    while (text.size > 0) {
        ssize_t wrote = write(fd, text.data, text.size);
        if (wrote < 0 && errno != EINTR) {
            return status_of(status_from_errno(errno));
        }
        if (wrote > 0) {
            text = bytes_of(text.data + wrote, text.size - (size_t)wrote);
        }
    }
    return fsync(fd) == 0 ? status_ok() : status_of(status_from_errno(errno));
}

struct status context_config_save(const struct context_config *c, const char *path,
                                  struct errmsg *msg)
{
    char temporary[CONFIG_PATH_BYTES_MAX + 16];
    int used = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    if (used < 0 || (size_t)used >= sizeof temporary) {
        return status_fail(msg, STATUS_LIMIT, "%.64s...: a path has at most %d bytes", path,
                           CONFIG_PATH_BYTES_MAX);
    }
    struct context none = {0};
    struct context_config whole = *c;
    if (whole.contexts == NULL) {
        whole.contexts = &none; /* libcyaml takes no NULL, even for an empty list */
    }
    struct buffer text = {0};
    struct status s = yamldoc_save(&contexts_schema, &whole, &text);
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "%s: %s", path, status_text(s.code));
    }
    AUTO_CLOSE int fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (fd < 0) {
        s = status_fail(msg, status_from_errno(errno), "%s: %s", temporary, strerror(errno));
        buffer_close(&text);
        return s;
    }
    s = file_write(fd, bytes_of(text.data, text.size));
    buffer_close(&text);
    if (status_is_ok(s) && rename(temporary, path) != 0) {
        s = status_of(status_from_errno(errno));
    }
    if (!status_is_ok(s)) {
        (void)status_fail(msg, s.code, "%s: %s", path, strerror(errno));
        (void)unlink(temporary);
    }
    return s;
}

#include "scheduler/core/catalog.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- Lookup ---- */

struct catalog_function *catalog_function_find(const struct catalog *c, const char *name)
{
    struct catalog_function *f;
    HASH_FIND_STR(c->functions, name, f);
    return f;
}

struct catalog_revision *catalog_revision_find(const struct catalog_function *f,
                                               const struct digest *id)
{
    struct catalog_revision *r;
    DL_FOREACH(f->revisions, r) {
        if (digest_compare(&r->id, id) == 0) {
            return r;
        }
    }
    return NULL;
}

struct catalog_revision *catalog_current(const struct catalog_function *f)
{
    struct catalog_revision *r = catalog_revision_find(f, &f->current);
    CHECK(r != NULL);
    return r;
}

struct catalog_node *catalog_node_find(const struct catalog *c, const char *name)
{
    struct catalog_node *n;
    HASH_FIND_STR(c->nodes, name, n);
    return n;
}

struct catalog_token *catalog_token_find(const struct catalog *c, const char *id)
{
    struct catalog_token *t;
    HASH_FIND_STR(c->tokens, id, t);
    return t;
}

const char *catalog_setting_find(const struct catalog *c, const char *key, const char *otherwise)
{
    struct catalog_setting *s;
    HASH_FIND_STR(c->settings, key, s);
    return s == NULL ? otherwise : s->value;
}

bool catalog_is_revoked(const struct catalog *c, const char *serial, const char *role,
                        const char *name)
{
    struct catalog_revoked *r = NULL;
    if (c->revoked == NULL) {
        return false;
    }
    if (serial[0] != '\0') {
        HASH_FIND_STR(c->revoked, serial, r);
    }
    if (r == NULL) {
        char who[CATALOG_TEXT_BYTES_MAX];
        (void)snprintf(who, sizeof who, "%s/%s", role, name);
        HASH_FIND_STR(c->revoked, who, r);
    }
    return r != NULL;
}

/* ---- Removal ---- */

static void revision_free(struct catalog_function *f, struct catalog_revision *r)
{
    DL_DELETE(f->revisions, r);
    arena_close(&r->arena);
    mem_free(r);
}

static void function_remove(struct catalog *c, struct catalog_function *f)
{
    while (f->revisions != NULL) {
        revision_free(f, f->revisions);
    }
    HASH_DEL(c->functions, f);
    mem_free(f);
}

#define REMOVE_ALL(table, type)                                                                    \
    do {                                                                                           \
        struct type *item, *next;                                                                  \
        HASH_ITER(hh, table, item, next) {                                                         \
            HASH_DEL(table, item);                                                                 \
            mem_free(item);                                                                        \
        }                                                                                          \
    } while (0)

void catalog_close(struct catalog *c)
{
    while (c->functions != NULL) {
        function_remove(c, c->functions);
    }
    REMOVE_ALL(c->nodes, catalog_node);
    REMOVE_ALL(c->tokens, catalog_token);
    REMOVE_ALL(c->revoked, catalog_revoked);
    REMOVE_ALL(c->settings, catalog_setting);
    REMOVE_ALL(c->schedulers, catalog_setting);
    jobs_close(&c->jobs);
    keys_close(&c->keys);
    images_close(&c->images);
    *c = (struct catalog){.jobs = c->jobs}; /* Which keeps who is told of changes. */
}

/* ---- Functions ---- */

static void revision_put(struct catalog_function *f, const struct digest *id,
                         const struct function_spec *spec, uint64_t index, uint64_t time_ms)
{
    struct catalog_revision *r = catalog_revision_find(f, id);
    if (r != NULL) {
        DL_DELETE(f->revisions, r); /* Deployed again: it becomes the newest. */
        DL_APPEND(f->revisions, r);
        return;
    }
    r = mem_must(mem_zalloc(1, sizeof *r));
    r->id = *id;
    r->index = index;
    r->time_ms = time_ms;
    struct status copied = function_spec_copy(&r->arena, spec, &r->spec);
    (void)mem_must(status_is_ok(copied) ? r : NULL);
    DL_APPEND(f->revisions, r);
    int count;
    struct catalog_revision *each;
    DL_COUNT(f->revisions, each, count);
    if (count > CATALOG_REVISIONS_MAX) {
        revision_free(f, f->revisions);
    }
}

/* A revision's image, pinned by whoever proposed it, may have been deleted meanwhile. */
static struct status image_is_here(const struct catalog *c, const char *ref, struct errmsg *msg)
{
    if (ref == NULL || ref[0] == '\0' || images_find(&c->images, ref) != NULL) {
        return status_ok();
    }
    return status_fail(msg, STATUS_NOT_FOUND, "there is no image %.150s", ref);
}

static struct status apply_deploy(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    const struct command_deploy *d = &cmd->command_deploy;
    struct catalog_function *f = catalog_function_find(c, d->spec->name);
    uint64_t index_now = f == NULL ? 0 : f->index;
    if (d->check_index != 0 && d->check_index != index_now) {
        return status_fail(msg, STATUS_CONFLICT,
                           "function %s was changed at index %" PRIu64 ", not at %" PRIu64,
                           d->spec->name, index_now, d->check_index);
    }
    TRY(image_is_here(c, d->spec->image, msg));
    if (f == NULL) {
        if (HASH_COUNT(c->functions) >= CATALOG_FUNCTIONS_MAX) {
            return status_fail(msg, STATUS_LIMIT,
                               "the cluster has %d functions, the most it may have",
                               CATALOG_FUNCTIONS_MAX);
        }
        struct name name;
        TRY(name_parse("function name", d->spec->name, strlen(d->spec->name), &name, msg));
        f = mem_must(mem_zalloc(1, sizeof *f));
        memcpy(f->name, name.text, sizeof f->name);
        HASH_ADD_STR(c->functions, name, f);
    }
    revision_put(f, &d->revision, d->spec, c->index, c->time_ms);
    f->current = d->revision;
    jobs_schedules_keep(&c->jobs, f->name, &catalog_current(f)->spec);
    f->index = c->index;
    return status_ok();
}

static struct status function_or_fail(const struct catalog *c, const char *name,
                                      struct catalog_function **out, struct errmsg *msg)
{
    *out = catalog_function_find(c, name);
    return *out != NULL ? status_ok()
                        : status_fail(msg, STATUS_NOT_FOUND, "no function is named %.80s", name);
}

static struct status apply_function_delete(struct catalog *c, const struct command *cmd,
                                           struct errmsg *msg)
{
    struct catalog_function *f;
    TRY(function_or_fail(c, cmd->command_function_delete.name, &f, msg));
    const struct job_function *jobs = jobs_function_find(&c->jobs, f->name);
    if (jobs != NULL && jobs->queued > 0) {
        return status_fail(msg, STATUS_CONFLICT,
                           "%" PRIu64 " durable invocations of %s have not ended; wait for them or "
                           "cancel them: skep cancel --function %s",
                           jobs->queued, f->name, f->name);
    }
    jobs_schedules_keep(&c->jobs, f->name, NULL);
    function_remove(c, f);
    return status_ok();
}

static struct status apply_function_rollback(struct catalog *c, const struct command *cmd,
                                             struct errmsg *msg)
{
    const struct command_function_rollback *r = &cmd->command_function_rollback;
    struct catalog_function *f;
    TRY(function_or_fail(c, r->name, &f, msg));
    struct catalog_revision *to = catalog_revision_find(f, &r->revision);
    if (to == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND,
                           "function %s has no such revision; see skep function history %s",
                           f->name, f->name);
    }
    TRY(image_is_here(c, to->spec.image, msg));
    f->current = to->id;
    jobs_schedules_keep(&c->jobs, f->name, &to->spec);
    f->index = c->index;
    return status_ok();
}

/* ---- Nodes ---- */

static struct status apply_node_admit(struct catalog *c, const struct command *cmd,
                                      struct errmsg *msg)
{
    const char *text = cmd->command_node_admit.name;
    if (catalog_node_find(c, text) != NULL) {
        return status_ok();
    }
    if (HASH_COUNT(c->nodes) >= CATALOG_NODES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "the cluster has %d nodes, the most it may have",
                           CATALOG_NODES_MAX);
    }
    struct name name;
    TRY(name_parse("node name", text, strlen(text), &name, msg));
    struct catalog_node *n = mem_must(mem_zalloc(1, sizeof *n));
    memcpy(n->name, name.text, sizeof n->name);
    n->index = c->index;
    HASH_ADD_STR(c->nodes, name, n);
    return status_ok();
}

static struct status apply_node_set(struct catalog *c, const struct command *cmd,
                                    struct errmsg *msg)
{
    const struct command_node_set *set = &cmd->command_node_set;
    struct catalog_node *n = catalog_node_find(c, set->name);
    if (n == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no node is named %.80s", set->name);
    }
    if (set->mode > NODE_MODE_DRAINING) {
        return status_fail(msg, STATUS_INVALID, "node mode %u is not known", set->mode);
    }
    const char *reason = set->reason == NULL ? "" : set->reason;
    if (strlen(reason) >= sizeof n->reason) {
        return status_fail(msg, STATUS_LIMIT, "a reason has at most %d bytes",
                           CATALOG_TEXT_BYTES_MAX - 1);
    }
    n->mode = set->mode;
    n->index = c->index;
    (void)snprintf(n->reason, sizeof n->reason, "%s", reason);
    return status_ok();
}

static struct status apply_node_remove(struct catalog *c, const struct command *cmd,
                                       struct errmsg *msg)
{
    struct catalog_node *n = catalog_node_find(c, cmd->command_node_remove.name);
    if (n == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no node is named %.80s",
                           cmd->command_node_remove.name);
    }
    HASH_DEL(c->nodes, n);
    mem_free(n);
    return status_ok();
}

/* ---- Tokens and revocations ---- */

/* Copies a text that must fit. */
static struct status take_text(const char *what, const char *text, char *out, size_t out_size,
                               struct errmsg *msg)
{
    size_t size = strlen(text);
    if (size >= out_size) {
        return status_fail(msg, STATUS_LIMIT, "%s: %zu bytes, at most %zu are allowed", what, size,
                           out_size - 1);
    }
    memcpy(out, text, size + 1);
    return status_ok();
}

static void tokens_expire(struct catalog *c)
{
    struct catalog_token *t, *next;
    HASH_ITER(hh, c->tokens, t, next) {
        if (t->expires_ms < c->time_ms) {
            HASH_DEL(c->tokens, t);
            mem_free(t);
        }
    }
}

static struct status apply_token_create(struct catalog *c, const struct command *cmd,
                                        struct errmsg *msg)
{
    const struct command_token_create *create = &cmd->command_token_create;
    tokens_expire(c);
    if (HASH_COUNT(c->tokens) >= CATALOG_TOKENS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%d join tokens are open, the most there may be",
                           CATALOG_TOKENS_MAX);
    }
    if (catalog_token_find(c, create->id) != NULL) {
        return status_fail(msg, STATUS_EXISTS, "token %.40s exists", create->id);
    }
    struct catalog_token t = {.expires_ms = create->expires_ms};
    TRY(take_text("token id", create->id, t.id, sizeof t.id, msg));
    TRY(take_text("token role", create->role, t.role, sizeof t.role, msg));
    TRY(take_text("token name", create->name, t.name, sizeof t.name, msg));
    struct catalog_token *kept = mem_must(mem_dup(&t, sizeof t));
    HASH_ADD_STR(c->tokens, id, kept);
    return status_ok();
}

static struct status apply_token_use(struct catalog *c, const struct command *cmd,
                                     struct errmsg *msg)
{
    const struct command_token_use *use = &cmd->command_token_use;
    struct catalog_token *t = catalog_token_find(c, use->id);
    if (t == NULL || t->expires_ms < c->time_ms) {
        return status_fail(msg, STATUS_DENIED, "join token %.40s is not known or has expired",
                           use->id);
    }
    if (t->used_by[0] != '\0') {
        return status_fail(msg, STATUS_DENIED, "join token %.40s was used by %s", use->id,
                           t->used_by);
    }
    if (strcmp(t->role, use->role) != 0) {
        return status_fail(msg, STATUS_DENIED, "join token %.40s is for role %s", use->id, t->role);
    }
    if (t->name[0] != '\0' && strcmp(t->name, use->name) != 0) {
        return status_fail(msg, STATUS_DENIED, "join token %.40s is for name %s", use->id, t->name);
    }
    return take_text("joiner's name", use->name, t->used_by, sizeof t->used_by, msg);
}

static struct status apply_revoke(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    const struct command_revoke *revoke = &cmd->command_revoke;
    struct catalog_revoked *known;
    HASH_FIND_STR(c->revoked, revoke->what, known);
    if (known != NULL) {
        return status_ok();
    }
    if (HASH_COUNT(c->revoked) >= CATALOG_REVOKED_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%d revocations are held, the most there may be",
                           CATALOG_REVOKED_MAX);
    }
    struct catalog_revoked r = {.time_ms = c->time_ms};
    TRY(take_text("what to revoke", revoke->what, r.what, sizeof r.what, msg));
    TRY(take_text("reason", revoke->reason, r.reason, sizeof r.reason, msg));
    struct catalog_revoked *kept = mem_must(mem_dup(&r, sizeof r));
    HASH_ADD_STR(c->revoked, what, kept);
    return status_ok();
}

/* ---- Settings and schedulers: texts by key ---- */

static struct status texts_put(struct catalog_setting **table, unsigned max, const char *what,
                               const char *key, const char *value, struct errmsg *msg)
{
    struct catalog_setting s = {.key = ""};
    TRY(take_text(what, key, s.key, sizeof s.key, msg));
    TRY(take_text(key, value, s.value, sizeof s.value, msg));
    struct catalog_setting *known;
    HASH_FIND_STR(*table, key, known);
    if (known != NULL) {
        memcpy(known->value, s.value, sizeof known->value);
        return status_ok();
    }
    if (HASH_COUNT(*table) >= max) {
        return status_fail(msg, STATUS_LIMIT, "%s: there are %u, the most there may be", what, max);
    }
    struct catalog_setting *kept = mem_must(mem_dup(&s, sizeof s));
    HASH_ADD_STR(*table, key, kept);
    return status_ok();
}

static struct status apply_setting(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    return texts_put(&c->settings, CATALOG_SETTINGS_MAX, "setting", cmd->command_setting.key,
                     cmd->command_setting.value, msg);
}

static struct status apply_scheduler_put(struct catalog *c, const struct command *cmd,
                                         struct errmsg *msg)
{
    const struct command_scheduler_put *put = &cmd->command_scheduler_put;
    return texts_put(&c->schedulers, CATALOG_SCHEDULERS_MAX, "scheduler", put->name, put->address,
                     msg);
}

static struct status apply_scheduler_remove(struct catalog *c, const struct command *cmd,
                                            struct errmsg *msg)
{
    struct catalog_setting *s;
    HASH_FIND_STR(c->schedulers, cmd->command_scheduler_remove.name, s);
    if (s == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no scheduler is named %.80s",
                           cmd->command_scheduler_remove.name);
    }
    HASH_DEL(c->schedulers, s);
    mem_free(s);
    return status_ok();
}

/* ---- Durable invocations ---- */

static const struct function_spec *spec_of(const struct catalog *c, const char *name)
{
    const struct catalog_function *f = catalog_function_find(c, name);
    return f == NULL ? NULL : &catalog_current(f)->spec;
}

static struct status apply_spawn(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    const struct command_spawn *s = &cmd->command_spawn;
    return jobs_spawn(&c->jobs, c->index, c->time_ms, s, spec_of(c, s->function), msg);
}

static struct status apply_finish(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    const struct command_finish *f = &cmd->command_finish;
    const struct job *j = jobs_find(&c->jobs, f->invocation);
    const struct function_spec *spec = j == NULL ? NULL : spec_of(c, j->function->name);
    return jobs_finish(&c->jobs, c->time_ms, f, spec, msg);
}

static struct status apply_cancel(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    return jobs_cancel(&c->jobs, c->time_ms, &cmd->command_invocation_cancel, msg);
}

static struct status apply_redrive(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    const struct command_redrive *r = &cmd->command_redrive;
    const struct job *j = jobs_find(&c->jobs, r->invocation);
    const struct function_spec *spec = j == NULL ? NULL : spec_of(c, j->function->name);
    return jobs_redrive(&c->jobs, c->time_ms, r, spec, msg);
}

static struct status apply_purge(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    return jobs_purge(&c->jobs, &cmd->command_purge, msg);
}

static struct status apply_expire(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    (void)msg;
    return jobs_expire(&c->jobs, c->time_ms, &cmd->command_expire);
}

static struct status apply_key_put(struct catalog *c, const struct command *cmd, struct errmsg *msg)
{
    return keys_put(&c->keys, c->index, c->time_ms, &cmd->command_key_put, msg);
}

static struct status apply_image_put(struct catalog *c, const struct command *cmd,
                                     struct errmsg *msg)
{
    return images_put(c, cmd->command_image_put.spec, msg);
}

static struct status apply_image_delete(struct catalog *c, const struct command *cmd,
                                        struct errmsg *msg)
{
    return images_delete(c, cmd->command_image_delete.name, msg);
}

static struct status apply_image_gc(struct catalog *c, const struct command *cmd,
                                    struct errmsg *msg)
{
    (void)msg;
    return images_collect(c, cmd->command_image_gc.grace_ms);
}

struct status catalog_apply(struct catalog *c, uint64_t index, const struct command *cmd,
                            struct errmsg *msg)
{
    static struct status (*const appliers[COMMAND_TYPE_COUNT_])(
        struct catalog *, const struct command *, struct errmsg *) = {
        [COMMAND_DEPLOY] = apply_deploy,
        [COMMAND_FUNCTION_DELETE] = apply_function_delete,
        [COMMAND_FUNCTION_ROLLBACK] = apply_function_rollback,
        [COMMAND_NODE_ADMIT] = apply_node_admit,
        [COMMAND_NODE_SET] = apply_node_set,
        [COMMAND_NODE_REMOVE] = apply_node_remove,
        [COMMAND_TOKEN_CREATE] = apply_token_create,
        [COMMAND_TOKEN_USE] = apply_token_use,
        [COMMAND_REVOKE] = apply_revoke,
        [COMMAND_SETTING] = apply_setting,
        [COMMAND_SCHEDULER_PUT] = apply_scheduler_put,
        [COMMAND_SCHEDULER_REMOVE] = apply_scheduler_remove,
        [COMMAND_SPAWN] = apply_spawn,
        [COMMAND_FINISH] = apply_finish,
        [COMMAND_INVOCATION_CANCEL] = apply_cancel,
        [COMMAND_REDRIVE] = apply_redrive,
        [COMMAND_PURGE] = apply_purge,
        [COMMAND_EXPIRE] = apply_expire,
        [COMMAND_KEY_PUT] = apply_key_put,
        [COMMAND_IMAGE_PUT] = apply_image_put,
        [COMMAND_IMAGE_DELETE] = apply_image_delete,
        [COMMAND_IMAGE_GC] = apply_image_gc,
    };
    CHECK(index > c->index);
    CHECK(cmd->type > COMMAND_NONE);
    CHECK(cmd->type < COMMAND_TYPE_COUNT_);
    c->index = index;
    if (cmd->time_ms > c->time_ms) {
        c->time_ms = cmd->time_ms; /* A new leader's clock may be behind the old one's. */
    }
    if (appliers[cmd->type] == NULL) {
        return status_fail(msg, STATUS_UNSUPPORTED, "no state is changed by %s",
                           command_type_name(cmd->type));
    }
    return appliers[cmd->type](c, cmd, msg);
}

/* ---- Snapshot ---- */

#define EXPORT_BEGIN(field, table)                                                                 \
    out->field##_count = HASH_COUNT(c->table);                                                     \
    out->field = arena_zalloc(a, out->field##_count, sizeof out->field[0]);                        \
    if (out->field == NULL) {                                                                      \
        return status_of(STATUS_NOMEM);                                                            \
    }

static struct status export_function(const struct catalog_function *f, struct arena *a,
                                     struct state_function *out)
{
    out->name = f->name;
    out->current = f->current;
    out->index = f->index;
    struct catalog_revision *r;
    int count;
    DL_COUNT(f->revisions, r, count);
    out->revisions = arena_zalloc(a, (size_t)count, sizeof out->revisions[0]);
    if (out->revisions == NULL) {
        return status_of(STATUS_NOMEM);
    }
    DL_FOREACH(f->revisions, r) {
        out->revisions[out->revisions_count++] = (struct state_revision){
            .revision = r->id, .spec = &r->spec, .index = r->index, .time_ms = r->time_ms};
    }
    return status_ok();
}

static struct status export_texts(const struct catalog_setting *table, struct arena *a,
                                  struct pair **out, size_t *count)
{
    *count = 0;
    *out = arena_zalloc(a, HASH_COUNT(table), sizeof **out);
    if (*out == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (const struct catalog_setting *s = table; s != NULL; s = s->hh.next) {
        (*out)[(*count)++] = (struct pair){.key = s->key, .value = s->value};
    }
    return status_ok();
}

struct status catalog_export(const struct catalog *c, struct arena *a, struct state *out)
{
    *out = (struct state){.index = c->index, .time_ms = c->time_ms};
    size_t i = 0;
    EXPORT_BEGIN(functions, functions)
    for (struct catalog_function *f = c->functions; f != NULL; f = f->hh.next) {
        TRY(export_function(f, a, &out->functions[i++]));
    }
    i = 0;
    EXPORT_BEGIN(nodes, nodes)
    for (struct catalog_node *n = c->nodes; n != NULL; n = n->hh.next) {
        out->nodes[i++] = (struct state_node){
            .name = n->name, .mode = n->mode, .index = n->index, .reason = n->reason};
    }
    i = 0;
    EXPORT_BEGIN(tokens, tokens)
    for (struct catalog_token *t = c->tokens; t != NULL; t = t->hh.next) {
        out->tokens[i++] = (struct state_token){.id = t->id,
                                                .role = t->role,
                                                .name = t->name,
                                                .expires_ms = t->expires_ms,
                                                .used_by = t->used_by};
    }
    i = 0;
    EXPORT_BEGIN(revoked, revoked)
    for (struct catalog_revoked *r = c->revoked; r != NULL; r = r->hh.next) {
        out->revoked[i++] =
            (struct state_revoked){.what = r->what, .reason = r->reason, .time_ms = r->time_ms};
    }
    i = 0;
    EXPORT_BEGIN(schedules, jobs.schedules)
    for (struct job_schedule *s = c->jobs.schedules; s != NULL; s = s->hh.next) {
        const char *slash = strchr(s->key, '/');
        out->schedules[i].function = arena_text(a, s->key, (size_t)(slash - s->key));
        out->schedules[i].name = slash + 1;
        out->schedules[i++].fired_ms = s->fired_ms;
    }
    out->jobs_count = HASH_COUNT(c->jobs.jobs);
    out->jobs_late = c->jobs.late;
    TRY(keys_export(&c->keys, a, out));
    TRY(images_export(&c->images, a, out));
    TRY(export_texts(c->settings, a, &out->settings, &out->settings_count));
    return export_texts(c->schedulers, a, &out->schedulers, &out->schedulers_count);
}

static struct status import_function(struct catalog *c, const struct state_function *from,
                                     struct errmsg *msg)
{
    struct name name;
    TRY(name_parse("function name", from->name, strlen(from->name), &name, msg));
    struct catalog_function *f = mem_must(mem_zalloc(1, sizeof *f));
    memcpy(f->name, name.text, sizeof f->name);
    f->current = from->current;
    f->index = from->index;
    HASH_ADD_STR(c->functions, name, f);
    for (size_t i = 0; i < from->revisions_count; i++) {
        const struct state_revision *r = &from->revisions[i];
        revision_put(f, &r->revision, r->spec, r->index, r->time_ms);
    }
    return catalog_revision_find(f, &f->current) != NULL
               ? status_ok()
               : status_fail(msg, STATUS_CORRUPT, "function %s lacks its current revision",
                             f->name);
}

static struct status import_node(struct catalog *c, const struct state_node *from,
                                 struct errmsg *msg)
{
    struct name name;
    TRY(name_parse("node name", from->name, strlen(from->name), &name, msg));
    if (strlen(from->reason) >= CATALOG_TEXT_BYTES_MAX) {
        return status_fail(msg, STATUS_CORRUPT, "node %s has a reason that is too long", name.text);
    }
    struct catalog_node *n = mem_must(mem_zalloc(1, sizeof *n));
    memcpy(n->name, name.text, sizeof n->name);
    n->mode = from->mode;
    n->index = from->index;
    (void)snprintf(n->reason, sizeof n->reason, "%s", from->reason);
    HASH_ADD_STR(c->nodes, name, n);
    return status_ok();
}

static struct status import_token(struct catalog *c, const struct state_token *from,
                                  struct errmsg *msg)
{
    struct catalog_token t = {.expires_ms = from->expires_ms};
    TRY(take_text("token id", from->id, t.id, sizeof t.id, msg));
    TRY(take_text("token role", from->role, t.role, sizeof t.role, msg));
    TRY(take_text("token name", from->name, t.name, sizeof t.name, msg));
    TRY(take_text("token used by", from->used_by, t.used_by, sizeof t.used_by, msg));
    struct catalog_token *kept = mem_must(mem_dup(&t, sizeof t));
    HASH_ADD_STR(c->tokens, id, kept);
    return status_ok();
}

static struct status import_revoked(struct catalog *c, const struct state_revoked *from,
                                    struct errmsg *msg)
{
    struct catalog_revoked r = {.time_ms = from->time_ms};
    TRY(take_text("revoked", from->what, r.what, sizeof r.what, msg));
    TRY(take_text("reason", from->reason, r.reason, sizeof r.reason, msg));
    struct catalog_revoked *kept = mem_must(mem_dup(&r, sizeof r));
    HASH_ADD_STR(c->revoked, what, kept);
    return status_ok();
}

static struct status import_all(struct catalog *c, const struct state *s, struct errmsg *msg)
{
    for (size_t i = 0; i < s->functions_count; i++) {
        TRY(import_function(c, &s->functions[i], msg));
    }
    for (size_t i = 0; i < s->nodes_count; i++) {
        TRY(import_node(c, &s->nodes[i], msg));
    }
    for (size_t i = 0; i < s->tokens_count; i++) {
        TRY(import_token(c, &s->tokens[i], msg));
    }
    for (size_t i = 0; i < s->revoked_count; i++) {
        TRY(import_revoked(c, &s->revoked[i], msg));
    }
    for (size_t i = 0; i < s->settings_count; i++) {
        TRY(texts_put(&c->settings, CATALOG_SETTINGS_MAX, "setting", s->settings[i].key,
                      s->settings[i].value, msg));
    }
    struct name name;
    for (size_t i = 0; i < s->schedules_count; i++) {
        const struct state_schedule *k = &s->schedules[i];
        TRY(name_parse("schedule's function", k->function, strlen(k->function), &name, msg));
        TRY(name_parse("schedule", k->name, strlen(k->name), &name, msg));
        jobs_fired(&c->jobs, k->function, k->name, k->fired_ms);
    }
    c->jobs.late = s->jobs_late;
    TRY(keys_import(&c->keys, s, msg));
    TRY(images_import(&c->images, s, msg));
    for (size_t i = 0; i < s->schedulers_count; i++) {
        const struct pair *p = &s->schedulers[i];
        TRY(texts_put(&c->schedulers, CATALOG_SCHEDULERS_MAX, "scheduler", p->key, p->value, msg));
    }
    return status_ok();
}

struct status catalog_import(struct catalog *c, const struct state *s, struct errmsg *msg)
{
    catalog_close(c);
    struct status status = import_all(c, s, msg);
    if (!status_is_ok(status)) {
        catalog_close(c);
        return status_of(STATUS_CORRUPT);
    }
    c->index = s->index;
    c->time_ms = s->time_ms;
    return status_ok();
}

void catalog_adopt(struct catalog *c, const struct state *s)
{
    CHECK(HASH_COUNT(c->functions) == 0);
    struct status images = images_import(&c->images, s, NULL);
    CHECK(status_is_ok(images) || images.code == STATUS_LIMIT);
    for (size_t i = 0; i < s->functions_count; i++) {
        CHECK(status_is_ok(import_function(c, &s->functions[i], NULL)));
    }
    for (size_t i = 0; i < s->settings_count; i++) {
        struct status put = texts_put(&c->settings, CATALOG_SETTINGS_MAX, "setting",
                                      s->settings[i].key, s->settings[i].value, NULL);
        CHECK(status_is_ok(put) || put.code == STATUS_LIMIT);
    }
    for (size_t i = 0; i < s->schedules_count; i++) {
        const struct state_schedule *k = &s->schedules[i];
        jobs_fired(&c->jobs, k->function, k->name, k->fired_ms);
    }
    c->jobs.late += s->jobs_late;
    c->time_ms = s->time_ms > c->time_ms ? s->time_ms : c->time_ms;
}

/* ---- Digest ---- */

static uint64_t fnv_text(uint64_t h, const char *text)
{
    return hash_fnv1a(h, text, strlen(text) + 1);
}

/* A specification, made from its rows like the codec, so that no field can be left out. */
#define ROW_DIGEST_U32(name) h = hash_fnv1a(h, &m->name, sizeof m->name);
#define ROW_DIGEST_U64(name) h = hash_fnv1a(h, &m->name, sizeof m->name);
#define ROW_DIGEST_STR(name) h = fnv_text(h, m->name == NULL ? "" : m->name);
#define ROW_DIGEST_BYTES(name)                                                                     \
    h = hash_fnv1a(hash_fnv1a(h, &m->name.size, sizeof m->name.size), m->name.data, m->name.size);
#define ROW_DIGEST_F(kind, name) ROW_DIGEST_##kind(name)
#define ROW_DIGEST_L(type, name)                                                                   \
    h = hash_fnv1a(h, &m->name##_count, sizeof m->name##_count);                                   \
    for (size_t i = 0; i < m->name##_count; i++) {                                                 \
        h = digest_##type(h, &m->name[i]);                                                         \
    }
#define ROW_DIGESTER(type)                                                                         \
    static uint64_t digest_##type(uint64_t h, const struct type *m)                                \
    {                                                                                              \
        FIELDS_##type(ROW_DIGEST_F, ROW_DIGEST_L, ROW_DIGEST_M) return h;                          \
    }

ROW_DIGESTER(text)
ROW_DIGESTER(pair)
ROW_DIGESTER(schedule_spec)
#define ROW_DIGEST_DIGEST(name) h = hash_fnv1a(h, &m->name, sizeof m->name);
ROW_DIGESTER(function_spec)
ROW_DIGESTER(image_spec)

/* The number of entries comes first: one table cannot pass for the next. */
static uint64_t fnv_count(uint64_t h, unsigned count)
{
    return hash_fnv1a(h, &count, sizeof count);
}

static uint64_t fnv_settings(uint64_t h, const struct catalog_setting *table)
{
    h = fnv_count(h, HASH_COUNT(table));
    for (const struct catalog_setting *s = table; s != NULL; s = s->hh.next) {
        h = fnv_text(fnv_text(h, s->key), s->value);
    }
    return h;
}

/* Field by field: struct padding is not part of the state. */
uint64_t catalog_digest(const struct catalog *c)
{
    uint64_t h = HASH_FNV1A;
    h = hash_fnv1a(h, &c->index, sizeof c->index);
    h = hash_fnv1a(h, &c->time_ms, sizeof c->time_ms);
    h = fnv_count(h, HASH_COUNT(c->functions));
    for (struct catalog_function *f = c->functions; f != NULL; f = f->hh.next) {
        h = fnv_text(h, f->name);
        h = hash_fnv1a(h, &f->current, sizeof f->current);
        h = hash_fnv1a(h, &f->index, sizeof f->index);
        struct catalog_revision *r;
        DL_FOREACH(f->revisions, r) {
            h = hash_fnv1a(h, &r->id, sizeof r->id);
            h = hash_fnv1a(h, &r->index, sizeof r->index);
            h = hash_fnv1a(h, &r->time_ms, sizeof r->time_ms);
            h = digest_function_spec(h, &r->spec);
        }
    }
    h = fnv_count(h, HASH_COUNT(c->nodes));
    for (struct catalog_node *n = c->nodes; n != NULL; n = n->hh.next) {
        h = fnv_text(h, n->name);
        h = hash_fnv1a(h, &n->mode, sizeof n->mode);
        h = hash_fnv1a(h, &n->index, sizeof n->index);
        h = fnv_text(h, n->reason);
    }
    h = fnv_count(h, HASH_COUNT(c->tokens));
    for (struct catalog_token *t = c->tokens; t != NULL; t = t->hh.next) {
        h = fnv_text(fnv_text(fnv_text(h, t->id), t->role), t->name);
        h = fnv_text(h, t->used_by);
        h = hash_fnv1a(h, &t->expires_ms, sizeof t->expires_ms);
    }
    h = fnv_count(h, HASH_COUNT(c->revoked));
    for (struct catalog_revoked *r = c->revoked; r != NULL; r = r->hh.next) {
        h = fnv_text(fnv_text(h, r->what), r->reason);
        h = hash_fnv1a(h, &r->time_ms, sizeof r->time_ms);
    }
    const uint64_t jobs[] = {HASH_COUNT(c->jobs.jobs), c->jobs.sum, c->jobs.late, c->jobs.bytes};
    h = hash_fnv1a(h, jobs, sizeof jobs);
    for (const struct job_schedule *s = c->jobs.schedules; s != NULL; s = s->hh.next) {
        h = hash_fnv1a(fnv_text(h, s->key), &s->fired_ms, sizeof s->fired_ms);
    }
    h = fnv_count(h, HASH_COUNT(c->images.images));
    for (const struct catalog_image *i = c->images.images; i != NULL; i = i->hh.next) {
        h = digest_image_spec(h, &i->spec);
        h = hash_fnv1a(hash_fnv1a(h, &i->index, sizeof i->index), &i->time_ms, sizeof i->time_ms);
    }
    const uint64_t collects[] = {c->images.collect_index, c->images.collect_before_ms};
    h = hash_fnv1a(h, collects, sizeof collects);
    h = hash_fnv1a(h, &c->keys.count, sizeof c->keys.count);
    for (size_t i = 0; i < c->keys.count; i++) {
        const struct data_key *k = &c->keys.items[i];
        h = fnv_text(hash_fnv1a(h, k->wrapped, k->wrapped_size), k->wrapped_by);
        h = hash_fnv1a(hash_fnv1a(h, &k->time_ms, sizeof k->time_ms), &k->index, sizeof k->index);
    }
    return fnv_settings(fnv_settings(h, c->settings), c->schedulers);
}

/* What operators change: each action is a row of a table and becomes one replicated command. */
#include "common/units.h"
#include "scheduler/core/core_internal.h"
#include "scheduler/core/isolation_policy.h"

#include <stdio.h>
#include <string.h>

/* Longer than an upload takes, whose chunks are named by nothing yet, and than clocks differ. */
enum { IMAGE_GRACE_MS = 3600 * 1000 };

struct pending {
    struct core *core;
    uint64_t peer, request;
};

static const char *arg_find(const struct admin *a, const char *key)
{
    for (size_t i = 0; i < a->args_count; i++) {
        if (strcmp(a->args[i].key, key) == 0) {
            return a->args[i].value;
        }
    }
    return "";
}

typedef struct status (*admin_make)(const struct core *c, const struct admin *a,
                                    struct command *out, struct errmsg *msg);

static struct status make_function_delete(const struct core *c, const struct admin *a,
                                          struct command *out, struct errmsg *msg)
{
    (void)c;
    (void)msg;
    out->type = COMMAND_FUNCTION_DELETE;
    out->command_function_delete.name = a->name;
    return status_ok();
}

/* revision: a digest or a unique prefix of one; empty: the one before the current one. */
static struct status make_function_rollback(const struct core *c, const struct admin *a,
                                            struct command *out, struct errmsg *msg)
{
    const struct catalog_function *f = catalog_function_find(&c->catalog, a->name);
    if (f == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no function is named %.80s", a->name);
    }
    const char *wanted = arg_find(a, "revision");
    const struct catalog_revision *found = NULL;
    struct catalog_revision *r;
    DL_FOREACH(f->revisions, r) {
        if (wanted[0] == '\0') {
            if (digest_compare(&r->id, &f->current) == 0) {
                break; /* found is the one before it */
            }
            found = r;
            continue;
        }
        char text[DIGEST_STRING_BYTES];
        digest_format(&r->id, text);
        if (strncmp(text, wanted, strlen(wanted)) == 0) {
            if (found != NULL) {
                return status_fail(msg, STATUS_INVALID,
                                   "revision %.20s is ambiguous; give more digits", wanted);
            }
            found = r;
        }
    }
    if (found == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND,
                           "function %s has no %s; see skep function history %s", f->name,
                           wanted[0] == '\0' ? "earlier revision" : "such revision", f->name);
    }
    TRY(isolation_allow(&c->catalog, &found->spec, msg));
    out->type = COMMAND_FUNCTION_ROLLBACK;
    out->command_function_rollback =
        (struct command_function_rollback){.name = a->name, .revision = found->id};
    return status_ok();
}

/* name: NAME, or NAME@sha256:DIGEST. */
static struct status make_image_delete(const struct core *c, const struct admin *a,
                                       struct command *out, struct errmsg *msg)
{
    (void)c;
    (void)msg;
    out->type = COMMAND_IMAGE_DELETE;
    out->command_image_delete.name = a->name;
    return status_ok();
}

static struct status make_image_gc(const struct core *c, const struct admin *a, struct command *out,
                                   struct errmsg *msg)
{
    (void)c;
    (void)a;
    (void)msg;
    out->type = COMMAND_IMAGE_GC;
    out->command_image_gc.grace_ms = IMAGE_GRACE_MS;
    return status_ok();
}

static struct status make_node_mode(const struct admin *a, uint32_t mode, struct command *out)
{
    out->type = COMMAND_NODE_SET;
    out->command_node_set =
        (struct command_node_set){.name = a->name, .mode = mode, .reason = arg_find(a, "reason")};
    return status_ok();
}

static struct status make_node_cordon(const struct core *c, const struct admin *a,
                                      struct command *out, struct errmsg *msg)
{
    (void)c;
    (void)msg;
    return make_node_mode(a, NODE_MODE_CORDONED, out);
}

static struct status make_node_uncordon(const struct core *c, const struct admin *a,
                                        struct command *out, struct errmsg *msg)
{
    (void)c;
    (void)msg;
    return make_node_mode(a, NODE_MODE_NORMAL, out);
}

static struct status make_node_drain(const struct core *c, const struct admin *a,
                                     struct command *out, struct errmsg *msg)
{
    (void)c;
    (void)msg;
    return make_node_mode(a, NODE_MODE_DRAINING, out);
}

static struct status make_node_remove(const struct core *c, const struct admin *a,
                                      struct command *out, struct errmsg *msg)
{
    (void)c;
    (void)msg;
    out->type = COMMAND_NODE_REMOVE;
    out->command_node_remove.name = a->name;
    return status_ok();
}

/* name: a certificate's serial (hex), or role/name. */
static struct status make_revoke(const struct core *c, const struct admin *a, struct command *out,
                                 struct errmsg *msg)
{
    (void)c;
    if (a->name[0] == '\0') {
        return status_fail(msg, STATUS_INVALID,
                           "name what to revoke: a certificate's serial, or role/name");
    }
    out->type = COMMAND_REVOKE;
    out->command_revoke = (struct command_revoke){.what = a->name, .reason = arg_find(a, "reason")};
    return status_ok();
}

static struct status make_setting(const struct core *c, const struct admin *a, struct command *out,
                                  struct errmsg *msg)
{
    (void)c;
    if (a->name[0] == '\0') {
        return status_fail(msg, STATUS_INVALID, "name the setting");
    }
    TRY(isolation_setting_check(a->name, arg_find(a, "value"), msg));
    const char *value = arg_find(a, "value");
    uint64_t ms;
    if (strcmp(a->name, "isolation.interval") == 0 && value[0] != '\0') {
        TRY(unit_parse(UNIT_DURATION, value, strlen(value), &ms, msg));
    }
    out->type = COMMAND_SETTING;
    out->command_setting = (struct command_setting){.key = a->name, .value = value};
    return status_ok();
}

static struct status invocation_of(const struct admin *a, struct id128 *out, struct errmsg *msg)
{
    return id_parse(a->name, INVOCATION_PREFIX, out, msg);
}

static struct status make_cancel(const struct core *c, const struct admin *a, struct command *out,
                                 struct errmsg *msg)
{
    (void)c;
    out->type = COMMAND_INVOCATION_CANCEL;
    out->command_invocation_cancel.reason = arg_find(a, "reason");
    return invocation_of(a, &out->command_invocation_cancel.invocation, msg);
}

static struct status make_redrive(const struct core *c, const struct admin *a, struct command *out,
                                  struct errmsg *msg)
{
    (void)c;
    out->type = COMMAND_REDRIVE;
    return invocation_of(a, &out->command_redrive.invocation, msg);
}

static struct status make_purge(const struct core *c, const struct admin *a, struct command *out,
                                struct errmsg *msg)
{
    (void)c;
    out->type = COMMAND_PURGE;
    return invocation_of(a, &out->command_purge.invocation, msg);
}

/* ---- All of a function's at once ---- */

enum { MANY_MAX = 1000 };

/* Proposals for many invocations, answered as one. */
struct many {
    struct core *core;
    uint64_t peer, request;
    uint32_t open, done, failed;
    bool more;
};

static void many_answer(struct many *k)
{
    char text[REASON_BYTES_MAX];
    (void)snprintf(text, sizeof text, "%u done, %u failed%s", k->done, k->failed,
                   k->more ? "; there are more: do it again" : "");
    send_reply(k->core, k->peer, k->request, k->failed > 0 ? STATUS_FAILED : STATUS_OK, text);
    mem_free(k);
}

static void many_done(void *data, struct status s, const char *message, uint64_t index)
{
    (void)message;
    (void)index;
    struct many *k = data;
    k->done += status_is_ok(s);
    k->failed += !status_is_ok(s);
    if (--k->open == 0) {
        many_answer(k);
    }
}

static void many_start(struct core *c, struct core_time now, uint64_t peer, const struct message *m,
                       const char *by, enum command_type type)
{
    struct many *k = mem_must(mem_zalloc(1, sizeof *k));
    *k = (struct many){.core = c, .peer = peer, .request = m->request, .open = 1};
    enum invocation_state wanted =
        type == COMMAND_INVOCATION_CANCEL ? INVOCATION_QUEUED : INVOCATION_DEAD;
    const char *function = arg_find(&m->admin, "function");
    uint32_t started = 0;
    for (struct job *j = c->catalog.jobs.jobs; j != NULL; j = j->hh.next) {
        if (j->state != wanted || strcmp(j->function->name, function) != 0) {
            continue;
        }
        if (started == MANY_MAX || k->failed > 0) {
            k->more = true;
            break;
        }
        struct command cmd = {.type = type, .by = by};
        if (type == COMMAND_INVOCATION_CANCEL) {
            cmd.command_invocation_cancel = (struct command_invocation_cancel){
                .invocation = j->id, .reason = arg_find(&m->admin, "reason")};
        } else if (type == COMMAND_REDRIVE) {
            cmd.command_redrive.invocation = j->id;
        } else {
            cmd.command_purge.invocation = j->id;
        }
        k->open++;
        started++;
        core_submit_up_to(c, now, &cmd, CORE_SPAWNS_PENDING_MAX, many_done, k);
    }
    if (--k->open == 0) {
        many_answer(k);
    }
}

static const struct {
    const char *action;
    admin_make make;
} actions[] = {
    {"function.delete", make_function_delete},
    {"function.rollback", make_function_rollback},
    {"image.delete", make_image_delete},
    {"image.gc", make_image_gc},
    {"node.cordon", make_node_cordon},
    {"node.uncordon", make_node_uncordon},
    {"node.drain", make_node_drain},
    {"node.remove", make_node_remove},
    {"ca.revoke", make_revoke},
    {"setting.set", make_setting},
    {"invocation.cancel", make_cancel},
    {"dead.redrive", make_redrive},
    {"dead.purge", make_purge},
};

static void on_done(void *data, struct status s, const char *message, uint64_t index)
{
    struct pending *p = data;
    const struct message answer = {
        .type = MESSAGE_REPLY,
        .request = p->request,
        .reply = {.code = s.code,
                  .message = message,
                  .index = index,
                  .leader = s.code == STATUS_NOT_LEADER ? p->core->leader_address : ""}};
    p->core->env.send(p->core->env.data, p->peer, &answer);
    mem_free(p);
}

/* Soft: a round of checks changes nothing that is replicated. */
static void isolation_asked(struct core *c, uint64_t peer, const struct message *m)
{
    uint32_t count;
    struct errmsg msg = {.text = ""};
    struct status s = isolation_run(c, m->admin.name, &count, &msg);
    if (status_is_ok(s)) {
        (void)snprintf(msg.text, sizeof msg.text, "%u nodes", count);
    }
    send_reply(c, peer, m->request, s.code, msg.text);
}

void admin_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    if (!c->leader) {
        send_not_leader(c, peer, m);
        return;
    }
    if (strcmp(m->admin.action, "isolation.run") == 0) {
        isolation_asked(c, peer, m);
        return;
    }
    const struct peer *p = peer_find(c, peer);
    for (size_t i = 0; i < sizeof actions / sizeof actions[0] && p != NULL; i++) {
        if (strcmp(actions[i].action, m->admin.action) != 0) {
            continue;
        }
        char by[2 * NAME_BYTES_MAX];
        (void)snprintf(by, sizeof by, "%s/%s", role_name(p->who.role), p->who.name.text);
        struct command cmd = {.by = by};
        struct errmsg msg = {.text = ""};
        struct status s = actions[i].make(c, &m->admin, &cmd, &msg);
        bool durable = cmd.type == COMMAND_INVOCATION_CANCEL || cmd.type == COMMAND_REDRIVE ||
                       cmd.type == COMMAND_PURGE;
        if (durable && m->admin.name[0] == '\0' && arg_find(&m->admin, "function")[0] != '\0') {
            many_start(c, now, peer, m, by, cmd.type);
            return;
        }
        if (!status_is_ok(s)) {
            send_reply(c, peer, m->request, s.code, msg.text);
            return;
        }
        struct pending *pending = mem_must(mem_zalloc(1, sizeof *pending));
        *pending = (struct pending){c, peer, m->request};
        core_submit(c, now, &cmd, on_done, pending);
        return;
    }
    char text[REASON_BYTES_MAX];
    (void)snprintf(text, sizeof text, "no such action: %.60s", m->admin.action);
    send_reply(c, peer, m->request, STATUS_INVALID, text);
}

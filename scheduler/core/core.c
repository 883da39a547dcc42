#include "scheduler/core/core_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LEASE_MS_DEFAULT = 3000, SETTLE_MS_DEFAULT = 1000, SCALE_EVERY_US = 50000 };

struct core *core_new(const struct core_env *env, const struct core_config *config)
{
    struct core *c = mem_zalloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->env = *env;
    c->config = *config;
    if (c->config.lease_ms == 0) {
        c->config.lease_ms = LEASE_MS_DEFAULT;
    }
    if (c->config.settle_ms == 0) {
        c->config.settle_ms = SETTLE_MS_DEFAULT;
    }
    if (c->config.calls_max == 0) {
        c->config.calls_max = CORE_CALLS_MAX;
    }
    wheel_init(&c->wheel, 0);
    durable_init(c);
    return c;
}

void core_free(struct core *c)
{
    if (c == NULL) {
        return;
    }
    struct proposal *o, *next;
    HASH_ITER(hh, c->proposals, o, next) {
        HASH_DEL(c->proposals, o);
        o->done(o->data, status_of(STATUS_UNKNOWN),
                "the scheduler stopped; the change may or may not have happened", 0);
        mem_free(o);
    }
    calls_fail_all(c, (struct core_time){0});
    durable_role_lost(c, (struct core_time){0});
    instances_clear(c);
    nodes_clear(c);
    struct peer *p, *next_peer;
    HASH_ITER(hh, c->peers, p, next_peer) {
        HASH_DEL(c->peers, p);
        mem_free(p);
    }
    restore_close(&c->restore);
    catalog_close(&c->catalog);
    mem_free(c);
}

/* ---- Small things ---- */

struct peer *peer_find(const struct core *c, uint64_t handle)
{
    struct peer *p;
    HASH_FIND(hh, c->peers, &handle, sizeof handle, p);
    return p;
}

void send_reply(struct core *c, uint64_t peer, uint64_t request, enum status_code code,
                const char *message)
{
    if (request == 0) {
        return;
    }
    const struct message m = {
        .type = MESSAGE_REPLY,
        .request = request,
        .reply = {.code = code, .message = message, .index = c->catalog.index}};
    c->env.send(c->env.data, peer, &m);
}

/* Each question with an answer of its own kind is told in that kind where the leader is. */
void send_not_leader(struct core *c, uint64_t peer, const struct message *m)
{
    static const char text[] = "this scheduler is not the leader";
    struct message answer = {.request = m->request};
    const char *leader = c->leader ? "" : c->leader_address;
    switch (m->type) {
    case MESSAGE_CALL:
        answer.type = MESSAGE_CALL_REPLY;
        answer.call_reply =
            (struct call_reply){.code = STATUS_NOT_LEADER, .message = text, .leader = leader};
        break;
    case MESSAGE_SPAWN:
        answer.type = MESSAGE_SPAWN_REPLY;
        answer.spawn_reply =
            (struct spawn_reply){.code = STATUS_NOT_LEADER, .message = text, .leader = leader};
        break;
    case MESSAGE_OUTCOME_QUERY:
        answer.type = MESSAGE_OUTCOME;
        answer.outcome =
            (struct outcome){.code = STATUS_NOT_LEADER, .message = text, .leader = leader};
        break;
    case MESSAGE_QUERY:
        answer.type = MESSAGE_RECORDS;
        answer.records =
            (struct records){.code = STATUS_NOT_LEADER, .message = text, .leader = leader};
        break;
    default:
        answer.type = MESSAGE_REPLY;
        answer.reply = (struct reply){.code = STATUS_NOT_LEADER, .message = text, .leader = leader};
        break;
    }
    c->env.send(c->env.data, peer, &answer);
}

void journal_add(struct core *c, struct core_time now, const char *subject, const char *format, ...)
{
    struct journal_entry *e = &c->journal[c->journal_count++ % CORE_JOURNAL_MAX];
    e->unix_ms = now.unix_ms;
    (void)snprintf(e->subject, sizeof e->subject, "%s", subject);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
}

struct id128 core_new_id(struct core *c, struct core_time now)
{
    uint64_t high = c->env.random(c->env.data);
    return id_make(now.unix_ms, high, c->env.random(c->env.data));
}

/* ---- Peers and messages ---- */

void core_peer_open(struct core *c, struct core_time now, uint64_t peer, const struct identity *who)
{
    CHECK(peer != 0);
    CHECK(peer_find(c, peer) == NULL);
    struct peer *p = mem_must(mem_zalloc(1, sizeof *p));
    p->handle = peer;
    p->who = *who;
    HASH_ADD(hh, c->peers, handle, sizeof p->handle, p);
    if (who->role == ROLE_AGENT) {
        nodes_peer_open(c, now, peer, who->name.text);
    }
}

void core_peer_close(struct core *c, struct core_time now, uint64_t peer)
{
    struct peer *p = peer_find(c, peer);
    if (p == NULL) {
        return;
    }
    if (p->who.role == ROLE_AGENT) {
        nodes_peer_close(c, now, peer);
    }
    if (p->calls > 0) {
        durable_forget_peer(c, peer);
        calls_forget_peer(c, now, peer);
    }
    HASH_DEL(c->peers, p);
    mem_free(p);
}

void core_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    switch (m->type) {
    case MESSAGE_CALL:
        calls_receive(c, now, peer, m);
        break;
    case MESSAGE_SPAWN:
        durable_spawn(c, now, peer, m);
        break;
    case MESSAGE_OUTCOME_QUERY:
        durable_outcome(c, now, peer, m);
        break;
    case MESSAGE_RESULT:
        calls_result(c, now, peer, &m->result);
        break;
    case MESSAGE_HEARTBEAT:
        nodes_heartbeat(c, now, peer, m);
        break;
    case MESSAGE_NODE_REGISTER:
        nodes_register(c, now, peer, m);
        break;
    case MESSAGE_INSTANCE_EVENT: {
        const struct peer *p = peer_find(c, peer);
        struct node *n = p == NULL ? NULL : node_find(c, p->who.name.text);
        if (c->leader && n != NULL && n->peer == peer && n->registered) {
            instances_event(c, now, n, m->instance_event.report,
                            status_from_wire(m->instance_event.code));
        }
        break;
    }
    case MESSAGE_ISOLATION_REPORT:
        isolation_report(c, now, peer, m);
        break;
    case MESSAGE_ADMIN:
        admin_receive(c, now, peer, m);
        break;
    case MESSAGE_QUERY:
        query_receive(c, now, peer, m);
        break;
    default:
        c->stats.messages_refused++;
        send_reply(c, peer, m->request, STATUS_UNSUPPORTED,
                   "the scheduler does not take this message");
        break;
    }
}

/* ---- Commands ---- */

static bool changes_functions(enum command_type type)
{
    return type == COMMAND_DEPLOY || type == COMMAND_FUNCTION_DELETE ||
           type == COMMAND_FUNCTION_ROLLBACK;
}

static bool changes_what_agents_know(enum command_type type)
{
    return type == COMMAND_REVOKE || type == COMMAND_SCHEDULER_PUT ||
           type == COMMAND_SCHEDULER_REMOVE;
}

struct status core_apply(struct core *c, struct core_time now, uint64_t index,
                         const struct command *cmd, struct errmsg *msg)
{
    struct errmsg local = {.text = ""};
    c->applying = now;
    uint64_t before_ms = c->catalog.time_ms;
    struct status s = catalog_apply(&c->catalog, index, cmd, &local);
    if (c->catalog.time_ms > before_ms) {
        c->time_seen_us = now.mono_us;
    }
    if (cmd->type == COMMAND_RESTORE) {
        s = restore_apply(c, now, &cmd->command_restore, &local);
    } else {
        restore_check(c);
    }
    struct applied *o = &c->outcomes[index % OUTCOMES_MAX];
    *o = (struct applied){.index = index, .code = s.code};
    (void)snprintf(o->message, sizeof o->message, "%.*s", REASON_BYTES_MAX - 1, local.text);
    if (msg != NULL) {
        *msg = local;
    }
    /* Revisions may have been freed: the runtimes must not keep pointers to them for a moment. */
    if (changes_functions(cmd->type)) {
        runtimes_sync(c, now);
    }
    if (cmd->type == COMMAND_NODE_REMOVE && status_is_ok(s)) {
        node_removed(c, now, cmd->command_node_remove.name);
    }
    durable_applied(c, now, cmd);
    if (c->leader && changes_what_agents_know(cmd->type)) {
        nodes_lead(c);
    }
    return s;
}

void core_submit(struct core *c, struct core_time now, const struct command *cmd, core_done done,
                 void *data)
{
    core_submit_up_to(c, now, cmd, CORE_PENDING_MAX, done, data);
}

void core_submit_up_to(struct core *c, struct core_time now, const struct command *cmd,
                       unsigned max, core_done done, void *data)
{
    c->applying = now; /* done may be called at once, and then acts at this time. */
    if (!c->leader) {
        done(data, status_of(STATUS_NOT_LEADER), "this scheduler is not the leader", 0);
        return;
    }
    if (HASH_COUNT(c->proposals) >= max) {
        done(data, status_of(STATUS_LIMIT), "too many changes are in flight; try again", 0);
        return;
    }
    struct command stamped = *cmd;
    stamped.time_ms = durable_wall_ms(c, now);
    uint64_t ticket = ++c->ticket_last;
    struct proposal *p = mem_must(mem_zalloc(1, sizeof *p));
    *p = (struct proposal){.ticket = ticket, .done = done, .data = data};
    HASH_ADD(hh, c->proposals, ticket, sizeof p->ticket, p);
    struct status s = c->env.propose(c->env.data, ticket, &stamped);
    if (!status_is_ok(s)) {
        HASH_DEL(c->proposals, p);
        mem_free(p);
        const char *why =
            s.code == STATUS_LIMIT && c->env.refusal != NULL ? c->env.refusal(c->env.data) : NULL;
        done(data, s, why == NULL ? status_text(s.code) : why, 0);
    }
}

void core_proposed(struct core *c, struct core_time now, uint64_t ticket, struct status s,
                   uint64_t index)
{
    c->applying = now;
    struct proposal *p;
    HASH_FIND(hh, c->proposals, &ticket, sizeof ticket, p);
    if (p == NULL) {
        return;
    }
    struct proposal done = *p;
    HASH_DEL(c->proposals, p);
    mem_free(p);
    if (!status_is_ok(s)) {
        const char *text = s.code == STATUS_UNKNOWN
                               ? "leadership was lost; the change may or may not have happened"
                               : status_text(s.code);
        done.done(done.data, s, text, 0);
        return;
    }
    const struct applied *o = &c->outcomes[index % OUTCOMES_MAX];
    if (o->index != index) {
        done.done(done.data, status_of(STATUS_UNKNOWN), "the outcome of the change was not kept",
                  index);
        return;
    }
    done.done(done.data, status_of(o->code), o->message, index);
}

/* ---- Role and time ---- */

void core_role(struct core *c, struct core_time now, bool leader, uint64_t term,
               const char *leader_name, const char *leader_address)
{
    (void)snprintf(c->leader_name, sizeof c->leader_name, "%s", leader_name);
    (void)snprintf(c->leader_address, sizeof c->leader_address, "%s", leader_address);
    bool was = c->leader && c->term == term;
    if (leader && was) {
        return;
    }
    if (c->leader) {
        c->leader = false;
        calls_fail_all(c, now);
        durable_role_lost(c, now);
        instances_clear(c);
    }
    c->term = term;
    c->leader = leader;
    if (!leader) {
        return;
    }
    c->settle_until_us = now.mono_us + (uint64_t)c->config.settle_ms * 1000;
    durable_limits(c);
    runtimes_sync(c, now);
    nodes_begin(c, now);
    journal_add(c, now, "cluster", "%s leads in term %llu", leader_name, (unsigned long long)term);
}

void core_tick(struct core *c, struct core_time now)
{
    if (!c->leader) {
        return;
    }
    calls_expire(c, now);
    durable_tick(c, now);
    if (now.mono_us - c->scaled_us < SCALE_EVERY_US) {
        return;
    }
    c->scaled_us = now.mono_us;
    nodes_tick(c, now);
    isolation_tick(c, now);
    instances_tick(c, now);
    CHECK_SLOW((core_check(c), true));
}

/* ---- State in and out ---- */

const struct catalog *core_catalog(const struct core *c)
{
    return &c->catalog;
}

bool core_is_leader(const struct core *c)
{
    return c->leader;
}

struct core_stats core_stats(const struct core *c)
{
    struct core_stats s = c->stats;
    s.instances = HASH_COUNT(c->instances);
    s.queued = 0;
    s.instances_ready = 0;
    s.nodes_ready = 0;
    s.isolation_nodes_breached = 0;
    for (const struct runtime *f = c->runtimes; f != NULL; f = f->hh.next) {
        s.queued += f->queued;
    }
    s.running = HASH_COUNT(c->calls) - s.queued;
    s.jobs = HASH_COUNT(c->catalog.jobs.jobs);
    s.jobs_late = c->catalog.jobs.late;
    s.jobs_bytes = c->catalog.jobs.bytes;
    s.jobs_queued = 0;
    for (const struct job_function *k = c->catalog.jobs.functions; k != NULL; k = k->hh.next) {
        s.jobs_queued += k->queued;
    }
    for (const struct instance *i = c->instances; i != NULL; i = i->hh.next) {
        s.instances_ready += i->state == INSTANCE_READY;
    }
    for (const struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        s.nodes_ready += node_ready(n);
        s.isolation_nodes_breached += n->isolation.failed[0] != '\0';
    }
    return s;
}

uint64_t core_node_peer(const struct core *c, const char *node)
{
    const struct node *n = node_find(c, node);
    return n == NULL ? 0 : n->peer;
}

uint64_t core_instance_peer(const struct core *c, struct id128 instance, const char **node)
{
    struct instance *i;
    HASH_FIND(hh, c->instances, &instance, sizeof instance, i);
    if (i == NULL) {
        return 0;
    }
    *node = i->node->name;
    return i->node->peer;
}

size_t core_function_instances(const struct core *c, const char *function, struct id128 *out,
                               size_t max)
{
    const struct runtime *f = runtime_find(c, function);
    if (f == NULL || f->instances == NULL) {
        return 0;
    }
    size_t count = 0;
    /* The list's head knows its tail: walk from the newest. */
    const struct instance *i = f->instances->prev;
    while (count < max) {
        out[count++] = i->id;
        if (i == f->instances) {
            break;
        }
        i = i->prev;
    }
    return count;
}

/* ---- Invariants ---- */

static void check_runtime(const struct runtime *f)
{
    uint32_t queued = 0, starting = 0, ready = 0;
    struct work *q;
    DL_FOREACH(f->queue, q) {
        CHECK(q->state == WORK_QUEUED);
        CHECK(q->instance == NULL);
        queued++;
    }
    struct instance *i;
    DL_FOREACH(f->instances, i) {
        CHECK(i->function == f);
        CHECK(i->inflight + i->foreign <= i->concurrency);
        uint32_t running = 0;
        struct work *r;
        DL_FOREACH(i->calls, r) {
            CHECK(r->instance == i);
            CHECK(r->state == WORK_RUNNING);
            running++;
        }
        CHECK(running == i->inflight);
        uint32_t foreign = 0;
        struct foreign *n;
        DL_FOREACH(i->foreigners, n) {
            foreign++;
        }
        CHECK(foreign == i->foreign);
        CHECK_IMPLIES(i->in_free, instance_usable(i));
        CHECK_IMPLIES(i->in_free, i->inflight + i->foreign < i->concurrency);
        bool current = f->current != NULL && digest_compare(&i->revision, &f->current->id) == 0;
        starting += current && i->state == INSTANCE_STARTING;
        ready += current && i->state == INSTANCE_READY;
    }
    CHECK(queued == f->queued);
    CHECK(starting == f->starting);
    CHECK(ready == f->ready);
}

void core_check(const struct core *c)
{
    for (const struct runtime *f = c->runtimes; f != NULL; f = f->hh.next) {
        check_runtime(f);
    }
    for (const struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        uint64_t cpu = 0, memory = 0;
        uint32_t count = 0;
        for (const struct instance *i = c->instances; i != NULL; i = i->hh.next) {
            if (i->node == n) {
                cpu += i->cpu_millis;
                memory += i->memory_bytes;
                count++;
            }
        }
        CHECK(cpu == n->cpu_used_millis);
        CHECK(memory == n->memory_used_bytes);
        CHECK(count == n->instances);
    }
    size_t bytes = 0;
    for (const struct work *k = c->calls; k != NULL; k = k->hh.next) {
        bytes += k->payload_size;
    }
    CHECK(bytes == c->payload_bytes);
    jobs_check(&c->catalog.jobs);
    for (const struct work *w = c->calls; w != NULL; w = w->hh.next) {
        CHECK_IMPLIES(w->job != NULL, w->job->work == w && w->state == WORK_RUNNING);
    }
}

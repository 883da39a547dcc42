/* Durable invocations, the leader's side: from a spawn message to a committed job, from a lane to
 * an instance, from a result to a committed end.
 *
 *     spawn -> command_spawn -> (applied) spawn_reply, lane -> free slot -> invoke
 *     result -> command_finish -> (applied) result_ack; whoever waits gets the outcome
 *
 * Attempts that fail, crash or are lost with their node end with a command_finish too: the state
 * machine decides what comes next. What runs is not replicated: a new leader learns it from the
 * agents' reports, and starts nothing before they had time to report. */
#include "scheduler/core/core_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RETRY_AFTER_MS = 100,
    REFUSED_PAUSE_US = 100000,
    RESULT_PAUSE_US = 6000000, /* longer than agents wait before they send a result again */
    WAKE_MAX = 2000,
    COLLECT_MAX = 5000,
    COLLECT_APPLY_MAX = 8,
    SCHEDULES_EVERY_US = 1000000,
    READINGS_MAX = 65536,
};

/* Where a clock was set back, the committed time is ahead of it: it goes on at the pace of the
 * monotonic clock then, or pauses before retries would last until the clock has caught up. */
uint64_t durable_wall_ms(const struct core *c, struct core_time now)
{
    uint64_t since_us =
        c->time_seen_us != 0 && now.mono_us > c->time_seen_us ? now.mono_us - c->time_seen_us : 0;
    uint64_t committed_ms = c->catalog.time_ms + since_us / 1000;
    return now.unix_ms > committed_ms ? now.unix_ms : committed_ms;
}

/* ---- Limits of tenants: settings tenant.NAME.KEY, or tenant.default.KEY ---- */

static double tenant_setting(const struct core *c, const char *tenant, const char *key)
{
    char name[CATALOG_TEXT_BYTES_MAX];
    (void)snprintf(name, sizeof name, "tenant.%s.%s", tenant, key);
    const char *value = catalog_setting_find(&c->catalog, name, NULL);
    if (value == NULL) {
        (void)snprintf(name, sizeof name, "tenant.default.%s", key);
        value = catalog_setting_find(&c->catalog, name, "0");
    }
    double number = strtod(value, NULL);
    return number > 0 && number < UINT32_MAX ? number : 0;
}

static void tenant_limits(const struct core *c, struct job_tenant *n)
{
    n->running_max = (uint32_t)tenant_setting(c, n->name, "running");
    double rate = tenant_setting(c, n->name, "rate") * 1000;
    n->rate_milli = rate < UINT32_MAX ? (uint32_t)rate : UINT32_MAX;
    n->queued_max = (uint64_t)tenant_setting(c, n->name, "queued");
    uint32_t weight = (uint32_t)tenant_setting(c, n->name, "weight");
    n->weight = weight == 0 ? 1 : weight;
}

void durable_limits(struct core *c)
{
    for (struct job_tenant *n = c->catalog.jobs.tenants; n != NULL; n = n->hh.next) {
        tenant_limits(c, n);
    }
}

/* ---- Spawning ---- */

struct spawning {
    struct core *core;
    uint64_t peer, request;
};

static void spawn_answer(struct core *c, uint64_t peer, uint64_t request, enum status_code code,
                         const char *text, struct id128 id, bool existing)
{
    if (code == STATUS_LIMIT) {
        c->stats.spawns_limit++;
    }
    const struct message m = {
        .type = MESSAGE_SPAWN_REPLY,
        .request = request,
        .spawn_reply = {.code = code,
                        .message = text,
                        .leader = code == STATUS_NOT_LEADER ? c->leader_address : "",
                        .invocation = id,
                        .existing = existing,
                        .retry_after_ms = code == STATUS_LIMIT ? RETRY_AFTER_MS : 0}};
    c->env.send(c->env.data, peer, &m);
}

static void spawn_done(void *data, struct status s, const char *message, uint64_t index)
{
    (void)index;
    struct spawning *p = data;
    struct core *c = p->core;
    const struct job *j = c->catalog.jobs.spawned;
    bool known = (s.code == STATUS_OK || s.code == STATUS_EXISTS) && index != 0 && j != NULL;
    spawn_answer(c, p->peer, p->request, known ? STATUS_OK : s.code, known ? "" : message,
                 known ? j->id : (struct id128){0}, s.code == STATUS_EXISTS);
    mem_free(p);
}

/* What the user asked for, in range; times become absolute. */
static struct status spawn_command(struct core *c, struct core_time now, const struct spawn *m,
                                   const char *tenant, struct command_spawn *out,
                                   struct errmsg *msg)
{
    uint64_t wall_ms = durable_wall_ms(c, now);
    if (strlen(m->key) > SPAWN_KEY_BYTES_MAX) {
        return status_fail(msg, STATUS_INVALID, "the key is longer than %d bytes",
                           SPAWN_KEY_BYTES_MAX);
    }
    if (m->priority > SPAWN_PRIORITY_MAX) {
        return status_fail(msg, STATUS_INVALID, "priority %u: 1 to %d are possible", m->priority,
                           SPAWN_PRIORITY_MAX);
    }
    if (m->ttl_ms > SPAWN_TTL_MS_MAX || m->deadline_ms > SPAWN_TTL_MS_MAX ||
        m->delay_ms > SPAWN_TTL_MS_MAX || m->at_ms > wall_ms + SPAWN_TTL_MS_MAX) {
        return status_fail(msg, STATUS_INVALID,
                           "ttl, deadline, delay and at may be at most 7 days from now");
    }
    if (m->timeout_ms > CORE_TIMEOUT_MS_MAX) {
        return status_fail(msg, STATUS_INVALID, "the timeout is longer than 24 hours");
    }
    if (m->payload.size > SPAWN_INLINE_BYTES_MAX) {
        return status_fail(msg, STATUS_INVALID, "the payload is larger than %d bytes",
                           SPAWN_INLINE_BYTES_MAX);
    }
    uint64_t not_before = m->delay_ms == 0 ? 0 : wall_ms + m->delay_ms;
    not_before = m->at_ms > not_before ? m->at_ms : not_before;
    uint64_t from = not_before > wall_ms ? not_before : wall_ms;
    uint64_t ttl = m->ttl_ms == 0 ? SPAWN_TTL_MS_DEFAULT : m->ttl_ms;
    *out = (struct command_spawn){
        .invocation = core_new_id(c, now),
        .function = m->function,
        .tenant = tenant,
        .key = m->key,
        .payload = m->payload,
        .payload_ref = m->payload_ref,
        .payload_bytes = digest_is_zero(&m->payload_ref) ? m->payload.size : m->payload_bytes,
        .priority = m->priority == 0 ? SPAWN_PRIORITY_DEFAULT : m->priority,
        .not_before_ms = not_before,
        .deadline_at_ms = m->deadline_ms != 0 ? wall_ms + m->deadline_ms : from + ttl,
        .ttl_ms = ttl,
        .timeout_ms = m->timeout_ms,
        .schedule = ""};
    return status_ok();
}

static struct status tenant_has_room(const struct core *c, const char *tenant, struct errmsg *msg)
{
    const struct job_tenant *n = jobs_tenant_find(&c->catalog.jobs, tenant);
    if (n == NULL || n->queued_max == 0 || n->queued < n->queued_max) {
        return status_ok();
    }
    return status_fail(msg, STATUS_LIMIT,
                       "%llu invocations of %s are queued, as many as tenant.%s.queued allows; "
                       "try again",
                       (unsigned long long)n->queued, tenant, tenant);
}

void durable_spawn(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    const struct id128 none = {0};
    if (!c->leader) {
        send_not_leader(c, peer, m);
        return;
    }
    const struct peer *p = peer_find(c, peer);
    if (p == NULL || m->request == 0) {
        c->stats.messages_refused++;
        return;
    }
    c->stats.spawns++;
    struct errmsg msg = {.text = ""};
    struct command cmd = {.type = COMMAND_SPAWN, .by = ""};
    const char *tenant = p->who.name.text;
    struct status s = spawn_command(c, now, &m->spawn, tenant, &cmd.command_spawn, &msg);
    const struct runtime *f = runtime_find(c, m->spawn.function);
    if (status_is_ok(s) && (f == NULL || f->current == NULL)) {
        s = status_fail(&msg, STATUS_NOT_FOUND,
                        "no function is named %.80s; see skep function list", m->spawn.function);
    }
    if (status_is_ok(s)) {
        s = tenant_has_room(c, tenant, &msg);
    }
    if (!status_is_ok(s)) {
        spawn_answer(c, peer, m->request, s.code, msg.text, none, false);
        return;
    }
    struct spawning *w = mem_zalloc(1, sizeof *w);
    if (w == NULL) {
        spawn_answer(c, peer, m->request, STATUS_LIMIT, "the scheduler is out of memory", none,
                     false);
        return;
    }
    *w = (struct spawning){c, peer, m->request};
    core_submit_up_to(c, now, &cmd, CORE_SPAWNS_PENDING_MAX, spawn_done, w);
}

/* ---- Outcomes ---- */

static void outcome_send(struct core *c, uint64_t peer, uint64_t request, const struct job *j)
{
    struct arena a = {0};
    struct state_job s;
    jobs_content(&c->catalog.jobs, j, &a, &s);
    const struct message m = {.type = MESSAGE_OUTCOME,
                              .request = request,
                              .outcome = {.code = STATUS_OK,
                                          .invocation = j->id,
                                          .function = s.function,
                                          .tenant = s.tenant,
                                          .state = j->state,
                                          .result_code = s.code,
                                          .result_message = s.message,
                                          .output = s.output,
                                          .output_ref = s.output_ref,
                                          .output_bytes = s.output_bytes,
                                          .attempts = s.attempts,
                                          .crashes = s.crashes,
                                          .priority = s.priority,
                                          .key = s.key,
                                          .created_ms = s.created_ms,
                                          .not_before_ms = s.not_before_ms,
                                          .deadline_at_ms = s.deadline_at_ms,
                                          .ended_ms = s.ended_ms,
                                          .expires_ms = s.expires_ms,
                                          .run_us = s.run_us,
                                          .node = s.node}};
    c->env.send(c->env.data, peer, &m);
    arena_close(&a);
}

static void outcome_fail(struct core *c, uint64_t peer, uint64_t request, enum status_code code,
                         const char *text)
{
    const struct message m = {
        .type = MESSAGE_OUTCOME,
        .request = request,
        .outcome = {.code = code,
                    .message = text,
                    .leader = code == STATUS_NOT_LEADER ? c->leader_address : ""}};
    c->env.send(c->env.data, peer, &m);
}

static void waiter_free(struct core *c, struct waiter *w)
{
    wheel_remove(&w->deadline);
    DL_DELETE(w->job->waiters, w);
    DL_DELETE2(c->waiters, w, all_prev, all_next);
    c->waiters_count--;
    struct peer *p = peer_find(c, w->peer);
    if (p != NULL) {
        p->calls--;
    }
    mem_free(w);
}

static const char unknown_text[] =
    "no such durable invocation is known (any more: results leave after their ttl)";

/* ---- Reading the present: a leader that was cut off or stood still may have been replaced without
 * knowing, and its state is of the past then. So "not there" and "not yet" are said only after a
 * command that came after the question is committed. One such barrier is on its way at a time; it
 * answers all questions that were there before it. ---- */

static void barrier_send(struct core *c, struct core_time now);

static void barrier_done(void *data, struct status s, const char *message, uint64_t index)
{
    struct core *c = data;
    bool committed = status_is_ok(s) && index != 0;
    bool limited = s.code == STATUS_LIMIT;
    while (c->readings_sent != NULL) {
        struct reading *r = c->readings_sent;
        c->readings_sent = r->next;
        c->readings_count--;
        const struct job *j = jobs_find(&c->catalog.jobs, r->invocation);
        if (!committed) {
            outcome_fail(c, r->peer, r->request, limited ? STATUS_LIMIT : STATUS_NOT_LEADER,
                         limited ? message : "this scheduler is no longer the leader");
        } else if (j == NULL) {
            outcome_fail(c, r->peer, r->request, STATUS_NOT_FOUND, unknown_text);
        } else {
            outcome_send(c, r->peer, r->request, j);
        }
        mem_free(r);
    }
    if (!committed) {
        c->readings_sent = c->readings;
        c->readings = NULL;
        if (c->readings_sent != NULL) {
            barrier_done(c, s, message, index);
        }
    } else if (c->readings != NULL) {
        barrier_send(c, c->applying);
    }
}

static void barrier_send(struct core *c, struct core_time now)
{
    c->readings_sent = c->readings;
    c->readings = NULL;
    const struct command cmd = {
        .type = COMMAND_EXPIRE, .by = "", .command_expire = {.max = 0}}; /* changes nothing */
    core_submit_up_to(c, now, &cmd, UINT32_MAX, barrier_done, c);
}

static void read_later(struct core *c, struct core_time now, uint64_t peer, uint64_t request,
                       struct id128 invocation)
{
    struct reading *r = c->readings_count < READINGS_MAX ? mem_zalloc(1, sizeof *r) : NULL;
    if (r == NULL) {
        outcome_fail(c, peer, request, STATUS_LIMIT, "too many questions are open; try again");
        return;
    }
    *r = (struct reading){.invocation = invocation, .peer = peer, .request = request};
    r->next = c->readings;
    c->readings = r;
    c->readings_count++;
    if (c->readings_sent == NULL) {
        barrier_send(c, now);
    }
}

void durable_outcome(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    if (!c->leader) {
        send_not_leader(c, peer, m);
        return;
    }
    struct peer *p = peer_find(c, peer);
    struct job *j = jobs_find(&c->catalog.jobs, m->outcome_query.invocation);
    if (p == NULL) {
        outcome_fail(c, peer, m->request, STATUS_NOT_FOUND, unknown_text);
        return;
    }
    if (j != NULL && (j->state == INVOCATION_DONE || j->state == INVOCATION_CANCELED)) {
        outcome_send(c, peer, m->request, j); /* An end that stays: true whoever leads. */
        return;
    }
    if (j == NULL || j->state == INVOCATION_DEAD || m->outcome_query.wait_ms == 0) {
        read_later(c, now, peer, m->request, m->outcome_query.invocation);
        return;
    }
    struct waiter *w = c->waiters_count < CORE_OUTCOME_WAITS_MAX ? mem_zalloc(1, sizeof *w) : NULL;
    if (w == NULL) {
        outcome_fail(c, peer, m->request, STATUS_LIMIT, "too many results are waited for");
        return;
    }
    w->job = j;
    w->peer = peer;
    w->request = m->request;
    uint32_t wait_ms = m->outcome_query.wait_ms < CORE_TIMEOUT_MS_MAX ? m->outcome_query.wait_ms
                                                                      : CORE_TIMEOUT_MS_MAX;
    wheel_add(&c->waits, &w->deadline, now.mono_us + (uint64_t)wait_ms * 1000);
    DL_APPEND(j->waiters, w);
    DL_APPEND2(c->waiters, w, all_prev, all_next);
    c->waiters_count++;
    p->calls++;
}

static void expire_waits(struct core *c, struct core_time now)
{
    for (;;) {
        struct wheel_entry *e = wheel_expired(&c->waits, now.mono_us);
        if (e == NULL) {
            return;
        }
        struct waiter *w = (struct waiter *)(void *)((char *)e - offsetof(struct waiter, deadline));
        read_later(c, now, w->peer, w->request, w->job->id);
        waiter_free(c, w);
    }
}

void durable_forget_peer(struct core *c, uint64_t peer)
{
    struct waiter *w, *next;
    DL_FOREACH_SAFE2(c->waiters, w, next, all_next)
    {
        if (w->peer == peer) {
            waiter_free(c, w);
        }
    }
}

/* ---- What the state machine tells ---- */

static void running_less(struct job *j)
{
    CHECK(j->function->running > 0);
    CHECK(j->tenant->running > 0);
    j->function->running--;
    j->tenant->running--;
}

static void count_end(struct core *c, const struct job *j)
{
    c->stats.jobs_done += j->state == INVOCATION_DONE;
    c->stats.jobs_dead += j->state == INVOCATION_DEAD;
    c->stats.jobs_canceled += j->state == INVOCATION_CANCELED;
}

static void on_changed(void *data, struct job *j, enum job_change change)
{
    struct core *c = data;
    if (change == JOB_QUEUED) {
        j->busy = j->work != NULL; /* The end of its attempt, if any, is what was committed. */
        return;
    }
    if (change == JOB_ENDED) {
        count_end(c, j);
    }
    if (j->work != NULL) {
        running_less(j);
        calls_abandon_job(c, j->work, "the invocation has ended");
    }
    while (j->waiters != NULL) {
        struct waiter *w = j->waiters;
        if (change == JOB_ENDED) {
            outcome_send(c, w->peer, w->request, j);
        } else {
            outcome_fail(c, w->peer, w->request, STATUS_NOT_FOUND, unknown_text);
        }
        waiter_free(c, w);
    }
}

static void on_payload_dropped(void *data, const struct digest *payload)
{
    struct core *c = data;
    if (c->env.payload_dropped != NULL) {
        c->env.payload_dropped(c->env.data, payload);
    }
}

void durable_init(struct core *c)
{
    wheel_init(&c->waits, 0);
    c->catalog.jobs.changed = on_changed;
    c->catalog.jobs.payload_dropped = on_payload_dropped;
    c->catalog.jobs.data = c;
}

static void kick(struct core *c, struct core_time now, const struct job *j)
{
    if (j == NULL || j->lane == NULL) {
        return;
    }
    struct runtime *f = runtime_find(c, j->function->name);
    if (f == NULL) {
        return;
    }
    if (f->free != NULL) {
        calls_dispatch(c, now, f);
    } else if (f->ready + f->starting == 0 && f->jobs->waiting == 1) {
        instances_scale(c, now, f); /* More than the first waits for the tick. */
    }
}

void durable_applied(struct core *c, struct core_time now, const struct command *cmd)
{
    jobs_collect(&c->catalog.jobs, COLLECT_APPLY_MAX);
    if (!c->leader) {
        return;
    }
    switch (cmd->type) {
    case COMMAND_SPAWN:
        if (c->catalog.jobs.spawned != NULL) {
            if (c->catalog.jobs.spawned->tenant->jobs == 1) {
                tenant_limits(c, c->catalog.jobs.spawned->tenant);
            }
            kick(c, now, c->catalog.jobs.spawned);
        }
        break;
    case COMMAND_FINISH:
        kick(c, now, jobs_find(&c->catalog.jobs, cmd->command_finish.invocation));
        break;
    case COMMAND_REDRIVE:
        kick(c, now, jobs_find(&c->catalog.jobs, cmd->command_redrive.invocation));
        break;
    case COMMAND_SETTING:
    case COMMAND_RESTORE:
        durable_limits(c);
        break;
    default:
        break;
    }
}

/* ---- Starting ---- */

uint32_t durable_demand(const struct runtime *f)
{
    if (f->jobs == NULL || f->current == NULL || f->free != NULL) {
        return 0; /* With a free slot it is a limit that they wait for. */
    }
    uint64_t waiting = f->jobs->waiting;
    uint32_t max = f->current->spec.running_max;
    if (max > 0) {
        uint32_t room = f->jobs->running < max ? max - f->jobs->running : 0;
        waiting = waiting < room ? waiting : room;
    }
    return waiting < CORE_INSTANCES_MAX ? (uint32_t)waiting : CORE_INSTANCES_MAX;
}

static void finish_submit(struct core *c, struct core_time now, const struct result *r,
                          uint64_t peer, const char *node, bool crashed);

/* Work that has waited longer than limits.queue_age fails as too old, instead of being done in a
 * wave after an outage. */
static bool too_old(struct core *c, struct core_time now, const struct runtime *f, struct job *j,
                    const struct state_job *s)
{
    uint64_t age_max = f->current->spec.queue_age_ms;
    uint64_t since = s->not_before_ms > s->created_ms ? s->not_before_ms : s->created_ms;
    uint64_t wall_ms = durable_wall_ms(c, now);
    if (age_max == 0 || j->attempts > 0 || wall_ms < since + age_max) {
        return false;
    }
    char text[REASON_BYTES_MAX];
    (void)snprintf(text, sizeof text, "too old: it waited %llu ms, limits.queue_age is %llu ms",
                   (unsigned long long)(wall_ms - since), (unsigned long long)age_max);
    const struct result r = {.invocation = j->id, .code = STATUS_TIMEOUT, .message = text};
    finish_submit(c, now, &r, 0, "", false);
    return true;
}

bool durable_run(struct core *c, struct core_time now, struct runtime *f)
{
    if (f->jobs == NULL || f->current == NULL || f->jobs->waiting == 0 ||
        now.mono_us < f->jobs_pause_us) {
        return false;
    }
    const struct function_spec *spec = &f->current->spec;
    if (spec->running_max > 0 && f->jobs->running >= spec->running_max) {
        return false;
    }
    if (!bucket_take(&f->jobs->bucket, spec->rate_milli, spec->rate_burst, now.mono_us)) {
        return false;
    }
    struct job *j = jobs_pick(&c->catalog.jobs, f->jobs, now.mono_us);
    if (j == NULL) {
        bucket_give(&f->jobs->bucket, spec->rate_milli);
        return false;
    }
    struct arena a = {0};
    struct state_job content;
    jobs_content(&c->catalog.jobs, j, &a, &content);
    if (!too_old(c, now, f, j, &content)) {
        c->stats.attempts_durable++;
        f->jobs->running++;
        j->tenant->running++;
        (void)calls_run_job(c, now, j, &content, f->free, 0, c->term);
    } else {
        bucket_give(&f->jobs->bucket, spec->rate_milli);
    }
    arena_close(&a);
    return true;
}

bool durable_adopt(struct core *c, struct core_time now, struct instance *i,
                   const struct attempt_report *r)
{
    struct job *j = r->durable ? jobs_find(&c->catalog.jobs, r->invocation) : NULL;
    bool room = i->inflight + i->foreign < i->concurrency;
    if (j == NULL || j->state != INVOCATION_QUEUED || j->busy || !room || r->attempt == 0 ||
        i->function->current == NULL || strcmp(j->function->name, i->function->name) != 0) {
        return false;
    }
    struct arena a = {0};
    struct state_job content;
    jobs_content(&c->catalog.jobs, j, &a, &content);
    jobs_take(&c->catalog.jobs, j);
    j->function->running++;
    j->tenant->running++;
    (void)calls_run_job(c, now, j, &content, i, r->attempt, r->attempt_term);
    arena_close(&a);
    return true;
}

/* ---- Ending ---- */

static void send_ack(struct core *c, const struct finishing *f)
{
    if (f->peer == 0) {
        return;
    }
    const struct message m = {.type = MESSAGE_RESULT_ACK,
                              .term = c->term,
                              .result_ack = {.invocation = f->invocation,
                                             .attempt = f->attempt,
                                             .attempt_term = f->attempt_term}};
    c->env.send(c->env.data, f->peer, &m);
}

static bool finishing_other(const struct core *c, const struct finishing *f)
{
    const struct finishing *other;
    DL_FOREACH(c->finishing, other) {
        if (other != f && id_compare(other->invocation, f->invocation) == 0) {
            return true;
        }
    }
    return false;
}

static void finish_done(void *data, struct status s, const char *message, uint64_t index)
{
    (void)message;
    struct finishing *f = data;
    struct core *c = f->core;
    bool committed = index != 0 && s.code != STATUS_UNKNOWN;
    struct job *j = jobs_find(&c->catalog.jobs, f->invocation);
    bool idle = j != NULL && j->state == INVOCATION_QUEUED && j->busy && j->work == NULL;
    if (committed) {
        send_ack(c, f);
    }
    /* Not committed: its agent, which was not told to forget it, sends the result again. Committed
     * and refused: the end of an attempt that was taken over after it had been given up. */
    if (idle && (!committed || s.code == STATUS_CONFLICT) && !finishing_other(c, f)) {
        struct runtime *r = runtime_find(c, j->function->name);
        if (r != NULL && !committed) {
            /* With an agent that holds the result: until it has come again. Work that is done must
             * not be done over while the log is refused. */
            uint64_t pause_us = f->peer != 0 ? RESULT_PAUSE_US : REFUSED_PAUSE_US;
            r->jobs_pause_us = c->applying.mono_us + pause_us;
        }
        jobs_unbusy(&c->catalog.jobs, j, durable_wall_ms(c, c->applying), true);
    }
    DL_DELETE(c->finishing, f);
    mem_free(f);
}

static void finish_submit(struct core *c, struct core_time now, const struct result *r,
                          uint64_t peer, const char *node, bool crashed)
{
    struct finishing *f = mem_must(mem_zalloc(1, sizeof *f));
    *f = (struct finishing){.core = c,
                            .invocation = r->invocation,
                            .attempt = r->attempt,
                            .attempt_term = r->attempt_term,
                            .peer = peer};
    DL_APPEND(c->finishing, f);
    char text[JOB_MESSAGE_BYTES_MAX];
    (void)snprintf(text, sizeof text, "%s", r->message == NULL ? "" : r->message);
    const struct command cmd = {.type = COMMAND_FINISH,
                                .by = "",
                                .command_finish = {.invocation = r->invocation,
                                                   .attempt = r->attempt,
                                                   .attempt_term = r->attempt_term,
                                                   .code = r->code,
                                                   .message = text,
                                                   .output = r->output,
                                                   .output_ref = r->output_ref,
                                                   .output_bytes = r->output_bytes,
                                                   .run_us = r->run_us,
                                                   .node = node,
                                                   .crashed = crashed}};
    core_submit_up_to(c, now, &cmd, UINT32_MAX, finish_done, f);
}

static void journal_failure(struct core *c, struct core_time now, const struct work *w,
                            const struct result *r, const char *node)
{
    char id[ID_STRING_BYTES];
    id_format(w->id, INVOCATION_PREFIX, id);
    journal_add(c, now, id, "attempt %u of %s on %s ended with %s: %.100s", w->attempt,
                w->function->name, node, status_name((enum status_code)r->code), r->message);
}

void durable_ended(struct core *c, struct core_time now, struct work *w, const struct result *r,
                   uint64_t peer, const char *node)
{
    struct job *j = w->job;
    enum status_code code = status_from_wire(r->code);
    if (code != STATUS_OK) {
        journal_failure(c, now, w, r, node);
        c->stats.attempts_lost += code == STATUS_UNKNOWN;
    }
    running_less(j);
    calls_release_job(c, w);
    if (j->state == INVOCATION_QUEUED) {
        CHECK(j->busy);
        finish_submit(c, now, r, peer, node, code == STATUS_CRASHED);
    }
}

void durable_refused(struct core *c, struct core_time now, struct work *w)
{
    w->function->jobs_pause_us = now.mono_us + REFUSED_PAUSE_US;
    durable_back(c, now, w);
}

void durable_back(struct core *c, struct core_time now, struct work *w)
{
    struct job *j = w->job;
    running_less(j);
    calls_release_job(c, w);
    jobs_unbusy(&c->catalog.jobs, j, durable_wall_ms(c, now), true);
}

static struct finishing *finishing_find(const struct core *c, const struct result *r)
{
    struct finishing *f;
    DL_FOREACH(c->finishing, f) {
        if (f->attempt == r->attempt && f->attempt_term == r->attempt_term &&
            id_compare(f->invocation, r->invocation) == 0) {
            return f;
        }
    }
    return NULL;
}

/* An older attempt's result, or one of before this leader's time. A success is a success: the first
 * one that is committed counts. A failure counts unless another attempt has taken its place. */
void durable_late(struct core *c, struct core_time now, uint64_t peer, const struct result *r)
{
    if (!c->leader) {
        return;
    }
    struct finishing *known = finishing_find(c, r);
    if (known != NULL) {
        known->peer = peer; /* Sent again while its end is on its way: acknowledged with that. */
        return;
    }
    enum status_code code = status_from_wire(r->code);
    struct job *j = jobs_find(&c->catalog.jobs, r->invocation);
    const struct peer *p = peer_find(c, peer);
    const char *node = p == NULL ? "" : p->who.name.text;
    bool open = j != NULL && j->state == INVOCATION_QUEUED && r->attempt > 0 &&
                r->attempt <= JOB_ATTEMPTS_MAX;
    if (open && code != STATUS_OK) {
        open = !j->busy && r->attempt > j->attempts && code != STATUS_CANCELED;
    }
    bool refused = code == STATUS_CONFLICT || code == STATUS_UNAVAILABLE ||
                   code == STATUS_NOT_FOUND || code == STATUS_LIMIT;
    if (!open || refused) {
        const struct finishing f = {.core = c,
                                    .invocation = r->invocation,
                                    .attempt = r->attempt,
                                    .attempt_term = r->attempt_term,
                                    .peer = peer};
        send_ack(c, &f);
        return;
    }
    if (!j->busy) {
        jobs_take(&c->catalog.jobs, j);
    }
    j->attempt = r->attempt > j->attempt ? r->attempt : j->attempt;
    finish_submit(c, now, r, peer, node, code == STATUS_CRASHED);
}

/* ---- Role and time ---- */

void durable_role_lost(struct core *c, struct core_time now)
{
    /* What was on its way into the log may get there: its job waits again until it does. */
    struct finishing *f;
    DL_FOREACH(c->finishing, f) {
        struct job *j = jobs_find(&c->catalog.jobs, f->invocation);
        if (j != NULL && j->busy && j->work == NULL) {
            jobs_unbusy(&c->catalog.jobs, j, durable_wall_ms(c, now), true);
        }
    }
    while (c->waiters != NULL) {
        struct waiter *w = c->waiters;
        outcome_fail(c, w->peer, w->request, STATUS_NOT_LEADER,
                     "this scheduler is no longer the leader");
        waiter_free(c, w);
    }
}

static void expire_done(void *data, struct status s, const char *message, uint64_t index)
{
    (void)s;
    (void)message;
    (void)index;
    struct core *c = data;
    c->expiring = false;
}

void durable_tick(struct core *c, struct core_time now)
{
    expire_waits(c, now);
    jobs_collect(&c->catalog.jobs, COLLECT_MAX);
    uint64_t wall_ms = durable_wall_ms(c, now);
    (void)jobs_wake(&c->catalog.jobs, wall_ms, WAKE_MAX);
    if (!c->expiring && jobs_next_end(&c->catalog.jobs) <= wall_ms) {
        c->expiring = true;
        const struct command cmd = {
            .type = COMMAND_EXPIRE, .by = "", .command_expire = {.max = JOB_EXPIRE_MAX}};
        core_submit(c, now, &cmd, expire_done, c);
    }
    if (now.mono_us - c->jobs_tick_us >= SCHEDULES_EVERY_US) {
        c->jobs_tick_us = now.mono_us;
        durable_schedules(c, now);
    }
}

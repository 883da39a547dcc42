/* The commands on jobs. Everything here is deterministic: it reads the command, its time, the
 * function's specification and the replicated part of the table, nothing else. */
#include "scheduler/core/jobs_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Tells whether a key comes with the same input. */
static uint64_t input_check(const struct command_spawn *s)
{
    const struct bytes parts[] = {s->payload, bytes_of(&s->payload_ref, sizeof s->payload_ref),
                                  bytes_of(&s->payload_bytes, sizeof s->payload_bytes)};
    uint64_t h = HASH_FNV1A;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        h = hash_fnv1a(h, parts[i].data, parts[i].size);
    }
    return h;
}

static struct status spawn_check(const struct job_table *t, const struct command_spawn *s,
                                 const struct function_spec *spec, struct errmsg *msg)
{
    struct name name;
    if (spec == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no function is named %.80s", s->function);
    }
    TRY(name_parse("function", s->function, strlen(s->function), &name, msg));
    TRY(name_parse("tenant", s->tenant, strlen(s->tenant), &name, msg));
    if (id_is_zero(s->invocation) || jobs_find(t, s->invocation) != NULL) {
        return status_fail(msg, STATUS_CONFLICT, "the invocation's id is in use");
    }
    if (strlen(s->key) > SPAWN_KEY_BYTES_MAX || s->payload.size > SPAWN_INLINE_BYTES_MAX ||
        s->priority < 1 || s->priority > SPAWN_PRIORITY_MAX) {
        return status_fail(msg, STATUS_INVALID, "a spawn command is out of range");
    }
    const struct job_function *f = jobs_function_find(t, s->function);
    if (f != NULL && spec->durable_queue_max > 0 && f->queued >= spec->durable_queue_max) {
        return status_fail(msg, STATUS_LIMIT,
                           "%" PRIu64 " invocations of %s are queued, as many as limits.queue "
                           "allows; try again",
                           f->queued, f->name);
    }
    if (HASH_COUNT(t->jobs) >= JOBS_MAX || t->bytes >= JOBS_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT,
                           "the cluster holds as many durable invocations as it may (%u); results "
                           "leave after their ttl",
                           HASH_COUNT(t->jobs));
    }
    return status_ok();
}

struct status jobs_spawn(struct job_table *t, uint64_t index, uint64_t time_ms,
                         const struct command_spawn *s, const struct function_spec *spec,
                         struct errmsg *msg)
{
    t->spawned = NULL;
    uint64_t check = input_check(s);
    const struct job_key *k = s->key[0] == '\0' || strlen(s->key) > SPAWN_KEY_BYTES_MAX ||
                                      strlen(s->function) > NAME_BYTES_MAX ||
                                      strlen(s->tenant) > NAME_BYTES_MAX
                                  ? NULL
                                  : job_key_find(t, s->function, s->tenant, s->key);
    if (k != NULL) {
        t->spawned = k->job;
        return k->check == check ? status_of(STATUS_EXISTS)
                                 : status_fail(msg, STATUS_CONFLICT,
                                               "key %.80s was used for another payload of %s",
                                               s->key, s->function);
    }
    if (s->schedule[0] != '\0' &&
        s->schedule_at_ms <= jobs_last_fired(t, s->function, s->schedule)) {
        return status_of(STATUS_EXISTS);
    }
    TRY(spawn_check(t, s, spec, msg));
    uint64_t from_ms = s->not_before_ms > time_ms ? s->not_before_ms : time_ms;
    struct state_job job = {.invocation = s->invocation,
                            .function = s->function,
                            .tenant = s->tenant,
                            .key = s->key,
                            .payload = s->payload,
                            .payload_ref = s->payload_ref,
                            .payload_bytes = s->payload_bytes,
                            .priority = s->priority,
                            .not_before_ms = s->not_before_ms,
                            .deadline_at_ms = s->deadline_at_ms,
                            .ttl_ms = s->ttl_ms,
                            .timeout_ms = s->timeout_ms,
                            .index = index,
                            .created_ms = time_ms,
                            .patience_ms =
                                s->deadline_at_ms > from_ms ? s->deadline_at_ms - from_ms : 1,
                            .state = INVOCATION_QUEUED,
                            .key_check = check};
    struct job *j = job_new(t, &job, time_ms);
    slot_put(t, j->slot, &job);
    if (s->schedule[0] != '\0') {
        jobs_fired(t, s->function, s->schedule, s->schedule_at_ms);
    }
    t->spawned = j;
    job_changed(t, j, JOB_QUEUED);
    return status_ok();
}

/* ---- Changing one ---- */

/* A job whose content is being changed. */
struct change {
    struct job_table *table;
    struct job *job;
    struct arena arena;
    struct state_job content;
};

static struct change change_begin(struct job_table *t, struct job *j)
{
    struct change c = {.table = t, .job = j};
    jobs_content(t, j, &c.arena, &c.content);
    t->sum -= job_sum(j);
    job_unfile(t, j); /* Its times may change: they are its place. */
    return c;
}

static void change_end(struct change *c, enum invocation_state state, uint64_t end_ms)
{
    struct job *j = c->job;
    j->attempts = c->content.attempts;
    j->crashes = c->content.crashes;
    j->failures = c->content.failures;
    j->not_before_ms = c->content.not_before_ms;
    c->content.state = state;
    job_set(c->table, j, state, end_ms);
    slot_put(c->table, j->slot, &c->content);
    c->table->sum += job_sum(j);
    arena_close(&c->arena);
}

static void drop_input(struct change *c)
{
    jobs_payload_unref(c->table, &c->content.payload_ref);
    c->content.payload = bytes_of(NULL, 0);
    c->content.payload_ref = (struct digest){{0}};
}

/* Its end. Dead letters keep their input, so that they can be tried again. */
static void end(struct change *c, uint64_t time_ms, enum invocation_state state, uint32_t code,
                const char *message)
{
    struct state_job *s = &c->content;
    if (state != INVOCATION_DEAD) {
        drop_input(c);
    }
    s->code = code;
    s->message = message;
    s->ended_ms = time_ms;
    s->expires_ms = time_ms + s->ttl_ms;
    struct job *j = c->job;
    struct job_table *t = c->table;
    uint64_t expires_ms = s->expires_ms;
    change_end(c, state, expires_ms);
    j->busy = false;
    job_changed(t, j, JOB_ENDED);
}

/* ---- Attempts ---- */

/* backoff * factor^(n-1), at most cap: n is how many have failed. */
static uint64_t backoff_ms(const struct function_spec *spec, uint32_t n)
{
    uint64_t cap = spec->retry_cap_ms == 0 ? 60000 : spec->retry_cap_ms;
    uint64_t ms = spec->retry_backoff_ms;
    uint32_t factor = spec->retry_factor_milli < 1000 ? 1000 : spec->retry_factor_milli;
    for (uint32_t i = 1; i < n && ms < cap && factor > 1000; i++) {
        ms = ms * factor / 1000 + 1;
    }
    return ms < cap ? ms : cap;
}

static void again(struct change *c, uint64_t time_ms, uint64_t wait_ms)
{
    struct state_job *s = &c->content;
    if (time_ms + wait_ms >= s->deadline_at_ms) {
        char text[REASON_TEXT];
        (void)snprintf(text, sizeof text,
                       "the deadline would pass before the next attempt; the last one: %.200s",
                       s->message);
        end(c, time_ms, INVOCATION_DEAD, STATUS_TIMEOUT, text);
        return;
    }
    s->not_before_ms = wait_ms == 0 ? s->not_before_ms : time_ms + wait_ms;
    struct job *j = c->job;
    struct job_table *t = c->table;
    change_end(c, INVOCATION_QUEUED, s->deadline_at_ms);
    job_changed(t, j, JOB_QUEUED);
    if (!j->busy) {
        job_file(t, j, time_ms, wait_ms == 0);
    }
}

static void failed(struct change *c, uint64_t time_ms, const struct command_finish *f,
                   const struct function_spec *spec)
{
    struct state_job *s = &c->content;
    char text[REASON_TEXT];
    s->code = f->code;
    s->message = f->message;
    if (f->attempt >= JOB_ATTEMPTS_MAX) {
        (void)snprintf(text, sizeof text, "%u attempts were made or lost; the last one: %.200s",
                       f->attempt, f->message);
        end(c, time_ms, INVOCATION_DEAD, f->code, text);
    } else if (spec == NULL) {
        end(c, time_ms, INVOCATION_DEAD, STATUS_NOT_FOUND, "the function was deleted");
    } else if (f->code == STATUS_UNKNOWN) {
        again(c, time_ms, 0); /* Lost with its node: nobody's failure. */
    } else if (f->crashed) {
        uint32_t max = spec->poison_max == 0 ? JOB_POISON_DEFAULT : spec->poison_max;
        if (++s->crashes >= max) {
            (void)snprintf(text, sizeof text,
                           "poison: its instance crashed %u times; the last one: %.200s",
                           s->crashes, f->message);
            end(c, time_ms, INVOCATION_DEAD, f->code, text);
        } else {
            again(c, time_ms, backoff_ms(spec, s->crashes));
        }
    } else if (++s->failures > spec->retries_max) {
        end(c, time_ms, INVOCATION_DEAD, f->code, f->message);
    } else {
        again(c, time_ms, backoff_ms(spec, s->failures));
    }
}

static struct status find(struct job_table *t, struct id128 id, struct job **out,
                          struct errmsg *msg)
{
    *out = jobs_find(t, id);
    if (*out == NULL) {
        char text[ID_STRING_BYTES];
        id_format(id, INVOCATION_PREFIX, text);
        return status_fail(msg, STATUS_NOT_FOUND,
                           "no durable invocation %s is known (any more: see ttl)", text);
    }
    return status_ok();
}

struct status jobs_finish(struct job_table *t, uint64_t time_ms, const struct command_finish *f,
                          const struct function_spec *spec, struct errmsg *msg)
{
    struct job *j = jobs_find(t, f->invocation);
    bool ended = j == NULL || j->state != INVOCATION_QUEUED;
    /* An attempt number below what is known: its failure has been counted, or was given up. */
    bool old = !ended && f->code != STATUS_OK && f->attempt != 0 && f->attempt <= j->attempts;
    if (ended || old) {
        t->late++;
        return status_fail(msg, STATUS_CONFLICT, "late: the attempt's end is known");
    }
    struct change c = change_begin(t, j);
    struct state_job *s = &c.content;
    if (f->attempt == 0) {
        end(&c, time_ms, INVOCATION_DEAD, f->code, f->message);
        return status_ok();
    }
    s->attempts = f->attempt > s->attempts ? f->attempt : s->attempts;
    s->node = f->node;
    s->run_us = f->run_us;
    if (f->code != STATUS_OK) {
        failed(&c, time_ms, f, spec);
        return status_ok();
    }
    s->output = f->output;
    s->output_ref = f->output_ref;
    s->output_bytes = digest_is_zero(&f->output_ref) ? f->output.size : f->output_bytes;
    jobs_payload_ref(t, &f->output_ref);
    end(&c, time_ms, INVOCATION_DONE, STATUS_OK, "");
    return status_ok();
}

/* ---- What people do ---- */

struct status jobs_cancel(struct job_table *t, uint64_t time_ms,
                          const struct command_invocation_cancel *k, struct errmsg *msg)
{
    struct job *j;
    TRY(find(t, k->invocation, &j, msg));
    if (j->state != INVOCATION_QUEUED) {
        return status_fail(msg, STATUS_CONFLICT, "the invocation has ended already");
    }
    char text[REASON_TEXT];
    (void)snprintf(text, sizeof text, "canceled%s%.200s", k->reason[0] == '\0' ? "" : ": ",
                   k->reason);
    struct change c = change_begin(t, j);
    end(&c, time_ms, INVOCATION_CANCELED, STATUS_CANCELED, text);
    return status_ok();
}

struct status jobs_redrive(struct job_table *t, uint64_t time_ms, const struct command_redrive *r,
                           const struct function_spec *spec, struct errmsg *msg)
{
    struct job *j;
    TRY(find(t, r->invocation, &j, msg));
    if (j->state != INVOCATION_DEAD) {
        return status_fail(msg, STATUS_CONFLICT, "the invocation is no dead letter");
    }
    if (spec == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "function %s was deleted", j->function->name);
    }
    struct change c = change_begin(t, j);
    struct state_job *s = &c.content;
    s->crashes = 0;
    s->failures = 0;
    s->not_before_ms = time_ms; /* What limits.queue_age counts from. */
    s->deadline_at_ms = time_ms + (s->patience_ms == 0 ? s->ttl_ms : s->patience_ms);
    s->ended_ms = 0;
    s->expires_ms = 0;
    uint64_t deadline_ms = s->deadline_at_ms;
    change_end(&c, INVOCATION_QUEUED, deadline_ms);
    job_changed(t, j, JOB_QUEUED);
    job_file(t, j, time_ms, false);
    return status_ok();
}

struct status jobs_purge(struct job_table *t, const struct command_purge *p, struct errmsg *msg)
{
    struct job *j;
    TRY(find(t, p->invocation, &j, msg));
    if (j->state == INVOCATION_QUEUED) {
        return status_fail(msg, STATUS_CONFLICT, "the invocation has not ended; cancel it first");
    }
    job_free(t, j);
    return status_ok();
}

struct status jobs_expire(struct job_table *t, uint64_t time_ms, const struct command_expire *e)
{
    uint32_t max = e->max < JOB_EXPIRE_MAX ? e->max : JOB_EXPIRE_MAX;
    for (uint32_t i = 0; i < max && jobs_next_end(t) <= time_ms; i++) {
        struct job *j = jobs_first_end(t);
        if (j->state != INVOCATION_QUEUED) {
            job_free(t, j);
            continue;
        }
        struct change c = change_begin(t, j);
        char text[REASON_TEXT];
        (void)snprintf(text, sizeof text, "the deadline passed after %u attempts%s%.200s",
                       c.content.attempts,
                       c.content.message[0] == '\0' ? "" : "; the last one: ", c.content.message);
        end(&c, time_ms, INVOCATION_DEAD, STATUS_TIMEOUT, text);
    }
    return status_ok();
}

/* Calls: from a client's message to a slot of an instance and back. Everything here is in memory
 * and waits for no disk. */
#include "scheduler/core/core_internal.h"

#include <stdio.h>
#include <string.h>

enum {
    ATTEMPTS_MAX = 5,
    RETRY_AFTER_MS = 200,
    CALLS_PER_JOB = 3, /* when both wait, calls take this many slots for each durable attempt */
    /* The agent's own answer to a timeout says more; the scheduler waits this much longer for
     * it. */
    TIMEOUT_GRACE_US = 1500000,
};

static struct work *work_find(const struct core *c, struct id128 id)
{
    struct work *w;
    HASH_FIND(hh, c->calls, &id, sizeof id, w);
    return w;
}

static void refuse(struct core *c, uint64_t peer, const struct message *m, enum status_code code,
                   const char *text)
{
    if (code == STATUS_LIMIT) {
        c->stats.calls_limit++;
    }
    const struct message answer = {
        .type = MESSAGE_CALL_REPLY,
        .request = m->request,
        .call_reply = {.code = code,
                       .message = text,
                       .retry_after_ms = code == STATUS_LIMIT ? RETRY_AFTER_MS : 0}};
    c->env.send(c->env.data, peer, &answer);
}

/* Takes the work out of all tables but its list, which the caller has left, and frees it. */
static void work_free(struct core *c, struct work *w)
{
    wheel_remove(&w->deadline);
    struct peer *p = peer_find(c, w->peer);
    if (p != NULL) {
        p->calls--;
    }
    HASH_DEL(c->calls, w);
    c->payload_bytes -= w->payload_size;
    mem_free(w->payload);
    mem_free(w);
}

static void leave_queue(struct work *w)
{
    DL_DELETE(w->function->queue, w);
    w->function->queued--;
    w->state = WORK_RUNNING;
}

static void leave_instance(struct work *w)
{
    struct instance *i = w->instance;
    DL_DELETE(i->calls, w);
    i->inflight--;
    w->instance = NULL;
}

static void enter_queue(struct work *w, bool first)
{
    w->state = WORK_QUEUED;
    if (first) {
        DL_PREPEND(w->function->queue, w);
    } else {
        DL_APPEND(w->function->queue, w);
    }
    w->function->queued++;
}

static void count_end(struct core *c, enum status_code code)
{
    uint64_t *counter = code == STATUS_OK        ? &c->stats.calls_ok
                        : code == STATUS_TIMEOUT ? &c->stats.calls_timeout
                        : code == STATUS_CRASHED ? &c->stats.calls_crashed
                        : code == STATUS_UNKNOWN ? &c->stats.calls_unknown
                                                 : &c->stats.calls_failed;
    (*counter)++;
}

/* Answers the client and forgets the work, which has left its list. */
static void work_end(struct core *c, struct core_time now, struct work *w,
                     const struct call_reply *reply)
{
    count_end(c, (enum status_code)reply->code);
    struct message answer = {
        .type = MESSAGE_CALL_REPLY, .request = w->request, .call_reply = *reply};
    answer.call_reply.invocation = w->id;
    answer.call_reply.cold = w->cold;
    uint64_t until = w->sent_us != 0 ? w->sent_us : now.mono_us;
    answer.call_reply.queue_us = until > w->arrived_us ? until - w->arrived_us : 0;
    c->env.send(c->env.data, w->peer, &answer);
    work_free(c, w);
}

static void work_fail(struct core *c, struct core_time now, struct work *w, enum status_code code,
                      const char *message)
{
    CHECK(w->job == NULL);
    const struct call_reply reply = {.code = code, .message = message};
    work_end(c, now, w, &reply);
}

static const struct digest no_ref;

/* Sends the work to a free slot of i; ref names the payload when it is outside the log. */
static void work_run(struct core *c, struct core_time now, struct work *w, struct instance *i,
                     struct bytes payload, const struct digest *ref, uint64_t ref_bytes)
{
    CHECK(i->in_free);
    CHECK(i->inflight + i->foreign < i->concurrency);
    w->state = WORK_RUNNING;
    w->instance = i;
    w->attempt++;
    w->sent_us = now.mono_us;
    DL_APPEND(i->calls, w);
    i->inflight++;
    i->used_us = now.mono_us;
    instance_refile(i);
    /* The function's timeout is of one attempt: waiting for a cold start does not use it up. */
    uint64_t left_us = w->due_us > now.mono_us ? w->due_us - now.mono_us : 0;
    uint64_t attempt_us = w->attempt_ms * 1000;
    left_us = left_us < attempt_us ? left_us : attempt_us;
    const struct message m = {.type = MESSAGE_INVOKE,
                              .term = c->term,
                              .invoke = {.invocation = w->id,
                                         .attempt = w->attempt,
                                         .instance = i->id,
                                         .timeout_ms = (uint32_t)(left_us / 1000 + 1),
                                         .payload = payload,
                                         .durable = w->job != NULL,
                                         .payload_ref = *ref,
                                         .payload_bytes = ref_bytes}};
    c->env.send(c->env.data, i->node->peer, &m);
}

void calls_dispatch(struct core *c, struct core_time now, struct runtime *f)
{
    bool durable = core_settled(c, now);
    while (f->free != NULL) {
        bool mine = f->queue != NULL && (!durable || f->turn++ % (CALLS_PER_JOB + 1) != 0);
        if (!mine && durable && durable_run(c, now, f)) {
            continue;
        }
        durable = durable && mine; /* None may start now: the calls have the rest. */
        if (f->queue == NULL) {
            break;
        }
        struct work *w = f->queue;
        leave_queue(w);
        work_run(c, now, w, f->free, bytes_of(w->payload, w->payload_size), &no_ref, 0);
    }
    if (f->queue == NULL) {
        f->pending_logged = false;
    }
}

static struct work *work_new(struct core *c, struct core_time now, uint64_t peer,
                             const struct message *m, struct runtime *f)
{
    struct work *w = mem_zalloc(1, sizeof *w);
    uint8_t *payload = mem_dup(m->call.payload.data, m->call.payload.size);
    if (w == NULL || payload == NULL) {
        mem_free(w);
        mem_free(payload);
        return NULL;
    }
    w->id = core_new_id(c, now);
    w->function = f;
    w->peer = peer;
    w->request = m->request;
    w->payload = payload;
    w->payload_size = m->call.payload.size;
    w->arrived_us = now.mono_us;
    const struct function_spec *spec = &f->current->spec;
    uint64_t timeout_ms =
        m->call.timeout_ms != 0 ? m->call.timeout_ms : spec->startup_timeout_ms + spec->timeout_ms;
    if (timeout_ms > CORE_TIMEOUT_MS_MAX) {
        timeout_ms = CORE_TIMEOUT_MS_MAX;
    }
    w->due_us = now.mono_us + timeout_ms * 1000;
    w->attempt_ms = spec->timeout_ms;
    wheel_add(&c->wheel, &w->deadline, w->due_us);
    HASH_ADD(hh, c->calls, id, sizeof w->id, w);
    c->payload_bytes += w->payload_size;
    peer_find(c, peer)->calls++;
    return w;
}

void calls_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    if (!c->leader) {
        send_not_leader(c, peer, m);
        return;
    }
    if (peer_find(c, peer) == NULL || m->request == 0) {
        c->stats.messages_refused++;
        return;
    }
    c->stats.calls++;
    struct runtime *f = runtime_find(c, m->call.function);
    if (f == NULL || f->current == NULL) {
        char text[REASON_BYTES_MAX];
        (void)snprintf(text, sizeof text, "no function is named %.80s; see skep function list",
                       m->call.function);
        refuse(c, peer, m, STATUS_NOT_FOUND, text);
        return;
    }
    if (m->call.payload.size > PAYLOAD_BYTES_MAX) {
        refuse(c, peer, m, STATUS_LIMIT, "the payload is larger than 4 MiB");
        return;
    }
    if (HASH_COUNT(c->calls) >= c->config.calls_max ||
        c->payload_bytes + m->call.payload.size > CORE_PAYLOAD_BYTES_MAX) {
        refuse(c, peer, m, STATUS_LIMIT, "the scheduler holds as many calls as it may; try again");
        return;
    }
    bool at_once = f->queue == NULL && f->free != NULL;
    if (!at_once && f->queued >= f->current->spec.queue_max) {
        char text[REASON_BYTES_MAX];
        (void)snprintf(text, sizeof text,
                       "%u calls of %s wait, as many as scaling.queue allows; try again", f->queued,
                       f->name);
        refuse(c, peer, m, STATUS_LIMIT, text);
        return;
    }
    struct work *w = work_new(c, now, peer, m, f);
    if (w == NULL) {
        refuse(c, peer, m, STATUS_LIMIT, "the scheduler is out of memory; try again");
        return;
    }
    if (at_once) {
        work_run(c, now, w, f->free, bytes_of(w->payload, w->payload_size), &no_ref, 0);
        return;
    }
    w->cold = f->ready == 0;
    enter_queue(w, false);
    instances_scale(c, now, f);
}

/* ---- Results ---- */

/* An attempt that nobody waits for has ended: its slot is free again, if it was counted here. It
 * was not when it had ended before its agent registered, and only its result came later. */
static void late_result(struct core *c, struct core_time now, const struct result *r)
{
    c->stats.results_late++;
    struct instance *i = instance_find(c, r->instance);
    if (i != NULL && instance_foreign_take(i, r->invocation, r->attempt)) {
        instance_refile(i);
        calls_dispatch(c, now, i->function);
    }
}

/* ---- Attempts of durable invocations ---- */

struct work *calls_run_job(struct core *c, struct core_time now, struct job *j,
                           const struct state_job *content, struct instance *i, uint32_t attempt,
                           uint64_t attempt_term)
{
    struct work *w = mem_must(mem_zalloc(1, sizeof *w));
    const struct function_spec *spec = &i->function->current->spec;
    w->id = j->id;
    w->job = j;
    w->function = i->function;
    w->arrived_us = now.mono_us;
    w->attempt_ms = content->timeout_ms != 0 ? content->timeout_ms : spec->timeout_ms;
    w->due_us = now.mono_us + w->attempt_ms * 1000;
    w->attempt_term = attempt_term;
    wheel_add(&c->wheel, &w->deadline, w->due_us);
    HASH_ADD(hh, c->calls, id, sizeof w->id, w);
    j->work = w;
    if (attempt == 0) {
        w->attempt = j->attempt > j->attempts ? j->attempt : j->attempts;
        work_run(c, now, w, i, content->payload, &content->payload_ref, content->payload_bytes);
    } else {
        w->state = WORK_RUNNING;
        w->instance = i;
        w->attempt = attempt;
        w->sent_us = now.mono_us;
        DL_APPEND(i->calls, w);
        i->inflight++;
        instance_refile(i);
    }
    j->attempt = w->attempt;
    return w;
}

void calls_release_job(struct core *c, struct work *w)
{
    if (w->instance != NULL) {
        leave_instance(w);
    }
    w->job->work = NULL;
    work_free(c, w);
}

/* The end of an attempt that came without a result. */
static void job_failed(struct core *c, struct core_time now, struct work *w, enum status_code code,
                       const char *message, const char *node)
{
    const struct result r = {.invocation = w->id,
                             .attempt = w->attempt,
                             .attempt_term = w->attempt_term,
                             .code = code,
                             .message = message};
    durable_ended(c, now, w, &r, 0, node);
}

/* The agent did not start this attempt: it may be tried again. */
static bool refused_before_running(enum status_code code)
{
    return code == STATUS_CONFLICT || code == STATUS_UNAVAILABLE || code == STATUS_NOT_FOUND ||
           code == STATUS_LIMIT;
}

static void requeue(struct core *c, struct core_time now, struct work *w, const struct result *r)
{
    c->stats.calls_requeued++;
    if (w->job != NULL) {
        durable_refused(c, now, w);
        return;
    }
    if (w->attempt >= ATTEMPTS_MAX) {
        work_fail(c, now, w, STATUS_UNAVAILABLE, r->message);
        return;
    }
    if (w->function->current == NULL) {
        work_fail(c, now, w, STATUS_NOT_FOUND, "the function was deleted");
        return;
    }
    if (now.mono_us >= w->due_us) {
        work_fail(c, now, w, STATUS_TIMEOUT,
                  "the deadline passed before an instance took the call");
        return;
    }
    w->sent_us = 0;
    enter_queue(w, true);
}

void calls_result(struct core *c, struct core_time now, uint64_t peer, const struct result *r)
{
    const struct instance *of = instance_find(c, r->instance);
    if (of != NULL && of->node->peer != peer) {
        c->stats.messages_refused++;
        return;
    }
    struct work *w = work_find(c, r->invocation);
    if (w == NULL || w->state != WORK_RUNNING || w->attempt != r->attempt ||
        id_compare(w->instance->id, r->instance) != 0 ||
        (w->job != NULL && w->attempt_term != r->attempt_term)) {
        late_result(c, now, r);
        if (r->durable) {
            durable_late(c, now, peer, r);
        }
        return;
    }
    struct instance *i = w->instance;
    struct runtime *f = w->function;
    enum status_code code = status_from_wire(r->code);
    leave_instance(w);
    i->used_us = now.mono_us;
    if (refused_before_running(code)) {
        requeue(c, now, w, r);
        if (code == STATUS_NOT_FOUND) {
            instance_gone(c, now, i, STATUS_UNKNOWN, "the agent does not know this instance");
            return;
        }
    } else if (w->job != NULL) {
        durable_ended(c, now, w, r, peer, i->node->name);
    } else {
        const struct call_reply reply = {.code = code,
                                         .message = r->message,
                                         .output = r->output,
                                         .instance = i->id,
                                         .node = i->node->name,
                                         .run_us = r->run_us};
        work_end(c, now, w, &reply);
    }
    instance_refile(i);
    calls_dispatch(c, now, f);
}

/* ---- Ends without a result ---- */

/* Whatever runs on goes on unwaited for; its slot stays taken until the agent reports its end. */
static void abandon(struct core *c, struct work *w, const char *reason)
{
    struct instance *i = w->instance;
    const struct message m = {
        .type = MESSAGE_CANCEL,
        .term = c->term,
        .cancel = {
            .invocation = w->id, .attempt = w->attempt, .instance = i->id, .reason = reason}};
    leave_instance(w);
    instance_foreign_add(i, w->id, w->attempt);
    c->env.send(c->env.data, i->node->peer, &m);
}

void calls_abandon_job(struct core *c, struct work *w, const char *reason)
{
    abandon(c, w, reason);
    calls_release_job(c, w);
}

static void expire_queued(struct core *c, struct core_time now, struct work *w)
{
    struct runtime *f = w->function;
    char text[REASON_BYTES_MAX];
    (void)snprintf(text, sizeof text,
                   "the deadline passed while the call waited for an instance; see skep why %s",
                   f->name);
    leave_queue(w);
    work_fail(c, now, w, STATUS_TIMEOUT, text);
}

void calls_expire(struct core *c, struct core_time now)
{
    for (;;) {
        struct wheel_entry *e = wheel_expired(&c->wheel, now.mono_us);
        if (e == NULL) {
            return;
        }
        struct work *w = (struct work *)(void *)((char *)e - offsetof(struct work, deadline));
        if (w->state == WORK_QUEUED) {
            expire_queued(c, now, w);
        } else if (now.mono_us < w->due_us + TIMEOUT_GRACE_US) {
            wheel_add(&c->wheel, e, w->due_us + TIMEOUT_GRACE_US);
        } else if (w->job != NULL) {
            const char *node = w->instance->node->name;
            abandon(c, w, "deadline");
            job_failed(c, now, w, STATUS_TIMEOUT, "the attempt did not end in time", node);
        } else {
            abandon(c, w, "deadline");
            work_fail(c, now, w, STATUS_TIMEOUT, "the deadline passed while the call ran");
        }
    }
}

void calls_fail_one(struct core *c, struct core_time now, struct work *w, enum status_code code,
                    const char *message)
{
    const struct instance *i = w->instance;
    const struct call_reply reply = {
        .code = code, .message = message, .instance = i->id, .node = i->node->name};
    leave_instance(w);
    if (w->job != NULL) {
        /* An instance that ended for another reason (killed for an attempt before this one,
         * stopped, lost) is not this attempt's failure. */
        code = code == STATUS_CRASHED ? code : STATUS_UNKNOWN;
        job_failed(c, now, w, code, message, i->node->name);
        return;
    }
    work_end(c, now, w, &reply);
}

void calls_fail_instance(struct core *c, struct core_time now, struct instance *i,
                         enum status_code code, const char *message)
{
    while (i->calls != NULL) {
        calls_fail_one(c, now, i->calls, code, message);
    }
}

void calls_fail_queue(struct core *c, struct core_time now, struct runtime *f,
                      enum status_code code, const char *message)
{
    while (f->queue != NULL) {
        struct work *w = f->queue;
        leave_queue(w);
        work_fail(c, now, w, code, message);
    }
    f->pending_logged = false;
}

void calls_forget_peer(struct core *c, struct core_time now, uint64_t peer)
{
    (void)now;
    struct work *w, *next;
    HASH_ITER(hh, c->calls, w, next) {
        if (w->peer != peer || w->job != NULL) {
            continue;
        }
        if (w->state == WORK_QUEUED) {
            leave_queue(w);
        } else {
            abandon(c, w, "the caller is gone");
        }
        work_free(c, w);
    }
}

/* Leadership is lost. What was queued certainly did not run: the client asks the new leader. What
 * ran may have been done. */
void calls_fail_all(struct core *c, struct core_time now)
{
    struct work *w, *next;
    HASH_ITER(hh, c->calls, w, next) {
        if (w->job != NULL) {
            durable_back(c, now, w);
        } else if (w->state == WORK_QUEUED) {
            leave_queue(w);
            work_fail(c, now, w, STATUS_NOT_LEADER, "this scheduler is no longer the leader");
        } else {
            leave_instance(w);
            work_fail(c, now, w, STATUS_UNKNOWN,
                      "leadership was lost while the call ran; it may have been done");
        }
    }
    CHECK(c->payload_bytes == 0);
}

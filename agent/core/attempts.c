/* Attempts: one try of an invocation on one instance, from its invoke to its one result.
 *
 *     running -> result
 *        | timeout or cancel: the instance is told to give it up
 *        +-> given up -> the runner's result: answered TIMEOUT or CANCELED, whatever it says
 *                | none within the grace: the instance is killed
 *                +-> instance ended: answered
 *
 * The answer always means that the place in the instance is free again: the leader counts on it.
 * That of a call is delivered once, or held for the next leader; that of a durable attempt is kept
 * until it is acknowledged (kept.c). */
#include "agent/core/core_internal.h"

#include "common/check.h"

#include <stdio.h>
#include <string.h>

static struct core_attempt *attempt_find(const struct agent_core *c, struct id128 invocation,
                                         uint32_t attempt)
{
    const struct core_attempt_key key = {invocation, attempt};
    struct core_attempt *a;
    HASH_FIND(hh, c->attempts, &key, sizeof key, a);
    return a;
}

static struct core_attempt *durable_find(const struct agent_core *c, struct id128 invocation)
{
    struct core_attempt *a;
    HASH_FIND(hh_durable, c->durable, &invocation, sizeof invocation, a);
    return a;
}

/* attempt_term is not looked at for attempts of calls. */
static struct status attempt_new(struct agent_core *c, struct core_instance *i,
                                 const struct attempt_report *r, struct core_attempt **out)
{
    if (HASH_COUNT(c->attempts) >= AGENT_ATTEMPTS_MAX) {
        return status_of(STATUS_LIMIT);
    }
    struct core_attempt *a = mem_zalloc(1, sizeof *a);
    if (a == NULL) {
        return status_of(STATUS_NOMEM);
    }
    a->key = (struct core_attempt_key){r->invocation, r->attempt};
    a->instance = i;
    a->durable = r->durable;
    a->attempt_term = r->attempt_term;
    HASH_ADD(hh, c->attempts, key, sizeof a->key, a);
    if (!HASH_IN(a)) {
        mem_free(a);
        return status_of(STATUS_NOMEM);
    }
    if (a->durable) {
        HASH_ADD(hh_durable, c->durable, key.invocation, sizeof a->key.invocation, a);
        if (a->hh_durable.tbl == NULL) {
            HASH_DEL(c->attempts, a);
            mem_free(a);
            return status_of(STATUS_NOMEM);
        }
    }
    DL_APPEND(i->attempts, a);
    i->inflight++;
    *out = a;
    return status_ok();
}

static void attempt_free(struct agent_core *c, struct core_attempt *a)
{
    CHECK(a->instance->inflight > 0);
    a->instance->inflight--;
    DL_DELETE(a->instance->attempts, a);
    HASH_DEL(c->attempts, a);
    if (a->durable) {
        HASH_DELETE(hh_durable, c->durable, a);
    }
    mem_free(a);
}

static void held_drop(struct agent_core *c, struct core_held *h)
{
    DL_DELETE(c->held, h);
    c->stats.results_held--;
    c->stats.results_held_bytes -= h->bytes;
    mem_free(h);
}

/* Keeps a copy for the next leader. The oldest give way: their callers are the likeliest to have
 * given up. */
static void held_put(struct agent_core *c, const struct result *r)
{
    size_t text = strlen(r->message) + 1;
    size_t bytes = sizeof(struct core_held) + text + r->output.size;
    if (bytes > RESULTS_HELD_BYTES_MAX) {
        c->stats.results_held_dropped++;
        return;
    }
    while (c->stats.results_held >= RESULTS_HELD_MAX ||
           c->stats.results_held_bytes + bytes > RESULTS_HELD_BYTES_MAX) {
        held_drop(c, c->held);
        c->stats.results_held_dropped++;
    }
    struct core_held *h = mem_alloc(bytes);
    if (h == NULL) {
        c->stats.results_held_dropped++;
        return;
    }
    uint8_t *tail = (uint8_t *)(h + 1);
    *h = (struct core_held){.r = *r, .bytes = bytes};
    memcpy(tail, r->message, text);
    h->r.message = (const char *)tail;
    if (r->output.size > 0) {
        memcpy(tail + text, r->output.data, r->output.size);
    }
    h->r.output = bytes_of(tail + text, r->output.size);
    DL_APPEND(c->held, h);
    c->stats.results_held++;
    c->stats.results_held_bytes += bytes;
}

static bool result_send(struct agent_core *c, uint64_t peer, const struct result *r)
{
    const struct message m = {.type = MESSAGE_RESULT, .result = *r};
    return c->env.send(c->env.data, peer, &m);
}

/* How soon a result that the leader's connection could not take is tried again. */
enum { HELD_RETRY_MS = 50 };

void core_held_flush(struct agent_core *c, uint64_t now_us)
{
    if (!agent_core_has_lease(c, now_us)) {
        return;
    }
    while (c->held != NULL) {
        if (!result_send(c, c->leader, &c->held->r)) {
            core_due(c, after_ms(now_us, HELD_RETRY_MS));
            return;
        }
        held_drop(c, c->held);
    }
}

/* Delivers to the leader, behind what is held, or holds. */
static void result_deliver(struct agent_core *c, uint64_t now_us, const struct result *r)
{
    c->stats.results++;
    c->stats.results_failed += r->code != STATUS_OK;
    if (r->durable) {
        core_kept_put(c, now_us, r);
        return;
    }
    bool lease = agent_core_has_lease(c, now_us);
    if (lease && c->held == NULL && result_send(c, c->leader, r)) {
        return;
    }
    held_put(c, r);
    if (lease) {
        core_due(c, after_ms(now_us, HELD_RETRY_MS));
    }
}

void core_invoke_refuse(struct agent_core *c, uint64_t peer, uint64_t term, const struct invoke *i,
                        enum status_code code, const char *message)
{
    const struct result r = {
        .invocation = i->invocation,
        .attempt = i->attempt,
        .instance = i->instance,
        .code = (uint32_t)code,
        .message = message,
        .attempt_term = term,
        .durable = i->durable,
    };
    (void)result_send(c, peer, &r);
}

/* Is there a held result of this attempt? Then the invoke repeats one that is done. */
static bool held_repeats(const struct agent_core *c, const struct invoke *i)
{
    const struct core_held *h;
    DL_FOREACH(c->held, h) {
        if (h->r.attempt == i->attempt && id_compare(h->r.invocation, i->invocation) == 0) {
            return true;
        }
    }
    return false;
}

/* Can the instance take it now? Refuses and answers false otherwise. */
static bool invoke_admit(struct agent_core *c, uint64_t now_us, const struct invoke *i,
                         const struct core_instance *to)
{
    if (!agent_core_has_lease(c, now_us)) {
        c->stats.invokes_refused_lease++;
        core_invoke_refuse(c, c->leader, c->term, i, STATUS_UNAVAILABLE,
                           "the agent's lease has run out");
        return false;
    }
    if (to == NULL) {
        c->stats.invokes_refused_gone++;
        core_invoke_refuse(c, c->leader, c->term, i, STATUS_NOT_FOUND,
                           "the instance is not on this node");
        return false;
    }
    if (to->state != INSTANCE_READY) {
        c->stats.invokes_refused_gone++;
        core_invoke_refuse(c, c->leader, c->term, i, STATUS_UNAVAILABLE,
                           to->state == INSTANCE_STARTING ? "the instance is starting"
                                                          : "the instance is stopping");
        return false;
    }
    if (to->inflight >= to->concurrency) {
        c->stats.invokes_refused_busy++;
        core_invoke_refuse(c, c->leader, c->term, i, STATUS_LIMIT,
                           "the instance is at its concurrency");
        return false;
    }
    return true;
}

/* Has this very attempt been taken before? Or is another one of a durable invocation at work here,
 * which is refused? Two of them would do the work twice at once. */
static bool invoke_is_known(struct agent_core *c, const struct invoke *i)
{
    const struct core_attempt *a = attempt_find(c, i->invocation, i->attempt);
    const struct core_attempt *other = i->durable ? durable_find(c, i->invocation) : NULL;
    bool same = a != NULL && (!i->durable || (a->durable && a->attempt_term == c->term));
    if (same || held_repeats(c, i) ||
        (i->durable && core_kept_has(c, i->invocation, i->attempt, c->term))) {
        c->stats.invokes_repeated++;
        return true;
    }
    if (a != NULL || other != NULL) {
        const struct core_attempt *runs = other != NULL ? other : a;
        char text[VERDICT_BYTES];
        (void)snprintf(text, sizeof text, "attempt %llu of term %llu of it runs here",
                       (unsigned long long)runs->key.attempt,
                       (unsigned long long)runs->attempt_term);
        c->stats.invokes_conflict++;
        core_invoke_refuse(c, c->leader, c->term, i, STATUS_CONFLICT, text);
        return true;
    }
    return false;
}

static uint32_t timeout_of(const struct core_instance *i, uint64_t asked_ms)
{
    uint64_t ms = asked_ms != 0 ? asked_ms : i->timeout_ms;
    return ms == 0 || ms > ATTEMPT_TIMEOUT_MS_MAX ? ATTEMPT_TIMEOUT_MS_MAX : (uint32_t)ms;
}

void core_invoke(struct agent_core *c, uint64_t now_us, const struct invoke *i)
{
    if (invoke_is_known(c, i)) {
        return;
    }
    struct core_instance *to = core_instance_find(c, i->instance);
    if (!invoke_admit(c, now_us, i, to)) {
        return;
    }
    struct core_attempt *a;
    const struct attempt_report report = {.invocation = i->invocation,
                                          .attempt = i->attempt,
                                          .attempt_term = c->term,
                                          .durable = i->durable};
    struct status s = attempt_new(c, to, &report, &a);
    if (!status_is_ok(s)) {
        c->stats.invokes_refused_busy++;
        core_invoke_refuse(c, c->leader, c->term, i, s.code,
                           "the agent's table of attempts is full");
        return;
    }
    struct invoke filled = *i;
    filled.timeout_ms = timeout_of(to, i->timeout_ms);
    struct errmsg msg = {{0}};
    s = c->env.invoke(c->env.data, &filled, &msg);
    if (!status_is_ok(s)) {
        attempt_free(c, a);
        c->stats.invokes_refused_busy++;
        core_invoke_refuse(c, c->leader, c->term, i, s.code, msg.text);
        return;
    }
    c->stats.invokes++;
    a->begun_us = now_us;
    a->due_us = after_ms(now_us, filled.timeout_ms);
    core_due(c, a->due_us);
}

struct status agent_core_adopt_attempt(struct agent_core *c, uint64_t now_us,
                                       const struct attempt_report *r, uint32_t left_ms)
{
    struct core_instance *i = core_instance_find(c, r->instance);
    if (i == NULL) {
        return status_of(STATUS_NOT_FOUND);
    }
    if (attempt_find(c, r->invocation, r->attempt) != NULL ||
        (r->durable && durable_find(c, r->invocation) != NULL)) {
        return status_of(STATUS_EXISTS);
    }
    struct core_attempt *a;
    TRY(attempt_new(c, i, r, &a));
    a->begun_us = now_us;
    a->due_us = after_ms(now_us, left_ms);
    core_due(c, a->due_us);
    return status_ok();
}

/* Tells the instance to give the attempt up, and gives it until due_us. */
static void attempt_give_up(struct agent_core *c, struct core_attempt *a, enum status_code verdict,
                            const char *text, uint64_t due_us)
{
    a->verdict = verdict;
    (void)snprintf(a->verdict_text, sizeof a->verdict_text, "%s", text);
    a->due_us = due_us;
    core_due(c, due_us);
    c->env.cancel(c->env.data, a->instance->id, a->key.invocation, (uint32_t)a->key.attempt);
}

/* The caller has given up. An instance that does not let go dies for it only when nobody else's
 * work is in it; otherwise the attempt's own timeout ends it. */
void core_cancel(struct agent_core *c, uint64_t now_us, const struct cancel *x)
{
    struct core_attempt *a = attempt_find(c, x->invocation, x->attempt);
    if (a == NULL || a->verdict != STATUS_OK) {
        return;
    }
    c->stats.cancels++;
    uint64_t due_us = after_ms(now_us, ATTEMPT_GRACE_MS);
    if (a->instance->inflight > 1 && a->due_us > due_us) {
        due_us = a->due_us;
    }
    attempt_give_up(c, a, STATUS_CANCELED, x->reason, due_us);
}

/* Ends an attempt with this outcome, or with the verdict it has already. r->instance is filled
 * in. */
static void attempt_end(struct agent_core *c, uint64_t now_us, struct core_attempt *a,
                        struct result *r)
{
    char verdict[VERDICT_BYTES];
    r->instance = a->instance->id;
    r->durable = a->durable;
    r->attempt_term = a->attempt_term;
    if (a->verdict != STATUS_OK) {
        memcpy(verdict, a->verdict_text, sizeof verdict);
        r->code = (uint32_t)a->verdict;
        r->message = verdict;
        r->output = (struct bytes){0};
    }
    attempt_free(c, a);
    result_deliver(c, now_us, r);
}

void agent_core_result(struct agent_core *c, uint64_t now_us, const struct result *r)
{
    struct core_attempt *a = attempt_find(c, r->invocation, r->attempt);
    if (a == NULL) {
        c->stats.results_late++;
        return;
    }
    struct core_instance *i = a->instance;
    struct result whole = *r;
    whole.run_us = now_us - a->begun_us;
    attempt_end(c, now_us, a, &whole);
    core_instance_idle(c, now_us, i);
}

void core_attempts_crash(struct agent_core *c, uint64_t now_us, struct core_instance *i,
                         const char *message)
{
    char text[INSTANCE_MESSAGE_BYTES + 32];
    (void)snprintf(text, sizeof text, "instance ended: %s", message);
    while (i->attempts != NULL) {
        struct core_attempt *a = i->attempts;
        struct result r = {
            .invocation = a->key.invocation,
            .attempt = (uint32_t)a->key.attempt,
            .code = STATUS_CRASHED,
            .message = text,
            .run_us = now_us - a->begun_us,
        };
        attempt_end(c, now_us, a, &r);
    }
}

/* One attempt is due: first it is given up, then its instance's life is over. */
static void attempt_due(struct agent_core *c, uint64_t now_us, struct core_attempt *a)
{
    if (a->verdict == STATUS_OK) {
        c->stats.timeouts++;
        char text[VERDICT_BYTES];
        (void)snprintf(text, sizeof text, "timeout of %llu ms exceeded",
                       (unsigned long long)((a->due_us - a->begun_us) / 1000));
        attempt_give_up(c, a, STATUS_TIMEOUT, text, after_ms(now_us, ATTEMPT_GRACE_MS));
        return;
    }
    a->due_us = NEVER_US;
    if (!a->instance->killed) {
        c->stats.kills++;
    }
    core_instance_kill(c, a->instance, STATUS_TIMEOUT,
                       "killed: it did not give up an invocation that was over");
}

uint64_t core_attempts_tick(struct agent_core *c, uint64_t now_us)
{
    uint64_t next_us = NEVER_US;
    struct core_attempt *a;
    struct core_attempt *tmp;
    HASH_ITER(hh, c->attempts, a, tmp) {
        if (a->due_us <= now_us) {
            attempt_due(c, now_us, a);
        }
        if (a->due_us < next_us) {
            next_us = a->due_us;
        }
    }
    return next_us;
}

void core_attempts_free(struct agent_core *c)
{
    struct core_attempt *a;
    struct core_attempt *tmp;
    HASH_ITER(hh, c->attempts, a, tmp) {
        attempt_free(c, a);
    }
    while (c->held != NULL) {
        held_drop(c, c->held);
    }
}

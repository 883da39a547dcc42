#include "simulations/errands.h"

#include "simulations/agents.h"

#include <inttypes.h>
#include <string.h>

/* The payload's first word; calls have their number there. */
#define ERRAND_MARK (UINT64_C(1) << 63)
enum {
    OUTPUT_WORDS = 3,
    SKEW_MS = 1500, /* how far the wall clocks of schedulers are apart when none jumps */
};

struct errands {
    struct world *world;
    struct linear *history;
    struct errand **items;
    uint64_t count, capacity;
    struct errand *by_invocation;
};

struct errands *errands_new(struct world *w)
{
    struct errands *l = mem_must(mem_zalloc(1, sizeof *l));
    l->world = w;
    l->history = linear_new();
    return l;
}

void errands_free(struct errands *l)
{
    HASH_CLEAR(hh, l->by_invocation);
    for (uint64_t i = 0; i < l->count; i++) {
        mem_free(l->items[i]->executions);
        mem_free(l->items[i]);
    }
    mem_free(l->items);
    linear_free(l->history);
    mem_free(l);
}

struct linear *errands_history(struct errands *l)
{
    return l->history;
}

struct errand *errand_new(struct errands *l, const struct function *f)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity == 0 ? 256 : 2 * l->capacity;
        l->items = mem_must(mem_realloc(l->items, l->capacity * sizeof(struct errand *)));
    }
    struct errand *e = mem_must(mem_zalloc(1, sizeof *e));
    e->number = l->count;
    e->function = f;
    e->asked_us = world_now(l->world);
    l->items[l->count++] = e;
    return e;
}

uint64_t errands_count(const struct errands *l)
{
    return l->count;
}

struct errand *errand_at(const struct errands *l, uint64_t number)
{
    CHECK(number < l->count);
    return l->items[number];
}

struct errand *errand_find(const struct errands *l, struct id128 invocation)
{
    struct errand *e;
    HASH_FIND(hh, l->by_invocation, &invocation, sizeof invocation, e);
    return e;
}

size_t errand_payload(const struct errand *e, uint8_t *out, size_t size)
{
    const uint64_t words[2] = {e->number | ERRAND_MARK, e->number * 31};
    CHECK(size >= sizeof words);
    memcpy(out, words, sizeof words);
    return sizeof words;
}

/* The errand is that invocation and no other. */
static void identify(struct errands *l, struct errand *e, struct id128 invocation)
{
    if (id_compare(e->invocation, (struct id128){0, 0}) == 0) {
        e->invocation = invocation;
        HASH_ADD(hh, l->by_invocation, invocation, sizeof e->invocation, e);
    } else if (id_compare(e->invocation, invocation) != 0) {
        world_fail(l->world, "errand %" PRIu64 " is two invocations, %08x and %08x", e->number,
                   world_short(e->invocation), world_short(invocation));
    }
}

/* ---- What the clients hear ---- */

void errand_acknowledged(struct errands *l, struct errand *e, struct id128 invocation)
{
    e->acknowledged = true;
    identify(l, e, invocation);
}

static void output_of(const struct errand *e, uint32_t attempt, uint64_t term, uint64_t *words)
{
    words[0] = e->number;
    words[1] = (uint64_t)attempt << 32 | term;
    words[2] = (words[0] + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ words[1];
}

/* The completed execution that has this output. */
static const struct execution *find_by_output(const struct errand *e, struct bytes output)
{
    for (size_t i = 0; i < e->executions_count; i++) {
        const struct execution *x = &e->executions[i];
        uint64_t words[OUTPUT_WORDS];
        output_of(e, x->attempt, x->term, words);
        if (x->completed && x->code == STATUS_OK &&
            bytes_equal(output, bytes_of(words, sizeof words))) {
            return x;
        }
    }
    return NULL;
}

/* It may have died of its deadline only when that has passed by some clock. */
static void check_deadline(struct errands *l, const struct errand *e, const struct outcome *o)
{
    struct world *w = l->world;
    if (strstr(o->result_message, "deadline") == NULL || w->scenario->clock_jumps > 0) {
        return;
    }
    uint64_t waited_ms = (world_now(w) - e->asked_us) / MS_US;
    /* Before an attempt that would begin too late it may give up earlier: by the longest pause. */
    if (e->deadline_ms == 0 || waited_ms + e->function->backoff_ms_max + SKEW_MS < e->deadline_ms) {
        world_fail(w, "errand %" PRIu64 " died of its deadline after %" PRIu64 " of %" PRIu64 " ms",
                   e->number, waited_ms, e->deadline_ms);
    }
}

static void check_done(struct errands *l, const struct errand *e, const struct outcome *o)
{
    const struct execution *x = find_by_output(e, o->output);
    if (x == NULL) {
        world_fail(l->world, "errand %" PRIu64 " is done with an output that no instance gave",
                   e->number);
    } else if (!e->accepted || x->attempt != e->accepted_attempt || x->term != e->accepted_term) {
        world_fail(l->world, "errand %" PRIu64 " is done with another success than was committed",
                   e->number);
    }
}

void errand_outcome(struct errands *l, struct errand *e, const struct outcome *o)
{
    struct world *w = l->world;
    identify(l, e, o->invocation);
    e->seen = (enum invocation_state)o->state;
    switch (o->state) {
    case INVOCATION_QUEUED:
        return;
    case INVOCATION_DONE:
        check_done(l, e, o);
        return;
    case INVOCATION_DEAD:
        if (e->final) {
            world_fail(w, "errand %" PRIu64 " of the last batch died: %s", e->number,
                       o->result_message);
        }
        check_deadline(l, e, o);
        return;
    case INVOCATION_CANCELED:
        if (e->cancels == 0) {
            world_fail(w, "errand %" PRIu64 " is canceled, yet nobody asked for that", e->number);
        }
        return;
    default:
        world_fail(w, "errand %" PRIu64 " is in state %u", e->number, o->state);
    }
}

uint64_t errand_sum(const struct outcome *o)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ o->result_code;
    for (size_t i = 0; i < o->output.size; i++) {
        h = (h ^ o->output.data[i]) * UINT64_C(0x100000001b3);
    }
    return o->state == INVOCATION_QUEUED ? 0 : h;
}

/* ---- What the instances do ---- */

bool errands_own(struct bytes payload)
{
    struct reader r = reader_of(payload);
    uint64_t word = reader_u64(&r);
    return !r.failed && (word & ERRAND_MARK) != 0;
}

static void check_may_run(struct errands *l, const struct errand *e, const struct invoke *i,
                          uint64_t term)
{
    struct world *w = l->world;
    for (size_t k = 0; k < e->executions_count; k++) {
        const struct execution *x = &e->executions[k];
        if (x->attempt == i->attempt && x->term == term) {
            world_fail(w, "attempt %u of term %" PRIu64 " of errand %" PRIu64 " ran twice",
                       i->attempt, term, e->number);
        }
    }
    if (!e->acknowledged && e->open == 0) {
        world_fail(w, "errand %" PRIu64 " runs, yet it was refused", e->number);
    }
    uint64_t waited_ms = (world_now(w) - e->asked_us) / MS_US;
    if (w->scenario->clock_jumps == 0 && waited_ms + SKEW_MS < e->delay_ms) {
        world_fail(w, "errand %" PRIu64 " runs after %" PRIu64 " of %" PRIu64 " ms of delay",
                   e->number, waited_ms, e->delay_ms);
    }
}

struct errand *errand_executes(struct errands *l, const struct invoke *i, uint64_t term,
                               uint32_t agent)
{
    struct reader r = reader_of(i->payload);
    uint64_t number = reader_u64(&r) & ~ERRAND_MARK;
    uint64_t check = reader_u64(&r);
    if (r.failed || number >= l->count || check != number * 31 || !i->durable) {
        world_fail(l->world, "an instance was given a durable payload that nobody sent");
        return NULL;
    }
    struct errand *e = errand_at(l, number);
    check_may_run(l, e, i, term);
    identify(l, e, i->invocation);
    if (e->executions_count == e->executions_capacity) {
        e->executions_capacity = e->executions_capacity == 0 ? 2 : 2 * e->executions_capacity;
        e->executions =
            mem_must(mem_realloc(e->executions, e->executions_capacity * sizeof *e->executions));
    }
    e->executions[e->executions_count++] =
        (struct execution){.attempt = i->attempt, .agent = agent, .term = term};
    return e;
}

void errand_executed(struct errands *l, struct errand *e, uint32_t attempt, uint64_t term,
                     enum status_code code, uint8_t *output, size_t size)
{
    uint64_t words[OUTPUT_WORDS];
    CHECK(size == sizeof words);
    output_of(e, attempt, term, words);
    memcpy(output, words, sizeof words);
    for (size_t i = 0; i < e->executions_count; i++) {
        struct execution *x = &e->executions[i];
        if (x->attempt == attempt && x->term == term) {
            CHECK(!x->completed);
            x->completed = true;
            x->code = code;
            return;
        }
    }
    world_fail(l->world, "errand %" PRIu64 " ended an attempt that it never began", e->number);
}

void errand_last_output(const struct errand *e, uint8_t *output, size_t size)
{
    uint64_t words[OUTPUT_WORDS] = {0};
    CHECK(size == sizeof words);
    for (size_t i = 0; i < e->executions_count; i++) {
        const struct execution *x = &e->executions[i];
        if (x->completed && x->code == STATUS_OK) {
            output_of(e, x->attempt, x->term, words);
        }
    }
    memcpy(output, words, sizeof words);
}

/* ---- What the state machine does ---- */

void errand_finishes(struct errands *l, const struct command_finish *f)
{
    struct world *w = l->world;
    struct errand *e = errand_find(l, f->invocation);
    if (f->code != STATUS_OK) {
        return;
    }
    const struct execution *x = e == NULL ? NULL : find_by_output(e, f->output);
    if (x == NULL) {
        world_fail(w, "a success of invocation %08x is committed that no instance had",
                   world_short(f->invocation));
    } else if (x->attempt != f->attempt || x->term != f->attempt_term ||
               strcmp(w->agents->each[x->agent].name, f->node) != 0) {
        world_fail(w,
                   "errand %" PRIu64 " is committed as attempt %u of term %" PRIu64
                   " on %s; its output is of attempt %u of term %" PRIu64 " on %s",
                   e->number, f->attempt, f->attempt_term, f->node, x->attempt, x->term,
                   w->agents->each[x->agent].name);
    } else if (e->accepted) {
        world_fail(w, "errand %" PRIu64 " has two successes", e->number);
    } else {
        e->accepted = true;
        e->accepted_attempt = x->attempt;
        e->accepted_term = x->term;
    }
}

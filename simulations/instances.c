#include "simulations/instances.h"

#include "common/hash.h"
#include "simulations/errands.h"

/* of a thousand, while the world is not calm */
enum { START_REFUSED = 20, INVOKE_REFUSED = 5, DEAF = 200 };

static bool wild(const struct agent *a)
{
    return a->world->scenario->wild_instances && !a->world->calm;
}

static bool happens(struct agent *a, uint32_t permille)
{
    return wild(a) && world_chance(a->world, permille);
}

static struct instance_run *find(struct agent *a, struct id128 id)
{
    struct instance_run *i;
    for (i = a->instances; i != NULL; i = i->next) {
        if (!i->gone && id_compare(i->id, id) == 0) {
            return i;
        }
    }
    return NULL;
}

static void runs_drop(struct instance_run *i)
{
    struct run *r, *next;
    DL_FOREACH_SAFE(i->runs, r, next) {
        DL_DELETE(i->runs, r);
        DL_APPEND(i->agent->ended_runs, r);
        r->owner = NULL;
    }
    i->running = 0;
}

void instance_end(struct instance_run *i, enum status_code code, const char *message)
{
    struct agent *a = i->agent;
    if (i->gone) {
        return;
    }
    world_trace(a->world, "%s instance %08x %s ended: %s", a->name, world_short(i->id),
                i->function->name, message);
    i->gone = true;
    if (a->world->bug != SIMULATION_BUG_ZOMBIE || a->lost) {
        a->cpu_used -= i->cpu_millis;
        a->memory_used -= i->memory_bytes;
    }
    runs_drop(i);
    agent_instance_ended(a, i, code, message);
}

/* ---- Starting ---- */

static void on_started(struct world *w, void *data, uint64_t arg)
{
    (void)arg;
    struct instance_run *i = data;
    struct agent *a = i->agent;
    if (i->gone) {
        return;
    }
    if (happens(a, i->function->start_fails)) {
        instance_end(i, STATUS_CRASHED, "exit code 1");
        return;
    }
    if (happens(a, i->function->start_hangs)) {
        return;
    }
    i->ready = true;
    i->startup_us = world_now(w) - i->began_us;
    world_trace(w, "%s instance %08x %s ready", a->name, world_short(i->id), i->function->name);
    agent_instance_ready(a, i);
}

static void check_capacity(const struct agent *a)
{
    if (a->cpu_used > a->cpu_millis || a->memory_used > a->memory_bytes) {
        world_fail(a->world, "%s is over its capacity: %u of %u millis, %llu of %llu bytes",
                   a->name, a->cpu_used, a->cpu_millis, (unsigned long long)a->memory_used,
                   (unsigned long long)a->memory_bytes);
    }
}

struct status instance_begin(struct agent *a, const struct start *s, struct errmsg *msg)
{
    struct world *w = a->world;
    if (happens(a, START_REFUSED)) {
        return status_fail(msg, STATUS_IO, "no space left on device");
    }
    const struct function *f = function_find(s->spec->name);
    CHECK(f != NULL);
    struct instance_run *i = mem_must(mem_zalloc(1, sizeof *i));
    *i = (struct instance_run){.agent = a,
                               .id = s->instance,
                               .revision = s->revision,
                               .function = f,
                               .cpu_millis = s->spec->cpu_millis,
                               .concurrency = s->spec->concurrency,
                               .memory_bytes = s->spec->memory_bytes,
                               .timeout_ms = s->spec->timeout_ms,
                               .began_us = world_now(w)};
    DL_APPEND(a->instances, i);
    a->cpu_used += i->cpu_millis;
    a->memory_used += i->memory_bytes;
    check_capacity(a);
    world_trace(w, "%s instance %08x %s starts", a->name, world_short(i->id), f->name);
    world_after(w, world_between(w, f->start_ms_min, f->start_ms_max) * MS_US, on_started, i, 0);
    return status_ok();
}

/* ---- Stopping ---- */

static void on_stopped(struct world *w, void *data, uint64_t killed)
{
    (void)w;
    instance_end(data, killed != 0 ? STATUS_CRASHED : STATUS_OK,
                 killed != 0 ? "killed by signal 9" : "exit code 0");
}

void instance_stop(struct agent *a, struct id128 id, bool kill)
{
    struct instance_run *i = find(a, id);
    if (i == NULL) {
        return; /* its end is on its way to the core, or came before */
    }
    i->stopping = true;
    if (!kill && happens(a, DEAF)) {
        return;
    }
    uint64_t delay_us =
        kill ? world_between(a->world, 100, 5000) : world_between(a->world, 500, 300000);
    world_after(a->world, delay_us, on_stopped, i, kill ? 1 : 0);
}

/* ---- Running ---- */

static void on_read(struct world *w, void *data, uint64_t arg);

static void run_finish(struct run *r, enum status_code code)
{
    struct instance_run *i = r->owner;
    CHECK(!r->finished);
    r->finished = true;
    r->code = code;
    i->running--;
    struct world *w = i->agent->world;
    if (r->errand != NULL) {
        errand_executed(w->errands, r->errand, r->attempt, r->attempt_term, code, r->output,
                        sizeof r->output);
    } else {
        clients_executed(r->call, r->hop, code, r->output);
    }
    on_read(w, r, 0);
}

static void on_finished(struct world *w, void *data, uint64_t arg)
{
    (void)w;
    (void)arg;
    struct run *r = data;
    if (r->owner == NULL || r->finished) {
        return;
    }
    struct agent *a = r->owner->agent;
    const struct function *f = r->owner->function;
    if (happens(a, f->crashes)) {
        instance_end(r->owner, STATUS_CRASHED, "killed by signal 11");
        return;
    }
    if (happens(a, f->hangs)) {
        return;
    }
    run_finish(r, happens(a, f->fails) ? STATUS_FAILED : STATUS_OK);
}

/* The agent reads the result from the instance's socket. */
static void on_read(struct world *w, void *data, uint64_t arg)
{
    (void)arg;
    struct run *r = data;
    struct instance_run *i = r->owner;
    if (i == NULL || !r->finished || i->agent->core == NULL) {
        return;
    }
    if (agent_paused(i->agent)) {
        world_at(w, i->agent->endpoint->paused_until_us, on_read, r, 0);
        return;
    }
    DL_DELETE(i->runs, r);
    DL_APPEND(i->agent->ended_runs, r);
    r->owner = NULL;
    uint8_t wrong[OUTPUT_BYTES] = {0};
    bool swapped = world_bug(w, SIMULATION_BUG_FALSE_OUTPUT, 50);
    const struct result result = {
        .invocation = r->invocation,
        .attempt = r->attempt,
        .instance = i->id,
        .attempt_term = r->attempt_term,
        .durable = r->errand != NULL,
        .code = (uint32_t)r->code,
        .message = r->code == STATUS_OK ? "" : "the handler raised an error",
        .output = r->code == STATUS_OK ? bytes_of(swapped ? wrong : r->output, OUTPUT_BYTES)
                                       : bytes_of(NULL, 0)};
    CHECK(agent_result(i->agent, &result));
}

/* An attempt that runs already under another leader's term must have been adopted, not sent
 * again. */
static void check_fenced(const struct agent *a, const struct invoke *m)
{
    const struct instance_run *i;
    const struct run *r;
    for (i = a->instances; i != NULL; i = i->next) {
        for (r = i->runs; r != NULL; r = r->next) {
            if (!i->gone && id_compare(r->invocation, m->invocation) == 0 &&
                r->attempt == m->attempt) {
                world_fail(a->world, "attempt %u of %08x runs on %s under terms %llu and %llu",
                           m->attempt, world_short(m->invocation), a->name,
                           (unsigned long long)r->attempt_term, (unsigned long long)a->sender_term);
            }
        }
    }
}

/* Where nothing fails, what really runs at once keeps to the function's limit. */
static void check_limit(struct world *w, const struct function *f)
{
    uint32_t running = 0;
    for (uint32_t n = 0; n < w->agents->count && !w->scenario->wild_instances; n++) {
        const struct instance_run *i;
        const struct run *r;
        for (i = w->agents->each[n].instances; i != NULL; i = i->next) {
            for (r = i->function == f ? i->runs : NULL; r != NULL; r = r->next) {
                running += r->errand != NULL && !r->finished;
            }
        }
    }
    if (f->running_max != 0 && running > f->running_max) {
        world_fail(w, "%u attempts of %s run at once, %u may", running, f->name, f->running_max);
    }
}

/* NULL: nobody sent that; the world has failed. */
static struct run *run_new(struct agent *a, struct instance_run *i, const struct invoke *m)
{
    struct world *w = a->world;
    struct run run = {.owner = i,
                      .invocation = m->invocation,
                      .attempt = m->attempt,
                      .attempt_term = a->sender_term,
                      .deadline_us = world_now(w) + (uint64_t)m->timeout_ms * MS_US};
    if (errands_own(m->payload)) {
        check_fenced(a, m);
        run.errand = errand_executes(w->errands, m, a->sender_term, a->number);
    } else {
        run.call = clients_executes(w->clients, m->payload, &run.hop);
    }
    if (run.errand == NULL && run.call == NULL) {
        return NULL;
    }
    struct run *r = mem_must(mem_zalloc(1, sizeof *r));
    *r = run;
    return r;
}

struct status instance_invoke(struct agent *a, const struct invoke *m, struct errmsg *msg)
{
    struct world *w = a->world;
    struct instance_run *i = find(a, m->instance);
    if (i == NULL || !i->ready || i->stopping || happens(a, INVOKE_REFUSED)) {
        return status_fail(msg, STATUS_UNAVAILABLE, "the instance does not take it");
    }
    if (i->running >= i->concurrency) {
        world_fail(w, "%s instance %08x runs more than its concurrency %u", a->name,
                   world_short(i->id), i->concurrency);
    }
    struct run *r = run_new(a, i, m);
    if (r == NULL) {
        return status_fail(msg, STATUS_INVALID, "unknown payload");
    }
    DL_APPEND(i->runs, r);
    i->running++;
    world_trace(w, "%s instance %08x runs %s %llu", a->name, world_short(i->id),
                r->errand != NULL ? "errand" : "call",
                (unsigned long long)(r->errand != NULL ? r->errand->number : r->call->number));
    if (r->errand != NULL) {
        check_limit(w, i->function);
    }
    world_after(w, world_between(w, i->function->run_us_min, i->function->run_us_max), on_finished,
                r, 0);
    return status_ok();
}

static void on_canceled(struct world *w, void *data, uint64_t arg)
{
    (void)w;
    (void)arg;
    struct run *r = data;
    if (r->owner != NULL && !r->finished) {
        run_finish(r, STATUS_FAILED);
    }
}

void instance_cancel(struct agent *a, struct id128 id, struct id128 invocation, uint32_t attempt)
{
    struct instance_run *i = find(a, id);
    struct run *r;
    if (i == NULL || happens(a, DEAF)) {
        return;
    }
    DL_FOREACH(i->runs, r) {
        if (id_compare(r->invocation, invocation) == 0 && r->attempt == attempt && !r->finished) {
            world_after(a->world, world_between(a->world, 100, 50000), on_canceled, r, 0);
        }
    }
}

/* ---- The machine ---- */

void instances_resume(struct agent *a)
{
    struct instance_run *i;
    struct run *r;
    for (i = a->instances; i != NULL; i = i->next) {
        DL_FOREACH(i->runs, r) {
            if (r->finished) {
                world_after(a->world, world_between(a->world, 1000, 20000), on_read, r, 0);
            }
        }
    }
}

void instances_free(struct agent *a)
{
    struct instance_run *i, *next;
    struct run *r, *next_run;
    DL_FOREACH_SAFE(a->instances, i, next) {
        runs_drop(i);
        mem_free(i);
    }
    DL_FOREACH_SAFE(a->ended_runs, r, next_run) {
        mem_free(r);
    }
}

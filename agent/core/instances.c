/* Instances: starting within the machine's capacity, stopping, ending. The agent is the last
 * judge of its own machine. */
#include "agent/core/core_internal.h"

#include "common/check.h"

#include <stdio.h>
#include <string.h>

struct core_instance *core_instance_find(const struct agent_core *c, struct id128 id)
{
    struct core_instance *i;
    HASH_FIND(hh, c->instances, &id, sizeof id, i);
    return i;
}

void core_instance_report(const struct core_instance *i, struct instance_report *out)
{
    *out = (struct instance_report){
        .instance = i->id,
        .revision = i->revision,
        .function = i->function.text,
        .state = i->state,
        .concurrency = i->concurrency,
        .inflight = i->inflight,
        .cpu_millis = i->cpu_millis,
        .memory_bytes = i->memory_bytes,
        .startup_us = i->startup_us,
        .message = i->message,
        .gpus = i->gpus,
        .gpus_count = i->gpus_count,
    };
}

static void event_send(struct agent_core *c, struct instance_report *report, enum status_code code)
{
    const struct message m = {
        .type = MESSAGE_INSTANCE_EVENT,
        .instance_event = {.report = report, .code = (uint32_t)code},
    };
    core_send_all(c, &m);
}

static void instance_event(struct agent_core *c, const struct core_instance *i,
                           enum status_code code)
{
    struct instance_report report;
    core_instance_report(i, &report);
    event_send(c, &report, code);
}

/* A start that comes to nothing, or a stop of what is not here. */
static void absent_event(struct agent_core *c, const struct start *s, struct id128 instance,
                         enum status_code code, const char *message)
{
    struct instance_report report = {
        .instance = instance,
        .function = s != NULL ? s->spec->name : "",
        .state = INSTANCE_ENDED,
        .message = message,
    };
    if (s != NULL) {
        report.revision = s->revision;
    }
    event_send(c, &report, code);
}

static bool fits(const struct agent_core *c, uint32_t cpu_millis, uint64_t memory_bytes,
                 struct errmsg *msg)
{
    uint64_t cpu_free =
        c->cpu_millis_used < c->config.cpu_millis ? c->config.cpu_millis - c->cpu_millis_used : 0;
    uint64_t memory_free = c->memory_bytes_used < c->config.memory_bytes
                               ? c->config.memory_bytes - c->memory_bytes_used
                               : 0;
    if (cpu_millis > cpu_free) {
        (void)status_fail(msg, STATUS_LIMIT, "cpu: %um asked, %llum of %um free", cpu_millis,
                          (unsigned long long)cpu_free, c->config.cpu_millis);
        return false;
    }
    if (memory_bytes > memory_free) {
        (void)status_fail(msg, STATUS_LIMIT, "memory: %llu bytes asked, %llu of %llu free",
                          (unsigned long long)memory_bytes, (unsigned long long)memory_free,
                          (unsigned long long)c->config.memory_bytes);
        return false;
    }
    return true;
}

static uint32_t concurrency_of(uint32_t wanted)
{
    if (wanted == 0) {
        return 1;
    }
    return wanted < AGENT_CONCURRENCY_MAX ? wanted : AGENT_CONCURRENCY_MAX;
}

/* Enters a new instance into the table and the sums. NOMEM, LIMIT (with a message). */
static struct status instance_new(struct agent_core *c, const struct instance_report *r,
                                  struct core_instance **out, struct errmsg *msg)
{
    if (HASH_COUNT(c->instances) >= AGENT_INSTANCES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%d instances are here", AGENT_INSTANCES_MAX);
    }
    if (!fits(c, r->cpu_millis, r->memory_bytes, msg)) {
        return status_of(STATUS_LIMIT);
    }
    struct core_instance *i = mem_zalloc(1, sizeof *i);
    if (i == NULL) {
        return status_fail(msg, STATUS_NOMEM, "no memory");
    }
    i->id = r->instance;
    i->revision = r->revision;
    (void)snprintf(i->function.text, sizeof i->function.text, "%s", r->function);
    i->state = r->state;
    i->concurrency = concurrency_of(r->concurrency);
    i->cpu_millis = r->cpu_millis;
    i->memory_bytes = r->memory_bytes;
    i->startup_us = r->startup_us;
    i->due_us = NEVER_US;
    HASH_ADD(hh, c->instances, id, sizeof i->id, i);
    if (!HASH_IN(i)) {
        mem_free(i);
        return status_fail(msg, STATUS_NOMEM, "no memory");
    }
    if (!status_is_ok(core_gpus_hold(c, i, r->gpus, r->gpus_count))) {
        HASH_DEL(c->instances, i);
        mem_free(i);
        return status_fail(msg, STATUS_NOMEM, "no memory");
    }
    c->cpu_millis_used += i->cpu_millis;
    c->memory_bytes_used += i->memory_bytes;
    *out = i;
    return status_ok();
}

static void instance_free(struct agent_core *c, struct core_instance *i)
{
    CHECK(i->attempts == NULL);
    CHECK(c->cpu_millis_used >= i->cpu_millis);
    CHECK(c->memory_bytes_used >= i->memory_bytes);
    c->cpu_millis_used -= i->cpu_millis;
    c->memory_bytes_used -= i->memory_bytes;
    core_gpus_let_go(c, i);
    HASH_DEL(c->instances, i);
    mem_free(i);
}

static void instance_startup_due(struct agent_core *c, uint64_t now_us, struct core_instance *i,
                                 uint64_t ms)
{
    if (ms == 0) {
        ms = STARTUP_TIMEOUT_MS_DEFAULT;
    }
    if (ms > STARTUP_TIMEOUT_MS_MAX) {
        ms = STARTUP_TIMEOUT_MS_MAX;
    }
    i->due_us = after_ms(now_us, ms);
    core_due(c, i->due_us);
}

void core_start(struct agent_core *c, uint64_t now_us, const struct start *s)
{
    struct core_instance *i = core_instance_find(c, s->instance);
    if (i != NULL) {
        instance_event(c, i, STATUS_OK);
        return;
    }
    if (s->spec == NULL) {
        c->stats.messages_unexpected++;
        return;
    }
    if (!agent_core_has_lease(c, now_us)) {
        c->stats.starts_refused++;
        absent_event(c, s, s->instance, STATUS_UNAVAILABLE, "the agent's lease has run out");
        return;
    }
    const struct instance_report report = {
        .instance = s->instance,
        .revision = s->revision,
        .function = s->spec->name,
        .state = INSTANCE_STARTING,
        .concurrency = s->spec->concurrency,
        .cpu_millis = s->spec->cpu_millis,
        .memory_bytes = s->spec->memory_bytes,
        .gpus = s->gpus,
        .gpus_count = s->gpus_count,
    };
    struct errmsg msg = {{0}};
    struct status status = core_gpus_check(c, s, &msg);
    if (status_is_ok(status)) {
        status = instance_new(c, &report, &i, &msg);
    }
    if (!status_is_ok(status)) {
        c->stats.starts_refused++;
        c->gpu_changes += s->gpus_count > 0;
        absent_event(c, s, s->instance, status.code, msg.text);
        return;
    }
    status = c->env.start(c->env.data, s, &msg);
    if (!status_is_ok(status)) {
        c->stats.starts_failed++;
        instance_free(c, i);
        absent_event(c, s, s->instance, status.code, msg.text);
        return;
    }
    c->stats.starts++;
    i->timeout_ms = s->spec->timeout_ms;
    instance_startup_due(c, now_us, i, s->spec->startup_timeout_ms);
}

struct status agent_core_adopt(struct agent_core *c, uint64_t now_us,
                               const struct instance_report *r, uint64_t timeout_ms)
{
    if (r->state != INSTANCE_READY && r->state != INSTANCE_STARTING) {
        return status_of(STATUS_INVALID);
    }
    if (core_instance_find(c, r->instance) != NULL) {
        return status_of(STATUS_EXISTS);
    }
    struct core_instance *i;
    TRY(instance_new(c, r, &i, NULL));
    i->timeout_ms = timeout_ms;
    if (i->state == INSTANCE_STARTING) {
        instance_startup_due(c, now_us, i, STARTUP_TIMEOUT_MS_DEFAULT);
    }
    return status_ok();
}

void core_instance_kill(struct agent_core *c, struct core_instance *i, enum status_code code,
                        const char *message)
{
    if (i->killed) {
        return;
    }
    i->killed = true;
    i->due_us = NEVER_US;
    i->end_code = code;
    if (message[0] != '\0') {
        (void)snprintf(i->message, sizeof i->message, "%s", message);
    }
    if (i->state != INSTANCE_STOPPING) {
        i->state = INSTANCE_STOPPING;
        instance_event(c, i, STATUS_OK);
    }
    c->env.stop(c->env.data, i->id, true);
}

void core_instance_idle(struct agent_core *c, uint64_t now_us, struct core_instance *i)
{
    if (i->state != INSTANCE_STOPPING || i->stop_passed || i->killed || i->inflight > 0) {
        return;
    }
    i->stop_passed = true;
    i->due_us = after_ms(now_us, STOP_GRACE_MS);
    core_due(c, i->due_us);
    c->env.stop(c->env.data, i->id, false);
}

void core_stop(struct agent_core *c, uint64_t now_us, const struct stop *s)
{
    struct core_instance *i = core_instance_find(c, s->instance);
    if (i == NULL) {
        absent_event(c, NULL, s->instance, STATUS_NOT_FOUND, "not on this node");
        return;
    }
    if (!i->stop_asked && !i->killed) {
        (void)snprintf(i->message, sizeof i->message, "stopped: %s", s->reason);
    }
    i->stop_asked = true;
    if (s->kill) {
        core_instance_kill(c, i, STATUS_OK, "");
        return;
    }
    if (i->state != INSTANCE_STOPPING) {
        i->state = INSTANCE_STOPPING;
        i->due_us = NEVER_US;
        instance_event(c, i, STATUS_OK);
    }
    core_instance_idle(c, now_us, i);
}

void agent_core_instance_ready(struct agent_core *c, uint64_t now_us, struct id128 instance,
                               uint32_t concurrency, uint64_t startup_us)
{
    (void)now_us;
    struct core_instance *i = core_instance_find(c, instance);
    if (i == NULL || i->state != INSTANCE_STARTING) {
        return;
    }
    concurrency = concurrency_of(concurrency);
    if (concurrency < i->concurrency) {
        i->concurrency = concurrency;
    }
    i->state = INSTANCE_READY;
    i->startup_us = startup_us;
    i->due_us = NEVER_US;
    instance_event(c, i, STATUS_OK);
}

void agent_core_instance_ended(struct agent_core *c, uint64_t now_us, struct id128 instance,
                               enum status_code code, const char *message)
{
    struct core_instance *i = core_instance_find(c, instance);
    if (i == NULL) {
        return;
    }
    if (i->killed && (i->end_code != STATUS_OK || i->stop_asked)) {
        /* The signal that the cell died of is ours. */
        code = i->end_code;
    } else if (!(i->stop_asked && code == STATUS_OK)) {
        (void)snprintf(i->message, sizeof i->message, "%s", message);
        c->stats.crashes++;
        if (code == STATUS_OK) {
            code = STATUS_CRASHED;
        }
    }
    i->state = INSTANCE_ENDED;
    core_attempts_crash(c, now_us, i, i->message);
    CHECK(i->inflight == 0);
    instance_event(c, i, code);
    instance_free(c, i);
}

uint64_t core_instances_tick(struct agent_core *c, uint64_t now_us)
{
    uint64_t next_us = NEVER_US;
    struct core_instance *i;
    struct core_instance *tmp;
    HASH_ITER(hh, c->instances, i, tmp) {
        if (i->due_us > now_us) {
            next_us = i->due_us < next_us ? i->due_us : next_us;
        } else if (i->state == INSTANCE_STARTING) {
            core_instance_kill(c, i, STATUS_TIMEOUT, "not ready within the startup timeout");
        } else {
            core_instance_kill(c, i, STATUS_OK, "");
        }
    }
    return next_us;
}

void core_instances_free(struct agent_core *c)
{
    struct core_instance *i;
    struct core_instance *tmp;
    HASH_ITER(hh, c->instances, i, tmp) {
        instance_free(c, i);
    }
}

void agent_core_instances(const struct agent_core *c,
                          void (*fn)(void *arg, const struct instance_report *r), void *arg)
{
    for (const struct core_instance *i = c->instances; i != NULL; i = i->hh.next) {
        struct instance_report report;
        core_instance_report(i, &report);
        fn(arg, &report);
    }
}

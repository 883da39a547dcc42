/* Functions' schedules: once a second the leader looks which times have come and proposes a spawn
 * for each; the state machine accepts each time of a schedule once.
 *
 * After an outage the latest missed time is made up for, and up to catch_up earlier ones; the
 * others are left out, so that nobody gets a wave. */
#include "common/cron.h"
#include "scheduler/core/core_internal.h"
#include "scheduler/core/spec.h"

#include <string.h>

enum { MISSED_MAX = 20000, PENDING_MAX = 256 };

static void fired(void *data, struct status s, const char *message, uint64_t index)
{
    (void)message;
    (void)index;
    struct core *c = data;
    c->stats.schedules_fired += status_is_ok(s);
    c->schedules_pending--;
}

static void fire(struct core *c, struct core_time now, const struct catalog_function *f,
                 const struct schedule_spec *k, uint64_t at_ms)
{
    const struct command cmd = {
        .type = COMMAND_SPAWN,
        .by = "",
        .command_spawn = {.invocation = core_new_id(c, now),
                          .function = f->name,
                          .tenant = "schedules",
                          .key = "",
                          .payload = k->payload,
                          .payload_bytes = k->payload.size,
                          .priority = SPAWN_PRIORITY_DEFAULT,
                          .deadline_at_ms = durable_wall_ms(c, now) + SPAWN_TTL_MS_DEFAULT,
                          .ttl_ms = SPAWN_TTL_MS_DEFAULT,
                          .schedule = k->name,
                          .schedule_at_ms = at_ms}};
    c->schedules_pending++;
    core_submit(c, now, &cmd, fired, c);
}

/* The times after `since` that have come, the latest last; at most max + 1 of them are kept. */
static size_t times_due(const struct cron *cron, uint64_t since_ms, uint64_t wall_ms, size_t keep,
                        uint64_t out[SPEC_CATCH_UP_MAX + 1])
{
    size_t count = 0;
    uint64_t at = since_ms;
    for (int i = 0; i < MISSED_MAX; i++) {
        at = cron_next(cron, at);
        if (at == 0 || at > wall_ms) {
            break;
        }
        if (count == keep) {
            memmove(out, out + 1, (keep - 1) * sizeof *out);
            count--;
        }
        out[count++] = at;
    }
    return count;
}

static void look(struct core *c, struct core_time now, const struct catalog_function *f,
                 const struct catalog_revision *r, const struct schedule_spec *k)
{
    struct cron cron;
    struct errmsg ignored = {.text = ""};
    if (!status_is_ok(cron_parse(k->cron, &cron, &ignored))) {
        return; /* Refused when it was deployed; an older build may have known more. */
    }
    uint64_t since = jobs_last_fired(&c->catalog.jobs, f->name, k->name);
    since = since == 0 ? r->time_ms : since;
    size_t keep = 1 + (k->catch_up < SPEC_CATCH_UP_MAX ? k->catch_up : SPEC_CATCH_UP_MAX);
    uint64_t due[SPEC_CATCH_UP_MAX + 1];
    size_t count = times_due(&cron, since, durable_wall_ms(c, now), keep, due);
    for (size_t i = 0; i < count && c->schedules_pending < PENDING_MAX; i++) {
        fire(c, now, f, k, due[i]);
    }
}

void durable_schedules(struct core *c, struct core_time now)
{
    if (c->schedules_pending > 0) {
        return; /* What is on its way is not in the table yet. */
    }
    for (const struct catalog_function *f = c->catalog.functions; f != NULL; f = f->hh.next) {
        const struct catalog_revision *r = catalog_current(f);
        for (size_t i = 0; i < r->spec.schedules_count; i++) {
            look(c, now, f, r, &r->spec.schedules[i]);
        }
    }
}

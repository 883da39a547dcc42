#include "simulations/racers.h"

#include "simulations/schedulers.h"

#include <inttypes.h>

enum { RACERS = 3, PAUSE_MS = 400, KEY = 1 };

struct racers {
    struct world *world;
    struct function function; /* as the first one, by another name; nobody calls it */
    uint64_t index[RACERS];   /* of the last change that each has heard of */
    uint32_t version;
};

struct attempt {
    struct racers *racers;
    uint32_t racer;
    size_t operation;
};

struct racers *racers_new(struct world *w)
{
    struct racers *r = mem_must(mem_zalloc(1, sizeof *r));
    r->world = w;
    r->function = functions[0];
    r->function.name = "raced";
    return r;
}

void racers_free(struct racers *r)
{
    mem_free(r);
}

static void on_done(void *data, struct status s, const char *message, uint64_t index)
{
    struct attempt a = *(struct attempt *)data;
    mem_free(data);
    struct racers *r = a.racers;
    struct world *w = r->world;
    struct linear *h = errands_history(w->errands);
    world_trace(w, "racer %u %s %" PRIu64 ": %s", a.racer, status_name(s.code), index, message);
    switch (s.code) {
    case STATUS_OK:
        linear_end(h, a.operation, 1, index, 0);
        r->index[a.racer] = index;
        if (world_chance(w, 600)) { /* somebody else hears of it */
            r->index[world_below(w, RACERS)] = index;
        }
        return;
    case STATUS_CONFLICT:
        linear_end(h, a.operation, 0, 0, 0);
        r->index[a.racer] = 0; /* whatever is there, next time */
        return;
    case STATUS_NOT_LEADER:
    case STATUS_LIMIT:
    case STATUS_UNAVAILABLE:
        linear_drop(h, a.operation);
        return;
    case STATUS_UNKNOWN:
        return;
    default:
        world_fail(w, "a racer's deploy ended %s: %s", status_name(s.code), message);
    }
}

/* At somebody who believes to lead. */
static void race(struct world *w, void *data, uint64_t racer)
{
    struct racers *r = data;
    if (w->calm) {
        return;
    }
    world_after(w, (1 + world_around(w, PAUSE_MS)) * MS_US, race, r, racer);
    struct scheduler *s = &w->schedulers->each[world_below(w, w->schedulers->count)];
    if (s->core == NULL || scheduler_paused(s) || !core_is_leader(s->core)) {
        s = schedulers_leader(w->schedulers);
    }
    if (s == NULL) {
        return;
    }
    struct arena a = {0};
    struct function_spec spec;
    uint32_t version = ++r->version;
    function_spec(&r->function, version, &a, &spec);
    const struct command cmd = {
        .type = COMMAND_DEPLOY,
        .by = "user/racer",
        .command_deploy = {.spec = &spec,
                           .revision = function_revision(&r->function, version),
                           .check_index = r->index[racer]}};
    struct attempt *attempt = mem_must(mem_zalloc(1, sizeof *attempt));
    *attempt = (struct attempt){r, (uint32_t)racer,
                                linear_begin(errands_history(w->errands), &linear_versioned, KEY,
                                             VERSIONED_CHANGE, r->index[racer], 0)};
    core_submit(s->core, scheduler_time(s), &cmd, on_done, attempt);
    arena_close(&a);
}

void racers_start(struct racers *r)
{
    for (uint32_t i = 0; i < RACERS; i++) {
        world_after(r->world, world_between(r->world, 1, SECOND_US), race, r, i);
    }
}

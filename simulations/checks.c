#include "simulations/checks.h"

#include "common/hash.h"
#include "simulations/agents.h"
#include "simulations/errands.h"
#include "simulations/operators.h"
#include "simulations/spawners.h"

#include <inttypes.h>
#include <string.h>

enum { CORE_CHECK_US = 20000, TERMS_MAX = 4096 };

/* Who was obeyed in a term by an agent. */
struct obeyed {
    struct {
        uint64_t term;
        uint64_t agent;
    } key;
    uint32_t scheduler;
    UT_hash_handle hh;
};

struct applied {
    uint64_t index;
    uint64_t digest;
    char who[16]; /* got there first */
    UT_hash_handle hh;
};

struct checks {
    struct world *world;
    struct applied *applied;
    struct obeyed *obeyed;
    uint64_t newest[AGENTS_MAX]; /* the highest term that an agent has obeyed */
    uint32_t leaders[TERMS_MAX]; /* scheduler + 1, by term */
    uint64_t leaders_count;
    uint64_t acknowledged; /* highest index */
    uint64_t commands;
    uint32_t moving; /* the state before the command that is being applied */
};

/* ---- At every moment ---- */

/* One scheduler at a time: a walk through everything takes as long as much of the rest. */
static void on_check(struct world *w, void *data, uint64_t turn)
{
    const struct scheduler *s = &w->schedulers->each[turn % w->schedulers->count];
    if (s->core != NULL) {
        core_check(s->core);
    }
    world_after(w, CORE_CHECK_US, on_check, data, turn + 1);
}

struct checks *checks_new(struct world *w)
{
    struct checks *c = mem_must(mem_zalloc(1, sizeof *c));
    c->world = w;
    world_after(w, CORE_CHECK_US, on_check, c, 0);
    return c;
}

void checks_free(struct checks *c)
{
    struct applied *a, *next_applied;
    HASH_ITER(hh, c->applied, a, next_applied) {
        HASH_DEL(c->applied, a);
        mem_free(a);
    }
    struct obeyed *o, *next;
    HASH_ITER(hh, c->obeyed, o, next) {
        HASH_DEL(c->obeyed, o);
        mem_free(o);
    }
    mem_free(c);
}

void checks_applied(struct checks *c, const char *who, uint64_t index, uint64_t digest)
{
    struct applied *a;
    HASH_FIND(hh, c->applied, &index, sizeof index, a);
    if (a == NULL) {
        a = mem_must(mem_zalloc(1, sizeof *a));
        a->index = index;
        a->digest = digest;
        (void)snprintf(a->who, sizeof a->who, "%s", who);
        HASH_ADD(hh, c->applied, index, sizeof a->index, a);
    } else if (a->digest != digest) {
        world_fail(c->world, "%s and %s differ after command %" PRIu64, a->who, who, index);
    }
}

/* ---- Durable invocations ---- */

/* Attempts that a new leader has taken over may be more; it sends none then. */
void checks_sends(struct checks *c, const struct scheduler *s, struct id128 invocation)
{
    const struct job *j = jobs_find(&core_catalog(s->core)->jobs, invocation);
    const struct function *of = j == NULL ? NULL : function_find(j->function->name);
    if (of == NULL) {
        world_fail(c->world, "%s sends an attempt of an invocation that is not there", s->name);
    } else if (of->running_max != 0 && j->function->running > of->running_max) {
        world_fail(c->world, "%s runs %u attempts of %s at once, %u may", s->name,
                   j->function->running, of->name, of->running_max);
    } else if (j->tenant->running_max != 0 && j->tenant->running > j->tenant->running_max) {
        world_fail(c->world, "%s runs %u attempts of tenant %s at once, %u may", s->name,
                   j->tenant->running, j->tenant->name, j->tenant->running_max);
    }
}

static const struct id128 *invocation_of(const struct command *cmd)
{
    switch (cmd->type) {
    case COMMAND_SPAWN:
        return &cmd->command_spawn.invocation;
    case COMMAND_FINISH:
        return &cmd->command_finish.invocation;
    case COMMAND_INVOCATION_CANCEL:
        return &cmd->command_invocation_cancel.invocation;
    case COMMAND_REDRIVE:
        return &cmd->command_redrive.invocation;
    default:
        return NULL;
    }
}

static uint32_t state_of(const struct scheduler *s, const struct command *cmd)
{
    const struct id128 *id = invocation_of(cmd);
    const struct job *j = id == NULL ? NULL : jobs_find(&core_catalog(s->core)->jobs, *id);
    return j == NULL ? 0 : j->state;
}

void checks_applies(struct checks *c, const struct scheduler *s, uint64_t index,
                    const struct command *cmd)
{
    struct applied *a;
    HASH_FIND(hh, c->applied, &index, sizeof index, a);
    c->moving = state_of(s, cmd);
    if (a == NULL && cmd->type == COMMAND_FINISH && c->moving == INVOCATION_QUEUED) {
        errand_finishes(c->world->errands, &cmd->command_finish);
    }
}

void checks_moved(struct checks *c, const struct scheduler *s, uint64_t index,
                  const struct command *cmd)
{
    static const struct {
        enum command_type type;
        uint32_t from, to;
    } legal[] = {
        {COMMAND_SPAWN, 0, INVOCATION_QUEUED},
        {COMMAND_FINISH, INVOCATION_QUEUED, INVOCATION_DONE},
        {COMMAND_FINISH, INVOCATION_QUEUED, INVOCATION_DEAD},
        {COMMAND_INVOCATION_CANCEL, INVOCATION_QUEUED, INVOCATION_CANCELED},
        {COMMAND_REDRIVE, INVOCATION_DEAD, INVOCATION_QUEUED},
    };
    uint32_t now = state_of(s, cmd);
    bool allowed = now == c->moving;
    for (size_t i = 0; i < sizeof legal / sizeof legal[0]; i++) {
        allowed = allowed ||
                  (legal[i].type == cmd->type && legal[i].from == c->moving && legal[i].to == now);
    }
    if (!allowed) {
        world_fail(c->world, "%s moves an invocation from state %u to %u by %s %" PRIu64, s->name,
                   c->moving, now, command_type_name(cmd->type), index);
    }
}

void checks_leads(struct checks *c, uint32_t scheduler, uint64_t term)
{
    CHECK(term < TERMS_MAX);
    if (c->leaders[term] == 0) {
        c->leaders[term] = scheduler + 1;
        c->leaders_count++;
    } else if (c->leaders[term] != scheduler + 1) {
        world_fail(c->world, "term %" PRIu64 " has two leaders, s%u and s%u", term,
                   c->leaders[term], scheduler + 1);
    }
}

void checks_acknowledged(struct checks *c, uint64_t index)
{
    c->commands++;
    c->acknowledged = index > c->acknowledged ? index : c->acknowledged;
}

void checks_obeyed(struct checks *c, const char *agent, uint32_t number, uint32_t scheduler,
                   uint64_t term)
{
    if (term < c->newest[number]) {
        world_fail(c->world, "%s obeys s%u of term %" PRIu64 " after term %" PRIu64, agent,
                   scheduler + 1, term, c->newest[number]);
    }
    c->newest[number] = term;
    struct obeyed *o;
    struct obeyed key = {.key = {.term = term, .agent = number}};
    HASH_FIND(hh, c->obeyed, &key.key, sizeof key.key, o);
    if (o == NULL) {
        o = mem_must(mem_zalloc(1, sizeof *o));
        *o = (struct obeyed){.key = key.key, .scheduler = scheduler};
        HASH_ADD(hh, c->obeyed, key, sizeof o->key, o);
    } else if (o->scheduler != scheduler) {
        world_fail(c->world, "%s obeys both s%u and s%u in term %" PRIu64, agent, o->scheduler + 1,
                   scheduler + 1, term);
    }
}

uint64_t checks_commands(const struct checks *c)
{
    return c->commands;
}

uint64_t checks_leaders(const struct checks *c)
{
    return c->leaders_count;
}

/* ---- Convergence ---- */

/* Is every member up, and as far as the leader? */
bool checks_level(struct checks *c, char *why, size_t why_size)
{
    struct world *w = c->world;
    const struct scheduler *leader = schedulers_leader(w->schedulers);
    if (leader == NULL) {
        (void)snprintf(why, why_size, "no scheduler leads");
        return false;
    }
    for (uint32_t i = 0; i < w->schedulers->count; i++) {
        const struct scheduler *s = &w->schedulers->each[i];
        if (!s->member) {
            continue;
        }
        if (s->core == NULL) {
            (void)snprintf(why, why_size, "%s is down", s->name);
            return false;
        }
        if (core_catalog(s->core)->index != core_catalog(leader->core)->index) {
            (void)snprintf(why, why_size, "%s is behind %s", s->name, leader->name);
            return false;
        }
    }
    return true;
}

bool checks_converged(struct checks *c, char *why, size_t why_size)
{
    struct world *w = c->world;
    struct scheduler *leader = schedulers_leader(w->schedulers);
    if (leader == NULL) {
        (void)snprintf(why, why_size, "no scheduler leads");
        return false;
    }
    if (!checks_level(c, why, why_size)) {
        return false;
    }
    for (uint32_t i = 0; i < w->agents->count; i++) {
        const struct agent *a = &w->agents->each[i];
        if (agent_core_leader(a->core) == 0) {
            (void)snprintf(why, why_size, "%s obeys nobody", a->name);
            return false;
        }
    }
    struct core_stats stats = core_stats(leader->core);
    if (stats.nodes_ready != w->agents->count) {
        (void)snprintf(why, why_size, "%" PRIu64 " of %u nodes are ready", stats.nodes_ready,
                       w->agents->count);
        return false;
    }
    if (w->clients->outstanding + spawners_outstanding(w->spawners) > 0 ||
        operators_busy(w->operators)) {
        (void)snprintf(why, why_size,
                       "%" PRIu64 " calls and %" PRIu64 " requests are not answered%s",
                       w->clients->outstanding, spawners_outstanding(w->spawners),
                       operators_busy(w->operators) ? ", an operator waits" : "");
        return false;
    }
    return true;
}

uint64_t checks_queued(const struct checks *c)
{
    const struct scheduler *leader = schedulers_leader(c->world->schedulers);
    uint64_t queued = 0;
    const struct job_function *f;
    for (f = leader == NULL ? NULL : core_catalog(leader->core)->jobs.functions; f != NULL;
         f = f->hh.next) {
        queued += f->queued;
    }
    return leader == NULL ? 1 : queued;
}

/* ---- The end ---- */

static void final_schedulers(struct checks *c)
{
    struct world *w = c->world;
    const struct scheduler *leader = schedulers_leader(w->schedulers);
    if (leader == NULL) {
        world_fail(w, "nobody leads at the end");
        return;
    }
    uint64_t digest = catalog_digest(core_catalog(leader->core));
    for (uint32_t i = 0; i < w->schedulers->count; i++) {
        const struct scheduler *s = &w->schedulers->each[i];
        if (!s->member || s->core == NULL) {
            continue;
        }
        const struct core_stats stats = core_stats(s->core);
        if (catalog_digest(core_catalog(s->core)) != digest) {
            world_fail(w, "%s ends with another state than %s", s->name, leader->name);
        }
        if (core_catalog(s->core)->index < c->acknowledged) {
            world_fail(w, "%s lacks command %" PRIu64 ", which was acknowledged", s->name,
                       c->acknowledged);
        }
        if (stats.queued + stats.running > 0) {
            world_fail(w, "%s still holds %" PRIu64 " calls", s->name,
                       stats.queued + stats.running);
        }
        if (!core_is_leader(s->core) && stats.instances > 0) {
            world_fail(w, "%s does not lead, yet holds instances", s->name);
        }
    }
}

static void final_agents(struct checks *c)
{
    struct world *w = c->world;
    for (uint32_t i = 0; i < w->agents->count; i++) {
        const struct agent *a = &w->agents->each[i];
        const struct agent_core_stats stats = agent_core_stats(a->core);
        if (stats.attempts > 0 || stats.results_held > 0) {
            world_fail(w, "%s still holds %" PRIu64 " attempts and %" PRIu64 " results", a->name,
                       stats.attempts, stats.results_held);
        }
        if (stats.cpu_millis_used != a->cpu_used || stats.memory_bytes_used != a->memory_used) {
            world_fail(w, "%s counts %" PRIu64 " millis, %u are used", a->name,
                       stats.cpu_millis_used, a->cpu_used);
        }
    }
}

void checks_final(struct checks *c)
{
    struct world *w = c->world;
    final_schedulers(c);
    final_agents(c);
    if (checks_queued(c) + spawners_outstanding(w->spawners) > 0) {
        world_fail(w, "%" PRIu64 " durable invocations have not ended", checks_queued(c));
    }
    struct linear_report histories = linear_check(errands_history(w->errands), NULL);
    world_trace(w, "%" PRIu64 " histories of %" PRIu64 " operations, %" PRIu64 " steps",
                histories.keys, histories.operations, histories.steps);
    if (histories.verdict != LINEAR_HOLDS) {
        world_fail(w, "history: %s", histories.text);
    }
    if (w->clients->outstanding > 0 || w->clients->final_ok != w->clients->final_count) {
        world_fail(w, "%" PRIu64 " of %" PRIu64 " final calls were answered OK",
                   w->clients->final_ok, w->clients->final_count);
    }
    if (!w->scenario->wild_instances &&
        spawners_done(w->spawners) != spawners_spawned(w->spawners)) {
        world_fail(w, "%" PRIu64 " of %" PRIu64 " spawns are done though nothing failed",
                   spawners_done(w->spawners), spawners_spawned(w->spawners));
    }
    if (!w->scenario->wild_instances && w->clients->ok != w->clients->calls_count) {
        world_fail(w, "%" PRIu64 " of %" PRIu64 " calls were answered OK though nothing failed",
                   w->clients->ok, w->clients->calls_count);
    }
}

/* ---- The leader's view against what is there ---- */

static const char *field(const struct record *r, const char *key)
{
    for (size_t i = 0; i < r->fields_count; i++) {
        if (strcmp(r->fields[i].key, key) == 0) {
            return r->fields[i].value;
        }
    }
    return "";
}

static const struct instance_run *find_real(struct world *w, const struct record *row)
{
    for (uint32_t n = 0; n < w->agents->count; n++) {
        const struct agent *a = &w->agents->each[n];
        if (strcmp(a->name, field(row, "node")) != 0) {
            continue;
        }
        const struct instance_run *i;
        for (i = a->instances; i != NULL; i = i->next) {
            char text[ID_STRING_BYTES];
            id_format(i->id, INSTANCE_PREFIX, text);
            if (!i->gone && strcmp(text, field(row, "instance")) == 0) {
                return i;
            }
        }
    }
    return NULL;
}

void checks_instances(struct checks *c, const struct records *records)
{
    struct world *w = c->world;
    size_t real = 0;
    for (uint32_t n = 0; n < w->agents->count; n++) {
        const struct instance_run *i;
        for (i = w->agents->each[n].instances; i != NULL; i = i->next) {
            real += !i->gone;
        }
    }
    for (size_t k = 0; k < records->rows_count; k++) {
        const struct record *row = &records->rows[k];
        const struct instance_run *i = find_real(w, row);
        if (i == NULL || strcmp(field(row, "state"), "ready") != 0) {
            world_fail(w, "the leader believes in a %s instance %s of %s on %s, which %s",
                       field(row, "state"), field(row, "instance"), field(row, "function"),
                       field(row, "node"), i == NULL ? "is not there" : "is there");
        } else if (strcmp(field(row, "running"), "0") != 0) {
            world_fail(w, "a slot leaked: instance %s of %s on %s runs nothing, the leader says %s",
                       field(row, "instance"), field(row, "function"), field(row, "node"),
                       field(row, "running"));
        } else if (operators_drained(w->operators, field(row, "node"))) {
            world_fail(w, "node %s is drained, yet %s runs there", field(row, "node"),
                       field(row, "function"));
        }
    }
    if (real != records->rows_count) {
        world_fail(w, "%zu instances are there, the leader knows %zu", real, records->rows_count);
    }
}

/* The scenarios: who there is, what goes wrong, and how the end is reached.
 *
 *     start -> deploy -> load and faults -> heal -> converged -> final calls -> quiet -> the
 *     leader's view is compared -> end */
#include "simulations/simulation.h"

#include "simulations/agents.h"
#include "simulations/checks.h"
#include "simulations/faults.h"
#include "simulations/operators.h"
#include "simulations/racers.h"
#include "simulations/raft_chaos.h"
#include "simulations/spawners.h"
#include "simulations/world.h"

#include <inttypes.h>
#include <string.h>

enum {
    CONVERGE_MS = 90000, /* a function that did not start backs off for up to 30 s */
    POLL_MS = 200,
    FINAL_EACH = 3,
    QUIET_MS = 25000, /* longer than any idle time, and than an adopted start may hang */
};

static const struct scenario scenarios[] = {
    {.name = "spine",
     .text =
         "3 schedulers, 20 agents; loss, resets, a partition, a leader's crash, agents' crashes, "
         "lost nodes, operators at work",
     .schedulers = 3,
     .agents = 20,
     .clients = 6,
     .seconds = 30,
     .think_ms = 15,
     .raft_lost = 20,
     .reset_ms = 700,
     .partitions = 1,
     .agent_crashes = 3,
     .node_losses = 1,
     .slow_disks = 1,
     .spawners = 1,
     .spawn_ms = 200,
     .leader_crash = true,
     .operators = true,
     .wild_instances = true},
    {.name = "quiet",
     .text = "nothing fails: every call is answered OK and every spawn is done",
     .schedulers = 3,
     .agents = 10,
     .clients = 3,
     .seconds = 10,
     .think_ms = 100,
     .spawners = 3,
     .spawn_ms = 30},
    {.name = "storm",
     .text = "5 schedulers; everything that can fail does so again and again",
     .schedulers = 5,
     .agents = 24,
     .clients = 6,
     .seconds = 40,
     .think_ms = 20,
     .raft_lost = 60,
     .raft_doubled = 20,
     .raft_late = 10,
     .reset_ms = 250,
     .partitions = 7,
     .scheduler_crashes = 8,
     .scheduler_pauses = 2,
     .disk_failures = 2,
     .transfers = 2,
     .agent_crashes = 12,
     .node_losses = 5,
     .agent_pauses = 4,
     .slow_agents = 2,
     .lying_agents = 1,
     .slow_disks = 3,
     .spawners = 2,
     .spawn_ms = 150,
     .leader_crash = true,
     .operators = true,
     .wild_instances = true},
    {.name = "durable",
     .text = "3 schedulers, 8 agents; spawns, cancels, redrives; crashes, partitions, pauses, "
             "failing disks, lying agents",
     .schedulers = 3,
     .agents = 8,
     .clients = 1,
     .seconds = 20,
     .think_ms = 200,
     .raft_lost = 30,
     .raft_doubled = 10,
     .raft_late = 5,
     .reset_ms = 600,
     .partitions = 3,
     .scheduler_crashes = 3,
     .scheduler_pauses = 1,
     .disk_failures = 1,
     .transfers = 1,
     .agent_crashes = 4,
     .node_losses = 2,
     .agent_pauses = 2,
     .slow_agents = 1,
     .lying_agents = 1,
     .slow_disks = 1,
     .spawners = 4,
     .spawn_ms = 100,
     .leader_crash = true,
     .operators = true,
     .wild_instances = true},
    {.name = "clocks",
     .text = "as durable, and the schedulers' wall clocks jump by up to two minutes",
     .schedulers = 3,
     .agents = 8,
     .clients = 1,
     .seconds = 20,
     .think_ms = 200,
     .raft_lost = 20,
     .reset_ms = 1000,
     .partitions = 1,
     .scheduler_crashes = 2,
     .clock_jumps = 6,
     .transfers = 2,
     .agent_crashes = 2,
     .agent_pauses = 1,
     .spawners = 3,
     .spawn_ms = 100,
     .leader_crash = true,
     .operators = true,
     .wild_instances = true},
    {.name = "members",
     .text = "3 schedulers and 2 spares: members join, leave and come back under load",
     .schedulers = 3,
     .spares = 2,
     .agents = 6,
     .clients = 1,
     .seconds = 24,
     .think_ms = 200,
     .raft_lost = 10,
     .reset_ms = 2000,
     .partitions = 1,
     .scheduler_crashes = 1,
     .agent_crashes = 1,
     .slow_disks = 1,
     .spawners = 2,
     .spawn_ms = 80,
     .wild_instances = true},
};

#define RAFT_FAULTS "cpdsztmfnvq"

enum { SCENARIOS = sizeof scenarios / sizeof scenarios[0] };

/* ---- The operators' plan ---- */

/* What operators do meanwhile: nodes out and in again, new revisions, back to old ones; one node
 * stays drained. */
static void operators_plan(struct world *w)
{
    uint64_t now = world_now(w), part = w->scenario->seconds * SECOND_US / 10;
    struct operators *o = w->operators;
    const char *first = w->agents->each[world_below(w, w->agents->count / 2)].name;
    const char *second =
        w->agents->each[w->agents->count / 2 + world_below(w, w->agents->count / 2)].name;
    operators_setting(o, now + part, "tenant.u1.running", "2");
    operators_setting(o, now + part, "tenant.default.queued", "40");
    operators_node(o, now + 2 * part, "node.cordon", first);
    operators_deploy(o, now + 3 * part, &functions[world_below(w, FUNCTIONS_COUNT)], 2);
    operators_node(o, now + 4 * part, "node.drain", second);
    operators_deploy(o, now + 5 * part, &functions[0], 2);
    operators_node(o, now + 6 * part, "node.uncordon", first);
    operators_rollback(o, now + 7 * part, &functions[0], 1);
    operators_setting(o, now + 7 * part, "tenant.default.rate", "50");
    operators_deploy(o, now + 8 * part, &functions[world_below(w, FUNCTIONS_COUNT)], 3);
}

/* Members come and go, one at a time: the spares join, one founder leaves and comes back. */
static void members_plan(struct world *w)
{
    uint64_t now = world_now(w), part = w->scenario->seconds * SECOND_US / 10;
    struct operators *o = w->operators;
    uint32_t leaves = (uint32_t)world_below(w, w->scenario->schedulers);
    for (uint32_t i = 0; i < w->scenario->spares; i++) {
        operators_join(o, now + (1 + i) * part, w->scenario->schedulers + i);
    }
    operators_leave(o, now + 4 * part, leaves);
    operators_join(o, now + 6 * part, leaves);
}

/* ---- The end, step by step ---- */

static void finish_wait(struct world *w, void *data, uint64_t since_us)
{
    (void)data;
    char why[SIMULATION_FAILURE_BYTES_MAX / 2];
    bool busy = spawners_outstanding(w->spawners) > 0 || !checks_level(w->checks, why, sizeof why);
    if (busy && world_now(w) < since_us + CONVERGE_MS * MS_US) {
        world_after(w, POLL_MS * MS_US, finish_wait, NULL, since_us);
        return;
    }
    checks_final(w->checks);
    w->done = true;
}

static void finish(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    spawners_verify(w->spawners);
    finish_wait(w, NULL, world_now(w));
}

static void inspect(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    operators_inspect(w->operators, world_now(w), finish);
}

static void wait_final(struct world *w, void *data, uint64_t since_us)
{
    (void)data;
    bool busy = w->clients->outstanding + spawners_outstanding(w->spawners) > 0 ||
                checks_queued(w->checks) > 0;
    if (busy && world_now(w) < since_us + CONVERGE_MS * MS_US) {
        world_after(w, POLL_MS * MS_US, wait_final, NULL, since_us);
        return;
    }
    world_trace(w, "final work is done");
    world_after(w, QUIET_MS * MS_US, inspect, NULL, 0);
}

static void wait_converged(struct world *w, void *data, uint64_t since_us)
{
    (void)data;
    char why[SIMULATION_FAILURE_BYTES_MAX / 2];
    if (checks_converged(w->checks, why, sizeof why)) {
        world_trace(w, "converged");
        clients_final(w->clients, FINAL_EACH);
        spawners_final(w->spawners, FINAL_EACH);
        wait_final(w, NULL, world_now(w));
        return;
    }
    if (world_now(w) > since_us + CONVERGE_MS * MS_US) {
        world_fail(w, "did not converge: %s", why);
        return;
    }
    world_after(w, POLL_MS * MS_US, wait_converged, NULL, since_us);
}

static void heal(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    world_trace(w, "heal");
    w->calm = true;
    w->clients->stopped = true;
    spawners_stop(w->spawners);
    faults_heal(w);
    wait_converged(w, NULL, world_now(w));
}

/* All functions are deployed: load and faults begin. */
static void begin(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    world_trace(w, "begin");
    clients_start(w->clients);
    spawners_start(w->spawners);
    faults_plan(w);
    if (w->scenario->operators) {
        operators_plan(w);
        racers_start(w->racers);
    }
    if (w->scenario->spares > 0) {
        members_plan(w);
    }
    world_after(w, w->scenario->seconds * SECOND_US, heal, NULL, 0);
}

/* ---- The world ---- */

static void world_open(struct world *w, const struct simulation_options *options)
{
    const struct scenario *s = w->scenario;
    w->random = options->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    w->hash = UINT64_C(0xcbf29ce484222325);
    w->trace = options->trace;
    w->bug = options->bug;
    w->raft = sim_raft_new(world_random(w));
    w->network = network_new(w);
    w->checks = checks_new(w);
    w->errands = errands_new(w);
    w->schedulers = schedulers_new(w, s->schedulers, s->spares);
    w->agents = agents_new(w, s->agents);
    w->clients = clients_new(w, s->clients);
    w->spawners = spawners_new(w, s->spawners);
    w->racers = racers_new(w);
    w->operators = operators_new(w);
    faults_disks(w);
    schedulers_start(w->schedulers);
    agents_start(w->agents);
    operators_start(w->operators);
    for (size_t f = 0; f < FUNCTIONS_COUNT; f++) {
        operators_deploy(w->operators, world_now(w), &functions[f], 1);
    }
    operators_call(w->operators, world_now(w), begin);
}

static void world_close(struct world *w)
{
    schedulers_free(w->schedulers);
    agents_free(w->agents);
    clients_free(w->clients);
    spawners_free(w->spawners);
    racers_free(w->racers);
    errands_free(w->errands);
    operators_free(w->operators);
    checks_free(w->checks);
    network_free(w->network);
    sim_raft_free(w->raft);
    mem_free(w->heap);
}

/* Bare replicas, without cores: see raft_chaos.h. */
static struct status run_raft(const struct simulation_options *options,
                              struct simulation_result *out)
{
    const struct raft_chaos_options chaos = {
        .seed = options->seed, .faults = raft_chaos_faults(RAFT_FAULTS), .trace = options->trace};
    struct raft_chaos_result r = {.why = ""};
    *out = (struct simulation_result){.failure = ""};
    if (raft_chaos_run(&chaos, &r) != 0) {
        (void)snprintf(out->failure, sizeof out->failure, "%s: %s",
                       raft_chaos_verdict_name(r.verdict), r.why);
    }
    out->virtual_ms = r.virtual_ms;
    out->commands = r.acknowledged;
    out->leaders = r.terms;
    return status_of(out->failure[0] == '\0' ? STATUS_OK : STATUS_FAILED);
}

static const struct scenario *find_scenario(const char *name, uint64_t seed)
{
    for (size_t i = 0; i < SCENARIOS; i++) {
        if (strcmp(scenarios[i].name, name) == 0) {
            return &scenarios[i];
        }
    }
    return strcmp(name, "mix") == 0 ? &scenarios[seed % SCENARIOS] : NULL;
}

bool simulation_known(const char *scenario)
{
    return strcmp(scenario, "raft") == 0 || find_scenario(scenario, 0) != NULL;
}

struct status simulation_run(const struct simulation_options *options,
                             struct simulation_result *out)
{
    const char *name = options->scenario == NULL ? "spine" : options->scenario;
    if (strcmp(name, "raft") == 0) {
        return run_raft(options, out);
    }
    struct world w = {.scenario = find_scenario(name, options->seed)};
    if (w.scenario == NULL) {
        return status_of(STATUS_NOT_FOUND);
    }
    world_open(&w, options);
    uint64_t start_us = world_now(&w);
    world_run(&w);
    *out = (struct simulation_result){.hash = w.hash,
                                      .events = w.events,
                                      .virtual_ms = (world_now(&w) - start_us) / MS_US,
                                      .calls = w.clients->calls_count,
                                      .calls_ok = w.clients->ok,
                                      .spawned = spawners_spawned(w.spawners),
                                      .done = spawners_done(w.spawners),
                                      .commands = checks_commands(w.checks),
                                      .leaders = checks_leaders(w.checks)};
    memcpy(out->failure, w.failure, sizeof out->failure);
    world_close(&w);
    return status_of(out->failure[0] == '\0' ? STATUS_OK : STATUS_FAILED);
}

/* ---- Names ---- */

#define BUG_ROW(upper, name, text) {name, text},
static const struct {
    const char *name, *text;
} bugs[SIMULATION_BUG_COUNT_] = {SIMULATION_BUGS(BUG_ROW)};
#undef BUG_ROW

struct status simulation_bug_parse(const char *name, enum simulation_bug *out, struct errmsg *msg)
{
    for (int i = 0; i < SIMULATION_BUG_COUNT_; i++) {
        if (strcmp(bugs[i].name, name) == 0) {
            *out = (enum simulation_bug)i;
            return status_ok();
        }
    }
    return status_fail(msg, STATUS_NOT_FOUND, "no bug is named %.40s", name);
}

void simulation_list(FILE *to)
{
    (void)fprintf(to, "scenarios:\n");
    for (size_t i = 0; i < SCENARIOS; i++) {
        (void)fprintf(to, "  %-15s %s\n", scenarios[i].name, scenarios[i].text);
    }
    (void)fprintf(to, "  %-15s %s\n", "mix", "each seed runs another one of these");
    (void)fprintf(to, "  %-15s %s\n", "raft", "bare replicas under chaos; takes no bugs");
    (void)fprintf(to, "bugs:\n");
    for (int i = 0; i < SIMULATION_BUG_COUNT_; i++) {
        (void)fprintf(to, "  %-15s %s\n", bugs[i].name, bugs[i].text);
    }
}

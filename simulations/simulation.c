/* The scenarios: who there is, what goes wrong, and how the end is reached.
 *
 *     start -> deploy -> load and faults -> heal -> converged -> final calls -> quiet -> the
 *     leader's view is compared -> end */
#include "simulations/simulation.h"

#include "simulations/agents.h"
#include "simulations/checks.h"
#include "simulations/operators.h"
#include "simulations/world.h"

#include <inttypes.h>
#include <string.h>

enum {
    CONVERGE_MS = 90000, /* a function that did not start backs off for up to 30 s */
    POLL_MS = 200,
    FINAL_EACH = 3,
    QUIET_MS = 25000, /* longer than any idle time, and than an adopted start may hang */
    NORMAL_DISK_MIN_US = 100,
    NORMAL_DISK_MAX_US = 1500,
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
     .raft_loss_permille = 20,
     .reset_ms = 700,
     .partitions = 1,
     .agent_crashes = 3,
     .node_losses = 1,
     .slow_disks = 1,
     .leader_crash = true,
     .operators = true,
     .wild_instances = true},
    {.name = "quiet",
     .text = "nothing fails, and every call is answered OK",
     .schedulers = 3,
     .agents = 10,
     .clients = 3,
     .seconds = 10,
     .think_ms = 100},
    {.name = "storm",
     .text = "5 schedulers; everything that can fail does so again and again",
     .schedulers = 5,
     .agents = 24,
     .clients = 6,
     .seconds = 40,
     .think_ms = 20,
     .raft_loss_permille = 60,
     .reset_ms = 250,
     .partitions = 7,
     .scheduler_crashes = 8,
     .agent_crashes = 12,
     .node_losses = 5,
     .slow_disks = 3,
     .leader_crash = true,
     .operators = true,
     .wild_instances = true},
};

enum { SCENARIOS = sizeof scenarios / sizeof scenarios[0] };

/* ---- Faults ---- */

static uint64_t fault_time(struct world *w)
{
    return world_now(w) + world_between(w, 2000, w->scenario->seconds * 1000 - 2000) * MS_US;
}

static void scheduler_back(struct world *w, void *data, uint64_t arg)
{
    (void)w;
    (void)arg;
    struct scheduler *s = data;
    if (s->core == NULL) {
        scheduler_start(s);
    }
}

static void kill_scheduler(struct world *w, struct scheduler *s)
{
    if (s != NULL && s->core != NULL && !w->calm) {
        scheduler_crash(s);
        world_after(w, world_between(w, 100, 4000) * MS_US, scheduler_back, s, 0);
    }
}

static void fault_scheduler(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    uint64_t at = world_below(w, w->schedulers->count);
    kill_scheduler(w, &w->schedulers->each[at]);
}

static void fault_leader(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct scheduler *leader = schedulers_leader(w->schedulers);
    if (leader == NULL) {
        world_after(w, 100 * MS_US, fault_leader, NULL, 0);
    }
    kill_scheduler(w, leader);
}

static void agent_back(struct world *w, void *data, uint64_t arg)
{
    (void)w;
    (void)arg;
    struct agent *a = data;
    if (a->core == NULL) {
        agent_start(a);
    }
}

static void fault_agent(struct world *w, void *data, uint64_t lose)
{
    (void)data;
    struct agent *a = &w->agents->each[world_below(w, w->agents->count)];
    if (a->core == NULL || w->calm) {
        return;
    }
    if (lose != 0) {
        agent_lose(a);
    } else {
        agent_crash(a);
    }
    world_after(w, world_between(w, 100, 7000) * MS_US, agent_back, a, 0);
}

static void fault_reset(struct world *w, void *data, uint64_t arg)
{
    if (w->calm) {
        return;
    }
    network_reset_one(w->network);
    world_after(w, 1 + world_around(w, w->scenario->reset_ms) * MS_US, fault_reset, data, arg);
}

static void fault_disk(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    uint64_t id = 1 + world_below(w, w->schedulers->count);
    if (!w->calm) {
        world_trace(w, "the disk of s%" PRIu64 " is slow", id);
        sim_raft_disk_speed(w->raft, id,
                            (struct sim_disk_speed){1000, world_between(w, 2000, 100000)});
    }
}

/* ---- Partitions: of one kind around one victim; to be undone they are walked again ---- */

enum partition_kind {
    PARTITION_PEERS,     /* a scheduler does not reach the others, nor they it */
    PARTITION_DEAF,      /* a scheduler does not hear the others */
    PARTITION_DUMB,      /* the others do not hear a scheduler */
    PARTITION_CLIENTS,   /* a scheduler reaches the other schedulers only */
    PARTITION_AGENTS,    /* every third agent is cut off */
    PARTITION_ONE_AGENT, /* an agent and one scheduler do not reach each other */
    PARTITION_KINDS,
};

static void cut_pair(struct world *w, struct endpoint *a, struct endpoint *b, bool cut)
{
    network_block(w->network, a, b, cut);
    network_block(w->network, b, a, cut);
}

static void partition_set(struct world *w, enum partition_kind kind, uint64_t victim, bool cut)
{
    struct schedulers *all = w->schedulers;
    struct scheduler *s = &all->each[victim % all->count];
    for (uint32_t i = 0; i < all->count && kind <= PARTITION_DUMB; i++) {
        struct endpoint *other = all->each[i].endpoint;
        if (other != s->endpoint && kind != PARTITION_DUMB) {
            network_block(w->network, other, s->endpoint, cut);
        }
        if (other != s->endpoint && kind != PARTITION_DEAF) {
            network_block(w->network, s->endpoint, other, cut);
        }
    }
    for (uint32_t i = 0; i < w->agents->count; i++) {
        struct endpoint *agent = w->agents->each[i].endpoint;
        bool chosen = kind == PARTITION_CLIENTS ||
                      (kind == PARTITION_AGENTS && i % 3 == victim % 3) ||
                      (kind == PARTITION_ONE_AGENT && i == victim % w->agents->count);
        for (uint32_t k = 0; k < all->count && chosen; k++) {
            if (kind == PARTITION_AGENTS || &all->each[k] == s) {
                cut_pair(w, agent, all->each[k].endpoint, cut);
            }
        }
    }
    for (uint32_t i = 0; i < w->clients->count && kind == PARTITION_CLIENTS; i++) {
        cut_pair(w, w->clients->each[i].endpoint, s->endpoint, cut);
    }
}

static void partition_end(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    world_trace(w, "partition %" PRIu64 " around %" PRIu64 " ends", arg >> 32, arg & 0xffffffff);
    partition_set(w, (enum partition_kind)(arg >> 32), arg & 0xffffffff, false);
}

static void fault_partition(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    struct scheduler *leader = schedulers_leader(w->schedulers);
    uint64_t kind = world_below(w, PARTITION_KINDS);
    uint64_t victim = leader != NULL && world_chance(w, 500) ? leader->number : world_below(w, 60);
    if (w->calm) {
        return;
    }
    world_trace(w, "partition %" PRIu64 " around %" PRIu64, kind, victim);
    partition_set(w, (enum partition_kind)kind, victim, true);
    world_after(w, world_between(w, 300, 7000) * MS_US, partition_end, NULL, kind << 32 | victim);
}

static void faults_plan(struct world *w)
{
    const struct scenario *s = w->scenario;
    const struct {
        uint32_t count;
        event_fn fn;
        uint64_t arg;
    } rows[] = {
        {s->partitions, fault_partition, 0},        {s->scheduler_crashes, fault_scheduler, 0},
        {s->leader_crash ? 1 : 0, fault_leader, 0}, {s->agent_crashes, fault_agent, 0},
        {s->node_losses, fault_agent, 1},           {s->slow_disks, fault_disk, 0}};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        for (uint32_t i = 0; i < rows[r].count; i++) {
            world_at(w, fault_time(w), rows[r].fn, NULL, rows[r].arg);
        }
    }
    if (s->reset_ms > 0) {
        world_after(w, s->reset_ms * MS_US, fault_reset, NULL, 0);
    }
    network_loss(w->network, s->raft_loss_permille);
}

/* What operators do meanwhile: nodes out and in again, new revisions, back to old ones; one node
 * stays drained. */
static void operators_plan(struct world *w)
{
    uint64_t now = world_now(w), part = w->scenario->seconds * SECOND_US / 10;
    struct operators *o = w->operators;
    const char *first = w->agents->each[world_below(w, w->agents->count / 2)].name;
    const char *second =
        w->agents->each[w->agents->count / 2 + world_below(w, w->agents->count / 2)].name;
    operators_node(o, now + 2 * part, "node.cordon", first);
    operators_deploy(o, now + 3 * part, &functions[world_below(w, FUNCTIONS_COUNT)], 2);
    operators_node(o, now + 4 * part, "node.drain", second);
    operators_deploy(o, now + 5 * part, &functions[0], 2);
    operators_node(o, now + 6 * part, "node.uncordon", first);
    operators_rollback(o, now + 7 * part, &functions[0], 1);
    operators_deploy(o, now + 8 * part, &functions[world_below(w, FUNCTIONS_COUNT)], 3);
}

/* ---- The end, step by step ---- */

static void finish(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    checks_final(w->checks);
    w->done = true;
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
    if (w->clients->outstanding > 0 && world_now(w) < since_us + CONVERGE_MS * MS_US) {
        world_after(w, POLL_MS * MS_US, wait_final, NULL, since_us);
        return;
    }
    world_trace(w, "final calls are answered");
    world_after(w, QUIET_MS * MS_US, inspect, NULL, 0);
}

static void wait_converged(struct world *w, void *data, uint64_t since_us)
{
    (void)data;
    char why[SIMULATION_FAILURE_BYTES_MAX / 2];
    if (checks_converged(w->checks, why, sizeof why)) {
        world_trace(w, "converged");
        clients_final(w->clients, FINAL_EACH);
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
    network_heal(w->network);
    for (uint32_t i = 0; i < w->schedulers->count; i++) {
        struct scheduler *s = &w->schedulers->each[i];
        sim_raft_disk_speed(w->raft, s->id,
                            (struct sim_disk_speed){NORMAL_DISK_MIN_US, NORMAL_DISK_MAX_US});
        scheduler_back(w, s, 0);
    }
    for (uint32_t i = 0; i < w->agents->count; i++) {
        agent_back(w, &w->agents->each[i], 0);
    }
    wait_converged(w, NULL, world_now(w));
}

/* All functions are deployed: load and faults begin. */
static void begin(struct world *w, void *data, uint64_t arg)
{
    (void)data;
    (void)arg;
    world_trace(w, "begin");
    clients_start(w->clients);
    faults_plan(w);
    if (w->scenario->operators) {
        operators_plan(w);
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
    w->schedulers = schedulers_new(w, s->schedulers);
    w->agents = agents_new(w, s->agents);
    w->clients = clients_new(w, s->clients);
    w->operators = operators_new(w);
    for (uint32_t i = 0; i < s->schedulers; i++) {
        sim_raft_disk_speed(w->raft, i + 1,
                            (struct sim_disk_speed){NORMAL_DISK_MIN_US, NORMAL_DISK_MAX_US});
    }
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
    operators_free(w->operators);
    checks_free(w->checks);
    network_free(w->network);
    sim_raft_free(w->raft);
    mem_free(w->heap);
}

struct status simulation_run(const struct simulation_options *options,
                             struct simulation_result *out)
{
    const char *name = options->scenario == NULL ? "spine" : options->scenario;
    struct world w = {.scenario = NULL};
    for (size_t i = 0; i < SCENARIOS; i++) {
        if (strcmp(scenarios[i].name, name) == 0) {
            w.scenario = &scenarios[i];
        }
    }
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
    (void)fprintf(to, "bugs:\n");
    for (int i = 0; i < SIMULATION_BUG_COUNT_; i++) {
        (void)fprintf(to, "  %-15s %s\n", bugs[i].name, bugs[i].text);
    }
}

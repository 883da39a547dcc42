#include "simulations/agents.h"

#include "simulations/checks.h"
#include "simulations/instances.h"
#include "simulations/tamper.h"

#include <string.h>

enum { HEARTBEAT_US = 750000, USAGES_MAX = 64 };
enum { LIE_PERMILLE = 200 };

static uint64_t now_of(const struct agent *a)
{
    return world_now(a->world) + a->clock_offset_us;
}

/* ---- The clock ---- */

static void on_deadline(struct world *w, void *data, uint64_t epoch);

/* A timer fires a little late. */
static void arm(struct agent *a)
{
    uint64_t next_us = agent_core_next_us(a->core);
    if (next_us == NEVER_US || next_us >= a->armed_us) {
        return;
    }
    uint64_t now = now_of(a);
    uint64_t wait_us = next_us > now ? next_us - now : 0;
    a->armed_us = next_us;
    world_after(a->world, wait_us + world_below(a->world, MS_US), on_deadline, a,
                a->endpoint->epoch);
}

static void on_deadline(struct world *w, void *data, uint64_t epoch)
{
    struct agent *a = data;
    if (a->core == NULL || a->endpoint->epoch != epoch) {
        return;
    }
    if (agent_paused(a)) {
        world_at(w, a->endpoint->paused_until_us, on_deadline, a, epoch);
        return;
    }
    a->armed_us = NEVER_US;
    agent_core_tick(a->core, now_of(a));
    arm(a);
}

static void on_beat(struct world *w, void *data, uint64_t epoch)
{
    struct agent *a = data;
    if (a->core == NULL || a->endpoint->epoch != epoch) {
        return;
    }
    if (agent_paused(a)) {
        world_at(w, a->endpoint->paused_until_us, on_beat, a, epoch);
        return;
    }
    struct instance_usage usages[USAGES_MAX];
    size_t count = 0;
    struct instance_run *i;
    for (i = a->instances; i != NULL && count < USAGES_MAX; i = i->next) {
        if (!i->gone) {
            usages[count++] = (struct instance_usage){.instance = i->id,
                                                      .memory_bytes = i->memory_bytes / 2,
                                                      .memory_peak_bytes = i->memory_bytes,
                                                      .processes = 1};
        }
    }
    const struct heartbeat h = {.cpu_used_millis = a->cpu_used / 2,
                                .memory_used_bytes = a->memory_used / 2,
                                .memory_total_bytes = a->memory_bytes,
                                .instances = usages,
                                .instances_count = count};
    agent_core_heartbeat(a->core, now_of(a), &h);
    arm(a);
    world_after(w, HEARTBEAT_US + world_below(w, 20 * MS_US), on_beat, a, epoch);
}

/* ---- The core's environment ---- */

static bool send_as_is(struct agent *a, uint64_t peer, const struct message *m)
{
    a->encode.size = 0;
    struct status encoded = message_encode(m, &a->encode);
    CHECK(status_is_ok(encoded));
    return network_send(a->world->network, peer, bytes_of(a->encode.data, a->encode.size));
}

/* A result of an attempt that another node runs, or that nobody ever heard of. Of durable work it
 * says that it failed: whose a success of before its time is a leader cannot know. */
static void lie_about_result(struct agent *a, uint64_t peer)
{
    struct world *w = a->world;
    struct message m = {.type = MESSAGE_RESULT};
    uint8_t nonsense[OUTPUT_BYTES] = {1};
    const struct agent *other = &w->agents->each[world_below(w, w->agents->count)];
    const struct instance_run *i = other->instances;
    while (i != NULL && (i->gone || i->runs == NULL)) {
        i = i->next;
    }
    if (i != NULL && other != a) {
        m.result = (struct result){.invocation = i->runs->invocation,
                                   .attempt = i->runs->attempt,
                                   .instance = i->id,
                                   .attempt_term = i->runs->attempt_term,
                                   .code = i->runs->errand != NULL ? STATUS_FAILED : STATUS_OK,
                                   .durable = i->runs->errand != NULL};
    } else {
        m.result = (struct result){.invocation = {world_random(w), world_random(w)},
                                   .attempt = 1,
                                   .instance = {world_random(w), world_random(w)},
                                   .attempt_term = 1,
                                   .durable = world_chance(w, 500)};
    }
    m.result.message = "";
    m.result.output = bytes_of(nonsense, sizeof nonsense);
    world_trace(w, "%s lies about a result", a->name);
    (void)send_as_is(a, peer, &m);
}

static bool env_send(void *data, uint64_t peer, const struct message *m)
{
    struct agent *a = data;
    struct world *w = a->world;
    if (m->type == MESSAGE_RESULT && !w->calm && world_bug(w, SIMULATION_BUG_DROP_RESULT, 50)) {
        return true;
    }
    if (!a->lies || !world_chance(w, LIE_PERMILLE)) {
        return send_as_is(a, peer, m);
    }
    struct message lie = *m;
    if (m->type == MESSAGE_HEARTBEAT) {
        lie.heartbeat.cpu_used_millis = (uint32_t)world_random(w);
        lie.heartbeat.memory_used_bytes = world_random(w);
        lie.heartbeat.instances_count = 0;
    } else if (m->type == MESSAGE_RESULT) {
        (void)send_as_is(a, peer, m);
        world_trace(w, "%s sends a result twice", a->name);
    }
    lie_about_result(a, peer);
    return send_as_is(a, peer, &lie);
}

/* Work that is begun was asked for by somebody: the leader of the message's term. */
static void check_obeyed(const struct agent *a)
{
    if (a->sender != NULL) {
        checks_obeyed(a->world->checks, a->name, a->number, a->sender->number, a->sender_term);
    }
}

static struct status env_start(void *data, const struct start *s, struct errmsg *msg)
{
    struct agent *a = data;
    check_obeyed(a);
    return instance_begin(a, s, msg);
}

static void env_stop(void *data, struct id128 instance, bool kill)
{
    instance_stop(data, instance, kill);
}

static struct status env_invoke(void *data, const struct invoke *i, struct errmsg *msg)
{
    struct agent *a = data;
    check_obeyed(a);
    return instance_invoke(a, i, msg);
}

static void env_cancel(void *data, struct id128 instance, struct id128 invocation, uint32_t attempt)
{
    instance_cancel(data, instance, invocation, attempt);
}

static void env_lead(void *data, uint64_t peer, uint64_t term, const struct lead *l)
{
    struct agent *a = data;
    (void)peer;
    world_trace(a->world, "%s obeys %s in term %llu", a->name, l->leader, (unsigned long long)term);
    check_obeyed(a);
}

/* ---- The network's events ---- */

static void on_opened(void *data, uint64_t handle, struct endpoint *peer)
{
    (void)peer;
    struct agent *a = data;
    struct status opened = agent_core_peer_open(a->core, now_of(a), handle);
    CHECK(status_is_ok(opened));
    arm(a);
}

static void on_closed(void *data, uint64_t handle)
{
    struct agent *a = data;
    agent_core_peer_close(a->core, now_of(a), handle);
}

static void on_message(void *data, uint64_t handle, struct endpoint *peer, struct bytes payload)
{
    struct agent *a = data;
    struct message m;
    struct errmsg msg = {.text = ""};
    arena_reset(&a->decode);
    struct status decoded = message_decode(payload, &a->decode, &m, &msg);
    if (!status_is_ok(decoded)) {
        world_fail(a->world, "%s cannot read a message: %s", a->name, msg.text);
        return;
    }
    if (m.type != MESSAGE_REPLY) {
        world_trace(a->world, "%s < %s %s term %llu", a->name, peer->name,
                    message_type_name(m.type), (unsigned long long)m.term);
    }
    a->sender = peer->owner;
    a->sender_term = m.term;
    tamper_agent(a->world, a->core, &handle, &m);
    agent_core_receive(a->core, now_of(a), handle, &m);
    a->sender = NULL;
    arm(a);
}

/* ---- What the instances say ---- */

/* A paused agent hears of it when it goes on, in the order in which it happened. */

static void ready_late(struct world *w, void *data, uint64_t arg)
{
    (void)w;
    (void)arg;
    const struct instance_run *i = data;
    if (!i->gone) {
        agent_instance_ready(i->agent, i);
    }
}

void agent_instance_ready(struct agent *a, const struct instance_run *i)
{
    if (agent_paused(a)) {
        world_at(a->world, a->endpoint->paused_until_us, ready_late, (void *)i, 0);
    } else if (a->core != NULL) {
        agent_core_instance_ready(a->core, now_of(a), i->id, i->concurrency, i->startup_us);
        arm(a);
    }
}

static void ended_late(struct world *w, void *data, uint64_t code)
{
    (void)w;
    const struct instance_run *i = data;
    agent_instance_ended(i->agent, i, (enum status_code)code, "seen late");
}

void agent_instance_ended(struct agent *a, const struct instance_run *i, enum status_code code,
                          const char *message)
{
    if (agent_paused(a)) {
        world_at(a->world, a->endpoint->paused_until_us, ended_late, (void *)i, (uint64_t)code);
    } else if (a->core != NULL) {
        agent_core_instance_ended(a->core, now_of(a), i->id, code, message);
        arm(a);
    }
}

bool agent_result(struct agent *a, const struct result *r)
{
    if (a->core == NULL) {
        return false;
    }
    agent_core_result(a->core, now_of(a), r);
    arm(a);
    return true;
}

/* ---- Life ---- */

static void adopt_runs(struct agent *a, struct instance_run *i)
{
    struct run *r;
    DL_FOREACH(i->runs, r) {
        const struct attempt_report report = {.invocation = r->invocation,
                                              .attempt = r->attempt,
                                              .instance = i->id,
                                              .attempt_term = r->attempt_term,
                                              .durable = r->errand != NULL};
        uint64_t now = world_now(a->world);
        uint64_t left_ms = r->deadline_us > now ? (r->deadline_us - now) / MS_US : 0;
        struct status adopted =
            agent_core_adopt_attempt(a->core, now_of(a), &report, (uint32_t)left_ms + 1);
        CHECK(status_is_ok(adopted));
    }
}

static void adopt(struct agent *a)
{
    struct instance_run *i;
    for (i = a->instances; i != NULL; i = i->next) {
        if (i->gone || a->world->bug == SIMULATION_BUG_NO_ADOPT) {
            continue;
        }
        if (i->stopping || (!i->ready && world_chance(a->world, 500))) {
            instance_end(i, STATUS_CRASHED, "killed: not adopted");
            continue;
        }
        struct digest revision = i->revision;
        const struct instance_report report = {.instance = i->id,
                                               .revision = revision,
                                               .function = i->function->name,
                                               .state =
                                                   i->ready ? INSTANCE_READY : INSTANCE_STARTING,
                                               .concurrency = i->concurrency,
                                               .cpu_millis = i->cpu_millis,
                                               .memory_bytes = i->memory_bytes,
                                               .startup_us = i->startup_us};
        struct status adopted = agent_core_adopt(a->core, now_of(a), &report, i->timeout_ms);
        if (!status_is_ok(adopted)) {
            world_fail(a->world, "%s cannot adopt: %s", a->name, status_name(adopted.code));
            return;
        }
        adopt_runs(a, i);
    }
}

void agent_start(struct agent *a)
{
    struct world *w = a->world;
    CHECK(a->core == NULL);
    a->lost = false;
    a->boot = world_random(w);
    a->armed_us = NEVER_US;
    const struct agent_env env = {.data = a,
                                  .send = env_send,
                                  .start = env_start,
                                  .stop = env_stop,
                                  .invoke = env_invoke,
                                  .cancel = env_cancel,
                                  .lead = env_lead};
    const struct agent_core_config config = {.boot = a->boot,
                                             .cpu_millis = a->cpu_millis,
                                             .memory_bytes = a->memory_bytes,
                                             .labels = a->labels,
                                             .labels_count = 1};
    struct status made = agent_core_new(&a->core, &config, &env);
    CHECK(status_is_ok(made));
    world_trace(w, "%s starts", a->name);
    network_up(w->network, a->endpoint);
    adopt(a);
    arm(a);
    instances_resume(a);
    for (uint32_t s = 0; s < w->schedulers->count; s++) {
        network_dial(w->network, a->endpoint, w->schedulers->each[s].endpoint);
    }
    world_after(w, world_between(w, 1, HEARTBEAT_US), on_beat, a, a->endpoint->epoch);
}

static void down(struct agent *a, bool silently)
{
    network_down(a->world->network, a->endpoint, silently);
    agent_core_free(a->core);
    a->core = NULL;
}

void agent_crash(struct agent *a)
{
    world_trace(a->world, "%s crashes", a->name);
    down(a, false);
}

void agent_lose(struct agent *a)
{
    world_trace(a->world, "%s is lost", a->name);
    down(a, true);
    a->lost = true;
    struct instance_run *i;
    for (i = a->instances; i != NULL; i = i->next) {
        if (!i->gone) {
            instance_end(i, STATUS_CRASHED, "the machine is gone");
        }
    }
}

bool agent_paused(const struct agent *a)
{
    return endpoint_paused(a->world->network, a->endpoint);
}

void agent_pause(struct agent *a, uint64_t for_us)
{
    network_pause(a->world->network, a->endpoint, for_us);
}

struct agents *agents_new(struct world *w, uint32_t count)
{
    CHECK(count <= AGENTS_MAX);
    struct agents *all = mem_must(mem_zalloc(1, sizeof *all));
    all->world = w;
    all->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct agent *a = &all->each[i];
        a->world = w;
        a->number = i;
        a->cpu_millis = (uint32_t)world_between(w, 8, 20) * 100;
        a->memory_bytes = world_between(w, 5, 12) * (UINT64_C(100) << 20);
        a->clock_offset_us = world_below(w, 1000 * SECOND_US);
        a->labels[0] = (struct pair){.key = "zone", .value = i % 2 == 0 ? "a" : "b"};
        (void)snprintf(a->name, sizeof a->name, "n%u", i + 1);
        const struct endpoint_events events = {
            .data = a, .opened = on_opened, .closed = on_closed, .message = on_message};
        a->endpoint = network_endpoint(w->network, a->name, ROLE_AGENT, &events, NULL);
    }
    return all;
}

void agents_free(struct agents *all)
{
    for (uint32_t i = 0; i < all->count; i++) {
        struct agent *a = &all->each[i];
        agent_core_free(a->core);
        instances_free(a);
        arena_close(&a->decode);
        buffer_close(&a->encode);
    }
    mem_free(all);
}

void agents_start(struct agents *all)
{
    for (uint32_t i = 0; i < all->count; i++) {
        agent_start(&all->each[i]);
    }
}

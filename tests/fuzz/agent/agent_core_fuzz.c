/* The agent's core under any order of events: each byte pair is one event with its argument.
 * Checked after every event: it obeys only the connection that announced the highest term, never
 * promises more than the machine has, answers each invocation that it took at most once, runs one
 * attempt of a durable invocation at a time, keeps each of their results until it is acknowledged,
 * and keeps its limits. */
#include "agent/core/agent_core.h"
#include "common/check.h"

#include <string.h>

/* Invocations from DURABLE_FROM on are durable. */
enum {
    PEERS = 4,
    INSTANCES = 6,
    INVOCATIONS = 16,
    DURABLE_FROM = 8,
    CPU = 1000,
    MEMORY = 1000,
};

struct world {
    struct agent_core *core;
    uint64_t now_us;
    bool open[PEERS];
    uint64_t terms[PEERS]; /* announced by each */
    uint64_t term;         /* the highest announced */
    uint64_t sender, sender_term;
    bool runs[INVOCATIONS]; /* given to an instance, not answered */
    uint8_t where[INVOCATIONS];
    uint32_t attempt[INVOCATIONS]; /* that runs */
    uint64_t ended;                /* durable attempts */
    bool lives[INSTANCES];
    bool full; /* connections take nothing */
    uint64_t beats;
};

static bool env_send(void *data, uint64_t peer, const struct message *m)
{
    const struct world *w = data;
    CHECK(peer >= 1 && peer <= PEERS);
    if (m->type == MESSAGE_RESULT) {
        CHECK(m->result.durable == (m->result.invocation.low >= DURABLE_FROM));
        CHECK(!m->result.durable || m->result.attempt_term > 0 ||
              m->result.code == STATUS_CONFLICT);
    }
    return !w->full;
}

static void obeys(const struct world *w)
{
    CHECK(w->sender_term == w->term);
    CHECK(w->terms[w->sender - 1] == w->term);
}

static struct status env_start(void *data, const struct start *s, struct errmsg *msg)
{
    struct world *w = data;
    obeys(w);
    CHECK(!w->lives[s->instance.low]);
    if ((w->now_us & 7) == 3) {
        return status_fail(msg, STATUS_IO, "no");
    }
    w->lives[s->instance.low] = true;
    return status_ok();
}

static void env_stop(void *data, struct id128 instance, bool kill)
{
    const struct world *w = data;
    (void)kill;
    CHECK(w->lives[instance.low]);
}

static struct status env_invoke(void *data, const struct invoke *i, struct errmsg *msg)
{
    struct world *w = data;
    obeys(w);
    CHECK(w->lives[i->instance.low]);
    CHECK(!w->runs[i->invocation.low]);
    CHECK(i->timeout_ms > 0);
    if ((w->now_us & 7) == 5) {
        return status_fail(msg, STATUS_LIMIT, "no");
    }
    w->runs[i->invocation.low] = true;
    w->where[i->invocation.low] = (uint8_t)i->instance.low;
    w->attempt[i->invocation.low] = i->attempt;
    return status_ok();
}

static void env_cancel(void *data, struct id128 instance, struct id128 invocation, uint32_t attempt)
{
    const struct world *w = data;
    CHECK(w->runs[invocation.low]);
    CHECK(w->attempt[invocation.low] == attempt);
    CHECK(w->where[invocation.low] == instance.low);
}

static void env_lead(void *data, uint64_t peer, uint64_t term, const struct lead *l)
{
    struct world *w = data;
    (void)l;
    CHECK(term >= w->term);
    w->term = term;
    w->terms[peer - 1] = term;
}

static void receive(struct world *w, uint8_t arg, struct message *m)
{
    w->sender = 1 + arg % PEERS;
    m->term = (uint64_t)(arg >> 2 & 3) + w->term - (w->term > 0);
    w->sender_term = m->term;
    agent_core_receive(w->core, w->now_us, w->sender, m);
}

static void commands(struct world *w, uint8_t what, uint8_t arg, uint8_t which)
{
    struct function_spec spec = {.name = "f",
                                 .cpu_millis = 100U * (1 + which % 5),
                                 .memory_bytes = 300,
                                 .concurrency = 1 + which % 3,
                                 .timeout_ms = 50,
                                 .startup_timeout_ms = 40};
    struct message m = {.request = which};
    bool durable = which % INVOCATIONS >= DURABLE_FROM;
    uint32_t attempt = durable ? 1 + (which >> 6) : 1;
    switch (what % 6) {
    case 0:
        m.type = MESSAGE_LEAD;
        m.lead = (struct lead){.leader = "s", .lease_ms = which};
        break;
    case 1:
        m.type = MESSAGE_START;
        m.start =
            (struct start){.instance = {0, which % INSTANCES}, .spec = which == 255 ? NULL : &spec};
        break;
    case 2:
        m.type = MESSAGE_STOP;
        m.stop = (struct stop){
            .instance = {0, which % INSTANCES}, .kill = (which & 128) != 0, .reason = "r"};
        break;
    case 3:
        m.type = MESSAGE_INVOKE;
        m.invoke = (struct invoke){.invocation = {0, which % INVOCATIONS},
                                   .attempt = attempt,
                                   .instance = {0, arg % INSTANCES},
                                   .durable = durable};
        break;
    case 4:
        m.type = MESSAGE_RESULT_ACK;
        m.result_ack = (struct result_ack){.invocation = {0, which % INVOCATIONS},
                                           .attempt = attempt,
                                           .attempt_term = w->term - (arg >> 4 & 1)};
        break;
    default:
        m.type = MESSAGE_CANCEL;
        m.cancel = (struct cancel){
            .invocation = {0, which % INVOCATIONS}, .attempt = attempt, .reason = "r"};
        break;
    }
    receive(w, arg, &m);
}

static void instance_events(struct world *w, uint8_t what, uint8_t which)
{
    struct id128 id = {0, which % INSTANCES};
    if (what % 3 == 0) {
        agent_core_instance_ready(w->core, w->now_us, id, which & 3, 1);
    } else if (what % 3 == 1) {
        if (w->lives[id.low]) {
            w->lives[id.low] = false;
            for (unsigned i = 0; i < INVOCATIONS; i++) {
                bool over = w->runs[i] && w->where[i] == id.low;
                w->ended += over && i >= DURABLE_FROM;
                w->runs[i] = w->runs[i] && !over;
            }
            agent_core_instance_ended(w->core, w->now_us, id, STATUS_CRASHED, "m");
        }
    } else {
        unsigned i = which % INVOCATIONS;
        const struct result r = {.invocation = {0, i},
                                 .attempt = w->runs[i] ? w->attempt[i] : 1,
                                 .message = "",
                                 .output = bytes_of("o", 1)};
        w->ended += w->runs[i] && i >= DURABLE_FROM;
        w->runs[i] = false;
        agent_core_result(w->core, w->now_us, &r);
    }
}

static void peer_events(struct world *w, uint8_t what, uint8_t which)
{
    uint64_t peer = 1 + which % PEERS;
    if (what % 4 == 0) {
        (void)!status_is_ok(agent_core_peer_open(w->core, w->now_us, peer));
        w->open[peer - 1] = true;
    } else if (what % 4 == 1) {
        agent_core_peer_close(w->core, w->now_us, peer);
        w->open[peer - 1] = false;
        w->terms[peer - 1] = 0;
    } else if (what % 4 == 2) {
        w->beats++;
        agent_core_heartbeat(w->core, w->now_us, &(struct heartbeat){0});
    } else {
        const struct message m = {.type = MESSAGE_REPLY,
                                  .request = AGENT_HEARTBEAT_REQUEST | (w->beats - which % 3),
                                  .reply = {.message = "", .leader = ""}};
        agent_core_receive(w->core, w->now_us, peer, &m);
    }
}

static void check(const struct world *w)
{
    struct agent_core_stats s = agent_core_stats(w->core);
    uint64_t running = 0;
    uint64_t living = 0;
    for (unsigned i = 0; i < INVOCATIONS; i++) {
        running += w->runs[i];
    }
    for (unsigned i = 0; i < INSTANCES; i++) {
        living += w->lives[i];
    }
    CHECK(s.cpu_millis_used <= CPU);
    CHECK(s.memory_bytes_used <= MEMORY);
    CHECK(s.attempts == running);
    CHECK(s.instances_starting + s.instances_ready + s.instances_stopping == living);
    CHECK(s.results_held <= RESULTS_HELD_MAX);
    CHECK(s.results_kept <= RESULTS_KEPT_MAX);
    CHECK(s.results_kept + s.results_acked + s.results_kept_dropped == w->ended);
    CHECK((s.results_kept == 0) == (s.results_kept_bytes == 0));
    CHECK(s.term == w->term);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {.now_us = 1000};
    const struct agent_core_config config = {.cpu_millis = CPU, .memory_bytes = MEMORY};
    const struct agent_env env = {&w,         env_send,   env_start, env_stop,
                                  env_invoke, env_cancel, env_lead};
    CHECK(status_is_ok(agent_core_new(&w.core, &config, &env)));
    for (size_t i = 0; i + 2 < size; i += 3) {
        uint8_t what = data[i] >> 2;
        switch (data[i] & 3) {
        case 0:
            commands(&w, what, data[i + 1], data[i + 2]);
            break;
        case 1:
            instance_events(&w, what, data[i + 2]);
            break;
        case 2:
            peer_events(&w, what, data[i + 2]);
            break;
        default:
            w.full = (what & 1) != 0;
            w.now_us += (uint64_t)data[i + 1] * 1000 + data[i + 2];
            agent_core_tick(w.core, w.now_us);
            CHECK(agent_core_next_us(w.core) > w.now_us);
            break;
        }
        check(&w);
    }
    agent_core_free(w.core);
    return 0;
}

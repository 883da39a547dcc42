#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "proto/codec.h"
#include "tests/unit/scheduler/world.h"

#include <stdio.h>
#include <string.h>

enum { AGENT_PEERS = 100, STEP_MS = 50, START_MS = 10000 };

/* ---- The record ---- */

static void note(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct world *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(w->text + w->size, sizeof w->text - w->size, format, args);
    va_end(args);
    assert_true(n >= 0 && (size_t)n < sizeof w->text - w->size);
    w->size += (size_t)n;
}

static unsigned number_of(struct id_table *t, struct id128 id)
{
    for (unsigned k = 0; k < t->count; k++) {
        if (id_compare(t->ids[k], id) == 0) {
            return k + 1;
        }
    }
    assert_true(t->count < WORLD_IDS_MAX);
    t->ids[t->count++] = id;
    return t->count;
}

static struct id128 id_of(struct id_table *t, unsigned n, uint64_t kind)
{
    while (t->count < n) {
        t->ids[t->count] = (struct id128){kind, t->count + 1};
        t->count++;
    }
    return t->ids[n - 1];
}

struct id128 instance_n(struct world *w, unsigned n)
{
    return id_of(&w->instances, n, 1);
}

struct id128 invocation_n(struct world *w, unsigned n)
{
    return id_of(&w->invocations, n, 2);
}

static void keep_records(struct world *w, const struct records *r)
{
    size_t used = 0;
    w->records[0] = '\0';
    for (size_t i = 0; i < r->rows_count; i++) {
        for (size_t k = 0; k < r->rows[i].fields_count; k++) {
            const struct pair *p = &r->rows[i].fields[k];
            used += (size_t)snprintf(w->records + used, sizeof w->records - used, "%s%s=%s",
                                     k == 0 ? "" : " ", p->key, p->value);
            assert_true(used < sizeof w->records);
        }
        used += (size_t)snprintf(w->records + used, sizeof w->records - used, "\n");
        assert_true(used < sizeof w->records);
    }
}

static void note_call_reply(struct world *w, const struct message *m)
{
    const struct call_reply *r = &m->call_reply;
    w->last.cold = r->cold;
    w->last.queue_us = r->queue_us;
    w->last.run_us = r->run_us;
    w->last.retry_after_ms = r->retry_after_ms;
    w->last.instance = r->instance;
    (void)snprintf(w->last.node, sizeof w->last.node, "%s", r->node == NULL ? "" : r->node);
    (void)snprintf(w->last.leader, sizeof w->last.leader, "%s", r->leader == NULL ? "" : r->leader);
    note(w, "call_reply %llu %s %s%.*s\n", (unsigned long long)m->request,
         status_name((enum status_code)r->code), r->message == NULL ? "" : r->message,
         (int)r->output.size, r->output.size > 0 ? (const char *)r->output.data : "");
}

static void note_outcome(struct world *w, const struct message *m)
{
    static const char *const states[] = {"", "queued", "done", "dead", "canceled"};
    const struct outcome *o = &m->outcome;
    note(w, "outcome %llu", (unsigned long long)m->request);
    if (o->code != STATUS_OK) {
        note(w, " %s %s\n", status_name((enum status_code)o->code), o->message);
        return;
    }
    note(w, " v%u %s %s %s%.*s\n", number_of(&w->invocations, o->invocation), states[o->state],
         status_name((enum status_code)o->result_code), o->result_message, (int)o->output.size,
         o->output.size > 0 ? (const char *)o->output.data : "");
}

static void on_send(void *data, uint64_t peer, const struct message *m)
{
    struct world *w = data;
    bool agent = peer > AGENT_PEERS;
    note(w, "%c%llu ", agent ? 'a' : 'u', (unsigned long long)(agent ? peer - AGENT_PEERS : peer));
    switch (m->type) {
    case MESSAGE_CALL_REPLY:
        note_call_reply(w, m);
        break;
    case MESSAGE_SPAWN_REPLY:
        w->last.retry_after_ms = m->spawn_reply.retry_after_ms;
        note(w, "spawn_reply %llu %s", (unsigned long long)m->request,
             status_name((enum status_code)m->spawn_reply.code));
        if (!id_is_zero(m->spawn_reply.invocation)) {
            note(w, " v%u", number_of(&w->invocations, m->spawn_reply.invocation));
        }
        note(w, "%s%s%s\n", m->spawn_reply.existing ? " existing" : "",
             m->spawn_reply.message[0] == '\0' ? "" : " ", m->spawn_reply.message);
        break;
    case MESSAGE_OUTCOME:
        note_outcome(w, m);
        break;
    case MESSAGE_RESULT_ACK:
        note(w, "ack v%u.%u\n", number_of(&w->invocations, m->result_ack.invocation),
             m->result_ack.attempt);
        break;
    case MESSAGE_REPLY:
        w->last.index = m->reply.index;
        (void)snprintf(w->last.leader, sizeof w->last.leader, "%s",
                       m->reply.leader == NULL ? "" : m->reply.leader);
        note(w, "reply %llu %s%s%s\n", (unsigned long long)m->request,
             status_name((enum status_code)m->reply.code), m->reply.message[0] == '\0' ? "" : " ",
             m->reply.message);
        break;
    case MESSAGE_RECORDS:
        keep_records(w, &m->records);
        (void)snprintf(w->last.leader, sizeof w->last.leader, "%s",
                       m->records.leader == NULL ? "" : m->records.leader);
        note(w, "records %llu %s rows=%zu%s%s\n", (unsigned long long)m->request,
             status_name((enum status_code)m->records.code), m->records.rows_count,
             m->records.message[0] == '\0' ? "" : " ", m->records.message);
        break;
    case MESSAGE_LEAD:
        note(w, "lead term=%llu", (unsigned long long)m->term);
        for (size_t k = 0; k < m->lead.schedulers_count; k++) {
            note(w, " %s=%s", m->lead.schedulers[k].key, m->lead.schedulers[k].value);
        }
        for (size_t k = 0; k < m->lead.revoked_count; k++) {
            note(w, " -%s", m->lead.revoked[k].text);
        }
        note(w, "%s\n", m->request != 0 ? " ask" : "");
        break;
    case MESSAGE_START:
        assert_non_null(m->start.spec);
        note(w, "start i%u %s", number_of(&w->instances, m->start.instance), m->start.spec->name);
        for (size_t i = 0; i < m->start.gpus_count; i++) {
            note(w, " %s", m->start.gpus[i].text);
        }
        note(w, "\n");
        break;
    case MESSAGE_STOP:
        note(w, "%s i%u %s\n", m->stop.kill ? "kill" : "stop",
             number_of(&w->instances, m->stop.instance), m->stop.reason);
        break;
    case MESSAGE_INVOKE:
        w->last.timeout_ms = m->invoke.timeout_ms;
        note(w, "invoke v%u.%u i%u %.*s\n", number_of(&w->invocations, m->invoke.invocation),
             m->invoke.attempt, number_of(&w->instances, m->invoke.instance),
             (int)m->invoke.payload.size,
             m->invoke.payload.size > 0 ? (const char *)m->invoke.payload.data : "");
        break;
    case MESSAGE_CANCEL:
        note(w, "cancel v%u.%u i%u %s\n", number_of(&w->invocations, m->cancel.invocation),
             m->cancel.attempt, number_of(&w->instances, m->cancel.instance), m->cancel.reason);
        break;
    case MESSAGE_ISOLATION_CHECK:
        note(w, "isolation_check %llu %s", (unsigned long long)m->isolation_check.round,
             m->isolation_check.isolation);
        for (size_t k = 0; k < m->isolation_check.addresses_count; k++) {
            note(w, " %s", m->isolation_check.addresses[k].text);
        }
        note(w, "\n");
        break;
    default:
        note(w, "%s\n", message_type_name(m->type));
    }
    if (agent && m->type != MESSAGE_REPLY && m->term == 0) {
        fail_msg("a command without a term");
    }
}

static struct status on_propose(void *data, uint64_t ticket, const struct command *c)
{
    struct world *w = data;
    if (w->propose_code != STATUS_OK) {
        return status_of(w->propose_code);
    }
    assert_true(w->pending_count < WORLD_PENDING_MAX);
    struct pending_proposal *p = &w->pending[w->pending_count++];
    *p = (struct pending_proposal){.ticket = ticket};
    return command_encode(c, &p->command);
}

static void on_payload_dropped(void *data, const struct digest *payload)
{
    struct world *w = data;
    note(w, "dropped %02x\n", payload->v[0]);
}

static uint64_t on_random(void *data)
{
    struct world *w = data;
    return ++w->seed * UINT64_C(0x9e3779b97f4a7c15);
}

void expect(struct world *w, const char *lines)
{
    assert_string_equal(w->text, lines);
    forget_lines(w);
    core_check(w->core);
}

void forget_lines(struct world *w)
{
    w->size = 0;
    w->text[0] = '\0';
}

void expect_records(struct world *w, const char *text)
{
    if (strstr(w->records, text) == NULL) {
        fail_msg("\"%s\" is not among the records:\n%s", text, w->records);
    }
}

/* ---- The world's own events ---- */

struct world *world_new(const struct core_config *config)
{
    struct world *w = mem_must(mem_zalloc(1, sizeof *w));
    const struct core_env env = {.data = w,
                                 .send = on_send,
                                 .propose = on_propose,
                                 .random = on_random,
                                 .payload_dropped = on_payload_dropped};
    w->core = core_new(&env, config);
    assert_non_null(w->core);
    w->now = (struct core_time){START_MS * 1000, 1700000000000};
    w->spec = (struct function_spec){.runtime = "python",
                                     .handler = "f.py:f",
                                     .cpu_millis = 100,
                                     .memory_bytes = 100,
                                     .scale_max = 10,
                                     .concurrency = 1,
                                     .idle_ms = 1000,
                                     .queue_max = 2,
                                     .timeout_ms = 10000,
                                     .retry_backoff_ms = 100,
                                     .retry_factor_milli = 2000,
                                     .retry_cap_ms = 1000,
                                     .startup_timeout_ms = 5000};
    return w;
}

int world_setup(void **state)
{
    const struct core_config config = {0};
    *state = world_new(&config);
    return 0;
}

int world_setup_led(void **state)
{
    (void)world_setup(state);
    struct world *w = *state;
    world_lead(w, WORLD_TERM);
    user_open(w, 1);
    user_open(w, 2);
    agent_up(w, 1);
    world_deploy(w, "f", 1);
    forget_lines(w);
    return 0;
}

int world_teardown(void **state)
{
    struct world *w = *state;
    core_check(w->core);
    for (size_t k = 0; k < w->pending_count; k++) {
        core_proposed(w->core, w->now, w->pending[k].ticket, status_of(STATUS_UNKNOWN), 0);
        buffer_close(&w->pending[k].command);
    }
    core_free(w->core);
    mem_free(w);
    return 0;
}

void world_commit(struct world *w)
{
    for (size_t k = 0; k < w->pending_count; k++) {
        struct arena a = {0};
        struct command cmd;
        struct pending_proposal p = w->pending[k];
        assert_int_equal(
            command_decode(bytes_of(p.command.data, p.command.size), &a, &cmd, NULL).code,
            STATUS_OK);
        (void)core_apply(w->core, w->now, ++w->index, &cmd, NULL);
        core_proposed(w->core, w->now, p.ticket, status_ok(), w->index);
        arena_close(&a);
        buffer_close(&p.command);
    }
    w->pending_count = 0;
}

static void commit_unless_held(struct world *w)
{
    if (!w->hold) {
        world_commit(w);
    }
}

struct status world_apply(struct world *w, const struct command *cmd)
{
    struct status s = core_apply(w->core, w->now, ++w->index, cmd, NULL);
    commit_unless_held(w);
    return s;
}

struct digest world_revision(unsigned n)
{
    return (struct digest){{(uint8_t)n, 0xab}};
}

void world_deploy(struct world *w, const char *name, unsigned revision)
{
    w->spec.name = name;
    const struct command cmd = {
        .type = COMMAND_DEPLOY,
        .time_ms = w->now.unix_ms,
        .command_deploy = {.spec = &w->spec, .revision = world_revision(revision)}};
    assert_int_equal(world_apply(w, &cmd).code, STATUS_OK);
}

void world_lead(struct world *w, uint64_t term)
{
    core_role(w->core, w->now, true, term, "s1", "127.0.0.1:1");
    commit_unless_held(w);
}

void world_follow(struct world *w, const char *leader_address)
{
    core_role(w->core, w->now, false, WORLD_TERM, "s2", leader_address);
}

void world_tick(struct world *w, uint64_t after_ms)
{
    w->now.mono_us += after_ms * 1000;
    w->now.unix_ms += after_ms;
    core_tick(w->core, w->now);
    commit_unless_held(w);
}

void world_run(struct world *w, uint64_t ms)
{
    for (uint64_t passed = 0; passed < ms; passed += STEP_MS) {
        for (unsigned n = 1; n <= WORLD_AGENTS_MAX; n++) {
            if (w->alive[n]) {
                agent_heartbeat(w, n, 0);
            }
        }
        world_tick(w, STEP_MS);
    }
}

/* ---- Users ---- */

static void open_peer(struct world *w, uint64_t peer, enum role role, const char *name)
{
    struct identity who = {.role = role};
    (void)snprintf(who.name.text, sizeof who.name.text, "%s", name);
    core_peer_open(w->core, w->now, peer, &who);
}

static void receive(struct world *w, uint64_t peer, const struct message *m)
{
    core_receive(w->core, w->now, peer, m);
    commit_unless_held(w);
}

void user_open(struct world *w, uint64_t user)
{
    char name[16];
    (void)snprintf(name, sizeof name, "user%llu", (unsigned long long)user);
    open_peer(w, user, ROLE_USER, name);
}

void user_close(struct world *w, uint64_t user)
{
    core_peer_close(w->core, w->now, user);
}

void user_call(struct world *w, uint64_t user, uint64_t request, const char *function,
               const char *payload, uint32_t timeout_ms)
{
    const struct message m = {.type = MESSAGE_CALL,
                              .request = request,
                              .call = {.function = function,
                                       .payload = bytes_of(payload, strlen(payload)),
                                       .timeout_ms = timeout_ms}};
    receive(w, user, &m);
}

void user_spawn(struct world *w, uint64_t user, uint64_t request, const struct spawn *spawn)
{
    struct message m = {.type = MESSAGE_SPAWN, .request = request, .spawn = *spawn};
    m.spawn.function = m.spawn.function == NULL ? "f" : m.spawn.function;
    m.spawn.key = m.spawn.key == NULL ? "" : m.spawn.key;
    receive(w, user, &m);
}

void user_outcome(struct world *w, uint64_t user, uint64_t request, unsigned invocation,
                  uint32_t wait_ms)
{
    const struct message m = {
        .type = MESSAGE_OUTCOME_QUERY,
        .request = request,
        .outcome_query = {.invocation = invocation_n(w, invocation), .wait_ms = wait_ms}};
    receive(w, user, &m);
}

void user_on_invocation(struct world *w, uint64_t request, const char *action, unsigned invocation)
{
    char id[ID_STRING_BYTES];
    id_format(invocation_n(w, invocation), INVOCATION_PREFIX, id);
    user_admin(w, request, action, id, NULL, NULL);
}

void user_admin(struct world *w, uint64_t request, const char *action, const char *name,
                const char *key, const char *value)
{
    struct pair arg = {.key = key, .value = value};
    const struct message m = {
        .type = MESSAGE_ADMIN,
        .request = request,
        .admin = {.action = action, .name = name, .args = &arg, .args_count = key == NULL ? 0 : 1}};
    receive(w, 1, &m);
}

void user_query(struct world *w, uint64_t request, const char *what, const char *name)
{
    const struct message m = {
        .type = MESSAGE_QUERY, .request = request, .query = {.what = what, .name = name}};
    receive(w, 1, &m);
}

/* ---- Agents ---- */

void agent_open_as(struct world *w, unsigned n, uint64_t peer)
{
    char name[16];
    (void)snprintf(name, sizeof name, "n%u", n);
    open_peer(w, AGENT_PEERS + peer, ROLE_AGENT, name);
    w->alive[n] = true;
}

void agent_open(struct world *w, unsigned n)
{
    agent_open_as(w, n, n);
}

void agent_close(struct world *w, unsigned n)
{
    core_peer_close(w->core, w->now, AGENT_PEERS + n);
    w->alive[n] = false;
}

void agent_register(struct world *w, unsigned n, const struct node_register *r)
{
    struct message m = {.type = MESSAGE_NODE_REGISTER, .term = WORLD_TERM, .node_register = *r};
    m.node_register.boot = 1;
    m.node_register.cpu_millis = WORLD_CPU;
    m.node_register.memory_bytes = WORLD_MEMORY;
    receive(w, AGENT_PEERS + n, &m);
}

void agent_register_empty(struct world *w, unsigned n)
{
    const struct node_register r = {0};
    agent_register(w, n, &r);
}

void agent_up(struct world *w, unsigned n)
{
    agent_open(w, n);
    agent_register_empty(w, n);
    forget_lines(w);
}

void agent_heartbeat(struct world *w, unsigned n, uint64_t request)
{
    const struct message m = {
        .type = MESSAGE_HEARTBEAT, .request = request, .heartbeat = {.sequence = request}};
    receive(w, AGENT_PEERS + n, &m);
}

void agent_event(struct world *w, unsigned n, unsigned instance, uint32_t instance_state,
                 enum status_code code, const char *message)
{
    struct instance_report r = report_n(w, instance, instance_state);
    r.message = message;
    r.startup_us = 777;
    const struct message m = {.type = MESSAGE_INSTANCE_EVENT,
                              .term = WORLD_TERM,
                              .instance_event = {.report = &r, .code = code}};
    receive(w, AGENT_PEERS + n, &m);
}

void agent_ready(struct world *w, unsigned n, unsigned instance)
{
    agent_event(w, n, instance, INSTANCE_READY, STATUS_OK, "");
}

void agent_ended(struct world *w, unsigned n, unsigned instance, enum status_code code,
                 const char *message)
{
    agent_event(w, n, instance, INSTANCE_ENDED, code, message);
}

void agent_result(struct world *w, unsigned n, unsigned invocation, uint32_t attempt,
                  unsigned instance, enum status_code code, const char *text)
{
    const struct message m = {
        .type = MESSAGE_RESULT,
        .result = {.invocation = invocation_n(w, invocation),
                   .attempt = attempt,
                   .instance = instance_n(w, instance),
                   .code = code,
                   .message = code == STATUS_OK ? "" : text,
                   .output = bytes_of(text, code == STATUS_OK ? strlen(text) : 0),
                   .run_us = 555}};
    receive(w, AGENT_PEERS + n, &m);
}

void agent_durable_result(struct world *w, unsigned n, unsigned invocation, uint32_t attempt,
                          unsigned instance, enum status_code code, const char *text)
{
    const struct message m = {
        .type = MESSAGE_RESULT,
        .result = {.invocation = invocation_n(w, invocation),
                   .attempt = attempt,
                   .attempt_term = WORLD_TERM,
                   .durable = true,
                   .instance = instance_n(w, instance),
                   .code = code,
                   .message = code == STATUS_OK ? "" : text,
                   .output = bytes_of(text, code == STATUS_OK ? strlen(text) : 0),
                   .run_us = 555}};
    receive(w, AGENT_PEERS + n, &m);
}

struct instance_report report_n(struct world *w, unsigned n, uint32_t instance_state)
{
    return (struct instance_report){.instance = instance_n(w, n),
                                    .revision = world_revision(1),
                                    .function = "f",
                                    .state = instance_state,
                                    .concurrency = 1,
                                    .cpu_millis = 100,
                                    .memory_bytes = 100,
                                    .message = ""};
}

void have_warm(struct world *w)
{
    user_call(w, 1, 1, "f", "warm", 0);
    agent_ready(w, 1, 1);
    agent_result(w, 1, 1, 1, 1, STATUS_OK, "");
    forget_lines(w);
}

void world_snapshot(struct world *w, struct buffer *out)
{
    struct parts parts = {0};
    struct core_pin *pin = core_pin(w->core);
    assert_non_null(pin);
    assert_int_equal(core_pin_encode(pin, &parts).code, STATUS_OK);
    core_unpin(w->core, pin);
    for (size_t i = 0; i < parts.count; i++) {
        const struct buffer *b = &parts.items[i];
        assert_int_equal(buffer_append(out, b->data, b->size).code, STATUS_OK);
    }
    parts_close(&parts);
}

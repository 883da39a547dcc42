#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "tests/unit/agent/recording.h"

#include <stdio.h>
#include <string.h>

static void note(struct recording *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(struct recording *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(r->text + r->size, sizeof r->text - r->size, format, args);
    va_end(args);
    assert_true(n >= 0 && (size_t)n < sizeof r->text - r->size);
    r->size += (size_t)n;
}

static const char *state_text(uint32_t state)
{
    static const char *const names[] = {"?", "STARTING", "READY", "STOPPING", "ENDED"};
    return names[state <= INSTANCE_ENDED ? state : 0];
}

static bool on_send(void *data, uint64_t peer, const struct message *m)
{
    struct recording *r = data;
    if (r->send_fails) {
        return false;
    }
    note(r, "send %llu ", (unsigned long long)peer);
    switch (m->type) {
    case MESSAGE_NODE_REGISTER:
        note(r, "node_register instances=%zu attempts=%zu", m->node_register.instances_count,
             m->node_register.attempts_count);
        if (m->node_register.gpu_count > 0) {
            note(r, " gpus=%zu", m->node_register.gpu[0].gpus_count);
        }
        note(r, "\n");
        break;
    case MESSAGE_RESULT:
        note(r, "result v%llu.%u ", (unsigned long long)m->result.invocation.low - 100,
             m->result.attempt);
        if (m->result.durable) {
            note(r, "term=%llu ", (unsigned long long)m->result.attempt_term);
        }
        note(r, "%s %s%.*s\n", status_name((enum status_code)m->result.code), m->result.message,
             (int)m->result.output.size,
             m->result.output.size > 0 ? (const char *)m->result.output.data : "");
        break;
    case MESSAGE_INSTANCE_EVENT:
        note(r, "event i%llu %s %s %s\n",
             (unsigned long long)m->instance_event.report->instance.low,
             state_text(m->instance_event.report->state),
             status_name((enum status_code)m->instance_event.code),
             m->instance_event.report->message);
        break;
    case MESSAGE_REPLY:
        note(r, "reply %llu %s term=%llu\n", (unsigned long long)m->request,
             status_name((enum status_code)m->reply.code), (unsigned long long)m->term);
        break;
    case MESSAGE_HEARTBEAT:
        note(r, "heartbeat %llu\n", (unsigned long long)m->heartbeat.sequence);
        break;
    default:
        note(r, "%s\n", message_type_name(m->type));
    }
    return true;
}

static struct status on_start(void *data, const struct start *s, struct errmsg *msg)
{
    struct recording *r = data;
    if (r->start_code != STATUS_OK) {
        return status_fail(msg, r->start_code, "cannot start");
    }
    note(r, "start i%llu\n", (unsigned long long)s->instance.low);
    return status_ok();
}

static void on_stop(void *data, struct id128 instance, bool kill)
{
    note(data, "%s i%llu\n", kill ? "kill" : "stop", (unsigned long long)instance.low);
}

static struct status on_invoke(void *data, const struct invoke *i, struct errmsg *msg)
{
    struct recording *r = data;
    if (r->invoke_code != STATUS_OK) {
        return status_fail(msg, r->invoke_code, "cannot invoke");
    }
    note(r, "invoke v%llu.%u i%llu %u\n", (unsigned long long)i->invocation.low - 100, i->attempt,
         (unsigned long long)i->instance.low, i->timeout_ms);
    return status_ok();
}

static void on_cancel(void *data, struct id128 instance, struct id128 invocation, uint32_t attempt)
{
    note(data, "cancel v%llu.%u i%llu\n", (unsigned long long)invocation.low - 100, attempt,
         (unsigned long long)instance.low);
}

static void on_lead(void *data, uint64_t peer, uint64_t term, const struct lead *l)
{
    (void)l;
    note(data, "lead %llu term=%llu\n", (unsigned long long)peer, (unsigned long long)term);
}

int recording_setup(void **state)
{
    struct recording *r = mem_must(mem_zalloc(1, sizeof *r));
    const struct agent_core_config config = {
        .boot = 7, .cpu_millis = RECORDING_CPU, .memory_bytes = RECORDING_MEMORY};
    const struct agent_env env = {r, on_send, on_start, on_stop, on_invoke, on_cancel, on_lead};
    assert_true(status_is_ok(agent_core_new(&r->core, &config, &env)));
    r->now_us = SECOND_US;
    *state = r;
    return 0;
}

int recording_setup_led(void **state)
{
    recording_setup(state);
    struct recording *r = *state;
    assert_true(status_is_ok(agent_core_peer_open(r->core, r->now_us, 1)));
    receive_lead(r, 1, 5, 1000);
    recording_clear(r);
    return 0;
}

int recording_teardown(void **state)
{
    struct recording *r = *state;
    agent_core_free(r->core);
    mem_free(r);
    return 0;
}

void recording_clear(struct recording *r)
{
    r->size = 0;
    r->text[0] = '\0';
}

void recording_expect(struct recording *r, const char *lines)
{
    r->text[r->size] = '\0';
    assert_string_equal(r->text, lines);
    recording_clear(r);
}

struct id128 instance_n(unsigned n)
{
    return (struct id128){0, n};
}

struct id128 invocation_n(unsigned n)
{
    return (struct id128){0, 100 + n};
}

static void receive(struct recording *r, uint64_t peer, const struct message *m)
{
    agent_core_receive(r->core, r->now_us, peer, m);
}

void receive_lead(struct recording *r, uint64_t peer, uint64_t term, uint32_t lease_ms)
{
    receive(r, peer,
            &(struct message){
                .type = MESSAGE_LEAD, .term = term, .lead = {.leader = "s", .lease_ms = lease_ms}});
}

void receive_start(struct recording *r, uint64_t peer, uint64_t term, unsigned n, uint32_t cpu,
                   uint64_t memory)
{
    struct function_spec spec = {
        .name = "f",
        .cpu_millis = cpu,
        .memory_bytes = memory,
        .concurrency = 2,
        .timeout_ms = 700,
        .startup_timeout_ms = 2000,
    };
    receive(r, peer,
            &(struct message){.type = MESSAGE_START,
                              .request = 41,
                              .term = term,
                              .start = {.instance = instance_n(n), .spec = &spec}});
}

void receive_invoke(struct recording *r, uint64_t peer, uint64_t term, unsigned invocation,
                    unsigned instance, uint32_t timeout_ms)
{
    receive(r, peer,
            &(struct message){.type = MESSAGE_INVOKE,
                              .term = term,
                              .invoke = {.invocation = invocation_n(invocation),
                                         .attempt = 1,
                                         .instance = instance_n(instance),
                                         .timeout_ms = timeout_ms,
                                         .payload = bytes_of("in", 2)}});
}

void receive_job(struct recording *r, uint64_t peer, uint64_t term, unsigned invocation,
                 uint32_t attempt, unsigned instance)
{
    receive(r, peer,
            &(struct message){.type = MESSAGE_INVOKE,
                              .term = term,
                              .invoke = {.invocation = invocation_n(invocation),
                                         .attempt = attempt,
                                         .instance = instance_n(instance),
                                         .durable = true,
                                         .payload = bytes_of("in", 2)}});
}

void receive_ack(struct recording *r, uint64_t peer, unsigned invocation, uint32_t attempt,
                 uint64_t attempt_term)
{
    receive(r, peer,
            &(struct message){.type = MESSAGE_RESULT_ACK,
                              .term = 5,
                              .result_ack = {.invocation = invocation_n(invocation),
                                             .attempt = attempt,
                                             .attempt_term = attempt_term}});
}

void receive_stop(struct recording *r, uint64_t peer, uint64_t term, unsigned n, bool kill)
{
    receive(r, peer,
            &(struct message){
                .type = MESSAGE_STOP,
                .request = 42,
                .term = term,
                .stop = {.instance = instance_n(n), .kill = kill, .reason = "scaled in"}});
}

void receive_cancel(struct recording *r, uint64_t peer, uint64_t term, unsigned invocation)
{
    receive(
        r, peer,
        &(struct message){
            .type = MESSAGE_CANCEL,
            .request = 43,
            .term = term,
            .cancel = {.invocation = invocation_n(invocation), .attempt = 1, .reason = "gave up"}});
}

void heartbeat_answer(struct recording *r, uint64_t peer, uint64_t sequence, enum status_code code)
{
    receive(r, peer,
            &(struct message){.type = MESSAGE_REPLY,
                              .request = AGENT_HEARTBEAT_REQUEST | sequence,
                              .reply = {.code = (uint32_t)code, .message = "", .leader = ""}});
}

void have_ready(struct recording *r, unsigned n, uint32_t concurrency)
{
    receive_start(r, 1, 5, n, 100, 100);
    agent_core_instance_ready(r->core, r->now_us, instance_n(n), concurrency, 1234);
    recording_clear(r);
}

void result_of(struct recording *r, unsigned invocation, enum status_code code, const char *text)
{
    result_of_attempt(r, invocation, 1, code, text);
}

void result_of_attempt(struct recording *r, unsigned invocation, uint32_t attempt,
                       enum status_code code, const char *text)
{
    const struct result result = {
        .invocation = invocation_n(invocation),
        .attempt = attempt,
        .code = (uint32_t)code,
        .message = code == STATUS_OK ? "" : text,
        .output = code == STATUS_OK ? bytes_of(text, strlen(text)) : (struct bytes){0},
    };
    agent_core_result(r->core, r->now_us, &result);
}

void tick_at(struct recording *r, uint64_t now_us)
{
    r->now_us = now_us;
    agent_core_tick(r->core, now_us);
}

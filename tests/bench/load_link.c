#include "tests/bench/load_link.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/net/link.h"
#include "common/net/tls.h"
#include "common/pki/pki.h"
#include "proto/codec.h"
#include "proto/version.h"

#include <string.h>
#include <uv.h>

struct server {
    char address[CONFIG_ADDRESS_BYTES_MAX + 1];
    struct link *link;
    bool ready; /* hellos exchanged */
};

struct slot {
    uint64_t request; /* 0: free; the low bits are the slot's number */
    uint64_t late_us;
    struct server *to;
};

struct load_link {
    uv_loop_t loop;
    uv_timer_t timer;
    struct link_hub *hub;
    struct load_events events;
    struct server servers[LOAD_SERVERS_MAX];
    size_t servers_count;
    size_t preferred; /* where the leader was last seen */
    struct slot *slots;
    uint32_t slots_count;
    uint64_t request_last;
    struct buffer encode;
    struct arena decode;
    bool hub_closed, timer_closed;
};

enum { SLOT_BITS = 16 };

/* ---- Answers ---- */

static enum status_code code_and_leader(const struct message *m, const char **text,
                                        const char **leader, uint32_t *retry_after_ms)
{
    uint32_t code = STATUS_INTERNAL;
    switch (m->type) {
#define ANSWER_CASE(upper, name, retry)                                                            \
    case MESSAGE_##upper:                                                                          \
        code = m->name.code;                                                                       \
        *text = m->name.message;                                                                   \
        *leader = m->name.leader;                                                                  \
        *retry_after_ms = retry;                                                                   \
        break;
        ANSWER_CASE(REPLY, reply, m->reply.retry_after_ms)
        ANSWER_CASE(CALL_REPLY, call_reply, m->call_reply.retry_after_ms)
        ANSWER_CASE(SPAWN_REPLY, spawn_reply, m->spawn_reply.retry_after_ms)
        ANSWER_CASE(OUTCOME, outcome, 0)
#undef ANSWER_CASE
    default:
        *text = "an answer of another kind";
        break;
    }
    return status_from_wire(code);
}

enum status_code load_answer_code(const struct message *answer, const char **text,
                                  uint32_t *retry_after_ms)
{
    const char *leader = "";
    *text = "";
    *retry_after_ms = 0;
    return code_and_leader(answer, text, &leader, retry_after_ms);
}

static void prefer(struct load_link *l, const struct server *from, const char *leader)
{
    for (size_t i = 0; i < l->servers_count; i++) {
        if (strcmp(l->servers[i].address, leader) == 0) {
            l->preferred = i;
            return;
        }
    }
    l->preferred = ((size_t)(from - l->servers) + 1) % l->servers_count;
}

static void end_slot(struct load_link *l, uint32_t at, enum load_end how,
                     const struct message *answer)
{
    l->slots[at].request = 0;
    l->events.on_end(l->events.data, at, how, answer);
}

static void on_answer(struct load_link *l, const struct server *from, const struct message *m)
{
    uint32_t at = (uint32_t)(m->request & ((1U << SLOT_BITS) - 1));
    if (at >= l->slots_count || l->slots[at].request != m->request || m->request == 0) {
        return; /* of a question that was given up */
    }
    const char *text = "", *leader = "";
    uint32_t retry = 0;
    enum status_code code = code_and_leader(m, &text, &leader, &retry);
    if (code == STATUS_NOT_LEADER) {
        prefer(l, from, leader);
    } else if (code != STATUS_UNAVAILABLE && code != STATUS_UNKNOWN) {
        l->preferred = (size_t)(from - l->servers);
    }
    end_slot(l, at, LOAD_ANSWERED, m);
}

/* ---- Sending ---- */

static struct server *ready_server(struct load_link *l)
{
    for (size_t i = 0; i < l->servers_count; i++) {
        struct server *s = &l->servers[(l->preferred + i) % l->servers_count];
        if (s->ready) {
            return s;
        }
    }
    return NULL;
}

static bool send_to(struct load_link *l, const struct server *to, const struct message *m)
{
    l->encode.size = 0;
    CHECK(status_is_ok(message_encode(m, &l->encode)));
    const struct bytes part = bytes_of(l->encode.data, l->encode.size);
    return status_is_ok(link_send(to->link, &part, 1));
}

bool load_link_busy(const struct load_link *l, uint32_t slot)
{
    return l->slots[slot].request != 0;
}

bool load_link_ask(struct load_link *l, uint32_t slot, const struct message *m, uint32_t timeout_ms)
{
    CHECK(slot < l->slots_count && l->slots[slot].request == 0);
    struct server *to = ready_server(l);
    if (to == NULL) {
        return false;
    }
    struct message numbered = *m;
    numbered.request = ++l->request_last << SLOT_BITS | slot;
    if (!send_to(l, to, &numbered)) {
        return false;
    }
    l->slots[slot] =
        (struct slot){.request = numbered.request,
                      .late_us = clock_now_us(clock_real()) + (uint64_t)timeout_ms * 1000,
                      .to = to};
    return true;
}

/* ---- Links ---- */

static void on_open(void *data, struct link *link)
{
    struct load_link *l = data;
    struct server *s = &l->servers[link_tag(link)];
    s->link = link;
    link_set_data(link, s);
    const struct message hello = {.type = MESSAGE_HELLO,
                                  .hello = {.version_min = version_own.min,
                                            .version_max = version_own.max,
                                            .build = SKEP_VERSION}};
    if (!send_to(l, s, &hello)) {
        link_close(link, false, "cannot send");
    }
}

static void on_message(void *data, struct link *link, struct bytes payload)
{
    struct load_link *l = data;
    struct server *s = link_data(link);
    struct message m;
    struct errmsg msg = {.text = ""};
    arena_reset(&l->decode);
    if (!status_is_ok(message_decode(payload, &l->decode, &m, &msg))) {
        link_close(link, false, msg.text);
    } else if (m.type == MESSAGE_HELLO) {
        s->ready = true;
        l->events.on_tick(l->events.data);
    } else {
        on_answer(l, s, &m);
    }
}

static void on_close(void *data, struct link *link, struct status why, const char *reason)
{
    struct load_link *l = data;
    struct server *s = link_data(link);
    (void)why;
    (void)reason;
    if (s == NULL) {
        return;
    }
    s->link = NULL;
    s->ready = false;
    for (uint32_t i = 0; i < l->slots_count; i++) {
        if (l->slots[i].request != 0 && l->slots[i].to == s) {
            end_slot(l, i, LOAD_LOST, NULL);
        }
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct load_link *l = timer->data;
    uint64_t now = clock_now_us(clock_real());
    for (uint32_t i = 0; i < l->slots_count; i++) {
        if (l->slots[i].request != 0 && now > l->slots[i].late_us) {
            prefer(l, l->slots[i].to, "");
            end_slot(l, i, LOAD_LATE, NULL);
        }
    }
    l->events.on_tick(l->events.data);
}

/* ---- Opening and closing ---- */

static struct status connect_all(struct load_link *l, const struct context *context,
                                 const struct tls_identity *own, struct errmsg *msg)
{
    struct identity id;
    TRY(pki_identity_of(own->cert_pem, &id, NULL, msg));
    const struct link_events events = {
        .data = l, .on_open = on_open, .on_message = on_message, .on_close = on_close};
    const struct link_limits limits = {.redial_ms_min = 20, .redial_ms_max = 200};
    TRY(link_hub_open(&l->hub, &l->loop, own, &limits, &events, msg));
    const struct identity expect = {.cluster = id.cluster, .role = ROLE_SCHEDULER};
    for (size_t i = 0; i < context->schedulers_count && i < LOAD_SERVERS_MAX; i++) {
        struct server *s = &l->servers[l->servers_count];
        (void)snprintf(s->address, sizeof s->address, "%s", context->schedulers[i]);
        TRY(link_hub_dial(l->hub, s->address, &expect, l->servers_count++, msg));
    }
    return l->servers_count > 0 ? status_ok()
                                : status_fail(msg, STATUS_INVALID, "the context has no scheduler");
}

struct status load_link_open(struct load_link **out, const struct context *context, uint32_t slots,
                             const struct load_events *events, struct errmsg *msg)
{
    CHECK(slots > 0 && slots <= LOAD_SLOTS_MAX);
    char *ca = NULL, *cert = NULL, *key = NULL;
    struct load_link *l = mem_must(mem_zalloc(1, sizeof *l));
    l->slots = mem_must(mem_zalloc(slots, sizeof *l->slots));
    l->slots_count = slots;
    l->events = *events;
    CHECK(uv_loop_init(&l->loop) == 0);
    CHECK(uv_timer_init(&l->loop, &l->timer) == 0);
    l->timer.data = l;
    struct status s = pki_read(context->ca, false, &ca, msg);
    if (status_is_ok(s)) {
        s = pki_read(context->cert, false, &cert, msg);
    }
    if (status_is_ok(s)) {
        s = pki_read(context->key, true, &key, msg);
    }
    if (status_is_ok(s)) {
        const struct tls_identity own = {.ca_pem = ca, .cert_pem = cert, .key_pem = key};
        s = connect_all(l, context, &own, msg);
    }
    mem_free(ca);
    mem_free(cert);
    pki_key_free(key);
    if (!status_is_ok(s)) {
        load_link_close(l);
        return s;
    }
    CHECK(uv_timer_start(&l->timer, on_timer, LOAD_TICK_MS, LOAD_TICK_MS) == 0);
    *out = l;
    return status_ok();
}

static void on_hub_closed(void *data)
{
    struct load_link *l = data;
    l->hub_closed = true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct load_link *l = handle->data;
    l->timer_closed = true;
}

static void ignore_end(void *data, uint32_t slot, enum load_end how, const struct message *answer)
{
    (void)data;
    (void)slot;
    (void)how;
    (void)answer;
}

static void ignore_tick(void *data)
{
    (void)data;
}

void load_link_close(struct load_link *l)
{
    l->events = (struct load_events){.on_end = ignore_end, .on_tick = ignore_tick};
    if (l->hub != NULL) {
        link_hub_close(l->hub, on_hub_closed, l);
    } else {
        l->hub_closed = true;
    }
    uv_close((uv_handle_t *)&l->timer, on_timer_closed);
    while (!l->hub_closed || !l->timer_closed) {
        (void)uv_run(&l->loop, UV_RUN_ONCE);
    }
    (void)uv_loop_close(&l->loop);
    buffer_close(&l->encode);
    arena_close(&l->decode);
    mem_free(l->slots);
    mem_free(l);
}

void load_link_run(struct load_link *l)
{
    (void)uv_run(&l->loop, UV_RUN_DEFAULT);
}

void load_link_stop(struct load_link *l)
{
    uv_stop(&l->loop);
}

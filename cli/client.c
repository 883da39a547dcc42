/* The story of a request: ready connection? (else wait for one) -> send -> answer by number.
 * NOT_LEADER: dial the named leader, or wait a moment when there is none, and send again.
 * Connection lost: send again when that does no harm, UNKNOWN otherwise. */
#include "cli/client.h"

#include "common/check.h"
#include "common/mem.h"
#include "common/net/link.h"
#include "common/net/tls.h"
#include "common/pki/pki.h"
#include "proto/codec.h"
#include "proto/version.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <uv.h>

/* One scheduler is asked; the next is dialled when that fails or takes DIAL_NEXT_MS. */
enum { RETRY_MS = 60, TICK_MS = 5, DIAL_NEXT_MS = 250, AGES_MS = 500 };

struct server_slot {
    char address[CONFIG_ADDRESS_BYTES_MAX + 1];
    struct link *link;
    bool dialled;
    bool ready; /* hellos exchanged */
    bool failed;
};

/* A request in flight. */
struct ask {
    uint64_t request; /* 0: free */
    struct message message;
    struct server_slot *to; /* NULL: to be sent (again) */
    uint64_t made_us, sent_us, retry_at_us;
    struct status refused; /* OK, or what the last passing answer said */
    bool maybe;            /* it was sent once, and nobody knows what came of that */
};

struct client {
    uv_loop_t loop;
    uv_timer_t timer;
    struct link_hub *hub;
    struct identity own;
    char *ca, *cert, *key;
    struct server_slot servers[CLIENT_ADDRESSES_MAX];
    size_t servers_count;
    size_t preferred; /* where the leader was last seen */
    uint64_t dial_next_us;
    uint64_t request_last;
    struct buffer encode;
    struct arena decode;
    enum status_code failed_code;
    char failed[ERRMSG_BYTES_MAX]; /* why the last dial failed */
    bool was_ready;                /* somebody answered hello once */
    bool hub_closed, timer_closed;
    /* One exchange at a time, or one load. */
    struct ask single;
    uint64_t retry_at_us;
    uint64_t deadline_us;
    bool waiting, finished;
    struct status outcome;
    char refusal[ERRMSG_BYTES_MAX]; /* the text of the last passing answer */
    struct arena *answer_arena;
    struct message *answer;
    client_each each;
    void *each_data;
    const struct client_load *load;
    struct ask *asks;
    uint32_t inflight;
    uint32_t unsent;  /* of those in flight, how many are to be sent (again) */
    uint64_t ages_us; /* when the requests' ages are looked at next */
    bool load_ended;
};

static uint64_t now_us(void)
{
    return uv_hrtime() / 1000;
}

struct status client_answer_status(const struct message *answer, const char **message,
                                   const char **leader)
{
    uint32_t code = STATUS_OK;
    const char *text = "", *where = "";
    switch (answer->type) {
#define ANSWER_CASE(upper, name)                                                                   \
    case MESSAGE_##upper:                                                                          \
        code = answer->name.code;                                                                  \
        text = answer->name.message;                                                               \
        where = answer->name.leader;                                                               \
        break;
        ANSWER_CASE(REPLY, reply)
        ANSWER_CASE(CALL_REPLY, call_reply)
        ANSWER_CASE(RECORDS, records)
        ANSWER_CASE(LOG_DATA, log_data)
        ANSWER_CASE(METRICS_TEXT, metrics_text)
        ANSWER_CASE(JOIN_REPLY, join_reply)
        ANSWER_CASE(SPAWN_REPLY, spawn_reply)
        ANSWER_CASE(OUTCOME, outcome)
        ANSWER_CASE(BACKUP_DATA, backup_data)
#undef ANSWER_CASE
    default:
        break;
    }
    *message = text;
    *leader = where;
    return status_of(status_from_wire(code));
}

/* What is put under its own digest is there after a first time as after a second. */
static bool only_reads(const struct message *m)
{
    return m->type == MESSAGE_QUERY || m->type == MESSAGE_METRICS_QUERY ||
           m->type == MESSAGE_LOGS || m->type == MESSAGE_CHUNK_QUERY ||
           m->type == MESSAGE_CHUNK_PUT || m->type == MESSAGE_PAYLOAD_PUT ||
           m->type == MESSAGE_OUTCOME_QUERY;
}

/* Does sending it twice do no more than sending it once? */
static bool repeatable(const struct message *m)
{
    return only_reads(m) || (m->type == MESSAGE_SPAWN && m->spawn.key[0] != '\0');
}

/* Is this answer to a spawn one that passes? Then *after_ms says when to ask again. */
static bool answer_passes(const struct message *asked, const struct message *answer,
                          uint32_t *after_ms)
{
    if (asked->type != MESSAGE_SPAWN || !repeatable(asked)) {
        return false;
    }
    const char *text, *leader;
    uint32_t after = answer->type == MESSAGE_SPAWN_REPLY ? answer->spawn_reply.retry_after_ms
                     : answer->type == MESSAGE_REPLY     ? answer->reply.retry_after_ms
                                                         : 0;
    enum status_code code = client_answer_status(answer, &text, &leader).code;
    if (code != STATUS_UNAVAILABLE && code != STATUS_UNKNOWN &&
        (code != STATUS_LIMIT || after == 0)) {
        return false;
    }
    after = after < RETRY_MS ? RETRY_MS : after;
    *after_ms = after > CLIENT_RETRY_AFTER_MS_MAX ? CLIENT_RETRY_AFTER_MS_MAX : after;
    return true;
}

static void finish(struct client *c, struct status s)
{
    if (c->waiting) {
        c->waiting = false;
        c->finished = true;
        c->outcome = s;
        uv_stop(&c->loop);
    }
}

/* ---- Sending ---- */

static struct status send_to(struct client *c, struct server_slot *to, const struct message *m)
{
    c->encode.size = 0;
    TRY(message_encode(m, &c->encode));
    const struct bytes part = bytes_of(c->encode.data, c->encode.size);
    return link_send(to->link, &part, 1);
}

static struct server_slot *ready_slot(struct client *c)
{
    for (size_t i = 0; i < c->servers_count; i++) {
        struct server_slot *s = &c->servers[(c->preferred + i) % c->servers_count];
        if (s->ready) {
            return s;
        }
    }
    return NULL;
}

static bool send_ask(struct client *c, struct ask *a)
{
    struct server_slot *to = ready_slot(c);
    if (to == NULL || !status_is_ok(send_to(c, to, &a->message))) {
        return false;
    }
    a->to = to;
    a->sent_us = now_us();
    return true;
}

/* The request's end, in our own words. */
static void load_give_up(struct client *c, uint32_t place, struct status why, const char *text)
{
    struct ask *a = &c->asks[place];
    const struct message end = {.type = MESSAGE_CALL_REPLY,
                                .request = a->request,
                                .call_reply = {.code = why.code, .message = text, .leader = ""}};
    c->unsent -= a->to == NULL;
    a->request = 0;
    c->inflight--;
    c->load->done(c->load->data, place, &end, now_us() - a->made_us);
}

/* Was it sent, so that it may have been done for all that is known? */
static bool may_be_done(const struct ask *a)
{
    return !only_reads(&a->message) && (a->to != NULL || a->maybe);
}

static void load_too_old(struct client *c, uint32_t place)
{
    const struct ask *a = &c->asks[place];
    if (may_be_done(a)) {
        load_give_up(c, place, status_of(STATUS_UNKNOWN),
                     "no answer came in time: it may have been done");
    } else if (!status_is_ok(a->refused)) {
        load_give_up(c, place, a->refused, c->refusal);
    } else {
        load_give_up(c, place, status_of(STATUS_UNAVAILABLE),
                     c->failed[0] != '\0' ? c->failed : "no answer came in time");
    }
}

/* Sends what waits for that, and ends what is too old. */
static void load_again(struct client *c, struct server_slot *to)
{
    uint64_t now = now_us();
    bool ages = c->load->give_up_ms != 0 && now >= c->ages_us;
    if (c->unsent == 0 && !ages) {
        return;
    }
    c->ages_us = ages ? now + (uint64_t)AGES_MS * 1000 : c->ages_us;
    for (uint32_t i = 0; i < c->load->outstanding; i++) {
        struct ask *a = &c->asks[i];
        if (a->request == 0) {
            continue;
        }
        if (ages && now > a->made_us + (uint64_t)c->load->give_up_ms * 1000) {
            load_too_old(c, i);
        } else if (a->to == NULL && to != NULL && now >= a->retry_at_us &&
                   status_is_ok(send_to(c, to, &a->message))) {
            a->to = to;
            a->sent_us = now;
            c->unsent--;
        }
    }
}

/* With nobody connected, one request waits for a scheduler to come back: when it is given up, its
 * owner learns that nobody does. */
static bool load_takes(const struct client *c, const struct server_slot *to)
{
    bool waits = c->load->give_up_ms != 0 && c->was_ready && c->inflight == 0;
    return !c->load_ended && c->inflight < c->load->outstanding && (to != NULL || waits);
}

static void load_fill(struct client *c)
{
    const struct client_load *load = c->load;
    struct server_slot *to = ready_slot(c);
    load_again(c, to);
    for (uint32_t i = 0; i < load->outstanding && load_takes(c, to); i++) {
        struct ask *a = &c->asks[i];
        if (a->request != 0) {
            continue;
        }
        enum client_fill filled =
            now_us() >= load->until_us ? CLIENT_NO_MORE : load->fill(load->data, i, &a->message);
        if (filled != CLIENT_FILLED) {
            c->load_ended = filled == CLIENT_NO_MORE;
            break;
        }
        a->message.request = (++c->request_last << 16) | i; /* The low bits find the place again. */
        a->request = a->message.request;
        a->to = to;
        a->made_us = now_us();
        a->sent_us = a->made_us;
        a->retry_at_us = 0;
        a->refused = status_ok();
        a->maybe = false;
        c->inflight++;
        if (to == NULL || !status_is_ok(send_to(c, to, &a->message))) {
            a->to = NULL; /* Or the connection's queue is full. */
            c->unsent++;
            break;
        }
    }
    if (c->load_ended && c->inflight == 0) {
        finish(c, status_ok());
    }
}

/* ---- Answers ---- */

static size_t slot_for(struct client *c, const char *address)
{
    for (size_t i = 0; i < c->servers_count; i++) {
        if (strcmp(c->servers[i].address, address) == 0) {
            return i;
        }
    }
    if (c->servers_count == CLIENT_ADDRESSES_MAX || strlen(address) > CONFIG_ADDRESS_BYTES_MAX) {
        return c->preferred;
    }
    struct server_slot *s = &c->servers[c->servers_count];
    *s = (struct server_slot){.failed = false};
    (void)snprintf(s->address, sizeof s->address, "%s", address);
    return c->servers_count++;
}

/* Why there is nobody to ask. That one is there and of another version says more than that others
 * are not there. */
static void failed_note(struct client *c, enum status_code code, const char *address,
                        const char *why)
{
    if (c->failed_code == STATUS_UNSUPPORTED && !c->was_ready) {
        return;
    }
    c->failed_code = code;
    (void)snprintf(c->failed, sizeof c->failed, "%s%s%s", address == NULL ? "" : address,
                   address == NULL ? "" : ": ", why);
}

static void slot_dial(struct client *c, size_t at)
{
    struct server_slot *s = &c->servers[at];
    c->dial_next_us = now_us() + (uint64_t)DIAL_NEXT_MS * 1000;
    if (s->dialled) {
        return;
    }
    s->dialled = true;
    const struct identity expect = {.cluster = c->own.cluster, .role = ROLE_SCHEDULER};
    struct errmsg msg = {.text = ""};
    struct status dialled = link_hub_dial(c->hub, s->address, &expect, at, &msg);
    if (!status_is_ok(dialled)) {
        s->failed = true;
        failed_note(c, dialled.code, s->address, msg.text);
    }
}

/* Only while somebody waits for an answer: closing ends links too. */
static void dial_next(struct client *c)
{
    if (!c->waiting) {
        return;
    }
    for (size_t i = 0; i < c->servers_count; i++) {
        size_t at = (c->preferred + i) % c->servers_count;
        if (!c->servers[at].dialled) {
            slot_dial(c, at);
            return;
        }
    }
}

/* Where the leader is, if the answer knows; else another scheduler may know more. */
static void follow_leader(struct client *c, struct server_slot *from, const char *leader)
{
    if (leader[0] != '\0') {
        c->preferred = slot_for(c, leader);
    } else {
        c->preferred = ((size_t)(from - c->servers) + 1) % c->servers_count;
    }
    slot_dial(c, c->preferred);
}

/* The arena that the answer was decoded into becomes the caller's. */
static void deliver(struct client *c, const struct message *m)
{
    if (c->each != NULL) {
        if (!c->each(c->each_data, m)) {
            finish(c, status_ok());
        }
        return;
    }
    *c->answer = *m;
    struct arena kept = *c->answer_arena;
    *c->answer_arena = c->decode;
    c->decode = kept;
    finish(c, status_ok());
}

static void ask_later(struct client *c, struct ask *a, uint32_t after_ms)
{
    c->unsent += a->to != NULL;
    a->to = NULL;
    a->retry_at_us = now_us() + (uint64_t)after_ms * 1000;
}

/* Remembers what a passing answer said, for when the time is up. */
static void refusal_keep(struct client *c, struct ask *a, const struct message *m)
{
    const char *text, *leader;
    a->refused = client_answer_status(m, &text, &leader);
    a->maybe = a->maybe || a->refused.code == STATUS_UNKNOWN;
    (void)snprintf(c->refusal, sizeof c->refusal, "%s", text);
}

/* Is the request to be sent again, rather than ended by this answer? */
static bool load_repeats(struct client *c, struct ask *a, const struct message *m)
{
    uint32_t after_ms = RETRY_MS;
    if (c->load->give_up_ms == 0 || !repeatable(&a->message)) {
        return false;
    }
    const char *text, *leader;
    if (client_answer_status(m, &text, &leader).code == STATUS_NOT_LEADER) {
        bool ready = leader[0] != '\0' && c->servers[c->preferred].ready;
        ask_later(c, a, ready ? 0 : RETRY_MS);
        return true;
    }
    if (!answer_passes(&a->message, m, &after_ms)) {
        return false;
    }
    refusal_keep(c, a, m);
    ask_later(c, a, after_ms);
    return true;
}

static void load_answer(struct client *c, const struct message *m)
{
    uint32_t at = (uint32_t)(m->request & 0xFFFF);
    if (at >= c->load->outstanding || c->asks[at].request != m->request || c->asks[at].to == NULL) {
        return;
    }
    struct ask *a = &c->asks[at];
    const char *text, *leader;
    if (client_answer_status(m, &text, &leader).code == STATUS_NOT_LEADER) {
        follow_leader(c, a->to, leader);
    }
    if (!load_repeats(c, a, m)) {
        a->request = 0;
        c->inflight--;
        c->load->done(c->load->data, at, m, now_us() - a->sent_us);
    }
    load_fill(c);
}

static void on_answer(struct client *c, struct server_slot *from, const struct message *m)
{
    if (c->load != NULL) {
        load_answer(c, m);
        return;
    }
    if (!c->waiting || m->request != c->single.request) {
        return;
    }
    const char *text, *leader;
    if (client_answer_status(m, &text, &leader).code == STATUS_NOT_LEADER) {
        follow_leader(c, from, leader);
        c->single.to = NULL;
        /* With a named leader it is sent as soon as that one is connected. */
        c->retry_at_us = now_us() + (leader[0] != '\0' ? 0 : RETRY_MS * 1000);
        if (c->servers[c->preferred].ready && leader[0] != '\0' &&
            &c->servers[c->preferred] != from) {
            (void)send_ask(c, &c->single);
        } else {
            c->retry_at_us = now_us() + RETRY_MS * 1000;
        }
        return;
    }
    c->preferred = (size_t)(from - c->servers); /* Whoever answered goes on being asked. */
    uint32_t after_ms = 0;
    if (answer_passes(&c->single.message, m, &after_ms)) {
        refusal_keep(c, &c->single, m);
        c->single.to = NULL;
        c->retry_at_us = now_us() + (uint64_t)after_ms * 1000;
        return;
    }
    deliver(c, m);
}

/* ---- Links ---- */

static void on_open(void *data, struct link *l)
{
    struct client *c = data;
    struct server_slot *s = &c->servers[link_tag(l)];
    s->link = l;
    s->failed = false;
    link_set_data(l, s);
    const struct message hello = {.type = MESSAGE_HELLO,
                                  .hello = {.version_min = version_own.min,
                                            .version_max = version_own.max,
                                            .build = SKEP_VERSION}};
    if (!status_is_ok(send_to(c, s, &hello))) {
        link_close(l, false, "cannot send");
    }
}

/* Another scheduler may be of a version that we speak with. */
static void slot_refused(struct client *c, struct server_slot *s, const char *why)
{
    link_set_data(s->link, NULL);
    s->link = NULL;
    s->failed = true;
    failed_note(c, STATUS_UNSUPPORTED, NULL, why);
    dial_next(c);
}

static void on_hello(struct client *c, struct server_slot *s, const struct message *m)
{
    char peer[sizeof "scheduler " + CONFIG_ADDRESS_BYTES_MAX];
    struct errmsg msg = {.text = ""};
    (void)snprintf(peer, sizeof peer, "scheduler %s", s->address);
    if (!status_is_ok(version_check("this skep", peer, &m->hello, &msg))) {
        link_close(s->link, true, msg.text);
        slot_refused(c, s, msg.text);
        return;
    }
    s->ready = true;
    c->was_ready = true;
    if (c->load != NULL) {
        load_fill(c);
    } else if (c->waiting && c->single.to == NULL && now_us() >= c->retry_at_us) {
        (void)send_ask(c, &c->single);
    }
}

static void on_message(void *data, struct link *l, struct bytes payload)
{
    struct client *c = data;
    struct server_slot *s = link_data(l);
    struct message m;
    struct errmsg msg = {.text = ""};
    arena_reset(&c->decode);
    if (!status_is_ok(message_decode(payload, &c->decode, &m, &msg))) {
        link_close(l, false, msg.text);
        return;
    }
    if (m.type == MESSAGE_HELLO) {
        on_hello(c, s, &m);
    } else {
        on_answer(c, s, &m);
    }
}

static void load_lost(struct client *c, const struct server_slot *s)
{
    for (uint32_t i = 0; i < c->load->outstanding; i++) {
        struct ask *a = &c->asks[i];
        if (a->request == 0 || a->to != s) {
            continue;
        }
        if (c->load->give_up_ms != 0 && repeatable(&a->message)) {
            a->maybe = true;
            ask_later(c, a, 0);
        } else {
            load_give_up(c, i, status_of(STATUS_UNKNOWN), "connection lost");
        }
    }
    load_fill(c);
}

static void on_close(void *data, struct link *l, struct status why, const char *reason)
{
    struct client *c = data;
    struct server_slot *s = link_data(l);
    if (s == NULL) {
        return;
    }
    s->link = NULL;
    s->ready = false;
    s->failed = true;
    failed_note(c, why.code, s->address, reason);
    dial_next(c);
    if (c->load != NULL) {
        load_lost(c, s);
    } else if (c->waiting && c->single.to == s) {
        c->single.to = NULL;
        c->single.maybe = true;
        if (!repeatable(&c->single.message)) {
            finish(c, status_of(STATUS_UNKNOWN));
        }
    }
}

static void on_dial_failed(void *data, const char *address, struct status why, const char *reason)
{
    struct client *c = data;
    for (size_t i = 0; i < c->servers_count; i++) {
        if (strcmp(c->servers[i].address, address) == 0) {
            c->servers[i].failed = true;
        }
    }
    failed_note(c, why.code, address, reason);
    dial_next(c);
}

/* ---- Time ---- */

static bool all_failed(const struct client *c)
{
    for (size_t i = 0; i < c->servers_count; i++) {
        if (!c->servers[i].dialled || !c->servers[i].failed) {
            return false;
        }
    }
    return true;
}

/* Our certificate (a join token's, say) ran out while we dialled: whoever we have yet to connect to
 * refuses us, and over TLS 1.3 that refusal may reach us as no more than a reset. */
static bool own_expired(struct client *c)
{
    if (c->own.not_after_s == 0 || (int64_t)time(NULL) <= c->own.not_after_s) {
        return false;
    }
    (void)snprintf(c->failed, sizeof c->failed,
                   "%s: the certificate that was shown to it has expired meanwhile",
                   c->servers[c->preferred].address);
    return true;
}

static enum status_code nobody_code(const struct client *c)
{
    return c->failed_code == STATUS_DENIED || c->failed_code == STATUS_UNSUPPORTED
               ? c->failed_code
               : STATUS_UNAVAILABLE;
}

/* What a request ends with when its time is up (late) or nobody can be reached. */
static struct status single_end(const struct client *c, bool late)
{
    const struct ask *a = &c->single;
    if (a->maybe && !only_reads(&a->message)) {
        return status_of(STATUS_UNKNOWN);
    }
    if (!late) {
        return status_of(nobody_code(c));
    }
    return !status_is_ok(a->refused)
               ? a->refused
               : status_of(a->to != NULL ? STATUS_TIMEOUT : STATUS_UNAVAILABLE);
}

static void on_timer(uv_timer_t *timer)
{
    struct client *c = timer->data;
    uint64_t now = now_us();
    if (!c->waiting) {
        return;
    }
    if (c->load == NULL && c->single.to == NULL && !c->servers[c->preferred].ready &&
        own_expired(c)) {
        finish(c, status_of(STATUS_DENIED));
        return;
    }
    if (now >= c->dial_next_us && ready_slot(c) == NULL) {
        dial_next(c);
        c->dial_next_us = now + (uint64_t)DIAL_NEXT_MS * 1000;
    }
    bool nobody = all_failed(c) && (c->failed_code == STATUS_DENIED || !c->was_ready);
    bool idle = c->load != NULL ? c->inflight == c->unsent : c->single.to == NULL;
    if (now > c->deadline_us || (nobody && idle)) {
        bool late = now > c->deadline_us;
        finish(c, c->load != NULL ? status_of(nobody_code(c)) : single_end(c, late));
    } else if (c->load != NULL) {
        load_fill(c);
    } else if (c->single.to == NULL && now >= c->retry_at_us) {
        (void)send_ask(c, &c->single);
    }
}

/* ---- Opening and closing ---- */

static void on_hub_closed(void *data)
{
    struct client *c = data;
    c->hub_closed = true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct client *c = handle->data;
    c->timer_closed = true;
}

void client_close(struct client *c)
{
    if (c == NULL) {
        return;
    }
    if (c->hub != NULL) {
        link_hub_close(c->hub, on_hub_closed, c);
    } else {
        c->hub_closed = true;
    }
    uv_close((uv_handle_t *)&c->timer, on_timer_closed);
    while (!c->hub_closed || !c->timer_closed) {
        (void)uv_run(&c->loop, UV_RUN_ONCE);
    }
    (void)uv_loop_close(&c->loop);
    mem_free(c->ca);
    mem_free(c->cert);
    pki_key_free(c->key);
    buffer_close(&c->encode);
    arena_close(&c->decode);
    mem_free(c);
}

/* Takes the texts. */
static struct status open_with(struct client **out, char *ca, char *cert, char *key,
                               const char *const *addresses, size_t count, struct errmsg *msg)
{
    struct client *c = mem_must(mem_zalloc(1, sizeof *c));
    c->ca = ca;
    c->cert = cert;
    c->key = key;
    CHECK(uv_loop_init(&c->loop) == 0);
    CHECK(uv_timer_init(&c->loop, &c->timer) == 0);
    c->timer.data = c;
    struct status s = pki_check(ca, cert, key, (int64_t)time(NULL), msg);
    if (status_is_ok(s)) {
        s = pki_identity_of(cert, &c->own, NULL, msg);
    }
    const struct tls_identity own = {.ca_pem = ca, .cert_pem = cert, .key_pem = key};
    const struct link_events events = {.data = c,
                                       .on_open = on_open,
                                       .on_message = on_message,
                                       .on_close = on_close,
                                       .on_dial_failed = on_dial_failed};
    const struct link_limits limits = {.redial_ms_min = 20, .redial_ms_max = 200};
    if (status_is_ok(s)) {
        s = link_hub_open(&c->hub, &c->loop, &own, &limits, &events, msg);
    }
    for (size_t i = 0; i < count && i < CLIENT_ADDRESSES_MAX && status_is_ok(s); i++) {
        (void)slot_for(c, addresses[i]);
    }
    if (status_is_ok(s)) {
        slot_dial(c, 0);
    }
    if (!status_is_ok(s)) {
        client_close(c);
        return s;
    }
    CHECK(uv_timer_start(&c->timer, on_timer, TICK_MS, TICK_MS) == 0);
    *out = c;
    return status_ok();
}

struct status client_open(struct client **out, const struct context *context, struct errmsg *msg)
{
    char *ca = NULL, *cert = NULL, *key = NULL;
    struct status s = pki_read(context->ca, false, &ca, msg);
    if (status_is_ok(s)) {
        s = pki_read(context->cert, false, &cert, msg);
    }
    if (status_is_ok(s)) {
        s = pki_read(context->key, true, &key, msg);
    }
    if (!status_is_ok(s)) {
        mem_free(ca);
        mem_free(cert);
        return status_prefix(msg, s, "context %s", context->name);
    }
    return open_with(out, ca, cert, key, (const char *const *)context->schedulers,
                     context->schedulers_count, msg);
}

struct status client_open_token(struct client **out, const struct pki_token *token,
                                struct errmsg *msg)
{
    const char *addresses[PKI_ADDRESSES_MAX];
    for (size_t i = 0; i < token->addresses_count; i++) {
        addresses[i] = token->addresses[i];
    }
    return open_with(out, mem_must(mem_strdup(token->ca_pem)),
                     mem_must(mem_strdup(token->cert_pem)), mem_must(mem_strdup(token->key_pem)),
                     addresses, token->addresses_count, msg);
}

/* ---- Exchanges ---- */

static struct status explain(struct client *c, struct errmsg *msg)
{
    if (!status_is_ok(c->outcome) && c->outcome.code == c->single.refused.code) {
        return status_fail(msg, c->outcome.code, "%s", c->refusal);
    }
    switch (c->outcome.code) {
    case STATUS_OK:
        return c->outcome;
    case STATUS_UNAVAILABLE:
        return status_fail(msg, STATUS_UNAVAILABLE, "no scheduler can be reached: %s",
                           c->failed[0] != '\0' ? c->failed : "no leader was elected in time");
    case STATUS_DENIED:
        return status_fail(msg, STATUS_DENIED, "refused by %s", c->failed);
    case STATUS_UNKNOWN:
        return status_fail(
            msg, STATUS_UNKNOWN,
            "the connection was lost before the answer came: it may have been done (%s)",
            c->failed);
    case STATUS_TIMEOUT:
        return status_fail(msg, STATUS_TIMEOUT, "no answer came in time");
    default:
        return status_fail(msg, c->outcome.code, "%s", c->failed);
    }
}

static struct status exchange(struct client *c, const struct message *m, uint64_t timeout_ms,
                              struct errmsg *msg)
{
    c->single = (struct ask){.request = ++c->request_last, .message = *m};
    c->single.message.request = c->single.request;
    c->retry_at_us = 0;
    c->deadline_us = now_us() + timeout_ms * 1000;
    c->waiting = true;
    c->finished = false;
    (void)send_ask(c, &c->single);
    while (!c->finished) {
        (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    }
    return explain(c, msg);
}

struct status client_ask(struct client *c, const struct message *m, uint32_t timeout_ms,
                         struct arena *a, struct message *answer, struct errmsg *msg)
{
    c->answer_arena = a;
    c->answer = answer;
    c->each = NULL;
    return exchange(c, m, timeout_ms, msg);
}

struct status client_follow(struct client *c, const struct message *m, client_each fn, void *data,
                            struct errmsg *msg)
{
    c->each = fn;
    c->each_data = data;
    struct status s = exchange(c, m, UINT64_C(365) * 24 * 3600 * 1000, msg);
    c->each = NULL;
    return s;
}

const char *client_server(const struct client *c)
{
    return c->servers[c->preferred].address;
}

void client_pause(struct client *c, uint32_t ms)
{
    uint64_t until_us = now_us() + (uint64_t)ms * 1000;
    while (now_us() < until_us) {
        (void)uv_run(&c->loop, UV_RUN_ONCE); /* The timer wakes it every TICK_MS. */
    }
}

struct status client_load_run(struct client *c, const struct client_load *load, struct errmsg *msg)
{
    CHECK(load->outstanding > 0);
    CHECK(load->outstanding <= CLIENT_INFLIGHT_MAX);
    c->asks = mem_must(mem_zalloc(load->outstanding, sizeof *c->asks));
    c->load = load;
    c->load_ended = false;
    c->inflight = 0;
    c->unsent = 0;
    c->single = (struct ask){.request = 0};
    c->deadline_us = load->until_us == UINT64_MAX
                         ? UINT64_MAX
                         : load->until_us + (uint64_t)CLIENT_REQUEST_MS * 1000;
    c->waiting = true;
    c->finished = false;
    load_fill(c);
    while (!c->finished) {
        (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    }
    c->load = NULL;
    mem_free(c->asks);
    c->asks = NULL;
    return explain(c, msg);
}

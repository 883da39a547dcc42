#include "tests/component/payloads/schedulers.h"

#include "common/check.h"
#include "common/hash.h"

#include <time.h>

enum { WAIT_MS = 20000, PATTERN_MAX = 5 << 20, REST_ROUNDS = 60 };

/* ---- Peers: an open connection to a node; another one after each of its starts ---- */

static uint64_t node_peer(const struct node *n)
{
    return NODE + n->index + NODES * n->starts;
}

static struct node *peer_node(struct world *w, uint64_t peer)
{
    return &w->nodes[(peer - NODE) % NODES];
}

static bool node_peer_open(struct world *w, uint64_t peer)
{
    const struct node *n = peer_node(w, peer);
    return n->up && node_peer(n) == peer;
}

/* ---- The environment ---- */

static uint64_t env_now(void *data)
{
    const struct node *n = data;
    return uv_hrtime() / 1000 + n->world->skew_us;
}

static bool env_leader(void *data)
{
    return ((struct node *)data)->leader;
}

static bool env_settled(void *data)
{
    return ((struct node *)data)->settled;
}

static size_t env_majority(void *data)
{
    const struct world *w = ((struct node *)data)->world;
    size_t voters = 0;
    for (size_t i = 0; i < w->count; i++) {
        voters += w->voter[i];
    }
    return voters / 2 + 1;
}

static size_t env_others(void *data, struct payloads_other out[PAYLOADS_OTHERS_MAX])
{
    const struct node *n = data;
    size_t count = 0;
    for (size_t i = 0; i < n->world->count; i++) {
        if (i != n->index) {
            const struct node *other = &n->world->nodes[i];
            out[count++] = (struct payloads_other){.member = i + 1,
                                                   .peer = other->up ? node_peer(other) : 0,
                                                   .voter = n->world->voter[i]};
        }
    }
    return count;
}

static bool env_peer_open(void *data, uint64_t peer)
{
    struct world *w = ((struct node *)data)->world;
    return peer == USER ? !w->user_gone
                        : (peer == AGENT ? !w->agent_gone : node_peer_open(w, peer));
}

static uint64_t env_peer_queued(void *data, uint64_t peer)
{
    (void)peer;
    return ((struct node *)data)->queued;
}

static void told_add(struct told *list, size_t *count, uint64_t peer, const struct message *m)
{
    struct buffer bytes = {0};
    struct errmsg msg = {""};
    assert_true(*count < TOLD_MAX);
    struct told *t = &list[*count];
    *t = (struct told){.peer = peer};
    assert_true(status_is_ok(message_encode(m, &bytes)));
    assert_true(
        status_is_ok(message_decode(bytes_of(bytes.data, bytes.size), &t->arena, &t->m, &msg)));
    buffer_close(&bytes);
    (*count)++;
}

static void env_send(void *data, uint64_t peer, const struct message *m)
{
    struct node *n = data;
    if (peer == USER || peer == AGENT) {
        told_add(n->clients, &n->clients_count, peer, m);
        return;
    }
    struct message sent = *m;
    if (n->world->mute && m->type == MESSAGE_PAYLOAD_DATA) {
        n->world->mute = false;
        return;
    }
    if (n->world->lie && m->type == MESSAGE_PAYLOAD_DATA) {
        n->world->lie = false;
        sent.payload_data.data = bytes_of("not it", 6);
    }
    struct mail *mail = mem_must(mem_zalloc(1, sizeof *mail));
    mail->from = node_peer(n);
    mail->to = peer;
    assert_true(status_is_ok(message_encode(&sent, &mail->bytes)));
    DL_APPEND(n->world->mails, mail);
}

static void env_core(void *data, uint64_t peer, const struct message *m)
{
    struct node *n = data;
    told_add(n->core, &n->core_count, peer, m);
}

static const char *env_leader_address(void *data)
{
    (void)data;
    return "leader:1";
}

static enum payloads_class env_class(void *data, const char *function)
{
    (void)data;
    return strcmp(function, "phi") == 0
               ? PAYLOADS_SENSITIVE
               : (strcmp(function, "echo") == 0 ? PAYLOADS_ORDINARY : PAYLOADS_UNKNOWN);
}

static bool env_sensitive(void *data, struct id128 invocation)
{
    (void)data;
    return invocation.low == 7;
}

static void env_each_named(void *data, void (*fn)(void *arg, const struct digest *payload),
                           void *arg)
{
    const struct node *n = data;
    for (size_t i = 0; i < n->named_count; i++) {
        fn(arg, &n->named[i]);
    }
}

/* ---- Nodes ---- */

void node_start(struct node *n)
{
    static const struct payloads_env env = {.now_us = env_now,
                                            .leader = env_leader,
                                            .settled = env_settled,
                                            .majority = env_majority,
                                            .others = env_others,
                                            .peer_open = env_peer_open,
                                            .peer_queued = env_peer_queued,
                                            .send = env_send,
                                            .core = env_core,
                                            .leader_address = env_leader_address,
                                            .function_class = env_class,
                                            .invocation_sensitive = env_sensitive,
                                            .each_named = env_each_named};
    struct errmsg msg = {""};
    struct payloads_env own = env;
    own.data = n;
    n->store_config.folder = n->path;
    assert_true(status_is_ok(payload_store_open(&n->store, &n->store_config, &msg)));
    n->payloads = payloads_new(&n->world->loop, n->store, &own, &n->config);
    assert_non_null(n->payloads);
    n->up = true;
    n->starts++;
}

static void on_closed(void *data)
{
    struct node *n = data;
    n->payloads = NULL;
}

void node_stop(struct node *n)
{
    n->up = false;
    payloads_close(n->payloads, on_closed, n);
    while (n->payloads != NULL) {
        (void)uv_run(&n->world->loop, UV_RUN_ONCE);
    }
    payload_store_close(n->store);
    n->store = NULL;
}

static void mail_free(struct world *w, struct mail *mail)
{
    DL_DELETE(w->mails, mail);
    buffer_close(&mail->bytes);
    mem_free(mail);
}

static void deliver(struct world *w)
{
    while (w->mails != NULL && !w->hold) {
        struct mail *mail = w->mails;
        struct arena arena = {0};
        struct message m;
        struct errmsg msg = {""};
        assert_true(status_is_ok(
            message_decode(bytes_of(mail->bytes.data, mail->bytes.size), &arena, &m, &msg)));
        if (node_peer_open(w, mail->to) && node_peer_open(w, mail->from)) {
            payloads_receive(peer_node(w, mail->to)->payloads, mail->from, &m);
        }
        arena_close(&arena);
        mail_free(w, mail);
    }
}

static void round_once(struct world *w)
{
    (void)uv_run(&w->loop, UV_RUN_ONCE);
    deliver(w);
    for (size_t i = 0; i < w->count; i++) {
        if (w->nodes[i].up) {
            payloads_tick(w->nodes[i].payloads);
        }
    }
}

void world_until(struct world *w, bool (*condition)(void *data), void *data)
{
    uint64_t end = uv_hrtime() + (uint64_t)WAIT_MS * 1000000;
    while (!condition(data)) {
        assert_true(uv_hrtime() < end);
        round_once(w);
    }
}

void world_rest(struct world *w)
{
    for (int i = 0; i < REST_ROUNDS; i++) {
        round_once(w);
    }
}

void world_skip_ms(struct world *w, uint64_t ms)
{
    w->skew_us += ms * 1000;
}

static void on_timer(uv_timer_t *timer)
{
    (void)timer;
}

int world_setup(void **state)
{
    struct world *w = mem_must(mem_zalloc(1, sizeof *w));
    folder_open(&w->folder);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(uv_timer_init(&w->loop, &w->tick), 0);
    assert_int_equal(uv_timer_start(&w->tick, on_timer, 1, 1), 0);
    w->count = NODES;
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &w->nodes[i];
        char name[16];
        (void)snprintf(name, sizeof name, "s%zu", i);
        folder_path(&w->folder, name, n->path);
        n->world = w;
        n->index = i;
        n->leader = i == 0;
        n->settled = true;
        n->store_config.bytes_max = UINT64_C(1) << 30;
        w->voter[i] = true;
        node_start(n);
    }
    *state = w;
    return 0;
}

static void told_close(struct told *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        arena_close(&list[i].arena);
    }
}

int world_teardown(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &w->nodes[i];
        if (n->up) {
            node_stop(n);
        }
        told_close(n->core, n->core_count);
        told_close(n->clients, n->clients_count);
    }
    while (w->mails != NULL) {
        mail_free(w, w->mails);
    }
    uv_close((uv_handle_t *)&w->tick, NULL);
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    folder_close(&w->folder);
    mem_free(w);
    return 0;
}

/* ---- Payloads ---- */

struct bytes pattern(size_t size, uint8_t seed)
{
    static uint8_t data[PATTERN_MAX];
    assert_true(size <= sizeof data);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 31 + i / 251 + seed);
    }
    return bytes_of(data, size);
}

struct digest pattern_digest(size_t size, uint8_t seed)
{
    struct digest d;
    struct bytes part = pattern(size, seed);
    assert_true(status_is_ok(digest_of(&part, 1, &d)));
    return d;
}

bool node_has(struct node *n, const struct digest *d)
{
    return payload_store_has(n->store, d);
}

struct digest node_put(struct node *n, size_t size, uint8_t seed)
{
    struct digest d = pattern_digest(size, seed);
    struct errmsg msg = {""};
    assert_true(status_is_ok(payload_store_put(n->store, &d, pattern(size, seed), &msg)));
    return d;
}

void world_name(struct world *w, const struct digest *d)
{
    for (size_t i = 0; i < w->count; i++) {
        struct node *n = &w->nodes[i];
        assert_true(n->named_count < NAMED_MAX);
        n->named[n->named_count++] = *d;
        if (n->up) {
            payloads_named(n->payloads, d);
        }
    }
}

void world_drop(struct world *w, const struct digest *d)
{
    for (size_t i = 0; i < w->count; i++) {
        struct node *n = &w->nodes[i];
        for (size_t k = 0; k < n->named_count; k++) {
            if (digest_compare(&n->named[k], d) == 0) {
                n->named[k--] = n->named[--n->named_count];
            }
        }
        if (n->up) {
            payloads_dropped(n->payloads, d);
        }
    }
}

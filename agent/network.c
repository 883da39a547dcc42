#include "agent/network.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/net/revocations.h"
#include "proto/codec.h"
#include "proto/version.h"

#include <stdio.h>
#include <string.h>

#include <utlist.h>

/* A peer's handle: its slot, and a generation above it, so that a handle never means a later
 * peer. */
enum { SLOT_BITS = 8 };
static_assert(NETWORK_PEERS_MAX < 1 << SLOT_BITS, "a handle holds a slot");

struct peer {
    struct link *link; /* NULL: free */
    uint64_t handle;
    bool open; /* hellos exchanged */
};

struct dial {
    char *address;
    struct peer *peer; /* connected now, or NULL */
};

struct request {
    uint64_t number;
    uint64_t peer;
    uint64_t due_ms;
    network_answer answer;
    void *data;
    struct request *prev, *next; /* oldest first */
};

struct network {
    uv_loop_t *loop;
    struct link_hub *hub;
    struct network_events events;
    struct revocations *revoked;
    size_t revoked_count;
    struct peer peers[NETWORK_PEERS_MAX];
    struct dial dials[NETWORK_DIALS_MAX]; /* address NULL: free; the index is the link's tag */
    uint64_t generation;
    struct request *requests;
    size_t requests_count;
    uint64_t number_last;
    struct arena arena;    /* of the message being handled */
    struct buffer scratch; /* of the message being sent */
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

static struct peer *peer_of(const struct network *n, uint64_t handle)
{
    uint64_t slot = handle & ((1 << SLOT_BITS) - 1);
    if (slot >= NETWORK_PEERS_MAX || n->peers[slot].link == NULL ||
        n->peers[slot].handle != handle) {
        return NULL;
    }
    return (struct peer *)(uintptr_t)&n->peers[slot];
}

static bool peer_send(struct network *n, struct link *link, const struct message *m)
{
    n->scratch.size = 0;
    struct status s = message_encode(m, &n->scratch);
    if (!status_is_ok(s)) {
        return false;
    }
    const struct bytes part = bytes_of(n->scratch.data, n->scratch.size);
    s = link_send(link, &part, 1);
    /* A payload's size is not kept for good. */
    if (n->scratch.capacity > CHUNK_BYTES_MAX) {
        buffer_close(&n->scratch);
    }
    return status_is_ok(s);
}

bool network_send(struct network *n, uint64_t peer, const struct message *m)
{
    const struct peer *p = peer_of(n, peer);
    return p != NULL && p->open && peer_send(n, p->link, m);
}

void network_drop(struct network *n, uint64_t peer, const char *reason)
{
    const struct peer *p = peer_of(n, peer);
    if (p != NULL) {
        link_close(p->link, false, reason);
    }
}

/* ---- Requests ---- */

static void request_end(struct network *n, struct request *r, struct status s,
                        const struct message *m)
{
    DL_DELETE(n->requests, r);
    n->requests_count--;
    r->answer(r->data, s, m);
    mem_free(r);
}

static struct request *request_find(const struct network *n, uint64_t number, uint64_t peer)
{
    struct request *r;
    DL_FOREACH(n->requests, r) {
        if (r->number == number && r->peer == peer) {
            return r;
        }
    }
    return NULL;
}

struct status network_ask(struct network *n, uint64_t peer, struct message *m,
                          network_answer answer, void *data)
{
    if (n->closing) {
        return status_of(STATUS_UNAVAILABLE);
    }
    if (n->requests_count >= NETWORK_REQUESTS_MAX) {
        return status_of(STATUS_LIMIT);
    }
    struct request *r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        return status_of(STATUS_NOMEM);
    }
    m->request = ++n->number_last;
    if (!network_send(n, peer, m)) {
        mem_free(r);
        return status_of(STATUS_UNAVAILABLE);
    }
    *r = (struct request){.number = m->request,
                          .peer = peer,
                          .due_ms = uv_now(n->loop) + NETWORK_REQUEST_MS,
                          .answer = answer,
                          .data = data};
    DL_APPEND(n->requests, r);
    n->requests_count++;
    return status_ok();
}

void network_tick(struct network *n)
{
    while (n->requests != NULL && n->requests->due_ms <= uv_now(n->loop)) {
        request_end(n, n->requests, status_of(STATUS_TIMEOUT), NULL);
    }
}

static void requests_fail(struct network *n, uint64_t peer)
{
    for (struct request *r = n->requests; r != NULL;) {
        if (r->peer == peer) {
            request_end(n, r, status_of(STATUS_UNAVAILABLE), NULL);
            r = n->requests; /* the answer may have asked anew */
        } else {
            r = r->next;
        }
    }
}

/* ---- Peers ---- */

static void hello_take(struct network *n, struct peer *p, const struct hello *h)
{
    char peer[sizeof "scheduler " + NAME_BYTES_MAX];
    struct errmsg msg = {{0}};
    (void)snprintf(peer, sizeof peer, "scheduler %s", link_peer(p->link)->name.text);
    if (!status_is_ok(version_check("this agent", peer, h, &msg))) {
        LOG_WARN("scheduler refused", LOG_STR("scheduler", link_peer(p->link)->name.text),
                 LOG_STR("address", link_address(p->link)), LOG_STR("why", msg.text));
        link_close(p->link, true, "no common protocol version");
        return;
    }
    if (p->open) {
        return;
    }
    p->open = true;
    LOG_INFO("scheduler connected", LOG_STR("scheduler", link_peer(p->link)->name.text),
             LOG_STR("address", link_address(p->link)), LOG_STR("build", h->build));
    n->events.peer_open(n->events.data, p->handle, link_peer(p->link)->name.text);
}

static void on_open(void *data, struct link *l)
{
    struct network *n = data;
    struct peer *p = NULL;
    uint64_t slot = 0;
    for (; slot < NETWORK_PEERS_MAX; slot++) {
        if (n->peers[slot].link == NULL) {
            p = &n->peers[slot];
            break;
        }
    }
    if (p == NULL) {
        link_close(l, false, "too many connections");
        return;
    }
    *p = (struct peer){.link = l, .handle = ++n->generation << SLOT_BITS | slot};
    link_set_data(l, p);
    if (link_tag(l) < NETWORK_DIALS_MAX) {
        n->dials[link_tag(l)].peer = p;
    }
    const struct message m = {
        .type = MESSAGE_HELLO,
        .hello = {.version_min = version_own.min,
                  .version_max = version_own.max,
                  .build = SKEP_VERSION},
    };
    if (!peer_send(n, l, &m)) {
        link_close(l, false, "hello could not be sent");
    }
}

static void on_message(void *data, struct link *l, struct bytes payload)
{
    struct network *n = data;
    struct peer *p = link_data(l);
    if (p == NULL || n->closing) {
        return;
    }
    struct message m;
    struct errmsg msg = {{0}};
    struct status s = message_decode(payload, &n->arena, &m, &msg);
    if (!status_is_ok(s)) {
        LOG_WARN("message refused", LOG_STR("scheduler", link_peer(l)->name.text),
                 LOG_STR("why", msg.text));
        if (s.code != STATUS_UNSUPPORTED) {
            link_close(l, false, "malformed message");
        }
    } else if (m.type == MESSAGE_HELLO) {
        hello_take(n, p, &m.hello);
    } else if (p->open) {
        struct request *r =
            m.request != 0 && n->requests != NULL ? request_find(n, m.request, p->handle) : NULL;
        if (r != NULL) {
            request_end(n, r, status_ok(), &m);
        } else {
            n->events.message(n->events.data, p->handle, &m);
        }
    }
    arena_reset(&n->arena);
}

static void on_close(void *data, struct link *l, struct status why, const char *reason)
{
    struct network *n = data;
    struct peer *p = link_data(l);
    if (p == NULL) {
        return;
    }
    for (size_t i = 0; i < NETWORK_DIALS_MAX; i++) {
        if (n->dials[i].peer == p) {
            n->dials[i].peer = NULL;
        }
    }
    uint64_t handle = p->handle;
    bool open = p->open;
    *p = (struct peer){0};
    if (n->closing) {
        return;
    }
    LOG_INFO("scheduler connection closed", LOG_STR("scheduler", link_peer(l)->name.text),
             LOG_STR("status", status_name(why.code)), LOG_STR("why", reason));
    requests_fail(n, handle);
    if (open) {
        n->events.peer_close(n->events.data, handle, link_peer(l)->name.text);
    }
}

static void on_dial_failed(void *data, const char *address, struct status why, const char *reason)
{
    (void)data;
    LOG_DEBUG("scheduler not reached", LOG_STR("address", address),
              LOG_STR("status", status_name(why.code)), LOG_STR("why", reason));
}

static bool on_allow(void *data, const struct identity *peer)
{
    struct network *n = data;
    return peer->role == ROLE_SCHEDULER && !revocations_hit(n->revoked, peer);
}

/* ---- Who the schedulers are ---- */

struct status network_dial(struct network *n, const char *address, struct errmsg *msg)
{
    size_t at = NETWORK_DIALS_MAX;
    for (size_t i = 0; i < NETWORK_DIALS_MAX; i++) {
        if (n->dials[i].address == NULL) {
            at = at == NETWORK_DIALS_MAX ? i : at;
        } else if (strcmp(n->dials[i].address, address) == 0) {
            return status_ok();
        }
    }
    if (at == NETWORK_DIALS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "more than %d schedulers", NETWORK_DIALS_MAX);
    }
    char *copy = mem_strdup(address);
    if (copy == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    const struct identity expect = {.role = ROLE_SCHEDULER};
    struct status s = link_hub_dial(n->hub, address, &expect, at, msg);
    if (!status_is_ok(s)) {
        mem_free(copy);
        return s;
    }
    n->dials[at] = (struct dial){.address = copy};
    return status_ok();
}

static const struct pair *named(const struct pair *schedulers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(schedulers[i].key, name) == 0) {
            return &schedulers[i];
        }
    }
    return NULL;
}

static bool has_address(const struct pair *schedulers, size_t count, const char *address)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(schedulers[i].value, address) == 0) {
            return true;
        }
    }
    return false;
}

/* A connection that reaches a scheduler of the list stays, by whatever address: what the leader
 * advertises may not be reachable from here. */
static bool dial_wanted(const struct dial *d, const struct pair *schedulers, size_t count)
{
    if (d->peer != NULL) {
        return named(schedulers, count, link_peer(d->peer->link)->name.text) != NULL;
    }
    return has_address(schedulers, count, d->address);
}

static bool is_connected(const struct network *n, const char *name)
{
    for (size_t i = 0; i < NETWORK_DIALS_MAX; i++) {
        const struct dial *d = &n->dials[i];
        if (d->address != NULL && d->peer != NULL &&
            strcmp(link_peer(d->peer->link)->name.text, name) == 0) {
            return true;
        }
    }
    return false;
}

void network_learn(struct network *n, const struct pair *schedulers, size_t count)
{
    if (count == 0) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct errmsg msg = {{0}};
        if (!is_connected(n, schedulers[i].key) &&
            !status_is_ok(network_dial(n, schedulers[i].value, &msg))) {
            LOG_WARN("cannot dial a scheduler", LOG_STR("scheduler", schedulers[i].key),
                     LOG_STR("why", msg.text));
        }
    }
    for (size_t i = 0; i < NETWORK_DIALS_MAX; i++) {
        struct dial *d = &n->dials[i];
        if (d->address == NULL || dial_wanted(d, schedulers, count)) {
            continue;
        }
        LOG_INFO("scheduler let go", LOG_STR("address", d->address));
        char *address = d->address;
        d->address = NULL;
        d->peer = NULL;
        link_hub_undial(n->hub, address, i);
        mem_free(address);
    }
}

static void close_revoked(void *arg, struct link *l)
{
    struct network *n = arg;
    if (revocations_hit(n->revoked, link_peer(l))) {
        link_close(l, false, "revoked");
    }
}

void network_revoke(struct network *n, const struct text *items, size_t count)
{
    if (count == 0 && n->revoked_count == 0) {
        return;
    }
    const char **what = count > NETWORK_REVOKED_MAX ? NULL : mem_zalloc(count, sizeof *what);
    struct status s = status_of(STATUS_NOMEM);
    if (what != NULL) {
        for (size_t i = 0; i < count; i++) {
            what[i] = items[i].text;
        }
        s = revocations_set(n->revoked, what, count);
        mem_free(what);
    }
    if (!status_is_ok(s)) {
        LOG_ERROR("cannot keep the list of revocations", LOG_UINT("count", count));
        return;
    }
    n->revoked_count = count;
    link_hub_each(n->hub, close_revoked, n);
}

/* ---- The rest ---- */

uint64_t network_queued(const struct network *n, uint64_t peer)
{
    const struct peer *p = peer_of(n, peer);
    return p == NULL ? 0 : link_queued_bytes(p->link);
}

uint64_t network_turn(const struct network *n, uint32_t turn)
{
    size_t count = network_peers_count(n);
    size_t left = count == 0 ? 0 : turn % count;
    for (size_t i = 0; i < NETWORK_PEERS_MAX && count > 0; i++) {
        if (n->peers[i].open && left-- == 0) {
            return n->peers[i].handle;
        }
    }
    return 0;
}

uint64_t network_any(const struct network *n)
{
    for (size_t i = 0; i < NETWORK_PEERS_MAX; i++) {
        if (n->peers[i].open) {
            return n->peers[i].handle;
        }
    }
    return 0;
}

size_t network_peers_count(const struct network *n)
{
    size_t count = 0;
    for (size_t i = 0; i < NETWORK_PEERS_MAX; i++) {
        count += n->peers[i].open;
    }
    return count;
}

struct link_stats network_stats(const struct network *n)
{
    return link_hub_stats(n->hub);
}

struct status network_renew(struct network *n, const struct tls_identity *own, struct errmsg *msg)
{
    return link_hub_renew(n->hub, own, msg);
}

struct status network_open(struct network **out, uv_loop_t *loop, const struct tls_identity *own,
                           const struct network_events *events, struct errmsg *msg)
{
    struct network *n = mem_zalloc(1, sizeof *n);
    if (n == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    n->loop = loop;
    n->events = *events;
    n->arena.bytes_max = 64 << 20;
    n->revoked = revocations_new();
    if (n->revoked == NULL) {
        mem_free(n);
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    const struct link_events link = {
        .data = n,
        .on_open = on_open,
        .on_message = on_message,
        .on_close = on_close,
        .on_dial_failed = on_dial_failed,
        .allow = on_allow,
    };
    const struct link_limits limits = {0};
    struct status s = link_hub_open(&n->hub, loop, own, &limits, &link, msg);
    if (!status_is_ok(s)) {
        revocations_free(n->revoked);
        mem_free(n);
        return s;
    }
    *out = n;
    return status_ok();
}

static void on_hub_closed(void *data)
{
    struct network *n = data;
    void (*closed)(void *data) = n->closed;
    void *closed_data = n->closed_data;
    for (size_t i = 0; i < NETWORK_DIALS_MAX; i++) {
        mem_free(n->dials[i].address);
    }
    arena_close(&n->arena);
    buffer_close(&n->scratch);
    revocations_free(n->revoked);
    mem_free(n);
    closed(closed_data);
}

void network_close(struct network *n, void (*closed)(void *data), void *data)
{
    n->closing = true;
    n->closed = closed;
    n->closed_data = data;
    while (n->requests != NULL) {
        request_end(n, n->requests, status_of(STATUS_CANCELED), NULL);
    }
    link_hub_close(n->hub, on_hub_closed, n);
}

#include "simulations/network.h"

#include "common/hash.h"

#include <string.h>

enum {
    DEAD_MS = 3000, /* a link's patience with a silent peer */
    HANDSHAKE_MS = 5000,
    REDIAL_MS_MIN = 50,
    REDIAL_MS_MAX = 2000,
};

enum frame_kind { FRAME_HELLO, FRAME_DATA, FRAME_CLOSE };

struct frame {
    struct frame *prev, *next;
    uint64_t due_us;
    enum frame_kind kind;
    size_t size;
    uint8_t data[];
};

/* One direction of a connection, from end[side] to the other. */
struct stream {
    struct frame *frames;
    uint64_t last_due_us;
    bool scheduled; /* an event for the first frame is on its way */
    bool stalled;   /* the first frame waits for the end of a partition */
    bool shut;      /* takes nothing more */
};

struct end {
    struct endpoint *endpoint;
    uint64_t epoch;
    bool open, closed;
};

/* end[0] has dialled. Connections stay until the world ends, so that events may name them. */
struct connection {
    struct network *network;
    uint64_t number;
    struct end end[2];
    struct stream stream[2];
    struct dial *dial;
    struct connection *prev, *next; /* of those that are not closed at both ends */
    bool live;
};

struct dial {
    struct network *network;
    struct endpoint *from, *to;
    uint64_t epoch;
    uint32_t failures;
    struct dial *next;
};

struct packet {
    struct network *network;
    struct endpoint *from, *to;
    uint64_t to_epoch;
    size_t size;
    struct packet *prev, *next;
    uint8_t data[];
};

struct network {
    struct world *world;
    struct endpoint endpoints[ENDPOINTS_MAX];
    uint32_t endpoints_count;
    struct connection **connections;
    uint64_t connections_count, connections_capacity;
    struct connection *live;
    struct dial *dials;
    struct packet *packets;
    uint64_t blocked[ENDPOINTS_MAX][ENDPOINTS_MAX]; /* 0: open; else which block this is */
    uint64_t blocks;
    uint32_t lost, doubled, late; /* of a thousand packets */
};

struct network *network_new(struct world *w)
{
    struct network *n = mem_must(mem_zalloc(1, sizeof *n));
    n->world = w;
    return n;
}

static void frames_drop(struct stream *s, size_t keep)
{
    struct frame *f, *next;
    DL_FOREACH_SAFE(s->frames, f, next) {
        if (keep > 0) {
            keep--;
            continue;
        }
        DL_DELETE(s->frames, f);
        mem_free(f);
    }
}

void network_free(struct network *n)
{
    for (uint64_t i = 0; i < n->connections_count; i++) {
        frames_drop(&n->connections[i]->stream[0], 0);
        frames_drop(&n->connections[i]->stream[1], 0);
        mem_free(n->connections[i]);
    }
    mem_free(n->connections);
    struct packet *p, *next;
    DL_FOREACH_SAFE(n->packets, p, next) {
        mem_free(p);
    }
    while (n->dials != NULL) {
        struct dial *d = n->dials;
        n->dials = d->next;
        mem_free(d);
    }
    mem_free(n);
}

struct endpoint *network_endpoint(struct network *n, const char *name, enum role role,
                                  const struct endpoint_events *events, void *owner)
{
    CHECK(n->endpoints_count < ENDPOINTS_MAX);
    struct endpoint *e = &n->endpoints[n->endpoints_count];
    e->number = n->endpoints_count++;
    (void)snprintf(e->name, sizeof e->name, "%s", name);
    e->role = role;
    e->events = *events;
    e->owner = owner;
    return e;
}

bool endpoint_paused(const struct network *n, const struct endpoint *e)
{
    return e->paused_until_us > world_now(n->world);
}

static bool is_blocked(const struct network *n, const struct endpoint *from,
                       const struct endpoint *to)
{
    return n->blocked[from->number][to->number] != 0;
}

/* A machine room's delays, with a long tail. */
static uint64_t delay_us(struct world *w)
{
    return world_chance(w, 10) ? world_between(w, 1000, 40000) : world_between(w, 80, 600);
}

/* ---- Streams ---- */

static void deliver(struct world *w, void *data, uint64_t side);
static void end_close(struct connection *c, int side);

static void stream_schedule(struct connection *c, int side)
{
    struct stream *s = &c->stream[side];
    if (s->scheduled || s->stalled || s->frames == NULL) {
        return;
    }
    struct world *w = c->network->world;
    uint64_t now = world_now(w);
    s->scheduled = true;
    world_at(w, s->frames->due_us > now ? s->frames->due_us : now, deliver, c, (uint64_t)side);
}

static void push(struct connection *c, int side, enum frame_kind kind, struct bytes payload)
{
    struct stream *s = &c->stream[side];
    if (s->shut) {
        return;
    }
    struct world *w = c->network->world;
    struct frame *f = mem_must(mem_zalloc(1, sizeof *f + payload.size));
    f->kind = kind;
    f->size = payload.size;
    if (payload.size > 0) {
        memcpy(f->data, payload.data, payload.size);
    }
    f->due_us =
        world_now(w) + delay_us(w) + c->end[0].endpoint->lag_us + c->end[1].endpoint->lag_us;
    if (f->due_us < s->last_due_us) {
        f->due_us = s->last_due_us;
    }
    s->last_due_us = f->due_us;
    s->shut = kind == FRAME_CLOSE;
    DL_APPEND(s->frames, f);
    stream_schedule(c, side);
}

static uint64_t handle_of(const struct connection *c, int side)
{
    return (c->number << 1 | (uint64_t)side) + 2;
}

static void take_frame(struct connection *c, int to, const struct frame *f)
{
    struct end *e = &c->end[to];
    struct endpoint *peer = c->end[1 - to].endpoint;
    if (e->closed) {
        return;
    }
    const struct endpoint_events *events = &e->endpoint->events;
    switch (f->kind) {
    case FRAME_HELLO:
        e->open = true;
        if (to == 1) {
            push(c, 1, FRAME_HELLO, bytes_of(NULL, 0));
        } else {
            c->dial->failures = 0;
        }
        world_trace(c->network->world, "%s opened to %s", e->endpoint->name, peer->name);
        events->opened(events->data, handle_of(c, to), peer);
        break;
    case FRAME_DATA:
        CHECK(e->open);
        events->message(events->data, handle_of(c, to), peer, bytes_of(f->data, f->size));
        break;
    case FRAME_CLOSE:
        end_close(c, to);
        break;
    }
}

static void deliver(struct world *w, void *data, uint64_t side_arg)
{
    (void)w;
    struct connection *c = data;
    int side = (int)side_arg;
    struct stream *s = &c->stream[side];
    s->scheduled = false;
    struct frame *f = s->frames;
    if (f == NULL) {
        return;
    }
    if (is_blocked(c->network, c->end[side].endpoint, c->end[1 - side].endpoint) ||
        endpoint_paused(c->network, c->end[1 - side].endpoint)) {
        s->stalled = true;
        return;
    }
    if (f->due_us > world_now(c->network->world)) {
        stream_schedule(c, side); /* what this event was for has been dropped */
        return;
    }
    DL_DELETE(s->frames, f);
    take_frame(c, 1 - side, f);
    mem_free(f);
    stream_schedule(c, side);
}

/* ---- Dialling ---- */

static void dial_try(struct world *w, void *data, uint64_t epoch);

static void dial_again(struct dial *d)
{
    struct world *w = d->network->world;
    uint64_t most = REDIAL_MS_MIN;
    for (uint32_t k = 0; k < d->failures && most < REDIAL_MS_MAX; k++) {
        most *= 2;
    }
    d->failures++;
    world_after(w, world_between(w, REDIAL_MS_MIN / 2, most) * MS_US, dial_try, d, d->epoch);
}

static void handshake_late(struct world *w, void *data, uint64_t arg)
{
    (void)w;
    (void)arg;
    struct connection *c = data;
    if (!c->end[0].open) {
        end_close(c, 0);
    }
}

static void dial_try(struct world *w, void *data, uint64_t epoch)
{
    struct dial *d = data;
    struct network *n = d->network;
    if (!d->from->up || d->from->epoch != epoch) {
        return;
    }
    if (!d->to->up) {
        dial_again(d);
        return;
    }
    if (n->connections_count == n->connections_capacity) {
        n->connections_capacity = n->connections_capacity == 0 ? 256 : 2 * n->connections_capacity;
        n->connections = mem_must(
            mem_realloc(n->connections, n->connections_capacity * sizeof(struct connection *)));
    }
    struct connection *c = mem_must(mem_zalloc(1, sizeof *c));
    *c = (struct connection){.network = n,
                             .number = n->connections_count,
                             .end = {{.endpoint = d->from, .epoch = d->from->epoch},
                                     {.endpoint = d->to, .epoch = d->to->epoch}},
                             .dial = d,
                             .live = true};
    n->connections[n->connections_count++] = c;
    DL_APPEND(n->live, c);
    push(c, 0, FRAME_HELLO, bytes_of(NULL, 0));
    world_after(w, HANDSHAKE_MS * MS_US, handshake_late, c, 0);
}

void network_dial(struct network *n, struct endpoint *from, struct endpoint *to)
{
    struct dial *d = mem_must(mem_zalloc(1, sizeof *d));
    *d =
        (struct dial){.network = n, .from = from, .to = to, .epoch = from->epoch, .next = n->dials};
    n->dials = d;
    world_after(n->world, delay_us(n->world), dial_try, d, d->epoch);
}

/* ---- Closing ---- */

static void leave_live(struct connection *c)
{
    if (c->live && c->end[0].closed && c->end[1].closed) {
        c->live = false;
        DL_DELETE(c->network->live, c);
    }
}

/* This end learns that the connection is over: it tells its owner, and the other end learns
 * later. */
static void end_close(struct connection *c, int side)
{
    struct end *e = &c->end[side];
    if (e->closed) {
        return;
    }
    bool was_open = e->open;
    e->open = false;
    e->closed = true;
    push(c, side, FRAME_CLOSE, bytes_of(NULL, 0));
    if (was_open) {
        world_trace(c->network->world, "%s closed to %s", e->endpoint->name,
                    c->end[1 - side].endpoint->name);
        e->endpoint->events.closed(e->endpoint->events.data, handle_of(c, side));
    }
    if (side == 0 && e->endpoint->up && e->endpoint->epoch == e->epoch) {
        dial_again(c->dial);
    }
    leave_live(c);
}

static void end_dead(struct world *w, void *data, uint64_t side)
{
    (void)w;
    end_close(data, (int)side);
}

/* A random part of what is under way still arrives. */
static void cut(struct connection *c, int side, bool silently)
{
    struct stream *s = &c->stream[side];
    struct world *w = c->network->world;
    int count;
    struct frame *f;
    DL_COUNT(s->frames, f, count);
    if (s->shut) {
        return;
    }
    frames_drop(s, (size_t)world_below(w, (uint64_t)count + 1));
    if (silently) {
        s->shut = true;
        world_after(w, world_between(w, DEAD_MS, DEAD_MS + 1000) * MS_US, end_dead, c,
                    (uint64_t)(1 - side));
    } else {
        push(c, side, FRAME_CLOSE, bytes_of(NULL, 0));
    }
}

void network_up(struct network *n, struct endpoint *e)
{
    (void)n;
    CHECK(!e->up);
    e->up = true;
    e->paused_until_us = 0;
    e->epoch++;
}

void network_down(struct network *n, struct endpoint *e, bool silently)
{
    CHECK(e->up);
    e->up = false;
    e->paused_until_us = 0;
    e->epoch++;
    struct connection *c, *next;
    DL_FOREACH_SAFE(n->live, c, next) {
        for (int side = 0; side < 2; side++) {
            if (c->end[side].endpoint == e && !c->end[side].closed) {
                c->end[side].open = false;
                c->end[side].closed = true;
                frames_drop(&c->stream[1 - side], 0);
                cut(c, side, silently);
            }
        }
        leave_live(c);
    }
}

void network_reset_one(struct network *n)
{
    struct connection *c;
    int count;
    DL_COUNT(n->live, c, count);
    if (count == 0) {
        return;
    }
    uint64_t at = world_below(n->world, (uint64_t)count);
    c = n->live;
    while (at-- > 0) {
        c = c->next;
    }
    world_trace(n->world, "reset %s %s", c->end[0].endpoint->name, c->end[1].endpoint->name);
    cut(c, 0, false);
    cut(c, 1, false);
}

/* ---- Sending ---- */

bool network_send(struct network *n, uint64_t handle, struct bytes payload)
{
    if (handle < 2) {
        return false; /* nobody */
    }
    uint64_t number = (handle - 2) >> 1;
    CHECK(number < n->connections_count);
    struct connection *c = n->connections[number];
    int side = (int)((handle - 2) & 1);
    if (!c->end[side].open) {
        return false;
    }
    push(c, side, FRAME_DATA, payload);
    return true;
}

static void packet_arrive(struct world *w, void *data, uint64_t arg)
{
    (void)arg;
    struct packet *p = data;
    struct network *n = p->network;
    if (p->to->up && p->to->epoch == p->to_epoch && endpoint_paused(n, p->to)) {
        world_at(w, p->to->paused_until_us, packet_arrive, p, 0);
        return;
    }
    DL_DELETE(n->packets, p);
    if (p->to->up && p->to->epoch == p->to_epoch && !is_blocked(n, p->from, p->to)) {
        p->to->events.packet(p->to->events.data, p->from, bytes_of(p->data, p->size));
    } else {
        world_trace(w, "packet lost %s %s", p->from->name, p->to->name);
    }
    mem_free(p);
}

static void packet_send(struct network *n, struct endpoint *from, struct endpoint *to,
                        struct bytes payload)
{
    struct world *w = n->world;
    struct packet *p = mem_must(mem_zalloc(1, sizeof *p + payload.size));
    p->network = n;
    p->from = from;
    p->to = to;
    p->to_epoch = to->epoch;
    p->size = payload.size;
    memcpy(p->data, payload.data, payload.size);
    DL_APPEND(n->packets, p);
    uint64_t late_us = world_chance(w, n->late) ? world_between(w, 50, 3000) * MS_US : 0;
    world_after(w, delay_us(w) + late_us, packet_arrive, p, 0);
}

void network_packet(struct network *n, struct endpoint *from, struct endpoint *to,
                    struct bytes payload)
{
    if (!to->up || is_blocked(n, from, to) || world_chance(n->world, n->lost)) {
        return;
    }
    packet_send(n, from, to, payload);
    if (world_chance(n->world, n->doubled)) {
        packet_send(n, from, to, payload);
    }
}

/* ---- Partitions ---- */

/* Has this end heard nothing since? arg: which block it was. */
static void check_silence(struct world *w, void *data, uint64_t block)
{
    (void)w;
    struct connection *c = data;
    for (int side = 0; side < 2; side++) {
        const struct endpoint *from = c->end[1 - side].endpoint, *to = c->end[side].endpoint;
        if (c->network->blocked[from->number][to->number] == block) {
            end_close(c, side);
        }
    }
}

static void unblock_streams(struct network *n)
{
    struct connection *c;
    for (uint64_t i = 0; i < n->connections_count; i++) {
        c = n->connections[i];
        for (int side = 0; side < 2; side++) {
            struct stream *s = &c->stream[side];
            if (s->stalled && !is_blocked(n, c->end[side].endpoint, c->end[1 - side].endpoint) &&
                !endpoint_paused(n, c->end[1 - side].endpoint)) {
                s->stalled = false;
                stream_schedule(c, side);
            }
        }
    }
}

void network_block(struct network *n, struct endpoint *from, struct endpoint *to, bool blocked)
{
    if (is_blocked(n, from, to) == blocked) {
        return;
    }
    n->blocked[from->number][to->number] = blocked ? ++n->blocks : 0;
    if (!blocked) {
        unblock_streams(n);
        return;
    }
    struct connection *c;
    DL_FOREACH(n->live, c) {
        bool between = (c->end[0].endpoint == from && c->end[1].endpoint == to) ||
                       (c->end[0].endpoint == to && c->end[1].endpoint == from);
        if (between) {
            world_after(n->world, world_between(n->world, DEAD_MS, DEAD_MS + 1000) * MS_US,
                        check_silence, c, n->blocks);
        }
    }
}

void network_heal(struct network *n)
{
    memset(n->blocked, 0, sizeof n->blocked);
    n->lost = n->doubled = n->late = 0;
    for (uint32_t i = 0; i < n->endpoints_count; i++) {
        n->endpoints[i].lag_us = 0;
    }
    unblock_streams(n);
}

void network_loss(struct network *n, uint32_t lost, uint32_t doubled, uint32_t late)
{
    n->lost = lost;
    n->doubled = doubled;
    n->late = late;
}

/* ---- Pauses ---- */

static void pause_end(struct world *w, void *data, uint64_t epoch)
{
    struct endpoint *e = data;
    if (e->up && e->epoch == epoch) {
        world_trace(w, "%s goes on", e->name);
    }
    unblock_streams(w->network);
}

/* Its peers have not heard of it for too long. */
static void pause_noticed(struct world *w, void *data, uint64_t until_us)
{
    struct endpoint *e = data;
    if (!e->up || e->paused_until_us != until_us) {
        return;
    }
    struct connection *c, *next;
    DL_FOREACH_SAFE(w->network->live, c, next) {
        for (int side = 0; side < 2; side++) {
            if (c->end[side].endpoint == e) {
                end_close(c, 1 - side);
            }
        }
    }
}

void network_pause(struct network *n, struct endpoint *e, uint64_t for_us)
{
    struct world *w = n->world;
    CHECK(e->up && !endpoint_paused(n, e));
    world_trace(w, "%s is paused", e->name);
    e->paused_until_us = world_now(w) + for_us;
    world_at(w, e->paused_until_us, pause_end, e, e->epoch);
    uint64_t patience_us = world_between(w, DEAD_MS, DEAD_MS + 1000) * MS_US;
    if (patience_us < for_us) {
        world_after(w, patience_us, pause_noticed, e, e->paused_until_us);
    }
}

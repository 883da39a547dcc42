#include "simulations/spawners.h"

#include <inttypes.h>
#include <string.h>

enum {
    OUTSTANDING_MAX = 30, /* of one spawner */
    PATIENCE_MS = 15000,  /* links believe in silent peers for four seconds */
    RETRY_MS = 200,
    WAIT_MS_MAX = 3000,
    DEADLINE_MS_MIN = 3000,
    DEADLINE_MS_MAX = 20000,
    DELAY_MS_MAX = 8000,
    PAYLOAD_BYTES = 16,
};

enum request_kind { REQUEST_SPAWN, REQUEST_READ, REQUEST_CANCEL, REQUEST_REDRIVE };

#define NO_OPERATION SIZE_MAX

struct spawn_request {
    uint64_t number;
    enum request_kind kind;
    struct errand *errand;
    struct spawner *spawner;
    uint32_t hop;
    uint64_t handle; /* the connection it waits on, 0: none */
    bool answered;
    bool verify; /* at the end: must find a final outcome */
    uint32_t wait_ms;
    /* In the histories: of the invocation, and of its key. */
    size_t operation, key_operation;
};

struct spawner {
    struct spawners *all;
    char name[16];
    struct endpoint *endpoint;
    uint64_t handles[SCHEDULERS_MAX];
    uint32_t target;
    uint32_t outstanding;
    struct arena decode;
};

struct spawners {
    struct world *world;
    struct spawner each[CLIENTS_MAX];
    uint32_t count;
    struct spawn_request **requests;
    uint64_t requests_count, requests_capacity;
    uint64_t outstanding, spawned, done;
    bool stopped;
    struct buffer encode;
};

static void request_send(struct world *w, void *data, uint64_t hop);

/* ---- The histories ---- */

static void history_begin(struct spawn_request *r)
{
    struct errands *l = r->spawner->all->world->errands;
    struct linear *h = errands_history(l);
    static const uint32_t verbs[] = {[REQUEST_SPAWN] = INVOCATION_SPAWN,
                                     [REQUEST_READ] = INVOCATION_READ,
                                     [REQUEST_CANCEL] = INVOCATION_CANCEL,
                                     [REQUEST_REDRIVE] = INVOCATION_REDRIVE};
    r->operation = linear_begin(h, &linear_invocation, r->errand->number, verbs[r->kind], 0, 0);
    r->key_operation = NO_OPERATION;
    if (r->kind == REQUEST_SPAWN) {
        r->errand->open++;
    }
    if (r->kind == REQUEST_SPAWN && r->errand->key[0] != '\0') {
        r->key_operation = linear_begin(h, &linear_once, r->errand->number, ONCE_TAKE, 0, 0);
    }
}

/* This try certainly changed nothing. */
static void history_drop(struct spawn_request *r)
{
    struct linear *h = errands_history(r->spawner->all->world->errands);
    linear_drop(h, r->operation);
    if (r->key_operation != NO_OPERATION) {
        linear_drop(h, r->key_operation);
    }
    if (r->kind == REQUEST_SPAWN) {
        CHECK(r->errand->open > 0);
        r->errand->open--;
    }
}

/* ---- Ends of requests ---- */

static void request_end(struct spawn_request *r, enum status_code code, const char *message)
{
    CHECK(!r->answered);
    r->answered = true;
    r->handle = 0;
    r->spawner->outstanding--;
    r->spawner->all->outstanding--;
    world_trace(r->spawner->all->world, "%s errand %" PRIu64 " request %d %s: %s", r->spawner->name,
                r->errand->number, (int)r->kind, status_name(code), message);
}

static void request_again(struct spawn_request *r, bool at_once)
{
    struct world *w = r->spawner->all->world;
    r->handle = 0;
    r->hop++;
    world_after(w, at_once ? 1 : (1 + world_around(w, RETRY_MS)) * MS_US, request_send, r, r->hop);
}

/* Nothing was heard, or UNKNOWN: it may have happened. A read changes nothing and a spawn with a
 * key may be repeated. */
static void request_unknown(struct spawn_request *r, const char *why)
{
    bool again = r->kind == REQUEST_READ || (r->kind == REQUEST_SPAWN && r->errand->key[0] != '\0');
    if (r->kind == REQUEST_READ) {
        history_drop(r);
    }
    if (again && r->hop + 1 < HOPS_MAX) {
        request_again(r, false);
    } else {
        request_end(r, STATUS_UNKNOWN, why);
    }
}

static void request_refused(struct spawn_request *r, enum status_code code, const char *leader,
                            const char *message)
{
    struct spawner *p = r->spawner;
    struct world *w = p->all->world;
    history_drop(r);
    bool redirected = code == STATUS_NOT_LEADER;
    if (redirected) {
        struct scheduler *s = schedulers_find(w->schedulers, leader);
        p->target = s != NULL ? s->number : (uint32_t)world_below(w, w->schedulers->count);
        redirected = s != NULL;
    }
    bool again = code == STATUS_NOT_LEADER || r->errand->final || r->verify;
    if (again && r->hop + 1 < HOPS_MAX) {
        request_again(r, redirected && r->hop < 2);
    } else {
        request_end(r, code, message);
    }
}

/* ---- Answers ---- */

struct answer {
    enum status_code code;
    const char *message, *leader;
};

static void spawn_answered(struct spawn_request *r, const struct message *m, struct answer a)
{
    struct world *w = r->spawner->all->world;
    struct errand *e = r->errand;
    if (a.code != STATUS_OK) {
        world_fail(w, "the spawn of errand %" PRIu64 " ended %s: %s", e->number,
                   status_name(a.code), a.message);
        return;
    }
    struct linear *h = errands_history(w->errands);
    linear_end(h, r->operation, 0, 0, 0);
    if (r->key_operation != NO_OPERATION) {
        linear_end(h, r->key_operation,
                   m->spawn_reply.invocation.low ^ m->spawn_reply.invocation.high,
                   m->spawn_reply.existing ? 1 : 0, 0);
    } else if (m->spawn_reply.existing) {
        world_fail(w, "errand %" PRIu64 " has no key, yet was there before", e->number);
    }
    e->open--;
    r->spawner->all->spawned += !e->acknowledged;
    errand_acknowledged(w->errands, e, m->spawn_reply.invocation);
    request_end(r, a.code, "acknowledged");
}

/* Says where it is stuck. */
static void fail_unended(struct world *w, const struct errand *e)
{
    const struct scheduler *leader = schedulers_leader(w->schedulers);
    const struct job *j =
        leader == NULL ? NULL : jobs_find(&core_catalog(leader->core)->jobs, e->invocation);
    if (j == NULL) {
        world_fail(w, "errand %" PRIu64 " has not ended", e->number);
        return;
    }
    world_fail(w,
               "errand %" PRIu64 " of %s has not ended: after attempt %u (%u sent) it is%s%s%s%s, "
               "not before %" PRIu64 ", committed time %" PRIu64,
               e->number, e->function->name, j->attempts, j->attempt, j->busy ? " busy" : "",
               j->delayed ? " delayed" : "", j->lane != NULL ? " in a lane" : "",
               j->work != NULL ? " with an attempt" : "", j->not_before_ms,
               core_catalog(leader->core)->time_ms);
}

static void read_answered(struct spawn_request *r, const struct message *m, struct answer a)
{
    struct world *w = r->spawner->all->world;
    struct errand *e = r->errand;
    struct linear *h = errands_history(w->errands);
    if (a.code == STATUS_NOT_FOUND) {
        if (e->acknowledged && r->verify) {
            world_fail(w, "errand %" PRIu64 " was acknowledged and is lost", e->number);
        }
        linear_end(h, r->operation, 0, 0, 0);
        request_end(r, a.code, a.message);
        return;
    }
    if (a.code != STATUS_OK || m->type != MESSAGE_OUTCOME) {
        world_fail(w, "reading errand %" PRIu64 " ended %s: %s", e->number, status_name(a.code),
                   a.message);
        return;
    }
    linear_end(h, r->operation, m->outcome.state, errand_sum(&m->outcome), 0);
    errand_outcome(w->errands, e, &m->outcome);
    if (r->verify && m->outcome.state == INVOCATION_QUEUED) {
        fail_unended(w, e);
    }
    r->spawner->all->done += r->verify && m->outcome.state == INVOCATION_DONE;
    request_end(r, a.code, m->outcome.state == INVOCATION_QUEUED ? "queued" : "ended");
}

static void admin_answered(struct spawn_request *r, struct answer a)
{
    struct world *w = r->spawner->all->world;
    struct errand *e = r->errand;
    if (a.code != STATUS_OK && a.code != STATUS_CONFLICT && a.code != STATUS_NOT_FOUND) {
        world_fail(w, "changing errand %" PRIu64 " ended %s: %s", e->number, status_name(a.code),
                   a.message);
        return;
    }
    bool done = a.code == STATUS_OK;
    linear_end(errands_history(w->errands), r->operation, done ? 1 : 0, 0, 0);
    request_end(r, a.code, a.message);
}

static void on_answer(struct spawner *p, uint64_t handle, const struct message *m, struct answer a)
{
    struct spawners *all = p->all;
    uint64_t number = m->request / HOPS_MAX - 1, hop = m->request % HOPS_MAX;
    CHECK(number < all->requests_count);
    struct spawn_request *r = all->requests[number];
    if (r->spawner != p || r->answered || hop != r->hop || r->handle != handle) {
        world_fail(all->world, "request %" PRIu64 " for errand %" PRIu64 " was answered twice",
                   number, r->errand->number);
        return;
    }
    if (a.code == STATUS_UNKNOWN) {
        request_unknown(r, a.message);
    } else if (a.code == STATUS_NOT_LEADER || a.code == STATUS_LIMIT ||
               a.code == STATUS_UNAVAILABLE) {
        request_refused(r, a.code, a.leader, a.message);
    } else if (r->kind == REQUEST_SPAWN) {
        spawn_answered(r, m, a);
    } else if (r->kind == REQUEST_READ) {
        read_answered(r, m, a);
    } else {
        admin_answered(r, a);
    }
}

/* ---- Asking ---- */

static void late(struct world *w, void *data, uint64_t hop)
{
    struct spawn_request *r = data;
    if (!r->answered && r->hop == hop && r->handle != 0) {
        world_fail(w, "request %" PRIu64 " (kind %d) for errand %" PRIu64 " was never answered",
                   r->number, (int)r->kind, r->errand->number);
    }
}

static void compose(const struct spawn_request *r, uint8_t payload[PAYLOAD_BYTES],
                    char text[ID_STRING_BYTES], struct message *m)
{
    const struct errand *e = r->errand;
    *m = (struct message){.request = (r->number + 1) * HOPS_MAX + r->hop};
    id_format(e->invocation, INVOCATION_PREFIX, text);
    switch (r->kind) {
    case REQUEST_SPAWN:
        m->type = MESSAGE_SPAWN;
        m->spawn =
            (struct spawn){.function = e->function->name,
                           .payload = bytes_of(payload, errand_payload(e, payload, PAYLOAD_BYTES)),
                           .key = e->key,
                           .priority = e->priority,
                           .delay_ms = e->delay_ms,
                           .deadline_ms = e->deadline_ms,
                           .timeout_ms = e->timeout_ms};
        break;
    case REQUEST_READ:
        m->type = MESSAGE_OUTCOME_QUERY;
        m->outcome_query =
            (struct outcome_query){.invocation = e->invocation, .wait_ms = r->wait_ms};
        break;
    case REQUEST_CANCEL:
    case REQUEST_REDRIVE:
        m->type = MESSAGE_ADMIN;
        m->admin = (struct admin){.action = r->kind == REQUEST_CANCEL ? "invocation.cancel"
                                                                      : "dead.redrive",
                                  .name = text};
        break;
    }
}

static uint64_t pick_handle(struct spawner *p)
{
    struct world *w = p->all->world;
    uint32_t count = w->schedulers->count;
    uint32_t first = world_chance(w, 800) ? p->target : (uint32_t)world_below(w, count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t handle = p->handles[(first + i) % count];
        if (handle != 0) {
            return handle;
        }
    }
    return 0;
}

static void request_send(struct world *w, void *data, uint64_t hop)
{
    struct spawn_request *r = data;
    struct spawner *p = r->spawner;
    if (r->answered || r->hop != hop) {
        return;
    }
    uint64_t handle = pick_handle(p);
    if (handle == 0) {
        world_after(w, RETRY_MS * MS_US, request_send, r, hop);
        return;
    }
    uint8_t payload[PAYLOAD_BYTES];
    char text[ID_STRING_BYTES];
    struct message m;
    history_begin(r);
    compose(r, payload, text, &m);
    p->all->encode.size = 0;
    struct status encoded = message_encode(&m, &p->all->encode);
    CHECK(status_is_ok(encoded));
    CHECK(network_send(w->network, handle, bytes_of(p->all->encode.data, p->all->encode.size)));
    r->handle = handle;
    world_after(w, (r->wait_ms + PATIENCE_MS) * MS_US, late, r, hop);
}

static struct spawn_request *request_new(struct spawner *p, enum request_kind kind,
                                         struct errand *e)
{
    struct spawners *all = p->all;
    if (all->requests_count == all->requests_capacity) {
        all->requests_capacity = all->requests_capacity == 0 ? 256 : 2 * all->requests_capacity;
        all->requests = mem_must(
            mem_realloc(all->requests, all->requests_capacity * sizeof(struct spawn_request *)));
    }
    struct spawn_request *r = mem_must(mem_zalloc(1, sizeof *r));
    *r = (struct spawn_request){
        .number = all->requests_count, .kind = kind, .errand = e, .spawner = p};
    all->requests[all->requests_count++] = r;
    all->outstanding++;
    p->outstanding++;
    return r;
}

/* ---- What they ask for ---- */

static void spawn_one(struct spawner *p)
{
    struct world *w = p->all->world;
    struct errand *e = errand_new(w->errands, &functions[world_below(w, FUNCTIONS_COUNT)]);
    e->priority = world_chance(w, 500) ? 0 : (uint32_t)world_between(w, 1, SPAWN_PRIORITY_MAX);
    e->delay_ms = world_chance(w, 150) ? world_between(w, 100, DELAY_MS_MAX) : 0;
    if (w->scenario->wild_instances && world_chance(w, 100)) {
        e->deadline_ms = world_between(w, DEADLINE_MS_MIN, DEADLINE_MS_MAX);
    }
    if (w->scenario->wild_instances && world_chance(w, 100)) {
        e->timeout_ms = (uint32_t)world_between(w, 50, 3000);
    }
    uint32_t askers = 1;
    if (world_chance(w, 300)) {
        (void)snprintf(e->key, sizeof e->key, "key-%" PRIu64, e->number);
        askers = (uint32_t)world_between(w, 1, 3);
    }
    for (uint32_t i = 0; i < askers; i++) {
        uint64_t wait_us = i == 0 ? 0 : world_around(w, 2000) * MS_US;
        world_after(w, wait_us, request_send, request_new(p, REQUEST_SPAWN, e), 0);
    }
}

/* One of its errands whose invocation is known, rather a recent one; NULL: none this time. */
static struct errand *pick_errand(struct spawner *p)
{
    struct world *w = p->all->world;
    uint64_t count = errands_count(w->errands);
    if (count == 0) {
        return NULL;
    }
    uint64_t back = world_below(w, world_chance(w, 700) && count > 30 ? 30 : count);
    struct errand *e = errand_at(w->errands, count - 1 - back);
    return id_compare(e->invocation, (struct id128){0, 0}) == 0 ? NULL : e;
}

static void act(struct world *w, void *data, uint64_t arg)
{
    (void)arg;
    struct spawner *p = data;
    if (p->all->stopped) {
        return;
    }
    world_after(w, 1 + world_around(w, w->scenario->spawn_ms) * MS_US, act, p, 0);
    if (p->outstanding >= OUTSTANDING_MAX) {
        return;
    }
    uint64_t dice = world_below(w, 100);
    struct errand *e = dice < 60 ? NULL : pick_errand(p);
    if (dice < 60 || e == NULL) {
        spawn_one(p);
        return;
    }
    enum request_kind kind = dice < 85                             ? REQUEST_READ
                             : e->seen == INVOCATION_DEAD          ? REQUEST_REDRIVE
                             : dice < 92 && w->scenario->operators ? REQUEST_CANCEL
                                                                   : REQUEST_READ;
    struct spawn_request *r = request_new(p, kind, e);
    r->wait_ms = kind == REQUEST_READ && world_chance(w, 300)
                     ? (uint32_t)world_around(w, WAIT_MS_MAX / 2)
                     : 0;
    e->cancels += kind == REQUEST_CANCEL;
    request_send(w, r, 0);
}

void spawners_final(struct spawners *all, uint32_t each)
{
    struct world *w = all->world;
    for (size_t f = 0; f < FUNCTIONS_COUNT && all->count > 0; f++) {
        for (uint32_t i = 0; i < each; i++) {
            struct errand *e = errand_new(w->errands, &functions[f]);
            e->final = true;
            (void)snprintf(e->key, sizeof e->key, "final-%" PRIu64, e->number);
            struct spawn_request *r = request_new(&all->each[i % all->count], REQUEST_SPAWN, e);
            world_after(w, world_around(w, 500) * MS_US, request_send, r, 0);
        }
    }
}

void spawners_verify(struct spawners *all)
{
    struct world *w = all->world;
    for (uint64_t i = 0; i < errands_count(w->errands); i++) {
        struct errand *e = errand_at(w->errands, i);
        if (e->final && !e->acknowledged) {
            world_fail(w, "errand %" PRIu64 " of the last batch was not taken", e->number);
        }
        if (id_compare(e->invocation, (struct id128){0, 0}) != 0) {
            struct spawn_request *r = request_new(&all->each[i % all->count], REQUEST_READ, e);
            r->verify = true;
            world_after(w, world_around(w, 500) * MS_US, request_send, r, 0);
        }
    }
}

/* ---- The network's events ---- */

static void on_opened(void *data, uint64_t handle, struct endpoint *peer)
{
    struct spawner *p = data;
    const struct scheduler *s = peer->owner;
    p->handles[s->number] = handle;
}

static void on_closed(void *data, uint64_t handle)
{
    struct spawner *p = data;
    for (uint32_t i = 0; i < SCHEDULERS_MAX; i++) {
        p->handles[i] = p->handles[i] == handle ? 0 : p->handles[i];
    }
    for (uint64_t i = 0; i < p->all->requests_count; i++) {
        struct spawn_request *r = p->all->requests[i];
        if (!r->answered && r->handle == handle) {
            request_unknown(r, "the connection closed");
        }
    }
}

static void on_message(void *data, uint64_t handle, struct endpoint *peer, struct bytes payload)
{
    struct spawner *p = data;
    struct message m;
    struct errmsg msg = {.text = ""};
    arena_reset(&p->decode);
    struct status decoded = message_decode(payload, &p->decode, &m, &msg);
    struct answer a = {.message = "", .leader = ""};
    if (!status_is_ok(decoded)) {
        world_fail(p->all->world, "%s has sent %s nonsense: %s", peer->name, p->name, msg.text);
    } else if (m.type == MESSAGE_SPAWN_REPLY) {
        a = (struct answer){status_from_wire(m.spawn_reply.code), m.spawn_reply.message,
                            m.spawn_reply.leader};
        on_answer(p, handle, &m, a);
    } else if (m.type == MESSAGE_OUTCOME) {
        a = (struct answer){status_from_wire(m.outcome.code), m.outcome.message, m.outcome.leader};
        on_answer(p, handle, &m, a);
    } else if (m.type == MESSAGE_REPLY) {
        a = (struct answer){status_from_wire(m.reply.code), m.reply.message, m.reply.leader};
        on_answer(p, handle, &m, a);
    } else {
        world_fail(p->all->world, "%s has sent %s a %s", peer->name, p->name,
                   message_type_name(m.type));
    }
}

/* ---- Life ---- */

struct spawners *spawners_new(struct world *w, uint32_t count)
{
    CHECK(count <= CLIENTS_MAX);
    struct spawners *all = mem_must(mem_zalloc(1, sizeof *all));
    all->world = w;
    all->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct spawner *p = &all->each[i];
        p->all = all;
        (void)snprintf(p->name, sizeof p->name, "u%u", i + 1);
        const struct endpoint_events events = {
            .data = p, .opened = on_opened, .closed = on_closed, .message = on_message};
        p->endpoint = network_endpoint(w->network, p->name, ROLE_USER, &events, NULL);
    }
    return all;
}

void spawners_free(struct spawners *all)
{
    for (uint64_t i = 0; i < all->requests_count; i++) {
        mem_free(all->requests[i]);
    }
    for (uint32_t i = 0; i < all->count; i++) {
        arena_close(&all->each[i].decode);
    }
    mem_free(all->requests);
    buffer_close(&all->encode);
    mem_free(all);
}

void spawners_start(struct spawners *all)
{
    struct world *w = all->world;
    for (uint32_t i = 0; i < all->count; i++) {
        struct spawner *p = &all->each[i];
        network_up(w->network, p->endpoint);
        for (uint32_t s = 0; s < w->schedulers->count; s++) {
            network_dial(w->network, p->endpoint, w->schedulers->each[s].endpoint);
        }
        world_after(w, world_between(w, 1, SECOND_US), act, p, 0);
    }
}

void spawners_stop(struct spawners *all)
{
    all->stopped = true;
}

uint32_t spawners_count(const struct spawners *all)
{
    return all->count;
}

struct endpoint *spawners_endpoint(struct spawners *all, uint32_t number)
{
    CHECK(number < all->count);
    return all->each[number].endpoint;
}

uint64_t spawners_outstanding(const struct spawners *all)
{
    return all->outstanding;
}

uint64_t spawners_spawned(const struct spawners *all)
{
    return all->spawned;
}

uint64_t spawners_done(const struct spawners *all)
{
    return all->done;
}

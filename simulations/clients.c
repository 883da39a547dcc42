#include "simulations/clients.h"

#include <string.h>

enum {
    OUTSTANDING_MAX = 40, /* of one client */
    /* beyond a call's timeout: links believe in silent peers for four seconds */
    PATIENCE_MS = 12000,
    RETRY_MS = 200,
    PADDING_MAX = 2000,
    FINAL_TIMEOUT_MS = 60000,
};

static void call_send(struct world *w, void *data, uint64_t arg);

/* ---- The ledger ---- */

struct request *clients_executes(struct clients *c, struct bytes payload, uint32_t *hop)
{
    struct reader r = reader_of(payload);
    uint64_t number = reader_u64(&r);
    uint64_t at = reader_u64(&r);
    if (r.failed || number >= c->calls_count || at >= HOPS_MAX) {
        world_fail(c->world, "an instance was given a payload that nobody sent");
        return NULL;
    }
    struct request *call = c->calls[number];
    *hop = (uint32_t)at;
    if ((call->executed >> at & 1) != 0) {
        world_fail(c->world, "call %llu ran twice", (unsigned long long)number);
    }
    if ((call->refused >> at & 1) != 0) {
        world_fail(c->world, "call %llu ran after its caller was told that it did not",
                   (unsigned long long)number);
    }
    call->executed |= 1U << at;
    return call;
}

static void output_of(const struct request *call, uint32_t hop, uint8_t out[OUTPUT_BYTES])
{
    const uint64_t words[3] = {call->number, hop, call->number * UINT64_C(0x9e3779b97f4a7c15)};
    memcpy(out, words, OUTPUT_BYTES);
}

void clients_executed(struct request *call, uint32_t hop, enum status_code code,
                      uint8_t output[OUTPUT_BYTES])
{
    call->completed |= 1U << hop;
    call->truth = code;
    output_of(call, hop, output);
}

/* ---- Outcomes ---- */

/* What each code claims, when a scheduler answers with it. */
static bool claims_not_run(enum status_code code)
{
    return code == STATUS_NOT_LEADER || code == STATUS_LIMIT || code == STATUS_UNAVAILABLE;
}

static bool allowed(const struct request *call, enum status_code code)
{
    switch (code) {
    case STATUS_OK:
        return true;
    case STATUS_FAILED:
    case STATUS_CRASHED:
    case STATUS_TIMEOUT:
    case STATUS_LIMIT:
    case STATUS_UNAVAILABLE:
    case STATUS_UNKNOWN:
    case STATUS_NOT_LEADER:
    case STATUS_CANCELED:
    case STATUS_IO: /* an instance could not start */
        return !call->final;
    default:
        return false;
    }
}

static void call_end(struct request *call, enum status_code code, const char *message)
{
    struct clients *all = call->client->all;
    struct world *w = all->world;
    CHECK(!call->answered);
    call->answered = true;
    call->handle = 0;
    call->outcome = code;
    all->outstanding--;
    all->ok += code == STATUS_OK;
    all->final_ok += call->final && code == STATUS_OK;
    world_trace(w, "call %llu %s %s: %s", (unsigned long long)call->number, call->function->name,
                status_name(code), message);
    if (!allowed(call, code)) {
        world_fail(w, "call %llu of %s ended %s: %s", (unsigned long long)call->number,
                   call->function->name, status_name(code), message);
    }
}

/* Is the answer what really happened? */
static void check_truth(const struct request *call, const struct call_reply *r)
{
    struct world *w = call->client->world;
    uint32_t bit = call->hop;
    bool executed = (call->executed >> bit & 1) != 0, completed = (call->completed >> bit & 1) != 0;
    enum status_code code = status_from_wire(r->code);
    uint8_t output[OUTPUT_BYTES];
    output_of(call, call->hop, output);
    if (claims_not_run(code) && executed) {
        world_fail(w, "call %llu was answered %s, yet it ran", (unsigned long long)call->number,
                   status_name(code));
    }
    if ((code == STATUS_OK || code == STATUS_FAILED) && (!completed || call->truth != code)) {
        world_fail(w, "call %llu was answered %s, yet its instance says %s",
                   (unsigned long long)call->number, status_name(code),
                   completed ? status_name(call->truth) : "nothing");
    }
    if (code == STATUS_OK && !bytes_equal(r->output, bytes_of(output, OUTPUT_BYTES))) {
        world_fail(w, "call %llu has the output of another one", (unsigned long long)call->number);
    }
}

static void redirect(struct request *call, const char *leader, const char *message)
{
    struct client *c = call->client;
    struct scheduler *s = schedulers_find(c->world->schedulers, leader);
    call->handle = 0;
    if (call->hop + 1 >= HOPS_MAX) {
        call_end(call, STATUS_NOT_LEADER, message);
        return;
    }
    call->hop++;
    c->target =
        s != NULL ? s->number : (uint32_t)world_below(c->world, c->world->schedulers->count);
    bool at_once = s != NULL && call->hop < 3; /* two schedulers may each believe in the other */
    world_after(c->world, at_once ? 1 : world_around(c->world, RETRY_MS) * MS_US, call_send, call,
                call->hop);
}

static void on_reply(struct client *c, uint64_t handle, const struct message *m)
{
    uint64_t number = m->request / HOPS_MAX - 1, hop = m->request % HOPS_MAX;
    CHECK(number < c->all->calls_count);
    struct request *call = c->all->calls[number];
    enum status_code code = status_from_wire(m->call_reply.code);
    if (call->client != c || call->answered || hop != call->hop || call->handle != handle) {
        world_fail(c->world, "call %llu was answered twice", (unsigned long long)number);
        return;
    }
    check_truth(call, &m->call_reply);
    if (claims_not_run(code)) {
        call->refused |= 1U << hop;
    }
    bool patient = code == STATUS_LIMIT && call->final;
    if (code == STATUS_NOT_LEADER) {
        redirect(call, m->call_reply.leader, m->call_reply.message);
    } else if (patient && call->hop + 1 < HOPS_MAX) {
        call->hop++;
        call->handle = 0;
        world_after(c->world, RETRY_MS * MS_US, call_send, call, call->hop);
    } else {
        call_end(call, code, m->call_reply.message);
    }
}

/* ---- Calling ---- */

static void late(struct world *w, void *data, uint64_t hop)
{
    struct request *call = data;
    if (!call->answered && call->hop == hop && call->handle != 0) {
        world_fail(w, "call %llu of %s was never answered", (unsigned long long)call->number,
                   call->function->name);
    }
}

static uint64_t pick_handle(struct client *c)
{
    uint32_t count = c->world->schedulers->count;
    uint32_t first =
        world_chance(c->world, 800) ? c->target : (uint32_t)world_below(c->world, count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t handle = c->handles[(first + i) % count];
        if (handle != 0) {
            return handle;
        }
    }
    return 0;
}

static void call_send(struct world *w, void *data, uint64_t hop)
{
    struct request *call = data;
    struct client *c = call->client;
    if (call->answered || call->hop != hop) {
        return;
    }
    uint64_t handle = pick_handle(c);
    if (handle == 0) {
        world_after(w, RETRY_MS * MS_US, call_send, call, hop);
        return;
    }
    uint8_t payload[PAYLOAD_HEAD_BYTES + PADDING_MAX] = {0};
    const uint64_t head[2] = {call->number, hop};
    memcpy(payload, head, sizeof head);
    size_t size = PAYLOAD_HEAD_BYTES + (world_chance(w, 100) ? world_below(w, PADDING_MAX) : 0);
    const struct message m = {.type = MESSAGE_CALL,
                              .request = (call->number + 1) * HOPS_MAX + hop,
                              .call = {.function = call->function->name,
                                       .payload = bytes_of(payload, size),
                                       .timeout_ms = call->timeout_ms}};
    c->all->encode.size = 0;
    struct status encoded = message_encode(&m, &c->all->encode);
    CHECK(status_is_ok(encoded));
    CHECK(network_send(w->network, handle, bytes_of(c->all->encode.data, c->all->encode.size)));
    call->handle = handle;
    uint64_t timeout_ms = call->timeout_ms != 0 ? call->timeout_ms : call->function->timeout_ms;
    world_after(w, (timeout_ms + PATIENCE_MS) * MS_US, late, call, hop);
}

static struct request *call_new(struct client *c, const struct function *f)
{
    struct clients *all = c->all;
    if (all->calls_count == all->calls_capacity) {
        all->calls_capacity = all->calls_capacity == 0 ? 1024 : 2 * all->calls_capacity;
        all->calls =
            mem_must(mem_realloc(all->calls, all->calls_capacity * sizeof(struct request *)));
    }
    struct request *call = mem_must(mem_zalloc(1, sizeof *call));
    call->number = all->calls_count;
    call->function = f;
    call->client = c;
    call->truth = STATUS_INTERNAL;
    all->calls[all->calls_count++] = call;
    all->outstanding++;
    return call;
}

static void next_call(struct world *w, void *data, uint64_t arg)
{
    (void)arg;
    struct client *c = data;
    if (c->all->stopped) {
        return;
    }
    world_after(w, 1 + world_around(w, w->scenario->think_ms) * MS_US, next_call, c, 0);
    if (c->all->outstanding >= (uint64_t)OUTSTANDING_MAX * c->all->count) {
        return;
    }
    struct request *call = call_new(c, &functions[world_below(w, FUNCTIONS_COUNT)]);
    bool short_timeout = w->scenario->wild_instances && world_chance(w, 200);
    call->timeout_ms = short_timeout ? (uint32_t)world_between(w, 50, 4000) : 0;
    call_send(w, call, 0);
}

void clients_final(struct clients *all, uint32_t each)
{
    all->stopped = true;
    for (size_t f = 0; f < FUNCTIONS_COUNT; f++) {
        for (uint32_t i = 0; i < each; i++) {
            struct request *call = call_new(&all->each[i % all->count], &functions[f]);
            call->final = true;
            call->timeout_ms = FINAL_TIMEOUT_MS;
            all->final_count++;
            world_after(all->world, world_around(all->world, 500) * MS_US, call_send, call, 0);
        }
    }
}

/* ---- The network's events ---- */

static void on_opened(void *data, uint64_t handle, struct endpoint *peer)
{
    struct client *c = data;
    const struct scheduler *s = peer->owner;
    c->handles[s->number] = handle;
}

/* Whatever waited on this connection has an unknown outcome: a caller cannot repeat it on its
 * own. */
static void on_closed(void *data, uint64_t handle)
{
    struct client *c = data;
    for (uint32_t i = 0; i < SCHEDULERS_MAX; i++) {
        c->handles[i] = c->handles[i] == handle ? 0 : c->handles[i];
    }
    for (uint64_t i = 0; i < c->all->calls_count; i++) {
        struct request *call = c->all->calls[i];
        if (call->handle == handle && !call->answered) {
            call_end(call, STATUS_UNKNOWN, "the connection closed");
        }
    }
}

static void on_message(void *data, uint64_t handle, struct endpoint *peer, struct bytes payload)
{
    struct client *c = data;
    struct message m;
    struct errmsg msg = {.text = ""};
    arena_reset(&c->decode);
    struct status decoded = message_decode(payload, &c->decode, &m, &msg);
    if (!status_is_ok(decoded) || m.type != MESSAGE_CALL_REPLY) {
        world_fail(c->world, "%s has sent %s something unexpected: %s", peer->name, c->name,
                   status_is_ok(decoded) ? message_type_name(m.type) : msg.text);
        return;
    }
    on_reply(c, handle, &m);
}

/* ---- Life ---- */

struct clients *clients_new(struct world *w, uint32_t count)
{
    CHECK(count <= CLIENTS_MAX);
    struct clients *all = mem_must(mem_zalloc(1, sizeof *all));
    all->world = w;
    all->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct client *c = &all->each[i];
        c->world = w;
        c->all = all;
        (void)snprintf(c->name, sizeof c->name, "c%u", i + 1);
        const struct endpoint_events events = {
            .data = c, .opened = on_opened, .closed = on_closed, .message = on_message};
        c->endpoint = network_endpoint(w->network, c->name, ROLE_USER, &events, NULL);
    }
    return all;
}

void clients_free(struct clients *all)
{
    for (uint64_t i = 0; i < all->calls_count; i++) {
        mem_free(all->calls[i]);
    }
    for (uint32_t i = 0; i < all->count; i++) {
        arena_close(&all->each[i].decode);
    }
    mem_free(all->calls);
    buffer_close(&all->encode);
    mem_free(all);
}

void clients_start(struct clients *all)
{
    struct world *w = all->world;
    for (uint32_t i = 0; i < all->count; i++) {
        struct client *c = &all->each[i];
        network_up(w->network, c->endpoint);
        for (uint32_t s = 0; s < w->schedulers->count; s++) {
            network_dial(w->network, c->endpoint, w->schedulers->each[s].endpoint);
        }
        world_after(w, world_between(w, 1, SECOND_US), next_call, c, 0);
    }
}

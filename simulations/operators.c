#include "simulations/operators.h"

#include "simulations/checks.h"

#include <string.h>

enum { STEPS_MAX = 256, RETRY_MS = 200, PATIENCE_MS = 6000, MEMBER_PATIENCE_MS = 20000 };

enum step_kind {
    STEP_DEPLOY,
    STEP_ROLLBACK,
    STEP_NODE,
    STEP_SETTING,
    STEP_JOIN,
    STEP_LEAVE,
    STEP_INSPECT,
    STEP_CALL,
};

struct step {
    enum step_kind kind;
    uint64_t at_us;
    const struct function *function;
    uint32_t version;   /* or the scheduler's number */
    const char *action; /* or a setting's value */
    char node[32];      /* or its key */
    event_fn done;
};

struct operators {
    struct world *world;
    struct endpoint *endpoint;
    uint64_t handles[SCHEDULERS_MAX];
    struct step steps[STEPS_MAX];
    size_t count, next;
    uint64_t try_number; /* answers to older tries are not heard */
    struct arena decode;
    struct buffer encode;
};

/* A proposal whose outcome is awaited. */
struct ask {
    struct operators *operators;
    uint64_t try_number;
};

static void step_try(struct world *w, void *data, uint64_t try_number);

static void retire(struct world *w, void *data, uint64_t number)
{
    (void)data;
    scheduler_retire(&w->schedulers->each[number]);
}

static void step_next(struct operators *o)
{
    struct world *w = o->world;
    o->next++;
    o->try_number++;
    if (o->next < o->count) {
        uint64_t at_us = o->steps[o->next].at_us, now = world_now(w);
        world_at(w, at_us > now ? at_us : now, step_try, o, o->try_number);
    }
}

static void step_again(struct operators *o)
{
    o->try_number++;
    world_after(o->world, RETRY_MS * MS_US, step_try, o, o->try_number);
}

static void step_answered(struct operators *o, enum status_code code, const char *message,
                          uint64_t index)
{
    struct world *w = o->world;
    const struct step *s = &o->steps[o->next];
    world_trace(w, "operator: step %zu %s %s", o->next, status_name(code), message);
    switch (code) {
    case STATUS_OK:
        if (index != 0 && s->kind != STEP_INSPECT) {
            checks_acknowledged(w->checks, index);
        }
        step_next(o);
        return;
    case STATUS_NOT_LEADER:
    case STATUS_UNKNOWN:
    case STATUS_LIMIT:
    case STATUS_UNAVAILABLE:
        step_again(o);
        return;
    case STATUS_NOT_FOUND: /* a node that has not been admitted yet */
    case STATUS_TIMEOUT:
        if (s->kind == STEP_NODE || s->kind == STEP_JOIN || s->kind == STEP_LEAVE) {
            step_again(o);
            return;
        }
        break;
    default:
        break;
    }
    world_fail(w, "operator's step %zu ended %s: %s", o->next, status_name(code), message);
}

/* ---- Trying ---- */

static void on_proposed(void *data, struct status status, const char *message, uint64_t index)
{
    struct ask ask = *(struct ask *)data;
    mem_free(data);
    struct operators *o = ask.operators;
    if (ask.try_number == o->try_number) {
        step_answered(o, status.code, message, index);
    } else if (status_is_ok(status)) {
        checks_acknowledged(o->world->checks, index); /* nobody waits, but it was promised */
    }
}

static void try_deploy(struct operators *o, struct scheduler *leader)
{
    const struct step *s = &o->steps[o->next];
    struct arena a = {0};
    struct function_spec spec;
    function_spec(s->function, s->version, &a, &spec);
    const struct command cmd = {
        .type = COMMAND_DEPLOY,
        .by = "user/operator",
        .command_deploy = {.spec = &spec, .revision = function_revision(s->function, s->version)}};
    struct ask *ask = mem_must(mem_zalloc(1, sizeof *ask));
    *ask = (struct ask){o, o->try_number};
    core_submit(leader->core, scheduler_time(leader), &cmd, on_proposed, ask);
    arena_close(&a);
}

/* ---- Members ---- */

static bool is_member(const struct scheduler *leader, uint64_t id)
{
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(leader->replica, members);
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == id) {
            return members[i].role == REPLICA_VOTER;
        }
    }
    return false;
}

static void on_changed(void *data, struct status status, const char *message)
{
    struct ask ask = *(struct ask *)data;
    mem_free(data);
    struct operators *o = ask.operators;
    if (ask.try_number != o->try_number) {
        return;
    }
    const struct step *s = &o->steps[o->next];
    /* Not found: an earlier try, whose outcome was not known, has done it. */
    bool left = s->kind == STEP_LEAVE && (status_is_ok(status) || status.code == STATUS_NOT_FOUND);
    if (left) {
        world_after(o->world, 0, retire, o, s->version);
    }
    step_answered(o, left ? STATUS_OK : status.code, message, 0);
}

static void try_member(struct operators *o, struct scheduler *leader)
{
    const struct step *s = &o->steps[o->next];
    struct scheduler *who = &o->world->schedulers->each[s->version];
    if (s->kind == STEP_JOIN && who->core == NULL) {
        scheduler_start(who);
    }
    if (s->kind == STEP_JOIN && is_member(leader, who->id)) {
        step_answered(o, STATUS_OK, "has joined", 0);
        return;
    }
    struct ask *ask = mem_must(mem_zalloc(1, sizeof *ask));
    *ask = (struct ask){o, o->try_number};
    if (s->kind == STEP_LEAVE) {
        replica_remove(leader->replica, who->id, on_changed, ask);
        return;
    }
    struct replica_member m = {.id = who->id, .role = REPLICA_VOTER};
    (void)snprintf(m.address, sizeof m.address, "%s", who->address);
    replica_add(leader->replica, &m, on_changed, ask);
}

static void try_message(struct operators *o, struct scheduler *leader)
{
    const struct step *s = &o->steps[o->next];
    uint64_t handle = o->handles[leader->number];
    if (handle == 0) {
        step_again(o);
        return;
    }
    struct digest revision = {{0}};
    char text[DIGEST_STRING_BYTES];
    struct pair argument = {.key = "revision", .value = text};
    struct message m = {.type = MESSAGE_ADMIN, .request = o->try_number};
    if (s->kind == STEP_ROLLBACK) {
        revision = function_revision(s->function, s->version);
        digest_format(&revision, text);
        m.admin = (struct admin){.action = "function.rollback",
                                 .name = s->function->name,
                                 .args = &argument,
                                 .args_count = 1};
    } else if (s->kind == STEP_SETTING) {
        argument = (struct pair){.key = "value", .value = s->action};
        m.admin = (struct admin){
            .action = "setting.set", .name = s->node, .args = &argument, .args_count = 1};
    } else if (s->kind == STEP_NODE) {
        m.admin = (struct admin){.action = s->action, .name = s->node};
    } else {
        m.type = MESSAGE_QUERY;
        m.query = (struct query){.what = "instances", .name = ""};
    }
    o->encode.size = 0;
    struct status encoded = message_encode(&m, &o->encode);
    CHECK(status_is_ok(encoded));
    (void)network_send(o->world->network, handle, bytes_of(o->encode.data, o->encode.size));
}

static void on_patience(struct world *w, void *data, uint64_t try_number)
{
    (void)w;
    struct operators *o = data;
    if (o->try_number == try_number) {
        step_again(o);
    }
}

static void step_try(struct world *w, void *data, uint64_t try_number)
{
    struct operators *o = data;
    if (o->try_number != try_number) {
        return;
    }
    const struct step *s = &o->steps[o->next];
    if (s->kind == STEP_CALL) {
        event_fn done = s->done;
        step_next(o);
        done(w, NULL, 0);
        return;
    }
    struct scheduler *leader = schedulers_leader(w->schedulers);
    if (leader == NULL) {
        step_again(o);
        return;
    }
    bool member = s->kind == STEP_JOIN || s->kind == STEP_LEAVE;
    world_after(w, (member ? MEMBER_PATIENCE_MS : PATIENCE_MS) * MS_US, on_patience, o, try_number);
    if (s->kind == STEP_DEPLOY) {
        try_deploy(o, leader);
    } else if (member) {
        try_member(o, leader);
    } else {
        try_message(o, leader);
    }
}

/* ---- The network's events ---- */

static void on_opened(void *data, uint64_t handle, struct endpoint *peer)
{
    struct operators *o = data;
    const struct scheduler *s = peer->owner;
    o->handles[s->number] = handle;
}

static void on_closed(void *data, uint64_t handle)
{
    struct operators *o = data;
    for (uint32_t i = 0; i < SCHEDULERS_MAX; i++) {
        o->handles[i] = o->handles[i] == handle ? 0 : o->handles[i];
    }
}

static void take_records(struct operators *o, const struct message *m)
{
    struct world *w = o->world;
    event_fn done = o->steps[o->next].done;
    enum status_code code = status_from_wire(m->records.code);
    if (code == STATUS_OK) {
        checks_instances(w->checks, &m->records);
    }
    step_answered(o, code, m->records.message, 0);
    if (code == STATUS_OK) {
        done(w, NULL, 0);
    }
}

static void on_message(void *data, uint64_t handle, struct endpoint *peer, struct bytes payload)
{
    (void)handle;
    struct operators *o = data;
    struct message m;
    struct errmsg msg = {.text = ""};
    arena_reset(&o->decode);
    struct status decoded = message_decode(payload, &o->decode, &m, &msg);
    if (!status_is_ok(decoded)) {
        world_fail(o->world, "%s has sent the operator nonsense: %s", peer->name, msg.text);
    } else if (m.request != o->try_number || o->next >= o->count) {
        return;
    } else if (m.type == MESSAGE_REPLY) {
        step_answered(o, status_from_wire(m.reply.code), m.reply.message, m.reply.index);
    } else if (m.type == MESSAGE_RECORDS) {
        take_records(o, &m);
    }
}

/* ---- Steps ---- */

static struct step *step_add(struct operators *o, enum step_kind kind, uint64_t at_us)
{
    CHECK(o->count < STEPS_MAX);
    struct step *s = &o->steps[o->count++];
    s->kind = kind;
    s->at_us = at_us;
    if (o->next + 1 == o->count) { /* nothing was left to do */
        uint64_t now = world_now(o->world);
        world_at(o->world, at_us > now ? at_us : now, step_try, o, o->try_number);
    }
    return s;
}

void operators_deploy(struct operators *o, uint64_t at_us, const struct function *f,
                      uint32_t version)
{
    struct step *s = step_add(o, STEP_DEPLOY, at_us);
    s->function = f;
    s->version = version;
}

void operators_rollback(struct operators *o, uint64_t at_us, const struct function *f,
                        uint32_t version)
{
    struct step *s = step_add(o, STEP_ROLLBACK, at_us);
    s->function = f;
    s->version = version;
}

void operators_node(struct operators *o, uint64_t at_us, const char *action, const char *node)
{
    struct step *s = step_add(o, STEP_NODE, at_us);
    s->action = action;
    (void)snprintf(s->node, sizeof s->node, "%s", node);
}

void operators_setting(struct operators *o, uint64_t at_us, const char *key, const char *value)
{
    struct step *s = step_add(o, STEP_SETTING, at_us);
    s->action = value;
    (void)snprintf(s->node, sizeof s->node, "%s", key);
}

void operators_join(struct operators *o, uint64_t at_us, uint32_t scheduler)
{
    step_add(o, STEP_JOIN, at_us)->version = scheduler;
}

void operators_leave(struct operators *o, uint64_t at_us, uint32_t scheduler)
{
    step_add(o, STEP_LEAVE, at_us)->version = scheduler;
}

void operators_inspect(struct operators *o, uint64_t at_us, event_fn done)
{
    step_add(o, STEP_INSPECT, at_us)->done = done;
}

void operators_call(struct operators *o, uint64_t at_us, event_fn done)
{
    step_add(o, STEP_CALL, at_us)->done = done;
}

bool operators_busy(const struct operators *o)
{
    return o->next < o->count;
}

bool operators_drained(const struct operators *o, const char *node)
{
    bool drained = false;
    for (size_t i = 0; i < o->next; i++) {
        if (o->steps[i].kind == STEP_NODE && strcmp(o->steps[i].node, node) == 0) {
            drained = strcmp(o->steps[i].action, "node.drain") == 0;
        }
    }
    return drained;
}

/* ---- Life ---- */

struct operators *operators_new(struct world *w)
{
    struct operators *o = mem_must(mem_zalloc(1, sizeof *o));
    o->world = w;
    o->try_number = 1;
    const struct endpoint_events events = {
        .data = o, .opened = on_opened, .closed = on_closed, .message = on_message};
    o->endpoint = network_endpoint(w->network, "operator", ROLE_USER, &events, NULL);
    return o;
}

void operators_start(struct operators *o)
{
    network_up(o->world->network, o->endpoint);
    for (uint32_t s = 0; s < o->world->schedulers->count; s++) {
        network_dial(o->world->network, o->endpoint, o->world->schedulers->each[s].endpoint);
    }
}

void operators_free(struct operators *o)
{
    arena_close(&o->decode);
    buffer_close(&o->encode);
    mem_free(o);
}

#include "simulations/schedulers.h"

#include "simulations/checks.h"
#include "simulations/tamper.h"

#include <string.h>

enum {
    ELECTION_TIMEOUT_MS = 300,
    HEARTBEAT_MS = 30,
    SNAPSHOT_THRESHOLD = 64,
    SNAPSHOT_TRAILING = 32
};

static const struct replica_config replica_defaults = {.election_timeout_ms = ELECTION_TIMEOUT_MS,
                                                       .heartbeat_ms = HEARTBEAT_MS,
                                                       .snapshot_threshold = SNAPSHOT_THRESHOLD,
                                                       .snapshot_trailing = SNAPSHOT_TRAILING};

struct core_time scheduler_time(const struct scheduler *s)
{
    uint64_t now = world_now(s->world);
    return (struct core_time){
        .mono_us = now + s->clock_offset_us + now / 1000000 * s->clock_rate_ppm,
        .unix_ms = (uint64_t)((int64_t)world_unix_ms(s->world) + s->clock_ahead_ms)};
}

/* ---- The core's environment ---- */

void scheduler_send(struct scheduler *s, uint64_t peer, const struct message *m)
{
    s->encode.size = 0;
    struct status encoded = message_encode(m, &s->encode);
    CHECK(status_is_ok(encoded));
    (void)network_send(s->world->network, peer, bytes_of(s->encode.data, s->encode.size));
}

static void env_send(void *data, uint64_t peer, const struct message *m)
{
    struct scheduler *s = data;
    struct message sent = *m;
    if (m->type == MESSAGE_INVOKE && m->invoke.durable) {
        checks_sends(s->world->checks, s, m->invoke.invocation);
    }
    if (s->endpoint->up && !tamper_send(s, peer, &sent)) { /* not up: it is being taken down */
        scheduler_send(s, peer, &sent);
    }
}

static struct status env_propose(void *data, uint64_t ticket, const struct command *c)
{
    struct scheduler *s = data;
    struct buffer bytes = {0};
    struct command proposed = *c;
    tamper_propose(s, &proposed);
    struct status status = command_encode(&proposed, &bytes);
    if (status_is_ok(status)) {
        status = replica_propose(s->replica, ticket, bytes_of(bytes.data, bytes.size));
    }
    buffer_close(&bytes);
    return status;
}

static uint64_t env_random(void *data)
{
    const struct scheduler *s = data;
    return world_random(s->world);
}

/* ---- The replica's events ---- */

static void apply(struct scheduler *s, uint64_t index, const struct command *cmd)
{
    struct errmsg msg = {.text = ""};
    checks_applies(s->world->checks, s, index, cmd);
    struct status applied = core_apply(s->core, scheduler_time(s), index, cmd, &msg);
    checks_moved(s->world->checks, s, index, cmd);
    world_trace(s->world, "%s applied %llu %s %s", s->name, (unsigned long long)index,
                command_type_name(cmd->type), status_name(applied.code));
}

static void on_apply(void *data, uint64_t index, uint64_t term, struct bytes bytes)
{
    (void)term;
    struct scheduler *s = data;
    struct arena a = {0};
    struct command cmd;
    struct errmsg msg = {.text = ""};
    struct status decoded = command_decode(bytes, &a, &cmd, &msg);
    if (!status_is_ok(decoded)) {
        world_fail(s->world, "%s cannot read command %llu: %s", s->name, (unsigned long long)index,
                   msg.text);
    } else if (s->number != 1 || !world_bug(s->world, SIMULATION_BUG_SKIP_APPLY, 10)) {
        apply(s, index, &cmd);
        if (s->number == 1 && world_bug(s->world, SIMULATION_BUG_APPLY_TWICE, 10)) {
            apply(s, index, &cmd);
        }
    }
    arena_close(&a);
    s->applied = index;
    checks_applied(s->world->checks, s->name, index, catalog_digest(core_catalog(s->core)));
}

static void on_proposed(void *data, uint64_t ticket, struct status status, uint64_t index)
{
    struct scheduler *s = data;
    core_proposed(s->core, scheduler_time(s), ticket, status, index);
}

static void ignore_outcome(void *data, struct status status, const char *message, uint64_t index)
{
    (void)data;
    (void)status;
    (void)message;
    (void)index;
}

static void record(struct scheduler *s, const struct scheduler *whom)
{
    struct catalog_setting *known;
    HASH_FIND_STR(core_catalog(s->core)->schedulers, whom->name, known);
    if (known != NULL && strcmp(known->value, whom->address) == 0) {
        return;
    }
    const struct command cmd = {
        .type = COMMAND_SCHEDULER_PUT,
        .by = "scheduler",
        .command_scheduler_put = {.name = whom->name, .address = whom->address}};
    core_submit(s->core, scheduler_time(s), &cmd, ignore_outcome, NULL);
}

static void on_role(void *data, const struct replica_status *st)
{
    struct scheduler *s = data;
    struct world *w = s->world;
    struct schedulers *all = w->schedulers;
    uint64_t leader_id = st->leader ? s->id : st->leader_id;
    const char *name = leader_id == 0 ? "" : all->each[leader_id - 1].name;
    const char *address = leader_id == 0 ? "" : all->each[leader_id - 1].address;
    world_trace(w, "%s %s in term %llu, leader %s", s->name, st->leader ? "leads" : "follows",
                (unsigned long long)st->term, name);
    if (st->leader) {
        checks_leads(w->checks, s->number, st->term);
    }
    uint64_t term = w->bug == SIMULATION_BUG_STALE_TERM ? 1 : st->term;
    core_role(s->core, scheduler_time(s), st->leader, term, name, address);
    for (uint32_t i = 0; st->leader && i < all->count; i++) {
        record(s, &all->each[i]);
    }
}

static void *on_snapshot_pin(void *data)
{
    struct scheduler *s = data;
    return core_pin(s->core);
}

static struct status on_snapshot_encode(void *data, const void *pin, struct parts *out)
{
    struct scheduler *s = data;
    struct status status = core_pin_encode(pin, out);
    tamper_snapshot(s, out);
    world_trace(s->world, "%s snapshot: %zu bytes", s->name, parts_size(out));
    return status;
}

static void on_snapshot_unpin(void *data, void *pin)
{
    struct scheduler *s = data;
    core_unpin(s->core, pin);
}

static struct status on_restore(void *data, struct bytes bytes)
{
    struct scheduler *s = data;
    struct errmsg msg = {.text = ""};
    struct status status = core_restore(s->core, scheduler_time(s), bytes, &msg);
    if (!status_is_ok(status)) {
        world_fail(s->world, "%s cannot restore: %s", s->name, msg.text);
        return status;
    }
    const struct catalog *c = core_catalog(s->core);
    s->applied = c->index;
    world_trace(s->world, "%s restored %llu", s->name, (unsigned long long)c->index);
    checks_applied(s->world->checks, s->name, c->index, catalog_digest(c));
    return status_ok();
}

static void on_stopped(struct world *w, void *data, uint64_t epoch)
{
    (void)w;
    struct scheduler *s = data;
    if (s->core != NULL && s->endpoint->epoch == epoch) {
        scheduler_crash(s);
    }
}

/* A replica stops when its disk fails, and for no other reason. */
static void on_fatal(void *data, const char *why)
{
    struct scheduler *s = data;
    world_trace(s->world, "%s stops: %s", s->name, why);
    if (s->disk_fails) {
        world_after(s->world, 0, on_stopped, s, s->endpoint->epoch);
    } else {
        world_fail(s->world, "replica %s stopped: %s", s->name, why);
    }
}

static void on_replica_send(void *data, uint64_t member_id, const char *address, bool bulk,
                            struct bytes message)
{
    (void)address;
    (void)bulk;
    struct scheduler *s = data;
    const struct message m = {.type = MESSAGE_RAFT, .raft = {.data = message}};
    s->encode.size = 0;
    struct status encoded = message_encode(&m, &s->encode);
    CHECK(status_is_ok(encoded));
    network_packet(s->world->network, s->endpoint,
                   s->world->schedulers->each[member_id - 1].endpoint,
                   bytes_of(s->encode.data, s->encode.size));
}

/* ---- The network's events ---- */

static void on_opened(void *data, uint64_t handle, struct endpoint *peer)
{
    struct scheduler *s = data;
    struct identity who = {.cluster = {"sim"}, .role = peer->role};
    (void)snprintf(who.name.text, sizeof who.name.text, "%s", peer->name);
    core_peer_open(s->core, scheduler_time(s), handle, &who);
}

static void on_closed(void *data, uint64_t handle)
{
    struct scheduler *s = data;
    core_peer_close(s->core, scheduler_time(s), handle);
}

static bool decode(struct scheduler *s, struct bytes payload, struct message *m)
{
    struct errmsg msg = {.text = ""};
    arena_reset(&s->decode);
    struct status decoded = message_decode(payload, &s->decode, m, &msg);
    if (!status_is_ok(decoded)) {
        world_fail(s->world, "%s cannot read a message: %s", s->name, msg.text);
    }
    return status_is_ok(decoded);
}

static void on_message(void *data, uint64_t handle, struct endpoint *peer, struct bytes payload)
{
    struct scheduler *s = data;
    struct message m;
    if (!decode(s, payload, &m)) {
        return;
    }
    if (m.type != MESSAGE_HEARTBEAT) {
        world_trace(s->world, "%s < %s %s %llu", s->name, peer->name, message_type_name(m.type),
                    (unsigned long long)m.request);
    }
    if (m.type == MESSAGE_RESULT && m.result.code == STATUS_LIMIT) {
        world_fail(s->world, "%s has sent %s a call for a slot that is taken", s->name, peer->name);
    }
    if (tamper_receive(s, &handle, &m)) {
        return;
    }
    core_receive(s->core, scheduler_time(s), handle, &m);
    if (world_bug(s->world, SIMULATION_BUG_DOUBLE_MESSAGE, 10)) {
        core_receive(s->core, scheduler_time(s), handle, &m);
    }
}

static void on_packet(void *data, struct endpoint *from, struct bytes payload)
{
    struct scheduler *s = data;
    const struct scheduler *sender = from->owner;
    struct message m;
    if (!decode(s, payload, &m)) {
        return;
    }
    CHECK(m.type == MESSAGE_RAFT);
    struct status received = replica_receive(s->replica, sender->id, sender->address, m.raft.data);
    if (!status_is_ok(received) && received.code != STATUS_UNAVAILABLE) {
        world_fail(s->world, "%s refused a Raft message of %s: %s", s->name, sender->name,
                   status_name(received.code));
    }
}

/* ---- Life ---- */

static void on_tick(struct world *w, void *data, uint64_t epoch)
{
    struct scheduler *s = data;
    if (!s->endpoint->up || s->endpoint->epoch != epoch) {
        return;
    }
    if (scheduler_paused(s)) {
        world_at(w, s->endpoint->paused_until_us, on_tick, s, epoch);
        return;
    }
    core_tick(s->core, scheduler_time(s));
    world_after(w, CORE_TICK_MS * MS_US, on_tick, s, epoch);
}

void scheduler_start(struct scheduler *s)
{
    struct world *w = s->world;
    CHECK(s->core == NULL);
    const struct core_env env = {
        .data = s, .send = env_send, .propose = env_propose, .random = env_random};
    const struct core_config core_config = {0};
    s->core = mem_must(core_new(&env, &core_config));
    s->clock_offset_us = world_below(w, 1000 * SECOND_US);
    s->clock_rate_ppm = world_below(w, 300);
    s->applied = 0;
    s->member = true;
    world_trace(w, "%s starts", s->name);
    struct replica_config config = replica_defaults;
    config.id = s->id;
    config.address = s->address;
    config.random_seed = world_random(w);
    const struct replica_events events = {.data = s,
                                          .send = on_replica_send,
                                          .on_apply = on_apply,
                                          .on_proposed = on_proposed,
                                          .on_role = on_role,
                                          .snapshot_pin = on_snapshot_pin,
                                          .snapshot_encode = on_snapshot_encode,
                                          .snapshot_unpin = on_snapshot_unpin,
                                          .restore = on_restore,
                                          .on_fatal = on_fatal};
    struct errmsg msg = {.text = ""};
    network_up(w->network, s->endpoint);
    struct status opened = replica_open_sim(&s->replica, w->raft, &config, &events, &msg);
    if (!status_is_ok(opened)) {
        world_fail(w, "%s cannot start: %s", s->name, msg.text);
        return;
    }
    world_after(w, world_between(w, 1, CORE_TICK_MS * MS_US), on_tick, s, s->endpoint->epoch);
}

void scheduler_crash(struct scheduler *s)
{
    world_trace(s->world, "%s crashes", s->name);
    network_down(s->world->network, s->endpoint, false);
    sim_raft_crash(s->world->raft, s->id);
    s->replica = NULL;
    core_free(s->core);
    s->core = NULL;
}

bool scheduler_paused(const struct scheduler *s)
{
    return endpoint_paused(s->world->network, s->endpoint);
}

static void pause_ends(struct world *w, void *data, uint64_t epoch)
{
    struct scheduler *s = data;
    if (s->core != NULL && s->endpoint->epoch == epoch) {
        sim_raft_pause(w->raft, s->id, false);
    }
}

void scheduler_pause(struct scheduler *s, uint64_t for_us)
{
    network_pause(s->world->network, s->endpoint, for_us);
    sim_raft_pause(s->world->raft, s->id, true);
    world_after(s->world, for_us, pause_ends, s, s->endpoint->epoch);
}

void scheduler_retire(struct scheduler *s)
{
    world_trace(s->world, "%s is no member any more", s->name);
    s->member = false;
    if (s->core != NULL) {
        scheduler_crash(s);
    }
    sim_raft_wipe(s->world->raft, s->id);
}

struct schedulers *schedulers_new(struct world *w, uint32_t founders, uint32_t spares)
{
    uint32_t count = founders + spares;
    CHECK(count <= SCHEDULERS_MAX);
    struct schedulers *all = mem_must(mem_zalloc(1, sizeof *all));
    all->world = w;
    all->count = count;
    all->founders = founders;
    for (uint32_t i = 0; i < count; i++) {
        struct scheduler *s = &all->each[i];
        s->world = w;
        s->number = i;
        s->id = i + 1;
        s->clock_ahead_ms = (int64_t)world_below(w, 1000);
        (void)snprintf(s->name, sizeof s->name, "s%u", i + 1);
        (void)snprintf(s->address, sizeof s->address, "s%u:7000", i + 1);
        const struct endpoint_events events = {.data = s,
                                               .opened = on_opened,
                                               .closed = on_closed,
                                               .message = on_message,
                                               .packet = on_packet};
        s->endpoint = network_endpoint(w->network, s->name, ROLE_SCHEDULER, &events, s);
    }
    return all;
}

void schedulers_free(struct schedulers *all)
{
    for (uint32_t i = 0; i < all->count; i++) {
        struct scheduler *s = &all->each[i];
        if (s->core != NULL) {
            scheduler_crash(s);
        }
        arena_close(&s->decode);
        buffer_close(&s->encode);
    }
    mem_free(all);
}

void schedulers_start(struct schedulers *all)
{
    struct replica_member members[SCHEDULERS_MAX] = {{.id = 0}};
    for (uint32_t i = 0; i < all->founders; i++) {
        members[i] = (struct replica_member){.id = all->each[i].id, .role = REPLICA_VOTER};
        (void)snprintf(members[i].address, sizeof members[i].address, "%s", all->each[i].address);
    }
    for (uint32_t i = 0; i < all->founders; i++) {
        struct replica_config config = replica_defaults;
        struct errmsg msg = {.text = ""};
        config.id = all->each[i].id;
        config.address = all->each[i].address;
        struct status founded =
            sim_raft_bootstrap(all->world->raft, &config, members, all->founders, &msg);
        CHECK(status_is_ok(founded));
    }
    for (uint32_t i = 0; i < all->founders; i++) {
        scheduler_start(&all->each[i]);
    }
}

struct scheduler *schedulers_leader(struct schedulers *all)
{
    struct scheduler *leader = NULL;
    uint64_t term = 0;
    for (uint32_t i = 0; i < all->count; i++) {
        struct scheduler *s = &all->each[i];
        if (s->core != NULL && !scheduler_paused(s) && core_is_leader(s->core)) {
            struct replica_status st = replica_status(s->replica);
            if (st.term >= term) {
                term = st.term;
                leader = s;
            }
        }
    }
    return leader;
}

struct scheduler *schedulers_find(struct schedulers *all, const char *address)
{
    for (uint32_t i = 0; i < all->count; i++) {
        if (strcmp(all->each[i].address, address) == 0) {
            return &all->each[i];
        }
    }
    return NULL;
}

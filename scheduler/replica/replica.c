#include "scheduler/replica/replica_internal.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    ELECTION_TIMEOUT_MS = 500,
    HEARTBEAT_MS = 50,
    SNAPSHOT_THRESHOLD = 65536,
    SNAPSHOT_TRAILING = 8192,
    INSTALL_TIMEOUT_MS = 10000,
};

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value == 0 ? fallback : value;
}

struct status replica_config_check(const struct replica_config *config, struct errmsg *msg)
{
    if (config->id == 0) {
        return status_fail(msg, STATUS_INVALID, "member id 0 is not allowed");
    }
    if (config->address == NULL || config->address[0] == '\0' ||
        strlen(config->address) > REPLICA_ADDRESS_BYTES_MAX) {
        return status_fail(msg, STATUS_INVALID, "address is empty or longer than %d bytes",
                           REPLICA_ADDRESS_BYTES_MAX);
    }
    uint32_t election = or_default(config->election_timeout_ms, ELECTION_TIMEOUT_MS);
    uint32_t heartbeat = or_default(config->heartbeat_ms, HEARTBEAT_MS);
    if (heartbeat > election / 2) {
        return status_fail(msg, STATUS_INVALID,
                           "heartbeat of %u ms is more than half of the election timeout of %u ms",
                           heartbeat, election);
    }
    return status_ok();
}

int replica_host_send(struct raft_io *io, struct raft_io_send *req,
                      const struct raft_message *message, raft_io_send_cb cb)
{
    struct replica_host *host = (struct replica_host *)(void *)io; /* io is its first field */
    return outbox_send(host->outbox, req, message, cb);
}

static void wake(struct replica *r)
{
    r->host->wake(r->host);
}

void replica_fail(struct replica *r, const char *why)
{
    if (r->why[0] == '\0') {
        (void)snprintf(r->why, sizeof r->why, "%s", why);
        outbox_mute(&r->outbox);
        wake(r);
    }
}

static void guard_failed(void *data, const char *why)
{
    replica_fail(data, why);
}

/* Members take their snapshots at different times, so that a majority is always free of one. */
static uint32_t threshold_of(const struct replica_config *config)
{
    uint32_t threshold = or_default(config->snapshot_threshold, SNAPSHOT_THRESHOLD);
    uint64_t spread = (config->id * 0x9e3779b97f4a7c15ULL) >> 32;
    return threshold + (uint32_t)(spread % (threshold / 2 + 1));
}

static void configure(struct replica *r, const struct replica_config *config)
{
    struct raft *raft = &r->raft;
    raft_set_election_timeout(raft, or_default(config->election_timeout_ms, ELECTION_TIMEOUT_MS));
    raft_set_heartbeat_timeout(raft, or_default(config->heartbeat_ms, HEARTBEAT_MS));
    struct pressure *p = &r->pressure;
    p->threshold = threshold_of(config);
    p->trailing = or_default(config->snapshot_trailing, SNAPSHOT_TRAILING);
    raft_set_snapshot_threshold(raft, (unsigned)p->threshold);
    raft_set_snapshot_trailing(raft, (unsigned)p->trailing);
    r->folder = config->folder == NULL ? NULL : mem_strdup(config->folder);
    p->folder = r->folder;
    p->free_bytes_min = config->free_bytes_min;
    p->free_bytes = UINT64_MAX;
    raft_set_install_snapshot_timeout(raft, INSTALL_TIMEOUT_MS);
    raft_set_pre_vote(raft, true);
}

static void free_replica(struct replica *r)
{
    outbox_close(&r->outbox);
    inbound_close(&r->inbound);
    proposals_close(&r->proposals);
    guard_end(&r->guard);
    mem_free(r->folder);
    mem_free(r);
}

uint64_t replica_mark(const struct replica *r)
{
    uint64_t stored = r->raft.last_stored;
    uint64_t committed = r->raft.commit_index;
    return !r->started ? 0 : stored < committed ? stored : committed;
}

static void raft_closed(struct raft *raft)
{
    struct replica *r = raft->data;
    r->host->release(r->host);
}

/* Under the guard, in the place of the host's. */
static int host_async_work(struct raft_io *io, struct raft_io_async_work *req,
                           raft_io_async_work_cb cb)
{
    struct replica_host *host = (struct replica_host *)(void *)io; /* io is its first field */
    struct replica *r = host->replica;
    return works_run(&r->works, req, cb, replica_snapshot_encoded, r);
}

static void close_raft(struct replica *r)
{
    r->raft_closing = true;
    works_end(&r->works);
    guard_enter(&r->guard);
    raft_close(&r->raft, raft_closed);
    guard_leave(&r->guard);
}

/* Says why, and for damaged files what to do. */
static struct status start_failed(struct replica *r, const struct replica_config *config, int rv,
                                  struct errmsg *msg)
{
    char file[ERRMSG_BYTES_MAX / 2];
    enum status_code code = rv == 0 ? STATUS_CORRUPT : status_from_raft(rv).code;
    const char *why = r->why[0] != '\0' ? r->why : raft_errmsg(&r->raft);
    if (code != STATUS_CORRUPT) {
        return status_fail(msg, code, "start %s: %s", config->folder, why);
    }
    if (r->guard.failed && config->folder != NULL) { /* the state machine refused its snapshot */
        folder_newest_snapshot(config->folder, file, sizeof file);
        return status_fail(msg, code, "start: %s is damaged (%.120s); %s", file, why, FOLDER_CURE);
    }
    return status_fail(msg, code, "start %s: %.180s; %s", config->folder, why, FOLDER_CURE);
}

struct status replica_create(struct replica **out, struct replica_host *host,
                             const struct replica_config *config,
                             const struct replica_events *events, struct errmsg *msg)
{
    CHECK(events->send != NULL && events->on_apply != NULL && events->on_proposed != NULL);
    CHECK(events->on_role != NULL && events->snapshot_pin != NULL && events->restore != NULL);
    CHECK(events->snapshot_encode != NULL && events->snapshot_unpin != NULL);
    CHECK(events->on_fatal != NULL);
    struct replica *r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        host->abandon(host);
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    r->host = host;
    r->events = *events;
    outbox_init(&r->outbox);
    host->outbox = &r->outbox;
    host->replica = r;
    works_init(&r->works, &host->io, &r->guard);
    host->io.async_work = host_async_work;
    guard_init(&r->guard, &host->io, &r->raft, guard_failed, r);
    r->guard.mark = host->mark;
    r->guard.cures_off = host->cures_off;
    replica_fsm_init(r);
    int rv = raft_init(&r->raft, &r->guard.io, &r->fsm, config->id, config->address);
    if (rv != 0) {
        struct status s = status_fail(msg, status_from_raft(rv).code, "open %s: %s", config->folder,
                                      raft_errmsg(&r->raft));
        host->abandon(host);
        free_replica(r);
        return s;
    }
    r->raft.data = r;
    configure(r, config);
    guard_enter(&r->guard);
    rv = raft_start(&r->raft);
    guard_leave(&r->guard);
    if (rv != 0 || r->guard.failed) {
        struct status s = start_failed(r, config, rv, msg);
        r->closing = true;
        close_raft(r);
        return s;
    }
    r->started = true;
    wake(r);
    *out = r;
    return status_ok();
}

static void on_proposed(void *data, uint64_t ticket, struct status s, uint64_t index)
{
    struct replica *r = data;
    r->events.on_proposed(r->events.data, ticket, s, index);
}

static bool is_ready(const struct replica *r)
{
    return r->raft.state == RAFT_LEADER && r->ready_term == r->raft.current_term &&
           !r->guard.failed && !r->closing;
}

struct barrier {
    struct raft_barrier req;
    struct replica *replica;
    uint64_t term;
};

static void barrier_done(struct raft_barrier *req, int status)
{
    struct barrier *b = req->data;
    if (status == 0) {
        b->replica->ready_term = b->term;
    }
    mem_free(b);
}

/* A new leader commits an entry of its own term first; until then it does not know what has been
 * committed. */
static void ask_barrier(struct replica *r)
{
    struct barrier *b = mem_zalloc(1, sizeof *b);
    int rv = RAFT_NOMEM;
    if (b != NULL) {
        b->req.data = b;
        b->replica = r;
        b->term = r->raft.current_term;
        guard_enter(&r->guard);
        rv = raft_barrier(&r->raft, &b->req, barrier_done);
        guard_leave(&r->guard);
    }
    if (rv == 0) {
        r->barrier_term = r->raft.current_term;
        return;
    }
    mem_free(b);
    if (rv != RAFT_NOTLEADER) {
        guard_fail(&r->guard, "barrier", rv);
    }
}

static void follow_leadership(struct replica *r)
{
    if (r->raft.state == RAFT_LEADER && r->barrier_term != r->raft.current_term) {
        ask_barrier(r);
    }
    struct proposals *p = &r->proposals;
    if (p->in_flight > 0 &&
        (r->raft.state != RAFT_LEADER || p->ring[p->head].term != r->raft.current_term)) {
        proposals_lost(p, on_proposed, r);
    }
    if (p->queued > 0 && !is_ready(r)) {
        proposals_refuse(p, status_of(STATUS_NOT_LEADER), on_proposed, r);
    }
}

struct replica_status replica_status(const struct replica *r)
{
    struct raft *raft = (struct raft *)&r->raft; /* raft_leader only reads */
    struct replica_status st = {
        .leader = is_ready(r),
        .term = raft->current_term,
        .commit_index = raft->commit_index,
        .applied_index = raft->last_applied,
        .last_index = raft_last_index(raft),
        .snapshot_index = raft->log.snapshot.last_index,
        .snapshot_bytes = r->pressure.snapshot_bytes,
        .snapshot_ms = r->snapshot_took_ms,
        .proposals = proposals_count(&r->proposals),
        .unwritten_bytes = r->pressure.unwritten_bytes,
        .disk_free_bytes = r->pressure.free_bytes,
    };
    if (raft->state == RAFT_LEADER && !st.leader) {
        return st; /* nobody can be asked yet */
    }
    raft_id id = raft->id;
    const char *address = raft->address;
    if (!st.leader) {
        raft_leader(raft, &id, &address); /* knows none while leadership is being transferred */
    }
    st.leader_id = id;
    if (id != 0 && address != NULL) {
        (void)snprintf(st.leader_address, sizeof st.leader_address, "%s", address);
    }
    return st;
}

/* Tells a change of role, term or leader. A leader that is not ready yet is told only as the end
 * of an older leadership. */
static void tell_role(struct replica *r)
{
    bool waiting = r->raft.state == RAFT_LEADER && !is_ready(r);
    if (waiting && !r->told_leader) {
        return;
    }
    struct replica_status st = replica_status(r);
    if (st.leader == r->told_leader && st.term == r->told_term &&
        st.leader_id == r->told_leader_id) {
        return;
    }
    if (st.leader && r->told_leader) {
        /* Leader of another term than was told: the older leadership ends first. */
        st.leader = false;
        st.leader_id = 0;
        wake(r);
    }
    r->told_leader = st.leader;
    r->told_term = st.term;
    r->told_leader_id = st.leader_id;
    r->events.on_role(r->events.data, &st);
}

static void tell_applied(struct replica *r)
{
    uint64_t index = r->raft.last_applied;
    if (index == r->told_applied) {
        return;
    }
    r->told_applied = index;
    if (r->events.on_applied != NULL) {
        r->events.on_applied(r->events.data, index);
    }
}

/* Group commit: what comes while a batch is being written here travels in the next one. It costs a
 * proposal at most one write, and saves a message to each member, a write on each disk and a
 * wake-up of each thread on the way for every batch that is not made. */
static bool gathers(const struct replica *r)
{
    return r->guard.unfinished > 0 && r->proposals.in_flight > 0 &&
           r->proposals.queued < REPLICA_GATHER_MAX;
}

static void submit(struct replica *r)
{
    if (r->proposals.queued == 0 || !is_ready(r) || gathers(r)) {
        return;
    }
    struct status s = proposals_submit(&r->proposals, &r->raft, &r->guard, on_proposed, r);
    if (!status_is_ok(s)) {
        guard_fail(&r->guard, "propose", RAFT_NOMEM);
    }
}

static void tick(struct replica *r)
{
    if (r->ticks_seen == r->guard.ticks) {
        return;
    }
    r->ticks_seen = r->guard.ticks;
    uint64_t now_ms = r->guard.io.time(&r->guard.io);
    outbox_tick(&r->outbox, now_ms);
    inbound_tick(&r->inbound, now_ms);
}

static void follow_pressure(struct replica *r)
{
    pressure_follow(&r->pressure, &r->raft);
    bool low = r->pressure.disk_low;
    if (r->host->space_known) {
        pressure_space(&r->pressure, r->host->free_bytes, r->host->total_bytes);
    }
    if (low != r->pressure.disk_low) {
        const char *why = pressure_refuses(&r->pressure);
        LOG_WARN(low ? "disk has room again" : "disk nearly full",
                 LOG_UINT("free_mib", r->pressure.free_bytes >> 20),
                 LOG_STR("why", low || why == NULL ? "" : why));
    }
}

/* One round; true when another is due. */
static bool round_once(struct replica *r)
{
    tick(r);
    follow_pressure(r);
    follow_leadership(r);
    bool again = changes_step(&r->changes, &r->raft, &r->guard, is_ready(r));
    submit(r);
    if (!outbox_is_empty(&r->outbox)) {
        outbox_ship(&r->outbox, &r->events);
    }
    tell_applied(r);
    tell_role(r);
    bool more = r->proposals.queued > 0 && !gathers(r);
    return again || more || !outbox_is_empty(&r->outbox);
}

static bool turn_failed(struct replica *r)
{
    if (!r->told_fatal) {
        r->told_fatal = true;
        LOG_ERROR("replica stopped", LOG_STR("why", r->why));
        r->events.on_fatal(r->events.data, r->why);
    }
    if (!outbox_is_empty(&r->outbox)) {
        outbox_ship(&r->outbox, &r->events); /* muted: only completion calls */
    }
    return false;
}

/* Closing waits for the writes on their way: libraft must not be closed under them. Then
 * everything still open is answered: what was in flight may have been committed. */
static bool turn_closing(struct replica *r)
{
    if (r->raft_closing) {
        return false;
    }
    if (r->guard.writes > 0 || r->works.running > 0) {
        return false; /* their completions end in another turn */
    }
    close_raft(r);
    return false;
}

bool replica_turn(struct replica *r)
{
    CHECK(r->guard.depth == 0);
    guard_turn(&r->guard);
    if (r->guard.failed && r->started && !r->told_fatal) {
        (void)turn_failed(r);
    }
    if (r->closing) {
        return turn_closing(r);
    }
    if (r->guard.failed) {
        return turn_failed(r);
    }
    for (int i = 0; i < REPLICA_TURN_ROUNDS_MAX; i++) {
        bool again = round_once(r);
        if (r->guard.failed || r->closing) {
            return true;
        }
        if (!again) {
            return false;
        }
    }
    return true;
}

void replica_close(struct replica *r, void (*cb)(void *data), void *data)
{
    CHECK(!r->closing);
    r->closing = true;
    r->close_cb = cb;
    r->close_data = data;
    outbox_mute(&r->outbox);
    wake(r);
}

void replica_abandon(struct replica *r)
{
    CHECK(!r->raft_closing);
    r->closing = true;
    r->started = false;
    r->close_cb = NULL;
    outbox_mute(&r->outbox);
    close_raft(r);
}

void replica_released(struct replica *r)
{
    void (*cb)(void *data) = r->close_cb;
    void *data = r->close_data;
    if (r->started) {
        proposals_lost(&r->proposals, on_proposed, r);
        proposals_refuse(&r->proposals, status_of(STATUS_CANCELED), on_proposed, r);
        changes_refuse(&r->changes, status_of(STATUS_UNKNOWN), "the replica was closed");
    }
    changes_drop(&r->changes);
    free_replica(r);
    if (cb != NULL) {
        cb(data);
    }
}

struct status replica_propose(struct replica *r, uint64_t ticket, struct bytes command)
{
    if (!is_ready(r)) {
        return status_of(STATUS_NOT_LEADER);
    }
    if (pressure_refuses(&r->pressure) != NULL) {
        return status_of(STATUS_LIMIT);
    }
    TRY(proposals_add(&r->proposals, ticket, command));
    wake(r);
    return status_ok();
}

const char *replica_refusal(struct replica *r)
{
    const char *why = pressure_refuses(&r->pressure);
    if (why == NULL && proposals_are_many(&r->proposals)) {
        why = "too many commands wait to be written to disk";
    }
    return why;
}

static struct status receive_part(struct replica *r, uint64_t from_id, const char *from_address,
                                  struct wire_message *m)
{
    const struct wire_part *part = &m->part;
    if (part->term < r->raft.current_term) {
        wire_close(m);
        return status_ok();
    }
    struct wire_part_ack ack;
    bool complete = false;
    struct raft_message install = {
        .type = RAFT_IO_INSTALL_SNAPSHOT, .server_id = from_id, .server_address = from_address};
    struct status s = inbound_put(&r->inbound, from_id, part, r->guard.io.time(&r->guard.io), &ack,
                                  &complete, &install.install_snapshot);
    wire_close(m);
    if (!status_is_ok(s)) {
        return s;
    }
    outbox_ack(&r->outbox, from_id, from_address, &ack);
    if (complete) {
        guard_receive(&r->guard, &install);
    }
    return status_ok();
}

/* What only this side can know to be wrong. */
static bool message_fits(const struct replica *r, uint64_t from_id, const struct wire_message *m)
{
    if (m->type == WIRE_VOTE && m->raft.request_vote.candidate_id != from_id) {
        return false;
    }
    return from_id != 0 && from_id != r->raft.id;
}

/* What the disk could not take is dropped; the leader sends it again. */
static bool is_too_much(struct replica *r, const struct wire_message *m)
{
    bool bulky =
        m->type == WIRE_PART || (m->type == WIRE_APPEND && m->raft.append_entries.n_entries > 0);
    if (!bulky) {
        return false;
    }
    pressure_follow(&r->pressure, &r->raft); /* many may come in one turn */
    return pressure_drops(&r->pressure);
}

struct status replica_receive(struct replica *r, uint64_t from_id, const char *from_address,
                              struct bytes message)
{
    CHECK(r->guard.depth == 0);
    if (r->closing || r->guard.failed) {
        return status_of(STATUS_UNAVAILABLE);
    }
    if (from_address == NULL || from_address[0] == '\0' ||
        strlen(from_address) > REPLICA_ADDRESS_BYTES_MAX) {
        return status_of(STATUS_INVALID);
    }
    struct wire_message m;
    TRY(wire_decode(message, &m));
    if (!message_fits(r, from_id, &m)) {
        wire_close(&m);
        return status_of(STATUS_INVALID);
    }
    wake(r);
    if (is_too_much(r, &m)) {
        wire_close(&m);
        return status_ok();
    }
    if (m.type == WIRE_PART) {
        return receive_part(r, from_id, from_address, &m);
    }
    if (m.type == WIRE_PART_ACK) {
        outbox_acked(&r->outbox, from_id, &m.ack);
        return status_ok();
    }
    if (m.type == WIRE_APPEND_RESULT) {
        outbox_answered(&r->outbox, from_id, &m.raft.append_entries_result);
    }
    m.raft.server_id = from_id;
    m.raft.server_address = from_address;
    guard_receive(&r->guard, &m.raft);
    return status_ok();
}

size_t replica_members(const struct replica *r, struct replica_member out[REPLICA_MEMBERS_MAX])
{
    const struct raft_configuration *conf = &r->raft.configuration;
    size_t count = 0;
    for (unsigned i = 0; i < conf->n && count < REPLICA_MEMBERS_MAX; i++) {
        const struct raft_server *s = &conf->servers[i];
        struct replica_member *m = &out[count++];
        *m = (struct replica_member){.id = s->id};
        m->role = s->role == RAFT_VOTER     ? REPLICA_VOTER
                  : s->role == RAFT_STANDBY ? REPLICA_STANDBY
                                            : REPLICA_SPARE;
        (void)snprintf(m->address, sizeof m->address, "%s", s->address);
    }
    return count;
}

void replica_add(struct replica *r, const struct replica_member *m, replica_change_cb cb,
                 void *data)
{
    CHECK(m->id != 0);
    CHECK(m->address[0] != '\0');
    changes_add(&r->changes, CHANGE_ADD, m, cb, data);
    wake(r);
}

void replica_remove(struct replica *r, uint64_t id, replica_change_cb cb, void *data)
{
    struct replica_member m = {.id = id};
    changes_add(&r->changes, CHANGE_REMOVE, &m, cb, data);
    wake(r);
}

void replica_transfer(struct replica *r, uint64_t id, replica_change_cb cb, void *data)
{
    struct replica_member m = {.id = id};
    changes_add(&r->changes, CHANGE_TRANSFER, &m, cb, data);
    wake(r);
}

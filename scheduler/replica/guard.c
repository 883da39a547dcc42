#include "scheduler/replica/guard_internal.h"

#include "common/check.h"
#include "common/mem.h"
#include "scheduler/replica/pressure.h"
#include "scheduler/replica/replica.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PROGRESS_SNAPSHOT = 2 }; /* of raft_progress.state, which raft.h does not name */

static const char *const cure_names[GUARD_CURES] = {
    "hold", "clamp", "stale", "tick", "vote",  "fatal",  "serial",  "mark",    "prefix",
    "conf", "again", "send",  "zero", "close", "ballot", "prevote", "arrived", "merge",
};

const char *guard_cure_name(unsigned bit)
{
    return bit < GUARD_CURES ? cure_names[bit] : NULL;
}

uint32_t guard_cure_find(const char *name)
{
    for (unsigned i = 0; i < GUARD_CURES; i++) {
        if (strcmp(cure_names[i], name) == 0) {
            return (uint32_t)1 << i;
        }
    }
    return 0;
}

static struct guard *guard_of_base(struct raft_io *base)
{
    return base->data;
}

void guard_enter(struct guard *g)
{
    g->depth++;
}

void guard_leave(struct guard *g)
{
    CHECK(g->depth > 0);
    g->depth--;
}

void guard_fail(struct guard *g, const char *what, int raft_code)
{
    if (g->failed) {
        return;
    }
    g->failed = true;
    guard_disk_hold(g);
    char why[RAFT_ERRMSG_BUF_SIZE + 128];
    (void)snprintf(why, sizeof why, "%s: %s%s%s", what, raft_strerror(raft_code),
                   g->base->errmsg[0] == '\0' ? "" : ": ", g->base->errmsg);
    g->fatal(g->data, why);
}

uint64_t guard_term_of(const struct raft_log *log, uint64_t index)
{
    if (index == 0) {
        return 0;
    }
    if (index == log->snapshot.last_index) {
        return log->snapshot.last_term;
    }
    const struct raft_entry *entry = log_entry(log, index);
    return entry == NULL ? 0 : entry->term;
}

static struct raft_server *member_of(const struct raft *raft, raft_id id)
{
    for (unsigned i = 0; i < raft->configuration.n; i++) {
        if (raft->configuration.servers[i].id == id) {
            return &raft->configuration.servers[i];
        }
    }
    return NULL;
}

static const char *member_address(const struct raft *raft, raft_id id)
{
    const struct raft_server *s = member_of(raft, id);
    return s == NULL ? NULL : s->address;
}

/* Where a message really goes; NULL: nowhere. */
static const char *destination(const struct guard *g, const struct raft_message *m)
{
    const struct raft *raft = g->raft;
    bool answering = g->answer.id != 0;
    if (answering && m->server_id == g->answer.id) {
        return g->answer.address;
    }
    if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT) {
        if (answering || raft->state != RAFT_FOLLOWER) {
            return NULL;
        }
        return m->server_id == 0 ? NULL : raft->follower_state.current_leader.address;
    }
    return member_address(raft, m->server_id);
}

/* CLAMP, the follower's answer; see guard_receive's half. It may say only what the message at hand,
 * or the write that has ended, has compared. */
static void clamp_result(const struct guard *g, struct raft_append_entries_result *result)
{
    if (!guard_has(g, GUARD_CLAMP) || result->rejected != 0) {
        return;
    }
    uint64_t checked = result->last_log_index;
    if (g->ending != NULL && g->ending->kind == GUARD_APPEND) {
        checked = g->ending->last;
    } else if (g->answer.id != 0 && g->answer.is_append) {
        checked = g->answer.checked;
    }
    if (result->last_log_index > checked) {
        result->last_log_index = checked;
    }
}

/* STALE cures S3 (cured upstream by 35479fc, 05746af): when a write ends that an older term began,
 * libraft acknowledges it in the name of the current term, to the leader of now, which may have
 * other entries there. */
static bool is_stale(const struct guard *g, const struct raft_message *m)
{
    return m->type == RAFT_IO_APPEND_ENTRIES_RESULT && g->ending != NULL &&
           g->ending->term != g->raft->current_term && guard_has(g, GUARD_STALE);
}

/* The snapshot that a member is being sent, as the leader sees it; 0: none. */
static uint64_t snapshot_sent_to(const struct raft *r, raft_id id)
{
    for (unsigned i = 0; r->state == RAFT_LEADER && i < r->configuration.n; i++) {
        const struct raft_progress *p = &r->leader_state.progress[i];
        if (r->configuration.servers[i].id == id && p->state == PROGRESS_SNAPSHOT) {
            return p->snapshot_index;
        }
    }
    return 0;
}

/* ARRIVED (no cure upstream is known): when a member's only answer to an installed snapshot is
 * lost, libraft's leader ignores all that it says for the ten seconds of the installation's timeout
 * (its heartbeats ask about the leader's last entry, which the member cannot have) and then sends
 * the whole snapshot again, without end on a network that loses that answer again. So meanwhile the
 * heartbeats ask about the snapshot's last entry: who has installed it says so. */
static void ask_arrived(const struct guard *g, struct raft_message *m)
{
    struct raft_append_entries *args = &m->append_entries;
    uint64_t index = snapshot_sent_to(g->raft, m->server_id);
    uint64_t term = guard_term_of(&g->raft->log, index);
    if (args->n_entries > 0 || term == 0 || !guard_has(g, GUARD_ARRIVED)) {
        return;
    }
    args->prev_log_index = index;
    args->prev_log_term = term;
    if (args->leader_commit > index) {
        args->leader_commit = index;
    }
}

/* ARRIVED, the other half: who has not installed it yet refuses just that entry, for which libraft
 * would give the transfer up. Any other number is heard as a sign of life only. */
static void not_arrived(const struct guard *g, const struct raft_message *m,
                        struct raft_append_entries_result *result)
{
    if (result->rejected != 0 && result->rejected == snapshot_sent_to(g->raft, m->server_id) &&
        guard_has(g, GUARD_ARRIVED)) {
        result->rejected++;
    }
}

static int guard_send(struct raft_io *io, struct raft_io_send *req,
                      const struct raft_message *message, raft_io_send_cb cb)
{
    struct guard *g = guard_of(io);
    struct raft_message m = *message;
    m.server_address = destination(g, message);
    if (m.server_address == NULL || g->failed || is_stale(g, &m)) {
        m.server_id = 0;
        m.server_address = "";
    }
    if (m.type == RAFT_IO_APPEND_ENTRIES_RESULT) {
        clamp_result(g, &m.append_entries_result);
    } else if (m.type == RAFT_IO_APPEND_ENTRIES) {
        ask_arrived(g, &m);
    }
    if (m.type == RAFT_IO_TIMEOUT_NOW && guard_has(g, GUARD_SEND)) {
        /* SEND (cured upstream by c6cfe58): this request is part of the transfer, which may be
         * over, and its memory gone, before the message has been sent. */
        return g->base->send(g->base, NULL, &m, NULL);
    }
    return g->base->send(g->base, req, &m, cb);
}

static bool is_answer(const struct raft_message *m)
{
    return m->type == RAFT_IO_APPEND_ENTRIES_RESULT || m->type == RAFT_IO_REQUEST_VOTE_RESULT;
}

/* Frees the entries of a message; it carries none then. */
static void entries_drop(struct raft_append_entries *args)
{
    if (args->n_entries > 0) {
        raft_free(args->entries[0].batch);
        raft_free(args->entries);
    }
    args->entries = NULL;
    args->n_entries = 0;
}

/* Frees a message that libraft is not given. */
static void message_drop(struct raft_message *m)
{
    if (m->type == RAFT_IO_APPEND_ENTRIES) {
        entries_drop(&m->append_entries);
    } else if (m->type == RAFT_IO_INSTALL_SNAPSHOT) {
        raft_free(m->install_snapshot.data.base);
        raft_configuration_close(&m->install_snapshot.conf);
    }
}

/* PREFIX cures P (no cure upstream is known): a follower whose entries before a snapshot are gone
 * rejects what starts there, so the leader goes back to the very first entry, and then libraft
 * appends all of them at the end of the log, under wrong indexes. What the snapshot covers is
 * committed, so the leader has the same there: those entries are taken off, and the message
 * continues after the snapshot. */
static void trim_prefix(const struct guard *g, struct raft_append_entries *args)
{
    const struct raft_log *log = &g->raft->log;
    uint64_t covered = log->snapshot.last_index;
    if (!guard_has(g, GUARD_PREFIX) || g->installing || args->prev_log_index >= covered ||
        args->term < g->raft->current_term) {
        return;
    }
    if (args->prev_log_index > log->offset && log->offset != 0) {
        return; /* still in the log: libraft compares it */
    }
    if (log->offset == 0) {
        return; /* nothing has been removed */
    }
    uint64_t skip = covered - args->prev_log_index;
    if (skip >= args->n_entries) {
        entries_drop(args);
    } else {
        args->n_entries -= (unsigned)skip;
        memmove(args->entries, args->entries + skip, args->n_entries * sizeof *args->entries);
    }
    args->prev_log_index = covered;
    args->prev_log_term = log->snapshot.last_term;
}

/* CLAMP cures S2 (cured upstream by cowsql 66ed6afd, 446f8d21): a follower compares its log with
 * the leader's up to the last entry of a message, but then acknowledges everything it has stored,
 * and commits up to the leader's commit index: what lies behind may be another leader's. */
static void clamp_append(struct guard *g, struct raft_append_entries *args)
{
    g->answer.is_append = true;
    g->answer.checked = args->prev_log_index + args->n_entries;
    if (guard_has(g, GUARD_CLAMP) && args->leader_commit > g->answer.checked) {
        args->leader_commit = g->answer.checked;
    }
}

/* False: libraft is not to see this message. */
static bool filter_append(struct guard *g, struct raft_append_entries *args)
{
    if (g->cut > 0 && args->n_entries > 0 && guard_has(g, GUARD_AGAIN)) {
        /* AGAIN (cured upstream by logReinstate): an entry that is truncated while its write is
         * on its way, and comes again with the same term, gets a second reference count, and one
         * of them frees what the other uses; it also counts twice as stored. The leader sends
         * again. */
        return false;
    }
    trim_prefix(g, args);
    clamp_append(g, args);
    int rv = guard_conf_rollback(g, args);
    if (rv != 0) {
        guard_fail(g, "configuration", rv);
        return false;
    }
    return true;
}

/* TICK cures S4 (cured upstream by 634cb11, f65b6e7, a54636b, 4fbd3c0): a candidate whose own
 * writes, or whose installation of a snapshot, are not done yet counts them as another term's, or
 * as stored twice. A follower waits for them; so does a transfer's TimeoutNow. */
static bool must_wait(const struct guard *g)
{
    return g->unfinished > 0 && guard_has(g, GUARD_TICK) &&
           (g->raft->state == RAFT_FOLLOWER || g->raft->state == RAFT_CANDIDATE);
}

static bool filter(struct guard *g, struct raft_message *m)
{
    if (g->failed || g->closing || g->recv == NULL) {
        return false;
    }
    if (is_answer(m) && member_address(g->raft, m->server_id) == NULL) {
        return false;
    }
    if (m->type == RAFT_IO_APPEND_ENTRIES) {
        return filter_append(g, &m->append_entries);
    }
    if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT) {
        not_arrived(g, m, &m->append_entries_result);
    }
    if (m->type == RAFT_IO_TIMEOUT_NOW && must_wait(g)) {
        g->timeout_from = m->server_id;
        g->timeout_now = m->timeout_now;
        return false;
    }
    return true;
}

/* The last index that a majority of the voters has stored once this result is taken in. */
static uint64_t quorum_index(const struct raft *r, const struct raft_message *m)
{
    uint64_t stored[REPLICA_MEMBERS_MAX];
    unsigned voters = 0;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        if (s->role != RAFT_VOTER) {
            continue;
        }
        if (voters == REPLICA_MEMBERS_MAX) {
            return 0;
        }
        uint64_t match = r->leader_state.progress[i].match_index;
        if (s->id == m->server_id && m->append_entries_result.last_log_index > match) {
            match = m->append_entries_result.last_log_index;
        }
        unsigned at = voters++;
        for (; at > 0 && stored[at - 1] < match; at--) {
            stored[at] = stored[at - 1];
        }
        stored[at] = match;
    }
    return voters == 0 ? 0 : stored[voters / 2];
}

/* HOLD cures S1 (cured upstream by 524f735, 29bb302; figure 8 of the Raft paper): libraft's leader
 * commits entries of older terms as soon as a majority has them, which another leader may still
 * overwrite. It commits at most to what it takes for its own last stored entry, so while it takes
 * in a result that is set to the last entry of its own term that a majority has. This also lets it
 * commit what a majority has while later entries are on their way (1996d32 upstream). */
static uint64_t hold(const struct guard *g, const struct raft_message *m)
{
    const struct raft *r = g->raft;
    const struct raft_append_entries_result *result = &m->append_entries_result;
    if (!guard_has(g, GUARD_HOLD) || m->type != RAFT_IO_APPEND_ENTRIES_RESULT ||
        r->state != RAFT_LEADER || result->term != r->current_term || result->rejected != 0) {
        return 0;
    }
    uint64_t index = quorum_index(r, m);
    if (index > r->last_stored) {
        index = r->last_stored;
    }
    bool own = index > r->commit_index && guard_term_of(&r->log, index) == r->current_term;
    return r->last_stored - (own ? index : r->commit_index);
}

static void tell(struct guard *g, struct raft_message *m)
{
    guard_enter(g);
    g->recv(&g->io, m);
    guard_leave(g);
}

/* PREVOTE: a request for a pre-vote names the term after its sender's. A candidate that is behind
 * it in terms but ahead in its log refuses, and is refused for its term, and libraft lets neither
 * learn from the other: without a third server they never elect a leader. So a candidate adopts the
 * sender's term, as from any other message; libraft does that for an answer to a real vote. */
static void adopt_term(struct guard *g, const struct raft_message *m)
{
    struct raft *r = g->raft;
    const struct raft_request_vote *request = &m->request_vote;
    if (!request->pre_vote || r->state != RAFT_CANDIDATE || !r->candidate_state.in_pre_vote ||
        request->term <= r->current_term + 1 || !guard_has(g, GUARD_PREVOTE)) {
        return;
    }
    struct raft_message answer = {.type = RAFT_IO_REQUEST_VOTE_RESULT,
                                  .server_id = m->server_id,
                                  .server_address = m->server_address};
    answer.request_vote_result.term = request->term - 1;
    r->candidate_state.in_pre_vote = false;
    tell(g, &answer);
    if (r->state == RAFT_CANDIDATE) {
        r->candidate_state.in_pre_vote = true; /* not from a voter, as we know them */
    }
}

/* VOTE cures S5 (cured upstream by cowsql ad19f79a): libraft gives the target of its own transfer a
 * vote, although it has voted for another in that term.
 *
 * BALLOT: a member whose promotion is committed may not have heard of it, and libraft lets it
 * refuse its vote then; without it there may be no majority. Who asks for a vote knows whether it
 * counts (section 4.1 of the Raft dissertation). And libraft refuses while a leader is known, which
 * for a member without a vote is for ever, and else until its own, random timeout; it should be
 * refused while the leader has been heard within the shortest one (section 4.2.3). */
static void give_request_vote(struct guard *g, struct raft_message *m)
{
    struct raft *r = g->raft;
    struct raft_transfer *transfer = r->transfer;
    struct raft_server *self = member_of(r, r->id);
    int role = self == NULL ? 0 : self->role;
    adopt_term(g, m);
    if (guard_has(g, GUARD_VOTE)) {
        r->transfer = NULL;
    }
    if (self != NULL && guard_has(g, GUARD_BALLOT)) {
        self->role = RAFT_VOTER;
        bool silent = g->base->time(g->base) - r->election_timer_start >= r->election_timeout;
        m->request_vote.disrupt_leader |= r->state == RAFT_FOLLOWER && silent;
    }
    tell(g, m);
    if (self != NULL) {
        self->role = role;
    }
    if (r->transfer == NULL) {
        r->transfer = transfer;
    }
}

static void give(struct guard *g, struct raft_message *m)
{
    if (m->type == RAFT_IO_REQUEST_VOTE) {
        give_request_vote(g, m);
        return;
    }
    uint64_t held = hold(g, m);
    g->raft->last_stored -= held;
    tell(g, m);
    g->raft->last_stored += held;
}

void guard_receive(struct guard *g, struct raft_message *message)
{
    CHECK(message->server_id != 0);
    CHECK(g->depth == 0);
    if (!filter(g, message)) {
        message_drop(message);
        return;
    }
    g->answer.id = message->server_id;
    g->answer.address = message->server_address;
    give(g, message);
    g->answer = (struct guard_answer){0};
    guard_conf_settle(g);
}

/* A TimeoutNow that had to wait; libraft checks once more whether it still holds. */
static void give_timeout(struct guard *g)
{
    if (g->timeout_from == 0 || must_wait(g)) {
        return;
    }
    struct raft_message m = {.type = RAFT_IO_TIMEOUT_NOW,
                             .server_id = g->timeout_from,
                             .server_address = member_address(g->raft, g->timeout_from),
                             .timeout_now = g->timeout_now};
    g->timeout_from = 0;
    if (m.server_address != NULL) {
        guard_receive(g, &m);
    }
}

static void base_tick(struct raft_io *base)
{
    struct guard *g = guard_of_base(base);
    if (g->failed || g->closing) {
        return;
    }
    g->ticks++;
    give_timeout(g);
    if (must_wait(g)) {
        return;
    }
    guard_enter(g);
    g->tick(&g->io);
    guard_leave(g);
    guard_conf_settle(g);
}

/* The bases do not receive by themselves: replica_receive does, through guard_receive. */
static void base_recv(struct raft_io *base, struct raft_message *message)
{
    guard_receive(guard_of_base(base), message);
}

static int guard_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
                       raft_io_recv_cb recv)
{
    struct guard *g = guard_of(io);
    g->tick = tick;
    g->recv = recv;
    guard_conf_started(g);
    return g->base->start(g->base, msecs, base_tick, base_recv);
}

static void base_closed(struct raft_io *base)
{
    struct guard *g = guard_of_base(base);
    CHECK(g->writes == 0);
    g->close(&g->io);
}

static void guard_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct guard *g = guard_of(io);
    g->closing = true;
    g->close = cb;
    guard_disk_release(g);
    g->base->close(g->base, base_closed);
}

static int guard_init_io(struct raft_io *io, raft_id id, const char *address)
{
    struct guard *g = guard_of(io);
    int rv = g->base->init(g->base, id, address);
    memcpy(io->errmsg, g->base->errmsg, sizeof io->errmsg);
    return rv;
}

void guard_loaded_free(struct raft_snapshot *snapshot, struct raft_entry *entries, size_t count)
{
    const void *batch = NULL;
    for (size_t i = 0; i < count; i++) {
        if (entries[i].batch != batch) {
            batch = entries[i].batch;
            raft_free(entries[i].batch);
        }
    }
    raft_free(entries);
    if (snapshot != NULL) {
        for (unsigned i = 0; i < snapshot->n_bufs; i++) {
            raft_free(snapshot->bufs[i].base);
        }
        raft_free(snapshot->bufs);
        raft_configuration_close(&snapshot->configuration);
        raft_free(snapshot);
    }
}

/* MARK cures D4: raft_uv takes bit rot in an open segment for a torn write and cuts what follows,
 * in silence, with automatic recovery on or off (never cured upstream). A member that comes back
 * with less than it acknowledged may vote for one that lacks committed entries. So the host notes
 * beside the log, now and then, a committed entry that is on this disk, and a log that ends before
 * it does not start. */
static bool mark_fits(struct guard *g, uint64_t last_index)
{
    if (last_index >= g->mark || !guard_has(g, GUARD_MARK)) {
        return true;
    }
    (void)snprintf(g->io.errmsg, sizeof g->io.errmsg,
                   "the log ends at entry %" PRIu64 ", but entry %" PRIu64
                   " was on this disk: the end of a segment is lost or damaged",
                   last_index, g->mark);
    return false;
}

static int guard_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                      struct raft_snapshot **snapshot, raft_index *start_index,
                      struct raft_entry *entries[], size_t *n_entries)
{
    struct guard *g = guard_of(io);
    int rv = g->base->load(g->base, term, voted_for, snapshot, start_index, entries, n_entries);
    memcpy(io->errmsg, g->base->errmsg, sizeof io->errmsg);
    if (rv != 0) {
        return rv;
    }
    uint64_t last = *start_index + *n_entries - 1;
    if (*snapshot != NULL && (*snapshot)->index > last) {
        last = (*snapshot)->index;
    }
    rv = mark_fits(g, last) ? guard_conf_loaded(g, *snapshot, *start_index, *entries, *n_entries)
                            : RAFT_CORRUPT;
    if (rv != 0) {
        guard_loaded_free(*snapshot, *entries, *n_entries);
    }
    return rv;
}

static int guard_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
    struct guard *g = guard_of(io);
    return g->base->bootstrap(g->base, conf);
}

static int guard_recover(struct raft_io *io, const struct raft_configuration *conf)
{
    struct guard *g = guard_of(io);
    return g->base->recover(g->base, conf);
}

static raft_time guard_time(struct raft_io *io)
{
    struct guard *g = guard_of(io);
    return g->base->time(g->base);
}

static int guard_random(struct raft_io *io, int min, int max)
{
    struct guard *g = guard_of(io);
    return g->base->random(g->base, min, max);
}

static int guard_async_work(struct raft_io *io, struct raft_io_async_work *req,
                            raft_io_async_work_cb cb)
{
    struct guard *g = guard_of(io);
    return g->base->async_work(g->base, req, cb);
}

void guard_end(struct guard *g)
{
    guard_conf_close(g);
}

void guard_init(struct guard *g, struct raft_io *base, struct raft *raft,
                void (*fatal)(void *data, const char *why), void *data)
{
    *g = (struct guard){.base = base, .raft = raft, .fatal = fatal, .data = data};
    base->data = g;
    g->io = (struct raft_io){
        .version = 2,
        .impl = g,
        .init = guard_init_io,
        .close = guard_close,
        .load = guard_load,
        .start = guard_start,
        .bootstrap = guard_bootstrap,
        .recover = guard_recover,
        .set_term = guard_set_term,
        .set_vote = guard_set_vote,
        .send = guard_send,
        .append = guard_append,
        .truncate = guard_truncate,
        .snapshot_put = guard_snapshot_put,
        .snapshot_get = guard_snapshot_get,
        .time = guard_time,
        .random = guard_random,
        .async_work = guard_async_work,
    };
}

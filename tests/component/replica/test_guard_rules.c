/* One server of three under the virtual clock, whose two peers are played by hand: for each cure
 * the messages, in the order, that bring out the mistake, with the cure and without it. Runs
 * without a cure that may crash are made in a child. */
#include "scheduler/replica/replica_internal.h"
#include "scheduler/replica/snapshot_bytes.h"
#include "simulations/sim_io.h"

#include "common/mem.h"
#include "common/parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MS ((uint64_t)1000)
enum { SENT_MAX = 4096, ELECTION_MS = 200, HEARTBEAT_MS = 20, LOG_SIZE = 16 };

/* What the server sent that matters here. */
struct sent {
    uint64_t to;
    enum wire_type type;
    uint64_t term;
    uint64_t rejected;
    uint64_t last;
    bool granted;
    bool pre_vote;
};

struct rig {
    struct sim_raft *world;
    struct replica *replica;
    uint32_t cures_off;
    uint32_t threshold;
    struct sent sent[SENT_MAX];
    size_t count;
    uint64_t applied;
    uint64_t restored;
    bool fatal;
};

static const char *address_of(uint64_t id)
{
    static const char *const all[] = {"", "h1:1", "h2:1", "h3:1", "h4:1", "h5:1"};
    return all[id];
}

static void on_send(void *data, uint64_t to, const char *address, bool bulk, struct bytes message)
{
    struct rig *g = data;
    struct wire_message m;
    (void)address;
    (void)bulk;
    assert_int_equal(wire_decode(message, &m).code, STATUS_OK);
    struct sent s = {.to = to, .type = m.type};
    if (m.type == WIRE_APPEND_RESULT) {
        s.term = m.raft.append_entries_result.term;
        s.rejected = m.raft.append_entries_result.rejected;
        s.last = m.raft.append_entries_result.last_log_index;
    } else if (m.type == WIRE_VOTE_RESULT) {
        s.term = m.raft.request_vote_result.term;
        s.granted = m.raft.request_vote_result.vote_granted;
        s.pre_vote = m.raft.request_vote_result.pre_vote == raft_tribool_true;
    } else if (m.type == WIRE_VOTE) {
        s.term = m.raft.request_vote.term;
        s.pre_vote = m.raft.request_vote.pre_vote;
    } else if (m.type == WIRE_APPEND) {
        s.term = m.raft.append_entries.term;
        s.last = m.raft.append_entries.prev_log_index + m.raft.append_entries.n_entries;
    }
    wire_close(&m);
    if (g->count < SENT_MAX) {
        g->sent[g->count++] = s;
    }
}

static void on_apply(void *data, uint64_t index, uint64_t term, struct bytes command)
{
    struct rig *g = data;
    (void)term;
    (void)command;
    g->applied = index;
}

static void on_proposed(void *data, uint64_t ticket, struct status s, uint64_t index)
{
    (void)data;
    (void)ticket;
    (void)s;
    (void)index;
}

static void on_role(void *data, const struct replica_status *st)
{
    (void)data;
    (void)st;
}

static void *on_pin(void *data)
{
    return data;
}

static struct status on_encode(void *data, const void *pin, struct parts *out)
{
    (void)pin;
    const struct rig *g = data;
    return buffer_append(parts_next(out), &g->applied, sizeof g->applied);
}

static void on_unpin(void *data, void *pin)
{
    (void)data;
    (void)pin;
}

static struct status on_restore(void *data, struct bytes state)
{
    struct rig *g = data;
    (void)state;
    g->restored++;
    return status_ok();
}

static void on_fatal(void *data, const char *why)
{
    struct rig *g = data;
    (void)why;
    g->fatal = true;
}

static struct status rig_start(struct rig *g)
{
    struct replica_config config = {.id = 1,
                                    .address = address_of(1),
                                    .folder = "-",
                                    .election_timeout_ms = ELECTION_MS,
                                    .heartbeat_ms = HEARTBEAT_MS,
                                    .snapshot_threshold = g->threshold,
                                    .snapshot_trailing = 1,
                                    .random_seed = 1};
    struct replica_events events = {.data = g,
                                    .send = on_send,
                                    .on_apply = on_apply,
                                    .on_proposed = on_proposed,
                                    .on_role = on_role,
                                    .snapshot_pin = on_pin,
                                    .snapshot_encode = on_encode,
                                    .snapshot_unpin = on_unpin,
                                    .restore = on_restore,
                                    .on_fatal = on_fatal};
    sim_raft_cures_off(g->world, g->cures_off);
    return replica_open_sim(&g->replica, g->world, &config, &events, NULL);
}

static void rig_open(struct rig *g, uint32_t cures_off, uint32_t threshold)
{
    *g = (struct rig){.cures_off = cures_off, .threshold = threshold};
    g->world = sim_raft_new(7);
    struct replica_member members[3];
    for (uint64_t i = 0; i < 3; i++) {
        members[i] = (struct replica_member){.id = i + 1, .role = REPLICA_VOTER};
        (void)snprintf(members[i].address, sizeof members[i].address, "%s", address_of(i + 1));
    }
    struct replica_config config = {.id = 1, .address = address_of(1), .folder = "-"};
    assert_int_equal(sim_raft_bootstrap(g->world, &config, members, 3, NULL).code, STATUS_OK);
    assert_int_equal(rig_start(g).code, STATUS_OK);
    sim_raft_disk_speed(g->world, 1, (struct sim_disk_speed){100, 100});
    sim_raft_advance(g->world, sim_raft_now_us(g->world));
}

static void rig_close(struct rig *g)
{
    sim_raft_free(g->world);
}

static void pass(struct rig *g, uint64_t us)
{
    sim_raft_advance(g->world, sim_raft_now_us(g->world) + us);
}

static void disk_takes(struct rig *g, uint64_t us)
{
    sim_raft_disk_speed(g->world, 1, (struct sim_disk_speed){us, us});
}

static void give_bytes(struct rig *g, uint64_t from, struct buffer *bytes)
{
    struct status s =
        replica_receive(g->replica, from, address_of(from), bytes_of(bytes->data, bytes->size));
    assert_int_equal(s.code, STATUS_OK);
    buffer_close(bytes);
    pass(g, 1);
}

/* An AppendEntries of `from`: n commands of `entry_term` after (prev, prev_term). */
static void give_append(struct rig *g, uint64_t from, uint64_t term, uint64_t prev,
                        uint64_t prev_term, unsigned n, uint64_t entry_term, uint64_t commit)
{
    static uint64_t command[2]; /* an empty command: length 0, and one word */
    struct raft_entry entries[LOG_SIZE * 8];
    for (unsigned i = 0; i < n; i++) {
        entries[i] =
            (struct raft_entry){.term = entry_term, .type = RAFT_COMMAND, .buf = {command, 8}};
    }
    struct raft_append_entries args = {.term = term,
                                       .prev_log_index = prev,
                                       .prev_log_term = prev_term,
                                       .leader_commit = commit,
                                       .entries = entries,
                                       .n_entries = n};
    struct buffer bytes = {0};
    assert_int_equal(wire_put_append(&bytes, &args, 0, n).code, STATUS_OK);
    give_bytes(g, from, &bytes);
}

static void give(struct rig *g, uint64_t from, const struct raft_message *m)
{
    struct buffer bytes = {0};
    assert_int_equal(wire_put(&bytes, m).code, STATUS_OK);
    give_bytes(g, from, &bytes);
}

static void give_result(struct rig *g, uint64_t from, uint64_t term, uint64_t last)
{
    struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES_RESULT};
    m.append_entries_result =
        (struct raft_append_entries_result){.term = term, .last_log_index = last};
    give(g, from, &m);
}

static void give_vote(struct rig *g, uint64_t from, uint64_t term, bool pre_vote, bool granted)
{
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE_RESULT};
    m.request_vote_result = (struct raft_request_vote_result){
        .term = term, .vote_granted = granted, .pre_vote = TO_RAFT_TRIBOOL(pre_vote)};
    give(g, from, &m);
}

static void ask_vote(struct rig *g, uint64_t from, uint64_t term, uint64_t last, uint64_t last_term,
                     bool disrupt)
{
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE};
    m.request_vote = (struct raft_request_vote){.term = term,
                                                .candidate_id = from,
                                                .last_log_index = last,
                                                .last_log_term = last_term,
                                                .disrupt_leader = disrupt};
    give(g, from, &m);
}

/* A snapshot up to `index`, in one part. */
static void give_snapshot(struct rig *g, uint64_t from, uint64_t term, uint64_t index,
                          uint64_t last_term)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    for (uint64_t i = 1; i <= 3; i++) {
        assert_int_equal(raft_configuration_add(&conf, i, address_of(i), RAFT_VOTER), 0);
    }
    struct parts state = {0};
    uint64_t word = index;
    assert_int_equal(buffer_append(parts_next(&state), &word, sizeof word).code, STATUS_OK);
    uint8_t stored[SNAPSHOT_HEAD_BYTES + sizeof word];
    snapshot_head(&state, stored);
    memcpy(stored + SNAPSHOT_HEAD_BYTES, &word, sizeof word);
    parts_close(&state);
    struct wire_part part = {.term = term,
                             .last_index = index,
                             .last_term = last_term,
                             .conf_index = 1,
                             .conf = conf,
                             .total = sizeof stored,
                             .offset = 0,
                             .data = bytes_of(stored, sizeof stored)};
    struct buffer bytes = {0};
    assert_int_equal(wire_put_part(&bytes, &part).code, STATUS_OK);
    raft_configuration_close(&conf);
    give_bytes(g, from, &bytes);
}

/* The last message of that kind to that server; NULL: none since `from`. */
static const struct sent *last_sent(const struct rig *g, size_t from, uint64_t to,
                                    enum wire_type type)
{
    for (size_t i = g->count; i > from; i--) {
        if (g->sent[i - 1].to == to && g->sent[i - 1].type == type) {
            return &g->sent[i - 1];
        }
    }
    return NULL;
}

static uint64_t term_of(const struct rig *g)
{
    return replica_status(g->replica).term;
}

/* Lets time pass until it leads, with the votes of server 2. */
static void make_leader(struct rig *g)
{
    for (int i = 0; i < 200 && g->replica->raft.state != RAFT_LEADER; i++) {
        size_t before = g->count;
        pass(g, 10 * MS);
        const struct sent *v = last_sent(g, before, 2, WIRE_VOTE);
        if (v != NULL) {
            give_vote(g, 2, v->term, v->pre_vote, true);
        }
    }
    assert_int_equal(g->replica->raft.state, RAFT_LEADER);
}

/* Whether it returned true: a crash does not. */
static bool in_child(bool (*run)(void))
{
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(STDERR_FILENO); /* what a crash says is of no interest */
        (void)setenv("CMOCKA_TEST_ABORT", "1", 1);
        _exit(run() ? 0 : 1);
    }
    int ended = 0;
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    return WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
}

/* ---- S2 ---- */

/* It holds 2..6 of term 2; the leader of term 3 asks about entry 1 only. */
static uint64_t acknowledged_for_a_heartbeat(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    give_append(&g, 2, 2, 1, 1, 5, 2, 1);
    pass(&g, 5 * MS);
    size_t before = g.count;
    give_append(&g, 3, 3, 1, 1, 0, 0, 1);
    pass(&g, 5 * MS);
    const struct sent *s = last_sent(&g, before, 3, WIRE_APPEND_RESULT);
    assert_non_null(s);
    assert_int_equal(s->rejected, 0);
    uint64_t last = s->last;
    rig_close(&g);
    return last;
}

static void clamp_acknowledges_only_what_was_compared(void **state)
{
    (void)state;
    assert_int_equal(acknowledged_for_a_heartbeat(0), 1);
    assert_int_equal(acknowledged_for_a_heartbeat(GUARD_CLAMP), 6);
}

/* The leader of term 3 has committed up to 4; of that it has sent entry 1 so far. */
static uint64_t committed_for_a_heartbeat(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    give_append(&g, 2, 2, 1, 1, 5, 2, 1);
    pass(&g, 5 * MS);
    give_append(&g, 3, 3, 1, 1, 0, 0, 4);
    pass(&g, 5 * MS);
    uint64_t committed = replica_status(g.replica).commit_index;
    rig_close(&g);
    return committed;
}

static void clamp_commits_only_what_was_compared(void **state)
{
    (void)state;
    assert_int_equal(committed_for_a_heartbeat(0), 1);
    assert_int_equal(committed_for_a_heartbeat(GUARD_CLAMP), 4);
}

/* ---- S3 ---- */

/* A write of term 2 ends when there is a leader of term 3. True: it is acknowledged to that one. */
static bool acknowledged_to_the_new_leader(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    disk_takes(&g, 20 * MS);
    give_append(&g, 2, 2, 1, 1, 5, 2, 1);
    give_append(&g, 3, 3, 1, 1, 0, 0, 1);
    size_t before = g.count;
    pass(&g, 40 * MS);
    const struct sent *s = last_sent(&g, before, 3, WIRE_APPEND_RESULT);
    bool wrong = s != NULL && s->rejected == 0 && s->last > 1 && s->term == 3;
    rig_close(&g);
    return wrong;
}

static void stale_writes_are_not_acknowledged_to_a_new_leader(void **state)
{
    (void)state;
    assert_false(acknowledged_to_the_new_leader(0));
    assert_true(acknowledged_to_the_new_leader(GUARD_STALE));
}

/* ---- S1 ---- */

/* A new leader has an entry of term 2 and, not yet on its disk, its own. */
static uint64_t committed_of_an_older_term(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    give_append(&g, 2, 2, 1, 1, 1, 2, 1);
    pass(&g, 5 * MS);
    disk_takes(&g, 50 * MS);
    make_leader(&g);
    pass(&g, 1);
    give_result(&g, 2, term_of(&g), 2);
    uint64_t committed = replica_status(g.replica).commit_index;
    rig_close(&g);
    return committed;
}

static void hold_commits_nothing_of_older_terms_by_counting(void **state)
{
    (void)state;
    assert_int_equal(committed_of_an_older_term(0), 1);
    assert_int_equal(committed_of_an_older_term(GUARD_HOLD), 2);
}

/* ---- S4 ---- */

/* Its writes take longer than any election timeout. True: it asks for votes meanwhile. */
static bool candidate_during_own_writes(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    disk_takes(&g, 3 * ELECTION_MS * MS);
    give_append(&g, 2, 2, 1, 1, 5, 2, 1);
    size_t before = g.count;
    pass(&g, (3 * ELECTION_MS - 10) * MS);
    bool asked = last_sent(&g, before, 2, WIRE_VOTE) != NULL;
    disk_takes(&g, 100);
    pass(&g, 3 * ELECTION_MS * MS);
    assert_non_null(last_sent(&g, before, 2, WIRE_VOTE)); /* later it does */
    rig_close(&g);
    return asked;
}

static void tick_makes_no_candidate_of_a_server_that_writes(void **state)
{
    (void)state;
    assert_false(candidate_during_own_writes(0));
    assert_true(candidate_during_own_writes(GUARD_TICK));
}

/* A transfer reaches it while its last write is on its way. True: it begins before that has
 * ended. */
static bool takes_over_during_own_writes(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    disk_takes(&g, 30 * MS);
    give_append(&g, 2, 2, 1, 1, 1, 2, 1);
    struct raft_message m = {.type = RAFT_IO_TIMEOUT_NOW};
    m.timeout_now = (struct raft_timeout_now){.term = 2, .last_log_index = 2, .last_log_term = 2};
    size_t before = g.count;
    give(&g, 2, &m);
    bool early = last_sent(&g, before, 2, WIRE_VOTE) != NULL;
    pass(&g, 60 * MS);
    assert_non_null(last_sent(&g, before, 2, WIRE_VOTE)); /* it is not forgotten */
    rig_close(&g);
    return early;
}

static void tick_lets_a_transfer_wait_for_own_writes(void **state)
{
    (void)state;
    assert_false(takes_over_during_own_writes(0));
    assert_true(takes_over_during_own_writes(GUARD_TICK));
}

/* ---- Installation ---- */

/* A heartbeat that ends at the snapshot, while that is on its way to the disk. */
static void heartbeat_during_installation(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    disk_takes(&g, 5 * MS); /* a snapshot costs many times that */
    give_snapshot(&g, 2, 2, 50, 2);
    pass(&g, MS);
    size_t before = g.count;
    give_append(&g, 2, 2, 50, 2, 0, 0, 50);
    const struct sent *s = last_sent(&g, before, 2, WIRE_APPEND_RESULT);
    assert_true(s == NULL || s->rejected != 0 || s->last < 50); /* not on the disk yet */
    assert_int_equal(g.restored, 0);
    pass(&g, 150 * MS);
    assert_int_equal(g.restored, 1);
    assert_int_equal(replica_status(g.replica).applied_index, 50);
    rig_close(&g);
}

static void an_installation_is_not_disturbed_by_a_heartbeat(void **state)
{
    (void)state;
    heartbeat_during_installation(0);
}

/* ---- S5 ---- */

/* A leader that transfers to 2 hears of term T + 1, votes for 3, then 2 asks. True: again. */
static bool votes_twice(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    make_leader(&g);
    pass(&g, 5 * MS);
    uint64_t term = term_of(&g);
    uint64_t last = replica_status(g.replica).last_index;
    give_result(&g, 2, term, last);
    give_result(&g, 3, term, last);
    struct raft_transfer transfer = {0};
    guard_enter(&g.replica->guard);
    assert_int_equal(raft_transfer(&g.replica->raft, &transfer, 2, NULL), 0);
    guard_leave(&g.replica->guard);
    give_result(&g, 3, term + 1, last); /* it has heard of 2's candidacy already */
    assert_int_equal(g.replica->raft.state, RAFT_FOLLOWER);
    ask_vote(&g, 3, term + 1, last, term, true);
    const struct sent *first = last_sent(&g, 0, 3, WIRE_VOTE_RESULT);
    assert_non_null(first);
    assert_true(first->granted);
    ask_vote(&g, 2, term + 1, last, term, true);
    const struct sent *second = last_sent(&g, 0, 2, WIRE_VOTE_RESULT);
    assert_non_null(second);
    bool twice = second->granted;
    rig_close(&g);
    return twice;
}

static void vote_is_one_a_term_in_a_transfer_too(void **state)
{
    (void)state;
    assert_false(votes_twice(0));
    assert_true(votes_twice(GUARD_VOTE));
}

/* ---- P ---- */

/* It has a snapshot and nothing before; a leader sends all from the first entry on. True: its log
 * ends where the leader's does. */
static bool entries_from_the_first_on(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 8);
    give_append(&g, 2, 2, 1, 1, LOG_SIZE - 1, 2, LOG_SIZE);
    pass(&g, 10 * MS);
    give_append(&g, 2, 2, LOG_SIZE, 2, 1, 2, LOG_SIZE + 1);
    pass(&g, 30 * MS);
    assert_true(g.replica->raft.log.offset > 1);
    give_append(&g, 2, 2, 0, 0, LOG_SIZE + 2, 2, LOG_SIZE + 1);
    pass(&g, 10 * MS);
    bool right = replica_status(g.replica).last_index == LOG_SIZE + 2;
    rig_close(&g);
    return right;
}

static bool entries_from_the_first_on_uncured(void)
{
    return entries_from_the_first_on(GUARD_PREFIX);
}

static void prefix_is_not_appended_again(void **state)
{
    (void)state;
    assert_true(entries_from_the_first_on(0));
    assert_false(in_child(entries_from_the_first_on_uncured));
}

/* ---- AGAIN ---- */

/* Entries of term 2 are truncated while they are written, and come again. True: all are there
 * once. */
static bool entries_come_again(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    disk_takes(&g, 20 * MS);
    give_append(&g, 2, 2, 1, 1, 5, 2, 1);
    give_append(&g, 3, 3, 1, 1, 1, 3, 1);
    give_append(&g, 2, 4, 1, 1, 5, 2, 1);
    pass(&g, 200 * MS);
    give_append(&g, 2, 4, 1, 1, 5, 2, 6);
    pass(&g, 100 * MS);
    const struct sent *s = last_sent(&g, 0, 2, WIRE_APPEND_RESULT);
    bool right = s != NULL && s->rejected == 0 && g.replica->raft.last_stored <= 6 &&
                 replica_status(g.replica).last_index == 6 &&
                 sim_raft_disk_last_index(g.world, 1) == 6;
    rig_close(&g);
    return right;
}

static bool entries_come_again_uncured(void)
{
    return entries_come_again(GUARD_AGAIN);
}

static void again_counts_and_frees_each_entry_once(void **state)
{
    (void)state;
    assert_true(entries_come_again(0));
    assert_false(in_child(entries_come_again_uncured));
}

/* ---- D4 ---- */

static enum status_code start_after_rot(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    give_append(&g, 2, 2, 1, 1, LOG_SIZE, 2, LOG_SIZE);
    pass(&g, 10 * MS);
    give_append(&g, 2, 2, LOG_SIZE + 1, 2, 0, 0, LOG_SIZE + 1);
    sim_raft_crash(g.world, 1);
    assert_true(sim_raft_rot(g.world, 1, 4) > 0);
    struct status s = rig_start(&g);
    rig_close(&g);
    return s.code;
}

static void mark_stops_a_server_whose_disk_has_lost_entries(void **state)
{
    (void)state;
    assert_int_equal(start_after_rot(0), STATUS_CORRUPT);
    assert_int_equal(start_after_rot(GUARD_MARK), STATUS_OK);
}

/* ---- BALLOT, PREVOTE ---- */

/* It still knows a leader, who has been silent for longer than the shortest election timeout. */
static bool votes_against_a_silent_leader(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    g.replica->raft.follower_state.randomized_election_timeout = 10 * ELECTION_MS;
    give_append(&g, 2, 2, 1, 1, 1, 2, 1);
    pass(&g, (ELECTION_MS + 5) * MS);
    ask_vote(&g, 3, 3, 2, 2, false);
    const struct sent *s = last_sent(&g, 0, 3, WIRE_VOTE_RESULT);
    assert_non_null(s);
    bool granted = s->granted;
    rig_close(&g);
    return granted;
}

static void ballot_is_not_refused_for_a_silent_leader(void **state)
{
    (void)state;
    assert_true(votes_against_a_silent_leader(0));
    assert_false(votes_against_a_silent_leader(GUARD_BALLOT));
}

/* A candidate of term 1 with the better log is asked for a pre-vote by a server of term 6. */
static uint64_t term_after_a_pre_vote(uint32_t cures_off)
{
    struct rig g;
    rig_open(&g, cures_off, 0);
    give_append(&g, 2, 1, 1, 1, 3, 1, 1);
    pass(&g, (2 * ELECTION_MS + 50) * MS);
    assert_int_equal(g.replica->raft.state, RAFT_CANDIDATE);
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE};
    m.request_vote = (struct raft_request_vote){
        .term = 7, .candidate_id = 3, .last_log_index = 1, .last_log_term = 1, .pre_vote = true};
    give(&g, 3, &m);
    uint64_t term = term_of(&g);
    rig_close(&g);
    return term;
}

static void prevote_lets_a_candidate_catch_up_in_terms(void **state)
{
    (void)state;
    assert_int_equal(term_after_a_pre_vote(0), 6);
    assert_int_equal(term_after_a_pre_vote(GUARD_PREVOTE), 1);
}

/* ---- A snapshot's lost answer ---- */

static void give_refusal(struct rig *g, uint64_t from, uint64_t rejected, uint64_t last)
{
    struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES_RESULT};
    m.append_entries_result = (struct raft_append_entries_result){
        .term = term_of(g), .rejected = rejected, .last_log_index = last};
    give(g, from, &m);
}

/* It leads, server 2 has all; what server 3 lacks only a snapshot holds, which is on its way.
 * Returns the snapshot's index. */
static uint64_t lead_and_send_a_snapshot(struct rig *g, uint32_t cures_off)
{
    rig_open(g, cures_off, 8);
    give_append(g, 2, 2, 1, 1, LOG_SIZE - 1, 2, LOG_SIZE);
    pass(g, 10 * MS);
    give_append(g, 2, 2, LOG_SIZE, 2, 1, 2, LOG_SIZE + 1);
    pass(g, 30 * MS);
    make_leader(g);
    pass(g, 5 * MS);
    uint64_t last = replica_status(g->replica).last_index;
    give_result(g, 2, term_of(g), last);
    uint64_t index = replica_status(g->replica).snapshot_index;
    assert_in_range(index, 2, last - 1);
    for (int i = 0; i < 50 && last_sent(g, 0, 3, WIRE_PART) == NULL; i++) {
        const struct sent *asked = last_sent(g, 0, 3, WIRE_APPEND);
        if (asked != NULL) {
            give_refusal(g, 3, g->replica->raft.leader_state.progress[2].next_index - 1, 1);
        }
        pass(g, HEARTBEAT_MS * MS);
    }
    assert_non_null(last_sent(g, 0, 3, WIRE_PART));
    return index;
}

/* Server 3 has installed it and its answer was lost. What the next heartbeat asks about. */
static uint64_t asked_after_a_snapshot(uint32_t cures_off, uint64_t *snapshot)
{
    struct rig g;
    *snapshot = lead_and_send_a_snapshot(&g, cures_off);
    size_t before = g.count;
    pass(&g, 3 * HEARTBEAT_MS * MS);
    const struct sent *s = last_sent(&g, before, 3, WIRE_APPEND);
    assert_non_null(s);
    uint64_t asked = s->last;
    if (cures_off == 0) {
        before = g.count;
        give_result(&g, 3, term_of(&g), *snapshot);
        pass(&g, 3 * HEARTBEAT_MS * MS);
        s = last_sent(&g, before, 3, WIRE_APPEND);
        assert_non_null(s);
        assert_int_equal(s->last, replica_status(g.replica).last_index); /* the rest */
    }
    rig_close(&g);
    return asked;
}

static void arrived_asks_whether_a_snapshot_is_installed(void **state)
{
    (void)state;
    uint64_t snapshot = 0;
    uint64_t asked = asked_after_a_snapshot(0, &snapshot);
    assert_int_equal(asked, snapshot);
    asked = asked_after_a_snapshot(GUARD_ARRIVED, &snapshot);
    assert_true(asked > snapshot);
}

static void arrived_goes_on_sending_while_it_is_not_installed(void **state)
{
    (void)state;
    struct rig g;
    uint64_t snapshot = lead_and_send_a_snapshot(&g, 0);
    give_refusal(&g, 3, snapshot, 1);
    const struct raft_progress *p = &g.replica->raft.leader_state.progress[2];
    assert_int_equal(p->snapshot_index, snapshot);
    assert_true(p->recent_recv);
    rig_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hold_commits_nothing_of_older_terms_by_counting),
        cmocka_unit_test(clamp_acknowledges_only_what_was_compared),
        cmocka_unit_test(clamp_commits_only_what_was_compared),
        cmocka_unit_test(stale_writes_are_not_acknowledged_to_a_new_leader),
        cmocka_unit_test(tick_makes_no_candidate_of_a_server_that_writes),
        cmocka_unit_test(tick_lets_a_transfer_wait_for_own_writes),
        cmocka_unit_test(an_installation_is_not_disturbed_by_a_heartbeat),
        cmocka_unit_test(vote_is_one_a_term_in_a_transfer_too),
        cmocka_unit_test(prefix_is_not_appended_again),
        cmocka_unit_test(again_counts_and_frees_each_entry_once),
        cmocka_unit_test(mark_stops_a_server_whose_disk_has_lost_entries),
        cmocka_unit_test(ballot_is_not_refused_for_a_silent_leader),
        cmocka_unit_test(prevote_lets_a_candidate_catch_up_in_terms),
        cmocka_unit_test(arrived_asks_whether_a_snapshot_is_installed),
        cmocka_unit_test(arrived_goes_on_sending_while_it_is_not_installed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

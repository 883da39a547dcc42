/* Faults. Members come as new servers with new ids and never come back once removed. */
#include "simulations/raft_chaos_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { VOTERS_MIN = 3 };

static void cut_all(struct chaos *c, uint64_t id)
{
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        c->cut[id][i] = true;
        c->cut[i][id] = true;
    }
}

static void fault_crash(struct chaos *c)
{
    struct node *n = chaos_chance(c, 50) ? chaos_leader(c) : chaos_random_node(c);
    if (n != NULL && chaos_does(c, CHAOS_STOP) && chaos_chance(c, 30)) {
        chaos_node_close(n);
    } else if (n != NULL) {
        chaos_node_crash(n);
    }
}

static void fault_cut(struct chaos *c)
{
    struct node *a = chaos_chance(c, 40) ? chaos_leader(c) : chaos_random_node(c);
    unsigned what = (unsigned)chaos_below(c, 4);
    for (size_t i = 1; i < CHAOS_IDS && a != NULL; i++) {
        bool hit = what > 1 || chaos_chance(c, 40);
        if (hit && what != 2) {
            c->cut[a->id][i] = true;
        }
        if (hit && what != 3) {
            c->cut[i][a->id] = true;
        }
    }
    if (a != NULL) {
        TRACE(c, "server %" PRIu64 " is cut off (%u)", a->id, what);
    }
}

void chaos_heal_cuts(struct chaos *c)
{
    memset(c->cut, 0, sizeof c->cut);
    TRACE(c, "cuts are healed");
}

static void fault_delay(struct chaos *c)
{
    c->drop_percent = (unsigned)chaos_below(c, 4) * 4;
    c->double_percent = (unsigned)chaos_below(c, 3) * 4;
    c->delay_us_max = chaos_between(c, 2, chaos_chance(c, 50) ? 20 : 200) * MS;
}

static void fault_slow(struct chaos *c)
{
    struct node *n = chaos_random_node(c);
    if (n != NULL) {
        uint64_t max = chaos_between(c, 1, chaos_chance(c, 60) ? 10 : 250) * MS;
        sim_raft_disk_speed(c->world, n->id, (struct sim_disk_speed){max / 4, max});
    }
}

static void fault_error(struct chaos *c)
{
    struct node *n = chaos_random_node(c);
    if (n != NULL) {
        sim_raft_disk_errors(c->world, n->id,
                             chaos_chance(c, 50) ? 0 : (uint32_t)chaos_between(c, 1, 30) * 1000);
    }
}

static void fault_full(struct chaos *c)
{
    struct node *n = chaos_chance(c, 50) ? chaos_leader(c) : chaos_random_node(c);
    if (n != NULL) {
        sim_raft_disk_full(c->world, n->id, true);
        TRACE(c, "server %" PRIu64 " has a full disk", n->id);
    }
}

static void heal_full(struct chaos *c)
{
    for (uint64_t i = 1; i < CHAOS_IDS; i++) {
        if (c->nodes[i].life != LIFE_NONE) {
            sim_raft_disk_full(c->world, i, false);
        }
    }
}

/* One server falls behind, another loses what it had, and the rest is cut off: those two must not
 * go on without it. At most one server: with more, no majority may have everything. */
static void fault_rot(struct chaos *c)
{
    struct node *n = chaos_random_node(c);
    if (n == NULL) {
        return;
    }
    if (c->behind == 0) {
        c->behind = n->id;
        cut_all(c, n->id);
        return;
    }
    if (n->id == c->behind) {
        return;
    }
    chaos_node_crash(n);
    uint64_t lost = sim_raft_rot(c->world, n->id, chaos_between(c, 1, 60));
    TRACE(c, "server %" PRIu64 " loses %" PRIu64 " entries", n->id, lost);
    if (lost == 0) {
        return;
    }
    n->start_us = chaos_now_us(c) + 5 * MS;
    chaos_heal_cuts(c);
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        if (i != n->id && i != c->behind) {
            cut_all(c, i);
        }
    }
    c->options.faults &= ~(uint32_t)CHAOS_ROT;
}

static void on_changed(void *data, struct status s, const char *message)
{
    struct chaos *c = data;
    (void)s;
    TRACE(c, "change: %s %s", status_name(s.code), message);
    c->changer = 0;
}

static void on_removed(void *data, struct status s, const char *message)
{
    struct chaos *c = data;
    struct node *n = &c->nodes[c->removing];
    TRACE(c, "removal of %" PRIu64 ": %s %s", n->id, status_name(s.code), message);
    c->changer = 0;
    if (status_is_ok(s)) {
        n->life = n->life == LIFE_UP ? LIFE_UP : LIFE_REMOVED;
        n->fatal = n->life == LIFE_UP; /* taken down outside of its callbacks */
        n->start_us = UINT64_MAX;
    }
}

static size_t count_voters(const struct replica *r)
{
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(r, members);
    size_t voters = 0;
    for (size_t i = 0; i < count; i++) {
        voters += members[i].role == REPLICA_VOTER ? 1 : 0;
    }
    return voters;
}

static void change_remove(struct chaos *c, struct node *l)
{
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(l->replica, members);
    const struct replica_member *m = &members[chaos_below(c, count)];
    if (m->role == REPLICA_VOTER && count_voters(l->replica) <= VOTERS_MIN) {
        return;
    }
    c->changer = l->id;
    c->removing = m->id;
    TRACE(c, "server %" PRIu64 " is to be removed", m->id);
    replica_remove(l->replica, m->id, on_removed, c);
}

static void fault_members(struct chaos *c)
{
    struct node *l = chaos_leader(c);
    if (l == NULL || c->changer != 0) {
        return;
    }
    if (chaos_chance(c, 40)) {
        change_remove(c, l);
        return;
    }
    struct replica_member m = {.role = REPLICA_VOTER};
    if (chaos_chance(c, 20)) {
        m.role = chaos_chance(c, 50) ? REPLICA_STANDBY : REPLICA_SPARE;
    }
    if (c->joiner == 0 || c->nodes[c->joiner].life != LIFE_UP || chaos_chance(c, 50)) {
        uint64_t id = 1;
        while (id < CHAOS_IDS && c->nodes[id].life != LIFE_NONE) {
            id++;
        }
        if (id < CHAOS_IDS) {
            c->joiner = id;
            chaos_node_start(chaos_node_new(c, id));
        }
    }
    if (c->joiner == 0 || c->nodes[c->joiner].life == LIFE_REMOVED) {
        return;
    }
    m.id = c->joiner;
    memcpy(m.address, c->nodes[m.id].address, sizeof c->nodes[m.id].address);
    c->changer = l->id;
    TRACE(c, "server %" PRIu64 " is to be added", m.id);
    replica_add(l->replica, &m, on_changed, c);
}

static void on_transferred(void *data, struct status s, const char *message)
{
    struct chaos *c = data;
    (void)s;
    TRACE(c, "transfer: %s %s", status_name(s.code), message);
}

static void fault_transfer(struct chaos *c)
{
    struct node *l = chaos_leader(c);
    struct node *to = chaos_random_node(c);
    if (l != NULL && to != NULL) {
        replica_transfer(l->replica, chaos_chance(c, 30) ? 0 : to->id, on_transferred, c);
    }
}

void chaos_fault(struct chaos *c)
{
    static const struct {
        enum raft_chaos_fault fault;
        unsigned percent;
        void (*make)(struct chaos *c);
    } rows[] = {
        {CHAOS_CRASH, 18, fault_crash},     {CHAOS_CUT, 18, fault_cut},
        {CHAOS_CUT, 18, chaos_heal_cuts},   {CHAOS_DELAY, 18, fault_delay},
        {CHAOS_SLOW, 18, fault_slow},       {CHAOS_TRANSFER, 12, fault_transfer},
        {CHAOS_MEMBERS, 20, fault_members}, {CHAOS_ERROR, 12, fault_error},
        {CHAOS_FULL, 5, fault_full},        {CHAOS_FULL, 12, heal_full},
        {CHAOS_ROT, 15, fault_rot},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (chaos_does(c, rows[i].fault) && chaos_chance(c, rows[i].percent)) {
            rows[i].make(c);
        }
    }
}

static void cut_pair(struct chaos *c, uint64_t a, uint64_t b)
{
    unsigned way = (unsigned)chaos_below(c, 3);
    c->cut[a][b] = c->cut[a][b] || way != 0;
    c->cut[b][a] = c->cut[b][a] || way != 1;
}

/* It leads and has not committed anything in this term yet. */
static bool is_fresh(const struct node *n)
{
    return n->replica->raft.state == RAFT_LEADER &&
           n->replica->ready_term != n->replica->raft.current_term;
}

/* Old servers come back into the network, one of the others leaves it, the own disk gets slow. */
static void moment_of_election(struct chaos *c, struct node *n)
{
    if (chaos_chance(c, 20)) {
        chaos_heal_cuts(c);
    }
    if (chaos_chance(c, 20)) {
        cut_pair(c, n->id, chaos_between(c, 1, 5));
    }
    if (chaos_does(c, CHAOS_SLOW) && chaos_chance(c, 10)) {
        uint64_t max = chaos_between(c, 2, 60) * MS;
        sim_raft_disk_speed(c->world, n->id, (struct sim_disk_speed){max / 2, max});
    }
    if (chaos_chance(c, 4)) {
        chaos_node_crash(n);
    }
}

/* A leader is crashed or cut off while its latest commands are on their way. */
static void moment_of_leading(struct chaos *c, struct node *n)
{
    unsigned what = (unsigned)chaos_below(c, 300);
    if (what == 0) {
        chaos_node_crash(n);
        n->start_us = chaos_now_us(c) + chaos_between(c, 10, 400) * MS;
    } else if (what < 3) {
        cut_all(c, n->id);
    } else if (what < 5) {
        cut_pair(c, n->id, chaos_between(c, 1, 5));
    } else if (what < 7 && chaos_does(c, CHAOS_TRANSFER)) {
        fault_transfer(c);
    }
}

void chaos_fault_moment(struct chaos *c)
{
    bool installing = false;
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        struct node *n = &c->nodes[i];
        if (n->replica == NULL || n->closing) {
            continue;
        }
        installing = installing || n->replica->guard.installing;
        if (is_fresh(n)) {
            moment_of_election(c, n);
        } else if (n->replica->raft.state == RAFT_LEADER) {
            moment_of_leading(c, n);
        }
    }
    struct node *l = installing && chaos_chance(c, 3) ? chaos_leader(c) : NULL;
    if (l != NULL) {
        cut_all(c, l->id);
    }
    if (chaos_chance(c, 1)) {
        chaos_heal_cuts(c);
    }
}

/* Real replicas under the virtual clock: a small seeded network and a plan of crashes, cuts and
 * slow disks. */
#include "simulations/sim_io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum {
    NODES = 3,
    INDEXES_MAX = 1 << 16,
    TICKETS_MAX = 1 << 16,
    PROPOSE_EVERY_US = 3000,
    FAULT_EVERY_US = 400000,
};

struct packet {
    struct packet *next;
    uint64_t at_us;
    uint64_t from;
    uint64_t to;
    size_t size;
    uint8_t data[];
};

struct sim;

struct node {
    struct sim *sim;
    struct replica *replica;
    uint64_t id;
    char address[32];
    uint64_t last_index; /* the state machine: last index and a hash of all before */
    uint64_t hash;
    uint64_t restores;
    bool fatal;
    bool closed;
};

struct sim {
    struct sim_raft *world;
    struct node nodes[NODES];
    struct packet *packets; /* by time */
    bool cut[NODES + 1][NODES + 1];
    unsigned drop_percent;
    uint64_t random;
    uint64_t trace; /* a hash of all that was seen, in order */
    uint64_t events;
    uint64_t hash_at[INDEXES_MAX]; /* of the first replica that applied it; 0: none */
    uint64_t acknowledged;         /* highest index */
    uint64_t acknowledgements;
    uint64_t tickets;
    struct replica_config config;
};

static uint64_t draw(struct sim *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random;
}

static uint64_t mix(uint64_t hash, uint64_t v)
{
    for (int i = 0; i < 8; i++) {
        hash = (hash ^ ((v >> (8 * i)) & 0xff)) * 1099511628211ULL;
    }
    return hash;
}

static void trace(struct sim *s, uint64_t what, uint64_t a, uint64_t b)
{
    s->trace = mix(mix(mix(mix(s->trace, sim_raft_now_us(s->world)), what), a), b);
    s->events++;
}

static void packet_put(struct sim *s, uint64_t from, uint64_t to, struct bytes message,
                       uint64_t at_us)
{
    struct packet *p = malloc(sizeof *p + message.size);
    assert_non_null(p);
    p->at_us = at_us;
    p->from = from;
    p->to = to;
    p->size = message.size;
    memcpy(p->data, message.data, message.size);
    struct packet **at = &s->packets;
    while (*at != NULL && (*at)->at_us <= at_us) {
        at = &(*at)->next;
    }
    p->next = *at;
    *at = p;
}

static void on_send(void *data, uint64_t to, const char *address, bool bulk, struct bytes message)
{
    struct node *n = data;
    struct sim *s = n->sim;
    assert_true(to >= 1 && to <= NODES);
    assert_string_equal(address, s->nodes[to - 1].address);
    uint64_t sum = bulk ? 7 : 1;
    for (size_t i = 0; i < message.size; i++) {
        sum = sum * 31 + message.data[i];
    }
    trace(s, 1, n->id << 8 | to, sum);
    if (s->cut[n->id][to] || draw(s) % 100 < s->drop_percent) {
        return;
    }
    packet_put(s, n->id, to, message, sim_raft_now_us(s->world) + 50 + draw(s) % 1500);
    if (draw(s) % 100 < 2) {
        packet_put(s, n->id, to, message, sim_raft_now_us(s->world) + 50 + draw(s) % 30000);
    }
}

static void on_apply(void *data, uint64_t index, uint64_t term, struct bytes command)
{
    struct node *n = data;
    struct sim *s = n->sim;
    assert_true(index > n->last_index);
    assert_true(index < INDEXES_MAX);
    n->last_index = index;
    n->hash = mix(n->hash, index);
    n->hash = mix(n->hash, term);
    for (size_t i = 0; i < command.size; i++) {
        n->hash = (n->hash ^ command.data[i]) * 1099511628211ULL;
    }
    if (s->hash_at[index] == 0) {
        s->hash_at[index] = n->hash;
    }
    assert_int_equal(s->hash_at[index], n->hash); /* no two replicas differ */
    trace(s, 2, n->id << 32 | index, n->hash);
}

static void on_proposed(void *data, uint64_t ticket, struct status st, uint64_t index)
{
    struct node *n = data;
    struct sim *s = n->sim;
    trace(s, 3, ticket, (uint64_t)st.code << 32 | index);
    if (status_is_ok(st)) {
        assert_int_equal(index, n->last_index);
        s->acknowledgements++;
        s->acknowledged = index > s->acknowledged ? index : s->acknowledged;
    }
}

static void on_role(void *data, const struct replica_status *st)
{
    struct node *n = data;
    trace(n->sim, 4, n->id << 1 | (st->leader ? 1U : 0U), st->term);
}

struct pin {
    uint64_t last_index;
    uint64_t hash;
};

static void *on_snapshot_pin(void *data)
{
    struct node *n = data;
    struct pin *pin = malloc(sizeof *pin);
    assert_non_null(pin);
    *pin = (struct pin){n->last_index, n->hash};
    return pin;
}

static struct status on_snapshot_encode(void *data, const void *pin, struct parts *out)
{
    (void)data;
    const struct pin *p = pin;
    struct buffer *part = parts_next(out);
    assert_non_null(part);
    TRY(buffer_put_u64(part, p->last_index));
    return buffer_put_u64(part, p->hash);
}

static void on_snapshot_unpin(void *data, void *pin)
{
    (void)data;
    free(pin);
}

static struct status on_restore(void *data, struct bytes state)
{
    struct node *n = data;
    struct reader r = reader_of(state);
    n->last_index = reader_u64(&r);
    n->hash = reader_u64(&r);
    n->restores++;
    trace(n->sim, 5, n->id, n->last_index);
    return r.failed ? status_of(STATUS_CORRUPT) : status_ok();
}

static void on_fatal(void *data, const char *why)
{
    struct node *n = data;
    assert_non_null(why);
    n->fatal = true;
    trace(n->sim, 6, n->id, 0);
}

static void node_start(struct node *n)
{
    struct sim *s = n->sim;
    struct replica_config config = s->config;
    struct replica_events events = {.data = n,
                                    .send = on_send,
                                    .on_apply = on_apply,
                                    .on_proposed = on_proposed,
                                    .on_role = on_role,
                                    .snapshot_pin = on_snapshot_pin,
                                    .snapshot_encode = on_snapshot_encode,
                                    .snapshot_unpin = on_snapshot_unpin,
                                    .restore = on_restore,
                                    .on_fatal = on_fatal};
    struct errmsg msg = {0};
    config.id = n->id;
    config.address = n->address;
    n->last_index = 0;
    n->hash = 0;
    n->fatal = false;
    struct status st = replica_open_sim(&n->replica, s->world, &config, &events, &msg);
    if (!status_is_ok(st)) {
        fail_msg("open: %s", msg.text);
    }
}

static void node_crash(struct node *n)
{
    sim_raft_crash(n->sim->world, n->id);
    n->replica = NULL;
    trace(n->sim, 7, n->id, sim_raft_disk_last_index(n->sim->world, n->id));
}

static struct sim *sim_open(uint64_t seed)
{
    struct sim *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->random = seed * 0x9e3779b97f4a7c15ULL | 1;
    s->world = sim_raft_new(seed);
    s->config = (struct replica_config){.election_timeout_ms = 300,
                                        .heartbeat_ms = 30,
                                        .snapshot_threshold = 256,
                                        .snapshot_trailing = 128};
    struct replica_member members[NODES] = {0};
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &s->nodes[i];
        n->sim = s;
        n->id = i + 1;
        (void)snprintf(n->address, sizeof n->address, "sim:%zu", i + 1);
        members[i] = (struct replica_member){.id = n->id, .role = REPLICA_VOTER};
        memcpy(members[i].address, n->address, sizeof n->address);
    }
    for (size_t i = 0; i < NODES; i++) {
        struct replica_config config = s->config;
        struct errmsg msg = {0};
        config.id = i + 1;
        config.address = s->nodes[i].address;
        assert_true(status_is_ok(sim_raft_bootstrap(s->world, &config, members, NODES, &msg)));
        node_start(&s->nodes[i]);
    }
    return s;
}

static void sim_close(struct sim *s)
{
    sim_raft_free(s->world);
    while (s->packets != NULL) {
        struct packet *p = s->packets;
        s->packets = p->next;
        free(p);
    }
    free(s);
}

/* Lets time pass, delivering messages. */
static void run(struct sim *s, uint64_t us)
{
    uint64_t end = sim_raft_now_us(s->world) + us;
    for (;;) {
        uint64_t next = sim_raft_next_us(s->world);
        bool message = s->packets != NULL && s->packets->at_us <= next;
        next = message ? s->packets->at_us : next;
        if (next > end) {
            break;
        }
        sim_raft_advance(s->world, next);
        if (!message) {
            continue;
        }
        struct packet *p = s->packets;
        s->packets = p->next;
        struct node *to = &s->nodes[p->to - 1];
        if (to->replica != NULL) {
            struct status st = replica_receive(to->replica, p->from, s->nodes[p->from - 1].address,
                                               bytes_of(p->data, p->size));
            assert_true(status_is_ok(st) || st.code == STATUS_UNAVAILABLE);
        }
        free(p);
    }
    sim_raft_advance(s->world, end);
}

static struct node *leader_of(struct sim *s)
{
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &s->nodes[i];
        if (n->replica != NULL && replica_status(n->replica).leader) {
            return n;
        }
    }
    return NULL;
}

static void propose(struct sim *s)
{
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &s->nodes[i];
        if (n->replica == NULL || !replica_status(n->replica).leader) {
            continue;
        }
        uint64_t number = s->tickets++;
        (void)status_is_ok(replica_propose(n->replica, number, bytes_of(&number, sizeof number)));
    }
}

static void fault(struct sim *s)
{
    struct node *n = &s->nodes[draw(s) % NODES];
    switch (draw(s) % 5) {
    case 0:
    case 1:
        if (n->replica != NULL) {
            node_crash(n);
        } else {
            node_start(n);
        }
        break;
    case 2:
        s->cut[n->id][1 + draw(s) % NODES] ^= true;
        break;
    case 3:
        sim_raft_disk_speed(s->world, n->id, (struct sim_disk_speed){100, 100 + draw(s) % 100000});
        break;
    default:
        s->drop_percent = (unsigned)(draw(s) % 20);
        break;
    }
}

static void heal(struct sim *s)
{
    memset(s->cut, 0, sizeof s->cut);
    s->drop_percent = 0;
    for (size_t i = 0; i < NODES; i++) {
        sim_raft_disk_speed(s->world, i + 1, (struct sim_disk_speed){100, 1000});
        if (s->nodes[i].replica == NULL) {
            node_start(&s->nodes[i]);
        }
    }
}

/* Everything acknowledged is in all states, and all states are the same. */
static void assert_converged(struct sim *s)
{
    for (size_t i = 0; i < NODES; i++) {
        assert_int_equal(s->nodes[i].last_index, s->nodes[0].last_index);
        assert_int_equal(s->nodes[i].hash, s->nodes[0].hash);
        assert_true(s->nodes[i].last_index >= s->acknowledged);
    }
}

/* Ten seconds of trouble, then healing. Returns the trace. */
static uint64_t chaos(uint64_t seed, uint64_t *acknowledgements)
{
    struct sim *s = sim_open(seed);
    uint64_t start = sim_raft_now_us(s->world);
    uint64_t next_fault = start + 2000000;
    while (sim_raft_now_us(s->world) < start + 10000000) {
        propose(s);
        run(s, PROPOSE_EVERY_US);
        if (sim_raft_now_us(s->world) >= next_fault) {
            fault(s);
            next_fault += draw(s) % FAULT_EVERY_US;
        }
    }
    heal(s);
    run(s, 10000000);
    assert_non_null(leader_of(s));
    propose(s);
    run(s, 2000000);
    assert_converged(s);
    *acknowledgements = s->acknowledgements;
    uint64_t sum = mix(s->trace, s->events);
    sim_close(s);
    return sum;
}

static void the_same_seed_gives_the_same_trace(void **state)
{
    (void)state;
    uint64_t acknowledgements[3];
    uint64_t first = chaos(11, &acknowledgements[0]);
    void *shift = malloc(12345); /* other addresses must not matter */
    uint64_t second = chaos(11, &acknowledgements[1]);
    free(shift);
    uint64_t other = chaos(12, &acknowledgements[2]);
    assert_int_equal(first, second);
    assert_int_equal(acknowledgements[0], acknowledgements[1]);
    assert_int_not_equal(first, other);
}

static void chaos_loses_nothing_acknowledged(void **state)
{
    (void)state;
    uint64_t seeds = 20;
    const char *more = getenv("SKEP_SIM_SEEDS");
    if (more != NULL) {
        seeds = strtoull(more, NULL, 10);
    }
    for (uint64_t seed = 100; seed < 100 + seeds; seed++) {
        uint64_t acknowledgements;
        (void)chaos(seed, &acknowledgements);
        assert_true(acknowledgements > 0);
    }
}

static void crash_and_restart_keep_acknowledged_entries(void **state)
{
    (void)state;
    struct sim *s = sim_open(5);
    run(s, 3000000);
    for (int i = 0; i < 100; i++) {
        propose(s);
        run(s, 500);
    }
    run(s, 20000);
    uint64_t acknowledged = s->acknowledged;
    assert_true(acknowledged > 50);
    for (size_t i = 0; i < NODES; i++) {
        node_crash(&s->nodes[i]);
    }
    for (size_t i = 0; i < NODES; i++) {
        node_start(&s->nodes[i]);
    }
    run(s, 5000000);
    assert_non_null(leader_of(s));
    assert_converged(s);
    assert_true(s->nodes[0].last_index >= acknowledged);
    sim_close(s);
}

static void change_answered(void *data, struct status s, const char *message)
{
    (void)message;
    *(enum status_code *)data = s.code;
}

/* A member that has lost its disk has lost its votes and acknowledgements: it must leave before
 * it comes back. */
static void a_wiped_member_leaves_joins_again_and_gets_a_snapshot(void **state)
{
    (void)state;
    struct sim *s = sim_open(6);
    run(s, 3000000);
    for (int i = 0; i < 1000; i++) {
        propose(s);
        run(s, 1000);
    }
    struct node *leader = leader_of(s);
    struct node *n = leader == &s->nodes[0] ? &s->nodes[1] : &s->nodes[0];
    enum status_code code = STATUS_INTERNAL;
    node_crash(n);
    replica_remove(leader->replica, n->id, change_answered, &code);
    run(s, 1000000);
    assert_int_equal(code, STATUS_OK);
    sim_raft_wipe(s->world, n->id);
    assert_int_equal(sim_raft_disk_last_index(s->world, n->id), 0);
    node_start(n);
    struct replica_member m = {.id = n->id, .role = REPLICA_VOTER};
    memcpy(m.address, n->address, sizeof n->address);
    code = STATUS_INTERNAL;
    replica_add(leader->replica, &m, change_answered, &code);
    run(s, 5000000);
    assert_int_equal(code, STATUS_OK);
    assert_int_equal(n->restores, 1);
    assert_converged(s);
    sim_close(s);
}

static void node_closed(void *data)
{
    struct node *n = data;
    n->closed = true;
    n->replica = NULL;
}

static void a_closed_replica_comes_back_from_its_disk(void **state)
{
    (void)state;
    struct sim *s = sim_open(7);
    run(s, 3000000);
    for (int i = 0; i < 50; i++) {
        propose(s);
        run(s, 1000);
    }
    struct node *leader = leader_of(s);
    replica_close(leader->replica, node_closed, leader);
    assert_false(leader->closed);
    run(s, 5000000);
    assert_true(leader->closed);
    assert_non_null(leader_of(s));
    node_start(leader);
    propose(s);
    run(s, 5000000);
    assert_converged(s);
    sim_close(s);
}

static void a_failing_disk_is_fatal_and_the_others_go_on(void **state)
{
    (void)state;
    struct sim *s = sim_open(8);
    run(s, 3000000);
    struct node *old = leader_of(s);
    assert_non_null(old);
    sim_raft_disk_fail(s->world, old->id, true);
    for (int i = 0; i < 10; i++) {
        propose(s);
        run(s, 1000);
    }
    assert_true(old->fatal);
    node_crash(old);
    sim_raft_disk_fail(s->world, old->id, false);
    run(s, 5000000);
    assert_non_null(leader_of(s));
    node_start(old);
    propose(s);
    run(s, 5000000);
    assert_converged(s);
    sim_close(s);
}

/* Proposes commands of that size at the leader until it refuses; returns how many it took. */
static uint64_t propose_until_refused(struct sim *s, size_t size, uint64_t most)
{
    uint8_t *command = calloc(1, size);
    assert_non_null(command);
    struct node *leader = leader_of(s);
    uint64_t taken = 0;
    struct status st = status_ok();
    while (taken < most && status_is_ok(st)) {
        st = replica_propose(leader->replica, s->tickets++, bytes_of(command, size));
        taken += status_is_ok(st) ? 1 : 0;
        if (taken % 16 == 0) {
            run(s, 1000);
        }
    }
    assert_true(status_is_ok(st) || st.code == STATUS_LIMIT);
    free(command);
    return taken;
}

enum { BULKY = 256 << 10, SLOW_US = 3 * 1000000, MIB = 1 << 20 };

static void a_stalled_disk_refuses_proposals_until_it_goes_on(void **state)
{
    (void)state;
    struct sim *s = sim_open(21);
    run(s, 3000000);
    struct node *leader = leader_of(s);
    for (size_t i = 0; i < NODES; i++) {
        sim_raft_disk_speed(s->world, i + 1, (struct sim_disk_speed){SLOW_US, SLOW_US});
    }
    uint64_t taken = propose_until_refused(s, BULKY, 100000);
    assert_in_range(taken * BULKY, 32 * MIB, 128 * MIB);
    assert_non_null(replica_refusal(leader->replica));
    assert_int_equal(s->acknowledgements, 0);
    for (size_t i = 0; i < NODES; i++) {
        sim_raft_disk_speed(s->world, i + 1, (struct sim_disk_speed){100, 1000});
    }
    run(s, 2 * SLOW_US);
    assert_ptr_equal(leader_of(s), leader);
    assert_int_equal(s->acknowledgements, taken);
    assert_null(replica_refusal(leader->replica));
    assert_int_equal(propose_until_refused(s, BULKY, 16), 16);
    run(s, 2000000);
    assert_converged(s);
    sim_close(s);
}

static void a_member_with_a_stalled_disk_holds_a_bounded_part_of_the_log(void **state)
{
    (void)state;
    struct sim *s = sim_open(22);
    run(s, 3000000);
    struct node *leader = leader_of(s);
    struct node *slow = leader == &s->nodes[0] ? &s->nodes[1] : &s->nodes[0];
    sim_raft_disk_speed(s->world, slow->id, (struct sim_disk_speed){SLOW_US, SLOW_US});
    uint64_t taken = propose_until_refused(s, BULKY, 400); /* 100 MiB; the two others commit */
    assert_int_equal(taken, 400);
    run(s, 1000000);
    assert_int_equal(s->acknowledgements, taken);
    assert_true(replica_status(slow->replica).unwritten_bytes <= 80 * MIB);
    sim_raft_disk_speed(s->world, slow->id, (struct sim_disk_speed){100, 1000});
    /* What its disk has begun takes its time, of a snapshot many times that of a write. */
    for (int i = 0; i < 200 && slow->last_index < s->acknowledged; i++) {
        run(s, 1000000);
    }
    assert_converged(s);
    sim_close(s);
}

static void a_member_runs_once(void **state)
{
    (void)state;
    struct sim *s = sim_open(9);
    struct replica *again;
    struct replica_config config = s->config;
    struct errmsg msg = {0};
    struct replica_events events = {0};
    config.id = 1;
    config.address = "sim:1";
    assert_int_equal(replica_open_sim(&again, s->world, &config, &events, &msg).code,
                     STATUS_EXISTS);
    sim_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_trace),
        cmocka_unit_test(chaos_loses_nothing_acknowledged),
        cmocka_unit_test(crash_and_restart_keep_acknowledged_entries),
        cmocka_unit_test(a_wiped_member_leaves_joins_again_and_gets_a_snapshot),
        cmocka_unit_test(a_closed_replica_comes_back_from_its_disk),
        cmocka_unit_test(a_failing_disk_is_fatal_and_the_others_go_on),
        cmocka_unit_test(a_stalled_disk_refuses_proposals_until_it_goes_on),
        cmocka_unit_test(a_member_with_a_stalled_disk_holds_a_bounded_part_of_the_log),
        cmocka_unit_test(a_member_runs_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

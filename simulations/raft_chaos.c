/* The story of a run: chaos_ms of work and faults -> everything is healed -> one more command is
 * acknowledged -> all members are compared. */
#include "simulations/raft_chaos_internal.h"

#include "common/check.h"
#include "common/mem.h"
#include "common/parts.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHAOS_MS = 4000,
    HEAL_MS_MAX = 20000,
    ELECTION_MS = 100,
    HEARTBEAT_MS = 20,
    PAYLOAD_BYTES_MAX = 64,
};

/* ---- Network ---- */

static bool sooner(const struct packet *a, const struct packet *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->sequence < b->sequence);
}

static void heap_push(struct chaos *c, struct packet p)
{
    if (c->packets == c->capacity) {
        c->capacity = c->capacity == 0 ? 256 : c->capacity * 2;
        c->heap = mem_must(mem_realloc(c->heap, c->capacity * sizeof *c->heap));
    }
    size_t at = c->packets++;
    while (at > 0 && sooner(&p, &c->heap[(at - 1) / 2])) {
        c->heap[at] = c->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    c->heap[at] = p;
}

static struct packet heap_pop(struct chaos *c)
{
    struct packet top = c->heap[0];
    struct packet last = c->heap[--c->packets];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= c->packets) {
            break;
        }
        if (child + 1 < c->packets && sooner(&c->heap[child + 1], &c->heap[child])) {
            child++;
        }
        if (!sooner(&c->heap[child], &last)) {
            break;
        }
        c->heap[at] = c->heap[child];
        at = child;
    }
    if (c->packets > 0) {
        c->heap[at] = last;
    }
    return top;
}

static void packet_put(struct chaos *c, uint64_t from, uint64_t to, struct bytes message,
                       uint64_t after_us)
{
    heap_push(c, (struct packet){.at_us = chaos_now_us(c) + after_us,
                                 .sequence = c->sequence++,
                                 .from = (uint32_t)from,
                                 .to = (uint32_t)to,
                                 .size = message.size,
                                 .data = mem_must(mem_dup(message.data, message.size))});
}

static uint64_t delay(struct chaos *c)
{
    return chaos_chance(c, 90) ? chaos_between(c, 100, 1500)
                               : chaos_between(c, 100, c->delay_us_max);
}

static void on_send(void *data, uint64_t to, const char *address, bool bulk, struct bytes message)
{
    struct node *n = data;
    struct chaos *c = n->chaos;
    (void)bulk;
    (void)address;
    CHECK(to < CHAOS_IDS);
    chaos_sent(&c->checks, n->id, to, message);
    if (c->cut[n->id][to] || chaos_chance(c, c->drop_percent)) {
        return;
    }
    packet_put(c, n->id, to, message, delay(c));
    if (chaos_chance(c, c->double_percent)) {
        packet_put(c, n->id, to, message, delay(c) * 3);
    }
}

static void packet_deliver(struct chaos *c)
{
    struct packet p = heap_pop(c);
    struct node *to = &c->nodes[p.to];
    if (to->replica != NULL && !to->closing && !c->cut[p.from][p.to]) {
        struct status s = replica_receive(to->replica, p.from, c->nodes[p.from].address,
                                          bytes_of(p.data, p.size));
        (void)s;
    }
    mem_free(p.data);
}

/* ---- State machine ---- */

static void on_apply(void *data, uint64_t index, uint64_t term, struct bytes command)
{
    struct node *n = data;
    (void)term;
    chaos_applied(&n->chaos->checks, n->id, &n->state, index, command);
}

static void on_proposed(void *data, uint64_t ticket, struct status s, uint64_t index)
{
    struct node *n = data;
    struct chaos *c = n->chaos;
    if (!status_is_ok(s)) {
        return;
    }
    c->result.acknowledged++;
    c->probe_acknowledged = c->probe_acknowledged || (c->healing && ticket >= c->probe_ticket);
    chaos_acknowledged(&c->checks, n->id, index, c->hashes[ticket]);
}

static void on_role(void *data, const struct replica_status *st)
{
    struct node *n = data;
    TRACE(n->chaos, "server %" PRIu64 " %s in term %" PRIu64, n->id,
          st->leader ? "leads" : "follows", st->term);
}

static void *on_pin(void *data)
{
    struct node *n = data;
    return mem_must(mem_dup(&n->state, sizeof n->state));
}

static struct status on_encode(void *data, const void *pin, struct parts *out)
{
    (void)data;
    return buffer_append(mem_must(parts_next(out)), pin, sizeof(struct chaos_state));
}

static void on_unpin(void *data, void *pin)
{
    (void)data;
    mem_free(pin);
}

static struct status on_restore(void *data, struct bytes state)
{
    struct node *n = data;
    if (state.size != sizeof n->state) {
        return status_of(STATUS_CORRUPT);
    }
    memcpy(&n->state, state.data, sizeof n->state);
    n->chaos->result.snapshots++;
    chaos_restored(&n->chaos->checks, n->id, &n->state);
    return status_ok();
}

static void on_fatal(void *data, const char *why)
{
    struct node *n = data;
    n->fatal = true;
    TRACE(n->chaos, "server %" PRIu64 " stops: %s", n->id, why);
}

static struct replica_events events_of(struct node *n)
{
    return (struct replica_events){
        .data = n,
        .send = on_send,
        .on_apply = on_apply,
        .on_proposed = on_proposed,
        .on_role = on_role,
        .snapshot_pin = on_pin,
        .snapshot_encode = on_encode,
        .snapshot_unpin = on_unpin,
        .restore = on_restore,
        .on_fatal = on_fatal,
    };
}

/* ---- Servers ---- */

static struct replica_config config_of(const struct chaos *c, const struct node *n)
{
    return (struct replica_config){
        .folder = "-",
        .id = n->id,
        .address = n->address,
        .election_timeout_ms = ELECTION_MS,
        .heartbeat_ms = HEARTBEAT_MS,
        .snapshot_threshold = c->thresholds[n->id],
        .snapshot_trailing = c->trailing,
        .random_seed = c->options.seed,
    };
}

struct node *chaos_node_new(struct chaos *c, uint64_t id)
{
    struct node *n = &c->nodes[id];
    n->chaos = c;
    n->id = id;
    (void)snprintf(n->address, sizeof n->address, "10.0.0.%u:1", (unsigned)id);
    return n;
}

void chaos_node_start(struct node *n)
{
    struct chaos *c = n->chaos;
    struct replica_config config = config_of(c, n);
    struct replica_events events = events_of(n);
    struct errmsg msg = {.text = ""};
    n->state = (struct chaos_state){0};
    n->fatal = false;
    struct status s = replica_open_sim(&n->replica, c->world, &config, &events, &msg);
    if (status_is_ok(s)) {
        n->life = LIFE_UP;
        if (chaos_does(c, CHAOS_NO_PRE_VOTE)) {
            raft_set_pre_vote(&n->replica->raft, false);
        }
        TRACE(c, "server %" PRIu64 " starts", n->id);
        return;
    }
    n->replica = NULL;
    TRACE(c, "server %" PRIu64 " does not start: %s", n->id, msg.text);
    if (s.code == STATUS_CORRUPT) {
        n->life = LIFE_ROTTEN;
        c->result.refused++;
        return;
    }
    n->life = LIFE_DOWN;
    n->start_us = chaos_now_us(c) + 100 * MS;
}

static void node_down(struct node *n)
{
    struct chaos *c = n->chaos;
    n->replica = NULL;
    n->fatal = false;
    n->closing = false;
    n->closed = false;
    n->life = LIFE_DOWN;
    c->changer = c->changer == n->id ? 0 : c->changer;
    n->start_us = chaos_now_us(c) + chaos_between(c, 1, chaos_chance(c, 80) ? 300 : 1500) * MS;
    c->result.crashes++;
}

void chaos_node_crash(struct node *n)
{
    TRACE(n->chaos, "server %" PRIu64 " crashes", n->id);
    sim_raft_crash(n->chaos->world, n->id);
    node_down(n);
}

static void on_closed(void *data)
{
    struct node *n = data;
    n->closed = true;
}

void chaos_node_close(struct node *n)
{
    if (!n->closing) {
        TRACE(n->chaos, "server %" PRIu64 " is closed", n->id);
        n->closing = true;
        replica_close(n->replica, on_closed, n);
    }
}

/* One that is up and not on its way out; NULL: none. */
struct node *chaos_random_node(struct chaos *c)
{
    struct node *found[CHAOS_IDS];
    size_t count = 0;
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        if (c->nodes[i].replica != NULL && !c->nodes[i].closing) {
            found[count++] = &c->nodes[i];
        }
    }
    return count == 0 ? NULL : found[chaos_below(c, count)];
}

struct node *chaos_leader(struct chaos *c)
{
    struct node *best = NULL;
    uint64_t term = 0;
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        struct node *n = &c->nodes[i];
        if (n->replica == NULL || n->closing) {
            continue;
        }
        struct replica_status st = replica_status(n->replica);
        if (st.leader && st.term > term) {
            best = n;
            term = st.term;
        }
    }
    return best;
}
/* ---- Work ---- */

static void propose(struct chaos *c, struct node *n)
{
    uint8_t command[PAYLOAD_BYTES_MAX];
    size_t size = (size_t)chaos_between(c, 8, PAYLOAD_BYTES_MAX);
    uint64_t ticket = c->tickets++;
    if (ticket >= c->hashes_capacity) {
        c->hashes_capacity = c->hashes_capacity == 0 ? 1024 : c->hashes_capacity * 2;
        c->hashes = mem_must(mem_realloc(c->hashes, c->hashes_capacity * sizeof *c->hashes));
    }
    memset(command, (int)(ticket & 0xff), sizeof command);
    memcpy(command, &ticket, sizeof ticket);
    c->hashes[ticket] = chaos_hash(bytes_of(command, size));
    struct status s = replica_propose(n->replica, ticket, bytes_of(command, size));
    (void)s; /* not accepted: never answered */
}

static void work(struct chaos *c)
{
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        struct node *n = &c->nodes[i];
        if (n->replica == NULL || n->closing || !replica_status(n->replica).leader) {
            continue;
        }
        for (uint64_t k = chaos_between(c, 1, 6); k > 0; k--) {
            propose(c, n);
        }
    }
}

/* What has to be done outside of callbacks. */
static void care(struct chaos *c)
{
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        struct node *n = &c->nodes[i];
        if (n->closed) {
            node_down(n);
        } else if (n->fatal && n->replica != NULL && !n->closing) {
            bool removed = n->start_us == UINT64_MAX;
            if (!removed && chaos_does(c, CHAOS_STOP) && chaos_chance(c, 50)) {
                chaos_node_close(n);
                continue;
            }
            chaos_node_crash(n);
            if (removed) {
                n->life = LIFE_REMOVED;
                n->start_us = UINT64_MAX;
            }
        } else if (n->life == LIFE_DOWN && n->start_us <= chaos_now_us(c)) {
            chaos_node_start(n);
        }
    }
}

/* Lets time pass up to `until_us`. */
static void pass(struct chaos *c, uint64_t until_us)
{
    while (c->checks.verdict == CHAOS_CLEAN) {
        uint64_t next = sim_raft_next_us(c->world);
        bool packet = c->packets > 0 && c->heap[0].at_us <= next;
        next = packet ? c->heap[0].at_us : next;
        if (next > until_us) {
            break;
        }
        sim_raft_advance(c->world, next > chaos_now_us(c) ? next : chaos_now_us(c));
        while (c->packets > 0 && c->heap[0].at_us <= chaos_now_us(c)) {
            packet_deliver(c);
        }
    }
    if (c->checks.verdict == CHAOS_CLEAN) {
        sim_raft_advance(c->world, until_us);
    }
}

static void run_chaos(struct chaos *c)
{
    uint64_t end_us =
        chaos_now_us(c) + (c->options.chaos_ms == 0 ? CHAOS_MS : c->options.chaos_ms) * MS;
    uint64_t fault_us = chaos_now_us(c) + 300 * MS;
    bool often = chaos_does(c, CHAOS_ELECTIONS);
    while (chaos_now_us(c) < end_us && c->checks.verdict == CHAOS_CLEAN) {
        pass(c, chaos_now_us(c) + chaos_between(c, 300, often ? 3000 : 8000));
        if (c->checks.verdict != CHAOS_CLEAN) {
            return;
        }
        care(c);
        if (chaos_now_us(c) >= c->idle_until_us) {
            work(c);
        }
        if (often) {
            chaos_fault_moment(c);
        }
        if (chaos_now_us(c) >= fault_us) {
            chaos_fault(c);
            c->idle_until_us = chaos_now_us(c) + (chaos_chance(c, 15) ? 150 * MS : 0);
            fault_us = chaos_now_us(c) + chaos_between(c, 10, 120) * MS;
        }
    }
}

/* ---- Healing ---- */

static void heal(struct chaos *c)
{
    c->healing = true;
    c->probe_ticket = c->tickets;
    c->drop_percent = 0;
    c->double_percent = 0;
    c->delay_us_max = 2 * MS;
    chaos_heal_cuts(c);
    for (uint64_t i = 1; i < CHAOS_IDS; i++) {
        struct node *n = &c->nodes[i];
        if (n->life == LIFE_NONE) {
            continue;
        }
        sim_raft_disk_errors(c->world, i, 0);
        sim_raft_disk_full(c->world, i, false);
        sim_raft_disk_speed(c->world, i, (struct sim_disk_speed){100, 500});
        n->start_us = n->life == LIFE_DOWN ? chaos_now_us(c) : n->start_us;
    }
}

static bool members_equal(const struct replica *a, const struct replica *b)
{
    struct replica_member ma[REPLICA_MEMBERS_MAX] = {0};
    struct replica_member mb[REPLICA_MEMBERS_MAX] = {0};
    size_t na = replica_members(a, ma);
    return na == replica_members(b, mb) && memcmp(ma, mb, na * sizeof ma[0]) == 0;
}

/* NULL: all is well; else what is not. */
static const char *unequal(struct chaos *c)
{
    const struct node *l = chaos_leader(c);
    if (l == NULL) {
        return "no leader";
    }
    if (!c->probe_acknowledged) {
        return "no progress";
    }
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(l->replica, members);
    for (size_t i = 0; i < count; i++) {
        const struct node *n = &c->nodes[members[i].id];
        if (members[i].role == REPLICA_SPARE || n->life == LIFE_ROTTEN) {
            continue; /* the one gets no entries, the other does not run */
        }
        if (n->replica == NULL) {
            return "a member that is not up";
        }
        if (n->state.index != l->state.index || n->state.chain != l->state.chain) {
            return "states that differ";
        }
        if (!members_equal(n->replica, l->replica)) {
            return "configurations that differ";
        }
    }
    return l->state.index < c->checks.acknowledged_last ? "acknowledged commands missing" : NULL;
}

static void trace_servers(struct chaos *c)
{
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        const struct node *n = &c->nodes[i];
        if (n->replica == NULL) {
            continue;
        }
        const struct raft *r = &n->replica->raft;
        TRACE(c,
              "server %zu: state %u term %llu last %llu stored %llu committed %llu applied %llu "
              "snapshot %llu offset %llu configuration %llu/%llu unfinished %u",
              i, r->state, r->current_term, raft_last_index(&n->replica->raft), r->last_stored,
              r->commit_index, r->last_applied, r->log.snapshot.last_index, r->log.offset,
              r->configuration_index, r->configuration_uncommitted_index,
              n->replica->guard.unfinished);
        for (unsigned k = 0; k < r->configuration.n; k++) {
            TRACE(c, "    member %llu role %d", r->configuration.servers[k].id,
                  r->configuration.servers[k].role);
        }
    }
}

static void run_healing(struct chaos *c)
{
    uint64_t end_us = chaos_now_us(c) + HEAL_MS_MAX * MS;
    heal(c);
    const char *what = "no time";
    for (unsigned round = 0; chaos_now_us(c) < end_us && c->checks.verdict == CHAOS_CLEAN;
         round++) {
        care(c);
        struct node *l = chaos_leader(c);
        if (l != NULL && (!c->probe_acknowledged || round % 20 == 0)) {
            propose(c, l);
        }
        pass(c, chaos_now_us(c) + 20 * MS);
        if (c->checks.verdict != CHAOS_CLEAN) {
            return;
        }
        what = unequal(c);
        if (what == NULL) {
            return;
        }
    }
    trace_servers(c);
    bool stuck = strncmp(what, "no ", 3) == 0;
    chaos_violated(&c->checks, stuck ? CHAOS_STUCK : CHAOS_UNEQUAL, "after healing: %s", what);
}

/* ---- A run ---- */

static void begin(struct chaos *c)
{
    size_t servers = c->options.servers;
    if (servers == 0) {
        servers = chaos_chance(c, 70) ? 3 : 5;
    }
    c->delay_us_max = 5 * MS;
    c->trailing = 1000000;
    uint32_t threshold = (uint32_t)chaos_between(c, 8, 80);
    for (size_t i = 1; i < CHAOS_IDS; i++) {
        bool often = chaos_does(c, CHAOS_SNAPSHOT) && !chaos_chance(c, 25);
        c->thresholds[i] = often ? threshold : 1000000;
    }
    if (chaos_does(c, CHAOS_SNAPSHOT)) {
        c->trailing = (uint32_t)chaos_between(c, 1, chaos_chance(c, 50) ? 6 : 60);
    }
    struct replica_member members[REPLICA_MEMBERS_MAX];
    for (size_t i = 0; i < servers; i++) {
        struct node *n = chaos_node_new(c, i + 1);
        members[i] = (struct replica_member){.id = n->id, .role = REPLICA_VOTER};
        memcpy(members[i].address, n->address, sizeof n->address);
    }
    for (size_t i = 0; i < servers; i++) {
        struct node *n = &c->nodes[i + 1];
        struct replica_config config = config_of(c, n);
        CHECK(status_is_ok(sim_raft_bootstrap(c->world, &config, members, servers, NULL)));
        chaos_node_start(n);
        CHECK(n->life == LIFE_UP);
    }
}

static void end(struct chaos *c)
{
    c->result.verdict = c->checks.verdict;
    memcpy(c->result.why, c->checks.why, sizeof c->result.why);
    c->result.terms = c->checks.terms;
    c->result.virtual_ms = chaos_now_us(c) / MS - 3600000;
    sim_raft_free(c->world);
    while (c->packets > 0) {
        mem_free(heap_pop(c).data);
    }
    mem_free(c->heap);
    mem_free(c->hashes);
    chaos_checks_close(&c->checks);
}

int raft_chaos_run(const struct raft_chaos_options *options, struct raft_chaos_result *out)
{
    struct chaos *c = mem_must(mem_zalloc(1, sizeof *c));
    c->options = *options;
    c->random = options->seed;
    c->world = sim_raft_new(options->seed);
    sim_raft_cures_off(c->world, options->cures_off);
    begin(c);
    run_chaos(c);
    if (c->checks.verdict == CHAOS_CLEAN) {
        run_healing(c);
    }
    end(c);
    *out = c->result;
    mem_free(c);
    return (int)out->verdict;
}

int raft_chaos_fork(const struct raft_chaos_options *options, struct raft_chaos_result *out,
                    int *out_signal)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        static const int deadly[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
        for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++) {
            (void)signal(deadly[i], SIG_DFL); /* a test program has handlers of its own */
        }
        int verdict = raft_chaos_run(options, out);
        _exit(write(ends[1], out, sizeof *out) == (ssize_t)sizeof *out ? verdict : 127);
    }
    (void)close(ends[1]);
    ssize_t got = read(ends[0], out, sizeof *out);
    (void)close(ends[0]);
    int ended = 0;
    CHECK(waitpid(pid, &ended, 0) == pid);
    *out_signal = WIFSIGNALED(ended)            ? WTERMSIG(ended)
                  : got != (ssize_t)sizeof *out ? SIGABRT /* a sanitizer's exit */
                                                : 0;
    return *out_signal != 0 ? 0 : (int)out->verdict;
}

uint32_t raft_chaos_faults(const char *letters)
{
    static const char all[] = "cpdsztmfnrveq";
    uint32_t faults = 0;
    for (; *letters != '\0'; letters++) {
        const char *at = strchr(all, *letters);
        if (at == NULL) {
            return 0;
        }
        faults |= (uint32_t)1 << (at - all);
    }
    return faults;
}

const char *raft_chaos_verdict_name(enum raft_chaos_verdict v)
{
    static const char *const names[] = {"clean",     "diverged", "lost",   "two leaders",
                                        "two votes", "stuck",    "unequal"};
    return names[v];
}

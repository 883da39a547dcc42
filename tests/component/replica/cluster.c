#include "tests/component/replica/cluster.h"

#include "common/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define CURE "docs/operations.md"
enum { WAIT_MS_MAX = 60000, PULSE_MS = 2 };

struct packet {
    struct packet *next;
    uint64_t from;
    uint64_t to;
    size_t size;
    uint8_t data[];
};

static uint64_t hash_step(uint64_t hash, struct bytes command)
{
    for (size_t i = 0; i < command.size; i++) {
        hash = (hash ^ command.data[i]) * 1099511628211ULL;
    }
    return (hash ^ command.size) * 1099511628211ULL;
}

static void on_send(void *data, uint64_t to, const char *address, bool bulk, struct bytes message)
{
    struct node *n = data;
    struct cluster *c = n->cluster;
    assert_true(to >= 1 && to <= c->count);
    assert_string_equal(address, c->nodes[to - 1].address);
    c->sent++;
    c->bulk_sent += bulk ? 1 : 0;
    if (c->cut[n->id - 1][to - 1] || (c->drop_every != 0 && c->sent % c->drop_every == 0)) {
        return;
    }
    struct packet *p = malloc(sizeof *p + message.size);
    assert_non_null(p);
    p->from = n->id;
    p->to = to;
    p->size = message.size;
    memcpy(p->data, message.data, message.size);
    if (c->reorder_every != 0 && c->sent % c->reorder_every == 0 && c->first != NULL) {
        p->next = c->first;
        c->first = p;
        return;
    }
    p->next = NULL;
    if (c->last == NULL) {
        c->first = p;
    } else {
        c->last->next = p;
    }
    c->last = p;
}

static void on_apply(void *data, uint64_t index, uint64_t term, struct bytes command)
{
    struct node *n = data;
    assert_true(index > n->last_index);
    assert_true(term > 0);
    n->last_index = index;
    n->applied_count++;
    n->applied_hash = hash_step(n->applied_hash, command);
}

static void on_applied(void *data, uint64_t index)
{
    struct node *n = data;
    assert_true(index >= n->last_index);
    n->applied_calls++;
}

static void on_proposed(void *data, uint64_t ticket, struct status s, uint64_t index)
{
    struct node *n = data;
    struct answer *a = &n->cluster->answers[ticket];
    assert_true(ticket < n->cluster->tickets);
    a->times++;
    assert_int_equal(a->times, 1);
    a->given = true;
    a->status = s;
    a->index = index;
    if (status_is_ok(s)) {
        assert_int_equal(index, n->last_index);
    }
}

static void on_role(void *data, const struct replica_status *st)
{
    struct node *n = data;
    n->roles++;
    n->role = *st;
    if (st->leader) {
        assert_int_equal(st->leader_id, n->id);
        assert_string_equal(st->leader_address, n->address);
        /* Everything of older terms is in the state: the barrier was applied. */
        assert_true(st->applied_index > 0);
    }
}

void gate_init(struct gate *g)
{
    *g = (struct gate){0};
    assert_int_equal(uv_mutex_init(&g->mutex), 0);
    assert_int_equal(uv_cond_init(&g->opened), 0);
}

void gate_close(struct gate *g)
{
    uv_cond_destroy(&g->opened);
    uv_mutex_destroy(&g->mutex);
}

void gate_open(struct gate *g, bool fail)
{
    uv_mutex_lock(&g->mutex);
    g->open = true;
    g->fail = fail;
    uv_cond_broadcast(&g->opened);
    uv_mutex_unlock(&g->mutex);
}

unsigned gate_passed(struct gate *g)
{
    uv_mutex_lock(&g->mutex);
    unsigned passed = g->passed;
    uv_mutex_unlock(&g->mutex);
    return passed;
}

/* On another thread; true when it shall fail. */
static bool gate_pass(struct gate *g)
{
    uv_mutex_lock(&g->mutex);
    while (!g->open) {
        uv_cond_wait(&g->opened, &g->mutex);
    }
    g->passed++;
    bool fail = g->fail;
    uv_mutex_unlock(&g->mutex);
    return fail;
}

struct pin {
    struct state state;
    struct gate *gate;
};

enum { SNAPSHOT_FILL_BYTES = 3 << 20 }; /* three parts on the wire */

static void *on_snapshot_pin(void *data)
{
    struct node *n = data;
    assert_false(n->pinned);
    struct pin *pin = mem_alloc(sizeof *pin);
    if (pin != NULL) {
        *pin = (struct pin){{n->applied_count, n->applied_hash, n->last_index}, n->gate};
        n->pinned = true;
        n->pinned_count = n->applied_count;
    }
    return pin;
}

/* Runs on another thread: touches nothing but the pin. */
static struct status on_snapshot_encode(void *data, const void *pin, struct parts *out)
{
    (void)data;
    const struct state *st = &((const struct pin *)pin)->state;
    struct gate *gate = ((const struct pin *)pin)->gate;
    bool fails = gate != NULL && gate_pass(gate);
    struct buffer *part = parts_next(out);
    if (part == NULL || fails) {
        return status_of(STATUS_NOMEM);
    }
    TRY(buffer_append(part, st, sizeof *st));
    TRY(buffer_reserve(part, SNAPSHOT_FILL_BYTES));
    memset(part->data + part->size, (int)(st->count & 0xff), SNAPSHOT_FILL_BYTES);
    part->size += SNAPSHOT_FILL_BYTES;
    return status_ok();
}

static void on_snapshot_unpin(void *data, void *pin)
{
    struct node *n = data;
    assert_true(n->pinned);
    n->pinned = false;
    n->snapshots++;
    mem_free(pin);
}

static struct status on_restore(void *data, struct bytes state)
{
    struct node *n = data;
    struct state st;
    if (state.size != sizeof st + SNAPSHOT_FILL_BYTES) {
        return status_of(STATUS_CORRUPT);
    }
    memcpy(&st, state.data, sizeof st);
    n->applied_count = st.count;
    n->applied_hash = st.hash;
    n->last_index = st.last_index;
    n->restores++;
    return status_ok();
}

static void on_fatal(void *data, const char *why)
{
    struct node *n = data;
    assert_non_null(why);
    n->fatal = true;
}

/* Closing a replica waits for what encodes. */
static void pulse(uv_timer_t *t)
{
    struct cluster *c = t->data;
    for (size_t i = 0; i < c->count; i++) {
        if (c->nodes[i].closed && c->nodes[i].gate != NULL) {
            gate_open(c->nodes[i].gate, false);
        }
    }
}

void cluster_open(struct cluster *c, size_t count, size_t voters)
{
    *c = (struct cluster){0};
    c->count = count;
    c->answers = calloc(CLUSTER_ANSWERS_MAX, sizeof *c->answers);
    assert_non_null(c->answers);
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(c->folder, sizeof c->folder, "%s/skep-replica-XXXXXX",
                   tmp == NULL ? "/tmp" : tmp);
    assert_non_null(mkdtemp(c->folder));
    assert_int_equal(uv_loop_init(&c->loop), 0);
    assert_int_equal(uv_timer_init(&c->loop, &c->pulse), 0);
    c->pulse.data = c;
    assert_int_equal(uv_timer_start(&c->pulse, pulse, PULSE_MS, PULSE_MS), 0);
    c->config = (struct replica_config){.election_timeout_ms = 200, .heartbeat_ms = 20};
    struct replica_member members[CLUSTER_NODES_MAX] = {0};
    for (size_t i = 0; i < count; i++) {
        struct node *n = &c->nodes[i];
        n->cluster = c;
        n->id = i + 1;
        (void)snprintf(n->address, sizeof n->address, "127.0.0.1:%zu", 7001 + i);
        (void)snprintf(n->folder, sizeof n->folder, "%.200s/%zu", c->folder, i + 1);
        assert_int_equal(mkdir(n->folder, 0700), 0);
        members[i].id = n->id;
        members[i].role = REPLICA_VOTER;
        (void)snprintf(members[i].address, sizeof members[i].address, "%s", n->address);
    }
    for (size_t i = 0; i < voters; i++) {
        struct node *n = &c->nodes[i];
        struct replica_config config = c->config;
        config.folder = n->folder;
        config.id = n->id;
        config.address = n->address;
        assert_true(replica_folder_empty(n->folder));
        struct errmsg msg = {0};
        struct status s = replica_bootstrap(&config, members, voters, &msg);
        if (!status_is_ok(s)) {
            fail_msg("bootstrap: %s", msg.text);
        }
        assert_false(replica_folder_empty(n->folder));
    }
}

struct status node_try_start(struct node *n, struct errmsg *msg)
{
    assert_null(n->replica);
    struct cluster *c = n->cluster;
    struct replica_config config = c->config;
    config.folder = n->folder;
    config.id = n->id;
    config.address = n->address;
    config.random_seed = n->id * 1000 + n->roles + 1;
    struct replica_events events = {.data = n,
                                    .send = on_send,
                                    .on_apply = on_apply,
                                    .on_applied = on_applied,
                                    .on_proposed = on_proposed,
                                    .on_role = on_role,
                                    .snapshot_pin = on_snapshot_pin,
                                    .snapshot_encode = on_snapshot_encode,
                                    .snapshot_unpin = on_snapshot_unpin,
                                    .restore = on_restore,
                                    .on_fatal = on_fatal};
    n->applied_count = 0;
    n->applied_hash = 0;
    n->last_index = 0;
    n->role = (struct replica_status){0};
    return replica_open(&n->replica, &c->loop, &config, &events, msg);
}

void node_start(struct node *n)
{
    struct errmsg msg = {0};
    struct status s = node_try_start(n, &msg);
    if (!status_is_ok(s)) {
        fail_msg("open: %s", msg.text);
    }
}

static void deliver(struct cluster *c)
{
    struct packet *p = c->first;
    c->first = NULL;
    c->last = NULL;
    while (p != NULL) {
        struct packet *next = p->next;
        struct node *to = &c->nodes[p->to - 1];
        struct node *from = &c->nodes[p->from - 1];
        if (to->replica != NULL && !to->closed) {
            struct status s =
                replica_receive(to->replica, p->from, from->address, bytes_of(p->data, p->size));
            assert_true(status_is_ok(s) || s.code == STATUS_UNAVAILABLE);
        }
        free(p);
        p = next;
    }
}

static void run_once(struct cluster *c)
{
    (void)uv_run(&c->loop, c->first == NULL ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    deliver(c);
}

void cluster_wait(struct cluster *c, bool (*condition)(struct cluster *c, uint64_t arg),
                  uint64_t arg, const char *what)
{
    uint64_t end = uv_hrtime() + (uint64_t)WAIT_MS_MAX * 1000000;
    while (!condition(c, arg)) {
        if (uv_hrtime() > end) {
            for (size_t i = 0; i < c->count; i++) {
                struct node *n = &c->nodes[i];
                if (n->replica != NULL) {
                    struct replica_status st = replica_status(n->replica);
                    print_message(
                        "node %llu: leader %d of %llu term %llu applied %llu commit %llu "
                        "last %llu commands %llu\n",
                        (unsigned long long)n->id, st.leader, (unsigned long long)st.leader_id,
                        (unsigned long long)st.term, (unsigned long long)st.applied_index,
                        (unsigned long long)st.commit_index, (unsigned long long)st.last_index,
                        (unsigned long long)n->applied_count);
                }
            }
            fail_msg("timed out waiting for %s(%llu)", what, (unsigned long long)arg);
        }
        run_once(c);
    }
}

static void node_closed(void *data)
{
    struct node *n = data;
    n->replica = NULL;
    n->closed = false;
}

static bool is_down(struct cluster *c, uint64_t id)
{
    return c->nodes[id - 1].replica == NULL;
}

void node_stop(struct node *n)
{
    if (n->replica == NULL) {
        return;
    }
    n->closed = true;
    replica_close(n->replica, node_closed, n);
    assert_non_null(n->replica); /* never from inside */
    WAIT(n->cluster, is_down, n->id);
}

struct cluster *cluster_begin(size_t count, size_t voters)
{
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, count, voters);
    for (size_t i = 0; i < voters; i++) {
        node_start(&c->nodes[i]);
    }
    return c;
}

void cluster_end(struct cluster *c)
{
    cluster_close(c);
    free(c);
}

void node_find_file(const struct node *n, const char *prefix, char out[CLUSTER_PATH_BYTES_MAX * 2])
{
    DIR *d = opendir(n->folder);
    assert_non_null(d);
    out[0] = '\0';
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        size_t length = strlen(e->d_name);
        bool meta = length > 5 && strcmp(e->d_name + length - 5, ".meta") == 0;
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && !meta) {
            (void)snprintf(out, CLUSTER_PATH_BYTES_MAX * 2, "%s/%s", n->folder, e->d_name);
        }
    }
    (void)closedir(d);
    assert_string_not_equal(out, "");
}

void node_assert_corrupt(struct node *n, const char *names)
{
    struct errmsg msg = {0};
    assert_int_equal(node_try_start(n, &msg).code, STATUS_CORRUPT);
    print_message("%s\n", msg.text);
    assert_non_null(strstr(msg.text, names));
    assert_non_null(strstr(msg.text, CURE));
    n->replica = NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void node_wipe(struct node *n)
{
    assert_null(n->replica);
    assert_int_equal(nftw(n->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    assert_int_equal(mkdir(n->folder, 0700), 0);
}

void cluster_close(struct cluster *c)
{
    for (size_t i = 0; i < c->count; i++) {
        node_stop(&c->nodes[i]);
    }
    uv_close((uv_handle_t *)&c->pulse, NULL);
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&c->loop), 0);
    while (c->first != NULL) {
        struct packet *p = c->first;
        c->first = p->next;
        free(p);
    }
    free(c->answers);
    assert_int_equal(nftw(c->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

struct node *cluster_leader(struct cluster *c)
{
    struct node *leader = NULL;
    for (size_t i = 0; i < c->count; i++) {
        struct node *n = &c->nodes[i];
        if (n->replica != NULL && n->role.leader && replica_status(n->replica).leader &&
            (leader == NULL || n->role.term > leader->role.term)) {
            leader = n;
        }
    }
    return leader;
}

bool has_leader(struct cluster *c, uint64_t unused)
{
    (void)unused;
    return cluster_leader(c) != NULL;
}

struct node *cluster_wait_leader(struct cluster *c)
{
    WAIT(c, has_leader, 0);
    return cluster_leader(c);
}

bool is_pinned(struct cluster *c, uint64_t id)
{
    return c->nodes[id - 1].pinned;
}

bool has_snapshot(struct cluster *c, uint64_t id)
{
    const struct node *n = &c->nodes[id - 1];
    return replica_status(n->replica).snapshot_index >= n->pinned_count && n->snapshots > 0;
}

bool all_agree(struct cluster *c, uint64_t at_least)
{
    const struct node *first = NULL;
    for (size_t i = 0; i < c->count; i++) {
        const struct node *n = &c->nodes[i];
        if (n->replica == NULL) {
            continue;
        }
        if (first == NULL) {
            first = n;
        }
        if (n->applied_count < at_least || n->applied_count != first->applied_count) {
            return false;
        }
        assert_int_equal(n->applied_hash, first->applied_hash);
    }
    return first != NULL;
}

struct status node_propose(struct node *n, uint64_t number, size_t size, uint64_t *ticket)
{
    struct cluster *c = n->cluster;
    uint8_t *command = calloc(1, size < sizeof number ? sizeof number : size);
    assert_non_null(command);
    memcpy(command, &number, sizeof number);
    assert_true(c->tickets < CLUSTER_ANSWERS_MAX);
    struct status s = replica_propose(n->replica, c->tickets, bytes_of(command, size));
    free(command);
    if (status_is_ok(s)) {
        assert_false(c->answers[c->tickets].given); /* never from inside */
        *ticket = c->tickets++;
    }
    return s;
}

static bool answered_below(struct cluster *c, uint64_t limit)
{
    for (uint64_t i = 0; i < limit; i++) {
        if (!c->answers[i].given) {
            return false;
        }
    }
    return true;
}

void cluster_commit(struct cluster *c, uint64_t count, size_t size, unsigned window)
{
    uint64_t done = 0;
    while (done < count) {
        struct node *leader = cluster_wait_leader(c);
        uint64_t first = c->tickets;
        for (unsigned i = 0; i < window && done + (c->tickets - first) < count; i++) {
            uint64_t ticket;
            struct status s = node_propose(leader, c->tickets, size, &ticket);
            if (!status_is_ok(s)) {
                assert_int_equal(s.code, STATUS_NOT_LEADER);
                break;
            }
        }
        WAIT(c, answered_below, c->tickets);
        for (uint64_t t = first; t < c->tickets; t++) {
            done += status_is_ok(c->answers[t].status) ? 1 : 0;
        }
    }
}

void cluster_isolate(struct cluster *c, const struct node *n, bool cut)
{
    for (size_t i = 0; i < c->count; i++) {
        c->cut[n->id - 1][i] = cut;
        c->cut[i][n->id - 1] = cut;
    }
}

void change_answered(void *data, struct status s, const char *message)
{
    struct cluster *c = data;
    assert_false(c->change_done);
    c->change_done = true;
    c->change_status = s;
    (void)snprintf(c->change_message, sizeof c->change_message, "%s", message);
}

bool change_is_done(struct cluster *c, uint64_t unused)
{
    (void)unused;
    return c->change_done;
}

void cluster_wait_change(struct cluster *c)
{
    WAIT(c, change_is_done, 0);
    c->change_done = false;
}

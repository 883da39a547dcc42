#include "simulations/sim_io.h"

#include "common/check.h"
#include "common/mem.h"
#include "scheduler/replica/replica_internal.h"
#include "simulations/sim_disk.h"

#include <string.h>

#define NEVER UINT64_MAX
#define START_US ((uint64_t)3600 * 1000000)
enum { SNAPSHOT_COST = 20, SETTLE_ROUNDS_MAX = 100000 };

enum op_kind { OP_APPEND, OP_TRUNCATE, OP_PUT, OP_GET, OP_WORK };

/* One operation on a disk. Appends, truncations and installed snapshots form one queue, done in
 * order; local snapshots, reads and work are on their own. */
struct op {
    struct op *next;
    enum op_kind kind;
    bool in_order;
    bool doomed; /* behind a write that failed: what a reader of the log would not find */
    uint64_t due_us;
    uint64_t sequence;
    struct sim_entry *entries; /* OP_APPEND: copies */
    size_t count;
    uint64_t index; /* OP_TRUNCATE */
    struct sim_snapshot snapshot;
    uint64_t trailing;
    union {
        struct raft_io_append *append;
        struct raft_io_snapshot_put *put;
        struct raft_io_snapshot_get *get;
        struct raft_io_async_work *work;
    } req;
    union {
        raft_io_append_cb append;
        raft_io_snapshot_put_cb put;
        raft_io_snapshot_get_cb get;
        raft_io_async_work_cb work;
    } cb;
};

struct member {
    struct sim_disk disk;
    uint64_t id; /* 0: unused slot */
    struct sim_disk_speed speed;
    bool fails;
    bool full;
    uint32_t errors_ppm;
    uint64_t mark;         /* as uv_host keeps one */
    uint64_t starts;       /* seeds its randomness together with the world's seed and the id */
    struct sim_host *host; /* NULL: down */
};

struct sim_host {
    struct replica_host base; /* first: its io is cast to it */
    struct sim_raft *world;
    struct member *member;
    uint64_t random;
    struct op *first; /* in order of submission */
    struct op *last;
    uint64_t busy_until_us; /* when the last operation of the queue will be done */
    uint64_t begins_us;     /* when that one begins */
    bool ends_in_append;
    raft_io_tick_cb tick;
    uint64_t tick_us; /* period; 0: not started */
    uint64_t next_tick_us;
    bool dirty;
    bool released;
    bool paused;
};

struct sim_raft {
    uint64_t seed;
    uint64_t now_us;
    uint64_t sequence;
    bool running;
    uint32_t cures_off;
    struct member members[SIM_REPLICAS_MAX];
};

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t random_next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ULL;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static uint64_t random_below(uint64_t *state, uint64_t limit)
{
    return limit == 0 ? 0 : random_next(state) % limit;
}

static struct sim_host *host_of(struct raft_io *io)
{
    return (struct sim_host *)(void *)io;
}

/* When an operation that takes that long will be done. One write is under way at a time, and the
 * appends that gather meanwhile are written together, as raft_uv does. */
static uint64_t schedule(struct sim_host *h, bool append, uint64_t takes)
{
    uint64_t now_us = h->world->now_us;
    if (append && h->ends_in_append && h->begins_us > now_us) {
        return h->busy_until_us;
    }
    h->begins_us = h->busy_until_us > now_us ? h->busy_until_us : now_us;
    h->busy_until_us = h->begins_us + takes;
    h->ends_in_append = append;
    return h->busy_until_us;
}

static struct op *op_new(struct sim_host *h, enum op_kind kind, bool in_order, uint64_t cost)
{
    const struct sim_disk_speed *speed = &h->member->speed;
    uint64_t takes = speed->min_us + random_below(&h->random, speed->max_us - speed->min_us + 1);
    takes *= cost;
    struct op *op = mem_must(mem_zalloc(1, sizeof *op));
    op->kind = kind;
    op->in_order = in_order;
    op->due_us = in_order ? schedule(h, kind == OP_APPEND, takes) : h->world->now_us + takes;
    op->sequence = h->world->sequence++;
    if (h->last == NULL) {
        h->first = op;
    } else {
        h->last->next = op;
    }
    h->last = op;
    return op;
}

static void op_free(struct op *op)
{
    for (size_t i = 0; i < op->count; i++) {
        mem_free(op->entries[i].data);
    }
    mem_free(op->entries);
    sim_snapshot_close(&op->snapshot);
    mem_free(op);
}

static void op_unlink(struct sim_host *h, struct op *op)
{
    struct op **at = &h->first;
    struct op *before = NULL;
    while (*at != op) {
        before = *at;
        at = &(*at)->next;
    }
    *at = op->next;
    if (h->last == op) {
        h->last = before;
    }
}

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)address;
    CHECK(id == host_of(io)->member->id);
    return 0;
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                   struct raft_snapshot **snapshot, raft_index *start_index,
                   struct raft_entry *entries[], size_t *n_entries)
{
    struct sim_disk *d = &host_of(io)->member->disk;
    sim_disk_recover(d);
    *term = d->term;
    *voted_for = d->vote;
    *snapshot = sim_snapshot_load(&d->snapshot);
    *start_index = d->first;
    *entries = sim_disk_load_entries(d);
    *n_entries = d->count;
    return 0;
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct sim_host *h = host_of(io);
    (void)recv;
    h->tick = tick;
    h->tick_us = (uint64_t)msecs * 1000;
    h->next_tick_us = h->world->now_us + h->tick_us;
    return 0;
}

static int io_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
    struct sim_disk *d = &host_of(io)->member->disk;
    struct raft_buffer encoded;
    if (d->term != 0) {
        return RAFT_CANTBOOTSTRAP;
    }
    CHECK(raft_configuration_encode(conf, &encoded) == 0);
    d->term = 1;
    sim_disk_append(d, 1, RAFT_CHANGE, encoded.base, encoded.len);
    raft_free(encoded.base);
    return 0;
}

static int io_recover(struct raft_io *io, const struct raft_configuration *conf)
{
    (void)io;
    (void)conf;
    return RAFT_INVALID;
}

/* Whether the next write fails although the disk as a whole works. */
static bool write_fails(struct sim_host *h)
{
    struct member *m = h->member;
    return m->errors_ppm > 0 && random_below(&h->random, 1000000) < m->errors_ppm;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    struct member *m = host_of(io)->member;
    if (m->fails || write_fails(host_of(io))) {
        return RAFT_IOERR;
    }
    m->disk.term = term;
    m->disk.vote = 0;
    return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    struct member *m = host_of(io)->member;
    if (m->fails || write_fails(host_of(io))) {
        return RAFT_IOERR;
    }
    m->disk.vote = id;
    return 0;
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct op *op = op_new(host_of(io), OP_APPEND, true, 1);
    op->req.append = req;
    op->cb.append = cb;
    op->entries = mem_must(mem_zalloc(n, sizeof *op->entries));
    op->count = n;
    for (unsigned i = 0; i < n; i++) {
        void *data = mem_must(mem_dup(entries[i].buf.base, entries[i].buf.len));
        op->entries[i] =
            (struct sim_entry){entries[i].term, entries[i].type, entries[i].buf.len, data};
    }
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    op_new(host_of(io), OP_TRUNCATE, true, 1)->index = index;
    return 0;
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct op *op = op_new(host_of(io), OP_PUT, trailing == 0, SNAPSHOT_COST);
    op->req.put = req;
    op->cb.put = cb;
    op->trailing = trailing;
    op->snapshot = sim_snapshot_of(snapshot);
    return 0;
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb)
{
    struct op *op = op_new(host_of(io), OP_GET, false, SNAPSHOT_COST);
    op->req.get = req;
    op->cb.get = cb;
    return 0;
}

static int io_async_work(struct raft_io *io, struct raft_io_async_work *req,
                         raft_io_async_work_cb cb)
{
    struct op *op = op_new(host_of(io), OP_WORK, false, SNAPSHOT_COST);
    op->req.work = req;
    op->cb.work = cb;
    return 0;
}

static raft_time io_time(struct raft_io *io)
{
    return host_of(io)->world->now_us / 1000;
}

static int io_random(struct raft_io *io, int min, int max)
{
    return max <= min
               ? min
               : min + (int)random_below(&host_of(io)->random, (uint64_t)((int64_t)max - min));
}

/* The operation's effect on the disk; of an append, only the first `entries`. */
static void op_write(struct member *m, struct op *op, size_t entries)
{
    if (m->fails || op->doomed) {
        return;
    }
    if (op->kind == OP_APPEND) {
        for (size_t i = 0; i < entries; i++) {
            const struct sim_entry *e = &op->entries[i];
            sim_disk_append(&m->disk, e->term, e->type, e->data, e->size);
        }
    } else if (op->kind == OP_TRUNCATE) {
        sim_disk_truncate(&m->disk, op->index);
    } else if (op->kind == OP_PUT) {
        sim_disk_snapshot(&m->disk, &op->snapshot, op->trailing);
    }
}

/* Tells libraft, and frees the operation. */
static void op_answer(struct member *m, struct op *op, int status)
{
    switch (op->kind) {
    case OP_APPEND:
        op->cb.append(op->req.append, status);
        break;
    case OP_TRUNCATE:
        break;
    case OP_PUT:
        op->cb.put(op->req.put, status);
        break;
    case OP_GET: {
        struct raft_snapshot *s = status == 0 ? sim_snapshot_load(&m->disk.snapshot) : NULL;
        op->cb.get(op->req.get, s, s == NULL && status == 0 ? RAFT_NOTFOUND : status);
        break;
    }
    case OP_WORK:
        op->cb.work(op->req.work, status == 0 ? op->req.work->work(op->req.work) : status);
        break;
    }
    op_free(op);
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct sim_host *h = host_of(io);
    outbox_cancel(h->base.outbox);
    h->tick_us = 0;
    while (h->first != NULL) {
        struct op *op = h->first;
        op_unlink(h, op);
        op_write(h->member, op, op->count);
        op_answer(h->member, op, op->kind == OP_GET || op->kind == OP_WORK ? RAFT_CANCELED : 0);
    }
    cb(io);
}

static void host_wake(struct replica_host *base)
{
    ((struct sim_host *)base)->dirty = true;
}

static void mark_disk(struct sim_host *h)
{
    uint64_t mark = replica_mark(h->base.replica);
    h->member->mark = mark > h->member->mark ? mark : h->member->mark;
}

static void host_release(struct replica_host *base)
{
    ((struct sim_host *)base)->released = true;
}

static void host_free(struct sim_host *h)
{
    CHECK(h->first == NULL);
    h->member->host = NULL;
    mem_free(h);
}

static void host_abandon(struct replica_host *base)
{
    host_free((struct sim_host *)base);
}

static void host_let_go(struct sim_host *h)
{
    struct replica *r = h->base.replica;
    host_free(h);
    replica_released(r);
}

static struct sim_host *host_new(struct sim_raft *w, struct member *m)
{
    struct sim_host *h = mem_must(mem_zalloc(1, sizeof *h));
    h->world = w;
    h->member = m;
    m->host = h;
    m->starts++;
    h->random = w->seed ^ (m->id << 32) ^ (m->starts << 48);
    (void)random_next(&h->random);
    h->base.mark = m->mark;
    h->base.cures_off = w->cures_off;
    h->base.wake = host_wake;
    h->base.release = host_release;
    h->base.abandon = host_abandon;
    h->base.io = (struct raft_io){
        .version = 2,
        .impl = h,
        .init = io_init,
        .close = io_close,
        .load = io_load,
        .start = io_start,
        .bootstrap = io_bootstrap,
        .recover = io_recover,
        .set_term = io_set_term,
        .set_vote = io_set_vote,
        .send = replica_host_send,
        .append = io_append,
        .truncate = io_truncate,
        .snapshot_put = io_snapshot_put,
        .snapshot_get = io_snapshot_get,
        .time = io_time,
        .random = io_random,
        .async_work = io_async_work,
    };
    return h;
}

struct sim_raft *sim_raft_new(uint64_t seed)
{
    struct sim_raft *w = mem_must(mem_zalloc(1, sizeof *w));
    w->seed = seed;
    w->now_us = START_US;
    return w;
}

static struct member *member_find(const struct sim_raft *w, uint64_t id)
{
    for (size_t i = 0; i < SIM_REPLICAS_MAX; i++) {
        if (w->members[i].id == id) {
            return (struct member *)&w->members[i];
        }
    }
    return NULL;
}

/* The member with that id, made on first mention. */
static struct member *member_get(struct sim_raft *w, uint64_t id)
{
    CHECK(id != 0);
    struct member *m = member_find(w, id);
    if (m == NULL) {
        m = member_find(w, 0);
        CHECK(m != NULL); /* SIM_REPLICAS_MAX */
        m->id = id;
        m->speed = (struct sim_disk_speed){200, 2000};
        sim_disk_init(&m->disk);
    }
    return m;
}

void sim_raft_free(struct sim_raft *w)
{
    for (size_t i = 0; i < SIM_REPLICAS_MAX; i++) {
        struct member *m = &w->members[i];
        if (m->id != 0) {
            sim_raft_crash(w, m->id);
            sim_disk_close(&m->disk);
        }
    }
    mem_free(w);
}

uint64_t sim_raft_now_us(const struct sim_raft *w)
{
    return w->now_us;
}

/* The next operation of a host to be done; NULL: none. */
static struct op *next_op(const struct sim_host *h)
{
    struct op *next = NULL;
    for (struct op *op = h->first; op != NULL; op = op->next) {
        if (next == NULL || op->due_us < next->due_us ||
            (op->due_us == next->due_us && op->sequence < next->sequence)) {
            next = op;
        }
    }
    return next;
}

static uint64_t host_next_us(const struct sim_host *h)
{
    if (h->paused) {
        return NEVER;
    }
    uint64_t next = h->tick_us == 0 ? NEVER : h->next_tick_us;
    const struct op *op = next_op(h);
    return op != NULL && op->due_us < next ? op->due_us : next;
}

uint64_t sim_raft_next_us(const struct sim_raft *w)
{
    uint64_t next = NEVER;
    for (size_t i = 0; i < SIM_REPLICAS_MAX; i++) {
        const struct sim_host *h = w->members[i].host;
        if (h == NULL) {
            continue;
        }
        if (h->dirty || h->released) {
            return w->now_us;
        }
        uint64_t at = host_next_us(h);
        next = at < next ? at : next;
    }
    return next;
}

/* Loop turns until nobody has anything left to do at this moment. */
static void settle(struct sim_raft *w)
{
    bool again = true;
    for (int round = 0; again; round++) {
        CHECK(round < SETTLE_ROUNDS_MAX);
        again = false;
        for (size_t i = 0; i < SIM_REPLICAS_MAX; i++) {
            struct sim_host *h = w->members[i].host;
            if (h == NULL) {
                continue;
            }
            if (h->dirty && !h->released) {
                h->dirty = false;
                h->dirty = replica_turn(h->base.replica) || h->dirty;
            }
            if (h->released) {
                host_let_go(h);
            } else if (h->dirty) {
                again = true;
            }
        }
    }
}

/* What becomes of an operation that is due: a status of libraft's. A write that fails may have got
 * to the disk in part. */
static int op_do(struct sim_host *h, struct op *op)
{
    struct member *m = h->member;
    bool write = op->kind == OP_APPEND || op->kind == OP_PUT;
    if ((m->fails && op->kind != OP_WORK) || op->doomed) {
        return RAFT_IOERR;
    }
    if (write && (m->full || write_fails(h))) {
        if (op->kind == OP_APPEND) {
            op_write(m, op, (size_t)random_below(&h->random, (uint64_t)op->count + 1));
        }
        for (struct op *behind = h->first; behind != NULL; behind = behind->next) {
            behind->doomed = behind->in_order;
        }
        return m->full ? RAFT_NOSPACE : RAFT_IOERR;
    }
    op_write(m, op, op->count);
    return 0;
}

/* Does the one thing of this host that is due next. */
static void host_step(struct sim_host *h)
{
    struct op *op = next_op(h);
    h->dirty = true;
    if (op != NULL && (h->tick_us == 0 || op->due_us <= h->next_tick_us)) {
        op_unlink(h, op);
        op_answer(h->member, op, op_do(h, op));
        return;
    }
    h->next_tick_us += h->tick_us;
    h->tick(&h->base.io);
}

void sim_raft_advance(struct sim_raft *w, uint64_t to_us)
{
    CHECK(!w->running);
    CHECK(to_us >= w->now_us);
    w->running = true;
    settle(w);
    for (;;) {
        struct sim_host *next = NULL;
        uint64_t at_us = NEVER;
        for (size_t i = 0; i < SIM_REPLICAS_MAX; i++) {
            struct sim_host *h = w->members[i].host;
            uint64_t at = h == NULL ? NEVER : host_next_us(h);
            if (at < at_us) {
                at_us = at;
                next = h;
            }
        }
        if (next == NULL || at_us > to_us) {
            break;
        }
        CHECK(at_us >= w->now_us);
        w->now_us = at_us;
        host_step(next);
        settle(w);
    }
    w->now_us = to_us;
    w->running = false;
}

struct status sim_raft_bootstrap(struct sim_raft *w, const struct replica_config *config,
                                 const struct replica_member *members, size_t count,
                                 struct errmsg *msg)
{
    TRY(replica_config_check(config, msg));
    struct member *m = member_get(w, config->id);
    struct raft_configuration conf;
    TRY(replica_configuration(members, count, &conf, msg));
    struct sim_host *h = host_new(w, m);
    int rv = io_bootstrap(&h->base.io, &conf);
    host_free(h);
    raft_configuration_close(&conf);
    return rv == 0 ? status_ok()
                   : status_fail(msg, STATUS_EXISTS, "member %llu has state already",
                                 (unsigned long long)m->id);
}

struct status replica_open_sim(struct replica **out, struct sim_raft *w,
                               const struct replica_config *config,
                               const struct replica_events *events, struct errmsg *msg)
{
    TRY(replica_config_check(config, msg));
    struct member *m = member_get(w, config->id);
    if (m->host != NULL) {
        return status_fail(msg, STATUS_EXISTS, "member %llu is running already",
                           (unsigned long long)m->id);
    }
    struct sim_host *h = host_new(w, m);
    return replica_create(out, &h->base, config, events, msg);
}

/* A prefix of the queue gets to the disk, the last append of it perhaps in part; what is out of
 * order does or does not. */
static void crash_writes(struct sim_host *h)
{
    uint64_t queued = 0;
    for (struct op *op = h->first; op != NULL; op = op->next) {
        queued += op->in_order ? 1 : 0;
    }
    uint64_t whole = random_below(&h->random, queued + 1);
    for (struct op *op = h->first; op != NULL; op = op->next) {
        if (!op->in_order) {
            if (random_below(&h->random, 2) == 0) {
                op_write(h->member, op, 0);
            }
            continue;
        }
        if (whole == 0) {
            size_t part = op->kind == OP_APPEND
                              ? (size_t)random_below(&h->random, (uint64_t)op->count + 1)
                              : 0;
            if (op->kind == OP_APPEND) {
                op_write(h->member, op, part);
            }
            break;
        }
        whole--;
        op_write(h->member, op, op->count);
    }
}

void sim_raft_crash(struct sim_raft *w, uint64_t id)
{
    struct member *m = member_find(w, id);
    if (m == NULL || m->host == NULL) {
        return;
    }
    struct sim_host *h = m->host;
    if (!h->released) {
        mark_disk(h);
        crash_writes(h);
        bool fails = m->fails;
        m->fails = true; /* nothing more gets there while libraft is taken down */
        replica_abandon(h->base.replica);
        m->fails = fails;
    }
    CHECK(h->released);
    host_let_go(h);
}

void sim_raft_wipe(struct sim_raft *w, uint64_t id)
{
    struct member *m = member_get(w, id);
    CHECK(m->host == NULL);
    sim_disk_close(&m->disk);
    m->mark = 0;
}

uint64_t sim_raft_rot(struct sim_raft *w, uint64_t id, uint64_t entries)
{
    struct member *m = member_get(w, id);
    CHECK(m->host == NULL);
    uint64_t last = sim_disk_last_index(&m->disk);
    uint64_t behind = last > m->mark ? last - m->mark : 0;
    uint64_t lost = entries + behind < m->disk.count ? entries + behind : m->disk.count;
    uint64_t kept = m->disk.count - lost;
    if (m->disk.snapshot.index >= m->mark || m->disk.first + kept > m->mark) {
        return 0; /* nobody could tell */
    }
    sim_disk_truncate(&m->disk, m->disk.first + kept);
    return lost;
}

void sim_raft_cures_off(struct sim_raft *w, uint32_t cures)
{
    w->cures_off = cures;
}

void sim_raft_disk_errors(struct sim_raft *w, uint64_t id, uint32_t per_million)
{
    member_get(w, id)->errors_ppm = per_million;
}

void sim_raft_disk_full(struct sim_raft *w, uint64_t id, bool full)
{
    member_get(w, id)->full = full;
}

void sim_raft_pause(struct sim_raft *w, uint64_t id, bool paused)
{
    struct member *m = member_find(w, id);
    if (m == NULL || m->host == NULL || m->host->paused == paused) {
        return;
    }
    struct sim_host *h = m->host;
    h->paused = paused;
    h->next_tick_us = h->next_tick_us > w->now_us ? h->next_tick_us : w->now_us;
    for (struct op *op = h->first; op != NULL && !paused; op = op->next) {
        op->due_us = op->due_us > w->now_us ? op->due_us : w->now_us;
    }
}

void sim_raft_disk_fail(struct sim_raft *w, uint64_t id, bool fails)
{
    member_get(w, id)->fails = fails;
}

void sim_raft_disk_speed(struct sim_raft *w, uint64_t id, struct sim_disk_speed speed)
{
    CHECK(speed.min_us > 0);
    CHECK(speed.min_us <= speed.max_us);
    member_get(w, id)->speed = speed;
}

uint64_t sim_raft_disk_last_index(const struct sim_raft *w, uint64_t id)
{
    const struct member *m = member_find(w, id);
    return m == NULL || id == 0 ? 0 : sim_disk_last_index(&m->disk);
}

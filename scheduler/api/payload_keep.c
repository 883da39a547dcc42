/* What is kept: payloads that the state names.
 *
 * A payload lives from its put to the moment when nothing names it:
 *
 *     put (pledged) -> named by an applied command -> dropped -> doomed -> deleted, key first
 *        | never named: an orphan, doomed by a comparison once it is old
 *        named, and not put here -> looked for -> missing -> fetched
 *
 * A doomed payload is deleted when it is not pledged, was not named again meanwhile, and when all
 * that the log of the start holds has been applied: during a replay, "not named" means nothing.
 * Every comparison lists what the state names and what the store holds, and looks at the difference
 * off the loop; what a command names meanwhile is taken out of its findings. */
#include "scheduler/api/payloads_internal.h"

#include "common/log.h"
#include "scheduler/api/digests.h"

#include <string.h>
#include <time.h>

enum {
    PLEDGE_MS = 180 * 1000,    /* longer than any job and its commit */
    ORPHAN_SETTLE_FACTOR = 12, /* orphans wait so many times settle_ms */
    DELETES_MAX = 512,         /* a round of maintenance */
    LOOKS_MAX = 512,           /* likewise */
    MISSING_RETRY_MS = 10 * 1000,
    SYNC_RETRY_MS = 5 * 1000,
};

struct payload_pledge {
    struct digest digest;
    uint32_t count; /* puts whose commands were not seen yet */
    bool stored;
    uint64_t expires_us;
    UT_hash_handle hh;
};

struct payload_doomed {
    struct payloads *p;
    struct digest digest;
    uint64_t due_us;
    bool orphan;
    bool deleting;
    struct payload_op op;
    UT_hash_handle hh;
};

struct payload_missing {
    struct payloads *p;
    struct digest digest;
    uint64_t due_us;
    bool confirmed; /* it is certainly not here */
    bool looking;   /* op is with the io */
    bool gone;      /* only op keeps it */
    struct payload_op op;
    UT_hash_handle hh;
};

/* ---- Pledges ---- */

static struct payload_pledge *pledge_find(const struct payloads *p, const struct digest *digest)
{
    struct payload_pledge *g;
    HASH_FIND(hh, p->pledges, digest, sizeof *digest, g);
    return g;
}

static void pledge_free(struct payloads *p, struct payload_pledge *g)
{
    HASH_DEL(p->pledges, g);
    mem_free(g);
}

void keep_pledge(struct payloads *p, const struct digest *digest)
{
    struct payload_pledge *g = pledge_find(p, digest);
    if (g == NULL) {
        g = mem_must(mem_zalloc(1, sizeof *g));
        g->digest = *digest;
        HASH_ADD(hh, p->pledges, digest, sizeof g->digest, g);
    }
    g->count++;
    g->expires_us = payloads_after(p, PLEDGE_MS);
}

void keep_stored(struct payloads *p, const struct digest *digest)
{
    struct payload_pledge *g = pledge_find(p, digest);
    if (g != NULL) {
        g->stored = true;
    }
}

static void pledges_expire(struct payloads *p, uint64_t now_us)
{
    struct payload_pledge *g, *next;
    HASH_ITER(hh, p->pledges, g, next) {
        if (now_us >= g->expires_us) {
            pledge_free(p, g);
        }
    }
}

/* ---- Missing ---- */

static struct payload_missing *missing_find(const struct payloads *p, const struct digest *digest)
{
    struct payload_missing *x;
    HASH_FIND(hh, p->missing, digest, sizeof *digest, x);
    return x;
}

static void missing_free(struct payloads *p, struct payload_missing *x)
{
    if (!x->gone) {
        x->gone = true;
        p->missing_count -= x->confirmed;
        HASH_DEL(p->missing, x);
    }
    if (!x->looking) {
        mem_free(x);
    }
}

static void missing_confirm(struct payloads *p, struct payload_missing *x, uint64_t due_us)
{
    p->missing_count += !x->confirmed;
    x->confirmed = true;
    x->due_us = due_us;
}

static struct payload_missing *missing_put(struct payloads *p, const struct digest *digest,
                                           uint64_t due_us)
{
    struct payload_missing *x = missing_find(p, digest);
    if (x == NULL) {
        x = mem_must(mem_zalloc(1, sizeof *x));
        x->p = p;
        x->digest = *digest;
        x->due_us = due_us;
        HASH_ADD(hh, p->missing, digest, sizeof x->digest, x);
    }
    return x;
}

void keep_lacking(struct payloads *p, const struct digest *digest)
{
    uint64_t now_us = p->env.now_us(p->env.data);
    missing_confirm(p, missing_put(p, digest, now_us), now_us);
}

/* Asks others for what is missing: as much as may be asked for at once. */
static void missing_ask(struct payloads *p, uint64_t now_us)
{
    struct payload_missing *x, *next;
    HASH_ITER(hh, p->missing, x, next) {
        if (x->looking || !x->confirmed || now_us < x->due_us) {
            continue;
        }
        if (!fetch_start(p, &x->digest, true)) {
            return;
        }
        x->due_us = now_us + (uint64_t)MISSING_RETRY_MS * 1000;
    }
}

void keep_fetched(struct payloads *p, const struct digest *digest, bool found)
{
    struct payload_missing *x = missing_find(p, digest);
    if (x != NULL && found) {
        missing_free(p, x);
        missing_ask(p, p->env.now_us(p->env.data));
    } else if (x != NULL) {
        missing_confirm(p, x, payloads_after(p, MISSING_RETRY_MS));
    }
}

static void on_looked(struct payload_op *op)
{
    struct payload_missing *x = op->owner;
    struct payloads *p = x->p;
    x->looking = false;
    if (x->gone || p->closing || status_is_ok(op->status)) {
        missing_free(p, x);
        return;
    }
    missing_confirm(p, x, p->env.now_us(p->env.data));
}

/* Looks for what was named. */
static void missing_look(struct payloads *p, uint64_t now_us)
{
    size_t left = LOOKS_MAX;
    struct payload_missing *x, *next;
    HASH_ITER(hh, p->missing, x, next) {
        if (left == 0) {
            return;
        }
        if (x->looking || x->confirmed || now_us < x->due_us) {
            continue;
        }
        left--;
        x->looking = true;
        x->op = (struct payload_op){
            .kind = PAYLOAD_OP_HAS, .digest = x->digest, .done = on_looked, .owner = x};
        payload_io_do(p->io, &x->op);
    }
}

/* ---- Doomed ---- */

static struct payload_doomed *doomed_find(const struct payloads *p, const struct digest *digest)
{
    struct payload_doomed *d;
    HASH_FIND(hh, p->doomed, digest, sizeof *digest, d);
    return d;
}

static void doomed_free(struct payloads *p, struct payload_doomed *d)
{
    HASH_DEL(p->doomed, d);
    mem_free(d);
}

static void doom(struct payloads *p, const struct digest *digest, bool orphan)
{
    struct payload_doomed *d = doomed_find(p, digest);
    if (d != NULL) {
        return;
    }
    d = mem_must(mem_zalloc(1, sizeof *d));
    d->p = p;
    d->digest = *digest;
    d->orphan = orphan;
    d->due_us = payloads_after(p, p->config.drop_ms);
    HASH_ADD(hh, p->doomed, digest, sizeof d->digest, d);
}

static void on_deleted(struct payload_op *op)
{
    struct payload_doomed *d = op->owner;
    struct payloads *p = d->p;
    if (!p->closing && !status_is_ok(op->status)) {
        LOG_ERROR("a payload cannot be deleted", LOG_STR("why", op->message.text));
    }
    p->stats.deleted += status_is_ok(op->status);
    p->sync_due = true;
    doomed_free(p, d);
}

static void on_synced(struct payload_op *op)
{
    struct payloads *p = op->owner;
    p->syncing = false;
    if (!p->closing && !status_is_ok(op->status)) {
        LOG_ERROR("deletions of payloads cannot be synced", LOG_STR("why", op->message.text));
        p->sync_due = true;
        p->sync_us = payloads_after(p, SYNC_RETRY_MS);
    }
    mem_free(op);
}

static void sync_step(struct payloads *p, uint64_t now_us)
{
    const struct digest none = {{0}};
    struct payload_op *op = p->syncing || !p->sync_due || now_us < p->sync_us
                                ? NULL
                                : payload_op_new(PAYLOAD_OP_SYNC, &none, NULL, on_synced, p);
    if (op != NULL) {
        p->syncing = true;
        p->sync_due = false;
        payload_io_do(p->io, op);
    }
}

static void doomed_step(struct payloads *p, uint64_t now_us)
{
    uint64_t settled_us = now_us - p->unsettled_us,
             settle_us = (uint64_t)p->config.settle_ms * 1000;
    size_t left = DELETES_MAX;
    struct payload_doomed *d, *next;
    HASH_ITER(hh, p->doomed, d, next) {
        if (left == 0 || settled_us < settle_us) {
            return;
        }
        if (d->deleting || now_us < d->due_us || pledge_find(p, &d->digest) != NULL ||
            (d->orphan && settled_us < settle_us * ORPHAN_SETTLE_FACTOR)) {
            continue;
        }
        left--;
        d->deleting = true;
        d->op = (struct payload_op){
            .kind = PAYLOAD_OP_DELETE, .digest = d->digest, .done = on_deleted, .owner = d};
        payload_io_do(p->io, &d->op);
    }
}

/* ---- Comparing state and store ---- */

/* What a command named or dropped while a comparison was under way. */
struct changed {
    struct digest digest;
    UT_hash_handle hh;
};

struct payload_reconcile {
    struct payloads *p;
    struct payload_op op;
    struct digests named, orphans, missing; /* named: sorted on the thread */
    bool *found;                            /* of named */
    int64_t old_s;                          /* put before this Unix time: old */
    struct changed *changed;
    bool cancelled; /* the state was replaced meanwhile */
    struct status status;
    struct errmsg message;
};

static void reconcile_free(struct payload_reconcile *r)
{
    struct changed *c, *next;
    HASH_ITER(hh, r->changed, c, next) {
        HASH_DEL(r->changed, c);
        mem_free(c);
    }
    digests_close(&r->named);
    digests_close(&r->orphans);
    digests_close(&r->missing);
    mem_free(r->found);
    mem_free(r);
}

static void reconcile_changed(struct payloads *p, const struct digest *digest)
{
    struct changed *c = NULL;
    if (p->reconcile == NULL) {
        return;
    }
    HASH_FIND(hh, p->reconcile->changed, digest, sizeof *digest, c);
    if (c == NULL) {
        c = mem_must(mem_zalloc(1, sizeof *c));
        c->digest = *digest;
        HASH_ADD(hh, p->reconcile->changed, digest, sizeof c->digest, c);
    }
}

static bool look_at(void *data, const struct digest *digest, uint64_t bytes, int64_t written_s)
{
    struct payload_reconcile *r = data;
    (void)bytes;
    const struct digest *named = digests_find(&r->named, digest);
    if (named != NULL) {
        r->found[named - r->named.items] = true;
    } else if (written_s < r->old_s && !status_is_ok(digests_add(&r->orphans, digest))) {
        r->status = status_fail(&r->message, STATUS_NOMEM, "out of memory");
        return false;
    }
    return true;
}

/* On a thread. */
static void reconcile_work(void *owner)
{
    struct payload_reconcile *r = owner;
    digests_sort(&r->named);
    r->found = mem_zalloc(r->named.count, sizeof *r->found);
    if (r->found == NULL) {
        r->status = status_fail(&r->message, STATUS_NOMEM, "out of memory");
        return;
    }
    struct status status = payload_store_each(r->p->store, look_at, r, &r->message);
    r->status = status_is_ok(r->status) ? status : r->status;
    for (size_t i = 0; i < r->named.count && status_is_ok(r->status); i++) {
        if (!r->found[i] && !status_is_ok(digests_add(&r->missing, &r->named.items[i]))) {
            r->status = status_fail(&r->message, STATUS_NOMEM, "out of memory");
        }
    }
}

static bool was_changed(const struct payload_reconcile *r, const struct digest *digest)
{
    struct changed *c;
    HASH_FIND(hh, r->changed, digest, sizeof *digest, c);
    return c != NULL;
}

static void reconcile_take(struct payloads *p, const struct payload_reconcile *r)
{
    uint64_t now_us = p->env.now_us(p->env.data);
    size_t orphans = 0, missing = 0;
    for (size_t i = 0; i < r->orphans.count; i++) {
        if (!was_changed(r, &r->orphans.items[i])) {
            doom(p, &r->orphans.items[i], true);
            orphans++;
        }
    }
    for (size_t i = 0; i < r->missing.count; i++) {
        if (!was_changed(r, &r->missing.items[i])) {
            struct payload_missing *x = missing_put(p, &r->missing.items[i], now_us);
            if (!x->confirmed && !x->looking) {
                missing_confirm(p, x, now_us);
            }
            missing++;
        }
    }
    if (orphans > 0 || missing > 0) {
        LOG_INFO("payloads compared with the state", LOG_UINT("named", r->named.count),
                 LOG_UINT("missing", missing), LOG_UINT("orphans", orphans));
    }
}

static void on_reconciled(struct payload_op *op)
{
    struct payload_reconcile *r = op->owner;
    struct payloads *p = r->p;
    p->reconcile = NULL;
    if (status_is_ok(op->status) && !p->closing) {
        p->reconciled_us = p->env.now_us(p->env.data);
        if (r->cancelled) {
            p->reconcile_due = true;
        } else if (status_is_ok(r->status)) {
            p->reconciled = true;
            reconcile_take(p, r);
        } else {
            LOG_ERROR("payloads cannot be compared with the state",
                      LOG_STR("why", r->message.text));
        }
    }
    reconcile_free(r);
}

static void add_named(void *arg, const struct digest *payload)
{
    struct payload_reconcile *r = arg;
    if (!status_is_ok(digests_add(&r->named, payload))) {
        r->cancelled = true;
    }
}

/* The named ones alone are collected on the loop. */
static void reconcile_step(struct payloads *p, uint64_t now_us, bool settled)
{
    bool due =
        p->reconcile_due || now_us - p->reconciled_us >= (uint64_t)p->config.reconcile_ms * 1000;
    if (!due || !settled || p->reconcile != NULL) {
        return;
    }
    p->reconcile_due = false;
    p->reconciled_us = now_us;
    struct payload_reconcile *r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        return;
    }
    r->p = p;
    r->status = status_ok();
    r->old_s = (int64_t)time(NULL) - (int64_t)(p->config.orphan_ms / 1000);
    p->env.each_named(p->env.data, add_named, r);
    r->op = (struct payload_op){
        .kind = PAYLOAD_OP_CALL, .call = reconcile_work, .done = on_reconciled, .owner = r};
    p->reconcile = r;
    payload_io_do(p->io, &r->op);
}

/* ---- Events ---- */

void payloads_named(struct payloads *p, const struct digest *payload)
{
    if (p->closing || digest_is_zero(payload)) {
        return;
    }
    reconcile_changed(p, payload);
    struct payload_doomed *d = doomed_find(p, payload);
    bool stored = false;
    if (d != NULL && !d->deleting) {
        doomed_free(p, d);
    }
    struct payload_pledge *g = pledge_find(p, payload);
    if (g != NULL) {
        stored = g->stored;
        if (--g->count == 0) {
            pledge_free(p, g);
        }
    }
    /* During the replay of a start every payload is named anew; the comparison after it looks. */
    if (!stored && p->reconciled) {
        (void)missing_put(p, payload, payloads_after(p, p->config.check_ms));
    }
}

void payloads_dropped(struct payloads *p, const struct digest *payload)
{
    if (p->closing) {
        return;
    }
    reconcile_changed(p, payload);
    cache_drop(p, payload);
    struct payload_missing *x = missing_find(p, payload);
    if (x != NULL) {
        missing_free(p, x);
    }
    doom(p, payload, false);
}

void payloads_restored(struct payloads *p)
{
    struct payload_doomed *d, *next_doomed;
    struct payload_missing *x, *next_missing;
    HASH_ITER(hh, p->doomed, d, next_doomed) {
        if (!d->deleting) {
            doomed_free(p, d);
        }
    }
    HASH_ITER(hh, p->missing, x, next_missing) {
        missing_free(p, x);
    }
    if (p->reconcile != NULL) {
        p->reconcile->cancelled = true;
    }
    p->reconcile_due = true;
    p->unsettled_us = p->env.now_us(p->env.data);
}

void keep_maintain(struct payloads *p)
{
    uint64_t now_us = p->env.now_us(p->env.data);
    if (now_us - p->maintained_us < (uint64_t)MAINTAIN_MS * 1000) {
        return;
    }
    p->maintained_us = now_us;
    bool settled = p->env.settled(p->env.data);
    if (!settled) {
        p->unsettled_us = now_us;
    }
    pledges_expire(p, now_us);
    reconcile_step(p, now_us, settled);
    missing_look(p, now_us);
    missing_ask(p, now_us);
    doomed_step(p, now_us);
    sync_step(p, now_us);
}

/* After the io: no operation holds anything. */
void keep_close(struct payloads *p)
{
    struct payload_pledge *g, *next_pledge;
    struct payload_doomed *d, *next_doomed;
    struct payload_missing *x, *next_missing;
    HASH_ITER(hh, p->pledges, g, next_pledge) {
        pledge_free(p, g);
    }
    HASH_ITER(hh, p->doomed, d, next_doomed) {
        doomed_free(p, d);
    }
    HASH_ITER(hh, p->missing, x, next_missing) {
        missing_free(p, x);
    }
    CHECK(p->reconcile == NULL);
}

/* Payloads from other schedulers: one after the other is asked, each for PAYLOAD_ASK_MS, until one
 * gives the bytes that have the digest.
 *
 *     asking -> checking -> (loads_have) storing -> gone
 *       ^          | other bytes
 *       +-- next --+
 *       |   | none is left, one was busy: after a pause all are asked again, for a while
 *       |   | none is left: loads_lack -> gone */
#include "scheduler/api/payloads_internal.h"

#include "common/log.h"

enum { BUSY_RETRY_MS = 100 };

struct payload_fetch {
    struct payloads *p;
    struct digest digest;
    bool missing;           /* nobody waits for it */
    uint64_t peer, request; /* who is asked; 0: nobody now */
    uint64_t deadline_us;
    bool busy;           /* one that was asked could not answer now */
    uint64_t give_up_us; /* on those that are busy */
    uint64_t tried[PAYLOADS_OTHERS_MAX];
    size_t tried_count;
    struct payload_op op;
    struct payload_blob *data;
    UT_hash_handle hh;
};

static void fetch_free(struct payload_fetch *f)
{
    struct payloads *p = f->p;
    HASH_DEL(p->fetches, f);
    p->fetches_missing -= f->missing;
    payload_blob_unref(f->data);
    mem_free(f);
}

static bool tried(const struct payload_fetch *f, uint64_t member)
{
    for (size_t i = 0; i < f->tried_count; i++) {
        if (f->tried[i] == member) {
            return true;
        }
    }
    return false;
}

static void fetch_next(struct payload_fetch *f)
{
    struct payloads *p = f->p;
    struct payloads_other others[PAYLOADS_OTHERS_MAX];
    size_t count = p->env.others(p->env.data, others);
    f->peer = 0;
    for (size_t i = 0; i < count && f->peer == 0 && f->tried_count < PAYLOADS_OTHERS_MAX; i++) {
        /* From another place each time, so that all of them bear the load. */
        const struct payloads_other *o = &others[(i + f->digest.v[0]) % count];
        if (o->peer == 0 || tried(f, o->member)) {
            continue;
        }
        f->tried[f->tried_count++] = o->member;
        f->peer = o->peer;
    }
    if (f->peer == 0 && f->busy && !f->missing && p->env.now_us(p->env.data) < f->give_up_us) {
        f->busy = false;
        f->tried_count = 0;
        f->deadline_us = payloads_after(p, BUSY_RETRY_MS);
        return;
    }
    if (f->peer == 0) {
        struct digest digest = f->digest;
        fetch_free(f);
        keep_fetched(p, &digest, false);
        loads_lack(p, &digest);
        return;
    }
    f->request = ++p->request_last;
    f->deadline_us = payloads_after(p, PAYLOAD_ASK_MS);
    const struct message ask = {
        .type = MESSAGE_PAYLOAD_GET, .request = f->request, .payload_get = {.digest = f->digest}};
    p->env.send(p->env.data, f->peer, &ask);
}

bool fetch_start(struct payloads *p, const struct digest *digest, bool missing)
{
    struct payload_fetch *f;
    HASH_FIND(hh, p->fetches, digest, sizeof *digest, f);
    if (f != NULL) {
        p->fetches_missing -= f->missing && !missing;
        f->missing = f->missing && missing;
        return f->data == NULL; /* Else it is in the cache, or will be in a moment. */
    }
    if (HASH_COUNT(p->fetches) >= PAYLOAD_FETCHES_MAX ||
        (missing && p->fetches_missing >= PAYLOAD_FETCHES_MISSING_MAX)) {
        return false;
    }
    f = mem_zalloc(1, sizeof *f);
    if (f == NULL) {
        return false;
    }
    f->p = p;
    f->digest = *digest;
    f->missing = missing;
    f->give_up_us = payloads_after(p, p->config.load_ms);
    HASH_ADD(hh, p->fetches, digest, sizeof f->digest, f);
    p->fetches_missing += missing;
    /* Whom it asks is decided by the next tick: callers are in the middle of their lists. */
    (void)uv_async_send(&p->kick);
    return true;
}

static void on_stored(struct payload_op *op)
{
    struct payload_fetch *f = op->owner;
    struct payloads *p = f->p;
    struct digest digest = f->digest;
    bool stored = status_is_ok(op->status), closing = p->closing;
    if (!stored && !closing) {
        LOG_WARN("a fetched payload cannot be stored", LOG_STR("why", op->message.text));
    }
    p->stats.fetched += stored;
    fetch_free(f);
    if (!closing) {
        keep_fetched(p, &digest, stored);
    }
}

static void on_checked(struct payload_op *op)
{
    struct payload_fetch *f = op->owner;
    struct payloads *p = f->p;
    if (p->closing) {
        fetch_free(f);
        return;
    }
    if (!status_is_ok(op->status) || digest_compare(&op->digest, &f->digest) != 0) {
        LOG_ERROR("another scheduler gave bytes that are not the payload");
        payload_blob_unref(f->data);
        f->data = NULL;
        fetch_next(f);
        return;
    }
    op->kind = PAYLOAD_OP_PUT;
    op->done = on_stored;
    payload_io_do(p->io, op);
    if (f->missing) {
        return; /* Nobody waits: the cache is for what is used. */
    }
    loads_have(p, &f->digest, f->data);
}

void fetch_data(struct payloads *p, uint64_t peer, const struct message *m)
{
    struct payload_fetch *f;
    HASH_FIND(hh, p->fetches, &m->payload_data.digest, sizeof m->payload_data.digest, f);
    if (f == NULL || f->peer != peer || f->request != m->request || f->data != NULL) {
        return; /* Too late, or never asked for. */
    }
    struct bytes data = m->payload_data.data;
    if (m->payload_data.code == STATUS_OK && data.size > 0 && data.size <= PAYLOAD_BYTES_MAX) {
        f->data = payload_blob_copy(data);
    }
    if (f->data == NULL) {
        f->busy = f->busy || m->payload_data.code == STATUS_UNAVAILABLE;
        fetch_next(f);
        return;
    }
    f->op = (struct payload_op){
        .kind = PAYLOAD_OP_HASH, .data = f->data, .done = on_checked, .owner = f};
    payload_io_do(p->io, &f->op);
}

void fetches_tick(struct payloads *p)
{
    uint64_t now_us = p->env.now_us(p->env.data);
    struct payload_fetch *f, *next;
    HASH_ITER(hh, p->fetches, f, next) {
        bool gone = f->peer != 0 && !p->env.peer_open(p->env.data, f->peer);
        if (f->data == NULL && (gone || now_us >= f->deadline_us)) {
            fetch_next(f);
        }
    }
}

/* After the io: no operation holds one. */
void fetches_close(struct payloads *p)
{
    struct payload_fetch *f, *next;
    HASH_ITER(hh, p->fetches, f, next) {
        fetch_free(f);
    }
}

/* The way out: messages of the core that name a payload, and the cache of payloads used lately.
 *
 *     queued -> reading -> sent            (the cache has it: sent at once)
 *        |         | not here, damaged
 *        |         +-> fetching -> sent
 *        |                | nobody has it
 *        +- time is over -+-> failed: RESULT for an INVOKE, code UNAVAILABLE in an OUTCOME
 *        +- canceled: RESULT for the INVOKE, which is never sent
 *
 * A payload is read when its receiver's queue has room, and sent when it still has. */
#include "scheduler/api/payloads_internal.h"

#include "common/log.h"
#include "proto/codec.h"

#include <stdio.h>
#include <string.h>

enum { FETCH_RETRY_MS = 100 };

enum load_state { LOAD_QUEUED, LOAD_READING, LOAD_FETCHING };

struct payload_load {
    uint64_t peer;
    enum message_type type;
    enum load_state state;
    struct buffer message; /* encoded, without the payload */
    struct digest digest;
    uint64_t bytes; /* as the message says */
    uint64_t deadline_us, retry_us;
    /* INVOKE. */
    struct id128 invocation, instance;
    uint32_t attempt;
    uint64_t term;
    struct payload_load *prev, *next;
    UT_hash_handle hh; /* by invocation; INVOKE only */
};

/* One payload on its way from the disk. */
struct payload_read {
    struct payloads *p;
    struct payload_op op;
    struct digest digest;
    UT_hash_handle hh;
};

/* An attempt whose end the core is told, as soon as it is not in the middle of something. */
struct payload_feed {
    uint64_t peer, term;
    struct id128 invocation, instance;
    uint32_t attempt;
    enum status_code code;
    const char *text; /* static */
    struct payload_feed *prev, *next;
};

struct payload_cached {
    struct digest digest;
    struct payload_blob *data;
    struct payload_cached *prev, *next;
    UT_hash_handle hh;
};

/* ---- Cache ---- */

static void cached_free(struct payloads *p, struct payload_cached *c)
{
    p->cache_bytes -= c->data->buffer.size;
    payload_blob_unref(c->data);
    HASH_DEL(p->cache, c);
    DL_DELETE(p->cache_lru, c);
    mem_free(c);
}

struct payload_blob *cache_find(struct payloads *p, const struct digest *digest)
{
    struct payload_cached *c;
    HASH_FIND(hh, p->cache, digest, sizeof *digest, c);
    if (c == NULL) {
        return NULL;
    }
    DL_DELETE(p->cache_lru, c);
    DL_APPEND(p->cache_lru, c);
    return c->data;
}

void cache_drop(struct payloads *p, const struct digest *digest)
{
    struct payload_cached *c;
    HASH_FIND(hh, p->cache, digest, sizeof *digest, c);
    if (c != NULL) {
        cached_free(p, c);
    }
}

void cache_put(struct payloads *p, const struct digest *digest, struct payload_blob *d)
{
    if (cache_find(p, digest) != NULL) {
        return;
    }
    struct payload_cached *c = mem_zalloc(1, sizeof *c);
    if (c == NULL) {
        return; /* It is read again. */
    }
    c->digest = *digest;
    c->data = payload_blob_ref(d);
    p->cache_bytes += d->buffer.size;
    HASH_ADD(hh, p->cache, digest, sizeof c->digest, c);
    DL_APPEND(p->cache_lru, c);
    while (p->cache_bytes > PAYLOAD_CACHE_BYTES_MAX) {
        cached_free(p, p->cache_lru);
    }
}

/* ---- Feeds ---- */

static void feed_add(struct payloads *p, const struct payload_load *l, enum status_code code,
                     const char *text)
{
    struct payload_feed *f = mem_zalloc(1, sizeof *f);
    if (f == NULL) {
        LOG_ERROR("out of memory; an attempt is left to its timeout");
        return;
    }
    *f = (struct payload_feed){.peer = l->peer,
                               .term = l->term,
                               .invocation = l->invocation,
                               .instance = l->instance,
                               .attempt = l->attempt,
                               .code = code,
                               .text = text};
    DL_APPEND(p->feeds, f);
    (void)uv_async_send(&p->kick);
}

/* Those that are there now: what the core does about them may add others. */
static void feeds_flush(struct payloads *p)
{
    struct payload_feed *feeds = p->feeds;
    p->feeds = NULL;
    while (feeds != NULL) {
        struct payload_feed *f = feeds;
        DL_DELETE(feeds, f);
        const struct message m = {.type = MESSAGE_RESULT,
                                  .result = {.invocation = f->invocation,
                                             .attempt = f->attempt,
                                             .instance = f->instance,
                                             .code = (uint32_t)f->code,
                                             .message = f->text,
                                             .attempt_term = f->term,
                                             .durable = true}};
        if (p->env.peer_open(p->env.data, f->peer)) {
            p->env.core(p->env.data, f->peer, &m);
        }
        mem_free(f);
    }
}

/* ---- Loads ---- */

static void load_free(struct payloads *p, struct payload_load *l)
{
    DL_DELETE(p->loads, l);
    if (l->type == MESSAGE_INVOKE) {
        HASH_DEL(p->loads_by_invocation, l);
    }
    p->loads_count--;
    buffer_close(&l->message);
    mem_free(l);
}

/* Sends the message, whole; without data: an outcome that says so. */
static void load_send(struct payloads *p, struct payload_load *l, const struct payload_blob *data)
{
    struct arena arena = {0};
    struct message m;
    struct errmsg msg = {.text = ""};
    struct status decoded =
        message_decode(bytes_of(l->message.data, l->message.size), &arena, &m, &msg);
    CHECK(decoded.code != STATUS_INVALID && decoded.code != STATUS_UNSUPPORTED);
    if (!status_is_ok(decoded)) {
        LOG_ERROR("out of memory; a message with a payload is lost");
    } else if (m.type == MESSAGE_INVOKE) {
        m.invoke.payload = payload_blob_bytes(data);
        m.invoke.payload_ref = (struct digest){{0}};
        p->env.send(p->env.data, l->peer, &m);
    } else if (data != NULL) {
        m.outcome.output = payload_blob_bytes(data);
        m.outcome.output_ref = (struct digest){{0}};
        p->env.send(p->env.data, l->peer, &m);
    } else {
        m.outcome.code = STATUS_UNAVAILABLE;
        m.outcome.message = "no scheduler that can be reached has the output; try again";
        m.outcome.output_ref = (struct digest){{0}};
        p->env.send(p->env.data, l->peer, &m);
    }
    arena_close(&arena);
}

static void load_fail(struct payloads *p, struct payload_load *l)
{
    p->stats.load_failures++;
    if (l->type == MESSAGE_INVOKE) {
        feed_add(p, l, STATUS_UNAVAILABLE, "no scheduler that can be reached has the input");
    } else {
        load_send(p, l, NULL);
    }
    load_free(p, l);
}

bool peer_room(const struct payloads *p, uint64_t peer, uint64_t bytes)
{
    uint64_t queued = p->env.peer_queued(p->env.data, peer);
    return queued == 0 || queued + bytes <= p->config.room_bytes;
}

/* True when it was sent. */
static bool load_try(struct payloads *p, struct payload_load *l, const struct payload_blob *data)
{
    if (!peer_room(p, l->peer, data->buffer.size)) {
        l->state = LOAD_QUEUED;
        return false;
    }
    load_send(p, l, data);
    load_free(p, l);
    return true;
}

void loads_have(struct payloads *p, const struct digest *digest, struct payload_blob *d)
{
    cache_put(p, digest, d);
    struct payload_load *l, *next;
    DL_FOREACH_SAFE(p->loads, l, next) {
        if (digest_compare(&l->digest, digest) == 0) {
            (void)load_try(p, l, d);
        }
    }
}

void loads_lack(struct payloads *p, const struct digest *digest)
{
    struct payload_load *l, *next;
    DL_FOREACH_SAFE(p->loads, l, next) {
        if (l->state == LOAD_FETCHING && digest_compare(&l->digest, digest) == 0) {
            load_fail(p, l);
        }
    }
}

/* Those that waited for the disk ask the others. */
static void loads_fetch(struct payloads *p, const struct digest *digest)
{
    bool asked = fetch_start(p, digest, false);
    uint64_t retry_us = payloads_after(p, FETCH_RETRY_MS);
    for (struct payload_load *l = p->loads; l != NULL; l = l->next) {
        if (l->state == LOAD_READING && digest_compare(&l->digest, digest) == 0) {
            l->state = asked ? LOAD_FETCHING : LOAD_QUEUED;
            l->retry_us = retry_us;
        }
    }
}

static void on_read(struct payload_op *op)
{
    struct payload_read *r = op->owner;
    struct payloads *p = r->p;
    HASH_DEL(p->reads, r);
    p->reads_count--;
    struct payload_blob *data = status_is_ok(op->status) ? op->data : NULL;
    if (p->closing) {
        payload_blob_unref(data);
        mem_free(r);
        return;
    }
    if (data != NULL) {
        loads_have(p, &r->digest, data);
        payload_blob_unref(data);
    } else {
        if (op->status.code == STATUS_NOT_FOUND || op->status.code == STATUS_CORRUPT) {
            keep_lacking(p, &r->digest);
        }
        LOG_WARN("a payload cannot be read and is asked of others",
                 LOG_STR("why", op->message.text));
        loads_fetch(p, &r->digest);
    }
    mem_free(r);
    loads_pump(p);
}

/* False: too many reads. */
static bool read_start(struct payloads *p, const struct digest *digest)
{
    struct payload_read *r;
    HASH_FIND(hh, p->reads, digest, sizeof *digest, r);
    if (r != NULL) {
        return true;
    }
    if (p->reads_count >= PAYLOAD_READS_MAX) {
        return false;
    }
    r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        return false;
    }
    *r = (struct payload_read){
        .p = p,
        .digest = *digest,
        .op = {.kind = PAYLOAD_OP_GET, .digest = *digest, .done = on_read, .owner = r}};
    HASH_ADD(hh, p->reads, digest, sizeof r->digest, r);
    p->reads_count++;
    payload_io_do(p->io, &r->op);
    return true;
}

static void load_step(struct payloads *p, struct payload_load *l, uint64_t now_us)
{
    if (!p->env.peer_open(p->env.data, l->peer)) {
        load_free(p, l); /* The core has heard of it. */
        return;
    }
    if (now_us >= l->deadline_us) {
        load_fail(p, l);
        return;
    }
    if (l->state != LOAD_QUEUED || now_us < l->retry_us || !peer_room(p, l->peer, l->bytes)) {
        return;
    }
    struct payload_blob *cached = cache_find(p, &l->digest);
    if (cached != NULL) {
        (void)load_try(p, l, cached);
    } else if (read_start(p, &l->digest)) {
        l->state = LOAD_READING;
    }
}

void loads_pump(struct payloads *p)
{
    feeds_flush(p);
    uint64_t now_us = p->env.now_us(p->env.data);
    struct payload_load *l, *next;
    DL_FOREACH_SAFE(p->loads, l, next) {
        load_step(p, l, now_us);
    }
}

/* ---- What the core sends ---- */

/* m is without its payload. */
static struct status load_new(struct payloads *p, uint64_t peer, const struct message *m,
                              const struct payload_load *like)
{
    struct payload_load *l = p->loads_count >= PAYLOAD_LOADS_MAX ? NULL : mem_alloc(sizeof *l);
    if (l == NULL) {
        return status_of(STATUS_LIMIT);
    }
    *l = *like;
    l->peer = peer;
    l->type = m->type;
    l->deadline_us = payloads_after(p, p->config.load_ms);
    if (!status_is_ok(message_encode(m, &l->message))) {
        buffer_close(&l->message);
        mem_free(l);
        return status_of(STATUS_NOMEM);
    }
    DL_APPEND(p->loads, l);
    p->loads_count++;
    if (l->type == MESSAGE_INVOKE) {
        HASH_ADD(hh, p->loads_by_invocation, invocation, sizeof l->invocation, l);
    }
    return status_ok();
}

static struct payload_load *load_find(const struct payloads *p, struct id128 invocation)
{
    struct payload_load *l;
    HASH_FIND(hh, p->loads_by_invocation, &invocation, sizeof invocation, l);
    return l;
}

static void invoke_take(struct payloads *p, uint64_t peer, const struct message *m)
{
    struct payload_load *older = load_find(p, m->invoke.invocation);
    if (older != NULL) {
        load_free(p, older); /* The core has given that attempt up. */
    }
    const struct payload_load like = {.digest = m->invoke.payload_ref,
                                      .bytes = m->invoke.payload_bytes,
                                      .invocation = m->invoke.invocation,
                                      .instance = m->invoke.instance,
                                      .attempt = m->invoke.attempt,
                                      .term = m->term,
                                      .peer = peer};
    if (!status_is_ok(load_new(p, peer, m, &like))) {
        p->stats.load_failures++;
        feed_add(p, &like, STATUS_UNAVAILABLE, "too many payloads are being read");
    }
}

static void outcome_take(struct payloads *p, uint64_t peer, const struct message *m)
{
    const struct payload_load like = {.digest = m->outcome.output_ref,
                                      .bytes = m->outcome.output_bytes};
    if (!status_is_ok(load_new(p, peer, m, &like))) {
        struct message busy = *m;
        busy.outcome.code = STATUS_LIMIT;
        busy.outcome.message = "too many outputs are being read; try again";
        busy.outcome.output_ref = (struct digest){{0}};
        p->stats.load_failures++;
        p->env.send(p->env.data, peer, &busy);
    }
}

/* The INVOKE it means has not been sent: it never is, and the core hears so. */
static bool cancel_take(struct payloads *p, uint64_t peer, const struct message *m)
{
    struct payload_load *l = load_find(p, m->cancel.invocation);
    if (l == NULL || l->peer != peer || l->attempt != m->cancel.attempt) {
        return false;
    }
    feed_add(p, l, STATUS_CANCELED, "canceled before it was sent");
    load_free(p, l);
    return true;
}

bool payloads_send(struct payloads *p, uint64_t peer, const struct message *m)
{
    if (m->type == MESSAGE_CANCEL) {
        return cancel_take(p, peer, m);
    }
    bool invoke = m->type == MESSAGE_INVOKE && !digest_is_zero(&m->invoke.payload_ref),
         outcome = m->type == MESSAGE_OUTCOME && !digest_is_zero(&m->outcome.output_ref);
    if (!invoke && !outcome) {
        return false;
    }
    if (p->closing) {
        return true;
    }
    if (invoke) {
        invoke_take(p, peer, m);
    } else {
        outcome_take(p, peer, m);
    }
    /* Not from here: a whole round of the list for each message would be too much. */
    (void)uv_async_send(&p->kick);
    return true;
}

void loads_close(struct payloads *p)
{
    while (p->loads != NULL) {
        load_free(p, p->loads);
    }
    while (p->feeds != NULL) {
        struct payload_feed *f = p->feeds;
        DL_DELETE(p->feeds, f);
        mem_free(f);
    }
    while (p->cache_lru != NULL) {
        cached_free(p, p->cache_lru);
    }
    CHECK(p->reads == NULL);
}

/* The way in: see payloads.h. A job is one payload of a SPAWN or RESULT:
 *
 *     hashing -> storing: here and at the others -> enough of them have it -> the core
 *        |           | store full, no majority in time, leadership lost, client gone
 *        +-----------+-> refused -> gone (once its operation has come back)
 */
#include "scheduler/api/payloads_internal.h"

#include "common/log.h"
#include "proto/codec.h"

#include <stdio.h>
#include <string.h>

enum { RETRY_REFUSED_MS = 500, POSTPONED_LOG_MS = 10 * 1000 };

enum copy_state { COPY_NONE, COPY_SENT, COPY_HELD, COPY_REFUSED };

/* What another scheduler has of a job. */
struct payload_copy {
    uint64_t member, peer; /* peer: the connection it was sent over */
    enum copy_state state;
    uint32_t code;     /* REFUSED: why */
    uint64_t retry_us; /* REFUSED: when it is asked again */
};

struct payload_job {
    struct payloads *p;
    uint64_t id, peer;
    enum message_type type;
    struct id128 invocation; /* of a RESULT */
    uint32_t attempt;
    uint64_t attempt_term;
    struct buffer message; /* encoded, without the payload */
    struct payload_blob *data;
    struct payload_op op;
    bool working; /* op is with the io */
    bool over;    /* only op keeps it */
    bool hashed;
    bool held; /* on disk here */
    uint64_t deadline_us;
    struct payload_copy copies[PAYLOADS_OTHERS_MAX];
    size_t copies_count;
    struct payload_job *prev, *next;
    UT_hash_handle hh;
};

/* Bytes that another scheduler put here. */
struct payload_remote {
    struct payloads *p;
    struct payload_op op;
    uint64_t peer, request;
};

struct payload_op *payload_op_new(enum payload_op_kind kind, const struct digest *digest,
                                  struct payload_blob *data, void (*done)(struct payload_op *op),
                                  void *owner)
{
    struct payload_op *op = mem_zalloc(1, sizeof *op);
    if (op != NULL) {
        op->kind = kind;
        op->digest = *digest;
        op->data = data;
        op->done = done;
        op->owner = owner;
    }
    return op;
}

/* ---- Answers ---- */

static void spawn_refuse(struct payloads *p, uint64_t peer, uint64_t request, enum status_code code,
                         uint32_t retry_after_ms, const char *text)
{
    p->stats.refused++;
    const struct message m = {.type = MESSAGE_SPAWN_REPLY,
                              .request = request,
                              .spawn_reply = {.code = (uint32_t)code,
                                              .message = text,
                                              .leader = code == STATUS_NOT_LEADER
                                                            ? p->env.leader_address(p->env.data)
                                                            : "",
                                              .retry_after_ms = retry_after_ms}};
    p->env.send(p->env.data, peer, &m);
}

/* Its agent keeps a result until it is acknowledged, and sends it again. */
static void result_postpone(struct payloads *p, const char *text)
{
    uint64_t now_us = p->env.now_us(p->env.data);
    p->stats.refused++;
    if (now_us >= p->postponed_us) {
        p->postponed_us = now_us + (uint64_t)POSTPONED_LOG_MS * 1000;
        LOG_WARN("an output is not stored yet; its agent sends it again", LOG_STR("why", text));
    }
}

/* ---- Jobs ---- */

static void job_drop(struct payload_job *job)
{
    if (!job->over) {
        struct payloads *p = job->p;
        job->over = true;
        DL_DELETE(p->jobs, job);
        HASH_DEL(p->jobs_by_id, job);
        p->jobs_count--;
        p->job_bytes -= job->data->buffer.size;
    }
    if (!job->working) {
        payload_blob_unref(job->data);
        buffer_close(&job->message);
        mem_free(job);
    }
}

/* Ends the job: OK hands it to the core, with the payload's name in place of its bytes. */
static void job_end(struct payload_job *job, enum status_code code, const char *text)
{
    struct payloads *p = job->p;
    struct arena arena = {0};
    struct message m;
    struct errmsg msg = {.text = ""};
    uint64_t peer = job->peer;
    /* While it is hashed, the digest belongs to the thread. */
    struct digest digest = job->hashed ? job->op.digest : (struct digest){{0}};
    uint64_t bytes = job->data->buffer.size;
    char why[ERRMSG_BYTES_MAX]; /* text may be the job's */
    (void)snprintf(why, sizeof why, "%s", text);
    struct status decoded =
        message_decode(bytes_of(job->message.data, job->message.size), &arena, &m, &msg);
    CHECK(decoded.code != STATUS_INVALID && decoded.code != STATUS_UNSUPPORTED);
    job_drop(job);
    if (!status_is_ok(decoded)) {
        LOG_ERROR("out of memory; a payload's message is lost");
    } else if (code == STATUS_OK && m.type == MESSAGE_SPAWN) {
        p->stats.stored++;
        m.spawn.payload_ref = digest;
        m.spawn.payload_bytes = bytes;
        p->env.core(p->env.data, peer, &m);
    } else if (code == STATUS_OK) {
        p->stats.stored++;
        m.result.output_ref = digest;
        m.result.output_bytes = bytes;
        p->env.core(p->env.data, peer, &m);
    } else if (m.type == MESSAGE_SPAWN) {
        spawn_refuse(p, peer, m.request, code, PAYLOAD_RETRY_MS, why);
    } else {
        result_postpone(p, why);
    }
    arena_close(&arena);
}

static struct payload_copy *copy_of(struct payload_job *job, uint64_t member)
{
    for (size_t i = 0; i < job->copies_count; i++) {
        if (job->copies[i].member == member) {
            return &job->copies[i];
        }
    }
    if (job->copies_count == PAYLOADS_OTHERS_MAX) {
        return NULL; /* The members changed a lot in one job's life. */
    }
    struct payload_copy *c = &job->copies[job->copies_count++];
    *c = (struct payload_copy){.member = member};
    return c;
}

/* Bytes that each of the others has not answered. */
static void unanswered(const struct payloads *p, const struct payloads_other *others, size_t count,
                       uint64_t bytes[PAYLOADS_OTHERS_MAX])
{
    memset(bytes, 0, PAYLOADS_OTHERS_MAX * sizeof bytes[0]);
    for (const struct payload_job *job = p->jobs; job != NULL; job = job->next) {
        for (size_t i = 0; i < job->copies_count; i++) {
            for (size_t k = 0; k < count && job->copies[i].state == COPY_SENT; k++) {
                bytes[k] += job->copies[i].peer == others[k].peer ? job->data->buffer.size : 0;
            }
        }
    }
}

/* open: unanswered bytes of the other. */
static void job_put(struct payload_job *job, const struct payloads_other *other, uint64_t *open,
                    uint64_t now_us)
{
    struct payloads *p = job->p;
    struct payload_copy *c = copy_of(job, other->member);
    if (c == NULL || other->peer == 0 || c->state == COPY_HELD ||
        (c->state == COPY_SENT && c->peer == other->peer) ||
        (c->state == COPY_REFUSED && now_us < c->retry_us)) {
        return;
    }
    uint64_t bytes = job->data->buffer.size;
    if ((*open > 0 && *open + bytes > p->config.room_bytes) || !peer_room(p, other->peer, bytes)) {
        return;
    }
    *open += bytes;
    c->peer = other->peer;
    c->state = COPY_SENT;
    const struct message put = {
        .type = MESSAGE_PAYLOAD_PUT,
        .request = job->id,
        .payload_put = {.digest = job->op.digest, .data = payload_blob_bytes(job->data)}};
    p->env.send(p->env.data, other->peer, &put);
}

/* Counts voters: those that have it, and those that say that they cannot take it. */
static size_t job_voters(struct payload_job *job, const struct payloads_other *others, size_t count,
                         enum copy_state state)
{
    size_t voters = 0;
    for (size_t i = 0; i < count; i++) {
        const struct payload_copy *c = copy_of(job, others[i].member);
        voters += others[i].voter && c != NULL && c->state == state &&
                  (state == COPY_HELD || c->code == STATUS_LIMIT);
    }
    return voters;
}

/* True when the job has ended. */
static bool job_step(struct payload_job *job, const struct payloads_other *others, size_t count,
                     uint64_t now_us)
{
    struct payloads *p = job->p;
    size_t majority = p->env.majority(p->env.data), voters = 1;
    char text[ERRMSG_BYTES_MAX];
    for (size_t i = 0; i < count; i++) {
        voters += others[i].voter;
    }
    if (!p->env.peer_open(p->env.data, job->peer)) {
        job_drop(job); /* Nobody waits; an agent gives the result again. */
        return true;
    }
    if (!p->env.leader(p->env.data)) {
        if (job->type == MESSAGE_SPAWN) {
            job_end(job, STATUS_NOT_LEADER, "this scheduler is no longer the leader");
        } else {
            job_drop(job);
        }
        return true;
    }
    if (job->held && 1 + job_voters(job, others, count, COPY_HELD) >= majority) {
        job_end(job, STATUS_OK, "");
        return true;
    }
    if (voters - job_voters(job, others, count, COPY_REFUSED) < majority) {
        job_end(job, STATUS_LIMIT, "the payload stores of too many schedulers are full");
        return true;
    }
    if (now_us >= job->deadline_us) {
        (void)snprintf(text, sizeof text,
                       "the payload is on disk on %zu of the %zu schedulers that must have it; "
                       "see skep cluster status",
                       job->held + job_voters(job, others, count, COPY_HELD), majority);
        job_end(job, STATUS_UNAVAILABLE, text);
        return true;
    }
    return false;
}

static void jobs_pump(struct payloads *p)
{
    struct payloads_other others[PAYLOADS_OTHERS_MAX];
    size_t count = p->env.others(p->env.data, others);
    uint64_t now_us = p->env.now_us(p->env.data), open[PAYLOADS_OTHERS_MAX];
    unanswered(p, others, count, open);
    struct payload_job *job, *next;
    DL_FOREACH_SAFE(p->jobs, job, next) {
        /* The core may send while it is told, never end another job. */
        for (size_t i = 0; i < count && job->hashed; i++) {
            job_put(job, &others[i], &open[i], now_us);
        }
        (void)job_step(job, others, count, now_us);
    }
}

static void on_job_stored(struct payload_op *op)
{
    struct payload_job *job = op->owner;
    struct payloads *p = job->p;
    job->working = false;
    if (status_is_ok(op->status)) {
        keep_stored(p, &op->digest);
    }
    if (job->over || p->closing) {
        job_drop(job);
        return;
    }
    if (!status_is_ok(op->status)) {
        job_end(job, op->status.code, op->message.text);
        return;
    }
    job->held = true;
    cache_put(p, &op->digest, job->data);
    jobs_pump(p);
}

static void on_job_hashed(struct payload_op *op)
{
    struct payload_job *job = op->owner;
    struct payloads *p = job->p;
    job->working = false;
    if (job->over || p->closing) {
        job_drop(job);
        return;
    }
    if (!status_is_ok(op->status)) {
        job_end(job, op->status.code, "out of memory");
        return;
    }
    job->hashed = true;
    job->working = true;
    op->kind = PAYLOAD_OP_PUT;
    op->done = on_job_stored;
    keep_pledge(p, &op->digest);
    payload_io_do(p->io, op);
    jobs_pump(p);
}

/* m without the payload's bytes, which stand in payload. */
static struct status job_new(struct payloads *p, uint64_t peer, const struct message *m,
                             struct bytes payload)
{
    struct payload_job *job = mem_zalloc(1, sizeof *job);
    if (job == NULL) {
        return status_of(STATUS_NOMEM);
    }
    job->data = payload_blob_copy(payload);
    if (job->data == NULL || !status_is_ok(message_encode(m, &job->message))) {
        payload_blob_unref(job->data);
        buffer_close(&job->message);
        mem_free(job);
        return status_of(STATUS_NOMEM);
    }
    job->p = p;
    job->id = ++p->request_last;
    job->peer = peer;
    job->type = m->type;
    job->deadline_us = payloads_after(p, m->type == MESSAGE_SPAWN ? p->config.spawn_ms
                                                                  : (uint32_t)PAYLOAD_RESULT_MS);
    if (m->type == MESSAGE_RESULT) {
        job->invocation = m->result.invocation;
        job->attempt = m->result.attempt;
        job->attempt_term = m->result.attempt_term;
    }
    job->working = true;
    job->op = (struct payload_op){
        .kind = PAYLOAD_OP_HASH, .data = job->data, .done = on_job_hashed, .owner = job};
    DL_APPEND(p->jobs, job);
    HASH_ADD(hh, p->jobs_by_id, id, sizeof job->id, job);
    p->jobs_count++;
    p->job_bytes += payload.size;
    payload_io_do(p->io, &job->op);
    return status_ok();
}

/* ---- SPAWN and RESULT ---- */

static bool jobs_full(const struct payloads *p, uint64_t bytes, uint64_t bytes_max)
{
    return p->jobs_count >= PAYLOAD_JOBS_MAX || p->job_bytes + bytes > bytes_max;
}

static void spawn_receive(struct payloads *p, uint64_t peer, const struct message *m)
{
    struct message clean = *m;
    clean.spawn.payload_ref = (struct digest){{0}};
    clean.spawn.payload_bytes = 0;
    struct bytes payload = m->spawn.payload;
    enum payloads_class class = p->env.function_class(p->env.data, m->spawn.function);
    bool outside =
        payload.size > SPAWN_INLINE_BYTES_MAX || (payload.size > 0 && class == PAYLOADS_SENSITIVE);
    if (!outside || !p->env.leader(p->env.data)) {
        p->env.core(p->env.data, peer, &clean);
        return;
    }
    clean.spawn.payload = bytes_of(NULL, 0);
    char text[ERRMSG_BYTES_MAX];
    if (payload.size > PAYLOAD_BYTES_MAX) {
        (void)snprintf(text, sizeof text,
                       "the payload has %zu bytes; at most %d (4 MiB) can be spawned", payload.size,
                       PAYLOAD_BYTES_MAX);
        spawn_refuse(p, peer, m->request, STATUS_LIMIT, 0, text);
    } else if (class == PAYLOADS_UNKNOWN) {
        (void)snprintf(text, sizeof text, "no function is named %.80s", m->spawn.function);
        spawn_refuse(p, peer, m->request, STATUS_NOT_FOUND, 0, text);
    } else if (jobs_full(p, payload.size, PAYLOAD_JOB_BYTES_MAX / 2)) {
        (void)snprintf(text, sizeof text,
                       "%zu payloads with %llu MiB are being stored already; try again",
                       p->jobs_count, (unsigned long long)(p->job_bytes >> 20));
        spawn_refuse(p, peer, m->request, STATUS_LIMIT, PAYLOAD_RETRY_MS, text);
    } else if (!status_is_ok(job_new(p, peer, &clean, payload))) {
        spawn_refuse(p, peer, m->request, STATUS_NOMEM, PAYLOAD_RETRY_MS, "out of memory");
    }
}

/* Is this result, sent again, on its way already? */
static bool result_known(const struct payloads *p, uint64_t peer, const struct result *r)
{
    for (const struct payload_job *job = p->jobs; job != NULL; job = job->next) {
        if (job->type == MESSAGE_RESULT && job->peer == peer && job->attempt == r->attempt &&
            job->attempt_term == r->attempt_term &&
            id_compare(job->invocation, r->invocation) == 0) {
            return true;
        }
    }
    return false;
}

static void result_receive(struct payloads *p, uint64_t peer, const struct message *m)
{
    struct message clean = *m;
    clean.result.output_ref = (struct digest){{0}};
    clean.result.output_bytes = 0;
    struct bytes output = m->result.output;
    bool outside = m->result.durable && output.size > 0 &&
                   (output.size > SPAWN_INLINE_BYTES_MAX ||
                    p->env.invocation_sensitive(p->env.data, m->result.invocation));
    if (!outside || !p->env.leader(p->env.data)) {
        p->env.core(p->env.data, peer, &clean);
        return;
    }
    clean.result.output = bytes_of(NULL, 0);
    if (output.size > PAYLOAD_BYTES_MAX) {
        clean.result.code = STATUS_FAILED;
        clean.result.message = "the output is longer than 4 MiB";
        p->env.core(p->env.data, peer, &clean);
    } else if (result_known(p, peer, &m->result)) {
        return;
    } else if (jobs_full(p, output.size, PAYLOAD_JOB_BYTES_MAX)) {
        result_postpone(p, "too many payloads are being stored");
    } else if (!status_is_ok(job_new(p, peer, &clean, output))) {
        result_postpone(p, "out of memory");
    }
}

/* ---- Among schedulers ---- */

static void have_send(struct payloads *p, uint64_t peer, uint64_t request,
                      const struct digest *digest, enum status_code code)
{
    const struct message m = {.type = MESSAGE_PAYLOAD_HAVE,
                              .request = request,
                              .payload_have = {.digest = *digest, .code = (uint32_t)code}};
    p->env.send(p->env.data, peer, &m);
}

static void on_put_stored(struct payload_op *op)
{
    struct payload_remote *put = op->owner;
    struct payloads *p = put->p;
    p->put_bytes -= op->data->buffer.size;
    if (status_is_ok(op->status)) {
        keep_stored(p, &op->digest);
    }
    if (!p->closing) {
        have_send(p, put->peer, put->request, &op->digest, op->status.code);
    }
    payload_blob_unref(op->data);
    mem_free(put);
}

static void put_receive(struct payloads *p, uint64_t peer, const struct message *m)
{
    struct bytes data = m->payload_put.data;
    struct payload_remote *put = NULL;
    if (data.size == 0 || data.size > PAYLOAD_BYTES_MAX) {
        have_send(p, peer, m->request, &m->payload_put.digest, STATUS_INVALID);
        return;
    }
    struct payload_blob *copy = NULL;
    if (p->put_bytes + data.size <= PAYLOAD_PUT_BYTES_MAX) {
        copy = payload_blob_copy(data);
        put = copy == NULL ? NULL : mem_zalloc(1, sizeof *put);
    }
    if (put == NULL) {
        payload_blob_unref(copy);
        have_send(p, peer, m->request, &m->payload_put.digest, STATUS_UNAVAILABLE);
        return;
    }
    *put = (struct payload_remote){.p = p,
                                   .peer = peer,
                                   .request = m->request,
                                   .op = {.kind = PAYLOAD_OP_PUT,
                                          .digest = m->payload_put.digest,
                                          .data = copy,
                                          .done = on_put_stored,
                                          .owner = put}};
    p->put_bytes += data.size;
    keep_pledge(p, &put->op.digest);
    payload_io_do(p->io, &put->op);
}

static void have_receive(struct payloads *p, uint64_t peer, const struct message *m)
{
    struct payload_job *job;
    HASH_FIND(hh, p->jobs_by_id, &m->request, sizeof m->request, job);
    if (job == NULL || !job->hashed ||
        digest_compare(&job->op.digest, &m->payload_have.digest) != 0) {
        return;
    }
    for (size_t i = 0; i < job->copies_count; i++) {
        struct payload_copy *c = &job->copies[i];
        if (c->peer != peer || c->state != COPY_SENT) {
            continue;
        }
        c->code = m->payload_have.code;
        c->state = c->code == STATUS_OK ? COPY_HELD : COPY_REFUSED;
        c->retry_us = payloads_after(p, RETRY_REFUSED_MS);
    }
    jobs_pump(p);
}

static void data_send(struct payloads *p, uint64_t peer, uint64_t request,
                      const struct digest *digest, enum status_code code,
                      const struct payload_blob *data)
{
    const struct message m = {
        .type = MESSAGE_PAYLOAD_DATA,
        .request = request,
        .payload_data = {.code = (uint32_t)code,
                         .digest = *digest,
                         .data = data == NULL ? bytes_of(NULL, 0) : payload_blob_bytes(data)}};
    p->env.send(p->env.data, peer, &m);
}

/* UNAVAILABLE when what is queued for the peer leaves no room. */
static void data_answer(struct payloads *p, uint64_t peer, uint64_t request,
                        const struct digest *digest, const struct payload_blob *data)
{
    bool room = peer_room(p, peer, data->buffer.size);
    data_send(p, peer, request, digest, room ? STATUS_OK : STATUS_UNAVAILABLE, room ? data : NULL);
}

static void on_asked_read(struct payload_op *op)
{
    struct payload_remote *ask = op->owner;
    struct payloads *p = ask->p;
    struct payload_blob *data = status_is_ok(op->status) ? op->data : NULL;
    p->put_bytes -= PAYLOAD_BYTES_MAX;
    if (!p->closing && data != NULL) {
        data_answer(p, ask->peer, ask->request, &op->digest, data);
    } else if (!p->closing) {
        if (op->status.code == STATUS_CORRUPT) {
            keep_lacking(p, &op->digest);
        }
        data_send(p, ask->peer, ask->request, &op->digest, op->status.code, NULL);
    }
    payload_blob_unref(data);
    mem_free(ask);
}

static void get_receive(struct payloads *p, uint64_t peer, const struct message *m)
{
    const struct digest *digest = &m->payload_get.digest;
    struct payload_blob *cached = cache_find(p, digest);
    if (cached != NULL) {
        data_answer(p, peer, m->request, digest, cached);
        return;
    }
    struct payload_remote *ask = NULL;
    if (peer_room(p, peer, PAYLOAD_BYTES_MAX) &&
        p->put_bytes + PAYLOAD_BYTES_MAX <= PAYLOAD_PUT_BYTES_MAX) {
        ask = mem_zalloc(1, sizeof *ask);
    }
    if (ask == NULL) {
        data_send(p, peer, m->request, digest, STATUS_UNAVAILABLE, NULL);
        return;
    }
    *ask = (struct payload_remote){
        .p = p,
        .peer = peer,
        .request = m->request,
        .op = {.kind = PAYLOAD_OP_GET, .digest = *digest, .done = on_asked_read, .owner = ask}};
    p->put_bytes += PAYLOAD_BYTES_MAX;
    payload_io_do(p->io, &ask->op);
}

void payloads_receive(struct payloads *p, uint64_t peer, const struct message *m)
{
    if (p->closing) {
        return;
    }
    switch (m->type) {
    case MESSAGE_SPAWN:
        spawn_receive(p, peer, m);
        break;
    case MESSAGE_RESULT:
        result_receive(p, peer, m);
        break;
    case MESSAGE_PAYLOAD_PUT:
        put_receive(p, peer, m);
        break;
    case MESSAGE_PAYLOAD_HAVE:
        have_receive(p, peer, m);
        break;
    case MESSAGE_PAYLOAD_GET:
        get_receive(p, peer, m);
        break;
    case MESSAGE_PAYLOAD_DATA:
        fetch_data(p, peer, m);
        break;
    default:
        CHECK(!"a message for payloads");
    }
}

/* ---- Opening, ticking, closing ---- */

void payloads_tick(struct payloads *p)
{
    if (p->closing) {
        return;
    }
    if (p->jobs != NULL) {
        jobs_pump(p);
    }
    loads_pump(p);
    fetches_tick(p);
    keep_maintain(p);
}

static void on_kick(uv_async_t *kick)
{
    struct payloads *p = kick->data;
    if (!p->closing) {
        loads_pump(p);
        fetches_tick(p);
    }
}

static void or_default(uint32_t *value, uint32_t otherwise)
{
    *value = *value == 0 ? otherwise : *value;
}

struct payloads *payloads_new(uv_loop_t *loop, struct payload_store *store,
                              const struct payloads_env *env, const struct payloads_config *config)
{
    struct payloads *p = mem_zalloc(1, sizeof *p);
    struct payload_io *io = p == NULL ? NULL : payload_io_new(loop, store);
    if (io == NULL) {
        mem_free(p);
        return NULL;
    }
    p->env = *env;
    p->config = *config;
    p->store = store;
    p->io = io;
    p->config.room_bytes = config->room_bytes == 0 ? PAYLOAD_ROOM_BYTES : config->room_bytes;
    or_default(&p->config.spawn_ms, PAYLOAD_SPAWN_MS);
    or_default(&p->config.load_ms, PAYLOAD_LOAD_MS);
    or_default(&p->config.drop_ms, 1000);
    or_default(&p->config.settle_ms, 5000);
    or_default(&p->config.orphan_ms, 600 * 1000);
    or_default(&p->config.check_ms, 2000);
    or_default(&p->config.reconcile_ms, 600 * 1000);
    p->unsettled_us = p->env.now_us(p->env.data);
    p->reconcile_due = true;
    CHECK(uv_async_init(loop, &p->kick, on_kick) == 0);
    p->kick.data = p;
    return p;
}

static void closed_one(struct payloads *p)
{
    if (++p->closed < 2) {
        return;
    }
    void (*cb)(void *) = p->on_closed;
    void *data = p->on_closed_data;
    CHECK(p->jobs == NULL && p->put_bytes == 0);
    mem_free(p);
    cb(data);
}

static void on_io_closed(void *data)
{
    struct payloads *p = data;
    loads_close(p);
    fetches_close(p);
    keep_close(p);
    closed_one(p);
}

static void on_kick_closed(uv_handle_t *handle)
{
    closed_one(handle->data);
}

void payloads_close(struct payloads *p, void (*cb)(void *data), void *data)
{
    CHECK(!p->closing);
    p->closing = true;
    p->on_closed = cb;
    p->on_closed_data = data;
    while (p->jobs != NULL) {
        job_drop(p->jobs);
    }
    uv_close((uv_handle_t *)&p->kick, on_kick_closed);
    payload_io_close(p->io, on_io_closed, p);
}

struct payloads_stats payloads_stats(const struct payloads *p)
{
    struct payload_store_stats store = payload_store_stats(p->store);
    struct payloads_stats stats = p->stats;
    stats.count = store.count;
    stats.bytes = store.bytes;
    stats.corrupt = store.corrupt;
    stats.missing = p->missing_count;
    stats.storing = p->jobs_count;
    stats.storing_bytes = p->job_bytes;
    stats.loading = p->loads_count;
    return stats;
}

/* Code on its way into the cluster. The client asks which chunks the leader lacks and sends those;
 * then it sends deploy. The leader makes sure that a majority of the schedulers has every chunk (it
 * asks each with chunk_query and sends what is missing) and only then proposes the revision: a
 * committed revision's code survives what the commit survives. Schedulers that were away pull the
 * chunks later (chunks_pull). */
#include "common/log.h"
#include "common/mem.h"
#include "scheduler/api/server_internal.h"
#include "scheduler/core/isolation.h"
#include "scheduler/core/spec.h"

#include <stdio.h>
#include <string.h>

static const struct digest *digest_at(struct bytes digests, size_t i)
{
    return (const struct digest *)(const void *)(digests.data + i * DIGEST_BYTES);
}

/* The digests of a list that the store lacks, one behind the other. */
static struct status missing_of(struct server *s, struct bytes digests, struct buffer *out)
{
    for (size_t i = 0; i < digests.size / DIGEST_BYTES; i++) {
        if (!chunk_store_has(s->chunks, digest_at(digests, i))) {
            TRY(buffer_append(out, digest_at(digests, i), DIGEST_BYTES));
        }
    }
    return status_ok();
}

/* ---- Chunks ---- */

static void answer_query(struct server *s, struct session *from, const struct message *m)
{
    struct bytes digests = m->chunk_query.digests;
    if (digests.size % DIGEST_BYTES != 0 || digests.size / DIGEST_BYTES > SPEC_CHUNKS_MAX) {
        session_reply(s, from, m->request, STATUS_INVALID,
                      "chunk_query.digests: not a list of digests, or too long");
        return;
    }
    struct buffer missing = {0};
    if (status_is_ok(missing_of(s, digests, &missing))) {
        const struct message answer = {
            .type = MESSAGE_CHUNK_MISSING,
            .request = m->request,
            .chunk_missing = {.digests = bytes_of(missing.data, missing.size)}};
        session_send(s, from, &answer);
    } else {
        session_reply(s, from, m->request, STATUS_NOMEM, "out of memory");
    }
    buffer_close(&missing);
}

static void answer_put(struct server *s, struct session *from, const struct message *m)
{
    struct errmsg msg = {.text = ""};
    struct status put = chunk_store_put(s->chunks, &m->chunk_put.digest, m->chunk_put.data, &msg);
    session_reply(s, from, m->request, put.code, msg.text);
}

static void answer_get(struct server *s, struct session *from, const struct message *m)
{
    struct buffer data = {0};
    struct errmsg msg = {.text = ""};
    struct status got = chunk_store_get(s->chunks, &m->chunk_get.digest, &data, &msg);
    if (got.code == STATUS_CORRUPT) {
        LOG_ERROR("a stored chunk was corrupt and is fetched again", LOG_STR("why", msg.text));
    }
    const struct message answer = {
        .type = MESSAGE_CHUNK_DATA,
        .request = m->request,
        .chunk_data = {.code = got.code,
                       .digest = m->chunk_get.digest,
                       .data = bytes_of(data.data, status_is_ok(got) ? data.size : 0)}};
    session_send(s, from, &answer);
    buffer_close(&data);
}

static void take_data(struct server *s, const struct message *m)
{
    struct errmsg msg = {.text = ""};
    if (m->chunk_data.code != STATUS_OK) {
        return; /* The next pull asks somebody else. */
    }
    struct status put = chunk_store_put(s->chunks, &m->chunk_data.digest, m->chunk_data.data, &msg);
    if (!status_is_ok(put)) {
        LOG_WARN("cannot store a chunk", LOG_STR("why", msg.text));
    }
}

/* ---- Deploys ---- */

static void job_free(struct server *s, struct deploy_job *job)
{
    HASH_DEL(s->deploys, job);
    arena_close(&job->arena);
    mem_free(job);
}

static void job_fail(struct server *s, struct deploy_job *job, enum status_code code,
                     const char *text)
{
    session_reply_detail(s, job->client, job->request, status_of(code), text, 0, bytes_of(NULL, 0));
    job_free(s, job);
}

/* What the outbound scheduler lacks has come back: an empty list means that it has everything. */
static void take_missing(struct server *s, struct session *from, const struct message *m)
{
    struct deploy_job *job;
    HASH_FIND(hh, s->deploys, &m->request, sizeof m->request, job);
    if (job == NULL || from->outbound == NULL ||
        m->chunk_missing.digests.size % DIGEST_BYTES != 0) {
        return;
    }
    struct bytes digests = m->chunk_missing.digests;
    if (digests.size == 0) {
        job->have[from->outbound - s->outbound] = true;
        return;
    }
    struct buffer data = {0};
    for (size_t i = 0; i < digests.size / DIGEST_BYTES; i++) {
        if (!status_is_ok(chunk_store_get(s->chunks, digest_at(digests, i), &data, NULL))) {
            continue;
        }
        const struct message put = {.type = MESSAGE_CHUNK_PUT,
                                    .chunk_put = {.digest = *digest_at(digests, i),
                                                  .data = bytes_of(data.data, data.size)}};
        session_send(s, from, &put);
    }
    buffer_close(&data);
}

void chunks_receive(struct server *s, struct session *from, const struct message *m)
{
    switch (m->type) {
    case MESSAGE_CHUNK_QUERY:
        answer_query(s, from, m);
        break;
    case MESSAGE_CHUNK_PUT:
        answer_put(s, from, m);
        break;
    case MESSAGE_CHUNK_GET:
        answer_get(s, from, m);
        break;
    case MESSAGE_CHUNK_DATA:
        take_data(s, m);
        break;
    default:
        take_missing(s, from, m);
        break;
    }
}

static void ask_others(struct server *s, const struct deploy_job *job)
{
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        struct session *to = s->outbound[i].used ? s->outbound[i].sessions[1] : NULL;
        if (to != NULL && to->hello && !job->have[i]) {
            const struct message ask = {.type = MESSAGE_CHUNK_QUERY,
                                        .request = job->id,
                                        .chunk_query = {.digests = job->spec.chunks}};
            session_send(s, to, &ask);
        }
    }
}

static size_t job_holders(const struct server *s, const struct deploy_job *job)
{
    size_t holders = 1;
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        holders += s->outbound[i].used && job->have[i];
    }
    return holders;
}

static void on_deployed(void *data, struct status status, const char *message, uint64_t index)
{
    struct deploy_job *job = data;
    struct server *s = job->server;
    session_reply_detail(s, job->client, job->request, status, message, index,
                         bytes_of(&job->revision, sizeof job->revision));
    job_free(s, job);
}

static void job_submit(struct server *s, struct deploy_job *job)
{
    job->submitted = true;
    const struct command cmd = {.type = COMMAND_DEPLOY,
                                .by = job->by,
                                .command_deploy = {.spec = &job->spec,
                                                   .revision = job->revision,
                                                   .check_index = job->check_index}};
    core_submit(s->core, server_now(s), &cmd, on_deployed, job);
}

static struct status job_new(struct server *s, struct session *from, const struct message *m,
                             struct deploy_job **out, struct errmsg *msg)
{
    if (HASH_COUNT(s->deploys) >= DEPLOYS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%d deploys are under way; try again", DEPLOYS_MAX);
    }
    struct buffer encoded = {0};
    struct deploy_job *job = mem_zalloc(1, sizeof *job);
    if (job == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    struct status status = function_spec_copy(&job->arena, m->deploy.spec, &job->spec);
    if (status_is_ok(status)) {
        status = function_spec_encode(&job->spec, &encoded);
    }
    if (status_is_ok(status)) {
        /* The revision is the digest of all that was deployed: settings and chunks. */
        const struct bytes part = bytes_of(encoded.data, encoded.size);
        status = digest_of(&part, 1, &job->revision);
    }
    buffer_close(&encoded);
    if (!status_is_ok(status)) {
        arena_close(&job->arena);
        mem_free(job);
        return status_fail(msg, status.code, "out of memory");
    }
    job->server = s;
    job->id = ++s->request_last;
    job->client = from->handle;
    job->request = m->request;
    job->check_index = m->deploy.check_index;
    job->deadline_us = server_now(s).mono_us + (uint64_t)DEPLOY_TIMEOUT_MS * 1000;
    session_who(from, job->by);
    HASH_ADD(hh, s->deploys, id, sizeof job->id, job);
    *out = job;
    return status_ok();
}

void deploys_receive(struct server *s, struct session *from, const struct message *m)
{
    if (!core_is_leader(s->core)) {
        session_reply(s, from, m->request, STATUS_NOT_LEADER, "this scheduler is not the leader");
        return;
    }
    struct errmsg msg = {.text = ""};
    struct status status = function_spec_check(m->deploy.spec, &msg);
    if (status_is_ok(status)) {
        status = isolation_allow(core_catalog(s->core), m->deploy.spec, &msg);
    }
    if (!status_is_ok(status)) {
        session_reply(s, from, m->request, status.code, msg.text);
        return;
    }
    struct buffer missing = {0};
    status = missing_of(s, m->deploy.spec->chunks, &missing);
    bool complete = status_is_ok(status) && missing.size == 0;
    buffer_close(&missing);
    if (!complete) {
        session_reply(s, from, m->request, STATUS_CONFLICT,
                      "not all chunks of the code have been uploaded");
        return;
    }
    struct deploy_job *job = NULL;
    status = job_new(s, from, m, &job, &msg);
    if (!status_is_ok(status)) {
        session_reply(s, from, m->request, status.code, msg.text);
        return;
    }
    if (job_holders(s, job) >= members_majority(s)) {
        job_submit(s, job);
    } else {
        ask_others(s, job);
    }
}

void deploys_tick(struct server *s, uint64_t now_us)
{
    struct deploy_job *job, *next;
    HASH_ITER(hh, s->deploys, job, next) {
        if (job->submitted) {
            continue;
        }
        if (!core_is_leader(s->core)) {
            job_fail(s, job, STATUS_NOT_LEADER, "this scheduler is no longer the leader");
        } else if (job_holders(s, job) >= members_majority(s)) {
            job_submit(s, job);
        } else if (now_us > job->deadline_us) {
            job_fail(s, job, STATUS_UNAVAILABLE,
                     "a majority of the schedulers could not be given the code in time");
        } else {
            ask_others(s, job);
        }
    }
}

/* ---- Catching up ---- */

static struct session *somebody_else(const struct server *s, uint64_t turn)
{
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        const struct outbound *o = &s->outbound[(i + turn) % OUTBOUND_MAX];
        if (o->used && o->sessions[1] != NULL && o->sessions[1]->hello) {
            return o->sessions[1];
        }
    }
    return NULL;
}

/* Only current revisions and those that history keeps: all that the catalog names. */
void chunks_pull(struct server *s)
{
    const struct catalog *c = core_catalog(s->core);
    if (s->pulled_index == c->index) {
        return; /* Nothing changed since everything was there. */
    }
    size_t asked = 0;
    for (struct catalog_function *f = c->functions; f != NULL; f = f->hh.next) {
        struct catalog_revision *r;
        DL_FOREACH(f->revisions, r) {
            for (size_t i = 0; i < r->spec.chunks.size / DIGEST_BYTES; i++) {
                const struct digest *d = digest_at(r->spec.chunks, i);
                if (chunk_store_has(s->chunks, d)) {
                    continue;
                }
                struct session *to = somebody_else(s, s->pull_turn++);
                if (to == NULL || asked++ >= PULL_CHUNKS_MAX) {
                    return;
                }
                const struct message get = {.type = MESSAGE_CHUNK_GET,
                                            .request = ++s->request_last,
                                            .chunk_get = {.digest = *d}};
                session_send(s, to, &get);
            }
        }
    }
    if (asked == 0) {
        s->pulled_index = c->index;
    }
}

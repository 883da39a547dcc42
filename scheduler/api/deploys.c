/* Code on its way into the cluster. The client asks which chunks the leader lacks and sends those;
 * then it sends deploy. The leader makes sure that a majority of the schedulers has every chunk (it
 * asks each with chunk_query and sends what is missing) and only then proposes the revision: a
 * committed revision's code survives what the commit survives. Schedulers that were away pull the
 * chunks later (chunks_pull). */
#include "common/log.h"
#include "common/mem.h"
#include "scheduler/api/image_chunks.h"
#include "scheduler/api/server_internal.h"
#include "scheduler/core/isolation_policy.h"
#include "scheduler/core/spec.h"

#include <stdio.h>
#include <string.h>

static const struct digest *digest_at(struct bytes digests, size_t i)
{
    return (const struct digest *)(const void *)(digests.data + i * DIGEST_BYTES);
}

/* The digests of a list that the store lacks, one behind the other. The others are kept from gc for
 * a while. */
static struct status missing_of(struct server *s, struct bytes digests, struct buffer *out)
{
    for (size_t i = 0; i < digests.size / DIGEST_BYTES; i++) {
        if (!chunk_store_renew(s->chunks, digest_at(digests, i))) {
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
    digests_close(&job->digests);
    arena_close(&job->arena);
    mem_free(job);
}

static void job_fail(struct server *s, struct deploy_job *job, enum status_code code,
                     const char *text)
{
    session_reply_detail(s, job->client, job->request, status_of(code), text, 0, bytes_of(NULL, 0));
    job_free(s, job);
}

/* Asks another scheduler which of the next few chunks it lacks. */
static void ask_peer(struct server *s, struct deploy_job *job, size_t at)
{
    struct deploy_peer *p = &job->peers[at];
    struct session *to = s->outbound[at].used ? s->outbound[at].sessions[1] : NULL;
    size_t left = job->digests.count - p->have;
    if (to == NULL || !to->hello || left == 0 || job->submitted) {
        return;
    }
    p->ask = ++s->request_last;
    p->ask_us = server_now(s).mono_us;
    size_t count = left < DEPLOY_BATCH ? left : DEPLOY_BATCH;
    const struct message ask = {
        .type = MESSAGE_CHUNK_QUERY,
        .request = p->ask,
        .chunk_query = {.digests = bytes_of(&job->digests.items[p->have], count * DIGEST_BYTES)}};
    session_send(s, to, &ask);
}

static void send_chunks(struct server *s, struct session *to, struct bytes digests)
{
    struct buffer data = {0};
    size_t count = digests.size / DIGEST_BYTES;
    for (size_t i = 0; i < count && i < DEPLOY_BATCH; i++) {
        if (!status_is_ok(chunk_store_get(s->chunks, digest_at(digests, i), &data, NULL))) {
            continue;
        }
        const struct message put = {.type = MESSAGE_CHUNK_PUT,
                                    .chunk_put = {.digest = *digest_at(digests, i),
                                                  .data = bytes_of(data.data, data.size)}};
        session_send(s, to, &put);
    }
    buffer_close(&data);
}

/* What the outbound scheduler lacks has come back: an empty list means that it has everything it
 * was asked about. What is sent is asked about again, behind it. */
static void take_missing(struct server *s, struct session *from, const struct message *m)
{
    struct bytes missing = m->chunk_missing.digests;
    if (from->outbound == NULL || missing.size % DIGEST_BYTES != 0) {
        return;
    }
    size_t at = (size_t)(from->outbound - s->outbound);
    struct deploy_job *job = s->deploys;
    while (job != NULL && job->peers[at].ask != m->request) {
        job = job->hh.next;
    }
    if (job == NULL || m->request == 0) {
        return;
    }
    struct deploy_peer *p = &job->peers[at];
    p->ask = 0;
    if (missing.size == 0) {
        size_t left = job->digests.count - p->have;
        p->have += left < DEPLOY_BATCH ? left : DEPLOY_BATCH;
        job->deadline_us = server_now(s).mono_us + (uint64_t)DEPLOY_TIMEOUT_MS * 1000;
    } else {
        send_chunks(s, from, missing);
    }
    ask_peer(s, job, at);
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

static void ask_others(struct server *s, struct deploy_job *job)
{
    uint64_t now_us = server_now(s).mono_us;
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        const struct deploy_peer *p = &job->peers[i];
        if (p->ask == 0 || now_us - p->ask_us > (uint64_t)DEPLOY_ASK_MS * 1000) {
            ask_peer(s, job, i);
        }
    }
}

static size_t job_holders(const struct server *s, const struct deploy_job *job)
{
    size_t holders = 1;
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        holders += s->outbound[i].used && job->peers[i].have == job->digests.count;
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
    struct command cmd = {.by = job->by};
    if (job->is_image) {
        cmd.type = COMMAND_IMAGE_PUT;
        cmd.command_image_put.spec = &job->image;
    } else {
        cmd.type = COMMAND_DEPLOY;
        cmd.command_deploy = (struct command_deploy){
            .spec = &job->spec, .revision = job->revision, .check_index = job->check_index};
    }
    core_submit(s->core, server_now(s), &cmd, on_deployed, job);
}

/* Takes the chunks' digests, and starts: they must be here already. */
static void job_start(struct server *s, struct session *from, uint64_t request,
                      struct deploy_job *job)
{
    job->server = s;
    job->id = ++s->request_last;
    job->client = from->handle;
    job->request = request;
    job->deadline_us = server_now(s).mono_us + (uint64_t)DEPLOY_TIMEOUT_MS * 1000;
    session_who(from, job->by);
    HASH_ADD(hh, s->deploys, id, sizeof job->id, job);
    if (job_holders(s, job) >= members_majority(s)) {
        job_submit(s, job);
    } else {
        ask_others(s, job);
    }
}

static struct status job_complete(struct server *s, const struct deploy_job *job,
                                  struct errmsg *msg)
{
    struct buffer missing = {0};
    struct status status =
        missing_of(s, bytes_of(job->digests.items, job->digests.count * DIGEST_BYTES), &missing);
    bool complete = status_is_ok(status) && missing.size == 0;
    buffer_close(&missing);
    return complete
               ? status_ok()
               : status_fail(msg, STATUS_CONFLICT, "not all chunks of the %s have been uploaded",
                             job->is_image ? "image" : "code");
}

static struct status deploy_fill(struct server *s, struct deploy_job *job,
                                 const struct deploy *deploy, struct errmsg *msg)
{
    TRY(function_spec_check(deploy->spec, msg));
    TRY(isolation_allow(core_catalog(s->core), deploy->spec, msg));
    TRY(function_spec_copy(&job->arena, deploy->spec, &job->spec));
    if (job->spec.image[0] != '\0') {
        /* A name means what it means now; the revision is bound to that version. */
        const struct catalog_image *image;
        TRY(images_resolve(&core_catalog(s->core)->images, job->spec.image, &image, msg));
        job->spec.image = arena_text(&job->arena, image->ref, strlen(image->ref));
        TRY(status_of(job->spec.image == NULL ? STATUS_NOMEM : STATUS_OK));
    }
    struct buffer encoded = {0};
    struct status status = function_spec_encode(&job->spec, &encoded);
    if (status_is_ok(status)) {
        /* The revision is the digest of all that was deployed: settings and chunks. */
        const struct bytes part = bytes_of(encoded.data, encoded.size);
        status = digest_of(&part, 1, &job->revision);
    }
    buffer_close(&encoded);
    TRY(status);
    for (size_t i = 0; i < job->spec.chunks.size / DIGEST_BYTES; i++) {
        TRY(digests_add(&job->digests, digest_at(job->spec.chunks, i)));
    }
    job->check_index = deploy->check_index;
    return job_complete(s, job, msg);
}

static struct status image_fill(struct server *s, struct deploy_job *job,
                                const struct image_put *put, struct errmsg *msg)
{
    job->is_image = true;
    TRY(image_spec_check(put->spec, msg));
    TRY(image_spec_copy(&job->arena, put->spec, &job->image));
    struct status listed = image_digests(s->chunks, &job->image, &job->digests, msg);
    if (listed.code == STATUS_NOT_FOUND || listed.code == STATUS_CORRUPT) {
        return status_fail(msg, STATUS_CONFLICT, "not all chunks of the image have been uploaded");
    }
    TRY(listed);
    return job_complete(s, job, msg);
}

static void job_receive(struct server *s, struct session *from, const struct message *m)
{
    struct errmsg msg = {.text = ""};
    if (!core_is_leader(s->core)) {
        session_reply(s, from, m->request, STATUS_NOT_LEADER, "this scheduler is not the leader");
        return;
    }
    if (HASH_COUNT(s->deploys) >= DEPLOYS_MAX) {
        (void)snprintf(msg.text, sizeof msg.text, "%d deploys are under way; try again",
                       DEPLOYS_MAX);
        session_reply(s, from, m->request, STATUS_LIMIT, msg.text);
        return;
    }
    struct deploy_job *job = mem_zalloc(1, sizeof *job);
    struct status status = status_of(job == NULL ? STATUS_NOMEM : STATUS_OK);
    if (status_is_ok(status)) {
        status = m->type == MESSAGE_DEPLOY ? deploy_fill(s, job, &m->deploy, &msg)
                                           : image_fill(s, job, &m->image_put, &msg);
    }
    if (status_is_ok(status)) {
        job_start(s, from, m->request, job);
        return;
    }
    session_reply(s, from, m->request, status.code,
                  status.code == STATUS_NOMEM ? "out of memory" : msg.text);
    if (job != NULL) {
        digests_close(&job->digests);
        arena_close(&job->arena);
        mem_free(job);
    }
}

void deploys_receive(struct server *s, struct session *from, const struct message *m)
{
    job_receive(s, from, m);
}

void image_put_receive(struct server *s, struct session *from, const struct message *m)
{
    job_receive(s, from, m);
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

/* False once as many are asked for as may be. */
static bool pull_one(struct server *s, const struct digest *d, size_t *asked)
{
    if (chunk_store_has(s->chunks, d)) {
        return true;
    }
    struct session *to = *asked < PULL_CHUNKS_MAX ? somebody_else(s, s->pull_turn++) : NULL;
    if (to == NULL) {
        return false;
    }
    const struct message get = {
        .type = MESSAGE_CHUNK_GET, .request = ++s->request_last, .chunk_get = {.digest = *d}};
    session_send(s, to, &get);
    (*asked)++;
    return true;
}

static bool pull_image(struct server *s, const struct image_spec *spec, size_t *asked)
{
    size_t before = *asked;
    for (size_t i = 0; i < spec->lists.size / DIGEST_BYTES; i++) {
        if (!pull_one(s, digest_at(spec->lists, i), asked)) {
            return false;
        }
    }
    struct digests all = {.count = 0};
    bool more = true;
    if (*asked == before && !status_is_ok(image_digests(s->chunks, spec, &all, NULL))) {
        (*asked)++; /* A damaged list is gone now, and asked for next time. */
    }
    for (size_t i = 0; i < all.count && more; i++) {
        more = pull_one(s, &all.items[i], asked);
    }
    digests_close(&all);
    return more;
}

/* Only current revisions and those that history keeps, and images: all that the catalog names. */
void chunks_pull(struct server *s)
{
    const struct catalog *c = core_catalog(s->core);
    if (s->pulled_index == c->index) {
        return; /* Nothing changed since everything was there. */
    }
    size_t asked = 0;
    struct digests code = {.count = 0};
    bool more = status_is_ok(code_digests(c, &code));
    for (size_t i = 0; i < code.count && more; i++) {
        more = pull_one(s, &code.items[i], &asked);
    }
    for (const struct catalog_image *i = c->images.images; i != NULL && more; i = i->hh.next) {
        more = pull_image(s, &i->spec, &asked);
    }
    digests_close(&code);
    if (more && asked == 0) {
        s->pulled_index = c->index;
    }
}

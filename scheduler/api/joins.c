/* Certificates: joining with a token, renewal over a live connection, our own renewal, and new
 * tokens. Only a scheduler that holds the CA's key signs. */
#include "common/log.h"
#include "common/mem.h"
#include "common/pki/pki.h"
#include "scheduler/api/seals.h"
#include "scheduler/api/server_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOKEN_VALID_S_DEFAULT = 900, TOKEN_VALID_S_MAX = 24 * 3600 };

static const char no_ca_key[] =
    "this scheduler holds no CA key (ca_key in its configuration): it cannot sign";

struct join_job {
    struct server *server;
    uint64_t client, request;
    struct identity id;
    char *csr;
};

static void join_answer(struct server *s, uint64_t client, uint64_t request,
                        const struct join_reply *reply)
{
    struct session *to = session_find(s, client);
    if (to == NULL) {
        return;
    }
    struct message m = {.type = MESSAGE_JOIN_REPLY, .request = request, .join_reply = *reply};
    if (reply->code == STATUS_NOT_LEADER) {
        m.join_reply.leader = members_leader_address(s);
    }
    session_send(s, to, &m);
}

static void join_fail(struct server *s, uint64_t client, uint64_t request, enum status_code code,
                      const char *text)
{
    const struct join_reply reply = {.code = code, .message = text};
    join_answer(s, client, request, &reply);
}

static size_t scheduler_pairs(struct server *s, struct pair out[CATALOG_SCHEDULERS_MAX])
{
    size_t count = 0;
    for (struct catalog_setting *k = core_catalog(s->core)->schedulers; k != NULL; k = k->hh.next) {
        if (count < CATALOG_SCHEDULERS_MAX) {
            out[count++] = (struct pair){.key = k->key, .value = k->value};
        }
    }
    return count;
}

/* ---- Joining: the token is spent first, by a committed command; only then is anything signed.
 * ---- */

static void on_token_used(void *data, struct status status, const char *message, uint64_t index)
{
    (void)index;
    struct join_job *job = data;
    struct server *s = job->server;
    struct errmsg msg = {.text = ""};
    char *cert = NULL;
    if (!status_is_ok(status)) {
        join_fail(s, job->client, job->request, status.code, message);
    } else {
        status = pki_sign(s->ca_pem, s->ca_key_pem, job->csr, &job->id, (int64_t)time(NULL),
                          CERTIFICATE_VALID_S, &cert, &msg);
        struct pair schedulers[CATALOG_SCHEDULERS_MAX];
        struct buffer keys = {0};
        if (status_is_ok(status) && job->id.role == ROLE_SCHEDULER) {
            status = seals_keys(s, &keys);
        }
        const struct join_reply reply = {.code = status.code,
                                         .message = msg.text,
                                         .cert = cert,
                                         .ca = s->ca_pem,
                                         .ca_key =
                                             job->id.role == ROLE_SCHEDULER ? s->ca_key_pem : "",
                                         .schedulers = schedulers,
                                         .schedulers_count = scheduler_pairs(s, schedulers),
                                         .keys = bytes_of(keys.data, keys.size)};
        LOG_INFO("joined", LOG_STR("role", role_name(job->id.role)),
                 LOG_STR("name", job->id.name.text), LOG_STR("outcome", status_name(status.code)));
        join_answer(s, job->client, job->request, &reply);
        buffer_close(&keys);
    }
    mem_free(cert);
    mem_free(job->csr);
    mem_free(job);
}

static struct status join_identity(struct server *s, const struct join *j, struct identity *out,
                                   struct errmsg *msg)
{
    *out = (struct identity){.cluster = s->own.cluster};
    TRY(role_parse(j->role, &out->role, msg));
    if (out->role != ROLE_AGENT && out->role != ROLE_SCHEDULER && out->role != ROLE_USER) {
        return status_fail(msg, STATUS_INVALID, "join.role: nobody joins as %s", j->role);
    }
    return name_parse("join.name", j->name, strlen(j->name), &out->name, msg);
}

void joins_receive(struct server *s, struct session *from, const struct message *m)
{
    if (!core_is_leader(s->core)) {
        join_fail(s, from->handle, m->request, STATUS_NOT_LEADER,
                  "this scheduler is not the leader");
        return;
    }
    if (s->ca_key_pem == NULL) {
        join_fail(s, from->handle, m->request, STATUS_UNSUPPORTED, no_ca_key);
        return;
    }
    struct errmsg msg = {.text = ""};
    struct identity id;
    struct status status = join_identity(s, &m->join, &id, &msg);
    struct join_job *job = status_is_ok(status) ? mem_zalloc(1, sizeof *job) : NULL;
    char *csr = job == NULL ? NULL : mem_strdup(m->join.csr);
    if (csr == NULL) {
        mem_free(job);
        join_fail(s, from->handle, m->request, status_is_ok(status) ? STATUS_NOMEM : status.code,
                  msg.text);
        return;
    }
    *job = (struct join_job){
        .server = s, .client = from->handle, .request = m->request, .id = id, .csr = csr};
    const struct command cmd = {.type = COMMAND_TOKEN_USE,
                                .by = m->join.name,
                                .command_token_use = {.id = link_peer(from->link)->serial,
                                                      .role = m->join.role,
                                                      .name = m->join.name}};
    core_submit(s->core, server_now(s), &cmd, on_token_used, job);
}

/* ---- Renewal: the connection's own identity, whatever the request says. ---- */

void renew_receive(struct server *s, struct session *from, const struct message *m)
{
    if (s->ca_key_pem == NULL) {
        join_fail(s, from->handle, m->request, STATUS_UNSUPPORTED, no_ca_key);
        return;
    }
    struct errmsg msg = {.text = ""};
    char *cert = NULL;
    struct status status = pki_sign(s->ca_pem, s->ca_key_pem, m->renew.csr, link_peer(from->link),
                                    (int64_t)time(NULL), CERTIFICATE_VALID_S, &cert, &msg);
    const struct join_reply reply = {
        .code = status.code, .message = msg.text, .cert = cert, .ca = s->ca_pem};
    join_answer(s, from->handle, m->request, &reply);
    LOG_INFO("certificate renewed", LOG_STR("role", role_name(link_peer(from->link)->role)),
             LOG_STR("name", link_peer(from->link)->name.text),
             LOG_STR("outcome", status_name(status.code)));
    mem_free(cert);
}

static struct status renew_make(struct server *s, char **cert, char **key, struct errmsg *msg)
{
    char *csr = NULL;
    TRY(pki_request_create(&csr, key, msg));
    struct status status = pki_sign(s->ca_pem, s->ca_key_pem, csr, &s->own, (int64_t)time(NULL),
                                    CERTIFICATE_VALID_S, cert, msg);
    mem_free(csr);
    return status;
}

static struct status renew_use(struct server *s, const char *cert, const char *key,
                               struct errmsg *msg)
{
    const struct tls_identity own = {.ca_pem = s->ca_pem, .cert_pem = cert, .key_pem = key};
    TRY(link_hub_renew(s->hub, &own, msg));
    TRY(pki_identity_of(cert, &s->own, &s->cert_not_before_s, msg));
    TRY(pki_write(s->config->identity.key, true, key, msg));
    return pki_write(s->config->identity.cert, false, cert, msg);
}

void renew_own(struct server *s)
{
    int64_t now = (int64_t)time(NULL);
    int64_t life = s->own.not_after_s - s->cert_not_before_s;
    if (s->ca_key_pem == NULL || now < s->cert_not_before_s + life / 3 * 2) {
        return;
    }
    struct errmsg msg = {.text = ""};
    char *cert = NULL, *key = NULL;
    struct status status = renew_make(s, &cert, &key, &msg);
    if (status_is_ok(status)) {
        status = renew_use(s, cert, key, &msg);
    }
    if (status_is_ok(status)) {
        LOG_INFO("own certificate renewed");
        pki_key_free(s->key_pem);
        mem_free(s->cert_pem);
        s->key_pem = key;
        s->cert_pem = cert;
        return;
    }
    LOG_ERROR("cannot renew our own certificate", LOG_STR("why", msg.text));
    pki_key_free(key);
    mem_free(cert);
}

/* ---- Tokens ---- */

struct token_job {
    struct server *server;
    uint64_t client, request;
    char *text;
};

static void on_token_created(void *data, struct status status, const char *message, uint64_t index)
{
    struct token_job *job = data;
    struct bytes detail = bytes_of(job->text, status_is_ok(status) ? strlen(job->text) : 0);
    session_reply_detail(job->server, job->client, job->request, status, message, index, detail);
    pki_key_free(job->text);
    mem_free(job);
}

static const char *arg(const struct message *m, const char *key)
{
    for (size_t i = 0; i < m->admin.args_count; i++) {
        if (strcmp(m->admin.args[i].key, key) == 0) {
            return m->admin.args[i].value;
        }
    }
    return "";
}

static struct status token_make(struct server *s, int64_t valid_s, char **text,
                                char id[SERIAL_STRING_BYTES], struct errmsg *msg)
{
    struct pair schedulers[CATALOG_SCHEDULERS_MAX];
    const char *addresses[CATALOG_SCHEDULERS_MAX];
    size_t count = scheduler_pairs(s, schedulers);
    for (size_t i = 0; i < count; i++) {
        addresses[i] = schedulers[i].value;
    }
    return pki_token_create(s->ca_pem, s->ca_key_pem, &s->own.cluster, addresses, count,
                            (int64_t)time(NULL), valid_s, text, id, msg);
}

static struct status token_check(struct server *s, const struct message *m, int64_t *valid_s,
                                 struct errmsg *msg)
{
    if (s->ca_key_pem == NULL) {
        return status_fail(msg, STATUS_UNSUPPORTED, "%s", no_ca_key);
    }
    const struct join as = {.role = arg(m, "role"),
                            .name = m->admin.name[0] == '\0' ? "any" : m->admin.name};
    struct identity id;
    TRY(join_identity(s, &as, &id, msg));
    char *end = NULL;
    const char *text = arg(m, "valid_s");
    *valid_s = text[0] == '\0' ? TOKEN_VALID_S_DEFAULT : strtoll(text, &end, 10);
    if ((end != NULL && *end != '\0') || *valid_s < 1 || *valid_s > TOKEN_VALID_S_MAX) {
        return status_fail(msg, STATUS_INVALID, "valid_s: not between 1 and %d", TOKEN_VALID_S_MAX);
    }
    return status_ok();
}

void token_create(struct server *s, struct session *from, const struct message *m)
{
    struct errmsg msg = {.text = ""};
    int64_t valid_s = 0;
    char *text = NULL;
    char id[SERIAL_STRING_BYTES];
    struct status status =
        core_is_leader(s->core)
            ? token_check(s, m, &valid_s, &msg)
            : status_fail(&msg, STATUS_NOT_LEADER, "this scheduler is not the leader");
    if (status_is_ok(status)) {
        status = token_make(s, valid_s, &text, id, &msg);
    }
    struct token_job *job = status_is_ok(status) ? mem_zalloc(1, sizeof *job) : NULL;
    if (job == NULL) {
        session_reply(s, from, m->request, status_is_ok(status) ? STATUS_NOMEM : status.code,
                      msg.text);
        pki_key_free(text);
        return;
    }
    *job = (struct token_job){
        .server = s, .client = from->handle, .request = m->request, .text = text};
    char by[2 * NAME_BYTES_MAX];
    session_who(from, by);
    struct core_time now = server_now(s);
    const struct command cmd = {
        .type = COMMAND_TOKEN_CREATE,
        .by = by,
        .command_token_create = {.id = id,
                                 .role = arg(m, "role"),
                                 .name = m->admin.name,
                                 .expires_ms = now.unix_ms + (uint64_t)valid_s * 1000}};
    core_submit(s->core, now, &cmd, on_token_created, job);
}

/* Sessions, in order: a link opens (its identity is proven) -> we send hello -> the peer's hello
 * comes: versions agree -> the core learns of the peer -> messages, each checked against what its
 * role may send -> the link closes -> everybody forgets the session. Failures: no common version,
 * or a message before hello, or one the role may not send: an answer that says so, then the link is
 * closed. */
#include "common/log.h"
#include "common/mem.h"
#include "common/pki/pki.h"
#include "scheduler/api/backup_make.h"
#include "scheduler/api/backups.h"
#include "scheduler/api/image_chunks.h"
#include "scheduler/api/payload_port.h"
#include "scheduler/api/payloads.h"
#include "scheduler/api/roles.h"
#include "scheduler/api/seals.h"
#include "scheduler/api/server_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct core_time server_now(const struct server *s)
{
    (void)s;
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (struct core_time){.mono_us = uv_hrtime() / 1000,
                              .unix_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000};
}

/* FNV-1a: a scheduler's name is its Raft id, so that no number has to be kept in step with it. */
uint64_t member_id_of(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *name != '\0'; name++) {
        h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    }
    return h == 0 ? 1 : h;
}

/* ---- Sending ---- */

struct session *session_find(const struct server *s, uint64_t handle)
{
    struct session *p;
    HASH_FIND(hh, s->sessions, &handle, sizeof handle, p);
    return p;
}

void session_send(struct server *s, struct session *to, const struct message *m)
{
    s->encode.size = 0;
    struct status encoded = message_encode(m, &s->encode);
    if (status_is_ok(encoded)) {
        const struct bytes part = bytes_of(s->encode.data, s->encode.size);
        encoded = link_send(to->link, &part, 1);
    }
    if (!status_is_ok(encoded) && encoded.code != STATUS_UNAVAILABLE) {
        link_close(to->link, false,
                   encoded.code == STATUS_LIMIT ? "the peer reads too slowly" : "out of memory");
    }
}

void session_reply_detail(struct server *s, uint64_t handle, uint64_t request, struct status status,
                          const char *text, uint64_t index, struct bytes detail)
{
    struct session *to = session_find(s, handle);
    if (to == NULL || request == 0) {
        return;
    }
    const struct message m = {
        .type = MESSAGE_REPLY,
        .request = request,
        .reply = {.code = status.code,
                  .message = text,
                  .index = index,
                  .detail = detail,
                  .leader = status.code == STATUS_NOT_LEADER ? members_leader_address(s) : ""}};
    session_send(s, to, &m);
}

void session_reply(struct server *s, struct session *to, uint64_t request, enum status_code code,
                   const char *text)
{
    session_reply_detail(s, to->handle, request, status_of(code), text, 0, bytes_of(NULL, 0));
}

void session_records_fail(struct server *s, struct session *to, uint64_t request,
                          enum status_code code, const char *text)
{
    const struct message m = {
        .type = MESSAGE_RECORDS,
        .request = request,
        .records = {.code = code,
                    .message = text,
                    .leader = code == STATUS_NOT_LEADER ? members_leader_address(s) : ""}};
    session_send(s, to, &m);
}

void session_who(const struct session *p, char out[2 * NAME_BYTES_MAX])
{
    const struct identity *who = link_peer(p->link);
    (void)snprintf(out, 2 * NAME_BYTES_MAX, "%s/%s", role_name(who->role), who->name.text);
}

/* ---- The core's environment ---- */

static void core_send(void *data, uint64_t peer, const struct message *m)
{
    struct server *s = data;
    if (s->payloads != NULL && payloads_send(s->payloads, peer, m)) {
        return; /* Once its payload is there. */
    }
    struct session *to = session_find(s, peer);
    if (to != NULL) {
        session_send(s, to, m);
    }
}

static struct status core_propose(void *data, uint64_t ticket, const struct command *c)
{
    struct server *s = data;
    struct buffer bytes = {0};
    struct status status = command_encode(c, &bytes);
    if (status_is_ok(status)) {
        status = seals_propose(s, ticket, c->type, bytes_of(bytes.data, bytes.size));
    }
    buffer_close(&bytes);
    return status;
}

static const char *core_refusal(void *data)
{
    struct server *s = data;
    return replica_refusal(s->replica);
}

/* From a pool: each draw from OpenSSL costs a system call, and every call takes two numbers. */
static uint64_t core_random(void *data)
{
    struct server *s = data;
    if (s->random_left == 0) {
        CHECK(RAND_bytes((unsigned char *)s->random, sizeof s->random) == 1);
        s->random_left = RANDOM_POOL;
    }
    return s->random[--s->random_left];
}

/* ---- The replica's events ---- */

static void revocations_refresh(struct server *s)
{
    const struct catalog *c = core_catalog(s->core);
    size_t count = 0;
    const char **what = mem_must(mem_zalloc(HASH_COUNT(c->revoked), sizeof *what));
    for (const struct catalog_revoked *r = c->revoked; r != NULL; r = r->hh.next) {
        what[count++] = r->what;
    }
    if (!status_is_ok(revocations_set(s->revocations, what, count))) {
        s->on_fatal(s->data, "out of memory for the revocation list");
    }
    mem_free(what);
}

static void close_if_revoked(void *arg, struct link *l)
{
    struct server *s = arg;
    if (revocations_hit(s->revocations, link_peer(l))) {
        LOG_INFO("revoked connection closed", LOG_STR("peer", link_address(l)),
                 LOG_STR("name", link_peer(l)->name.text),
                 LOG_STR("role", role_name(link_peer(l)->role)));
        link_close(l, false, "the certificate was revoked");
    }
}

static void on_apply(void *data, uint64_t index, uint64_t term, struct bytes bytes)
{
    (void)term;
    struct server *s = data;
    struct arena a = {0};
    struct command cmd;
    struct errmsg msg = {.text = ""};
    struct status decoded = seals_open_entry(s, bytes, &bytes, &msg);
    if (status_is_ok(decoded)) {
        decoded = command_decode(bytes, &a, &cmd, &msg);
    }
    if (!status_is_ok(decoded)) {
        /* Applying what others apply and this build cannot read would make it diverge. */
        LOG_ERROR("cannot read a committed command", LOG_UINT("index", index),
                  LOG_STR("why", msg.text));
        s->on_fatal(s->data, "a committed command cannot be read");
        arena_close(&a);
        return;
    }
    struct status applied = core_apply(s->core, server_now(s), index, &cmd, &msg);
    LOG_DEBUG("applied", LOG_UINT("index", index), LOG_STR("command", command_type_name(cmd.type)),
              LOG_STR("by", cmd.by), LOG_STR("outcome", status_name(applied.code)));
    if (cmd.type == COMMAND_REVOKE && status_is_ok(applied)) {
        revocations_refresh(s);
        link_hub_each(s->hub, close_if_revoked, s);
    }
    seals_applied(s, &cmd, applied);
    payload_port_applied(s, &cmd);
    arena_close(&a);
}

static void on_proposed(void *data, uint64_t ticket, struct status status, uint64_t index)
{
    struct server *s = data;
    core_proposed(s->core, server_now(s), ticket, status, index);
}

static void on_role(void *data, const struct replica_status *st)
{
    (void)st;
    members_role(data);
    seals_role(data);
}

static void *on_snapshot_pin(void *data)
{
    return seals_pin(data);
}

static struct status on_snapshot_encode(void *data, const void *pin, struct parts *out)
{
    return seals_encode(data, pin, out);
}

static void on_snapshot_unpin(void *data, void *pin)
{
    seals_unpin(data, pin);
}

static struct status on_restore(void *data, struct bytes bytes)
{
    struct server *s = data;
    struct errmsg msg = {.text = ""};
    makings_unpin(s);
    struct status status = seals_restore(s, bytes, &msg);
    if (!status_is_ok(status)) {
        LOG_ERROR("cannot restore the state", LOG_STR("why", msg.text));
        return status;
    }
    payloads_restored(s->payloads);
    revocations_refresh(s);
    return status_ok();
}

static void on_replica_fatal(void *data, const char *why)
{
    struct server *s = data;
    s->on_fatal(s->data, why);
}

static void on_replica_send(void *data, uint64_t member_id, const char *address, bool bulk,
                            struct bytes message)
{
    (void)address;
    struct server *s = data;
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        struct outbound *o = &s->outbound[i];
        if (!o->used || o->member_id != member_id) {
            continue;
        }
        struct session *to = o->sessions[bulk ? 1 : 0];
        if (to != NULL && to->hello) {
            const struct message m = {.type = MESSAGE_RAFT, .raft = {.data = message}};
            session_send(s, to, &m);
        }
        return; /* Not connected: Raft sends again. */
    }
}

/* ---- Links ---- */

static void send_hello(struct server *s, struct session *p)
{
    const struct message m = {.type = MESSAGE_HELLO,
                              .hello = {.version_min = version_own.min,
                                        .version_max = version_own.max,
                                        .build = SKEP_VERSION,
                                        .address = s->config->advertise}};
    session_send(s, p, &m);
}

static void on_open(void *data, struct link *l)
{
    struct server *s = data;
    struct session *p = mem_zalloc(1, sizeof *p);
    if (p == NULL) {
        link_close(l, false, "out of memory");
        return;
    }
    p->handle = ++s->handle_last;
    p->link = l;
    link_set_data(l, p);
    HASH_ADD(hh, s->sessions, handle, sizeof p->handle, p);
    send_hello(s, p);
}

/* A node has one connection: an older one of the same agent would be open and deaf from now on. */
static void close_older(struct server *s, const struct session *newest)
{
    const struct identity *who = link_peer(newest->link);
    for (struct session *p = s->sessions; p != NULL; p = p->hh.next) {
        const struct identity *other = link_peer(p->link);
        if (p != newest && p->hello && other->role == ROLE_AGENT &&
            strcmp(other->name.text, who->name.text) == 0) {
            LOG_WARN("agent connected anew", LOG_STR("name", who->name.text),
                     LOG_STR("old", link_address(p->link)),
                     LOG_STR("new", link_address(newest->link)));
            link_close(p->link, true, "made way for a newer connection of this node");
        }
    }
}

/* Logged once a session, whatever it goes on to send. */
static void refuse(struct server *s, struct session *p, uint64_t request, enum status_code code,
                   const char *text)
{
    if (!p->refused_logged) {
        p->refused_logged = true;
        LOG_WARN("message refused", LOG_STR("peer", link_address(p->link)),
                 LOG_STR("role", role_name(link_peer(p->link)->role)),
                 LOG_STR("name", link_peer(p->link)->name.text), LOG_STR("why", text));
    }
    session_reply(s, p, request == 0 ? 1 : request, code, text);
    link_close(p->link, true, text);
}

static void take_hello(struct server *s, struct session *p, const struct message *m)
{
    char own[sizeof "scheduler " + NAME_BYTES_MAX], peer[2 * NAME_BYTES_MAX];
    struct errmsg msg = {.text = ""};
    const struct identity *who = link_peer(p->link);
    (void)snprintf(own, sizeof own, "scheduler %s", s->own.name.text);
    (void)snprintf(peer, sizeof peer, "%s %s", role_name(who->role), who->name.text);
    if (!status_is_ok(version_check(own, peer, &m->hello, &msg))) {
        s->refused_hello++;
        refuse(s, p, m->request, STATUS_UNSUPPORTED, msg.text);
        return;
    }
    if (p->hello) {
        return;
    }
    p->hello = true;
    p->speaks = (struct version_range){.min = m->hello.version_min, .max = m->hello.version_max};
    (void)snprintf(p->build, sizeof p->build, "%s", m->hello.build);
    LOG_INFO("connected", LOG_STR("peer", link_address(p->link)),
             LOG_STR("role", role_name(who->role)), LOG_STR("name", who->name.text));
    if (link_dialled(p->link)) {
        members_connected(s, p);
    } else if (who->role == ROLE_USER || who->role == ROLE_AGENT) {
        if (who->role == ROLE_AGENT) {
            close_older(s, p);
        }
        core_peer_open(s->core, server_now(s), p->handle, who);
    }
}

static void on_message(void *data, struct link *l, struct bytes payload)
{
    struct server *s = data;
    struct session *p = link_data(l);
    if (p == NULL) {
        return;
    }
    struct message m;
    struct errmsg msg = {.text = ""};
    arena_reset(&s->decode);
    struct status decoded = message_decode(payload, &s->decode, &m, &msg);
    if (!status_is_ok(decoded)) {
        s->refused_malformed++;
        refuse(s, p, 0, decoded.code, msg.text);
        return;
    }
    enum role role = link_peer(l)->role;
    if (!roles_may_send(role, m.type)) {
        char text[ERRMSG_BYTES_MAX];
        (void)snprintf(text, sizeof text, "role %s may not send %s", role_name(role),
                       message_type_name(m.type));
        s->refused_role++;
        refuse(s, p, m.request, STATUS_DENIED, text);
        return;
    }
    if (m.type == MESSAGE_HELLO) {
        take_hello(s, p, &m);
    } else if (!p->hello) {
        s->refused_hello++;
        refuse(s, p, m.request, STATUS_DENIED, "the first message must be hello");
    } else {
        requests_receive(s, p, &m);
    }
}

static void on_close(void *data, struct link *l, struct status why, const char *reason)
{
    struct server *s = data;
    struct session *p = link_data(l);
    if (p == NULL) {
        return;
    }
    LOG_INFO("disconnected", LOG_STR("peer", link_address(l)),
             LOG_STR("role", role_name(link_peer(l)->role)),
             LOG_STR("name", link_peer(l)->name.text), LOG_STR("code", status_name(why.code)),
             LOG_STR("why", reason));
    if (p->outbound != NULL) {
        members_disconnected(s, p);
    }
    relays_session_closed(s, p->handle);
    backups_session_closed(s, p->handle);
    core_peer_close(s->core, server_now(s), p->handle);
    HASH_DEL(s->sessions, p);
    mem_free(p);
}

static void on_dial_failed(void *data, const char *address, struct status why, const char *reason)
{
    (void)data;
    LOG_DEBUG("dial failed", LOG_STR("peer", address), LOG_STR("code", status_name(why.code)),
              LOG_STR("why", reason));
}

static bool allow(void *data, const struct identity *peer)
{
    struct server *s = data;
    return !revocations_hit(s->revocations, peer);
}

/* ---- Opening ---- */

static struct status open_identity(struct server *s, struct errmsg *msg)
{
    const struct config_identity *files = &s->config->identity;
    TRY(pki_read(files->ca, false, &s->ca_pem, msg));
    TRY(pki_read(files->cert, false, &s->cert_pem, msg));
    TRY(pki_read(files->key, true, &s->key_pem, msg));
    if (s->config->ca_key != NULL) {
        TRY(pki_read(s->config->ca_key, true, &s->ca_key_pem, msg));
    }
    TRY(pki_check(s->ca_pem, s->cert_pem, s->key_pem, (int64_t)time(NULL), msg));
    TRY(pki_identity_of(s->cert_pem, &s->own, &s->cert_not_before_s, msg));
    if (s->own.role != ROLE_SCHEDULER || strcmp(s->own.name.text, s->config->id.text) != 0 ||
        strcmp(s->own.cluster.text, s->config->cluster.text) != 0) {
        return status_fail(
            msg, STATUS_INVALID,
            "certificate %s is for %s %s of cluster %s, not for scheduler %s of cluster %s",
            files->cert, role_name(s->own.role), s->own.name.text, s->own.cluster.text,
            s->config->id.text, s->config->cluster.text);
    }
    return status_ok();
}

static void on_tick(uv_timer_t *timer)
{
    struct server *s = timer->data;
    core_tick(s->core, server_now(s));
    payloads_tick(s->payloads);
}

static void on_maintenance(uv_timer_t *timer)
{
    struct server *s = timer->data;
    struct core_time now = server_now(s);
    members_maintain(s);
    seals_tick(s);
    deploys_tick(s, now.mono_us);
    backups_tick(s, now.mono_us);
    chunks_pull(s);
    chunks_collect(s);
    if (now.mono_us - s->renewed_check_us > (uint64_t)RENEW_CHECK_MS * 1000) {
        s->renewed_check_us = now.mono_us;
        renew_own(s);
    }
}

/* The parent must be there: a mistyped path is an error, not a new cluster. */
static struct status make_folder(const char *folder, struct errmsg *msg)
{
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", folder, strerror(errno));
    }
    return status_ok();
}

static struct status open_parts(struct server *s, struct errmsg *msg)
{
    TRY(open_identity(s, msg));
    TRY(make_folder(s->config->data, msg));
    const struct core_env env = {.data = s,
                                 .send = core_send,
                                 .propose = core_propose,
                                 .random = core_random,
                                 .payload_dropped = payload_port_dropped,
                                 .isolation_failed = stats_isolation_failed,
                                 .refusal = core_refusal};
    const struct core_config core_config = {0};
    s->core = core_new(&env, &core_config);
    s->revocations = revocations_new();
    if (s->core == NULL || s->revocations == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    char folder[CONFIG_PATH_BYTES_MAX + 16];
    (void)snprintf(folder, sizeof folder, "%s/chunks", s->config->data);
    TRY(seals_open(s, msg));
    TRY(chunk_store_open(&s->chunks, folder, s->config->chunk_bytes_max, msg));
    TRY(backups_open(s, msg));
    TRY(stats_open(s, msg));
    const struct tls_identity own = {
        .ca_pem = s->ca_pem, .cert_pem = s->cert_pem, .key_pem = s->key_pem};
    const struct link_limits limits = {.connections_max = s->config->connections_max,
                                       .send_queue_bytes = s->config->send_queue_bytes};
    const struct link_events events = {.data = s,
                                       .on_open = on_open,
                                       .on_message = on_message,
                                       .on_close = on_close,
                                       .on_dial_failed = on_dial_failed,
                                       .allow = allow};
    TRY(link_hub_open(&s->hub, s->loop, &own, &limits, &events, msg));
    return payload_port_open(s, msg); /* Last: it cannot be taken apart outside the loop. */
}

static struct status open_replica(struct server *s, struct errmsg *msg)
{
    char folder[CONFIG_PATH_BYTES_MAX + 16];
    (void)snprintf(folder, sizeof folder, "%s/raft", s->config->data);
    TRY(make_folder(folder, msg));
    const struct replica_config config = {.folder = folder,
                                          .id = member_id_of(s->config->id.text),
                                          .address = s->config->advertise,
                                          .election_timeout_ms = s->config->election_timeout_ms,
                                          .heartbeat_ms = s->config->heartbeat_ms,
                                          .snapshot_threshold = s->config->snapshot_entries,
                                          .ballast_bytes = s->config->ballast_bytes,
                                          .free_bytes_min = s->config->free_bytes_min,
                                          .random_seed = core_random(s)};
    if (replica_folder_empty(folder) && s->config->bootstrap && !replica_folder_waits(folder)) {
        struct replica_member members[REPLICA_MEMBERS_MAX] = {{.id = 0}};
        for (size_t i = 0; i < s->config->peers_count && i < REPLICA_MEMBERS_MAX; i++) {
            members[i].id = member_id_of(s->config->peers[i].id.text);
            members[i].role = REPLICA_VOTER;
            (void)snprintf(members[i].address, sizeof members[i].address, "%s",
                           s->config->peers[i].address);
        }
        TRY(replica_bootstrap(&config, members, s->config->peers_count, msg));
        LOG_INFO("founded a new cluster", LOG_UINT("members", s->config->peers_count));
    }
    const struct replica_events events = {.data = s,
                                          .send = on_replica_send,
                                          .on_apply = on_apply,
                                          .on_proposed = on_proposed,
                                          .on_role = on_role,
                                          .snapshot_pin = on_snapshot_pin,
                                          .snapshot_encode = on_snapshot_encode,
                                          .snapshot_unpin = on_snapshot_unpin,
                                          .restore = on_restore,
                                          .on_fatal = on_replica_fatal};
    return replica_open(&s->replica, s->loop, &config, &events, msg);
}

static void server_free(struct server *s)
{
    backups_close(s);
    core_free(s->core);
    seals_close(s);
    chunk_store_close(s->chunks);
    payload_store_close(s->payload_store);
    revocations_free(s->revocations);
    metrics_free(s->metrics);
    mem_free(s->ca_pem);
    mem_free(s->cert_pem);
    pki_key_free(s->key_pem);
    pki_key_free(s->ca_key_pem);
    mem_free(s->stats);
    arena_close(&s->decode);
    buffer_close(&s->encode);
    mem_free(s);
}

struct status server_open(struct server **out, uv_loop_t *loop,
                          const struct scheduler_config *config, const struct server_events *events,
                          struct errmsg *msg)
{
    struct server *s = mem_zalloc(1, sizeof *s);
    if (s == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    s->loop = loop;
    s->config = config;
    s->on_stopped = events->on_stopped;
    s->on_fatal = events->on_fatal;
    s->data = events->data;
    struct status status = open_parts(s, msg);
    if (status_is_ok(status)) {
        /* From here on a failure ends the process: what runs on the loop is not taken apart
         * again. */
        status = link_hub_listen(s->hub, config->listen, &s->port, msg);
    }
    if (status_is_ok(status)) {
        status = open_replica(s, msg);
    }
    if (status_is_ok(status)) {
        status = members_open(s, msg);
    }
    if (!status_is_ok(status)) {
        if (s->hub == NULL) {
            server_free(s);
        }
        return status;
    }
    CHECK(uv_timer_init(loop, &s->tick) == 0);
    CHECK(uv_timer_init(loop, &s->maintenance) == 0);
    s->tick.data = s;
    s->maintenance.data = s;
    CHECK(uv_timer_start(&s->tick, on_tick, CORE_TICK_MS, CORE_TICK_MS) == 0);
    CHECK(uv_timer_start(&s->maintenance, on_maintenance, 0, MAINTENANCE_MS) == 0);
    *out = s;
    return status_ok();
}

uint16_t server_port(const struct server *s)
{
    return s->port;
}

/* ---- Stopping: leadership is handed over -> links -> replica -> payloads -> timers -> free
 * ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    struct server *s = handle->data;
    if (!uv_is_closing((uv_handle_t *)&s->tick) || ++s->timers_closed < 2) {
        return;
    }
    void (*stopped)(void *) = s->on_stopped;
    void *data = s->data;
    server_free(s);
    stopped(data);
}

static void on_payloads_closed(void *data)
{
    struct server *s = data;
    s->payloads = NULL;
    uv_close((uv_handle_t *)&s->tick, on_timer_closed);
    uv_close((uv_handle_t *)&s->maintenance, on_timer_closed);
}

static void on_replica_closed(void *data)
{
    struct server *s = data;
    payloads_close(s->payloads, on_payloads_closed, s);
}

static void close_replica(struct server *s)
{
    replica_close(s->replica, on_replica_closed, s);
}

static void on_hub_closed(void *data)
{
    struct server *s = data;
    struct session *p, *next;
    HASH_ITER(hh, s->sessions, p, next) {
        HASH_DEL(s->sessions, p);
        mem_free(p);
    }
    backups_stop(s, close_replica);
}

static void close_now(struct server *s)
{
    if (!s->closing) {
        s->closing = true;
        link_hub_close(s->hub, on_hub_closed, s);
    }
}

static void on_handed_over(void *data, struct status status, const char *message)
{
    LOG_INFO("leadership handed over", LOG_STR("outcome", status_name(status.code)),
             LOG_STR("why", message));
    close_now(data);
}

void server_stop(struct server *s)
{
    if (s->stopping) {
        return;
    }
    s->stopping = true;
    (void)uv_timer_stop(&s->tick);
    (void)uv_timer_stop(&s->maintenance);
    if (replica_status(s->replica).leader && members_majority(s) > 1) {
        replica_transfer(s->replica, 0, on_handed_over, s);
    } else {
        close_now(s);
    }
}

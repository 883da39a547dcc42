#include "scheduler/api/payload_port.h"

#include "common/seal/payload_seal.h"
#include "scheduler/api/payloads.h"
#include "scheduler/api/seals.h"
#include "scheduler/api/server_internal.h"
#include "scheduler/core/spec.h"

#include <stdio.h>
#include <string.h>

/* So that the log beside the payloads can go on when the disk fills up. */
#define FREE_BYTES_MIN (UINT64_C(512) << 20)

/* ---- The environment ---- */

static uint64_t now_us(void *data)
{
    return server_now(data).mono_us;
}

static bool leader(void *data)
{
    const struct server *s = data;
    return core_is_leader(s->core);
}

static bool settled(void *data)
{
    struct server *s = data;
    struct replica_status st = replica_status(s->replica);
    if (!s->payload_log_known) {
        s->payload_log_known = true;
        s->payload_log_last = st.last_index;
    }
    /* A new leader may have cut off what the log ended with. */
    uint64_t last = s->payload_log_last < st.last_index ? s->payload_log_last : st.last_index;
    return (st.leader || st.leader_id != 0) && st.applied_index >= last;
}

static size_t majority(void *data)
{
    return members_majority(data);
}

static size_t others(void *data, struct payloads_other out[PAYLOADS_OTHERS_MAX])
{
    const struct server *s = data;
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(s->replica, members), used = 0;
    for (size_t i = 0; i < OUTBOUND_MAX && used < PAYLOADS_OTHERS_MAX; i++) {
        const struct outbound *o = &s->outbound[i];
        if (!o->used) {
            continue;
        }
        const struct session *bulk = o->sessions[1];
        struct payloads_other other = {.member = o->member_id,
                                       .peer = bulk != NULL && bulk->hello ? bulk->handle : 0};
        for (size_t k = 0; k < count; k++) {
            other.voter =
                other.voter || (members[k].id == o->member_id && members[k].role == REPLICA_VOTER);
        }
        out[used++] = other;
    }
    return used;
}

static bool peer_open(void *data, uint64_t peer)
{
    return session_find(data, peer) != NULL;
}

static uint64_t peer_queued(void *data, uint64_t peer)
{
    const struct session *p = session_find(data, peer);
    return p == NULL ? 0 : link_queued_bytes(p->link);
}

static void send_to(void *data, uint64_t peer, const struct message *m)
{
    struct session *to = session_find(data, peer);
    if (to != NULL) {
        session_send(data, to, m);
    }
}

static void to_core(void *data, uint64_t peer, const struct message *m)
{
    struct server *s = data;
    if (session_find(s, peer) != NULL) {
        core_receive(s->core, server_now(s), peer, m);
    }
}

static const char *leader_address(void *data)
{
    return members_leader_address(data);
}

static enum payloads_class function_class(void *data, const char *function)
{
    const struct server *s = data;
    const struct catalog_function *f = catalog_function_find(core_catalog(s->core), function);
    if (f == NULL) {
        return PAYLOADS_UNKNOWN;
    }
    return spec_is_sensitive(&catalog_current(f)->spec) ? PAYLOADS_SENSITIVE : PAYLOADS_ORDINARY;
}

static bool invocation_sensitive(void *data, struct id128 invocation)
{
    const struct server *s = data;
    return core_invocation_sensitive(s->core, invocation);
}

static void each_named(void *data, void (*fn)(void *arg, const struct digest *payload), void *arg)
{
    const struct server *s = data;
    core_payloads(s->core, fn, arg);
}

/* ---- Sealing ---- */

static struct status seal(void *data, const struct digest *digest, struct bytes plain,
                          struct buffer *file, struct buffer *key_file)
{
    return payload_seal(data, digest, plain, file, key_file);
}

static struct status unseal(void *data, const struct digest *digest, struct bytes file,
                            struct bytes key_file, struct buffer *plain)
{
    return payload_open(data, digest, file, key_file, plain);
}

/* ---- Opening ---- */

static uint64_t room_of(const struct scheduler_config *c)
{
    uint64_t room = c->send_queue_bytes / 2;
    return room < PAYLOAD_ROOM_BYTES ? room : PAYLOAD_ROOM_BYTES;
}

struct status payload_port_open(struct server *s, struct errmsg *msg)
{
    static const struct payloads_env env = {.now_us = now_us,
                                            .leader = leader,
                                            .settled = settled,
                                            .majority = majority,
                                            .others = others,
                                            .peer_open = peer_open,
                                            .peer_queued = peer_queued,
                                            .send = send_to,
                                            .core = to_core,
                                            .leader_address = leader_address,
                                            .function_class = function_class,
                                            .invocation_sensitive = invocation_sensitive,
                                            .each_named = each_named};
    char folder[CONFIG_PATH_BYTES_MAX + 16];
    (void)snprintf(folder, sizeof folder, "%s/payloads", s->config->data);
    struct payload_store_config store = {.folder = folder,
                                         .bytes_max = s->config->payload_bytes_max,
                                         .free_bytes_min = FREE_BYTES_MIN};
    if (seals_keyring(s) != NULL) {
        store.sealing = (struct payload_sealing){
            .data = seals_keyring(s), .seal = seal, .open = unseal, .shred = payload_key_shred};
    }
    TRY(payload_store_open(&s->payload_store, &store, msg));
    struct payloads_env own = env;
    own.data = s;
    const struct payloads_config config = {.room_bytes = room_of(s->config)};
    s->payloads = payloads_new(s->loop, s->payload_store, &own, &config);
    return s->payloads != NULL ? status_ok() : status_fail(msg, STATUS_NOMEM, "out of memory");
}

/* ---- Events ---- */

/* Users put payloads to restore a backup: before its state is there, or what it names. */
static bool restores(const struct server *s, const struct message *m)
{
    bool empty = core_catalog(s->core)->functions == NULL && core_stats(s->core).jobs == 0;
    return empty || core_payload_named(s->core, &m->payload_put.digest);
}

void payload_port_receive(struct server *s, struct session *from, const struct message *m)
{
    if (m->type == MESSAGE_PAYLOAD_PUT && link_peer(from->link)->role == ROLE_USER &&
        !restores(s, m)) {
        session_reply(s, from, m->request, STATUS_DENIED,
                      "payloads are put only into an empty cluster, to restore a backup");
        return;
    }
    payloads_receive(s->payloads, from->handle, m);
}

void payload_port_dropped(void *data, const struct digest *payload)
{
    struct server *s = data;
    if (s->payloads != NULL) { /* The core is older, and outlives it. */
        payloads_dropped(s->payloads, payload);
    }
}

void payload_port_applied(struct server *s, const struct command *cmd)
{
    if (cmd->type == COMMAND_SPAWN) {
        payloads_named(s->payloads, &cmd->command_spawn.payload_ref);
    } else if (cmd->type == COMMAND_FINISH) {
        payloads_named(s->payloads, &cmd->command_finish.output_ref);
    } else if (cmd->type == COMMAND_RESTORE) {
        payloads_restored(s->payloads);
    }
}

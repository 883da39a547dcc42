#include "scheduler/api/seals_internal.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/seal/keys_file.h"
#include "common/seal/snapshot_seal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Rotated long before SEAL_MESSAGES_MAX. */
#define ROTATE_AT (UINT64_C(1) << 31)

enum { PUT_RETRY_MS = 10 * 1000 };

struct seal_pin {
    struct core_pin *core;
    struct buffer keys; /* encoded */
    uint32_t key_id;    /* 0: not sealed */
};

static const struct key_table *keys_of(const struct server *s)
{
    return &core_catalog(s->core)->keys;
}

struct keyring *seals_keyring(struct server *s)
{
    return s->seals == NULL ? NULL : s->seals->ring;
}

/* ---- The data keys ---- */

static struct cluster_key *wrapper_of(const struct seals *k, const char *fingerprint)
{
    if (strcmp(cluster_key_fingerprint(k->cluster), fingerprint) == 0) {
        return k->cluster;
    }
    return k->old != NULL && strcmp(cluster_key_fingerprint(k->old), fingerprint) == 0 ? k->old
                                                                                       : NULL;
}

static struct status fail_foreign(const struct seals *k, const char *fingerprint,
                                  struct errmsg *msg)
{
    return status_fail(msg, STATUS_DENIED,
                       "the state was sealed by cluster key %.40s, this scheduler has %s%s%s: give "
                       "it that key in seal.cluster_key, or in seal.cluster_key_old",
                       fingerprint, cluster_key_fingerprint(k->cluster),
                       k->old == NULL ? "" : " and ",
                       k->old == NULL ? "" : cluster_key_fingerprint(k->old));
}

/* Unwraps the key into the keyring. One that is there already may be wrapped by a stranger: the log
 * tells of wrappers that were replaced since. */
static struct status learn(struct seals *k, uint32_t id, const char *wrapped_by,
                           struct bytes wrapped, struct errmsg *msg)
{
    AUTO_SEAL_KEY struct seal_key key;
    struct cluster_key *by = wrapper_of(k, wrapped_by);
    bool known = status_is_ok(keyring_find(k->ring, id, &key));
    if (by == NULL) {
        return known ? status_ok() : fail_foreign(k, wrapped_by, msg);
    }
    TRY(cluster_key_unwrap(by, id, wrapped, &key, msg));
    struct status s = keyring_put(k->ring, id, &key);
    k->file_stale = k->file_stale || !known || by != k->cluster;
    return status_is_ok(s) ? s
                           : status_fail(msg, s.code, "data key %u: %s", id,
                                         s.code == STATUS_CONFLICT ? "another key has this id"
                                                                   : status_text(s.code));
}

static struct status learn_all(struct seals *k, const struct state *keys, struct errmsg *msg)
{
    for (size_t i = 0; i < keys->keys_count; i++) {
        const struct state_key *key = &keys->keys[i];
        TRY(learn(k, key->key, key->wrapped_by, key->wrapped, msg));
    }
    return status_ok();
}

/* ---- DATA/keys ---- */

static void file_path(const struct server *s, char out[CONFIG_PATH_BYTES_MAX + 16])
{
    (void)snprintf(out, CONFIG_PATH_BYTES_MAX + 16, "%s/keys", s->config->data);
}

static struct status own_wrap(struct seals *k, uint32_t id, struct arena *a, struct state_key *out,
                              struct errmsg *msg)
{
    AUTO_SEAL_KEY struct seal_key key;
    struct buffer wrapped = {0};
    TRY(keyring_find(k->ring, id, &key));
    struct status s = cluster_key_wrap(k->cluster, id, &key, &wrapped, msg);
    uint8_t *copy = status_is_ok(s) ? arena_alloc(a, wrapped.size) : NULL;
    if (copy != NULL) {
        memcpy(copy, wrapped.data, wrapped.size);
        *out = (struct state_key){.key = id,
                                  .wrapped = {copy, wrapped.size},
                                  .wrapped_by = cluster_key_fingerprint(k->cluster)};
    } else if (status_is_ok(s)) {
        s = status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    buffer_close(&wrapped);
    return s;
}

/* All keys of the keyring, wrapped by our own cluster key, whatever wraps them in the state. */
static struct status file_write(struct server *s, struct errmsg *msg)
{
    uint32_t count = keyring_current(s->seals->ring);
    struct arena a = {0};
    struct buffer content = {0};
    struct state state = {.keys = arena_zalloc(&a, count, sizeof state.keys[0])};
    struct status status = status_of(state.keys == NULL ? STATUS_NOMEM : STATUS_OK);
    for (uint32_t id = 1; id <= count && status_is_ok(status); id++) {
        status = own_wrap(s->seals, id, &a, &state.keys[state.keys_count++], msg);
    }
    if (status_is_ok(status)) {
        status = state_encode(&state, &content);
    }
    if (status_is_ok(status)) {
        char path[CONFIG_PATH_BYTES_MAX + 16];
        file_path(s, path);
        status = keys_file_write(path, bytes_of(content.data, content.size), msg);
    }
    buffer_close(&content);
    arena_close(&a);
    return status;
}

/* The log can still be opened by its own command_key_put: a failure is told, no more. */
static void file_refresh(struct server *s)
{
    struct errmsg msg = {.text = ""};
    if (!s->seals->file_stale) {
        return;
    }
    struct status status = file_write(s, &msg);
    if (!status_is_ok(status)) {
        LOG_ERROR("cannot write the wrapped data keys", LOG_STR("code", status_name(status.code)),
                  LOG_STR("why", msg.text));
        return;
    }
    s->seals->file_stale = false;
}

static struct status file_use(struct server *s, struct bytes content, struct errmsg *msg)
{
    struct arena a = {0};
    struct state state;
    struct status status = state_decode(content, &a, &state, msg);
    if (status_is_ok(status) && state.keys_count > 0 && s->seals == NULL) {
        status = status_fail(msg, STATUS_DENIED,
                             "the state in %s was sealed by cluster key %.40s, this scheduler has "
                             "none: name it in seal.cluster_key",
                             s->config->data, state.keys[state.keys_count - 1].wrapped_by);
    } else if (status_is_ok(status) && s->seals != NULL) {
        status = learn_all(s->seals, &state, msg);
        s->seals->file_stale = false; /* but for keys that the old cluster key wrapped: */
        for (size_t i = 0; i < state.keys_count; i++) {
            s->seals->file_stale |= wrapper_of(s->seals, state.keys[i].wrapped_by) == s->seals->old;
        }
    }
    arena_close(&a);
    return status;
}

static struct status file_read(struct server *s, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 16], raft[CONFIG_PATH_BYTES_MAX + 16];
    struct buffer content = {0};
    file_path(s, path);
    (void)snprintf(raft, sizeof raft, "%s/raft", s->config->data);
    bool founds = s->config->bootstrap && !replica_folder_waits(raft);
    if (founds && (access(raft, F_OK) != 0 || replica_folder_empty(raft))) {
        (void)unlink(path); /* of a state that is no longer there: a new cluster has new keys */
        return status_ok();
    }
    struct status status = keys_file_read(path, &content, msg);
    if (status.code == STATUS_NOT_FOUND) {
        return status_ok();
    }
    if (status_is_ok(status)) {
        status = file_use(s, bytes_of(content.data, content.size), msg);
    }
    buffer_close(&content);
    if (status_is_ok(status) && s->seals != NULL) {
        file_refresh(s);
    }
    return status;
}

/* ---- Opening and closing ---- */

static struct status open_parts(struct server *s, struct errmsg *msg)
{
    const struct config_seal *c = &s->config->seal;
    struct seals *k = s->seals;
    TRY(cluster_key_open(c->cluster_key, c->pkcs11_module, &k->cluster, msg));
    if (c->cluster_key_old != NULL) {
        TRY(status_prefix(msg, cluster_key_open(c->cluster_key_old, c->pkcs11_module, &k->old, msg),
                          "seal.cluster_key_old"));
    }
    k->ring = keyring_new();
    k->sealer = sealer_new();
    k->held = mem_zalloc(SEALS_HELD_MAX, sizeof *k->held);
    if (k->ring == NULL || k->sealer == NULL || k->held == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    if (!keyring_locked(k->ring)) {
        LOG_WARN("data keys are not locked in memory: raise the limit of locked memory",
                 LOG_STR("limit", "RLIMIT_MEMLOCK"));
    }
    LOG_INFO("sealing", LOG_STR("cluster_key", cluster_key_fingerprint(k->cluster)));
    return status_ok();
}

struct status seals_open(struct server *s, struct errmsg *msg)
{
    if (s->config->seal.cluster_key == NULL) {
        TRY(file_read(s, msg));
        LOG_WARN("nothing on disk is sealed: the configuration names no seal.cluster_key");
        return status_ok();
    }
    s->seals = mem_zalloc(1, sizeof *s->seals);
    if (s->seals == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    TRY(open_parts(s, msg));
    return file_read(s, msg);
}

static void held_drop(struct seals *k, struct server *s, struct status why)
{
    size_t count = k->held_count;
    struct held *held = k->held;
    k->held_count = 0;
    k->held_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        mem_wipe(held[i].command, held[i].size);
        mem_free(held[i].command);
        if (s != NULL) {
            core_proposed(s->core, server_now(s), held[i].ticket, why, 0);
        }
    }
}

void seals_close(struct server *s)
{
    struct seals *k = s->seals;
    if (k == NULL) {
        return;
    }
    if (k->held != NULL) {
        held_drop(k, NULL, status_ok());
    }
    mem_free(k->held);
    buffer_close(&k->sealed);
    if (k->opened.data != NULL) {
        mem_wipe(k->opened.data, k->opened.capacity);
    }
    buffer_close(&k->opened);
    seal_key_wipe(&k->log_key);
    sealer_free(k->sealer);
    keyring_free(k->ring);
    cluster_key_free(k->cluster);
    cluster_key_free(k->old);
    mem_free(k);
    s->seals = NULL;
}

/* ---- Log entries ---- */

static struct bytes log_aad(void)
{
    static const char aad[] = "log";
    return bytes_of(aad, sizeof aad - 1);
}

/* Derives the log's key of a data key, unless it is the last one used. */
static struct status log_key(struct seals *k, uint32_t id)
{
    if (k->log_id == id) {
        return status_ok();
    }
    AUTO_SEAL_KEY struct seal_key data_key;
    TRY(keyring_find(k->ring, id, &data_key));
    k->log_id = 0;
    TRY(seal_derive(&data_key, "log", bytes_of(NULL, 0), &k->log_key));
    k->log_id = id;
    return status_ok();
}

/* At most so many entries were sealed under the current key: those that the log has since it was
 * made, by whomever, and those of this process, which may not all have got there. */
static uint64_t entries_under(const struct server *s, const struct data_key *current)
{
    uint64_t in_log = core_catalog(s->core)->index - current->index;
    uint64_t here = s->seals->counted_id == current->id ? s->seals->sealed_count : 0;
    return in_log + here;
}

static struct status propose_sealed(struct server *s, uint64_t ticket,
                                    const struct data_key *current, struct bytes command)
{
    struct seals *k = s->seals;
    if (k->counted_id != current->id) {
        k->counted_id = current->id;
        k->sealed_count = 0;
    }
    if (entries_under(s, current) >= SEAL_MESSAGES_MAX) {
        return status_of(STATUS_LIMIT);
    }
    TRY(log_key(k, current->id));
    k->sealed.size = 0;
    TRY(buffer_put_u8(&k->sealed, SEALED_ENTRY));
    TRY(sealer_seal(k->sealer, current->id, &k->log_key, log_aad(), command, &k->sealed));
    k->sealed_count++;
    return replica_propose(s->replica, ticket, bytes_of(k->sealed.data, k->sealed.size));
}

static struct status hold(struct seals *k, uint64_t ticket, struct bytes command)
{
    if (k->held_count == SEALS_HELD_MAX || command.size > SEALS_HELD_BYTES_MAX - k->held_bytes) {
        return status_of(STATUS_LIMIT);
    }
    uint8_t *copy = mem_dup(command.data, command.size);
    if (copy == NULL) {
        return status_of(STATUS_NOMEM);
    }
    k->held[k->held_count++] = (struct held){ticket, copy, command.size};
    k->held_bytes += command.size;
    return status_ok();
}

struct status seals_propose(struct server *s, uint64_t ticket, enum command_type type,
                            struct bytes command)
{
    if (s->seals == NULL || type == COMMAND_KEY_PUT) {
        return replica_propose(s->replica, ticket, command);
    }
    const struct data_key *current = keys_current(keys_of(s));
    return current == NULL ? hold(s->seals, ticket, command)
                           : propose_sealed(s, ticket, current, command);
}

/* The first data key is there: what waited for it goes on, in its order. */
static void held_release(struct server *s)
{
    struct seals *k = s->seals;
    const struct data_key *current = keys_current(keys_of(s));
    size_t count = k->held_count;
    for (size_t i = 0; i < count; i++) {
        struct held *h = &k->held[i];
        struct status status = propose_sealed(s, h->ticket, current, bytes_of(h->command, h->size));
        if (!status_is_ok(status)) {
            core_proposed(s->core, server_now(s), h->ticket, status, 0);
        }
        mem_wipe(h->command, h->size);
        mem_free(h->command);
    }
    k->held_count = 0;
    k->held_bytes = 0;
}

struct status seals_open_entry(struct server *s, struct bytes entry, struct bytes *out,
                               struct errmsg *msg)
{
    if (entry.size == 0 || entry.data[0] != SEALED_ENTRY) {
        *out = entry;
        return status_ok();
    }
    struct seals *k = s->seals;
    struct bytes sealed = bytes_of(entry.data + 1, entry.size - 1);
    uint32_t id = seal_key_id(sealed);
    if (k == NULL) {
        return status_fail(msg, STATUS_DENIED,
                           "the log is sealed, and this scheduler has no cluster key: name it in "
                           "seal.cluster_key");
    }
    struct status status = log_key(k, id);
    if (!status_is_ok(status)) {
        return status_fail(msg, status.code, "data key %u, which sealed the entry, is not known",
                           id);
    }
    k->opened.size = 0;
    status = sealer_open(k->sealer, &k->log_key, log_aad(), sealed, &k->opened);
    if (!status_is_ok(status)) {
        return status_fail(msg, status.code, "the sealed entry is damaged");
    }
    *out = bytes_of(k->opened.data, k->opened.size);
    return status_ok();
}

/* ---- New keys ---- */

struct putting {
    struct server *server;
    core_done done;
    void *data;
};

static void put_later(struct server *s, struct status status)
{
    if (status.code != STATUS_NOT_LEADER) {
        s->seals->put_after_us = server_now(s).mono_us + (uint64_t)PUT_RETRY_MS * 1000;
    }
}

static void on_put(void *data, struct status status, const char *message, uint64_t index)
{
    struct putting p = *(struct putting *)data;
    mem_free(data);
    p.server->seals->putting = false;
    if (!status_is_ok(status)) {
        LOG_WARN("no new data key", LOG_STR("code", status_name(status.code)),
                 LOG_STR("why", message));
        put_later(p.server, status);
    }
    if (p.done != NULL) {
        p.done(p.data, status, message, index);
    }
}

static struct status put_wrapped(struct server *s, const char *by, struct buffer *wrapped,
                                 struct putting *p, struct errmsg *msg)
{
    AUTO_SEAL_KEY struct seal_key key;
    struct seals *k = s->seals;
    uint32_t id = (uint32_t)keys_of(s)->count + 1;
    if (!status_is_ok(seal_key_make(&key))) {
        return status_fail(msg, STATUS_IO, "the system gives no random bytes");
    }
    TRY(cluster_key_wrap(k->cluster, id, &key, wrapped, msg));
    const struct command cmd = {
        .type = COMMAND_KEY_PUT,
        .by = by,
        .command_key_put = {.key = id,
                            .wrapped = bytes_of(wrapped->data, wrapped->size),
                            .wrapped_by = cluster_key_fingerprint(k->cluster)}};
    k->putting = true;
    core_submit(s->core, server_now(s), &cmd, on_put, p);
    return status_ok();
}

struct status seals_put_key(struct server *s, const char *by, core_done done, void *data,
                            struct errmsg *msg)
{
    if (s->seals->putting) {
        return status_fail(msg, STATUS_CONFLICT, "a new data key is on its way already");
    }
    if (keys_of(s)->count >= KEYS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "there are %d data keys, the most there may be",
                           KEYS_MAX);
    }
    struct putting *p = mem_zalloc(1, sizeof *p);
    if (p == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    *p = (struct putting){.server = s, .done = done, .data = data};
    struct buffer wrapped = {0};
    struct status status = put_wrapped(s, by, &wrapped, p, msg);
    if (!status_is_ok(status)) {
        mem_free(p);
    }
    buffer_close(&wrapped);
    return status;
}

void seals_tick(struct server *s)
{
    struct errmsg msg = {.text = ""};
    if (s->seals == NULL || s->seals->putting || !core_is_leader(s->core) ||
        server_now(s).mono_us < s->seals->put_after_us) {
        return;
    }
    const struct data_key *current = keys_current(keys_of(s));
    if (current != NULL && entries_under(s, current) < ROTATE_AT) {
        return;
    }
    struct status status = seals_put_key(s, "scheduler", NULL, NULL, &msg);
    if (!status_is_ok(status)) {
        LOG_ERROR("cannot make a data key", LOG_STR("code", status_name(status.code)),
                  LOG_STR("why", msg.text));
        put_later(s, status);
    }
}

void seals_role(struct server *s)
{
    if (s->seals == NULL) {
        return;
    }
    if (!core_is_leader(s->core)) {
        held_drop(s->seals, s, status_of(STATUS_NOT_LEADER));
    }
    s->seals->put_after_us = 0;
    seals_tick(s);
}

void seals_applied(struct server *s, const struct command *cmd, struct status outcome)
{
    if (cmd->type != COMMAND_KEY_PUT || !status_is_ok(outcome)) {
        return;
    }
    const struct command_key_put *put = &cmd->command_key_put;
    struct errmsg msg = {.text = ""};
    struct status status =
        s->seals == NULL
            ? status_fail(&msg, STATUS_DENIED,
                          "the cluster is sealed by cluster key %.40s, this scheduler has none: "
                          "name it in seal.cluster_key",
                          put->wrapped_by)
            : learn(s->seals, put->key, put->wrapped_by, put->wrapped, &msg);
    if (!status_is_ok(status)) {
        s->on_fatal(s->data, msg.text);
        return;
    }
    LOG_INFO("data key", LOG_UINT("key", put->key), LOG_STR("wrapped_by", put->wrapped_by),
             LOG_BOOL("rewrapped", put->rewrap));
    if (put->rewrap && wrapper_of(s->seals, put->wrapped_by) == NULL) {
        LOG_WARN("a data key is now wrapped by a cluster key that this scheduler lacks",
                 LOG_UINT("key", put->key), LOG_STR("needed", put->wrapped_by),
                 LOG_STR("have", cluster_key_fingerprint(s->seals->cluster)));
    }
    file_refresh(s);
    held_release(s);
}

/* ---- Snapshots ---- */

static struct status encode_keys(const struct server *s, struct buffer *out)
{
    struct arena a = {0};
    struct state state = {.index = 0};
    struct status status = keys_export(keys_of(s), &a, &state);
    if (status_is_ok(status)) {
        status = state_encode(&state, out);
    }
    arena_close(&a);
    return status;
}

struct status seals_keys(const struct server *s, struct buffer *out)
{
    return keys_of(s)->count == 0 ? status_ok() : encode_keys(s, out);
}

void *seals_pin(struct server *s)
{
    struct seal_pin *p = mem_zalloc(1, sizeof *p);
    const struct data_key *current = s->seals == NULL ? NULL : keys_current(keys_of(s));
    if (p == NULL) {
        return NULL;
    }
    struct status status = status_ok();
    if (current != NULL) {
        p->key_id = current->id;
        status = encode_keys(s, &p->keys);
    }
    p->core = status_is_ok(status) ? core_pin(s->core) : NULL;
    if (p->core == NULL) {
        buffer_close(&p->keys);
        mem_free(p);
        return NULL;
    }
    return p;
}

struct status seals_encode(struct server *s, const void *pin, struct parts *out)
{
    const struct seal_pin *p = pin;
    if (p->key_id == 0) {
        return core_pin_encode(p->core, out);
    }
    struct parts plain = {0};
    struct status status = core_pin_encode(p->core, &plain);
    if (status_is_ok(status)) {
        status = snapshot_seal(s->seals->ring, p->key_id, bytes_of(p->keys.data, p->keys.size),
                               &plain, out);
    }
    parts_close(&plain);
    return status;
}

void seals_unpin(struct server *s, void *pin)
{
    struct seal_pin *p = pin;
    core_unpin(s->core, p->core);
    buffer_close(&p->keys);
    mem_free(p);
}

static struct status learn_head(struct server *s, struct bytes wrapped_keys, struct errmsg *msg)
{
    struct arena a = {0};
    struct state state;
    struct status status = state_decode(wrapped_keys, &a, &state, msg);
    if (status_is_ok(status) && s->seals == NULL) {
        status =
            status_fail(msg, STATUS_DENIED,
                        "the state was sealed by cluster key %.40s, this scheduler has none: "
                        "name it in seal.cluster_key",
                        state.keys_count == 0 ? "" : state.keys[state.keys_count - 1].wrapped_by);
    } else if (status_is_ok(status)) {
        status = learn_all(s->seals, &state, msg);
    }
    arena_close(&a);
    return status;
}

static struct status restore_sealed(struct server *s, struct bytes stored, struct errmsg *msg)
{
    struct snapshot_head head;
    struct buffer plain = {0};
    TRY(snapshot_head_read(stored, &head, msg));
    TRY(learn_head(s, head.wrapped_keys, msg));
    struct status status = snapshot_open(s->seals->ring, &head, &plain, msg);
    if (status_is_ok(status)) {
        status = core_restore(s->core, server_now(s), bytes_of(plain.data, plain.size), msg);
    }
    buffer_close(&plain);
    if (status_is_ok(status)) {
        file_refresh(s);
    }
    return status;
}

struct status seals_restore(struct server *s, struct bytes stored, struct errmsg *msg)
{
    return snapshot_is_sealed(stored) ? restore_sealed(s, stored, msg)
                                      : core_restore(s->core, server_now(s), stored, msg);
}

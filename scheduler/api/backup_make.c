#include "scheduler/api/backup_make.h"

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/parts.h"
#include "common/payloads/disk.h"
#include "common/payloads/payload_store.h"
#include "common/pki/pki.h"
#include "common/seal/keyring.h"
#include "scheduler/api/digests.h"
#include "scheduler/api/image_chunks.h"
#include "scheduler/api/offload.h"
#include "scheduler/api/seals.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FREE_CHECK_BLOCKS = 64 };
/* Left for the log and the stores beside it; on a small disk, a share of it. */
#define FREE_BYTES_MIN (UINT64_C(1) << 30)

struct making {
    struct server *server; /* of the loop */
    struct offload offload;
    struct core_pin *pin;
    const struct chunk_store *chunks;
    struct payload_store *payloads;
    struct backup_header header;
    struct buffer wrapped; /* u32 key id, the wrapped data key */
    struct sealer *sealer; /* NULL: the cluster seals nothing */
    struct seal_key key;
    uint32_t key_id;
    char *cert_pem, *key_pem;
    struct digests code, named, gone;
    int fd;
    unsigned blocks;
    atomic_bool canceled, encoded; /* encoded: the pin is not needed any more */
    struct status status;
    struct errmsg msg;
    uint64_t bytes;
    struct backup_totals totals;
    made_fn done;
    void *data;
    struct making *prev, *next;
};

/* ---- The folder ---- */

static void folder_path(const struct server *s, const char *name, char *out, size_t out_size)
{
    (void)snprintf(out, out_size, "%s/" BACKUP_TMP_FOLDER "%s%s", s->config->data,
                   name[0] == '\0' ? "" : "/", name);
}

struct status making_folder(const struct server *s, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 64];
    folder_path(s, "", path, sizeof path);
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        if (d->d_name[0] != '.') {
            (void)unlinkat(dirfd(dir), d->d_name, 0);
        }
    }
    (void)closedir(dir);
    return status_ok();
}

/* Without a name from the first moment on: whatever happens, it goes with its descriptor. */
static struct status file_open(const struct server *s, int *fd, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 64];
    folder_path(s, "new.XXXXXX", path, sizeof path);
    int made = mkostemp(path, O_CLOEXEC);
    if (made < 0 || unlink(path) != 0) {
        struct status st =
            status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
        if (made >= 0) {
            (void)close(made);
        }
        return st;
    }
    *fd = made;
    return status_ok();
}

/* ---- On the thread ---- */

static struct status go_on(struct making *m)
{
    if (atomic_load(&m->canceled)) {
        return status_fail(&m->msg, STATUS_CANCELED, "nobody waits for the backup any more");
    }
    struct disk_room room;
    if (m->blocks++ % FREE_CHECK_BLOCKS != 0 || !disk_is_short(m->fd, FREE_BYTES_MIN, &room)) {
        return status_ok();
    }
    return status_fail(&m->msg, STATUS_LIMIT,
                       "the scheduler's disk has only %" PRIu64
                       " bytes left: too few to make a backup",
                       room.free_bytes);
}

static struct status block_seal(void *data, struct bytes about, struct bytes plain,
                                struct buffer *out)
{
    struct making *m = data;
    return sealer_seal(m->sealer, m->key_id, &m->key, about, plain, out);
}

static struct status write_state(struct making *m, struct backup_writer *w)
{
    struct parts parts = {0};
    struct status s = core_pin_encode(m->pin, &parts);
    atomic_store(&m->encoded, true);
    offload_wake(&m->offload);
    if (!status_is_ok(s)) {
        s = status_fail(&m->msg, s.code, "encode the state: %s", status_text(s.code));
    }
    for (size_t i = 0; i < parts.count && status_is_ok(s); i++) {
        s = go_on(m);
        if (status_is_ok(s)) {
            s = backup_writer_state(w, bytes_of(parts.items[i].data, parts.items[i].size), &m->msg);
        }
        buffer_close(&parts.items[i]);
    }
    parts_close(&parts);
    return s;
}

/* Revisions share chunks: each is written once. */
static struct status write_code(struct making *m, struct backup_writer *w)
{
    struct buffer data = {0};
    struct status s = status_ok();
    digests_sort(&m->code);
    for (size_t i = 0; i < m->code.count && status_is_ok(s); i++) {
        const struct digest *d = &m->code.items[i];
        if (i > 0 && digest_compare(d, d - 1) == 0) {
            continue;
        }
        s = go_on(m);
        if (!status_is_ok(s)) {
            break;
        }
        s = chunk_store_read(m->chunks, d, &data, &m->msg);
        if (s.code == STATUS_NOT_FOUND) {
            s = status_fail(&m->msg, STATUS_UNAVAILABLE,
                            "this scheduler has not fetched all code yet; try again, or ask "
                            "another one");
        }
        if (status_is_ok(s)) {
            s = backup_writer_data(w, BACKUP_CHUNK, d, bytes_of(data.data, data.size), &m->msg);
        }
    }
    buffer_close(&data);
    return s;
}

/* A payload that is not here is noted: it may have been dropped since the state was pinned. */
static struct status write_payloads(struct making *m, struct backup_writer *w)
{
    struct buffer data = {0};
    struct status s = status_ok();
    for (size_t i = 0; i < m->named.count && status_is_ok(s); i++) {
        const struct digest *d = &m->named.items[i];
        s = go_on(m);
        if (!status_is_ok(s)) {
            break;
        }
        s = m->payloads == NULL ? status_of(STATUS_NOT_FOUND)
                                : payload_store_get(m->payloads, d, &data, &m->msg);
        if (s.code == STATUS_NOT_FOUND || s.code == STATUS_CORRUPT) {
            s = digests_add(&m->gone, d);
        } else if (status_is_ok(s)) {
            s = backup_writer_data(w, BACKUP_PAYLOAD, d, bytes_of(data.data, data.size), &m->msg);
        }
        mem_wipe(data.data, data.size);
    }
    buffer_close(&data);
    return s;
}

static void on_thread(void *data)
{
    struct making *m = data;
    const struct backup_seal seal = {.data = m, .seal = block_seal};
    struct backup_writer *w = NULL;
    struct status s =
        backup_writer_open(&w, m->fd, &m->header, m->sealer == NULL ? NULL : &seal, &m->msg);
    if (status_is_ok(s)) {
        s = write_state(m, w);
    }
    if (status_is_ok(s)) {
        s = write_code(m, w);
    }
    if (status_is_ok(s)) {
        s = write_payloads(m, w);
    }
    if (status_is_ok(s)) {
        s = backup_writer_finish(w, m->gone.count, m->cert_pem, m->key_pem, &m->msg);
    }
    struct stat st;
    if (status_is_ok(s) && fstat(m->fd, &st) != 0) {
        s = status_fail(&m->msg, status_from_errno(errno), "the backup's file: %s",
                        strerror(errno));
    }
    if (status_is_ok(s)) {
        m->bytes = (uint64_t)st.st_size;
        m->totals = backup_writer_totals(w);
    }
    backup_writer_close(w);
    m->status = s;
}

/* ---- On the loop ---- */

static void unpin(struct making *m)
{
    if (m->pin != NULL) {
        core_unpin(m->server->core, m->pin);
        m->pin = NULL;
    }
}

/* Snapshots are pinned like backups: the pin is not kept while the rest is written. */
static void on_awake(void *data)
{
    struct making *m = data;
    if (atomic_load(&m->encoded)) {
        unpin(m);
    }
}

static void making_free(struct making *m)
{
    unpin(m);
    if (m->fd >= 0) {
        (void)close(m->fd);
    }
    sealer_free(m->sealer);
    seal_key_wipe(&m->key);
    buffer_close(&m->wrapped);
    mem_free(m->cert_pem);
    pki_key_free(m->key_pem);
    digests_close(&m->code);
    digests_close(&m->named);
    digests_close(&m->gone);
    mem_free(m);
}

/* A payload that was not here must have been dropped meanwhile. */
static void check_gone(struct making *m)
{
    for (size_t i = 0; i < m->gone.count && status_is_ok(m->status); i++) {
        if (core_payload_named(m->server->core, &m->gone.items[i])) {
            m->status = status_fail(&m->msg, STATUS_UNAVAILABLE,
                                    "this scheduler has not fetched all payloads yet; try again, "
                                    "or ask another one");
        }
    }
}

static void on_done(void *data)
{
    struct making *m = data;
    check_gone(m);
    bool good = status_is_ok(m->status);
    const struct made made = {.status = m->status,
                              .why = m->msg.text,
                              .fd = good ? fd_steal(&m->fd) : -1,
                              .bytes = m->bytes,
                              .time_ms = m->header.time_ms,
                              .index = m->header.index,
                              .totals = m->totals};
    made_fn done = m->done;
    void *to = m->data;
    unpin(m);
    DL_DELETE(m->server->makings, m);
    done(to, &made);
    making_free(m);
}

static void name_payload(void *data, const struct digest *payload)
{
    struct making *m = data;
    if (status_is_ok(m->status)) {
        m->status = digests_add(&m->named, payload);
    }
}

/* The key that seals the cluster's own files seals the backup. */
static struct status seal_prepare(struct making *m, struct errmsg *msg)
{
    struct keyring *ring = seals_keyring(m->server);
    if (ring == NULL) {
        return status_ok();
    }
    const struct data_key *k = keys_current(&core_catalog(m->server->core)->keys);
    if (k == NULL || !status_is_ok(keyring_find(ring, k->id, &m->key))) {
        return status_fail(msg, STATUS_UNAVAILABLE, "the cluster has no data key yet");
    }
    m->key_id = k->id;
    m->sealer = sealer_new();
    struct status s =
        m->sealer == NULL ? status_of(STATUS_NOMEM) : buffer_put_u32(&m->wrapped, k->id);
    s = status_is_ok(s) ? buffer_append(&m->wrapped, k->wrapped, k->wrapped_size) : s;
    m->header.wrapped = bytes_of(m->wrapped.data, m->wrapped.size);
    (void)snprintf(m->header.wrapped_by, sizeof m->header.wrapped_by, "%s", k->wrapped_by);
    return status_is_ok(s) ? s : status_fail(msg, s.code, "out of memory");
}

static struct status prepare(struct making *m, struct errmsg *msg)
{
    struct server *s = m->server;
    const struct catalog *c = core_catalog(s->core);
    m->pin = core_pin(s->core);
    if (m->pin == NULL) {
        return status_fail(msg, STATUS_UNAVAILABLE,
                           "the state is being stored; try again in a moment");
    }
    m->chunks = s->chunks;
    m->payloads = s->payload_store;
    m->header.time_ms = server_now(s).unix_ms;
    m->header.index = c->index;
    (void)snprintf(m->header.cluster, sizeof m->header.cluster, "%s", s->config->cluster.text);
    (void)snprintf(m->header.scheduler, sizeof m->header.scheduler, "%s", s->config->id.text);
    (void)snprintf(m->header.build, sizeof m->header.build, "%s", SKEP_VERSION);
    TRY(seal_prepare(m, msg));
    m->cert_pem = mem_strdup(s->cert_pem);
    m->key_pem = mem_strdup(s->key_pem);
    struct errmsg why = {.text = ""};
    struct status listed = named_digests(s->chunks, c, &m->code, &why);
    if (listed.code == STATUS_NOT_FOUND || listed.code == STATUS_CORRUPT) {
        return status_fail(msg, STATUS_UNAVAILABLE,
                           "this scheduler has not fetched all images yet; try again, or ask "
                           "another one");
    }
    core_payloads(s->core, name_payload, m);
    if (m->cert_pem == NULL || m->key_pem == NULL || !status_is_ok(listed) ||
        !status_is_ok(m->status)) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    return file_open(s, &m->fd, msg);
}

struct status making_start(struct server *s, made_fn done, void *data, struct making **out,
                           struct errmsg *msg)
{
    struct making *m = mem_zalloc(1, sizeof *m);
    if (m == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    m->server = s;
    m->fd = -1;
    m->done = done;
    m->data = data;
    m->offload = (struct offload){.work = on_thread, .awake = on_awake, .done = on_done, .data = m};
    struct status st = prepare(m, msg);
    if (status_is_ok(st)) {
        m->status = status_fail(&m->msg, STATUS_UNAVAILABLE, "no thread could be begun");
        st = offload_start(&m->offload, s->loop, msg);
    }
    if (!status_is_ok(st)) {
        making_free(m);
        return st;
    }
    DL_APPEND(s->makings, m);
    *out = m;
    return status_ok();
}

void making_cancel(struct making *m)
{
    atomic_store(&m->canceled, true);
}

void makings_unpin(struct server *s)
{
    struct making *m;
    DL_FOREACH(s->makings, m) {
        if (m->pin != NULL) {
            making_cancel(m);
            offload_join(&m->offload);
            unpin(m);
        }
    }
}

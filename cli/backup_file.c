#include "cli/backup_file.h"

#include "common/hash.h"
#include "common/seal/wrap.h"
#include "scheduler/core/catalog.h"
#include "scheduler/core/core.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct backup_set {
    struct digest digest;
    UT_hash_handle hh;
};

static bool set_has(const struct backup_set *set, const struct digest *d)
{
    struct backup_set *found;
    HASH_FIND(hh, set, d, sizeof *d, found);
    return found != NULL;
}

static void set_add(struct backup_set **set, const struct digest *d)
{
    if (!set_has(*set, d)) {
        struct backup_set *item = mem_must(mem_zalloc(1, sizeof *item));
        item->digest = *d;
        HASH_ADD(hh, *set, digest, sizeof item->digest, item);
    }
}

static void set_close(struct backup_set **set)
{
    struct backup_set *item, *next;
    HASH_ITER(hh, *set, item, next) {
        HASH_DEL(*set, item);
        mem_free(item);
    }
}

/* ---- Opening ---- */

static struct status block_open(void *data, struct bytes about, struct bytes sealed,
                                struct buffer *out, struct errmsg *msg)
{
    struct backup_file *f = data;
    struct status s = seal_key_id(sealed) == f->key_id
                          ? sealer_open(f->sealer, &f->key, about, sealed, out)
                          : status_of(STATUS_CORRUPT);
    return status_is_ok(s)
               ? s
               : status_fail(msg, s.code, "a block of the backup cannot be unsealed: %s",
                             status_text(s.code));
}

/* As common/seal/wrap.h has it; what is none of its forms is the path of a file. */
static struct status key_source(const char *from, char *out, size_t out_size, struct errmsg *msg)
{
    char path[PATH_MAX];
    bool plain = wrap_after(from, WRAP_FROM_FILE) == NULL &&
                 wrap_after(from, WRAP_FROM_CREDENTIAL) == NULL &&
                 wrap_after(from, WRAP_FROM_TOKEN) == NULL;
    if (plain && realpath(from, path) == NULL) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", from, strerror(errno));
    }
    int used = plain ? snprintf(out, out_size, "%s%s", WRAP_FROM_FILE, path)
                     : snprintf(out, out_size, "%s", from);
    return used > 0 && (size_t)used < out_size
               ? status_ok()
               : status_fail(msg, STATUS_LIMIT, "--cluster-key is too long");
}

/* The data key of the backup, out of its header. */
static struct status unwrap(struct backup_file *f, const char *from, struct errmsg *msg)
{
    char text[WRAP_FROM_BYTES_MAX];
    TRY(key_source(from, text, sizeof text, msg));
    struct reader r = reader_of(f->header.wrapped);
    f->key_id = reader_u32(&r);
    if (r.failed) {
        return status_fail(msg, STATUS_CORRUPT, "the backup's data key cannot be read");
    }
    struct cluster_key *cluster = NULL;
    TRY(cluster_key_open(text, NULL, &cluster, msg));
    struct status s = status_ok();
    if (strcmp(cluster_key_fingerprint(cluster), f->header.wrapped_by) != 0) {
        s = status_fail(msg, STATUS_DENIED,
                        "the backup is sealed under cluster key %s; the one given is %s",
                        f->header.wrapped_by, cluster_key_fingerprint(cluster));
    }
    if (status_is_ok(s)) {
        s = cluster_key_unwrap(cluster, f->key_id, r.rest, &f->key, msg);
    }
    cluster_key_free(cluster);
    if (status_is_ok(s)) {
        f->sealer = sealer_new();
        f->seal = (struct backup_seal){.data = f, .open = block_open};
        s = f->sealer == NULL ? status_fail(msg, STATUS_NOMEM, "out of memory") : s;
    }
    return s;
}

static struct status reader_begin(struct backup_file *f, struct errmsg *msg)
{
    const struct backup_source source = {.data = &f->fd, .read = backup_source_fd};
    TRY(backup_reader_open(&f->reader, &source, msg));
    f->header = *backup_reader_header(f->reader);
    if (f->sealer != NULL) {
        backup_reader_seal(f->reader, &f->seal);
    }
    return status_ok();
}

struct status backup_file_open(struct backup_file *f, const char *path, const char *cluster_key,
                               struct errmsg *msg)
{
    *f = (struct backup_file){.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (f->fd < 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    struct status s = reader_begin(f, msg);
    f->sealed = status_is_ok(s) && f->header.wrapped.size > 0;
    if (status_is_ok(s) && f->sealed && cluster_key != NULL) {
        s = unwrap(f, cluster_key, msg);
        backup_reader_seal(f->reader, f->sealer == NULL ? NULL : &f->seal);
    }
    f->opened = status_is_ok(s) && (!f->sealed || cluster_key != NULL);
    if (!status_is_ok(s)) {
        backup_file_close(f);
        return status_prefix(msg, s, "%s", path);
    }
    return s;
}

void backup_file_close(struct backup_file *f)
{
    if (f->fd >= 0) {
        (void)close(f->fd);
    }
    backup_reader_close(f->reader);
    sealer_free(f->sealer);
    seal_key_wipe(&f->key);
    buffer_close(&f->state);
    set_close(&f->held);
    *f = (struct backup_file){.fd = -1};
}

struct status backup_file_rewind(struct backup_file *f, struct errmsg *msg)
{
    backup_reader_close(f->reader);
    f->reader = NULL;
    if (lseek(f->fd, 0, SEEK_SET) != 0) {
        return status_fail(msg, status_from_errno(errno), "read the backup again: %s",
                           strerror(errno));
    }
    return reader_begin(f, msg);
}

struct status backup_file_check(struct backup_file *f, const char *ca_pem, struct errmsg *msg)
{
    struct backup_block block = {.kind = BACKUP_STATE};
    while (block.kind != BACKUP_END) {
        TRY(backup_reader_next(f->reader, &block, msg));
        if (f->opened && block.kind == BACKUP_STATE &&
            !status_is_ok(buffer_append(&f->state, block.data.data, block.data.size))) {
            return status_fail(msg, STATUS_NOMEM, "out of memory");
        }
        if (f->opened && (block.kind == BACKUP_CHUNK || block.kind == BACKUP_PAYLOAD)) {
            set_add(&f->held, &block.digest);
        }
    }
    f->totals = backup_reader_totals(f->reader);
    f->digest = *backup_reader_digest(f->reader);
    return ca_pem == NULL ? status_ok() : backup_reader_verify(f->reader, ca_pem, f->signer, msg);
}

/* ---- Rehearsing ---- */

static void on_send(void *data, uint64_t peer, const struct message *m)
{
    (void)data;
    (void)peer;
    (void)m;
}

static struct status on_propose(void *data, uint64_t ticket, const struct command *c)
{
    (void)data;
    (void)ticket;
    (void)c;
    return status_of(STATUS_UNSUPPORTED);
}

static uint64_t on_random(void *data)
{
    (void)data;
    return 0;
}

static void count_payload(void *data, const struct digest *payload)
{
    struct backup_file *f = data;
    f->summary.payload_refs++;
    f->summary.missing_payloads += !set_has(f->held, payload);
}

static struct status count_functions(struct backup_file *f, const struct catalog *c,
                                     struct errmsg *msg)
{
    for (const struct catalog_function *fn = c->functions; fn != NULL; fn = fn->hh.next) {
        const struct catalog_revision *r;
        f->summary.functions++;
        DL_FOREACH(fn->revisions, r) {
            f->summary.revisions++;
            for (size_t i = 0; i < r->spec.chunks.size / DIGEST_BYTES; i++) {
                struct digest d;
                memcpy(d.v, r->spec.chunks.data + i * DIGEST_BYTES, DIGEST_BYTES);
                if (!set_has(f->held, &d)) {
                    return status_fail(msg, STATUS_CORRUPT, "the backup lacks code of function %s",
                                       fn->name);
                }
            }
        }
    }
    return status_ok();
}

static struct status count_all(struct backup_file *f, const struct core *core, struct errmsg *msg)
{
    const struct catalog *c = core_catalog(core);
    struct backup_summary *s = &f->summary;
    *s = (struct backup_summary){.nodes = HASH_COUNT(c->nodes),
                                 .settings = HASH_COUNT(c->settings),
                                 .schedulers = HASH_COUNT(c->schedulers),
                                 .schedules = HASH_COUNT(c->jobs.schedules),
                                 .tokens = HASH_COUNT(c->tokens),
                                 .revoked = HASH_COUNT(c->revoked),
                                 .keys = c->keys.count,
                                 .jobs = HASH_COUNT(c->jobs.jobs)};
    for (const struct job *j = c->jobs.jobs; j != NULL; j = j->hh.next) {
        s->queued += j->state == INVOCATION_QUEUED;
        s->done += j->state == INVOCATION_DONE;
        s->dead += j->state == INVOCATION_DEAD;
        s->canceled += j->state == INVOCATION_CANCELED;
    }
    core_payloads(core, count_payload, f);
    TRY(count_functions(f, c, msg));
    if (s->missing_payloads > f->totals.dropped) {
        return status_fail(msg, STATUS_CORRUPT, "the backup lacks %" PRIu64 " payloads",
                           s->missing_payloads - f->totals.dropped);
    }
    return status_ok();
}

struct status backup_file_rehearse(struct backup_file *f, struct errmsg *msg)
{
    const struct core_env env = {.send = on_send, .propose = on_propose, .random = on_random};
    const struct core_config config = {0};
    struct core *core = core_new(&env, &config);
    if (core == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    const struct core_time now = {.mono_us = 1, .unix_ms = f->header.time_ms};
    struct status s = core_restore(core, now, bytes_of(f->state.data, f->state.size), msg);
    if (status_is_ok(s)) {
        s = count_all(f, core, msg);
    } else {
        s = status_prefix(msg, s, "the backup's state cannot be restored");
    }
    core_free(core);
    return s;
}

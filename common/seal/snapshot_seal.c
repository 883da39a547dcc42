#include "common/seal/snapshot_seal.h"

#include "common/mem.h"

#include <endian.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>

enum {
    MAGIC = 0x534c4553, /* as a plain snapshot's first frame it would be over that one's limit */
    VERSION = 1,
    AAD_BYTES = 16 + SNAPSHOT_SEAL_ID_BYTES + 8,
};

static struct bytes aad_of(const uint8_t *id, uint32_t part, uint32_t parts, uint8_t out[AAD_BYTES])
{
    static const char what[16] = "snapshot part";
    const uint32_t place[2] = {htole32(part), htole32(parts)};
    memcpy(out, what, sizeof what);
    memcpy(out + sizeof what, id, SNAPSHOT_SEAL_ID_BYTES);
    memcpy(out + sizeof what + SNAPSHOT_SEAL_ID_BYTES, place, sizeof place);
    return bytes_of(out, AAD_BYTES);
}

static struct status snapshot_key(struct keyring *k, uint32_t key_id, const uint8_t *id,
                                  struct seal_key *out)
{
    AUTO_SEAL_KEY struct seal_key data_key;
    TRY(keyring_find(k, key_id, &data_key));
    return seal_derive(&data_key, "snapshot", bytes_of(id, SNAPSHOT_SEAL_ID_BYTES), out);
}

/* ---- Sealing ---- */

static struct status put_head(const struct snapshot_head *h, struct buffer *out)
{
    TRY(buffer_put_u32(out, MAGIC));
    TRY(buffer_put_u32(out, VERSION));
    TRY(buffer_put_blob(out, h->wrapped_keys));
    TRY(buffer_append(out, h->id, sizeof h->id));
    TRY(buffer_put_u32(out, h->key_id));
    return buffer_put_u32(out, h->parts);
}

/* Seals the part where it lies. Its head goes to the end of `before`, its tag behind it. */
static struct status seal_part(struct sealer *s, const struct snapshot_head *h,
                               const struct seal_key *key, uint32_t part, struct buffer *data,
                               struct buffer *before)
{
    uint8_t aad[AAD_BYTES];
    size_t size = data->size;
    if (size > UINT32_MAX - SEAL_EXTRA_BYTES) {
        return status_of(STATUS_LIMIT);
    }
    TRY(buffer_put_u32(before, (uint32_t)(size + SEAL_EXTRA_BYTES)));
    TRY(buffer_reserve(before, SEAL_HEAD_BYTES));
    TRY(buffer_reserve(data, SEAL_TAG_BYTES));
    const struct seal_room room = {.data = data->data,
                                   .size = size,
                                   .head = before->data + before->size,
                                   .tag = data->data + size};
    TRY(sealer_seal_in_place(s, h->key_id, key, aad_of(h->id, part, h->parts, aad), room));
    before->size += SEAL_HEAD_BYTES;
    data->size += SEAL_TAG_BYTES;
    return status_ok();
}

/* The parts become out's, behind one that holds the head: nothing is copied. */
static struct status seal_parts(struct sealer *s, const struct snapshot_head *h,
                                const struct seal_key *key, struct parts *plain, struct parts *out)
{
    struct parts all = {.items = mem_zalloc(plain->count + 1, sizeof *all.items),
                        .count = plain->count + 1,
                        .capacity = plain->count + 1};
    if (all.items == NULL) {
        return status_of(STATUS_NOMEM);
    }
    struct status status = put_head(h, &all.items[0]);
    for (uint32_t i = 0; i < h->parts; i++) {
        all.items[i + 1] = plain->items[i];
        plain->items[i] = (struct buffer){0};
        if (status_is_ok(status)) {
            status = seal_part(s, h, key, i, &all.items[i + 1], &all.items[i]);
        }
        all.bytes += all.items[i].size;
    }
    if (status_is_ok(status)) {
        parts_close(out);
        *out = all;
    } else {
        parts_close(&all);
    }
    return status;
}

static struct status seal_all(struct keyring *k, struct snapshot_head *h, struct parts *plain,
                              struct parts *out)
{
    AUTO_SEAL_KEY struct seal_key key;
    if (plain->count > SNAPSHOT_SEAL_PARTS_MAX) {
        return status_of(STATUS_LIMIT);
    }
    h->parts = (uint32_t)plain->count;
    if (RAND_bytes(h->id, sizeof h->id) != 1) {
        ERR_clear_error();
        return status_of(STATUS_IO);
    }
    TRY(snapshot_key(k, h->key_id, h->id, &key));
    struct sealer *s = sealer_new();
    if (s == NULL) {
        return status_of(STATUS_NOMEM);
    }
    struct status status = seal_parts(s, h, &key, plain, out);
    sealer_free(s);
    return status;
}

struct status snapshot_seal(struct keyring *k, uint32_t key_id, struct bytes wrapped_keys,
                            struct parts *plain, struct parts *out)
{
    struct snapshot_head h = {.wrapped_keys = wrapped_keys, .key_id = key_id};
    struct status s = seal_all(k, &h, plain, out);
    parts_close(plain);
    return s;
}

/* ---- Opening ---- */

bool snapshot_is_sealed(struct bytes snapshot)
{
    struct reader r = reader_of(snapshot);
    return reader_u32(&r) == MAGIC && !r.failed;
}

struct status snapshot_head_read(struct bytes snapshot, struct snapshot_head *out,
                                 struct errmsg *msg)
{
    struct snapshot_head h = {.key_id = 0};
    struct reader r = reader_of(snapshot);
    uint32_t magic = reader_u32(&r), version = reader_u32(&r);
    if (!r.failed && magic == MAGIC && version != VERSION) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "sealed snapshots of version %u are not read by this build", version);
    }
    h.wrapped_keys = reader_blob(&r, SNAPSHOT_SEAL_KEYS_BYTES_MAX);
    struct bytes id = reader_bytes(&r, sizeof h.id);
    h.key_id = reader_u32(&r);
    h.parts = reader_u32(&r);
    if (r.failed || magic != MAGIC || h.parts > SNAPSHOT_SEAL_PARTS_MAX) {
        return status_fail(msg, STATUS_CORRUPT, "the sealed snapshot's head is damaged");
    }
    memcpy(h.id, id.data, sizeof h.id);
    h.rest = r.rest;
    *out = h;
    return status_ok();
}

static struct status open_parts(struct sealer *s, const struct snapshot_head *h,
                                const struct seal_key *key, struct buffer *plain,
                                struct errmsg *msg)
{
    uint8_t aad[AAD_BYTES];
    struct reader r = reader_of(h->rest);
    for (uint32_t i = 0; i < h->parts; i++) {
        struct bytes sealed = reader_blob(&r, UINT32_MAX);
        struct status opened =
            r.failed ? status_of(STATUS_CORRUPT)
                     : sealer_open(s, key, aad_of(h->id, i, h->parts, aad), sealed, plain);
        if (!status_is_ok(opened)) {
            return status_fail(msg, opened.code, "part %u of %u of the sealed snapshot is damaged",
                               i + 1, h->parts);
        }
    }
    return r.rest.size == 0
               ? status_ok()
               : status_fail(msg, STATUS_CORRUPT, "%zu bytes too many follow the sealed snapshot",
                             r.rest.size);
}

struct status snapshot_open(struct keyring *k, const struct snapshot_head *head,
                            struct buffer *plain, struct errmsg *msg)
{
    AUTO_SEAL_KEY struct seal_key key;
    struct status s = snapshot_key(k, head->key_id, head->id, &key);
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "data key %u, which sealed the snapshot, is not known",
                           head->key_id);
    }
    size_t before = plain->size;
    TRY(buffer_reserve(plain, head->rest.size));
    struct sealer *sealer = sealer_new();
    if (sealer == NULL) {
        return status_of(STATUS_NOMEM);
    }
    s = open_parts(sealer, head, &key, plain, msg);
    sealer_free(sealer);
    if (!status_is_ok(s)) {
        plain->size = before;
    }
    return s;
}

/* Reading, in order: header -> blocks -> END -> digest, signature, certificate -> nothing more. Any
 * other order, size or digest is CORRUPT. */
#include "common/backup/backup_internal.h"
#include "common/backup/signature.h"
#include "common/chunks.h"
#include "common/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

struct backup_reader {
    struct backup_source source;
    const struct backup_seal *seal;
    EVP_MD_CTX *sha;
    ZSTD_DCtx *zstd;
    struct backup_header header;
    struct buffer head, stored, opened, plain, tail;
    uint64_t at; /* in the file */
    uint64_t ordinal;
    struct backup_totals counted, said;
    bool data_begun, ended;
    struct digest digest;
    struct bytes signature; /* in tail */
    char *cert_pem;
};

struct status backup_source_fd(void *fd, void *into, size_t size, size_t *got, struct errmsg *msg)
{
    ssize_t n;
    do {
        n = read(*(const int *)fd, into, size);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return status_fail(msg, status_from_errno(errno), "read the backup: %s", strerror(errno));
    }
    *got = (size_t)n;
    return status_ok();
}

static struct status corrupt(const struct backup_reader *r, struct errmsg *msg, const char *what)
{
    return status_fail(msg, STATUS_CORRUPT, "the backup is damaged near byte %" PRIu64 ": %s",
                       r->at, what);
}

static struct status no_memory(struct errmsg *msg)
{
    return status_fail(msg, STATUS_NOMEM, "out of memory");
}

/* Replaces what out holds by exactly size bytes of the file. */
static struct status take(struct backup_reader *r, struct buffer *out, size_t size, bool digested,
                          struct errmsg *msg)
{
    out->size = 0;
    while (out->size < size) {
        /* As it comes: a size that the file only claims costs no memory. */
        size_t want = size - out->size < BACKUP_PIECE_BYTES ? size - out->size : BACKUP_PIECE_BYTES;
        if (!status_is_ok(buffer_reserve(out, want))) {
            return no_memory(msg);
        }
        size_t got = 0;
        TRY(r->source.read(r->source.data, out->data + out->size, want, &got, msg));
        if (got == 0) {
            return corrupt(r, msg, "it is cut short");
        }
        out->size += got;
        r->at += got;
    }
    if (digested && EVP_DigestUpdate(r->sha, out->data, out->size) != 1) {
        return no_memory(msg);
    }
    return status_ok();
}

static struct status take_u32(struct backup_reader *r, bool digested, uint32_t *out,
                              struct errmsg *msg)
{
    TRY(take(r, &r->head, sizeof *out, digested, msg));
    struct reader in = reader_of(bytes_of(r->head.data, r->head.size));
    *out = reader_u32(&in);
    return status_ok();
}

/* ---- The header ---- */

static bool text_take(struct reader *in, char out[BACKUP_TEXT_BYTES_MAX + 1])
{
    struct bytes text = reader_blob(in, BACKUP_TEXT_BYTES_MAX);
    if (in->failed || (text.size > 0 && memchr(text.data, '\0', text.size) != NULL)) {
        in->failed = true;
        return false;
    }
    if (text.size > 0) {
        memcpy(out, text.data, text.size);
    }
    out[text.size] = '\0';
    return true;
}

static struct status header_take(struct backup_reader *r, struct errmsg *msg)
{
    TRY(take(r, &r->head, BACKUP_MAGIC_BYTES, true, msg));
    if (memcmp(r->head.data, BACKUP_MAGIC, BACKUP_MAGIC_BYTES) != 0) {
        return status_fail(msg, STATUS_CORRUPT, "this is not a backup of Skep");
    }
    uint32_t version = 0, size = 0;
    TRY(take_u32(r, true, &version, msg));
    if (version != BACKUP_VERSION) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "the backup is of format %" PRIu32 ", this skep reads %d", version,
                           BACKUP_VERSION);
    }
    TRY(take_u32(r, true, &size, msg));
    if (size > BACKUP_HEADER_BYTES_MAX) {
        return corrupt(r, msg, "its header is too long");
    }
    TRY(take(r, &r->head, size, true, msg));
    struct reader in = reader_of(bytes_of(r->head.data, r->head.size));
    struct backup_header *h = &r->header;
    (void)text_take(&in, h->cluster);
    (void)text_take(&in, h->scheduler);
    (void)text_take(&in, h->build);
    h->time_ms = reader_u64(&in);
    h->index = reader_u64(&in);
    struct bytes wrapped = reader_blob(&in, BACKUP_WRAPPED_BYTES_MAX);
    (void)text_take(&in, h->wrapped_by);
    if (in.failed || in.rest.size != 0) {
        return corrupt(r, msg, "its header cannot be read");
    }
    if (wrapped.size > 0) {
        uint8_t *copy = mem_dup(wrapped.data, wrapped.size);
        if (copy == NULL) {
            return no_memory(msg);
        }
        h->wrapped = bytes_of(copy, wrapped.size);
    }
    return status_ok();
}

struct status backup_reader_open(struct backup_reader **out, const struct backup_source *source,
                                 struct errmsg *msg)
{
    struct backup_reader *r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        return no_memory(msg);
    }
    r->source = *source;
    r->sha = EVP_MD_CTX_new();
    r->zstd = ZSTD_createDCtx();
    struct status s = status_ok();
    if (r->sha == NULL || r->zstd == NULL || EVP_DigestInit_ex(r->sha, EVP_sha256(), NULL) != 1) {
        s = no_memory(msg);
    }
    if (status_is_ok(s)) {
        s = header_take(r, msg);
    }
    if (!status_is_ok(s)) {
        backup_reader_close(r);
        return s;
    }
    *out = r;
    return status_ok();
}

void backup_reader_close(struct backup_reader *r)
{
    if (r == NULL) {
        return;
    }
    EVP_MD_CTX_free(r->sha);
    (void)ZSTD_freeDCtx(r->zstd);
    mem_free((void *)(uintptr_t)r->header.wrapped.data);
    buffer_close(&r->head);
    buffer_close(&r->stored);
    buffer_close(&r->opened);
    buffer_close(&r->plain);
    buffer_close(&r->tail);
    mem_free(r->cert_pem);
    mem_free(r);
}

const struct backup_header *backup_reader_header(const struct backup_reader *r)
{
    return &r->header;
}

void backup_reader_seal(struct backup_reader *r, const struct backup_seal *seal)
{
    r->seal = seal;
}

/* ---- Blocks ---- */

struct block_head {
    uint8_t kind, flags;
    uint32_t plain, stored;
};

static struct status head_take(struct backup_reader *r, struct block_head *out, struct errmsg *msg)
{
    TRY(take(r, &r->head, BLOCK_HEAD_BYTES, true, msg));
    struct reader in = reader_of(bytes_of(r->head.data, r->head.size));
    struct block_head h = {.kind = reader_u8(&in), .flags = reader_u8(&in)};
    uint16_t zero = reader_u16(&in);
    h.plain = reader_u32(&in);
    h.stored = reader_u32(&in);
    bool sealed = (h.flags & BLOCK_SEALED) != 0;
    if (h.kind < BACKUP_STATE || h.kind > BACKUP_END || zero != 0 ||
        (h.flags & ~(BLOCK_COMPRESSED | BLOCK_SEALED)) != 0 || h.plain > BLOCK_PLAIN_BYTES_MAX ||
        h.stored > BLOCK_STORED_BYTES_MAX || sealed != (r->header.wrapped.size > 0)) {
        return corrupt(r, msg, "a block cannot be read");
    }
    *out = h;
    return status_ok();
}

/* The block as it was before it was sealed and compressed, in *out. */
static struct status block_open(struct backup_reader *r, const struct block_head *h,
                                struct bytes *out, struct errmsg *msg)
{
    struct bytes packed = bytes_of(r->stored.data, r->stored.size);
    if ((h->flags & BLOCK_SEALED) != 0) {
        const struct block_about about = block_about_of(r->ordinal, h->kind, h->plain);
        r->opened.size = 0;
        TRY(r->seal->open(r->seal->data, bytes_of(about.bytes, sizeof about.bytes), packed,
                          &r->opened, msg));
        packed = bytes_of(r->opened.data, r->opened.size);
    }
    if ((h->flags & BLOCK_COMPRESSED) == 0) {
        *out = packed;
        return packed.size == h->plain ? status_ok() : corrupt(r, msg, "a block has another size");
    }
    r->plain.size = 0;
    if (!status_is_ok(buffer_reserve(&r->plain, (size_t)h->plain + 1))) {
        return no_memory(msg);
    }
    size_t size = ZSTD_decompressDCtx(r->zstd, r->plain.data, h->plain, packed.data, packed.size);
    if (ZSTD_isError(size) != 0 || size != h->plain) {
        return corrupt(r, msg, "a block cannot be decompressed");
    }
    r->plain.size = size;
    *out = bytes_of(r->plain.data, size);
    return status_ok();
}

static struct status data_take(struct backup_reader *r, struct bytes plain,
                               struct backup_block *out, struct errmsg *msg)
{
    r->data_begun = true;
    if (plain.size < DIGEST_BYTES) {
        return corrupt(r, msg, "a block is too short");
    }
    memcpy(out->digest.v, plain.data, DIGEST_BYTES);
    out->data = bytes_of(plain.data + DIGEST_BYTES, plain.size - DIGEST_BYTES);
    struct digest actual;
    if (!status_is_ok(digest_of(&out->data, 1, &actual))) {
        return no_memory(msg);
    }
    if (digest_compare(&actual, &out->digest) != 0) {
        return corrupt(r, msg, "a chunk or payload has another digest than it should");
    }
    return status_ok();
}

/* ---- The end ---- */

static struct status tail_take(struct backup_reader *r, struct errmsg *msg)
{
    struct digest actual;
    if (EVP_DigestFinal_ex(r->sha, actual.v, NULL) != 1) {
        return no_memory(msg);
    }
    TRY(take(r, &r->tail, DIGEST_BYTES, false, msg));
    if (memcmp(r->tail.data, actual.v, DIGEST_BYTES) != 0) {
        return corrupt(r, msg, "its digest is not the one of its content");
    }
    r->digest = actual;
    uint32_t size = 0;
    TRY(take_u32(r, false, &size, msg));
    if (size > BACKUP_SIGNATURE_BYTES_MAX) {
        return corrupt(r, msg, "its signature is too long");
    }
    TRY(take(r, &r->tail, size, false, msg));
    r->signature = bytes_of(r->tail.data, r->tail.size);
    TRY(take_u32(r, false, &size, msg));
    if (size > BACKUP_CERT_BYTES_MAX) {
        return corrupt(r, msg, "its certificate is too long");
    }
    TRY(take(r, &r->stored, size, false, msg));
    r->cert_pem = mem_alloc((size_t)size + 1);
    if (r->cert_pem == NULL) {
        return no_memory(msg);
    }
    if (size > 0) {
        memcpy(r->cert_pem, r->stored.data, size);
    }
    r->cert_pem[size] = '\0';
    uint8_t more;
    size_t got = 0;
    TRY(r->source.read(r->source.data, &more, 1, &got, msg));
    return got == 0 ? status_ok() : corrupt(r, msg, "something follows its end");
}

static struct status end_take(struct backup_reader *r, struct bytes plain, bool opened,
                              struct errmsg *msg)
{
    struct reader in = reader_of(plain);
    if (opened) {
        struct backup_totals *t = &r->said;
        t->state_bytes = reader_u64(&in);
        t->chunks = reader_u64(&in);
        t->payloads = reader_u64(&in);
        t->dropped = reader_u64(&in);
        t->data_bytes = reader_u64(&in);
        const struct backup_totals *c = &r->counted;
        if (in.failed || in.rest.size != 0 || t->state_bytes != c->state_bytes ||
            t->chunks != c->chunks || t->payloads != c->payloads ||
            t->data_bytes != c->data_bytes) {
            return corrupt(r, msg, "its totals are not those of its content");
        }
    } else {
        r->said = r->counted;
    }
    return tail_take(r, msg);
}

struct status backup_reader_next(struct backup_reader *r, struct backup_block *out,
                                 struct errmsg *msg)
{
    if (r->ended) {
        return status_fail(msg, STATUS_INVALID, "the backup has ended");
    }
    struct block_head h = {.kind = 0};
    TRY(head_take(r, &h, msg));
    TRY(take(r, &r->stored, h.stored, true, msg));
    bool opened = (h.flags & BLOCK_SEALED) == 0 || r->seal != NULL;
    struct bytes plain = bytes_of(NULL, 0);
    if (opened) {
        TRY(block_open(r, &h, &plain, msg));
    }
    r->ordinal++;
    struct backup_block block = {.kind = (enum backup_kind)h.kind};
    size_t bytes = h.plain;
    if (h.kind == BACKUP_STATE) {
        block.data = plain;
        r->counted.state_bytes += bytes;
        if (r->data_begun || r->counted.state_bytes > BACKUP_STATE_BYTES_MAX) {
            return corrupt(r, msg, "its state is too long or comes too late");
        }
    } else if (h.kind == BACKUP_END) {
        TRY(end_take(r, plain, opened, msg));
        r->ended = true;
    } else {
        if (opened) {
            TRY(data_take(r, plain, &block, msg));
        }
        r->counted.chunks += h.kind == BACKUP_CHUNK;
        r->counted.payloads += h.kind == BACKUP_PAYLOAD;
        r->counted.data_bytes += bytes < DIGEST_BYTES ? 0 : bytes - DIGEST_BYTES;
    }
    *out = block;
    return status_ok();
}

struct backup_totals backup_reader_totals(const struct backup_reader *r)
{
    return r->ended ? r->said : r->counted;
}

const struct digest *backup_reader_digest(const struct backup_reader *r)
{
    return &r->digest;
}

struct status backup_reader_verify(const struct backup_reader *r, const char *ca_pem, char *signer,
                                   struct errmsg *msg)
{
    if (!r->ended) {
        return status_fail(msg, STATUS_INVALID, "the backup was not read to its end");
    }
    return backup_signature_check(ca_pem, r->cert_pem, r->header.cluster,
                                  (int64_t)(r->header.time_ms / 1000), &r->digest, r->signature,
                                  signer, msg);
}

/* Writing: each block is compressed, sealed, written, and goes into the digest as it stands in the
 * file. */
#include "common/backup/backup_internal.h"
#include "common/backup/signature.h"
#include "common/mem.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

struct backup_writer {
    int fd;
    const struct backup_seal *seal;
    EVP_MD_CTX *sha;
    ZSTD_CCtx *zstd;
    struct buffer plain, packed, sealed, out;
    uint64_t ordinal;
    struct backup_totals totals;
    bool data_begun;
};

/* Writes bytes of the file; digested: they count for its digest. */
static struct status put(struct backup_writer *w, struct bytes bytes, bool digested,
                         struct errmsg *msg)
{
    if (digested && EVP_DigestUpdate(w->sha, bytes.data, bytes.size) != 1) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    for (size_t done = 0; done < bytes.size;) {
        ssize_t wrote = write(w->fd, bytes.data + done, bytes.size - done);
        if (wrote < 0 && errno != EINTR) {
            return status_fail(msg, status_from_errno(errno), "write the backup: %s",
                               strerror(errno));
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return status_ok();
}

static struct bytes text_bytes(const char *text)
{
    return bytes_of(text, strlen(text));
}

static struct status header_encode(const struct backup_header *h, struct buffer *out)
{
    struct buffer body = {0};
    struct status s = buffer_put_blob(&body, text_bytes(h->cluster));
    s = status_is_ok(s) ? buffer_put_blob(&body, text_bytes(h->scheduler)) : s;
    s = status_is_ok(s) ? buffer_put_blob(&body, text_bytes(h->build)) : s;
    s = status_is_ok(s) ? buffer_put_u64(&body, h->time_ms) : s;
    s = status_is_ok(s) ? buffer_put_u64(&body, h->index) : s;
    s = status_is_ok(s) ? buffer_put_blob(&body, h->wrapped) : s;
    s = status_is_ok(s) ? buffer_put_blob(&body, text_bytes(h->wrapped_by)) : s;
    s = status_is_ok(s) ? buffer_append(out, BACKUP_MAGIC, BACKUP_MAGIC_BYTES) : s;
    s = status_is_ok(s) ? buffer_put_u32(out, BACKUP_VERSION) : s;
    s = status_is_ok(s) ? buffer_put_blob(out, bytes_of(body.data, body.size)) : s;
    buffer_close(&body);
    return s;
}

struct status backup_writer_open(struct backup_writer **out, int fd,
                                 const struct backup_header *header, const struct backup_seal *seal,
                                 struct errmsg *msg)
{
    if ((seal == NULL) != (header->wrapped.size == 0) ||
        header->wrapped.size > BACKUP_WRAPPED_BYTES_MAX) {
        return status_fail(msg, STATUS_INVALID, "the backup's sealing and its key do not agree");
    }
    struct backup_writer *w = mem_zalloc(1, sizeof *w);
    if (w == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    w->fd = fd;
    w->seal = seal;
    w->sha = EVP_MD_CTX_new();
    w->zstd = ZSTD_createCCtx();
    struct status s = status_ok();
    if (w->sha == NULL || w->zstd == NULL || EVP_DigestInit_ex(w->sha, EVP_sha256(), NULL) != 1) {
        s = status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    if (status_is_ok(s)) {
        s = header_encode(header, &w->out);
    }
    if (status_is_ok(s)) {
        s = put(w, bytes_of(w->out.data, w->out.size), true, msg);
    }
    if (!status_is_ok(s)) {
        backup_writer_close(w);
        return s;
    }
    *out = w;
    return status_ok();
}

void backup_writer_close(struct backup_writer *w)
{
    if (w == NULL) {
        return;
    }
    EVP_MD_CTX_free(w->sha);
    (void)ZSTD_freeCCtx(w->zstd);
    buffer_close(&w->plain);
    buffer_close(&w->packed);
    buffer_close(&w->sealed);
    buffer_close(&w->out);
    mem_free(w);
}

/* The bytes smaller, where they become smaller. */
static struct status pack(struct backup_writer *w, struct bytes plain, struct bytes *out,
                          uint8_t *flags, struct errmsg *msg)
{
    w->packed.size = 0;
    size_t bound = ZSTD_compressBound(plain.size);
    struct status s = buffer_reserve(&w->packed, bound);
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "out of memory");
    }
    size_t size = ZSTD_compressCCtx(w->zstd, w->packed.data, bound, plain.data, plain.size,
                                    COMPRESSION_LEVEL);
    if (ZSTD_isError(size) != 0) {
        return status_fail(msg, STATUS_INTERNAL, "compress: %s", ZSTD_getErrorName(size));
    }
    *out = plain;
    if (size < plain.size) {
        *out = bytes_of(w->packed.data, size);
        *flags |= BLOCK_COMPRESSED;
    }
    return status_ok();
}

static struct status block_put(struct backup_writer *w, enum backup_kind kind, struct bytes plain,
                               struct errmsg *msg)
{
    uint8_t flags = 0;
    struct bytes stored = plain;
    if (plain.size > BLOCK_PLAIN_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%zu bytes are too many for a block of a backup",
                           plain.size);
    }
    TRY(pack(w, plain, &stored, &flags, msg));
    if (w->seal != NULL) {
        const struct block_about about =
            block_about_of(w->ordinal, (uint8_t)kind, (uint32_t)plain.size);
        w->sealed.size = 0;
        struct status s = w->seal->seal(w->seal->data, bytes_of(about.bytes, sizeof about.bytes),
                                        stored, &w->sealed);
        if (!status_is_ok(s)) {
            return status_fail(msg, s.code, "seal the backup: %s", status_text(s.code));
        }
        stored = bytes_of(w->sealed.data, w->sealed.size);
        flags |= BLOCK_SEALED;
    }
    w->out.size = 0;
    struct status s = buffer_put_u8(&w->out, (uint8_t)kind);
    s = status_is_ok(s) ? buffer_put_u8(&w->out, flags) : s;
    s = status_is_ok(s) ? buffer_put_u16(&w->out, 0) : s;
    s = status_is_ok(s) ? buffer_put_u32(&w->out, (uint32_t)plain.size) : s;
    s = status_is_ok(s) ? buffer_put_blob(&w->out, stored) : s;
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "out of memory");
    }
    w->ordinal++;
    return put(w, bytes_of(w->out.data, w->out.size), true, msg);
}

struct status backup_writer_state(struct backup_writer *w, struct bytes piece, struct errmsg *msg)
{
    if (w->data_begun) {
        return status_fail(msg, STATUS_INVALID, "the state of a backup comes before its data");
    }
    if (piece.size > BACKUP_STATE_BYTES_MAX - w->totals.state_bytes) {
        return status_fail(msg, STATUS_LIMIT, "the state has over %d bytes, the most a backup may",
                           BACKUP_STATE_BYTES_MAX);
    }
    for (size_t at = 0; at < piece.size;) {
        size_t size = piece.size - at < BACKUP_PIECE_BYTES ? piece.size - at : BACKUP_PIECE_BYTES;
        TRY(block_put(w, BACKUP_STATE, bytes_of(piece.data + at, size), msg));
        at += size;
    }
    w->totals.state_bytes += piece.size;
    return status_ok();
}

struct status backup_writer_data(struct backup_writer *w, enum backup_kind kind,
                                 const struct digest *digest, struct bytes data, struct errmsg *msg)
{
    w->data_begun = true;
    w->plain.size = 0;
    struct status s = buffer_append(&w->plain, digest->v, DIGEST_BYTES);
    s = status_is_ok(s) ? buffer_append(&w->plain, data.data, data.size) : s;
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "out of memory");
    }
    TRY(block_put(w, kind, bytes_of(w->plain.data, w->plain.size), msg));
    w->totals.chunks += kind == BACKUP_CHUNK;
    w->totals.payloads += kind == BACKUP_PAYLOAD;
    w->totals.data_bytes += data.size;
    return status_ok();
}

static struct status tail_encode(const struct digest *digest, struct bytes signature,
                                 const char *cert_pem, struct buffer *out)
{
    TRY(buffer_append(out, digest->v, DIGEST_BYTES));
    TRY(buffer_put_blob(out, signature));
    return buffer_put_blob(out, text_bytes(cert_pem));
}

struct status backup_writer_finish(struct backup_writer *w, uint64_t dropped, const char *cert_pem,
                                   const char *key_pem, struct errmsg *msg)
{
    w->totals.dropped = dropped;
    const struct backup_totals *t = &w->totals;
    const uint64_t numbers[] = {t->state_bytes, t->chunks, t->payloads, t->dropped, t->data_bytes};
    w->plain.size = 0;
    struct status s = status_ok();
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && status_is_ok(s); i++) {
        s = buffer_put_u64(&w->plain, numbers[i]);
    }
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "out of memory");
    }
    TRY(block_put(w, BACKUP_END, bytes_of(w->plain.data, w->plain.size), msg));
    struct digest digest;
    if (EVP_DigestFinal_ex(w->sha, digest.v, NULL) != 1) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    struct buffer signature = {0};
    s = backup_sign(key_pem, &digest, &signature, msg);
    w->out.size = 0;
    if (status_is_ok(s)) {
        s = tail_encode(&digest, bytes_of(signature.data, signature.size), cert_pem, &w->out);
    }
    buffer_close(&signature);
    TRY(s);
    TRY(put(w, bytes_of(w->out.data, w->out.size), false, msg));
    if (fsync(w->fd) != 0) {
        return status_fail(msg, status_from_errno(errno), "write the backup: %s", strerror(errno));
    }
    return status_ok();
}

struct backup_totals backup_writer_totals(const struct backup_writer *w)
{
    return w->totals;
}

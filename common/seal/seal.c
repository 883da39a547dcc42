#include "common/seal/seal.h"

#include "common/mem.h"

#include <endian.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <string.h>

enum {
    NONCES_DRAWN = 128,   /* at once: each draw is a system call */
    STEP_BYTES = 1 << 30, /* OpenSSL counts in int */
    ID_BYTES = 4,
};

/* One direction's cipher with the key it is set to. */
struct cipher {
    EVP_CIPHER_CTX *ctx;
    struct seal_key key;
    bool keyed;
};

struct sealer {
    struct cipher seal, open;
    uint8_t nonces[NONCES_DRAWN][SEAL_NONCE_BYTES];
    size_t nonces_left;
};

bool seal_key_equal(const struct seal_key *a, const struct seal_key *b)
{
    return CRYPTO_memcmp(a->v, b->v, sizeof a->v) == 0;
}

void seal_key_wipe(struct seal_key *key)
{
    mem_wipe(key, sizeof *key);
}

struct status seal_key_make(struct seal_key *out)
{
    bool made = RAND_priv_bytes(out->v, sizeof out->v) == 1;
    ERR_clear_error();
    return status_of(made ? STATUS_OK : STATUS_IO);
}

struct sealer *sealer_new(void)
{
    struct sealer *s = mem_zalloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->seal.ctx = EVP_CIPHER_CTX_new();
    s->open.ctx = EVP_CIPHER_CTX_new();
    if (s->seal.ctx == NULL || s->open.ctx == NULL) {
        sealer_free(s);
        return NULL;
    }
    return s;
}

void sealer_free(struct sealer *s)
{
    if (s == NULL) {
        return;
    }
    EVP_CIPHER_CTX_free(s->seal.ctx); /* OpenSSL wipes the key schedules */
    EVP_CIPHER_CTX_free(s->open.ctx);
    mem_wipe(s, sizeof *s);
    mem_free(s);
}

uint32_t seal_key_id(struct bytes sealed)
{
    uint32_t id;
    if (sealed.size < SEAL_EXTRA_BYTES) {
        return 0;
    }
    memcpy(&id, sealed.data, sizeof id);
    return le32toh(id);
}

/* ---- OpenSSL ---- */

static struct status cipher_set(struct cipher *c, const struct seal_key *key, bool sealing)
{
    if (c->keyed && seal_key_equal(&c->key, key)) {
        return status_ok();
    }
    c->keyed = false;
    if (EVP_CipherInit_ex(c->ctx, EVP_aes_256_gcm(), NULL, key->v, NULL, sealing) != 1) {
        ERR_clear_error();
        return status_of(STATUS_NOMEM);
    }
    c->key = *key;
    c->keyed = true;
    return status_ok();
}

/* One text through the cipher: head, associated data, then the bytes in steps. False also when
 * OpenSSL is out of memory, which leaves nothing usable. */
static bool cipher_run(struct cipher *c, const uint8_t *head, struct bytes aad, struct bytes in,
                       uint8_t *out)
{
    int used = 0;
    bool fine = EVP_CipherInit_ex(c->ctx, NULL, NULL, NULL, head + ID_BYTES, -1) == 1 &&
                EVP_CipherUpdate(c->ctx, NULL, &used, head, ID_BYTES) == 1;
    if (fine && aad.size > 0) {
        fine = aad.size <= STEP_BYTES &&
               EVP_CipherUpdate(c->ctx, NULL, &used, aad.data, (int)aad.size) == 1;
    }
    for (size_t at = 0; fine && at < in.size; at += STEP_BYTES) {
        size_t step = in.size - at < STEP_BYTES ? in.size - at : STEP_BYTES;
        fine = EVP_CipherUpdate(c->ctx, out + at, &used, in.data + at, (int)step) == 1 &&
               (size_t)used == step;
    }
    return fine;
}

static bool cipher_end(struct cipher *c)
{
    uint8_t nothing[SEAL_TAG_BYTES];
    int used = 0;
    return EVP_CipherFinal_ex(c->ctx, nothing, &used) == 1 && used == 0;
}

/* ---- Sealing and opening ---- */

static struct status nonce_draw(struct sealer *s, uint8_t out[SEAL_NONCE_BYTES])
{
    if (s->nonces_left == 0) {
        if (RAND_bytes(s->nonces[0], (int)sizeof s->nonces) != 1) {
            ERR_clear_error();
            return status_of(STATUS_IO);
        }
        s->nonces_left = NONCES_DRAWN;
    }
    memcpy(out, s->nonces[--s->nonces_left], SEAL_NONCE_BYTES);
    return status_ok();
}

/* From plain to room, which may be the same place. */
static struct status seal_into(struct sealer *s, uint32_t key_id, const struct seal_key *key,
                               struct bytes aad, struct bytes plain, struct seal_room room)
{
    uint32_t id = htole32(key_id);
    TRY(cipher_set(&s->seal, key, true));
    memcpy(room.head, &id, sizeof id);
    TRY(nonce_draw(s, room.head + ID_BYTES));
    if (!cipher_run(&s->seal, room.head, aad, plain, room.data) || !cipher_end(&s->seal) ||
        EVP_CIPHER_CTX_ctrl(s->seal.ctx, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG_BYTES, room.tag) != 1) {
        ERR_clear_error();
        s->seal.keyed = false;
        return status_of(STATUS_NOMEM);
    }
    return status_ok();
}

struct status sealer_seal_in_place(struct sealer *s, uint32_t key_id, const struct seal_key *key,
                                   struct bytes aad, struct seal_room room)
{
    return seal_into(s, key_id, key, aad, bytes_of(room.data, room.size), room);
}

struct status sealer_seal(struct sealer *s, uint32_t key_id, const struct seal_key *key,
                          struct bytes aad, struct bytes plain, struct buffer *out)
{
    if (plain.size > SIZE_MAX / 2) {
        return status_of(STATUS_NOMEM);
    }
    TRY(buffer_reserve(out, plain.size + SEAL_EXTRA_BYTES));
    uint8_t *at = out->data + out->size;
    const struct seal_room room = {.data = at + SEAL_HEAD_BYTES,
                                   .size = plain.size,
                                   .head = at,
                                   .tag = at + SEAL_HEAD_BYTES + plain.size};
    TRY(seal_into(s, key_id, key, aad, plain, room));
    out->size += plain.size + SEAL_EXTRA_BYTES;
    return status_ok();
}

struct status sealer_open(struct sealer *s, const struct seal_key *key, struct bytes aad,
                          struct bytes sealed, struct buffer *out)
{
    if (sealed.size < SEAL_EXTRA_BYTES) {
        return status_of(STATUS_CORRUPT);
    }
    size_t size = sealed.size - SEAL_EXTRA_BYTES;
    uint8_t tag[SEAL_TAG_BYTES];
    memcpy(tag, sealed.data + SEAL_HEAD_BYTES + size, sizeof tag);
    TRY(buffer_reserve(out, size > 0 ? size : 1)); /* To OpenSSL no place means other data. */
    TRY(cipher_set(&s->open, key, false));
    uint8_t *at = out->data + out->size;
    bool fine =
        cipher_run(&s->open, sealed.data, aad, bytes_of(sealed.data + SEAL_HEAD_BYTES, size), at) &&
        EVP_CIPHER_CTX_ctrl(s->open.ctx, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) == 1 &&
        cipher_end(&s->open);
    if (!fine) {
        ERR_clear_error();
        s->open.keyed = false;
        if (size > 0) {
            mem_wipe(at, size);
        }
        return status_of(STATUS_CORRUPT);
    }
    out->size += size;
    return status_ok();
}

/* ---- Deriving ---- */

struct status seal_derive(const struct seal_key *from, const char *purpose, struct bytes context,
                          struct seal_key *out)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
    EVP_KDF_free(kdf);
    if (ctx == NULL) {
        ERR_clear_error();
        return status_of(STATUS_NOMEM);
    }
    char digest[] = "SHA256", empty[] = "";
    /* Info is purpose, NUL, context: no pair runs into another. */
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)from->v,
                                          sizeof from->v),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)purpose,
                                          strlen(purpose) + 1),
        OSSL_PARAM_construct_octet_string(
            OSSL_KDF_PARAM_INFO, context.size > 0 ? (void *)(uintptr_t)context.data : empty,
            context.size),
        OSSL_PARAM_construct_end()};
    bool derived = EVP_KDF_derive(ctx, out->v, sizeof out->v, params) == 1;
    EVP_KDF_CTX_free(ctx);
    ERR_clear_error();
    if (!derived) {
        seal_key_wipe(out);
        return status_of(STATUS_NOMEM);
    }
    return status_ok();
}

/* OpenSSL 3.0 calls engines deprecated, in favour of providers; Debian 12 has the engine alone. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "common/seal/token_key.h"

#include "common/mem.h"

#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

enum { BITS_MIN = 2048, BITS_MAX = 8000 };

struct token_key {
    ENGINE *engine; /* its use is ours until the end */
    EVP_PKEY *public, *private;
};

/* Empties the error queue into one line. URIs may hold a PIN: they are not repeated. */
static struct status fail(struct errmsg *msg, enum status_code code, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    struct status s = status_fail(msg, code, "%s%s%s", what, reason == NULL ? "" : ": ",
                                  reason == NULL ? "" : reason);
    ERR_clear_error();
    return s;
}

static struct status engine_open(struct token_key *t, const char *module, struct errmsg *msg)
{
    ENGINE_load_dynamic();
    ENGINE *e = ENGINE_by_id("pkcs11");
    if (e == NULL) {
        return fail(msg, STATUS_UNSUPPORTED,
                    "OpenSSL's engine pkcs11 is not there (Debian: libengine-pkcs11-openssl)");
    }
    /* It would print the URI, which may hold a PIN. */
    (void)ENGINE_ctrl_cmd_string(e, "QUIET", NULL, 0);
    ERR_clear_error();
    if ((module != NULL && ENGINE_ctrl_cmd_string(e, "MODULE_PATH", module, 0) != 1) ||
        ENGINE_init(e) != 1) {
        ENGINE_free(e);
        return fail(msg, STATUS_UNAVAILABLE, "the PKCS#11 module cannot be loaded");
    }
    ENGINE_free(e); /* what ENGINE_init took stays */
    t->engine = e;
    return status_ok();
}

static struct status keys_load(struct token_key *t, const char *uri, struct errmsg *msg)
{
    /* Without functions: nothing ever asks the terminal for a PIN. */
    UI_METHOD *silent = UI_create_method("skep: no terminal");
    if (silent == NULL) {
        return fail(msg, STATUS_NOMEM, "out of memory");
    }
    t->private = ENGINE_load_private_key(t->engine, uri, silent, NULL);
    t->public = t->private == NULL ? NULL : ENGINE_load_public_key(t->engine, uri, silent, NULL);
    UI_destroy_method(silent);
    if (t->private == NULL || t->public == NULL) {
        return fail(msg, STATUS_UNAVAILABLE, "the token has no such key pair, or wants its PIN");
    }
    if (EVP_PKEY_get_base_id(t->public) != EVP_PKEY_RSA ||
        EVP_PKEY_get_bits(t->public) < BITS_MIN || EVP_PKEY_get_bits(t->public) > BITS_MAX) {
        return status_fail(msg, STATUS_INVALID, "the token's key is not RSA of %d to %d bits",
                           BITS_MIN, BITS_MAX);
    }
    return status_ok();
}

struct status token_key_open(const char *uri, const char *module, struct token_key **out,
                             struct errmsg *msg)
{
    struct token_key *t = mem_zalloc(1, sizeof *t);
    if (t == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    struct status s = engine_open(t, module, msg);
    if (status_is_ok(s)) {
        s = keys_load(t, uri, msg);
    }
    if (!status_is_ok(s)) {
        token_key_free(t);
        return s;
    }
    *out = t;
    return status_ok();
}

void token_key_free(struct token_key *t)
{
    if (t == NULL) {
        return;
    }
    EVP_PKEY_free(t->public);
    EVP_PKEY_free(t->private);
    if (t->engine != NULL) {
        (void)ENGINE_finish(t->engine);
    }
    ERR_clear_error();
    mem_free(t);
}

struct status token_key_digest(const struct token_key *t, uint8_t out[32])
{
    unsigned char *der = NULL;
    int size = i2d_PUBKEY(t->public, &der);
    bool made = size > 0 && EVP_Digest(der, (size_t)size, out, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    ERR_clear_error();
    return status_of(made ? STATUS_OK : STATUS_NOMEM);
}

typedef int (*oaep_init)(EVP_PKEY_CTX *ctx);
typedef int (*oaep_run)(EVP_PKEY_CTX *ctx, unsigned char *out, size_t *out_size,
                        const unsigned char *in, size_t in_size);

static bool oaep(EVP_PKEY *key, oaep_init init, oaep_run run, struct bytes in, struct buffer *out)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    size_t size = (size_t)EVP_PKEY_get_size(key);
    bool fine = ctx != NULL && init(ctx) == 1 &&
                EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
                status_is_ok(buffer_reserve(out, size)) &&
                run(ctx, out->data + out->size, &size, in.data, in.size) == 1;
    if (fine) {
        out->size += size;
    }
    EVP_PKEY_CTX_free(ctx);
    return fine;
}

struct status token_key_encrypt(const struct token_key *t, struct bytes plain, struct buffer *out,
                                struct errmsg *msg)
{
    return oaep(t->public, EVP_PKEY_encrypt_init, EVP_PKEY_encrypt, plain, out)
               ? status_ok()
               : fail(msg, STATUS_IO, "the token's public key does not encrypt");
}

struct status token_key_decrypt(const struct token_key *t, struct bytes sealed, struct buffer *out,
                                struct errmsg *msg)
{
    return oaep(t->private, EVP_PKEY_decrypt_init, EVP_PKEY_decrypt, sealed, out)
               ? status_ok()
               : fail(msg, STATUS_UNAVAILABLE, "the token does not open the wrapped key");
}

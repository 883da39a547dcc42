#include "common/backup/signature.h"

#include "common/cleanup.h"
#include "common/pki/x509.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

/* So that this signature can never be one over something else. */
static const char context[] = "skep backup 1\n";
enum { SIGNED_BYTES = sizeof context - 1 + DIGEST_BYTES };

static void signed_bytes(const struct digest *digest, uint8_t out[SIGNED_BYTES])
{
    memcpy(out, context, sizeof context - 1);
    memcpy(out + sizeof context - 1, digest->v, DIGEST_BYTES);
}

struct status backup_sign(const char *key_pem, const struct digest *digest, struct buffer *out,
                          struct errmsg *msg)
{
    AUTO_KEY EVP_PKEY *key = NULL;
    TRY(x509_key_read("the scheduler's key", key_pem, &key, msg));
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t text[SIGNED_BYTES];
    signed_bytes(digest, text);
    size_t size = 0;
    struct status s = status_ok();
    if (ctx == NULL || EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) != 1 ||
        EVP_DigestSign(ctx, NULL, &size, text, sizeof text) != 1) {
        s = x509_fail(msg, STATUS_INVALID, "sign the backup");
    }
    if (status_is_ok(s)) {
        s = buffer_reserve(out, size);
    }
    if (status_is_ok(s)) {
        if (EVP_DigestSign(ctx, out->data + out->size, &size, text, sizeof text) != 1) {
            s = x509_fail(msg, STATUS_INVALID, "sign the backup");
        } else {
            out->size += size;
        }
    }
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return s;
}

/* ---- Checking ---- */

static bool chain_good(X509_STORE *store, X509_STORE_CTX *ctx, X509 *cert, STACK_OF(X509) * cas,
                       STACK_OF(X509) * chain, int64_t at_s)
{
    for (int i = 0; i < sk_X509_num(cas); i++) {
        if (X509_STORE_add_cert(store, sk_X509_value(cas, i)) != 1) {
            return false;
        }
    }
    if (X509_STORE_CTX_init(ctx, store, cert, chain) != 1 ||
        X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER) != 1) {
        return false;
    }
    X509_STORE_CTX_set_time(ctx, 0, (time_t)at_s);
    return X509_verify_cert(ctx) == 1;
}

static struct status check_chain(X509 *cert, STACK_OF(X509) * cas, STACK_OF(X509) * chain,
                                 int64_t at_s, struct errmsg *msg)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    struct status s = status_ok();
    if (store == NULL || ctx == NULL) {
        s = x509_fail(msg, STATUS_NOMEM, "check the signer");
    } else if (!chain_good(store, ctx, cert, cas, chain, at_s)) {
        s = status_fail(msg, STATUS_DENIED,
                        "the backup was not signed by a certificate that the given CA vouches for "
                        "(%s)",
                        X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
    }
    ERR_clear_error();
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return s;
}

static struct status check_bytes(X509 *cert, const struct digest *digest, struct bytes signature,
                                 struct errmsg *msg)
{
    uint8_t text[SIGNED_BYTES];
    signed_bytes(digest, text);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY *key = X509_get0_pubkey(cert);
    bool good = ctx != NULL && key != NULL &&
                EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerify(ctx, signature.data, signature.size, text, sizeof text) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good ? status_ok()
                : status_fail(msg, STATUS_DENIED,
                              "the backup's signature is not its signer's: it was changed");
}

struct status backup_signature_check(const char *ca_pem, const char *cert_pem, const char *cluster,
                                     int64_t at_s, const struct digest *digest,
                                     struct bytes signature, char *signer, struct errmsg *msg)
{
    AUTO_CERTS STACK_OF(X509) *cas = NULL;
    AUTO_CERTS STACK_OF(X509) *chain = NULL;
    TRY(x509_read_all("CA certificate", ca_pem, &cas, msg));
    struct status s = x509_read_all("the signer's certificate", cert_pem, &chain, msg);
    struct identity id = {.role = ROLE_NONE};
    if (status_is_ok(s)) {
        s = x509_identity(sk_X509_value(chain, 0), &id, msg);
    }
    if (!status_is_ok(s)) {
        return s.code == STATUS_NOMEM ? s : status_of(STATUS_DENIED);
    }
    X509 *cert = sk_X509_value(chain, 0);
    TRY(check_chain(cert, cas, chain, at_s, msg));
    if (id.role != ROLE_SCHEDULER || strcmp(id.cluster.text, cluster) != 0) {
        return status_fail(msg, STATUS_DENIED,
                           "the backup of cluster %s was signed by %s %s of cluster %s, not by a "
                           "scheduler of its own",
                           cluster, role_name(id.role), id.name.text, id.cluster.text);
    }
    TRY(check_bytes(cert, digest, signature, msg));
    if (signer != NULL) {
        (void)snprintf(signer, NAME_BYTES_MAX + 1, "%s", id.name.text);
    }
    return status_ok();
}

#include "common/net/tls_context.h"

#include "common/check.h"
#include "common/mem.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    CERTIFICATES_MAX = 16,           /* in one PEM text of ours */
    PEER_CHAIN_BYTES_MAX = 16 << 10, /* of a peer that is not trusted yet */
    PEER_CHAIN_DEPTH_MAX = 4,
    DATE_BYTES = 32,
};

static const char scheme[] = "skep://";

/* The earliest error of the queue as text; the queue is empty afterwards. */
static const char *error_text(void)
{
    const char *text = ERR_reason_error_string(ERR_get_error());
    ERR_clear_error();
    return text != NULL ? text : "unknown error";
}

static int64_t asn1_seconds(const ASN1_TIME *t)
{
    struct tm parts = {0};
    if (t == NULL || ASN1_TIME_to_tm(t, &parts) != 1) {
        return 0;
    }
    return (int64_t)timegm(&parts);
}

static void date_format(const ASN1_TIME *t, char out[DATE_BYTES])
{
    time_t seconds = (time_t)asn1_seconds(t);
    struct tm parts = {0};
    if (gmtime_r(&seconds, &parts) == NULL ||
        strftime(out, DATE_BYTES, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
        (void)snprintf(out, DATE_BYTES, "an unknown time");
    }
}

static struct status serial_read(X509 *certificate, char out[SERIAL_STRING_BYTES],
                                 struct errmsg *msg)
{
    static const char hex[] = "0123456789abcdef";
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    size_t size = (size_t)ASN1_STRING_length(serial);
    if (size > (SERIAL_STRING_BYTES - 1) / 2) {
        return status_fail(msg, STATUS_INVALID, "serial number of %zu bytes", size);
    }
    const unsigned char *data = ASN1_STRING_get0_data(serial);
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = hex[data[i] >> 4];
        out[2 * i + 1] = hex[data[i] & 15];
    }
    out[2 * size] = '\0';
    return status_ok();
}

/* The one skep:// URI among the names; NULL when there is none or more than one. */
static const ASN1_STRING *uri_find(const GENERAL_NAMES *names)
{
    const ASN1_STRING *found = NULL;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI) {
            continue;
        }
        const ASN1_STRING *uri = name->d.uniformResourceIdentifier;
        size_t size = (size_t)ASN1_STRING_length(uri);
        if (size < sizeof scheme - 1 ||
            memcmp(ASN1_STRING_get0_data(uri), scheme, sizeof scheme - 1) != 0) {
            continue;
        }
        if (found != NULL) {
            return NULL;
        }
        found = uri;
    }
    return found;
}

struct status tls_identity_read(X509 *certificate, struct identity *out, struct errmsg *msg)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    const ASN1_STRING *uri = names == NULL ? NULL : uri_find(names);
    struct identity id = {0};
    struct status s;
    if (uri == NULL) {
        s = status_fail(msg, STATUS_INVALID,
                        "the certificate does not carry exactly one skep:// identity");
    } else {
        s = identity_parse((const char *)ASN1_STRING_get0_data(uri),
                           (size_t)ASN1_STRING_length(uri), &id, msg);
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
    TRY(s);
    TRY(serial_read(certificate, id.serial, msg));
    id.not_after_s = asn1_seconds(X509_get0_notAfter(certificate));
    *out = id;
    return status_ok();
}

/* --- the policy --- */

__attribute__((format(printf, 3, 4))) static void refuse(struct tls_check *check, enum refusal kind,
                                                         const char *format, ...)
{
    if (check->refusal != REFUSAL_NONE) {
        return;
    }
    check->refusal = kind;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(check->reason, sizeof check->reason, format, args);
    va_end(args);
}

static bool expect_met(const struct identity *expect, const struct identity *peer)
{
    bool role_ok = expect->role == ROLE_NONE || expect->role == peer->role;
    bool name_ok = expect->name.text[0] == '\0' || strcmp(expect->name.text, peer->name.text) == 0;
    return role_ok && name_ok;
}

/* The chain is good: is it somebody we want? Answers the OpenSSL code that gives the alert. */
static int policy_judge(struct tls_check *check, X509 *certificate)
{
    struct errmsg msg = {{0}};
    struct identity peer;
    if (!status_is_ok(tls_identity_read(certificate, &peer, &msg))) {
        refuse(check, REFUSAL_IDENTITY, "%s", msg.text);
        return X509_V_ERR_APPLICATION_VERIFICATION;
    }
    char uri[IDENTITY_URI_BYTES];
    identity_format(&peer, uri);
    if (strcmp(peer.cluster.text, check->cluster.text) != 0) {
        refuse(check, REFUSAL_IDENTITY, "%s is not a member of cluster %s", uri,
               check->cluster.text);
        return X509_V_ERR_APPLICATION_VERIFICATION;
    }
    if (!expect_met(&check->expect, &peer)) {
        bool named = check->expect.name.text[0] != '\0';
        refuse(check, REFUSAL_IDENTITY, "%s answered where %s%s%s was expected", uri,
               check->expect.role == ROLE_NONE ? "a member" : role_name(check->expect.role),
               named ? " " : "", check->expect.name.text);
        return X509_V_ERR_APPLICATION_VERIFICATION;
    }
    if (check->allow != NULL && !check->allow(check->data, &peer)) {
        refuse(check, REFUSAL_REVOKED, "certificate %s of %s is revoked", peer.serial, uri);
        return X509_V_ERR_CERT_REVOKED;
    }
    check->peer = peer;
    return X509_V_OK;
}

/* The chain is bad: says so in words of ours. */
static void chain_explain(struct tls_check *check, X509_STORE_CTX *ctx)
{
    int error = X509_STORE_CTX_get_error(ctx);
    X509 *at = X509_STORE_CTX_get_current_cert(ctx);
    X509 *leaf = X509_STORE_CTX_get0_cert(ctx);
    char who[IDENTITY_URI_BYTES] = "the peer";
    char date[DATE_BYTES];
    struct identity id;
    if (leaf != NULL && status_is_ok(tls_identity_read(leaf, &id, NULL))) {
        identity_format(&id, who);
    }
    const char *of = at == leaf ? "certificate" : "a CA certificate";
    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        date_format(X509_get0_notAfter(at), date);
        refuse(check, REFUSAL_EXPIRED, "%s of %s expired on %s", of, who, date);
        return;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        date_format(X509_get0_notBefore(at), date);
        refuse(check, REFUSAL_EXPIRED,
               "%s of %s is not valid before %s: is the clock of this machine right?", of, who,
               date);
        return;
    default:
        refuse(check, REFUSAL_UNTRUSTED,
               "certificate of %s is not from the CA of cluster %s (%s): not a member", who,
               check->cluster.text, X509_verify_cert_error_string(error));
    }
}

/* OpenSSL's verification and then ours. In the handshake of one connection. */
static int on_verify(X509_STORE_CTX *ctx, void *arg)
{
    (void)arg;
    SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_check *check = ssl == NULL ? NULL : SSL_get_app_data(ssl);
    CHECK(check != NULL);
    if (X509_verify_cert(ctx) != 1) {
        if (X509_STORE_CTX_get_error(ctx) == X509_V_OK) {
            X509_STORE_CTX_set_error(ctx, X509_V_ERR_UNSPECIFIED);
        }
        chain_explain(check, ctx);
        return 0;
    }
    int error = policy_judge(check, X509_STORE_CTX_get0_cert(ctx));
    X509_STORE_CTX_set_error(ctx, error);
    return error == X509_V_OK;
}

void tls_check_bind(struct tls_check *check, SSL *ssl)
{
    SSL_set_app_data(ssl, check);
}

struct alert_row {
    int alert;
    const char *reason;
};

static const struct alert_row alerts[] = {
    {SSL_AD_HANDSHAKE_FAILURE, "peer refused our certificate: not who it expected"},
    {SSL_AD_BAD_CERTIFICATE, "peer refused our certificate: bad"},
    {SSL_AD_UNSUPPORTED_CERTIFICATE, "peer refused our certificate: not for this use"},
    {SSL_AD_CERTIFICATE_REVOKED, "peer refused our certificate: revoked"},
    {SSL_AD_CERTIFICATE_EXPIRED,
     "peer refused our certificate: expired (or a clock is wrong, theirs or ours)"},
    {SSL_AD_CERTIFICATE_UNKNOWN, "peer refused our certificate"},
    {SSL_AD_UNKNOWN_CA, "peer refused our certificate: not from its cluster's CA"},
    {SSL_AD_DECRYPT_ERROR, "peer refused our certificate: signature does not match"},
    {SSL_AD_ACCESS_DENIED, "peer refused our certificate: access denied"},
    {TLS13_AD_CERTIFICATE_REQUIRED, "peer wants a certificate and got none"},
};

static void alert_explain(struct tls_check *check, int alert)
{
    for (size_t i = 0; i < sizeof alerts / sizeof alerts[0]; i++) {
        if (alerts[i].alert == alert) {
            refuse(check, REFUSAL_BY_PEER, "%s", alerts[i].reason);
            return;
        }
    }
    if (alert == SSL_AD_PROTOCOL_VERSION) {
        refuse(check, REFUSAL_PROTOCOL, "peer does not speak TLS 1.3");
        return;
    }
    refuse(check, REFUSAL_PROTOCOL, "peer ended TLS with alert %d (%s)", alert,
           SSL_alert_desc_string_long(alert));
}

void tls_check_refuse(struct tls_check *check, enum refusal kind, const char *reason)
{
    refuse(check, kind, "%s", reason);
}

void tls_check_explain(struct tls_check *check)
{
    unsigned long error = ERR_get_error();
    int reason = ERR_GET_REASON(error);
    if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET) {
        alert_explain(check, reason - SSL_AD_REASON_OFFSET);
    } else if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
               reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        refuse(check, REFUSAL_NO_CERTIFICATE, "peer showed no certificate");
    } else if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason == SSL_R_UNSUPPORTED_PROTOCOL) {
        refuse(check, REFUSAL_PROTOCOL, "peer does not speak TLS 1.3");
    } else {
        const char *text = ERR_reason_error_string(error);
        refuse(check, REFUSAL_PROTOCOL, "peer does not speak TLS 1.3 as it should (%s)",
               text != NULL ? text : "no detail");
    }
    ERR_clear_error();
}

/* --- the context --- */

static BIO *text_bio(const char *pem)
{
    return pem == NULL ? NULL : BIO_new_mem_buf(pem, -1);
}

/* A key with a passphrase is refused instead of asking on the terminal. */
static int no_passphrase(char *out, int size, int writing, void *arg)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static struct status anchors_load(SSL_CTX *ctx, const char *pem, struct errmsg *msg)
{
    BIO *bio = text_bio(pem);
    int count = 0;
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    X509 *certificate = NULL;
    while (bio != NULL && count < CERTIFICATES_MAX &&
           (certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        count += X509_STORE_add_cert(store, certificate) == 1;
        X509_free(certificate);
    }
    BIO_free(bio);
    ERR_clear_error();
    if (count == 0) {
        return status_fail(msg, STATUS_INVALID, "the CA text holds no certificate");
    }
    return status_ok();
}

static struct status certificate_load(SSL_CTX *ctx, const char *pem, struct identity *own,
                                      struct errmsg *msg)
{
    BIO *bio = text_bio(pem);
    X509 *leaf = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
    struct status s = status_ok();
    if (leaf == NULL || SSL_CTX_use_certificate(ctx, leaf) != 1) {
        s = status_fail(msg, STATUS_INVALID, "our certificate cannot be used: %s", error_text());
    } else {
        s = status_prefix(msg, tls_identity_read(leaf, own, msg), "our certificate");
    }
    X509 *next = NULL;
    for (int i = 0; status_is_ok(s) && i < CERTIFICATES_MAX &&
                    (next = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL;
         i++) {
        if (SSL_CTX_add0_chain_cert(ctx, next) != 1) {
            X509_free(next);
            s = status_fail(msg, STATUS_INVALID, "our certificate's chain cannot be used: %s",
                            error_text());
        }
    }
    X509_free(leaf);
    BIO_free(bio);
    ERR_clear_error();
    return s;
}

static struct status key_load(SSL_CTX *ctx, const char *pem, struct errmsg *msg)
{
    BIO *bio = text_bio(pem);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    struct status s = status_ok();
    if (key == NULL) {
        s = status_fail(msg, STATUS_INVALID, "our key cannot be read: %s", error_text());
    } else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
        s = status_fail(msg, STATUS_INVALID, "our key does not belong to our certificate");
    }
    EVP_PKEY_free(key);
    ERR_clear_error();
    return s;
}

static struct status settings_apply(SSL_CTX *ctx, struct errmsg *msg)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(ctx, PEER_CHAIN_BYTES_MAX);
    SSL_CTX_set_verify_depth(ctx, PEER_CHAIN_DEPTH_MAX);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, on_verify, NULL);
    bool ok = SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
              SSL_CTX_set1_groups_list(ctx, "X25519:P-256") == 1 &&
              SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                            "TLS_CHACHA20_POLY1305_SHA256") == 1;
    if (!ok) {
        return status_fail(msg, STATUS_INTERNAL, "OpenSSL refuses TLS 1.3: %s", error_text());
    }
    return status_ok();
}

struct status tls_context_new(const struct tls_identity *texts, bool server, SSL_CTX **out,
                              struct identity *own, struct errmsg *msg)
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (ctx == NULL) {
        return status_fail(msg, STATUS_NOMEM, "OpenSSL: %s", error_text());
    }
    struct identity id = {0};
    struct status s = settings_apply(ctx, msg);
    if (status_is_ok(s)) {
        s = anchors_load(ctx, texts->ca_pem, msg);
    }
    if (status_is_ok(s)) {
        s = certificate_load(ctx, texts->cert_pem, &id, msg);
    }
    if (status_is_ok(s)) {
        s = key_load(ctx, texts->key_pem, msg);
    }
    if (!status_is_ok(s)) {
        SSL_CTX_free(ctx);
        return s;
    }
    *out = ctx;
    if (own != NULL) {
        *own = id;
    }
    return status_ok();
}

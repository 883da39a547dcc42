#include "common/pki/pki.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"
#include "common/pki/sign.h"
#include "common/pki/x509.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void pki_key_free(char *key_pem)
{
    if (key_pem != NULL) {
        mem_wipe(key_pem, strlen(key_pem));
        mem_free(key_pem);
    }
}

/* The two texts of a key and what it goes with; both or none. */
static struct status give_texts(char **cert_out, char *cert_take, EVP_PKEY *key, char **key_out,
                                struct errmsg *msg)
{
    char *key_pem = NULL;
    struct status s = x509_key_text(key, &key_pem, msg);
    if (!status_is_ok(s)) {
        mem_free(cert_take);
        return s;
    }
    *cert_out = cert_take;
    *key_out = key_pem;
    return status_ok();
}

struct status pki_ca_create(const struct name *cluster, int64_t now_s, int64_t valid_s,
                            char **cert_pem, char **key_pem, struct errmsg *msg)
{
    CHECK(cluster->text[0] != '\0');
    AUTO_KEY EVP_PKEY *key = NULL;
    AUTO_X509 X509 *cert = NULL;
    TRY(key_make(&key, msg));
    TRY(ca_make(key, cluster, now_s, valid_s, &cert, msg));
    char *text = NULL;
    TRY(x509_cert_text(cert, &text, msg));
    return give_texts(cert_pem, text, key, key_pem, msg);
}

struct status pki_request_create(char **csr_pem, char **key_pem, struct errmsg *msg)
{
    AUTO_KEY EVP_PKEY *key = NULL;
    TRY(key_make(&key, msg));
    AUTO_X509_REQ X509_REQ *request = X509_REQ_new();
    AUTO_BIO BIO *bio = BIO_new(BIO_s_mem());
    if (request == NULL || bio == NULL || X509_REQ_set_version(request, 0) != 1 ||
        X509_REQ_set_pubkey(request, key) != 1 || X509_REQ_sign(request, key, EVP_sha256()) <= 0 ||
        PEM_write_bio_X509_REQ(bio, request) != 1) {
        return x509_fail(msg, STATUS_INTERNAL, "make certificate request");
    }
    char *text = NULL;
    TRY(x509_text(bio, &text, msg));
    return give_texts(csr_pem, text, key, key_pem, msg);
}

/* The request, which must be signed by the key it brings: whoever asks has that key. */
static struct status request_read(const char *csr_pem, X509_REQ **out, struct errmsg *msg)
{
    ERR_clear_error();
    size_t size = strnlen(csr_pem, PKI_PEM_BYTES_MAX + 1);
    if (size > PKI_PEM_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "certificate request: over %d bytes",
                           PKI_PEM_BYTES_MAX);
    }
    AUTO_BIO BIO *bio = BIO_new_mem_buf(csr_pem, (int)size);
    AUTO_X509_REQ X509_REQ *request =
        bio == NULL ? NULL : PEM_read_bio_X509_REQ(bio, NULL, NULL, (void *)"");
    if (request == NULL) {
        return x509_fail(msg, STATUS_INVALID, "certificate request: not readable");
    }
    EVP_PKEY *key = X509_REQ_get0_pubkey(request);
    if (key == NULL || !x509_key_is_p256(key)) {
        ERR_clear_error();
        return status_fail(msg, STATUS_INVALID, "certificate request: its key is not a P-256 key");
    }
    if (X509_REQ_verify(request, key) != 1) {
        ERR_clear_error();
        return status_fail(msg, STATUS_DENIED,
                           "certificate request: not signed by the key it asks for");
    }
    *out = PTR_STEAL(request);
    return status_ok();
}

struct status pki_sign(const char *ca_cert_pem, const char *ca_key_pem, const char *csr_pem,
                       const struct identity *id, int64_t now_s, int64_t valid_s, char **cert_pem,
                       struct errmsg *msg)
{
    AUTO_X509_REQ X509_REQ *request = NULL;
    TRY(request_read(csr_pem, &request, msg));
    struct serial serial;
    TRY(serial_make(&serial, msg));
    struct signer signer = {0};
    TRY(signer_open(&signer, ca_cert_pem, ca_key_pem, now_s, msg));
    AUTO_X509 X509 *cert = NULL;
    struct status s = signer_sign(&signer, X509_REQ_get0_pubkey(request), id, &serial, now_s,
                                  valid_s, &cert, msg);
    signer_close(&signer);
    TRY(s);
    return x509_cert_text(cert, cert_pem, msg);
}

struct status pki_identity_of(const char *cert_pem, struct identity *out, int64_t *not_before_s,
                              struct errmsg *msg)
{
    AUTO_X509 X509 *cert = NULL;
    TRY(x509_read("certificate", cert_pem, &cert, msg));
    struct identity found;
    int64_t start_s = 0;
    TRY(x509_identity(cert, &found, msg));
    TRY(x509_time(X509_get0_notBefore(cert), &start_s, msg));
    *out = found;
    if (not_before_s != NULL) {
        *not_before_s = start_s;
    }
    return status_ok();
}

enum { SPAN_STRING_BYTES = 32, TIME_STRING_BYTES = 32, SUBJECT_STRING_BYTES = 128 };

/* "2 days": the largest unit that fits, rounded down, for people. */
static void span_format(int64_t span_s, char out[SPAN_STRING_BYTES])
{
    static const struct {
        int64_t s;
        const char *name;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
    size_t i = 0;
    while (i + 1 < sizeof units / sizeof units[0] && span_s < units[i].s) {
        i++;
    }
    int64_t count = span_s / units[i].s;
    (void)snprintf(out, SPAN_STRING_BYTES, "%lld %s%s", (long long)count, units[i].name,
                   count == 1 ? "" : "s");
}

static void time_format(int64_t at_s, char out[TIME_STRING_BYTES])
{
    time_t at = (time_t)at_s;
    struct tm tm = {0};
    (void)gmtime_r(&at, &tm);
    (void)strftime(out, TIME_STRING_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

/* One certificate against the clock. `subject` names it in messages ("certificate of agent n1"),
 * `cure` follows "expired". */
static struct status check_times(const X509 *cert, const char *subject, const char *cure,
                                 int64_t now_s, struct errmsg *msg)
{
    int64_t start_s = 0;
    int64_t end_s = 0;
    TRY(x509_time(X509_get0_notBefore(cert), &start_s, msg));
    TRY(x509_time(X509_get0_notAfter(cert), &end_s, msg));
    char span[SPAN_STRING_BYTES];
    if (now_s < start_s) {
        char start[TIME_STRING_BYTES];
        span_format(start_s - now_s, span);
        time_format(start_s, start);
        return status_fail(msg, STATUS_DENIED,
                           "clock off: the %s is valid only from %s (in %s); "
                           "check this machine's clock",
                           subject, start, span);
    }
    if (now_s > end_s) {
        span_format(now_s - end_s, span);
        return status_fail(msg, STATUS_DENIED, "the %s expired %s ago; %s", subject, span, cure);
    }
    return status_ok();
}

static bool verify_with(X509_STORE *store, X509_STORE_CTX *ctx, X509 *cert, STACK_OF(X509) * cas,
                        STACK_OF(X509) * chain, int64_t now_s)
{
    for (int i = 0; i < sk_X509_num(cas); i++) {
        if (X509_STORE_add_cert(store, sk_X509_value(cas, i)) != 1) {
            return false;
        }
    }
    if (X509_STORE_CTX_init(ctx, store, cert, chain) != 1 ||
        X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_CLIENT) != 1) {
        return false;
    }
    X509_STORE_CTX_set_time(ctx, 0, (time_t)now_s);
    return X509_verify_cert(ctx) == 1;
}

static struct status check_chain(X509 *cert, STACK_OF(X509) * cas, STACK_OF(X509) * chain,
                                 const char *subject, int64_t now_s, struct errmsg *msg)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    struct status s = status_ok();
    if (store == NULL || ctx == NULL) {
        s = x509_fail(msg, STATUS_NOMEM, "check certificate");
    } else if (!verify_with(store, ctx, cert, cas, chain, now_s)) {
        s = status_fail(msg, STATUS_DENIED,
                        "the %s is not one of this cluster's CA (%s); join the cluster again "
                        "with a token from 'skep ca token'",
                        subject, X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
    }
    ERR_clear_error();
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return s;
}

/* One CA of the bundle must be in force: during a change of CA the old one may have ended already.
 */
static struct status check_cas(STACK_OF(X509) * cas, int64_t now_s, struct errmsg *msg)
{
    struct errmsg why = {""};
    struct status s = status_ok();
    for (int i = 0; i < sk_X509_num(cas); i++) {
        s = check_times(sk_X509_value(cas, i), "cluster's CA certificate",
                        "make a new CA with 'skep ca init' and join again", now_s, &why);
        if (status_is_ok(s)) {
            return s;
        }
    }
    return status_fail(msg, s.code, "%s", why.text);
}

static void subject_format(const struct identity *id, char out[SUBJECT_STRING_BYTES])
{
    if (id->role == ROLE_JOIN) {
        (void)snprintf(out, SUBJECT_STRING_BYTES, "join token %s", id->name.text);
    } else {
        (void)snprintf(out, SUBJECT_STRING_BYTES, "certificate of %s %s", role_name(id->role),
                       id->name.text);
    }
}

struct status pki_check(const char *ca_pem, const char *cert_pem, const char *key_pem,
                        int64_t now_s, struct errmsg *msg)
{
    AUTO_CERTS STACK_OF(X509) *cas = NULL;
    AUTO_CERTS STACK_OF(X509) *chain = NULL;
    AUTO_KEY EVP_PKEY *key = NULL;
    TRY(x509_read_all("CA certificate", ca_pem, &cas, msg));
    TRY(x509_read_all("certificate", cert_pem, &chain, msg));
    TRY(x509_key_read("private key", key_pem, &key, msg));
    X509 *cert = sk_X509_value(chain, 0);
    struct identity id;
    TRY(x509_identity(cert, &id, msg));
    char subject[SUBJECT_STRING_BYTES];
    subject_format(&id, subject);
    if (X509_check_private_key(cert, key) != 1) {
        ERR_clear_error();
        return status_fail(msg, STATUS_INVALID,
                           "the private key does not belong to the %s; "
                           "the two files must come from the same join",
                           subject);
    }
    const char *cure = id.role == ROLE_JOIN
                           ? "make a new one with 'skep ca token'"
                           : "renew it: join again with a token from 'skep ca token'";
    TRY(check_cas(cas, now_s, msg));
    TRY(check_times(cert, subject, cure, now_s, msg));
    return check_chain(cert, cas, chain, subject, now_s, msg);
}

#include "common/pki/sign.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/pki/pki.h"
#include "common/pki/x509.h"

#include <openssl/err.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

enum { X509_VERSION_OF_V3 = 2 };

/* The last second an X.509 time can say: 9999-12-31 23:59:59. */
static const int64_t time_s_max = INT64_C(253402300799);

struct status serial_make(struct serial *out, struct errmsg *msg)
{
    struct serial made;
    if (RAND_bytes(made.v, sizeof made.v) != 1) {
        return x509_fail(msg, STATUS_INTERNAL, "make serial");
    }
    made.v[0] = (made.v[0] & 0x3F) | 0x40;
    *out = made;
    return status_ok();
}

void serial_format(const struct serial *serial, char out[SERIAL_STRING_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    for (int i = 0; i < SIGN_SERIAL_BYTES; i++) {
        out[2 * i] = hex[serial->v[i] >> 4];
        out[2 * i + 1] = hex[serial->v[i] & 15];
    }
    out[2 * SIGN_SERIAL_BYTES] = '\0';
}

struct status key_make(EVP_PKEY **out, struct errmsg *msg)
{
    ERR_clear_error();
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    if (key == NULL) {
        return x509_fail(msg, STATUS_INTERNAL, "make key");
    }
    *out = key;
    return status_ok();
}

void signer_close(struct signer *s)
{
    X509_free(s->cert);
    EVP_PKEY_free(s->key);
    *s = (struct signer){0};
}

static struct status signer_check(const struct signer *s, int64_t now_s, struct errmsg *msg)
{
    if (X509_check_ca(s->cert) != 1) {
        ERR_clear_error();
        return status_fail(msg, STATUS_INVALID, "CA certificate: is not a CA's");
    }
    if (X509_check_private_key(s->cert, s->key) != 1) {
        ERR_clear_error();
        return status_fail(msg, STATUS_INVALID, "CA key: does not belong to the CA certificate");
    }
    int64_t not_after_s = 0;
    TRY(x509_time(X509_get0_notAfter(s->cert), &not_after_s, msg));
    if (now_s > not_after_s) {
        return status_fail(msg, STATUS_DENIED,
                           "the cluster's CA has expired and signs nothing more; "
                           "make a new one with 'skep ca init'");
    }
    return status_ok();
}

struct status signer_open(struct signer *s, const char *ca_cert_pem, const char *ca_key_pem,
                          int64_t now_s, struct errmsg *msg)
{
    struct signer opened = {0};
    struct status st = x509_read("CA certificate", ca_cert_pem, &opened.cert, msg);
    if (status_is_ok(st)) {
        st = x509_key_read("CA key", ca_key_pem, &opened.key, msg);
    }
    if (status_is_ok(st)) {
        st = signer_check(&opened, now_s, msg);
    }
    if (!status_is_ok(st)) {
        signer_close(&opened);
        return st;
    }
    *s = opened;
    return status_ok();
}

static bool set_time(ASN1_TIME *time, int64_t at_s)
{
    return ASN1_TIME_set(time, (time_t)at_s) != NULL;
}

/* Version, serial, key and validity: what every certificate of ours has. The range of the times is
 * checked here. */
static struct status cert_start(EVP_PKEY *subject_key, const struct serial *serial, int64_t now_s,
                                int64_t valid_s, X509 **out, struct errmsg *msg)
{
    if (now_s < PKI_BACKDATE_S || now_s > time_s_max || valid_s < 1 || valid_s > PKI_VALID_S_MAX ||
        now_s + valid_s > time_s_max) {
        return status_fail(
            msg, STATUS_INVALID,
            "validity of %lld seconds from %lld is outside what a certificate can say",
            (long long)valid_s, (long long)now_s);
    }
    AUTO_X509 X509 *cert = X509_new();
    BIGNUM *number = BN_bin2bn(serial->v, sizeof serial->v, NULL);
    bool ok = cert != NULL && number != NULL && X509_set_version(cert, X509_VERSION_OF_V3) == 1 &&
              BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL &&
              X509_set_pubkey(cert, subject_key) == 1 &&
              set_time(X509_getm_notBefore(cert), now_s - PKI_BACKDATE_S) &&
              set_time(X509_getm_notAfter(cert), now_s + valid_s);
    BN_free(number);
    if (!ok) {
        return x509_fail(msg, STATUS_INTERNAL, "make certificate");
    }
    *out = PTR_STEAL(cert);
    return status_ok();
}

static bool add_name(X509_NAME *name, int nid, const char *text)
{
    return X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, (const unsigned char *)text, -1, -1,
                                      0) == 1;
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
    bool ok = extension != NULL && X509_add_ext(cert, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

/* The identity as the one URI, built as a structure: no text of ours passes OpenSSL's configuration
 * parser. */
static bool add_uri(X509 *cert, const char *uri)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    bool ok = names != NULL && name != NULL && text != NULL && ASN1_STRING_set(text, uri, -1) == 1;
    if (ok) {
        GENERAL_NAME_set0_value(name, GEN_URI, text);
        text = NULL;
        ok = sk_GENERAL_NAME_push(names, name) > 0;
    }
    if (ok) {
        name = NULL;
        ok = X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) == 1;
    }
    ASN1_IA5STRING_free(text);
    GENERAL_NAME_free(name);
    GENERAL_NAMES_free(names);
    return ok;
}

struct status ca_make(EVP_PKEY *key, const struct name *cluster, int64_t now_s, int64_t valid_s,
                      X509 **out, struct errmsg *msg)
{
    ERR_clear_error();
    struct serial serial;
    TRY(serial_make(&serial, msg));
    AUTO_X509 X509 *cert = NULL;
    TRY(cert_start(key, &serial, now_s, valid_s, &cert, msg));
    X509_NAME *subject = X509_get_subject_name(cert);
    bool ok = add_name(subject, NID_organizationName, cluster->text) &&
              add_name(subject, NID_commonName, "Skep cluster CA") &&
              X509_set_issuer_name(cert, subject) == 1 &&
              add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
              add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
              add_extension(cert, cert, NID_subject_key_identifier, "hash") &&
              X509_sign(cert, key, EVP_sha256()) > 0;
    if (!ok) {
        return x509_fail(msg, STATUS_INTERNAL, "make CA certificate");
    }
    *out = PTR_STEAL(cert);
    return status_ok();
}

static const char *extended_usage(enum role role)
{
    bool serves = role == ROLE_SCHEDULER || role == ROLE_AGENT;
    return serves ? "serverAuth,clientAuth" : "clientAuth";
}

/* Nothing signed outlives its signer: the check of a chain would refuse it anyway, with a message
 * that misleads. */
static struct status limit_end(X509 *cert, const X509 *ca, struct errmsg *msg)
{
    int64_t ca_end_s = 0;
    int64_t end_s = 0;
    TRY(x509_time(X509_get0_notAfter(ca), &ca_end_s, msg));
    TRY(x509_time(X509_get0_notAfter(cert), &end_s, msg));
    if (end_s > ca_end_s && !set_time(X509_getm_notAfter(cert), ca_end_s)) {
        return x509_fail(msg, STATUS_INTERNAL, "make certificate");
    }
    return status_ok();
}

struct status signer_sign(const struct signer *s, EVP_PKEY *subject_key, const struct identity *id,
                          const struct serial *serial, int64_t now_s, int64_t valid_s, X509 **out,
                          struct errmsg *msg)
{
    CHECK(s->cert != NULL && s->key != NULL);
    ERR_clear_error();
    /* Reading back what is about to be signed refuses an empty name or a wrong role before it is in
     * the world. */
    char uri[IDENTITY_URI_BYTES];
    struct identity same;
    identity_format(id, uri);
    TRY(identity_parse(uri, strlen(uri), &same, msg));
    AUTO_X509 X509 *cert = NULL;
    TRY(cert_start(subject_key, serial, now_s, valid_s, &cert, msg));
    TRY(limit_end(cert, s->cert, msg));
    X509_NAME *subject = X509_get_subject_name(cert);
    bool ok = add_name(subject, NID_organizationName, id->cluster.text) &&
              add_name(subject, NID_organizationalUnitName, role_name(id->role)) &&
              add_name(subject, NID_commonName, id->name.text) &&
              X509_set_issuer_name(cert, X509_get_subject_name(s->cert)) == 1 &&
              add_extension(cert, s->cert, NID_basic_constraints, "critical,CA:FALSE") &&
              add_extension(cert, s->cert, NID_key_usage, "critical,digitalSignature") &&
              add_extension(cert, s->cert, NID_ext_key_usage, extended_usage(id->role)) &&
              add_extension(cert, s->cert, NID_subject_key_identifier, "hash") &&
              add_extension(cert, s->cert, NID_authority_key_identifier, "keyid:always") &&
              add_uri(cert, uri) && X509_sign(cert, s->key, EVP_sha256()) > 0;
    if (!ok) {
        return x509_fail(msg, STATUS_INTERNAL, "sign certificate");
    }
    *out = PTR_STEAL(cert);
    return status_ok();
}

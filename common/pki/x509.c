#include "common/pki/x509.h"

#include "common/cleanup.h"
#include "common/mem.h"
#include "common/pki/pki.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <time.h>

enum { SERIAL_BYTES_MAX = (SERIAL_STRING_BYTES - 1) / 2 };

struct status x509_fail(struct errmsg *msg, enum status_code code, const char *what)
{
    unsigned long error = ERR_peek_last_error();
    if (ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE) {
        code = STATUS_NOMEM;
    }
    const char *reason = error == 0 ? NULL : ERR_reason_error_string(error);
    struct status s =
        status_fail(msg, code, "%s: %s", what, reason != NULL ? reason : status_text(code));
    ERR_clear_error();
    return s;
}

/* Stands in for OpenSSL's default, which asks for a passphrase on the terminal. */
static int no_passphrase(char *out, int size, int writing, void *data)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)data;
    return -1;
}

static struct status open_text(const char *what, const char *pem, BIO **out, struct errmsg *msg)
{
    ERR_clear_error();
    size_t size = strnlen(pem, PKI_PEM_BYTES_MAX + 1);
    if (size > PKI_PEM_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s: over %d bytes", what, PKI_PEM_BYTES_MAX);
    }
    BIO *bio = BIO_new_mem_buf(pem, (int)size);
    if (bio == NULL) {
        return x509_fail(msg, STATUS_NOMEM, what);
    }
    *out = bio;
    return status_ok();
}

static bool at_end(void)
{
    return ERR_GET_LIB(ERR_peek_last_error()) == ERR_LIB_PEM &&
           ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
}

/* One failure of a PEM reader as a line for people: OpenSSL's own for "nothing there" is "no start
 * line". */
static struct status unreadable(const char *what, const char *kind, struct errmsg *msg)
{
    if (at_end()) {
        ERR_clear_error();
        return status_fail(msg, STATUS_INVALID, "%s: holds no %s in PEM form", what, kind);
    }
    return x509_fail(msg, STATUS_INVALID, what);
}

struct status x509_read(const char *what, const char *pem, X509 **out, struct errmsg *msg)
{
    AUTO_BIO BIO *bio = NULL;
    TRY(open_text(what, pem, &bio, msg));
    X509 *cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
    if (cert == NULL) {
        return unreadable(what, "certificate", msg);
    }
    ERR_clear_error();
    *out = cert;
    return status_ok();
}

struct status x509_read_all(const char *what, const char *pem, STACK_OF(X509) * *out,
                            struct errmsg *msg)
{
    AUTO_BIO BIO *bio = NULL;
    TRY(open_text(what, pem, &bio, msg));
    AUTO_CERTS STACK_OF(X509) *certs = sk_X509_new_null();
    if (certs == NULL) {
        return x509_fail(msg, STATUS_NOMEM, what);
    }
    for (;;) {
        AUTO_X509 X509 *cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
        if (cert == NULL) {
            break;
        }
        if (sk_X509_num(certs) == X509_CERTS_MAX) {
            return status_fail(msg, STATUS_LIMIT, "%s: over %d certificates", what, X509_CERTS_MAX);
        }
        if (sk_X509_push(certs, cert) == 0) {
            return x509_fail(msg, STATUS_NOMEM, what);
        }
        cert = NULL;
    }
    if (sk_X509_num(certs) == 0 || !at_end()) {
        return unreadable(what, "certificate", msg);
    }
    ERR_clear_error();
    *out = PTR_STEAL(certs);
    return status_ok();
}

bool x509_key_is_p256(const EVP_PKEY *key)
{
    char group[32] = "";
    size_t size = 0;
    bool named = EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
                 EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group,
                                                sizeof group, &size) == 1;
    ERR_clear_error();
    return named && OBJ_sn2nid(group) == NID_X9_62_prime256v1;
}

struct status x509_key_read(const char *what, const char *pem, EVP_PKEY **out, struct errmsg *msg)
{
    AUTO_BIO BIO *bio = NULL;
    TRY(open_text(what, pem, &bio, msg));
    AUTO_KEY EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    if (key == NULL) {
        if (strstr(pem, "ENCRYPTED") != NULL) {
            ERR_clear_error();
            return status_fail(msg, STATUS_INVALID,
                               "%s: is behind a passphrase; keep it as a plain key of mode 0600",
                               what);
        }
        /* OpenSSL's decoders report many reasons, of which the last says little. */
        struct status s = x509_fail(NULL, STATUS_INVALID, what);
        return status_fail(msg, s.code, "%s: holds no readable private key in PEM form", what);
    }
    ERR_clear_error();
    if (!x509_key_is_p256(key)) {
        return status_fail(msg, STATUS_INVALID, "%s: is not a P-256 key", what);
    }
    *out = PTR_STEAL(key);
    return status_ok();
}

struct status x509_text(BIO *from, char **out, struct errmsg *msg)
{
    char *data = NULL;
    long size = BIO_get_mem_data(from, &data);
    char *text = size < 0 ? NULL : mem_alloc((size_t)size + 1);
    if (text == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    if (size > 0) {
        memcpy(text, data, (size_t)size);
    }
    text[size] = '\0';
    *out = text;
    return status_ok();
}

struct status x509_cert_text(X509 *cert, char **out, struct errmsg *msg)
{
    AUTO_BIO BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL || PEM_write_bio_X509(bio, cert) != 1) {
        return x509_fail(msg, STATUS_INTERNAL, "write certificate");
    }
    return x509_text(bio, out, msg);
}

struct status x509_key_text(EVP_PKEY *key, char **out, struct errmsg *msg)
{
    /* A memory BIO wipes its bytes when it grows and when it is freed. */
    AUTO_BIO BIO *bio = BIO_new(BIO_s_secmem());
    if (bio == NULL || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1) {
        return x509_fail(msg, STATUS_INTERNAL, "write private key");
    }
    return x509_text(bio, out, msg);
}

struct status x509_serial(const X509 *cert, char out[SERIAL_STRING_BYTES], struct errmsg *msg)
{
    static const char hex[] = "0123456789abcdef";
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
    int size = ASN1_STRING_length(serial);
    if (size < 1 || size > SERIAL_BYTES_MAX || ASN1_STRING_type(serial) != V_ASN1_INTEGER) {
        return status_fail(msg, STATUS_INVALID,
                           "the certificate's serial is not a positive number of at most %d bytes",
                           SERIAL_BYTES_MAX);
    }
    const unsigned char *data = ASN1_STRING_get0_data(serial);
    for (int i = 0; i < size; i++) {
        out[2 * i] = hex[data[i] >> 4];
        out[2 * i + 1] = hex[data[i] & 15];
    }
    out[2 * size] = '\0';
    return status_ok();
}

struct status x509_time(const ASN1_TIME *time, int64_t *out_s, struct errmsg *msg)
{
    struct tm tm = {0};
    if (ASN1_TIME_to_tm(time, &tm) != 1) {
        return x509_fail(msg, STATUS_INVALID, "the certificate's time is malformed");
    }
    *out_s = (int64_t)timegm(&tm);
    return status_ok();
}

/* The one URI among the names; a second one makes the identity ambiguous, so it is refused. */
static struct status names_identity(const GENERAL_NAMES *names, struct identity *out,
                                    struct errmsg *msg)
{
    const ASN1_IA5STRING *uri = NULL;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI) {
            continue;
        }
        if (uri != NULL) {
            return status_fail(msg, STATUS_INVALID,
                               "the certificate has more than one URI, so names no one identity");
        }
        uri = name->d.uniformResourceIdentifier;
    }
    if (uri == NULL) {
        return status_fail(msg, STATUS_INVALID,
                           "the certificate has no skep://CLUSTER/ROLE/NAME identity");
    }
    return identity_parse((const char *)ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri),
                          out, msg);
}

struct status x509_identity(const X509 *cert, struct identity *out, struct errmsg *msg)
{
    ERR_clear_error();
    /* With no place for the index, a second extension of the kind answers NULL: refused as well. */
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    ERR_clear_error();
    if (names == NULL) {
        return status_fail(msg, STATUS_INVALID,
                           "the certificate has no skep://CLUSTER/ROLE/NAME identity");
    }
    struct identity found = {0};
    struct status s = names_identity(names, &found, msg);
    GENERAL_NAMES_free(names);
    TRY(s);
    TRY(x509_serial(cert, found.serial, msg));
    TRY(x509_time(X509_get0_notAfter(cert), &found.not_after_s, msg));
    *out = found;
    return status_ok();
}

/* OpenSSL objects for pki and the TLS engine: reading PEM text, the identity inside a certificate,
 * one line out of OpenSSL's error queue, scope cleanup. The only header of this folder that needs
 * OpenSSL's.
 *
 * Thread: any; no shared state. Every function leaves the thread's OpenSSL error queue empty. */
#ifndef COMMON_PKI_X509_H
#define COMMON_PKI_X509_H

#include "common/net/identity.h"
#include "common/status.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdint.h>

/* Certificates in one PEM text: a CA bundle during a change of CA, or a chain. */
enum { X509_CERTS_MAX = 8 };

/* Empties the error queue into one line, "what: OpenSSL's reason". Answers NOMEM instead of code
 * when that is the reason. */
struct status x509_fail(struct errmsg *msg, enum status_code code, const char *what);

/* The first certificate of the text, which the caller frees. `what` names the text in messages ("CA
 * certificate"). INVALID. */
NODISCARD struct status x509_read(const char *what, const char *pem, X509 **out,
                                  struct errmsg *msg);

/* All certificates of the text, at least one and at most X509_CERTS_MAX. INVALID, LIMIT. */
NODISCARD struct status x509_read_all(const char *what, const char *pem, STACK_OF(X509) * *out,
                                      struct errmsg *msg);

/* A private key on the P-256 curve. Keys behind a passphrase are refused; nothing ever asks the
 * terminal. INVALID. */
NODISCARD struct status x509_key_read(const char *what, const char *pem, EVP_PKEY **out,
                                      struct errmsg *msg);

/* True for an EC key on P-256, the one kind we sign. */
bool x509_key_is_p256(const EVP_PKEY *key);

/* What the BIO holds as a mem_alloc text. NOMEM. */
NODISCARD struct status x509_text(BIO *from, char **out, struct errmsg *msg);
NODISCARD struct status x509_cert_text(X509 *cert, char **out, struct errmsg *msg);
NODISCARD struct status x509_key_text(EVP_PKEY *key, char **out, struct errmsg *msg);

/* The serial as lower-case hex, two digits a byte. INVALID over 20 bytes or negative. */
NODISCARD struct status x509_serial(const X509 *cert, char out[SERIAL_STRING_BYTES],
                                    struct errmsg *msg);

/* Everything of struct identity, from the one URI subject alternative name, the serial and the end
 * of validity. Says nothing about trust: verify the certificate as well. INVALID. */
NODISCARD struct status x509_identity(const X509 *cert, struct identity *out, struct errmsg *msg);

/* Unix seconds. INVALID for a malformed time. */
NODISCARD struct status x509_time(const ASN1_TIME *time, int64_t *out_s, struct errmsg *msg);

static inline void x509_cleanup_cert(X509 **p)
{
    X509_free(*p);
}
static inline void x509_cleanup_req(X509_REQ **p)
{
    X509_REQ_free(*p);
}
static inline void x509_cleanup_key(EVP_PKEY **p)
{
    EVP_PKEY_free(*p);
}
static inline void x509_cleanup_bio(BIO **p)
{
    BIO_free_all(*p);
}
static inline void x509_cleanup_certs(STACK_OF(X509) * *p)
{
    sk_X509_pop_free(*p, X509_free);
}

#define AUTO_X509 __attribute__((cleanup(x509_cleanup_cert)))
#define AUTO_X509_REQ __attribute__((cleanup(x509_cleanup_req)))
#define AUTO_KEY __attribute__((cleanup(x509_cleanup_key)))
#define AUTO_BIO __attribute__((cleanup(x509_cleanup_bio)))
#define AUTO_CERTS __attribute__((cleanup(x509_cleanup_certs)))

#endif

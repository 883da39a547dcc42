/* Signing, shared by certificates and join tokens.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_PKI_SIGN_H
#define COMMON_PKI_SIGN_H

#include "common/net/identity.h"
#include "common/status.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdint.h>

/* 16 random bytes whose first is 0x40 to 0x7f: positive, and of one length in every notation. */
enum { SIGN_SERIAL_BYTES = 16 };
struct serial {
    uint8_t v[SIGN_SERIAL_BYTES];
};

NODISCARD struct status serial_make(struct serial *out, struct errmsg *msg);
void serial_format(const struct serial *serial, char out[SERIAL_STRING_BYTES]);

/* The CA that signs: its certificate and key belong together, and it may sign at now_s. */
struct signer {
    X509 *cert;
    EVP_PKEY *key;
};

/* The first certificate of ca_cert_pem signs. INVALID, DENIED (the CA has expired). */
NODISCARD struct status signer_open(struct signer *s, const char *ca_cert_pem,
                                    const char *ca_key_pem, int64_t now_s, struct errmsg *msg);
/* Safe on zeroed memory and twice. */
void signer_close(struct signer *s);

/* A certificate for subject_key that says id, valid from PKI_BACKDATE_S before now_s until now_s +
 * valid_s, at most as long as the CA is. The caller frees it. INVALID. */
NODISCARD struct status signer_sign(const struct signer *s, EVP_PKEY *subject_key,
                                    const struct identity *id, const struct serial *serial,
                                    int64_t now_s, int64_t valid_s, X509 **out, struct errmsg *msg);

/* A fresh P-256 key, which the caller frees. */
NODISCARD struct status key_make(EVP_PKEY **out, struct errmsg *msg);

/* A self-signed CA certificate for key. */
NODISCARD struct status ca_make(EVP_PKEY *key, const struct name *cluster, int64_t now_s,
                                int64_t valid_s, X509 **out, struct errmsg *msg);

#endif

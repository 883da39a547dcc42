/* The cluster's certificate authority: keys, certificates, requests and join tokens. P-256 keys, X.509 v3, the identity in one critical-free URI
 * SAN. Only OpenSSL does cryptography here.
 *
 * Join tokens carry a short-lived certificate of role join of their own (so that even a first connection is mutually authenticated) and the
 * addresses of the schedulers: skep-join-v1.BASE64URL. The replicated token list makes them single use.
 *
 * Thread: any; no shared state. Times are Unix seconds. PEM results are heap texts that the caller frees with mem_free; private key texts
 * are wiped by pki_key_free. */
#ifndef COMMON_PKI_PKI_H
#define COMMON_PKI_PKI_H

#include "common/buffer.h"
#include "common/net/identity.h"
#include "common/status.h"

enum { PKI_PEM_BYTES_MAX = 16 << 10, PKI_TOKEN_BYTES_MAX = 16 << 10, PKI_ADDRESSES_MAX = 16, PKI_ADDRESS_BYTES_MAX = 255 };

/* Makes a CA for the cluster; valid days from now_s. */
NODISCARD struct status pki_ca_create(const struct name *cluster, int64_t now_s, int64_t valid_s, char **cert_pem,
                                      char **key_pem, struct errmsg *msg);

/* A fresh P-256 key and a request for it. The request carries no name: the signer decides who it is for. */
NODISCARD struct status pki_request_create(char **csr_pem, char **key_pem, struct errmsg *msg);

/* Signs the request for id (cluster, role, name); the request's own signature is checked, its names are ignored. Extended
 * key usage: scheduler and agent both, user and join client only. Serial: 64+ random bits. */
NODISCARD struct status pki_sign(const char *ca_cert_pem, const char *ca_key_pem, const char *csr_pem,
                                 const struct identity *id, int64_t now_s, int64_t valid_s, char **cert_pem,
                                 struct errmsg *msg);

/* What a certificate says; also its not_before for renewal decisions (may be NULL). */
NODISCARD struct status pki_identity_of(const char *cert_pem, struct identity *out, int64_t *not_before_s,
                                        struct errmsg *msg);

/* Does key belong to cert, and does ca sign cert now? For clear start-up errors (expired: "certificate of X expired 2 days ago; run ..."). */
NODISCARD struct status pki_check(const char *ca_pem, const char *cert_pem, const char *key_pem, int64_t now_s,
                                  struct errmsg *msg);

struct pki_token {
    char id[SERIAL_STRING_BYTES]; /* the join certificate's serial */
    char *ca_pem;
    char *cert_pem;
    char *key_pem;
    char addresses[PKI_ADDRESSES_MAX][PKI_ADDRESS_BYTES_MAX + 1];
    size_t addresses_count;
};

/* Makes a token and its text. role is what the joiner will become, name (may be empty: joiner chooses) binds it; both are kept by the replicated
 * token list, not in the text. */
NODISCARD struct status pki_token_create(const char *ca_cert_pem, const char *ca_key_pem, const struct name *cluster,
                                         const char *const *addresses, size_t addresses_count, int64_t now_s,
                                         int64_t valid_s, char **text, char id[SERIAL_STRING_BYTES], struct errmsg *msg);
/* Bounded decoder of outside input. */
NODISCARD struct status pki_token_parse(const char *text, size_t size, struct pki_token *out, struct errmsg *msg);
void pki_token_close(struct pki_token *t);

void pki_key_free(char *key_pem);

/* Reads a PEM file of at most PKI_PEM_BYTES_MAX; a private key file that group or others may read is refused (DENIED). */
NODISCARD struct status pki_read(const char *path, bool secret, char **pem, struct errmsg *msg);
/* Writes atomically (temporary file, fsync, rename), mode 0600 when secret, 0644 otherwise. */
NODISCARD struct status pki_write(const char *path, bool secret, const char *pem, struct errmsg *msg);

#endif

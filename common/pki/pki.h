/* The cluster's certificate authority: keys, certificates, requests and join tokens. P-256 keys,
 * X.509 v3, the identity in one URI subject alternative name. Only OpenSSL does cryptography here.
 *
 * A join token carries a short-lived certificate of role join (so that even a first connection is
 * mutually authenticated), its key, the CA and the addresses of the schedulers:
 * skep-join-v1.BASE64URL. It is a secret. The replicated token list makes it single use.
 *
 * Thread: any; no shared state; pki_read and pki_write block on the disk. Times are Unix seconds.
 * PEM results are heap texts, written only on success: the caller frees certificates and requests
 * with mem_free, private keys and tokens with pki_key_free, which wipes them. Input texts are
 * untrusted; only files we are given by path may be refused by their mode. */
#ifndef COMMON_PKI_PKI_H
#define COMMON_PKI_PKI_H

#include "common/buffer.h"
#include "common/net/identity.h"
#include "common/status.h"

enum {
    PKI_PEM_BYTES_MAX = 16 << 10,
    PKI_TOKEN_BYTES_MAX = 16 << 10,
    PKI_ADDRESSES_MAX = 16,
    PKI_ADDRESS_BYTES_MAX = 255,
    /* Certificates are valid from this long before they are signed, for peers whose clock is
       behind. */
    PKI_BACKDATE_S = 300,
};
#define PKI_VALID_S_MAX (INT64_C(100) * 366 * 86400)

/* Makes a CA for the cluster, valid for valid_s from now_s. INVALID (times out of range), NOMEM. */
NODISCARD struct status pki_ca_create(const struct name *cluster, int64_t now_s, int64_t valid_s,
                                      char **cert_pem, char **key_pem, struct errmsg *msg);

/* A fresh P-256 key and a request for it. The request carries no name: the signer decides who it is
 * for. NOMEM. */
NODISCARD struct status pki_request_create(char **csr_pem, char **key_pem, struct errmsg *msg);

/* Signs the request for id (cluster, role, name): the request's own signature is checked, its names
 * are ignored. Extended key usage: scheduler and agent both, user and join client only. Serial: 126
 * random bits. The certificate ends with the CA at the latest. INVALID (not a request, not P-256,
 * no identity, times out of range), DENIED (not signed by its own key; the CA has expired), NOMEM.
 */
NODISCARD struct status pki_sign(const char *ca_cert_pem, const char *ca_key_pem,
                                 const char *csr_pem, const struct identity *id, int64_t now_s,
                                 int64_t valid_s, char **cert_pem, struct errmsg *msg);

/* What the first certificate of the text says, whoever signed it; also its start for renewal
 * decisions (not_before_s may be NULL). INVALID, NOMEM. */
NODISCARD struct status pki_identity_of(const char *cert_pem, struct identity *out,
                                        int64_t *not_before_s, struct errmsg *msg);

/* Does the key belong to the certificate, and does a CA of ca_pem vouch for it now? For start-up,
 * where the message tells people the cure. INVALID (unreadable, or key and certificate do not
 * match), DENIED (expired, not yet valid, of another CA), NOMEM. */
NODISCARD struct status pki_check(const char *ca_pem, const char *cert_pem, const char *key_pem,
                                  int64_t now_s, struct errmsg *msg);

struct pki_token {
    char id[SERIAL_STRING_BYTES]; /* the join certificate's serial */
    char *ca_pem;
    char *cert_pem;
    char *key_pem;
    char addresses[PKI_ADDRESSES_MAX][PKI_ADDRESS_BYTES_MAX + 1];
    size_t addresses_count;
};

/* Makes a token's text (freed with pki_key_free) and its id; addresses are HOST:PORT, at least one.
 * What the joiner will become is kept by the replicated token list under the id, not in the text.
 * ca_cert_pem may hold further CAs after the one that signs; the joiner will trust them all.
 * INVALID, LIMIT, DENIED (the CA has expired), NOMEM. */
NODISCARD struct status pki_token_create(const char *ca_cert_pem, const char *ca_key_pem,
                                         const struct name *cluster, const char *const *addresses,
                                         size_t addresses_count, int64_t now_s, int64_t valid_s,
                                         char **text, char id[SERIAL_STRING_BYTES],
                                         struct errmsg *msg);

/* Bounded decoder of outside input: size bytes, white space and line ends anywhere are skipped.
 * Says nothing about expiry: pki_check does. INVALID (not a token), CORRUPT (cut short or changed
 * on the way), UNSUPPORTED (of another version), LIMIT, NOMEM. */
NODISCARD struct status pki_token_parse(const char *text, size_t size, struct pki_token *out,
                                        struct errmsg *msg);
/* Wipes and frees what is inside. Safe on zeroed memory and twice. */
void pki_token_close(struct pki_token *t);

/* Wipes and frees a secret text; NULL is fine. */
void pki_key_free(char *key_pem);

/* Reads a PEM file of at most PKI_PEM_BYTES_MAX; a private key file that group or others may read
 * is refused (DENIED). Also NOT_FOUND, INVALID (not a file, not a text), LIMIT, IO, NOMEM. */
NODISCARD struct status pki_read(const char *path, bool secret, char **pem, struct errmsg *msg);

/* Writes atomically (temporary file beside it, fsync, rename), mode 0600 when secret, 0644
 * otherwise. LIMIT, DENIED, NOT_FOUND (no such folder), IO. */
NODISCARD struct status pki_write(const char *path, bool secret, const char *pem,
                                  struct errmsg *msg);
/* The same for any bytes, of any size. */
NODISCARD struct status pki_write_bytes(const char *path, bool secret, struct bytes data,
                                        struct errmsg *msg);
/* Makes sure that the path's name is on the disk: syncs its folder. */
NODISCARD struct status pki_sync_folder(const char *path, struct errmsg *msg);

#endif

/* The cluster key, which wraps data keys: one secret of the operator, the same on all schedulers,
 * never stored by Skep itself. Where it comes from is one text:
 *
 *     file:PATH          a file made by `skep key create`, open to nobody but its owner
 *     credential:NAME    the same, as a systemd credential: $CREDENTIALS_DIRECTORY/NAME
 *     pkcs11:...         an RSA key on a token (RFC 7512), by OpenSSL's engine pkcs11: the private
 *                        key never leaves the token
 *
 * Its fingerprint tells cluster keys apart in messages and beside wrapped keys; it says nothing
 * about the key. A wrapped key is bound to its id.
 *
 * Thread: one at a time; opening and PKCS#11 block. */
#ifndef COMMON_SEAL_WRAP_H
#define COMMON_SEAL_WRAP_H

#include "common/seal/seal.h"

enum {
    WRAP_FINGERPRINT_BYTES = 17, /* 16 hex digits and NUL */
    WRAP_BYTES_MAX = 1024,       /* of a wrapped key: RSA of up to 8000 bits */
    WRAP_FROM_BYTES_MAX = 4096,
};

#define WRAP_FROM_FILE "file:"
#define WRAP_FROM_CREDENTIAL "credential:"
#define WRAP_FROM_TOKEN "pkcs11:"

struct cluster_key;

/* What follows the prefix in the text, or NULL. */
const char *wrap_after(const char *text, const char *prefix);
/* Is the text of one of the three forms? INVALID, LIMIT. The message does not name the key. */
NODISCARD struct status cluster_key_check(const char *from, struct errmsg *msg);

/* Opens the key. module: the PKCS#11 module to load (NULL: the engine's default); only for
 * pkcs11:. NOT_FOUND, DENIED (open to others), INVALID, UNSUPPORTED (no PKCS#11 engine here),
 * UNAVAILABLE (the token does not answer or lacks the key), IO, NOMEM. */
NODISCARD struct status cluster_key_open(const char *from, const char *module,
                                         struct cluster_key **out, struct errmsg *msg);
/* Wipes and frees; NULL is fine. */
void cluster_key_free(struct cluster_key *c);
const char *cluster_key_fingerprint(const struct cluster_key *c);

/* Makes a new key file of mode 0600. EXISTS: a key that something may be sealed with is not
 * overwritten. */
NODISCARD struct status cluster_key_create(const char *path, struct errmsg *msg);

/* Appends the wrapped key. NOMEM, IO; out is unchanged then. */
NODISCARD struct status cluster_key_wrap(struct cluster_key *c, uint32_t id,
                                         const struct seal_key *key, struct buffer *out,
                                         struct errmsg *msg);
/* CORRUPT (wrapped by another cluster key, changed, or another id), UNAVAILABLE (the token), NOMEM.
 */
NODISCARD struct status cluster_key_unwrap(struct cluster_key *c, uint32_t id, struct bytes wrapped,
                                           struct seal_key *out, struct errmsg *msg);

#endif

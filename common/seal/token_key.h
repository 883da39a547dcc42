/* An RSA key on a PKCS#11 token, by OpenSSL's engine pkcs11 (Debian: libengine-pkcs11-openssl).
 * Private to common/seal.
 *
 * Thread: one at a time; blocks on the token. */
#ifndef COMMON_SEAL_TOKEN_KEY_H
#define COMMON_SEAL_TOKEN_KEY_H

#include "common/buffer.h"
#include "common/status.h"

struct token_key;

/* uri: pkcs11:... (RFC 7512), with pin-value or pin-source when the token wants a PIN. module: the
 * PKCS#11 library; NULL: p11-kit's. UNSUPPORTED (no engine), UNAVAILABLE (no such token or key,
 * wrong PIN), INVALID (not RSA of 2048 to 8000 bits), NOMEM. */
NODISCARD struct status token_key_open(const char *uri, const char *module, struct token_key **out,
                                       struct errmsg *msg);
void token_key_free(struct token_key *t);
/* SHA-256 of the public key. */
NODISCARD struct status token_key_digest(const struct token_key *t, uint8_t out[32]);
/* RSA-OAEP with SHA-1 and MGF1-SHA-1, which is what tokens speak (its security does not rest on
 * collisions). The first needs only the public key, the second is done by the token. */
NODISCARD struct status token_key_encrypt(const struct token_key *t, struct bytes plain,
                                          struct buffer *out, struct errmsg *msg);
NODISCARD struct status token_key_decrypt(const struct token_key *t, struct bytes sealed,
                                          struct buffer *out, struct errmsg *msg);

#endif

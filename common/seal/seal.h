/* Sealing: AES-256-GCM by OpenSSL. A sealed text is
 *
 *     key id u32 (little-endian) | nonce 12 | ciphertext | tag 16
 *
 * and opens only under the key of that id and with the same associated data, which names the
 * purpose, so that a sealed text of one place cannot stand in another. The id is authenticated
 * before that data. Nonces are random: of one
 * key at most SEAL_MESSAGES_MAX texts may be made (NIST SP 800-38D, 8.3).
 *
 * Thread: a sealer belongs to one thread at a time; the functions without one may run on any. */
#ifndef COMMON_SEAL_SEAL_H
#define COMMON_SEAL_SEAL_H

#include "common/buffer.h"
#include "common/status.h"

#include <stdint.h>

enum {
    SEAL_KEY_BYTES = 32,
    SEAL_NONCE_BYTES = 12,
    SEAL_TAG_BYTES = 16,
    SEAL_HEAD_BYTES = 4 + SEAL_NONCE_BYTES,
    SEAL_EXTRA_BYTES = SEAL_HEAD_BYTES + SEAL_TAG_BYTES, /* how much longer a sealed text is */
};
#define SEAL_MESSAGES_MAX (UINT64_C(1) << 32) /* under one key */

struct seal_key {
    uint8_t v[SEAL_KEY_BYTES];
};

/* Where a text is sealed in place. */
struct seal_room {
    uint8_t *data;
    size_t size;
    uint8_t *head; /* SEAL_HEAD_BYTES */
    uint8_t *tag;  /* SEAL_TAG_BYTES */
};

/* A cipher that remembers the last key it was used with. */
struct sealer;

/* NULL when out of memory. */
struct sealer *sealer_new(void);
/* Wipes and frees; NULL is fine. */
void sealer_free(struct sealer *s);

/* Appends the sealed text to out. NOMEM; out is unchanged then. */
NODISCARD struct status sealer_seal(struct sealer *s, uint32_t key_id, const struct seal_key *key,
                                    struct bytes aad, struct bytes plain, struct buffer *out);
/* The same where the text lies: data becomes the ciphertext; what comes before and behind it is
 * written to head and tag. NOMEM; data is worthless then. */
NODISCARD struct status sealer_seal_in_place(struct sealer *s, uint32_t key_id,
                                             const struct seal_key *key, struct bytes aad,
                                             struct seal_room room);
/* Appends the opened text to out. CORRUPT (cut short, changed, another key or other associated
 * data), NOMEM; out is unchanged then and nothing unverified was left in its memory. */
NODISCARD struct status sealer_open(struct sealer *s, const struct seal_key *key, struct bytes aad,
                                    struct bytes sealed, struct buffer *out);

/* The id of the key that a sealed text names; 0 when it is too short to be one. */
uint32_t seal_key_id(struct bytes sealed);

/* A key for one purpose out of another (HKDF-SHA256, RFC 5869): purpose and context together
 * select it. NOMEM. */
NODISCARD struct status seal_derive(const struct seal_key *from, const char *purpose,
                                    struct bytes context, struct seal_key *out);
/* Fills the key with random bytes. IO when the system gives none. */
NODISCARD struct status seal_key_make(struct seal_key *out);
/* Constant-time. */
bool seal_key_equal(const struct seal_key *a, const struct seal_key *b);
void seal_key_wipe(struct seal_key *key);

static inline void seal_cleanup_key(struct seal_key *key)
{
    seal_key_wipe(key);
}
#define AUTO_SEAL_KEY __attribute__((cleanup(seal_cleanup_key)))

#endif

/* The data keys of a cluster, opened, in memory: key id -> 32 bytes. The memory is locked where the
 * system allows it, kept out of core dumps and wiped when freed; keys are never logged.
 *
 * Ids grow: the highest is the one that seals. Keys are only added.
 *
 * Thread: any; a lock inside. */
#ifndef COMMON_SEAL_KEYRING_H
#define COMMON_SEAL_KEYRING_H

#include "common/seal/seal.h"

enum { KEYRING_KEYS_MAX = 64 };

struct keyring;

/* NULL when out of memory. */
struct keyring *keyring_new(void);
/* Wipes and frees; NULL is fine. */
void keyring_free(struct keyring *k);

/* Adds a key; the same one again is fine. INVALID (id 0), CONFLICT (another key has this id), LIMIT
 * (KEYRING_KEYS_MAX). */
NODISCARD struct status keyring_put(struct keyring *k, uint32_t id, const struct seal_key *key);
/* A copy of the key for the caller to wipe (AUTO_SEAL_KEY). NOT_FOUND. */
NODISCARD struct status keyring_find(struct keyring *k, uint32_t id, struct seal_key *out);
/* The id of the key that seals; 0: there is none yet. */
uint32_t keyring_current(struct keyring *k);
/* Could the memory be locked against swapping? */
bool keyring_locked(const struct keyring *k);

#endif

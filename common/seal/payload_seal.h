/* Payload files at rest. Each is sealed under a random key of its own, which is stored, itself
 * sealed under a data key of the keyring, in a small file beside it:
 *
 *     PATH       version u8 | sealed payload (key id 0: its own key)
 *     PATH.key   version u8 | sealed key (key id: the data key's)
 *
 * Deleting a payload deletes its key: payload_key_shred overwrites and removes PATH.key, after
 * which PATH and every copy of it is noise, whoever may learn the data keys later. (What a
 * copy-on-write file system or a flash disk keeps of an overwritten 65-byte file is out of our
 * reach: full-disk encryption is the answer there.)
 *
 * Both files bind the payload's digest: one payload's files do not open as another's. The caller
 * does the file work of the two it writes: first PATH.key, then PATH, each synced.
 *
 * To use it: LINK skep_seal; a scheduler's keyring is seals_keyring(server) of
 * scheduler/api/seals.h, NULL when the cluster has no cluster key: payload files are then plain
 * and have no PATH.key. A file without its key, where PATH.key does not exist, is plain. While
 * seals_keyring has no key yet (keyring_current answers 0: the first data key is not committed,
 * which takes a moment once in a cluster's life), payload_seal answers UNAVAILABLE: tell the client
 * to try again, never write it plain.
 *
 * Thread: any; the keyring locks itself. A MiB takes about 1 ms on a slow machine: off the loop. */
#ifndef COMMON_SEAL_PAYLOAD_SEAL_H
#define COMMON_SEAL_PAYLOAD_SEAL_H

#include "common/ids.h"
#include "common/seal/keyring.h"

enum {
    PAYLOAD_SEAL_EXTRA_BYTES = 1 + SEAL_EXTRA_BYTES,                /* PATH is longer by */
    PAYLOAD_KEY_BYTES = 1 + SEAL_EXTRA_BYTES + (int)SEAL_KEY_BYTES, /* the size of PATH.key */
};
#define PAYLOAD_KEY_SUFFIX ".key"
_Static_assert((int)PAYLOAD_KEY_BYTES == 65, "as above, docs/security.md and docs/operations.md");

/* Appends the contents of PATH to file and of PATH.key to key_file. UNAVAILABLE (no data key yet),
 * NOMEM, IO (no random bytes); both are unchanged then. */
NODISCARD struct status payload_seal(struct keyring *k, const struct digest *digest,
                                     struct bytes plain, struct buffer *file,
                                     struct buffer *key_file);
/* Appends the payload to plain. CORRUPT (changed, cut short, of another payload), NOT_FOUND (the
 * keyring lacks the data key), UNSUPPORTED (of a later version), NOMEM; plain is unchanged then.
 * The digest of the payload itself is the caller's to check. */
NODISCARD struct status payload_open(struct keyring *k, const struct digest *digest,
                                     struct bytes file, struct bytes key_file,
                                     struct buffer *plain);
/* Overwrites the key file, syncs it and removes it. One that is not there is fine. Blocks on the
 * disk. IO, DENIED. */
NODISCARD struct status payload_key_shred(const char *key_path, struct errmsg *msg);

#endif

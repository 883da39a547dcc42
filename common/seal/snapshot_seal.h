/* A sealed snapshot of the state:
 *
 *     u32 magic | u32 version | u32 size, wrapped keys | id 16 | u32 key id | u32 parts | parts
 *     a part: u32 size | sealed text
 *
 * The wrapped keys stand in the clear, so that whoever has the cluster key can open the rest. Each
 * snapshot has a key of its own, derived from the data key and its random id, and each part is
 * bound to its place, so that parts can neither be moved, nor left out, nor taken from another
 * snapshot.
 *
 * Thread: any; the keyring locks itself. */
#ifndef COMMON_SEAL_SNAPSHOT_SEAL_H
#define COMMON_SEAL_SNAPSHOT_SEAL_H

#include "common/parts.h"
#include "common/seal/keyring.h"

enum {
    SNAPSHOT_SEAL_ID_BYTES = 16,
    SNAPSHOT_SEAL_KEYS_BYTES_MAX = 1 << 20,
    SNAPSHOT_SEAL_PARTS_MAX = 1 << 20,
};

/* What stands in the clear. */
struct snapshot_head {
    struct bytes wrapped_keys; /* borrowed */
    uint8_t id[SNAPSHOT_SEAL_ID_BYTES];
    uint32_t key_id;
    uint32_t parts;
    struct bytes rest; /* the parts */
};

/* Seals plain, part by part, into out, which is empty before; plain is empty afterwards, also on
 * failure: its memory becomes out's. NOT_FOUND (no such key), LIMIT, NOMEM, IO. */
NODISCARD struct status snapshot_seal(struct keyring *k, uint32_t key_id, struct bytes wrapped_keys,
                                      struct parts *plain, struct parts *out);
/* Does it begin as a sealed snapshot does? A plain one never does. */
bool snapshot_is_sealed(struct bytes snapshot);
/* Reads what stands in the clear. CORRUPT, UNSUPPORTED (of a later version). */
NODISCARD struct status snapshot_head_read(struct bytes snapshot, struct snapshot_head *out,
                                           struct errmsg *msg);
/* Appends the whole state to plain. NOT_FOUND (the keyring lacks the key), CORRUPT, NOMEM; plain is
 * unchanged then. */
NODISCARD struct status snapshot_open(struct keyring *k, const struct snapshot_head *head,
                                      struct buffer *plain, struct errmsg *msg);

#endif

/* What stands around the state in a snapshot: u32 magic | u32 version | u64 size | u64 checksum |
 * state, since raft_uv keeps no checksum of uncompressed snapshots. The checksum is against broken
 * disks, not against people.
 *
 * Thread: any. */
#ifndef SCHEDULER_REPLICA_SNAPSHOT_BYTES_H
#define SCHEDULER_REPLICA_SNAPSHOT_BYTES_H

#include "common/parts.h"

enum { SNAPSHOT_HEAD_BYTES = 24 };

/* The head of a snapshot whose state is in these parts. Reads all of them. */
void snapshot_head(const struct parts *state, uint8_t out[SNAPSHOT_HEAD_BYTES]);
/* The state inside stored bytes, borrowed. CORRUPT. */
NODISCARD struct status snapshot_unwrap(struct bytes stored, struct bytes *out);

#endif

/* The real world under a replica: raft_uv's disk, and the loop's turns.
 *
 * raft_uv keeps term, vote, log and snapshots; its transport is a dummy that never connects,
 * since messages leave through replica_events.send. Its struct is changed in place (send, close,
 * random).
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_UV_HOST_H
#define SCHEDULER_REPLICA_UV_HOST_H

#include "scheduler/replica/replica_internal.h"

#include <raft/uv.h>

enum { SEGMENT_BYTES = 32 << 20 };

/* raft_uv on a folder, with the dummy transport; io->data is free for a guard. Returns libraft's
 * code. */
int uv_disk_init(struct raft_io *io, struct raft_uv_transport *transport, uv_loop_t *loop,
                 const char *folder);

#endif

/* A backup's state on its way into an empty cluster, as replicated state: command_restore brings
 * it in pieces, in order; the last one replaces the state on every replica at once.
 *
 *     nothing -> collecting (pieces so far) -> restored | refused -> nothing
 *
 * Kept of the new cluster: nodes, schedulers, tokens, revocations and data keys. Taken from the
 * backup: functions, durable invocations, schedules' last times, and settings, where the backup's
 * win. Restored invocations keep their order and stand before whatever is spawned later.
 *
 * The pieces are part of snapshots (frames behind the last job's), so that a replica that catches
 * up by one can apply the rest. A command that makes the state not empty ends a restore that is
 * under way: it could never finish.
 *
 * Thread: the core's, but for restore_pin_encode. */
#ifndef SCHEDULER_CORE_RESTORE_H
#define SCHEDULER_CORE_RESTORE_H

#include "common/parts.h"
#include "common/status.h"
#include "proto/message.h"

enum {
    RESTORE_BYTES_MAX = 1 << 30, /* of all pieces */
    RESTORE_PIECE_BYTES_MAX = 512 << 10,
};

struct core;
struct core_time;
struct restore_piece;

/* All zeros: no restore is under way. */
struct restore {
    struct id128 id;
    uint64_t total, size; /* of the whole, of the pieces so far */
    struct restore_piece *first, *last;
};

/* Applies a piece. offset 0 begins anew, whatever was under way; the last piece given again is
 * fine; total 0 abandons. CONFLICT (the state is not empty, or the piece is not the next one),
 * LIMIT, INVALID, CORRUPT (the backup's state cannot be read: nothing is changed). */
struct status restore_apply(struct core *c, struct core_time now, const struct command_restore *p,
                            struct errmsg *msg);
/* After any other command: ends a restore that can no longer finish. */
void restore_check(struct core *c);
void restore_close(struct restore *r);

/* For snapshots. What is pinned stays readable until restore_unpin. */
struct restore_pin;
/* NULL when there is nothing to keep. */
struct restore_pin *restore_pin(const struct restore *r);
/* Any thread: appends a frame (u32 size | an encoded command_restore) a piece. */
NODISCARD struct status restore_pin_encode(const struct restore_pin *p, struct parts *out);
void restore_unpin(struct restore_pin *p); /* NULL is fine */
/* Takes the frames that follow the jobs of a snapshot, replacing what r holds. CORRUPT. */
NODISCARD struct status restore_load(struct restore *r, struct bytes frames, struct errmsg *msg);

#endif

/* Encryption at rest: everything on this scheduler's disk that holds payloads is sealed under a
 * data key, which the cluster key wraps (common/seal).
 *
 *     first leader: no data key yet -> proposes command_key_put -> applied everywhere: entries are
 *     sealed from there on; what was proposed meanwhile is held until then
 *     a command: encoded -> sealed -> Raft -> opened -> applied
 *     a snapshot: pinned with the wrapped keys -> encoded -> sealed part by part -> stored
 *     rotation: one more command_key_put; the old keys stay
 *
 * Failures: no cluster key, or another one than the state's -> the scheduler does not start (or
 * ends when it learns of it from the log), saying which one it needs.
 *
 * An entry in the log is the encoded command, or SEALED_ENTRY u8 | sealed text. command_key_put is
 * never sealed. DATA/keys holds the wrapped keys a second time, so that the log can be opened from
 * its first entry on, whatever wrapped them then; a scheduler that joins is given it.
 *
 * Thread: the loop's, but for seals_encode (any) and what seals_keyring returns (any). */
#ifndef SCHEDULER_API_SEALS_H
#define SCHEDULER_API_SEALS_H

#include "common/parts.h"
#include "common/status.h"
#include "proto/message.h"

enum {
    SEALED_ENTRY = 0x07, /* field 0 of an unknown wire type: no protobuf text begins so */
    SEALS_HELD_MAX = 4096,
    SEALS_HELD_BYTES_MAX = 64 << 20,
};

struct keyring;
struct server;
struct session;

/* The scheduler's data keys; NULL when the configuration names no cluster key: nothing is sealed
 * then. Lives as long as the server. */
struct keyring *seals_keyring(struct server *s);

/* Before the replica is opened. NOT_FOUND, DENIED (no or another cluster key than the state's),
 * CORRUPT, and what cluster_key_open says. */
NODISCARD struct status seals_open(struct server *s, struct errmsg *msg);
/* After the core was freed. */
void seals_close(struct server *s);

/* Proposes an encoded command, sealed. As replica_propose. */
NODISCARD struct status seals_propose(struct server *s, uint64_t ticket, enum command_type type,
                                      struct bytes command);
/* The command in a committed entry; borrowed, good until the next call. CORRUPT, NOT_FOUND. */
NODISCARD struct status seals_open_entry(struct server *s, struct bytes entry, struct bytes *out,
                                         struct errmsg *msg);
/* After each command was applied. */
void seals_applied(struct server *s, const struct command *cmd, struct status outcome);
/* After each change of role, and now and then. */
void seals_role(struct server *s);
void seals_tick(struct server *s);

/* The wrapped data keys for a scheduler that joins, as its DATA/keys; nothing when there are none.
 * NOMEM. */
NODISCARD struct status seals_keys(const struct server *s, struct buffer *out);

/* Snapshots, as struct replica_events has them. */
void *seals_pin(struct server *s);
NODISCARD struct status seals_encode(struct server *s, const void *pin, struct parts *out);
void seals_unpin(struct server *s, void *pin);
/* Replaces the core's state by a stored snapshot. */
NODISCARD struct status seals_restore(struct server *s, struct bytes stored, struct errmsg *msg);

/* seals_admin.c: key.rotate and key.rewrap; false for any other action. */
bool seals_admin(struct server *s, struct session *from, const struct message *m);
/* The question "keys". */
void seals_query(struct server *s, struct session *from, const struct message *m);

#endif

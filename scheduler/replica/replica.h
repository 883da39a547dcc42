/* Replication of opaque commands by Raft. Nothing else in Skep includes raft.h; a second backend
 * (Debian 13's cowsql/raft) must be possible.
 *
 * The replica owns the Raft state and its files; messages to other members leave through
 * replica_events.send and arrive through replica_receive, as opaque bytes.
 *
 *     replica_open -> (on_apply, on_role, restore)* -> replica_close(cb)
 *
 * Thread: the loop's. Callbacks are never made from inside the call that started the operation,
 * but for restore, which replica_open calls when there is a snapshot. Disk errors are fail-stop:
 * on_fatal, after which nothing is sent, applied or accepted; the process must end
 * (replica_close is possible).
 *
 * A member that has lost its disk must not come back under its id while it is still a member:
 * what it voted and acknowledged is forgotten, and the leader would wait for it for ever. Remove
 * it, then add it again. */
#ifndef SCHEDULER_REPLICA_REPLICA_H
#define SCHEDULER_REPLICA_REPLICA_H

#include "common/parts.h"
#include "common/status.h"

#include <stdint.h>

struct uv_loop_s;
struct replica;

enum {
    REPLICA_MEMBERS_MAX = 9,
    REPLICA_ADDRESS_BYTES_MAX = 255,
    REPLICA_COMMAND_BYTES_MAX = 1 << 20,
    REPLICA_PROPOSALS_MAX = 65536,         /* outstanding; over it replica_propose answers LIMIT */
    REPLICA_PROPOSAL_BYTES_MAX = 64 << 20, /* outstanding; likewise */
    REPLICA_CHANGES_MAX = 16,              /* membership changes waiting; over it LIMIT */
    REPLICA_MESSAGE_BYTES_MAX = 64 << 20,
    REPLICA_SNAPSHOT_BYTES_MAX = 2000 << 20, /* raft_uv reads no larger file */
};

enum replica_member_role { REPLICA_STANDBY, REPLICA_VOTER, REPLICA_SPARE };

struct replica_member {
    uint64_t id;                                 /* never 0 */
    char address[REPLICA_ADDRESS_BYTES_MAX + 1]; /* HOST:PORT */
    enum replica_member_role role;
};

struct replica_status {
    bool leader;
    uint64_t term;
    uint64_t leader_id; /* 0: none known */
    char leader_address[REPLICA_ADDRESS_BYTES_MAX + 1];
    uint64_t commit_index;
    uint64_t applied_index;
    uint64_t last_index;
    uint64_t snapshot_index;
    uint64_t snapshot_bytes; /* of the last one that was made here; 0: none */
    uint64_t snapshot_ms;    /* which took so long, from the pinned state to the disk */
    uint64_t proposals;
    uint64_t unwritten_bytes; /* of entries on their way to the disk */
    uint64_t disk_free_bytes; /* UINT64_MAX: not known */
};

struct replica_config {
    const char *folder;
    uint64_t id;
    const char *address;
    uint32_t election_timeout_ms; /* 0: 500 */
    uint32_t heartbeat_ms;        /* 0: 50 */
    uint32_t snapshot_threshold;  /* entries; 0: 65536; up to half as many more, by id */
    uint32_t snapshot_trailing;   /* 0: 8192 */
    uint64_t ballast_bytes;       /* of a file that is given up when the disk is full; 0: none */
    uint64_t free_bytes_min;      /* below it nothing is accepted; 0: no mark */
    uint64_t random_seed;
};

struct replica_events {
    void *data;
    /* Sends one opaque message to a member; bulk ones (snapshots) should travel on a connection
     * of their own. Fire and forget. */
    void (*send)(void *data, uint64_t member_id, const char *address, bool bulk,
                 struct bytes message);
    /* A committed command, in order, exactly once per process life (after on_restore, from there
     * on). */
    void (*on_apply)(void *data, uint64_t index, uint64_t term, struct bytes command);
    /* A chance after each batch of applies (one call a loop turn): send what the applies caused.
     * May be NULL. */
    void (*on_applied)(void *data, uint64_t index);
    /* The answer to a proposal, on the loop, exactly once. OK: committed and applied here at
     * index. UNKNOWN: leadership was lost while it was in flight, it may or may not apply.
     * NOT_LEADER: certainly not applied. */
    void (*on_proposed)(void *data, uint64_t ticket, struct status s, uint64_t index);
    /* Leadership or term changed. As leader, called only once the no-op barrier of this term has
     * been applied: all older commands are in the state. */
    void (*on_role)(void *data, const struct replica_status *st);
    /* Pins the state of the last applied command, quickly: called on the loop. NULL: out of memory,
     * tried again later. At most one pin is held at a time. */
    void *(*snapshot_pin)(void *data);
    /* Encodes a pinned state; on any thread, while the loop goes on applying. Parts written so far
     * are freed by the replica also on failure. */
    struct status (*snapshot_encode)(void *data, const void *pin, struct parts *out);
    /* On the loop, once the encoding has ended. */
    void (*snapshot_unpin)(void *data, void *pin);
    /* Replaces the whole state. CORRUPT stops the replica (on_fatal). */
    struct status (*restore)(void *data, struct bytes state);
    void (*on_fatal)(void *data, const char *why);
};

/* Loads the state and starts. The folder must exist. On failure the loop has to run some more
 * turns before it can be closed. INVALID for wrong settings, CORRUPT for damaged files, IO,
 * NOMEM, LIMIT. */
NODISCARD struct status replica_open(struct replica **out, struct uv_loop_s *loop,
                                     const struct replica_config *config,
                                     const struct replica_events *events, struct errmsg *msg);
/* True when the folder holds no Raft state yet: bootstrap, or wait to be added. Call before
 * replica_open. */
bool replica_folder_empty(const char *folder);
/* True when the folder has been emptied by replica_wipe: the member waits to be added, and must not
 * be bootstrapped, as it would vote and acknowledge as if it had forgotten nothing. */
bool replica_folder_waits(const char *folder);
/* Empties the folder of a stopped member that has been removed from its cluster. CONFLICT for one
 * in use, IO. */
NODISCARD struct status replica_wipe(const char *folder, struct errmsg *msg);
/* First start of a new cluster: writes the first configuration, the same on every first member.
 * Before replica_open. */
NODISCARD struct status replica_bootstrap(const struct replica_config *config,
                                          const struct replica_member *members, size_t count,
                                          struct errmsg *msg);
/* The last entry in the folder of a stopped member. Of several survivors the one with the highest
 * term, then the highest index, has everything that was acknowledged and survived. NOT_FOUND for an
 * empty folder, CONFLICT for one in use, CORRUPT, IO. */
NODISCARD struct status replica_folder_last(const char *folder, uint64_t *term, uint64_t *index,
                                            struct errmsg *msg);
/* After the majority has been lost for good: makes `member`, which is config's own, the only one,
 * with the log and state in its folder. It must be stopped. All other members must be wiped before
 * they are added again. As replica_folder_last. */
NODISCARD struct status replica_recover(const struct replica_config *config,
                                        const struct replica_member *member, struct errmsg *msg);
/* Ends writing what is on its way, answers what is open (UNKNOWN, or CANCELED when it never left),
 * then calls cb, after which the replica is gone. No messages leave any more. Once. */
void replica_close(struct replica *r, void (*cb)(void *data), void *data);

/* Proposes commands that were queued in one loop turn as one batch; on_proposed answers each
 * ticket. Bytes are copied. NOT_LEADER, LIMIT and NOMEM answer at once and on_proposed
 * is not called. A new leader accepts nothing before on_role has told it so; nothing is accepted
 * while leadership is being transferred (on_proposed then says NOT_LEADER). */
NODISCARD struct status replica_propose(struct replica *r, uint64_t ticket, struct bytes command);
/* Why replica_propose answers or may answer LIMIT at this moment, for people; NULL: it does not.
 * Good until the next call. The disk is nearly full or too slow, or too much is outstanding. */
const char *replica_refusal(struct replica *r);

/* A message from a member that the transport has authenticated as from_id. Malformed ones are
 * INVALID and change nothing. */
NODISCARD struct status replica_receive(struct replica *r, uint64_t from_id,
                                        const char *from_address, struct bytes message);

/* leader means: leads, and has applied the barrier of this term. */
struct replica_status replica_status(const struct replica *r);
size_t replica_members(const struct replica *r, struct replica_member out[REPLICA_MEMBERS_MAX]);

/* Membership, one change after the other; each answers by cb exactly once, with a line for
 * people. Add joins as spare, becomes standby and, when it has caught up, takes the role asked
 * for; adding again continues, EXISTS says that the id has another address or the address
 * another id, UNAVAILABLE that it does not catch up. Removing the leader transfers leadership
 * first and answers NOT_LEADER with the new leader's name: repeat it there. UNKNOWN: leadership
 * was lost meanwhile. */
typedef void (*replica_change_cb)(void *data, struct status s, const char *message);
void replica_add(struct replica *r, const struct replica_member *m, replica_change_cb cb,
                 void *data);
void replica_remove(struct replica *r, uint64_t id, replica_change_cb cb, void *data);
/* id 0: the library picks. TIMEOUT: that member did not take over. */
void replica_transfer(struct replica *r, uint64_t id, replica_change_cb cb, void *data);

#endif

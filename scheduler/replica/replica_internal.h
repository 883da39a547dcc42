/* What is under a replica: the raft_io with its disk, and the loop. libuv's is uv_host.c, the
 * simulator brings its own.
 *
 * A host embeds struct replica_host, fills io (send must be replica_host_send or end there,
 * close must call outbox_cancel before anything else) and the calls below, and gives itself to
 * replica_create. It calls replica_turn once after each turn of its loop in which anything may
 * have happened, outside of any callback of the replica's, and soon after wake().
 *
 *     replica_create -> (replica_turn)* -> release() -> replica_released, which frees the replica
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_REPLICA_INTERNAL_H
#define SCHEDULER_REPLICA_REPLICA_INTERNAL_H

#include "scheduler/replica/change.h"
#include "scheduler/replica/folder.h"
#include "scheduler/replica/guard.h"
#include "scheduler/replica/inbound.h"
#include "scheduler/replica/outbox.h"
#include "scheduler/replica/pressure.h"
#include "scheduler/replica/proposals.h"
#include "scheduler/replica/replica.h"
#include "scheduler/replica/works.h"

struct replica_host {
    struct raft_io io;     /* never moved: raft_uv keeps its address. io.data is the guard's */
    struct outbox *outbox; /* set by replica_create, before raft_init */
    uint32_t cures_off;    /* enum guard_cure: the simulator's, to show that a cure is needed */
    struct replica *replica;
    /* What the host knows of the disk. */
    uint64_t mark; /* index of an entry that was on it before the start; 0: not known */
    uint64_t free_bytes;
    uint64_t total_bytes;
    bool space_known;
    /* Have replica_turn called soon. */
    void (*wake)(struct replica_host *h);
    /* libraft is closed: let go of everything, then call replica_released from the loop, not
     * from inside. */
    void (*release)(struct replica_host *h);
    /* replica_create has failed before libraft had the io: let go of everything at once. */
    void (*abandon)(struct replica_host *h);
};

/* The longest reason given to on_fatal. */
enum { REPLICA_WHY_BYTES_MAX = 512, REPLICA_TURN_ROUNDS_MAX = 16, REPLICA_GATHER_MAX = 4096 };

struct replica {
    struct raft raft;
    struct raft_fsm fsm;
    struct guard guard;
    struct outbox outbox;
    struct inbound inbound;
    struct proposals proposals;
    struct changes changes;
    struct pressure pressure;
    struct works works;
    struct replica_host *host;
    struct replica_events events;
    uint64_t barrier_term; /* the term whose barrier has been asked for */
    uint64_t ready_term;   /* the term whose barrier has been applied here */
    uint64_t told_applied;
    uint64_t told_term;
    uint64_t told_leader_id;
    uint64_t ticks_seen;
    void *pin;                  /* of a snapshot that is being encoded; NULL: none */
    uint64_t snapshot_begun_ms; /* when it was pinned */
    uint64_t snapshot_took_ms;  /* the last one */
    uint64_t snapshot_retry_ms; /* none before this time */
    bool told_leader;
    char *folder; /* for messages; NULL: none */
    bool started; /* raft_start has succeeded */
    bool told_fatal;
    bool closing;
    bool raft_closing;
    char why[REPLICA_WHY_BYTES_MAX];
    void (*close_cb)(void *data);
    void *close_data;
};

/* Makes a replica over a host, loads its state (events.restore may be called) and starts it. On
 * failure the host goes away by itself: at once, or, when libraft had begun, after a few more
 * turns of the loop. */
NODISCARD struct status replica_create(struct replica **out, struct replica_host *host,
                                       const struct replica_config *config,
                                       const struct replica_events *events, struct errmsg *msg);
/* Does what has gathered: leadership, proposals, changes, messages, callbacks. True: call again
 * without waiting. */
bool replica_turn(struct replica *r);
/* For simulated crashes: closes libraft at once, with no callback to anybody; release() is
 * called from inside, and replica_released after it makes no calls either. The host must drop
 * its pending writes first. */
void replica_abandon(struct replica *r);
/* The last word of a host after release(): makes the close callback and frees the replica, but
 * not the host. */
void replica_released(struct replica *r);

/* raft_io.send for hosts. */
int replica_host_send(struct raft_io *io, struct raft_io_send *req,
                      const struct raft_message *message, raft_io_send_cb cb);

/* Fills fsm's calls (fsm.c). */
void replica_fsm_init(struct replica *r);
/* A snapshot's encoding has ended; data is the replica. */
void replica_snapshot_encoded(void *data, int status);
/* The index of the last entry that is committed and on this disk. */
uint64_t replica_mark(const struct replica *r);
/* Takes note of a reason to stop; on_fatal is called in the next turn. */
void replica_fail(struct replica *r, const char *why);

/* Checks id, address, timeouts, folder of a configuration. INVALID or LIMIT. */
NODISCARD struct status replica_config_check(const struct replica_config *config,
                                             struct errmsg *msg);

/* The first members as libraft's configuration, to be closed. LIMIT, INVALID, EXISTS. */
NODISCARD struct status replica_configuration(const struct replica_member *members, size_t count,
                                              struct raft_configuration *out, struct errmsg *msg);

#endif

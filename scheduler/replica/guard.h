/* The place between libraft and the raft_io that stores and sends.
 *
 *     replica.c -> libraft -> guard -> replica_host.io (uv_host.c: raft_uv's disk; simulator's)
 *
 * Bare libraft 0.15 is not safe: it acknowledges what it has not checked, goes on after a failed
 * write, and more. What can be cured without changing the library is cured here, by looking at
 * everything that passes between it and the world. In place are:
 *   - fail-stop: after any storage error libraft is told nothing more and nothing is sent (a
 *     failed append would make it truncate its log and go on). Completions that come later are
 *     withheld until libraft has been closed, and given then as successes, at which it only lets
 *     go of the memory.
 *   - destinations: messages leave only to members, or to whom we are just answering, at the
 *     address the configuration or the received message names; libraft reads the leader's
 *     address from a union that may hold something else.
 *   - answers from servers that are no members are dropped.
 *   - barrier entries are zeroed; libraft writes 8 uninitialised bytes to disk and wire.
 * The remaining cures (votes, stale acknowledgements, truncation, configuration rollback, trailing)
 * belong here too: each is one more rule in guard_receive, the tick, the send or the append of
 * this file.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_GUARD_H
#define SCHEDULER_REPLICA_GUARD_H

#include "common/status.h"

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef RAFT_VERSION_NUMBER
#error "this backend is for libraft 0.15; later ones have another I/O contract"
#endif

struct guard_request;

struct guard {
    struct raft_io io; /* what libraft is given */
    struct raft_io *base;
    struct raft *raft;
    void (*fatal)(void *data, const char *why);
    void *data;

    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_io_close_cb close;
    struct guard_request *held; /* completions withheld after a failure */
    unsigned writes;            /* appends and snapshots on their way to the disk */
    unsigned depth;             /* of calls into libraft from here */
    uint64_t ticks;
    uint64_t answering_id; /* the sender of the message being handled, 0: none */
    const char *answering_address;
    bool failed;
    bool closing;
};

/* Puts a guard on base for raft; `fatal` is called once, from inside libraft, so it may only
 * take note. */
void guard_init(struct guard *g, struct raft_io *base, struct raft *raft,
                void (*fatal)(void *data, const char *why), void *data);

/* Gives libraft a message; what the message owns is libraft's from here, whatever comes of it. */
void guard_receive(struct guard *g, struct raft_message *message);

/* Brackets a call into libraft that does not come through here (raft_apply and the like). */
void guard_enter(struct guard *g);
void guard_leave(struct guard *g);

/* Stops for good, as after a storage error. */
void guard_fail(struct guard *g, const char *what, int raft_code);

#endif

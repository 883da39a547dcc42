/* The scheduler's core: pure and deterministic, without I/O. Events go in (a peer came or went, a
 * message, a committed command, a change of role, a tick), with the time as data; what must happen
 * comes out through struct core_env. The daemon and the simulator run this same code.
 *
 * Two kinds of state: the replicated catalog, changed only by core_apply, the same on every
 * replica; and the soft state of the leader (nodes, instances, calls), rebuilt by a new leader from
 * what agents report.
 *
 * A call's life, happy path first:
 *     call -> queued -> (instance with a free slot) invoke -> result -> call_reply
 * then the failures: queue full -> LIMIT; deadline while queued or running -> TIMEOUT (running ones
 * get a cancel); instance ended -> CRASHED; node lost or leadership lost while running -> UNKNOWN;
 * agent refuses before running -> queued again.
 *
 * Thread: one, the owner's. Env functions are called from inside the event functions; they must not
 * call back into the core. */
#ifndef SCHEDULER_CORE_CORE_H
#define SCHEDULER_CORE_CORE_H

#include "common/net/identity.h"
#include "common/parts.h"
#include "common/status.h"
#include "proto/message.h"

#include <stdint.h>

struct core;
struct catalog;

/* The time of an event. mono_us: for deadlines, never goes back. unix_ms: for stamps. */
struct core_time {
    uint64_t mono_us;
    uint64_t unix_ms;
};

struct core_env {
    void *data;
    /* Sends to a peer that core_peer_open named. m is borrowed for the call. A peer that is gone is
     * not an error. */
    void (*send)(void *data, uint64_t peer, const struct message *m);
    /* Proposes a command; core_proposed answers the ticket, unless this call fails. */
    struct status (*propose)(void *data, uint64_t ticket, const struct command *c);
    uint64_t (*random)(void *data);
    /* The replicated state no longer names this payload (it is deleted), on every replica, from
     * inside core_apply. */
    void (*payload_dropped)(void *data, const struct digest *payload);
    /* A canary on that node got through a wall; may be NULL. */
    void (*isolation_failed)(void *data, const char *node, const char *check, const char *detail);
    /* Why propose answers LIMIT, for people; may answer NULL, and may be NULL. */
    const char *(*refusal)(void *data);
};

struct core_config {
    uint32_t lease_ms; /* a node that is silent this long is lost; 0: 3000 */
    /* how long a new leader waits for agents' reports before it starts instances; 0: 1000 */
    uint32_t settle_ms;
    uint32_t calls_max; /* held at once; 0: CORE_CALLS_MAX */
};

enum {
    CORE_CALLS_MAX = 100000,
    CORE_INSTANCES_MAX = 100000,
    CORE_PENDING_MAX = 512,         /* own proposals in flight */
    CORE_SPAWNS_PENDING_MAX = 8192, /* spawns on their way into the log */
    CORE_OUTCOME_WAITS_MAX = 100000,
    CORE_PAYLOAD_BYTES_MAX = 512 << 20, /* of all calls held */
    CORE_PEERS_MAX = 16384,
    CORE_JOURNAL_MAX = 1024,
    CORE_TICK_MS = 10,                  /* how often core_tick wants to be called */
    CORE_ISOLATION_MS = 10 * 60 * 1000, /* between a node's isolation checks, unless it is set */
    CORE_ISOLATION_MS_MIN = 1000,
    CORE_ISOLATION_ANSWER_MS = 90 * 1000, /* how long an agent may take for a round */
    CORE_TIMEOUT_MS_MAX = 24 * 3600 * 1000,
};

struct core_stats {
    uint64_t calls, calls_ok, calls_failed, calls_timeout, calls_limit, calls_crashed,
        calls_unknown, calls_requeued;
    uint64_t cold_starts, starts_failed, instances_stopped, results_late, reports_stale,
        messages_refused;
    uint64_t queued, running, instances, instances_ready, nodes_ready;
    uint64_t spawns, spawns_limit, jobs_done, jobs_dead, jobs_canceled, attempts_durable,
        attempts_lost, schedules_fired;
    uint64_t jobs, jobs_queued, jobs_late, jobs_bytes;
    uint64_t isolation_rounds, isolation_not_run, isolation_breaches; /* breaches: failed checks */
    uint64_t isolation_nodes_breached;                                /* now, by their last round */
};

/* NULL when out of memory. env and config are copied. */
struct core *core_new(const struct core_env *env, const struct core_config *config);
void core_free(struct core *c);

/* A connection whose identity is proven. peer is the owner's handle, never 0, not reused while
 * open. */
void core_peer_open(struct core *c, struct core_time now, uint64_t peer,
                    const struct identity *who);
void core_peer_close(struct core *c, struct core_time now, uint64_t peer);
/* A decoded message that the peer's role may send. */
void core_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m);

/* A committed command, on every replica in the same order. Returns what its proposer is told. */
struct status core_apply(struct core *c, struct core_time now, uint64_t index,
                         const struct command *cmd, struct errmsg *msg);
/* The end of a proposal of this core. */
void core_proposed(struct core *c, struct core_time now, uint64_t ticket, struct status s,
                   uint64_t index);
/* Leadership: leader is true once all older commands are applied. leader_address is where clients
 * are sent otherwise ("" when unknown). */
void core_role(struct core *c, struct core_time now, bool leader, uint64_t term,
               const char *leader_name, const char *leader_address);
void core_tick(struct core *c, struct core_time now);

/* Proposes on the edge's behalf; done is called exactly once, with the outcome of the apply. LIMIT
 * and NOT_LEADER arrive through done as well, but then before this returns. */
typedef void (*core_done)(void *data, struct status s, const char *message, uint64_t index);
void core_submit(struct core *c, struct core_time now, const struct command *cmd, core_done done,
                 void *data);

/* A snapshot of the replicated state: pinned at once, encoded at leisure.
 *
 *     core_pin -> core_pin_encode (any thread; the core goes on) -> core_unpin
 *
 * The encoded state is a list of frames, u32 size | protobuf: first `State`, then one `StateJob` a
 * durable invocation. core_pin answers NULL when out of memory or while another pin is held. */
struct core_pin;
struct core_pin *core_pin(struct core *c);
NODISCARD struct status core_pin_encode(const struct core_pin *p, struct parts *out);
void core_unpin(struct core *c, struct core_pin *p);
/* Replaces the whole replicated state by an encoded one. CORRUPT; the state is empty then. */
NODISCARD struct status core_restore(struct core *c, struct core_time now, struct bytes snapshot,
                                     struct errmsg *msg);
/* Calls fn for each payload outside the log that the state names; fn must not change the core. */
void core_payloads(const struct core *c, void (*fn)(void *data, const struct digest *payload),
                   void *data);
bool core_payload_named(const struct core *c, const struct digest *payload);
/* Is the function of that durable invocation of data_class phi, whose payloads stay outside the log
 * whatever their size? */
bool core_invocation_sensitive(const struct core *c, struct id128 invocation);
const struct catalog *core_catalog(const struct core *c);

bool core_is_leader(const struct core *c);
struct core_stats core_stats(const struct core *c);

/* For the edge that relays logs and metrics: the peer of a node, or of the node an instance runs
 * on; 0 when there is none. */
uint64_t core_node_peer(const struct core *c, const char *node);
uint64_t core_instance_peer(const struct core *c, struct id128 instance, const char **node);
/* Up to max instances of the function, newest first; returns how many. */
size_t core_function_instances(const struct core *c, const char *function, struct id128 *out,
                               size_t max);

/* Checks all invariants of the soft state; aborts when one is broken. For simulations and debug
 * builds. */
void core_check(const struct core *c);

#endif

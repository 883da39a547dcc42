/* The agent's core: which commands it obeys, what runs on its machine, what it answers.
 * Deterministic and without I/O: events go in with the time as data, and what must happen is
 * asked of the injected environment.
 *
 *     scheduler -> agent_core_receive -> env.start / env.invoke / ... -> the machine
 *     machine   -> agent_core_instance_ready / _result / _instance_ended -> env.send -> scheduler
 *
 * Fencing: a command is obeyed only when its term is the highest this agent has seen announced
 * by `lead` and when it comes over the connection that announced it. Lease: an agent that has
 * not heard from its leader for lease_ms takes no new work, lets what runs finish, and keeps the
 * results for the next leader.
 *
 * Durable attempts (invoke.durable): their results are kept until a leader acknowledges them, and
 * sent again to a new leader, over a new connection, and every RESULT_AGAIN_MS (kept.c). Which run
 * is part of every registration, so that a new leader adopts them. At most one attempt of a durable
 * invocation runs here: an invoke for another one is refused with CONFLICT.
 *
 * An instance: STARTING -> READY -> STOPPING -> ended (forgotten). Any state may end at once
 * when its process dies.
 *
 * Thread: the owner's. The environment's functions are called from inside the events and must
 * not call back into the core. All times are microseconds of one monotonic clock. */
#ifndef AGENT_CORE_AGENT_CORE_H
#define AGENT_CORE_AGENT_CORE_H

#include "common/status.h"
#include "proto/message.h"

enum {
    AGENT_PEERS_MAX = 64,
    AGENT_INSTANCES_MAX = 4096,
    AGENT_ATTEMPTS_MAX = 65536,
    AGENT_CONCURRENCY_MAX = 1024,
    RESULTS_HELD_MAX = 1024,
    RESULTS_HELD_BYTES_MAX = 64 << 20,
    RESULTS_KEPT_MAX = 10000, /* of durable attempts, until they are acknowledged */
    RESULTS_KEPT_BYTES_MAX = 64 << 20,
    RESULT_AGAIN_MS = 5000,
    AGENT_LEASE_MS_DEFAULT = 10 * 1000,
    AGENT_LEASE_MS_MAX = 3600 * 1000,
    ATTEMPT_TIMEOUT_MS_MAX = 24 * 3600 * 1000,
    ATTEMPT_GRACE_MS = 1000, /* from giving an attempt up to the death of its instance */
    STARTUP_TIMEOUT_MS_DEFAULT = 60 * 1000,
    STARTUP_TIMEOUT_MS_MAX = 3600 * 1000,
    STOP_GRACE_MS = 10 * 1000, /* from a stop with nothing running until the instance is killed */
    HEARTBEATS_UNANSWERED_MAX = 64, /* answers to older heartbeats say nothing */
};

/* Requests of heartbeats have this bit, so that they never meet the numbers that the edge gives
 * to its own requests. */
#define AGENT_HEARTBEAT_REQUEST (UINT64_C(1) << 63)

struct agent_core;

struct agent_env {
    void *data;
    /* Queues one message; everything in it is borrowed. False when the peer cannot take it now. */
    bool (*send)(void *data, uint64_t peer, const struct message *m);
    /* Begins to start an instance; the outcome comes as agent_core_instance_ready or _ended,
     * later. An error means that nothing was begun, and no event follows. */
    struct status (*start)(void *data, const struct start *s, struct errmsg *msg);
    /* Ends an instance: in order, or at once when kill is set. agent_core_instance_ended
     * follows, later. */
    void (*stop)(void *data, struct id128 instance, bool kill);
    /* Hands an invocation to an instance, with its timeout filled in; agent_core_result follows,
     * later. An error means that the instance has not seen it. */
    struct status (*invoke)(void *data, const struct invoke *i, struct errmsg *msg);
    /* Tells the instance to give up an attempt: best effort; agent_core_result may follow. */
    void (*cancel)(void *data, struct id128 instance, struct id128 invocation, uint32_t attempt);
    /* A leader has been accepted, or says again what it said: its schedulers, its revocations. */
    void (*lead)(void *data, uint64_t peer, uint64_t term, const struct lead *l);
};

/* What this node is. Texts and labels are borrowed for the core's life. */
struct agent_core_config {
    uint64_t boot;         /* differs at each start of the agent */
    uint32_t cpu_millis;   /* capacity for instances */
    uint64_t memory_bytes; /* capacity for instances */
    uint32_t lease_ms;     /* for leaders that name none; 0: AGENT_LEASE_MS_DEFAULT */
    bool canary;           /* the edge takes isolation_check */
    struct pair *labels;
    size_t labels_count;
    uint32_t walls_not_needed; /* wall_set of common/wall.h, said at each registration */
    bool egress;               /* can give instances a network */
};

struct agent_core_stats {
    uint64_t starts, starts_failed;
    uint64_t starts_refused; /* over capacity or limits, or without lease */
    uint64_t fenced;         /* commands of an older term or from a connection that does not lead */
    uint64_t invokes;        /* handed to instances */
    uint64_t invokes_refused_lease, invokes_refused_busy, invokes_refused_gone;
    uint64_t invokes_repeated; /* already running here */
    uint64_t invokes_conflict; /* another attempt of the durable invocation runs here */
    uint64_t results, results_failed;
    uint64_t results_late; /* of attempts that are not here any more */
    uint64_t results_held_dropped;
    uint64_t results_acked, results_again; /* of durable attempts; sent again */
    uint64_t results_kept_dropped;
    uint64_t timeouts, cancels;
    uint64_t kills;   /* instances killed for overrunning a timeout */
    uint64_t crashes; /* instances that ended unasked */
    uint64_t messages_unexpected;
    uint64_t instances_starting, instances_ready, instances_stopping;
    uint64_t attempts, results_held, results_held_bytes;
    uint64_t results_kept, results_kept_bytes;
    uint64_t cpu_millis_used, memory_bytes_used; /* promised to live instances */
    uint64_t term;
};

/* NOMEM. env is copied; what config points to is borrowed. */
NODISCARD struct status agent_core_new(struct agent_core **out,
                                       const struct agent_core_config *config,
                                       const struct agent_env *env);
void agent_core_free(struct agent_core *c);

/* A connection to a scheduler is up, hellos exchanged: the node registers there. LIMIT, NOMEM,
 * EXISTS. */
NODISCARD struct status agent_core_peer_open(struct agent_core *c, uint64_t now_us, uint64_t peer);
/* Unknown peers are fine. */
void agent_core_peer_close(struct agent_core *c, uint64_t now_us, uint64_t peer);

/* One message of a scheduler: lead, start, stop, invoke, cancel, result_ack and reply to
 * heartbeats; others are counted and dropped. */
void agent_core_receive(struct agent_core *c, uint64_t now_us, uint64_t peer,
                        const struct message *m);

/* An instance of a former life of the agent, found alive: READY or STARTING. Before the first
 * peer. EXISTS, LIMIT (also when it does not fit the capacity: the caller ends it), INVALID for
 * other states, NOMEM. */
NODISCARD struct status agent_core_adopt(struct agent_core *c, uint64_t now_us,
                                         const struct instance_report *r, uint64_t timeout_ms);
/* An invocation that such an instance was given and has not answered. NOT_FOUND without the
 * instance, EXISTS (also for another attempt of a durable invocation), LIMIT, NOMEM. */
NODISCARD struct status agent_core_adopt_attempt(struct agent_core *c, uint64_t now_us,
                                                 const struct attempt_report *r, uint32_t left_ms);

/* The instance serves. concurrency is what its runner can do; the lower of it and the function's
 * counts. Unknown instances are fine. */
void agent_core_instance_ready(struct agent_core *c, uint64_t now_us, struct id128 instance,
                               uint32_t concurrency, uint64_t startup_us);
/* The instance's process is gone. What it ran is answered CRASHED with the message, which names
 * the limit that was hit. code and message go into the report, unless the core knows better why
 * it ended. */
void agent_core_instance_ended(struct agent_core *c, uint64_t now_us, struct id128 instance,
                               enum status_code code, const char *message);
/* An attempt's outcome: output when code is OK, message otherwise; the core fills in run_us.
 * Unknown and answered ones are counted and dropped. */
void agent_core_result(struct agent_core *c, uint64_t now_us, const struct result *r);

/* What registrations say of the node's GPUs from now on, borrowed until the next call; NULL, as at
 * the beginning: nothing. The heartbeats carry what the caller puts into them. */
void agent_core_gpus(struct agent_core *c, struct gpu_inventory *gpu);

/* What registrations and heartbeats say of gVisor from now on (node_register in proto/rows.h),
 * borrowed until the next call; both "" at the beginning. */
void agent_core_gvisor(struct agent_core *c, const char *platform, const char *why);

/* Grows whenever the devices that instances hold have changed, or a start with devices has been
 * refused: the schedulers should be told of the devices again. */
uint64_t agent_core_gpu_changes(const struct agent_core *c);
/* The uuids of the devices that instances hold, borrowed until the next event. Returns how many. */
size_t agent_core_gpus_held(const struct agent_core *c, const char *out[static GPUS_MAX]);

/* Sends the heartbeat to all schedulers; sequence is the core's. */
void agent_core_heartbeat(struct agent_core *c, uint64_t now_us, const struct heartbeat *h);

/* Enforces timeouts and delivers held results. To be called at agent_core_next_us or a little
 * later; earlier is harmless. */
void agent_core_tick(struct agent_core *c, uint64_t now_us);
/* When there is something to do; UINT64_MAX: not without another event. */
uint64_t agent_core_next_us(const struct agent_core *c);

/* Does this agent take work? */
bool agent_core_has_lease(const struct agent_core *c, uint64_t now_us);
/* The leader's connection, 0 when there is none. */
uint64_t agent_core_leader(const struct agent_core *c);
struct agent_core_stats agent_core_stats(const struct agent_core *c);
/* Calls fn for every live instance, oldest first. The report is borrowed for the call. */
void agent_core_instances(const struct agent_core *c,
                          void (*fn)(void *arg, const struct instance_report *r), void *arg);

#endif

/* What the core's files share. Nothing outside scheduler/core includes this. */
#ifndef SCHEDULER_CORE_CORE_INTERNAL_H
#define SCHEDULER_CORE_CORE_INTERNAL_H

#include "common/hash.h"
#include "common/wall.h"
#include "scheduler/core/catalog.h"
#include "scheduler/core/core.h"
#include "scheduler/core/gpus.h"
#include "scheduler/core/restore.h"
#include "scheduler/core/wheel.h"

enum {
    REASON_BYTES_MAX = 256,
    OUTCOMES_MAX = 1024,
    START_BACKOFF_MS_MIN = 500,
    START_BACKOFF_MS_MAX = 30000,
    STOP_REPEAT_MS = 2000,
};

struct peer {
    uint64_t handle;
    struct identity who;
    uint32_t calls; /* held for this peer */
    UT_hash_handle hh;
};

enum { NODE_GVISOR_BYTES = 16, NODE_GVISOR_WHY_BYTES = 256 };

/* A GPU of a node that an instance holds. */
struct gpu_use {
    const struct instance *instance;
    char uuid[GPU_TEXT_BYTES];
    struct gpu_use *prev, *next;
};

/* A node's isolation checks: isolation.c. */
struct node_isolation {
    bool canary;        /* its agent takes isolation_check */
    bool wanted;        /* an operator asked for a round */
    bool cordon_due;    /* a check failed, and the cordon is not committed yet */
    bool cordoning;     /* the command is on its way */
    uint64_t since_us;  /* the last round was asked, or before the first: the node registered */
    uint64_t round;     /* the last one asked; 0: none */
    bool waiting;       /* for its report */
    uint64_t report_ms; /* Unix time of the last report; 0: none */
    enum status_code code;
    char message[REASON_BYTES_MAX];
    char failed[ISOLATION_CHECK_BYTES]; /* the first failed check of the last report; "" */
    struct arena arena;
    struct isolation_result *results;
    size_t results_count;
};

struct node {
    char name[NAME_BYTES_MAX + 1];
    uint64_t peer;   /* 0: not connected */
    bool registered; /* has reported under this term */
    bool lost;
    uint64_t boot;
    uint64_t seen_us;
    uint32_t cpu_millis;
    uint64_t memory_bytes;
    uint64_t cpu_used_millis; /* by instances */
    uint64_t memory_used_bytes;
    struct arena labels_arena;
    struct pair *labels;
    size_t labels_count;
    bool egress; /* can give instances a network */
    struct arena gpu_arena;
    struct gpu_inventory gpu; /* the last one; what it points to is in gpu_arena */
    bool gpu_said;            /* not by agents of before, and not while the node is lost */
    bool walls_said;          /* not by agents of before */
    char walls_not_needed[WALLS_TEXT_BYTES]; /* "landlock, cgroup_io" */
    char gvisor[NODE_GVISOR_BYTES];          /* the platform of runsc; empty: none */
    char gvisor_why[NODE_GVISOR_WHY_BYTES];
    struct gpu_use *gpu_uses;
    /* An instance has ended whose devices its agent has not spoken of since: they count as
     * dirty. */
    bool gpu_unchecked;
    struct node_isolation isolation;
    uint32_t instances;
    struct heartbeat beat; /* the last one, without its lists */
    UT_hash_handle hh;
};

/* An attempt that runs in an instance and that nobody waits for any more. */
struct foreign {
    struct id128 invocation;
    uint32_t attempt;
    struct foreign *prev, *next;
};

/* What an instance is: STARTING -> READY -> STOPPING -> ENDED (then it is gone); any state ->
 * ENDED. */
struct instance {
    struct id128 id;
    struct runtime *function;
    struct node *node;
    struct digest revision;
    uint32_t state; /* enum instance_state */
    uint32_t concurrency;
    uint32_t inflight; /* calls of ours that run here */
    uint32_t foreign;  /* how many foreigners there are */
    struct foreign *foreigners;
    uint32_t cpu_millis;
    uint64_t memory_bytes;
    uint32_t gpus; /* how many it holds: node->gpu_uses */
    uint64_t created_us, used_us, stop_sent_us, startup_us;
    struct instance_usage usage;
    struct instance *prev, *next; /* of the function, oldest first */
    /* of the function's instances with a free slot; most recently used first */
    struct instance *free_prev, *free_next;
    bool in_free;
    bool leaving;       /* its node is draining */
    bool evicting;      /* gives way to a function with less than its share, once it is idle */
    struct work *calls; /* running here */
    UT_hash_handle hh;
};

enum work_state { WORK_QUEUED = 1, WORK_RUNNING };

/* A call that is held: queued or running. */
struct work {
    struct id128 id;
    uint32_t attempt;
    enum work_state state;
    struct runtime *function;
    struct instance *instance; /* while running */
    uint64_t peer, request;    /* 0 for an attempt of a durable invocation */
    struct job *job;           /* whose attempt this is; NULL for a call */
    uint64_t attempt_term;
    uint64_t attempt_ms; /* of one attempt */
    uint8_t *payload;
    size_t payload_size;
    uint64_t due_us;             /* when the caller's patience ends: its own timeout, or
                                  the function's for a start and an attempt */
    struct wheel_entry deadline; /* when to look: due_us, or a little later for one that runs */
    uint64_t arrived_us, sent_us;
    bool cold;
    struct work *prev, *next; /* of the function's queue or of the instance */
    UT_hash_handle hh;
};

/* The soft side of a function; it lives as long as the function or anything of it that still
 * runs. */
struct runtime {
    char name[NAME_BYTES_MAX + 1];
    const struct catalog_revision *current; /* NULL once the function is deleted */
    struct instance *instances;
    struct instance *free;
    struct work *queue;
    uint32_t queued, starting, ready; /* starting, ready: of the current revision */
    uint32_t failures;                /* starts that failed in a row */
    uint64_t backoff_until_us;
    struct job_function *jobs; /* its durable invocations */
    uint32_t turn;             /* whose turn it is: calls or durable invocations */
    uint64_t jobs_pause_us;    /* no durable attempt starts before */
    bool pending_logged;       /* why nothing fits has been journalled for this wait */
    UT_hash_handle hh;
};

struct journal_entry {
    uint64_t unix_ms;
    char subject[NAME_BYTES_MAX + 1]; /* function or node name, or an id */
    char text[REASON_BYTES_MAX];
};

struct proposal {
    uint64_t ticket;
    core_done done;
    void *data;
    UT_hash_handle hh;
};

/* Somebody who waits for the end of a durable invocation. */
struct waiter {
    struct job *job;
    uint64_t peer, request;
    struct wheel_entry deadline;
    struct waiter *prev, *next;         /* of the job */
    struct waiter *all_prev, *all_next; /* of the core */
};

/* A question that waits until a command which came after it is committed. */
struct reading {
    struct id128 invocation;
    uint64_t peer, request;
    struct reading *next;
};

/* The end of an attempt on its way into the log. */
struct finishing {
    struct core *core;
    struct id128 invocation;
    uint32_t attempt;
    uint64_t attempt_term;
    uint64_t peer; /* the agent to tell, 0: none */
    struct finishing *prev, *next;
};

struct applied {
    uint64_t index;
    enum status_code code;
    char message[REASON_BYTES_MAX];
};

struct core {
    struct core_env env;
    struct core_config config;
    struct catalog catalog;
    struct restore restore;
    struct core_stats stats;
    bool leader;
    uint64_t term;
    uint64_t settle_until_us;
    char leader_name[NAME_BYTES_MAX + 1];
    char leader_address[CATALOG_TEXT_BYTES_MAX];
    struct peer *peers;
    struct node *nodes;
    struct instance *instances;
    struct runtime *runtimes;
    struct work *calls;
    uint64_t payload_bytes;
    struct wheel wheel;
    uint64_t ticket_last;
    struct proposal *proposals;
    struct applied outcomes[OUTCOMES_MAX];
    struct journal_entry journal[CORE_JOURNAL_MAX];
    uint64_t journal_count;
    uint64_t scaled_us;
    uint64_t isolation_round;
    struct wheel waits;
    struct waiter *waiters;
    uint32_t waiters_count;
    struct reading *readings;      /* wait for the next barrier */
    struct reading *readings_sent; /* for the one that is on its way into the log */
    uint32_t readings_count;
    struct finishing *finishing;
    struct core_time applying; /* the time of the command or proposal being handled */
    uint64_t time_seen_us;     /* when the catalog's time was last moved on; 0: never */
    uint64_t jobs_tick_us;
    uint32_t schedules_pending;
    char starved[NAME_BYTES_MAX + 1]; /* the function that room is being made for */
    uint64_t starved_until_us;
    bool expiring;
};

/* core.c */
struct peer *peer_find(const struct core *c, uint64_t handle);
void send_reply(struct core *c, uint64_t peer, uint64_t request, enum status_code code,
                const char *message);
void send_not_leader(struct core *c, uint64_t peer, const struct message *m);
void journal_add(struct core *c, struct core_time now, const char *subject, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
struct id128 core_new_id(struct core *c, struct core_time now);

/* calls.c */
void calls_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m);
/* A result that comes from another agent than its instance's is refused. */
void calls_result(struct core *c, struct core_time now, uint64_t peer, const struct result *r);
void calls_expire(struct core *c, struct core_time now);
/* Sends queued calls of f to instances with free slots. */
void calls_dispatch(struct core *c, struct core_time now, struct runtime *f);
/* Answers all calls of the instance and takes them off it. */
void calls_fail_instance(struct core *c, struct core_time now, struct instance *i,
                         enum status_code code, const char *message);
void calls_fail_one(struct core *c, struct core_time now, struct work *w, enum status_code code,
                    const char *message);
void calls_fail_queue(struct core *c, struct core_time now, struct runtime *f,
                      enum status_code code, const char *message);
/* The peer is gone: nobody waits for its calls any more. */
void calls_forget_peer(struct core *c, struct core_time now, uint64_t peer);
void calls_fail_all(struct core *c, struct core_time now);

/* Takes the work of a durable attempt away from its instance and frees it: the attempt is over. */
void calls_release_job(struct core *c, struct work *w);
/* The same while the attempt goes on: its slot stays taken, and the agent is told to cancel it. */
void calls_abandon_job(struct core *c, struct work *w, const char *reason);
/* An attempt of j that runs on i: started here (attempt 0: the next one is sent), or found
 * there. */
struct work *calls_run_job(struct core *c, struct core_time now, struct job *j,
                           const struct state_job *content, struct instance *i, uint32_t attempt,
                           uint64_t attempt_term);

/* durable.c */
void durable_init(struct core *c);
void durable_spawn(struct core *c, struct core_time now, uint64_t peer, const struct message *m);
void durable_outcome(struct core *c, struct core_time now, uint64_t peer, const struct message *m);
/* The attempt of w has ended with this result; w has left its instance and is freed here. */
void durable_ended(struct core *c, struct core_time now, struct work *w, const struct result *r,
                   uint64_t peer, const char *node);
/* The attempt counts for nothing: its job waits again, first in its lane. */
void durable_back(struct core *c, struct core_time now, struct work *w);
/* The agent refused it before it ran. */
void durable_refused(struct core *c, struct core_time now, struct work *w);
/* A result that no work waits for. */
void durable_late(struct core *c, struct core_time now, uint64_t peer, const struct result *r);
/* Starts the next waiting one on a free instance; false when none may start now. */
bool durable_run(struct core *c, struct core_time now, struct runtime *f);
/* How many could start if there were slots. */
uint32_t durable_demand(const struct runtime *f);
/* An attempt that an agent reports as running; true when it was taken over. */
bool durable_adopt(struct core *c, struct core_time now, struct instance *i,
                   const struct attempt_report *r);
void durable_applied(struct core *c, struct core_time now, const struct command *cmd);
void durable_forget_peer(struct core *c, uint64_t peer);
void durable_role_lost(struct core *c, struct core_time now);
void durable_tick(struct core *c, struct core_time now);
/* The wall clock, never behind what was committed. */
uint64_t durable_wall_ms(const struct core *c, struct core_time now);
/* A function's or tenant's limits changed. */
void durable_limits(struct core *c);

/* schedules.c */
void durable_schedules(struct core *c, struct core_time now);

/* core.c: proposes with a limit of its own on what is in flight. */
void core_submit_up_to(struct core *c, struct core_time now, const struct command *cmd,
                       unsigned max, core_done done, void *data);
bool core_settled(const struct core *c, struct core_time now);

/* instances.c */
struct runtime *runtime_find(const struct core *c, const char *name);
/* Brings runtimes in line with the catalog after functions changed. */
void runtimes_sync(struct core *c, struct core_time now);
void runtime_release(struct core *c, struct runtime *f);
/* Puts the instance on or off its function's list of free ones, as its slots and state say. */
void instance_refile(struct instance *i);
bool instance_usable(const struct instance *i);
struct instance *instance_find(const struct core *c, struct id128 id);
/* Attempts that nobody waits for are known one by one: the result of another one frees no slot. */
void instance_foreign_add(struct instance *i, struct id128 invocation, uint32_t attempt);
bool instance_foreign_take(struct instance *i, struct id128 invocation, uint32_t attempt);
void instance_gone(struct core *c, struct core_time now, struct instance *i, enum status_code code,
                   const char *message);
void instances_event(struct core *c, struct core_time now, struct node *n,
                     const struct instance_report *r, enum status_code code);
/* A registration's list: the truth about what runs on the node. */
void instances_reported(struct core *c, struct core_time now, struct node *n,
                        const struct node_register *r);
void instances_scale(struct core *c, struct core_time now, struct runtime *f);
void instances_tick(struct core *c, struct core_time now);
void instances_clear(struct core *c);

/* nodes.c */
struct node *node_find(const struct core *c, const char *name);
void nodes_register(struct core *c, struct core_time now, uint64_t peer, const struct message *m);
void nodes_heartbeat(struct core *c, struct core_time now, uint64_t peer, const struct message *m);
void nodes_peer_open(struct core *c, struct core_time now, uint64_t peer, const char *name);
void nodes_peer_close(struct core *c, struct core_time now, uint64_t peer);
void nodes_tick(struct core *c, struct core_time now);
/* A new leader gives every node it has heard of one lease to report. */
void nodes_begin(struct core *c, struct core_time now);
/* Tells every connected agent who leads, who the schedulers are and what is revoked. */
void nodes_lead(struct core *c);
void node_removed(struct core *c, struct core_time now, const char *name);
void nodes_clear(struct core *c);
bool node_ready(const struct node *n);

/* node_gpus.c: which GPUs of a node its instances hold. */
void node_gpus_keep(struct node *n, const struct gpu_inventory *gpu);
void node_gpus_forget(struct node *n);
/* The instance holds this device from now on. */
void node_gpu_use(struct instance *i, const char *uuid);
/* It holds none any more. */
void node_gpus_release(struct instance *i);
/* Those that it holds are not given to another one before the agent has said that they are
 * clean. */
void node_gpus_doubt(const struct instance *i);
/* Who holds the device; NULL: nobody that is known. */
const struct instance *node_gpu_user(const struct node *n, const char *uuid);
/* As placement sees them; used has room for GPUS_MAX, or is NULL: nobody holds one. */
struct placement_gpus node_gpus_view(const struct node *n, bool *used);

/* The node that the peer is the agent of; NULL when it is none, or a newer connection took over. */
struct node *node_of_peer(const struct core *c, uint64_t peer);

/* isolation.c */
/* The node has registered; canary: its agent takes isolation_check. */
void isolation_registered(struct node *n, struct core_time now, bool canary);
/* A new leader knows nothing of what was checked before. */
void isolation_forget(struct node *n);
void isolation_report(struct core *c, struct core_time now, uint64_t peer, const struct message *m);
void isolation_tick(struct core *c, struct core_time now);
/* Asks for a round at once; node "": of all nodes that can be checked. NOT_FOUND, UNAVAILABLE with
 * what is in the way; *count: how many rounds. */
NODISCARD struct status isolation_run(struct core *c, const char *node, uint32_t *count,
                                      struct errmsg *msg);
/* Milliseconds between rounds; 0: off. */
uint64_t isolation_interval_ms(const struct core *c);

/* admin.c and query.c */
void admin_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m);
void query_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m);

#endif

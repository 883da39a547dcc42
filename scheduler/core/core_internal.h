/* What the core's files share. Nothing outside scheduler/core includes this. */
#ifndef SCHEDULER_CORE_CORE_INTERNAL_H
#define SCHEDULER_CORE_CORE_INTERNAL_H

#include "common/hash.h"
#include "scheduler/core/catalog.h"
#include "scheduler/core/core.h"
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
    uint64_t created_us, used_us, stop_sent_us, startup_us;
    struct instance_usage usage;
    struct instance *prev, *next; /* of the function, oldest first */
    /* of the function's instances with a free slot; most recently used first */
    struct instance *free_prev, *free_next;
    bool in_free;
    bool leaving;       /* its node is draining */
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
    uint64_t peer, request;
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
    bool pending_logged; /* why nothing fits has been journalled for this wait */
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

struct outcome {
    uint64_t index;
    enum status_code code;
    char message[REASON_BYTES_MAX];
};

struct core {
    struct core_env env;
    struct core_config config;
    struct catalog catalog;
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
    struct outcome outcomes[OUTCOMES_MAX];
    struct journal_entry journal[CORE_JOURNAL_MAX];
    uint64_t journal_count;
    uint64_t scaled_us;
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

/* admin.c and query.c */
void admin_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m);
void query_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m);

#endif

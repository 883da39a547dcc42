/* What the parts of the agent's core share: agent_core.c (peers, leadership), instances.c,
 * attempts.c, kept.c. Private to this folder.
 *
 * Thread: the owner's. */
#ifndef AGENT_CORE_CORE_INTERNAL_H
#define AGENT_CORE_CORE_INTERNAL_H

#include "agent/core/agent_core.h"
#include "common/mem.h"

/* uthash iterates in the order of insertion, which keeps the core deterministic. An element that
 * did not get in for lack of memory has no table: see HASH_IN. */
#define HASH_NONFATAL_OOM 1
#define uthash_malloc(size) mem_alloc(size)
#define uthash_free(p, size) mem_free(p)
#include <uthash.h>
#include <utlist.h>

#define HASH_IN(element) ((element)->hh.tbl != NULL)
#define NEVER_US UINT64_MAX

struct core_peer {
    uint64_t handle;
    bool register_due; /* node_register could not be sent: tried again by the tick */
    UT_hash_handle hh;
};

enum { INSTANCE_MESSAGE_BYTES = 256, VERDICT_BYTES = 96 };

struct core_attempt;
struct core_kept;

struct core_instance {
    struct id128 id;
    struct digest revision;
    struct name function;
    uint32_t state; /* enum instance_state, never ENDED */
    uint32_t concurrency;
    uint32_t inflight; /* attempts that its runner has */
    uint32_t cpu_millis;
    uint64_t memory_bytes;
    uint64_t timeout_ms; /* of an attempt whose invoke names none */
    uint64_t startup_us;
    struct text *gpus; /* the devices that it holds; the texts lie behind */
    size_t gpus_count;
    /* STARTING: killed when not ready by then. STOPPING: killed when not gone by then, if the
     * stop has been passed on. */
    uint64_t due_us;
    bool stop_asked;  /* by a leader */
    bool stop_passed; /* to the environment */
    bool killed;
    enum status_code end_code; /* why the core ended it, with message; OK when it did not */
    char message[INSTANCE_MESSAGE_BYTES];
    struct core_attempt *attempts;
    UT_hash_handle hh;
};

struct core_attempt_key {
    struct id128 invocation;
    uint64_t attempt;
};

struct core_attempt {
    struct core_attempt_key key;
    struct core_instance *instance;
    bool durable; /* of a durable invocation: its result is kept until it is acknowledged */
    uint64_t attempt_term; /* the term of the leader that sent it */
    uint64_t begun_us;
    uint64_t due_us; /* running: its timeout; given up: the instance's death */
    /* TIMEOUT or CANCELED once it is given up, with verdict_text; OK before. */
    enum status_code verdict;
    char verdict_text[VERDICT_BYTES];
    struct core_attempt *prev, *next; /* of its instance */
    UT_hash_handle hh;
    UT_hash_handle hh_durable; /* durable ones, by their invocation alone */
};

/* A result that waits for a leader; texts and output lie behind it. */
struct core_held {
    struct result r;
    size_t bytes;
    struct core_held *prev, *next;
};

struct agent_core {
    struct agent_core_config config;
    struct agent_env env;
    struct gpu_inventory *gpu;       /* of registrations; NULL: none */
    const char *gvisor, *gvisor_why; /* of registrations */
    struct core_peer *peers;
    struct core_instance *instances;
    struct core_attempt *attempts;
    struct core_attempt *durable; /* the durable ones of them */
    struct core_held *held;       /* oldest first */
    struct core_kept *kept;       /* all, in their order */
    struct core_kept *kept_unsent, *kept_sent;
    uint64_t term;   /* the highest announced */
    uint64_t leader; /* the peer that announced it; 0 once its connection is gone */
    uint64_t lease_us;
    uint64_t lease_seen_us; /* when the leader last confirmed */
    uint64_t sequence;      /* of heartbeats */
    uint64_t next_us;       /* nothing is due before; may be too early, never too late */
    uint64_t cpu_millis_used;
    uint64_t memory_bytes_used;
    uint64_t gpu_changes;
    struct agent_core_stats stats;
};

static inline uint64_t after_ms(uint64_t now_us, uint64_t ms)
{
    return now_us + ms * 1000;
}

/* Remembers that something is due at due_us. */
static inline void core_due(struct agent_core *c, uint64_t due_us)
{
    if (due_us < c->next_us) {
        c->next_us = due_us;
    }
}

/* agent_core.c */
void core_send_all(struct agent_core *c, const struct message *m);

/* instances.c */
struct core_instance *core_instance_find(const struct agent_core *c, struct id128 id);
void core_instance_report(const struct core_instance *i, struct instance_report *out);
void core_start(struct agent_core *c, uint64_t now_us, const struct start *s);
void core_stop(struct agent_core *c, uint64_t now_us, const struct stop *s);
/* An attempt has left the instance: a stop that waited for that goes on. */
void core_instance_idle(struct agent_core *c, uint64_t now_us, struct core_instance *i);
/* Kills it; code and message become the reason of its end. */
void core_instance_kill(struct agent_core *c, struct core_instance *i, enum status_code code,
                        const char *message);
/* Kills what is overdue; returns when the next is due. */
uint64_t core_instances_tick(struct agent_core *c, uint64_t now_us);
void core_instances_free(struct agent_core *c);

/* gpus.c: devices that instances hold. */
/* May a start have what it names? CONFLICT and LIMIT say why not, and leave it to the leader to try
 * again. */
NODISCARD struct status core_gpus_check(const struct agent_core *c, const struct start *s,
                                        struct errmsg *msg);
/* NOMEM. */
NODISCARD struct status core_gpus_hold(struct agent_core *c, struct core_instance *i,
                                       const struct text *gpus, size_t count);
void core_gpus_let_go(struct agent_core *c, struct core_instance *i);

/* attempts.c */
void core_invoke(struct agent_core *c, uint64_t now_us, const struct invoke *i);
void core_cancel(struct agent_core *c, uint64_t now_us, const struct cancel *x);
/* Refuses an invoke of that term by a result to the peer that sent it. */
void core_invoke_refuse(struct agent_core *c, uint64_t peer, uint64_t term, const struct invoke *i,
                        enum status_code code, const char *message);
/* Answers what the instance ran and forgets it. */
void core_attempts_crash(struct agent_core *c, uint64_t now_us, struct core_instance *i,
                         const char *message);
/* Enforces timeouts; returns when the next is due. */
uint64_t core_attempts_tick(struct agent_core *c, uint64_t now_us);
/* Delivers held results while a leader takes them. */
void core_held_flush(struct agent_core *c, uint64_t now_us);
void core_attempts_free(struct agent_core *c);

/* kept.c */
/* Keeps the result of a durable attempt, and sends it while a leader takes it. */
void core_kept_put(struct agent_core *c, uint64_t now_us, const struct result *r);
/* Sends what is due; with all, what was sent before too: to a leader that may not have it. */
void core_kept_flush(struct agent_core *c, uint64_t now_us, bool all);
bool core_kept_has(const struct agent_core *c, struct id128 invocation, uint32_t attempt,
                   uint64_t attempt_term);
void core_kept_ack(struct agent_core *c, const struct result_ack *a);
void core_kept_free(struct agent_core *c);

#endif

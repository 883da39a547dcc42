/* Durable invocations ("jobs"), as replicated state: made by command_spawn, ended by
 * command_finish, command_invocation_cancel or command_expire, forgotten at their expiry.
 *
 *     QUEUED (delayed -> in a lane -> busy) -> DONE | DEAD | CANCELED -> gone
 *     DEAD -> QUEUED by command_redrive; busy -> QUEUED again when an attempt fails with retries
 *     left
 *
 * Each job's whole content is a frame, the encoded StateJob, that is never changed, only replaced;
 * what scheduling reads often is kept beside it. Frames hang in pages that are copied on write
 * while a snapshot is pinned, so that pinning costs one pointer per JOB_PAGE_SLOTS jobs.
 *
 * Which jobs are busy, and the order in lanes, is the leader's business: it is not part of the
 * replicated state and not in the digest. Waiting jobs of a function lie in lanes, one per priority
 * and tenant; the most urgent priority is served first, tenants within it in weighted turns
 * (deficit round robin: Shreedhar and Varghese, SIGCOMM 1995, with every job of cost 1).
 *
 * Thread: the core's, but for jobs_pin_encode. */
#ifndef SCHEDULER_CORE_JOBS_H
#define SCHEDULER_CORE_JOBS_H

#include "common/hash.h"
#include "common/parts.h"
#include "common/status.h"
#include "proto/message.h"

#include <bsd/sys/tree.h>

enum {
    JOBS_MAX = 4000000,
    JOB_PAGE_SLOTS = 512,
    JOB_ATTEMPTS_MAX = 1000, /* also of attempts that were lost with their node */
    JOB_MESSAGE_BYTES_MAX = 4096,
    JOB_POISON_DEFAULT = 3,
    JOB_EXPIRE_MAX = 1000, /* of one command_expire */
};
#define JOBS_BYTES_MAX (UINT64_C(8) << 30) /* of all frames */

struct job_frame {
    struct job_frame *next; /* while it waits to be freed */
    uint32_t size;
    uint8_t bytes[];
};

/* Tokens for a rate: starts a second, in millionths. */
struct job_bucket {
    uint64_t level, at_us;
};

struct job_tenant {
    char name[NAME_BYTES_MAX + 1];
    uint64_t jobs, queued;
    /* Of the leader. */
    uint32_t running, running_max, weight, rate_milli;
    uint64_t queued_max;
    struct job_bucket bucket;
    UT_hash_handle hh;
};

struct job;

/* The waiting jobs of one function, priority and tenant, oldest first. */
struct job_lane {
    struct job_tenant *tenant;
    struct job *jobs;
    uint32_t served; /* in its turn */
    struct job_lane *prev, *next;
};

struct job_function {
    char name[NAME_BYTES_MAX + 1];
    uint64_t jobs, queued, waiting, dead; /* all; QUEUED; in lanes; DEAD */
    struct job_lane *lanes[SPAWN_PRIORITY_MAX + 1];
    /* Of the leader. */
    uint32_t running;
    bool held; /* by a runtime, which points here */
    struct job_bucket bucket;
    UT_hash_handle hh;
};

struct job_key {
    struct job *job;
    uint64_t check;
    UT_hash_handle hh;
    char text[]; /* function NUL tenant NUL key NUL */
};

struct job_payload {
    struct digest digest;
    uint64_t refs;
    UT_hash_handle hh;
};

struct work;
struct waiter;

struct job {
    struct id128 id;
    uint64_t index; /* of its command_spawn: the order */
    uint64_t created_ms, not_before_ms;
    uint64_t end_ms; /* QUEUED: the deadline; otherwise when it is forgotten */
    uint32_t slot, attempts, crashes, failures;
    uint8_t state; /* enum invocation_state */
    uint8_t priority;
    bool delayed; /* in the tree of those that wait for their time */
    bool busy;    /* an attempt runs, or its end is being committed */
    struct job_function *function;
    struct job_tenant *tenant;
    struct job_key *key;
    struct job_lane *lane; /* while it waits there */
    struct job *prev, *next;
    RB_ENTRY(job) by_end, by_wake;
    /* Of the leader. */
    uint32_t attempt; /* the last one sent */
    struct work *work;
    struct waiter *waiters;
    UT_hash_handle hh;
};

RB_HEAD(job_ends, job);
RB_HEAD(job_wakes, job);

struct job_page;
struct job_pin;

enum job_change { JOB_QUEUED, JOB_ENDED, JOB_GONE };

struct job_schedule {
    char key[2 * NAME_BYTES_MAX + 2]; /* function/schedule */
    uint64_t fired_ms;
    UT_hash_handle hh;
};

/* All zeros is a valid empty table. */
struct job_table {
    struct job *jobs;
    struct job_ends ends;
    struct job_wakes wakes;
    struct job_function *functions;
    struct job_tenant *tenants;
    struct job_key *keys;
    struct job_payload *payloads;
    struct job_schedule *schedules;
    struct job_page **pages;
    uint32_t pages_count, slots_count;
    uint32_t *slots_free;
    uint32_t slots_free_count, slots_free_capacity;
    uint64_t bytes, late, sum;
    bool pinned;
    struct job_frame *garbage; /* not freed while a pin may read it */
    struct job *spawned;       /* by the last command_spawn: the new job, or the one with its key */
    /* Told of changes, from inside the calls below; JOB_GONE before the job is freed. May be
     * NULL. */
    void (*changed)(void *data, struct job *j, enum job_change change);
    void (*payload_dropped)(void *data, const struct digest *payload);
    void *data;
};

void jobs_close(struct job_table *t);

/* Applying. spec is the current revision's, NULL when the function is gone. Outcomes: EXISTS when
 * the key (or the schedule's time) has its job already, CONFLICT when the key was used for another
 * payload or the invocation has ended, NOT_FOUND, LIMIT. */
struct status jobs_spawn(struct job_table *t, uint64_t index, uint64_t time_ms,
                         const struct command_spawn *s, const struct function_spec *spec,
                         struct errmsg *msg);
struct status jobs_finish(struct job_table *t, uint64_t time_ms, const struct command_finish *f,
                          const struct function_spec *spec, struct errmsg *msg);
struct status jobs_cancel(struct job_table *t, uint64_t time_ms,
                          const struct command_invocation_cancel *k, struct errmsg *msg);
struct status jobs_redrive(struct job_table *t, uint64_t time_ms, const struct command_redrive *r,
                           const struct function_spec *spec, struct errmsg *msg);
struct status jobs_purge(struct job_table *t, const struct command_purge *p, struct errmsg *msg);
/* Ends and forgets what is due, oldest first, at most max. */
struct status jobs_expire(struct job_table *t, uint64_t time_ms, const struct command_expire *e);
/* Forgets the times of the function's schedules that its specification does not name (any more); of
 * all of them when spec is NULL. */
void jobs_schedules_keep(struct job_table *t, const char *function,
                         const struct function_spec *spec);
void jobs_fired(struct job_table *t, const char *function, const char *schedule, uint64_t at_ms);
uint64_t jobs_last_fired(const struct job_table *t, const char *function, const char *schedule);

struct job *jobs_find(const struct job_table *t, struct id128 id);
/* The content, in the arena. CORRUPT never happens to frames that were made here. */
void jobs_content(const struct job_table *t, const struct job *j, struct arena *a,
                  struct state_job *out);
struct job_function *jobs_function_find(const struct job_table *t, const char *name);
struct job_function *jobs_function_get(struct job_table *t, const char *name);
/* Frees it when nothing needs it any more. */
void jobs_function_release(struct job_table *t, struct job_function *f);
struct job_tenant *jobs_tenant_find(const struct job_table *t, const char *name);

/* For the leader. */
/* Moves delayed jobs whose time has come into their lanes, at most max; returns how many. */
size_t jobs_wake(struct job_table *t, uint64_t now_ms, size_t max);
/* When the next one is due to end or to be forgotten; UINT64_MAX: never. */
uint64_t jobs_next_end(const struct job_table *t);
/* Takes the next job of f out of its lane (it is busy then); NULL: none may start now. */
struct job *jobs_pick(struct job_table *t, struct job_function *f, uint64_t now_us);
/* Not busy any more: back to where it waits, first in its lane when `first`. */
void jobs_unbusy(struct job_table *t, struct job *j, uint64_t now_ms, bool first);
/* Busy: out of its lane, wherever it waits. */
void jobs_take(struct job_table *t, struct job *j);
/* Takes one token, or not. rate_milli 0: no limit. */
bool bucket_take(struct job_bucket *b, uint32_t rate_milli, uint32_t burst, uint64_t now_us);
/* One that was taken and not used. */
void bucket_give(struct job_bucket *b, uint32_t rate_milli);

/* ---- Snapshots ---- */
struct job_pin *jobs_pin(struct job_table *t);
/* Any thread: appends one frame (u32 size | bytes) a job. */
NODISCARD struct status jobs_pin_encode(const struct job_pin *p, struct parts *out);
void jobs_unpin(struct job_table *t, struct job_pin *p);
/* Frees up to max frames that nobody reads any more. */
void jobs_collect(struct job_table *t, size_t max);
/* Adds a job from its frame. CORRUPT. */
NODISCARD struct status jobs_load(struct job_table *t, struct bytes frame, uint64_t now_ms,
                                  struct errmsg *msg);

/* Forgets all jobs, of a table whose schedules and functions stay. */
void jobs_clear(struct job_table *t);

void jobs_check(const struct job_table *t);

#endif

/* The instances of this node as processes: one skep-cell each, with its folder, its channel to
 * the runner, its end.
 *
 *     start: folder -> code (fetched when it must be), network (when it has one) -> skep-cell ->
 *     HELLO, channel -> READY
 *     end:   EXITED or the process's end -> what the channel still holds is read
 *            -> ended -> folder removed, log kept
 *
 * Instances outlive the agent: instances_close lets them run, and instances_adopt finds them
 * again.
 *
 * Thread: the loop's. Events come from the loop, never from inside start, stop, invoke or
 * cancel. */
#ifndef AGENT_INSTANCES_H
#define AGENT_INSTANCES_H

#include "agent/code.h"
#include "agent/egress/egress.h"
#include "agent/gpus.h"
#include "agent/image/image_store.h"
#include "common/status.h"
#include "common/wall.h"
#include "proto/message.h"

#include <uv.h>

enum {
    INSTANCES_ENDED_LOGS_MAX = 128, /* logs of ended instances that are kept */
    INSTANCE_MESSAGE_BYTES_MAX = 384,
    LAST_WORDS_BYTES_MAX = 512,    /* of the log, looked at for the reason of a failed start */
    RUNNER_ERROR_BYTES_MAX = 4096, /* of an error text of a runner that is passed on */
    KILL_GRACE_MS = 5 * 1000,      /* from a kill to one that needs no help of skep-cell */
    CGROUP_SWEEP_MS_MAX = 100,     /* the loop waits: only after a skep-cell was killed */
    CHANNEL_END_GRACE_MS = 2000,   /* from the end of the channel to a kill */
};

struct gvisor;
struct instances;

struct instances_events {
    void *data;
    void (*ready)(void *data, struct id128 instance, uint32_t concurrency, uint64_t startup_us);
    void (*ended)(void *data, struct id128 instance, enum status_code code, const char *message);
    void (*result)(void *data, const struct result *r);
};

/* Texts are borrowed for the life of the module. */
struct instances_config {
    uv_loop_t *loop;
    const char *data; /* instances/ and ended/ are made below it */
    const char *node;
    const char *cell_program; /* skep-cell */
    /* skep-gvisor and runsc, which work where gvisor names a platform */
    const char *gvisor_program;
    const char *runsc;
    const struct gvisor *gvisor;
    const char *runners; /* folder mounted at /opt/skep */
    const char *root;    /* of cells, or NULL */
    bool cgroups;
    wall_set walls_not_needed; /* as in cell_spec, and so is io_bps */
    uint64_t io_bps;
    /* Outside users of cells: each that lives has one of its own. count 0: they have ours. */
    uint32_t uid_first, uid_count;
    struct code *code;
    struct egress *egress; /* NULL: no instance has a network */
    struct image_store *images;
    const struct gpus *gpus; /* NULL: starts with GPUs get variables only */
};

/* An instance found alive at start. */
struct instance_found {
    struct id128 instance;
    struct digest revision;
    const char *function;
    bool ready;
    uint32_t concurrency;
    uint32_t cpu_millis;
    uint64_t memory_bytes;
    uint64_t timeout_ms;
    uint64_t startup_us;
    struct text gpus[GPUS_MAX]; /* uuids of the devices that it holds */
    size_t gpus_count;
};
struct instances_adoption {
    void *data;
    /* False: the instance is killed. */
    bool (*found)(void *data, const struct instance_found *f);
    void (*attempt)(void *data, const struct attempt_report *a, uint32_t left_ms);
};

/* NOMEM, IO. */
NODISCARD struct status instances_open(struct instances **out,
                                       const struct instances_config *config,
                                       const struct instances_events *events, struct errmsg *msg);
/* Lets go of all instances, which run on. closed comes from the loop; the module is gone then. */
void instances_close(struct instances *t, void (*closed)(void *data), void *data);

/* Goes through DATA/instances: living ones are connected to again, dead ones removed. IO when
 * the folder cannot be read. */
NODISCARD struct status instances_adopt(struct instances *t, const struct instances_adoption *a,
                                        struct errmsg *msg);

/* What agent_env asks (agent/core/agent_core.h). term: of the leader that sent the invoke. */
NODISCARD struct status instances_start(struct instances *t, const struct start *s,
                                        struct errmsg *msg);
/* The same for an instance of the agent's own, whose code is a folder of this machine: it is not
 * adopted by a later agent but ended, and its log is not kept. s->revision is not looked at. */
NODISCARD struct status instances_start_own(struct instances *t, const struct start *s,
                                            const char *code, struct errmsg *msg);
/* The process of its skep-cell; 0: none. */
int instances_cell_pid(const struct instances *t, struct id128 instance);
void instances_stop(struct instances *t, struct id128 instance, bool kill);
NODISCARD struct status instances_invoke(struct instances *t, const struct invoke *i, uint64_t term,
                                         struct errmsg *msg);
void instances_cancel(struct instances *t, struct id128 instance, struct id128 invocation,
                      uint32_t attempt);

/* The path of the log of an instance that lives or ended lately. NOT_FOUND. *alive says which. */
NODISCARD struct status instances_log(const struct instances *t, struct id128 instance, char *path,
                                      size_t size, bool *alive);
/* Calls fn for each instance with a cell, with the path of its control group ("" without). */
void instances_cells(const struct instances *t,
                     void (*fn)(void *arg, struct id128 instance, const char *cgroup), void *arg);

/* Is there an instance of this id? */
bool instances_has(const struct instances *t, struct id128 instance);

/* Kills the cells of a data folder whose agent has ended, waits for their end, and removes their
 * networks. IO; TIMEOUT when one does not end. *count: how many. */
NODISCARD struct status instances_kill_all(const char *data, size_t *count, struct errmsg *msg);

#endif

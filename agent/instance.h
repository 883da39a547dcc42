/* One instance as a process: private to instances.c (the table) and instance.c (the live side).
 *
 * FETCHING -> RUNNING -> ENDING: the end is known and told from the loop; the process may still
 * be going -> closed and freed */
#ifndef AGENT_INSTANCE_H
#define AGENT_INSTANCE_H

#include "agent/cell/cell_client.h"
#include "agent/inflight.h"
#include "agent/instance_files.h"
#include "agent/instances.h"
#include "agent/runner_port.h"
#include "common/mem.h"

#define HASH_NONFATAL_OOM 1
#define uthash_malloc(size) mem_alloc(size)
#define uthash_free(p, size) mem_free(p)
#include <uthash.h>
#include <utlist.h>

enum instance_phase { PHASE_FETCHING, PHASE_RUNNING, PHASE_ENDING };

struct instance {
    struct id128 id;
    struct instances *table;
    struct instance_meta meta;
    char folder[INSTANCE_PATH_BYTES_MAX];
    enum instance_phase phase;
    const char *program; /* skep-cell or skep-gvisor; NULL: adopted */
    struct code_wait wait;
    bool code_waiting;
    bool code_held;
    struct egress_wait net_wait;
    bool net_waiting;
    bool has_net; /* asked for, or made */
    struct image_wait image_wait;
    bool image_waiting;
    bool image_held;
    bool gvisor;                 /* while it is made: the kind of its cell */
    struct cell_process process; /* pid 0: none of ours to reap */
    int pidfd;                   /* -1: no process */
    bool process_gone;
    struct cell_client client;
    uv_poll_t client_poll;
    uv_poll_t process_poll;
    uv_timer_t end_timer; /* kills, and kills harder */
    bool kill_sent;
    struct runner_port port;
    bool client_polled, process_polled, timer_open, port_open;
    unsigned handles; /* of libuv that are open or closing */
    struct inflight inflight;
    uint64_t begun_us;
    bool exit_known;
    struct cell_event exit;
    enum status_code end_code;
    char end_message[INSTANCE_MESSAGE_BYTES_MAX];
    bool end_told;
    bool closing;
    bool left_alone;                      /* the agent goes, the instance stays */
    struct instance *end_prev, *end_next; /* in table->ends: to be told */
    bool end_listed;
    UT_hash_handle hh;
};

struct instances {
    struct instances_config config;
    struct instances_events events;
    char folder[INSTANCE_PATH_BYTES_MAX];
    char ended_folder[INSTANCE_PATH_BYTES_MAX];
    struct instance *all; /* oldest first */
    struct instance *ends;
    uint32_t uid_last; /* the one given out last, from 0 */
    struct packet_batch batch;
    uv_timer_t soon; /* tells ends from the loop */
    bool closing;
    bool soon_closed;
    void (*closed)(void *data);
    void *closed_data;
};

/* ---- instance.c ---- */
/* Starts the cell; the code is there. On failure nothing runs. */
NODISCARD struct status instance_launch(struct instance *i, struct errmsg *msg);
/* Connects to the cell of a former agent. On failure nothing is open. */
NODISCARD struct status instance_attach(struct instance *i, struct errmsg *msg);
/* Asks the cell to end. */
void instance_signal(struct instance *i, bool kill);
/* Removes the control group that a killed skep-cell left, and parents that are empty then. Waits
 * up to CGROUP_SWEEP_MS_MAX for the last processes in it to end. "": nothing. */
void instance_cgroup_sweep(const char *cgroup);
/* Closes descriptors and handles; the instance is freed when the last is closed. */
void instance_let_go(struct instance *i);

/* ---- instances.c ---- */
/* The end is known: it will be told from the loop. The first code and message count. */
void instance_end_soon(struct instance *i, enum status_code code, const char *message);
/* The process is gone, or a handle has been closed: goes on with ending. */
void instance_settle(struct instance *i);

#endif

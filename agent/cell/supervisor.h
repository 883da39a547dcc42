/* The parent of a cell: keeps its descriptors, its log, its clock and its end. One poll loop.
 *
 *     starting --(walls stand, execve done)--> running --(stop)--> stopping
 *         |                                       |                    |
 *         +---------(process 1 has ended)---------+--------------------+--> ended
 *
 * Thread: the only one of skep-cell. */
#ifndef AGENT_CELL_SUPERVISOR_H
#define AGENT_CELL_SUPERVISOR_H

#include "agent/cell/agent_port.h"
#include "agent/cell/cell.h"
#include "agent/cell/launch.h"
#include "agent/cell/logring.h"

enum {
    SUPERVISOR_SETUP_MS_MAX = 10000,
    SUPERVISOR_STOP_MS_DEFAULT = 5000,
    /* A cell that prints faster waits: its log is a ring, nobody could read it anyway. */
    SUPERVISOR_LOG_BYTES_PER_MS = 64 << 10,
    SUPERVISOR_LOG_BURST_BYTES = 4 << 20,
};

struct supervisor {
    const struct cell_spec *spec;
    struct agent_port *port;
    struct logring *log;
    struct cgroup *cgroup;
    struct launched cell;
    int oom_fd;
    short oom_events;
    int signal_fd; /* SIGTERM and SIGINT: stop */
    uint64_t born_us;

    enum { SUPERVISOR_STARTING, SUPERVISOR_RUNNING, SUPERVISOR_ENDED } state;
    bool ready; /* the walls stand; execve is under way */
    bool stop_asked;
    bool kill_sent;
    bool out_of_memory;
    uint64_t setup_deadline_us;
    uint64_t kill_deadline_us; /* 0: none */
    uint64_t oom_look_until_us;
    int64_t log_budget;
    uint64_t log_filled_us;
    struct cell_event event; /* what will be reported */
};

/* Microseconds of the monotonic clock. */
uint64_t clock_us(void);

/* Runs the cell to its end and fills s->event (kind EXITED). The fields up to born_us are the
 * caller's. */
void supervisor_run(struct supervisor *s);

#endif

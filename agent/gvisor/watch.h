/* Watches one sandbox: its log, its ear, its memory, its clock and its end. One poll loop.
 *
 *     starting --(launcher: ready)--> running --(stop)--> stopping
 *         |                              |                    |
 *         +-------(runsc has ended)------+--------------------+--> ended
 *
 * Thread: the only one of the supervisor. */
#ifndef AGENT_GVISOR_WATCH_H
#define AGENT_GVISOR_WATCH_H

#include "agent/cell/agent_port.h"
#include "agent/cell/logpump.h"
#include "agent/gvisor/sandbox.h"

enum {
    /* A start takes a third of a second of processor time; a small share of one stretches it. */
    WATCH_SETUP_MS_MAX = 60 * 1000,
    WATCH_STOP_MS_DEFAULT = 5000,
    WATCH_WORDS_BYTES_MAX = 4096, /* runsc's last words */
};

struct watch {
    const struct cell_spec *spec;
    struct agent_port *port; /* NULL: nobody is told */
    struct cgroup *cgroup;
    struct sandbox sandbox;
    struct logpump log;
    int oom_fd;
    short oom_events;
    int signal_fd; /* SIGTERM and SIGINT: stop */
    uint64_t born_us;

    enum { WATCH_STARTING, WATCH_RUNNING, WATCH_ENDED } state;
    bool stop_asked;
    bool kill_sent;
    bool too_late;
    bool not_run; /* the launcher said so: words holds why */
    bool out_of_memory;
    uint64_t setup_deadline_us;
    uint64_t kill_deadline_us; /* 0: none */
    uint64_t oom_look_until_us;
    char words[WATCH_WORDS_BYTES_MAX + 1];
    size_t words_size;
    struct cell_event event; /* what will be reported */
};

/* Microseconds of the monotonic clock. */
uint64_t watch_clock_us(void);

/* Runs the sandbox to its end and fills w->event (kind EXITED). The fields up to born_us are the
 * caller's; the sandbox's and the memory watch's descriptors are closed. */
void watch_run(struct watch *w);

#endif

/* Executes a plan in the freshly cloned process of a cell, checking each step, and becomes process
 * 1. If any step fails nothing of the cell runs: the process reports the step and ends.
 *
 * The report pipe, read by the parent:
 *     a struct walls_report   a step failed; the process ends
 *     one byte, then the end  everything stands and execve succeeded (it closed the pipe)
 *     one byte, then a report execve failed
 *     the end alone           the process was killed while it built
 *
 * Thread: the only one of a process of its own; never returns. */
#ifndef AGENT_CELL_WALLS_H
#define AGENT_CELL_WALLS_H

#include "agent/cell/plan.h"

enum { WALLS_READY = 'X', WALLS_PATH_BYTES_MAX = 160 };

struct walls_report {
    uint32_t step; /* enum step_kind */
    int32_t error; /* errno */
    char path[WALLS_PATH_BYTES_MAX];
};

struct walls {
    const struct plan *plan;
    char *const *args;
    char *const *env;
    bool drop_groups; /* the parent was privileged: supplementary groups can and must go */
    bool has_netns;   /* the parent is in the cell's network namespace */
    int go_fd;        /* one byte comes when the parent has written the maps and limits */
    int report_fd;
    int log_fd;     /* becomes 1 and 2 */
    int channel_fd; /* becomes 3 */
    int sentry_fd;  /* the filter's notification descriptor goes there */
};

__attribute__((noreturn)) void walls_build(const struct walls *w);

#endif

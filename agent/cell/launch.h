/* Starts process 1 of a cell: looks at the machine, makes the plan, makes the control group, clones
 * the process into its namespaces, and gives it its user map and limits. walls.h does the rest in
 * the child.
 *
 * Thread: the only one of skep-cell. */
#ifndef AGENT_CELL_LAUNCH_H
#define AGENT_CELL_LAUNCH_H

#include "agent/cell/cell.h"
#include "agent/cell/cgroup.h"

#include <sys/types.h>

struct launched {
    pid_t pid;
    int pidfd;
    int report_fd; /* non-blocking; walls.h says what comes */
    int log_fd;    /* non-blocking: the cell's standard output and error */
    pid_t sentry_pid;
    int sentry_pidfd;
};

/* channel_fd is the runner's end of the channel: borrowed. On failure nothing runs and *cgroup is
 * empty; on success it is open and the caller's to close. The message starts with the step's name.
 * */
NODISCARD struct status launch(const struct cell_spec *spec, int channel_fd, struct cgroup *cgroup,
                               struct launched *out, struct errmsg *msg);

#endif

/* Takes from skep-cell, once its cell runs, what it no longer needs: all capabilities (but for one
 * that may sleep), new privileges, and by Landlock every file outside its folder and its control
 * groups.
 *
 * Thread: the only one of skep-cell. */
#ifndef AGENT_CELL_CONFINE_H
#define AGENT_CELL_CONFINE_H

#include "agent/cell/cgroup.h"

/* `kept` is the set of capabilities that stay permitted but not effective. A kernel without
 * Landlock (before 5.13, or switched off) leaves that part out: it is the second line. IO. */
NODISCARD struct status confine(int folder_fd, const struct cgroup *g, uint64_t kept,
                                struct errmsg *msg);

/* Makes the kept capabilities effective: for the removal of the control groups, at the very end. */
void confine_wake(uint64_t kept);

#endif

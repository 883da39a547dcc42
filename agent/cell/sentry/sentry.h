/* The sentry of a cell: a process beside process 1 that does, on the cell's behalf, the system
 * calls that name things (seccomp_unotify(2)), and refuses what is on no list.
 *
 *     born in skep-cell, before process 1's walls stand
 *         -> waits for the notification descriptor, which process 1 sends when its filter is in
 *         -> enters the cell's user and mount namespaces and becomes the cell's user
 *         -> lets go of everything but the right to look into the cell's processes
 *         -> answers until skep-cell ends it, or dies with it
 *
 * It stays outside the cell's pid namespace: nothing in the cell can see, signal or trace it. What
 * it does is done as the cell's user, below the cell's root, on copies: a process that changes its
 * memory meanwhile changes nothing. A process number that is reused between a call and its answer
 * can only be another process of the same cell, because the sentry has rights over no other.
 *
 * Source: seccomp_unotify(2).
 *
 * Thread: its own process, single-threaded. */
#ifndef AGENT_CELL_SENTRY_SENTRY_H
#define AGENT_CELL_SENTRY_SENTRY_H

#include <stdbool.h>

/* All descriptors are borrowed; the process never returns. */
struct sentry_start {
    int socket_fd; /* the listener comes here, by SCM_RIGHTS */
    int user_fd;   /* namespaces of process 1 */
    int mount_fd;
    int proc_fd; /* the machine's /proc */
    int log_fd;  /* lines for the cell's log */
    bool drop_groups;
};

/* What the process ends with when it could not begin: SENTRY_EXIT_STEP + enum sentry_step. */
enum { SENTRY_EXIT_STEP = 64 };
enum sentry_step {
    SENTRY_STEP_LISTENER,
    SENTRY_STEP_NAMESPACES,
    SENTRY_STEP_IDENTITY,
    SENTRY_STEP_PRIVILEGES,
    SENTRY_STEP_SERVE,
    SENTRY_STEPS_COUNT_,
};
/* "enter the namespaces" */
const char *sentry_step_name(enum sentry_step step);

__attribute__((noreturn)) void sentry_run(const struct sentry_start *start);

#endif

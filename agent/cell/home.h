/* The folder of an instance as its supervisor sees it (cell.h): what is inherited is put in order,
 * the folder is entered and claimed, spec.json read, cell.pid and exit.json written.
 *
 * Thread: the only one of the supervisor. */
#ifndef AGENT_CELL_HOME_H
#define AGENT_CELL_HOME_H

#include "agent/cell/cell.h"

enum { HOME_AGENT_FD = 3, HOME_EXIT_RAN = 0, HOME_EXIT_SETUP = 1, HOME_EXIT_USAGE = 2 };

/* 0 to 2 open, the agent's connection (if agent_fd_text names one) at HOME_AGENT_FD, nothing else.
 * Returns its descriptor, -1 without one, -2 when the text names no SOCK_SEQPACKET socket. */
int home_descriptors(const char *agent_fd_text);

/* Enters the folder, which from now on is the working directory, and claims it: the lock lives as
 * long as *folder_fd, the caller's. DENIED when others may write there, CONFLICT when another
 * supervisor has it. */
NODISCARD struct status home_enter(const char *folder, int *folder_fd, struct errmsg *msg);

/* Writes the file, whole or not at all. */
NODISCARD struct status home_put(const char *file, struct bytes data, struct errmsg *msg);

/* Writes cell.pid. */
NODISCARD struct status home_put_pid(struct errmsg *msg);

/* Reads spec.json; the message starts with "step spec.json". */
NODISCARD struct status home_read_spec(struct cell_spec *spec, struct errmsg *msg);

/* Blocks SIGTERM, SIGINT and SIGHUP; the first two are read from *fd, the caller's. */
NODISCARD struct status home_signals(int *fd, struct errmsg *msg);

#endif

/* Which system calls a cell may make: the table, and its translation by libseccomp.
 *
 * Only the build uses this (filter_gen.c): it writes the finished BPF program into a C file, so
 * that starting a cell costs no translation and skep-cell carries no libseccomp.
 *
 * Thread: any; no shared state. */
#ifndef AGENT_CELL_FILTER_TABLE_H
#define AGENT_CELL_FILTER_TABLE_H

#include "common/status.h"

/* Writes the program (struct sock_filter[], native byte order) of the cell's filter to fd. */
NODISCARD struct status filter_export(int fd, struct errmsg *msg);

#endif

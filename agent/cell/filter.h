/* The finished seccomp program of a cell, made at build time from filter_table.c.
 *
 * Thread: any; constant. */
#ifndef AGENT_CELL_FILTER_H
#define AGENT_CELL_FILTER_H

#include <linux/filter.h>

extern const struct sock_filter filter_program[];
extern const unsigned short filter_program_size; /* instructions */

#endif

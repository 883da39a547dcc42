/* Can this machine build the walls of a cell (common/wall.h)? Each is tried for real: by a process
 * of its own in the namespaces that a cell has, as the user that a cell has, and the control groups
 * by groups that are made, limited and removed.
 *
 * Thread: the only one of the process, which forks. */
#ifndef AGENT_CELL_WALLS_PROBE_H
#define AGENT_CELL_WALLS_PROBE_H

#include "common/wall.h"

enum { WALLS_WHY_BYTES = 160 };

struct walls_question {
    wall_set walls;     /* which to try */
    const char *cgroup; /* a path as in cell_spec, below which groups are made */
    uint32_t uid;       /* outside user to try with; 0: our own */
    uint64_t io_bps;    /* as in cell_spec */
};

struct walls_found {
    wall_set missing;
    wall_set untried;                        /* for want of user namespaces */
    char why[WALLS_COUNT_][WALLS_WHY_BYTES]; /* of the missing ones */
};

/* Without user namespaces nothing that leans on them is tried: they alone are missing then, the
 * others untried. */
void walls_probe(const struct walls_question *q, struct walls_found *out);

#endif

/* Looks at the image (or, for the image `host`, at the machine) and lists what the cell's root will
 * hold.
 *
 * The root of a cell is a small tmpfs of its own; each name at the image's top is bound into it
 * read-only. A folder that a mount's target goes through (/opt for /opt/skep) is made in the tmpfs,
 * and its own names are bound in its place, so that the target exists though the image is read-only
 * and lacks it.
 *
 * Thread: any; no shared state. */
#ifndef AGENT_CELL_ROOT_SCAN_H
#define AGENT_CELL_ROOT_SCAN_H

#include "agent/cell/plan.h"

struct root_scan {
    struct root_entry *entries;
    size_t count;
};

/* LIMIT above PLAN_ENTRIES_MAX names; NOT_FOUND, DENIED, NOMEM. *out is written only on success. */
NODISCARD struct status root_scan(const struct cell_spec *spec, struct root_scan *out,
                                  struct errmsg *msg);
/* Safe on zeroed memory and twice. */
void root_scan_close(struct root_scan *s);

#endif

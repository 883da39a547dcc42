/* skep-scheduler recover: makes this scheduler the only member of its cluster, after a majority of
 * the disks has been lost for good. The scheduler must be stopped. Everything it knows stays; what
 * only the lost ones had acknowledged is gone.
 *
 * Thread: any, blocking. */
#ifndef SCHEDULER_RECOVER_H
#define SCHEDULER_RECOVER_H

#include "common/status.h"

#include <stdbool.h>

struct scheduler_config;

/* Prints what the folder holds, by which the survivor with the most is chosen, and without `yes`
 * what it would do; with it does that. NOT_FOUND, CONFLICT when the scheduler runs, CORRUPT, IO. */
NODISCARD struct status recover_scheduler(const struct scheduler_config *config, bool yes,
                                          struct errmsg *msg);

/* Empties the part of its data folder that Raft keeps, of a scheduler that is stopped and no more a
 * member; started again it waits to be added. Without `yes` it only says so. CONFLICT, IO. */
NODISCARD struct status wipe_scheduler(const struct scheduler_config *config, bool yes,
                                       struct errmsg *msg);

#endif

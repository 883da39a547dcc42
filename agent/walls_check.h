/* At the start of the agent: can this machine build the walls of cells, and may cells have the
 * users that the configuration gives them? It starts only when every wall stands that is not
 * named as not needed.
 *
 * Thread: the only one of the process, before the loop. */
#ifndef AGENT_WALLS_CHECK_H
#define AGENT_WALLS_CHECK_H

#include "common/config.h"

#include <stdio.h>

/* Logs each wall that is missing or not needed. UNSUPPORTED, with the missing walls and the line to
 * write where they may be named as not needed. */
NODISCARD struct status cell_walls_check(const struct agent_config *config, struct errmsg *msg);

/* Prints the table: each wall, "up", "missing", "not_needed" or "untried", and why; then the line
 * to write, if one helps. config NULL: the defaults of a node without a name. False when a wall is
 * missing. */
bool cell_walls_print(const struct agent_config *config, FILE *out);

/* Do `count` users from `first` on belong to nobody, by these files (passwd(5), group(5),
 * subuid(5), subgid(5))? One that is not there names nobody. CONFLICT names who has one. */
struct user_files {
    const char *passwd, *group, *subuid, *subgid;
};
NODISCARD struct status cell_users_check(uint32_t first, uint32_t count,
                                         const struct user_files *files, struct errmsg *msg);

#endif

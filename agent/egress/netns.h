/* Network namespaces that outlive whoever made them: each bound to a file. The caller's thread
 * keeps its own: what happens inside another is done by a thread that ends there.
 *
 * Thread: any, blocking. */
#ifndef AGENT_EGRESS_NETNS_H
#define AGENT_EGRESS_NETNS_H

#include "common/status.h"

/* What is done inside. It returns a status and may write msg. */
typedef struct status (*netns_fn)(void *arg, struct errmsg *msg);

/* Runs fn in the namespace of fd, or in a new one when fd is -1, on a thread of its own. NOMEM, IO,
 * DENIED, or what fn returns. */
NODISCARD struct status netns_run(int fd, netns_fn fn, void *arg, struct errmsg *msg);

/* Makes a namespace and binds it to path, a new file. Nothing is left on failure. EXISTS, DENIED,
 * IO, NOMEM. */
NODISCARD struct status netns_make(const char *path, struct errmsg *msg);
/* NOT_FOUND when no namespace is bound to path. */
NODISCARD struct status netns_open(const char *path, int *fd, struct errmsg *msg);
/* Lets go of the namespace and removes the file; it ends with the last process inside. What is not
 * there is fine. */
NODISCARD struct status netns_remove(const char *path, struct errmsg *msg);

#endif

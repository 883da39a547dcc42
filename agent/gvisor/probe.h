/* Finds out whether runsc runs a sandbox on this machine, and on which platform, by running one
 * that does nothing.
 *
 * Thread: the only one of the program. */
#ifndef AGENT_GVISOR_PROBE_H
#define AGENT_GVISOR_PROBE_H

#include "common/status.h"

/* Tries the platform, or for "auto" each that this machine may have, in the order kvm, systrap,
 * ptrace; runners is the folder with the launcher, root the root of cells ("": the machine's own
 * /usr). Works below the folder, an absolute path that is the caller's to remove, before and after.
 * *found names the platform, a constant. UNSUPPORTED with the reason of the last one that was
 * tried. */
NODISCARD struct status probe_platforms(const char *folder, const char *runsc, const char *platform,
                                        const char *runners, const char *root, const char **found,
                                        struct errmsg *msg);

#endif

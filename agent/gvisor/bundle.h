/* Writes the OCI bundle of an instance: a folder of mount points and config.json (the OCI runtime
 * specification 1.0), as runsc takes it.
 *
 * The root is a folder of our own, read-only: each name of the image (or of the machine's /usr and
 * what belongs to it, root_scan.h) is a read-only bind mount on it. Inside there are no
 * capabilities, no privileges to gain, user 1000, and no network.
 *
 * Thread: the only one of the supervisor. */
#ifndef AGENT_GVISOR_BUNDLE_H
#define AGENT_GVISOR_BUNDLE_H

#include "agent/cell/cell.h"

/* Process 1 of the sandbox, which becomes the runner (launcher.c). */
#define BUNDLE_LAUNCHER "/opt/skep/skep-gvisor-launcher"

enum { BUNDLE_USER = 1000, BUNDLE_SHM_BYTES_MAX = 64 << 20, BUNDLE_FILES_DEFAULT = 1024 };

/* Makes rootfs/ and config.json in the working directory. The message starts with the step's name.
 * INVALID where a mount point would lie behind a link of the image; LIMIT, IO, NOMEM. */
NODISCARD struct status bundle_write(const struct cell_spec *spec, struct errmsg *msg);

#endif

/* Container Device Interface: files that say what a container needs to have a device
 * (github.com/cncf-tags/container-device-interface, SPEC.md; versions 0.3 to 0.8 and 1.0), as
 * nvidia-ctk writes them for GPUs.
 *
 * Of containerEdits we take deviceNodes, mounts and env. Hooks are programs to be run outside the
 * container, as root: none is run. What they do for GPUs is done otherwise (inject.h).
 *
 * Thread: any, blocking; no shared state. */
#ifndef AGENT_GPU_CDI_H
#define AGENT_GPU_CDI_H

#include "common/arena.h"
#include "common/buffer.h"
#include "common/status.h"

#include <stdint.h>

enum {
    CDI_BYTES_MAX = 256 << 10, /* of a file */
    CDI_FILES_MAX = 64,        /* of a folder */
    CDI_FOLDERS_MAX = 8,
    CDI_DEVICES_MAX = 512, /* of a file */
    CDI_NODES_MAX = 64,    /* each of these: of one device, and of all of them */
    CDI_MOUNTS_MAX = 256,
    CDI_ENV_MAX = 64,
    CDI_TEXT_BYTES_MAX = 1024,
};

#define CDI_KIND_GPU "nvidia.com/gpu"

/* Something of the machine's and where the container has it; both absolute. */
struct cdi_path {
    const char *outside, *inside;
};

struct cdi_edits {
    struct cdi_path *nodes; /* character devices */
    size_t nodes_count;
    struct cdi_path *mounts;
    size_t mounts_count;
    const char **env; /* KEY=VALUE */
    size_t env_count;
    uint32_t hooks; /* that are not run */
};

struct cdi_device {
    const char *name;
    struct cdi_edits edits;
};

/* One file. Everything lies in the arena. */
struct cdi_spec {
    struct arena arena;
    const char *kind;
    struct cdi_edits edits; /* of every device */
    struct cdi_device *devices;
    size_t devices_count;
};

/* Decodes a file's bytes; yaml says which language it is in. INVALID, LIMIT, UNSUPPORTED (another
 * version), NOMEM; msg begins with name. *out is written only on success. */
NODISCARD struct status cdi_parse(const char *name, struct bytes text, bool yaml,
                                  struct cdi_spec *out, struct errmsg *msg);
void cdi_spec_close(struct cdi_spec *spec);

/* A device by the names it may have in the files, the best first; NULL: no more. */
struct cdi_wanted {
    const char *names[2];
};

/* Puts together what these devices of a kind need, of all files of the folders; a later folder's
 * file is preferred, as the specification has it. Folders that are not there are fine, files that
 * are broken are passed over, with *broken saying which was the first. NOT_FOUND: no file has any
 * device of the kind; CONFLICT: some of the devices are in no file. LIMIT, NOMEM. What *out points
 * to lies in a. */
NODISCARD struct status cdi_collect(const char *const *folders, size_t folders_count,
                                    const char *kind, const struct cdi_wanted *wanted, size_t count,
                                    struct arena *a, struct cdi_edits *out, struct errmsg *broken,
                                    struct errmsg *msg);

#endif

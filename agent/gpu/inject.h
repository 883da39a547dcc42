/* What a cell gets so that it can use its GPUs: device nodes, the driver's libraries and programs,
 * read-only, and variables.
 *
 * With CDI files (cdi.h) it is what they say. Their hooks are not run: instead of links and a cache
 * of the loader, each library lies under the name that programs ask for (DT_SONAME) in
 * INJECT_LIBRARIES, which stands in LD_LIBRARY_PATH; programs lie in INJECT_PROGRAMS. Where the
 * cell's root is made of the machine's /usr, what lies there is there already. Other mounts, which
 * serve drawing and services, are left out.
 *
 * Without CDI files a GPU has the nodes of a driver that is installed as usual: nvidiactl,
 * nvidia-uvm and nvidiaN. A MIG instance needs a CDI file.
 *
 * Thread: any, blocking; no shared state. */
#ifndef AGENT_GPU_INJECT_H
#define AGENT_GPU_INJECT_H

#include "agent/gpu/cdi.h"

#define INJECT_LIBRARIES "/run/skep-gpu/lib"
#define INJECT_PROGRAMS "/run/skep-gpu/bin"

struct gpu_wanted {
    const char *uuid;
    const char *index; /* as nvidia-ctk names it: "0", "0:1" */
    bool mig;
    bool has_minor;
    unsigned minor;
};

/* Zeros are none. The texts lie in the arena. */
struct gpu_edits {
    struct arena arena;
    struct cdi_edits edits;
    bool libraries, programs; /* the folders above are there */
    uint32_t left_out;        /* mounts */
};

struct gpu_sources {
    const char *const *folders; /* of CDI files */
    size_t folders_count;
    const char *dev; /* NULL: /dev, where nodes are looked for without CDI files */
    bool host_root;  /* the cell's root is made of the machine's /usr */
};

/* NOT_FOUND (a node or a library is not there, or a device is in no CDI file), UNSUPPORTED (a MIG
 * instance without CDI files, what is no character device), LIMIT, NOMEM. *out is written only on
 * success. broken: as of cdi_collect. */
NODISCARD struct status gpu_inject(const struct gpu_sources *sources,
                                   const struct gpu_wanted *wanted, size_t count,
                                   struct gpu_edits *out, struct errmsg *broken,
                                   struct errmsg *msg);
void gpu_edits_close(struct gpu_edits *e); /* zeros are fine */

#endif

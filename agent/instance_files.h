/* What the agent writes into an instance's folder: the cell's specification, and what a later
 * agent needs to adopt the instance.
 *
 *     DATA/instances/ID/    0700
 *         spec.json         for skep-cell (agent/cell/cell.h)
 *         meta.json         struct instance_meta
 *         attempts          agent/inflight.h
 *         cell.pid, cell.sock, log, exit.json   skep-cell's
 *
 * Thread: any, blocking; no shared state. */
#ifndef AGENT_INSTANCE_FILES_H
#define AGENT_INSTANCE_FILES_H

#include "agent/gpu/inject.h"
#include "common/buffer.h"
#include "common/ids.h"
#include "common/status.h"
#include "common/wall.h"
#include "proto/message.h"

enum { INSTANCE_META_BYTES_MAX = 16384, INSTANCE_PATH_BYTES_MAX = 4096 };

struct instance_meta {
    struct id128 instance;
    struct digest revision;
    struct name function;
    uint32_t concurrency;
    uint32_t cpu_millis;
    uint64_t memory_bytes;
    uint64_t timeout_ms;
    char cgroup[256];                    /* empty: without */
    uint32_t uid;                        /* as in cell_spec; 0 in files of before */
    struct digest image;                 /* zero: without */
    char gpus[GPUS_MAX][GPU_TEXT_BYTES]; /* uuids of the devices that it holds */
    size_t gpus_count;
};

/* Where the things are that a cell is made of. */
struct instance_place {
    const char *code;          /* folder of the unpacked revision */
    const char *runners;       /* folder of the runners */
    const char *root;          /* root file system, or NULL */
    const char *node;          /* hostname of the cell */
    const char *cgroup;        /* as in cell_spec; empty: without */
    wall_set walls_not_needed; /* as in cell_spec */
    uint64_t io_bps;
    const char *netns;  /* as in cell_spec; NULL or empty: one of the cell's own */
    const char *resolv; /* file that is its /etc/resolv.conf; NULL or empty: none */
    const char *runsc;  /* as in cell_spec; NULL or empty: a native cell */
    const char *platform;
    const struct gpu_edits *gpu; /* for its GPUs; NULL: none */
};

void instance_meta_of(const struct start *s, const char *cgroup, struct instance_meta *out);

/* Writes spec.json and meta.json into the folder, which is there. INVALID, LIMIT (with what is
 * wrong), NOMEM, IO. */
NODISCARD struct status instance_files_write(const char *folder, const struct start *s,
                                             const struct instance_place *place,
                                             const struct instance_meta *meta, struct errmsg *msg);
/* Reads FOLDER/meta.json. NOT_FOUND, IO, CORRUPT. */
NODISCARD struct status instance_meta_read(const char *folder, struct instance_meta *out,
                                           struct errmsg *msg);

/* The two halves of meta.json. NOMEM; CORRUPT names what is wrong. */
NODISCARD struct status instance_meta_encode(const struct instance_meta *m, struct buffer *json);
NODISCARD struct status instance_meta_decode(struct bytes json, struct instance_meta *out,
                                             struct errmsg *msg);

#endif

/* Reads the machine's GPUs through NVML: what each is, what it does, how healthy it is. One session
 * lasts from the library's initialisation to its first error that is nobody's device's.
 *
 *     devices_begin -> devices_read, devices_listen, devices_read ... -> devices_end
 *
 * Thread: one, which may be held up by the driver in any of these for any time. */
#ifndef AGENT_GPU_DEVICES_H
#define AGENT_GPU_DEVICES_H

#include "agent/gpu/nvml.h"
#include "common/status.h"
#include "proto/message.h"

/* A report and what its texts point to. Copies share nothing once gpu_snapshot_bind has been called
 * on them. */
struct gpu_device {
    struct gpu_report report;
    char uuid[GPU_TEXT_BYTES + 1];
    char model[GPU_TEXT_BYTES + 1];
    char pci[GPU_TEXT_BYTES + 1];
    char parent[GPU_TEXT_BYTES + 1];
    char profile[GPU_TEXT_BYTES + 1];
    char why[GPU_TEXT_BYTES + 1];
    bool has_minor; /* the driver's number of its device node, /dev/nvidiaMINOR */
    unsigned minor;
};

/* Everything that is known at one time. */
struct gpu_snapshot {
    uint32_t state; /* enum gpu_state */
    char why[GPU_TEXT_BYTES + 1];
    char driver[GPU_TEXT_BYTES + 1];
    char cuda[16];
    struct gpu_device devices[GPUS_MAX];
    size_t count;
    bool cut; /* there are more */
};

/* Makes the texts of the reports point into this snapshot. */
void gpu_snapshot_bind(struct gpu_snapshot *s);

/* The errors of one GPU that the driver has told since this program started. */
struct gpu_errors {
    char uuid[GPU_TEXT_BYTES + 1];
    uint32_t xid; /* the last */
    uint64_t count, time_ms;
    uint32_t health; /* the worst that they mean, with the error that means it */
    uint32_t health_xid;
    uint64_t health_time_ms;
};

struct devices {
    struct nvml nvml;
    bool begun;
    struct nvml_device *handles[GPUS_MAX]; /* of whole GPUs; NULL: see codes */
    int codes[GPUS_MAX];
    bool listened[GPUS_MAX]; /* its errors are told */
    char uuids[GPUS_MAX][GPU_TEXT_BYTES + 1];
    unsigned count;      /* of them; the driver's number, at most GPUS_MAX */
    unsigned count_told; /* the driver's number */
    struct nvml_set *set;
    struct gpu_errors errors[GPUS_MAX]; /* outlives sessions */
    size_t errors_count;
};

/* Loads and initialises. Without library or driver s->state is NONE, with another error FAILING,
 * and the status is not OK; s->why says it. devices_end follows in any case. */
NODISCARD struct status devices_begin(struct devices *d, const char *path, struct gpu_snapshot *s);
/* Reads all devices into s, which is whole afterwards. UNAVAILABLE, with s as above: the session is
 * over. CONFLICT, with s untouched: it is over because there are more or fewer devices than at its
 * beginning. */
NODISCARD struct status devices_read(struct devices *d, struct gpu_snapshot *s);
/* Waits up to so long for an error of a device. True: there was one, read again. Returns at once,
 * false, when nothing can be listened for: *waited is false then. */
bool devices_listen(struct devices *d, uint32_t wait_ms, bool *waited);
void devices_end(struct devices *d);

/* What an Xid says of a device's health (docs.nvidia.com/deploy/xid-errors). */
uint32_t xid_health(uint32_t xid);

#endif

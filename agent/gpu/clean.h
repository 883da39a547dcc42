/* Which devices are clean enough for the next instance. One that an instance held is checked by a
 * reading that began after the instance had ended: its memory must be back to what was used when it
 * was last free, and no process may hold it. Free ones are checked by every reading.
 *
 *     clean_use (who is held now) -> clean_read (a reading), clean_read ...
 *
 * Thread: the owner's; no shared state. */
#ifndef AGENT_GPU_CLEAN_H
#define AGENT_GPU_CLEAN_H

#include "common/status.h"
#include "proto/message.h"

/* So much more than before may be used: what drivers and monitoring programs take and give. */
#define CLEAN_TOLERANCE_BYTES (UINT64_C(64) << 20)

struct clean_device {
    char uuid[GPU_TEXT_BYTES];
    bool here;                /* in the last reading */
    bool held;                /* by an instance */
    bool leaves;              /* while clean_use goes through: held before */
    bool pending;             /* was held; no reading since says how it was left */
    uint64_t due;             /* pending: readings with this number or more are of after that */
    bool measured;            /* baseline is known */
    uint64_t baseline;        /* bytes used when it was free and clean, the least that was seen */
    char why[GPU_TEXT_BYTES]; /* dirty; empty: clean, or held */
};

/* Zeros are a good beginning. */
struct clean {
    struct clean_device devices[2 * GPUS_MAX];
    size_t count;
};

/* These devices are held from now on, and no others. due: see above. */
void clean_use(struct clean *c, const char *const *uuids, size_t count, uint64_t due);
/* Judges the free devices by a reading of that number, and fills in dirty of all reports, borrowed
 * from c until the next call. True: one has become dirty or clean, or for another reason dirty. */
bool clean_read(struct clean *c, struct gpu_inventory *i, uint64_t number);
/* Is any device pending or dirty? */
bool clean_waits(const struct clean *c);

#endif

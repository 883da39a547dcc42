/* Which of a node's GPUs a function may have, and which of them it gets.
 *
 * A device is a GPU, or a MIG instance of one; a GPU that is cut into MIG instances is none itself.
 * It is given whole, to one instance at a time, while its health is ok and it is not dirty
 * (gpu_report.dirty).
 *
 * Thread: any; no shared state. */
#ifndef SCHEDULER_CORE_GPUS_H
#define SCHEDULER_CORE_GPUS_H

#include "common/status.h"
#include "proto/message.h"

/* A node's devices as placement sees them, borrowed. used: one flag a device, an instance holds it;
 * NULL: none is held. known: what is said of them holds now. */
struct placement_gpus {
    bool known;
    const struct gpu_report *all;
    size_t count;
    bool *used;
};

/* Is the device of a kind that the function asks for? The model is asked for by words of its name,
 * case aside ("H100", "H100 80GB"); a MIG instance by its profile ("1g.10gb", "H100 1g.10gb" when
 * the model's name ends so), or by memory alone. */
bool gpu_is_of_kind(const struct gpu_report *g, const struct function_spec *spec);

struct gpus_fit {
    uint32_t free;  /* that the function could have now */
    uint32_t dirty; /* that it could have if they were clean */
};
struct gpus_fit gpus_fit(const struct placement_gpus *gpus, const struct function_spec *spec);

/* The indexes of spec->gpu_count devices for the function, into out, in the order in which they are
 * taken: those with the least memory first, then in the driver's order. False when there are too
 * few. */
bool gpus_choose(const struct placement_gpus *gpus, const struct function_spec *spec,
                 size_t out[static GPUS_MAX]);

/* Devices that somebody could be given at some time. */
uint32_t gpus_usable(const struct placement_gpus *gpus);

#endif

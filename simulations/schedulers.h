/* Scheduler processes: a real core over a real replica, bridged as scheduler/api does it, with
 * every message and command encoded and decoded. A crash destroys the objects; what is on the
 * simulated disk brings them back.
 *
 * Thread: one. */
#ifndef SIMULATIONS_SCHEDULERS_H
#define SIMULATIONS_SCHEDULERS_H

#include "scheduler/core/catalog.h"
#include "scheduler/core/core.h"
#include "simulations/network.h"

struct scheduler {
    struct world *world;
    uint32_t number; /* from 0 */
    uint64_t id;     /* of the member: number + 1 */
    char name[16], address[24];
    struct endpoint *endpoint;
    struct replica *replica; /* NULL while down */
    struct core *core;
    uint64_t clock_offset_us; /* monotonic clocks start anywhere */
    uint64_t clock_ahead_ms;  /* wall clocks differ */
    uint64_t applied;
    struct arena decode;
    struct buffer encode;
};

struct schedulers {
    struct world *world;
    struct scheduler each[SCHEDULERS_MAX];
    uint32_t count;
};

struct schedulers *schedulers_new(struct world *w, uint32_t count);
void schedulers_free(struct schedulers *s);
/* Founds the cluster and starts everyone. */
void schedulers_start(struct schedulers *s);
void scheduler_start(struct scheduler *s);
void scheduler_crash(struct scheduler *s);
struct core_time scheduler_time(const struct scheduler *s);
/* The one that leads and has told its core so; NULL: none. */
struct scheduler *schedulers_leader(struct schedulers *s);
struct scheduler *schedulers_find(struct schedulers *s, const char *address);

#endif

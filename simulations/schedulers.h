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

enum { EARLY_MAX = 4096 };

struct scheduler {
    struct world *world;
    uint32_t number; /* from 0 */
    uint64_t id;     /* of the member: number + 1 */
    char name[16], address[24];
    struct endpoint *endpoint;
    struct replica *replica; /* NULL while down */
    struct core *core;
    bool member;              /* of the cluster, or about to be */
    bool disk_fails;          /* or did, since it started: its replica may stop */
    uint64_t clock_offset_us; /* monotonic clocks start anywhere */
    uint64_t clock_rate_ppm;  /* and run at their own pace: this much faster */
    int64_t clock_ahead_ms;   /* wall clocks differ, and jump */
    uint64_t applied;
    struct arena decode;
    struct buffer encode;
    /* For the bugs in tamper.c: whose message the core is being given, and an output. */
    uint64_t asker, asked;
    struct {
        uint64_t peer, request;
    } early[EARLY_MAX];
    uint32_t early_count;
    uint8_t tampered[24];
};

struct schedulers {
    struct world *world;
    struct scheduler each[SCHEDULERS_MAX];
    uint32_t count, founders;
};

/* The first `founders` found the cluster; the others may join later. */
struct schedulers *schedulers_new(struct world *w, uint32_t founders, uint32_t spares);
void schedulers_free(struct schedulers *s);
/* Founds the cluster and starts everyone. */
void schedulers_start(struct schedulers *s);
void scheduler_start(struct scheduler *s);
void scheduler_crash(struct scheduler *s);
/* The process stands still that long. */
void scheduler_pause(struct scheduler *s, uint64_t for_us);
bool scheduler_paused(const struct scheduler *s);
/* It is no member any more: it stops, and its disk is gone. */
void scheduler_retire(struct scheduler *s);
/* Sends a message as it is. */
void scheduler_send(struct scheduler *s, uint64_t peer, const struct message *m);
struct core_time scheduler_time(const struct scheduler *s);
/* The one that leads and has told its core so; NULL: none. */
struct scheduler *schedulers_leader(struct schedulers *s);
struct scheduler *schedulers_find(struct schedulers *s, const char *address);

#endif

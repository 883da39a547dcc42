/* The node's GPUs, as the agent tells of them: to its log, once for each change, and to the
 * schedulers.
 *
 * Thread: the loop's. */
#ifndef AGENT_GPUS_H
#define AGENT_GPUS_H

#include "agent/gpu/inject.h"
#include "common/config.h"
#include "common/status.h"
#include "proto/message.h"

/* Unchanged ones are said again so many heartbeats later, for schedulers that missed it. */
enum { GPUS_AGAIN_BEATS = 30, GPUS_LOOK_MS_MIN = 5, GPUS_LOOK_MS_MAX = 2000 };

struct gpus;

/* config is borrowed for the call. Errors are those of gpu_open. */
NODISCARD struct status gpus_open(struct gpus **out, const struct agent_config *config,
                                  struct errmsg *msg);
void gpus_close(struct gpus *g); /* NULL is fine */
/* These devices are held by instances from now on, and no others. */
void gpus_use(struct gpus *g, const char *const *uuids, size_t count);
/* Looks whether anything is new, and judges which devices are clean. True: the schedulers should
 * hear of it now. To be called again after gpus_look_ms. */
bool gpus_look(struct gpus *g, uint64_t now_us);
/* How soon, while devices are checked; 0: heartbeats are soon enough. */
uint32_t gpus_look_ms(const struct gpus *g);
/* What a cell needs for the devices that the start names: nothing but variables when they are
 * simulated. host_root: its root is made of the machine's /usr. Errors are those of gpu_inject.
 * *out is closed by the caller. */
NODISCARD struct status gpus_inject(const struct gpus *g, const struct start *s, bool host_root,
                                    struct gpu_edits *out, struct errmsg *msg);
/* At each heartbeat. *changed: something is new. Returns what this heartbeat says; NULL:
 * nothing. */
struct gpu_inventory *gpus_beat(struct gpus *g, uint64_t now_us, bool *changed);
/* What registrations say: borrowed for g's life, and kept up to date by gpus_beat. */
struct gpu_inventory *gpus_inventory(struct gpus *g);

#endif

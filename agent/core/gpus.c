/* GPUs: the leader chooses which an instance gets, and the agent is the last judge of whether it
 * can have them: they are here, well, clean, and nobody else's. */
#include "agent/core/core_internal.h"

#include "common/check.h"

#include <string.h>

static const struct gpu_report *device_find(const struct agent_core *c, const char *uuid)
{
    for (size_t k = 0; c->gpu != NULL && k < c->gpu->gpus_count; k++) {
        if (strcmp(c->gpu->gpus[k].uuid, uuid) == 0) {
            return &c->gpu->gpus[k];
        }
    }
    return NULL;
}

static bool is_held(const struct agent_core *c, const char *uuid)
{
    for (const struct core_instance *i = c->instances; i != NULL; i = i->hh.next) {
        for (size_t k = 0; k < i->gpus_count; k++) {
            if (strcmp(i->gpus[k].text, uuid) == 0) {
                return true;
            }
        }
    }
    return false;
}

static struct status device_check(const struct agent_core *c, const char *uuid, struct errmsg *msg)
{
    const struct gpu_report *g = device_find(c, uuid);
    bool known =
        g != NULL && (c->gpu->state == GPU_STATE_OK || c->gpu->state == GPU_STATE_SIMULATED);
    if (!known || g->mig) {
        return status_fail(msg, STATUS_LIMIT, "GPU %.95s: not a device of this node now", uuid);
    }
    if (g->health != GPU_HEALTH_OK) {
        return status_fail(msg, STATUS_LIMIT, "GPU %.95s is %s: %.95s", uuid,
                           gpu_health_name(g->health), g->why);
    }
    if (is_held(c, uuid)) {
        return status_fail(msg, STATUS_LIMIT, "GPU %.95s is another instance's", uuid);
    }
    if (g->dirty != NULL && g->dirty[0] != '\0') {
        return status_fail(msg, STATUS_LIMIT, "GPU %.95s is dirty: %.95s", uuid, g->dirty);
    }
    return status_ok();
}

struct status core_gpus_check(const struct agent_core *c, const struct start *s, struct errmsg *msg)
{
    if (s->gpus_count != s->spec->gpu_count || s->gpus_count > GPUS_MAX) {
        return status_fail(msg, STATUS_CONFLICT, "%zu GPUs are named, %u are wanted", s->gpus_count,
                           s->spec->gpu_count);
    }
    for (size_t k = 0; k < s->gpus_count; k++) {
        for (size_t n = 0; n < k; n++) {
            if (strcmp(s->gpus[n].text, s->gpus[k].text) == 0) {
                return status_fail(msg, STATUS_CONFLICT, "GPU %.95s is named twice",
                                   s->gpus[k].text);
            }
        }
        TRY(device_check(c, s->gpus[k].text, msg));
    }
    return status_ok();
}

struct status core_gpus_hold(struct agent_core *c, struct core_instance *i, const struct text *gpus,
                             size_t count)
{
    CHECK(i->gpus == NULL);
    if (count == 0) {
        return status_ok();
    }
    size_t bytes = count * sizeof *gpus;
    for (size_t k = 0; k < count; k++) {
        bytes += strlen(gpus[k].text) + 1;
    }
    i->gpus = mem_alloc(bytes);
    if (i->gpus == NULL) {
        return status_of(STATUS_NOMEM);
    }
    char *at = (char *)(i->gpus + count);
    for (size_t k = 0; k < count; k++) {
        size_t size = strlen(gpus[k].text) + 1;
        memcpy(at, gpus[k].text, size);
        i->gpus[k].text = at;
        at += size;
    }
    i->gpus_count = count;
    c->gpu_changes++;
    return status_ok();
}

void core_gpus_let_go(struct agent_core *c, struct core_instance *i)
{
    c->gpu_changes += i->gpus_count > 0;
    mem_free(i->gpus);
    i->gpus = NULL;
    i->gpus_count = 0;
}

uint64_t agent_core_gpu_changes(const struct agent_core *c)
{
    return c->gpu_changes;
}

size_t agent_core_gpus_held(const struct agent_core *c, const char *out[static GPUS_MAX])
{
    size_t count = 0;
    for (const struct core_instance *i = c->instances; i != NULL; i = i->hh.next) {
        for (size_t k = 0; k < i->gpus_count && count < GPUS_MAX; k++) {
            out[count++] = i->gpus[k].text;
        }
    }
    return count;
}

/* Which GPUs of a node its instances hold: soft state, rebuilt from what agents report. */
#include "scheduler/core/core_internal.h"

#include <stdio.h>
#include <string.h>

void node_gpus_forget(struct node *n)
{
    arena_reset(&n->gpu_arena);
    n->gpu = (struct gpu_inventory){0};
    n->gpu_said = false;
    n->gpu_unchecked = false;
}

void node_gpus_keep(struct node *n, const struct gpu_inventory *gpu)
{
    node_gpus_forget(n);
    n->gpu_said = status_is_ok(gpu_inventory_copy(&n->gpu_arena, gpu, &n->gpu));
}

void node_gpu_use(struct instance *i, const char *uuid)
{
    struct gpu_use *u = mem_must(mem_zalloc(1, sizeof *u));
    u->instance = i;
    (void)snprintf(u->uuid, sizeof u->uuid, "%s", uuid);
    DL_APPEND(i->node->gpu_uses, u);
    i->gpus++;
}

void node_gpus_release(struct instance *i)
{
    struct gpu_use *u, *next;
    DL_FOREACH_SAFE(i->node->gpu_uses, u, next) {
        if (u->instance == i) {
            CHECK(i->gpus > 0);
            i->gpus--;
            DL_DELETE(i->node->gpu_uses, u);
            mem_free(u);
        }
    }
    CHECK(i->gpus == 0);
}

void node_gpus_doubt(const struct instance *i)
{
    struct node *n = i->node;
    for (size_t k = 0; i->gpus > 0 && k < n->gpu.gpus_count; k++) {
        if (node_gpu_user(n, n->gpu.gpus[k].uuid) == i) {
            n->gpu.gpus[k].dirty = "not checked since its last instance";
            n->gpu_unchecked = true;
        }
    }
}

const struct instance *node_gpu_user(const struct node *n, const char *uuid)
{
    const struct gpu_use *u;
    DL_FOREACH(n->gpu_uses, u) {
        if (strcmp(u->uuid, uuid) == 0) {
            return u->instance;
        }
    }
    return NULL;
}

struct placement_gpus node_gpus_view(const struct node *n, bool *used)
{
    for (size_t k = 0; used != NULL && k < n->gpu.gpus_count; k++) {
        used[k] = node_gpu_user(n, n->gpu.gpus[k].uuid) != NULL;
    }
    return (struct placement_gpus){.known = n->gpu.state == GPU_STATE_OK ||
                                            n->gpu.state == GPU_STATE_SIMULATED,
                                   .all = n->gpu.gpus,
                                   .count = n->gpu.gpus_count,
                                   .used = used};
}

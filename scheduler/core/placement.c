#include "scheduler/core/placement.h"

#include "common/check.h"
#include "scheduler/core/isolation_policy.h"

#include <stdio.h>
#include <string.h>

enum { SCORE_ONE = 1000000 };

static bool labels_match(const struct placement_node *n, const struct function_spec *spec)
{
    for (size_t i = 0; i < spec->require_count; i++) {
        bool found = false;
        for (size_t k = 0; k < n->labels_count && !found; k++) {
            found = strcmp(n->labels[k].key, spec->require[i].key) == 0 &&
                    strcmp(n->labels[k].value, spec->require[i].value) == 0;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

/* NULL: it has enough GPUs for the function. */
static uint32_t *gpu_reason(const struct placement_node *n, const struct function_spec *spec,
                            struct placement_reasons *why)
{
    struct gpus_fit fit = gpus_fit(&n->gpus, spec);
    if (fit.free >= spec->gpu_count) {
        return NULL;
    }
    return fit.free + fit.dirty >= spec->gpu_count ? &why->dirty : &why->gpu;
}

/* Counts the first reason against the node; true when there is none. */
static bool fits(const struct placement_node *n, const struct function_spec *spec,
                 struct placement_reasons *why)
{
    uint32_t *reason = NULL;
    if (!n->ready) {
        reason = &why->not_ready;
    } else if (n->mode != NODE_MODE_NORMAL) {
        reason = &why->cordoned;
    } else if (!labels_match(n, spec)) {
        reason = &why->labels;
    } else if (spec->egress_count > 0 && !n->egress) {
        reason = &why->network;
    } else if (isolation_is_gvisor(spec) && !n->gvisor) {
        reason = &why->gvisor;
    } else if (n->cpu_used_millis + spec->cpu_millis > n->cpu_millis) {
        reason = &why->cpu;
    } else if (n->memory_used_bytes + spec->memory_bytes > n->memory_bytes) {
        reason = &why->memory;
    } else if (spec->gpu_count > 0) {
        reason = gpu_reason(n, spec, why);
    }
    if (reason != NULL) {
        (*reason)++;
    }
    return reason == NULL;
}

static uint64_t free_share(uint64_t total, uint64_t used)
{
    return total == 0 ? 0 : (uint64_t)((unsigned __int128)(total - used) * SCORE_ONE / total);
}

static uint64_t score(const struct placement_node *n, const struct function_spec *spec)
{
    uint64_t cpu = free_share(n->cpu_millis, n->cpu_used_millis + spec->cpu_millis);
    uint64_t memory = free_share(n->memory_bytes, n->memory_used_bytes + spec->memory_bytes);
    return (cpu + memory) / 2;
}

/* Devices that are left, of the kind when the function wants some. */
static uint32_t gpus_left(const struct placement_node *n, const struct function_spec *spec)
{
    return spec->gpu_count > 0 ? gpus_fit(&n->gpus, spec).free : gpus_usable(&n->gpus);
}

struct rank {
    const struct placement_node *node;
    uint64_t score;
    uint32_t gpus_left;
};

static bool better(const struct rank *x, const struct rank *y)
{
    const struct placement_node *a = x->node, *b = y->node;
    if (a->avoid != b->avoid) {
        return a->avoid < b->avoid;
    }
    if (x->gpus_left != y->gpus_left) {
        return x->gpus_left < y->gpus_left;
    }
    if (x->score != y->score) {
        return x->score > y->score;
    }
    return strcmp(a->name, b->name) < 0;
}

int placement_choose(const struct placement_node *nodes, size_t count,
                     const struct function_spec *spec, struct placement_reasons *why)
{
    *why = (struct placement_reasons){0};
    int best = -1;
    struct rank best_rank = {0};
    for (size_t i = 0; i < count; i++) {
        if (!fits(&nodes[i], spec, why)) {
            continue;
        }
        const struct rank rank = {&nodes[i], score(&nodes[i], spec), gpus_left(&nodes[i], spec)};
        if (best < 0 || better(&rank, &best_rank)) {
            best = (int)i;
            best_rank = rank;
        }
    }
    CHECK_IMPLIES(best >= 0, nodes[best].ready);
    return best;
}

void placement_explain(const struct placement_reasons *why, size_t count, char *out,
                       size_t out_size)
{
    const struct {
        uint32_t count;
        const char *text;
    } rows[] = {{why->not_ready, "not ready"},
                {why->cordoned, "cordoned or draining"},
                {why->labels, "without the required labels"},
                {why->network, "without network egress"},
                {why->gvisor, "without gVisor"},
                {why->cpu, "with too little CPU left"},
                {why->memory, "with too little memory left"},
                {why->gpu, "without a free GPU that fits"},
                {why->dirty, "with GPUs that are dirty"}};
    int used = snprintf(out, out_size, "%zu node%s", count, count == 1 ? "" : "s");
    const char *separator = ": ";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].count > 0 && used > 0 && (size_t)used < out_size) {
            used += snprintf(out + used, out_size - (size_t)used, "%s%u %s", separator,
                             rows[i].count, rows[i].text);
            separator = ", ";
        }
    }
}

#include "scheduler/core/gpus.h"

#include "common/check.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool in_word(char c)
{
    return isalnum((unsigned char)c) != 0 || c == '.';
}

/* Do the wanted words stand in text, whole? to_end: as its last ones. */
static bool words_match(const char *text, const char *wanted, bool to_end)
{
    size_t size = strlen(wanted), all = strlen(text);
    for (size_t at = 0; at + size <= all; at++) {
        bool begins = at == 0 || !in_word(text[at - 1]);
        bool ends = at + size == all || (!to_end && !in_word(text[at + size]));
        if (begins && ends && strncasecmp(text + at, wanted, size) == 0) {
            return true;
        }
    }
    return false;
}

bool gpu_is_of_kind(const struct gpu_report *g, const struct function_spec *spec)
{
    if (g->mig || (spec->gpu_memory_bytes > 0 && g->memory_bytes < spec->gpu_memory_bytes)) {
        return false;
    }
    if (spec->gpu_model == NULL || spec->gpu_model[0] == '\0') {
        return true;
    }
    if (g->parent[0] == '\0') {
        return words_match(g->model, spec->gpu_model, false);
    }
    char name[2 * GPU_TEXT_BYTES];
    (void)snprintf(name, sizeof name, "%s %s", g->model, g->profile);
    return g->profile[0] != '\0' && words_match(name, spec->gpu_model, true);
}

static bool is_free(const struct placement_gpus *gpus, size_t at, const struct function_spec *spec)
{
    const struct gpu_report *g = &gpus->all[at];
    return gpus->known && g->health == GPU_HEALTH_OK && gpu_is_of_kind(g, spec) &&
           (gpus->used == NULL || !gpus->used[at]);
}

static bool is_dirty(const struct gpu_report *g)
{
    return g->dirty != NULL && g->dirty[0] != '\0';
}

struct gpus_fit gpus_fit(const struct placement_gpus *gpus, const struct function_spec *spec)
{
    struct gpus_fit fit = {0};
    for (size_t i = 0; i < gpus->count; i++) {
        bool free = is_free(gpus, i, spec);
        fit.free += free && !is_dirty(&gpus->all[i]);
        fit.dirty += free && is_dirty(&gpus->all[i]);
    }
    return fit;
}

bool gpus_choose(const struct placement_gpus *gpus, const struct function_spec *spec,
                 size_t out[static GPUS_MAX])
{
    bool taken[GPUS_MAX] = {false};
    CHECK(gpus->count <= GPUS_MAX);
    for (uint32_t k = 0; k < spec->gpu_count; k++) {
        size_t best = gpus->count;
        for (size_t i = 0; i < gpus->count; i++) {
            bool may = !taken[i] && is_free(gpus, i, spec) && !is_dirty(&gpus->all[i]);
            if (may &&
                (best == gpus->count || gpus->all[i].memory_bytes < gpus->all[best].memory_bytes)) {
                best = i;
            }
        }
        if (best == gpus->count || k == GPUS_MAX) {
            return false;
        }
        taken[best] = true;
        out[k] = best;
    }
    return true;
}

uint32_t gpus_usable(const struct placement_gpus *gpus)
{
    uint32_t count = 0;
    for (size_t i = 0; gpus->known && i < gpus->count; i++) {
        count += !gpus->all[i].mig && gpus->all[i].health == GPU_HEALTH_OK;
    }
    return count;
}

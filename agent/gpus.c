#include "agent/gpus.h"

#include "agent/gpu/clean.h"
#include "agent/gpu/gpu.h"
#include "common/log.h"
#include "common/mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static_assert((int)CONFIG_GPUS_MAX <= (int)GPUS_MAX, "a configuration's devices fit");
static_assert((int)CONFIG_CDI_FOLDERS_MAX <= (int)CDI_FOLDERS_MAX, "and its folders");

/* What the log has said of a device. */
struct said {
    char uuid[GPU_TEXT_BYTES];
    uint32_t health;
    char dirty[GPU_TEXT_BYTES];
};

struct gpus {
    struct gpu *gpu;
    struct clean clean;
    char *folders[CDI_FOLDERS_MAX]; /* of CDI files */
    size_t folders_count;
    uint32_t look_ms; /* 0: no device is checked */
    bool fresh;       /* something that no heartbeat has said */
    uint32_t beats;   /* since the last that said something */
    bool logged;
    uint32_t state;
    char why[GPU_TEXT_BYTES];
    struct said said[GPUS_MAX];
    size_t said_count;
};

static struct status folders_take(struct gpus *g, const struct agent_config *config)
{
    static char *usual[] = {"/etc/cdi", "/var/run/cdi"}; /* as the specification has it */
    char *const *from = config->gpu_cdi_count > 0 ? config->gpu_cdi : usual;
    size_t count = config->gpu_cdi_count > 0 ? config->gpu_cdi_count : 2;
    for (; g->folders_count < count && g->folders_count < CDI_FOLDERS_MAX; g->folders_count++) {
        g->folders[g->folders_count] = mem_strdup(from[g->folders_count]);
        if (g->folders[g->folders_count] == NULL) {
            return status_of(STATUS_NOMEM);
        }
    }
    return status_ok();
}

struct status gpus_open(struct gpus **out, const struct agent_config *config, struct errmsg *msg)
{
    struct gpu_simulated simulated[CONFIG_GPUS_MAX];
    size_t count = 0;
    for (; count < config->gpu_simulate_count && count < CONFIG_GPUS_MAX; count++) {
        const struct config_gpu *from = &config->gpu_simulate[count];
        simulated[count] = (struct gpu_simulated){from->model, from->memory_bytes, from->count};
    }
    const struct gpu_config gpu = {
        .off = config->gpu_discovery == GPU_DISCOVERY_OFF,
        .library = config->gpu_library,
        .node = config->name.text,
        .simulated = simulated,
        .simulated_count = count,
    };
    struct gpus *g = mem_zalloc(1, sizeof *g);
    if (g == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    struct status s = folders_take(g, config);
    if (status_is_ok(s)) {
        s = gpu_open(&g->gpu, &gpu, msg);
    }
    if (!status_is_ok(s)) {
        gpus_close(g);
        return s;
    }
    *out = g;
    return status_ok();
}

void gpus_close(struct gpus *g)
{
    if (g != NULL) {
        gpu_close(g->gpu);
        for (size_t i = 0; i < g->folders_count; i++) {
            mem_free(g->folders[i]);
        }
        mem_free(g);
    }
}

struct gpu_inventory *gpus_inventory(struct gpus *g)
{
    return gpu_inventory(g->gpu);
}

/* ---- The log ---- */

static void log_state(struct gpus *g, const struct gpu_inventory *i)
{
    if (g->logged && g->state == i->state && strncmp(g->why, i->why, sizeof g->why - 1) == 0) {
        return;
    }
    g->logged = true;
    g->state = i->state;
    (void)snprintf(g->why, sizeof g->why, "%s", i->why);
    switch ((enum gpu_state)i->state) {
    case GPU_STATE_NONE:
        LOG_INFO("no GPUs", LOG_STR("why", i->why));
        break;
    case GPU_STATE_OK:
        LOG_INFO("GPUs found", LOG_UINT("devices", i->gpus_count), LOG_STR("driver", i->driver),
                 LOG_STR("cuda", i->cuda), LOG_STR("why", i->why));
        break;
    case GPU_STATE_SIMULATED:
        LOG_WARN("GPUs are simulated", LOG_UINT("devices", i->gpus_count));
        break;
    case GPU_STATE_FAILING:
    case GPU_STATE_SILENT:
        LOG_WARN("GPUs cannot be read", LOG_STR("state", gpu_state_name(i->state)),
                 LOG_STR("why", i->why));
        break;
    case GPU_STATE_OFF:
    case GPU_STATE_STARTING:
        break;
    }
}

static const struct gpu_report *report_of(const struct gpu_inventory *i, const char *uuid)
{
    for (size_t k = 0; k < i->gpus_count; k++) {
        if (strcmp(i->gpus[k].uuid, uuid) == 0) {
            return &i->gpus[k];
        }
    }
    return NULL;
}

static uint32_t health_said(const struct gpus *g, const char *uuid, bool *known, const char **dirty)
{
    *dirty = "";
    for (size_t k = 0; k < g->said_count; k++) {
        if (strcmp(g->said[k].uuid, uuid) == 0) {
            *known = true;
            *dirty = g->said[k].dirty;
            return g->said[k].health;
        }
    }
    *known = false;
    return GPU_HEALTH_OK;
}

static void log_device(const struct gpus *g, const struct gpu_report *r)
{
    bool known;
    const char *dirty;
    uint32_t before = health_said(g, r->uuid, &known, &dirty);
    if (!known) {
        LOG_INFO("GPU found", LOG_STR("gpu", r->uuid), LOG_STR("model", r->model),
                 LOG_STR("mig", r->profile), LOG_STR("pci", r->pci),
                 LOG_UINT("memory_bytes", r->memory_bytes));
    }
    if (r->health != before && r->health != GPU_HEALTH_OK) {
        LOG_WARN("GPU unwell", LOG_STR("gpu", r->uuid),
                 LOG_STR("health", gpu_health_name(r->health)), LOG_STR("why", r->why));
    } else if (r->health != before) {
        LOG_INFO("GPU well again", LOG_STR("gpu", r->uuid));
    }
    if (strcmp(r->dirty, dirty) != 0 && r->dirty[0] != '\0') {
        LOG_WARN("GPU dirty", LOG_STR("gpu", r->uuid), LOG_STR("why", r->dirty));
    } else if (strcmp(r->dirty, dirty) != 0) {
        LOG_INFO("GPU clean", LOG_STR("gpu", r->uuid));
    }
}

static void log_devices(struct gpus *g, const struct gpu_inventory *i)
{
    for (size_t k = 0; k < g->said_count; k++) {
        if (report_of(i, g->said[k].uuid) == NULL) {
            LOG_WARN("GPU gone", LOG_STR("gpu", g->said[k].uuid));
        }
    }
    for (size_t k = 0; k < i->gpus_count; k++) {
        log_device(g, &i->gpus[k]);
    }
    g->said_count = 0;
    for (size_t k = 0; k < i->gpus_count; k++) {
        struct said *s = &g->said[g->said_count++];
        (void)snprintf(s->uuid, sizeof s->uuid, "%s", i->gpus[k].uuid);
        s->health = i->gpus[k].health;
        (void)snprintf(s->dirty, sizeof s->dirty, "%s", i->gpus[k].dirty);
    }
}

/* ---- Heartbeats ---- */

void gpus_use(struct gpus *g, const char *const *uuids, size_t count)
{
    clean_use(&g->clean, uuids, count, gpu_refresh(g->gpu));
    g->look_ms = GPUS_LOOK_MS_MIN;
    g->fresh = true;
}

bool gpus_look(struct gpus *g, uint64_t now_us)
{
    bool polled = gpu_poll(g->gpu, now_us);
    bool judged = clean_read(&g->clean, gpu_inventory(g->gpu), gpu_seen(g->gpu));
    bool waits = clean_waits(&g->clean);
    bool tell = judged || g->fresh;
    g->fresh = g->fresh || polled || judged;
    if (!waits || g->look_ms >= GPUS_LOOK_MS_MAX) {
        g->look_ms = 0; /* What is dirty for longer is looked at as often as all devices are. */
    } else if (g->look_ms > 0) {
        g->look_ms *= 2;
        (void)gpu_refresh(g->gpu);
    }
    return tell;
}

uint32_t gpus_look_ms(const struct gpus *g)
{
    return g->look_ms;
}

struct gpu_inventory *gpus_beat(struct gpus *g, uint64_t now_us, bool *changed)
{
    (void)gpus_look(g, now_us);
    *changed = g->fresh;
    g->fresh = false;
    struct gpu_inventory *i = gpu_inventory(g->gpu);
    g->beats++;
    if (*changed) {
        log_state(g, i);
        log_devices(g, i);
    }
    if (!*changed && g->beats < GPUS_AGAIN_BEATS) {
        return NULL;
    }
    g->beats = 0;
    return i;
}

/* ---- Cells ---- */

struct index_text {
    char text[32];
};

static void wanted_of(const struct gpus *g, const struct gpu_report *r, struct index_text *index,
                      struct gpu_wanted *out)
{
    bool mig = r->parent[0] != '\0';
    if (mig) {
        (void)snprintf(index->text, sizeof index->text, "%u:%u", r->index, r->mig_index);
    } else {
        (void)snprintf(index->text, sizeof index->text, "%u", r->index);
    }
    *out = (struct gpu_wanted){.uuid = r->uuid, .index = index->text, .mig = mig};
    out->has_minor = !mig && gpu_minor(g->gpu, r->uuid, &out->minor);
}

struct status gpus_inject(const struct gpus *g, const struct start *s, bool host_root,
                          struct gpu_edits *out, struct errmsg *msg)
{
    const struct gpu_inventory *i = gpu_inventory(g->gpu);
    struct gpu_wanted wanted[GPUS_MAX];
    struct index_text indexes[GPUS_MAX];
    struct errmsg broken = {{0}};
    *out = (struct gpu_edits){0};
    if (s->gpus_count == 0 || i->state == GPU_STATE_SIMULATED) {
        return status_ok();
    }
    for (size_t k = 0; k < s->gpus_count && k < GPUS_MAX; k++) {
        const struct gpu_report *r = report_of(i, s->gpus[k].text);
        if (r == NULL) {
            return status_fail(msg, STATUS_UNAVAILABLE, "GPU %.95s: not a device of this node",
                               s->gpus[k].text);
        }
        wanted_of(g, r, &indexes[k], &wanted[k]);
    }
    const struct gpu_sources sources = {.folders = (const char *const *)g->folders,
                                        .folders_count = g->folders_count,
                                        .host_root = host_root};
    struct status status = gpu_inject(&sources, wanted, s->gpus_count, out, &broken, msg);
    if (broken.text[0] != '\0') {
        LOG_WARN("CDI file passed over", LOG_STR("why", broken.text));
    }
    TRY(status);
    LOG_INFO("GPUs given", LOG_STR("function", s->spec->name), LOG_UINT("gpus", s->gpus_count),
             LOG_UINT("nodes", out->edits.nodes_count), LOG_UINT("mounts", out->edits.mounts_count),
             LOG_UINT("hooks_not_run", out->edits.hooks),
             LOG_UINT("mounts_left_out", out->left_out));
    return status_ok();
}

#include "agent/gpu_metrics.h"

#include "common/mem.h"

#include <string.h>

/* A number of gpu_report that is a series. */
struct row {
    struct metric_def def;
    size_t offset;
    bool wide; /* 64 bits */
    bool counter;
    uint32_t known; /* of enum gpu_known; 0: always */
    double divisor; /* of gauges */
};

#define AT(member) offsetof(struct gpu_report, member)

static const struct row rows[] = {
    {{"skep_gpu_memory_bytes", "Memory of the device.", 1, NULL, 0},
     AT(memory_bytes),
     true,
     false,
     GPU_KNOWS_MEMORY,
     1},
    {{"skep_gpu_memory_used_bytes", "Memory in use, by whomever.", 1, NULL, 0},
     AT(memory_used_bytes),
     true,
     false,
     GPU_KNOWS_MEMORY,
     1},
    {{"skep_gpu_busy_ratio", "Share of time in which the device computed.", 1, NULL, 0},
     AT(busy_percent),
     false,
     false,
     GPU_KNOWS_BUSY,
     100},
    {{"skep_gpu_temperature_celsius", "Temperature.", 1, NULL, 0},
     AT(temperature_c),
     false,
     false,
     GPU_KNOWS_TEMPERATURE,
     1},
    {{"skep_gpu_power_watts", "Power drawn.", 1, NULL, 0},
     AT(power_mw),
     false,
     false,
     GPU_KNOWS_POWER,
     1000},
    {{"skep_gpu_processes", "Processes that compute on the device.", 1, NULL, 0},
     AT(processes),
     false,
     false,
     GPU_KNOWS_PROCESSES,
     1},
    {{"skep_gpu_ecc_uncorrected_total", "Uncorrected memory errors since the driver was loaded.", 1,
      NULL, 0},
     AT(ecc_uncorrected),
     true,
     true,
     GPU_KNOWS_ECC,
     1},
    {{"skep_gpu_rows_remapped", "Rows of memory that were replaced.", 1, NULL, 0},
     AT(rows_remapped),
     false,
     false,
     GPU_KNOWS_ROWS,
     1},
    {{"skep_gpu_pages_retired", "Pages of memory that are not used any more.", 1, NULL, 0},
     AT(pages_retired),
     false,
     false,
     GPU_KNOWS_PAGES,
     1},
    {{"skep_gpu_xid_errors_total", "Xid errors since the agent started.", 1, NULL, 0},
     AT(xid_count),
     true,
     true,
     GPU_KNOWS_XID,
     1},
    {{"skep_gpu_health", "0: well, 1: degraded, 2: failed.", 1, NULL, 0},
     AT(health),
     false,
     false,
     0,
     1},
};
enum { ROWS_COUNT = sizeof rows / sizeof rows[0] };

static const struct metric_def info_def = {"skep_gpu_info", "1, with what the device is as labels.",
                                           1, NULL, 0};
static const struct metric_def dirty_def = {
    "skep_gpu_dirty", "1: no instance may have the device, for how it was left.", 1, NULL, 0};
static const struct metric_def state_def = {
    "skep_gpu_state", "1 for the state that GPU discovery is in.", 1, NULL, 0};
static const struct metric_def count_def = {"skep_gpu_devices",
                                            "Devices found, MIG instances included.", 1, NULL, 0};

struct gpu_metrics {
    struct metrics *registry;
    struct gauge *gauges[GPUS_MAX * (ROWS_COUNT + 2) + 1]; /* of devices, and the state */
    size_t gauges_count;
    struct counter *counters[GPUS_MAX * ROWS_COUNT];
    size_t counters_count;
};

struct status gpu_metrics_open(struct gpu_metrics **out, struct metrics *registry)
{
    struct gpu_metrics *m = mem_zalloc(1, sizeof *m);
    if (m == NULL) {
        return status_of(STATUS_NOMEM);
    }
    m->registry = registry;
    *out = m;
    return status_ok();
}

void gpu_metrics_close(struct gpu_metrics *m)
{
    mem_free(m);
}

static void series_end(struct gpu_metrics *m)
{
    for (size_t i = 0; i < m->gauges_count; i++) {
        metrics_remove_gauge(m->registry, m->gauges[i]);
    }
    for (size_t i = 0; i < m->counters_count; i++) {
        metrics_remove_counter(m->registry, m->counters[i]);
    }
    m->gauges_count = 0;
    m->counters_count = 0;
}

static void gauge_make(struct gpu_metrics *m, const struct metric_def *def,
                       struct metric_labels labels, double value)
{
    struct gauge *g = metrics_gauge(m->registry, def, labels);
    gauge_set(g, value);
    m->gauges[m->gauges_count++] = g;
}

static uint64_t number_of(const struct row *row, const struct gpu_report *g)
{
    const uint8_t *at = (const uint8_t *)g + row->offset;
    uint64_t wide;
    uint32_t narrow;
    if (row->wide) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return narrow;
}

static void device_set(struct gpu_metrics *m, const struct gpu_report *g)
{
    for (size_t i = 0; i < ROWS_COUNT; i++) {
        const struct row *row = &rows[i];
        uint64_t number = number_of(row, g);
        if (row->known != 0 && (g->known & row->known) == 0) {
            continue;
        }
        if (!row->counter) {
            gauge_make(m, &row->def, METRIC_LABELS({"gpu", g->uuid}),
                       (double)number / row->divisor);
            continue;
        }
        struct counter *c =
            metrics_counter(m->registry, &row->def, METRIC_LABELS({"gpu", g->uuid}));
        c->value = number;
        m->counters[m->counters_count++] = c;
    }
    gauge_make(m, &dirty_def, METRIC_LABELS({"gpu", g->uuid}),
               g->dirty != NULL && g->dirty[0] != '\0' ? 1 : 0);
    gauge_make(m, &info_def,
               METRIC_LABELS({"gpu", g->uuid}, {"model", g->model}, {"pci", g->pci},
                             {"parent", g->parent}, {"mig_profile", g->profile},
                             {"simulated", g->simulated ? "true" : "false"}),
               1);
}

/* Two devices of one name would share their series, which end only once. */
static bool named_before(const struct gpu_inventory *gpu, size_t at)
{
    for (size_t i = 0; i < at; i++) {
        if (strcmp(gpu->gpus[i].uuid, gpu->gpus[at].uuid) == 0) {
            return true;
        }
    }
    return false;
}

void gpu_metrics_set(struct gpu_metrics *m, const struct gpu_inventory *gpu)
{
    series_end(m);
    gauge_set(metrics_gauge(m->registry, &count_def, METRIC_NO_LABELS), (double)gpu->gpus_count);
    gauge_make(m, &state_def, METRIC_LABELS({"state", gpu_state_name(gpu->state)}), 1);
    for (size_t i = 0; i < gpu->gpus_count && i < GPUS_MAX; i++) {
        if (!named_before(gpu, i)) {
            device_set(m, &gpu->gpus[i]);
        }
    }
}

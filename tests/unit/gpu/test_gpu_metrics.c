#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/gpu_metrics.h"

#include <stdio.h>
#include <string.h>

struct world {
    struct metrics *registry;
    struct gpu_metrics *gpus;
    struct buffer text;
};

static int open_world(void **state)
{
    static struct world w;
    w = (struct world){0};
    *state = &w;
    return status_is_ok(metrics_open(&w.registry, 0)) &&
                   status_is_ok(gpu_metrics_open(&w.gpus, w.registry))
               ? 0
               : -1;
}

static int close_world(void **state)
{
    struct world *w = *state;
    gpu_metrics_close(w->gpus);
    metrics_free(w->registry);
    buffer_close(&w->text);
    return 0;
}

static bool prints(struct world *w, const char *line)
{
    w->text.size = 0;
    assert_int_equal(metrics_print(w->registry, &w->text).code, STATUS_OK);
    assert_int_equal(buffer_put_u8(&w->text, 0).code, STATUS_OK);
    return strstr((const char *)w->text.data, line) != NULL;
}

static struct gpu_report report(const char *uuid)
{
    return (struct gpu_report){.uuid = uuid,
                               .model = "H100",
                               .pci = "0:1",
                               .parent = "",
                               .profile = "",
                               .why = "",
                               .known = GPU_KNOWS_MEMORY | GPU_KNOWS_BUSY | GPU_KNOWS_POWER |
                                        GPU_KNOWS_XID,
                               .memory_bytes = UINT64_C(5) << 32,
                               .busy_percent = 50,
                               .power_mw = 1500,
                               .xid_count = 3,
                               .health = GPU_HEALTH_DEGRADED};
}

static void each_device_has_a_series_of_each_known_number(void **state)
{
    struct world *w = *state;
    struct gpu_report g = report("GPU-1");
    const struct gpu_inventory i = {.state = GPU_STATE_OK, .gpus = &g, .gpus_count = 1};
    gpu_metrics_set(w->gpus, &i);
    assert_true(prints(w, "skep_gpu_memory_bytes{gpu=\"GPU-1\"} 21474836480\n"));
    assert_true(prints(w, "skep_gpu_busy_ratio{gpu=\"GPU-1\"} 0.5\n"));
    assert_true(prints(w, "skep_gpu_power_watts{gpu=\"GPU-1\"} 1.5\n"));
    assert_true(prints(w, "skep_gpu_xid_errors_total{gpu=\"GPU-1\"} 3\n"));
    assert_true(prints(w, "skep_gpu_health{gpu=\"GPU-1\"} 1\n"));
    assert_true(prints(w, "skep_gpu_dirty{gpu=\"GPU-1\"} 0\n"));
    g.dirty = "9 MiB in use";
    gpu_metrics_set(w->gpus, &i);
    assert_true(prints(w, "skep_gpu_dirty{gpu=\"GPU-1\"} 1\n"));
    assert_true(prints(w, "skep_gpu_devices 1\n"));
    assert_true(prints(w, "skep_gpu_state{state=\"ok\"} 1\n"));
    assert_true(prints(w, "model=\"H100\""));
    assert_false(prints(w, "skep_gpu_temperature_celsius{"));
}

static void series_end_with_their_device(void **state)
{
    struct world *w = *state;
    struct gpu_report g[] = {report("GPU-1"), report("GPU-2")};
    struct gpu_inventory i = {.state = GPU_STATE_OK, .gpus = g, .gpus_count = 2};
    gpu_metrics_set(w->gpus, &i);
    assert_true(prints(w, "{gpu=\"GPU-2\"}"));
    size_t both = metrics_series_count(w->registry);
    i.gpus_count = 1;
    gpu_metrics_set(w->gpus, &i);
    assert_false(prints(w, "GPU-2"));
    i.gpus_count = 2;
    gpu_metrics_set(w->gpus, &i);
    assert_int_equal(metrics_series_count(w->registry), both);
}

static void two_devices_of_one_name_share_their_series(void **state)
{
    struct world *w = *state;
    struct gpu_report g[] = {report("GPU-1"), report("GPU-1")};
    const struct gpu_inventory i = {.state = GPU_STATE_OK, .gpus = g, .gpus_count = 2};
    gpu_metrics_set(w->gpus, &i);
    gpu_metrics_set(w->gpus, &i);
    assert_true(prints(w, "skep_gpu_memory_bytes{gpu=\"GPU-1\"} 21474836480\n"));
}

static void as_many_devices_as_there_may_be_fit(void **state)
{
    struct world *w = *state;
    struct gpu_report g[GPUS_MAX];
    char names[GPUS_MAX][8];
    for (size_t k = 0; k < GPUS_MAX; k++) {
        (void)snprintf(names[k], sizeof names[k], "G%zu", k);
        g[k] = report(names[k]);
        g[k].known = UINT32_MAX;
    }
    const struct gpu_inventory i = {.state = GPU_STATE_OK, .gpus = g, .gpus_count = GPUS_MAX};
    gpu_metrics_set(w->gpus, &i);
    gpu_metrics_set(w->gpus, &i);
    assert_true(prints(w, "skep_gpu_pages_retired{gpu=\"G63\"} 0\n"));
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)
    const struct CMUnitTest tests[] = {
        WORLD(each_device_has_a_series_of_each_known_number),
        WORLD(series_end_with_their_device),
        WORLD(two_devices_of_one_name_share_their_series),
        WORLD(as_many_devices_as_there_may_be_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

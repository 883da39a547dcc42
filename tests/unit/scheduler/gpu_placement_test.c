#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/core/placement.h"

#include <stdio.h>
#include <string.h>

static struct gpu_report gpu(const char *uuid, const char *model, uint64_t memory)
{
    return (struct gpu_report){
        .uuid = uuid, .model = model, .parent = "", .profile = "", .memory_bytes = memory};
}

static struct gpu_report mig(const char *model, const char *profile, uint64_t memory)
{
    return (struct gpu_report){.uuid = "MIG-1",
                               .model = model,
                               .parent = "GPU-1",
                               .profile = profile,
                               .memory_bytes = memory};
}

static struct function_spec wants(uint32_t count, const char *model, uint64_t memory)
{
    return (struct function_spec){.cpu_millis = 100,
                                  .memory_bytes = 100,
                                  .gpu_count = count,
                                  .gpu_model = model,
                                  .gpu_memory_bytes = memory};
}

static struct placement_node node(const char *name, struct gpu_report *gpus, size_t count,
                                  bool *used)
{
    return (struct placement_node){
        .name = name,
        .ready = true,
        .cpu_millis = 1000,
        .memory_bytes = 1000,
        .gpus = {.known = true, .all = gpus, .count = count, .used = used}};
}

static void a_model_is_asked_for_by_its_words(void **state)
{
    (void)state;
    const struct {
        const char *model, *wanted;
        bool fits;
    } rows[] = {
        {"NVIDIA H100 80GB HBM3", "H100", true},
        {"NVIDIA H100 80GB HBM3", "h100 80gb", true},
        {"NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", true},
        {"NVIDIA H100 80GB HBM3", "H10", false},
        {"NVIDIA H100 80GB HBM3", "100", false},
        {"NVIDIA H100 80GB HBM3", "80GB H100", false},
        {"NVIDIA A100-SXM4-40GB", "A100", true},
        {"NVIDIA A100-SXM4-40GB", "A10", false},
        {"NVIDIA A100-SXM4-40GB", "SXM4", true},
        {"T4", "T4", true},
        {"T4", "", true},
        {"", "T4", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct gpu_report g = gpu("GPU-1", rows[i].model, 80);
        const struct function_spec spec = wants(1, rows[i].wanted, 0);
        assert_int_equal(gpu_is_of_kind(&g, &spec), rows[i].fits);
    }
    const struct gpu_report g = gpu("GPU-1", "H100", 80);
    const struct function_spec spec = wants(1, NULL, 0);
    assert_true(gpu_is_of_kind(&g, &spec));
}

static void memory_is_at_least_what_was_asked(void **state)
{
    (void)state;
    const struct gpu_report g = gpu("GPU-1", "H100", 80);
    struct function_spec spec = wants(1, "H100", 80);
    assert_true(gpu_is_of_kind(&g, &spec));
    spec.gpu_memory_bytes = 81;
    assert_false(gpu_is_of_kind(&g, &spec));
    spec = wants(1, "T4", 10);
    assert_false(gpu_is_of_kind(&g, &spec));
}

static void a_mig_instance_is_asked_for_by_memory_or_profile(void **state)
{
    (void)state;
    const struct gpu_report g = mig("NVIDIA H100 80GB HBM3", "1g.10gb", 10);
    struct function_spec spec = wants(1, "", 10);
    assert_true(gpu_is_of_kind(&g, &spec));
    spec.gpu_model = "1G.10GB";
    assert_true(gpu_is_of_kind(&g, &spec));
    spec.gpu_model = "HBM3 1g.10gb";
    assert_true(gpu_is_of_kind(&g, &spec));
    spec.gpu_model = "H100"; /* That is a whole one. */
    assert_false(gpu_is_of_kind(&g, &spec));
    spec.gpu_model = "1g.10";
    assert_false(gpu_is_of_kind(&g, &spec));
    spec.gpu_model = "10gb"; /* not a word of its own: 1g.10gb is one */
    assert_false(gpu_is_of_kind(&g, &spec));
}

static void a_gpu_that_is_cut_into_mig_instances_is_no_device(void **state)
{
    (void)state;
    struct gpu_report g = gpu("GPU-1", "H100", 80);
    const struct function_spec spec = wants(1, "", 0);
    g.mig = true;
    assert_false(gpu_is_of_kind(&g, &spec));
}

static void used_unwell_and_dirty_devices_are_not_chosen(void **state)
{
    (void)state;
    struct gpu_report g[] = {gpu("a", "T4", 16), gpu("b", "T4", 16), gpu("c", "T4", 16),
                             gpu("d", "T4", 16), gpu("e", "T4", 16)};
    bool used[GPUS_MAX] = {true};
    size_t out[GPUS_MAX];
    g[1].health = GPU_HEALTH_FAILED;
    g[2].health = GPU_HEALTH_DEGRADED;
    g[3].dirty = "2 processes";
    const struct placement_node n = node("n", g, 5, used);
    struct function_spec spec = wants(1, "", 0);
    assert_true(gpus_choose(&n.gpus, &spec, out));
    assert_int_equal(out[0], 4);
    spec.gpu_count = 2;
    assert_false(gpus_choose(&n.gpus, &spec, out));
    assert_int_equal(gpus_fit(&n.gpus, &spec).free, 1);
    assert_int_equal(gpus_fit(&n.gpus, &spec).dirty, 1);
    spec.gpu_count = 100; /* more than there can be */
    assert_false(gpus_choose(&n.gpus, &spec, out));
}

static void the_smallest_device_that_fits_is_taken_first(void **state)
{
    (void)state;
    struct gpu_report g[] = {gpu("a", "H100", 80), gpu("b", "T4", 16), gpu("c", "A10", 24),
                             gpu("d", "T4", 16)};
    const struct placement_node n = node("n", g, 4, NULL);
    const struct function_spec spec = wants(3, "", 10);
    size_t out[GPUS_MAX];
    assert_true(gpus_choose(&n.gpus, &spec, out));
    assert_int_equal(out[0], 1);
    assert_int_equal(out[1], 3);
    assert_int_equal(out[2], 2);
}

static void refuses(const struct placement_node *n, const struct function_spec *spec,
                    struct placement_reasons expected)
{
    struct placement_reasons why;
    assert_int_equal(placement_choose(n, 1, spec, &why), -1);
    assert_memory_equal(&why, &expected, sizeof why);
}

static void gpus_have_their_reasons(void **state)
{
    (void)state;
    struct gpu_report g[] = {gpu("a", "T4", 16), gpu("b", "T4", 16)};
    struct placement_node n = node("n", g, 2, NULL);
    struct function_spec spec = wants(3, "", 0);
    refuses(&n, &spec, (struct placement_reasons){.gpu = 1});
    spec.gpu_count = 2;
    g[0].dirty = "7 MiB in use";
    refuses(&n, &spec, (struct placement_reasons){.dirty = 1});
    spec.gpu_model = "H100";
    refuses(&n, &spec, (struct placement_reasons){.gpu = 1});
    spec = wants(1, "T4", 0);
    n.gpus.known = false; /* The driver is silent. */
    refuses(&n, &spec, (struct placement_reasons){.gpu = 1});
    n.gpus.known = true;
    n.cpu_used_millis = 1000;
    refuses(&n, &spec, (struct placement_reasons){.cpu = 1});
}

static void gpus_are_packed(void **state)
{
    (void)state;
    struct gpu_report g[] = {gpu("a", "T4", 16), gpu("b", "T4", 16), gpu("c", "T4", 16)};
    struct placement_node nodes[] = {node("a", g, 3, NULL), node("b", g, 2, NULL),
                                     node("c", g, 1, NULL), node("d", NULL, 0, NULL)};
    struct placement_reasons why;
    nodes[1].cpu_used_millis = nodes[2].cpu_used_millis = 900; /* comes after packing */
    struct function_spec spec = wants(1, "", 0);
    assert_int_equal(placement_choose(nodes, 4, &spec, &why), 2);
    spec.gpu_count = 2;
    assert_int_equal(placement_choose(nodes, 4, &spec, &why), 1);
    spec.gpu_count = 3;
    assert_int_equal(placement_choose(nodes, 4, &spec, &why), 0);
    nodes[2].avoid = 1; /* refusals come before packing */
    spec.gpu_count = 1;
    assert_int_equal(placement_choose(nodes, 4, &spec, &why), 1);
}

static void a_function_without_gpus_leaves_them_to_others(void **state)
{
    (void)state;
    struct gpu_report g[] = {gpu("a", "T4", 16), gpu("b", "T4", 16)};
    struct placement_node nodes[] = {node("a", g, 2, NULL), node("b", NULL, 0, NULL)};
    const struct function_spec spec = wants(0, "", 0);
    struct placement_reasons why;
    nodes[1].cpu_used_millis = 900;
    assert_int_equal(placement_choose(nodes, 2, &spec, &why), 1);
    nodes[1].cpu_used_millis = 1000; /* A node with GPUs is still better than none. */
    assert_int_equal(placement_choose(nodes, 2, &spec, &why), 0);
    g[0].health = g[1].health = GPU_HEALTH_FAILED; /* Nobody can have those. */
    nodes[1].cpu_used_millis = 900;
    assert_int_equal(placement_choose(nodes, 2, &spec, &why), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_is_asked_for_by_its_words),
        cmocka_unit_test(memory_is_at_least_what_was_asked),
        cmocka_unit_test(a_mig_instance_is_asked_for_by_memory_or_profile),
        cmocka_unit_test(a_gpu_that_is_cut_into_mig_instances_is_no_device),
        cmocka_unit_test(used_unwell_and_dirty_devices_are_not_chosen),
        cmocka_unit_test(the_smallest_device_that_fits_is_taken_first),
        cmocka_unit_test(gpus_have_their_reasons),
        cmocka_unit_test(gpus_are_packed),
        cmocka_unit_test(a_function_without_gpus_leaves_them_to_others),
    };
    return cmocka_run_group_tests_name("gpu_placement", tests, NULL, NULL);
}

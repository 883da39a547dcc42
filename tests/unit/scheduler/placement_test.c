#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/core/placement.h"

#include <string.h>

static struct pair zone_a[] = {{.key = "zone", .value = "a"}, {.key = "disk", .value = "ssd"}};
static struct pair zone_b[] = {{.key = "zone", .value = "b"}};

static struct placement_node node(const char *name)
{
    return (struct placement_node){
        .name = name, .ready = true, .cpu_millis = 1000, .memory_bytes = 1000};
}

static struct function_spec spec_of(uint32_t cpu_millis, uint64_t memory_bytes)
{
    return (struct function_spec){.cpu_millis = cpu_millis, .memory_bytes = memory_bytes};
}

/* Places on this one node and says whether exactly that reason was counted once. */
static void refuses(const struct placement_node *n, const struct function_spec *spec,
                    struct placement_reasons expected)
{
    struct placement_reasons why;
    assert_int_equal(placement_choose(n, 1, spec, &why), -1);
    assert_memory_equal(&why, &expected, sizeof why);
}

static void a_cluster_without_nodes_has_no_place(void **state)
{
    (void)state;
    const struct function_spec spec = spec_of(1, 1);
    struct placement_reasons why = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    const struct placement_reasons none = {0};
    assert_int_equal(placement_choose(NULL, 0, &spec, &why), -1);
    assert_memory_equal(&why, &none, sizeof why);
}

static void each_filter_counts_its_reason(void **state)
{
    (void)state;
    struct function_spec spec = spec_of(100, 100);
    struct placement_node n = node("a");
    n.ready = false;
    refuses(&n, &spec, (struct placement_reasons){.not_ready = 1});
    n = node("a");
    n.mode = NODE_MODE_CORDONED;
    refuses(&n, &spec, (struct placement_reasons){.cordoned = 1});
    n.mode = NODE_MODE_DRAINING;
    refuses(&n, &spec, (struct placement_reasons){.cordoned = 1});
    n = node("a");
    struct text rule = {.text = "10.0.0.0/8:443/tcp"};
    spec.egress = &rule;
    spec.egress_count = 1;
    refuses(&n, &spec, (struct placement_reasons){.network = 1});
    n.egress = true;
    struct placement_reasons why;
    assert_int_equal(placement_choose(&n, 1, &spec, &why), 0);
    spec.egress_count = 0;
    n.egress = false;
    n.cpu_used_millis = 901;
    refuses(&n, &spec, (struct placement_reasons){.cpu = 1});
    n = node("a");
    n.memory_used_bytes = 901;
    refuses(&n, &spec, (struct placement_reasons){.memory = 1});
    spec.require = zone_a;
    spec.require_count = 1;
    n = node("a");
    refuses(&n, &spec, (struct placement_reasons){.labels = 1});
    n.labels = zone_b;
    n.labels_count = 1;
    refuses(&n, &spec, (struct placement_reasons){.labels = 1});
}

static void gvisor_is_needed_only_where_it_is_asked_for(void **state)
{
    (void)state;
    struct placement_node n = node("a");
    struct function_spec spec = spec_of(1, 1);
    struct placement_reasons why;
    spec.isolation = "cell";
    assert_int_equal(placement_choose(&n, 1, &spec, &why), 0);
    spec.isolation = "gvisor";
    refuses(&n, &spec, (struct placement_reasons){.gvisor = 1});
    n.gvisor = true;
    assert_int_equal(placement_choose(&n, 1, &spec, &why), 0);
}

static void only_the_first_reason_counts(void **state)
{
    (void)state;
    const struct function_spec spec = spec_of(5000, 5000);
    struct placement_node n = node("a");
    n.ready = false;
    n.mode = NODE_MODE_CORDONED;
    refuses(&n, &spec, (struct placement_reasons){.not_ready = 1});
}

static void what_fits_exactly_fits(void **state)
{
    (void)state;
    const struct function_spec spec = spec_of(100, 100);
    struct placement_node n = node("a");
    n.cpu_used_millis = 900;
    n.memory_used_bytes = 900;
    struct placement_reasons why;
    assert_int_equal(placement_choose(&n, 1, &spec, &why), 0);
}

static void all_required_labels_must_match(void **state)
{
    (void)state;
    struct function_spec spec = spec_of(100, 100);
    spec.require = zone_a;
    spec.require_count = 2;
    struct placement_node nodes[] = {node("a"), node("b")};
    nodes[0].labels = zone_a;
    nodes[0].labels_count = 1; /* zone only */
    nodes[1].labels = zone_a;
    nodes[1].labels_count = 2;
    struct placement_reasons why;
    assert_int_equal(placement_choose(nodes, 2, &spec, &why), 1);
    assert_int_equal(why.labels, 1);
}

static void the_least_allocated_node_wins(void **state)
{
    (void)state;
    const struct function_spec spec = spec_of(100, 100);
    struct placement_node nodes[] = {node("a"), node("b"), node("c")};
    nodes[0].cpu_used_millis = 500;
    nodes[2].memory_used_bytes = 200;
    struct placement_reasons why;
    assert_int_equal(placement_choose(nodes, 3, &spec, &why), 1);
    nodes[1].cpu_used_millis = 300; /* The mean of both shares decides: c has 200 taken, b 300. */
    assert_int_equal(placement_choose(nodes, 3, &spec, &why), 2);
}

static void shares_count_and_not_amounts(void **state)
{
    (void)state;
    const struct function_spec spec = spec_of(100, 100);
    struct placement_node nodes[] = {node("a"), node("b")};
    nodes[1].cpu_millis = nodes[1].memory_bytes = 100000;
    nodes[1].cpu_used_millis = nodes[1].memory_used_bytes = 50000;
    struct placement_reasons why;
    assert_int_equal(placement_choose(nodes, 2, &spec, &why), 0); /* 90 % left against 50 % */
}

static void equal_scores_go_to_the_smaller_name(void **state)
{
    (void)state;
    const struct function_spec spec = spec_of(100, 100);
    const struct placement_node nodes[] = {node("c"), node("a"), node("b")};
    struct placement_reasons why;
    assert_int_equal(placement_choose(nodes, 3, &spec, &why), 1);
}

static void fewer_refusals_come_before_the_score(void **state)
{
    (void)state;
    const struct function_spec spec = spec_of(100, 100);
    struct placement_node nodes[] = {node("a"), node("b")};
    nodes[0].avoid = 1;
    nodes[1].cpu_used_millis = 900;
    struct placement_reasons why;
    assert_int_equal(placement_choose(nodes, 2, &spec, &why), 1);
    nodes[1].cpu_used_millis = 1000; /* The avoided one is still better than none. */
    assert_int_equal(placement_choose(nodes, 2, &spec, &why), 0);
}

static void huge_nodes_do_not_overflow(void **state)
{
    (void)state;
    struct function_spec spec = spec_of(UINT32_MAX, UINT64_MAX / 4);
    struct placement_node nodes[] = {node("a"), node("b")};
    nodes[0].cpu_millis = nodes[1].cpu_millis = UINT64_MAX / 2;
    nodes[0].memory_bytes = nodes[1].memory_bytes = UINT64_MAX / 2;
    nodes[0].memory_used_bytes = UINT64_MAX / 8;
    struct placement_reasons why;
    assert_int_equal(placement_choose(nodes, 2, &spec, &why), 1);
}

static void the_explanation_counts_each_reason(void **state)
{
    (void)state;
    char text[256];
    placement_explain(&(struct placement_reasons){.cordoned = 1, .memory = 2}, 3, text,
                      sizeof text);
    assert_string_equal(text, "3 nodes: 1 cordoned or draining, 2 with too little memory left");
    placement_explain(&(struct placement_reasons){1, 2, 3, 4, 5, 6, 7, 8, 9}, 45, text,
                      sizeof text);
    assert_string_equal(
        text, "45 nodes: 1 not ready, 2 cordoned or draining, 3 without the required labels, "
              "4 without network egress, 5 without gVisor, 6 with too little CPU left, "
              "7 with too little memory left, 8 without a free GPU that fits, "
              "9 with GPUs that are dirty");
    placement_explain(&(struct placement_reasons){.not_ready = 1}, 1, text, sizeof text);
    assert_string_equal(text, "1 node: 1 not ready");
    placement_explain(&(struct placement_reasons){0}, 0, text, sizeof text);
    assert_string_equal(text, "0 nodes");
}

static void a_long_explanation_is_cut_to_its_room(void **state)
{
    (void)state;
    char text[64];
    for (size_t room = 1; room <= sizeof text; room++) {
        memset(text, 'x', sizeof text);
        placement_explain(&(struct placement_reasons){1, 2, 3, 4, 5, 6, 7, 8, 9}, 45, text, room);
        assert_int_equal(strlen(text), room - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cluster_without_nodes_has_no_place),
        cmocka_unit_test(each_filter_counts_its_reason),
        cmocka_unit_test(gvisor_is_needed_only_where_it_is_asked_for),
        cmocka_unit_test(only_the_first_reason_counts),
        cmocka_unit_test(what_fits_exactly_fits),
        cmocka_unit_test(all_required_labels_must_match),
        cmocka_unit_test(the_least_allocated_node_wins),
        cmocka_unit_test(shares_count_and_not_amounts),
        cmocka_unit_test(equal_scores_go_to_the_smaller_name),
        cmocka_unit_test(fewer_refusals_come_before_the_score),
        cmocka_unit_test(huge_nodes_do_not_overflow),
        cmocka_unit_test(the_explanation_counts_each_reason),
        cmocka_unit_test(a_long_explanation_is_cut_to_its_room),
    };
    return cmocka_run_group_tests_name("placement", tests, NULL, NULL);
}

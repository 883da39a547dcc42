#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"
#include "common/metrics.h"
#include "tests/unit/common/exposition.h"

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct metric_def calls = {.name = "skep_calls_total", .help = "Calls answered."};
static const struct metric_def cpu = {
    .name = "skep_cpu_seconds_total", .help = "Processor time.", .divisor = 1000000};
static const struct metric_def nodes = {.name = "skep_nodes", .help = "Nodes that are ready."};
static const uint64_t latency_bounds[] = {1000, 10000, 2500000};
static const struct metric_def latency = {.name = "skep_latency_seconds",
                                          .help = "From request to answer.",
                                          .divisor = 1000000,
                                          .bounds = latency_bounds,
                                          .bounds_count = 3};

static struct metrics *m;
static struct buffer out;

static int setup(void **state)
{
    (void)state;
    return status_is_ok(metrics_open(&m, 0)) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    metrics_free(m);
    buffer_close(&out);
    return 0;
}

static void print(void)
{
    out.size = 0;
    assert_int_equal(metrics_print(m, &out).code, STATUS_OK);
    const char *error = exposition_error(bytes_of(out.data, out.size));
    if (error != NULL) {
        print_error("%s in:\n%.*s\n", error, (int)out.size, (const char *)out.data);
    }
    assert_null(error);
}

static void assert_value(const char *series, const char *value)
{
    const char *got = exposition_value(bytes_of(out.data, out.size), series);
    if (got == NULL) {
        print_error("no %s in:\n%.*s\n", series, (int)out.size, (const char *)out.data);
    }
    assert_non_null(got);
    assert_string_equal(got, value);
}

static void whole_text_is_as_documented(void **state)
{
    (void)state;
    counter_add(metrics_counter(m, &calls, METRIC_LABELS({"outcome", "ok"}, {"function", "f"})), 3);
    gauge_set(metrics_gauge(m, &nodes, METRIC_NO_LABELS), 2.5);
    struct distribution *d = metrics_distribution(m, &latency, METRIC_LABELS({"leg", "agent"}));
    distribution_record(d, 1000);
    distribution_record(d, 1001);
    distribution_record(d, 3000000);
    print();
    static const char expected[] = "# HELP skep_calls_total Calls answered.\n"
                                   "# TYPE skep_calls_total counter\n"
                                   "skep_calls_total{function=\"f\",outcome=\"ok\"} 3\n"
                                   "# HELP skep_nodes Nodes that are ready.\n"
                                   "# TYPE skep_nodes gauge\n"
                                   "skep_nodes 2.5\n"
                                   "# HELP skep_latency_seconds From request to answer.\n"
                                   "# TYPE skep_latency_seconds histogram\n"
                                   "skep_latency_seconds_bucket{leg=\"agent\",le=\"0.001\"} 1\n"
                                   "skep_latency_seconds_bucket{leg=\"agent\",le=\"0.01\"} 2\n"
                                   "skep_latency_seconds_bucket{leg=\"agent\",le=\"2.5\"} 2\n"
                                   "skep_latency_seconds_bucket{leg=\"agent\",le=\"+Inf\"} 3\n"
                                   "skep_latency_seconds_sum{leg=\"agent\"} 3.002001\n"
                                   "skep_latency_seconds_count{leg=\"agent\"} 3\n";
    assert_true(out.size > sizeof expected);
    assert_memory_equal(out.data, expected, sizeof expected - 1);
    assert_value("skep_metrics_series", "3");
    assert_value("skep_metrics_dropped_total", "0");
}

static void empty_registry_prints_itself(void **state)
{
    (void)state;
    print();
    assert_value("skep_metrics_series", "0");
}

static void same_labels_in_any_order_are_one_series(void **state)
{
    (void)state;
    struct counter *a = metrics_counter(m, &calls, METRIC_LABELS({"a", "1"}, {"b", "2"}));
    struct counter *b = metrics_counter(m, &calls, METRIC_LABELS({"b", "2"}, {"a", "1"}));
    struct counter *c = metrics_counter(m, &calls, METRIC_LABELS({"a", "2"}, {"b", "1"}));
    struct counter *d = metrics_counter(m, &calls, METRIC_NO_LABELS);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_ptr_not_equal(a, d);
    assert_int_equal(metrics_series_count(m), 3);
}

/* A value that looks like the end of itself is not another series' text. */
static void values_cannot_be_confused(void **state)
{
    (void)state;
    struct counter *a = metrics_counter(m, &calls, METRIC_LABELS({"a", "x\",b=\"y"}));
    struct counter *b = metrics_counter(m, &calls, METRIC_LABELS({"a", "x"}, {"b", "y"}));
    assert_ptr_not_equal(a, b);
    print();
}

static void values_are_escaped(void **state)
{
    (void)state;
    counter_add(metrics_counter(m, &calls, METRIC_LABELS({"v", "q\"b\\n\nt\t\x01\xC3\xA9"})), 1);
    print();
    assert_value("skep_calls_total{v=\"q\\\"b\\\\n\\nt\t\x01\xC3\xA9\"}", "1");
}

static void bytes_that_are_not_utf8_are_replaced(void **state)
{
    (void)state;
    static const struct {
        const char *value, *printed;
    } rows[] = {
        {"1\xFF", "1?"},
        {"2\x80", "2?"},
        {"3\xC3", "3?"},
        {"4\xC0\x80", "4??"},                       /* overlong */
        {"5\xED\xA0\x80", "5???"},                  /* surrogate */
        {"6\xF4\x90\x80\x80", "6????"},             /* over U+10FFFF */
        {"7\xE2\x82", "7??"},                       /* cut short */
        {"8\xF0\x9F\x90\x9D", "8\xF0\x9F\x90\x9D"}, /* a bee */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        counter_add(metrics_counter(m, &calls, METRIC_LABELS({"v", rows[i].value})), 1);
    }
    print();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char series[64];
        (void)snprintf(series, sizeof series, "skep_calls_total{v=\"%s\"}", rows[i].printed);
        assert_value(series, "1");
    }
}

static void long_values_are_cut_between_characters(void **state)
{
    (void)state;
    char value[400];
    memset(value, '"', sizeof value);
    value[sizeof value - 1] = '\0';
    memcpy(value + METRICS_LABEL_VALUE_BYTES_MAX - 1, "\xC3\xA9", 2);
    const struct metric_label labels[METRICS_LABELS_MAX] = {
        {"a", value}, {"b", value}, {"c", value}, {"d", value},
        {"e", value}, {"f", value}, {"g", value}, {"h", value}};
    counter_add(metrics_counter(m, &calls, (struct metric_labels){labels, METRICS_LABELS_MAX}), 1);
    print();
    assert_int_equal(metrics_series_count(m), 1);
}

static void missing_value_is_an_empty_one(void **state)
{
    (void)state;
    counter_add(metrics_counter(m, &calls, METRIC_LABELS({"v", NULL})), 1);
    print();
    assert_value("skep_calls_total{v=\"\"}", "1");
}

static void help_is_escaped(void **state)
{
    (void)state;
    static const struct metric_def odd = {.name = "odd", .help = "One\nline \\ with \"quotes\"."};
    (void)metrics_gauge(m, &odd, METRIC_NO_LABELS);
    print();
    static const char line[] = "# HELP odd One\\nline \\\\ with \"quotes\".\n";
    assert_memory_equal(out.data, line, sizeof line - 1);
}

static void numbers_keep_their_digits(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double value;
        const char *printed;
    } rows[] = {
        {"zero", 0, "0"},
        {"whole", 9007199254740992.0, "9007199254740992"},
        {"tenth", 0.1, "0.1"},
        {"sum", 0.1 + 0.2, "0.30000000000000004"},
        {"minus", -1.5, "-1.5"},
        {"inf", __builtin_inf(), "+Inf"},
        {"ninf", -__builtin_inf(), "-Inf"},
        {"nan", __builtin_nan(""), "NaN"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gauge_set(metrics_gauge(m, &nodes, METRIC_LABELS({"v", rows[i].name})), rows[i].value);
    }
    counter_add(metrics_counter(m, &calls, METRIC_NO_LABELS), UINT64_MAX);
    counter_add(metrics_counter(m, &cpu, METRIC_NO_LABELS), 1500001);
    print();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char series[64];
        (void)snprintf(series, sizeof series, "skep_nodes{v=\"%s\"}", rows[i].name);
        assert_value(series, rows[i].printed);
    }
    assert_value("skep_calls_total", "18446744073709551615");
    assert_value("skep_cpu_seconds_total", "1.500001");
}

static void gauges_go_both_ways(void **state)
{
    (void)state;
    struct gauge *g = metrics_gauge(m, &nodes, METRIC_NO_LABELS);
    gauge_add(g, 5);
    gauge_add(g, -7);
    print();
    assert_value("skep_nodes", "-2");
}

static void bounds_are_inclusive(void **state)
{
    (void)state;
    struct distribution *d = metrics_distribution(m, &latency, METRIC_NO_LABELS);
    distribution_record(d, 0);
    distribution_record(d, 10000);
    distribution_record(d, 2500000);
    distribution_record(d, 2500001);
    print();
    assert_value("skep_latency_seconds_bucket{le=\"0.001\"}", "1");
    assert_value("skep_latency_seconds_bucket{le=\"0.01\"}", "2");
    assert_value("skep_latency_seconds_bucket{le=\"2.5\"}", "3");
    assert_value("skep_latency_seconds_bucket{le=\"+Inf\"}", "4");
    assert_value("skep_latency_seconds_count", "4");
}

static double read_gauge(void *data)
{
    return *(const double *)data;
}

static uint64_t read_counter(void *data)
{
    return *(const uint64_t *)data;
}

static void callbacks_are_read_while_printing(void **state)
{
    (void)state;
    double load = 0.25;
    uint64_t bytes = 7;
    metrics_gauge_callback(m, &nodes, METRIC_NO_LABELS, read_gauge, &load);
    metrics_counter_callback(m, &calls, METRIC_NO_LABELS, read_counter, &bytes);
    print();
    assert_value("skep_nodes", "0.25");
    assert_value("skep_calls_total", "7");
    load = 0.5;
    bytes = 8;
    print();
    assert_value("skep_nodes", "0.5");
    assert_value("skep_calls_total", "8");
}

static void removed_callbacks_are_read_no_more(void **state)
{
    (void)state;
    double mine = 1, other = 2;
    metrics_gauge_callback(m, &nodes, METRIC_LABELS({"v", "1"}), read_gauge, &mine);
    metrics_gauge_callback(m, &nodes, METRIC_LABELS({"v", "2"}), read_gauge, &other);
    metrics_gauge_callback(m, &nodes, METRIC_LABELS({"v", "3"}), read_gauge, &mine);
    (void)metrics_gauge(m, &nodes, METRIC_LABELS({"v", "4"}));
    metrics_remove_callbacks(m, &mine);
    assert_int_equal(metrics_series_count(m), 2);
    print();
    assert_value("skep_nodes{v=\"2\"}", "2");
    assert_value("skep_nodes{v=\"4\"}", "0");
}

/* First, middle and last of a family, and the family's only one. */
static void removed_series_are_gone_and_can_come_again(void **state)
{
    (void)state;
    struct counter *c[4];
    static const char *const values[] = {"0", "1", "2", "3"};
    for (size_t i = 0; i < 4; i++) {
        c[i] = metrics_counter(m, &calls, METRIC_LABELS({"v", values[i]}));
        counter_add(c[i], 5);
    }
    metrics_remove_counter(m, c[1]);
    metrics_remove_counter(m, c[0]);
    metrics_remove_counter(m, c[3]);
    print();
    assert_int_equal(metrics_series_count(m), 1);
    assert_value("skep_calls_total{v=\"2\"}", "5");
    metrics_remove_counter(m, c[2]);
    print();
    assert_null(exposition_value(bytes_of(out.data, out.size), "skep_calls_total{v=\"2\"}"));
    struct counter *again = metrics_counter(m, &calls, METRIC_LABELS({"v", "2"}));
    counter_add(again, 1);
    print();
    assert_value("skep_calls_total{v=\"2\"}", "1");
}

static void each_kind_can_be_removed(void **state)
{
    (void)state;
    metrics_remove_gauge(m, metrics_gauge(m, &nodes, METRIC_NO_LABELS));
    metrics_remove_distribution(m, metrics_distribution(m, &latency, METRIC_NO_LABELS));
    metrics_remove_counter(m, metrics_counter(m, &calls, METRIC_NO_LABELS));
    assert_int_equal(metrics_series_count(m), 0);
    print();
}

static void series_over_the_limit_count_into_nothing(void **state)
{
    (void)state;
    metrics_free(m);
    m = NULL;
    assert_int_equal(metrics_open(&m, 2).code, STATUS_OK);
    struct counter *a = metrics_counter(m, &calls, METRIC_LABELS({"v", "a"}));
    (void)metrics_counter(m, &calls, METRIC_LABELS({"v", "b"}));
    struct counter *over = metrics_counter(m, &calls, METRIC_LABELS({"v", "c"}));
    assert_ptr_not_equal(over, a);
    counter_add(over, 1);
    struct distribution *d = metrics_distribution(m, &latency, METRIC_NO_LABELS);
    distribution_record(d, UINT64_MAX);
    gauge_set(metrics_gauge(m, &nodes, METRIC_NO_LABELS), 1);
    print();
    assert_value("skep_metrics_series", "2");
    assert_value("skep_metrics_dropped_total", "3");
    /* A known one is still found, and room is used again. */
    assert_ptr_equal(metrics_counter(m, &calls, METRIC_LABELS({"v", "a"})), a);
    metrics_remove_counter(m, over);
    metrics_remove_distribution(m, d);
    metrics_remove_counter(m, a);
    counter_add(metrics_counter(m, &calls, METRIC_LABELS({"v", "c"})), 4);
    print();
    assert_value("skep_calls_total{v=\"c\"}", "4");
}

static void every_series_up_to_the_maximum_is_kept_apart(void **state)
{
    (void)state;
    for (unsigned i = 0; i < METRICS_SERIES_MAX + 10; i++) {
        char value[16];
        (void)snprintf(value, sizeof value, "%u", i);
        counter_add(metrics_counter(m, &calls, METRIC_LABELS({"v", value})), i);
    }
    assert_int_equal(metrics_series_count(m), METRICS_SERIES_MAX);
    print();
    assert_value("skep_calls_total{v=\"16383\"}", "16383");
    assert_value("skep_metrics_dropped_total", "10");
}

static void registering_survives_oom(void **state)
{
    (void)state;
    for (unsigned delay = 0;; delay++) {
        metrics_free(m);
        m = NULL;
        assert_int_equal(metrics_open(&m, 0).code, STATUS_OK);
        mem_fault(delay, 1);
        struct distribution *d = metrics_distribution(m, &latency, METRIC_NO_LABELS);
        unsigned faults = mem_fault_clear();
        assert_non_null(d);
        distribution_record(d, 5);
        print();
        assert_int_equal(metrics_series_count(m), 1 - faults);
        assert_value("skep_metrics_dropped_total", faults == 1 ? "1" : "0");
        if (faults == 0) {
            assert_true(delay >= 3);
            return;
        }
    }
}

static void open_survives_oom(void **state)
{
    (void)state;
    for (unsigned delay = 0; delay < 2; delay++) {
        struct metrics *made = NULL;
        mem_fault(delay, 1);
        assert_int_equal(metrics_open(&made, 0).code, STATUS_NOMEM);
        assert_int_equal(mem_fault_clear(), 1);
        assert_null(made);
    }
}

static void print_survives_oom_unchanged(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        char value[16];
        (void)snprintf(value, sizeof value, "%u", i);
        (void)metrics_distribution(m, &latency, METRIC_LABELS({"v", value}));
    }
    for (unsigned delay = 0;; delay++) {
        buffer_close(&out);
        assert_int_equal(buffer_append(&out, "before", 6).code, STATUS_OK);
        mem_fault(delay, 1);
        struct status s = metrics_print(m, &out);
        if (mem_fault_clear() == 0) {
            assert_int_equal(s.code, STATUS_OK);
            assert_true(delay >= 3);
            return;
        }
        assert_int_equal(s.code, STATUS_NOMEM);
        assert_int_equal(out.size, 6);
        assert_memory_equal(out.data, "before", 6);
    }
}

static void free_of_nothing_is_fine(void **state)
{
    (void)state;
    metrics_free(NULL);
}

/* The judge is worth something only if it sees what is wrong. */
static void judge_refuses_wrong_texts(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "a 1\n",
        "# HELP a x\na 1\n",
        "# TYPE a gauge\na 1\n",
        "# HELP a x\n# TYPE a gauge\n",
        "# HELP a x\n# TYPE a gauge\na 1",
        "# HELP a x\n# TYPE a gauge\n\na 1\n",
        "# HELP a x\n# TYPE a gauge\na  1\n",
        "# HELP a x\n# TYPE a gauge\na 1 \n",
        "# HELP a x\n# TYPE a gauge\na x\n",
        "# HELP a x\n# TYPE a gauge\nb 1\n",
        "# HELP a x\n# TYPE b gauge\na 1\n",
        "# HELP a x\n# TYPE a number\na 1\n",
        "# HELP a x\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a x\n# TYPE a gauge\na{} 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"1\",} 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"1\",b=\"2\"} 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=1} 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"\\t\"} 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"\"\"} 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"\xFF\"} 1\n",
        "# HELP a x\n# TYPE a gauge\na{1b=\"\"} 1\n",
        "# HELP a x\n# TYPE a counter\na -1\n",
        "# HELP a x\n# TYPE a gauge\na 1\n# HELP a x\n# TYPE a gauge\na{b=\"\"} 1\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
        ("# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\n"
         "a_count 1\n"),
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\n",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (exposition_error(bytes_of(wrong[i], strlen(wrong[i]))) == NULL) {
            print_error("accepted: %s\n", wrong[i]);
            fail();
        }
    }
    static const char right[] = "# HELP a x\n# TYPE a gauge\na{b=\"\\\\\\\"\\n\"} 1e-3\n";
    assert_null(exposition_error(bytes_of(right, sizeof right - 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole_text_is_as_documented, setup, teardown),
        cmocka_unit_test_setup_teardown(empty_registry_prints_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(same_labels_in_any_order_are_one_series, setup, teardown),
        cmocka_unit_test_setup_teardown(values_cannot_be_confused, setup, teardown),
        cmocka_unit_test_setup_teardown(values_are_escaped, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_that_are_not_utf8_are_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(long_values_are_cut_between_characters, setup, teardown),
        cmocka_unit_test_setup_teardown(missing_value_is_an_empty_one, setup, teardown),
        cmocka_unit_test_setup_teardown(help_is_escaped, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_keep_their_digits, setup, teardown),
        cmocka_unit_test_setup_teardown(gauges_go_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(bounds_are_inclusive, setup, teardown),
        cmocka_unit_test_setup_teardown(callbacks_are_read_while_printing, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_callbacks_are_read_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_series_are_gone_and_can_come_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(each_kind_can_be_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(series_over_the_limit_count_into_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(every_series_up_to_the_maximum_is_kept_apart, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(registering_survives_oom, setup, teardown),
        cmocka_unit_test(open_survives_oom),
        cmocka_unit_test_setup_teardown(print_survives_oom_unchanged, setup, teardown),
        cmocka_unit_test(free_of_nothing_is_fine),
        cmocka_unit_test(judge_refuses_wrong_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

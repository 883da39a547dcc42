#include "common/manifest_load.h"
#include "common/mem.h"
#include "tests/unit/config/folder.h"

static const char whole[] =
    "name: thumbnail\n"
    "runtime: python\n"
    "handler: lib/thumb.py:resize\n"
    "image: default\n"
    "resources: {cpu: 1.5, memory: 128Mi, tmp: 1Mi, processes: 8}\n"
    "scaling: {min: 1, max: 7, concurrency: 3, buffer: 0, idle: 5s, queue: 12}\n"
    "snapshot: none\n"
    "isolation: cell\n"
    "timeout: 2m\n"
    "startup_timeout: 4s\n"
    "network: {egress: none}\n"
    "env: {ZED: \"last\", ALPHA: \"\"}\n"
    "placement: {require: {zone: eu-1, ssd: \"true\"}}\n"
    "retries: {max: 5, backoff: 200ms, factor: 1.5, cap: 90s}\n"
    "limits: {running: 4, rate: 90/m, burst: 7, queue: 1000, queue_age: 1h, poison: 2}\n"
    "schedules:\n"
    "  - {name: nightly, cron: \"30 2 * * *\", payload: '{\"all\": true}', catch_up: 1}\n"
    "  - {name: often, cron: \"@every 90s\"}\n"
    "data_class: phi\n";

static struct status parse(const char *text, struct manifest *m, struct errmsg *msg)
{
    return manifest_parse("skep.yaml", bytes_of(text, strlen(text)), m, msg);
}

static struct manifest parsed(const char *text)
{
    struct manifest m;
    struct errmsg msg = {""};
    struct status s = parse(text, &m, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(s));
    return m;
}

static void every_key_is_read(void **state)
{
    (void)state;
    struct manifest m = parsed(whole);
    assert_string_equal(m.name.text, "thumbnail");
    assert_int_equal(m.runtime, RUNTIME_PYTHON);
    assert_string_equal(m.handler, "lib/thumb.py:resize");
    assert_int_equal(m.cpu_millis, 1500);
    assert_int_equal(m.memory_bytes, 128 << 20);
    assert_int_equal(m.tmp_bytes, 1 << 20);
    assert_int_equal(m.processes_max, 8);
    assert_int_equal(m.scale_min, 1);
    assert_int_equal(m.scale_max, 7);
    assert_int_equal(m.concurrency, 3);
    assert_int_equal(m.idle_ms, 5000);
    assert_int_equal(m.queue_max, 12);
    assert_int_equal(m.timeout_ms, 120000);
    assert_int_equal(m.startup_timeout_ms, 4000);
    manifest_close(&m);
}

static void pairs_are_sorted_by_key(void **state)
{
    (void)state;
    struct manifest m = parsed(whole);
    assert_int_equal(m.env_count, 2);
    assert_string_equal(m.env[0].key, "ALPHA");
    assert_string_equal(m.env[0].value, "");
    assert_string_equal(m.env[1].key, "ZED");
    assert_string_equal(m.env[1].value, "last");
    assert_int_equal(m.require_count, 2);
    assert_string_equal(m.require[0].key, "ssd");
    assert_string_equal(m.require[1].value, "eu-1");
    manifest_close(&m);
}

static void defaults_fill_a_short_manifest(void **state)
{
    (void)state;
    struct manifest m = parsed("name: f\nruntime: c\nhandler: ./f\n");
    assert_int_equal(m.runtime, RUNTIME_C);
    assert_int_equal(m.cpu_millis, MANIFEST_CPU_MILLIS_DEFAULT);
    assert_true(m.memory_bytes == MANIFEST_MEMORY_BYTES_DEFAULT);
    assert_true(m.tmp_bytes == MANIFEST_TMP_BYTES_DEFAULT);
    assert_int_equal(m.processes_max, MANIFEST_PROCESSES_DEFAULT);
    assert_int_equal(m.scale_min, 0);
    assert_int_equal(m.scale_max, MANIFEST_SCALE_MAX_DEFAULT);
    assert_int_equal(m.concurrency, 1);
    assert_int_equal(m.idle_ms, MANIFEST_IDLE_MS_DEFAULT);
    assert_int_equal(m.queue_max, MANIFEST_QUEUE_DEFAULT);
    assert_int_equal(m.timeout_ms, MANIFEST_TIMEOUT_MS_DEFAULT);
    assert_int_equal(m.startup_timeout_ms, MANIFEST_STARTUP_TIMEOUT_MS_DEFAULT);
    manifest_close(&m);
}

static void durable_work_has_its_keys(void **state)
{
    (void)state;
    struct manifest m = parsed(whole);
    assert_int_equal(m.retries_max, 5);
    assert_int_equal(m.retry_backoff_ms, 200);
    assert_int_equal(m.retry_factor_milli, 1500);
    assert_int_equal(m.retry_cap_ms, 90000);
    assert_int_equal(m.running_max, 4);
    assert_int_equal(m.rate_milli, 1500);
    assert_int_equal(m.rate_burst, 7);
    assert_int_equal(m.durable_queue_max, 1000);
    assert_int_equal(m.queue_age_ms, 3600000);
    assert_int_equal(m.poison_max, 2);
    assert_int_equal(m.data_class, DATA_CLASS_PHI);
    assert_int_equal(m.schedules_count, 2);
    assert_string_equal(m.schedules[0].name.text, "nightly");
    assert_string_equal(m.schedules[0].cron, "30 2 * * *");
    assert_string_equal(m.schedules[0].payload, "{\"all\": true}");
    assert_int_equal(m.schedules[0].catch_up, 1);
    assert_string_equal(m.schedules[1].payload, "");
    assert_int_equal(m.schedules[1].catch_up, 0);
    manifest_close(&m);
}

static void durable_work_has_its_defaults(void **state)
{
    (void)state;
    struct manifest m = parsed("name: f\nruntime: c\nhandler: f\n");
    assert_int_equal(m.retries_max, 2);
    assert_int_equal(m.retry_backoff_ms, 1000);
    assert_int_equal(m.retry_factor_milli, 2000);
    assert_int_equal(m.retry_cap_ms, 60000);
    assert_int_equal(m.running_max, 0);
    assert_int_equal(m.rate_milli, 0);
    assert_int_equal(m.rate_burst, 0);
    assert_int_equal(m.durable_queue_max, 1000000);
    assert_int_equal(m.queue_age_ms, 0);
    assert_int_equal(m.poison_max, 3);
    assert_int_equal(m.data_class, DATA_CLASS_INTERNAL);
    assert_int_equal(m.schedules_count, 0);
    manifest_close(&m);
}

static void a_rate_without_a_burst_allows_a_second_at_once(void **state)
{
    (void)state;
    struct manifest m = parsed("name: f\nruntime: c\nhandler: f\nlimits: {rate: 12.5/s}\n");
    assert_int_equal(m.rate_burst, 13);
    manifest_close(&m);
    m = parsed("name: f\nruntime: c\nhandler: f\nlimits: {rate: 5/m}\n");
    assert_int_equal(m.rate_burst, 1);
    manifest_close(&m);
}

static void a_long_backoff_raises_the_default_cap(void **state)
{
    (void)state;
    struct manifest m = parsed("name: f\nruntime: c\nhandler: f\nretries: {backoff: 5m}\n");
    assert_int_equal(m.retry_cap_ms, 300000);
    manifest_close(&m);
}

static void schedules_from_a_peer_are_checked(void **state)
{
    (void)state;
    char key[MANIFEST_KEY_BYTES];
    struct errmsg msg = {""};
    struct manifest m = parsed(whole);
    m.schedules[1].cron[0] = '#';
    assert_int_equal(manifest_check(&m, key, &msg).code, STATUS_INVALID);
    assert_string_equal(key, "schedules[1].cron");
    m.schedules[1].cron[0] = '@';
    m.schedules[1].catch_up = MANIFEST_CATCH_UP_MAX + 1;
    assert_int_equal(manifest_check(&m, key, &msg).code, STATUS_LIMIT);
    assert_string_equal(key, "schedules[1].catch_up");
    manifest_close(&m);
}

static void a_command_needs_no_runtime(void **state)
{
    (void)state;
    struct manifest m = parsed("name: f\ncommand: [./thumb, \"\", --fast]\n");
    assert_int_equal(m.runtime, RUNTIME_COMMAND);
    assert_null(m.handler);
    assert_int_equal(m.command_count, 3);
    assert_string_equal(m.command[0], "./thumb");
    assert_string_equal(m.command[1], "");
    assert_string_equal(m.command[2], "--fast");
    manifest_close(&m);
}

static void bounds_themselves_are_allowed(void **state)
{
    (void)state;
    struct manifest m = parsed(
        "name: f\nruntime: c\nhandler: f\nresources: {cpu: 10m, memory: 4Mi, tmp: 64Ki, processes: "
        "1}\n"
        "scaling: {min: 0, max: 1, concurrency: 1000, idle: 100ms, queue: 1}\ntimeout: 100ms\n");
    manifest_close(&m);
    m = parsed("name: f\nruntime: c\nhandler: f\nresources: {cpu: 1024, memory: 16Ti, tmp: 1Ti, "
               "processes: 4096}\n"
               "scaling: {min: 1000, max: 10000, idle: 24h, queue: 100000}\ntimeout: "
               "24h\nstartup_timeout: 1h\n");
    manifest_close(&m);
}

static void isolation_is_cell_or_gvisor(void **state)
{
    (void)state;
    struct manifest m = parsed("name: f\nruntime: c\nhandler: f\n");
    assert_int_equal(m.isolation, ISOLATION_CELL);
    manifest_close(&m);
    m = parsed("name: f\nruntime: c\nhandler: f\nisolation: gvisor\n");
    assert_int_equal(m.isolation, ISOLATION_GVISOR);
    manifest_close(&m);
    struct errmsg msg = {""};
    struct status s = parse("name: f\nruntime: c\nhandler: f\nisolation: trusted\n", &m, &msg);
    assert_int_equal(s.code, STATUS_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "skep.yaml:4: isolation: \"trusted\" is not offered"));
    s = parse("name: f\nruntime: c\nhandler: f\nisolation: runc\n", &m, &msg);
    assert_int_equal(s.code, STATUS_INVALID);
}

/* A revision of before gVisor keeps its digest; one under gVisor is another. */
static void isolation_shows_in_the_canonical_text_only_where_it_is_gvisor(void **state)
{
    (void)state;
    struct manifest m = parsed("name: f\nruntime: c\nhandler: f\n");
    struct buffer text = {0};
    assert_true(status_is_ok(manifest_canonical(&m, &text)));
    assert_null(memmem(text.data, text.size, "isolation", 9));
    m.isolation = ISOLATION_GVISOR;
    assert_true(status_is_ok(manifest_canonical(&m, &text)));
    assert_non_null(memmem(text.data, text.size, "isolation 6:gvisor\n", 19));
    buffer_close(&text);
    manifest_close(&m);
}

static void an_unsupported_key_is_unsupported(void **state)
{
    (void)state;
    struct manifest m;
    struct errmsg msg = {""};
    struct status s =
        parse("name: f\nruntime: c\nhandler: f\nplacement:\n  prefer: {a: b}\n", &m, &msg);
    assert_int_equal(s.code, STATUS_UNSUPPORTED);
    assert_string_equal(msg.text, "skep.yaml:5: placement.prefer: not supported by this release");
}

#define GPU_MANIFEST(gpu) "name: f\nruntime: c\nhandler: f\nresources: {gpu: " gpu "}\n"

static void gpus_are_asked_for_by_model_memory_and_count(void **state)
{
    (void)state;
    struct manifest m = parsed(GPU_MANIFEST("{model: H100, memory: 40Gi, count: 2}"));
    assert_int_equal(m.gpu_count, 2);
    assert_string_equal(m.gpu_model, "H100");
    assert_true(m.gpu_memory_bytes == UINT64_C(40) << 30);
    manifest_close(&m);
    m = parsed(GPU_MANIFEST("{memory: 10Gi}"));
    assert_int_equal(m.gpu_count, 1);
    assert_null(m.gpu_model);
    manifest_close(&m);
    m = parsed(GPU_MANIFEST("{count: 64}"));
    assert_int_equal(m.gpu_count, 64);
    manifest_close(&m);
    m = parsed("name: f\nruntime: c\nhandler: f\n");
    assert_int_equal(m.gpu_count, 0);
    manifest_close(&m);
}

static void wrong_gpus_are_refused_by_their_key(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {GPU_MANIFEST("{count: 0}"), "resources.gpu.count"},
        {GPU_MANIFEST("{count: 65}"), "resources.gpu.count"},
        {GPU_MANIFEST("{memory: 1}"), "resources.gpu.memory"},
        {GPU_MANIFEST("{kind: H100}"), "resources.gpu.kind"},
        {GPU_MANIFEST("{model: \"caf\u00e9\"}"), "resources.gpu.model"},
        {GPU_MANIFEST("\"H100\""), "resources.gpu"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct manifest m;
        struct errmsg msg = {""};
        assert_false(status_is_ok(parse(rows[i][0], &m, &msg)));
        assert_non_null(strstr(msg.text, rows[i][1]));
    }
}

static void gpus_change_the_canonical_text_and_none_leave_it(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "name: f\nruntime: c\nhandler: f\n", GPU_MANIFEST("{count: 1}"), GPU_MANIFEST("{count: 2}"),
        GPU_MANIFEST("{model: H100}"), GPU_MANIFEST("{memory: 1Gi}")};
    struct buffer texts[5] = {{0}};
    for (size_t i = 0; i < 5; i++) {
        struct manifest m = parsed(rows[i]);
        assert_int_equal(manifest_canonical(&m, &texts[i]).code, STATUS_OK);
        assert_int_equal(buffer_append(&texts[i], "", 1).code, STATUS_OK);
        manifest_close(&m);
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal((char *)texts[i].data, (char *)texts[k].data);
        }
    }
    assert_null(strstr((char *)texts[0].data, "gpu"));
    for (size_t i = 0; i < 5; i++) {
        buffer_close(&texts[i]);
    }
}

static void a_missing_file_is_not_found(void **state)
{
    (void)state;
    struct manifest m;
    struct errmsg msg = {""};
    assert_int_equal(manifest_load("/nonexistent/skep.yaml", &m, &msg).code, STATUS_NOT_FOUND);
    assert_string_equal(msg.text, "/nonexistent/skep.yaml: No such file or directory");
}

static void a_fifo_is_refused_without_waiting(void **state)
{
    struct folder f;
    char path[PATH_BYTES];
    char expected[PATH_BYTES + 64];
    struct manifest m;
    struct errmsg msg = {""};
    (void)state;
    folder_open(&f);
    assert_int_equal(mkfifo(folder_path(&f, "skep.yaml", path), 0600), 0);
    assert_int_equal(manifest_load(path, &m, &msg).code, STATUS_INVALID);
    (void)snprintf(expected, sizeof expected, "%s: is not a regular file", path);
    assert_string_equal(msg.text, expected);
    folder_close(&f);
}

static void a_file_over_the_limit_is_refused(void **state)
{
    enum { BYTES = (256 << 10) + 1 };
    struct folder f;
    char path[PATH_BYTES];
    char expected[PATH_BYTES + 64];
    struct manifest m;
    struct errmsg msg = {""};
    (void)state;
    char *text = malloc(BYTES);
    assert_non_null(text);
    memset(text, '#', BYTES);
    memcpy(text, "name: f\nruntime: c\nhandler: f\n", 30);
    folder_open(&f);
    file_put(&f, "skep.yaml", text, BYTES, 0644);
    folder_path(&f, "skep.yaml", path);
    assert_int_equal(manifest_load(path, &m, &msg).code, STATUS_LIMIT);
    (void)snprintf(expected, sizeof expected, "%s: has more than 262144 bytes", path);
    assert_string_equal(msg.text, expected);
    file_put(&f, "skep.yaml", text, BYTES - 1, 0644);
    assert_true(status_is_ok(manifest_load(path, &m, &msg)));
    manifest_close(&m);
    free(text);
    folder_close(&f);
}

static void out_of_memory_anywhere_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    unsigned delivered = 1;
    for (unsigned delay = 0; delivered > 0; delay++) {
        struct manifest m;
        struct errmsg msg = {""};
        mem_fault(delay, 1);
        struct status s = parse(whole, &m, &msg);
        delivered = mem_fault_clear();
        if (delivered > 0) {
            assert_int_equal(s.code, STATUS_NOMEM);
            assert_string_equal(msg.text, "skep.yaml: out of memory");
        } else {
            assert_true(status_is_ok(s));
            manifest_close(&m);
        }
        assert_true(delay < 1000);
    }
}

static void canonical_of(const char *text, struct buffer *out)
{
    struct manifest m = parsed(text);
    assert_true(status_is_ok(manifest_canonical(&m, out)));
    manifest_close(&m);
}

static void the_canonical_text_ignores_order_and_spelling(void **state)
{
    (void)state;
    struct buffer a = {0};
    struct buffer b = {0};
    canonical_of("name: f\nruntime: c\nhandler: f\nresources: {cpu: 1500m, memory: 1Gi}\nenv: {A: "
                 "x, B: y}\n",
                 &a);
    canonical_of("env:\n  B: \"y\"\n  A: 'x'\nresources:\n  memory: 1024Mi\n  cpu: 1.5\n"
                 "handler: f\nruntime: c\nname: f\ntimeout: 300s # the default\n",
                 &b);
    assert_true(bytes_equal(bytes_of(a.data, a.size), bytes_of(b.data, b.size)));
    buffer_close(&a);
    buffer_close(&b);
}

static void different_manifests_have_different_canonical_texts(void **state)
{
    static const char *const texts[] = {
        "name: f\nruntime: c\nhandler: f\n",
        "name: g\nruntime: c\nhandler: f\n",
        "name: f\nruntime: c\nhandler: g\n",
        "name: f\ncommand: [f]\n",
        "name: f\ncommand: [f, g]\n",
        "name: f\ncommand: [\"f\\n\", g]\n",
        "name: f\nruntime: c\nhandler: f\nenv: {A: x}\n",
        "name: f\nruntime: c\nhandler: f\nenv: {A: \"x\\nkey 1:B\\nvalue 1:y\"}\n",
        "name: f\nruntime: c\nhandler: f\nenv: {A: x, B: y}\n",
        "name: f\nruntime: c\nhandler: f\nplacement: {require: {a: x}}\n",
        "name: f\nruntime: c\nhandler: f\ntimeout: 1s\n",
        "name: f\nruntime: c\nhandler: f\nretries: {max: 1}\n",
        "name: f\nruntime: c\nhandler: f\ndata_class: public\n",
        "name: f\nruntime: c\nhandler: f\nschedules: [{name: a, cron: '@daily'}]\n",
        "name: f\nruntime: c\nhandler: f\nschedules: [{name: a, cron: '@daily', payload: x}]\n",
    };
    enum { COUNT = sizeof texts / sizeof texts[0] };
    struct buffer out[COUNT] = {{0}};
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        canonical_of(texts[i], &out[i]);
        for (size_t k = 0; k < i; k++) {
            assert_false(bytes_equal(bytes_of(out[i].data, out[i].size),
                                     bytes_of(out[k].data, out[k].size)));
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        buffer_close(&out[i]);
    }
}

static void the_canonical_text_is_golden(void **state)
{
    static const char golden[] =
        "skep-manifest 2\nname 1:f\nruntime 7:command\nhandler 0:\ncommand 1\nargument 3:./f\n"
        "cpu_millis 500\nmemory_bytes 268435456\ntmp_bytes 67108864\nprocesses_max 64\n"
        "scale_min 0\nscale_max 100\nconcurrency 1\nidle_ms 60000\nqueue_max 1000\n"
        "timeout_ms 300000\nstartup_timeout_ms 60000\n"
        "retries_max 2\nretry_backoff_ms 1000\nretry_factor_milli 2000\nretry_cap_ms 60000\n"
        "running_max 0\nrate_milli 0\nrate_burst 0\ndurable_queue_max 1000000\n"
        "queue_age_ms 0\npoison_max 3\ndata_class 8:internal\nschedules 0\n"
        "env 1\nkey 1:A\nvalue 1:b\nrequire 0\n";
    struct buffer out = {0};
    (void)state;
    canonical_of("name: f\ncommand: [./f]\nenv: {A: b}\n", &out);
    assert_true(bytes_equal(bytes_of(out.data, out.size), bytes_of(golden, sizeof golden - 1)));
    buffer_close(&out);
}

static void a_manifest_from_a_peer_is_checked_without_yaml(void **state)
{
    char key[MANIFEST_KEY_BYTES];
    struct errmsg msg = {""};
    (void)state;
    struct manifest m = parsed("name: f\nruntime: c\nhandler: f\n");
    assert_true(status_is_ok(manifest_check(&m, key, &msg)));
    m.cpu_millis = 0;
    assert_int_equal(manifest_check(&m, key, &msg).code, STATUS_LIMIT);
    assert_string_equal(key, "resources.cpu");
    assert_string_equal(msg.text, "0m is out of range; 10m to 1024 are allowed");
    manifest_close(&m);
}

static void a_pair_is_put_once(void **state)
{
    struct text_pair *pairs = NULL;
    size_t count = 0;
    (void)state;
    assert_true(status_is_ok(text_pairs_put(&pairs, &count, "b", "1")));
    assert_true(status_is_ok(text_pairs_put(&pairs, &count, "a", "2")));
    assert_int_equal(text_pairs_put(&pairs, &count, "b", "3").code, STATUS_EXISTS);
    assert_int_equal(count, 2);
    assert_string_equal(pairs[0].key, "a");
    assert_string_equal(pairs[1].value, "1");
    text_pairs_close(pairs, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(pairs_are_sorted_by_key),
        cmocka_unit_test(defaults_fill_a_short_manifest),
        cmocka_unit_test(durable_work_has_its_keys),
        cmocka_unit_test(durable_work_has_its_defaults),
        cmocka_unit_test(a_rate_without_a_burst_allows_a_second_at_once),
        cmocka_unit_test(a_long_backoff_raises_the_default_cap),
        cmocka_unit_test(schedules_from_a_peer_are_checked),
        cmocka_unit_test(a_command_needs_no_runtime),
        cmocka_unit_test(bounds_themselves_are_allowed),
        cmocka_unit_test(isolation_is_cell_or_gvisor),
        cmocka_unit_test(isolation_shows_in_the_canonical_text_only_where_it_is_gvisor),
        cmocka_unit_test(an_unsupported_key_is_unsupported),
        cmocka_unit_test(gpus_are_asked_for_by_model_memory_and_count),
        cmocka_unit_test(wrong_gpus_are_refused_by_their_key),
        cmocka_unit_test(gpus_change_the_canonical_text_and_none_leave_it),
        cmocka_unit_test(a_missing_file_is_not_found),
        cmocka_unit_test(a_fifo_is_refused_without_waiting),
        cmocka_unit_test(a_file_over_the_limit_is_refused),
        cmocka_unit_test(out_of_memory_anywhere_is_reported_and_leaks_nothing),
        cmocka_unit_test(the_canonical_text_ignores_order_and_spelling),
        cmocka_unit_test(different_manifests_have_different_canonical_texts),
        cmocka_unit_test(the_canonical_text_is_golden),
        cmocka_unit_test(a_manifest_from_a_peer_is_checked_without_yaml),
        cmocka_unit_test(a_pair_is_put_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

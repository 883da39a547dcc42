#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/core/spec.h"

#include <stdio.h>
#include <string.h>

enum { DAY_MS = 24 * 3600 * 1000 };

static uint8_t chunk_digests[(SPEC_CHUNKS_MAX + 1) * DIGEST_BYTES];
static char long_text[SPEC_TEXT_BYTES_MAX + 2];
static struct pair many_pairs[SPEC_ENV_MAX + 1];
static struct text many_texts[SPEC_COMMAND_MAX + 1];

static struct function_spec good(void)
{
    return (struct function_spec){.name = "thumb",
                                  .runtime = "python",
                                  .handler = "thumb.py:resize",
                                  .cpu_millis = 500,
                                  .memory_bytes = 256 << 20,
                                  .processes_max = 64,
                                  .scale_max = 100,
                                  .concurrency = 1,
                                  .idle_ms = 60000,
                                  .queue_max = 1000,
                                  .timeout_ms = 300000,
                                  .startup_timeout_ms = 60000,
                                  .chunks = {chunk_digests, DIGEST_BYTES},
                                  .package_bytes = 1000};
}

static int fill(void **state)
{
    (void)state;
    memset(long_text, 'x', sizeof long_text - 1);
    for (size_t i = 0; i < sizeof many_pairs / sizeof many_pairs[0]; i++) {
        many_pairs[i] = (struct pair){.key = "KEY", .value = "value"};
    }
    for (size_t i = 0; i < sizeof many_texts / sizeof many_texts[0]; i++) {
        many_texts[i].text = "arg";
    }
    return 0;
}

static void expect(const struct function_spec *s, enum status_code code, const char *text)
{
    struct errmsg msg = {.text = ""};
    enum status_code got = function_spec_check(s, &msg).code;
    if (got != code || strstr(msg.text, text) == NULL) {
        fail_msg("%s \"%s\", expected %s \"%s\"", status_name(got), msg.text, status_name(code),
                 text);
    }
    assert_int_equal(function_spec_check(s, NULL).code, code);
}

static void a_good_one_passes(void **state)
{
    (void)state;
    struct function_spec s = good();
    expect(&s, STATUS_OK, "");
    s.runtime = "c";
    expect(&s, STATUS_OK, "");
}

static void isolation_is_cell_or_gvisor_without_network_and_gpus(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.isolation = "cell";
    expect(&s, STATUS_OK, "");
    s.isolation = "gvisor";
    expect(&s, STATUS_OK, "");
    struct text rule = {.text = "10.0.0.0/8:443/tcp"};
    s.egress = &rule;
    s.egress_count = 1;
    expect(&s, STATUS_UNSUPPORTED, "network.egress");
    s.egress_count = 0;
    s.gpu_count = 1;
    expect(&s, STATUS_INVALID, "resources.gpu");
    s.gpu_count = 0;
    s.isolation = "trusted";
    expect(&s, STATUS_INVALID, "isolation: \"trusted\"");
}

static void a_bad_name_is_named(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.name = "";
    expect(&s, STATUS_INVALID, "function name");
    s.name = "Upper";
    expect(&s, STATUS_INVALID, "function name");
    s.name = "../escape";
    expect(&s, STATUS_INVALID, "function name");
    s.name = long_text;
    expect(&s, STATUS_LIMIT, "function name");
}

static void an_unknown_runtime_is_named(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.runtime = "cobol";
    expect(&s, STATUS_INVALID, "runtime: \"cobol\" is not python, c or command");
}

static void a_runtime_needs_a_handler_and_takes_no_command(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.handler = "";
    expect(&s, STATUS_INVALID, "handler: is empty");
    s.handler = long_text;
    expect(&s, STATUS_LIMIT, "handler: 4097 bytes, at most 4096 are allowed");
    s = good();
    s.command = many_texts;
    s.command_count = 1;
    expect(&s, STATUS_INVALID, "command: 1 is not between 0 and 0");
}

static void a_command_has_between_one_and_the_limit_of_words(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.runtime = "command";
    s.handler = "";
    expect(&s, STATUS_INVALID, "command: 0 is not between 1 and ");
    s.command = many_texts;
    s.command_count = SPEC_COMMAND_MAX;
    expect(&s, STATUS_OK, "");
    s.command_count++;
    expect(&s, STATUS_INVALID, "command: 63 is not between 1 and ");
    struct text words[] = {{.text = "thumb"}, {.text = ""}};
    s.command = words;
    s.command_count = 2;
    expect(&s, STATUS_OK, ""); /* An empty argument is one; an empty program is not. */
    words[0].text = "";
    expect(&s, STATUS_INVALID, "command: is empty");
    words[0].text = long_text;
    expect(&s, STATUS_LIMIT, "command: 4097 bytes");
}

static void chunks_and_package_must_fit_each_other(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.chunks.size = DIGEST_BYTES + 1;
    expect(&s, STATUS_INVALID, "chunks: 33 bytes are no list of digests");
    s.chunks.size = 0;
    expect(&s, STATUS_INVALID, "chunks: 0 is not between 1 and 1024");
    s.chunks.size = SPEC_CHUNKS_MAX * DIGEST_BYTES;
    expect(&s, STATUS_OK, "");
    s.chunks.size += DIGEST_BYTES;
    expect(&s, STATUS_INVALID, "chunks: 1025 is not between 1 and 1024");
    s = good();
    s.package_bytes = 0;
    expect(&s, STATUS_INVALID, "package_bytes: 0 is not between 1 and 262144");
    s.package_bytes = CHUNK_BYTES_MAX;
    expect(&s, STATUS_OK, "");
    s.package_bytes++;
    expect(&s, STATUS_INVALID, "package_bytes: 262145 is not between 1 and 262144");
}

/* Each number at its limits and one beyond. */
#define RANGE(field, name, min, max)                                                               \
    do {                                                                                           \
        struct function_spec s = good();                                                           \
        s.field = (max);                                                                           \
        expect(&s, STATUS_OK, "");                                                                 \
        s.field++;                                                                                 \
        expect(&s, STATUS_INVALID, name ": ");                                                     \
        if ((min) > 0) {                                                                           \
            s.field = (min);                                                                       \
            expect(&s, STATUS_OK, "");                                                             \
            s.field--;                                                                             \
            expect(&s, STATUS_INVALID, name ": ");                                                 \
        }                                                                                          \
    } while (0)

static void numbers_are_held_to_their_ranges(void **state)
{
    (void)state;
    RANGE(cpu_millis, "resources.cpu", 1, SPEC_CPU_MILLIS_MAX);
    RANGE(memory_bytes, "resources.memory", SPEC_MEMORY_BYTES_MIN, SPEC_MEMORY_BYTES_MAX);
    RANGE(tmp_bytes, "resources.tmp", 0, SPEC_MEMORY_BYTES_MAX);
    RANGE(processes_max, "resources.processes", 1, SPEC_PROCESSES_MAX);
    RANGE(scale_max, "scaling.max", 1, SPEC_SCALE_MAX);
    RANGE(scale_min, "scaling.min", 0, 100); /* of scale_max */
    RANGE(concurrency, "scaling.concurrency", 1, SPEC_CONCURRENCY_MAX);
    RANGE(queue_max, "scaling.queue", 1, SPEC_QUEUE_MAX);
    RANGE(idle_ms, "scaling.idle", 100, UINT64_C(30) * DAY_MS);
    RANGE(timeout_ms, "timeout", 1, DAY_MS);
    RANGE(startup_timeout_ms, "startup_timeout", 1, DAY_MS);
}

static void environment_is_held_to_its_limits(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.env = many_pairs;
    s.env_count = SPEC_ENV_MAX;
    expect(&s, STATUS_OK, "");
    s.env_count++;
    expect(&s, STATUS_LIMIT, "env: 101 entries, at most 100 are allowed");
    struct pair pair = {.key = "", .value = "x"};
    s.env = &pair;
    s.env_count = 1;
    expect(&s, STATUS_INVALID, "env: is empty");
    pair.key = "A=B";
    expect(&s, STATUS_INVALID, "env: key \"A=B\" holds '='");
    pair = (struct pair){.key = "A", .value = ""};
    expect(&s, STATUS_OK, "");
    pair.value = long_text;
    expect(&s, STATUS_LIMIT, "env: 4097 bytes");
}

static void required_labels_are_held_to_their_limits(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.require = many_pairs;
    s.require_count = SPEC_LABELS_MAX;
    expect(&s, STATUS_OK, "");
    s.require_count++;
    expect(&s, STATUS_LIMIT, "placement.require: 17 entries, at most 16 are allowed");
}

static void durable_work_has_bounds(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.retries_max = SPEC_RETRIES_MAX;
    s.retry_backoff_ms = DAY_MS;
    s.retry_factor_milli = SPEC_FACTOR_MILLI_MAX;
    s.retry_cap_ms = DAY_MS;
    s.running_max = SPEC_RUNNING_MAX;
    s.rate_milli = SPEC_RATE_MILLI_MAX;
    s.rate_burst = SPEC_BURST_MAX;
    s.durable_queue_max = SPEC_DURABLE_QUEUE_MAX;
    s.queue_age_ms = 7ULL * DAY_MS;
    s.poison_max = SPEC_POISON_MAX;
    s.data_class = "phi";
    expect(&s, STATUS_OK, "");
    s.retries_max++;
    expect(&s, STATUS_INVALID, "retries.max");
    s = good();
    s.retry_backoff_ms = DAY_MS + 1;
    expect(&s, STATUS_INVALID, "retries.backoff");
    s = good();
    s.retry_factor_milli = SPEC_FACTOR_MILLI_MIN - 1;
    expect(&s, STATUS_INVALID, "retries.factor");
    s.retry_factor_milli = SPEC_FACTOR_MILLI_MAX + 1;
    expect(&s, STATUS_INVALID, "retries.factor");
    s = good();
    s.retry_cap_ms = UINT64_MAX;
    expect(&s, STATUS_INVALID, "retries.cap");
    s = good();
    s.running_max = UINT32_MAX;
    expect(&s, STATUS_INVALID, "limits.running");
    s = good();
    s.rate_milli = UINT32_MAX;
    expect(&s, STATUS_INVALID, "limits.rate");
    s = good();
    s.rate_burst = UINT32_MAX;
    expect(&s, STATUS_INVALID, "limits.burst");
    s = good();
    s.durable_queue_max = UINT32_MAX;
    expect(&s, STATUS_INVALID, "limits.queue");
    s = good();
    s.queue_age_ms = UINT64_MAX;
    expect(&s, STATUS_INVALID, "limits.queue_age");
    s = good();
    s.poison_max = SPEC_POISON_MAX + 1;
    expect(&s, STATUS_INVALID, "limits.poison");
    s = good();
    s.data_class = "secret";
    expect(&s, STATUS_INVALID, "data_class");
}

static void schedules_have_bounds(void **state)
{
    (void)state;
    static uint8_t payload[SPAWN_INLINE_BYTES_MAX + 1];
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i",
                                        "j", "k", "l", "m", "n", "o", "p", "q"};
    struct schedule_spec rows[SCHEDULES_MAX + 1];
    struct function_spec s = good();
    for (size_t i = 0; i <= SCHEDULES_MAX; i++) {
        rows[i] = (struct schedule_spec){.name = names[i],
                                         .cron = "*/5 * * * *",
                                         .payload = bytes_of(payload, SPAWN_INLINE_BYTES_MAX),
                                         .catch_up = SPEC_CATCH_UP_MAX};
    }
    s.schedules = rows;
    s.schedules_count = SCHEDULES_MAX;
    expect(&s, STATUS_OK, "");
    s.schedules_count++;
    expect(&s, STATUS_LIMIT, "schedules");
    s.schedules_count = 2;
    rows[1].name = "a";
    expect(&s, STATUS_INVALID, "two schedules are named a");
    rows[1].name = "";
    expect(&s, STATUS_INVALID, "schedule name");
    rows[1].name = "b";
    rows[1].cron = "0 0 31 2 *";
    expect(&s, STATUS_INVALID, "schedule b: cron: \"0 0 31 2 *\" never comes");
    rows[1].cron = "@daily";
    rows[1].payload.size++;
    expect(&s, STATUS_LIMIT, "schedule b: payload");
    rows[1].payload.size--;
    rows[1].catch_up++;
    expect(&s, STATUS_INVALID, "catch_up");
}

static void gpus_have_bounds(void **state)
{
    (void)state;
    struct function_spec s = good();
    s.gpu_count = MANIFEST_GPU_COUNT_MAX;
    s.gpu_model = "H100";
    s.gpu_memory_bytes = MANIFEST_GPU_MEMORY_BYTES_MAX;
    expect(&s, STATUS_OK, "");
    s.gpu_memory_bytes++;
    expect(&s, STATUS_INVALID, "resources.gpu.memory");
    s.gpu_memory_bytes = 0;
    s.gpu_count++;
    expect(&s, STATUS_INVALID, "resources.gpu.count");
    s.gpu_count = 0;
    expect(&s, STATUS_INVALID, "resources.gpu.count");
    s.gpu_count = 1;
    s.gpu_model = "H\n100";
    expect(&s, STATUS_INVALID, "resources.gpu.model");
    char model[MANIFEST_GPU_MODEL_BYTES_MAX + 2];
    memset(model, 'x', sizeof model - 1);
    model[sizeof model - 1] = '\0';
    s.gpu_model = model;
    expect(&s, STATUS_LIMIT, "resources.gpu.model");
    s.gpu_model = "";
    s.isolation = "gvisor";
    expect(&s, STATUS_INVALID, "isolation gvisor");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_one_passes),
        cmocka_unit_test(isolation_is_cell_or_gvisor_without_network_and_gpus),
        cmocka_unit_test(a_bad_name_is_named),
        cmocka_unit_test(durable_work_has_bounds),
        cmocka_unit_test(schedules_have_bounds),
        cmocka_unit_test(gpus_have_bounds),
        cmocka_unit_test(an_unknown_runtime_is_named),
        cmocka_unit_test(a_runtime_needs_a_handler_and_takes_no_command),
        cmocka_unit_test(a_command_has_between_one_and_the_limit_of_words),
        cmocka_unit_test(chunks_and_package_must_fit_each_other),
        cmocka_unit_test(numbers_are_held_to_their_ranges),
        cmocka_unit_test(environment_is_held_to_its_limits),
        cmocka_unit_test(required_labels_are_held_to_their_limits),
    };
    return cmocka_run_group_tests_name("spec", tests, fill, NULL);
}

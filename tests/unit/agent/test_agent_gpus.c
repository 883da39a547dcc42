#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "tests/unit/agent/recording.h"

#include <string.h>

static struct gpu_report gpus[3];
static struct gpu_inventory inventory;

static int setup(void **state)
{
    static const char *const uuids[] = {"GPU-0", "GPU-1", "GPU-2"};
    int rc = recording_setup_led(state);
    struct recording *r = *state;
    for (size_t i = 0; i < 3; i++) {
        gpus[i] = (struct gpu_report){.uuid = uuids[i], .why = "", .dirty = ""};
    }
    inventory = (struct gpu_inventory){.state = GPU_STATE_OK, .gpus = gpus, .gpus_count = 3};
    agent_core_gpus(r->core, &inventory);
    return rc;
}

static struct function_spec spec_of(uint32_t gpu_count)
{
    return (struct function_spec){.name = "f",
                                  .cpu_millis = 100,
                                  .memory_bytes = 100,
                                  .concurrency = 1,
                                  .timeout_ms = 1000,
                                  .gpu_count = gpu_count};
}

/* Up to two devices; NULL: none. */
static void start(struct recording *r, unsigned n, uint32_t wanted, const char *a, const char *b)
{
    struct function_spec spec = spec_of(wanted);
    struct text named[] = {{.text = a}, {.text = b}};
    const struct message m = {
        .type = MESSAGE_START,
        .term = 5,
        .start = {.instance = instance_n(n),
                  .spec = &spec,
                  .gpus = named,
                  .gpus_count = (a != NULL ? 1U : 0U) + (b != NULL ? 1U : 0U)}};
    agent_core_receive(r->core, r->now_us, 1, &m);
}

static void an_instance_holds_its_devices_until_it_has_ended(void **state)
{
    struct recording *r = *state;
    const char *held[GPUS_MAX];
    start(r, 1, 2, "GPU-0", "GPU-2");
    recording_expect(r, "start i1\n");
    assert_int_equal(agent_core_gpus_held(r->core, held), 2);
    assert_string_equal(held[1], "GPU-2");
    start(r, 2, 1, "GPU-2", NULL);
    recording_expect(r, "send 1 event i2 ENDED LIMIT GPU GPU-2 is another instance's\n");
    agent_core_instance_ended(r->core, r->now_us, instance_n(1), STATUS_CRASHED, "gone");
    recording_clear(r);
    assert_int_equal(agent_core_gpus_held(r->core, held), 0);
    start(r, 3, 1, "GPU-2", NULL);
    recording_expect(r, "start i3\n");
}

static void what_cannot_be_had_is_refused_with_its_reason(void **state)
{
    struct recording *r = *state;
    gpus[0].dirty = "9 MiB in use";
    gpus[1].health = GPU_HEALTH_FAILED;
    gpus[1].why = "Xid 79";
    gpus[2].mig = true;
    start(r, 1, 1, "GPU-0", NULL);
    recording_expect(r, "send 1 event i1 ENDED LIMIT GPU GPU-0 is dirty: 9 MiB in use\n");
    start(r, 1, 1, "GPU-1", NULL);
    recording_expect(r, "send 1 event i1 ENDED LIMIT GPU GPU-1 is failed: Xid 79\n");
    start(r, 1, 1, "GPU-2", NULL);
    recording_expect(r, "send 1 event i1 ENDED LIMIT GPU GPU-2: not a device of this node now\n");
    start(r, 1, 1, "GPU-9", NULL);
    recording_expect(r, "send 1 event i1 ENDED LIMIT GPU GPU-9: not a device of this node now\n");
    inventory.state = GPU_STATE_SILENT;
    gpus[0].dirty = "";
    start(r, 1, 1, "GPU-0", NULL);
    recording_expect(r, "send 1 event i1 ENDED LIMIT GPU GPU-0: not a device of this node now\n");
    assert_int_equal(agent_core_stats(r->core).starts_refused, 5);
}

static void the_number_of_devices_must_be_the_wanted_one(void **state)
{
    struct recording *r = *state;
    start(r, 1, 1, NULL, NULL); /* as a leader of before would start it */
    recording_expect(r, "send 1 event i1 ENDED CONFLICT 0 GPUs are named, 1 are wanted\n");
    start(r, 1, 2, "GPU-0", "GPU-0");
    recording_expect(r, "send 1 event i1 ENDED CONFLICT GPU GPU-0 is named twice\n");
    start(r, 1, 0, "GPU-0", NULL);
    recording_expect(r, "send 1 event i1 ENDED CONFLICT 1 GPUs are named, 0 are wanted\n");
}

static void changes_are_counted_for_whoever_checks_the_devices(void **state)
{
    struct recording *r = *state;
    uint64_t before = agent_core_gpu_changes(r->core);
    receive_start(r, 1, 5, 1, 100, 100);
    assert_int_equal(agent_core_gpu_changes(r->core), before);
    start(r, 2, 1, "GPU-0", NULL);
    assert_int_equal(agent_core_gpu_changes(r->core), before + 1);
    start(r, 3, 1, "GPU-0", NULL); /* refused: the leader knows too little */
    assert_int_equal(agent_core_gpu_changes(r->core), before + 2);
    agent_core_instance_ended(r->core, r->now_us, instance_n(2), STATUS_CRASHED, "gone");
    assert_int_equal(agent_core_gpu_changes(r->core), before + 3);
    recording_clear(r);
}

static void report_check(void *arg, const struct instance_report *report)
{
    assert_int_equal(report->gpus_count, 1);
    assert_string_equal(report->gpus[0].text, "GPU-1");
    *(unsigned *)arg += 1;
}

static void an_adopted_instance_goes_on_holding_its_devices(void **state)
{
    struct recording *r = *state;
    struct text held = {.text = "GPU-1"};
    const struct instance_report report = {.instance = instance_n(1),
                                           .function = "f",
                                           .state = INSTANCE_READY,
                                           .concurrency = 1,
                                           .cpu_millis = 100,
                                           .memory_bytes = 100,
                                           .gpus = &held,
                                           .gpus_count = 1};
    unsigned count = 0;
    assert_int_equal(agent_core_adopt(r->core, r->now_us, &report, 1000).code, STATUS_OK);
    agent_core_instances(r->core, report_check, &count);
    assert_int_equal(count, 1);
    start(r, 2, 1, "GPU-1", NULL);
    recording_expect(r, "send 1 event i2 ENDED LIMIT GPU GPU-1 is another instance's\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, recording_teardown)
        TEST(an_instance_holds_its_devices_until_it_has_ended),
        TEST(what_cannot_be_had_is_refused_with_its_reason),
        TEST(the_number_of_devices_must_be_the_wanted_one),
        TEST(changes_are_counted_for_whoever_checks_the_devices),
        TEST(an_adopted_instance_goes_on_holding_its_devices),
    };
    return cmocka_run_group_tests_name("agent_gpus", tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scheduler/world.h"

#include <string.h>

static struct gpu_report gpus[2];
static struct gpu_inventory inventory;

/* Node n with GPU-1 and GPU-2, and function "g" that wants one. */
static struct node_register with_gpus(void)
{
    static const char *const uuids[] = {"GPU-1", "GPU-2"};
    for (size_t i = 0; i < 2; i++) {
        gpus[i] = (struct gpu_report){.uuid = uuids[i],
                                      .model = "NVIDIA H100",
                                      .index = (uint32_t)i,
                                      .memory_bytes = 80,
                                      .known = GPU_KNOWS_MEMORY};
    }
    inventory = (struct gpu_inventory){.state = GPU_STATE_OK, .gpus = gpus, .gpus_count = 2};
    return (struct node_register){.gpu = &inventory, .gpu_count = 1};
}

static void have_gpus(struct world *w, unsigned n)
{
    const struct node_register r = with_gpus();
    agent_open(w, n);
    agent_register(w, n, &r);
    w->spec.gpu_count = 1;
    w->spec.gpu_model = "H100";
    w->spec.queue_max = 10;
    world_deploy(w, "g", 2);
    forget_lines(w);
}

static void beat(struct world *w, unsigned n)
{
    const struct message m = {.type = MESSAGE_HEARTBEAT,
                              .heartbeat = {.gpu = &inventory, .gpu_count = 1}};
    core_receive(w->core, w->now, 100 + n, &m);
    forget_lines(w);
}

static void each_instance_gets_a_device_of_its_own(void **state)
{
    struct world *w = *state;
    have_gpus(w, 2);
    user_call(w, 1, 1, "g", "", 0);
    user_call(w, 1, 2, "g", "", 0);
    user_call(w, 2, 3, "g", "", 0);
    expect(w, "a2 start i1 g GPU-1\na2 start i2 g GPU-2\n");
    user_query(w, 4, "why", "g");
    expect_records(w, "no node fits an instance: 2 nodes: 2 without a free GPU that fits");
    user_query(w, 5, "gpus", "n2");
    expect_records(w, "uuid=GPU-1");
    expect_records(w, "used_by=i");
}

static void a_device_is_given_again_once_its_agent_says_it_is_clean(void **state)
{
    struct world *w = *state;
    have_gpus(w, 2);
    user_call(w, 1, 1, "g", "", 0);
    user_call(w, 1, 2, "g", "", 0);
    forget_lines(w);
    agent_ended(w, 2, 1, STATUS_CRASHED, "gone");
    world_run(w, 700);
    user_call(w, 2, 3, "g", "", 0);
    expect(w, "");
    user_query(w, 4, "gpus", "n2");
    expect_records(w, "dirty=not checked since its last instance");
    user_query(w, 5, "why", "g");
    expect_records(w, "1 with GPUs that are dirty");
    forget_lines(w);
    gpus[0].dirty = "a process of nobody's";
    beat(w, 2);
    world_run(w, 100);
    expect(w, "");
    gpus[0].dirty = "";
    beat(w, 2);
    world_run(w, 50);
    expect(w, "a2 start i3 g GPU-1\n");
}

static void a_refused_start_leaves_its_device_as_it_was(void **state)
{
    struct world *w = *state;
    have_gpus(w, 2);
    user_call(w, 1, 1, "g", "", 0);
    expect(w, "a2 start i1 g GPU-1\n");
    agent_ended(w, 2, 1, STATUS_LIMIT, "another leader was faster");
    world_run(w, 300);
    expect(w, "a2 start i2 g GPU-1\n");
}

static void a_new_leader_learns_who_holds_what(void **state)
{
    struct world *w = *state;
    have_gpus(w, 2);
    user_call(w, 1, 1, "g", "", 0);
    forget_lines(w);
    struct text held = {.text = "GPU-1"};
    struct instance_report report = report_n(w, 1, INSTANCE_READY);
    report.function = "g";
    report.revision = world_revision(2);
    report.gpus = &held;
    report.gpus_count = 1;
    world_follow(w, "");
    world_lead(w, WORLD_TERM);
    struct node_register r = with_gpus();
    r.instances = &report;
    r.instances_count = 1;
    agent_register(w, 2, &r);
    agent_register_empty(w, 1);
    forget_lines(w);
    user_call(w, 1, 2, "g", "", 0);
    user_call(w, 1, 3, "g", "", 0);
    user_call(w, 1, 4, "g", "", 0);
    world_run(w, 100);
    user_query(w, 9, "gpus", "n2");
    user_query(w, 10, "why", "g");
    expect_records(w, "2 without a free GPU that fits");
    assert_non_null(strstr(w->text, "start i2 g GPU-2"));
    assert_null(strstr(w->text, "GPU-1"));
    forget_lines(w);
}

static void an_instance_gets_as_many_as_it_wants(void **state)
{
    struct world *w = *state;
    have_gpus(w, 2);
    w->spec.gpu_count = 2;
    world_deploy(w, "two", 3);
    user_call(w, 1, 1, "two", "", 0);
    expect(w, "a2 start i1 two GPU-1 GPU-2\n");
    user_call(w, 1, 2, "g", "", 0);
    expect(w, "");
}

static void a_warm_instance_with_a_gpu_gives_way_and_one_without_does_not(void **state)
{
    struct world *w = *state;
    w->spec.require_count = 0;
    have_gpus(w, 2);
    w->spec.gpu_count = 2;
    world_deploy(w, "two", 3);
    have_warm(w); /* f on n1 */
    user_call(w, 1, 1, "g", "", 0);
    agent_ready(w, 2, 2);
    agent_result(w, 2, 2, 1, 2, STATUS_OK, "");
    forget_lines(w);
    user_call(w, 1, 2, "two", "", 0);
    expect(w, "a2 stop i2 to make room for two\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup_led, world_teardown)
        TEST(each_instance_gets_a_device_of_its_own),
        TEST(a_device_is_given_again_once_its_agent_says_it_is_clean),
        TEST(a_refused_start_leaves_its_device_as_it_was),
        TEST(a_new_leader_learns_who_holds_what),
        TEST(an_instance_gets_as_many_as_it_wants),
        TEST(a_warm_instance_with_a_gpu_gives_way_and_one_without_does_not),
    };
    return cmocka_run_group_tests_name("gpus", tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/gpus.h"
#include "common/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct world {
    struct config_gpu simulate;
    struct agent_config config;
    struct gpus *gpus;
    FILE *log;
};

static int open_world(void **state)
{
    static struct world w;
    static char model[] = "H100";
    w = (struct world){.simulate = {.model = model, .memory_bytes = 1 << 30, .count = 3},
                       .log = tmpfile()};
    w.config =
        (struct agent_config){.name = {"n1"}, .gpu_simulate = &w.simulate, .gpu_simulate_count = 1};
    *state = &w;
    if (w.log == NULL) {
        return -1;
    }
    log_open("test", LOG_LEVEL_INFO, LOG_FORMAT_KV, fileno(w.log));
    struct errmsg msg;
    return status_is_ok(gpus_open(&w.gpus, &w.config, &msg)) ? 0 : -1;
}

static int close_world(void **state)
{
    struct world *w = *state;
    gpus_close(w->gpus);
    log_open("test", LOG_LEVEL_INFO, LOG_FORMAT_KV, STDERR_FILENO);
    return fclose(w->log);
}

static size_t logged(struct world *w, const char *text)
{
    char line[LOG_LINE_BYTES_MAX + 1];
    size_t count = 0;
    rewind(w->log);
    while (fgets(line, sizeof line, w->log) != NULL) {
        count += strstr(line, text) != NULL;
    }
    return count;
}

static void a_beat_tells_what_is_new_and_again_after_a_while(void **state)
{
    struct world *w = *state;
    bool changed;
    const struct gpu_inventory *i = gpus_beat(w->gpus, 1, &changed);
    assert_true(changed);
    assert_ptr_equal(i, gpus_inventory(w->gpus));
    assert_int_equal(i->gpus_count, 3);
    for (int beat = 1; beat < GPUS_AGAIN_BEATS; beat++) {
        assert_null(gpus_beat(w->gpus, 1, &changed));
        assert_false(changed);
    }
    assert_non_null(gpus_beat(w->gpus, 1, &changed));
    assert_false(changed);
    assert_null(gpus_beat(w->gpus, 1, &changed));
}

static void the_log_says_each_thing_once(void **state)
{
    struct world *w = *state;
    bool changed;
    for (int beat = 0; beat < 3 * GPUS_AGAIN_BEATS; beat++) {
        (void)gpus_beat(w->gpus, 1, &changed);
    }
    assert_int_equal(logged(w, "GPUs are simulated"), 1);
    assert_int_equal(logged(w, "GPU found"), 3);
    assert_int_equal(logged(w, "gpu=SIM-n1-2"), 1);
}

static void devices_that_are_let_go_are_told_of_at_once(void **state)
{
    struct world *w = *state;
    bool changed;
    const char *held[] = {"SIM-n1-1"};
    (void)gpus_beat(w->gpus, 1, &changed);
    assert_int_equal(gpus_look_ms(w->gpus), 0);
    assert_false(gpus_look(w->gpus, 1));
    gpus_use(w->gpus, held, 1);
    gpus_use(w->gpus, NULL, 0);
    assert_int_equal(gpus_look_ms(w->gpus), GPUS_LOOK_MS_MIN);
    assert_true(gpus_look(w->gpus, 1));
    assert_int_equal(gpus_look_ms(w->gpus), 0); /* Simulated ones are clean. */
    assert_non_null(gpus_beat(w->gpus, 1, &changed));
    assert_false(gpus_look(w->gpus, 1));
}

static void simulated_devices_need_nothing_in_the_cell(void **state)
{
    struct world *w = *state;
    struct gpu_edits e;
    struct errmsg msg;
    struct text held = {.text = "SIM-n1-0"};
    const struct start s = {.gpus = &held, .gpus_count = 1};
    assert_int_equal(gpus_inject(w->gpus, &s, true, &e, &msg).code, STATUS_OK);
    assert_int_equal(e.edits.nodes_count + e.edits.mounts_count + e.edits.env_count, 0);
    gpu_edits_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_beat_tells_what_is_new_and_again_after_a_while,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(the_log_says_each_thing_once, open_world, close_world),
        cmocka_unit_test_setup_teardown(devices_that_are_let_go_are_told_of_at_once, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(simulated_devices_need_nothing_in_the_cell, open_world,
                                        close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

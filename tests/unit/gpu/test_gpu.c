#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/gpu/devices.h"
#include "common/mem.h"
#include "tests/unit/gpu/fake.h"

#include <stdio.h>
#include <string.h>

#define H100                                                                                       \
    "count=1\ndriver=550.54.15\ncuda=12040\n"                                                      \
    "0.uuid=GPU-5a3f\n0.name=NVIDIA H100 80GB HBM3\n0.pci=00000000:3B:00.0\n"                      \
    "0.total=85520809984\n0.used=1048576\n0.busy=37\n0.temp=41\n0.power=112345\n0.procs=3\n"       \
    "0.ecc=0\n0.rows=2\n0.mig=0\n"
#define SECOND "1.uuid=GPU-77aa\n1.name=NVIDIA H100 80GB HBM3\n1.total=85520809984\n1.used=0\n"

static bool is_ok(const struct gpu_inventory *i)
{
    return i->state == GPU_STATE_OK;
}

static bool is_none(const struct gpu_inventory *i)
{
    return i->state == GPU_STATE_NONE;
}

static bool is_failing(const struct gpu_inventory *i)
{
    return i->state == GPU_STATE_FAILING;
}

static bool is_silent(const struct gpu_inventory *i)
{
    return i->state == GPU_STATE_SILENT;
}

static bool first_failed(const struct gpu_inventory *i)
{
    return i->gpus_count > 0 && i->gpus[0].health == GPU_HEALTH_FAILED;
}

static bool second_failed(const struct gpu_inventory *i)
{
    return i->gpus_count > 1 && i->gpus[1].health == GPU_HEALTH_FAILED;
}

static bool first_well(const struct gpu_inventory *i)
{
    return i->gpus_count > 0 && i->gpus[0].health == GPU_HEALTH_OK;
}

static bool two_devices(const struct gpu_inventory *i)
{
    return i->state == GPU_STATE_OK && i->gpus_count == 2;
}

static bool one_device(const struct gpu_inventory *i)
{
    return i->state == GPU_STATE_OK && i->gpus_count == 1;
}

static void contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
    }
}

static struct fake *begin(struct fake *f, const char *says)
{
    fake_open(f);
    fake_say(f, says);
    fake_start(f, FAKE_NVML);
    return f;
}

/* ---- What is told ---- */

/* Memory too, by the newer of the two functions. */
static void all_that_the_driver_tells_is_reported(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "code.nvmlDeviceGetMemoryInfo=3\n"), is_ok);
    const struct gpu_inventory *i = fake_now(&f);
    assert_string_equal(i->driver, "550.54.15");
    assert_string_equal(i->cuda, "12.4");
    assert_string_equal(i->why, "");
    assert_int_equal(i->gpus_count, 1);
    const struct gpu_report *g = &i->gpus[0];
    assert_string_equal(g->uuid, "GPU-5a3f");
    assert_string_equal(g->model, "NVIDIA H100 80GB HBM3");
    assert_string_equal(g->pci, "00000000:3B:00.0");
    assert_string_equal(g->parent, "");
    assert_int_equal(g->known, GPU_KNOWS_MEMORY | GPU_KNOWS_BUSY | GPU_KNOWS_TEMPERATURE |
                                   GPU_KNOWS_POWER | GPU_KNOWS_PROCESSES | GPU_KNOWS_ECC |
                                   GPU_KNOWS_ROWS | GPU_KNOWS_XID);
    assert_int_equal(g->memory_bytes, 85520809984);
    assert_int_equal(g->memory_used_bytes, 1048576);
    assert_int_equal(g->busy_percent, 37);
    assert_int_equal(g->temperature_c, 41);
    assert_int_equal(g->power_mw, 112345);
    assert_int_equal(g->processes, 3);
    assert_int_equal(g->rows_remapped, 2);
    assert_int_equal(g->health, GPU_HEALTH_OK);
    assert_false(g->simulated);
    assert_false(g->mig);
    fake_close(&f);
}

static void what_a_device_does_not_support_is_unknown(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, "count=1\n0.uuid=GPU-1\ncode.nvmlEventSetCreate=3\n"), is_ok);
    const struct gpu_report *g = &fake_now(&f)->gpus[0];
    assert_int_equal(g->known, 0);
    assert_int_equal(g->health, GPU_HEALTH_OK);
    assert_string_equal(g->model, "");
    assert_string_equal(fake_now(&f)->driver, "");
    fake_close(&f);
}

static void an_early_library_tells_what_it_can(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f);
    fake_say(&f, H100 "0.xid=79\n0.xid_number=1\n");
    fake_start(&f, FAKE_NVML_OLD);
    fake_wait(&f, first_failed);
    const struct gpu_report *g = &fake_now(&f)->gpus[0];
    assert_string_equal(fake_now(&f)->cuda, "12.4");
    assert_int_equal(g->memory_bytes, 85520809984);
    assert_int_equal(g->processes, 3);
    assert_int_equal(g->known & GPU_KNOWS_ROWS, 0);
    assert_int_equal(g->xid, 79);
    fake_close(&f);
}

static void readings_are_repeated(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "0.code.nvmlDeviceGetName=15\n"), first_failed);
    fake_say(&f, H100);
    fake_wait(&f, first_well);
    fake_close(&f);
}

/* ---- What is not there ---- */

static void without_a_library_there_are_none(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f);
    fake_start(&f, "/nonexistent/libnvidia-ml.so.1");
    assert_int_equal(fake_now(&f)->state, GPU_STATE_STARTING);
    fake_wait(&f, is_none);
    contains(fake_now(&f)->why, "/nonexistent/libnvidia-ml.so.1");
    assert_int_equal(fake_now(&f)->gpus_count, 0);
    fake_close(&f);
}

static void another_library_is_refused(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f);
    fake_start(&f, NO_NVML);
    fake_wait(&f, is_failing);
    contains(fake_now(&f)->why, "is too old, or is no NVML");
    fake_close(&f);
}

static void without_a_driver_there_are_none_until_it_is_loaded(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "code.nvmlInit_v2=9\n"), is_none);
    assert_string_equal(fake_now(&f)->why, "start NVML: the driver is not loaded");
    fake_say(&f, H100);
    fake_wait(&f, is_ok);
    fake_close(&f);
}

static void a_driver_of_another_version_is_a_failure(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "code.nvmlInit_v2=18\n"), is_failing);
    contains(fake_now(&f)->why, "different versions");
    fake_close(&f);
}

static void errors_without_a_name_have_their_number(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "code.nvmlDeviceGetCount_v2=999\n"), is_failing);
    assert_string_equal(fake_now(&f)->why, "count the GPUs: error 999");
    fake_close(&f);
}

static void a_driver_that_fails_later_fails_all(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100), is_ok);
    fake_say(&f, H100 "code.nvmlDeviceGetCount_v2=1\n");
    fake_wait(&f, is_failing);
    assert_int_equal(fake_now(&f)->gpus_count, 0);
    fake_say(&f, H100);
    fake_wait(&f, is_ok);
    fake_close(&f);
}

static void a_driver_without_devices_is_none(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, "count=0\ndriver=1\n"), is_none);
    assert_string_equal(fake_now(&f)->why, "the driver has no GPU");
    fake_close(&f);
}

static void devices_come_and_go(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100), is_ok);
    fake_say(&f, SECOND "count=2\n" H100);
    fake_wait(&f, two_devices);
    assert_string_equal(fake_now(&f)->gpus[1].uuid, "GPU-77aa");
    fake_say(&f, H100);
    fake_wait(&f, one_device);
    fake_close(&f);
}

/* ---- Nonsense ---- */

static void texts_without_an_end_are_cut_and_cleaned(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "raw.nvmlDeviceGetUUID=1\nraw.nvmlDeviceGetName=1\n"
                             "raw.nvmlDeviceGetPciInfo_v3=1\nraw.nvmlSystemGetDriverVersion=1\n"),
              is_ok);
    const struct gpu_report *g = &fake_now(&f)->gpus[0];
    assert_true(strlen(g->uuid) > 0 && strlen(g->uuid) < GPU_TEXT_BYTES);
    assert_int_equal(strspn(g->uuid, "?"), strlen(g->uuid));
    assert_int_equal(strspn(g->model, "?"), strlen(g->model));
    assert_int_equal(strspn(g->pci, "?"), 32);
    assert_int_equal(strlen(g->pci), 32);
    assert_int_equal(strspn(fake_now(&f)->driver, "?"), 80);
    fake_close(&f);
}

static void control_bytes_become_question_marks(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, "count=1\n0.uuid= GPU-\033[2J\xC3\xA4  \n"), is_ok);
    assert_string_equal(fake_now(&f)->gpus[0].uuid, "GPU-?[2J??");
    fake_close(&f);
}

static void impossible_numbers_are_unknown(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f,
                    "count=1\n0.uuid=GPU-1\n0.total=5\n0.used=6\n0.busy=101\n0.temp=4000000000\n"
                    "0.power=4294967295\n0.procs=4294967295\n0.rows=4294967295\n"
                    "0.pages=4294967295\ncuda=4294967295\ncode.nvmlEventSetCreate=3\n"),
              is_ok);
    assert_int_equal(fake_now(&f)->gpus[0].known, 0);
    assert_string_equal(fake_now(&f)->cuda, "");
    fake_close(&f);
}

static void more_devices_than_fit_are_cut(void **state)
{
    (void)state;
    struct fake f;
    char says[8192] = "count=1000000\n";
    size_t used = strlen(says);
    for (int i = 0; i < 70; i++) {
        used += (size_t)snprintf(says + used, sizeof says - used, "%d.uuid=GPU-%d\n", i, i);
    }
    fake_wait(begin(&f, says), is_ok);
    assert_int_equal(fake_now(&f)->gpus_count, GPUS_MAX);
    assert_string_equal(fake_now(&f)->why, "only the first 64 devices are shown");
    fake_close(&f);
}

static void a_device_without_a_name_is_shown_and_failed(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "0.code.nvmlDeviceGetHandleByIndex_v2=4\n"), is_ok);
    const struct gpu_report *g = &fake_now(&f)->gpus[0];
    assert_string_equal(g->uuid, "unknown-0");
    assert_int_equal(g->health, GPU_HEALTH_FAILED);
    assert_string_equal(g->why, "permission denied");
    fake_close(&f);
}

/* ---- Health ---- */

static void an_xid_of_the_hardware_fails_the_device(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, SECOND "count=2\n" H100), two_devices);
    fake_say(&f, SECOND "count=2\n" H100 "1.xid=79\n1.xid_number=1\n");
    fake_wait(&f, second_failed);
    const struct gpu_report *g = fake_now(&f)->gpus;
    contains(g[1].why, "Xid 79 at 20");
    assert_int_equal(g[1].xid, 79);
    assert_int_equal(g[1].xid_count, 1);
    assert_true(g[1].xid_time_ms > 0);
    assert_int_equal(g[0].health, GPU_HEALTH_OK);
    assert_int_equal(g[0].xid_count, 0);
    assert_int_equal(g[0].known & GPU_KNOWS_XID, GPU_KNOWS_XID);
    fake_close(&f);
}

static bool first_has_an_xid(const struct gpu_inventory *i)
{
    return i->gpus_count > 0 && i->gpus[0].xid_count > 0;
}

static void an_xid_of_a_program_leaves_it_well(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "0.xid=31\n0.xid_number=1\n"), first_has_an_xid);
    assert_int_equal(fake_now(&f)->gpus[0].xid, 31);
    assert_int_equal(fake_now(&f)->gpus[0].health, GPU_HEALTH_OK);
    fake_close(&f);
}

static void xids_outlive_a_session(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "0.xid=79\n0.xid_number=1\n"), first_failed);
    fake_say(&f, H100 "code.nvmlDeviceGetCount_v2=1\n");
    fake_wait(&f, is_failing);
    fake_say(&f, H100);
    fake_wait(&f, is_ok);
    assert_int_equal(fake_now(&f)->gpus[0].health, GPU_HEALTH_FAILED);
    assert_int_equal(fake_now(&f)->gpus[0].xid_count, 1);
    fake_close(&f);
}

static void xids_are_of_three_kinds(void **state)
{
    (void)state;
    assert_int_equal(xid_health(13), GPU_HEALTH_OK);
    assert_int_equal(xid_health(63), GPU_HEALTH_DEGRADED);
    assert_int_equal(xid_health(48), GPU_HEALTH_FAILED);
    assert_int_equal(xid_health(999), GPU_HEALTH_FAILED);
}

static void a_lost_gpu_is_failed_and_the_others_are_not(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, SECOND "count=2\n" H100 "0.code.nvmlDeviceGetMemoryInfo_v2=15\n"
                               "0.code.nvmlDeviceGetMemoryInfo=15\n"),
              two_devices);
    const struct gpu_report *g = fake_now(&f)->gpus;
    assert_int_equal(g[0].health, GPU_HEALTH_FAILED);
    assert_string_equal(g[0].why, "the GPU is lost: it has fallen off the bus");
    assert_string_equal(g[0].uuid, "GPU-5a3f");
    assert_int_equal(g[0].known & GPU_KNOWS_MEMORY, 0);
    assert_int_equal(g[1].health, GPU_HEALTH_OK);
    fake_close(&f);
}

static void the_memory_s_errors_are_its_health(void **state)
{
    (void)state;
    static const struct {
        const char *says;
        uint32_t health;
        const char *why;
    } cases[] = {
        {"0.ecc=7\n", GPU_HEALTH_DEGRADED, "7 uncorrected memory errors"},
        {"0.rows=1\n0.rows_pending=1\n", GPU_HEALTH_DEGRADED, "remapped at the next reset"},
        {"0.rows=1\n0.rows_failed=1\n0.rows_pending=1\n", GPU_HEALTH_FAILED,
         "could not be remapped"},
        {"0.pages=2\n0.pages_pending=1\n", GPU_HEALTH_DEGRADED, "retired at the next reset"},
        {"0.pages=2\n0.pages_pending=0\n", GPU_HEALTH_OK, ""},
        {"code.nvmlDeviceGetPowerUsage=16\n", GPU_HEALTH_FAILED, "needs a reset"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fake f;
        char says[512];
        (void)snprintf(says, sizeof says, "count=1\n0.uuid=GPU-1\n%s", cases[i].says);
        fake_wait(begin(&f, says), is_ok);
        assert_int_equal(fake_now(&f)->gpus[0].health, cases[i].health);
        contains(fake_now(&f)->gpus[0].why, cases[i].why);
        fake_close(&f);
    }
}

/* ---- MIG ---- */

#define MIG_GPU                                                                                    \
    "count=1\n0.uuid=GPU-1\n0.name=NVIDIA A100\n0.pci=0:1\n0.total=40000\n0.used=0\n0.mig=1\n"     \
    "0:0.uuid=MIG-a\n0:0.name=NVIDIA A100 MIG 1g.5gb\n0:0.total=5000\n0:0.used=10\n0:0.procs=1\n"  \
    "0:2.uuid=MIG-b\n0:2.name=NVIDIA A100\n0:2.slices=2\n0:2.mib=9856\n"

static void mig_instances_are_devices_of_their_own(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, MIG_GPU), is_ok);
    const struct gpu_inventory *i = fake_now(&f);
    assert_int_equal(i->gpus_count, 3);
    const struct gpu_report *a = &i->gpus[1], *b = &i->gpus[2];
    assert_true(i->gpus[0].mig);
    assert_string_equal(i->gpus[0].parent, "");
    assert_string_equal(a->uuid, "MIG-a");
    assert_string_equal(a->parent, "GPU-1");
    assert_string_equal(a->model, "NVIDIA A100");
    assert_string_equal(a->profile, "1g.5gb");
    assert_string_equal(a->pci, "0:1");
    assert_int_equal(a->memory_bytes, 5000);
    assert_int_equal(a->processes, 1);
    assert_int_equal(a->mig_index, 0);
    assert_string_equal(b->profile, "2g.10gb");
    assert_int_equal(b->mig_index, 2);
    fake_close(&f);
}

static void a_mig_instance_is_as_unwell_as_its_gpu(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, MIG_GPU "0.rows=1\n0.rows_failed=1\n"), is_ok);
    const struct gpu_report *g = fake_now(&f)->gpus;
    assert_int_equal(g[1].health, GPU_HEALTH_FAILED);
    contains(g[1].why, "its GPU: a row");
    fake_close(&f);
}

/* ---- A driver that hangs ---- */

static void a_driver_that_hangs_is_silent_and_its_devices_stay(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100), is_ok);
    fake_say(&f, H100 "hang.nvmlDeviceGetPowerUsage=1\n");
    fake_wait(&f, is_silent);
    contains(fake_now(&f)->why, "not answering since 20");
    assert_int_equal(fake_now(&f)->gpus_count, 1);
    fake_say(&f, H100);
    fake_wait(&f, is_ok);
    assert_string_equal(fake_now(&f)->why, "");
    fake_close(&f);
}

static void a_driver_that_hangs_from_the_start_is_silent(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "hang.nvmlInit_v2=1\n"), is_silent);
    fake_say(&f, H100);
    fake_wait(&f, is_ok);
    fake_close(&f);
}

static void closing_does_not_wait_for_a_driver_that_hangs(void **state)
{
    (void)state;
    struct fake f;
    fake_wait(begin(&f, H100 "hang.nvmlDeviceGetName=1\n"), is_silent);
    gpu_close(f.gpu);
    f.gpu = NULL;
    assert_false(fake_marked(&f));
    /* The thread that was left behind ends when it can. */
    fake_say(&f, H100);
    fake_wait_mark(&f);
    fake_close(&f);
}

/* ---- Without a driver ---- */

static void simulated_devices_are_marked(void **state)
{
    (void)state;
    const struct gpu_simulated simulated[] = {{"H100", UINT64_C(80) << 30, 2}, {"T4", 16 << 20, 1}};
    const struct gpu_config config = {
        .node = "n1", .simulated = simulated, .simulated_count = 2, .off = true};
    struct gpu *g;
    assert_int_equal(gpu_open(&g, &config, NULL).code, STATUS_OK);
    assert_true(gpu_poll(g, 1));
    assert_false(gpu_poll(g, 2));
    const struct gpu_inventory *i = gpu_inventory(g);
    assert_int_equal(i->state, GPU_STATE_SIMULATED);
    assert_int_equal(i->gpus_count, 3);
    assert_string_equal(i->gpus[0].uuid, "SIM-n1-0");
    assert_string_equal(i->gpus[2].uuid, "SIM-n1-2");
    assert_string_equal(i->gpus[2].model, "T4");
    assert_int_equal(i->gpus[1].memory_bytes, UINT64_C(80) << 30);
    assert_true(i->gpus[0].simulated && i->gpus[1].simulated && i->gpus[2].simulated);
    gpu_close(g);
}

static void too_many_simulated_devices_are_refused(void **state)
{
    (void)state;
    struct gpu_simulated simulated = {"H100", 1, GPUS_MAX};
    const struct gpu_config config = {.node = "n", .simulated = &simulated, .simulated_count = 1};
    struct gpu *g;
    struct errmsg msg = {{0}};
    assert_int_equal(gpu_open(&g, &config, &msg).code, STATUS_OK);
    gpu_close(g);
    simulated.count++;
    assert_int_equal(gpu_open(&g, &config, &msg).code, STATUS_LIMIT);
}

static void off_looks_for_nothing(void **state)
{
    (void)state;
    const struct gpu_config config = {.node = "n", .library = FAKE_NVML, .off = true};
    struct gpu *g;
    assert_int_equal(gpu_open(&g, &config, NULL).code, STATUS_OK);
    assert_true(gpu_poll(g, 1));
    assert_int_equal(gpu_inventory(g)->state, GPU_STATE_OFF);
    assert_int_equal(gpu_inventory(g)->gpus_count, 0);
    gpu_close(g);
}

static void opening_fails_clean(void **state)
{
    (void)state;
    char path[GPU_PATH_BYTES_MAX + 2];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    const struct gpu_config config = {.node = "n", .library = path};
    struct gpu *g = NULL;
    assert_int_equal(gpu_open(&g, &config, NULL).code, STATUS_LIMIT);
    for (unsigned k = 0; k < 2; k++) {
        const struct gpu_config plain = {.node = "n", .library = "/nonexistent/x"};
        mem_fault(k, 1);
        assert_int_equal(gpu_open(&g, &plain, NULL).code, STATUS_NOMEM);
        (void)mem_fault_clear();
    }
    assert_null(g);
    gpu_close(NULL);
}

static void names_of_codes_outside_are_unknown(void **state)
{
    (void)state;
    assert_string_equal(gpu_state_name(GPU_STATE_SIMULATED), "simulated");
    assert_string_equal(gpu_state_name(7), "unknown");
    assert_string_equal(gpu_health_name(GPU_HEALTH_FAILED), "failed");
    assert_string_equal(gpu_health_name(3), "unknown");
}

static bool three_processes(const struct gpu_inventory *i)
{
    return i->gpus_count == 1 && i->gpus[0].processes == 3;
}

static void processes_that_draw_count_too(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f);
    fake_say(&f, "count=1\n0.uuid=GPU-1\n0.name=T4\n0.procs=1\n0.graphics=2\n");
    fake_start(&f, FAKE_NVML);
    fake_wait(&f, three_processes);
    fake_close(&f);
}

static void a_gpu_has_the_number_of_its_node(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f);
    unsigned minor = 0;
    fake_say(&f, "count=1\n0.uuid=GPU-1\n0.name=T4\n0.procs=3\n0.minor=7\n");
    fake_start(&f, FAKE_NVML);
    fake_wait(&f, three_processes);
    assert_true(gpu_minor(f.gpu, "GPU-1", &minor));
    assert_int_equal(minor, 7);
    assert_false(gpu_minor(f.gpu, "GPU-2", &minor));
    fake_close(&f);
}

static void a_reading_can_be_asked_for(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f);
    const struct gpu_config config = {.library = FAKE_NVML, .node = "n1", .read_ms = 3600 * 1000};
    struct errmsg msg = {{0}};
    fake_say(&f, "count=1\n0.uuid=GPU-1\n0.name=T4\n0.procs=1\n");
    assert_int_equal(gpu_open(&f.gpu, &config, &msg).code, STATUS_OK);
    fake_wait(&f, one_device);
    fake_say(&f, "count=1\n0.uuid=GPU-1\n0.name=T4\n0.procs=3\n");
    uint64_t number = gpu_refresh(f.gpu);
    assert_true(gpu_seen(f.gpu) < number);
    fake_wait(&f, three_processes); /* in time only because it was asked for */
    assert_true(gpu_seen(f.gpu) >= number);
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_the_driver_tells_is_reported),
        cmocka_unit_test(what_a_device_does_not_support_is_unknown),
        cmocka_unit_test(an_early_library_tells_what_it_can),
        cmocka_unit_test(readings_are_repeated),
        cmocka_unit_test(processes_that_draw_count_too),
        cmocka_unit_test(a_gpu_has_the_number_of_its_node),
        cmocka_unit_test(a_reading_can_be_asked_for),
        cmocka_unit_test(without_a_library_there_are_none),
        cmocka_unit_test(another_library_is_refused),
        cmocka_unit_test(without_a_driver_there_are_none_until_it_is_loaded),
        cmocka_unit_test(a_driver_of_another_version_is_a_failure),
        cmocka_unit_test(errors_without_a_name_have_their_number),
        cmocka_unit_test(a_driver_that_fails_later_fails_all),
        cmocka_unit_test(a_driver_without_devices_is_none),
        cmocka_unit_test(devices_come_and_go),
        cmocka_unit_test(texts_without_an_end_are_cut_and_cleaned),
        cmocka_unit_test(control_bytes_become_question_marks),
        cmocka_unit_test(impossible_numbers_are_unknown),
        cmocka_unit_test(more_devices_than_fit_are_cut),
        cmocka_unit_test(a_device_without_a_name_is_shown_and_failed),
        cmocka_unit_test(an_xid_of_the_hardware_fails_the_device),
        cmocka_unit_test(an_xid_of_a_program_leaves_it_well),
        cmocka_unit_test(xids_outlive_a_session),
        cmocka_unit_test(xids_are_of_three_kinds),
        cmocka_unit_test(a_lost_gpu_is_failed_and_the_others_are_not),
        cmocka_unit_test(the_memory_s_errors_are_its_health),
        cmocka_unit_test(mig_instances_are_devices_of_their_own),
        cmocka_unit_test(a_mig_instance_is_as_unwell_as_its_gpu),
        cmocka_unit_test(a_driver_that_hangs_is_silent_and_its_devices_stay),
        cmocka_unit_test(a_driver_that_hangs_from_the_start_is_silent),
        cmocka_unit_test(closing_does_not_wait_for_a_driver_that_hangs),
        cmocka_unit_test(simulated_devices_are_marked),
        cmocka_unit_test(too_many_simulated_devices_are_refused),
        cmocka_unit_test(off_looks_for_nothing),
        cmocka_unit_test(opening_fails_clean),
        cmocka_unit_test(names_of_codes_outside_are_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

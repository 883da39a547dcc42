/* What the agent's GPU discovery finds on this machine, for people in front of a real GPU.
 *
 *     gpu_probe [SECONDS [LIBRARY]]       reads again and again for so long, 3 s by default
 *
 * Exit codes: 0 devices were found, 1 none, 2 usage. */
#include "agent/gpu/gpu.h"
#include "common/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static void number_print(const struct gpu_report *g, uint32_t known, const char *name,
                         uint64_t value)
{
    if ((g->known & known) != 0) {
        (void)printf("    %-18s %" PRIu64 "\n", name, value);
    } else {
        (void)printf("    %-18s unknown\n", name);
    }
}

static void device_print(const struct gpu_report *g)
{
    if (g->parent[0] == '\0') {
        (void)printf("  %u %s\n", g->index, g->uuid);
    } else {
        (void)printf("  %u:%u %s\n", g->index, g->mig_index, g->uuid);
    }
    (void)printf("    %-18s %s\n    %-18s %s\n    %-18s %s\n    %-18s %s\n    %-18s %s\n", "model",
                 g->model, "pci", g->pci, "mig", g->mig ? "on" : "off", "parent", g->parent,
                 "profile", g->profile);
    (void)printf("    %-18s %s %s\n", "health", gpu_health_name(g->health), g->why);
    number_print(g, GPU_KNOWS_MEMORY, "memory_bytes", g->memory_bytes);
    number_print(g, GPU_KNOWS_MEMORY, "memory_used_bytes", g->memory_used_bytes);
    number_print(g, GPU_KNOWS_BUSY, "busy_percent", g->busy_percent);
    number_print(g, GPU_KNOWS_TEMPERATURE, "temperature_c", g->temperature_c);
    number_print(g, GPU_KNOWS_POWER, "power_mw", g->power_mw);
    number_print(g, GPU_KNOWS_PROCESSES, "processes", g->processes);
    number_print(g, GPU_KNOWS_ECC, "ecc_uncorrected", g->ecc_uncorrected);
    number_print(g, GPU_KNOWS_ROWS, "rows_remapped", g->rows_remapped);
    number_print(g, GPU_KNOWS_PAGES, "pages_retired", g->pages_retired);
    number_print(g, GPU_KNOWS_XID, "xid_count", g->xid_count);
}

static uint64_t cpu_us(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

int main(int argc, char **argv)
{
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 3;
    if (argc > 3 || seconds == 0 || seconds > 3600) {
        (void)fprintf(stderr, "usage: gpu_probe [SECONDS [LIBRARY]]\n");
        return 2;
    }
    const struct gpu_config config = {
        .node = "probe", .library = argc > 2 ? argv[2] : NULL, .read_ms = 1000, .retry_ms = 1000};
    struct gpu *g;
    struct errmsg msg = {{0}};
    uint64_t begun_us = clock_now_us(clock_real()), now_us = begun_us, cpu_first_us = 0;
    if (!status_is_ok(gpu_open(&g, &config, &msg))) {
        (void)fprintf(stderr, "gpu_probe: %s\n", msg.text);
        return 1;
    }
    unsigned readings = 0;
    for (; now_us < begun_us + seconds * 1000000; now_us = clock_now_us(clock_real())) {
        if (gpu_poll(g, now_us) && gpu_inventory(g)->state != GPU_STATE_STARTING) {
            const struct gpu_inventory *i = gpu_inventory(g);
            (void)printf("%" PRIu64 " ms: state %s, why \"%s\", driver %s, cuda %s, %zu devices\n",
                         (now_us - begun_us) / 1000, gpu_state_name(i->state), i->why, i->driver,
                         i->cuda, i->gpus_count);
            for (size_t k = 0; k < i->gpus_count; k++) {
                device_print(&i->gpus[k]);
            }
            cpu_first_us = readings++ == 0 ? cpu_us() : cpu_first_us;
        }
        (void)usleep(1000); /* lint: allow sleep-in-test: the poll of a program for people */
    }
    bool found = gpu_inventory(g)->gpus_count > 0;
    (void)printf("%u readings; processor time: %" PRIu64 " us to the first, %" PRIu64
                 " us for the others\n",
                 readings, cpu_first_us, cpu_us() - cpu_first_us);
    uint64_t close_us = clock_now_us(clock_real());
    gpu_close(g);
    (void)printf("closed in %" PRIu64 " ms\n", (clock_now_us(clock_real()) - close_us) / 1000);
    return found ? 0 : 1;
}

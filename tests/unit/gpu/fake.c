#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/unit/gpu/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEADLINE_MS = 20 * 1000 };

void fake_open(struct fake *f)
{
    *f = (struct fake){.folder = "/tmp/skep-gpu.XXXXXX"};
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->file, sizeof f->file, "%s/says", f->folder);
    assert_int_equal(setenv("FAKE_NVML_FILE", f->file, 1), 0);
    fake_say(f, "");
}

void fake_close(struct fake *f)
{
    char path[96];
    gpu_close(f->gpu);
    (void)unlink(f->file);
    (void)snprintf(path, sizeof path, "%s/mark", f->folder);
    (void)unlink(path);
    assert_int_equal(rmdir(f->folder), 0);
}

bool fake_marked(const struct fake *f)
{
    char path[96];
    (void)snprintf(path, sizeof path, "%s/mark", f->folder);
    return access(path, F_OK) == 0;
}

void fake_say(const struct fake *f, const char *text)
{
    char next[96];
    (void)snprintf(next, sizeof next, "%s.new", f->file);
    FILE *file = fopen(next, "we");
    assert_non_null(file);
    (void)fprintf(file, "%smark=%s/mark\n", text, f->folder);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(next, f->file), 0);
}

void fake_start(struct fake *f, const char *library)
{
    const struct gpu_config config = {
        .library = library, .node = "n1", .read_ms = 20, .retry_ms = 20, .silent_ms = 150};
    struct errmsg msg = {{0}};
    assert_int_equal(gpu_open(&f->gpu, &config, &msg).code, STATUS_OK);
}

/* The poll of a condition: false when its time is over. */
static bool again(uint64_t until_us)
{
    (void)usleep(1000); /* lint: allow sleep-in-test: the poll of a condition with a deadline */
    return clock_now_us(clock_real()) < until_us;
}

static uint64_t deadline_us(void)
{
    return clock_now_us(clock_real()) + (uint64_t)DEADLINE_MS * 1000;
}

void fake_wait_mark(const struct fake *f)
{
    uint64_t until_us = deadline_us();
    while (!fake_marked(f) && again(until_us)) {
    }
    assert_true(fake_marked(f));
}

void fake_wait(struct fake *f, bool (*condition)(const struct gpu_inventory *i))
{
    uint64_t until_us = deadline_us();
    do {
        (void)gpu_poll(f->gpu, clock_now_us(clock_real()));
        if (condition(gpu_inventory(f->gpu))) {
            return;
        }
    } while (again(until_us));
    const struct gpu_inventory *i = gpu_inventory(f->gpu);
    fail_msg("not in time; state %s, why \"%s\", %zu devices, the first %s: %s",
             gpu_state_name(i->state), i->why, i->gpus_count,
             i->gpus_count > 0 ? gpu_health_name(i->gpus[0].health) : "",
             i->gpus_count > 0 ? i->gpus[0].why : "");
}

const struct gpu_inventory *fake_now(struct fake *f)
{
    return gpu_inventory(f->gpu);
}

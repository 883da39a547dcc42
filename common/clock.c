#include "common/clock.h"

#include "common/check.h"

#include <time.h>

static uint64_t read_us(clockid_t which)
{
    struct timespec now;
    CHECK(clock_gettime(which, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t real_monotonic_us(const struct clock *c)
{
    (void)c;
    return read_us(CLOCK_MONOTONIC);
}

static uint64_t real_unix_us(const struct clock *c)
{
    (void)c;
    return read_us(CLOCK_REALTIME);
}

const struct clock *clock_real(void)
{
    static const struct clock real = {real_monotonic_us, real_unix_us};
    return &real;
}

/* The clock is the first member, so that its address is the virtual clock's. */
static const struct clock_virtual *virtual_of(const struct clock *c)
{
    return (const struct clock_virtual *)c;
}

static uint64_t virtual_monotonic_us(const struct clock *c)
{
    return virtual_of(c)->us;
}

static uint64_t virtual_unix_us(const struct clock *c)
{
    return virtual_of(c)->us + virtual_of(c)->unix_offset_us;
}

void clock_virtual_init(struct clock_virtual *v, uint64_t unix_ms)
{
    CHECK(unix_ms <= UINT64_MAX / 1000);
    *v = (struct clock_virtual){
        .clock = {virtual_monotonic_us, virtual_unix_us},
        .unix_offset_us = unix_ms * 1000,
    };
}

void clock_virtual_advance_us(struct clock_virtual *v, uint64_t us)
{
    CHECK(us <= UINT64_MAX - v->us);
    v->us += us;
}

void clock_virtual_advance_ms(struct clock_virtual *v, uint64_t ms)
{
    CHECK(ms <= UINT64_MAX / 1000);
    clock_virtual_advance_us(v, ms * 1000);
}

void clock_virtual_step_unix_ms(struct clock_virtual *v, int64_t delta_ms)
{
    CHECK(delta_ms >= INT64_MIN / 1000 && delta_ms <= INT64_MAX / 1000);
    CHECK(delta_ms >= 0 || virtual_unix_us(&v->clock) >= (uint64_t)(-delta_ms) * 1000);
    v->unix_offset_us += (uint64_t)(delta_ms * 1000);
}

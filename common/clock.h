/* Where time comes from: the machine, or a hand that advances it (tests, simulation). Monotonic
 * time never goes back and starts anywhere; it is what deadlines are made of. Unix time may step
 * either way; it is what people read and what certificates and ids hold. The core takes neither: it
 * is given times as data.
 *
 * Thread: the real clock any; a virtual one its owner's. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

struct clock {
    uint64_t (*monotonic_us)(const struct clock *c);
    uint64_t (*unix_us)(const struct clock *c);
};

static inline uint64_t clock_now_us(const struct clock *c)
{
    return c->monotonic_us(c);
}

static inline uint64_t clock_now_ms(const struct clock *c)
{
    return c->monotonic_us(c) / 1000;
}

static inline uint64_t clock_unix_ms(const struct clock *c)
{
    return c->unix_us(c) / 1000;
}

/* The machine's clock (CLOCK_MONOTONIC and CLOCK_REALTIME); lives for ever. */
const struct clock *clock_real(void);

/* A clock that stands until it is advanced. Pass &v->clock to whoever wants a clock. */
struct clock_virtual {
    struct clock clock;
    uint64_t us;
    uint64_t unix_offset_us; /* Unix time less monotonic time; wraps where it must */
};

/* Monotonic time starts at 0, so that a test notices code that takes 0 for "never". */
void clock_virtual_init(struct clock_virtual *v, uint64_t unix_ms);
/* Moves both times on. */
void clock_virtual_advance_us(struct clock_virtual *v, uint64_t us);
void clock_virtual_advance_ms(struct clock_virtual *v, uint64_t ms);
/* Steps Unix time alone, as an operator or a time server does. It may not pass below 1970. */
void clock_virtual_step_unix_ms(struct clock_virtual *v, int64_t delta_ms);

#endif

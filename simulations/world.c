#include "simulations/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

enum { HEAP_FIRST = 1024, EVENTS_MAX = 50 * 1000 * 1000 };
#define UNIX_BASE_MS UINT64_C(1700000000000)

/* ---- Time and events ---- */

uint64_t world_now(const struct world *w)
{
    return sim_raft_now_us(w->raft);
}

uint64_t world_unix_ms(const struct world *w)
{
    return UNIX_BASE_MS + world_now(w) / MS_US;
}

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->sequence < b->sequence;
}

static void swap(struct event *a, struct event *b)
{
    struct event other = *a;
    *a = *b;
    *b = other;
}

void world_at(struct world *w, uint64_t at_us, event_fn fn, void *data, uint64_t arg)
{
    if (w->heap_count == w->heap_capacity) {
        size_t capacity = w->heap_capacity == 0 ? HEAP_FIRST : 2 * w->heap_capacity;
        w->heap = mem_must(mem_realloc(w->heap, capacity * sizeof *w->heap));
        w->heap_capacity = capacity;
    }
    CHECK(at_us >= world_now(w));
    size_t at = w->heap_count++;
    w->heap[at] = (struct event){at_us, w->sequence++, fn, data, arg};
    while (at > 0 && earlier(&w->heap[at], &w->heap[(at - 1) / 2])) {
        swap(&w->heap[at], &w->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

void world_after(struct world *w, uint64_t delay_us, event_fn fn, void *data, uint64_t arg)
{
    world_at(w, world_now(w) + delay_us, fn, data, arg);
}

static struct event take_first(struct world *w)
{
    struct event first = w->heap[0];
    w->heap[0] = w->heap[--w->heap_count];
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < w->heap_count; child++) {
            least = earlier(&w->heap[child], &w->heap[least]) ? child : least;
        }
        if (least == at) {
            return first;
        }
        swap(&w->heap[at], &w->heap[least]);
        at = least;
    }
}

void world_run(struct world *w)
{
    while (!w->done && w->failure[0] == '\0') {
        uint64_t at_us = w->heap_count == 0 ? NEVER_US : w->heap[0].at_us;
        uint64_t raft_us = sim_raft_next_us(w->raft);
        if (at_us == NEVER_US && raft_us == NEVER_US) {
            world_fail(w, "nothing is left to happen");
            return;
        }
        if (raft_us <= at_us) {
            sim_raft_advance(w->raft, raft_us);
            w->events++;
            continue;
        }
        sim_raft_advance(w->raft, at_us);
        struct event e = take_first(w);
        e.fn(w, e.data, e.arg);
        if (++w->events > EVENTS_MAX) {
            world_fail(w, "the scenario does not end: %d events", EVENTS_MAX);
        }
    }
}

/* ---- Randomness: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) ---- */

uint64_t world_random(struct world *w)
{
    w->random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = w->random;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t world_below(struct world *w, uint64_t limit)
{
    CHECK(limit > 0);
    return world_random(w) % limit;
}

uint64_t world_between(struct world *w, uint64_t low, uint64_t high)
{
    CHECK(low <= high);
    return low + world_below(w, high - low + 1);
}

bool world_chance(struct world *w, uint32_t permille)
{
    return permille > 0 && world_below(w, 1000) < permille;
}

uint64_t world_around(struct world *w, uint64_t mean)
{
    return world_between(w, 0, 2 * mean);
}

bool world_bug(struct world *w, enum simulation_bug bug, uint64_t n)
{
    return w->bug == bug && ++w->bug_count % n == 0;
}

/* ---- Trace and failure ---- */

static void emit(struct world *w, const char *line)
{
    uint64_t at = world_now(w);
    for (int i = 0; i < 8; i++) {
        w->hash = (w->hash ^ (uint8_t)(at >> (8 * i))) * UINT64_C(0x100000001b3);
    }
    for (const char *p = line; *p != '\0'; p++) {
        w->hash = (w->hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    }
    if (w->trace != NULL) {
        (void)fprintf(w->trace, "%" PRIu64 ".%06" PRIu64 " %s\n", at / SECOND_US, at % SECOND_US,
                      line);
    }
}

void world_trace(struct world *w, const char *format, ...)
{
    char line[TRACE_LINE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    emit(w, line);
}

void world_fail(struct world *w, const char *format, ...)
{
    if (w->failure[0] != '\0') {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(w->failure, sizeof w->failure, format, args);
    va_end(args);
    world_trace(w, "FAILED %s", w->failure);
}

uint32_t world_short(struct id128 id)
{
    return (uint32_t)(id.low >> 32);
}

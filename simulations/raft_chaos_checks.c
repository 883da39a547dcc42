#include "simulations/raft_chaos_checks.h"

#include "common/check.h"
#include "common/mem.h"
#include "scheduler/replica/wire.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

enum { FLAGS_PRE_VOTE = 2, PRE_VOTE_TRUE = 1 };

uint64_t chaos_hash(struct bytes command)
{
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < command.size; i++) {
        hash = (hash ^ command.data[i]) * 0x100000001b3ULL;
    }
    return hash == 0 ? 1 : hash;
}

static uint64_t chained(uint64_t chain, uint64_t index, uint64_t command)
{
    uint64_t z = (chain ^ (index << 1) ^ command) * 0x9e3779b97f4a7c15ULL;
    return (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9ULL;
}

void chaos_checks_close(struct chaos_checks *c)
{
    mem_free(c->entries);
    c->entries = NULL;
}

void chaos_violated(struct chaos_checks *c, enum raft_chaos_verdict verdict, const char *format,
                    ...)
{
    if (c->verdict != CHAOS_CLEAN) {
        return;
    }
    c->verdict = verdict;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(c->why, sizeof c->why, format, args);
    va_end(args);
}

static struct chaos_entry *entry_at(struct chaos_checks *c, uint64_t index)
{
    if (index >= c->capacity) {
        size_t capacity = c->capacity == 0 ? 4096 : c->capacity;
        while (index >= capacity) {
            capacity *= 2;
        }
        c->entries = mem_must(mem_realloc(c->entries, capacity * sizeof *c->entries));
        memset(c->entries + c->capacity, 0, (capacity - c->capacity) * sizeof *c->entries);
        c->capacity = capacity;
    }
    return &c->entries[index];
}

void chaos_applied(struct chaos_checks *c, uint64_t id, struct chaos_state *s, uint64_t index,
                   struct bytes command)
{
    uint64_t hash = chaos_hash(command);
    uint64_t chain = chained(s->chain, index, hash);
    struct chaos_entry *e = entry_at(c, index);
    if (index <= s->index) {
        chaos_violated(c, CHAOS_DIVERGED, "server %" PRIu64 " applied %" PRIu64 " after %" PRIu64,
                       id, index, s->index);
    } else if (e->command == 0) {
        e->command = hash;
        e->chain = chain;
    } else if (e->command != hash || e->chain != chain) {
        chaos_violated(c, e->acknowledged && e->command != hash ? CHAOS_LOST : CHAOS_DIVERGED,
                       "server %" PRIu64 " applied another %s at index %" PRIu64 "%s", id,
                       e->command != hash ? "command" : "history", index,
                       e->acknowledged ? ", which was acknowledged" : "");
    }
    *s = (struct chaos_state){.index = index, .chain = chain};
}

void chaos_restored(struct chaos_checks *c, uint64_t id, const struct chaos_state *s)
{
    const struct chaos_entry *e = entry_at(c, s->index);
    if (s->index != 0 && e->chain != s->chain) {
        chaos_violated(c, CHAOS_DIVERGED,
                       "server %" PRIu64 " restored another state at index %" PRIu64, id, s->index);
    }
}

void chaos_acknowledged(struct chaos_checks *c, uint64_t id, uint64_t index, uint64_t command)
{
    struct chaos_entry *e = entry_at(c, index);
    if (e->command != command) {
        chaos_violated(c, CHAOS_LOST,
                       "server %" PRIu64 " acknowledged a command that is not at index %" PRIu64,
                       id, index);
    }
    e->acknowledged = true;
    c->acknowledged_last = index > c->acknowledged_last ? index : c->acknowledged_last;
}

static void led(struct chaos_checks *c, uint64_t id, uint64_t term)
{
    if (term >= CHAOS_TERMS_MAX || id >= CHAOS_IDS) {
        return;
    }
    c->terms = term > c->terms ? term : c->terms;
    if (c->leaders[term] != 0 && c->leaders[term] != id) {
        chaos_violated(c, CHAOS_LEADERS, "servers %u and %" PRIu64 " lead in term %" PRIu64,
                       c->leaders[term], id, term);
    }
    c->leaders[term] = (uint8_t)id;
}

static void voted(struct chaos_checks *c, uint64_t id, uint64_t candidate, uint64_t term)
{
    if (term >= CHAOS_TERMS_MAX || id >= CHAOS_IDS || candidate >= CHAOS_IDS) {
        return;
    }
    uint8_t *vote = &c->votes[id][term];
    if (*vote != 0 && *vote != candidate) {
        chaos_violated(c, CHAOS_VOTES,
                       "server %" PRIu64 " voted for %u and %" PRIu64 " in term %" PRIu64, id,
                       *vote, candidate, term);
    }
    *vote = (uint8_t)candidate;
}

void chaos_sent(struct chaos_checks *c, uint64_t from, uint64_t to, struct bytes message)
{
    struct reader r = reader_of(message);
    (void)reader_u8(&r);
    unsigned type = reader_u8(&r);
    (void)reader_u16(&r);
    uint64_t term = reader_u64(&r);
    if (type == WIRE_APPEND) {
        led(c, from, term);
    } else if (type == WIRE_VOTE) {
        (void)reader_u64(&r);
        (void)reader_u64(&r);
        (void)reader_u64(&r);
        if ((reader_u8(&r) & FLAGS_PRE_VOTE) == 0) {
            voted(c, from, from, term);
        }
    } else if (type == WIRE_VOTE_RESULT) {
        bool granted = reader_u8(&r) != 0;
        if (granted && reader_u8(&r) != PRE_VOTE_TRUE) {
            voted(c, from, to, term);
        }
    }
    CHECK(!r.failed);
}

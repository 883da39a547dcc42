#include "scheduler/replica/snapshot_bytes.h"

#include <endian.h>
#include <string.h>

enum {
    SNAPSHOT_MAGIC = 0x534b5053, /* "SPKS" on disk */
    SNAPSHOT_VERSION = 1,
    LANES = 4,
};

static uint64_t rotate(uint64_t v, unsigned bits)
{
    return (v << bits) | (v >> (64 - bits));
}

/* Four lanes of multiply and rotate over little-endian words, folded at the end; any changed
 * word changes the result. Over pieces, so that a word may lie in two of them. */
struct sum {
    uint64_t lane[LANES];
    uint64_t words; /* taken so far */
    uint8_t held[8];
    size_t held_count;
};

static const uint64_t sum_odd = 0x9e3779b97f4a7c15ULL;

static struct sum sum_of(size_t total)
{
    return (struct sum){.lane = {total, sum_odd, ~total, ~sum_odd}};
}

static void sum_word(struct sum *s, const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    uint64_t *lane = &s->lane[s->words++ % LANES];
    *lane = rotate(*lane ^ le64toh(word), 29) * sum_odd;
}

static void sum_add(struct sum *s, const uint8_t *data, size_t size)
{
    while (size > 0 && s->held_count > 0) {
        s->held[s->held_count++] = *data++;
        size--;
        if (s->held_count == sizeof s->held) {
            sum_word(s, s->held);
            s->held_count = 0;
        }
    }
    for (; size >= sizeof s->held; size -= sizeof s->held, data += sizeof s->held) {
        sum_word(s, data);
    }
    if (size > 0) {
        memcpy(s->held, data, size);
        s->held_count = size;
    }
}

static uint64_t sum_end(const struct sum *s)
{
    uint64_t tail = 0;
    memcpy(&tail, s->held, s->held_count);
    uint64_t sum = le64toh(tail);
    for (size_t i = 0; i < LANES; i++) {
        sum = rotate(sum ^ s->lane[i], 31) * sum_odd;
    }
    return sum ^ (sum >> 32);
}

static uint64_t checksum(const uint8_t *data, size_t size)
{
    struct sum s = sum_of(size);
    sum_add(&s, data, size);
    return sum_end(&s);
}

void snapshot_head(const struct parts *state, uint8_t out[SNAPSHOT_HEAD_BYTES])
{
    size_t size = parts_size(state);
    struct sum sum = sum_of(size);
    for (size_t i = 0; i < state->count; i++) {
        sum_add(&sum, state->items[i].data, state->items[i].size);
    }
    uint32_t words[2] = {htole32(SNAPSHOT_MAGIC), htole32(SNAPSHOT_VERSION)};
    uint64_t sums[2] = {htole64(size), htole64(sum_end(&sum))};
    memcpy(out, words, sizeof words);
    memcpy(out + sizeof words, sums, sizeof sums);
}

struct status snapshot_unwrap(struct bytes stored, struct bytes *out)
{
    struct reader reader = reader_of(stored);
    uint32_t magic = reader_u32(&reader);
    uint32_t version = reader_u32(&reader);
    uint64_t size = reader_u64(&reader);
    uint64_t sum = reader_u64(&reader);
    if (reader.failed || magic != SNAPSHOT_MAGIC || version != SNAPSHOT_VERSION ||
        size != reader.rest.size || sum != checksum(reader.rest.data, reader.rest.size)) {
        return status_of(STATUS_CORRUPT);
    }
    *out = reader.rest;
    return status_ok();
}

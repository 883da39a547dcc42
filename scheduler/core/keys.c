#include "scheduler/core/keys.h"

#include "common/mem.h"

#include <stdio.h>
#include <string.h>

static struct status put_check(const struct command_key_put *put, struct errmsg *msg)
{
    if (put->wrapped.size == 0 || put->wrapped.size > KEY_WRAPPED_BYTES_MAX) {
        return status_fail(msg, STATUS_INVALID, "a wrapped key has 1 to %d bytes, this has %zu",
                           KEY_WRAPPED_BYTES_MAX, put->wrapped.size);
    }
    if (put->wrapped_by[0] == '\0' || strlen(put->wrapped_by) > KEY_WRAPPED_BY_BYTES_MAX) {
        return status_fail(msg, STATUS_INVALID, "a key's wrapper has a name of 1 to %d bytes",
                           KEY_WRAPPED_BY_BYTES_MAX);
    }
    return status_ok();
}

static void wrapped_set(struct data_key *k, const struct command_key_put *put)
{
    (void)snprintf(k->wrapped_by, sizeof k->wrapped_by, "%s", put->wrapped_by);
    k->wrapped_size = (uint32_t)put->wrapped.size;
    memcpy(k->wrapped, put->wrapped.data, put->wrapped.size);
}

struct status keys_put(struct key_table *t, uint64_t index, uint64_t time_ms,
                       const struct command_key_put *put, struct errmsg *msg)
{
    TRY(put_check(put, msg));
    if (put->rewrap) {
        if (put->key == 0 || put->key > t->count) {
            return status_fail(msg, STATUS_NOT_FOUND, "there is no data key %u", put->key);
        }
        wrapped_set(&t->items[put->key - 1], put);
        return status_ok();
    }
    if (t->count >= KEYS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "there are %d data keys, the most there may be",
                           KEYS_MAX);
    }
    if (put->key != t->count + 1) {
        return status_fail(msg, STATUS_CONFLICT,
                           "data key %u is not the next one: another rotation came first",
                           put->key);
    }
    t->items = mem_must(mem_realloc(t->items, (t->count + 1) * sizeof *t->items));
    struct data_key *k = &t->items[t->count++];
    *k = (struct data_key){.id = put->key, .index = index, .time_ms = time_ms};
    wrapped_set(k, put);
    return status_ok();
}

const struct data_key *keys_current(const struct key_table *t)
{
    return t->count == 0 ? NULL : &t->items[t->count - 1];
}

void keys_close(struct key_table *t)
{
    mem_free(t->items);
    *t = (struct key_table){.count = 0};
}

struct status keys_export(const struct key_table *t, struct arena *a, struct state *s)
{
    s->keys_count = t->count;
    s->keys = arena_zalloc(a, t->count, sizeof s->keys[0]);
    if (s->keys == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (size_t i = 0; i < t->count; i++) {
        const struct data_key *k = &t->items[i];
        s->keys[i] = (struct state_key){.key = k->id,
                                        .wrapped = {k->wrapped, k->wrapped_size},
                                        .wrapped_by = k->wrapped_by,
                                        .time_ms = k->time_ms,
                                        .index = k->index};
    }
    return status_ok();
}

struct status keys_import(struct key_table *t, const struct state *s, struct errmsg *msg)
{
    for (size_t i = 0; i < s->keys_count; i++) {
        const struct state_key *k = &s->keys[i];
        const struct command_key_put put = {
            .key = k->key, .wrapped = k->wrapped, .wrapped_by = k->wrapped_by};
        if (!status_is_ok(keys_put(t, k->index, k->time_ms, &put, msg))) {
            return status_of(STATUS_CORRUPT);
        }
    }
    return status_ok();
}

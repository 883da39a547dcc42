/* The wrapped data keys of encryption at rest, as replicated state. The core never sees a key: it
 * keeps what the cluster key wrapped, so that every scheduler that has the cluster key can open the
 * log, snapshots and payloads.
 *
 * Ids are 1, 2, 3, ...; the highest seals from when it is applied. Old ones stay, for logs,
 * snapshots and payloads name them.
 *
 * Thread: the core's. */
#ifndef SCHEDULER_CORE_KEYS_H
#define SCHEDULER_CORE_KEYS_H

#include "common/arena.h"
#include "common/status.h"
#include "proto/message.h"

enum { KEYS_MAX = 64, KEY_WRAPPED_BYTES_MAX = 1024, KEY_WRAPPED_BY_BYTES_MAX = 63 };

struct data_key {
    uint32_t id;
    uint64_t index; /* of the command that made it */
    uint64_t time_ms;
    char wrapped_by[KEY_WRAPPED_BY_BYTES_MAX + 1]; /* the cluster key's fingerprint */
    uint32_t wrapped_size;
    uint8_t wrapped[KEY_WRAPPED_BYTES_MAX];
};

/* All zeros is a valid empty table. */
struct key_table {
    struct data_key *items; /* item i has id i + 1 */
    size_t count;
};

/* Adds a key, or wraps a known one again (rewrap). INVALID, LIMIT (KEYS_MAX), CONFLICT (not the
 * next id: another rotation came first), NOT_FOUND (rewrap). */
struct status keys_put(struct key_table *t, uint64_t index, uint64_t time_ms,
                       const struct command_key_put *put, struct errmsg *msg);
/* NULL when there is none. */
const struct data_key *keys_current(const struct key_table *t);
void keys_close(struct key_table *t);

/* Into s->keys, borrowed from the table, in the arena. NOMEM. */
NODISCARD struct status keys_export(const struct key_table *t, struct arena *a, struct state *s);
/* CORRUPT. */
NODISCARD struct status keys_import(struct key_table *t, const struct state *s, struct errmsg *msg);

#endif

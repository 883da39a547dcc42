/* What seals.c and seals_admin.c share. */
#ifndef SCHEDULER_API_SEALS_INTERNAL_H
#define SCHEDULER_API_SEALS_INTERNAL_H

#include "common/seal/keyring.h"
#include "common/seal/wrap.h"
#include "scheduler/api/seals.h"
#include "scheduler/api/server_internal.h"

/* A proposal that waits for the first data key. */
struct held {
    uint64_t ticket;
    uint8_t *command;
    size_t size;
};

struct seals {
    struct cluster_key *cluster;
    struct cluster_key *old; /* may be NULL */
    struct keyring *ring;
    struct sealer *sealer;
    /* The log's key of the last data key used, derived. */
    uint32_t log_id;
    struct seal_key log_key;
    struct buffer sealed, opened;
    struct held *held;
    size_t held_count, held_bytes;
    bool file_stale;       /* DATA/keys lacks a key, or has one by the old cluster key */
    bool putting;          /* a new data key of ours is in flight */
    uint64_t put_after_us; /* the last one failed: none is made by itself before */
    uint64_t sealed_count; /* entries sealed here under the current key, committed or not */
    uint32_t counted_id;   /* the key they were sealed under */
};

/* Proposes a new data key. done may be NULL. CONFLICT (one is in flight), LIMIT (KEYS_MAX), and
 * what wrapping says; done is not called then. */
NODISCARD struct status seals_put_key(struct server *s, const char *by, core_done done, void *data,
                                      struct errmsg *msg);

#endif

/* What the files of scheduler/api/payload*.c share. */
#ifndef SCHEDULER_API_PAYLOADS_INTERNAL_H
#define SCHEDULER_API_PAYLOADS_INTERNAL_H

#include "common/arena.h"
#include "common/check.h"
#include "common/hash.h"
#include "common/mem.h"
#include "scheduler/api/payload_io.h"
#include "scheduler/api/payloads.h"

enum { MAINTAIN_MS = 250 };

struct payload_job;
struct payload_load;
struct payload_read;
struct payload_feed;
struct payload_fetch;
struct payload_cached;
struct payload_pledge;
struct payload_doomed;
struct payload_missing;
struct payload_reconcile;

struct payloads {
    struct payloads_env env;
    struct payloads_config config;
    struct payload_store *store;
    struct payload_io *io;
    uv_async_t kick; /* work for payloads_tick that must not wait for it */
    uint64_t request_last;
    /* payloads.c: in */
    struct payload_job *jobs; /* oldest first */
    struct payload_job *jobs_by_id;
    size_t jobs_count;
    uint64_t job_bytes, put_bytes;
    uint64_t postponed_us; /* when it is logged again */
    /* payload_loads.c: out */
    struct payload_load *loads; /* oldest first */
    struct payload_load *loads_by_invocation;
    size_t loads_count, reads_count;
    struct payload_read *reads;
    struct payload_feed *feeds;
    struct payload_cached *cache, *cache_lru; /* by digest; least recently used first */
    uint64_t cache_bytes;
    /* payload_fetch.c */
    struct payload_fetch *fetches;
    size_t fetches_missing;
    /* payload_keep.c */
    struct payload_pledge *pledges;
    struct payload_doomed *doomed;
    struct payload_missing *missing;
    struct payload_reconcile *reconcile; /* under way */
    uint64_t missing_count, maintained_us, unsettled_us, reconciled_us;
    uint64_t sync_us; /* not before */
    bool reconcile_due, reconciled, sync_due, syncing;
    struct payloads_stats stats;
    bool closing;
    unsigned closed; /* of the io and the handle */
    void (*on_closed)(void *data);
    void *on_closed_data;
};

static inline uint64_t payloads_after(const struct payloads *p, uint32_t ms)
{
    return p->env.now_us(p->env.data) + (uint64_t)ms * 1000;
}

/* An operation of its own memory, freed by whoever handles done. NULL when out of memory. */
struct payload_op *payload_op_new(enum payload_op_kind kind, const struct digest *digest,
                                  struct payload_blob *data, void (*done)(struct payload_op *op),
                                  void *owner);

/* payload_loads.c */
void loads_pump(struct payloads *p);
/* Sends what waits for this payload; d is borrowed. */
void loads_have(struct payloads *p, const struct digest *digest, struct payload_blob *d);
/* Nobody has it. */
void loads_lack(struct payloads *p, const struct digest *digest);
void loads_close(struct payloads *p);
void cache_put(struct payloads *p, const struct digest *digest, struct payload_blob *d);
struct payload_blob *cache_find(struct payloads *p, const struct digest *digest); /* borrowed */
void cache_drop(struct payloads *p, const struct digest *digest);
/* Is there still room in what is queued for the peer? */
bool peer_room(const struct payloads *p, uint64_t peer, uint64_t bytes);

/* payload_fetch.c */
/* Asks the others for it; loads_have or loads_lack follows, and keep_fetched. False: too many are
 * asked for already. missing: nobody waits for it. */
bool fetch_start(struct payloads *p, const struct digest *digest, bool missing);
void fetch_data(struct payloads *p, uint64_t peer, const struct message *m);
void fetches_tick(struct payloads *p);
void fetches_close(struct payloads *p);

/* payload_keep.c */
/* It was put for a command that is still to come. */
void keep_pledge(struct payloads *p, const struct digest *digest);
/* That put is on disk here. */
void keep_stored(struct payloads *p, const struct digest *digest);
/* A fetch has ended. */
void keep_fetched(struct payloads *p, const struct digest *digest, bool found);
/* It should be here and is not. */
void keep_lacking(struct payloads *p, const struct digest *digest);
void keep_maintain(struct payloads *p);
void keep_close(struct payloads *p);

#endif

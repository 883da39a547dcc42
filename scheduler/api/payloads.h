/* Payloads outside the log: inputs and outputs of durable invocations that are larger than
 * SPAWN_INLINE_BYTES_MAX, or sensitive (data_class phi) whatever their size.
 *
 * In:  a SPAWN or RESULT with such a payload -> its digest -> stored here and put to the other
 *      schedulers -> a majority of the voters has it on disk -> the core receives the message with
 *      payload_ref (output_ref) instead of the bytes. Failures of a SPAWN: too much in flight, or
 *      stores are full -> LIMIT; no majority in time -> UNAVAILABLE; leadership was lost ->
 *      NOT_LEADER; the client went away -> nothing. Of a RESULT: nothing; its agent keeps it and
 *      sends it again.
 * Out: an INVOKE or OUTCOME of the core that names a payload -> read, or fetched from another
 *      scheduler -> sent with the bytes. Failures: nobody has it -> the core is given a RESULT with
 *      UNAVAILABLE for that attempt; the user an OUTCOME with UNAVAILABLE.
 * Kept: what the state names. What it names and is missing here is fetched in the background; what
 *      it names no longer is deleted, key first. A payload that was put for a command not applied
 *      yet is pledged: it is not deleted meanwhile.
 *
 * Thread: the loop's; files are read and written on libuv's threads. Written against an
 * environment, so that tests run it without a server. */
#ifndef SCHEDULER_API_PAYLOADS_H
#define SCHEDULER_API_PAYLOADS_H

#include "common/payloads/payload_store.h"
#include "proto/message.h"

#include <uv.h>

enum {
    PAYLOADS_OTHERS_MAX = 9,
    PAYLOAD_JOBS_MAX = 256,            /* payloads on their way in */
    PAYLOAD_JOB_BYTES_MAX = 256 << 20, /* of them; half of it for spawns */
    PAYLOAD_PUT_BYTES_MAX = 128 << 20, /* put by others, not on disk yet */
    PAYLOAD_ROOM_BYTES = 16 << 20,     /* on their way to one peer */
    PAYLOAD_LOADS_MAX = 16384,         /* messages that wait for their payload */
    PAYLOAD_READS_MAX = 4,             /* at once */
    /* Asked of others at once, so that all may come from one of them; and of these, for what merely
     * is missing. */
    PAYLOAD_FETCHES_MAX = PAYLOAD_ROOM_BYTES / PAYLOAD_STORE_BYTES_MAX,
    PAYLOAD_FETCHES_MISSING_MAX = PAYLOAD_FETCHES_MAX / 2,
    PAYLOAD_CACHE_BYTES_MAX = 64 << 20,
    PAYLOAD_SPAWN_MS = 10 * 1000,  /* until a majority must have it */
    PAYLOAD_RESULT_MS = 60 * 1000, /* likewise, for a result */
    PAYLOAD_LOAD_MS = 10 * 1000,   /* until a message's payload must be there */
    PAYLOAD_ASK_MS = 5 * 1000,     /* for one other scheduler to answer */
    PAYLOAD_RETRY_MS = 500,        /* what LIMIT and UNAVAILABLE tell clients */
};

/* Another scheduler; peer 0: not connected. */
struct payloads_other {
    uint64_t member, peer;
    bool voter;
};

enum payloads_class { PAYLOADS_UNKNOWN, PAYLOADS_ORDINARY, PAYLOADS_SENSITIVE };

struct payloads_env {
    void *data;
    uint64_t (*now_us)(void *data);
    bool (*leader)(void *data);
    /* The log known at start has been applied, and a leader is known: what the state does not name
     * is not needed. */
    bool (*settled)(void *data);
    size_t (*majority)(void *data);
    size_t (*others)(void *data, struct payloads_other out[PAYLOADS_OTHERS_MAX]);
    bool (*peer_open)(void *data, uint64_t peer);
    uint64_t (*peer_queued)(void *data, uint64_t peer); /* bytes not sent yet */
    void (*send)(void *data, uint64_t peer, const struct message *m);
    /* To the core; never called from inside payloads_send, _dropped, _named or _restored. */
    void (*core)(void *data, uint64_t peer, const struct message *m);
    const char *(*leader_address)(void *data);
    enum payloads_class (*function_class)(void *data, const char *function);
    bool (*invocation_sensitive)(void *data, struct id128 invocation);
    /* Calls fn for each payload that the state names. */
    void (*each_named)(void *data, void (*fn)(void *arg, const struct digest *payload), void *arg);
};

/* 0: the default. Times are for tests. */
struct payloads_config {
    uint64_t room_bytes;        /* PAYLOAD_ROOM_BYTES */
    uint32_t spawn_ms, load_ms; /* PAYLOAD_SPAWN_MS, PAYLOAD_LOAD_MS */
    uint32_t drop_ms;           /* from dropped to deleted; 0: 1000 */
    uint32_t settle_ms;         /* settled for so long before anything is deleted; 0: 5000 */
    uint32_t orphan_ms;         /* what was put this long ago and is not named goes; 0: 600000 */
    uint32_t check_ms;          /* from named to looking whether it is here; 0: 2000 */
    uint32_t reconcile_ms;      /* between comparisons of state and store; 0: 600000 */
};

struct payloads_stats {
    uint64_t count, bytes, corrupt; /* of the store */
    uint64_t missing;               /* named by the state and not here */
    uint64_t storing, storing_bytes, loading;
    uint64_t stored, refused, fetched, deleted, load_failures;
};

struct payloads;

/* env is copied, the store borrowed. NULL when out of memory. */
struct payloads *payloads_new(uv_loop_t *loop, struct payload_store *store,
                              const struct payloads_env *env, const struct payloads_config *config);
/* Drops what is on its way, then calls cb, after which p is gone. */
void payloads_close(struct payloads *p, void (*cb)(void *data), void *data);

/* A SPAWN of a user, a RESULT of an agent, or PAYLOAD_* of another scheduler. SPAWN and RESULT go
 * on to env.core, now or later, or are answered. */
void payloads_receive(struct payloads *p, uint64_t peer, const struct message *m);
/* What the core sends: true when it was taken over. */
bool payloads_send(struct payloads *p, uint64_t peer, const struct message *m);
/* A command that names this payload was applied, or refused by the state. */
void payloads_named(struct payloads *p, const struct digest *payload);
/* The state names it no longer. */
void payloads_dropped(struct payloads *p, const struct digest *payload);
/* The whole state was replaced. */
void payloads_restored(struct payloads *p);
/* Every 10 ms or so. */
void payloads_tick(struct payloads *p);
struct payloads_stats payloads_stats(const struct payloads *p);

#endif

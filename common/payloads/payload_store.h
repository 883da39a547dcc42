/* Payloads outside the log: a folder of files named by the SHA-256 of what they hold.
 *
 *     FOLDER/ab/cdef...       the payload, sealed when there is a cluster key
 *     FOLDER/ab/cdef....key   its own key, sealed; not there: the payload is plain
 *     FOLDER/new.N            while one is written
 *
 * A put is on disk once it returns: key first, then payload, each written to a new.N, synced and
 * renamed, then the folder synced. Whatever a crash leaves in between is removed by the next open
 * (new.N, a key without a payload) or is a whole payload. A delete takes the key first. Every read
 * checks the digest; a payload that fails it is removed, so that it can be fetched again.
 *
 * Thread: any, blocking; operations on one payload exclude each other. */
#ifndef COMMON_PAYLOADS_PAYLOAD_STORE_H
#define COMMON_PAYLOADS_PAYLOAD_STORE_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/status.h"

#include <stdint.h>

enum { PAYLOAD_STORE_BYTES_MAX = 4 << 20 /* of one payload */ };

/* How files are sealed; all NULL: they are not. */
struct payload_sealing {
    void *data;
    /* Appends the file's content, and that of its key file (left empty: the file is plain).
     * UNAVAILABLE: not now, the put fails so. */
    struct status (*seal)(void *data, const struct digest *digest, struct bytes plain,
                          struct buffer *file, struct buffer *key_file);
    /* Appends the payload. NOT_FOUND: the key that sealed the key file is not known here (yet). */
    struct status (*open)(void *data, const struct digest *digest, struct bytes file,
                          struct bytes key_file, struct buffer *plain);
    /* Destroys a key file; NULL: it is unlinked. */
    struct status (*shred)(const char *key_path, struct errmsg *msg);
};

/* Where a put or a delete can be made to fail, by tests. */
enum payload_step {
    PAYLOAD_STEP_WRITE,  /* before the bytes of a file */
    PAYLOAD_STEP_SYNC,   /* they are written, not synced */
    PAYLOAD_STEP_NAME,   /* synced, still new.N */
    PAYLOAD_STEP_FOLDER, /* named, the folder not synced */
    PAYLOAD_STEP_UNLINK, /* of a delete: the key is gone, the payload is there */
};
enum { PAYLOAD_FAULT_CRASH = -1 };

struct payload_store_config {
    const char *folder; /* made when it is not there; its parent must be */
    uint64_t bytes_max; /* of all files; what is there may exceed it, then nothing is taken */
    /* Nothing is taken when less than this is free on the file system (at most a twentieth of it
     * counts), so that the log beside it can go on. 0: no such limit. */
    uint64_t free_bytes_min;
    struct payload_sealing sealing;
    /* 0: go on; an errno: this step fails so; PAYLOAD_FAULT_CRASH: the call ends here, nothing is
     * cleaned up. NULL: none. */
    int (*fault)(void *data, enum payload_step step);
    void *fault_data;
};

struct payload_store_stats {
    uint64_t count, bytes; /* payloads; of all files */
    uint64_t corrupt;      /* found so and removed, since open */
};

struct payload_store;

/* Counts what is there, which takes a second for some 500,000 payloads. IO, DENIED, NOMEM. */
NODISCARD struct status payload_store_open(struct payload_store **out,
                                           const struct payload_store_config *config,
                                           struct errmsg *msg);
void payload_store_close(struct payload_store *s); /* frees s; NULL is fine */

/* Stores a payload. When it is there already it is read and checked, and its age starts anew.
 * CORRUPT: the bytes have another digest. INVALID: empty. LIMIT: over PAYLOAD_STORE_BYTES_MAX, or
 * the store or the disk is full. UNAVAILABLE: it cannot be sealed yet. IO, NOMEM. Unchanged after a
 * failure. */
NODISCARD struct status payload_store_put(struct payload_store *s, const struct digest *digest,
                                          struct bytes data, struct errmsg *msg);
bool payload_store_has(const struct payload_store *s, const struct digest *digest);
/* Replaces what out holds. NOT_FOUND. CORRUPT: it was damaged, and is removed. UNAVAILABLE: the key
 * to open it is not known here. IO, NOMEM. */
NODISCARD struct status payload_store_get(struct payload_store *s, const struct digest *digest,
                                          struct buffer *out, struct errmsg *msg);
/* One that is not there is fine. Its key is gone on return; a power cut may bring a payload back
 * until payload_store_sync. IO. */
NODISCARD struct status payload_store_delete(struct payload_store *s, const struct digest *digest,
                                             struct errmsg *msg);
/* Makes deletions last. IO. */
NODISCARD struct status payload_store_sync(struct payload_store *s, struct errmsg *msg);
/* Calls fn for every payload, in no order, until it answers false; written_s: Unix time of its last
 * put. Payloads put or deleted meanwhile may be missed or seen. IO. */
NODISCARD struct status payload_store_each(struct payload_store *s,
                                           bool (*fn)(void *data, const struct digest *digest,
                                                      uint64_t bytes, int64_t written_s),
                                           void *data, struct errmsg *msg);
struct payload_store_stats payload_store_stats(struct payload_store *s);

#endif

/* The payload store's work, off the loop: a queue of operations, PAYLOAD_IO_WORKERS of which are on
 * libuv's threads at a time, so that the log's own disk work always finds one. Operations on one
 * payload are done in the order in which they were given; others pass them.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_API_PAYLOAD_IO_H
#define SCHEDULER_API_PAYLOAD_IO_H

#include "common/hash.h"
#include "common/payloads/payload_store.h"

#include <uv.h>

enum { PAYLOAD_IO_WORKERS = 2 };

/* The bytes of one payload, shared on the loop; wiped when the last one lets go. */
struct payload_blob {
    uint32_t refs;
    struct buffer buffer;
};

/* A copy, with one reference. NULL when out of memory. */
struct payload_blob *payload_blob_copy(struct bytes from);
struct payload_blob *payload_blob_ref(struct payload_blob *d);
void payload_blob_unref(struct payload_blob *d); /* NULL is fine */
static inline struct bytes payload_blob_bytes(const struct payload_blob *d)
{
    return bytes_of(d->buffer.data, d->buffer.size);
}

enum payload_op_kind {
    PAYLOAD_OP_HASH, /* data -> digest */
    PAYLOAD_OP_PUT,  /* digest, data */
    PAYLOAD_OP_GET,  /* digest -> data, one reference for the caller */
    PAYLOAD_OP_HAS,  /* digest -> OK or NOT_FOUND */
    PAYLOAD_OP_DELETE,
    PAYLOAD_OP_SYNC, /* makes deletions last */
    PAYLOAD_OP_CALL, /* call(owner) */
};

/* One operation, in memory of its owner until done was called: exactly once, on the loop, never
 * from inside payload_io_do. status and message tell how it ended; CANCELED: the io was closed
 * first. */
struct payload_op {
    enum payload_op_kind kind;
    struct digest digest;
    struct payload_blob *data; /* borrowed from the owner, but for GET's */
    void (*call)(void *owner);
    void (*done)(struct payload_op *op);
    void *owner;
    struct status status;
    struct errmsg message;
    struct payload_op *prev, *next; /* among those on the same payload */
    struct payload_op *ready_prev, *ready_next;
};

struct payload_io;

/* NULL when out of memory. The store is borrowed. */
struct payload_io *payload_io_new(uv_loop_t *loop, struct payload_store *store);
void payload_io_do(struct payload_io *io, struct payload_op *op);
/* Cancels what waits (done is called from inside), ends what is on the threads, then calls cb,
 * perhaps from inside, after which io is gone. No operation may be given any more. */
void payload_io_close(struct payload_io *io, void (*cb)(void *data), void *data);

#endif

/* The code of revisions on this node: fetched in chunks from the leader, checked, unpacked once,
 * shared by all instances of the revision.
 *
 *     DATA/chunks/          the chunk store
 *     DATA/code/REVISION/   unpacked; complete when it is there
 *
 * A fetch: missing chunks are asked for, a few at a time -> each is checked and stored ->
 * unpacked on a thread of libuv's pool -> all who wait are told. The first failure ends it and
 * all are told that.
 *
 * Thread: the loop's; callbacks come from the loop. */
#ifndef AGENT_CODE_H
#define AGENT_CODE_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/status.h"

#include <uv.h>

enum {
    CODE_WINDOW = 4,           /* chunks asked for at a time, of one revision */
    CODE_REVISIONS_MAX = 4096, /* known at a time */
    CODE_UNUSED_MAX = 32,      /* revisions kept unpacked without an instance; the oldest go */
    CODE_PATH_BYTES_MAX = 4096,
};

struct code;

/* How chunks are asked for. answer is made with code_chunk. */
struct code_env {
    void *data;
    /* Asks the leader for one chunk; code_chunk answers it, later. UNAVAILABLE without a leader. */
    struct status (*ask)(void *data, const struct digest *digest, uint64_t ticket);
};

/* One who waits. In place until done is called or code_forget. */
struct code_wait {
    void (*done)(void *data, struct status s, const char *message);
    void *data;
    struct code_wait *prev, *next;
};

/* Opens the folders below data and removes what a crash left. IO, DENIED, NOMEM. */
NODISCARD struct status code_open(struct code **out, uv_loop_t *loop, const char *data,
                                  uint64_t chunk_bytes_max, const struct code_env *env,
                                  struct errmsg *msg);
/* Nobody is told anything any more. The memory goes once what runs on the pool has ended: run
 * the loop until it is empty. NULL is fine. */
void code_close(struct code *c);

/* The folder of a revision. */
void code_folder(const struct code *c, const struct digest *revision,
                 char out[CODE_PATH_BYTES_MAX]);

/* Makes sure of the revision's code and holds it until code_put. *here: it is there already, and
 * done is not called. INVALID for chunks that are no list of digests, LIMIT, NOMEM. */
NODISCARD struct status code_get(struct code *c, const struct digest *revision, struct bytes chunks,
                                 struct code_wait *wait, bool *here, struct errmsg *msg);
/* Waits no longer, and holds it no longer. */
void code_forget(struct code *c, const struct digest *revision, struct code_wait *wait);
/* Holds a revision that an adopted instance runs. */
NODISCARD struct status code_hold(struct code *c, const struct digest *revision);
/* Holds it no longer. */
void code_put(struct code *c, const struct digest *revision);

/* The answer to an ask. status says why there is none. */
void code_chunk(struct code *c, uint64_t ticket, struct status status, struct bytes data,
                const char *message);

#endif

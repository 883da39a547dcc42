/* Serves the logs of instances: what there is, and what comes while somebody follows.
 *
 *     logs message -> log_data (at most LOGS_CHUNK_BYTES each) ... -> log_data with end
 *
 * Thread: the loop's. */
#ifndef AGENT_LOG_SERVER_H
#define AGENT_LOG_SERVER_H

#include "agent/instances.h"
#include "proto/message.h"

#include <uv.h>

enum {
    LOGS_FOLLOWERS_MAX = 256,
    LOGS_CHUNK_BYTES = 64 << 10,
    LOGS_TICK_MS = 100,
    LOGS_CHUNKS_TICK_MAX = 16,      /* sent to one follower at a tick */
    LOGS_QUEUE_BYTES_MAX = 4 << 20, /* a peer with more than this waiting gets nothing new */
};

struct log_server;

struct log_server_env {
    void *data;
    bool (*send)(void *data, uint64_t peer, const struct message *m);
    uint64_t (*queued)(void *data, uint64_t peer);
};

/* node is borrowed. NOMEM. */
NODISCARD struct status log_server_open(struct log_server **out, uv_loop_t *loop,
                                        const struct instances *instances, const char *node,
                                        const struct log_server_env *env);
/* The memory goes when the loop has closed the timer. */
void log_server_close(struct log_server *l);
/* A logs message: begins, or ends, what its request number names. */
void log_server_receive(struct log_server *l, uint64_t peer, const struct message *m);
/* Nobody is there to be told. */
void log_server_peer_close(struct log_server *l, uint64_t peer);

#endif

/* The scheduler's front end: sessions over links, authorisation by role, the bridge between links,
 * the core and the replica.
 *
 *     server_open -> (runs on the loop) -> server_stop -> on_stopped
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_API_SERVER_H
#define SCHEDULER_API_SERVER_H

#include "common/status.h"

#include <stdint.h>

struct server;
struct scheduler_config;
struct uv_loop_s;

struct server_events {
    void *data;
    void (*on_stopped)(void *data); /* after server_stop; the server is gone */
    /* a disk error or a lost state: the process must end */
    void (*on_fatal)(void *data, const char *why);
};

/* config is borrowed for the server's life. On failure nothing is left open. */
NODISCARD struct status server_open(struct server **out, struct uv_loop_s *loop,
                                    const struct scheduler_config *config,
                                    const struct server_events *events, struct errmsg *msg);
/* Hands leadership over if it has it, closes connections and the replica, then calls on_stopped. */
void server_stop(struct server *s);
/* A scheduler's name as a member id. */
uint64_t member_id_of(const char *name);
/* The port it listens on. */
uint16_t server_port(const struct server *s);

#endif

/* The agent's connections: one to each scheduler, kept up; hellos; requests of our own and their
 * answers.
 *
 *     dial -> connected -> our hello -> its hello -> peer_open -> messages ...
 *     -> peer_close -> dialled again
 *
 * Who the schedulers are comes from the configuration first and from the leader later.
 *
 * Thread: the loop's. Events come from the loop. */
#ifndef AGENT_NETWORK_H
#define AGENT_NETWORK_H

#include "common/net/link.h"
#include "common/net/tls.h"
#include "proto/message.h"

#include <uv.h>

enum {
    NETWORK_PEERS_MAX = 64,
    NETWORK_REQUESTS_MAX = 1024,    /* of ours, without an answer yet */
    NETWORK_REQUEST_MS = 15 * 1000, /* until one is given up */
    NETWORK_DIALS_MAX = 32,
    NETWORK_REVOKED_MAX = 100000,
};

struct network;

struct network_events {
    void *data;
    /* A scheduler is connected and speaks our version. */
    void (*peer_open)(void *data, uint64_t peer, const char *name);
    void (*peer_close)(void *data, uint64_t peer, const char *name);
    /* A message that answers no request of network_ask. Borrowed for the call. */
    void (*message)(void *data, uint64_t peer, const struct message *m);
};

/* The answer to a request; NULL with a status when there is none. */
typedef void (*network_answer)(void *data, struct status s, const struct message *m);

NODISCARD struct status network_open(struct network **out, uv_loop_t *loop,
                                     const struct tls_identity *own,
                                     const struct network_events *events, struct errmsg *msg);
/* closed comes from the loop; the module is gone then. No event and no answer comes after the
 * call. */
void network_close(struct network *n, void (*closed)(void *data), void *data);

/* Keeps a connection to the scheduler at this address. LIMIT, INVALID, NOMEM. */
NODISCARD struct status network_dial(struct network *n, const char *address, struct errmsg *msg);
/* The schedulers as the leader knows them (name, address): new ones are dialled, others let go.
 * An empty list changes nothing. */
void network_learn(struct network *n, const struct pair *schedulers, size_t count);
/* Revocations, from now on for live connections too. */
void network_revoke(struct network *n, const struct text *items, size_t count);

/* Closes the connection; it is dialled again. */
void network_drop(struct network *n, uint64_t peer, const char *reason);
/* False when the peer is gone or its queue is full. */
bool network_send(struct network *n, uint64_t peer, const struct message *m);
/* Sends a request; its number is filled in. answer comes once, later. UNAVAILABLE, LIMIT, NOMEM:
 * no answer comes. */
NODISCARD struct status network_ask(struct network *n, uint64_t peer, struct message *m,
                                    network_answer answer, void *data);
/* Bytes waiting to go to the peer. */
uint64_t network_queued(const struct network *n, uint64_t peer);
/* Gives up requests that are too old. To be called about once a second. */
void network_tick(struct network *n);
/* The turn-th of the peers that are up, round and round; 0 without any. */
uint64_t network_turn(const struct network *n, uint32_t turn);
/* One peer that is up, 0 without any. */
uint64_t network_any(const struct network *n);
size_t network_peers_count(const struct network *n);
struct link_stats network_stats(const struct network *n);
NODISCARD struct status network_renew(struct network *n, const struct tls_identity *own,
                                      struct errmsg *msg);

#endif

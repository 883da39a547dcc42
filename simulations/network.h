/* The simulated network: endpoints, connections between them, packets, partitions.
 *
 * A connection is an ordered stream in each direction, as our TLS links are: its messages are
 * neither lost singly nor reordered. It breaks as a whole: a prefix of what was under way still
 * arrives. A partition stalls streams; one that lasts longer than a link believes in a silent peer
 * breaks them. Packets (Raft) are lost, doubled, delayed and overtake each other singly. A paused
 * endpoint takes nothing until it goes on, and then everything at once; its peers give it up as
 * they would in a partition.
 *
 *     dial -> hello both ways -> opened at either end -> (message)* -> closed at either end -> the
 *     dialler tries again
 *
 * Thread: one. */
#ifndef SIMULATIONS_NETWORK_H
#define SIMULATIONS_NETWORK_H

#include "common/net/identity.h"
#include "simulations/world.h"

enum { ENDPOINTS_MAX = 96 };

struct endpoint;

struct endpoint_events {
    void *data;
    /* peer is the other end; handle is never 0 and never used again. */
    void (*opened)(void *data, uint64_t handle, struct endpoint *peer);
    void (*closed)(void *data, uint64_t handle);
    void (*message)(void *data, uint64_t handle, struct endpoint *peer, struct bytes payload);
    void (*packet)(void *data, struct endpoint *from, struct bytes payload); /* may be NULL */
};

struct endpoint {
    char name[NAME_BYTES_MAX + 1];
    enum role role;
    uint32_t number;
    bool up;
    uint64_t epoch; /* of the process behind it */
    uint64_t paused_until_us;
    uint64_t lag_us; /* added to the delay of all it sends and is sent */
    struct endpoint_events events;
    void *owner;
};

struct network *network_new(struct world *w);
void network_free(struct network *n);

/* owner is for those who are told of this endpoint as their peer. */
struct endpoint *network_endpoint(struct network *n, const char *name, enum role role,
                                  const struct endpoint_events *events, void *owner);
void network_up(struct network *n, struct endpoint *e);
/* The process is killed: its kernel closes the connections. Silently: the machine is gone, too. No
 * callbacks to the owner. */
void network_down(struct network *n, struct endpoint *e, bool silently);
/* From now on `from` keeps a connection to `to`, until it goes down. */
void network_dial(struct network *n, struct endpoint *from, struct endpoint *to);
/* False when that connection is not open. */
bool network_send(struct network *n, uint64_t handle, struct bytes payload);
void network_packet(struct network *n, struct endpoint *from, struct endpoint *to,
                    struct bytes payload);
/* From `from` to `to` only. */
void network_block(struct network *n, struct endpoint *from, struct endpoint *to, bool blocked);
/* Breaks a random open connection, if there is one. */
void network_reset_one(struct network *n);
void network_heal(struct network *n);
/* Of a thousand packets. */
void network_loss(struct network *n, uint32_t lost, uint32_t doubled, uint32_t late);
/* Its process stands still that long, as under SIGSTOP. */
void network_pause(struct network *n, struct endpoint *e, uint64_t for_us);
bool endpoint_paused(const struct network *n, const struct endpoint *e);

#endif

/* Clients: they keep a connection to every scheduler, call functions at random schedulers, and
 * follow redirects to the leader. Each call has exactly one outcome, and the ledger knows what the
 * instances really did for it.
 *
 *     call -> (NOT_LEADER -> call at the leader)* -> outcome
 *
 * Thread: one. */
#ifndef SIMULATIONS_CLIENTS_H
#define SIMULATIONS_CLIENTS_H

#include "simulations/functions.h"
#include "simulations/network.h"
#include "simulations/schedulers.h"

enum { PAYLOAD_HEAD_BYTES = 16, OUTPUT_BYTES = 24 };

struct request {
    uint64_t number;
    const struct function *function;
    struct client *client;
    uint32_t hop;    /* which try at a scheduler this is */
    uint64_t handle; /* the connection it waits on, 0: none */
    /* bits by hop: what instances did, what schedulers denied doing */
    uint32_t executed, refused, completed;
    uint32_t timeout_ms;
    uint64_t asked_us;
    enum status_code truth; /* what the instance answered */
    bool answered;
    bool final; /* of the last batch: must be OK */
    enum status_code outcome;
};

struct client {
    struct world *world;
    struct clients *all;
    char name[16];
    struct endpoint *endpoint;
    uint64_t handles[SCHEDULERS_MAX]; /* 0: not connected */
    uint32_t target;                  /* believed leader */
    struct arena decode;
};

struct clients {
    struct world *world;
    struct client each[CLIENTS_MAX];
    uint32_t count;
    struct request **calls;
    uint64_t calls_count, calls_capacity;
    uint64_t outstanding, ok, final_ok, final_count;
    bool stopped; /* no new calls but the final ones */
    struct buffer encode;
};

struct clients *clients_new(struct world *w, uint32_t count);
void clients_free(struct clients *c);
void clients_start(struct clients *c);
/* One more batch, of calls that must all succeed. */
void clients_final(struct clients *c, uint32_t each);

/* ---- The ledger, for instances ---- */
/* An instance begins to run this payload. NULL: the payload is none of ours. */
struct request *clients_executes(struct clients *c, struct bytes payload, uint32_t *hop);
/* ... and is done with it. Writes the output. */
void clients_executed(struct request *call, uint32_t hop, enum status_code code,
                      uint8_t output[OUTPUT_BYTES]);

#endif

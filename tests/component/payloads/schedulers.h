/* Payloads of several schedulers in one process: real stores in temporary folders, real threads, a
 * network that is a queue, a core and clients that remember what they were told. */
#ifndef TESTS_COMPONENT_PAYLOADS_SCHEDULERS_H
#define TESTS_COMPONENT_PAYLOADS_SCHEDULERS_H

#include "common/arena.h"
#include "common/chunks.h"
#include "common/mem.h"
#include "proto/codec.h"
#include "scheduler/api/payloads.h"
#include "tests/unit/config/folder.h"

enum { NODES = 3, USER = 10000, AGENT = 20000, NODE = 100, NAMED_MAX = 64, TOLD_MAX = 512 };

/* A message that arrived somewhere. */
struct told {
    uint64_t peer;
    struct message m;
    struct arena arena;
};

struct mail {
    uint64_t from, to; /* peers */
    struct buffer bytes;
    struct mail *prev, *next;
};

struct world;

struct node {
    struct world *world;
    size_t index;
    char path[PATH_BYTES];
    struct payload_store *store;
    struct payload_store_config store_config;
    struct payloads *payloads;
    struct payloads_config config;
    bool leader, settled, up;
    size_t starts;   /* so often it was; each time it is another peer to the others */
    uint64_t queued; /* what every peer seems to have queued */
    struct digest named[NAMED_MAX];
    size_t named_count;
    struct told core[TOLD_MAX], clients[TOLD_MAX];
    size_t core_count, clients_count;
};

struct world {
    struct folder folder;
    uv_loop_t loop;
    uv_timer_t tick;
    uint64_t skew_us;
    struct node nodes[NODES];
    struct mail *mails;
    bool voter[NODES];
    bool user_gone, agent_gone;
    bool lie;     /* the next payload_data carries other bytes */
    bool mute;    /* the next payload_data is lost */
    bool hold;    /* mail is kept */
    size_t count; /* of nodes that exist */
};

int world_setup(void **state);
int world_teardown(void **state);
/* Its connections are new ones; what was on its way over the old ones is lost. */
void node_start(struct node *n);
void node_stop(struct node *n);
/* Runs until the condition holds; fails the test when it does not within some seconds. */
void world_until(struct world *w, bool (*condition)(void *data), void *data);
/* Some rounds, so that what is not to happen had its chance. */
void world_rest(struct world *w);
void world_skip_ms(struct world *w, uint64_t ms);

struct bytes pattern(size_t size, uint8_t seed); /* good until the next call */
struct digest pattern_digest(size_t size, uint8_t seed);
bool node_has(struct node *n, const struct digest *d);
/* Puts it straight into the store. */
struct digest node_put(struct node *n, size_t size, uint8_t seed);
/* The state of every node names it. */
void world_name(struct world *w, const struct digest *d);
void world_drop(struct world *w, const struct digest *d);

#endif

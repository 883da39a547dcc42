/* Up to REPLICA_MEMBERS_MAX replicas in one process, on one loop, with disks in a temporary
 * folder and a network in memory that the test cuts. Each node keeps a state machine: the list
 * of applied commands, hashed. */
#ifndef TESTS_COMPONENT_REPLICA_CLUSTER_H
#define TESTS_COMPONENT_REPLICA_CLUSTER_H

#include "scheduler/replica/replica.h"

#include <uv.h>

enum { CLUSTER_NODES_MAX = 5, CLUSTER_PATH_BYTES_MAX = 256, CLUSTER_ANSWERS_MAX = 1 << 17 };

struct state {
    uint64_t count;
    uint64_t hash;
    uint64_t last_index;
};

struct answer {
    bool given;
    unsigned times;
    struct status status;
    uint64_t index;
};

struct node {
    struct cluster *cluster;
    struct replica *replica; /* NULL: down */
    uint64_t id;
    char address[64];
    char folder[CLUSTER_PATH_BYTES_MAX];
    bool closed;
    bool fatal;
    /* the state machine */
    uint64_t applied_count;
    uint64_t applied_hash;
    uint64_t last_index;
    uint64_t restores;
    uint64_t snapshots; /* encoded */
    bool pinned;
    uint64_t pinned_count; /* commands applied when it was pinned last */
    struct gate *gate;     /* held shut by a test: encoding waits at it; NULL: none */
    /* what it was told */
    unsigned roles;
    struct replica_status role;
    bool leader_was_told_before_barrier;
    uint64_t applied_calls;
};

struct packet;

/* Where another thread waits until the test opens. */
struct gate {
    uv_mutex_t mutex;
    uv_cond_t opened;
    bool open;
    bool fail; /* those who pass fail */
    unsigned passed;
};

void gate_init(struct gate *g);
void gate_close(struct gate *g);
void gate_open(struct gate *g, bool fail);
unsigned gate_passed(struct gate *g);

struct cluster {
    uv_loop_t loop;
    uv_timer_t pulse; /* so that the loop never waits long */
    char folder[CLUSTER_PATH_BYTES_MAX];
    struct node nodes[CLUSTER_NODES_MAX];
    size_t count;
    struct packet *first;
    struct packet *last;
    bool cut[CLUSTER_NODES_MAX][CLUSTER_NODES_MAX]; /* from, to */
    unsigned drop_every;                            /* 0: none */
    unsigned reorder_every;
    uint64_t sent;
    uint64_t bulk_sent;
    struct answer *answers; /* by ticket */
    uint64_t tickets;
    struct replica_config config; /* of all nodes, without folder, id and address */
    bool change_done;
    struct status change_status;
    char change_message[512];
};

/* Makes folders, bootstraps the first `voters` nodes as voters; no replica is open yet. */
void cluster_open(struct cluster *c, size_t count, size_t voters);
/* Closes what is open and removes the folders. */
void cluster_close(struct cluster *c);
/* One of that many nodes, of which the first `voters` vote and run; ended and freed by the
 * other. */
struct cluster *cluster_begin(size_t count, size_t voters);
void cluster_end(struct cluster *c);

void node_start(struct node *n);
/* Opens and returns the status instead of asserting. */
struct status node_try_start(struct node *n, struct errmsg *msg);
/* Closes and waits until closed. The state machine is forgotten. */
void node_stop(struct node *n);
void node_wipe(struct node *n);
/* The path of a file in the folder whose name begins so. */
void node_find_file(const struct node *n, const char *prefix, char out[CLUSTER_PATH_BYTES_MAX * 2]);
/* It does not start, with a line that names what is damaged and says what to do. */
void node_assert_corrupt(struct node *n, const char *names);

/* Runs the loop until condition(c, arg) or fails the test after a generous deadline. */
void cluster_wait(struct cluster *c, bool (*condition)(struct cluster *c, uint64_t arg),
                  uint64_t arg, const char *what);
#define WAIT(c, condition, arg) cluster_wait(c, condition, arg, #condition)

/* The node that has been told it leads, NULL: none. */
struct node *cluster_leader(struct cluster *c);
struct node *cluster_wait_leader(struct cluster *c);
/* Proposes one numbered command on a node; *ticket is its ticket. */
struct status node_propose(struct node *n, uint64_t number, size_t size, uint64_t *ticket);
/* Proposes `count` commands at the leader, keeping `window` outstanding, and waits for OK
 * answers to all. */
void cluster_commit(struct cluster *c, uint64_t count, size_t size, unsigned window);
void cluster_isolate(struct cluster *c, const struct node *n, bool cut);
void change_answered(void *data, struct status s, const char *message);
void cluster_wait_change(struct cluster *c);

/* Conditions. */
bool has_leader(struct cluster *c, uint64_t unused);
/* All open nodes have applied the same number of commands, at least arg, with the same hash. */
bool all_agree(struct cluster *c, uint64_t at_least);
bool change_is_done(struct cluster *c, uint64_t unused);
bool is_pinned(struct cluster *c, uint64_t id);
/* The node with this id has stored a snapshot that covers what it had pinned last. */
bool has_snapshot(struct cluster *c, uint64_t id);

#endif

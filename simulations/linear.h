/* Is a history of concurrent operations linearizable? Each operation must seem to happen at once,
 * at some moment between its call and its answer, as a sequential model allows.
 *
 * The search is Wing and Gong's (Testing and verifying concurrent objects, 1993) with Lowe's
 * memoisation of configurations (Testing for linearizability, 2017): a depth-first walk that
 * linearizes one pending operation after the other and never visits the same set of linearized
 * operations with the same state twice. Histories are split by key first, which is sound because
 * objects are linearizable one by one (Herlihy and Wing, 1990).
 *
 * An operation whose outcome is unknown stays open: it may happen at any moment after its call, or
 * never. One that certainly did not happen is dropped.
 *
 *     linear_new -> (linear_begin -> linear_end | linear_drop | nothing)* -> linear_check
 *
 * Thread: one. Ends the process when out of memory. */
#ifndef SIMULATIONS_LINEAR_H
#define SIMULATIONS_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LINEAR_KEY_OPERATIONS_MAX = 4096, /* of one key; a longer history is not decided */
    LINEAR_TEXT_BYTES_MAX = 400,
};

/* What a model remembers: all zeros at first. */
struct linear_state {
    uint64_t v[4];
};

struct linear_operation {
    const struct linear_model *model;
    uint64_t key;
    uint32_t verb; /* of the model */
    uint64_t argument[2];
    uint64_t result[3];
    bool open; /* the results are not known */
    uint64_t begun, ended;
    bool dropped;
};

/* A sequential object. step answers whether the operation with its results is legal in that state,
 * and changes the state if it is; of an open operation the results say nothing. */
struct linear_model {
    const char *name;
    bool (*step)(struct linear_state *s, const struct linear_operation *o);
};

enum linear_verdict { LINEAR_HOLDS, LINEAR_VIOLATED, LINEAR_GAVE_UP };

struct linear_limits {
    uint64_t steps_max; /* tried, of one key; 0: 2,000,000 */
    size_t bytes_max;   /* remembered configurations, of one key; 0: 64 MiB */
};

struct linear_report {
    enum linear_verdict verdict; /* the worst of all keys: VIOLATED, then GAVE_UP */
    uint64_t keys, operations, steps;
    char text[LINEAR_TEXT_BYTES_MAX]; /* which key, and what could not be placed */
};

struct linear;

struct linear *linear_new(void);
void linear_free(struct linear *l);

/* An operation is called. The number is for linear_end. */
size_t linear_begin(struct linear *l, const struct linear_model *model, uint64_t key, uint32_t verb,
                    uint64_t argument0, uint64_t argument1);
/* It is answered, with a known result. */
void linear_end(struct linear *l, size_t operation, uint64_t result0, uint64_t result1,
                uint64_t result2);
/* It certainly has not happened and will not. */
void linear_drop(struct linear *l, size_t operation);

struct linear_report linear_check(const struct linear *l, const struct linear_limits *limits);

/* ---- Models ---- */

/* A thing with an index that each change moves forward. CHANGE argument0: only if that is the index
 * (0: whatever it is); result0: 1 done, 0 refused; result1: the new index. */
extern const struct linear_model linear_versioned;
enum { VERSIONED_CHANGE };

/* An idempotency key: the first one who takes it decides, and everybody gets that. TAKE result0:
 * the identity; result1: whether it was there before. */
extern const struct linear_model linear_once;
enum { ONCE_TAKE };

/* A durable invocation. It ends on its own at any moment; an end stays, but for a redrive of a dead
 * one. SPAWN: it is there. READ result0: an outcome (below), result1: a check sum of the result.
 * CANCEL result0: 1 canceled, 0 refused as it had ended. REDRIVE result0: 1 queued again, 0 refused
 * as it was not dead. */
extern const struct linear_model linear_invocation;
enum { INVOCATION_SPAWN, INVOCATION_READ, INVOCATION_CANCEL, INVOCATION_REDRIVE };

#endif

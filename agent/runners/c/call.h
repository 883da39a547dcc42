/* What an invocation in progress holds, inside libskep_runner.
 *
 * Thread: the one that runs the handler; `canceled` also the receiving one. */
#ifndef AGENT_RUNNERS_C_CALL_H
#define AGENT_RUNNERS_C_CALL_H

#include "agent/runners/c/skep_runner.h"
#include "common/runner_frames.h"

#include <stdatomic.h>

/* Buffers above this are not kept from one invocation to the next. */
enum { CALL_KEPT_BYTES_MAX = 256 << 10 };

struct skep_call_state {
    struct buffer output;
    enum status_code output_error; /* LIMIT or NOMEM once an output did not fit */
    char *error;                   /* SKEP_ERROR_BYTES_MAX bytes */
    size_t error_size;
    uint64_t deadline_ms; /* of clock_ms; UINT64_MAX: none */
    atomic_bool canceled;
};

/* False when out of memory. */
bool call_state_open(struct skep_call_state *s);
void call_state_close(struct skep_call_state *s);

/* Milliseconds of the monotonic clock. */
uint64_t clock_ms(void);

/* Empties the state for an invocation with left_ms to go (0: no limit). */
void call_begin(struct skep_call_state *s, uint64_t left_ms);

/* Runs the handler, or not when the deadline has passed or the caller has canceled; returns the
 * RESULT to send, which borrows from the state. */
struct runner_frame call_run(struct skep_call *call, skep_handler *handler);

/* A RESULT that is an error with this text. */
struct runner_frame call_refuse(uint64_t id, enum status_code code, const char *text);

#endif

/* A core with an environment that writes down what it is asked, one line each:
 *
 *     send 1 node_register instances=0 attempts=0
 *     start i1 | stop i1 | kill i1 | invoke v1.1 i1 500 | cancel v1.1 | lead 1 term=3
 *     send 1 result v1.1 OK out | send 1 result v1.1 term=5 OK out (of a durable attempt)
 *     send 1 event i1 READY OK | send 1 reply CONFLICT
 *
 * Instance n is id {0, n}, invocation n is {0, 100 + n}. */
#ifndef TESTS_UNIT_AGENT_RECORDING_H
#define TESTS_UNIT_AGENT_RECORDING_H

#include "agent/core/agent_core.h"

enum { RECORDING_BYTES = 256 << 10, RECORDING_CPU = 1000, SECOND_US = 1000000 };
#define RECORDING_MEMORY UINT64_C(1000)

struct recording {
    struct agent_core *core;
    char text[RECORDING_BYTES];
    size_t size;
    enum status_code start_code;  /* what env.start answers */
    enum status_code invoke_code; /* what env.invoke answers */
    bool send_fails;
    uint64_t now_us;
};

/* cmocka fixtures; *state is the recording. The second has peer 1 leading term 5 with a lease of
 * 1 s. */
int recording_setup(void **state);
int recording_setup_led(void **state);
int recording_teardown(void **state);

void recording_clear(struct recording *r);
/* Asserts that exactly these lines were recorded since the last look, and forgets them. */
void recording_expect(struct recording *r, const char *lines);

struct id128 instance_n(unsigned n);
struct id128 invocation_n(unsigned n);

void receive_lead(struct recording *r, uint64_t peer, uint64_t term, uint32_t lease_ms);
void receive_start(struct recording *r, uint64_t peer, uint64_t term, unsigned n, uint32_t cpu,
                   uint64_t memory);
void receive_invoke(struct recording *r, uint64_t peer, uint64_t term, unsigned invocation,
                    unsigned instance, uint32_t timeout_ms);
/* A durable attempt. */
void receive_job(struct recording *r, uint64_t peer, uint64_t term, unsigned invocation,
                 uint32_t attempt, unsigned instance);
void receive_ack(struct recording *r, uint64_t peer, unsigned invocation, uint32_t attempt,
                 uint64_t attempt_term);
void receive_stop(struct recording *r, uint64_t peer, uint64_t term, unsigned n, bool kill);
void receive_cancel(struct recording *r, uint64_t peer, uint64_t term, unsigned invocation);
void heartbeat_answer(struct recording *r, uint64_t peer, uint64_t sequence, enum status_code code);
/* Starts instance n of 100m and 100 bytes, makes it ready with that concurrency, and forgets the
 * lines. */
void have_ready(struct recording *r, unsigned n, uint32_t concurrency);
void result_of_attempt(struct recording *r, unsigned invocation, uint32_t attempt,
                       enum status_code code, const char *text);
void result_of(struct recording *r, unsigned invocation, enum status_code code, const char *text);
void tick_at(struct recording *r, uint64_t now_us);

#endif

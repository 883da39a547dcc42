/* A scheduler made of a link hub and a table of what came, and a real skep-agent started beside
 * it as a process. Everything is in one temporary folder and on loopback.
 *
 * Thread: the test's, which runs the loop while it waits. */
#ifndef TESTS_COMPONENT_AGENT_FAKE_SCHEDULER_H
#define TESTS_COMPONENT_AGENT_FAKE_SCHEDULER_H

#include "common/buffer.h"
#include "common/chunks.h"
#include "common/net/link.h"
#include "proto/message.h"

#include <sys/types.h>
#include <uv.h>

enum {
    FAKE_WAIT_MS = 60 * 1000,
    FAKE_PATH_BYTES = 256,
    FAKE_RESULTS_MAX = 64,
    FAKE_INSTANCES_MAX = 16
};

struct fake_result {
    unsigned invocation;
    enum status_code code;
    char message[512];
    struct buffer output;
};

struct fake_instance {
    unsigned n;
    uint32_t state;
    enum status_code code;
    char message[512];
};

struct fake {
    uv_loop_t loop;
    uv_timer_t wake;
    char folder[FAKE_PATH_BYTES];
    char *ca_pem, *ca_key_pem;
    char *agent_cert_pem, *agent_key_pem;
    struct link_hub *hub;
    uint16_t port;
    pid_t agent;
    struct link *link; /* of the agent */
    uint64_t term;
    bool leads; /* says so to each agent that connects */
    bool registered;
    size_t registered_instances, registered_attempts;
    uint64_t heartbeats;
    struct heartbeat heartbeat;
    struct fake_result results[FAKE_RESULTS_MAX];
    size_t results_count;
    struct fake_instance instances[FAKE_INSTANCES_MAX];
    size_t instances_count;
    struct digest revision;
    struct package package;
    struct chunk_list chunks;
    bool chunks_lost; /* the answer to chunk_get is NOT_FOUND */
    size_t chunks_given;
    struct buffer log;
    bool log_ended;
    enum status_code log_code;
    struct buffer metrics;
    unsigned renewals, joins;
    bool closed;
};

/* cmocka fixtures; *state is the fake. The second also starts the agent and waits until it has
 * registered. */
int fake_setup(void **state);
int fake_setup_registered(void **state);
/* Ends the agent and its instances; checks that nothing is left of them. */
int fake_teardown(void **state);

/* The agent's certificate lives that long. */
void fake_agent_certificate(struct fake *f, int64_t valid_s);
void fake_agent_start(struct fake *f);
/* Sends the signal and waits for the process's end; returns its exit code, 128 + signal when
 * killed. */
int fake_agent_end(struct fake *f, int signal);
/* Runs one of skep-agent's other verbs while the loop runs; its exit code. */
int fake_agent_verb(struct fake *f, const char *const *args);

/* Leads again, naming one scheduler and what is revoked (or NULL). */
void fake_lead(struct fake *f, const char *name, const char *address, const char *revoked);
struct id128 fake_instance_id(unsigned n);
void fake_start(struct fake *f, unsigned n, uint32_t concurrency);
void fake_stop(struct fake *f, unsigned n, bool kill);
void fake_invoke(struct fake *f, unsigned invocation, unsigned instance, const char *input,
                 uint32_t timeout_ms);
void fake_send(struct fake *f, const struct message *m);
/* Starts instance n and waits until it is READY. */
void fake_ready(struct fake *f, unsigned n, uint32_t concurrency);

const struct fake_result *fake_result(const struct fake *f, unsigned invocation);
/* The last that was said of the instance; NULL when nothing was. */
const struct fake_instance *fake_instance(const struct fake *f, unsigned n);
uint32_t fake_state(const struct fake *f, unsigned n);

/* Runs the loop until the condition is true; fails the test after FAKE_WAIT_MS. */
#define FAKE_UNTIL(f, condition)                                                                   \
    do {                                                                                           \
        uint64_t until_end_ = uv_hrtime() + UINT64_C(1000000) * FAKE_WAIT_MS;                      \
        while (!(condition)) {                                                                     \
            if (uv_hrtime() > until_end_) {                                                        \
                fail_msg("never: %s", #condition);                                                 \
            }                                                                                      \
            (void)uv_run(&(f)->loop, UV_RUN_ONCE);                                                 \
        }                                                                                          \
    } while (0)

#endif

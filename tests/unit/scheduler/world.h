/* A core with an environment that writes down what it sends, one line each, and agents and users
 * that do what a test says:
 *
 *     a1 start i1 f | a1 start i1 f GPU-1 GPU-2 | a1 stop i1 REASON | a1 kill i1 REASON
 *     a1 invoke v1.1 i1 PAYLOAD | a1 cancel v1.1 i1 REASON | a1 lead term=5
 *     u1 call_reply 7 OK OUTPUT | u1 call_reply 7 TIMEOUT MESSAGE
 *     u1 spawn_reply 7 OK v1 [existing] | u1 outcome 8 v1 done OK OUTPUT | a1 ack v1.1
 *     u1 reply 8 OK | u1 records 9 OK rows=2
 *
 * User n is peer n, the agent of node "n1" is peer 101 ("a1"). Instances (i1) and invocations
 * (v1) are numbered as they are seen. Proposals are committed after each event, unless `hold` is
 * set. */
#ifndef TESTS_UNIT_SCHEDULER_WORLD_H
#define TESTS_UNIT_SCHEDULER_WORLD_H

#include "scheduler/core/catalog.h"
#include "scheduler/core/core.h"

enum {
    WORLD_TEXT_BYTES = 256 << 10,
    WORLD_IDS_MAX = 64,
    WORLD_AGENTS_MAX = 8,
    WORLD_PENDING_MAX = 600,
    WORLD_CPU = 1000,
    WORLD_MEMORY = 1000,
    WORLD_TERM = 5,
};

struct pending_proposal {
    uint64_t ticket;
    struct buffer command;
};

struct id_table {
    struct id128 ids[WORLD_IDS_MAX];
    unsigned count;
};

/* What the last call_reply and invoke held besides their line. */
struct world_last {
    bool cold;
    uint64_t queue_us, run_us;
    uint32_t retry_after_ms, timeout_ms;
    char node[NAME_BYTES_MAX + 1], leader[256];
    uint64_t index;
    struct id128 instance;
};

struct world {
    struct core *core;
    struct core_time now;
    char text[WORLD_TEXT_BYTES];
    size_t size;
    char records[WORLD_TEXT_BYTES]; /* of the last answer: "key=value key=value\n" a row */
    struct world_last last;
    struct id_table instances, invocations;
    struct pending_proposal pending[WORLD_PENDING_MAX];
    size_t pending_count;
    bool hold;
    enum status_code propose_code; /* what env.propose answers */
    uint64_t index, seed;
    bool alive[WORLD_AGENTS_MAX + 1]; /* sends heartbeats in world_run */
    struct function_spec spec;        /* what world_deploy deploys */
};

/* cmocka fixtures; *state is the world. A follower without anything; a leader of term 5 with
 * users 1 and 2, node n1 up and function "f": concurrency 1, 100m and 100 bytes each of
 * WORLD_CPU and WORLD_MEMORY, at most 2 queued, idle after 1 s. */
int world_setup(void **state);
int world_setup_led(void **state);
int world_teardown(void **state);
struct world *world_new(const struct core_config *config);

/* Asserts that exactly these lines were written since the last look, and forgets them; checks
 * the core's invariants. */
void expect(struct world *w, const char *lines);
void forget_lines(struct world *w);
/* Asserts that the last records hold this text. */
void expect_records(struct world *w, const char *text);

void world_lead(struct world *w, uint64_t term);
void world_follow(struct world *w, const char *leader_address);
void world_tick(struct world *w, uint64_t after_ms);
/* Ticks every 50 ms for so long, with heartbeats from the agents that are alive. */
void world_run(struct world *w, uint64_t ms);
/* Commits all pending proposals, hold or not. */
void world_commit(struct world *w);
struct status world_apply(struct world *w, const struct command *cmd);
void world_deploy(struct world *w, const char *name, unsigned revision);
struct digest world_revision(unsigned n);

struct id128 instance_n(struct world *w, unsigned n);
struct id128 invocation_n(struct world *w, unsigned n);

void user_open(struct world *w, uint64_t user);
void user_close(struct world *w, uint64_t user);
void user_call(struct world *w, uint64_t user, uint64_t request, const char *function,
               const char *payload, uint32_t timeout_ms);
void user_admin(struct world *w, uint64_t request, const char *action, const char *name,
                const char *key, const char *value);
/* function NULL: "f". */
void user_spawn(struct world *w, uint64_t user, uint64_t request, const struct spawn *spawn);
void user_outcome(struct world *w, uint64_t user, uint64_t request, unsigned invocation,
                  uint32_t wait_ms);
/* "invocation.cancel" and the like on invocation n, by user 1. */
void user_on_invocation(struct world *w, uint64_t request, const char *action, unsigned invocation);
void user_query(struct world *w, uint64_t request, const char *what, const char *name);

void agent_open(struct world *w, unsigned n);
void agent_open_as(struct world *w, unsigned n, uint64_t peer);
void agent_close(struct world *w, unsigned n);
void agent_register(struct world *w, unsigned n, const struct node_register *r);
/* Without instances and attempts. */
void agent_register_empty(struct world *w, unsigned n);
/* Opened, registered, admitted; forgets the lines. */
void agent_up(struct world *w, unsigned n);
void agent_heartbeat(struct world *w, unsigned n, uint64_t request);
void agent_event(struct world *w, unsigned n, unsigned instance, uint32_t instance_state,
                 enum status_code code, const char *message);
void agent_ready(struct world *w, unsigned n, unsigned instance);
void agent_ended(struct world *w, unsigned n, unsigned instance, enum status_code code,
                 const char *message);
void agent_result(struct world *w, unsigned n, unsigned invocation, uint32_t attempt,
                  unsigned instance, enum status_code code, const char *text);
/* Of an attempt that this term's leader sent. */
void agent_durable_result(struct world *w, unsigned n, unsigned invocation, uint32_t attempt,
                          unsigned instance, enum status_code code, const char *text);
/* A report of instance n of "f" in revision 1, of concurrency 1, 100m and 100 bytes. */
struct instance_report report_n(struct world *w, unsigned n, uint32_t instance_state);

/* The encoded state, appended to out. */
void world_snapshot(struct world *w, struct buffer *out);

/* A warm instance i1 of "f" on n1; forgets the lines. The call that made it is over. */
void have_warm(struct world *w);

#endif

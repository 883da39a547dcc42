/* Two ends of the link on one loop: a server hub that listens and, as a test wants them, client
 * hubs. Every event is counted; tests run the loop until what they wait for is true.
 *
 * Thread: the test's, which runs the loop. */
#ifndef TESTS_COMPONENT_NET_NET_FIXTURE_H
#define TESTS_COMPONENT_NET_NET_FIXTURE_H

#include "common/net/link.h"
#include "tests/lib/test_pki.h"

#include <stdatomic.h>
#include <uv.h>

enum { END_TEXT_BYTES = 512, FIXTURE_WAIT_MS = 30 * 1000 };

struct net_fixture;

/* A hub and what it saw. */
struct end {
    struct net_fixture *f;
    struct link_hub *hub;
    unsigned opens, closes, dial_failures, messages;
    uint64_t message_bytes;
    struct link *last;         /* opened last; NULL after a close */
    struct identity last_peer; /* of the link opened last */
    uint64_t last_tag;
    struct buffer last_message;
    enum status_code last_why; /* of the last close or failure */
    char last_reason[END_TEXT_BYTES];
    bool echo;   /* sends every message back */
    bool verify; /* messages hold a pattern: see pattern_put */
    unsigned bad_messages;
    atomic_bool refuse_all; /* what allow answers; set by other threads as well */
    bool closed;
};

struct net_fixture {
    uv_loop_t loop;
    uv_timer_t deadline;
    uv_timer_t tick; /* so that conditions outside the loop are looked at */
    bool late;
    struct test_ca ca;
    struct test_certificate server_certificate, client_certificate;
    struct end server, client;
    uint16_t port;
    char address[64];
};

/* Opens the loop, the CA, a server hub (skep://test/scheduler/s1) that listens on loopback. limits
 * may be NULL. */
void net_fixture_open(struct net_fixture *f, const struct link_limits *limits);
/* Also opens the client hub (skep://test/agent/a1) and dials. */
void net_fixture_dial(struct net_fixture *f, const struct link_limits *limits);
/* Closes the hubs that are open, and checks that the loop is empty. */
void net_fixture_close(struct net_fixture *f);

void end_open(struct net_fixture *f, struct end *e, const struct test_ca *ca,
              const struct test_certificate *c, const struct link_limits *limits);
/* Dials the server, expecting any scheduler. */
void end_dial(struct end *e);
void end_close(struct end *e);
void end_send(struct end *e, const void *data, size_t size);

/* Sends a message from the client, which the server must echo: the connection works. */
void fixture_ping(struct net_fixture *f);

/* size bytes that depend on seed. */
void pattern_fill(uint8_t *data, size_t size, uint32_t seed);

/* Runs the loop until the condition is true; fails the test after FIXTURE_WAIT_MS. */
#define RUN_UNTIL(f, condition)                                                                    \
    do {                                                                                           \
        fixture_deadline_start(f);                                                                 \
        while (!(condition)) {                                                                     \
            assert_true(fixture_turn(f));                                                          \
        }                                                                                          \
        fixture_deadline_stop(f);                                                                  \
    } while (0)

void fixture_deadline_start(struct net_fixture *f);
void fixture_deadline_stop(struct net_fixture *f);
/* One turn of the loop; false when the deadline passed. */
bool fixture_turn(struct net_fixture *f);

#endif

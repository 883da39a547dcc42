/* The shape of a call, for measuring transports: client -> relay -> relay -> echo and back, each a
 * process of its own. The first three talk over the transport under test, the last two over a Unix
 * SOCK_SEQPACKET socket, as an agent does to a runner.
 *
 * The program starts itself again for each process. Results are lines of `name value unit`.
 *
 * Thread: one a process. */
#ifndef TESTS_BENCH_CHAIN_H
#define TESTS_BENCH_CHAIN_H

#include "common/net/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHAIN_MESSAGE_BYTES = 256, CHAIN_OUTSTANDING_MAX = 1024, CHAIN_ECHO_FD = 3 };

struct chain_message {
    uint32_t slot;
    uint32_t zero;
    uint64_t sent_ns;
    uint8_t rest[CHAIN_MESSAGE_BYTES - 16];
};

/* The client's side of the bookkeeping. */
struct chain_load {
    unsigned outstanding;
    uint64_t measure_from_ns, end_ns;
    uint64_t *latencies_ns;
    size_t latencies_count, latencies_max;
    uint64_t calls;
    unsigned ended; /* of the outstanding calls, after the time was up */
};

/* A call starts now. */
void chain_load_start(struct chain_message *m, uint32_t slot);
/* A call came back; true when the next one may be sent, *m made ready for it. When all ended,
 * chain_load_over is true. */
bool chain_load_back(struct chain_load *load, struct chain_message *m);
bool chain_load_over(const struct chain_load *load);

struct chain_roles {
    const char *prefix; /* of the result names */
    /* Listens on loopback, calls chain_ready, forwards to next_port and back; returns at the
     * end. */
    void (*relay)(const struct tls_identity *own, uint16_t next_port);
    /* The same, but forwards to CHAIN_ECHO_FD, one packet a message. */
    void (*last)(const struct tls_identity *own);
    void (*client)(const struct tls_identity *own, uint16_t port, struct chain_load *load);
};

/* A relay listens on this port. */
void chain_ready(uint16_t port);

/* One line on standard error, and the end, unless ok. */
void chain_must(bool ok, const char *what);

int chain_main(int argc, char **argv, const struct chain_roles *roles);

#endif

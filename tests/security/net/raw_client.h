/* A client that does as it likes: plain sockets and OpenSSL, blocking, with a time limit on every
 * call. Runs on a thread beside the loop under test.
 *
 * Thread: any; an object is used by one at a time. */
#ifndef TESTS_SECURITY_NET_RAW_CLIENT_H
#define TESTS_SECURITY_NET_RAW_CLIENT_H

#include "common/net/tls.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct raw_client {
    int fd;
    SSL_CTX *context;
    SSL *ssl;
    uint64_t sequence;
    int alert; /* that the server sent; 0: none */
};

/* A TCP connection to loopback; false when refused. */
bool raw_open(struct raw_client *c, uint16_t port);
/* The same, with a receive buffer as small as the kernel allows. */
bool raw_open_narrow(struct raw_client *c, uint16_t port);
void raw_close(struct raw_client *c);
/* Closes so that the other side gets a reset. */
void raw_abort(struct raw_client *c);

bool raw_write(struct raw_client *c, const void *data, size_t size);
/* Reads until the server closes; false when it does not within the time limit. */
bool raw_wait_end(struct raw_client *c);

/* The handshake; texts without cert_pem show no certificate. version: TLS1_3_VERSION or another, as
 * the highest. In TLS 1.3 a refusal shows only later, in raw_tls_wait_end. */
bool raw_tls_start(struct raw_client *c, const struct tls_identity *texts, int version);
bool raw_tls_write(struct raw_client *c, const void *data, size_t size);
/* Reads at least size bytes. */
bool raw_tls_read(struct raw_client *c, size_t size);
/* Reads until the end and notes the alert, if one came; false when the server keeps it open. */
bool raw_tls_wait_end(struct raw_client *c);

/* A header with these fields, the sequence counted, and size bytes of zeros. */
bool raw_frame(struct raw_client *c, uint8_t kind, uint32_t size);
/* Exactly this header. */
bool raw_header(struct raw_client *c, uint32_t length, uint8_t kind, uint8_t flags,
                uint64_t sequence);

#endif

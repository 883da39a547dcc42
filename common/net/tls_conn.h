/* TLS 1.3 of one connection, between the bytes of the wire and ours: OpenSSL without a socket.
 *
 *     tls_conn_open -> (tls_conn_feed -> tls_conn_step until TLS_WANTS -> send `out`)* -> close
 *
 * tls_conn_step also begins the client's handshake, with nothing fed. tls_conn_write encrypts into
 * `out`, after TLS_SECURED. A peer that is refused in the handshake gets its alert through `out`,
 * and everything it still sends is thrown away: closing at once would reset the connection and lose
 * the alert.
 *
 * Thread: one at a time. */
#ifndef COMMON_NET_TLS_CONN_H
#define COMMON_NET_TLS_CONN_H

#include "common/buffer.h"
#include "common/net/tls_context.h"

/* HANDSHAKE -> SECURED -> OVER; HANDSHAKE -> OVER. */
enum tls_state { TLS_STATE_HANDSHAKE, TLS_STATE_SECURED, TLS_STATE_OVER };

enum tls_step {
    TLS_WANTS,   /* more of the wire's bytes */
    TLS_SECURED, /* once: the handshake is done, check.peer is who it should be */
    TLS_DATA,    /* *got bytes of the peer's */
    TLS_REFUSED, /* once, by us or by the peer, in the handshake or later: check tells why */
    TLS_ENDED,   /* once: the peer says that it is done */
};

struct tls_conn {
    SSL *ssl;
    enum tls_state state;
    struct tls_check check; /* the policy; peer once secured; why it was refused */
    struct bytes in;        /* fed and not read yet */
    struct buffer out;      /* for the wire; the owner takes it */
    enum tls_step end;      /* still to be told, or TLS_WANTS */
    unsigned late;          /* messages of the handshake's kind after it */
};

/* check: cluster, expect, allow and data are set; copied. The connection may not move in memory.
 * NOMEM. */
NODISCARD struct status tls_conn_open(struct tls_conn *c, SSL_CTX *context, bool server,
                                      const struct tls_check *check);
/* Safe on zeroed memory. */
void tls_conn_close(struct tls_conn *c);

/* Messages of the handshake's kind that a peer may send after it: each costs as much as a record of
 * data and may ask for an answer. Our side sends none. */
enum { TLS_LATE_MAX = 16 };

/* Bytes of the wire, borrowed until tls_conn_step has answered TLS_WANTS. */
void tls_conn_feed(struct tls_conn *c, struct bytes wire);
enum tls_step tls_conn_step(struct tls_conn *c, uint8_t *plain, size_t room, size_t *got);

/* Encrypts all of it. NOMEM, UNAVAILABLE when the connection is over; it is then. */
NODISCARD struct status tls_conn_write(struct tls_conn *c, struct bytes plain);

/* Tells the peer that nothing more comes. */
void tls_conn_shutdown(struct tls_conn *c);

#endif

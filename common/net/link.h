/* The link: one secured, framed, two-way connection between two Skep programs, over nng's streams
 * with OpenSSL's TLS 1.3. One narrow interface, so that the transport under it can change.
 *
 * A link_hub owns a libuv loop's view of all connections: listeners, dialers, accepted and dialled
 * connections, the mailbox that nng's threads fill, and the timers. All functions run on the loop's
 * thread, and all callbacks are made there, never from inside the call that started the operation,
 * and never after link_hub_close's callback.
 *
 *     link_hub_open -> link_hub_listen*, link_hub_dial* -> on_open -> (on_message)* -> on_close ...
 *         -> link_hub_close(cb)
 *
 * A frame is 16 bytes of header (u32 length, u8 kind, u8 flags, u16 zero, u64 sequence;
 * little-endian) and a payload. Kinds: heartbeat, data, and bye, with which link_close(flush) asks
 * the peer to close once it has read all. Sequence numbers start at 1 in each direction and rise by
 * one; a gap closes the connection.
 *
 * Both ends send heartbeats by their own heartbeat_ms and give the other up by their own dead_ms:
 * keep every dead_ms of a cluster well above every heartbeat_ms. */
#ifndef COMMON_NET_LINK_H
#define COMMON_NET_LINK_H

#include "common/buffer.h"
#include "common/net/identity.h"
#include "common/status.h"

#include <stdint.h>

struct uv_loop_s;
struct link_hub;
struct link;         /* one connection, dialled or accepted */
struct tls_identity; /* our certificate, key and the CA we trust: common/net/tls.h */

enum {
    LINK_FRAME_BYTES_MAX = 6 << 20,       /* once the peer may send (role known and allowed) */
    LINK_FRAME_BYTES_MAX_JOIN = 64 << 10, /* of peers of role join, and of anyone's first frame */
    LINK_SEND_QUEUE_BYTES_MAX = 64 << 20, /* default of link_limits.send_queue_bytes */
};

struct link_limits {
    uint32_t connections_max;  /* accepted, 0: 4096 */
    uint32_t half_open_max;    /* accepted, before the first valid frame, 0: 256 */
    uint32_t handshake_ms;     /* accept or dial to the first valid frame, 0: 5000 */
    uint32_t heartbeat_ms;     /* 0: 1000 */
    uint32_t dead_ms;          /* nothing heard for this long, 0: 3000 */
    uint64_t send_queue_bytes; /* per peer; over it link_send answers LIMIT; 0: the default above */
    uint32_t redial_ms_min;    /* back-off of a dialer, jittered; 0: 50 */
    uint32_t redial_ms_max;    /* 0: 2000 */
};

/* Counters of the hub, for the metrics registry. refused_* never disturb other connections; each is
 * logged once with its address (rate-limited per address so that a flood cannot fill the log). */
struct link_stats {
    uint64_t accepted, dialled, closed;
    uint64_t refused_no_certificate;
    uint64_t refused_untrusted;
    uint64_t refused_expired; /* or not valid yet */
    uint64_t refused_revoked;
    uint64_t refused_protocol; /* TLS version, garbage, left in the handshake */
    uint64_t refused_identity; /* no or foreign URI SAN, wrong cluster, not who was expected */
    uint64_t refused_timeout;
    uint64_t refused_limit;
    uint64_t refused_frame;
    uint64_t refused_by_peer; /* the peer refused us */
    uint64_t frames_sent, frames_received, bytes_sent, bytes_received;
    uint64_t connections, half_open, send_queue_bytes;
};

struct link_events {
    void *data;
    /* The handshake is done, the peer's identity is known and allowed, its first frame came. */
    void (*on_open)(void *data, struct link *l);
    /* One data frame; payload is valid until the callback returns. Not called after link_close. */
    void (*on_message)(void *data, struct link *l, struct bytes payload);
    /* After on_open: the connection is gone; l may not be used after the callback. reason is for
     * people. */
    void (*on_close)(void *data, struct link *l, struct status why, const char *reason);
    /* A dialled connection failed before on_open; the dialer tries again unless it was stopped. May
     * be NULL. DENIED: one side refused the other's certificate; TIMEOUT, UNAVAILABLE: not
     * there. */
    void (*on_dial_failed)(void *data, const char *address, struct status why, const char *reason);
    /* Policy of ours beyond the CA: may this identity connect at all (revocation)? Must not block
     * and must not call the link. NULL: yes. */
    bool (*allow)(void *data, const struct identity *peer);
};

/* Texts of own and events are copied. INVALID with the reason for certificates that cannot be
 * used. limits may be NULL. */
NODISCARD struct status link_hub_open(struct link_hub **out, struct uv_loop_s *loop,
                                      const struct tls_identity *own,
                                      const struct link_limits *limits,
                                      const struct link_events *events, struct errmsg *msg);
/* Asynchronous: closes everything, on_close included; cb runs once, then the hub is gone. */
void link_hub_close(struct link_hub *hub, void (*cb)(void *data), void *data);

/* address is HOST:PORT; port 0 picks one. *port_out (may be NULL) receives the port. EXISTS when
 * the address is taken. */
NODISCARD struct status link_hub_listen(struct link_hub *hub, const char *address,
                                        uint16_t *port_out, struct errmsg *msg);

/* Keeps a connection to address: dials, redials with jittered back-off. expect limits who may
 * answer (role, and name when not empty; NULL: any member of our cluster). tag is returned by
 * link_tag for connections of this dialer. */
NODISCARD struct status link_hub_dial(struct link_hub *hub, const char *address,
                                      const struct identity *expect, uint64_t tag,
                                      struct errmsg *msg);
/* Stops dialling that address/tag pair and closes its connection, if any (on_close is still
 * called). */
void link_hub_undial(struct link_hub *hub, const char *address, uint64_t tag);

/* Queues one data frame made of `count` parts; bytes are copied. Frames of one loop turn leave
 * together. LIMIT when the peer's queue is full or the frame too large (nothing queued),
 * UNAVAILABLE when the link is closing, NOMEM. */
NODISCARD struct status link_send(struct link *l, const struct bytes *parts, size_t count);

/* Closes; on_close follows later, from the loop. With flush, queued frames are sent first and the
 * peer is told the reason (bounded by dead_ms). */
void link_close(struct link *l, bool flush, const char *reason);

const struct identity *link_peer(const struct link *l);
const char *link_address(const struct link *l); /* "127.0.0.1:4000" of the peer */
bool link_dialled(const struct link *l);
uint64_t link_tag(const struct link *l);
uint64_t link_queued_bytes(const struct link *l);
/* A slot for the owner. */
void link_set_data(struct link *l, void *data);
void *link_data(const struct link *l);

/* Calls fn for every open link, which may call link_close. */
void link_hub_each(struct link_hub *hub, void (*fn)(void *arg, struct link *l), void *arg);
struct link_stats link_hub_stats(const struct link_hub *hub);

/* New certificate: connections made from now on use it, live ones go on undisturbed. Nothing
 * changes on failure. */
NODISCARD struct status link_hub_renew(struct link_hub *hub, const struct tls_identity *own,
                                       struct errmsg *msg);

#endif

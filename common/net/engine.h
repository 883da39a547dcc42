/* The TLS engine behind nng's tls+tcp streams: OpenSSL, TLS 1.3 only, peer certificates always.
 *
 *     engine_open (once a process) -> engine_config_open -> streams -> engine_attach on each,
 *     before its first send or receive -> on_secured | on_refused -> on_bytes* -> nng_stream_close
 *
 * nng starts no handshake: the first nng_stream_send or nng_stream_recv does. Received bytes are
 * decrypted where nng's receive operation would be served and go straight to on_bytes; the receive
 * that the owner posted stays posted and only reports the end. (A stream of nng 1.5.2 loses an end
 * of file that arrives while no receive is posted.)
 *
 * A peer that is refused in the handshake gets its alert, and everything it still sends is thrown
 * away until the owner closes: closing at once would reset the connection and lose the alert.
 *
 * Thread: engine_* on any; the events run on nng's threads, or inside the owner's nng_stream_send
 * or nng_stream_recv, with nng's lock of the connection held: they must not block, take a lock that
 * is held around a call of nng, or call nng. None runs after nng_stream_close returned. */
#ifndef COMMON_NET_ENGINE_H
#define COMMON_NET_ENGINE_H

#include "common/buffer.h"
#include "common/net/identity.h"
#include "common/net/refusals.h"
#include "common/net/tls.h"

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

struct engine_events {
    void *data;
    /* The handshake is done, the peer is who it should be. */
    void (*on_secured)(void *data, const struct identity *peer);
    /* Refused, by us or by the peer, in the handshake or later; at most once. */
    void (*on_refused)(void *data, enum refusal kind, const char *reason);
    /* Decrypted bytes. False ends the connection: the posted receive fails. */
    bool (*on_bytes)(void *data, struct bytes piece);
};

struct engine_policy {
    struct identity expect; /* role and name where set; the cluster is always our own */
    bool (*allow)(void *data, const struct identity *peer); /* may be NULL */
    void *data;
};

struct nng_tls_engine_config;

enum { ENGINE_CONFIGS_MAX = 2 };

/* nng's configuration object and our part of it. */
struct engine_config {
    nng_tls_config *nng;
    struct nng_tls_engine_config *ours;
};

/* Registers the engine, once a process. UNSUPPORTED when nng cannot take it. */
NODISCARD struct status engine_open(struct errmsg *msg);

/* INVALID for certificates that cannot be used. *own (may be NULL) receives who we are. */
NODISCARD struct status engine_config_open(struct engine_config *out, bool server,
                                           const struct tls_identity *texts, struct identity *own,
                                           struct errmsg *msg);
/* Connections that use the configuration keep it alive. Safe on zeroed memory. */
void engine_config_close(struct engine_config *c);

/* New certificates for all of these: connections made from now on use them. Nothing changes on
 * failure. count is at most ENGINE_CONFIGS_MAX. */
NODISCARD struct status engine_config_renew(struct engine_config *const *configs, size_t count,
                                            const struct tls_identity *texts, struct identity *own,
                                            struct errmsg *msg);

/* Binds policy (copied) and events (copied) to a fresh stream. UNSUPPORTED for a stream of another
 * engine. */
NODISCARD struct status engine_attach(nng_stream *stream, const struct engine_policy *policy,
                                      const struct engine_events *events);

#endif

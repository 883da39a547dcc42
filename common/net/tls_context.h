/* What OpenSSL is told: TLS 1.3 only, our certificate, the cluster's CA as the only trust anchors,
 * and the policy that runs inside the verification, so that a refused peer gets a proper alert.
 *
 * Thread: any; an object is used by one thread at a time. */
#ifndef COMMON_NET_TLS_CONTEXT_H
#define COMMON_NET_TLS_CONTEXT_H

#include "common/net/identity.h"
#include "common/net/refusals.h"
#include "common/net/tls.h"

#include <openssl/ssl.h>

enum { TLS_REASON_BYTES = 256 };

/* One connection's policy and what came of it. The SSL object borrows it. */
struct tls_check {
    struct name cluster;    /* ours: the peer must be a member */
    struct identity expect; /* role and name, where set, must match */
    bool (*allow)(void *data, const struct identity *peer); /* may be NULL */
    void *data;
    struct identity peer; /* once verified */
    enum refusal refusal; /* REFUSAL_NONE while nothing is wrong */
    char reason[TLS_REASON_BYTES];
};

/* A context for one direction; *own (may be NULL) receives who we are. INVALID with the reason for
 * unusable texts, a key that is not the certificate's, or a certificate without identity. */
NODISCARD struct status tls_context_new(const struct tls_identity *texts, bool server,
                                        SSL_CTX **out, struct identity *own, struct errmsg *msg);

/* Binds the policy to the connection, before its handshake. */
void tls_check_bind(struct tls_check *check, SSL *ssl);

/* Notes why, unless something was noted before. */
void tls_check_refuse(struct tls_check *check, enum refusal kind, const char *reason);

/* After a failed SSL call: fills refusal and reason from OpenSSL's error queue, unless the policy
 * already did. */
void tls_check_explain(struct tls_check *check);

/* The certificate's one skep:// URI, serial and end. */
NODISCARD struct status tls_identity_read(X509 *certificate, struct identity *out,
                                          struct errmsg *msg);

#endif

/* The certificates a link uses, as PEM text in memory.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_NET_TLS_H
#define COMMON_NET_TLS_H

#include "common/status.h"

/* Borrowed texts; what is needed is copied. */
struct tls_identity {
    const char *ca_pem;   /* the cluster's CA certificate(s): the only trust anchors */
    const char *cert_pem; /* ours, with the chain if any */
    const char *key_pem;  /* ours */
};

#endif

/* Joining a cluster with a token: connects to its schedulers with the token's certificate, asks
 * the leader for a certificate of our own. The key is made here and never leaves this machine.
 *
 *     connect to all addresses of the token -> hello -> join -> join_reply
 *     not the leader: the next scheduler, and the one it names; over again until the time is up
 *
 * Thread: any, blocking: it runs a loop of its own. */
#ifndef COMMON_NET_JOIN_H
#define COMMON_NET_JOIN_H

#include "common/buffer.h"
#include "common/net/identity.h"
#include "common/pki/pki.h"
#include "common/status.h"

enum { JOIN_SCHEDULERS_MAX = 64, JOIN_TIMEOUT_MS_DEFAULT = 30 * 1000 };

struct join_request {
    const struct pki_token *token;
    enum role role; /* agent, scheduler or user */
    const char *name;
    const char *address; /* of a scheduler: where others reach it; empty otherwise */
    uint32_t timeout_ms; /* 0: JOIN_TIMEOUT_MS_DEFAULT */
};

struct join_result {
    struct identity identity;
    char *cert_pem;
    char *key_pem;
    char *ca_pem;
    char *ca_key_pem;                           /* of a scheduler; NULL otherwise */
    char *schedulers[JOIN_SCHEDULERS_MAX];      /* addresses */
    char *scheduler_names[JOIN_SCHEDULERS_MAX]; /* of the same */
    size_t schedulers_count;
    struct buffer keys; /* the wrapped data keys of a sealed cluster; of a scheduler */
};

/* UNAVAILABLE when no scheduler could be reached, TIMEOUT when none was the leader in time,
 * UNKNOWN when the connection was lost while the token was being spent, DENIED and others as the
 * leader says, INVALID for an answer that does not fit. *out is written only on success and
 * closed with join_result_close. */
NODISCARD struct status join_run(const struct join_request *request, struct join_result *out,
                                 struct errmsg *msg);
/* Wipes the keys. Safe on zeroed memory and twice. */
void join_result_close(struct join_result *r);

/* Reads a token from a file, or from standard input when path is "-". NOT_FOUND, DENIED, IO,
 * LIMIT and what pki_token_parse says. */
NODISCARD struct status join_token_read(const char *path, struct pki_token *out,
                                        struct errmsg *msg);

/* Writes ca.pem, cert.pem and key.pem (and ca.key for a scheduler) into the folder, which is
 * made when it is not there. IO and others of pki_write. */
NODISCARD struct status join_result_write(const struct join_result *r, const char *folder,
                                          struct errmsg *msg);

#endif

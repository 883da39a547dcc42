/* The agent's certificate: read at start, renewed over the live connection when two thirds of
 * its life are over.
 *
 * A renewal writes KEY.new, then CERT, then moves KEY.new to KEY: whenever the agent is killed,
 * one pair on the disk fits.
 *
 * Thread: the loop's; reads and writes small files. */
#ifndef AGENT_RENEWAL_H
#define AGENT_RENEWAL_H

#include "common/config.h"
#include "common/net/identity.h"
#include "common/net/tls.h"
#include "common/status.h"

struct credentials {
    const struct config_identity *files; /* borrowed */
    char *ca;
    char *cert;
    char *key;
    struct identity identity;
    int64_t not_before_s;
};

/* Reads and checks the three files, and finishes an interrupted renewal. What pki_read and
 * pki_check answer; DENIED for a certificate of another role, cluster or node than expected. */
NODISCARD struct status credentials_open(struct credentials *c, const struct config_identity *files,
                                         const struct identity *expect, int64_t now_s,
                                         struct errmsg *msg);
/* Safe on zeroed memory and twice. */
void credentials_close(struct credentials *c);
struct tls_identity credentials_tls(const struct credentials *c);
/* Are two thirds of its life over? */
bool credentials_due(const struct credentials *c, int64_t now_s);
/* Takes the renewed certificate into use and onto the disk, with the key (taken: freed in any
 * case) that it was asked for with. ca may be empty: unchanged. DENIED or INVALID when they do
 * not fit, IO; unchanged then. */
NODISCARD struct status credentials_renew(struct credentials *c, const char *cert, const char *ca,
                                          char *key_taken, int64_t now_s, struct errmsg *msg);

#endif

/* libnftables, in a few words: texts in nft's language, each applied as one transaction in the
 * calling thread's network namespace.
 *
 * Thread: one at a time, blocking. */
#ifndef AGENT_EGRESS_NFT_H
#define AGENT_EGRESS_NFT_H

#include "common/status.h"

#include <stdint.h>

/* All of it or nothing. NOMEM; IO with nft's first complaint. */
NODISCARD struct status nft_apply(const char *text, struct errmsg *msg);

/* The packets of a counter of a table of the family inet. NOT_FOUND, NOMEM, IO. */
NODISCARD struct status nft_counter(const char *table, const char *counter, uint64_t *packets,
                                    struct errmsg *msg);

#endif

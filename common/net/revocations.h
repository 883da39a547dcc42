/* The set of what is revoked: certificate serials and "role/name". Asked inside the handshake.
 *
 * Thread: the loop's. */
#ifndef COMMON_NET_REVOCATIONS_H
#define COMMON_NET_REVOCATIONS_H

#include "common/net/identity.h"
#include "common/status.h"

struct revocations;

/* NULL when out of memory. */
struct revocations *revocations_new(void);
void revocations_free(struct revocations *r);
/* Replaces the whole set. NOMEM; unchanged then. */
NODISCARD struct status revocations_set(struct revocations *r, const char *const *what,
                                        size_t count);
bool revocations_hit(const struct revocations *r, const struct identity *peer);

#endif

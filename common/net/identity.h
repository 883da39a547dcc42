/* Who a peer is: the URI subject alternative name of its certificate, skep://CLUSTER/ROLE/NAME, and
 * the certificate's serial and end.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_NET_IDENTITY_H
#define COMMON_NET_IDENTITY_H

#include "common/ids.h"
#include "common/status.h"

#include <stdint.h>

enum role { ROLE_NONE, ROLE_SCHEDULER, ROLE_AGENT, ROLE_USER, ROLE_JOIN, ROLE_COUNT_ };

enum { SERIAL_STRING_BYTES = 41, IDENTITY_URI_BYTES = 2 * (NAME_BYTES_MAX + 1) + 32 };

struct identity {
    struct name cluster;
    enum role role;
    struct name name;
    char serial[SERIAL_STRING_BYTES]; /* lower-case hex, empty when unknown */
    int64_t not_after_s;              /* Unix seconds, 0 when unknown */
};

/* "scheduler", "agent", "user", "join". */
const char *role_name(enum role role);
NODISCARD struct status role_parse(const char *text, enum role *out, struct errmsg *msg);

/* skep://CLUSTER/ROLE/NAME; INVALID for anything else, with the reason. serial and not_after are
 * left empty. */
NODISCARD struct status identity_parse(const char *uri, size_t size, struct identity *out,
                                       struct errmsg *msg);
void identity_format(const struct identity *id, char out[IDENTITY_URI_BYTES]);

#endif

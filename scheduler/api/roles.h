/* Which role may send which message to a scheduler. One table; everything not in it is refused.
 *
 * Thread: any; no shared state. */
#ifndef SCHEDULER_API_ROLES_H
#define SCHEDULER_API_ROLES_H

#include "common/net/identity.h"
#include "proto/message.h"

bool roles_may_send(enum role role, enum message_type type);

#endif

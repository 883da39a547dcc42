/* The payloads of a scheduler: struct payloads, wired to the server. */
#ifndef SCHEDULER_API_PAYLOAD_PORT_H
#define SCHEDULER_API_PAYLOAD_PORT_H

#include "common/status.h"
#include "proto/message.h"

struct server;
struct session;

/* After seals_open, before the replica is opened. */
NODISCARD struct status payload_port_open(struct server *s, struct errmsg *msg);
/* One message of SPAWN, RESULT and PAYLOAD_*. */
void payload_port_receive(struct server *s, struct session *from, const struct message *m);
/* core_env.payload_dropped. */
void payload_port_dropped(void *data, const struct digest *payload);
/* After each command was applied. */
void payload_port_applied(struct server *s, const struct command *cmd);

#endif

/* The few requests of rtnetlink(7) that a cell's network needs. Each is one message and its
 * acknowledgement, in the network namespace in which the socket was opened.
 *
 * Thread: any, blocking; a socket is its owner's. */
#ifndef AGENT_EGRESS_RTNL_H
#define AGENT_EGRESS_RTNL_H

#include "common/egress_rule.h"
#include "common/status.h"

enum { RTNL_NAME_BYTES = 16 };

struct rtnl;

/* In the calling thread's network namespace. IO, NOMEM. */
NODISCARD struct status rtnl_open(struct rtnl **out, struct errmsg *msg);
/* NULL is fine. */
void rtnl_close(struct rtnl *r);

/* Makes a pair: name here, peer in the namespace of peer_ns. EXISTS when the name is taken; IO,
 * DENIED. */
NODISCARD struct status rtnl_veth_add(struct rtnl *r, const char *name, const char *peer,
                                      int peer_ns, struct errmsg *msg);
/* NOT_FOUND when there is no such link. */
NODISCARD struct status rtnl_link_delete(struct rtnl *r, const char *name, struct errmsg *msg);
/* Without a link-local address. */
NODISCARD struct status rtnl_link_up(struct rtnl *r, const char *name, struct errmsg *msg);
/* The address with its prefix length; without duplicate address detection. */
NODISCARD struct status rtnl_address_add(struct rtnl *r, const char *name,
                                         const struct ip_range *address, struct errmsg *msg);
/* A default route through the gateway, one address. */
NODISCARD struct status rtnl_route_add(struct rtnl *r, const struct ip_range *gateway,
                                       struct errmsg *msg);

#endif

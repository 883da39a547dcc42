/* The networks of instances as things of this machine, by blocking calls: for each instance a
 * network namespace, a veth pair out of it, and its rules.
 *
 *     DATA/netns/ID             the namespace, bound; skep-cell enters it
 *     DATA/netns/ID.nft         its rules, should somebody flush them
 *     DATA/netns/resolv.conf    for cells, where there is a resolver
 *     DATA/netns/table          the table's name, while there is one
 *     DATA/netns/ip_forward     this machine forwarded nothing before
 *
 * Which pair belongs to a namespace is read from the address inside, which nobody inside can
 * change. The table and the forwarding come with the first network and go with the last one of an
 * agent that ends.
 *
 * Thread: one at a time, blocking; the network namespace of the calling thread is the agent's. */
#ifndef AGENT_EGRESS_EGRESS_HOST_H
#define AGENT_EGRESS_EGRESS_HOST_H

#include "agent/egress/egress_rules.h"
#include "common/ids.h"

enum { EGRESS_PATH_BYTES_MAX = 4096, EGRESS_SCHEDULERS_MAX = 64 };

struct egress_host;

/* Makes DATA/netns. network is borrowed. NOMEM, IO. */
NODISCARD struct status egress_host_open(struct egress_host **out, const char *data,
                                         const char *node, const struct config_network *network,
                                         struct errmsg *msg);
/* What was made stays. NULL is fine. */
void egress_host_close(struct egress_host *h);

/* Could this process make all of it? Tries in a namespace that is gone afterwards. */
NODISCARD struct status egress_host_probe(const struct egress_host *h, struct errmsg *msg);

/* Nobody reaches these addresses (HOST:PORT) from now on; names are looked up, and one that is not
 * found is logged. Takes effect at once on what runs. NOMEM, IO. */
NODISCARD struct status egress_host_schedulers(struct egress_host *h, char *const *addresses,
                                               size_t count, struct errmsg *msg);

/* Makes an instance's network; rules are canonical texts. Nothing is left on failure. UNSUPPORTED
 * (an IPv6 rule where nothing forwards IPv6), LIMIT (the pool is used up), INVALID, EXISTS, IO,
 * NOMEM. */
NODISCARD struct status egress_host_add(struct egress_host *h, const char *id, char *const *rules,
                                        size_t count, struct errmsg *msg);
/* Removes it; what is not there is fine. IO. */
NODISCARD struct status egress_host_remove(struct egress_host *h, const char *id,
                                           struct errmsg *msg);
/* Calls fn for each instance that has a network, or had one when its agent died. */
void egress_host_each(const struct egress_host *h, void (*fn)(void *arg, const char *id),
                      void *arg);

/* Of a start, when instances of a former life have networks: the table is as this agent makes it,
 * and their rules are there. IO, NOMEM. */
NODISCARD struct status egress_host_adopt(struct egress_host *h, struct errmsg *msg);

/* Are the rules still there? Puts them back when somebody has flushed them. *refused: packets
 * refused since the table was made. IO. */
NODISCARD struct status egress_host_watch(struct egress_host *h, uint64_t *refused,
                                          struct errmsg *msg);

/* Takes the table and the forwarding away, unless instances have networks. */
void egress_host_end(struct egress_host *h);

/* Removes all networks of a data folder whose agent has ended, with the table. IO. */
NODISCARD struct status egress_host_clear(const char *data, struct errmsg *msg);

#endif

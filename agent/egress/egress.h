/* The networks of this node's instances with egress rules, for the loop: one blocking piece of work
 * after the other, on libuv's pool (egress_host.h does it).
 *
 *     egress_add -> done -> the instance starts -> its end -> egress_remove
 *
 * Instances outlive their agent, and so do their networks: egress_sweep removes those whose
 * instance is gone.
 *
 * Thread: the loop's. */
#ifndef AGENT_EGRESS_EGRESS_H
#define AGENT_EGRESS_EGRESS_H

#include "agent/egress/egress_host.h"
#include "proto/message.h"

#include <uv.h>

struct egress;

/* One who waits for a network; the owner's memory. done comes from the loop, once. */
struct egress_wait {
    void (*done)(void *data, struct status s, const char *message);
    void *data;
};

struct egress_stats {
    uint64_t able;    /* 1 when networks can be made */
    uint64_t cells;   /* with a network */
    uint64_t refused; /* packets, since the rules were made */
    uint64_t failed;  /* networks that could not be made */
};

/* Tries whether networks can be made here; that they cannot is no failure. network and texts are
 * borrowed for the module's life. NOMEM, IO. */
NODISCARD struct status egress_open(struct egress **out, uv_loop_t *loop, const char *data,
                                    const char *node, const struct config_network *network,
                                    struct errmsg *msg);
/* Finishes the work that is asked for; takes the node's rules away when no instance has a network.
 * closed comes from the loop; the module is gone then. */
void egress_close(struct egress *e, void (*closed)(void *data), void *data);

/* Can instances have networks here? If not, why says it. */
bool egress_able(const struct egress *e, const char **why);

/* Makes the network of an instance that has none. UNSUPPORTED when this node cannot; NOMEM; then
 * wait is not called. */
NODISCARD struct status egress_add(struct egress *e, struct id128 instance,
                                   const struct text *rules, size_t count, struct egress_wait *wait,
                                   struct errmsg *msg);
/* wait is not called any more; its network is to be removed like any. */
void egress_forget(struct egress *e, const struct egress_wait *wait);
/* Removes the network of an instance, once all its processes are gone. One without is fine. */
void egress_remove(struct egress *e, struct id128 instance);
/* Removes the networks of instances of which alive says no. Of a start, before anything else. */
void egress_sweep(struct egress *e, bool (*alive)(void *arg, struct id128 instance), void *arg);

/* Keeps cells from the schedulers' addresses (HOST:PORT). */
void egress_schedulers(struct egress *e, const char *const *addresses, size_t count);
/* Now and then: looks after the rules. */
void egress_tick(struct egress *e);
struct egress_stats egress_stats(const struct egress *e);

/* Where the namespace of an instance is bound, and what its resolv.conf is made of: "" without a
 * resolver. */
void egress_paths(const struct egress *e, struct id128 instance, char netns[EGRESS_PATH_BYTES_MAX],
                  char resolv[EGRESS_PATH_BYTES_MAX]);

#endif

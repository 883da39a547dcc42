/* The operator: a list of steps, done one after the other, each repeated until the cluster has
 * acknowledged it. Deploys go in where the front end puts them, other changes as messages over a
 * connection.
 *
 * Thread: one. */
#ifndef SIMULATIONS_OPERATORS_H
#define SIMULATIONS_OPERATORS_H

#include "simulations/functions.h"
#include "simulations/schedulers.h"

struct operators;

struct operators *operators_new(struct world *w);
void operators_free(struct operators *o);
void operators_start(struct operators *o);

/* Each adds a step, to be begun not before that time. */
void operators_deploy(struct operators *o, uint64_t at_us, const struct function *f,
                      uint32_t version);
void operators_rollback(struct operators *o, uint64_t at_us, const struct function *f,
                        uint32_t version);
/* action: node.cordon, node.uncordon, node.drain. */
void operators_node(struct operators *o, uint64_t at_us, const char *action, const char *node);
void operators_setting(struct operators *o, uint64_t at_us, const char *key, const char *value);
/* A spare scheduler joins; a scheduler leaves, and its disk is wiped. */
void operators_join(struct operators *o, uint64_t at_us, uint32_t scheduler);
void operators_leave(struct operators *o, uint64_t at_us, uint32_t scheduler);
/* Asks the leader for its instances and has them checked; done is called then. */
void operators_inspect(struct operators *o, uint64_t at_us, event_fn done);
void operators_call(struct operators *o, uint64_t at_us, event_fn done);

bool operators_busy(const struct operators *o);
bool operators_drained(const struct operators *o, const char *node);

#endif

/* Operators that deploy one function against each other, each only over the revision that it knows
 * (check_index): of two that know the same one, one must be refused. Their history must be
 * linearizable.
 *
 * Thread: one. */
#ifndef SIMULATIONS_RACERS_H
#define SIMULATIONS_RACERS_H

#include "simulations/errands.h"

struct racers;

struct racers *racers_new(struct world *w);
void racers_free(struct racers *r);
/* They go on until the world is calm. */
void racers_start(struct racers *r);

#endif

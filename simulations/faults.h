/* What goes wrong: each fault is a row of a table, drawn at random times while the load runs, and
 * all of it heals at the end.
 *
 * Thread: one. */
#ifndef SIMULATIONS_FAULTS_H
#define SIMULATIONS_FAULTS_H

#include "simulations/world.h"

/* Plans what the scenario asks for. */
void faults_plan(struct world *w);
/* Everything works again, and everybody who died is started. */
void faults_heal(struct world *w);
/* Every disk at its normal speed. */
void faults_disks(struct world *w);

#endif

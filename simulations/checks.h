/* The checkers: what must hold at every moment, and what must hold at the end. Each failure ends
 * the run and says what it saw.
 *
 * Thread: one. */
#ifndef SIMULATIONS_CHECKS_H
#define SIMULATIONS_CHECKS_H

#include "simulations/world.h"

struct checks;

struct checks *checks_new(struct world *w);
void checks_free(struct checks *c);

/* A command is about to be applied and has been applied: durable invocations make legal moves only,
 * and what is committed of an attempt is true. */
struct scheduler;
void checks_applies(struct checks *c, const struct scheduler *s, uint64_t index,
                    const struct command *cmd);
void checks_moved(struct checks *c, const struct scheduler *s, uint64_t index,
                  const struct command *cmd);
/* A leader sends a new attempt of this invocation: the function's limit and the tenant's hold. */
void checks_sends(struct checks *c, const struct scheduler *s, struct id128 invocation);
/* Every replica has the same state after the same index, whenever it gets there. */
void checks_applied(struct checks *c, const char *who, uint64_t index, uint64_t digest);
/* A term has one leader. */
void checks_leads(struct checks *c, uint32_t scheduler, uint64_t term);
/* A command was acknowledged: no replica may end without it. */
void checks_acknowledged(struct checks *c, uint64_t index);
/* An agent obeys one leader a term. */
void checks_obeyed(struct checks *c, const char *agent, uint32_t number, uint32_t scheduler,
                   uint64_t term);

/* Is everything connected, led, registered and answered? Otherwise why not, in one line. */
bool checks_converged(struct checks *c, char *why, size_t why_size);
/* Is every member up, and as far as the leader? */
bool checks_level(struct checks *c, char *why, size_t why_size);
/* Durable invocations that the leader has not seen end. */
uint64_t checks_queued(const struct checks *c);
/* The end of all work: states are the same everywhere, nothing acknowledged is missing, nothing
 * runs, no slot is taken, and the histories of the client API are linearizable. */
void checks_final(struct checks *c);
/* What the leader says of its instances (the answer to query instances) is what is there. */
void checks_instances(struct checks *c, const struct records *records);

uint64_t checks_commands(const struct checks *c);
uint64_t checks_leaders(const struct checks *c);

#endif

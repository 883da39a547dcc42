/* Clients of durable work: they spawn with and without keys, read outcomes, cancel and redrive, at
 * random schedulers, and follow redirects to the leader. What they were told goes into the ledger
 * (errands.h) and into the histories that must be linearizable.
 *
 *     request -> (NOT_LEADER -> the same at the leader)* -> answer | unknown
 *
 * A spawn with a key is asked for again until it is acknowledged; one without is never asked for
 * again once its outcome is unknown.
 *
 * Thread: one. */
#ifndef SIMULATIONS_SPAWNERS_H
#define SIMULATIONS_SPAWNERS_H

#include "simulations/errands.h"
#include "simulations/network.h"
#include "simulations/schedulers.h"

struct spawners;

struct spawners *spawners_new(struct world *w, uint32_t count);
void spawners_free(struct spawners *s);
void spawners_start(struct spawners *s);
/* No new requests from now on. */
void spawners_stop(struct spawners *s);
/* One more batch of errands that must all be done. */
void spawners_final(struct spawners *s, uint32_t each);
/* Reads the outcome of every errand whose invocation is known. */
void spawners_verify(struct spawners *s);

uint32_t spawners_count(const struct spawners *s);
/* number < spawners_count */
struct endpoint *spawners_endpoint(struct spawners *s, uint32_t number);
/* Requests that wait for an answer. */
uint64_t spawners_outstanding(const struct spawners *s);
uint64_t spawners_spawned(const struct spawners *s);
uint64_t spawners_done(const struct spawners *s);

#endif

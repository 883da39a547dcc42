/* Deliberate bugs: each changes what passes between the parts of a scheduler (or an agent), as if
 * the part behind it had that bug. The product knows nothing of them.
 *
 * Thread: one. */
#ifndef SIMULATIONS_TAMPER_H
#define SIMULATIONS_TAMPER_H

#include "agent/core/agent_core.h"
#include "common/parts.h"
#include "simulations/schedulers.h"

/* On the way out of the core. May change *m, or send and answer true: nothing more is to be
 * done. */
bool tamper_send(struct scheduler *s, uint64_t peer, struct message *m);
/* On the way into the core. May change *peer and *m, or answer true: it is not handed over. */
bool tamper_receive(struct scheduler *s, uint64_t *peer, struct message *m);
/* Before it goes into the log. May propose more. */
void tamper_propose(struct scheduler *s, struct command *c);
/* Between the core and the disk. */
void tamper_snapshot(struct scheduler *s, struct parts *parts);
/* On the way into an agent's core. */
void tamper_agent(struct world *w, const struct agent_core *core, uint64_t *peer,
                  struct message *m);

#endif

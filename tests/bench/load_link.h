/* The network half of the load tool: connections to all schedulers of a context, and a fixed number
 * of slots, each of which may have one question on its way. Knows who leads, follows NOT_LEADER,
 * and ends every question: answered, lost with its connection, or late. What to ask, and what to do
 * after a failure, is the caller's.
 *
 * Thread: one; it runs its own loop inside load_link_run, and makes all callbacks there. */
#ifndef BENCH_LOAD_LINK_H
#define BENCH_LOAD_LINK_H

#include "common/config.h"
#include "common/status.h"
#include "proto/message.h"

struct load_link;

enum { LOAD_SLOTS_MAX = 16384, LOAD_SERVERS_MAX = 16, LOAD_TICK_MS = 5 };

enum load_end { LOAD_ANSWERED, LOAD_LOST, LOAD_LATE };

struct load_events {
    void *data;
    /* The slot's question is over and the slot may ask again. answer is NULL unless ANSWERED, and
     * valid until the callback returns. */
    void (*on_end)(void *data, uint32_t slot, enum load_end how, const struct message *answer);
    /* Every LOAD_TICK_MS, and when a connection becomes ready. */
    void (*on_tick)(void *data);
};

/* Begins to connect to all the context's schedulers. */
NODISCARD struct status load_link_open(struct load_link **out, const struct context *context,
                                       uint32_t slots, const struct load_events *events,
                                       struct errmsg *msg);
void load_link_close(struct load_link *l);

/* Sends m for a free slot (its request number is set here) to the leader, or whoever may know it.
 * False: nobody is connected, or the queue to it is full. */
bool load_link_ask(struct load_link *l, uint32_t slot, const struct message *m,
                   uint32_t timeout_ms);
bool load_link_busy(const struct load_link *l, uint32_t slot);

void load_link_run(struct load_link *l); /* until load_link_stop */
void load_link_stop(struct load_link *l);

/* The code of an answer of any kind. */
enum status_code load_answer_code(const struct message *answer, const char **text,
                                  uint32_t *retry_after_ms);

#endif

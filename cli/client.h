/* The command line's side of a link: connects to the context's schedulers, asks, follows the
 * leader.
 *
 * A request goes to a scheduler that is connected; one that is not the leader names the leader, and
 * the request goes there. A request whose connection is lost before its answer is UNKNOWN, unless
 * it may be sent again: it only reads, or puts what its digest names, or it is a spawn with an
 * idempotency key. Such a spawn is also sent again, until the time is up, when the answer is a
 * passing one: LIMIT with a time to come back, UNAVAILABLE, UNKNOWN.
 *
 * Thread: one, blocking; it runs its own loop inside the calls. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "common/arena.h"
#include "common/config.h"
#include "common/status.h"
#include "proto/message.h"

struct client;

enum {
    CLIENT_ADDRESSES_MAX = 32,
    CLIENT_CONNECT_MS = 10000,
    CLIENT_REQUEST_MS = 60000,
    CLIENT_INFLIGHT_MAX = 4096,
    CLIENT_RETRY_AFTER_MS_MAX = 5000, /* however long an answer asks to stay away */
};

/* Reads the context's certificates and begins to connect. The message says what is wrong and the
 * cure. */
NODISCARD struct status client_open(struct client **out, const struct context *context,
                                    struct errmsg *msg);
/* The same for a join token: a connection that may only join. */
struct pki_token;
NODISCARD struct status client_open_token(struct client **out, const struct pki_token *token,
                                          struct errmsg *msg);
void client_close(struct client *c);

/* Sends m (its request number is set here) and waits for its answer, which lives in the arena. An
 * answer that says NOT_LEADER is followed. The status is of the exchange; what the answer says is
 * in the answer. UNAVAILABLE: nobody could be reached; UNKNOWN: sent, and the connection was lost;
 * TIMEOUT. */
NODISCARD struct status client_ask(struct client *c, const struct message *m, uint32_t timeout_ms,
                                   struct arena *a, struct message *answer, struct errmsg *msg);

/* Sends m and calls fn for each answer until fn returns false or stop is set by a signal. */
typedef bool (*client_each)(void *data, const struct message *answer);
NODISCARD struct status client_follow(struct client *c, const struct message *m, client_each fn,
                                      void *data, struct errmsg *msg);

/* The address of the scheduler that gave the last answer of client_ask; lives as long as the
 * client. */
const char *client_server(const struct client *c);

/* Serves the connections for a while without asking anything. */
void client_pause(struct client *c, uint32_t ms);

/* Many requests at once. fill makes the request of a place (below outstanding) that is free, done
 * takes its answer; what a request points to is good from fill to done. At most outstanding are in
 * flight. Without give_up_ms each is sent once, and an answer NOT_LEADER or a lost connection is
 * its end. With it, requests that may be sent again are, until they are that old; what the last
 * answer said is their end then (a reply or a call_reply in the client's own words). While no
 * scheduler is connected one request at a time is made with it, whose end tells so. */
enum client_fill {
    CLIENT_NO_MORE, /* the load ends with the answers that are due */
    CLIENT_LATER,   /* none now; asked again soon */
    CLIENT_FILLED,
};
struct client_load {
    void *data;
    uint32_t outstanding;
    uint32_t give_up_ms;
    uint64_t until_us; /* uv_hrtime() / 1000: no request is made after this; UINT64_MAX: never */
    enum client_fill (*fill)(void *data, uint32_t place, struct message *m);
    void (*done)(void *data, uint32_t place, const struct message *answer, uint64_t took_us);
};
NODISCARD struct status client_load_run(struct client *c, const struct client_load *load,
                                        struct errmsg *msg);

/* What an answer says, whatever its kind: its code, message and leader. */
struct status client_answer_status(const struct message *answer, const char **message,
                                   const char **leader);

#endif

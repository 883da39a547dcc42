/* What the files of the link share: hub.c (life and deadlines), link.c (connections), listener.c,
 * dialer.c.
 *
 * The story. nng's threads put letters into the hub's mailbox; the loop takes them: a listener's or
 * dialer's new stream becomes a struct link (half-open) that posts its one receive and sends a
 * heartbeat, which starts the handshake. The engine's letters follow: secured (with the identity),
 * then pieces of decrypted bytes, which the loop cuts into frames. The first whole frame opens the
 * link. Sends of one loop turn collect in `pending` and leave together when the loop is about to
 * poll or has polled. A few bytes leave by the quick operation, which has no callback and is done
 * when nng_stream_send returns: no thread is woken. Where that may not hold (handshake, many bytes)
 * the slow operation takes over, whose completion, on nng's thread, starts the next send.
 *
 * The end. Whatever goes wrong, link_end moves the link to CLOSING and closes nng's stream, the
 * only canceller there is. The owner is told from hub_settle, never from inside a call of theirs.
 * The link is freed when the receive and the send have come back and no letter of it is under way.
 *
 * Thread: the loop's, but for what is marked otherwise. */
#ifndef COMMON_NET_LINK_INTERNAL_H
#define COMMON_NET_LINK_INTERNAL_H

#include "common/net/engine.h"
#include "common/net/frame.h"
#include "common/net/link.h"
#include "common/net/mailbox.h"
#include "common/net/refusals.h"

#include <nng/nng.h>
#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

enum {
    LINK_ADDRESS_BYTES = 272, /* a host name of 255, a colon and a port */
    LINK_REASON_BYTES = 256,
    LISTENER_SLOTS = 16, /* accepts in flight */
    LISTENERS_MAX = 64,
    DIALERS_MAX = 8192,
    SLOT_REARM_MS = 100,
    LISTEN_RETRY_MS = 500,
    LINGER_MS = 250,           /* a refused peer's time to read its alert */
    HALF_OPEN_EVICT_MS = 1000, /* older ones make room for new ones */
    TICK_MS_MIN = 5,
    QUICK_BYTES_MAX = 8 << 10, /* in QUICK_WINDOW_MS: half of what nng's buffer holds */
    QUICK_WINDOW_MS = 2,
    STALL_MS = 1,                  /* until a quick send that was not done is looked at again */
    BUFFER_KEEP_BYTES = 256 << 10, /* send buffers larger than this are given back when empty */
};

#define NEVER_MS INT64_MAX

enum letter_kind {
    LETTER_ACCEPTED,
    LETTER_DIALLED,
    LETTER_SECURED,
    LETTER_REFUSED,
    LETTER_PIECE,
    LETTER_RECV_ENDED,
    LETTER_SEND_ENDED,
};

/* HALF_OPEN -> OPEN -> LEAVING -> CLOSING; LINGERING: refused in the handshake, the alert is on its
 * way; any but CLOSING -> CLOSING. */
enum link_state { LINK_HALF_OPEN, LINK_LINGERING, LINK_OPEN, LINK_LEAVING, LINK_CLOSING };

struct dialer;

/* A letter of a link; what it says is in the link or behind the letter. */
struct link_letter {
    struct letter base;
    struct link *link;
};

struct piece {
    struct link_letter letter;
    size_t size;
    uint8_t data[];
};

struct link {
    struct link_hub *hub;
    struct link *prev, *next; /* all of the hub */
    struct link *work_next;   /* those that hub_settle must look at */
    struct link *stalled_next;
    bool in_work, in_stalled;
    enum link_state state;
    bool secured;  /* the handshake is done, peer is set */
    bool opened;   /* on_open was called */
    bool reported; /* on_close or on_dial_failed was called, or need not be */
    bool dialled;
    struct dialer *dialer; /* NULL once told about the end, or undialled */
    uint64_t tag;
    char address[LINK_ADDRESS_BYTES];
    struct identity peer;
    void *owner;

    int64_t born_ms, heard_ms, sent_ms;
    int64_t deadline_ms; /* of LINGERING and LEAVING */
    struct status why;
    char reason[LINK_REASON_BYTES];

    struct frame_reader reader;
    uint64_t send_sequence;

    nng_stream *stream;
    nng_aio *recv_aio, *send_aio;
    nng_aio *quick_aio; /* without a callback */
    bool recv_busy;
    bool quick_busy;
    int64_t quick_window_ms;
    size_t quick_window_bytes;
    uint8_t recv_unused[1]; /* the posted receive never delivers */

    /* Shared with nng's threads. */
    atomic_size_t letters;     /* under way: the link outlives them */
    atomic_size_t inbox_bytes; /* in pieces that the loop has not handled */
    atomic_size_t inbox_max;
    atomic_size_t queued_bytes; /* in pending and flight */
    pthread_mutex_t lock;       /* of what follows; held around nng_stream_send off the loop */
    struct buffer pending;      /* collects */
    struct buffer flight;       /* leaves */
    size_t flight_sent;
    bool send_busy; /* the slow operation is in flight; else flight is the loop's */
    bool send_shut; /* no send may be started: closing, or failed */

    /* Written by one thread, then put; read by the loop after it took the letter. */
    struct link_letter secured_letter, refused_letter, recv_letter, send_letter;
    struct identity secured_peer;
    enum refusal refused_kind;
    char refused_reason[LINK_REASON_BYTES];
    int recv_result, send_result;
};

struct slot {
    struct letter letter;
    struct listener *listener;
    nng_aio *aio;
    bool busy;
    int64_t rearm_ms; /* NEVER_MS while busy */
};

/* LISTENING -> ENDING (all slots must come back) -> WAITING -> LISTENING; any -> STOPPED. */
enum listener_state { LISTENER_LISTENING, LISTENER_ENDING, LISTENER_WAITING, LISTENER_STOPPED };

struct listener {
    struct link_hub *hub;
    struct listener *next;
    enum listener_state state;
    nng_stream_listener *nng;         /* NULL while WAITING */
    char address[LINK_ADDRESS_BYTES]; /* with the port that was picked */
    int64_t retry_ms;
    struct slot slots[LISTENER_SLOTS];
};

/* WAITING -> DIALLING -> LINKED -> WAITING; any -> STOPPED. */
enum dialer_state { DIALER_WAITING, DIALER_DIALLING, DIALER_LINKED, DIALER_STOPPED };

struct dialer {
    struct link_hub *hub;
    struct dialer *next;
    enum dialer_state state;
    char address[LINK_ADDRESS_BYTES];
    uint64_t tag;
    struct identity expect;
    nng_stream_dialer *nng; /* of the attempt in flight */
    nng_aio *aio;
    struct letter letter;
    bool busy;      /* the attempt is in flight */
    bool timed_out; /* and was given up */
    struct link *link;
    int64_t redial_ms, deadline_ms;
    uint32_t backoff_ms;
};

struct link_hub {
    uv_loop_t *loop;
    struct link_limits limits; /* no zeros */
    struct link_events events;
    struct identity own;
    struct engine_config server, client;
    struct mailbox mailbox;
    uv_async_t wake;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_timer_t timer;
    unsigned handles_open;
    int64_t timer_due_ms;
    uint64_t random;

    struct link *links;
    struct link *work;    /* newest first */
    struct link *stalled; /* with a quick send that was not done */
    uv_timer_t stall_timer;
    uv_idle_t hurry; /* active while there is work: the loop does not sleep on it */
    struct listener *listeners;
    struct dialer *dialers;
    size_t listeners_count, dialers_count;
    size_t accepted_count, half_open_count; /* accepted ones, for the limits */
    bool settling;

    struct link_stats stats; /* counters; the gauges are made when asked */
    struct refusal_log refusals;

    bool closing, ending;
    void (*close_cb)(void *data);
    void *close_data;
};

/* hub.c */
int64_t hub_now(const struct link_hub *hub);
/* Sees to it that the deadlines are looked at by then. */
void hub_timer_by(struct link_hub *hub, int64_t when_ms);
uint64_t hub_random(struct link_hub *hub);
/* Queues the link for hub_settle. */
void hub_work(struct link_hub *hub, struct link *l);
/* Looks at the link again soon. */
void hub_stall(struct link_hub *hub, struct link *l);
/* Counts and logs. */
void hub_refuse(struct link_hub *hub, enum refusal kind, const char *address, const char *reason);
/* The status and the words for an error number of nng. */
struct status hub_nng_status(int rv);
const char *hub_nng_text(int rv);

/* link.c */

/* Takes the stream in any case. dialer is NULL for an accepted one. NULL: refused or out of memory;
 * *why and reason say so. */
struct link *link_new(struct link_hub *hub, nng_stream *stream, struct dialer *dialer,
                      struct status *why, char reason[LINK_REASON_BYTES]);
/* Where the stream's peer is, "unknown:0" when nng cannot tell any more. */
void link_address_read(nng_stream *stream, char out[LINK_ADDRESS_BYTES]);
void link_letter_take(struct link_letter *letter);
void link_end(struct link *l, struct status why, const char *reason);
/* Sends what waits, tells the owner what happened; frees the link when nothing refers to it. */
void link_settle(struct link *l);
/* Looks at the deadlines; the next one. */
int64_t link_tick(struct link *l, int64_t now_ms);

/* listener.c */
void listener_letter_take(struct slot *slot);
int64_t listener_tick(struct listener *li, int64_t now_ms);
void listener_stop(struct listener *li);
/* STOPPED and all came back: freed by the caller of this. */
bool listener_idle(const struct listener *li);
void listener_free(struct listener *li);

/* dialer.c */
void dialer_letter_take(struct dialer *d);
int64_t dialer_tick(struct dialer *d, int64_t now_ms);
void dialer_stop(struct dialer *d);
bool dialer_idle(const struct dialer *d);
void dialer_free(struct dialer *d);
/* The link of this dialer ended after lived_ms of being open (0: it never opened). */
void dialer_unlinked(struct dialer *d, int64_t lived_ms);

#endif

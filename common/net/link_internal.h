/* What the files of the link share: hub.c (life and deadlines), link.c (connections), listener.c,
 * dialer.c.
 *
 * The story. nng's streams carry TCP; TLS is done here, on the loop (tls_conn.h). nng's threads put
 * letters into the hub's mailbox, one for each operation that ended; the loop takes them: a
 * listener's or dialer's new stream becomes a struct link (half-open) that posts its one receive
 * and begins the handshake. A receive that has ended brings bytes, which are decrypted, cut into
 * frames and handled before the next receive is posted: a peer that sends more than is being
 * handled waits in TCP. The first whole frame opens the link. Sends of one loop turn collect in
 * `pending` and leave together, encrypted, when the loop is about to poll or has polled. They leave
 * by the quick operation, which has no callback and is done when nng_stream_send returns: no thread
 * is woken. Once the kernel has not taken all of it, the slow operation takes over, whose letter
 * starts the next send.
 *
 * Handshakes cost the loop a fraction of a millisecond each, and anybody can ask for one: the
 * letters of links that are not secured yet wait behind all others, and HANDSHAKES_TURN_MAX are
 * taken a turn.
 *
 * The end. Whatever goes wrong, link_end moves the link to CLOSING and closes nng's stream, the
 * only canceller there is. The owner is told from hub_settle, never from inside a call of theirs.
 * The link is freed when the receive and the sends have come back.
 *
 * Thread: the loop's, but for what is marked otherwise. */
#ifndef COMMON_NET_LINK_INTERNAL_H
#define COMMON_NET_LINK_INTERNAL_H

#include "common/net/frame.h"
#include "common/net/link.h"
#include "common/net/mailbox.h"
#include "common/net/refusals.h"
#include "common/net/tls_conn.h"

#include <nng/nng.h>
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
    STALL_MS = 1,             /* until a quick send that was not done is looked at again */
    RECV_BYTES_MIN = 8 << 10, /* of a receive; more where a peer fills it */
    RECV_BYTES_MAX = 128 << 10,
    PLAIN_BYTES = 64 << 10,       /* decrypted at once */
    FLIGHT_BYTES_MAX = 240 << 10, /* encrypted at once; 256 KiB hold it with TLS's own */
    FLIGHTS_TURN_MAX = 4,
    HANDSHAKES_TURN_MAX = 4,
    BUFFER_KEEP_BYTES = 256 << 10, /* send buffers larger than this are given back when empty */
};

#define NEVER_MS INT64_MAX

enum letter_kind {
    LETTER_ACCEPTED,
    LETTER_DIALLED,
    LETTER_RECEIVED,
    LETTER_SENT,
};

/* HALF_OPEN -> OPEN -> LEAVING -> CLOSING; LINGERING: refused in the handshake, the alert is on its
 * way; any but CLOSING -> CLOSING. */
enum link_state { LINK_HALF_OPEN, LINK_LINGERING, LINK_OPEN, LINK_LEAVING, LINK_CLOSING };

struct dialer;

/* A letter of a link: one of its operations has ended. */
struct link_letter {
    struct letter base;
    struct link *link;
};

struct link {
    struct link_hub *hub;
    struct link *prev, *next; /* all of the hub */
    struct link *work_next;   /* those that hub_settle must look at */
    struct link *stalled_next;
    struct link *later_next;
    bool in_work, in_stalled, in_later;
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
    struct tls_conn tls;
    nng_aio *recv_aio, *send_aio;
    nng_aio *quick_aio; /* without a callback */
    struct link_letter recv_letter, send_letter;
    bool recv_busy, send_busy, quick_busy;
    bool congested; /* the kernel did not take all of the last send */
    bool send_over; /* a send failed: the receive's end tells why, after what still came */
    uint8_t *recv_data;
    size_t recv_capacity;
    struct buffer pending; /* collects, in plain */
    size_t pending_taken;  /* of it into flight */
    struct buffer flight;  /* leaves, encrypted */
    size_t flight_sent;
    size_t flight_plain; /* what of pending is in flight */
    size_t queued_bytes; /* in plain, not all sent */
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
    SSL_CTX *server, *client;
    struct mailbox mailbox;
    uv_async_t wake;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_timer_t timer;
    unsigned handles_open;
    int64_t timer_due_ms;
    uint64_t random;

    struct link *links;
    struct link *work;               /* newest first */
    struct link *stalled;            /* with a quick send that was not done */
    struct link *later, **later_end; /* received, and not secured yet; oldest first */
    uv_timer_t stall_timer;
    uv_idle_t hurry; /* active while there is work: the loop does not sleep on it */
    struct listener *listeners;
    struct dialer *dialers;
    size_t listeners_count, dialers_count;
    size_t accepted_count, half_open_count; /* accepted ones, for the limits */
    bool settling;

    uint8_t *plain;          /* PLAIN_BYTES, of the link that is being read */
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

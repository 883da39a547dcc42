#include "common/net/link_internal.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

enum {
    SETTLE_ROUNDS_MAX = 8,
    OWN_PAUSE_MS = 250, /* a timer this late tells of a pause of our own */
    CONNECTIONS_DEFAULT = 4096,
    HALF_OPEN_DEFAULT = 256,
    HANDSHAKE_MS_DEFAULT = 5000,
    HEARTBEAT_MS_DEFAULT = 1000,
    DEAD_MS_DEFAULT = 3000,
    REDIAL_MS_MIN_DEFAULT = 50,
    REDIAL_MS_MAX_DEFAULT = 2000,
};

int64_t hub_now(const struct link_hub *hub)
{
    return (int64_t)uv_now(hub->loop);
}

/* xorshift64*: https://en.wikipedia.org/wiki/Xorshift. Only for jitter. */
uint64_t hub_random(struct link_hub *hub)
{
    hub->random ^= hub->random >> 12;
    hub->random ^= hub->random << 25;
    hub->random ^= hub->random >> 27;
    return hub->random * UINT64_C(0x2545F4914F6CDD1D);
}

static void on_hurry(uv_idle_t *handle)
{
    (void)handle;
}

/* Whatever phase of the loop this is: the coming poll must not sleep. */
static void hub_hurry(struct link_hub *hub)
{
    CHECK(uv_idle_start(&hub->hurry, on_hurry) == 0);
}

void hub_work(struct link_hub *hub, struct link *l)
{
    if (!l->in_work) {
        if (hub->work == NULL && !hub->settling) {
            hub_hurry(hub);
        }
        l->in_work = true;
        l->work_next = hub->work;
        hub->work = l;
    }
}

/* hub_settle takes them up: all that is needed is that it runs. */
static void on_stall_timer(uv_timer_t *timer)
{
    (void)timer;
}

void hub_stall(struct link_hub *hub, struct link *l)
{
    if (l->in_stalled) {
        return;
    }
    l->in_stalled = true;
    l->stalled_next = hub->stalled;
    hub->stalled = l;
    CHECK(uv_timer_start(&hub->stall_timer, on_stall_timer, STALL_MS, 0) == 0);
}

static void stalled_take(struct link_hub *hub)
{
    while (hub->stalled != NULL) {
        struct link *l = hub->stalled;
        hub->stalled = l->stalled_next;
        l->in_stalled = false;
        hub_work(hub, l);
    }
}

void hub_refuse(struct link_hub *hub, enum refusal kind, const char *address, const char *reason)
{
    refusal_count(&hub->stats, kind);
    uint64_t left_out = 0;
    if (refusal_log_admit(&hub->refusals, (uint64_t)hub_now(hub), kind, address, &left_out)) {
        LOG_WARN("connection refused", LOG_STR("kind", refusal_name(kind)),
                 LOG_STR("address", address), LOG_STR("reason", reason),
                 LOG_UINT("left_out", left_out));
    }
}

struct nng_row {
    int rv;
    enum status_code code;
    const char *text;
};

static const struct nng_row nng_rows[] = {
    {NNG_ENOMEM, STATUS_NOMEM, "out of memory"},
    {NNG_ETIMEDOUT, STATUS_TIMEOUT, "no answer in time"},
    {NNG_ECONNREFUSED, STATUS_UNAVAILABLE, "connection refused"},
    {NNG_ECLOSED, STATUS_UNAVAILABLE, "connection closed"},
    {NNG_EADDRINUSE, STATUS_EXISTS, "address already in use"},
    {NNG_EUNREACHABLE, STATUS_UNAVAILABLE, "host not reachable"},
    {NNG_EADDRINVAL, STATUS_INVALID, "no such host or address"},
    {NNG_EINVAL, STATUS_INVALID, "no such host or address"},
    {NNG_EPERM, STATUS_DENIED, "permission denied"},
    {NNG_ECONNABORTED, STATUS_UNAVAILABLE, "connection aborted"},
    {NNG_ECONNRESET, STATUS_UNAVAILABLE, "connection reset by the peer"},
    {NNG_ECONNSHUT, STATUS_UNAVAILABLE, "connection closed by the peer"},
    {NNG_ENOFILES, STATUS_LIMIT, "too many open files"},
    {NNG_ECRYPTO, STATUS_UNAVAILABLE, "connection failed in TLS"},
    {NNG_EPEERAUTH, STATUS_DENIED, "peer refused"},
};

static const struct nng_row *nng_row_find(int rv)
{
    for (size_t i = 0; i < sizeof nng_rows / sizeof nng_rows[0]; i++) {
        if (nng_rows[i].rv == rv) {
            return &nng_rows[i];
        }
    }
    return NULL;
}

struct status hub_nng_status(int rv)
{
    const struct nng_row *row = nng_row_find(rv);
    return status_of(row != NULL ? row->code : STATUS_IO);
}

const char *hub_nng_text(int rv)
{
    const struct nng_row *row = nng_row_find(rv);
    return row != NULL ? row->text : nng_strerror(rv);
}

/* --- the turn of the loop --- */

/* What a link that is not secured has received is its handshake, which can wait. */
static void hub_letter(struct link_hub *hub, struct link_letter *letter)
{
    struct link *l = letter->link;
    if (letter->base.kind == LETTER_SENT || l->secured || l->state == LINK_CLOSING) {
        link_letter_take(letter);
        return;
    }
    l->in_later = true;
    l->later_next = NULL;
    *hub->later_end = l;
    hub->later_end = &l->later_next;
}

static void hub_handshakes(struct link_hub *hub)
{
    for (unsigned i = 0; i < HANDSHAKES_TURN_MAX && hub->later != NULL; i++) {
        struct link *l = hub->later;
        hub->later = l->later_next;
        if (hub->later == NULL) {
            hub->later_end = &hub->later;
        }
        l->in_later = false;
        link_letter_take(&l->recv_letter);
    }
    if (hub->later != NULL) {
        hub_hurry(hub);
    }
}

static void hub_mail(struct link_hub *hub)
{
    struct letter *letter = mailbox_take(&hub->mailbox);
    while (letter != NULL) {
        struct letter *next = letter->next;
        switch ((enum letter_kind)letter->kind) {
        case LETTER_ACCEPTED:
            listener_letter_take((struct slot *)(void *)letter);
            break;
        case LETTER_DIALLED:
            dialer_letter_take(
                (struct dialer *)(void *)((char *)letter - offsetof(struct dialer, letter)));
            break;
        case LETTER_RECEIVED:
        case LETTER_SENT:
            hub_letter(hub, (struct link_letter *)(void *)letter);
            break;
        }
        letter = next;
    }
}
_Static_assert(offsetof(struct slot, letter) == 0, "a slot is found by its letter");
_Static_assert(offsetof(struct link_letter, base) == 0, "a link is found by its letter");

static void hub_free(struct link_hub *hub)
{
    SSL_CTX_free(hub->server);
    SSL_CTX_free(hub->client);
    mem_free(hub->plain);
    mem_free(hub);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct link_hub *hub = handle->data;
    if (--hub->handles_open > 0) {
        return;
    }
    void (*cb)(void *) = hub->close_cb;
    void *data = hub->close_data;
    hub_free(hub);
    if (cb != NULL) {
        cb(data); /* Last touch. */
    }
}

static void hub_handles_close(struct link_hub *hub)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&hub->wake,        (uv_handle_t *)&hub->before_poll,
                              (uv_handle_t *)&hub->after_poll,  (uv_handle_t *)&hub->timer,
                              (uv_handle_t *)&hub->stall_timer, (uv_handle_t *)&hub->hurry};
    for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++) {
        uv_close(handles[i], on_handle_closed);
    }
}

/* Frees listeners and dialers that were stopped and came back. */
static void hub_sweep(struct link_hub *hub)
{
    for (struct listener **at = &hub->listeners; *at != NULL;) {
        struct listener *li = *at;
        if (listener_idle(li)) {
            *at = li->next;
            hub->listeners_count--;
            listener_free(li);
        } else {
            at = &li->next;
        }
    }
    for (struct dialer **at = &hub->dialers; *at != NULL;) {
        struct dialer *d = *at;
        if (dialer_idle(d)) {
            *at = d->next;
            hub->dialers_count--;
            dialer_free(d);
        } else {
            at = &d->next;
        }
    }
}

/* Never inside a call of the owner: from the mailbox's wake-up, the timer, or around the poll. */
static void hub_settle(struct link_hub *hub)
{
    CHECK(!hub->settling);
    hub->settling = true;
    stalled_take(hub);
    for (unsigned round = 0; hub->work != NULL; round++) {
        if (round == SETTLE_ROUNDS_MAX) {
            /* Callbacks keep making work: other handles of the loop get their turn first. */
            hub_hurry(hub);
            break;
        }
        struct link *l = hub->work;
        hub->work = NULL;
        while (l != NULL) {
            struct link *next = l->work_next;
            l->in_work = false;
            link_settle(l);
            l = next;
        }
    }
    hub->settling = false;
    if (hub->work == NULL && hub->later == NULL) {
        CHECK(uv_idle_stop(&hub->hurry) == 0);
    }
    if (hub->closing && !hub->ending) {
        hub_sweep(hub);
        if (hub->links == NULL && hub->listeners == NULL && hub->dialers == NULL) {
            hub->ending = true;
            hub_handles_close(hub);
        }
    }
}

static void on_wake(uv_async_t *handle)
{
    struct link_hub *hub = handle->data;
    hub_mail(hub);
    if (hub->closing) {
        hub_handshakes(hub);
        hub_settle(hub);
    }
}

static void on_before_poll(uv_prepare_t *handle)
{
    hub_handshakes(handle->data);
    hub_settle(handle->data);
}

static void on_after_poll(uv_check_t *handle)
{
    hub_settle(handle->data);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The loop, or all of this process, stood still for that long: not the peers' fault. */
static void hub_forgive(struct link_hub *hub, int64_t paused_ms)
{
    int64_t now_ms = hub_now(hub);
    for (struct link *l = hub->links; l != NULL; l = l->next) {
        l->heard_ms = earlier(l->heard_ms + paused_ms, now_ms);
        l->born_ms = earlier(l->born_ms + paused_ms, now_ms);
        l->deadline_ms += paused_ms;
    }
    for (struct dialer *d = hub->dialers; d != NULL; d = d->next) {
        d->deadline_ms += paused_ms;
    }
}

static void on_timer(uv_timer_t *handle)
{
    struct link_hub *hub = handle->data;
    /* What waits in the mailbox counts as heard, however late this turn is. */
    hub_mail(hub);
    int64_t now_ms = hub_now(hub);
    int64_t due = NEVER_MS;
    if (now_ms - hub->timer_due_ms > OWN_PAUSE_MS) {
        hub_forgive(hub, now_ms - hub->timer_due_ms);
    }
    hub->timer_due_ms = NEVER_MS;
    for (struct link *l = hub->links; l != NULL; l = l->next) {
        int64_t next = link_tick(l, now_ms);
        due = next < due ? next : due;
    }
    for (struct dialer *d = hub->dialers; d != NULL && !hub->closing; d = d->next) {
        int64_t next = dialer_tick(d, now_ms);
        due = next < due ? next : due;
    }
    for (struct listener *li = hub->listeners; li != NULL && !hub->closing; li = li->next) {
        int64_t next = listener_tick(li, now_ms);
        due = next < due ? next : due;
    }
    hub_sweep(hub);
    if (due != NEVER_MS) {
        hub_timer_by(hub, due < now_ms + TICK_MS_MIN ? now_ms + TICK_MS_MIN : due);
    }
    hub_settle(hub);
}

void hub_timer_by(struct link_hub *hub, int64_t when_ms)
{
    if (hub->ending || when_ms >= hub->timer_due_ms) {
        return;
    }
    int64_t now_ms = hub_now(hub);
    hub->timer_due_ms = when_ms;
    CHECK(uv_timer_start(&hub->timer, on_timer, when_ms > now_ms ? (uint64_t)(when_ms - now_ms) : 0,
                         0) == 0);
}

/* --- the interface --- */

static struct link_limits limits_filled(const struct link_limits *given)
{
    struct link_limits l = given == NULL ? (struct link_limits){0} : *given;
    l.connections_max = l.connections_max != 0 ? l.connections_max : CONNECTIONS_DEFAULT;
    l.half_open_max = l.half_open_max != 0 ? l.half_open_max : HALF_OPEN_DEFAULT;
    l.handshake_ms = l.handshake_ms != 0 ? l.handshake_ms : HANDSHAKE_MS_DEFAULT;
    l.heartbeat_ms = l.heartbeat_ms != 0 ? l.heartbeat_ms : HEARTBEAT_MS_DEFAULT;
    l.dead_ms = l.dead_ms != 0 ? l.dead_ms : DEAD_MS_DEFAULT;
    l.send_queue_bytes = l.send_queue_bytes != 0 ? l.send_queue_bytes : LINK_SEND_QUEUE_BYTES_MAX;
    l.redial_ms_min = l.redial_ms_min != 0 ? l.redial_ms_min : REDIAL_MS_MIN_DEFAULT;
    l.redial_ms_max = l.redial_ms_max != 0 ? l.redial_ms_max : REDIAL_MS_MAX_DEFAULT;
    return l;
}

static void hub_handles_open(struct link_hub *hub)
{
    CHECK(uv_prepare_init(hub->loop, &hub->before_poll) == 0);
    CHECK(uv_check_init(hub->loop, &hub->after_poll) == 0);
    CHECK(uv_timer_init(hub->loop, &hub->timer) == 0);
    CHECK(uv_timer_init(hub->loop, &hub->stall_timer) == 0);
    CHECK(uv_idle_init(hub->loop, &hub->hurry) == 0);
    hub->wake.data = hub;
    hub->before_poll.data = hub;
    hub->after_poll.data = hub;
    hub->timer.data = hub;
    hub->stall_timer.data = hub;
    hub->hurry.data = hub;
    hub->handles_open = 6;
    CHECK(uv_prepare_start(&hub->before_poll, on_before_poll) == 0);
    CHECK(uv_check_start(&hub->after_poll, on_after_poll) == 0);
    mailbox_init(&hub->mailbox, &hub->wake);
    hub->timer_due_ms = NEVER_MS;
}

struct status link_hub_open(struct link_hub **out, uv_loop_t *loop, const struct tls_identity *own,
                            const struct link_limits *limits, const struct link_events *events,
                            struct errmsg *msg)
{
    CHECK(events->on_open != NULL && events->on_message != NULL && events->on_close != NULL);
    struct link_hub *hub = mem_zalloc(1, sizeof *hub);
    if (hub == NULL) {
        return status_fail(msg, STATUS_NOMEM, "link");
    }
    hub->later_end = &hub->later;
    hub->plain = mem_alloc(PLAIN_BYTES);
    hub->loop = loop;
    hub->limits = limits_filled(limits);
    hub->events = *events;
    struct status s =
        hub->plain == NULL ? status_fail(msg, STATUS_NOMEM, "link") : link_hub_renew(hub, own, msg);
    if (status_is_ok(s) && RAND_bytes((unsigned char *)&hub->random, sizeof hub->random) != 1) {
        s = status_fail(msg, STATUS_IO, "no random numbers");
    }
    hub->random |= 1;
    if (status_is_ok(s)) {
        int rv = uv_async_init(loop, &hub->wake, on_wake);
        if (rv != 0) {
            s = status_fail(msg, status_from_errno(-rv), "event loop: %s", uv_strerror(rv));
        }
    }
    if (!status_is_ok(s)) {
        hub_free(hub);
        return s;
    }
    hub_handles_open(hub);
    *out = hub;
    return status_ok();
}

void link_hub_close(struct link_hub *hub, void (*cb)(void *data), void *data)
{
    CHECK(!hub->closing);
    hub->closing = true;
    hub->close_cb = cb;
    hub->close_data = data;
    for (struct listener *li = hub->listeners; li != NULL; li = li->next) {
        listener_stop(li);
    }
    for (struct dialer *d = hub->dialers; d != NULL; d = d->next) {
        dialer_stop(d);
    }
    for (struct link *l = hub->links; l != NULL; l = l->next) {
        link_end(l, status_of(STATUS_CANCELED), "we are stopping");
    }
    CHECK(uv_async_send(&hub->wake) == 0);
}

void link_hub_each(struct link_hub *hub, void (*fn)(void *arg, struct link *l), void *arg)
{
    for (struct link *l = hub->links; l != NULL; l = l->next) {
        if (l->state == LINK_OPEN) {
            fn(arg, l);
        }
    }
}

struct link_stats link_hub_stats(const struct link_hub *hub)
{
    struct link_stats stats = hub->stats;
    for (const struct link *l = hub->links; l != NULL; l = l->next) {
        stats.connections++;
        stats.half_open += l->state == LINK_HALF_OPEN || l->state == LINK_LINGERING;
        stats.send_queue_bytes += link_queued_bytes(l);
    }
    return stats;
}

struct status link_hub_renew(struct link_hub *hub, const struct tls_identity *own,
                             struct errmsg *msg)
{
    SSL_CTX *server = NULL, *client = NULL;
    struct identity id = {0};
    TRY(tls_context_new(own, true, &server, &id, msg));
    struct status s = tls_context_new(own, false, &client, NULL, msg);
    if (!status_is_ok(s)) {
        SSL_CTX_free(server);
        return s;
    }
    SSL_CTX_free(hub->server); /* Connections keep what they use. */
    SSL_CTX_free(hub->client);
    hub->server = server;
    hub->client = client;
    hub->own = id;
    return status_ok();
}

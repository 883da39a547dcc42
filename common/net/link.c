#include "common/net/link_internal.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static void lock(struct link *l)
{
    CHECK(pthread_mutex_lock(&l->lock) == 0);
}

static void unlock(struct link *l)
{
    CHECK(pthread_mutex_unlock(&l->lock) == 0);
}

/* --- on nng's threads --- */

/* Any thread. The link lives at least until the loop took the letter. */
static void letter_put(struct link *l, struct link_letter *letter, enum letter_kind kind)
{
    letter->base.kind = kind;
    letter->link = l;
    atomic_fetch_add_explicit(&l->letters, 1, memory_order_relaxed);
    mailbox_put(&l->hub->mailbox, &letter->base);
}

static void on_secured(void *data, const struct identity *peer)
{
    struct link *l = data;
    l->secured_peer = *peer;
    /* Here and not when the link opens: a peer that was told so may send before our loop is. */
    if (peer->role != ROLE_JOIN) {
        atomic_store_explicit(&l->inbox_max, l->hub->limits.mailbox_bytes, memory_order_relaxed);
    }
    letter_put(l, &l->secured_letter, LETTER_SECURED);
}

static void on_refused(void *data, enum refusal kind, const char *reason)
{
    struct link *l = data;
    l->refused_kind = kind;
    (void)snprintf(l->refused_reason, sizeof l->refused_reason, "%s", reason);
    letter_put(l, &l->refused_letter, LETTER_REFUSED);
}

static bool on_bytes(void *data, struct bytes bytes)
{
    struct link *l = data;
    size_t before = atomic_fetch_add_explicit(&l->inbox_bytes, bytes.size, memory_order_relaxed);
    size_t max = atomic_load_explicit(&l->inbox_max, memory_order_relaxed);
    if (before + bytes.size > max) {
        on_refused(l, REFUSAL_LIMIT, "peer sends more than is being handled");
        return false;
    }
    struct piece *p = mem_alloc(sizeof *p + bytes.size);
    if (p == NULL) {
        on_refused(l, REFUSAL_LIMIT, "out of memory");
        return false;
    }
    p->size = bytes.size;
    memcpy(p->data, bytes.data, bytes.size);
    letter_put(l, &p->letter, LETTER_PIECE);
    return true;
}

static void on_recv_ended(void *arg)
{
    struct link *l = arg;
    l->recv_result = nng_aio_result(l->recv_aio);
    letter_put(l, &l->recv_letter, LETTER_RECV_ENDED);
}

/* Makes what collected leave next, once all of flight has left; what is left of flight. */
static size_t flight_load(struct link *l)
{
    if (l->flight_sent == l->flight.size) {
        struct buffer empty = l->flight;
        l->flight = l->pending;
        l->pending = empty;
        l->pending.size = 0;
        l->flight_sent = 0;
        if (l->pending.capacity > BUFFER_KEEP_BYTES) {
            buffer_close(&l->pending);
        }
    }
    return l->flight.size - l->flight_sent;
}

static void send_start(struct link *l, nng_aio *aio)
{
    nng_iov iov = {.iov_buf = l->flight.data + l->flight_sent,
                   .iov_len = l->flight.size - l->flight_sent};
    CHECK(nng_aio_set_iov(aio, 1, &iov) == 0);
    nng_stream_send(l->stream, aio);
}

static void flight_left(struct link *l, size_t count)
{
    l->flight_sent += count;
    atomic_fetch_sub_explicit(&l->queued_bytes, count, memory_order_relaxed);
}

/* The slow operation is done: with an error, or with some of flight. */
static void on_sent(void *arg)
{
    struct link *l = arg;
    bool tell = false;
    lock(l);
    int result = nng_aio_result(l->send_aio);
    flight_left(l, result == 0 ? nng_aio_count(l->send_aio) : 0);
    l->send_busy = false;
    if (result != 0 || l->send_shut) {
        l->send_shut = true;
        l->send_result = result;
        tell = true;
        /* Counted before the lock is left: the loop must not free the link in between. */
        atomic_fetch_add_explicit(&l->letters, 1, memory_order_relaxed);
    } else if (flight_load(l) > 0) {
        l->send_busy = true;
        send_start(l, l->send_aio);
    }
    unlock(l);
    if (tell) {
        l->send_letter.base.kind = LETTER_SEND_ENDED;
        l->send_letter.link = l;
        mailbox_put(&l->hub->mailbox, &l->send_letter.base);
    }
}

/* --- on the loop --- */

static bool link_half_open(const struct link *l)
{
    return l->state == LINK_HALF_OPEN || l->state == LINK_LINGERING;
}

static void link_move(struct link *l, enum link_state to)
{
    static const uint8_t legal[] = {
        [LINK_HALF_OPEN] = 1 << LINK_LINGERING | 1 << LINK_OPEN | 1 << LINK_CLOSING,
        [LINK_LINGERING] = 1 << LINK_CLOSING,
        [LINK_OPEN] = 1 << LINK_LEAVING | 1 << LINK_CLOSING,
        [LINK_LEAVING] = 1 << LINK_CLOSING,
        [LINK_CLOSING] = 0,
    };
    CHECK((legal[l->state] & 1 << to) != 0);
    bool was_half_open = link_half_open(l);
    l->state = to;
    if (was_half_open && !link_half_open(l)) {
        l->hub->half_open_count -= !l->dialled;
    }
}

void link_address_read(nng_stream *stream, char out[LINK_ADDRESS_BYTES])
{
    nng_sockaddr sa;
    char host[INET6_ADDRSTRLEN];
    (void)snprintf(out, LINK_ADDRESS_BYTES, "unknown:0");
    if (nng_stream_get_addr(stream, NNG_OPT_REMADDR, &sa) != 0) {
        return;
    }
    if (sa.s_family == NNG_AF_INET) {
        (void)inet_ntop(AF_INET, &sa.s_in.sa_addr, host, sizeof host);
        (void)snprintf(out, LINK_ADDRESS_BYTES, "%s:%u", host, ntohs(sa.s_in.sa_port));
    } else if (sa.s_family == NNG_AF_INET6) {
        (void)inet_ntop(AF_INET6, sa.s_in6.sa_addr, host, sizeof host);
        (void)snprintf(out, LINK_ADDRESS_BYTES, "[%s]:%u", host, ntohs(sa.s_in6.sa_port));
    }
}

static void link_free(struct link *l)
{
    struct link_hub *hub = l->hub;
    CHECK(!l->in_work);
    CHECK(l->dialer == NULL);
    nng_aio_free(l->recv_aio);
    nng_aio_free(l->send_aio);
    nng_aio_free(l->quick_aio);
    nng_stream_free(l->stream);
    frame_reader_close(&l->reader);
    buffer_close(&l->pending);
    buffer_close(&l->flight);
    CHECK(pthread_mutex_destroy(&l->lock) == 0);
    if (l->prev != NULL) {
        l->prev->next = l->next;
    } else {
        hub->links = l->next;
    }
    if (l->next != NULL) {
        l->next->prev = l->prev;
    }
    hub->accepted_count -= !l->dialled;
    hub->stats.closed++;
    mem_free(l);
}

static struct status append_frame(struct link *l, enum frame_kind kind, const struct bytes *parts,
                                  size_t count, size_t payload_bytes)
{
    uint8_t header[FRAME_HEADER_BYTES];
    frame_header_encode(header, kind, (uint32_t)payload_bytes, l->send_sequence + 1);
    lock(l);
    size_t before = l->pending.size;
    struct status s = buffer_reserve(&l->pending, sizeof header + payload_bytes);
    if (status_is_ok(s)) {
        s = buffer_append(&l->pending, header, sizeof header);
    }
    for (size_t i = 0; i < count && status_is_ok(s); i++) {
        s = buffer_append(&l->pending, parts[i].data, parts[i].size);
    }
    if (status_is_ok(s)) {
        atomic_fetch_add_explicit(&l->queued_bytes, l->pending.size - before, memory_order_relaxed);
    } else {
        l->pending.size = before;
    }
    unlock(l);
    if (status_is_ok(s)) {
        l->send_sequence++;
        l->sent_ms = hub_now(l->hub);
        l->hub->stats.frames_sent++;
        l->hub->stats.bytes_sent += sizeof header + payload_bytes;
        hub_work(l->hub, l);
    }
    return s;
}

/* What nng and the engine need before the link exists for anyone. */
static struct status link_prepare(struct link *l, const struct identity *expect)
{
    if (nng_aio_alloc(&l->recv_aio, on_recv_ended, l) != 0 ||
        nng_aio_alloc(&l->send_aio, on_sent, l) != 0 ||
        nng_aio_alloc(&l->quick_aio, NULL, NULL) != 0) {
        return status_of(STATUS_NOMEM);
    }
    nng_aio_set_timeout(l->recv_aio, NNG_DURATION_INFINITE);
    nng_aio_set_timeout(l->send_aio, NNG_DURATION_INFINITE);
    nng_aio_set_timeout(l->quick_aio, NNG_DURATION_INFINITE);
    nng_iov iov = {.iov_buf = l->recv_unused, .iov_len = sizeof l->recv_unused};
    CHECK(nng_aio_set_iov(l->recv_aio, 1, &iov) == 0);
    struct engine_policy policy = {.allow = l->hub->events.allow, .data = l->hub->events.data};
    if (expect != NULL) {
        policy.expect = *expect;
    }
    const struct engine_events events = {
        .data = l, .on_secured = on_secured, .on_refused = on_refused, .on_bytes = on_bytes};
    return engine_attach(l->stream, &policy, &events);
}

static void link_start(struct link *l)
{
    struct link_hub *hub = l->hub;
    l->next = hub->links;
    if (l->next != NULL) {
        l->next->prev = l;
    }
    hub->links = l;
    hub->half_open_count += !l->dialled;
    hub->accepted_count += !l->dialled;
    l->born_ms = hub_now(hub);
    l->heard_ms = l->born_ms;
    hub_timer_by(hub, l->born_ms + hub->limits.handshake_ms);
    frame_reader_init(&l->reader, LINK_FRAME_BYTES_MAX_JOIN);
    atomic_init(&l->inbox_max, (size_t)2 * LINK_FRAME_BYTES_MAX_JOIN);
    (void)nng_stream_set_bool(l->stream, NNG_OPT_TCP_NODELAY, true);
    l->recv_busy = true;
    nng_stream_recv(l->stream, l->recv_aio);
    if (!status_is_ok(append_frame(l, FRAME_HEARTBEAT, NULL, 0, 0))) {
        link_end(l, status_of(STATUS_NOMEM), "out of memory");
    }
}

struct link *link_new(struct link_hub *hub, nng_stream *stream, struct dialer *dialer,
                      struct status *why, char reason[LINK_REASON_BYTES])
{
    struct link *l = mem_zalloc(1, sizeof *l);
    struct status s = status_of(STATUS_NOMEM);
    if (l != NULL) {
        l->hub = hub;
        l->stream = stream;
        CHECK(pthread_mutex_init(&l->lock, NULL) == 0);
        s = link_prepare(l, dialer == NULL ? NULL : &dialer->expect);
    }
    if (!status_is_ok(s)) {
        nng_stream_close(stream);
        nng_stream_free(stream);
        if (l != NULL) {
            nng_aio_free(l->recv_aio);
            nng_aio_free(l->send_aio);
            nng_aio_free(l->quick_aio);
            CHECK(pthread_mutex_destroy(&l->lock) == 0);
            mem_free(l);
        }
        *why = s;
        (void)snprintf(reason, LINK_REASON_BYTES, "%s", status_text(s.code));
        return NULL;
    }
    link_address_read(stream, l->address);
    if (dialer != NULL) {
        l->dialled = true;
        l->dialer = dialer;
        l->tag = dialer->tag;
        hub->stats.dialled++;
    } else {
        hub->stats.accepted++;
    }
    link_start(l);
    return l;
}

void link_end(struct link *l, struct status why, const char *reason)
{
    if (l->state == LINK_CLOSING) {
        return;
    }
    if (l->why.code == STATUS_OK) { /* LINGERING knows better why */
        l->why = why;
        (void)snprintf(l->reason, sizeof l->reason, "%s", reason);
    }
    link_move(l, LINK_CLOSING);
    lock(l);
    l->send_shut = true;
    unlock(l);
    nng_stream_close(l->stream);
    hub_work(l->hub, l);
}

static void link_refused(struct link *l, enum refusal kind, const char *reason)
{
    hub_refuse(l->hub, kind, l->address, reason);
    if (l->secured) {
        link_end(l, refusal_status(kind), reason);
        return;
    }
    l->why = refusal_status(kind);
    (void)snprintf(l->reason, sizeof l->reason, "%s", reason);
    link_move(l, LINK_LINGERING);
    l->deadline_ms = hub_now(l->hub) + LINGER_MS;
    hub_timer_by(l->hub, l->deadline_ms);
    hub_work(l->hub, l);
}

/* The first whole frame: the peer is in. */
static void link_opens(struct link *l)
{
    struct link_hub *hub = l->hub;
    link_move(l, LINK_OPEN);
    l->opened = true;
    if (l->peer.role != ROLE_JOIN) {
        l->reader.payload_max = LINK_FRAME_BYTES_MAX;
    }
    hub_timer_by(hub, hub_now(hub) + hub->limits.heartbeat_ms);
    hub->events.on_open(hub->events.data, l);
}

/* The peer's parting words, made safe to print. */
static void link_bye(struct link *l, struct bytes text)
{
    static const char prefix[] = "closed by the peer: ";
    char reason[sizeof prefix + FRAME_BYE_BYTES_MAX];
    _Static_assert(sizeof reason > LINK_REASON_BYTES, "link_end cuts it");
    size_t used = (size_t)snprintf(reason, sizeof reason, "%s",
                                   text.size > 0 ? prefix : "closed by the peer");
    for (size_t i = 0; i < text.size; i++) {
        bool plain = text.data[i] >= ' ' && text.data[i] < 0x7F;
        reason[used++] = plain ? (char)text.data[i] : '?';
    }
    reason[used] = '\0';
    link_end(l, status_of(STATUS_UNAVAILABLE), reason);
}

static void link_frame(struct link *l, const struct frame *f)
{
    struct link_hub *hub = l->hub;
    hub->stats.frames_received++;
    if (l->state == LINK_HALF_OPEN) {
        link_opens(l);
    }
    if (f->kind == FRAME_DATA && l->state == LINK_OPEN) {
        hub->events.on_message(hub->events.data, l, f->payload);
    }
    if (f->kind == FRAME_BYE && l->state != LINK_CLOSING) {
        link_bye(l, f->payload);
    }
}

static void link_piece(struct link *l, struct bytes bytes)
{
    atomic_fetch_sub_explicit(&l->inbox_bytes, bytes.size, memory_order_relaxed);
    if (l->state == LINK_CLOSING || l->state == LINK_LINGERING) {
        return;
    }
    CHECK(l->secured);
    l->hub->stats.bytes_received += bytes.size;
    l->heard_ms = hub_now(l->hub);
    frame_reader_feed(&l->reader, bytes);
    for (;;) {
        struct errmsg msg = {{0}};
        struct frame f;
        bool got;
        struct status s = frame_reader_next(&l->reader, &f, &got, &msg);
        if (!status_is_ok(s)) {
            const char *reason = msg.text[0] != '\0' ? msg.text : status_text(s.code);
            hub_refuse(l->hub, REFUSAL_FRAME, l->address, reason);
            link_end(l, s, reason);
            return;
        }
        if (!got) {
            return;
        }
        link_frame(l, &f);
        if (l->state == LINK_CLOSING) {
            return;
        }
    }
}

/* The stream failed: by its end, an error, or because link_end closed it. */
static void link_failed(struct link *l, int rv)
{
    if (l->state == LINK_CLOSING) {
        return;
    }
    if (l->state == LINK_LEAVING) {
        link_end(l, status_ok(), l->reason);
        return;
    }
    char reason[LINK_REASON_BYTES];
    if (l->state == LINK_HALF_OPEN) {
        (void)snprintf(reason, sizeof reason, "%s during the handshake%s", hub_nng_text(rv),
                       l->secured && l->dialled ? ": the peer may have refused us" : "");
        hub_refuse(l->hub, l->secured ? REFUSAL_BY_PEER : REFUSAL_PROTOCOL, l->address, reason);
    } else {
        (void)snprintf(reason, sizeof reason, "%s", hub_nng_text(rv));
    }
    link_end(l, hub_nng_status(rv), reason);
}

void link_letter_take(struct link_letter *letter)
{
    struct link *l = letter->link;
    switch ((enum letter_kind)letter->base.kind) {
    case LETTER_SECURED:
        l->secured = true;
        l->peer = l->secured_peer;
        break;
    case LETTER_REFUSED:
        if (l->state != LINK_CLOSING) {
            link_refused(l, l->refused_kind, l->refused_reason);
        }
        break;
    case LETTER_PIECE: {
        struct piece *p = (struct piece *)(void *)letter;
        link_piece(l, bytes_of(p->data, p->size));
        mem_free(p);
        break;
    }
    case LETTER_RECV_ENDED:
        l->recv_busy = false;
        link_failed(l, l->recv_result);
        break;
    case LETTER_SEND_ENDED:
        link_failed(l, l->send_result);
        break;
    case LETTER_ACCEPTED:
    case LETTER_DIALLED:
        CHECK(false);
    }
    atomic_fetch_sub_explicit(&l->letters, 1, memory_order_acq_rel);
    if (l->state == LINK_CLOSING) {
        hub_work(l->hub, l);
    }
}

/* Tells the owner, once. */
static void link_report(struct link *l)
{
    struct link_hub *hub = l->hub;
    if (l->reported || (l->state != LINK_CLOSING && l->state != LINK_LINGERING)) {
        return;
    }
    l->reported = true;
    struct dialer *d = l->dialer;
    l->dialer = NULL;
    if (l->opened) {
        hub->events.on_close(hub->events.data, l, l->why, l->reason);
    }
    if (d != NULL) {
        if (!l->opened && !hub->closing && hub->events.on_dial_failed != NULL) {
            hub->events.on_dial_failed(hub->events.data, d->address, l->why, l->reason);
        }
        if (d->link == l) {
            dialer_unlinked(d, l->opened ? hub_now(hub) - l->born_ms : 0);
        }
    }
}

/* Is the quick operation done, with an error or some of flight? Never waits for one that is not:
 * a peer that does not read would stop the loop. */
static bool quick_done(struct link *l)
{
    int result = nng_aio_result(l->quick_aio);
    size_t count = nng_aio_count(l->quick_aio);
    if (result == 0 && count == 0) {
        hub_stall(l->hub, l);
        return false;
    }
    nng_aio_wait(l->quick_aio); /* Returns at once, and orders memory. */
    l->quick_busy = false;
    if (result != 0) {
        lock(l);
        l->send_shut = true;
        unlock(l);
        link_failed(l, result);
        return false;
    }
    flight_left(l, count);
    return true;
}

/* nng has room for that many bytes more: it had QUICK_WINDOW_MS to pass the last ones on. */
static bool quick_fits(struct link *l, size_t size)
{
    int64_t now_ms = hub_now(l->hub);
    if (now_ms - l->quick_window_ms >= QUICK_WINDOW_MS) {
        l->quick_window_ms = now_ms;
        l->quick_window_bytes = 0;
    }
    if (l->state == LINK_HALF_OPEN || size > QUICK_BYTES_MAX - l->quick_window_bytes) {
        return false;
    }
    l->quick_window_bytes += size;
    return true;
}

static void link_flush(struct link *l)
{
    if (l->quick_busy && !quick_done(l)) {
        return;
    }
    lock(l);
    bool mine = !l->send_busy && !l->send_shut;
    unlock(l);
    while (mine && !l->quick_busy) {
        size_t left = flight_load(l);
        if (left == 0) {
            return;
        }
        if (!quick_fits(l, left)) {
            l->quick_window_bytes = QUICK_BYTES_MAX;
            l->send_busy = true; /* No callback runs yet. */
            send_start(l, l->send_aio);
            return;
        }
        l->quick_busy = true;
        send_start(l, l->quick_aio);
        mine = quick_done(l);
    }
}

void link_settle(struct link *l)
{
    link_report(l);
    link_flush(l);
    lock(l);
    bool send_busy = l->send_busy;
    unlock(l);
    if (l->state == LINK_CLOSING && !send_busy && !l->quick_busy && !l->recv_busy && !l->in_work &&
        !l->in_stalled && atomic_load_explicit(&l->letters, memory_order_acquire) == 0) {
        link_free(l);
    }
}

static int64_t half_open_tick(struct link *l, int64_t now_ms)
{
    int64_t due = l->born_ms + l->hub->limits.handshake_ms;
    if (l->state == LINK_LINGERING) {
        due = l->deadline_ms;
    }
    if (now_ms < due) {
        return due;
    }
    if (l->state == LINK_HALF_OPEN) {
        hub_refuse(l->hub, REFUSAL_TIMEOUT, l->address, "no handshake in time");
    }
    link_end(l, status_of(STATUS_TIMEOUT), "no handshake in time");
    return NEVER_MS;
}

int64_t link_tick(struct link *l, int64_t now_ms)
{
    const struct link_limits *limits = &l->hub->limits;
    if (l->state == LINK_CLOSING) {
        return NEVER_MS;
    }
    if (link_half_open(l)) {
        return half_open_tick(l, now_ms);
    }
    if (l->state == LINK_LEAVING && now_ms >= l->deadline_ms) {
        link_end(l, status_of(STATUS_TIMEOUT), l->reason);
        return NEVER_MS;
    }
    if (now_ms >= l->heard_ms + limits->dead_ms) {
        link_end(l, status_of(STATUS_TIMEOUT), "nothing heard from the peer");
        return NEVER_MS;
    }
    if (now_ms >= l->sent_ms + limits->heartbeat_ms && l->state == LINK_OPEN &&
        !status_is_ok(append_frame(l, FRAME_HEARTBEAT, NULL, 0, 0))) {
        link_end(l, status_of(STATUS_NOMEM), "out of memory");
        return NEVER_MS;
    }
    int64_t due = l->heard_ms + limits->dead_ms;
    if (l->state == LINK_LEAVING) {
        return l->deadline_ms < due ? l->deadline_ms : due;
    }
    int64_t beat = l->sent_ms + limits->heartbeat_ms;
    return beat < due ? beat : due;
}

/* --- the interface --- */

struct status link_send(struct link *l, const struct bytes *parts, size_t count)
{
    if (l->state != LINK_OPEN) {
        return status_of(STATUS_UNAVAILABLE);
    }
    size_t max = l->hub->own.role == ROLE_JOIN ? LINK_FRAME_BYTES_MAX_JOIN : LINK_FRAME_BYTES_MAX;
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].size > max - total) {
            return status_of(STATUS_LIMIT);
        }
        total += parts[i].size;
    }
    size_t queued = atomic_load_explicit(&l->queued_bytes, memory_order_relaxed);
    if (queued + FRAME_HEADER_BYTES + total > l->hub->limits.send_queue_bytes) {
        return status_of(STATUS_LIMIT);
    }
    return append_frame(l, FRAME_DATA, parts, count, total);
}

void link_close(struct link *l, bool flush, const char *reason)
{
    if (l->state == LINK_CLOSING || l->state == LINK_LEAVING) {
        return;
    }
    size_t size = strnlen(reason, FRAME_BYE_BYTES_MAX);
    const struct bytes text = bytes_of(reason, size);
    if (!flush || l->state != LINK_OPEN ||
        !status_is_ok(append_frame(l, FRAME_BYE, &text, 1, size))) {
        link_end(l, status_of(STATUS_CANCELED), reason);
        return;
    }
    (void)snprintf(l->reason, sizeof l->reason, "%s", reason);
    l->why = status_of(STATUS_CANCELED);
    link_move(l, LINK_LEAVING);
    l->deadline_ms = hub_now(l->hub) + l->hub->limits.dead_ms;
    hub_timer_by(l->hub, l->deadline_ms);
}

const struct identity *link_peer(const struct link *l)
{
    return &l->peer;
}

const char *link_address(const struct link *l)
{
    return l->address;
}

bool link_dialled(const struct link *l)
{
    return l->dialled;
}

uint64_t link_tag(const struct link *l)
{
    return l->tag;
}

uint64_t link_queued_bytes(const struct link *l)
{
    return atomic_load_explicit(&l->queued_bytes, memory_order_relaxed);
}

void link_set_data(struct link *l, void *data)
{
    l->owner = data;
}

void *link_data(const struct link *l)
{
    return l->owner;
}

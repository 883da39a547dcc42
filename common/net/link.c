#include "common/net/link_internal.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* --- on nng's threads --- */

static void on_received(void *arg)
{
    struct link *l = arg;
    mailbox_put(&l->hub->mailbox, &l->recv_letter.base);
}

static void on_sent(void *arg)
{
    struct link *l = arg;
    mailbox_put(&l->hub->mailbox, &l->send_letter.base);
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
    tls_conn_close(&l->tls);
    mem_free(l->recv_data);
    buffer_close(&l->pending);
    buffer_close(&l->flight);
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
    size_t before = l->pending.size;
    struct status s = buffer_reserve(&l->pending, sizeof header + payload_bytes);
    if (status_is_ok(s)) {
        s = buffer_append(&l->pending, header, sizeof header);
    }
    for (size_t i = 0; i < count && status_is_ok(s); i++) {
        s = buffer_append(&l->pending, parts[i].data, parts[i].size);
    }
    if (!status_is_ok(s)) {
        l->pending.size = before;
    } else {
        l->queued_bytes += l->pending.size - before;
        l->send_sequence++;
        l->sent_ms = hub_now(l->hub);
        l->hub->stats.frames_sent++;
        l->hub->stats.bytes_sent += sizeof header + payload_bytes;
        hub_work(l->hub, l);
    }
    return s;
}

static void link_received(struct link *l, struct bytes wire);

static void recv_start(struct link *l)
{
    nng_iov iov = {.iov_buf = l->recv_data, .iov_len = l->recv_capacity};
    CHECK(nng_aio_set_iov(l->recv_aio, 1, &iov) == 0);
    l->recv_busy = true;
    nng_stream_recv(l->stream, l->recv_aio);
}

/* What is needed before the link exists for anyone. */
static struct status link_prepare(struct link *l, const struct identity *expect)
{
    if (nng_aio_alloc(&l->recv_aio, on_received, l) != 0 ||
        nng_aio_alloc(&l->send_aio, on_sent, l) != 0 ||
        nng_aio_alloc(&l->quick_aio, NULL, NULL) != 0) {
        return status_of(STATUS_NOMEM);
    }
    nng_aio_set_timeout(l->recv_aio, NNG_DURATION_INFINITE);
    nng_aio_set_timeout(l->send_aio, NNG_DURATION_INFINITE);
    nng_aio_set_timeout(l->quick_aio, NNG_DURATION_INFINITE);
    l->recv_letter = (struct link_letter){.base.kind = LETTER_RECEIVED, .link = l};
    l->send_letter = (struct link_letter){.base.kind = LETTER_SENT, .link = l};
    l->recv_capacity = RECV_BYTES_MIN;
    l->recv_data = mem_alloc(l->recv_capacity);
    if (l->recv_data == NULL) {
        return status_of(STATUS_NOMEM);
    }
    struct link_hub *hub = l->hub;
    struct tls_check check = {
        .cluster = hub->own.cluster, .allow = hub->events.allow, .data = hub->events.data};
    if (expect != NULL) {
        check.expect = *expect;
    }
    bool server = expect == NULL;
    return tls_conn_open(&l->tls, server ? hub->server : hub->client, server, &check);
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
    (void)nng_stream_set_bool(l->stream, NNG_OPT_TCP_NODELAY, true);
    recv_start(l);
    link_received(l, bytes_of(NULL, 0)); /* A client begins the handshake. */
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
        s = link_prepare(l, dialer == NULL ? NULL : &dialer->expect);
    }
    if (!status_is_ok(s)) {
        nng_stream_close(stream);
        nng_stream_free(stream);
        if (l != NULL) {
            nng_aio_free(l->recv_aio);
            nng_aio_free(l->send_aio);
            nng_aio_free(l->quick_aio);
            tls_conn_close(&l->tls);
            mem_free(l->recv_data);
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

/* Makes flight what waits in tls.out. */
static void flight_take(struct link *l)
{
    struct buffer empty = l->flight;
    l->flight = l->tls.out;
    l->tls.out = empty;
    l->tls.out.size = 0;
    l->flight_sent = 0;
    if (l->tls.out.capacity > BUFFER_KEEP_BYTES) {
        buffer_close(&l->tls.out);
    }
}

static void send_start(struct link *l, nng_aio *aio)
{
    nng_iov iov = {.iov_buf = l->flight.data + l->flight_sent,
                   .iov_len = l->flight.size - l->flight_sent};
    CHECK(nng_aio_set_iov(aio, 1, &iov) == 0);
    nng_stream_send(l->stream, aio);
}

/* TLS's own farewell, if it can leave at once. */
static void link_part(struct link *l)
{
    bool idle = !l->send_busy && !l->quick_busy && l->flight_sent == l->flight.size;
    if (!l->secured || !idle || l->send_over) {
        return;
    }
    tls_conn_shutdown(&l->tls);
    flight_take(l);
    if (l->flight.size > 0) {
        l->quick_busy = true;
        send_start(l, l->quick_aio);
    }
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
    link_part(l);
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

/* Bytes of the wire. */
static void link_received(struct link *l, struct bytes wire)
{
    struct link_hub *hub = l->hub;
    tls_conn_feed(&l->tls, wire);
    hub_work(hub, l); /* TLS may have something to say. */
    for (;;) {
        size_t got;
        switch (tls_conn_step(&l->tls, hub->plain, PLAIN_BYTES, &got)) {
        case TLS_WANTS:
            return;
        case TLS_SECURED:
            l->secured = true;
            l->peer = l->tls.check.peer;
            break;
        case TLS_DATA:
            link_piece(l, bytes_of(hub->plain, got));
            break;
        case TLS_REFUSED:
            link_refused(l, l->tls.check.refusal, l->tls.check.reason);
            break;
        case TLS_ENDED:
            link_failed(l, NNG_ECONNSHUT);
            break;
        }
        if (l->state == LINK_CLOSING) {
            return;
        }
    }
}

/* A peer that fills what it is given gets more, once it is known. */
static void recv_grow(struct link *l, size_t count)
{
    if (count < l->recv_capacity || l->recv_capacity == RECV_BYTES_MAX || !l->opened ||
        l->peer.role == ROLE_JOIN) {
        return;
    }
    uint8_t *larger = mem_alloc(2 * l->recv_capacity);
    if (larger != NULL) {
        mem_free(l->recv_data);
        l->recv_data = larger;
        l->recv_capacity *= 2;
    }
}

static void recv_ended(struct link *l)
{
    int rv = nng_aio_result(l->recv_aio);
    size_t count = nng_aio_count(l->recv_aio);
    l->recv_busy = false;
    if (rv != 0) {
        link_failed(l, rv);
        return;
    }
    if (l->state != LINK_CLOSING) {
        link_received(l, bytes_of(l->recv_data, count));
    }
    if (l->state != LINK_CLOSING) {
        recv_grow(l, count);
        recv_start(l);
    }
}

static void flight_left(struct link *l, size_t count)
{
    l->flight_sent += count;
    l->congested = l->flight_sent < l->flight.size;
}

static void send_ended(struct link *l)
{
    int rv = nng_aio_result(l->send_aio);
    l->send_busy = false;
    if (rv != 0) {
        l->send_over = true;
    } else {
        flight_left(l, nng_aio_count(l->send_aio));
    }
}

void link_letter_take(struct link_letter *letter)
{
    struct link *l = letter->link;
    if (letter->base.kind == LETTER_RECEIVED) {
        recv_ended(l);
    } else {
        CHECK(letter->base.kind == LETTER_SENT);
        send_ended(l);
    }
    hub_work(l->hub, l);
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
        l->send_over = true;
        return false;
    }
    flight_left(l, count);
    return true;
}

/* Encrypts of what collected, once all before it has left; what is left of flight. */
static size_t flight_load(struct link *l)
{
    if (l->flight_sent < l->flight.size) {
        return l->flight.size - l->flight_sent;
    }
    l->queued_bytes -= l->flight_plain;
    l->flight_plain = 0;
    size_t waits = l->pending.size - l->pending_taken;
    if (l->tls.state == TLS_STATE_SECURED && waits > 0) {
        size_t size = waits < FLIGHT_BYTES_MAX ? waits : FLIGHT_BYTES_MAX;
        struct status s =
            tls_conn_write(&l->tls, bytes_of(l->pending.data + l->pending_taken, size));
        if (!status_is_ok(s)) {
            link_end(l, s, "out of memory");
            return 0;
        }
        l->flight_plain = size;
        l->pending_taken += size;
    }
    if (l->pending_taken == l->pending.size) {
        l->pending.size = 0;
        l->pending_taken = 0;
        if (l->pending.capacity > BUFFER_KEEP_BYTES) {
            buffer_close(&l->pending);
        }
    } else if (l->pending_taken > l->pending.size / 2) {
        buffer_consume(&l->pending, l->pending_taken);
        l->pending_taken = 0;
    }
    flight_take(l);
    return l->flight.size;
}

static void link_flush(struct link *l)
{
    if (l->quick_busy && !quick_done(l)) {
        return;
    }
    for (unsigned i = 0; !l->quick_busy && !l->send_busy && !l->send_over &&
                         l->state != LINK_CLOSING && flight_load(l) > 0;
         i++) {
        if (i == FLIGHTS_TURN_MAX) {
            hub_work(l->hub, l); /* Others first. */
            return;
        }
        if (l->congested) {
            l->send_busy = true;
            send_start(l, l->send_aio);
            return;
        }
        l->quick_busy = true;
        send_start(l, l->quick_aio);
        if (!quick_done(l)) {
            return;
        }
    }
}

void link_settle(struct link *l)
{
    link_report(l);
    link_flush(l);
    if (l->state == LINK_CLOSING && !l->send_busy && !l->quick_busy && !l->recv_busy &&
        !l->in_work && !l->in_stalled && !l->in_later) {
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
    if (l->queued_bytes + FRAME_HEADER_BYTES + total > l->hub->limits.send_queue_bytes) {
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
    return l->queued_bytes;
}

void link_set_data(struct link *l, void *data)
{
    l->owner = data;
}

void *link_data(const struct link *l)
{
    return l->owner;
}

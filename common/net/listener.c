#include "common/net/link_internal.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>

/* On nng's threads. */
static void on_accepted(void *arg)
{
    struct slot *slot = arg;
    slot->letter.kind = LETTER_ACCEPTED;
    mailbox_put(&slot->listener->hub->mailbox, &slot->letter);
}

static void slot_arm(struct slot *slot)
{
    CHECK(!slot->busy);
    slot->busy = true;
    slot->rearm_ms = NEVER_MS;
    nng_stream_listener_accept(slot->listener->nng, slot->aio);
}

static bool slots_busy(const struct listener *li)
{
    for (size_t i = 0; i < LISTENER_SLOTS; i++) {
        if (li->slots[i].busy) {
            return true;
        }
    }
    return false;
}

static void slots_free(struct listener *li)
{
    for (size_t i = 0; i < LISTENER_SLOTS; i++) {
        nng_aio_free(li->slots[i].aio);
    }
}

static struct status listener_listen(struct listener *li, uint16_t *port, struct errmsg *msg)
{
    char url[LINK_ADDRESS_BYTES + 16];
    (void)snprintf(url, sizeof url, "tcp://%s", li->address);
    nng_stream_listener *nng = NULL;
    int bound = 0;
    int rv = nng_stream_listener_alloc(&nng, url);
    if (rv == 0) {
        rv = nng_stream_listener_set_bool(nng, NNG_OPT_TCP_NODELAY, true);
    }
    if (rv == 0) {
        rv = nng_stream_listener_listen(nng);
    }
    if (rv == 0) {
        rv = nng_stream_listener_get_int(nng, NNG_OPT_TCP_BOUND_PORT, &bound);
    }
    if (rv != 0) {
        if (nng != NULL) {
            nng_stream_listener_free(nng);
        }
        return status_fail(msg, hub_nng_status(rv).code, "listen on %s: %s", li->address,
                           hub_nng_text(rv));
    }
    li->nng = nng;
    *port = (uint16_t)bound;
    return status_ok();
}

static void listener_begin(struct listener *li)
{
    li->state = LISTENER_LISTENING;
    for (size_t i = 0; i < LISTENER_SLOTS; i++) {
        slot_arm(&li->slots[i]);
    }
}

/* Room for one more: a half-open connection that had its time makes way. */
static bool hub_admits(struct link_hub *hub, const char **reason)
{
    if (hub->accepted_count >= hub->limits.connections_max) {
        *reason = "too many connections";
        return false;
    }
    if (hub->half_open_count < hub->limits.half_open_max) {
        return true;
    }
    struct link *oldest = NULL;
    for (struct link *l = hub->links; l != NULL; l = l->next) {
        bool half_open = l->state == LINK_HALF_OPEN || l->state == LINK_LINGERING;
        if (half_open && !l->dialled && (oldest == NULL || l->born_ms < oldest->born_ms)) {
            oldest = l;
        }
    }
    if (oldest != NULL && hub_now(hub) - oldest->born_ms >= HALF_OPEN_EVICT_MS) {
        hub_refuse(hub, REFUSAL_LIMIT, oldest->address, "made way for a newer connection");
        link_end(oldest, status_of(STATUS_LIMIT), "made way for a newer connection");
        return true;
    }
    *reason = "too many connections in their handshake";
    return false;
}

static void stream_take(struct link_hub *hub, nng_stream *stream)
{
    const char *refusal = NULL;
    char address[LINK_ADDRESS_BYTES];
    link_address_read(stream, address);
    if (hub->closing || !hub_admits(hub, &refusal)) {
        nng_stream_close(stream);
        nng_stream_free(stream);
        if (refusal != NULL) {
            hub_refuse(hub, REFUSAL_LIMIT, address, refusal);
        }
        return;
    }
    struct status why;
    char reason[LINK_REASON_BYTES];
    if (link_new(hub, stream, NULL, &why, reason) == NULL) {
        hub_refuse(hub, REFUSAL_LIMIT, address, reason);
    }
}

void listener_letter_take(struct slot *slot)
{
    struct listener *li = slot->listener;
    int64_t now_ms = hub_now(li->hub);
    slot->busy = false;
    int rv = nng_aio_result(slot->aio);
    if (rv == 0) {
        stream_take(li->hub, nng_aio_get_output(slot->aio, 0));
    }
    if (li->state != LISTENER_LISTENING) {
        hub_timer_by(li->hub, now_ms);
        return;
    }
    if (rv == 0) {
        slot_arm(slot);
    } else if (rv == NNG_ECLOSED || rv == NNG_ESTATE) {
        /* nng's listener is broken: a new one takes its place once all accepts came back. */
        nng_stream_listener_close(li->nng);
        li->state = LISTENER_ENDING;
        hub_timer_by(li->hub, now_ms);
    } else {
        slot->rearm_ms = now_ms + SLOT_REARM_MS;
        hub_timer_by(li->hub, slot->rearm_ms);
    }
}

static int64_t listening_tick(struct listener *li, int64_t now_ms)
{
    int64_t due = NEVER_MS;
    for (size_t i = 0; i < LISTENER_SLOTS; i++) {
        struct slot *slot = &li->slots[i];
        if (!slot->busy && now_ms >= slot->rearm_ms) {
            slot_arm(slot);
        }
        if (slot->rearm_ms < due) {
            due = slot->rearm_ms;
        }
    }
    return due;
}

int64_t listener_tick(struct listener *li, int64_t now_ms)
{
    if (li->state == LISTENER_LISTENING) {
        return listening_tick(li, now_ms);
    }
    if (li->state == LISTENER_ENDING && !slots_busy(li)) {
        nng_stream_listener_free(li->nng);
        li->nng = NULL;
        li->state = LISTENER_WAITING;
        li->retry_ms = now_ms;
    }
    if (li->state != LISTENER_WAITING || now_ms < li->retry_ms) {
        return li->state == LISTENER_WAITING ? li->retry_ms : NEVER_MS;
    }
    struct errmsg msg = {{0}};
    uint16_t port;
    if (status_is_ok(listener_listen(li, &port, &msg))) {
        LOG_WARN("listener made anew", LOG_STR("address", li->address));
        listener_begin(li);
        return NEVER_MS;
    }
    LOG_ERROR("listener cannot be made anew", LOG_STR("reason", msg.text));
    li->retry_ms = now_ms + LISTEN_RETRY_MS;
    return li->retry_ms;
}

void listener_stop(struct listener *li)
{
    if (li->state != LISTENER_STOPPED) {
        li->state = LISTENER_STOPPED;
        if (li->nng != NULL) {
            nng_stream_listener_close(li->nng);
        }
    }
}

bool listener_idle(const struct listener *li)
{
    return li->state == LISTENER_STOPPED && !slots_busy(li);
}

void listener_free(struct listener *li)
{
    slots_free(li);
    if (li->nng != NULL) {
        nng_stream_listener_free(li->nng);
    }
    mem_free(li);
}

struct status link_hub_listen(struct link_hub *hub, const char *address, uint16_t *port_out,
                              struct errmsg *msg)
{
    CHECK(!hub->closing);
    if (hub->listeners_count >= LISTENERS_MAX || strlen(address) + 8 > LINK_ADDRESS_BYTES) {
        return status_fail(msg, STATUS_LIMIT, "listen on %.300s: %s", address,
                           hub->listeners_count >= LISTENERS_MAX ? "too many listeners"
                                                                 : "address too long");
    }
    const char *colon = strrchr(address, ':');
    struct listener *li = mem_zalloc(1, sizeof *li);
    if (li == NULL || colon == NULL) {
        mem_free(li);
        return colon == NULL ? status_fail(msg, STATUS_INVALID,
                                           "listen on %s: the address has no port", address)
                             : status_fail(msg, STATUS_NOMEM, "listen on %s", address);
    }
    li->hub = hub;
    (void)snprintf(li->address, sizeof li->address, "%s", address);
    int rv = 0;
    for (size_t i = 0; i < LISTENER_SLOTS && rv == 0; i++) {
        li->slots[i] = (struct slot){.listener = li, .rearm_ms = NEVER_MS};
        rv = nng_aio_alloc(&li->slots[i].aio, on_accepted, &li->slots[i]);
        if (rv == 0) {
            nng_aio_set_timeout(li->slots[i].aio, NNG_DURATION_INFINITE);
        }
    }
    uint16_t port = 0;
    struct status s = rv == 0 ? listener_listen(li, &port, msg)
                              : status_fail(msg, STATUS_NOMEM, "listen on %s", address);
    if (!status_is_ok(s)) {
        slots_free(li);
        mem_free(li);
        return s;
    }
    (void)snprintf(li->address, sizeof li->address, "%.*s:%u", (int)(colon - address), address,
                   port);
    li->next = hub->listeners;
    hub->listeners = li;
    hub->listeners_count++;
    listener_begin(li);
    if (port_out != NULL) {
        *port_out = port;
    }
    return status_ok();
}

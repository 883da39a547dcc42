#include "common/net/link_internal.h"

#include "common/check.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>

/* On nng's threads. */
static void on_dialled(void *arg)
{
    struct dialer *d = arg;
    d->letter.kind = LETTER_DIALLED;
    mailbox_put(&d->hub->mailbox, &d->letter);
}

static void redial_plan(struct dialer *d)
{
    d->state = DIALER_WAITING;
    /* Half to all of the back-off, so that a crowd spreads out. */
    uint64_t half = d->backoff_ms / 2;
    d->redial_ms = hub_now(d->hub) + (int64_t)(half + hub_random(d->hub) % (half + 1));
    uint32_t max = d->hub->limits.redial_ms_max;
    d->backoff_ms = d->backoff_ms > max / 2 ? max : d->backoff_ms * 2;
    hub_timer_by(d->hub, d->redial_ms);
}

static void dial_failed(struct dialer *d, struct status why, const char *reason)
{
    struct link_hub *hub = d->hub;
    redial_plan(d);
    if (hub->events.on_dial_failed != NULL) {
        hub->events.on_dial_failed(hub->events.data, d->address, why, reason);
    }
}

static int dial_start(struct dialer *d)
{
    char url[LINK_ADDRESS_BYTES + 16];
    (void)snprintf(url, sizeof url, "tcp://%s", d->address);
    nng_stream_dialer *nng = NULL;
    int rv = nng_stream_dialer_alloc(&nng, url);
    if (rv == 0) {
        rv = nng_stream_dialer_set_bool(nng, NNG_OPT_TCP_NODELAY, true);
    }
    if (rv != 0) {
        if (nng != NULL) {
            nng_stream_dialer_free(nng);
        }
        return rv;
    }
    d->nng = nng;
    d->state = DIALER_DIALLING;
    d->busy = true;
    d->timed_out = false;
    d->deadline_ms = hub_now(d->hub) + d->hub->limits.handshake_ms;
    hub_timer_by(d->hub, d->deadline_ms);
    nng_stream_dialer_dial(nng, d->aio);
    return 0;
}

void dialer_letter_take(struct dialer *d)
{
    d->busy = false;
    int rv = nng_aio_result(d->aio);
    nng_stream *stream = rv == 0 ? nng_aio_get_output(d->aio, 0) : NULL;
    nng_stream_dialer_free(d->nng);
    d->nng = NULL;
    if (d->state == DIALER_STOPPED) {
        if (stream != NULL) {
            nng_stream_close(stream);
            nng_stream_free(stream);
        }
        hub_timer_by(d->hub, hub_now(d->hub));
        return;
    }
    if (stream == NULL) {
        bool late = d->timed_out || rv == NNG_ETIMEDOUT;
        dial_failed(d, late ? status_of(STATUS_TIMEOUT) : hub_nng_status(rv),
                    late ? "no answer in time" : hub_nng_text(rv));
        return;
    }
    struct status why;
    char reason[LINK_REASON_BYTES];
    d->link = link_new(d->hub, stream, d, &why, reason);
    if (d->link == NULL) {
        dial_failed(d, why, reason);
        return;
    }
    d->state = DIALER_LINKED;
}

int64_t dialer_tick(struct dialer *d, int64_t now_ms)
{
    if (d->state == DIALER_DIALLING && !d->timed_out) {
        if (now_ms < d->deadline_ms) {
            return d->deadline_ms;
        }
        d->timed_out = true;
        nng_stream_dialer_close(d->nng);
    }
    if (d->state != DIALER_WAITING) {
        return NEVER_MS;
    }
    if (now_ms < d->redial_ms) {
        return d->redial_ms;
    }
    int rv = dial_start(d);
    if (rv != 0) {
        dial_failed(d, hub_nng_status(rv), hub_nng_text(rv));
        return d->redial_ms;
    }
    return d->deadline_ms;
}

void dialer_unlinked(struct dialer *d, int64_t lived_ms)
{
    CHECK(d->state == DIALER_LINKED);
    d->link = NULL;
    if (lived_ms >= d->hub->limits.redial_ms_max) {
        d->backoff_ms = d->hub->limits.redial_ms_min;
    }
    redial_plan(d);
}

void dialer_stop(struct dialer *d)
{
    if (d->state == DIALER_STOPPED) {
        return;
    }
    d->state = DIALER_STOPPED;
    if (d->busy) {
        nng_stream_dialer_close(d->nng);
    }
    if (d->link != NULL) {
        d->link->dialer = NULL;
        link_end(d->link, status_of(STATUS_CANCELED), "no longer wanted");
        d->link = NULL;
    }
    hub_timer_by(d->hub, hub_now(d->hub));
}

bool dialer_idle(const struct dialer *d)
{
    return d->state == DIALER_STOPPED && !d->busy;
}

void dialer_free(struct dialer *d)
{
    nng_aio_free(d->aio);
    mem_free(d);
}

struct status link_hub_dial(struct link_hub *hub, const char *address,
                            const struct identity *expect, uint64_t tag, struct errmsg *msg)
{
    CHECK(!hub->closing);
    size_t size = strlen(address);
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address || colon[1] == '\0') {
        return status_fail(msg, STATUS_INVALID, "dial %.300s: an address has the form HOST:PORT",
                           address);
    }
    if (size >= LINK_ADDRESS_BYTES || hub->dialers_count >= DIALERS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "dial %.300s: %s", address,
                           size >= LINK_ADDRESS_BYTES ? "address too long" : "too many dialers");
    }
    struct dialer *d = mem_zalloc(1, sizeof *d);
    if (d == NULL || nng_aio_alloc(&d->aio, on_dialled, d) != 0) {
        mem_free(d);
        return status_fail(msg, STATUS_NOMEM, "dial %s", address);
    }
    nng_aio_set_timeout(d->aio, NNG_DURATION_INFINITE);
    d->hub = hub;
    memcpy(d->address, address, size + 1);
    d->tag = tag;
    if (expect != NULL) {
        d->expect = *expect;
    }
    d->backoff_ms = hub->limits.redial_ms_min;
    d->state = DIALER_WAITING;
    d->next = hub->dialers;
    hub->dialers = d;
    hub->dialers_count++;
    /* The loop's time is that of its last turn, which may be long ago. */
    uv_update_time(hub->loop);
    d->redial_ms = hub_now(hub);
    if (dial_start(d) != 0) {
        /* Out of memory or no such address: the tick tries again and tells. */
        hub_timer_by(hub, d->redial_ms);
    }
    return status_ok();
}

void link_hub_undial(struct link_hub *hub, const char *address, uint64_t tag)
{
    for (struct dialer *d = hub->dialers; d != NULL; d = d->next) {
        if (d->tag == tag && strcmp(d->address, address) == 0) {
            dialer_stop(d);
        }
    }
}

#include "tests/component/net/net_fixture.h"

#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void pattern_fill(uint8_t *data, size_t size, uint32_t seed)
{
    uint32_t x = seed * 2654435761U + 1;
    for (size_t i = 0; i < size; i++) {
        x = x * 1664525U + 1013904223U;
        data[i] = (uint8_t)(x >> 24);
    }
}

static void pattern_check(struct end *e, struct bytes payload)
{
    uint32_t seed;
    if (payload.size < sizeof seed) {
        e->bad_messages++;
        return;
    }
    memcpy(&seed, payload.data, sizeof seed);
    uint32_t x = seed * 2654435761U + 1;
    for (size_t i = sizeof seed; i < payload.size; i++) {
        x = x * 1664525U + 1013904223U;
        if (payload.data[i] != (uint8_t)(x >> 24)) {
            e->bad_messages++;
            return;
        }
    }
}

static void on_open(void *data, struct link *l)
{
    struct end *e = data;
    e->opens++;
    e->last = l;
    e->last_peer = *link_peer(l);
    e->last_tag = link_tag(l);
    link_set_data(l, e);
}

static void on_message(void *data, struct link *l, struct bytes payload)
{
    struct end *e = data;
    assert_ptr_equal(link_data(l), e);
    e->messages++;
    e->message_bytes += payload.size;
    if (e->verify) {
        pattern_check(e, payload);
    } else {
        e->last_message.size = 0;
        assert_true(status_is_ok(buffer_append(&e->last_message, payload.data, payload.size)));
    }
    if (e->echo) {
        (void)link_send(l, &payload, 1).code;
    }
}

static void note(struct end *e, struct status why, const char *reason)
{
    e->last_why = why.code;
    (void)snprintf(e->last_reason, sizeof e->last_reason, "%s", reason);
}

static void on_close(void *data, struct link *l, struct status why, const char *reason)
{
    struct end *e = data;
    e->closes++;
    if (e->last == l) {
        e->last = NULL;
    }
    note(e, why, reason);
}

static void on_dial_failed(void *data, const char *address, struct status why, const char *reason)
{
    struct end *e = data;
    assert_non_null(address);
    e->dial_failures++;
    note(e, why, reason);
}

static bool allow(void *data, const struct identity *peer)
{
    const struct end *e = data;
    assert_true(peer->serial[0] != '\0');
    return !atomic_load(&e->refuse_all);
}

void end_open(struct net_fixture *f, struct end *e, const struct test_ca *ca,
              const struct test_certificate *c, const struct link_limits *limits)
{
    const struct link_events events = {.data = e,
                                       .on_open = on_open,
                                       .on_message = on_message,
                                       .on_close = on_close,
                                       .on_dial_failed = on_dial_failed,
                                       .allow = allow};
    const struct tls_identity texts = test_identity(ca, c);
    struct errmsg msg = {{0}};
    memset(e, 0, sizeof *e);
    e->f = f;
    struct status s = link_hub_open(&e->hub, &f->loop, &texts, limits, &events, &msg);
    if (!status_is_ok(s)) {
        fail_msg("link_hub_open: %s", msg.text);
    }
}

void end_dial(struct end *e)
{
    const struct identity expect = {.role = ROLE_SCHEDULER};
    struct errmsg msg = {{0}};
    assert_true(status_is_ok(link_hub_dial(e->hub, e->f->address, &expect, 7, &msg)));
}

static void on_hub_closed(void *data)
{
    struct end *e = data;
    e->closed = true;
}

void end_close(struct end *e)
{
    if (e->hub != NULL) {
        link_hub_close(e->hub, on_hub_closed, e);
        RUN_UNTIL(e->f, e->closed);
        assert_int_equal(e->opens, e->closes);
        e->hub = NULL;
    }
    buffer_close(&e->last_message);
}

void end_send(struct end *e, const void *data, size_t size)
{
    assert_non_null(e->last);
    const struct bytes part = bytes_of(data, size);
    assert_true(status_is_ok(link_send(e->last, &part, 1)));
}

void fixture_ping(struct net_fixture *f)
{
    unsigned before = f->client.messages;
    f->server.echo = true;
    end_send(&f->client, "ping", 4);
    RUN_UNTIL(f, f->client.messages == before + 1);
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static void on_deadline(uv_timer_t *timer)
{
    struct net_fixture *f = timer->data;
    f->late = true;
}

void fixture_deadline_start(struct net_fixture *f)
{
    f->late = false;
    uv_update_time(&f->loop);
    assert_int_equal(uv_timer_start(&f->deadline, on_deadline, FIXTURE_WAIT_MS, 0), 0);
    assert_int_equal(uv_timer_start(&f->tick, on_tick, 5, 5), 0);
}

void fixture_deadline_stop(struct net_fixture *f)
{
    assert_int_equal(uv_timer_stop(&f->deadline), 0);
    assert_int_equal(uv_timer_stop(&f->tick), 0);
}

bool fixture_turn(struct net_fixture *f)
{
    (void)uv_run(&f->loop, UV_RUN_ONCE);
    if (f->late) {
        const struct end *ends[] = {&f->server, &f->client};
        for (size_t i = 0; i < 2; i++) {
            print_message("%s: %u opens, %u closes, %u messages, last reason \"%s\"\n",
                          i == 0 ? "server" : "client", ends[i]->opens, ends[i]->closes,
                          ends[i]->messages, ends[i]->last_reason);
        }
    }
    return !f->late;
}

void net_fixture_open(struct net_fixture *f, const struct link_limits *limits)
{
    log_open("test", LOG_LEVEL_ERROR, LOG_FORMAT_KV, 2);
    memset(f, 0, sizeof *f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->deadline), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->tick), 0);
    f->deadline.data = f;
    test_ca_open(&f->ca, "test ca");
    test_certificate_for(&f->server_certificate, &f->ca, "skep://test/scheduler/s1");
    test_certificate_for(&f->client_certificate, &f->ca, "skep://test/agent/a1");
    end_open(f, &f->server, &f->ca, &f->server_certificate, limits);
    struct errmsg msg = {{0}};
    struct status s = link_hub_listen(f->server.hub, "127.0.0.1:0", &f->port, &msg);
    if (!status_is_ok(s)) {
        fail_msg("link_hub_listen: %s", msg.text);
    }
    (void)snprintf(f->address, sizeof f->address, "127.0.0.1:%u", f->port);
}

void net_fixture_dial(struct net_fixture *f, const struct link_limits *limits)
{
    end_open(f, &f->client, &f->ca, &f->client_certificate, limits);
    unsigned before = f->server.opens;
    end_dial(&f->client);
    RUN_UNTIL(f, f->client.opens == 1 && f->server.opens == before + 1);
}

void net_fixture_close(struct net_fixture *f)
{
    end_close(&f->client);
    end_close(&f->server);
    uv_close((uv_handle_t *)&f->deadline, NULL);
    uv_close((uv_handle_t *)&f->tick, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    test_certificate_close(&f->client_certificate);
    test_certificate_close(&f->server_certificate);
    test_ca_close(&f->ca);
}

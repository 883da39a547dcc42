/* Two ends of TLS, carried from one to the other by hand. */
#include "common/net/tls_conn.h"
#include "tests/lib/test_pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PLAIN_BYTES = 4096, STEPS_MAX = 64 };

struct side {
    SSL_CTX *context;
    struct tls_conn tls;
    struct tls_check check;
    struct buffer wire;     /* taken from the other's out */
    struct buffer received; /* in plain */
    enum tls_step last;     /* but for TLS_WANTS */
    unsigned secured, refused, ended;
};

struct pair {
    struct test_ca ca;
    struct test_certificate server_certificate, client_certificate;
    struct side server, client;
};

static void side_open(struct side *s, const struct test_ca *ca, const struct test_certificate *c,
                      bool server, enum role expect)
{
    const struct tls_identity texts = test_identity(ca, c);
    struct identity own;
    struct errmsg msg = {{0}};
    assert_int_equal(tls_context_new(&texts, server, &s->context, &own, &msg).code, STATUS_OK);
    s->check.cluster = own.cluster;
    s->check.expect.role = expect;
    assert_int_equal(tls_conn_open(&s->tls, s->context, server, &s->check).code, STATUS_OK);
}

static void side_close(struct side *s)
{
    tls_conn_close(&s->tls);
    SSL_CTX_free(s->context);
    buffer_close(&s->wire);
    buffer_close(&s->received);
}

static void pair_open(struct pair *p, enum role server_expects)
{
    const struct test_certificate_spec server = {.uri = "skep://test/scheduler/s1"};
    const struct test_certificate_spec client = {.uri = "skep://test/agent/a1"};
    *p = (struct pair){.server.last = TLS_WANTS, .client.last = TLS_WANTS};
    test_ca_open(&p->ca, "test ca");
    test_certificate_open(&p->server_certificate, &p->ca, &server);
    test_certificate_open(&p->client_certificate, &p->ca, &client);
    side_open(&p->server, &p->ca, &p->server_certificate, true, server_expects);
    side_open(&p->client, &p->ca, &p->client_certificate, false, ROLE_SCHEDULER);
}

static void pair_close(struct pair *p)
{
    side_close(&p->server);
    side_close(&p->client);
    test_certificate_close(&p->server_certificate);
    test_certificate_close(&p->client_certificate);
    test_ca_close(&p->ca);
}

/* Feeds what came, and steps until nothing more is in it. */
static void side_run(struct side *s)
{
    static uint8_t plain[PLAIN_BYTES];
    tls_conn_feed(&s->tls, bytes_of(s->wire.data, s->wire.size));
    size_t got;
    for (enum tls_step step;
         (step = tls_conn_step(&s->tls, plain, sizeof plain, &got)) != TLS_WANTS;) {
        s->last = step;
        s->secured += step == TLS_SECURED;
        s->refused += step == TLS_REFUSED;
        s->ended += step == TLS_ENDED;
        assert_true((step == TLS_DATA) == (got > 0));
        assert_int_equal(buffer_append(&s->received, plain, got).code, STATUS_OK);
    }
    assert_int_equal(s->tls.in.size, 0);
    s->wire.size = 0;
}

static bool carry(struct side *from, struct side *to)
{
    bool any = from->tls.out.size > 0;
    assert_int_equal(buffer_append(&to->wire, from->tls.out.data, from->tls.out.size).code,
                     STATUS_OK);
    from->tls.out.size = 0;
    return any;
}

static void pair_run(struct pair *p)
{
    side_run(&p->client); /* A client begins with nothing fed. */
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        bool any = carry(&p->client, &p->server);
        side_run(&p->server);
        any = carry(&p->server, &p->client) || any;
        side_run(&p->client);
        if (!any) {
            return;
        }
    }
    fail_msg("no end");
}

static void say(struct side *s, const void *data, size_t size)
{
    assert_int_equal(tls_conn_write(&s->tls, bytes_of(data, size)).code, STATUS_OK);
}

static void both_ends_are_secured_once_and_know_each_other(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, ROLE_AGENT);
    assert_int_equal(tls_conn_write(&p.client.tls, bytes_of("x", 1)).code, STATUS_UNAVAILABLE);
    pair_run(&p);
    assert_int_equal(p.server.secured, 1);
    assert_int_equal(p.client.secured, 1);
    assert_string_equal(p.server.tls.check.peer.name.text, "a1");
    assert_string_equal(p.client.tls.check.peer.name.text, "s1");
    pair_close(&p);
}

static void a_handshake_may_come_byte_by_byte(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, ROLE_AGENT);
    side_run(&p.client);
    struct buffer hello = p.client.tls.out;
    p.client.tls.out = (struct buffer){0};
    for (size_t i = 0; i < hello.size; i++) {
        assert_int_equal(buffer_append(&p.server.wire, hello.data + i, 1).code, STATUS_OK);
        side_run(&p.server);
    }
    buffer_close(&hello);
    (void)carry(&p.server, &p.client);
    pair_run(&p);
    assert_int_equal(p.server.secured, 1);
    pair_close(&p);
}

static void much_data_comes_whole_and_in_order(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, ROLE_AGENT);
    pair_run(&p);
    size_t size = 300001;
    uint8_t *data = malloc(size);
    assert_non_null(data);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 31 >> 3);
    }
    say(&p.client, data, size);
    say(&p.server, "back", 4);
    pair_run(&p);
    assert_true(bytes_equal(bytes_of(p.server.received.data, p.server.received.size),
                            bytes_of(data, size)));
    assert_true(
        bytes_equal(bytes_of(p.client.received.data, p.client.received.size), bytes_of("back", 4)));
    free(data);
    pair_close(&p);
}

static void a_refused_peer_gets_its_alert_and_what_it_says_is_dropped(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, ROLE_USER);
    pair_run(&p);
    assert_int_equal(p.server.refused, 1);
    assert_int_equal(p.server.tls.check.refusal, REFUSAL_IDENTITY);
    assert_int_equal(p.client.refused, 1); /* after it was secured: TLS 1.3's client is first */
    assert_int_equal(p.client.tls.check.refusal, REFUSAL_BY_PEER);
    assert_int_equal(p.server.secured, 0);
    assert_int_equal(p.server.received.size, 0);
    assert_int_equal(tls_conn_write(&p.server.tls, bytes_of("x", 1)).code, STATUS_UNAVAILABLE);
    pair_close(&p);
}

static void what_came_before_the_end_is_told_before_it(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, ROLE_AGENT);
    pair_run(&p);
    say(&p.client, "last", 4);
    tls_conn_shutdown(&p.client.tls);
    tls_conn_shutdown(&p.client.tls);
    pair_run(&p);
    assert_int_equal(p.server.received.size, 4);
    assert_int_equal(p.server.ended, 1);
    assert_int_equal(p.server.last, TLS_ENDED);
    pair_close(&p);
}

static void a_changed_byte_ends_it_after_what_came_before(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, ROLE_AGENT);
    pair_run(&p);
    say(&p.client, "good", 4);
    say(&p.client, "bad", 3);
    (void)carry(&p.client, &p.server);
    p.server.wire.data[p.server.wire.size - 1] ^= 1;
    side_run(&p.server);
    assert_int_equal(p.server.received.size, 4);
    assert_int_equal(p.server.refused, 1);
    assert_int_equal(p.server.tls.check.refusal, REFUSAL_PROTOCOL);
    pair_close(&p);
}

static void update_keys(struct side *s)
{
    assert_int_equal(SSL_key_update(s->tls.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    assert_int_equal(SSL_do_handshake(s->tls.ssl), 1);
}

static void a_peer_may_change_its_keys_now_and_then(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, ROLE_AGENT);
    pair_run(&p);
    for (unsigned i = 0; i < TLS_LATE_MAX / 2; i++) {
        update_keys(&p.client);
        say(&p.client, "x", 1);
        pair_run(&p);
        say(&p.server, "y", 1);
        pair_run(&p);
    }
    assert_int_equal(p.server.received.size, TLS_LATE_MAX / 2);
    assert_int_equal(p.client.received.size, TLS_LATE_MAX / 2);
    pair_close(&p);
}

static void a_flood_of_key_changes_ends_early(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, ROLE_AGENT);
    pair_run(&p);
    for (unsigned i = 0; i < 1000; i++) {
        update_keys(&p.client);
    }
    (void)carry(&p.client, &p.server);
    side_run(&p.server);
    assert_int_equal(p.server.refused, 1);
    assert_int_equal(p.server.tls.check.refusal, REFUSAL_PROTOCOL);
    assert_true(p.server.tls.late <= TLS_LATE_MAX + 1);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_are_secured_once_and_know_each_other),
        cmocka_unit_test(a_handshake_may_come_byte_by_byte),
        cmocka_unit_test(much_data_comes_whole_and_in_order),
        cmocka_unit_test(a_refused_peer_gets_its_alert_and_what_it_says_is_dropped),
        cmocka_unit_test(what_came_before_the_end_is_told_before_it),
        cmocka_unit_test(a_peer_may_change_its_keys_now_and_then),
        cmocka_unit_test(a_flood_of_key_changes_ends_early),
        cmocka_unit_test(a_changed_byte_ends_it_after_what_came_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "common/log.h"
#include "common/mem.h"
#include "common/net/link_internal.h"
#include "tests/component/net/net_fixture.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct rlimit files_max; /* of the process: what a failed test may have left changed */

static int fixture_setup(void **state)
{
    if (files_max.rlim_max == 0) {
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &files_max), 0);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files_max), 0);
    struct net_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    net_fixture_open(f, NULL);
    *state = f;
    return 0;
}

static int fixture_teardown(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_close(f);
    free(f);
    return 0;
}

static void open_tells_each_side_who_the_other_is(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    assert_int_equal(f->client.last_peer.role, ROLE_SCHEDULER);
    assert_string_equal(f->client.last_peer.name.text, "s1");
    assert_string_equal(f->server.last_peer.cluster.text, "test");
    assert_int_equal(f->server.last_peer.role, ROLE_AGENT);
    assert_string_equal(f->server.last_peer.name.text, "a1");
    assert_true(f->server.last_peer.serial[0] != '\0');
    assert_true(f->server.last_peer.not_after_s > 0);
    assert_int_equal(f->client.last_tag, 7);
    assert_true(link_dialled(f->client.last));
    assert_false(link_dialled(f->server.last));
    assert_string_equal(link_address(f->client.last), f->address);
}

static void a_message_arrives_whole_and_comes_back(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    f->server.echo = true;
    const struct bytes parts[] = {bytes_of("hello ", 6), bytes_of("", 0), bytes_of("bees", 4)};
    assert_true(status_is_ok(link_send(f->client.last, parts, 3)));
    RUN_UNTIL(f, f->client.messages == 1);
    assert_int_equal(f->client.last_message.size, 10);
    assert_memory_equal(f->client.last_message.data, "hello bees", 10);
}

static void an_empty_message_arrives(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    end_send(&f->client, NULL, 0);
    RUN_UNTIL(f, f->server.messages == 1);
    assert_int_equal(f->server.last_message.size, 0);
}

static void send_pattern(struct end *e, size_t size, uint32_t seed)
{
    uint8_t *data = malloc(size);
    assert_non_null(data);
    memcpy(data, &seed, sizeof seed);
    pattern_fill(data + sizeof seed, size - sizeof seed, seed);
    end_send(e, data, size);
    free(data);
}

static void frames_of_every_size_arrive_in_order_both_ways(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    f->server.verify = true;
    f->client.verify = true;
    f->server.echo = true;
    static const size_t sizes[] = {4, 5, 16383, 16384, 16385, 65536, 1 << 20, LINK_FRAME_BYTES_MAX};
    unsigned sent = 0;
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            send_pattern(&f->client, sizes[i], ++sent);
        }
    }
    RUN_UNTIL(f, f->client.messages == sent);
    assert_int_equal(f->server.bad_messages + f->client.bad_messages, 0);
    RUN_UNTIL(f, link_queued_bytes(f->server.last) == 0);
}

static void many_small_messages_arrive(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    f->server.verify = true;
    f->server.echo = true;
    f->client.verify = true;
    enum { MESSAGES = 20000 };
    for (uint32_t i = 0; i < MESSAGES; i++) {
        send_pattern(&f->client, 4 + i % 300, i);
    }
    RUN_UNTIL(f, f->client.messages == MESSAGES);
    assert_int_equal(f->server.bad_messages + f->client.bad_messages, 0);
}

static void a_message_over_the_frame_limit_is_refused_by_send(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    uint8_t *data = calloc(1, LINK_FRAME_BYTES_MAX + 1);
    assert_non_null(data);
    const struct bytes over = bytes_of(data, LINK_FRAME_BYTES_MAX + 1);
    assert_int_equal(link_send(f->client.last, &over, 1).code, STATUS_LIMIT);
    free(data);
    end_send(&f->client, "ok", 2);
    RUN_UNTIL(f, f->server.messages == 1);
}

static void a_full_send_queue_answers_limit_and_queues_nothing(void **state)
{
    struct net_fixture *f = *state;
    const struct link_limits limits = {.send_queue_bytes = 100000};
    net_fixture_dial(f, &limits);
    static uint8_t data[1000];
    const struct bytes part = bytes_of(data, sizeof data);
    unsigned sent = 0;
    while (status_is_ok(link_send(f->client.last, &part, 1))) {
        sent++;
        assert_true(sent < 200);
    }
    assert_in_range(sent, 95, 99);
    uint64_t queued = link_queued_bytes(f->client.last);
    assert_int_equal(link_send(f->client.last, &part, 1).code, STATUS_LIMIT);
    assert_int_equal(link_queued_bytes(f->client.last), queued);
    RUN_UNTIL(f, f->server.messages == sent);
    RUN_UNTIL(f, link_queued_bytes(f->client.last) == 0);
    end_send(&f->client, "more", 4);
    RUN_UNTIL(f, f->server.messages == sent + 1);
}

static void send_survives_oom(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    static uint8_t data[1 << 20];
    const struct bytes part = bytes_of(data, sizeof data);
    mem_fault(0, 1);
    struct status s = link_send(f->client.last, &part, 1);
    unsigned faults = mem_fault_clear();
    assert_int_equal(faults, 1);
    assert_int_equal(s.code, STATUS_NOMEM);
    end_send(&f->client, "ok", 2);
    RUN_UNTIL(f, f->server.messages == 1);
    assert_int_equal(f->server.last_message.size, 2);
}

static void close_with_flush_delivers_what_was_queued(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    f->server.verify = true;
    for (uint32_t i = 0; i < 40; i++) {
        send_pattern(&f->client, 200000, i);
    }
    link_close(f->client.last, true, "going home");
    const struct bytes part = bytes_of("x", 1);
    assert_int_equal(link_send(f->client.last, &part, 1).code, STATUS_UNAVAILABLE);
    assert_int_equal(f->client.closes, 0);
    RUN_UNTIL(f, f->client.closes == 1 && f->server.closes == 1);
    assert_int_equal(f->server.messages, 40);
    assert_int_equal(f->server.bad_messages, 0);
    assert_non_null(strstr(f->server.last_reason, "going home"));
    assert_string_equal(f->client.last_reason, "going home");
    assert_int_equal(f->client.last_why, STATUS_CANCELED);
}

static void close_without_flush_is_noticed_by_both(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    link_close(f->server.last, false, "enough");
    assert_int_equal(f->server.closes, 0);
    RUN_UNTIL(f, f->server.closes == 1 && f->client.closes == 1);
    assert_string_equal(f->server.last_reason, "enough");
    assert_int_equal(f->client.last_why, STATUS_UNAVAILABLE);
}

static void a_dialer_connects_again_after_a_close(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    for (unsigned round = 2; round < 5; round++) {
        link_close(f->server.last, false, "again");
        RUN_UNTIL(f, f->client.opens == round && f->server.opens == round);
    }
    end_send(&f->client, "hi", 2);
    RUN_UNTIL(f, f->server.messages == 1);
}

static void undial_closes_the_connection_and_stays_away(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    link_hub_undial(f->client.hub, f->address, 8);
    assert_non_null(f->client.last);
    link_hub_undial(f->client.hub, f->address, 7);
    RUN_UNTIL(f, f->client.closes == 1 && f->server.closes == 1);
    assert_int_equal(f->client.last_why, STATUS_CANCELED);
    /* A second dialer to the same place works; the first does not come back. */
    end_dial(&f->client);
    RUN_UNTIL(f, f->client.opens == 2 && f->server.opens == 2);
    assert_int_equal(link_hub_stats(f->client.hub).dialled, 2);
}

static void a_dialer_waits_for_a_listener_that_comes_later(void **state)
{
    struct net_fixture *f = *state;
    end_close(&f->server);
    const struct link_limits fast = {.redial_ms_min = 10, .redial_ms_max = 20};
    end_open(f, &f->client, &f->ca, &f->client_certificate, &fast);
    end_dial(&f->client);
    RUN_UNTIL(f, f->client.dial_failures >= 3);
    assert_string_equal(f->client.last_reason, "connection refused");
    assert_int_equal(f->client.last_why, STATUS_UNAVAILABLE);
    end_open(f, &f->server, &f->ca, &f->server_certificate, NULL);
    assert_true(status_is_ok(link_hub_listen(f->server.hub, f->address, NULL, NULL)));
    RUN_UNTIL(f, f->client.opens == 1);
}

/* A listener whose queue is full answers no connection at all. */
static void a_dialer_gives_up_on_a_host_that_does_not_answer(void **state)
{
    struct net_fixture *f = *state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    int fill[4];
    for (size_t i = 0; i < 4; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fill[i], (const struct sockaddr *)&at, sizeof at);
    }
    const struct link_limits limits = {.handshake_ms = 200};
    (void)snprintf(f->address, sizeof f->address, "127.0.0.1:%u", ntohs(at.sin_port));
    end_open(f, &f->client, &f->ca, &f->client_certificate, &limits);
    end_dial(&f->client);
    RUN_UNTIL(f, f->client.dial_failures >= 2);
    assert_int_equal(f->client.last_why, STATUS_TIMEOUT);
    assert_non_null(strstr(f->client.last_reason, "in time"));
    for (size_t i = 0; i < 4; i++) {
        (void)close(fill[i]);
    }
    (void)close(listener);
}

static void a_dialer_gives_up_on_a_host_that_speaks_no_tls(void **state)
{
    struct net_fixture *f = *state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 16), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    const struct link_limits limits = {.handshake_ms = 200};
    (void)snprintf(f->address, sizeof f->address, "127.0.0.1:%u", ntohs(at.sin_port));
    end_open(f, &f->client, &f->ca, &f->client_certificate, &limits);
    end_dial(&f->client);
    RUN_UNTIL(f, f->client.dial_failures >= 2);
    assert_int_equal(f->client.last_why, STATUS_TIMEOUT);
    assert_string_equal(f->client.last_reason, "no handshake in time");
    (void)close(listener);
}

/* A module beside the link, whose own prepare handle runs after the link's. */
static void on_late_prepare(uv_prepare_t *handle)
{
    struct net_fixture *f = handle->data;
    if (f->client.last != NULL) {
        end_send(&f->client, "late", 4);
        assert_int_equal(uv_prepare_stop(handle), 0);
    }
}

static void on_late_closed(uv_handle_t *handle)
{
    handle->data = NULL;
}

/* ... sends when the link has already looked: the loop must not sleep on it. */
static void a_send_just_before_the_loop_sleeps_leaves_at_once(void **state)
{
    struct net_fixture *f = *state;
    /* Nothing else wakes the loop. */
    const struct link_limits limits = {
        .handshake_ms = 90000, .heartbeat_ms = 90000, .dead_ms = 180000};
    end_close(&f->server);
    end_open(f, &f->server, &f->ca, &f->server_certificate, &limits);
    assert_true(status_is_ok(link_hub_listen(f->server.hub, f->address, NULL, NULL)));
    /* libuv runs the handle that was started first last. */
    uv_prepare_t late;
    assert_int_equal(uv_prepare_init(&f->loop, &late), 0);
    late.data = f;
    assert_int_equal(uv_prepare_start(&late, on_late_prepare), 0);
    end_open(f, &f->client, &f->ca, &f->client_certificate, &limits);
    end_dial(&f->client);
    fixture_deadline_start(f);
    assert_int_equal(uv_timer_stop(&f->tick), 0);
    while (f->server.messages == 0) {
        assert_true(fixture_turn(f));
    }
    fixture_deadline_stop(f);
    uv_close((uv_handle_t *)&late, on_late_closed);
    RUN_UNTIL(f, late.data == NULL);
}

static void parting_words_are_safe_to_print(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    link_close(f->client.last, true, "bye\x1b[2J\n\xff");
    RUN_UNTIL(f, f->server.closes == 1);
    assert_string_equal(f->server.last_reason, "closed by the peer: bye?[2J??");
}

static void listening_twice_on_one_address_is_told(void **state)
{
    struct net_fixture *f = *state;
    struct errmsg msg = {{0}};
    struct status s = link_hub_listen(f->server.hub, f->address, NULL, &msg);
    assert_int_equal(s.code, STATUS_EXISTS);
    assert_non_null(strstr(msg.text, "address already in use"));
    assert_int_equal(link_hub_listen(f->server.hub, "nonsense", NULL, &msg).code, STATUS_INVALID);
    assert_int_equal(link_hub_dial(f->server.hub, "nonsense", NULL, 0, &msg).code, STATUS_INVALID);
}

static void a_key_of_another_certificate_is_told(void **state)
{
    struct net_fixture *f = *state;
    struct tls_identity mixed = test_identity(&f->ca, &f->server_certificate);
    mixed.key_pem = f->client_certificate.key_pem;
    struct errmsg msg = {{0}};
    assert_int_equal(link_hub_renew(f->server.hub, &mixed, &msg).code, STATUS_INVALID);
    assert_non_null(strstr(msg.text, "key"));
    mixed = test_identity(&f->ca, &f->server_certificate);
    mixed.ca_pem = "nonsense";
    assert_int_equal(link_hub_renew(f->server.hub, &mixed, &msg).code, STATUS_INVALID);
    net_fixture_dial(f, NULL);
}

static void renew_serves_new_connections_and_disturbs_no_old_one(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    char old_serial[SERIAL_STRING_BYTES];
    memcpy(old_serial, f->client.last_peer.serial, sizeof old_serial);
    struct test_certificate fresh;
    test_certificate_for(&fresh, &f->ca, "skep://test/scheduler/s1");
    const struct tls_identity texts = test_identity(&f->ca, &fresh);
    assert_true(status_is_ok(link_hub_renew(f->server.hub, &texts, NULL)));
    f->server.echo = true;
    end_send(&f->client, "still here", 10);
    RUN_UNTIL(f, f->client.messages == 1);
    assert_int_equal(f->client.closes, 0);
    link_close(f->client.last, false, "look again");
    RUN_UNTIL(f, f->client.opens == 2);
    assert_string_not_equal(f->client.last_peer.serial, old_serial);
    test_certificate_close(&fresh);
}

static void an_idle_connection_lives_on_heartbeats(void **state)
{
    struct net_fixture *f = *state;
    const struct link_limits limits = {.heartbeat_ms = 20, .dead_ms = 5000};
    net_fixture_dial(f, &limits);
    uint64_t before = link_hub_stats(f->server.hub).frames_received;
    RUN_UNTIL(f, link_hub_stats(f->server.hub).frames_received >= before + 5);
    assert_int_equal(f->server.closes + f->client.closes, 0);
}

static void visit_close(void *arg, struct link *l)
{
    unsigned *visits = arg;
    (*visits)++;
    link_close(l, false, "visited");
}

/* Both ends share the loop: neither may hold the pause against the other. */
static void a_pause_of_our_own_loop_closes_nothing(void **state)
{
    struct net_fixture *f = *state;
    const struct link_limits limits = {.heartbeat_ms = 50, .dead_ms = 150};
    end_close(&f->server);
    end_open(f, &f->server, &f->ca, &f->server_certificate, &limits);
    assert_true(status_is_ok(link_hub_listen(f->server.hub, f->address, NULL, NULL)));
    net_fixture_dial(f, &limits);
    const struct timespec pause = {.tv_sec = 1};
    /* lint: allow sleep-in-test: the pause is what is tested */
    assert_int_equal(nanosleep(&pause, NULL), 0);
    uint64_t before = link_hub_stats(f->server.hub).frames_received;
    RUN_UNTIL(f, link_hub_stats(f->server.hub).frames_received >= before + 3);
    assert_int_equal(f->server.closes + f->client.closes, 0);
}

static void each_visits_the_open_links_and_may_close_them(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    unsigned visits = 0;
    link_hub_each(f->server.hub, visit_close, &visits);
    assert_int_equal(visits, 1);
    RUN_UNTIL(f, f->server.closes == 1 && f->client.closes >= 1);
}

static void stats_count_what_happened(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    end_send(&f->client, "12345678", 8);
    RUN_UNTIL(f, f->server.messages == 1);
    struct link_stats s = link_hub_stats(f->server.hub);
    struct link_stats c = link_hub_stats(f->client.hub);
    assert_int_equal(s.accepted, 1);
    assert_int_equal(s.connections, 1);
    assert_int_equal(s.half_open, 0);
    assert_int_equal(c.dialled, 1);
    assert_true(c.frames_sent >= 2);
    assert_true(s.bytes_received >= 8 + 2 * 16);
    link_close(f->client.last, false, "done");
    RUN_UNTIL(f, f->client.closes == 1 && f->server.closes == 1);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).closed == 1);
}

/* As if a peer had broken nng's listener from outside. */
static void a_broken_listener_is_made_anew(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    log_open("test", LOG_LEVEL_ERROR, LOG_FORMAT_KV, 2);
    nng_stream_listener *broken = f->server.hub->listeners->nng;
    nng_stream_listener_close(broken);
    end_close(&f->client);
    net_fixture_dial(f, NULL);
    assert_ptr_not_equal(f->server.hub->listeners, NULL);
    end_send(&f->client, "hi", 2);
    RUN_UNTIL(f, f->server.messages == 1);
}

enum { HELD_MAX = 64 };

/* Takes every descriptor that is left; nng gives back those of earlier connections when it
 * likes. */
static void descriptors_hold(int held[HELD_MAX], unsigned *count)
{
    int fd;
    while (*count < HELD_MAX && (fd = dup(0)) >= 0) {
        held[(*count)++] = fd;
    }
}

static void descriptors_may_run_out_and_come_back(void **state)
{
    struct net_fixture *f = *state;
    int held[HELD_MAX];
    unsigned count = 0;
    end_open(f, &f->client, &f->ca, &f->client_certificate, NULL);
    int highest = dup(0);
    assert_true(highest >= 0);
    (void)close(highest);
    const struct rlimit few = {.rlim_cur = (rlim_t)highest + 6, .rlim_max = files_max.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    descriptors_hold(held, &count); /* First: a dial that found one left would succeed. */
    end_dial(&f->client);
    fixture_deadline_start(f);
    while (strcmp(f->client.last_reason, "too many open files") != 0) {
        descriptors_hold(held, &count);
        assert_true(fixture_turn(f));
    }
    fixture_deadline_stop(f);
    assert_int_equal(f->client.last_why, STATUS_LIMIT);
    /* Now the dialer has one and the listener none: its accept fails and is tried again. */
    (void)close(held[--count]);
    RUN_UNTIL(f, f->server.hub->listeners->slots[0].rearm_ms != NEVER_MS ||
                     f->client.dial_failures >= 8 || f->server.opens >= 1);
    while (count > 0) {
        (void)close(held[--count]);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files_max), 0);
    RUN_UNTIL(f, f->client.opens >= 1 && f->server.opens >= 1 && f->client.last != NULL);
}

static void an_ipv6_address_works(void **state)
{
    struct net_fixture *f = *state;
    uint16_t port = 0;
    struct errmsg msg = {{0}};
    if (!status_is_ok(link_hub_listen(f->server.hub, "[::1]:0", &port, &msg))) {
        skip(); /* a machine without IPv6 */
    }
    (void)snprintf(f->address, sizeof f->address, "[::1]:%u", port);
    net_fixture_dial(f, NULL);
    assert_string_equal(link_address(f->client.last), f->address);
}

static void closing_the_hub_with_messages_in_flight_ends(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    f->server.echo = true;
    for (uint32_t i = 0; i < 50; i++) {
        send_pattern(&f->client, 100000, i);
    }
    RUN_UNTIL(f, f->server.messages >= 3);
    end_close(&f->client);
    assert_int_equal(f->client.last_why, STATUS_CANCELED);
    RUN_UNTIL(f, f->server.closes == 1);
}

static void closing_a_hub_that_dials_nobody_ends(void **state)
{
    struct net_fixture *f = *state;
    end_open(f, &f->client, &f->ca, &f->client_certificate, NULL);
    const char *const nowhere[] = {"127.0.0.1:1", "127.0.0.1:2", "no-such-host.invalid:3"};
    for (size_t i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
        assert_true(status_is_ok(link_hub_dial(f->client.hub, nowhere[i], NULL, i, NULL)));
    }
    end_close(&f->client);
    assert_int_equal(f->client.opens, 0);
}

/* Every descriptor of the process is closed on exec: a daemon starts cells. */
static void all_descriptors_are_cloexec(void **state)
{
    struct net_fixture *f = *state;
    net_fixture_dial(f, NULL);
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    unsigned sockets = 0;
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        char target[256] = "";
        ssize_t n = readlinkat(dirfd(dir), d->d_name, target, sizeof target - 1);
        if (n > 0 && strncmp(target, "socket:", 7) == 0) {
            int flags = fcntl(atoi(d->d_name), F_GETFD);
            assert_true((flags & FD_CLOEXEC) != 0);
            sockets++;
        }
    }
    (void)closedir(dir);
    assert_true(sockets >= 3);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* to run one by hand */
    }
#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(open_tells_each_side_who_the_other_is),
        WITH_FIXTURE(a_message_arrives_whole_and_comes_back),
        WITH_FIXTURE(an_empty_message_arrives),
        WITH_FIXTURE(frames_of_every_size_arrive_in_order_both_ways),
        WITH_FIXTURE(many_small_messages_arrive),
        WITH_FIXTURE(a_message_over_the_frame_limit_is_refused_by_send),
        WITH_FIXTURE(a_full_send_queue_answers_limit_and_queues_nothing),
        WITH_FIXTURE(send_survives_oom),
        WITH_FIXTURE(close_with_flush_delivers_what_was_queued),
        WITH_FIXTURE(close_without_flush_is_noticed_by_both),
        WITH_FIXTURE(a_dialer_connects_again_after_a_close),
        WITH_FIXTURE(undial_closes_the_connection_and_stays_away),
        WITH_FIXTURE(a_dialer_waits_for_a_listener_that_comes_later),
        WITH_FIXTURE(a_dialer_gives_up_on_a_host_that_does_not_answer),
        WITH_FIXTURE(a_dialer_gives_up_on_a_host_that_speaks_no_tls),
        WITH_FIXTURE(a_send_just_before_the_loop_sleeps_leaves_at_once),
        WITH_FIXTURE(parting_words_are_safe_to_print),
        WITH_FIXTURE(listening_twice_on_one_address_is_told),
        WITH_FIXTURE(a_key_of_another_certificate_is_told),
        WITH_FIXTURE(renew_serves_new_connections_and_disturbs_no_old_one),
        WITH_FIXTURE(an_idle_connection_lives_on_heartbeats),
        WITH_FIXTURE(a_pause_of_our_own_loop_closes_nothing),
        WITH_FIXTURE(each_visits_the_open_links_and_may_close_them),
        WITH_FIXTURE(stats_count_what_happened),
        WITH_FIXTURE(a_broken_listener_is_made_anew),
        WITH_FIXTURE(descriptors_may_run_out_and_come_back),
        WITH_FIXTURE(an_ipv6_address_works),
        WITH_FIXTURE(closing_the_hub_with_messages_in_flight_ends),
        WITH_FIXTURE(closing_a_hub_that_dials_nobody_ends),
        WITH_FIXTURE(all_descriptors_are_cloexec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

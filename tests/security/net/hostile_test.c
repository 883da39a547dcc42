/* Peers that must be refused, over real sockets: each is counted, told why where TLS can tell, and
 * disturbs nobody else. */
#include "common/log.h"
#include "common/net/link_internal.h"
#include "tests/component/net/net_fixture.h"
#include "tests/security/net/raw_client.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    HEARTBEAT = 1,
    DATA = 2,
    HEADER_BYTES = 16,
    FLOOD_FRAMES = 1024,
    FLOOD_FRAME_BYTES = 64 << 10,
    STILL_MS = 200,
};

/* What a raw client does, on a thread, while the loop runs. */
struct job {
    struct net_fixture *f;
    struct tls_identity texts; /* cert_pem NULL: none */
    int version;
    const void *bytes; /* for plain connections */
    size_t size;
    unsigned count;
    bool (*fn)(struct job *j);
    int alert;
    bool ok;
    atomic_bool done;
    atomic_uint sent; /* by job_flood */
    sem_t leave;      /* what job_deaf and job_flood wait for */
};

static void *job_main(void *arg)
{
    struct job *j = arg;
    j->ok = j->fn(j);
    atomic_store(&j->done, true);
    return NULL;
}

static void job_run(struct job *j)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, job_main, j), 0);
    RUN_UNTIL(j->f, atomic_load(&j->done));
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(j->ok);
}

/* Shakes hands, says hello, and expects to be thrown out. */
static bool job_tls_refused(struct job *j)
{
    struct raw_client c;
    bool ok = raw_open(&c, j->f->port);
    if (ok && raw_tls_start(&c, &j->texts, j->version)) {
        (void)raw_frame(&c, HEARTBEAT, 0);
        ok = raw_tls_wait_end(&c);
    }
    j->alert = c.alert;
    raw_close(&c);
    return ok;
}

static struct job refused_job(struct net_fixture *f, const struct test_ca *ca,
                              const struct test_certificate *c)
{
    struct job j = {.f = f, .version = TLS1_3_VERSION, .fn = job_tls_refused};
    j.texts = c != NULL ? test_identity(ca, c) : (struct tls_identity){.ca_pem = ca->pem};
    return j;
}

/* A fixture with a good connection beside which the bad ones come. */
static int fixture_setup(void **state)
{
    struct net_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    const struct link_limits limits = {
        .handshake_ms = 2000, .dead_ms = 60000, .connections_max = 400, .half_open_max = 350};
    net_fixture_open(f, &limits);
    net_fixture_dial(f, &limits);
    log_open("test", LOG_LEVEL_ERROR + 1, LOG_FORMAT_KV, 2);
    *state = f;
    return 0;
}

static int fixture_teardown(void **state)
{
    struct net_fixture *f = *state;
    fixture_ping(f);
    assert_int_equal(f->client.closes, 0);
    net_fixture_close(f);
    free(f);
    return 0;
}

/* A certificate made from spec is refused with the alert. */
static void expect_refusal(struct net_fixture *f, const struct test_certificate_spec *spec,
                           int alert)
{
    struct test_certificate c;
    test_certificate_open(&c, &f->ca, spec);
    struct job j = refused_job(f, &f->ca, &c);
    job_run(&j);
    assert_int_equal(j.alert, alert);
    assert_int_equal(f->server.opens, 1);
    test_certificate_close(&c);
}

static void no_certificate_is_refused(void **state)
{
    struct net_fixture *f = *state;
    struct job j = refused_job(f, &f->ca, NULL);
    job_run(&j);
    assert_int_equal(j.alert, SSL_AD_CERTIFICATE_REQUIRED);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_no_certificate == 1);
}

static void a_certificate_of_another_ca_is_refused(void **state)
{
    struct net_fixture *f = *state;
    struct test_ca other;
    struct test_certificate c;
    test_ca_open(&other, "test ca");
    test_certificate_for(&c, &other, "skep://test/agent/a1");
    struct job j = refused_job(f, &other, &c);
    job_run(&j);
    /* The same name, another key: the signature does not fit, or no issuer is found. */
    assert_true(j.alert == SSL_AD_UNKNOWN_CA || j.alert == SSL_AD_DECRYPT_ERROR ||
                j.alert == SSL_AD_BAD_CERTIFICATE);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_untrusted == 1);
    test_certificate_close(&c);
    test_ca_close(&other);
}

static void an_expired_certificate_is_refused(void **state)
{
    struct net_fixture *f = *state;
    const struct test_certificate_spec spec = {.uri = "skep://test/agent/a1", .not_after_s = -10};
    expect_refusal(f, &spec, SSL_AD_CERTIFICATE_EXPIRED);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_expired == 1);
}

static void a_certificate_of_the_future_is_refused(void **state)
{
    struct net_fixture *f = *state;
    const struct test_certificate_spec spec = {
        .uri = "skep://test/agent/a1", .not_before_s = 1000, .not_after_s = 2000};
    expect_refusal(f, &spec, SSL_AD_BAD_CERTIFICATE);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_expired == 1);
}

static void a_revoked_certificate_is_refused(void **state)
{
    struct net_fixture *f = *state;
    const struct test_certificate_spec spec = {.uri = "skep://test/agent/a1"};
    atomic_store(&f->server.refuse_all, true);
    expect_refusal(f, &spec, SSL_AD_CERTIFICATE_REVOKED);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_revoked == 1);
}

static void a_certificate_without_identity_is_refused(void **state)
{
    struct net_fixture *f = *state;
    const struct test_certificate_spec spec = {.uri = NULL};
    expect_refusal(f, &spec, SSL_AD_HANDSHAKE_FAILURE);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_identity == 1);
}

static void a_certificate_with_two_identities_is_refused(void **state)
{
    struct net_fixture *f = *state;
    const struct test_certificate_spec spec = {.uri = "skep://test/agent/a1",
                                               .second_uri = "skep://test/scheduler/s1"};
    expect_refusal(f, &spec, SSL_AD_HANDSHAKE_FAILURE);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_identity == 1);
}

static void an_identity_that_cannot_be_read_is_refused(void **state)
{
    struct net_fixture *f = *state;
    static const char *const uris[] = {"skep://test/king/a1", "skep://test/agent/",
                                       "skep://test/agent/a1/more", "skep://test", "https://x/"};
    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        const struct test_certificate_spec spec = {.uri = uris[i]};
        expect_refusal(f, &spec, SSL_AD_HANDSHAKE_FAILURE);
        RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_identity == i + 1);
    }
}

static void a_member_of_another_cluster_is_refused(void **state)
{
    struct net_fixture *f = *state;
    const struct test_certificate_spec spec = {.uri = "skep://other/agent/a1"};
    expect_refusal(f, &spec, SSL_AD_HANDSHAKE_FAILURE);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_identity == 1);
}

static void a_server_certificate_is_no_client_certificate(void **state)
{
    struct net_fixture *f = *state;
    const struct test_certificate_spec spec = {.uri = "skep://test/agent/a1", .eku = "serverAuth"};
    expect_refusal(f, &spec, SSL_AD_UNSUPPORTED_CERTIFICATE);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_untrusted == 1);
}

static void tls_1_2_is_refused(void **state)
{
    struct net_fixture *f = *state;
    struct job j = refused_job(f, &f->ca, &f->client_certificate);
    j.version = TLS1_2_VERSION;
    job_run(&j);
    assert_int_equal(j.alert, SSL_AD_PROTOCOL_VERSION);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_protocol == 1);
}

/* --- plain bytes --- */

static bool job_plain_refused(struct job *j)
{
    struct raw_client c;
    bool ok = raw_open(&c, j->f->port);
    (void)raw_write(&c, j->bytes, j->size);
    ok = ok && raw_wait_end(&c);
    raw_close(&c);
    return ok;
}

static void garbage_is_refused(void **state)
{
    struct net_fixture *f = *state;
    static uint8_t noise[20000];
    pattern_fill(noise, sizeof noise, 3);
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const struct bytes inputs[] = {
        bytes_of(http, sizeof http - 1),
        bytes_of(noise, sizeof noise),
        bytes_of("\x16\x03\x01\xff\xff oversize record", 20),
        bytes_of("\x17\x03\x03\x00\x05hello", 10),
    };
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        struct job j = {
            .f = f, .fn = job_plain_refused, .bytes = inputs[i].data, .size = inputs[i].size};
        job_run(&j);
        RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_protocol == i + 1);
    }
}

static bool job_connect_and_leave(struct job *j)
{
    for (unsigned i = 0; i < j->count; i++) {
        struct raw_client c;
        if (!raw_open(&c, j->f->port)) {
            return false;
        }
        (void)raw_write(&c, j->bytes, i % 3 == 0 ? 0 : j->size);
        if (i % 2 == 0) {
            raw_abort(&c);
        } else {
            raw_close(&c);
        }
    }
    return true;
}

static unsigned descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

/* A peer without credentials stops nng's own listener this way. */
static void connections_that_leave_at_once_do_no_harm(void **state)
{
    struct net_fixture *f = *state;
    /* The first bytes of a ClientHello, and not its end. */
    static const uint8_t hello[] = {0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 1, 2, 3, 4, 5, 6};
    unsigned before = descriptors();
    struct job j = {
        .f = f, .fn = job_connect_and_leave, .bytes = hello, .size = sizeof hello, .count = 300};
    job_run(&j);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).connections == 1 && descriptors() <= before);
    /* The listener is alive. */
    fixture_ping(f);
    end_close(&f->client);
    net_fixture_dial(f, NULL);
}

/* --- time and number --- */

static bool job_silent(struct job *j)
{
    struct raw_client c;
    bool ok = raw_open(&c, j->f->port);
    if (ok && j->texts.cert_pem != NULL) {
        ok = raw_tls_start(&c, &j->texts, TLS1_3_VERSION) && raw_tls_wait_end(&c);
    } else {
        ok = ok && raw_write(&c, j->bytes, j->size) && raw_wait_end(&c);
    }
    raw_close(&c);
    return ok;
}

static void a_silent_connection_is_closed_in_time(void **state)
{
    struct net_fixture *f = *state;
    struct job j = {.f = f, .fn = job_silent, .bytes = "\x16\x03\x01", .size = 3};
    job_run(&j);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_timeout == 1);
}

static void a_handshake_without_a_frame_is_closed_in_time(void **state)
{
    struct net_fixture *f = *state;
    struct job j = {
        .f = f, .fn = job_silent, .texts = test_identity(&f->ca, &f->client_certificate)};
    job_run(&j);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_timeout == 1);
    assert_int_equal(f->server.opens, 1);
}

static bool job_many_silent(struct job *j)
{
    struct raw_client c[40];
    unsigned opened = 0;
    bool ok = true;
    while (opened < 40 && ok) {
        ok = raw_open(&c[opened], j->f->port);
        opened += ok;
    }
    for (unsigned i = 0; i < opened; i++) {
        ok = ok && raw_wait_end(&c[i]);
        raw_close(&c[i]);
    }
    return ok;
}

static int few_setup(void **state)
{
    struct net_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    const struct link_limits limits = {
        .handshake_ms = 2000, .half_open_max = 8, .connections_max = 12};
    net_fixture_open(f, &limits);
    net_fixture_dial(f, NULL);
    log_open("test", LOG_LEVEL_ERROR + 1, LOG_FORMAT_KV, 2);
    *state = f;
    return 0;
}

/* Of links that are not secured. */
static unsigned letters_in(const struct link_hub *hub)
{
    unsigned count = 0;
    for (const struct letter *at = atomic_load(&hub->mailbox.newest); at != NULL; at = at->next) {
        count += !((const struct link_letter *)(const void *)at)->link->secured;
    }
    return count;
}

static unsigned later_in(const struct link_hub *hub)
{
    unsigned count = 0;
    for (const struct link *l = hub->later; l != NULL; l = l->later_next) {
        count++;
    }
    return count;
}

static void handshakes_are_taken_a_few_a_turn(void **state)
{
    enum { STRANGERS = 3 * HANDSHAKES_TURN_MAX };
    struct net_fixture *f = *state;
    struct link_hub *hub = f->server.hub;
    struct raw_client strangers[STRANGERS];
    for (size_t i = 0; i < STRANGERS; i++) {
        assert_true(raw_open(&strangers[i], f->port));
    }
    RUN_UNTIL(f, link_hub_stats(hub).half_open == STRANGERS);
    for (size_t i = 0; i < STRANGERS; i++) {
        assert_true(raw_write(&strangers[i], "\x16", 1));
    }
    /* The loop stands still until all have been heard. */
    uint64_t deadline_ns = uv_hrtime() + UINT64_C(1000000) * FIXTURE_WAIT_MS;
    while (letters_in(hub) < STRANGERS) {
        assert_true(uv_hrtime() < deadline_ns);
        (void)sched_yield();
    }
    RUN_UNTIL(f, later_in(hub) > 0);
    unsigned left = later_in(hub);
    assert_true(left >= STRANGERS - HANDSHAKES_TURN_MAX);
    while (left > 0) {
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
        unsigned now = later_in(hub);
        assert_true(now < left && left - now <= HANDSHAKES_TURN_MAX);
        left = now;
    }
    fixture_ping(f);
    for (size_t i = 0; i < STRANGERS; i++) {
        raw_close(&strangers[i]);
    }
    RUN_UNTIL(f, link_hub_stats(hub).half_open == 0);
}

static void half_open_connections_are_limited(void **state)
{
    struct net_fixture *f = *state;
    struct job j = {.f = f, .fn = job_many_silent};
    job_run(&j);
    struct link_stats s = link_hub_stats(f->server.hub);
    assert_true(s.refused_limit >= 32);
    assert_true(s.refused_limit + s.refused_timeout >= 40);
    assert_int_equal(s.half_open, 0);
}

/* Holds count open links until told. */
static bool job_many_members(struct job *j)
{
    struct raw_client c[20];
    unsigned opened = 0;
    bool ok = true;
    while (opened < j->count && ok) {
        ok = raw_open(&c[opened], j->f->port);
        if (ok && raw_tls_start(&c[opened], &j->texts, TLS1_3_VERSION)) {
            (void)raw_frame(&c[opened], HEARTBEAT, 0);
            (void)raw_tls_read(&c[opened], HEADER_BYTES);
        }
        opened += ok;
    }
    for (unsigned i = 0; i < opened; i++) {
        raw_close(&c[i]);
    }
    return ok;
}

static void connections_are_limited(void **state)
{
    struct net_fixture *f = *state;
    struct job j = {.f = f,
                    .fn = job_many_members,
                    .count = 20,
                    .texts = test_identity(&f->ca, &f->client_certificate)};
    job_run(&j);
    struct link_stats s = link_hub_stats(f->server.hub);
    assert_int_equal(f->server.opens, 12);
    assert_int_equal(s.refused_limit, 9);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).connections == 1);
}

/* --- frames of a member --- */

static bool job_member(struct job *j, struct raw_client *c)
{
    return raw_open(c, j->f->port) && raw_tls_start(c, &j->texts, TLS1_3_VERSION) &&
           raw_frame(c, HEARTBEAT, 0) && raw_tls_read(c, HEADER_BYTES);
}

static bool job_headers(struct job *j)
{
    struct {
        uint32_t length;
        uint8_t kind, flags;
        uint64_t sequence;
    } const bad[] = {
        {0, HEARTBEAT, 0, 3}, /* a gap */
        {0, HEARTBEAT, 0, 1}, /* a replay */
        {0, 0, 0, 2},         /* no kind */
        {0, 9, 0, 2},         /* an unknown kind */
        {0, DATA, 1, 2},      /* flags */
        {1, HEARTBEAT, 0, 2}, /* a payload where none may be */
        {LINK_FRAME_BYTES_MAX + 1, DATA, 0, 2},
        {UINT32_MAX, DATA, 0, 2},
        {257, 3, 0, 2}, /* a long goodbye */
    };
    bool ok = true;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0] && ok; i++) {
        struct raw_client c;
        ok = job_member(j, &c) &&
             raw_header(&c, bad[i].length, bad[i].kind, bad[i].flags, bad[i].sequence) &&
             raw_tls_wait_end(&c);
        raw_close(&c);
        j->count++;
    }
    return ok;
}

static void bad_frames_close_their_connection_only(void **state)
{
    struct net_fixture *f = *state;
    struct job j = {
        .f = f, .fn = job_headers, .texts = test_identity(&f->ca, &f->client_certificate)};
    job_run(&j);
    RUN_UNTIL(f, f->server.closes == j.count);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_frame == j.count);
}

static bool job_first_frame_too_large(struct job *j)
{
    struct raw_client c;
    bool ok = raw_open(&c, j->f->port) && raw_tls_start(&c, &j->texts, TLS1_3_VERSION) &&
              raw_header(&c, LINK_FRAME_BYTES_MAX_JOIN + 1, DATA, 0, 1) && raw_tls_wait_end(&c);
    raw_close(&c);
    return ok;
}

static void the_first_frame_is_small_whoever_sends_it(void **state)
{
    struct net_fixture *f = *state;
    struct job j = {.f = f,
                    .fn = job_first_frame_too_large,
                    .texts = test_identity(&f->ca, &f->client_certificate)};
    job_run(&j);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_frame == 1);
    assert_int_equal(f->server.opens, 1);
}

static bool job_truncated(struct job *j)
{
    struct raw_client c;
    bool ok =
        job_member(j, &c) && raw_header(&c, 1000, DATA, 0, 2) && raw_tls_write(&c, "only this", 9);
    raw_close(&c);
    return ok;
}

static void a_truncated_frame_is_never_delivered(void **state)
{
    struct net_fixture *f = *state;
    struct job j = {
        .f = f, .fn = job_truncated, .texts = test_identity(&f->ca, &f->client_certificate)};
    job_run(&j);
    RUN_UNTIL(f, f->server.closes == 1);
    assert_int_equal(f->server.messages, 0);
}

static bool job_joiner(struct job *j)
{
    struct raw_client c;
    bool ok = job_member(j, &c) && raw_frame(&c, DATA, LINK_FRAME_BYTES_MAX_JOIN) &&
              raw_header(&c, LINK_FRAME_BYTES_MAX_JOIN + 1, DATA, 0, 3) && raw_tls_wait_end(&c);
    raw_close(&c);
    return ok;
}

static void a_joiner_sends_small_frames_only(void **state)
{
    struct net_fixture *f = *state;
    struct test_certificate c;
    test_certificate_for(&c, &f->ca, "skep://test/join/token");
    struct job j = {.f = f, .fn = job_joiner, .texts = test_identity(&f->ca, &c)};
    job_run(&j);
    RUN_UNTIL(f, f->server.closes == 1);
    assert_int_equal(f->server.messages, 1);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_frame == 1);
    test_certificate_close(&c);
}

/* Sends far more than the kernel's buffers hold. */
static bool job_flood(struct job *j)
{
    struct raw_client c;
    bool ok = job_member(j, &c) && sem_wait(&j->leave) == 0;
    for (unsigned i = 0; i < FLOOD_FRAMES && ok; i++) {
        ok = raw_frame(&c, DATA, FLOOD_FRAME_BYTES);
        atomic_fetch_add(&j->sent, ok);
    }
    if (ok) {
        (void)sem_wait(&j->leave);
    }
    raw_close(&c);
    return ok;
}

static void a_peer_that_sends_more_than_is_handled_waits(void **state)
{
    struct net_fixture *f = *state;
    struct job j = {
        .f = f, .fn = job_flood, .texts = test_identity(&f->ca, &f->client_certificate)};
    pthread_t thread;
    assert_int_equal(sem_init(&j.leave, 0, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, job_main, &j), 0);
    RUN_UNTIL(f, f->server.opens == 2);
    const struct link *flooding = f->server.last;
    assert_int_equal(sem_post(&j.leave), 0);
    /* The loop stands still until nothing moves any more. */
    unsigned sent = 0;
    for (uint64_t still_ns = uv_hrtime(); uv_hrtime() < still_ns + UINT64_C(1000000) * STILL_MS;) {
        unsigned now = atomic_load(&j.sent);
        still_ns = now == sent ? still_ns : uv_hrtime();
        sent = now;
        (void)sched_yield();
    }
    assert_true(sent < FLOOD_FRAMES);
    RUN_UNTIL(f, f->server.messages == FLOOD_FRAMES);
    assert_true(flooding->recv_capacity <= RECV_BYTES_MAX);
    assert_int_equal(f->server.closes, 0);
    assert_int_equal(sem_post(&j.leave), 0);
    RUN_UNTIL(f, f->server.closes == 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(sem_destroy(&j.leave), 0);
    assert_true(j.ok);
}

/* Opens a link, never reads from it, and waits for the end of the test. */
static bool job_deaf(struct job *j)
{
    struct raw_client c;
    bool ok = raw_open_narrow(&c, j->f->port) && raw_tls_start(&c, &j->texts, TLS1_3_VERSION) &&
              raw_frame(&c, HEARTBEAT, 0);
    if (ok) {
        (void)sem_wait(&j->leave);
    }
    raw_close(&c);
    return ok;
}

static void deaf_start(struct net_fixture *f, struct job *j, pthread_t *thread)
{
    *j = (struct job){
        .f = f, .fn = job_deaf, .texts = test_identity(&f->ca, &f->client_certificate)};
    assert_int_equal(sem_init(&j->leave, 0, 0), 0);
    assert_int_equal(pthread_create(thread, NULL, job_main, j), 0);
    RUN_UNTIL(f, f->server.opens == 2);
}

static void deaf_end(struct net_fixture *f, struct job *j, pthread_t thread)
{
    fixture_ping(f);
    link_close(f->server.last, false, "deaf");
    RUN_UNTIL(f, f->server.closes == 1);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).connections == 1);
    assert_int_equal(sem_post(&j->leave), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(sem_destroy(&j->leave), 0);
    assert_true(j->ok);
}

static void a_peer_that_never_reads_fills_its_own_queue_only(void **state)
{
    struct net_fixture *f = *state;
    struct job j;
    pthread_t thread;
    deaf_start(f, &j, &thread);
    struct link *deaf = f->server.last;
    static uint8_t data[1 << 20];
    const struct bytes part = bytes_of(data, sizeof data);
    unsigned sent = 0;
    while (status_is_ok(link_send(deaf, &part, 1))) {
        assert_true(sent++ < 200);
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(link_send(deaf, &part, 1).code, STATUS_LIMIT);
    deaf_end(f, &j, thread);
}

/* Few bytes at a time, so that it may be the quick operation that gets stuck. */
static void a_send_that_is_not_done_stops_nobody(void **state)
{
    struct net_fixture *f = *state;
    struct job j;
    pthread_t thread;
    deaf_start(f, &j, &thread);
    struct link *deaf = f->server.last;
    static uint8_t data[7000];
    const struct bytes part = bytes_of(data, sizeof data);
    fixture_deadline_start(f);
    while (!deaf->quick_busy && !deaf->send_busy) {
        if (link_queued_bytes(deaf) == 0) {
            assert_true(status_is_ok(link_send(deaf, &part, 1)));
        }
        assert_true(fixture_turn(f));
    }
    fixture_deadline_stop(f);
    assert_true(link_queued_bytes(deaf) > 0);
    deaf_end(f, &j, thread);
}

/* --- dialling --- */

/* Dials the server with a certificate made from spec; the reason is for people. */
static void expect_dial_failure(struct net_fixture *f, const struct test_ca *ca,
                                const struct test_certificate_spec *spec, const char *reason)
{
    struct end e;
    struct test_certificate c;
    test_certificate_open(&c, ca, spec);
    end_open(f, &e, ca, &c, NULL);
    end_dial(&e);
    RUN_UNTIL(f, e.dial_failures >= 1);
    assert_int_equal(e.opens, 0);
    if (strstr(e.last_reason, reason) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", e.last_reason, reason);
    }
    assert_int_equal(e.last_why, STATUS_DENIED);
    end_close(&e);
    test_certificate_close(&c);
}

static void a_refused_dialer_is_told_why(void **state)
{
    struct net_fixture *f = *state;
    const struct test_certificate_spec expired = {.uri = "skep://test/agent/a1",
                                                  .not_after_s = -10};
    expect_dial_failure(f, &f->ca, &expired, "peer refused our certificate: expired");
    const struct test_certificate_spec early = {
        .uri = "skep://test/agent/a1", .not_before_s = 1000, .not_after_s = 2000};
    expect_dial_failure(f, &f->ca, &early, "peer refused our certificate");
    atomic_store(&f->server.refuse_all, true);
    const struct test_certificate_spec good = {.uri = "skep://test/agent/a1"};
    expect_dial_failure(f, &f->ca, &good, "peer refused our certificate: revoked");
}

static void a_dialer_of_another_cluster_says_so(void **state)
{
    struct net_fixture *f = *state;
    struct test_ca other;
    test_ca_open(&other, "other ca");
    const struct test_certificate_spec spec = {.uri = "skep://other/agent/a1"};
    expect_dial_failure(f, &other, &spec, "not from the CA of cluster other");
    test_ca_close(&other);
    /* The dialler closes at once: its alert may be lost to the reset that follows it. */
    RUN_UNTIL(f, link_hub_stats(f->server.hub).refused_by_peer +
                         link_hub_stats(f->server.hub).refused_protocol >=
                     1);
}

/* The client hub dials a server whose certificate is made from spec. */
static void expect_server_refused(struct net_fixture *f, const struct test_certificate_spec *spec,
                                  const struct identity *expect, const char *reason)
{
    struct end server;
    struct test_certificate c;
    uint16_t port;
    char address[64];
    test_certificate_open(&c, &f->ca, spec);
    end_open(f, &server, &f->ca, &c, NULL);
    assert_true(status_is_ok(link_hub_listen(server.hub, "127.0.0.1:0", &port, NULL)));
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", port);
    unsigned before = f->client.dial_failures;
    unsigned opens = f->client.opens;
    assert_true(status_is_ok(link_hub_dial(f->client.hub, address, expect, 1, NULL)));
    RUN_UNTIL(f, f->client.dial_failures > before);
    link_hub_undial(f->client.hub, address, 1);
    if (strstr(f->client.last_reason, reason) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", f->client.last_reason, reason);
    }
    assert_int_equal(f->client.opens, opens);
    RUN_UNTIL(f, link_hub_stats(server.hub).refused_by_peer +
                         link_hub_stats(server.hub).refused_protocol >=
                     1);
    assert_int_equal(server.opens, 0);
    end_close(&server);
    test_certificate_close(&c);
}

static void a_server_of_the_wrong_role_or_name_is_refused(void **state)
{
    struct net_fixture *f = *state;
    const struct identity any_scheduler = {.role = ROLE_SCHEDULER};
    const struct identity scheduler_s2 = {.role = ROLE_SCHEDULER, .name = {"s2"}};
    const struct test_certificate_spec agent = {.uri = "skep://test/agent/a2"};
    const struct test_certificate_spec s1 = {.uri = "skep://test/scheduler/s1"};
    expect_server_refused(f, &agent, &any_scheduler,
                          "skep://test/agent/a2 answered where scheduler was expected");
    expect_server_refused(f, &s1, &scheduler_s2,
                          "skep://test/scheduler/s1 answered where scheduler s2 was expected");
    assert_true(link_hub_stats(f->client.hub).refused_identity >= 2);
}

static void a_server_with_a_bad_certificate_is_refused_in_words(void **state)
{
    struct net_fixture *f = *state;
    const struct identity expect = {.role = ROLE_SCHEDULER};
    const struct test_certificate_spec expired = {.uri = "skep://test/scheduler/s1",
                                                  .not_after_s = -10};
    expect_server_refused(f, &expired, &expect, "skep://test/scheduler/s1 expired on ");
    const struct test_certificate_spec early = {
        .uri = "skep://test/scheduler/s1", .not_before_s = 1000, .not_after_s = 2000};
    expect_server_refused(f, &early, &expect, "is the clock of this machine right?");
    const struct test_certificate_spec client_only = {.uri = "skep://test/scheduler/s1",
                                                      .eku = "clientAuth"};
    expect_server_refused(f, &client_only, &expect, "not from the CA of cluster test");
}

/* --- death --- */

enum { MEMBERS = 300 };

/* The child: many members in one process, which then waits to be killed. */
static int members_main(char **argv)
{
    const struct tls_identity texts = {.ca_pem = argv[3], .cert_pem = argv[4], .key_pem = argv[5]};
    uint16_t port = (uint16_t)atoi(argv[2]);
    static struct raw_client c[MEMBERS];
    for (unsigned i = 0; i < MEMBERS; i++) {
        if (!raw_open(&c[i], port) || !raw_tls_start(&c[i], &texts, TLS1_3_VERSION) ||
            !raw_frame(&c[i], HEARTBEAT, 0)) {
            return 1;
        }
    }
    for (unsigned round = 0;; round++) {
        for (unsigned i = 0; i < MEMBERS; i++) {
            if (!raw_frame(&c[i], DATA, 100 + round % 1000)) {
                return 1;
            }
        }
    }
}

static void members_that_are_killed_are_all_noticed(void **state)
{
    struct net_fixture *f = *state;
    char port[16];
    (void)snprintf(port, sizeof port, "%u", f->port);
    char self[] = "/proc/self/exe";
    char mode[] = "--members";
    char *argv[] = {
        self, mode, port, f->ca.pem, f->client_certificate.pem, f->client_certificate.key_pem,
        NULL};
    pid_t pid = 0;
    unsigned before = f->server.messages;
    assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
    /* All are in, and all have data under way. */
    RUN_UNTIL(f, f->server.opens == 1 + MEMBERS && f->server.messages > before + 3 * MEMBERS);
    assert_int_equal(kill(pid, SIGKILL), 0);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    /* dead_ms is longer than the test waits: only ends of file count. */
    RUN_UNTIL(f, f->server.closes == MEMBERS);
    RUN_UNTIL(f, link_hub_stats(f->server.hub).connections == 1);
}

/* A member that says hello and nothing more. */
static bool job_mute(struct job *j)
{
    struct raw_client c;
    bool ok = job_member(j, &c) && raw_tls_wait_end(&c);
    raw_close(&c);
    return ok;
}

/* A process that stands still is noticed by the deadline. */
static void a_peer_that_falls_silent_is_closed(void **state)
{
    struct net_fixture *f = *state;
    struct end server;
    const struct link_limits limits = {.heartbeat_ms = 50, .dead_ms = 300};
    uint16_t port;
    end_open(f, &server, &f->ca, &f->server_certificate, &limits);
    assert_true(status_is_ok(link_hub_listen(server.hub, "127.0.0.1:0", &port, NULL)));
    uint16_t old_port = f->port;
    f->port = port;
    struct job j = {.f = f, .fn = job_mute, .texts = test_identity(&f->ca, &f->client_certificate)};
    job_run(&j);
    RUN_UNTIL(f, server.opens == 1 && server.closes == 1);
    assert_int_equal(server.last_why, STATUS_TIMEOUT);
    f->port = old_port;
    end_close(&server);
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "--members") == 0) {
        return members_main(argv);
    }
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* to run one by hand */
    }
    (void)signal(SIGPIPE, SIG_IGN); /* the raw clients write to closed connections */
#define GOOD(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        GOOD(no_certificate_is_refused),
        GOOD(a_certificate_of_another_ca_is_refused),
        GOOD(an_expired_certificate_is_refused),
        GOOD(a_certificate_of_the_future_is_refused),
        GOOD(a_revoked_certificate_is_refused),
        GOOD(a_certificate_without_identity_is_refused),
        GOOD(a_certificate_with_two_identities_is_refused),
        GOOD(an_identity_that_cannot_be_read_is_refused),
        GOOD(a_member_of_another_cluster_is_refused),
        GOOD(a_server_certificate_is_no_client_certificate),
        GOOD(tls_1_2_is_refused),
        GOOD(garbage_is_refused),
        GOOD(connections_that_leave_at_once_do_no_harm),
        GOOD(a_silent_connection_is_closed_in_time),
        GOOD(a_handshake_without_a_frame_is_closed_in_time),
        GOOD(handshakes_are_taken_a_few_a_turn),
        cmocka_unit_test_setup_teardown(half_open_connections_are_limited, few_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(connections_are_limited, few_setup, fixture_teardown),
        GOOD(bad_frames_close_their_connection_only),
        GOOD(the_first_frame_is_small_whoever_sends_it),
        GOOD(a_truncated_frame_is_never_delivered),
        GOOD(a_joiner_sends_small_frames_only),
        GOOD(a_peer_that_sends_more_than_is_handled_waits),
        GOOD(a_peer_that_never_reads_fills_its_own_queue_only),
        GOOD(a_send_that_is_not_done_stops_nobody),
        GOOD(a_refused_dialer_is_told_why),
        GOOD(a_dialer_of_another_cluster_says_so),
        GOOD(a_server_of_the_wrong_role_or_name_is_refused),
        GOOD(a_server_with_a_bad_certificate_is_refused_in_words),
        GOOD(members_that_are_killed_are_all_noticed),
        GOOD(a_peer_that_falls_silent_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

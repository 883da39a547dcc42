/* The client against a scheduler that is scripted: what it sends again, and what it does not. The
 * scheduler runs on a thread with a loop of its own; a test says what it does with each message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/client.h"
#include "common/mem.h"
#include "common/net/link.h"
#include "proto/codec.h"
#include "proto/version.h"
#include "tests/lib/test_pki.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { ASK_MS = 20000, OUTSTANDING = 8, MANY = 100 };

/* What to do with the n-th message that is no hello, from 1: fill in the answer, or close. Who dies
 * has said so in `dies`. */
enum deed { DEED_ANSWER, DEED_CLOSE, DEED_NOTHING, DEED_DIE };
typedef enum deed (*script)(unsigned n, const struct message *m, struct message *answer);

struct scheduler {
    uv_loop_t loop;
    uv_async_t ends;
    struct link_hub *hub;
    pthread_t thread;
    char address[64];
    script script;
    bool dies;
    uint32_t newer; /* by how many versions it is */
    unsigned asked; /* read when the thread is joined, or by the script */
    char keys[MANY][64];
};

static struct test_ca ca;
static struct test_certificate scheduler_certificate, user_certificate;
static char folder[64];
static struct scheduler scheduler;
static struct client *client;

static void send_message(struct link *l, const struct message *m)
{
    struct buffer bytes = {0};
    assert_true(status_is_ok(message_encode(m, &bytes)));
    const struct bytes part = bytes_of(bytes.data, bytes.size);
    (void)!status_is_ok(link_send(l, &part, 1));
    buffer_close(&bytes);
}

static void on_message(void *data, struct link *l, struct bytes payload)
{
    struct scheduler *s = data;
    struct arena a = {0};
    struct message m;
    struct errmsg msg;
    assert_true(status_is_ok(message_decode(payload, &a, &m, &msg)));
    if (m.type == MESSAGE_HELLO) {
        send_message(l, &(struct message){.type = MESSAGE_HELLO,
                                          .hello = {.version_min = version_own.min + s->newer,
                                                    .version_max = version_own.max + s->newer,
                                                    .build = "test"}});
    } else {
        struct message answer = {.type = MESSAGE_REPLY, .reply = {.message = "", .leader = ""}};
        s->asked++;
        enum deed deed = s->script(s->asked, &m, &answer);
        answer.request = m.request;
        if (deed == DEED_ANSWER) {
            send_message(l, &answer);
        } else if (deed == DEED_CLOSE) {
            link_close(l, false, "scripted");
        } else if (deed == DEED_DIE) {
            assert_int_equal(uv_async_send(&s->ends), 0);
        }
    }
    arena_close(&a);
}

static void on_open(void *data, struct link *l)
{
    (void)data;
    (void)l;
}

static void on_close(void *data, struct link *l, struct status why, const char *reason)
{
    (void)data;
    (void)l;
    (void)why;
    (void)reason;
}

static void on_hub_closed(void *data)
{
    (void)data;
}

static void on_ends(uv_async_t *async)
{
    struct scheduler *s = async->data;
    link_hub_close(s->hub, on_hub_closed, s);
    uv_close((uv_handle_t *)async, NULL);
}

static void *serve(void *arg)
{
    struct scheduler *s = arg;
    (void)uv_run(&s->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void scheduler_start(struct scheduler *s)
{
    const struct tls_identity own = test_identity(&ca, &scheduler_certificate);
    const struct link_events events = {
        .data = s, .on_open = on_open, .on_message = on_message, .on_close = on_close};
    struct errmsg msg = {.text = ""};
    uint16_t port = 0;
    *s = (struct scheduler){.asked = 0};
    assert_int_equal(uv_loop_init(&s->loop), 0);
    assert_int_equal(uv_async_init(&s->loop, &s->ends, on_ends), 0);
    s->ends.data = s;
    assert_true(status_is_ok(link_hub_open(&s->hub, &s->loop, &own, NULL, &events, &msg)));
    assert_true(status_is_ok(link_hub_listen(s->hub, "127.0.0.1:0", &port, &msg)));
    (void)snprintf(s->address, sizeof s->address, "127.0.0.1:%u", port);
}

static void write_file(const char *name, const char *text, char path[128])
{
    (void)snprintf(path, 128, "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

static int setup(void **state)
{
    char ca_path[128], cert_path[128], key_path[128];
    struct errmsg msg = {.text = ""};
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/skep-client-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    test_ca_open(&ca, "the CA of a test");
    test_certificate_for(&scheduler_certificate, &ca, "skep://c/scheduler/s1");
    test_certificate_for(&user_certificate, &ca, "skep://c/user/u");
    write_file("ca", ca.pem, ca_path);
    write_file("cert", user_certificate.pem, cert_path);
    write_file("key", user_certificate.key_pem, key_path);
    scheduler_start(&scheduler);
    char *addresses[] = {scheduler.address};
    const struct context context = {.name = (char *)(uintptr_t) "t",
                                    .schedulers = addresses,
                                    .schedulers_count = 1,
                                    .ca = ca_path,
                                    .cert = cert_path,
                                    .key = key_path};
    if (!status_is_ok(client_open(&client, &context, &msg))) {
        fail_msg("%s", msg.text);
    }
    return 0;
}

static void scheduler_run(script s)
{
    scheduler.script = s;
    assert_int_equal(pthread_create(&scheduler.thread, NULL, serve, &scheduler), 0);
}

/* Afterwards `asked` and `keys` may be read. */
static void scheduler_stop(void)
{
    if (!scheduler.dies) {
        assert_int_equal(uv_async_send(&scheduler.ends), 0);
    }
    assert_int_equal(pthread_join(scheduler.thread, NULL), 0);
    assert_int_equal(uv_loop_close(&scheduler.loop), 0);
}

static int teardown(void **state)
{
    static const char *const names[] = {"ca", "cert", "key"};
    (void)state;
    client_close(client);
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
    test_certificate_close(&scheduler_certificate);
    test_certificate_close(&user_certificate);
    test_ca_close(&ca);
    return 0;
}

static void key_note(unsigned n, const struct message *m)
{
    if (n <= MANY && m->type == MESSAGE_SPAWN) {
        (void)snprintf(scheduler.keys[n - 1], sizeof scheduler.keys[0], "%s", m->spawn.key);
    }
}

static void answer_spawn(struct message *answer, enum status_code code, uint32_t after_ms)
{
    answer->type = MESSAGE_SPAWN_REPLY;
    answer->spawn_reply = (struct spawn_reply){.code = code,
                                               .message = code == STATUS_OK ? "" : "not now",
                                               .leader = "",
                                               .invocation = {7, 8},
                                               .retry_after_ms = after_ms};
}

static struct status ask_spawn(const char *key, uint32_t timeout_ms, enum status_code *answered,
                               struct errmsg *msg)
{
    struct arena a = {0};
    struct message answer;
    const struct message m = {.type = MESSAGE_SPAWN, .spawn = {.function = "f", .key = key}};
    *answered = STATUS_OK;
    struct status s = client_ask(client, &m, timeout_ms, &a, &answer, msg);
    if (status_is_ok(s)) {
        const char *text, *leader;
        *answered = client_answer_status(&answer, &text, &leader).code;
    }
    arena_close(&a);
    return s;
}

/* ---- One ---- */

static enum deed close_twice(unsigned n, const struct message *m, struct message *answer)
{
    key_note(n, m);
    answer_spawn(answer, STATUS_OK, 0);
    return n <= 2 ? DEED_CLOSE : DEED_ANSWER;
}

static void a_spawn_with_a_key_is_sent_again_when_the_connection_is_lost(void **state)
{
    (void)state;
    enum status_code answered;
    struct errmsg msg = {.text = ""};
    scheduler_run(close_twice);
    struct status s = ask_spawn("k1", ASK_MS, &answered, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(answered, STATUS_OK);
    assert_int_equal(scheduler.asked, 3);
    assert_string_equal(scheduler.keys[2], "k1");
}

static void a_spawn_without_a_key_is_not(void **state)
{
    (void)state;
    enum status_code answered;
    struct errmsg msg = {.text = ""};
    scheduler_run(close_twice);
    struct status s = ask_spawn("", ASK_MS, &answered, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_UNKNOWN);
    assert_int_equal(scheduler.asked, 1);
    assert_non_null(strstr(msg.text, "it may have been done"));
}

static enum deed passing(unsigned n, const struct message *m, struct message *answer)
{
    static const enum status_code codes[] = {STATUS_LIMIT, STATUS_UNAVAILABLE, STATUS_UNKNOWN};
    key_note(n, m);
    answer_spawn(answer, n <= 3 ? codes[n - 1] : STATUS_OK, 10);
    return DEED_ANSWER;
}

static void passing_answers_are_waited_out(void **state)
{
    (void)state;
    enum status_code answered;
    struct errmsg msg = {.text = ""};
    scheduler_run(passing);
    struct status s = ask_spawn("k", ASK_MS, &answered, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(answered, STATUS_OK);
    assert_int_equal(scheduler.asked, 4);
}

static enum deed full(unsigned n, const struct message *m, struct message *answer)
{
    key_note(n, m);
    answer_spawn(answer, STATUS_LIMIT, 10);
    return DEED_ANSWER;
}

static void when_the_time_is_up_the_last_answer_is_told(void **state)
{
    (void)state;
    enum status_code answered;
    struct errmsg msg = {.text = ""};
    scheduler_run(full);
    struct status s = ask_spawn("k", 3000, &answered, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_LIMIT);
    assert_string_equal(msg.text, "not now");
    assert_true(scheduler.asked > 1);
}

static enum deed final_limit(unsigned n, const struct message *m, struct message *answer)
{
    key_note(n, m);
    answer_spawn(answer, STATUS_LIMIT, 0);
    return DEED_ANSWER;
}

static void a_limit_without_a_time_is_final(void **state)
{
    (void)state;
    enum status_code answered;
    struct errmsg msg = {.text = ""};
    scheduler_run(final_limit);
    struct status s = ask_spawn("k", ASK_MS, &answered, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(answered, STATUS_LIMIT);
    assert_int_equal(scheduler.asked, 1);
}

static enum deed leaderless(unsigned n, const struct message *m, struct message *answer)
{
    key_note(n, m);
    answer_spawn(answer, n <= 2 ? STATUS_NOT_LEADER : STATUS_OK, 0);
    return DEED_ANSWER;
}

static void an_election_is_waited_for(void **state)
{
    (void)state;
    enum status_code answered;
    struct errmsg msg = {.text = ""};
    scheduler_run(leaderless);
    struct status s = ask_spawn("k", ASK_MS, &answered, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(answered, STATUS_OK);
    assert_int_equal(scheduler.asked, 3);
}

static void a_scheduler_of_another_version_is_not_asked(void **state)
{
    (void)state;
    enum status_code answered;
    struct errmsg msg = {.text = ""};
    scheduler.newer = 7;
    scheduler_run(leaderless);
    struct status s = ask_spawn("k", ASK_MS, &answered, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_UNSUPPORTED);
    assert_ptr_equal(strstr(msg.text, "upgrade this skep first"), msg.text);
    assert_int_equal(scheduler.asked, 0);
}

static enum deed close_always(unsigned n, const struct message *m, struct message *answer)
{
    (void)answer;
    key_note(n, m);
    return DEED_CLOSE;
}

static void a_spawn_that_was_sent_and_never_answered_is_unknown(void **state)
{
    (void)state;
    enum status_code answered;
    struct errmsg msg = {.text = ""};
    scheduler_run(close_always);
    struct status s = ask_spawn("k", 2000, &answered, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_UNKNOWN);
    assert_non_null(strstr(msg.text, "it may have been done"));
}

static enum deed close_then_have(unsigned n, const struct message *m, struct message *answer)
{
    assert_int_equal(m->type, MESSAGE_PAYLOAD_PUT);
    answer->type = MESSAGE_PAYLOAD_HAVE;
    answer->payload_have = (struct payload_have){.digest = m->payload_put.digest};
    return n == 1 ? DEED_CLOSE : DEED_ANSWER;
}

static void a_payload_is_put_again_when_the_connection_is_lost(void **state)
{
    (void)state;
    struct arena a = {0};
    struct message answer;
    struct errmsg msg = {.text = ""};
    const struct message m = {.type = MESSAGE_PAYLOAD_PUT,
                              .payload_put = {.digest = {{1}}, .data = bytes_of("x", 1)}};
    scheduler_run(close_then_have);
    struct status s = client_ask(client, &m, ASK_MS, &a, &answer, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(answer.type, MESSAGE_PAYLOAD_HAVE);
    assert_int_equal(scheduler.asked, 2);
    assert_string_equal(client_server(client), scheduler.address);
    arena_close(&a);
}

/* ---- Many ---- */

struct batch {
    unsigned made, ended, failed;
    char keys[OUTSTANDING][16];
    unsigned number[OUTSTANDING];
    bool seen[MANY];
    enum status_code code;
    bool later, stops, stopped; /* stops: when nobody answers */
};

static enum client_fill batch_fill(void *data, uint32_t place, struct message *m)
{
    struct batch *b = data;
    if (b->made == MANY || b->stopped) {
        return CLIENT_NO_MORE;
    }
    b->later = !b->later;
    if (b->later) {
        return CLIENT_LATER;
    }
    b->number[place] = b->made++;
    (void)snprintf(b->keys[place], sizeof b->keys[place], "b-%u", b->number[place]);
    *m = (struct message){.type = MESSAGE_SPAWN, .spawn = {.function = "f", .key = b->keys[place]}};
    return CLIENT_FILLED;
}

static void batch_done(void *data, uint32_t place, const struct message *answer, uint64_t took_us)
{
    struct batch *b = data;
    const char *text, *leader;
    (void)took_us;
    enum status_code code = client_answer_status(answer, &text, &leader).code;
    assert_false(b->seen[b->number[place]]);
    b->seen[b->number[place]] = true;
    b->ended++;
    b->failed += code != STATUS_OK;
    b->code = code != STATUS_OK ? code : b->code;
    b->stopped = b->stopped || (b->stops && answer->type == MESSAGE_CALL_REPLY);
}

static struct status run_batch(struct batch *b, uint32_t give_up_ms, struct errmsg *msg)
{
    const struct client_load load = {.data = b,
                                     .outstanding = OUTSTANDING,
                                     .give_up_ms = give_up_ms,
                                     .until_us = UINT64_MAX,
                                     .fill = batch_fill,
                                     .done = batch_done};
    return client_load_run(client, &load, msg);
}

static enum deed stormy(unsigned n, const struct message *m, struct message *answer)
{
    static const enum status_code codes[] = {STATUS_OK, STATUS_LIMIT, STATUS_NOT_LEADER,
                                             STATUS_UNKNOWN};
    (void)m;
    answer_spawn(answer, n < 60 ? codes[n % 4] : STATUS_OK, 1);
    return n % 23 == 0 && n < 100 ? DEED_CLOSE : DEED_ANSWER;
}

static void each_of_a_batch_ends_once_whatever_happens(void **state)
{
    (void)state;
    struct batch b = {.made = 0};
    struct errmsg msg = {.text = ""};
    scheduler_run(stormy);
    struct status s = run_batch(&b, ASK_MS, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(b.ended, MANY);
    assert_int_equal(b.failed, 0);
}

static void a_batch_that_is_not_repeated_counts_what_is_lost(void **state)
{
    (void)state;
    struct batch b = {.made = 0};
    struct errmsg msg = {.text = ""};
    scheduler_run(stormy);
    struct status s = run_batch(&b, 0, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(b.ended, MANY);
    assert_true(b.failed > 0);
}

static enum deed silent(unsigned n, const struct message *m, struct message *answer)
{
    (void)m;
    (void)answer;
    return n > 3 ? DEED_NOTHING : DEED_CLOSE;
}

static void requests_of_a_batch_grow_old_and_end(void **state)
{
    (void)state;
    struct batch b = {.made = MANY - OUTSTANDING};
    struct errmsg msg = {.text = ""};
    scheduler_run(silent);
    struct status s = run_batch(&b, 1500, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(b.ended, OUTSTANDING);
    assert_int_equal(b.failed, OUTSTANDING);
    assert_int_equal(b.code, STATUS_UNKNOWN);
}

static enum deed die_soon(unsigned n, const struct message *m, struct message *answer)
{
    (void)m;
    answer_spawn(answer, STATUS_OK, 0);
    return n < 20 ? DEED_ANSWER : n == 20 ? DEED_DIE : DEED_NOTHING;
}

static void a_batch_ends_when_nobody_is_left(void **state)
{
    (void)state;
    struct batch b = {.stops = true};
    struct errmsg msg = {.text = ""};
    scheduler.dies = true;
    scheduler_run(die_soon);
    struct status s = run_batch(&b, 1500, &msg);
    scheduler_stop();
    assert_int_equal(s.code, STATUS_OK);
    assert_true(b.stopped);
    assert_true(b.made < MANY);
    assert_int_equal(b.ended, b.made);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_spawn_with_a_key_is_sent_again_when_the_connection_is_lost),
        T(a_spawn_without_a_key_is_not),
        T(passing_answers_are_waited_out),
        T(when_the_time_is_up_the_last_answer_is_told),
        T(a_limit_without_a_time_is_final),
        T(an_election_is_waited_for),
        T(a_scheduler_of_another_version_is_not_asked),
        T(a_spawn_that_was_sent_and_never_answered_is_unknown),
        T(a_payload_is_put_again_when_the_connection_is_lost),
        T(each_of_a_batch_ends_once_whatever_happens),
        T(a_batch_that_is_not_repeated_counts_what_is_lost),
        T(requests_of_a_batch_grow_old_and_end),
        T(a_batch_ends_when_nobody_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

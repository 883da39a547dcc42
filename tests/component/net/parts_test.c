/* The small parts of the link: the mailbox and the log of refusals. */
#include "common/net/mailbox.h"
#include "common/net/refusals.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- the mailbox --- */

enum { WRITERS = 3, LETTERS = 20000 };

struct numbered {
    struct letter letter;
    unsigned writer, number;
};

struct writer {
    struct mailbox *box;
    struct numbered *letters;
};

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    for (unsigned i = 0; i < LETTERS; i++) {
        mailbox_put(w->box, &w->letters[i].letter);
    }
    return NULL;
}

struct reading {
    struct mailbox box;
    unsigned next[WRITERS];
    unsigned total;
    bool in_order;
};

static void on_wake(uv_async_t *wake)
{
    struct reading *r = wake->data;
    for (struct letter *l = mailbox_take(&r->box); l != NULL; l = l->next) {
        const struct numbered *n = (const struct numbered *)(const void *)l;
        r->in_order = r->in_order && n->number == r->next[n->writer];
        r->next[n->writer]++;
        r->total++;
    }
    if (r->total == WRITERS * LETTERS) {
        uv_close((uv_handle_t *)wake, NULL);
    }
}

/* Nothing is lost, the loop is always woken, and each writer's letters stay in order. */
static void letters_of_many_threads_all_arrive_in_order(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_async_t wake;
    struct reading r = {.in_order = true};
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(uv_async_init(&loop, &wake, on_wake), 0);
    wake.data = &r;
    mailbox_init(&r.box, &wake);
    assert_null(mailbox_take(&r.box));
    for (unsigned w = 0; w < WRITERS; w++) {
        writers[w] = (struct writer){&r.box, calloc(LETTERS, sizeof(struct numbered))};
        assert_non_null(writers[w].letters);
        for (unsigned i = 0; i < LETTERS; i++) {
            writers[w].letters[i].writer = w;
            writers[w].letters[i].number = i;
        }
        assert_int_equal(pthread_create(&threads[w], NULL, writer_main, &writers[w]), 0);
    }
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    for (unsigned w = 0; w < WRITERS; w++) {
        assert_int_equal(pthread_join(threads[w], NULL), 0);
        free(writers[w].letters);
        assert_int_equal(r.next[w], LETTERS);
    }
    assert_true(r.in_order);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* --- refusals --- */

static void an_address_is_logged_once_a_minute(void **state)
{
    (void)state;
    static struct refusal_log log;
    uint64_t left_out = 7;
    memset(&log, 0, sizeof log);
    assert_true(refusal_log_admit(&log, 1000, REFUSAL_EXPIRED, "10.0.0.1:1", &left_out));
    assert_int_equal(left_out, 0);
    for (unsigned port = 2; port < 100; port++) {
        char address[32];
        (void)snprintf(address, sizeof address, "10.0.0.1:%u", port);
        assert_false(refusal_log_admit(&log, 1000 + port, REFUSAL_EXPIRED, address, &left_out));
    }
    assert_true(refusal_log_admit(&log, 2000, REFUSAL_REVOKED, "10.0.0.1:1", &left_out));
    assert_true(refusal_log_admit(&log, 2000, REFUSAL_EXPIRED, "10.0.0.2:1", &left_out));
    assert_true(refusal_log_admit(&log, 1000 + REFUSAL_REPEAT_MS, REFUSAL_EXPIRED, "10.0.0.1:1",
                                  &left_out));
    assert_int_equal(left_out, 98);
}

static void a_flood_of_addresses_fills_neither_the_table_nor_the_log(void **state)
{
    (void)state;
    static struct refusal_log log;
    unsigned lines = 0;
    uint64_t left_out;
    memset(&log, 0, sizeof log);
    for (unsigned i = 0; i < 10 * REFUSAL_ROWS_MAX; i++) {
        char address[32];
        (void)snprintf(address, sizeof address, "10.0.%u.%u:1", i / 256, i % 256);
        lines += refusal_log_admit(&log, 5000, REFUSAL_PROTOCOL, address, &left_out);
    }
    assert_int_equal(lines, REFUSAL_LINES_PER_SECOND_MAX);
    assert_true(refusal_log_admit(&log, 6000, REFUSAL_PROTOCOL, "10.9.9.9:1", &left_out));
}

static void each_kind_has_its_counter(void **state)
{
    (void)state;
    struct link_stats stats = {0};
    for (enum refusal kind = REFUSAL_NONE + 1; kind < REFUSAL_COUNT_; kind++) {
        refusal_count(&stats, kind);
        assert_false(status_is_ok(refusal_status(kind)));
        assert_true(refusal_name(kind)[0] != '\0');
    }
    uint64_t sum = stats.refused_no_certificate + stats.refused_untrusted + stats.refused_expired +
                   stats.refused_revoked + stats.refused_protocol + stats.refused_identity +
                   stats.refused_timeout + stats.refused_limit + stats.refused_frame +
                   stats.refused_by_peer;
    assert_int_equal(sum, REFUSAL_COUNT_ - 1);
    assert_int_equal(stats.refused_frame, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_of_many_threads_all_arrive_in_order),
        cmocka_unit_test(an_address_is_logged_once_a_minute),
        cmocka_unit_test(a_flood_of_addresses_fills_neither_the_table_nor_the_log),
        cmocka_unit_test(each_kind_has_its_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

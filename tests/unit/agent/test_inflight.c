#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/inflight.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[64];
static const struct id128 v1 = {1, 1};
static const struct id128 v2 = {1, 2};

static int setup(void **state)
{
    (void)state;
    (void)snprintf(path, sizeof path, "/tmp/skep-inflight-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    return close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static void create(struct inflight *f, uint32_t slots)
{
    assert_true(status_is_ok(inflight_create(f, path, slots, NULL)));
}

static uint64_t put(struct inflight *f, struct id128 id)
{
    uint64_t token = 0;
    assert_true(status_is_ok(inflight_put(f, id, 1, 0, 5000, &token)));
    assert_true(token != 0);
    return token;
}

static void put_find_remove(void **state)
{
    (void)state;
    struct inflight f;
    create(&f, 2);
    uint64_t token = put(&f, v1);
    assert_int_equal(inflight_find(&f, token)->invocation.low, 1);
    assert_int_equal(inflight_token(&f, v1, 1), token);
    assert_int_equal(inflight_token(&f, v1, 2), 0);
    inflight_remove(&f, token);
    inflight_remove(&f, token);
    assert_null(inflight_find(&f, token));
    inflight_close(&f);
    inflight_close(&f);
}

static void slots_are_limited(void **state)
{
    (void)state;
    struct inflight f;
    uint64_t token;
    create(&f, 1);
    uint64_t first = put(&f, v1);
    assert_int_equal(inflight_put(&f, v2, 1, 0, 0, &token).code, STATUS_LIMIT);
    inflight_remove(&f, first);
    (void)put(&f, v2);
    inflight_close(&f);
}

/* A late result must not meet the attempt that has the slot now. */
static void a_token_is_never_used_again(void **state)
{
    (void)state;
    struct inflight f;
    create(&f, 1);
    uint64_t first = put(&f, v1);
    inflight_remove(&f, first);
    uint64_t second = put(&f, v2);
    assert_true(first != second);
    assert_null(inflight_find(&f, first));
    inflight_close(&f);
    assert_true(status_is_ok(inflight_open(&f, path, NULL)));
    inflight_remove(&f, second);
    assert_true(put(&f, v1) > second);
    inflight_close(&f);
}

static void another_agent_finds_what_was_left(void **state)
{
    (void)state;
    struct inflight f;
    uint32_t concurrency;
    uint64_t startup_us;
    create(&f, 3);
    assert_false(inflight_ready(&f, &concurrency, &startup_us));
    inflight_remove(&f, put(&f, v1));
    uint64_t token = put(&f, v2);
    inflight_set_ready(&f, 3, 77);
    inflight_close(&f);
    assert_true(status_is_ok(inflight_open(&f, path, NULL)));
    assert_int_equal(inflight_slots(&f), 3);
    assert_int_equal(inflight_find(&f, token)->invocation.low, 2);
    assert_true(inflight_ready(&f, &concurrency, &startup_us));
    assert_int_equal(concurrency, 3);
    assert_int_equal(startup_us, 77);
    unsigned used = 0;
    for (uint32_t i = 0; i < 3; i++) {
        used += inflight_at(&f, i) != NULL;
    }
    assert_int_equal(used, 1);
    inflight_close(&f);
}

static void terms_of_durable_attempts_are_found_again(void **state)
{
    (void)state;
    struct inflight f;
    uint64_t durable, call;
    create(&f, 2);
    assert_true(status_is_ok(inflight_put(&f, v1, 1, 77, 5000, &durable)));
    assert_true(status_is_ok(inflight_put(&f, v2, 1, 0, 5000, &call)));
    inflight_close(&f);
    assert_true(status_is_ok(inflight_open(&f, path, NULL)));
    assert_int_equal(inflight_term(&f, durable), 77);
    assert_int_equal(inflight_term(&f, call), 0);
    inflight_remove(&f, durable);
    assert_int_equal(inflight_term(&f, durable), 0);
    /* The slot's next attempt has its own. */
    uint64_t next = put(&f, v1);
    assert_int_equal(inflight_term(&f, next), 0);
    inflight_close(&f);
}

/* What an agent of the first release left: a header of 32 bytes and slots of 40, nothing behind. */
static void a_file_of_the_first_kind_is_read(void **state)
{
    (void)state;
    const uint64_t words[4 + 2 * 5] = {[0] = UINT64_C(2) << 32 | 0x736b6966,
                                       [1] = 9,
                                       [2] = 3,
                                       [3] = 77,
                                       [9] = UINT64_C(9) << 16 | 1,
                                       [10] = v2.high,
                                       [11] = v2.low,
                                       [12] = UINT64_C(1) << 32 | 4,
                                       [13] = 5000};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, words, sizeof words, 0), sizeof words);
    assert_int_equal(close(fd), 0);
    struct inflight f;
    assert_true(status_is_ok(inflight_open(&f, path, NULL)));
    assert_int_equal(inflight_slots(&f), 2);
    assert_null(inflight_at(&f, 0));
    const struct inflight_slot *s = inflight_at(&f, 1);
    assert_non_null(s);
    assert_int_equal(s->attempt, 4);
    assert_int_equal(s->invocation.low, 2);
    assert_int_equal(inflight_term(&f, s->token), 0);
    uint64_t token;
    assert_true(status_is_ok(inflight_put(&f, v1, 1, 77, 5000, &token)));
    assert_int_equal(inflight_term(&f, token), 0);
    inflight_close(&f);
}

static void a_file_that_is_none_is_refused(void **state)
{
    (void)state;
    struct inflight f;
    create(&f, 2);
    (void)put(&f, v1);
    inflight_close(&f);
    char old[256];
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t size = pread(fd, old, sizeof old, 0);
    assert_true(size > 0);
    for (ssize_t cut = 0; cut < size; cut++) {
        assert_int_equal(ftruncate(fd, cut), 0);
        assert_int_equal(inflight_open(&f, path, NULL).code, STATUS_CORRUPT);
        assert_int_equal(pwrite(fd, old, (size_t)size, 0), size);
    }
    const uint8_t wrong[] = {0xff};
    assert_int_equal(pwrite(fd, wrong, 1, 0), 1);
    assert_int_equal(inflight_open(&f, path, NULL).code, STATUS_CORRUPT);
    assert_int_equal(close(fd), 0);
}

static void a_missing_file_is_not_found(void **state)
{
    (void)state;
    struct inflight f;
    assert_int_equal(inflight_open(&f, "/tmp/skep-inflight/none", NULL).code, STATUS_NOT_FOUND);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(put_find_remove),
        T(slots_are_limited),
        T(a_token_is_never_used_again),
        T(another_agent_finds_what_was_left),
        T(terms_of_durable_attempts_are_found_again),
        T(a_file_of_the_first_kind_is_read),
        T(a_file_that_is_none_is_refused),
        T(a_missing_file_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

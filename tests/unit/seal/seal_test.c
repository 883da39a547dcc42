#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"
#include "common/seal/keyring.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { NOBODY = 65534 };

static const struct seal_key one = {{1, 2, 3}}, two = {{9}};
static const char text[] = "the quick brown fox";

static struct bytes of(const char *t)
{
    return bytes_of(t, strlen(t));
}

static struct buffer sealed_text(struct sealer *s)
{
    struct buffer out = {0};
    assert_true(status_is_ok(sealer_seal(s, 7, &one, of("log"), of(text), &out)));
    return out;
}

static void what_is_sealed_opens(void **state)
{
    (void)state;
    struct sealer *s = sealer_new();
    struct buffer sealed = sealed_text(s), plain = {0};
    assert_int_equal(sealed.size, sizeof text - 1 + SEAL_EXTRA_BYTES);
    assert_int_equal(seal_key_id(bytes_of(sealed.data, sealed.size)), 7);
    assert_true(
        status_is_ok(sealer_open(s, &one, of("log"), bytes_of(sealed.data, sealed.size), &plain)));
    assert_true(bytes_equal(bytes_of(plain.data, plain.size), of(text)));
    buffer_close(&sealed);
    buffer_close(&plain);
    sealer_free(s);
}

/* What earlier builds sealed must open for ever: AES-256-GCM of "golden" with associated data id
 * and "log" under the key 01 02 03 00.., nonce 00..0b, made by another implementation. */
static void golden_bytes_open(void **state)
{
    (void)state;
    static const uint8_t golden[] = {
        0x07, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
        0x09, 0x0a, 0x0b, 0xe2, 0xa0, 0xbd, 0xf4, 0x8b, 0xf9, 0xc5, 0x2c, 0x31, 0xdf,
        0x55, 0xbe, 0x8e, 0xd9, 0xc4, 0xd6, 0xf2, 0x7b, 0x86, 0x23, 0xcb, 0x2f,
    };
    struct sealer *s = sealer_new();
    struct buffer plain = {0};
    assert_true(
        status_is_ok(sealer_open(s, &one, of("log"), bytes_of(golden, sizeof golden), &plain)));
    assert_true(bytes_equal(bytes_of(plain.data, plain.size), of("golden")));
    buffer_close(&plain);
    sealer_free(s);
}

static void an_empty_text_is_sealed_too(void **state)
{
    (void)state;
    struct sealer *s = sealer_new();
    struct buffer sealed = {0}, plain = {0};
    assert_true(status_is_ok(sealer_seal(s, 1, &one, of(""), of(""), &sealed)));
    assert_true(
        status_is_ok(sealer_open(s, &one, of(""), bytes_of(sealed.data, sealed.size), &plain)));
    assert_int_equal(plain.size, 0);
    buffer_close(&sealed);
    buffer_close(&plain);
    sealer_free(s);
}

static void each_changed_byte_is_found(void **state)
{
    (void)state;
    struct sealer *s = sealer_new();
    struct buffer sealed = sealed_text(s), plain = {0};
    for (size_t i = 0; i < sealed.size; i++) {
        for (unsigned bit = 1; bit < 256; bit <<= 1) {
            sealed.data[i] ^= (uint8_t)bit;
            struct status got =
                sealer_open(s, &one, of("log"), bytes_of(sealed.data, sealed.size), &plain);
            assert_int_equal(got.code, STATUS_CORRUPT);
            assert_int_equal(plain.size, 0);
            sealed.data[i] ^= (uint8_t)bit;
        }
    }
    buffer_close(&sealed);
    buffer_close(&plain);
    sealer_free(s);
}

static void each_cut_is_found(void **state)
{
    (void)state;
    struct sealer *s = sealer_new();
    struct buffer sealed = sealed_text(s), plain = {0};
    for (size_t size = 0; size < sealed.size; size++) {
        struct status got = sealer_open(s, &one, of("log"), bytes_of(sealed.data, size), &plain);
        assert_int_equal(got.code, STATUS_CORRUPT);
    }
    assert_int_equal(seal_key_id(bytes_of(sealed.data, SEAL_EXTRA_BYTES - 1)), 0);
    buffer_close(&sealed);
    buffer_close(&plain);
    sealer_free(s);
}

static void another_key_or_purpose_does_not_open(void **state)
{
    (void)state;
    struct sealer *s = sealer_new();
    struct buffer sealed = sealed_text(s), plain = {0};
    struct bytes all = bytes_of(sealed.data, sealed.size);
    assert_int_equal(sealer_open(s, &two, of("log"), all, &plain).code, STATUS_CORRUPT);
    assert_int_equal(sealer_open(s, &one, of("snapshot"), all, &plain).code, STATUS_CORRUPT);
    assert_int_equal(sealer_open(s, &one, of(""), all, &plain).code, STATUS_CORRUPT);
    assert_true(status_is_ok(sealer_open(s, &one, of("log"), all, &plain)));
    buffer_close(&sealed);
    buffer_close(&plain);
    sealer_free(s);
}

static void nothing_unverified_stays_in_memory(void **state)
{
    (void)state;
    struct sealer *s = sealer_new();
    struct buffer sealed = sealed_text(s), plain = {0};
    static const uint8_t zeros[sizeof text] = {0};
    sealed.data[sealed.size - 1] ^= 1;
    assert_int_equal(
        sealer_open(s, &one, of("log"), bytes_of(sealed.data, sealed.size), &plain).code,
        STATUS_CORRUPT);
    assert_memory_equal(plain.data, zeros, sizeof text - 1);
    buffer_close(&sealed);
    buffer_close(&plain);
    sealer_free(s);
}

static void no_nonce_comes_twice(void **state)
{
    (void)state;
    enum { COUNT = 600 };
    static uint8_t nonces[COUNT][SEAL_NONCE_BYTES];
    struct sealer *s = sealer_new();
    for (size_t i = 0; i < COUNT; i++) {
        struct buffer sealed = sealed_text(s);
        memcpy(nonces[i], sealed.data + 4, SEAL_NONCE_BYTES);
        for (size_t k = 0; k < i; k++) {
            assert_memory_not_equal(nonces[i], nonces[k], SEAL_NONCE_BYTES);
        }
        buffer_close(&sealed);
    }
    sealer_free(s);
}

static void out_of_memory_leaves_the_buffer_as_it_was(void **state)
{
    (void)state;
    struct sealer *s = sealer_new();
    struct buffer sealed = {0}, plain = {0};
    mem_fault(0, 1);
    assert_int_equal(sealer_seal(s, 1, &one, of("a"), of(text), &sealed).code, STATUS_NOMEM);
    assert_int_equal(mem_fault_clear(), 1);
    assert_int_equal(sealed.size, 0);
    assert_true(status_is_ok(sealer_seal(s, 1, &one, of("a"), of(text), &sealed)));
    mem_fault(0, 1);
    assert_int_equal(sealer_open(s, &one, of("a"), bytes_of(sealed.data, sealed.size), &plain).code,
                     STATUS_NOMEM);
    assert_int_equal(mem_fault_clear(), 1);
    assert_int_equal(plain.size, 0);
    mem_fault(0, 1);
    assert_null(sealer_new());
    assert_int_equal(mem_fault_clear(), 1);
    buffer_close(&sealed);
    buffer_close(&plain);
    sealer_free(s);
}

static void derived_keys_differ_by_purpose_and_context(void **state)
{
    (void)state;
    struct seal_key a, again, b, c, d;
    assert_true(status_is_ok(seal_derive(&one, "log", of(""), &a)));
    assert_true(status_is_ok(seal_derive(&one, "log", of(""), &again)));
    assert_true(status_is_ok(seal_derive(&one, "lo", of("g"), &b)));
    assert_true(status_is_ok(seal_derive(&one, "log", of("x"), &c)));
    assert_true(status_is_ok(seal_derive(&two, "log", of(""), &d)));
    assert_true(seal_key_equal(&a, &again));
    assert_false(seal_key_equal(&a, &b));
    assert_false(seal_key_equal(&a, &c));
    assert_false(seal_key_equal(&a, &d));
    assert_false(seal_key_equal(&a, &one));
}

/* ---- The keyring ---- */

static void the_highest_key_seals(void **state)
{
    (void)state;
    struct keyring *k = keyring_new();
    struct seal_key found;
    assert_int_equal(keyring_current(k), 0);
    assert_true(status_is_ok(keyring_put(k, 2, &two)));
    assert_true(status_is_ok(keyring_put(k, 1, &one)));
    assert_int_equal(keyring_current(k), 2);
    assert_true(status_is_ok(keyring_find(k, 1, &found)));
    assert_true(seal_key_equal(&found, &one));
    assert_int_equal(keyring_find(k, 3, &found).code, STATUS_NOT_FOUND);
    keyring_free(k);
}

static void an_id_keeps_its_key(void **state)
{
    (void)state;
    struct keyring *k = keyring_new();
    struct seal_key found;
    assert_true(status_is_ok(keyring_put(k, 1, &one)));
    assert_true(status_is_ok(keyring_put(k, 1, &one)));
    assert_int_equal(keyring_put(k, 1, &two).code, STATUS_CONFLICT);
    assert_int_equal(keyring_put(k, 0, &two).code, STATUS_INVALID);
    assert_true(status_is_ok(keyring_find(k, 1, &found)));
    assert_true(seal_key_equal(&found, &one));
    keyring_free(k);
}

static void the_keyring_is_full_at_its_limit(void **state)
{
    (void)state;
    struct keyring *k = keyring_new();
    for (uint32_t id = 1; id <= KEYRING_KEYS_MAX; id++) {
        assert_true(status_is_ok(keyring_put(k, id, &one)));
    }
    assert_int_equal(keyring_put(k, KEYRING_KEYS_MAX + 1, &one).code, STATUS_LIMIT);
    assert_true(status_is_ok(keyring_put(k, 1, &one)));
    keyring_free(k);
    mem_fault(0, 1);
    assert_null(keyring_new());
    assert_int_equal(mem_fault_clear(), 1);
}

enum { FINDS = 20000 };

static void *find_all(void *data)
{
    struct keyring *k = data;
    struct seal_key found;
    for (int i = 0; i < FINDS; i++) {
        if (!status_is_ok(keyring_find(k, 1, &found)) || !seal_key_equal(&found, &one)) {
            return k;
        }
    }
    return NULL;
}

static void keys_are_found_while_others_are_added(void **state)
{
    (void)state;
    struct keyring *k = keyring_new();
    pthread_t thread;
    void *wrong = k;
    assert_true(status_is_ok(keyring_put(k, 1, &one)));
    assert_int_equal(pthread_create(&thread, NULL, find_all, k), 0);
    for (uint32_t id = 2; id <= KEYRING_KEYS_MAX; id++) {
        assert_true(status_is_ok(keyring_put(k, id, &two)));
    }
    assert_int_equal(pthread_join(thread, &wrong), 0);
    assert_null(wrong);
    keyring_free(k);
}

/* In a process that may lock no memory. Sanitizers replace mlock by one that always succeeds: what
 * the keyring says is compared with what one more call says. Answers the step that went wrong. */
static int without_locked_memory(void)
{
    const struct rlimit none = {0, 0};
    void *page = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct seal_key found;
    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || (geteuid() == 0 && setuid(NOBODY) != 0)) {
        return 1; /* Root may lock whatever the limit says. */
    }
    struct keyring *k = keyring_new();
    if (k == NULL || page == MAP_FAILED || keyring_locked(k) != (mlock(page, 1) == 0)) {
        return 2;
    }
    if (!status_is_ok(keyring_put(k, 1, &one)) || !status_is_ok(keyring_find(k, 1, &found)) ||
        !seal_key_equal(&found, &one)) {
        return 3;
    }
    keyring_free(k);
    return 0;
}

static void a_keyring_whose_memory_cannot_be_locked_says_so_and_works(void **state)
{
    (void)state;
    int status = -1;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(without_locked_memory());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_opens),
        cmocka_unit_test(golden_bytes_open),
        cmocka_unit_test(an_empty_text_is_sealed_too),
        cmocka_unit_test(each_changed_byte_is_found),
        cmocka_unit_test(each_cut_is_found),
        cmocka_unit_test(another_key_or_purpose_does_not_open),
        cmocka_unit_test(nothing_unverified_stays_in_memory),
        cmocka_unit_test(no_nonce_comes_twice),
        cmocka_unit_test(out_of_memory_leaves_the_buffer_as_it_was),
        cmocka_unit_test(derived_keys_differ_by_purpose_and_context),
        cmocka_unit_test(the_highest_key_seals),
        cmocka_unit_test(an_id_keeps_its_key),
        cmocka_unit_test(the_keyring_is_full_at_its_limit),
        cmocka_unit_test(keys_are_found_while_others_are_added),
        cmocka_unit_test(a_keyring_whose_memory_cannot_be_locked_says_so_and_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"
#include "tests/unit/pki/pki_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pair ca;
static char *token;
static char token_id[SERIAL_STRING_BYTES];
static const char *const addresses[] = {"10.0.0.1:7700", "[::1]:7700", "s3.example:7700"};
static const struct name cluster = {"hive"};

static int setup(void **state)
{
    (void)state;
    ca = pair_ca();
    struct errmsg msg = {""};
    return status_is_ok(pki_token_create(ca.cert, ca.key, &cluster, addresses, 3, NOW_S, HOUR_S,
                                         &token, token_id, &msg))
               ? 0
               : -1;
}

static int teardown(void **state)
{
    (void)state;
    pki_key_free(token);
    pair_free(&ca);
    return 0;
}

static struct status parse(const char *text, struct pki_token *out, struct errmsg *msg)
{
    return pki_token_parse(text, strlen(text), out, msg);
}

static void token_survives_the_round_trip(void **state)
{
    (void)state;
    struct pki_token t;
    struct errmsg msg = {""};
    assert_ok(parse(token, &t, &msg), &msg);
    assert_string_equal(t.id, token_id);
    assert_string_equal(t.ca_pem, ca.cert);
    assert_int_equal(t.addresses_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(t.addresses[i], addresses[i]);
    }
    struct identity id;
    assert_ok(pki_identity_of(t.cert_pem, &id, NULL, &msg), &msg);
    assert_int_equal(id.role, ROLE_JOIN);
    assert_string_equal(id.cluster.text, "hive");
    assert_string_equal(id.serial, token_id);
    assert_string_equal(id.name.text, token_id);
    assert_ok(pki_check(t.ca_pem, t.cert_pem, t.key_pem, NOW_S, &msg), &msg);
    pki_token_close(&t);
    pki_token_close(&t);
}

static void text_is_one_word_of_url_characters(void **state)
{
    (void)state;
    assert_memory_equal(token, "skep-join-v1.", 13);
    assert_int_equal(strspn(token + 13, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                        "0123456789-_"),
                     strlen(token + 13));
    assert_true(strlen(token) < 2500);
}

static void expired_token_says_so(void **state)
{
    (void)state;
    struct pki_token t;
    struct errmsg msg = {""};
    assert_ok(parse(token, &t, &msg), &msg);
    assert_fails(pki_check(t.ca_pem, t.cert_pem, t.key_pem, NOW_S + 3 * HOUR_S, &msg),
                 STATUS_DENIED, &msg, "expired 2 hours ago; make a new one with 'skep ca token'");
    pki_token_close(&t);
}

/* As a terminal or a mail breaks it. */
static void white_space_is_skipped(void **state)
{
    (void)state;
    char *text = calloc(2, strlen(token) + 10);
    assert_non_null(text);
    memcpy(text, " \t\r\n", 4);
    char *at = text + 4;
    for (size_t i = 0; token[i] != '\0'; i++) {
        *at++ = token[i];
        if (i % 10 == 3) {
            *at++ = i % 20 == 3 ? '\n' : ' ';
        }
    }
    struct pki_token t;
    struct errmsg msg = {""};
    assert_ok(parse(text, &t, &msg), &msg);
    assert_string_equal(t.id, token_id);
    pki_token_close(&t);
    free(text);
}

/* Every length: never accepted, and past the prefix always called by its name. */
static void every_truncation_says_so(void **state)
{
    (void)state;
    for (size_t size = 0; size < strlen(token); size++) {
        struct pki_token t = {.addresses_count = 77};
        struct errmsg msg = {""};
        char *exact = malloc(size + 1);
        assert_non_null(exact);
        memcpy(exact, token, size);
        struct status s = pki_token_parse(exact, size, &t, &msg);
        free(exact);
        if (size < 10) {
            assert_fails(s, STATUS_INVALID, &msg, "not a join token");
        } else {
            assert_fails(s, STATUS_CORRUPT, &msg, "cut short");
        }
        assert_int_equal(t.addresses_count, 77);
    }
}

/* At steps, as all of them would take long under sanitizers. Not the last character: some of its
 * bits carry nothing. */
static void changed_character_is_noticed(void **state)
{
    (void)state;
    char *text = strdup(token);
    assert_non_null(text);
    for (size_t i = 13; i + 1 < strlen(token); i += 7) {
        const char before = text[i];
        text[i] = before == 'A' ? 'B' : 'A';
        struct pki_token t;
        struct errmsg msg = {""};
        assert_int_equal(parse(text, &t, &msg).code, STATUS_CORRUPT);
        text[i] = before;
    }
    free(text);
}

static void appended_characters_are_noticed(void **state)
{
    (void)state;
    char *text = NULL;
    assert_true(asprintf(&text, "%sAAAA", token) > 0);
    struct pki_token t;
    struct errmsg msg = {""};
    assert_fails(parse(text, &t, &msg), STATUS_CORRUPT, &msg, "checksum");
    free(text);
}

static void foreign_characters_are_named(void **state)
{
    (void)state;
    struct pki_token t;
    struct errmsg msg = {""};
    assert_fails(parse("\"skep-join-v1.AAAA\"", &t, &msg), STATUS_INVALID, &msg,
                 "(byte 0x22 at 1)");
    assert_fails(parse("skep-join-v1.AA=A", &t, &msg), STATUS_INVALID, &msg, "(byte 0x3d at 16)");
    assert_fails(pki_token_parse("skep-join-v1.\0AA", 16, &t, &msg), STATUS_INVALID, &msg,
                 "(byte 0x00 at 14)");
}

static void other_texts_are_no_tokens(void **state)
{
    (void)state;
    struct pki_token t;
    struct errmsg msg = {""};
    assert_fails(parse("", &t, &msg), STATUS_INVALID, &msg, "not a join token");
    assert_fails(parse("hello", &t, &msg), STATUS_INVALID, &msg, "not a join token");
    assert_fails(parse("skep-join-v2.AAAA", &t, &msg), STATUS_UNSUPPORTED, &msg, "version");
}

static void text_over_the_limit_is_refused(void **state)
{
    (void)state;
    char *text = malloc(PKI_TOKEN_BYTES_MAX + 1);
    assert_non_null(text);
    memset(text, 'A', PKI_TOKEN_BYTES_MAX + 1);
    memcpy(text, "skep-join-v1.", 13);
    struct pki_token t;
    struct errmsg msg = {""};
    assert_fails(pki_token_parse(text, PKI_TOKEN_BYTES_MAX + 1, &t, &msg), STATUS_LIMIT, &msg,
                 "over 16384 characters");
    assert_int_equal(pki_token_parse(text, PKI_TOKEN_BYTES_MAX, &t, &msg).code, STATUS_CORRUPT);
    free(text);
}

static struct status create(const char *const *to, size_t count, struct errmsg *msg)
{
    char *text = NULL;
    char id[SERIAL_STRING_BYTES];
    struct status s =
        pki_token_create(ca.cert, ca.key, &cluster, to, count, NOW_S, HOUR_S, &text, id, msg);
    if (status_is_ok(s)) {
        struct pki_token t;
        assert_ok(parse(text, &t, msg), msg);
        assert_int_equal(t.addresses_count, count);
        pki_token_close(&t);
    } else {
        assert_null(text);
    }
    pki_key_free(text);
    return s;
}

static void addresses_at_their_limits(void **state)
{
    (void)state;
    char longest[PKI_ADDRESS_BYTES_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[1] = ':';
    longest[PKI_ADDRESS_BYTES_MAX] = '\0';
    const char *many[PKI_ADDRESSES_MAX + 1];
    for (size_t i = 0; i < PKI_ADDRESSES_MAX + 1; i++) {
        many[i] = longest;
    }
    struct errmsg msg = {""};
    assert_ok(create(many, PKI_ADDRESSES_MAX, &msg), &msg);
    assert_fails(create(many, PKI_ADDRESSES_MAX + 1, &msg), STATUS_LIMIT, &msg, "at most 16");
    assert_fails(create(many, 0, &msg), STATUS_INVALID, &msg, "needs a scheduler's address");
    longest[PKI_ADDRESS_BYTES_MAX] = 'a';
    longest[PKI_ADDRESS_BYTES_MAX + 1] = '\0';
    assert_fails(create(many, 1, &msg), STATUS_INVALID, &msg, "HOST:PORT");
}

static void wrong_addresses_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "host", "a b:1", "a:1\n", "\x80:1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct errmsg msg = {""};
        assert_fails(create(&wrong[i], 1, &msg), STATUS_INVALID, &msg, "HOST:PORT");
    }
}

static void bundle_of_cas_travels_whole(void **state)
{
    (void)state;
    struct pair other = pair_ca();
    char *bundle = NULL;
    assert_true(asprintf(&bundle, "%s%s", ca.cert, other.cert) > 0);
    char *text = NULL;
    char id[SERIAL_STRING_BYTES];
    struct errmsg msg = {""};
    assert_ok(
        pki_token_create(bundle, ca.key, &cluster, addresses, 1, NOW_S, HOUR_S, &text, id, &msg),
        &msg);
    struct pki_token t;
    assert_ok(parse(text, &t, &msg), &msg);
    assert_string_equal(t.ca_pem, bundle);
    pki_token_close(&t);
    pki_key_free(text);
    free(bundle);
    pair_free(&other);
}

static void create_survives_oom(void **state)
{
    (void)state;
    for (unsigned delay = 0;; delay++) {
        char *text = NULL;
        char id[SERIAL_STRING_BYTES] = "before";
        struct errmsg msg = {""};
        mem_fault(delay, 1);
        struct status s = pki_token_create(ca.cert, ca.key, &cluster, addresses, 3, NOW_S, HOUR_S,
                                           &text, id, &msg);
        if (mem_fault_clear() == 0) {
            assert_ok(s, &msg);
            pki_key_free(text);
            assert_true(delay >= 2);
            return;
        }
        assert_int_equal(s.code, STATUS_NOMEM);
        assert_null(text);
        assert_string_equal(id, "before");
    }
}

static void parse_survives_oom(void **state)
{
    (void)state;
    for (unsigned delay = 0;; delay++) {
        struct pki_token t = {.addresses_count = 77};
        struct errmsg msg = {""};
        mem_fault(delay, 1);
        struct status s = parse(token, &t, &msg);
        if (mem_fault_clear() == 0) {
            assert_ok(s, &msg);
            pki_token_close(&t);
            assert_true(delay >= 5);
            return;
        }
        assert_fails(s, STATUS_NOMEM, &msg, "out of memory");
        assert_int_equal(t.addresses_count, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_survives_the_round_trip),
        cmocka_unit_test(text_is_one_word_of_url_characters),
        cmocka_unit_test(expired_token_says_so),
        cmocka_unit_test(white_space_is_skipped),
        cmocka_unit_test(every_truncation_says_so),
        cmocka_unit_test(changed_character_is_noticed),
        cmocka_unit_test(appended_characters_are_noticed),
        cmocka_unit_test(foreign_characters_are_named),
        cmocka_unit_test(other_texts_are_no_tokens),
        cmocka_unit_test(text_over_the_limit_is_refused),
        cmocka_unit_test(addresses_at_their_limits),
        cmocka_unit_test(wrong_addresses_are_refused),
        cmocka_unit_test(bundle_of_cas_travels_whole),
        cmocka_unit_test(create_survives_oom),
        cmocka_unit_test(parse_survives_oom),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"
#include "common/pki/x509.h"
#include "tests/unit/pki/pki_fixture.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pair ca; /* made once: keys cost time */

static int setup(void **state)
{
    (void)state;
    ca = pair_ca();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pair_free(&ca);
    return 0;
}

static X509 *cert_of(const char *pem)
{
    X509 *cert = NULL;
    struct errmsg msg = {""};
    assert_ok(x509_read("certificate", pem, &cert, &msg), &msg);
    return cert;
}

static struct status check(const struct pair *p, int64_t now_s, struct errmsg *msg)
{
    return pki_check(ca.cert, p->cert, p->key, now_s, msg);
}

static void signed_identity_is_read_back(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct identity id;
    int64_t start_s = 0;
    struct errmsg msg = {""};
    assert_ok(pki_identity_of(p.cert, &id, &start_s, &msg), &msg);
    assert_string_equal(id.cluster.text, "hive");
    assert_int_equal(id.role, ROLE_AGENT);
    assert_string_equal(id.name.text, "n1");
    assert_int_equal(id.not_after_s, NOW_S + DAY_S);
    assert_int_equal(start_s, NOW_S - PKI_BACKDATE_S);
    assert_int_equal(strlen(id.serial), 32);
    assert_ok(pki_identity_of(p.cert, &id, NULL, &msg), &msg);
    pair_free(&p);
}

static void serials_differ(void **state)
{
    (void)state;
    struct pair a = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct pair b = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct identity a_id, b_id;
    struct errmsg msg = {""};
    assert_ok(pki_identity_of(a.cert, &a_id, NULL, &msg), &msg);
    assert_ok(pki_identity_of(b.cert, &b_id, NULL, &msg), &msg);
    assert_string_not_equal(a_id.serial, b_id.serial);
    pair_free(&a);
    pair_free(&b);
}

static void longest_names_are_signed(void **state)
{
    (void)state;
    char name[NAME_BYTES_MAX + 1] = "";
    memset(name, 'n', NAME_BYTES_MAX);
    struct pair p = pair_sign(&ca, ROLE_SCHEDULER, name, NOW_S, DAY_S);
    struct identity id;
    struct errmsg msg = {""};
    assert_ok(pki_identity_of(p.cert, &id, NULL, &msg), &msg);
    assert_string_equal(id.name.text, name);
    pair_free(&p);
}

/* Strict mode of OpenSSL checks what RFC 5280 asks of each extension. */
static void chain_passes_the_strict_check_for_its_purpose(void **state)
{
    (void)state;
    for (unsigned role = ROLE_SCHEDULER; role < ROLE_COUNT_; role++) {
        struct pair p = pair_sign(&ca, (enum role)role, "x", NOW_S, DAY_S);
        X509 *ca_cert = cert_of(ca.cert);
        X509 *cert = cert_of(p.cert);
        X509_STORE *store = X509_STORE_new();
        assert_int_equal(X509_STORE_add_cert(store, ca_cert), 1);
        for (int server = 0; server < 2; server++) {
            X509_STORE_CTX *ctx = X509_STORE_CTX_new();
            assert_int_equal(X509_STORE_CTX_init(ctx, store, cert, NULL), 1);
            (void)X509_STORE_CTX_set_purpose(ctx, server ? X509_PURPOSE_SSL_SERVER
                                                         : X509_PURPOSE_SSL_CLIENT);
            X509_STORE_CTX_set_time(ctx, 0, NOW_S);
            X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE);
            bool serves = role == ROLE_SCHEDULER || role == ROLE_AGENT;
            assert_int_equal(X509_verify_cert(ctx), server && !serves ? 0 : 1);
            X509_STORE_CTX_free(ctx);
        }
        X509_STORE_free(store);
        X509_free(cert);
        X509_free(ca_cert);
        pair_free(&p);
    }
    ERR_clear_error();
}

/* A leaf may not sign: whoever steals an agent's key does not become a CA. */
static void leaf_cannot_sign(void **state)
{
    (void)state;
    struct pair leaf = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    char *request = NULL, *key = NULL, *cert = NULL;
    struct errmsg msg = {""};
    assert_ok(pki_request_create(&request, &key, &msg), &msg);
    const struct identity id = identity_of(ROLE_SCHEDULER, "evil");
    assert_fails(pki_sign(leaf.cert, leaf.key, request, &id, NOW_S, DAY_S, &cert, &msg),
                 STATUS_INVALID, &msg, "is not a CA's");
    assert_null(cert);
    mem_free(request);
    pki_key_free(key);
    pair_free(&leaf);
}

static void names_in_the_request_are_ignored(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509_REQ *request = X509_REQ_new();
    assert_int_equal(X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(request), NID_commonName,
                                                MBSTRING_UTF8, (const unsigned char *)"root", -1,
                                                -1, 0),
                     1);
    STACK_OF(X509_EXTENSION) *extensions = sk_X509_EXTENSION_new_null();
    sk_X509_EXTENSION_push(extensions, X509V3_EXT_nconf_nid(NULL, NULL, NID_subject_alt_name,
                                                            "URI:skep://hive/scheduler/s1"));
    sk_X509_EXTENSION_push(
        extensions, X509V3_EXT_nconf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE"));
    assert_int_equal(X509_REQ_add_extensions(request, extensions), 1);
    assert_int_equal(X509_REQ_set_pubkey(request, key), 1);
    assert_true(X509_REQ_sign(request, key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509_REQ(bio, request), 1);
    struct errmsg msg = {""};
    char *pem = NULL, *cert_pem = NULL;
    assert_ok(x509_text(bio, &pem, &msg), &msg);

    const struct identity id = identity_of(ROLE_USER, "ann");
    assert_ok(pki_sign(ca.cert, ca.key, pem, &id, NOW_S, DAY_S, &cert_pem, &msg), &msg);
    struct identity got;
    assert_ok(pki_identity_of(cert_pem, &got, NULL, &msg), &msg);
    assert_int_equal(got.role, ROLE_USER);
    assert_string_equal(got.name.text, "ann");
    X509 *cert = cert_of(cert_pem);
    assert_int_equal(X509_check_ca(cert), 0);
    X509_free(cert);
    mem_free(cert_pem);
    mem_free(pem);
    BIO_free(bio);
    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
}

/* A request for someone else's public key, signed by one's own. */
static void request_not_signed_by_its_key_is_denied(void **state)
{
    (void)state;
    EVP_PKEY *own = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    EVP_PKEY *other = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509_REQ *request = X509_REQ_new();
    assert_int_equal(X509_REQ_set_pubkey(request, other), 1);
    assert_true(X509_REQ_sign(request, own, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509_REQ(bio, request), 1);
    struct errmsg msg = {""};
    char *pem = NULL, *cert = NULL;
    assert_ok(x509_text(bio, &pem, &msg), &msg);
    const struct identity id = identity_of(ROLE_USER, "ann");
    assert_fails(pki_sign(ca.cert, ca.key, pem, &id, NOW_S, DAY_S, &cert, &msg), STATUS_DENIED,
                 &msg, "not signed by the key it asks for");
    mem_free(pem);
    BIO_free(bio);
    X509_REQ_free(request);
    EVP_PKEY_free(own);
    EVP_PKEY_free(other);
}

static void request_for_another_kind_of_key_is_refused(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");
    X509_REQ *request = X509_REQ_new();
    assert_int_equal(X509_REQ_set_pubkey(request, key), 1);
    assert_true(X509_REQ_sign(request, key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509_REQ(bio, request), 1);
    struct errmsg msg = {""};
    char *pem = NULL, *cert = NULL;
    assert_ok(x509_text(bio, &pem, &msg), &msg);
    const struct identity id = identity_of(ROLE_USER, "ann");
    assert_fails(pki_sign(ca.cert, ca.key, pem, &id, NOW_S, DAY_S, &cert, &msg), STATUS_INVALID,
                 &msg, "not a P-256 key");
    mem_free(pem);
    BIO_free(bio);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
}

static void garbage_is_no_request(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "hello",
        "-----BEGIN CERTIFICATE REQUEST-----\n",
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"),
    };
    const struct identity id = identity_of(ROLE_USER, "ann");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct errmsg msg = {""};
        char *cert = NULL;
        assert_fails(pki_sign(ca.cert, ca.key, texts[i], &id, NOW_S, DAY_S, &cert, &msg),
                     STATUS_INVALID, &msg, "certificate request");
        assert_null(cert);
        assert_int_equal(ERR_peek_error(), 0);
    }
}

static void request_over_the_limit_is_refused(void **state)
{
    (void)state;
    char *text = calloc(1, PKI_PEM_BYTES_MAX + 2);
    assert_non_null(text);
    memset(text, 'A', PKI_PEM_BYTES_MAX + 1);
    struct errmsg msg = {""};
    char *cert = NULL;
    const struct identity id = identity_of(ROLE_USER, "ann");
    assert_fails(pki_sign(ca.cert, ca.key, text, &id, NOW_S, DAY_S, &cert, &msg), STATUS_LIMIT,
                 &msg, "over 16384 bytes");
    free(text);
}

static void empty_name_or_role_is_not_signed(void **state)
{
    (void)state;
    char *request = NULL, *key = NULL, *cert = NULL;
    struct errmsg msg = {""};
    assert_ok(pki_request_create(&request, &key, &msg), &msg);
    struct identity id = identity_of(ROLE_AGENT, "");
    assert_int_equal(pki_sign(ca.cert, ca.key, request, &id, NOW_S, DAY_S, &cert, &msg).code,
                     STATUS_INVALID);
    id = identity_of(ROLE_NONE, "n1");
    assert_int_equal(pki_sign(ca.cert, ca.key, request, &id, NOW_S, DAY_S, &cert, &msg).code,
                     STATUS_INVALID);
    assert_null(cert);
    mem_free(request);
    pki_key_free(key);
}

static void times_out_of_range_are_refused(void **state)
{
    (void)state;
    static const int64_t wrong[][2] = {
        {NOW_S, 0},  {NOW_S, -1}, {NOW_S, PKI_VALID_S_MAX + 1}, {NOW_S, INT64_MAX},
        {-1, DAY_S}, {0, DAY_S},  {INT64_MAX, DAY_S},           {INT64_C(253402300799), 1},
    };
    const struct name cluster = {"hive"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct pair p = {0};
        struct errmsg msg = {""};
        assert_fails(pki_ca_create(&cluster, wrong[i][0], wrong[i][1], &p.cert, &p.key, &msg),
                     STATUS_INVALID, &msg, "outside what a certificate can say");
        assert_null(p.cert);
        assert_null(p.key);
    }
}

static void certificate_ends_with_its_ca(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S + 99 * DAY_S, 30 * DAY_S);
    struct identity id;
    struct errmsg msg = {""};
    assert_ok(pki_identity_of(p.cert, &id, NULL, &msg), &msg);
    assert_int_equal(id.not_after_s, NOW_S + 100 * DAY_S);
    pair_free(&p);
}

static void expired_ca_signs_nothing(void **state)
{
    (void)state;
    char *request = NULL, *key = NULL, *cert = NULL;
    struct errmsg msg = {""};
    assert_ok(pki_request_create(&request, &key, &msg), &msg);
    const struct identity id = identity_of(ROLE_AGENT, "n1");
    assert_fails(pki_sign(ca.cert, ca.key, request, &id, NOW_S + 101 * DAY_S, DAY_S, &cert, &msg),
                 STATUS_DENIED, &msg, "CA has expired");
    mem_free(request);
    pki_key_free(key);
}

static void foreign_ca_key_is_refused(void **state)
{
    (void)state;
    struct pair other = pair_ca();
    char *request = NULL, *key = NULL, *cert = NULL;
    struct errmsg msg = {""};
    assert_ok(pki_request_create(&request, &key, &msg), &msg);
    const struct identity id = identity_of(ROLE_AGENT, "n1");
    assert_fails(pki_sign(ca.cert, other.key, request, &id, NOW_S, DAY_S, &cert, &msg),
                 STATUS_INVALID, &msg, "does not belong to the CA certificate");
    mem_free(request);
    pki_key_free(key);
    pair_free(&other);
}

static void check_accepts_what_was_signed(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    for (unsigned role = ROLE_SCHEDULER; role < ROLE_COUNT_; role++) {
        struct pair p = pair_sign(&ca, (enum role)role, "n1", NOW_S, DAY_S);
        assert_ok(check(&p, NOW_S, &msg), &msg);
        assert_int_equal(ERR_peek_error(), 0);
        pair_free(&p);
    }
}

static void check_at_both_ends_of_validity(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S + DAY_S, DAY_S);
    const int64_t start_s = NOW_S + DAY_S - PKI_BACKDATE_S;
    const int64_t end_s = NOW_S + 2 * DAY_S;
    struct errmsg msg = {""};
    assert_fails(check(&p, start_s - 1, &msg), STATUS_DENIED, &msg, "(in 1 second)");
    assert_ok(check(&p, start_s, &msg), &msg);
    assert_ok(check(&p, end_s - 1, &msg), &msg);
    assert_fails(check(&p, end_s + 1, &msg), STATUS_DENIED, &msg, "expired 1 second ago");
    pair_free(&p);
}

static void check_says_expired_and_the_cure(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct errmsg msg = {""};
    assert_int_equal(check(&p, NOW_S + 3 * DAY_S + HOUR_S, &msg).code, STATUS_DENIED);
    assert_string_equal(msg.text, "the certificate of agent n1 expired 2 days ago; renew it: join "
                                  "again with a token from 'skep ca token'");
    pair_free(&p);
}

static void check_says_the_clock_is_off(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_SCHEDULER, "s1", NOW_S + HOUR_S + PKI_BACKDATE_S, DAY_S);
    struct errmsg msg = {""};
    assert_int_equal(check(&p, NOW_S + 2 * 60 - 1, &msg).code, STATUS_DENIED);
    assert_string_equal(msg.text, "clock off: the certificate of scheduler s1 is valid only from "
                                  "2026-01-01T01:00:00Z (in 58 minutes); check this machine's "
                                  "clock");
    pair_free(&p);
}

static void check_names_the_expired_ca_first(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct errmsg msg = {""};
    assert_fails(check(&p, NOW_S + 101 * DAY_S, &msg), STATUS_DENIED, &msg,
                 "the cluster's CA certificate expired 1 day ago");
    pair_free(&p);
}

static void check_refuses_another_cas_certificate(void **state)
{
    (void)state;
    struct pair other = pair_ca();
    struct pair p = pair_sign(&other, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct errmsg msg = {""};
    assert_fails(check(&p, NOW_S, &msg), STATUS_DENIED, &msg,
                 "certificate of agent n1 is not one of this cluster's CA");
    assert_int_equal(ERR_peek_error(), 0);
    pair_free(&p);
    pair_free(&other);
}

static void check_accepts_either_ca_of_a_bundle(void **state)
{
    (void)state;
    struct pair other = pair_ca();
    char *bundle = NULL;
    assert_true(asprintf(&bundle, "%s%s", other.cert, ca.cert) > 0);
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct pair q = pair_sign(&other, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct errmsg msg = {""};
    assert_ok(pki_check(bundle, p.cert, p.key, NOW_S, &msg), &msg);
    assert_ok(pki_check(bundle, q.cert, q.key, NOW_S, &msg), &msg);
    free(bundle);
    pair_free(&q);
    pair_free(&p);
    pair_free(&other);
}

static void check_refuses_a_key_of_another_certificate(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct pair q = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct errmsg msg = {""};
    assert_fails(pki_check(ca.cert, p.cert, q.key, NOW_S, &msg), STATUS_INVALID, &msg,
                 "private key does not belong to the certificate of agent n1");
    pair_free(&q);
    pair_free(&p);
}

static void check_names_the_text_it_cannot_read(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct errmsg msg = {""};
    assert_fails(pki_check("", p.cert, p.key, NOW_S, &msg), STATUS_INVALID, &msg,
                 "CA certificate: holds no certificate in PEM form");
    assert_fails(pki_check(ca.cert, p.key, p.key, NOW_S, &msg), STATUS_INVALID, &msg,
                 "certificate: holds no certificate in PEM form");
    assert_fails(pki_check(ca.cert, p.cert, p.cert, NOW_S, &msg), STATUS_INVALID, &msg,
                 "private key: holds no readable private key in PEM form");
    assert_fails(pki_check(ca.cert, ca.cert, ca.key, NOW_S, &msg), STATUS_INVALID, &msg,
                 "has no skep://CLUSTER/ROLE/NAME identity");
    pair_free(&p);
}

/* Reading such a key must not wait for a passphrase on the terminal. */
static void key_behind_a_passphrase_is_refused(void **state)
{
    (void)state;
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    EVP_PKEY *key = NULL;
    struct errmsg msg = {""};
    assert_ok(x509_key_read("key", p.key, &key, &msg), &msg);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(
        PEM_write_bio_PKCS8PrivateKey(bio, key, EVP_aes_128_cbc(), "pass", 4, NULL, NULL), 1);
    char *pem = NULL;
    assert_ok(x509_text(bio, &pem, &msg), &msg);
    assert_fails(pki_check(ca.cert, p.cert, pem, NOW_S, &msg), STATUS_INVALID, &msg,
                 "behind a passphrase");
    mem_free(pem);
    BIO_free(bio);
    EVP_PKEY_free(key);
    pair_free(&p);
}

static void too_many_certificates_are_refused(void **state)
{
    (void)state;
    size_t size = strlen(ca.cert);
    char *text = calloc(X509_CERTS_MAX + 1, size + 1);
    assert_non_null(text);
    for (size_t i = 0; i < X509_CERTS_MAX + 1; i++) {
        memcpy(text + i * size, ca.cert, size);
    }
    struct pair p = pair_sign(&ca, ROLE_AGENT, "n1", NOW_S, DAY_S);
    struct errmsg msg = {""};
    assert_fails(pki_check(text, p.cert, p.key, NOW_S, &msg), STATUS_LIMIT, &msg,
                 "over 8 certificates");
    free(text);
    pair_free(&p);
}

/* A certificate with these URIs, signed by nobody in particular. */
static char *cert_with_names(const char *names, int64_t serial)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509 *cert = X509_new();
    assert_int_equal(X509_set_version(cert, 2), 1);
    assert_int_equal(ASN1_INTEGER_set_int64(X509_get_serialNumber(cert), serial), 1);
    assert_non_null(ASN1_TIME_set(X509_getm_notBefore(cert), NOW_S));
    assert_non_null(ASN1_TIME_set(X509_getm_notAfter(cert), NOW_S + DAY_S));
    assert_int_equal(X509_set_pubkey(cert, key), 1);
    X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, NULL, NID_subject_alt_name, names);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    char *pem = NULL;
    struct errmsg msg = {""};
    assert_ok(x509_cert_text(cert, &pem, &msg), &msg);
    X509_EXTENSION_free(extension);
    X509_free(cert);
    EVP_PKEY_free(key);
    return pem;
}

static void other_names_beside_the_identity_are_ignored(void **state)
{
    (void)state;
    char *pem = cert_with_names("DNS:a.example,URI:skep://hive/user/ann,IP:127.0.0.1", 0xabc);
    struct identity id;
    struct errmsg msg = {""};
    assert_ok(pki_identity_of(pem, &id, NULL, &msg), &msg);
    assert_string_equal(id.name.text, "ann");
    assert_string_equal(id.serial, "0abc");
    mem_free(pem);
}

static void two_identities_are_none(void **state)
{
    (void)state;
    char *pem = cert_with_names("URI:skep://hive/user/ann,URI:skep://hive/scheduler/s1", 1);
    struct identity id;
    struct errmsg msg = {""};
    assert_fails(pki_identity_of(pem, &id, NULL, &msg), STATUS_INVALID, &msg, "more than one URI");
    mem_free(pem);
}

static void negative_serial_is_refused(void **state)
{
    (void)state;
    char *pem = cert_with_names("URI:skep://hive/user/ann", -5);
    struct identity id;
    struct errmsg msg = {""};
    assert_fails(pki_identity_of(pem, &id, NULL, &msg), STATUS_INVALID, &msg, "serial");
    mem_free(pem);
}

/* Our own allocations are the results; whichever fails, nothing is given out. */
static void out_of_memory_gives_out_nothing(void **state)
{
    (void)state;
    const struct name cluster = {"hive"};
    for (unsigned i = 0; i < 2; i++) {
        struct pair p = {0};
        struct errmsg msg = {""};
        mem_fault(i, 1);
        struct status s = pki_ca_create(&cluster, NOW_S, DAY_S, &p.cert, &p.key, &msg);
        assert_int_equal(mem_fault_clear(), 1);
        assert_int_equal(s.code, STATUS_NOMEM);
        assert_null(p.cert);
        assert_null(p.key);
        mem_fault(i, 1);
        s = pki_request_create(&p.cert, &p.key, &msg);
        assert_int_equal(mem_fault_clear(), 1);
        assert_int_equal(s.code, STATUS_NOMEM);
        assert_null(p.cert);
        assert_null(p.key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signed_identity_is_read_back),
        cmocka_unit_test(serials_differ),
        cmocka_unit_test(longest_names_are_signed),
        cmocka_unit_test(chain_passes_the_strict_check_for_its_purpose),
        cmocka_unit_test(leaf_cannot_sign),
        cmocka_unit_test(names_in_the_request_are_ignored),
        cmocka_unit_test(request_not_signed_by_its_key_is_denied),
        cmocka_unit_test(request_for_another_kind_of_key_is_refused),
        cmocka_unit_test(garbage_is_no_request),
        cmocka_unit_test(request_over_the_limit_is_refused),
        cmocka_unit_test(empty_name_or_role_is_not_signed),
        cmocka_unit_test(times_out_of_range_are_refused),
        cmocka_unit_test(certificate_ends_with_its_ca),
        cmocka_unit_test(expired_ca_signs_nothing),
        cmocka_unit_test(foreign_ca_key_is_refused),
        cmocka_unit_test(check_accepts_what_was_signed),
        cmocka_unit_test(check_at_both_ends_of_validity),
        cmocka_unit_test(check_says_expired_and_the_cure),
        cmocka_unit_test(check_says_the_clock_is_off),
        cmocka_unit_test(check_names_the_expired_ca_first),
        cmocka_unit_test(check_refuses_another_cas_certificate),
        cmocka_unit_test(check_accepts_either_ca_of_a_bundle),
        cmocka_unit_test(check_refuses_a_key_of_another_certificate),
        cmocka_unit_test(check_names_the_text_it_cannot_read),
        cmocka_unit_test(key_behind_a_passphrase_is_refused),
        cmocka_unit_test(too_many_certificates_are_refused),
        cmocka_unit_test(other_names_beside_the_identity_are_ignored),
        cmocka_unit_test(two_identities_are_none),
        cmocka_unit_test(negative_serial_is_refused),
        cmocka_unit_test(out_of_memory_gives_out_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

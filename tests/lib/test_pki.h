/* Certificates for tests, made in memory: a CA and what it signs, good or wrong on purpose. Ends
 * the process when OpenSSL fails: a test without certificates proves nothing.
 *
 * Thread: any; no shared state. */
#ifndef TESTS_LIB_TEST_PKI_H
#define TESTS_LIB_TEST_PKI_H

#include "common/net/tls.h"

#include <openssl/x509.h>
#include <stdint.h>

struct test_ca {
    EVP_PKEY *key;
    X509 *certificate;
    char *pem;
};

struct test_certificate {
    char *pem;
    char *key_pem;
};

/* All zeros but uri: a good certificate of one hour. */
struct test_certificate_spec {
    const char *uri;        /* NULL: no subject alternative name */
    const char *second_uri; /* may be NULL */
    const char *eku;        /* as for OpenSSL; NULL: "serverAuth,clientAuth" */
    int64_t not_before_s;   /* from now; 0: an hour ago */
    int64_t not_after_s;    /* from now; 0: in an hour */
};

void test_ca_open(struct test_ca *ca, const char *common_name);
void test_ca_close(struct test_ca *ca);

void test_certificate_open(struct test_certificate *c, const struct test_ca *ca,
                           const struct test_certificate_spec *spec);
/* The common case: a good certificate for the URI. */
void test_certificate_for(struct test_certificate *c, const struct test_ca *ca, const char *uri);
void test_certificate_close(struct test_certificate *c);

/* The three texts a link wants, borrowed. */
struct tls_identity test_identity(const struct test_ca *ca, const struct test_certificate *c);

#endif

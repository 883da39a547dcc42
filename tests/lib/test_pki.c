#include "tests/lib/test_pki.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOUR_S = 3600 };

static void must(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "test_pki: %s\n", what);
        ERR_print_errors_fp(stderr);
        abort();
    }
}

static char *bio_text(BIO *bio)
{
    char *data = NULL;
    long size = BIO_get_mem_data(bio, &data);
    char *text = malloc((size_t)size + 1);
    must(text != NULL, "out of memory");
    memcpy(text, data, (size_t)size);
    text[size] = '\0';
    BIO_free(bio);
    return text;
}

static char *certificate_text(X509 *certificate)
{
    BIO *bio = BIO_new(BIO_s_mem());
    must(bio != NULL && PEM_write_bio_X509(bio, certificate) == 1, "write certificate");
    return bio_text(bio);
}

static char *key_text(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    must(bio != NULL && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1,
         "write key");
    return bio_text(bio);
}

static void extension_add(X509 *certificate, const struct test_ca *ca, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, ca == NULL ? certificate : ca->certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    must(e != NULL && X509_add_ext(certificate, e, -1) == 1, value);
    X509_EXTENSION_free(e);
}

static X509 *certificate_new(EVP_PKEY *key, const char *common_name, int64_t not_before_s,
                             int64_t not_after_s)
{
    X509 *c = X509_new();
    BIGNUM *serial = BN_new();
    must(c != NULL && serial != NULL && X509_set_version(c, X509_VERSION_3) == 1, "X509_new");
    must(BN_rand(serial, 120, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
             BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(c)) != NULL,
         "serial");
    BN_free(serial);
    X509_NAME *name = X509_get_subject_name(c);
    must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)common_name,
                                    -1, -1, 0) == 1,
         "name");
    must(X509_gmtime_adj(X509_getm_notBefore(c), (long)not_before_s) != NULL &&
             X509_gmtime_adj(X509_getm_notAfter(c), (long)not_after_s) != NULL,
         "validity");
    must(X509_set_pubkey(c, key) == 1, "public key");
    return c;
}

void test_ca_open(struct test_ca *ca, const char *common_name)
{
    *ca = (struct test_ca){0};
    ca->key = EVP_EC_gen("P-256");
    must(ca->key != NULL, "key");
    ca->certificate = certificate_new(ca->key, common_name, -HOUR_S, 24 * HOUR_S);
    must(X509_set_issuer_name(ca->certificate, X509_get_subject_name(ca->certificate)) == 1,
         "issuer");
    extension_add(ca->certificate, NULL, NID_basic_constraints, "critical,CA:TRUE");
    extension_add(ca->certificate, NULL, NID_key_usage, "critical,keyCertSign,cRLSign");
    extension_add(ca->certificate, NULL, NID_subject_key_identifier, "hash");
    must(X509_sign(ca->certificate, ca->key, EVP_sha256()) != 0, "sign CA");
    ca->pem = certificate_text(ca->certificate);
}

void test_ca_close(struct test_ca *ca)
{
    X509_free(ca->certificate);
    EVP_PKEY_free(ca->key);
    free(ca->pem);
    *ca = (struct test_ca){0};
}

static void names_add(X509 *certificate, const struct test_ca *ca,
                      const struct test_certificate_spec *spec)
{
    char names[1024];
    if (spec->uri == NULL) {
        return;
    }
    (void)snprintf(names, sizeof names, "URI:%s%s%s", spec->uri,
                   spec->second_uri != NULL ? ",URI:" : "",
                   spec->second_uri != NULL ? spec->second_uri : "");
    extension_add(certificate, ca, NID_subject_alt_name, names);
}

void test_certificate_open(struct test_certificate *c, const struct test_ca *ca,
                           const struct test_certificate_spec *spec)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    must(key != NULL, "key");
    X509 *x = certificate_new(key, "test", spec->not_before_s != 0 ? spec->not_before_s : -HOUR_S,
                              spec->not_after_s != 0 ? spec->not_after_s : HOUR_S);
    must(X509_set_issuer_name(x, X509_get_subject_name(ca->certificate)) == 1, "issuer");
    extension_add(x, ca, NID_basic_constraints, "critical,CA:FALSE");
    extension_add(x, ca, NID_key_usage, "critical,digitalSignature");
    extension_add(x, ca, NID_ext_key_usage,
                  spec->eku != NULL ? spec->eku : "serverAuth,clientAuth");
    extension_add(x, ca, NID_authority_key_identifier, "keyid");
    names_add(x, ca, spec);
    must(X509_sign(x, ca->key, EVP_sha256()) != 0, "sign");
    *c = (struct test_certificate){.pem = certificate_text(x), .key_pem = key_text(key)};
    X509_free(x);
    EVP_PKEY_free(key);
}

void test_certificate_for(struct test_certificate *c, const struct test_ca *ca, const char *uri)
{
    const struct test_certificate_spec spec = {.uri = uri};
    test_certificate_open(c, ca, &spec);
}

void test_certificate_close(struct test_certificate *c)
{
    free(c->pem);
    free(c->key_pem);
    *c = (struct test_certificate){0};
}

struct tls_identity test_identity(const struct test_ca *ca, const struct test_certificate *c)
{
    return (struct tls_identity){.ca_pem = ca->pem, .cert_pem = c->pem, .key_pem = c->key_pem};
}

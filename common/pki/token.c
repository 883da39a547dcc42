/* Join tokens. The text is "skep-join-v1." and base64url, without padding, of
 *
 *     u8  version, 1
 *     u32 size of everything, digest included
 *     u8  number of addresses; blob each
 *     u8  number of CA certificates; DER blob each
 *     blob join certificate, DER
 *     blob its private key, DER
 *     32  SHA-256 of all the bytes before
 *
 * The size tells a paste that lost its end from one that was changed; the digest is no protection,
 * for whoever makes a token can make its digest. Everything here is secret and wiped: buffers are
 * sized once, so that growing leaves no copy behind.
 *
 * Thread: any; no shared state. */
#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"
#include "common/pki/pki.h"
#include "common/pki/sign.h"
#include "common/pki/x509.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

static const char token_prefix[] = "skep-join-v1.";
static const char token_family[] = "skep-join-";

enum {
    TOKEN_VERSION = 1,
    TOKEN_PREFIX_BYTES = sizeof token_prefix - 1,
    TOKEN_FAMILY_BYTES = sizeof token_family - 1,
    TOKEN_HEAD_BYTES = 1 + 4,
    TOKEN_BODY_BYTES_MAX = (PKI_TOKEN_BYTES_MAX - TOKEN_PREFIX_BYTES) / 4 * 3,
    DER_BYTES_MAX = 8 << 10,
};

static void wipe_buffer(struct buffer *b)
{
    if (b->data != NULL) {
        mem_wipe(b->data, b->capacity);
    }
    buffer_close(b);
}

static bool sha256(const uint8_t *data, size_t size, uint8_t out[DIGEST_BYTES])
{
    unsigned used = 0;
    return EVP_Digest(data, size, out, &used, EVP_sha256(), NULL) == 1 && used == DIGEST_BYTES;
}

/* HOST:PORT as far as it matters here: printable, without spaces, with a colon. Who dials it knows
 * the rest. */
static bool address_plausible(const char *text, size_t size)
{
    if (size == 0 || size > PKI_ADDRESS_BYTES_MAX || memchr(text, ':', size) == NULL) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] <= ' ' || text[i] >= 0x7F) {
            return false;
        }
    }
    return true;
}

/* The encoder's parts, in the order of the format. */
struct token_parts {
    const char *const *addresses;
    size_t addresses_count;
    STACK_OF(X509) * cas;
    X509 *cert;
    EVP_PKEY *key;
};

/* i2d_X509 or i2d_PrivateKey gave this; it is wiped as it may be a key. */
static struct status put_der(struct buffer *b, unsigned char *der_take, int size)
{
    if (der_take == NULL || size <= 0) {
        return status_of(STATUS_NOMEM);
    }
    struct status s = buffer_put_blob(b, bytes_of(der_take, (size_t)size));
    OPENSSL_clear_free(der_take, (size_t)size);
    return s;
}

static struct status put_cert(struct buffer *b, const X509 *cert)
{
    unsigned char *der = NULL;
    int size = i2d_X509(cert, &der);
    return put_der(b, der, size);
}

static struct status put_key(struct buffer *b, const EVP_PKEY *key)
{
    unsigned char *der = NULL;
    int size = i2d_PrivateKey(key, &der);
    return put_der(b, der, size);
}

static struct status body_write(struct buffer *b, const struct token_parts *p)
{
    TRY(buffer_put_u8(b, TOKEN_VERSION));
    TRY(buffer_put_u32(b, 0));
    TRY(buffer_put_u8(b, (uint8_t)p->addresses_count));
    for (size_t i = 0; i < p->addresses_count; i++) {
        TRY(buffer_put_blob(b, bytes_of(p->addresses[i], strlen(p->addresses[i]))));
    }
    TRY(buffer_put_u8(b, (uint8_t)sk_X509_num(p->cas)));
    for (int i = 0; i < sk_X509_num(p->cas); i++) {
        TRY(put_cert(b, sk_X509_value(p->cas, i)));
    }
    TRY(put_cert(b, p->cert));
    TRY(put_key(b, p->key));
    return status_ok();
}

/* Fills in the size and appends the digest. */
static struct status body_seal(struct buffer *b)
{
    struct buffer size = {0};
    TRY(buffer_put_u32(&size, (uint32_t)(b->size + DIGEST_BYTES)));
    memcpy(b->data + 1, size.data, size.size);
    buffer_close(&size);
    uint8_t digest[DIGEST_BYTES];
    if (!sha256(b->data, b->size, digest)) {
        return status_of(STATUS_INTERNAL);
    }
    return buffer_append(b, digest, sizeof digest);
}

/* base64url without padding, behind the prefix, as a heap text. */
static char *text_of(const struct buffer *body)
{
    char *text = mem_alloc(TOKEN_PREFIX_BYTES + (body->size + 2) / 3 * 4 + 1);
    if (text == NULL) {
        return NULL;
    }
    memcpy(text, token_prefix, TOKEN_PREFIX_BYTES);
    char *at = text + TOKEN_PREFIX_BYTES;
    (void)EVP_EncodeBlock((unsigned char *)at, body->data, (int)body->size);
    for (; *at != '\0'; at++) {
        if (*at == '+') {
            *at = '-';
        } else if (*at == '/') {
            *at = '_';
        } else if (*at == '=') {
            *at = '\0';
            break;
        }
    }
    return text;
}

static struct status token_encode(const struct token_parts *p, char **text, struct errmsg *msg)
{
    struct buffer body = {0};
    struct status s = buffer_reserve(&body, TOKEN_BODY_BYTES_MAX);
    if (status_is_ok(s)) {
        s = body_write(&body, p);
    }
    if (status_is_ok(s)) {
        s = body_seal(&body);
    }
    if (status_is_ok(s) && body.size > TOKEN_BODY_BYTES_MAX) {
        wipe_buffer(&body);
        return status_fail(msg, STATUS_LIMIT,
                           "the token would have over %d characters; give fewer addresses",
                           PKI_TOKEN_BYTES_MAX);
    }
    char *made = status_is_ok(s) ? text_of(&body) : NULL;
    wipe_buffer(&body);
    if (made == NULL) {
        return x509_fail(msg, status_is_ok(s) ? STATUS_NOMEM : s.code, "make join token");
    }
    *text = made;
    return status_ok();
}

/* The join certificate: named by its own serial, so that every token is told apart in logs. */
static struct status join_sign(const char *ca_cert_pem, const char *ca_key_pem,
                               const struct name *cluster, int64_t now_s, int64_t valid_s,
                               EVP_PKEY *key, X509 **out, struct errmsg *msg)
{
    struct serial serial;
    TRY(serial_make(&serial, msg));
    struct identity id = {.cluster = *cluster, .role = ROLE_JOIN};
    char text[SERIAL_STRING_BYTES];
    serial_format(&serial, text);
    (void)snprintf(id.name.text, sizeof id.name.text, "%s", text);
    struct signer signer = {0};
    TRY(signer_open(&signer, ca_cert_pem, ca_key_pem, now_s, msg));
    struct status s = signer_sign(&signer, key, &id, &serial, now_s, valid_s, out, msg);
    signer_close(&signer);
    return s;
}

static struct status check_addresses(const char *const *addresses, size_t count, struct errmsg *msg)
{
    if (count == 0) {
        return status_fail(msg, STATUS_INVALID, "a join token needs a scheduler's address");
    }
    if (count > PKI_ADDRESSES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "a join token holds at most %d addresses",
                           PKI_ADDRESSES_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        if (!address_plausible(addresses[i], strnlen(addresses[i], PKI_ADDRESS_BYTES_MAX + 1))) {
            return status_fail(msg, STATUS_INVALID,
                               "address %zu of the join token is not HOST:PORT of at most %d bytes",
                               i + 1, PKI_ADDRESS_BYTES_MAX);
        }
    }
    return status_ok();
}

struct status pki_token_create(const char *ca_cert_pem, const char *ca_key_pem,
                               const struct name *cluster, const char *const *addresses,
                               size_t addresses_count, int64_t now_s, int64_t valid_s, char **text,
                               char id[SERIAL_STRING_BYTES], struct errmsg *msg)
{
    TRY(check_addresses(addresses, addresses_count, msg));
    AUTO_CERTS STACK_OF(X509) *cas = NULL;
    AUTO_KEY EVP_PKEY *key = NULL;
    AUTO_X509 X509 *cert = NULL;
    TRY(x509_read_all("CA certificate", ca_cert_pem, &cas, msg));
    TRY(key_make(&key, msg));
    TRY(join_sign(ca_cert_pem, ca_key_pem, cluster, now_s, valid_s, key, &cert, msg));
    struct token_parts parts = {addresses, addresses_count, cas, cert, key};
    char serial[SERIAL_STRING_BYTES];
    TRY(x509_serial(cert, serial, msg));
    TRY(token_encode(&parts, text, msg));
    memcpy(id, serial, sizeof serial);
    return status_ok();
}

static struct status fail_cut(struct errmsg *msg)
{
    return status_fail(msg, STATUS_CORRUPT,
                       "the join token is cut short; copy all of it, to its last character");
}

static bool space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Copies the text without white space into out, as plain base64 with padding after the prefix. */
static struct status text_clean(const char *text, size_t size, struct buffer *out,
                                struct errmsg *msg)
{
    TRY(buffer_reserve(out, size + 4));
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (space(c)) {
            continue;
        }
        bool prefix = out->size < TOKEN_PREFIX_BYTES;
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && c != '-' && c != '_' && !(prefix && c == '.')) {
            return status_fail(msg, STATUS_INVALID,
                               "the join token holds a character that does not belong there "
                               "(byte 0x%02x at %zu); copy it alone, without quotes",
                               (unsigned char)c, i + 1);
        }
        if (!prefix) {
            c = c == '-' ? '+' : c == '_' ? '/' : c;
        }
        out->data[out->size++] = (uint8_t)c;
    }
    return status_ok();
}

static struct status check_prefix(const struct buffer *clean, struct errmsg *msg)
{
    if (clean->size < TOKEN_FAMILY_BYTES ||
        memcmp(clean->data, token_family, TOKEN_FAMILY_BYTES) != 0) {
        return status_fail(msg, STATUS_INVALID, "this is not a join token; one starts with %s",
                           token_prefix);
    }
    if (clean->size < TOKEN_PREFIX_BYTES) {
        return fail_cut(msg);
    }
    if (memcmp(clean->data, token_prefix, TOKEN_PREFIX_BYTES) != 0) {
        return status_fail(
            msg, STATUS_UNSUPPORTED,
            "the join token is of another version than %.*s; use the same release of "
            "Skep on this machine and on the schedulers",
            TOKEN_PREFIX_BYTES - 1, token_prefix);
    }
    return status_ok();
}

/* base64 to bytes, in place of a second text: clean is padded by up to 3 bytes, for which
 * text_clean left room. */
static struct status body_decode(struct buffer *clean, struct buffer *body, struct errmsg *msg)
{
    size_t digits = clean->size - TOKEN_PREFIX_BYTES;
    if (digits == 0 || digits % 4 == 1) {
        return fail_cut(msg);
    }
    size_t size = digits / 4 * 3 + (digits % 4 == 0 ? 0 : digits % 4 - 1);
    while ((clean->size - TOKEN_PREFIX_BYTES) % 4 != 0) {
        clean->data[clean->size++] = '=';
    }
    size_t padded = clean->size - TOKEN_PREFIX_BYTES;
    TRY(buffer_reserve(body, padded / 4 * 3));
    if (EVP_DecodeBlock(body->data, clean->data + TOKEN_PREFIX_BYTES, (int)padded) < 0) {
        return x509_fail(msg, STATUS_CORRUPT, "the join token is damaged; copy it again");
    }
    body->size = size;
    return status_ok();
}

/* Checks version, size and digest; *out covers what is between the head and the digest. */
static struct status body_open(const struct buffer *body, struct reader *out, struct errmsg *msg)
{
    struct reader r = reader_of(bytes_of(body->data, body->size));
    uint8_t version = reader_u8(&r);
    uint32_t size = reader_u32(&r);
    if (r.failed || (size > body->size && size <= TOKEN_BODY_BYTES_MAX)) {
        return fail_cut(msg);
    }
    uint8_t digest[DIGEST_BYTES];
    size_t content = body->size - DIGEST_BYTES;
    if (size != body->size || size < TOKEN_HEAD_BYTES + DIGEST_BYTES ||
        !sha256(body->data, content, digest) ||
        memcmp(digest, body->data + content, sizeof digest) != 0) {
        return status_fail(msg, STATUS_CORRUPT,
                           "the join token was changed on the way (its checksum is wrong); "
                           "copy it again");
    }
    if (version != TOKEN_VERSION) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "the join token's content has version %u, "
                           "this release reads %d",
                           version, TOKEN_VERSION);
    }
    r.rest.size -= DIGEST_BYTES;
    *out = r;
    return status_ok();
}

static struct status take_addresses(struct reader *r, struct pki_token *t)
{
    unsigned count = reader_u8(r);
    if (count == 0 || count > PKI_ADDRESSES_MAX) {
        return status_of(STATUS_INVALID);
    }
    for (unsigned i = 0; i < count; i++) {
        struct bytes address = reader_blob(r, PKI_ADDRESS_BYTES_MAX);
        if (r->failed || !address_plausible((const char *)address.data, address.size)) {
            return status_of(STATUS_INVALID);
        }
        memcpy(t->addresses[i], address.data, address.size);
        t->addresses_count++;
    }
    return status_ok();
}

/* The next DER certificate, all of its blob, which the caller frees; NULL otherwise. */
static X509 *take_cert(struct reader *r)
{
    struct bytes der = reader_blob(r, DER_BYTES_MAX);
    const unsigned char *at = der.data;
    X509 *cert = r->failed ? NULL : d2i_X509(NULL, &at, (long)der.size);
    if (cert != NULL && at != der.data + der.size) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

static struct status take_cas(struct reader *r, struct pki_token *t, struct errmsg *msg)
{
    unsigned count = reader_u8(r);
    if (count == 0 || count > X509_CERTS_MAX) {
        return status_of(STATUS_INVALID);
    }
    AUTO_BIO BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (unsigned i = 0; i < count; i++) {
        AUTO_X509 X509 *ca = take_cert(r);
        if (ca == NULL || PEM_write_bio_X509(bio, ca) != 1) {
            return status_of(STATUS_INVALID);
        }
    }
    return x509_text(bio, &t->ca_pem, msg);
}

static struct status take_pair(struct reader *r, struct pki_token *t, struct errmsg *msg)
{
    AUTO_X509 X509 *cert = take_cert(r);
    struct bytes der = reader_blob(r, DER_BYTES_MAX);
    const unsigned char *at = der.data;
    AUTO_KEY EVP_PKEY *key =
        cert == NULL || r->failed ? NULL : d2i_PrivateKey(EVP_PKEY_EC, NULL, &at, (long)der.size);
    if (key == NULL || r->rest.size != 0 || !x509_key_is_p256(key) ||
        X509_check_private_key(cert, key) != 1) {
        return status_of(STATUS_INVALID);
    }
    struct identity id;
    if (!status_is_ok(x509_identity(cert, &id, NULL)) || id.role != ROLE_JOIN) {
        return status_of(STATUS_INVALID);
    }
    memcpy(t->id, id.serial, sizeof t->id);
    TRY(x509_cert_text(cert, &t->cert_pem, msg));
    return x509_key_text(key, &t->key_pem, msg);
}

static struct status token_decode(const char *text, size_t size, struct pki_token *t,
                                  struct buffer *clean, struct buffer *body, struct errmsg *msg)
{
    TRY(text_clean(text, size, clean, msg));
    TRY(check_prefix(clean, msg));
    TRY(body_decode(clean, body, msg));
    struct reader r;
    TRY(body_open(body, &r, msg));
    TRY(take_addresses(&r, t));
    TRY(take_cas(&r, t, msg));
    return take_pair(&r, t, msg);
}

struct status pki_token_parse(const char *text, size_t size, struct pki_token *out,
                              struct errmsg *msg)
{
    if (size > PKI_TOKEN_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "the join token has over %d characters",
                           PKI_TOKEN_BYTES_MAX);
    }
    struct pki_token token = {0};
    struct buffer clean = {0};
    struct buffer body = {0};
    struct errmsg why = {""};
    ERR_clear_error();
    struct status s = token_decode(text, size, &token, &clean, &body, &why);
    ERR_clear_error();
    wipe_buffer(&clean);
    wipe_buffer(&body);
    if (!status_is_ok(s)) {
        pki_token_close(&token);
        const char *rest =
            s.code == STATUS_NOMEM ? "out of memory" : "the join token holds something unreadable";
        return status_fail(msg, s.code, "%s", why.text[0] != '\0' ? why.text : rest);
    }
    *out = token;
    return status_ok();
}

void pki_token_close(struct pki_token *t)
{
    mem_free(t->ca_pem);
    mem_free(t->cert_pem);
    pki_key_free(t->key_pem);
    *t = (struct pki_token){0};
}

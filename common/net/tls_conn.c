#include "common/net/tls_conn.h"

#include "common/check.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <string.h>

/* --- the BIO between OpenSSL and the two byte ranges --- */

static int wire_write(BIO *bio, const char *data, int size)
{
    struct tls_conn *c = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    return status_is_ok(buffer_append(&c->out, data, (size_t)size)) ? size : -1;
}

static int wire_read(BIO *bio, char *data, int size)
{
    struct tls_conn *c = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (c->late > TLS_LATE_MAX) {
        return -1; /* One SSL_read would go on for as long as there are more of them. */
    }
    if (c->in.size == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t count = c->in.size < (size_t)size ? c->in.size : (size_t)size;
    memcpy(data, c->in.data, count);
    c->in = bytes_of(c->in.data + count, c->in.size - count);
    return (int)count;
}

static long wire_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static int wire_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

/* Made once a process. */
static BIO_METHOD *wire_method;
static pthread_once_t wire_once = PTHREAD_ONCE_INIT;

static void wire_open(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "skep wire");
    if (m != NULL && BIO_meth_set_write(m, wire_write) == 1 &&
        BIO_meth_set_read(m, wire_read) == 1 && BIO_meth_set_ctrl(m, wire_control) == 1 &&
        BIO_meth_set_create(m, wire_create) == 1) {
        wire_method = m;
    }
}

/* --- the connection --- */

static void move(struct tls_conn *c, enum tls_state to)
{
    static const uint8_t legal[] = {
        [TLS_STATE_HANDSHAKE] = 1 << TLS_STATE_SECURED | 1 << TLS_STATE_OVER,
        [TLS_STATE_SECURED] = 1 << TLS_STATE_OVER,
        [TLS_STATE_OVER] = 0,
    };
    CHECK((legal[c->state] & 1 << to) != 0);
    c->state = to;
}

static void on_tls_message(int sent, int version, int type, const void *data, size_t size, SSL *ssl,
                           void *arg)
{
    struct tls_conn *c = arg;
    (void)version;
    (void)data;
    (void)size;
    (void)ssl;
    c->late += sent == 0 && type == SSL3_RT_HANDSHAKE && c->state == TLS_STATE_SECURED;
}

struct status tls_conn_open(struct tls_conn *c, SSL_CTX *context, bool server,
                            const struct tls_check *check)
{
    *c = (struct tls_conn){.check = *check, .end = TLS_WANTS};
    CHECK(pthread_once(&wire_once, wire_open) == 0);
    ERR_clear_error();
    c->ssl = wire_method == NULL ? NULL : SSL_new(context);
    BIO *bio = c->ssl == NULL ? NULL : BIO_new(wire_method);
    if (bio == NULL) {
        ERR_clear_error();
        tls_conn_close(c);
        return status_of(STATUS_NOMEM);
    }
    BIO_set_data(bio, c);
    SSL_set_bio(c->ssl, bio, bio);
    tls_check_bind(&c->check, c->ssl);
    SSL_set_msg_callback(c->ssl, on_tls_message);
    SSL_set_msg_callback_arg(c->ssl, c);
    if (server) {
        SSL_set_accept_state(c->ssl);
    } else {
        SSL_set_connect_state(c->ssl);
    }
    return status_ok();
}

void tls_conn_close(struct tls_conn *c)
{
    SSL_free(c->ssl);
    buffer_close(&c->out);
    c->ssl = NULL;
    c->in = bytes_of(NULL, 0);
}

void tls_conn_feed(struct tls_conn *c, struct bytes wire)
{
    CHECK(c->in.size == 0);
    c->in = wire;
}

static bool wants_more(const struct tls_conn *c, int rv)
{
    int error = SSL_get_error(c->ssl, rv);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static enum tls_step handshake(struct tls_conn *c)
{
    ERR_clear_error();
    int rv = SSL_do_handshake(c->ssl);
    if (rv == 1) {
        move(c, TLS_STATE_SECURED);
        return TLS_SECURED;
    }
    if (wants_more(c, rv)) {
        return TLS_WANTS;
    }
    tls_check_explain(&c->check);
    move(c, TLS_STATE_OVER);
    return TLS_REFUSED;
}

static enum tls_step receive(struct tls_conn *c, uint8_t *plain, size_t room, size_t *got)
{
    size_t used = 0;
    int n = 0;
    while (used < room) {
        size_t left = room - used;
        ERR_clear_error();
        n = SSL_read(c->ssl, plain + used, left > INT_MAX ? INT_MAX : (int)left);
        if (n <= 0) {
            break;
        }
        used += (size_t)n;
    }
    if (used > 0 && (n > 0 || wants_more(c, n))) {
        *got = used;
        return TLS_DATA;
    }
    if (wants_more(c, n)) {
        return TLS_WANTS;
    }
    bool orderly = SSL_get_error(c->ssl, n) == SSL_ERROR_ZERO_RETURN;
    if (c->late > TLS_LATE_MAX) {
        tls_check_refuse(&c->check, REFUSAL_PROTOCOL, "peer keeps changing its TLS keys");
    }
    move(c, TLS_STATE_OVER);
    if (!orderly) {
        tls_check_explain(&c->check);
    }
    enum tls_step end = orderly ? TLS_ENDED : TLS_REFUSED;
    if (used > 0) { /* What came before is told before. */
        c->end = end;
        *got = used;
        return TLS_DATA;
    }
    return end;
}

enum tls_step tls_conn_step(struct tls_conn *c, uint8_t *plain, size_t room, size_t *got)
{
    *got = 0;
    switch (c->state) {
    case TLS_STATE_HANDSHAKE:
        return handshake(c);
    case TLS_STATE_SECURED:
        return receive(c, plain, room, got);
    case TLS_STATE_OVER:
        break;
    }
    enum tls_step end = c->end;
    c->end = TLS_WANTS;
    c->in = bytes_of(NULL, 0);
    return end;
}

struct status tls_conn_write(struct tls_conn *c, struct bytes plain)
{
    if (c->state != TLS_STATE_SECURED) {
        return status_of(STATUS_UNAVAILABLE);
    }
    while (plain.size > 0) {
        ERR_clear_error();
        int n = SSL_write(c->ssl, plain.data, plain.size > INT_MAX ? INT_MAX : (int)plain.size);
        if (n <= 0) {
            ERR_clear_error();
            move(c, TLS_STATE_OVER);
            return status_of(STATUS_NOMEM); /* The wire takes everything. */
        }
        plain = bytes_of(plain.data + n, plain.size - (size_t)n);
    }
    return status_ok();
}

void tls_conn_shutdown(struct tls_conn *c)
{
    if (c->state == TLS_STATE_SECURED) {
        ERR_clear_error();
        (void)SSL_shutdown(c->ssl);
        ERR_clear_error();
        move(c, TLS_STATE_OVER);
    }
}

#include "tests/security/net/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { CALL_SECONDS_MAX = 10, HEADER_BYTES = 16 };

static bool tcp_open(struct raw_client *c, uint16_t port, int receive_bytes)
{
    *c = (struct raw_client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (c->fd >= 0 && receive_bytes > 0) {
        (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    }
    const struct timeval limit = {.tv_sec = CALL_SECONDS_MAX};
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    if (c->fd < 0 || setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0 ||
        setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 ||
        connect(c->fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        raw_close(c);
        return false;
    }
    return true;
}

bool raw_open(struct raw_client *c, uint16_t port)
{
    return tcp_open(c, port, 0);
}

bool raw_open_narrow(struct raw_client *c, uint16_t port)
{
    return tcp_open(c, port, 1);
}

void raw_close(struct raw_client *c)
{
    SSL_free(c->ssl);
    SSL_CTX_free(c->context);
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    int alert = c->alert;
    *c = (struct raw_client){.fd = -1, .alert = alert};
}

void raw_abort(struct raw_client *c)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    raw_close(c);
}

bool raw_write(struct raw_client *c, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t n = send(c->fd, at, size, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

bool raw_wait_end(struct raw_client *c)
{
    char waste[4096];
    ssize_t n;
    do {
        n = recv(c->fd, waste, sizeof waste, 0);
    } while (n > 0);
    return n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static void alert_note(struct raw_client *c)
{
    for (unsigned long e = ERR_get_error(); e != 0; e = ERR_get_error()) {
        int reason = ERR_GET_REASON(e);
        if (ERR_GET_LIB(e) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET) {
            c->alert = reason - SSL_AD_REASON_OFFSET;
        }
    }
}

static bool own_load(SSL_CTX *ctx, const struct tls_identity *texts)
{
    BIO *certificate = BIO_new_mem_buf(texts->cert_pem, -1);
    BIO *key = BIO_new_mem_buf(texts->key_pem, -1);
    X509 *x = PEM_read_bio_X509(certificate, NULL, NULL, NULL);
    EVP_PKEY *k = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);
    bool ok = x != NULL && k != NULL && SSL_CTX_use_certificate(ctx, x) == 1 &&
              SSL_CTX_use_PrivateKey(ctx, k) == 1;
    X509_free(x);
    EVP_PKEY_free(k);
    BIO_free(certificate);
    BIO_free(key);
    return ok;
}

bool raw_tls_start(struct raw_client *c, const struct tls_identity *texts, int version)
{
    ERR_clear_error();
    c->context = SSL_CTX_new(TLS_client_method());
    if (c->context == NULL || SSL_CTX_set_max_proto_version(c->context, version) != 1 ||
        (texts->cert_pem != NULL && !own_load(c->context, texts))) {
        return false;
    }
    c->ssl = SSL_new(c->context);
    if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1) {
        return false;
    }
    if (SSL_connect(c->ssl) != 1) {
        alert_note(c);
        return false;
    }
    return true;
}

bool raw_tls_write(struct raw_client *c, const void *data, size_t size)
{
    ERR_clear_error();
    return size == 0 || SSL_write(c->ssl, data, (int)size) == (int)size;
}

bool raw_tls_read(struct raw_client *c, size_t size)
{
    char waste[4096];
    while (size > 0) {
        ERR_clear_error();
        int n = SSL_read(c->ssl, waste, size < sizeof waste ? (int)size : (int)sizeof waste);
        if (n <= 0) {
            alert_note(c);
            return false;
        }
        size -= (size_t)n;
    }
    return true;
}

bool raw_tls_wait_end(struct raw_client *c)
{
    char waste[4096];
    int n;
    do {
        ERR_clear_error();
        errno = 0;
        n = SSL_read(c->ssl, waste, sizeof waste);
    } while (n > 0);
    bool late = errno == EAGAIN || errno == EWOULDBLOCK;
    alert_note(c);
    return !late;
}

bool raw_header(struct raw_client *c, uint32_t length, uint8_t kind, uint8_t flags,
                uint64_t sequence)
{
    uint8_t header[HEADER_BYTES] = {0};
    memcpy(header, &length, sizeof length);
    header[4] = kind;
    header[5] = flags;
    memcpy(header + 8, &sequence, sizeof sequence);
    return raw_tls_write(c, header, sizeof header);
}

bool raw_frame(struct raw_client *c, uint8_t kind, uint32_t size)
{
    static const uint8_t zeros[16 << 10];
    if (!raw_header(c, size, kind, 0, ++c->sequence)) {
        return false;
    }
    while (size > 0) {
        uint32_t n = size < sizeof zeros ? size : (uint32_t)sizeof zeros;
        if (!raw_tls_write(c, zeros, n)) {
            return false;
        }
        size -= n;
    }
    return true;
}

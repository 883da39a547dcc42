/* The chain over libuv and OpenSSL alone, on one thread, without frames or limits: the floor that
 * the link's price is measured against. */
#include "tests/bench/chain.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

enum { IO_BYTES = 64 << 10 };

struct node;

struct conn {
    struct node *node;
    uv_tcp_t tcp;
    SSL *ssl;
    BIO *in, *out;
    bool up;
    uint8_t part[sizeof(struct chain_message)]; /* a message that came in pieces */
    size_t part_bytes;
    uint8_t out_bytes[IO_BYTES]; /* of one turn */
    size_t out_count;
};

struct node {
    uv_loop_t loop;
    SSL_CTX *server, *client;
    uv_tcp_t listener;
    struct conn *near, *far;
    uv_poll_t echo;
    bool has_echo;
    struct chain_load *load;
    uint8_t read_bytes[IO_BYTES];
};

static SSL_CTX *context_new(const struct tls_identity *own, bool server)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    BIO *ca = BIO_new_mem_buf(own->ca_pem, -1);
    BIO *certificate = BIO_new_mem_buf(own->cert_pem, -1);
    BIO *key = BIO_new_mem_buf(own->key_pem, -1);
    X509 *anchor = PEM_read_bio_X509(ca, NULL, NULL, NULL);
    X509 *leaf = PEM_read_bio_X509(certificate, NULL, NULL, NULL);
    EVP_PKEY *k = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);
    chain_must(ctx != NULL && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
                   SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256") == 1 &&
                   X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), anchor) == 1 &&
                   SSL_CTX_use_certificate(ctx, leaf) == 1 && SSL_CTX_use_PrivateKey(ctx, k) == 1,
               "TLS context");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    (void)SSL_CTX_set_num_tickets(ctx, 0);
    X509_free(anchor);
    X509_free(leaf);
    EVP_PKEY_free(k);
    BIO_free(ca);
    BIO_free(certificate);
    BIO_free(key);
    return ctx;
}

struct write {
    uv_write_t request;
    char data[];
};

static void on_written(uv_write_t *request, int status)
{
    (void)status;
    free(request);
}

/* Puts what OpenSSL made on the wire. */
static void wire_flush(struct conn *c)
{
    char *data = NULL;
    size_t size = (size_t)BIO_get_mem_data(c->out, &data);
    if (size == 0) {
        return;
    }
    uv_buf_t buf = uv_buf_init(data, (unsigned)size);
    int n = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent < size) {
        struct write *w = malloc(sizeof *w + size - sent);
        chain_must(w != NULL, "memory");
        memcpy(w->data, data + sent, size - sent);
        buf = uv_buf_init(w->data, (unsigned)(size - sent));
        chain_must(uv_write(&w->request, (uv_stream_t *)&c->tcp, &buf, 1, on_written) == 0,
                   "write");
    }
    (void)BIO_reset(c->out);
}

static void conn_flush(struct conn *c)
{
    if (c != NULL && c->out_count > 0) {
        chain_must(SSL_write(c->ssl, c->out_bytes, (int)c->out_count) == (int)c->out_count,
                   "SSL_write");
        c->out_count = 0;
        wire_flush(c);
    }
}

static void conn_send(struct conn *c, const void *data, size_t size)
{
    if (c->out_count + size > sizeof c->out_bytes) {
        conn_flush(c);
    }
    memcpy(c->out_bytes + c->out_count, data, size);
    c->out_count += size;
}

static void message_take(struct conn *c, const uint8_t *data)
{
    struct node *n = c->node;
    struct chain_message m;
    if (n->load != NULL) {
        memcpy(&m, data, sizeof m);
        if (chain_load_back(n->load, &m)) {
            conn_send(c, &m, sizeof m);
        } else if (chain_load_over(n->load)) {
            uv_stop(&n->loop);
        }
    } else if (c == n->far) {
        conn_send(n->near, data, sizeof m);
    } else if (n->has_echo) {
        chain_must(send(CHAIN_ECHO_FD, data, sizeof m, 0) == (ssize_t)sizeof m, "send to echo");
    } else {
        conn_send(n->far, data, sizeof m);
    }
}

static void plain_take(struct conn *c, const uint8_t *data, size_t size)
{
    while (size > 0) {
        if (c->part_bytes == 0 && size >= sizeof c->part) {
            message_take(c, data);
            data += sizeof c->part;
            size -= sizeof c->part;
            continue;
        }
        size_t want = sizeof c->part - c->part_bytes;
        size_t take = want < size ? want : size;
        memcpy(c->part + c->part_bytes, data, take);
        c->part_bytes += take;
        data += take;
        size -= take;
        if (c->part_bytes == sizeof c->part) {
            c->part_bytes = 0;
            message_take(c, c->part);
        }
    }
}

static void conn_up(struct conn *c)
{
    struct node *n = c->node;
    c->up = true;
    for (uint32_t i = 0; n->load != NULL && i < n->load->outstanding; i++) {
        struct chain_message m;
        chain_load_start(&m, i);
        conn_send(c, &m, sizeof m);
    }
}

static void conn_pump(struct conn *c)
{
    uint8_t plain[IO_BYTES];
    if (!c->up && SSL_do_handshake(c->ssl) == 1) {
        conn_up(c);
    }
    wire_flush(c);
    int size;
    while (c->up && (size = SSL_read(c->ssl, plain, sizeof plain)) > 0) {
        plain_take(c, plain, (size_t)size);
    }
    conn_flush(c->node->near);
    conn_flush(c->node->far);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct conn *c = handle->data;
    (void)suggested;
    *buf = uv_buf_init((char *)c->node->read_bytes, sizeof c->node->read_bytes);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct conn *c = stream->data;
    if (size < 0) {
        uv_stop(&c->node->loop);
        return;
    }
    chain_must(BIO_write(c->in, buf->base, (int)size) == (int)size, "BIO_write");
    conn_pump(c);
}

static struct conn *conn_new(struct node *n)
{
    struct conn *c = calloc(1, sizeof *c);
    chain_must(c != NULL && uv_tcp_init(&n->loop, &c->tcp) == 0, "connection");
    c->node = n;
    c->tcp.data = c;
    return c;
}

static void conn_start(struct conn *c, bool server)
{
    c->ssl = SSL_new(server ? c->node->server : c->node->client);
    c->in = BIO_new(BIO_s_mem());
    c->out = BIO_new(BIO_s_mem());
    chain_must(c->ssl != NULL && c->in != NULL && c->out != NULL, "SSL");
    (void)BIO_set_mem_eof_return(c->in, -1);
    SSL_set_bio(c->ssl, c->in, c->out);
    if (server) {
        SSL_set_accept_state(c->ssl);
    } else {
        SSL_set_connect_state(c->ssl);
    }
    (void)uv_tcp_nodelay(&c->tcp, 1);
    chain_must(uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) == 0, "read");
    conn_pump(c);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct node *n = listener->data;
    chain_must(status == 0, "accept");
    n->near = conn_new(n);
    chain_must(uv_accept(listener, (uv_stream_t *)&n->near->tcp) == 0, "accept");
    conn_start(n->near, true);
}

static void on_connected(uv_connect_t *request, int status)
{
    chain_must(status == 0, "connect");
    conn_start(request->data, false);
}

static void on_echo(uv_poll_t *handle, int status, int events)
{
    struct node *n = handle->data;
    uint8_t packet[2 * CHAIN_MESSAGE_BYTES];
    ssize_t size;
    (void)events;
    chain_must(status == 0, "poll");
    while ((size = recv(CHAIN_ECHO_FD, packet, sizeof packet, MSG_DONTWAIT)) > 0) {
        conn_send(n->near, packet, (size_t)size);
    }
    conn_flush(n->near);
}

static void node_open(struct node *n, const struct tls_identity *own)
{
    chain_must(uv_loop_init(&n->loop) == 0, "loop");
    n->server = context_new(own, true);
    n->client = context_new(own, false);
}

static void node_dial(struct node *n, uint16_t port, uv_connect_t *request)
{
    struct sockaddr_in to;
    n->far = conn_new(n);
    request->data = n->far;
    chain_must(
        uv_ip4_addr("127.0.0.1", port, &to) == 0 &&
            uv_tcp_connect(request, &n->far->tcp, (const struct sockaddr *)&to, on_connected) == 0,
        "connect");
}

static uint16_t node_listen(struct node *n)
{
    struct sockaddr_in at;
    int size = sizeof at;
    n->listener.data = n;
    chain_must(uv_ip4_addr("127.0.0.1", 0, &at) == 0 && uv_tcp_init(&n->loop, &n->listener) == 0 &&
                   uv_tcp_bind(&n->listener, (const struct sockaddr *)&at, 0) == 0 &&
                   uv_listen((uv_stream_t *)&n->listener, 16, on_connection) == 0 &&
                   uv_tcp_getsockname(&n->listener, (struct sockaddr *)&at, &size) == 0,
               "listen");
    return ntohs(at.sin_port);
}

static void close_any(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void conn_free(struct conn *c)
{
    if (c != NULL) {
        SSL_free(c->ssl);
        free(c);
    }
}

static void node_run(struct node *n)
{
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    uv_walk(&n->loop, close_any, NULL);
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    chain_must(uv_loop_close(&n->loop) == 0, "close the loop");
    conn_free(n->near);
    conn_free(n->far);
    SSL_CTX_free(n->server);
    SSL_CTX_free(n->client);
}

static void relay(const struct tls_identity *own, uint16_t next_port)
{
    static struct node n;
    uv_connect_t request;
    node_open(&n, own);
    node_dial(&n, next_port, &request);
    while (!n.far->up) {
        (void)uv_run(&n.loop, UV_RUN_ONCE);
    }
    chain_ready(node_listen(&n));
    node_run(&n);
}

static void last(const struct tls_identity *own)
{
    static struct node n;
    node_open(&n, own);
    chain_must(uv_poll_init(&n.loop, &n.echo, CHAIN_ECHO_FD) == 0, "poll");
    n.echo.data = &n;
    n.has_echo = true;
    /* uv_poll_init made it non-blocking for both: here only receives are. */
    chain_must(fcntl(CHAIN_ECHO_FD, F_SETFL, 0) == 0, "fcntl");
    chain_must(uv_poll_start(&n.echo, UV_READABLE, on_echo) == 0, "poll");
    chain_ready(node_listen(&n));
    node_run(&n);
}

static void client(const struct tls_identity *own, uint16_t port, struct chain_load *load)
{
    static struct node n;
    uv_connect_t request;
    n.load = load;
    node_open(&n, own);
    node_dial(&n, port, &request);
    node_run(&n);
}

int main(int argc, char **argv)
{
    const struct chain_roles roles = {
        .prefix = "floor", .relay = relay, .last = last, .client = client};
    return chain_main(argc, argv, &roles);
}

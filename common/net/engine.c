#include "common/net/engine.h"

#include "common/check.h"
#include "common/net/tls_context.h"

#include <limits.h>
#include <nng/supplemental/tls/engine.h>
#include <nng/transport/tls/tls.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <string.h>

enum { PIECE_BYTES_MAX = 16 << 10 };

struct nng_tls_engine_config {
    pthread_mutex_t lock;
    SSL_CTX *context; /* NULL for the configurations that nng makes for itself */
    struct name cluster;
    bool server;
};

/* NEW -> ATTACHED -> SECURED -> FAILED; ATTACHED -> REFUSED or FAILED; any -> CLOSED. */
enum conn_state { CONN_NEW, CONN_ATTACHED, CONN_SECURED, CONN_REFUSED, CONN_FAILED, CONN_CLOSED };

struct nng_tls_engine_conn {
    void *transport; /* nng's side of this connection */
    SSL *ssl;
    enum conn_state state;
    bool refusal_told;
    struct tls_check check;
    struct engine_events events;
};

static const uint16_t legal_moves[] = {
    [CONN_NEW] = 1 << CONN_ATTACHED | 1 << CONN_CLOSED,
    [CONN_ATTACHED] = 1 << CONN_SECURED | 1 << CONN_REFUSED | 1 << CONN_FAILED | 1 << CONN_CLOSED,
    [CONN_SECURED] = 1 << CONN_FAILED | 1 << CONN_CLOSED,
    [CONN_REFUSED] = 1 << CONN_CLOSED,
    [CONN_FAILED] = 1 << CONN_CLOSED,
    [CONN_CLOSED] = 1 << CONN_CLOSED,
};

static void conn_move(struct nng_tls_engine_conn *c, enum conn_state to)
{
    CHECK((legal_moves[c->state] & 1 << to) != 0);
    c->state = to;
}

/* --- the BIO onto nng's buffers --- */

static int transport_write(BIO *bio, const char *data, int size)
{
    struct nng_tls_engine_conn *c = BIO_get_data(bio);
    size_t count = (size_t)size;
    BIO_clear_retry_flags(bio);
    int rv = nng_tls_engine_send(c->transport, (const uint8_t *)data, &count);
    if (rv == 0) {
        return (int)count;
    }
    if (rv == NNG_EAGAIN) {
        BIO_set_retry_write(bio);
    }
    return -1;
}

static int transport_read(BIO *bio, char *data, int size)
{
    struct nng_tls_engine_conn *c = BIO_get_data(bio);
    size_t count = (size_t)size;
    BIO_clear_retry_flags(bio);
    int rv = nng_tls_engine_recv(c->transport, (uint8_t *)data, &count);
    if (rv == 0) {
        return (int)count;
    }
    if (rv == NNG_EAGAIN) {
        BIO_set_retry_read(bio);
    }
    return -1;
}

static long transport_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static int transport_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

/* Made once, with the engine: nng has no hook to pass it through. */
static BIO_METHOD *transport_method;

static bool transport_method_open(void)
{
    transport_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "nng");
    return transport_method != NULL && BIO_meth_set_write(transport_method, transport_write) == 1 &&
           BIO_meth_set_read(transport_method, transport_read) == 1 &&
           BIO_meth_set_ctrl(transport_method, transport_control) == 1 &&
           BIO_meth_set_create(transport_method, transport_create) == 1;
}

/* --- connections --- */

/* Called on the thread that accepts or dials, without any lock of nng's. */
static int conn_init(nng_tls_engine_conn *c, void *transport, nng_tls_engine_config *config)
{
    c->transport = transport;
    CHECK(pthread_mutex_lock(&config->lock) == 0);
    ERR_clear_error();
    c->ssl = config->context == NULL ? NULL : SSL_new(config->context);
    c->check.cluster = config->cluster;
    CHECK(pthread_mutex_unlock(&config->lock) == 0);
    BIO *bio = c->ssl == NULL ? NULL : BIO_new(transport_method);
    if (bio == NULL) {
        ERR_clear_error();
        return NNG_ENOMEM;
    }
    BIO_set_data(bio, c);
    SSL_set_bio(c->ssl, bio, bio);
    tls_check_bind(&c->check, c->ssl);
    if (config->server) {
        SSL_set_accept_state(c->ssl);
    } else {
        SSL_set_connect_state(c->ssl);
    }
    return 0;
}

/* nng calls this for connections that were never initialised as well: all zeros. */
static void conn_fini(nng_tls_engine_conn *c)
{
    SSL_free(c->ssl);
    c->ssl = NULL;
}

static void conn_close(nng_tls_engine_conn *c)
{
    if (c->state == CONN_SECURED) {
        ERR_clear_error();
        (void)SSL_shutdown(c->ssl);
        ERR_clear_error();
    }
    conn_move(c, CONN_CLOSED);
}

static void conn_tell_refusal(struct nng_tls_engine_conn *c)
{
    if (!c->refusal_told) {
        c->refusal_told = true;
        c->events.on_refused(c->events.data, c->check.refusal, c->check.reason);
    }
}

/* Throws away what a refused peer still sends, so that it lives to read the alert. */
static void conn_drain(struct nng_tls_engine_conn *c)
{
    uint8_t waste[PIECE_BYTES_MAX];
    size_t count;
    do {
        count = sizeof waste;
    } while (nng_tls_engine_recv(c->transport, waste, &count) == 0);
}

static bool wants_more(const struct nng_tls_engine_conn *c, int rv)
{
    int error = SSL_get_error(c->ssl, rv);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static int conn_handshake(nng_tls_engine_conn *c)
{
    switch (c->state) {
    case CONN_SECURED:
        return 0;
    case CONN_REFUSED:
        conn_drain(c);
        return NNG_EAGAIN;
    case CONN_NEW:
        return NNG_EAGAIN;
    case CONN_FAILED:
    case CONN_CLOSED:
        return NNG_ECONNSHUT;
    case CONN_ATTACHED:
        break;
    }
    ERR_clear_error();
    int rv = SSL_do_handshake(c->ssl);
    if (rv == 1) {
        conn_move(c, CONN_SECURED);
        c->events.on_secured(c->events.data, &c->check.peer);
        return 0;
    }
    if (wants_more(c, rv)) {
        return NNG_EAGAIN;
    }
    tls_check_explain(&c->check);
    conn_move(c, CONN_REFUSED);
    conn_tell_refusal(c);
    conn_drain(c);
    return NNG_EAGAIN;
}

/* After a failed read or write: NNG_EAGAIN, or the connection is over. */
static int conn_io_failed(struct nng_tls_engine_conn *c, int rv)
{
    if (wants_more(c, rv)) {
        return NNG_EAGAIN;
    }
    bool orderly = SSL_get_error(c->ssl, rv) == SSL_ERROR_ZERO_RETURN;
    conn_move(c, CONN_FAILED);
    if (orderly) {
        return NNG_ECONNSHUT;
    }
    tls_check_explain(&c->check);
    conn_tell_refusal(c);
    return NNG_ECRYPTO;
}

static int conn_send(nng_tls_engine_conn *c, const uint8_t *data, size_t *size)
{
    int rv = conn_handshake(c);
    if (rv != 0) {
        return rv;
    }
    ERR_clear_error();
    int n = SSL_write(c->ssl, data, *size > INT_MAX ? INT_MAX : (int)*size);
    if (n <= 0) {
        return conn_io_failed(c, n);
    }
    *size = (size_t)n;
    return 0;
}

static bool conn_deliver(struct nng_tls_engine_conn *c, const uint8_t *data, size_t size)
{
    return size == 0 || c->events.on_bytes(c->events.data, bytes_of(data, size));
}

/* Serves no receive: hands all there is to on_bytes and leaves nng's operation waiting. */
static int conn_recv(nng_tls_engine_conn *c, uint8_t *data, size_t *size)
{
    (void)data;
    (void)size;
    int rv = conn_handshake(c);
    if (rv != 0) {
        return rv;
    }
    uint8_t piece[PIECE_BYTES_MAX];
    size_t used = 0;
    bool wanted = true;
    int n;
    for (;;) {
        ERR_clear_error();
        n = SSL_read(c->ssl, piece + used, (int)(sizeof piece - used));
        if (n <= 0) {
            break;
        }
        used += (size_t)n;
        if (used == sizeof piece) {
            wanted = conn_deliver(c, piece, used);
            used = 0;
        }
        if (!wanted) {
            break;
        }
    }
    /* What came before an error is delivered before it is told. */
    int error = wants_more(c, n) ? NNG_EAGAIN : 0;
    if (!wanted || !conn_deliver(c, piece, used)) {
        conn_move(c, CONN_FAILED);
        return NNG_ECONNABORTED;
    }
    return error != 0 ? error : conn_io_failed(c, n);
}

/* The attachment that the current thread asks for while it reads NNG_OPT_TLS_VERIFIED: nng 1.5 has
 * no other way from a stream to the engine's connection. */
struct attachment {
    const struct engine_policy *policy;
    const struct engine_events *events;
    bool done;
};
static _Thread_local struct attachment *attaching;

static bool conn_verified(nng_tls_engine_conn *c)
{
    if (attaching != NULL && c->state == CONN_NEW) {
        c->check.expect = attaching->policy->expect;
        c->check.allow = attaching->policy->allow;
        c->check.data = attaching->policy->data;
        c->events = *attaching->events;
        conn_move(c, CONN_ATTACHED);
        attaching->done = true;
    }
    return c->state == CONN_SECURED;
}

struct status engine_attach(nng_stream *stream, const struct engine_policy *policy,
                            const struct engine_events *events)
{
    struct attachment request = {.policy = policy, .events = events};
    bool verified = false;
    attaching = &request;
    (void)nng_stream_get_bool(stream, NNG_OPT_TLS_VERIFIED, &verified);
    attaching = NULL;
    return request.done ? status_ok() : status_of(STATUS_UNSUPPORTED);
}

/* --- configurations --- */

/* Where config_auth puts the object it was called for: the way from nng's object to ours. */
static _Thread_local struct nng_tls_engine_config **config_wanted;

static int config_init(nng_tls_engine_config *c, nng_tls_mode mode)
{
    c->server = mode == NNG_TLS_MODE_SERVER;
    return pthread_mutex_init(&c->lock, NULL) == 0 ? 0 : NNG_ENOMEM;
}

static void config_fini(nng_tls_engine_config *c)
{
    SSL_CTX_free(c->context);
    CHECK(pthread_mutex_destroy(&c->lock) == 0);
}

/* Peers are known by their URI, never by a host name. */
static int config_server(nng_tls_engine_config *c, const char *name)
{
    (void)c;
    (void)name;
    return 0;
}

/* Whatever is asked for: a certificate is required. */
static int config_auth(nng_tls_engine_config *c, nng_tls_auth_mode mode)
{
    (void)mode;
    if (config_wanted != NULL) {
        *config_wanted = c;
    }
    return 0;
}

static int config_ca_chain(nng_tls_engine_config *c, const char *certificates, const char *crl)
{
    (void)c;
    (void)certificates;
    (void)crl;
    return NNG_ENOTSUP;
}

static int config_own_cert(nng_tls_engine_config *c, const char *certificate, const char *key,
                           const char *password)
{
    (void)c;
    (void)certificate;
    (void)key;
    (void)password;
    return NNG_ENOTSUP;
}

static int config_version(nng_tls_engine_config *c, nng_tls_version min, nng_tls_version max)
{
    (void)c;
    return min <= NNG_TLS_1_3 && max >= NNG_TLS_1_3 ? 0 : NNG_ENOTSUP;
}

static void context_swap(struct nng_tls_engine_config *c, SSL_CTX *fresh,
                         const struct identity *own)
{
    CHECK(pthread_mutex_lock(&c->lock) == 0);
    SSL_CTX *old = c->context;
    c->context = fresh;
    c->cluster = own->cluster;
    CHECK(pthread_mutex_unlock(&c->lock) == 0);
    SSL_CTX_free(old);
}

struct status engine_config_renew(struct engine_config *const *configs, size_t count,
                                  const struct tls_identity *texts, struct identity *own,
                                  struct errmsg *msg)
{
    CHECK(count > 0 && count <= ENGINE_CONFIGS_MAX);
    SSL_CTX *fresh[ENGINE_CONFIGS_MAX] = {NULL};
    struct identity id = {0};
    struct status s = status_ok();
    for (size_t i = 0; i < count && status_is_ok(s); i++) {
        s = tls_context_new(texts, configs[i]->ours->server, &fresh[i], &id, msg);
    }
    if (!status_is_ok(s)) {
        for (size_t i = 0; i < count; i++) {
            SSL_CTX_free(fresh[i]);
        }
        return s;
    }
    for (size_t i = 0; i < count; i++) {
        context_swap(configs[i]->ours, fresh[i], &id);
    }
    if (own != NULL) {
        *own = id;
    }
    return status_ok();
}

struct status engine_config_open(struct engine_config *out, bool server,
                                 const struct tls_identity *texts, struct identity *own,
                                 struct errmsg *msg)
{
    struct engine_config c = {0};
    int rv = nng_tls_config_alloc(&c.nng, server ? NNG_TLS_MODE_SERVER : NNG_TLS_MODE_CLIENT);
    if (rv != 0) {
        return status_fail(msg, STATUS_NOMEM, "nng: %s", nng_strerror(rv));
    }
    config_wanted = &c.ours;
    rv = nng_tls_config_auth_mode(c.nng, NNG_TLS_AUTH_MODE_REQUIRED);
    config_wanted = NULL;
    struct status s = status_ok();
    if (rv != 0 || c.ours == NULL) {
        s = status_fail(msg, STATUS_UNSUPPORTED, "nng does not use our TLS engine");
    } else {
        struct engine_config *const one = &c;
        s = engine_config_renew(&one, 1, texts, own, msg);
    }
    if (!status_is_ok(s)) {
        engine_config_close(&c);
        return s;
    }
    *out = c;
    return status_ok();
}

void engine_config_close(struct engine_config *c)
{
    if (c->nng != NULL) {
        nng_tls_config_free(c->nng);
    }
    *c = (struct engine_config){0};
}

/* --- registration --- */

static nng_tls_engine_conn_ops conn_ops = {
    .size = sizeof(struct nng_tls_engine_conn),
    .init = conn_init,
    .fini = conn_fini,
    .close = conn_close,
    .handshake = conn_handshake,
    .recv = conn_recv,
    .send = conn_send,
    .verified = conn_verified,
};

static nng_tls_engine_config_ops config_ops = {
    .size = sizeof(struct nng_tls_engine_config),
    .init = config_init,
    .fini = config_fini,
    .server = config_server,
    .auth = config_auth,
    .ca_chain = config_ca_chain,
    .own_cert = config_own_cert,
    .version = config_version,
};

static const nng_tls_engine engine = {
    .version = NNG_TLS_ENGINE_VERSION,
    .config_ops = &config_ops,
    .conn_ops = &conn_ops,
    .name = "skep-openssl",
    .description = "OpenSSL, TLS 1.3 only",
};

static pthread_once_t registration = PTHREAD_ONCE_INIT;
static bool registered;

/* nng's own initialisation sets mbedTLS: ours comes after it. */
static void engine_register(void)
{
    registered =
        transport_method_open() && nng_tls_register() == 0 && nng_tls_engine_register(&engine) == 0;
}

struct status engine_open(struct errmsg *msg)
{
    CHECK(pthread_once(&registration, engine_register) == 0);
    if (!registered || strcmp(nng_tls_engine_name(), engine.name) != 0) {
        return status_fail(msg, STATUS_UNSUPPORTED, "nng does not take our TLS engine");
    }
    return status_ok();
}

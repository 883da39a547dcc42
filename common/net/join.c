#include "common/net/join.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"
#include "common/net/link.h"
#include "common/net/tls.h"
#include "proto/codec.h"
#include "proto/version.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum { JOIN_RETRY_MS = 200, JOIN_PEERS_MAX = 32 };

struct join_peer {
    struct link *link; /* NULL: free */
    bool hello;
    bool tried; /* in this round */
};

struct joining {
    const struct join_request *request;
    uv_loop_t loop;
    uv_timer_t timeout;
    uv_timer_t retry;
    struct link_hub *hub;
    struct join_peer peers[JOIN_PEERS_MAX];
    struct join_peer *asked; /* whose answer we wait for */
    char dialled[JOIN_PEERS_MAX][PKI_ADDRESS_BYTES_MAX + 1];
    size_t dialled_count;
    char *csr_pem;
    char *key_pem;
    char last[256]; /* why it did not work so far */
    bool reached;
    bool done;
    struct status status;
    struct errmsg *msg;
    struct join_result *out;
    struct arena arena;
};

static void join_next(struct joining *j);

static void finish(struct joining *j, struct status s)
{
    if (j->done) {
        return;
    }
    j->done = true;
    j->status = s;
    uv_stop(&j->loop);
}

static bool send_message(struct link *l, const struct message *m)
{
    struct buffer text = {0};
    struct status s = message_encode(m, &text);
    const struct bytes part = bytes_of(text.data, text.size);
    if (status_is_ok(s)) {
        s = link_send(l, &part, 1);
    }
    buffer_close(&text);
    return status_is_ok(s);
}

/* ---- The answer ---- */

static char *text_or_null(const char *text)
{
    return text[0] == '\0' ? NULL : mem_must(mem_strdup(text));
}

static struct status reply_check(struct joining *j, const struct join_reply *r,
                                 struct identity *who)
{
    if (r->cert[0] == '\0' || r->ca[0] == '\0') {
        return status_fail(j->msg, STATUS_INVALID, "join: the answer holds no certificate");
    }
    struct status s = pki_check(r->ca, r->cert, j->key_pem, (int64_t)time(NULL), j->msg);
    if (status_is_ok(s)) {
        s = pki_identity_of(r->cert, who, NULL, j->msg);
    }
    if (status_is_ok(s) &&
        (who->role != j->request->role || strcmp(who->name.text, j->request->name) != 0)) {
        s = status_fail(j->msg, STATUS_INVALID, "join: the certificate is of somebody else");
    }
    return s;
}

static void reply_use(struct joining *j, const struct join_reply *r)
{
    struct identity who;
    struct status s = reply_check(j, r, &who);
    if (!status_is_ok(s)) {
        finish(j, s);
        return;
    }
    struct join_result *out = j->out;
    *out = (struct join_result){
        .identity = who,
        .cert_pem = text_or_null(r->cert),
        .key_pem = j->key_pem,
        .ca_pem = text_or_null(r->ca),
        .ca_key_pem = text_or_null(r->ca_key),
    };
    j->key_pem = NULL;
    (void)mem_must(status_is_ok(buffer_append(&out->keys, r->keys.data, r->keys.size)) ? out
                                                                                       : NULL);
    for (size_t i = 0; i < r->schedulers_count && out->schedulers_count < JOIN_SCHEDULERS_MAX;
         i++) {
        out->scheduler_names[out->schedulers_count] = mem_must(mem_strdup(r->schedulers[i].key));
        out->schedulers[out->schedulers_count++] = mem_must(mem_strdup(r->schedulers[i].value));
    }
    finish(j, status_ok());
}

static void dial(struct joining *j, const char *address)
{
    for (size_t i = 0; i < j->dialled_count; i++) {
        if (strcmp(j->dialled[i], address) == 0) {
            return;
        }
    }
    if (j->dialled_count >= JOIN_PEERS_MAX || strlen(address) > PKI_ADDRESS_BYTES_MAX) {
        return;
    }
    const struct identity expect = {.role = ROLE_SCHEDULER};
    struct errmsg why = {{0}};
    if (!status_is_ok(link_hub_dial(j->hub, address, &expect, j->dialled_count, &why))) {
        (void)snprintf(j->last, sizeof j->last, "%.200s", why.text);
        return;
    }
    (void)snprintf(j->dialled[j->dialled_count++], sizeof j->dialled[0], "%s", address);
}

static void on_retry(uv_timer_t *timer)
{
    struct joining *j = timer->data;
    for (size_t i = 0; i < JOIN_PEERS_MAX; i++) {
        j->peers[i].tried = false;
    }
    join_next(j);
}

/* Asks the next scheduler that was not asked in this round; after the round, a pause. */
static void join_next(struct joining *j)
{
    if (j->asked != NULL || j->done) {
        return;
    }
    const struct message m = {
        .type = MESSAGE_JOIN,
        .request = 1,
        .join = {.role = role_name(j->request->role),
                 .name = j->request->name,
                 .csr = j->csr_pem,
                 .address = j->request->address},
    };
    for (size_t i = 0; i < JOIN_PEERS_MAX; i++) {
        struct join_peer *p = &j->peers[i];
        if (p->link != NULL && p->hello && !p->tried) {
            p->tried = true;
            if (send_message(p->link, &m)) {
                j->asked = p;
                return;
            }
        }
    }
    (void)uv_timer_start(&j->retry, on_retry, JOIN_RETRY_MS, 0);
}

static void answer_take(struct joining *j, enum status_code code, const char *text,
                        const char *leader)
{
    j->asked = NULL;
    if (code == STATUS_NOT_LEADER || code == STATUS_UNAVAILABLE) {
        (void)snprintf(j->last, sizeof j->last, "%.200s", text);
        if (leader[0] != '\0') {
            dial(j, leader);
        }
        join_next(j);
        return;
    }
    finish(j, status_fail(j->msg, code == STATUS_OK ? STATUS_INVALID : code, "join: %s",
                          text[0] != '\0' ? text : status_text(code)));
}

/* ---- The link ---- */

/* The token is not used up by a refusal. */
static void hello_take(struct joining *j, struct join_peer *p, const struct hello *hello)
{
    char peer[sizeof "scheduler " + NAME_BYTES_MAX];
    (void)snprintf(peer, sizeof peer, "scheduler %s", link_peer(p->link)->name.text);
    struct status s = version_check("this program", peer, hello, j->msg);
    if (!status_is_ok(s)) {
        finish(j, status_prefix(j->msg, s, "join"));
        return;
    }
    p->hello = true;
    join_next(j);
}

static void on_open(void *data, struct link *l)
{
    struct joining *j = data;
    for (size_t i = 0; i < JOIN_PEERS_MAX; i++) {
        if (j->peers[i].link == NULL) {
            j->peers[i] = (struct join_peer){.link = l};
            j->reached = true;
            link_set_data(l, &j->peers[i]);
            const struct message m = {
                .type = MESSAGE_HELLO,
                .hello = {.version_min = version_own.min,
                          .version_max = version_own.max,
                          .build = SKEP_VERSION},
            };
            (void)send_message(l, &m);
            return;
        }
    }
    link_close(l, false, "too many connections");
}

static void on_message(void *data, struct link *l, struct bytes payload)
{
    struct joining *j = data;
    struct join_peer *p = link_data(l);
    struct message m;
    struct errmsg why = {{0}};
    if (p == NULL || j->done) {
        return;
    }
    if (!status_is_ok(message_decode(payload, &j->arena, &m, &why))) {
        (void)snprintf(j->last, sizeof j->last, "%.200s", why.text);
        link_close(l, false, "malformed message");
    } else if (m.type == MESSAGE_HELLO) {
        hello_take(j, p, &m.hello);
    } else if (p == j->asked && m.type == MESSAGE_JOIN_REPLY && m.join_reply.code == STATUS_OK) {
        reply_use(j, &m.join_reply);
    } else if (p == j->asked && m.type == MESSAGE_JOIN_REPLY) {
        answer_take(j, status_from_wire(m.join_reply.code), m.join_reply.message,
                    m.join_reply.leader);
    } else if (p == j->asked && m.type == MESSAGE_REPLY) {
        answer_take(j, status_from_wire(m.reply.code), m.reply.message, m.reply.leader);
    }
    arena_reset(&j->arena);
}

static void on_close(void *data, struct link *l, struct status why, const char *reason)
{
    struct joining *j = data;
    struct join_peer *p = link_data(l);
    (void)why;
    if (p == NULL) {
        return;
    }
    bool asked = p == j->asked;
    *p = (struct join_peer){0};
    if (asked && !j->done) {
        finish(j,
               status_fail(j->msg, STATUS_UNKNOWN,
                           "join: the connection was lost (%s); the token may be used up", reason));
    }
}

static void on_dial_failed(void *data, const char *address, struct status why, const char *reason)
{
    struct joining *j = data;
    (void)why;
    (void)snprintf(j->last, sizeof j->last, "%.80s: %.150s", address, reason);
}

static void on_timeout(uv_timer_t *timer)
{
    struct joining *j = timer->data;
    finish(j, status_fail(j->msg, j->reached ? STATUS_TIMEOUT : STATUS_UNAVAILABLE, "join: %s: %s",
                          j->reached ? "no scheduler led in time" : "no scheduler could be reached",
                          j->last));
}

static struct status connect_all(struct joining *j, struct errmsg *msg)
{
    const struct pki_token *t = j->request->token;
    const struct tls_identity own = {
        .ca_pem = t->ca_pem, .cert_pem = t->cert_pem, .key_pem = t->key_pem};
    const struct link_events events = {
        .data = j,
        .on_open = on_open,
        .on_message = on_message,
        .on_close = on_close,
        .on_dial_failed = on_dial_failed,
    };
    const struct link_limits limits = {.redial_ms_max = 500};
    TRY(link_hub_open(&j->hub, &j->loop, &own, &limits, &events, msg));
    for (size_t i = 0; i < t->addresses_count; i++) {
        dial(j, t->addresses[i]);
    }
    return status_ok();
}

static void on_hub_closed(void *data)
{
    struct joining *j = data;
    j->hub = NULL;
}

static struct status join_on_loop(struct joining *j, struct errmsg *msg)
{
    uint32_t timeout_ms =
        j->request->timeout_ms != 0 ? j->request->timeout_ms : JOIN_TIMEOUT_MS_DEFAULT;
    CHECK(uv_timer_init(&j->loop, &j->timeout) == 0);
    CHECK(uv_timer_init(&j->loop, &j->retry) == 0);
    j->timeout.data = j;
    j->retry.data = j;
    (void)uv_timer_start(&j->timeout, on_timeout, timeout_ms, 0);
    struct status s = connect_all(j, msg);
    if (status_is_ok(s)) {
        (void)uv_run(&j->loop, UV_RUN_DEFAULT);
        CHECK(j->done);
        s = j->status;
    }
    j->done = true;
    uv_close((uv_handle_t *)&j->timeout, NULL);
    uv_close((uv_handle_t *)&j->retry, NULL);
    if (j->hub != NULL) {
        link_hub_close(j->hub, on_hub_closed, j);
    }
    (void)uv_run(&j->loop, UV_RUN_DEFAULT);
    return s;
}

struct status join_run(const struct join_request *request, struct join_result *out,
                       struct errmsg *msg)
{
    struct joining *j = mem_must(mem_zalloc(1, sizeof *j));
    struct errmsg local = {{0}};
    *j = (struct joining){.request = request, .out = out, .msg = msg != NULL ? msg : &local};
    int rc = uv_loop_init(&j->loop);
    CHECK(rc == 0);
    struct status s = pki_check(request->token->ca_pem, request->token->cert_pem,
                                request->token->key_pem, (int64_t)time(NULL), j->msg);
    if (!status_is_ok(s)) {
        s = status_prefix(j->msg, s, "join token");
    } else {
        s = pki_request_create(&j->csr_pem, &j->key_pem, j->msg);
    }
    if (status_is_ok(s)) {
        s = join_on_loop(j, j->msg);
    }
    rc = uv_loop_close(&j->loop);
    CHECK(rc == 0);
    mem_free(j->csr_pem);
    pki_key_free(j->key_pem);
    arena_close(&j->arena);
    mem_free(j);
    return s;
}

void join_result_close(struct join_result *r)
{
    mem_free(r->cert_pem);
    mem_free(r->ca_pem);
    pki_key_free(r->key_pem);
    pki_key_free(r->ca_key_pem);
    for (size_t i = 0; i < r->schedulers_count; i++) {
        mem_free(r->schedulers[i]);
        mem_free(r->scheduler_names[i]);
    }
    buffer_close(&r->keys);
    *r = (struct join_result){0};
}

struct status join_result_write(const struct join_result *r, const char *folder, struct errmsg *msg)
{
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "make %s: %s", folder, strerror(errno));
    }
    const struct {
        const char *name;
        const char *pem;
        bool secret;
    } files[] = {
        {"key.pem", r->key_pem, true},
        {"ca.pem", r->ca_pem, false},
        {"cert.pem", r->cert_pem, false},
        {"ca.key", r->ca_key_pem, true},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (files[i].pem == NULL) {
            continue;
        }
        char path[4096];
        int n = snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        if (n < 0 || (size_t)n >= sizeof path) {
            return status_fail(msg, STATUS_LIMIT, "%s: path is too long", folder);
        }
        TRY(pki_write(path, files[i].secret, files[i].pem, msg));
    }
    return status_ok();
}

struct status join_token_read(const char *path, struct pki_token *out, struct errmsg *msg)
{
    AUTO_CLOSE int fd =
        strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    char text[PKI_TOKEN_BYTES_MAX + 1];
    size_t size = 0;
    for (;;) {
        ssize_t n = read(fd, text + size, sizeof text - size);
        if (n < 0) {
            return status_fail(msg, status_from_errno(errno), "read %s: %s", path, strerror(errno));
        }
        if (n == 0) {
            break;
        }
        size += (size_t)n;
        if (size == sizeof text) {
            return status_fail(msg, STATUS_LIMIT, "%s: not a token: too long", path);
        }
    }
    struct status s = pki_token_parse(text, size, out, msg);
    mem_wipe(text, sizeof text);
    return s;
}

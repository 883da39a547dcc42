/* The chain over the link: what a call costs before any logic. Compare with link_floor. */
#include "common/log.h"
#include "common/net/link.h"
#include "tests/bench/chain.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

struct node {
    uv_loop_t loop;
    struct link_hub *hub;
    struct link *near; /* accepted */
    struct link *far;  /* dialled */
    uv_poll_t echo;
    bool has_echo;
    struct chain_load *load; /* of the client */
};

static void forward(struct link *to, struct bytes payload)
{
    chain_must(to != NULL && status_is_ok(link_send(to, &payload, 1)), "send");
}

static void client_begin(struct node *n)
{
    for (uint32_t i = 0; i < n->load->outstanding; i++) {
        struct chain_message m;
        chain_load_start(&m, i);
        forward(n->far, bytes_of(&m, sizeof m));
    }
}

static void on_open(void *data, struct link *l)
{
    struct node *n = data;
    if (!link_dialled(l)) {
        n->near = l;
        return;
    }
    n->far = l;
    if (n->load != NULL) {
        client_begin(n);
    }
}

static void client_message(struct node *n, struct link *l, struct bytes payload)
{
    struct chain_message m;
    chain_must(payload.size == sizeof m, "message");
    memcpy(&m, payload.data, sizeof m);
    if (chain_load_back(n->load, &m)) {
        forward(l, bytes_of(&m, sizeof m));
    } else if (chain_load_over(n->load)) {
        uv_stop(&n->loop);
    }
}

static void on_message(void *data, struct link *l, struct bytes payload)
{
    struct node *n = data;
    if (n->load != NULL) {
        client_message(n, l, payload);
    } else if (l == n->far) {
        forward(n->near, payload);
    } else if (n->has_echo) {
        chain_must(send(CHAIN_ECHO_FD, payload.data, payload.size, 0) == (ssize_t)payload.size,
                   "send to echo");
    } else {
        forward(n->far, payload);
    }
}

static void on_close(void *data, struct link *l, struct status why, const char *reason)
{
    struct node *n = data;
    (void)l;
    (void)why;
    (void)reason;
    uv_stop(&n->loop);
}

static void on_echo(uv_poll_t *handle, int status, int events)
{
    struct node *n = handle->data;
    uint8_t packet[2 * CHAIN_MESSAGE_BYTES];
    ssize_t size;
    (void)events;
    chain_must(status == 0, "poll");
    while ((size = recv(CHAIN_ECHO_FD, packet, sizeof packet, MSG_DONTWAIT)) > 0) {
        forward(n->near, bytes_of(packet, (size_t)size));
    }
}

static void node_open(struct node *n, const struct tls_identity *own)
{
    log_open("bench", LOG_LEVEL_ERROR, LOG_FORMAT_KV, 2);
    const struct link_events events = {
        .data = n, .on_open = on_open, .on_message = on_message, .on_close = on_close};
    struct errmsg msg = {{0}};
    chain_must(uv_loop_init(&n->loop) == 0, "loop");
    chain_must(status_is_ok(link_hub_open(&n->hub, &n->loop, own, NULL, &events, &msg)), msg.text);
}

static void node_dial(struct node *n, uint16_t port)
{
    char address[64];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", port);
    chain_must(status_is_ok(link_hub_dial(n->hub, address, NULL, 0, NULL)), "dial");
}

static uint16_t node_listen(struct node *n)
{
    uint16_t port = 0;
    chain_must(status_is_ok(link_hub_listen(n->hub, "127.0.0.1:0", &port, NULL)), "listen");
    return port;
}

static void on_hub_closed(void *data)
{
    (void)data;
}

static void node_run(struct node *n)
{
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    if (n->has_echo) {
        uv_close((uv_handle_t *)&n->echo, NULL);
    }
    link_hub_close(n->hub, on_hub_closed, NULL);
    /* on_close stops the loop: it runs again until nothing is left. */
    while (uv_run(&n->loop, UV_RUN_DEFAULT) != 0) {
    }
    chain_must(uv_loop_close(&n->loop) == 0, "close the loop");
}

static void relay(const struct tls_identity *own, uint16_t next_port)
{
    static struct node n;
    node_open(&n, own);
    node_dial(&n, next_port);
    while (n.far == NULL) {
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
    n.load = load;
    node_open(&n, own);
    node_dial(&n, port);
    node_run(&n);
}

int main(int argc, char **argv)
{
    const struct chain_roles roles = {
        .prefix = "link", .relay = relay, .last = last, .client = client};
    return chain_main(argc, argv, &roles);
}

/* RabbitMQ for queue_peers: durable queues, persistent messages, publisher confirms, and
 * acknowledgements by the workers. One connection publishes, one consumes. */
#include "tests/bench/queue_peers.h"

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNEL = 1, PERSISTENT = 2, FRAME_BYTES_MAX = 131072 };

struct rabbit {
    amqp_connection_state_t out, in;
};

static void must(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        errno = EPROTO;
        peer_die(what);
    }
}

static amqp_connection_state_t connect_to(int port)
{
    amqp_connection_state_t c = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(c);
    if (socket == NULL || amqp_socket_open(socket, "127.0.0.1", port) != 0) {
        peer_die("connect");
    }
    must(amqp_login(c, "/", 0, FRAME_BYTES_MAX, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"),
         "login");
    (void)amqp_channel_open(c, CHANNEL);
    must(amqp_get_rpc_reply(c), "channel");
    return c;
}

static void reply_queue(int number, char out[32])
{
    (void)snprintf(out, 32, "r%06d", number);
}

static void *rabbit_open(int port, int number, bool worker)
{
    struct rabbit *r = calloc(1, sizeof *r);
    if (r == NULL) {
        peer_die("calloc");
    }
    char name[32] = "jobs";
    r->out = connect_to(port);
    r->in = connect_to(port);
    (void)amqp_confirm_select(r->out, CHANNEL);
    must(amqp_get_rpc_reply(r->out), "confirm.select");
    (void)amqp_queue_declare(r->in, CHANNEL, amqp_cstring_bytes("jobs"), 0, 1, 0, 0,
                             amqp_empty_table);
    must(amqp_get_rpc_reply(r->in), "queue.declare");
    if (!worker) {
        reply_queue(number, name);
        (void)amqp_queue_declare(r->in, CHANNEL, amqp_cstring_bytes(name), 0, 1, 0, 0,
                                 amqp_empty_table);
        must(amqp_get_rpc_reply(r->in), "queue.declare");
    }
    (void)amqp_basic_qos(r->in, CHANNEL, 0, 1, 0);
    (void)amqp_basic_consume(r->in, CHANNEL, amqp_cstring_bytes(name), amqp_empty_bytes, 0, 0, 0,
                             amqp_empty_table);
    must(amqp_get_rpc_reply(r->in), "consume");
    return r;
}

static void publish(struct rabbit *r, const char *name, const char *job, size_t size)
{
    const amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
                                                .delivery_mode = PERSISTENT};
    const amqp_bytes_t body = {.len = size, .bytes = (void *)(uintptr_t)job};
    if (amqp_basic_publish(r->out, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(name), 0, 0,
                           &properties, body) != 0) {
        peer_die("publish");
    }
    amqp_frame_t frame;
    do {
        amqp_maybe_release_buffers(r->out);
        if (amqp_simple_wait_frame(r->out, &frame) != 0) {
            peer_die("confirm");
        }
    } while (frame.frame_type != AMQP_FRAME_METHOD ||
             frame.payload.method.id != AMQP_BASIC_ACK_METHOD);
}

/* Returns the delivery's tag. */
static uint64_t consume(struct rabbit *r, char *out, size_t size)
{
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(r->in);
    must(amqp_consume_message(r->in, &envelope, NULL, 0), "consume");
    if (envelope.message.body.len != size) {
        peer_die("a message of another size");
    }
    memcpy(out, envelope.message.body.bytes, size);
    uint64_t tag = envelope.delivery_tag;
    amqp_destroy_envelope(&envelope);
    return tag;
}

static void rabbit_submit(void *link, int number, const char *job, size_t size)
{
    (void)number;
    publish(link, "jobs", job, size);
}

static void rabbit_result(void *link, int number, char *out, size_t size)
{
    (void)number;
    struct rabbit *r = link;
    (void)amqp_basic_ack(r->in, CHANNEL, consume(r, out, size), 0);
}

static void rabbit_work(void *link, int worker, size_t size)
{
    (void)worker;
    struct rabbit *r = link;
    char job[JOB_BYTES_MAX], name[32];
    uint64_t tag = consume(r, job, size);
    (void)snprintf(name, sizeof name, "r%.6s", job);
    publish(r, name, job, size);
    (void)amqp_basic_ack(r->in, CHANNEL, tag, 0);
}

const struct queue *queue_rabbitmq(void)
{
    static const struct queue rabbit = {rabbit_open, rabbit_submit, rabbit_result, rabbit_work};
    return &rabbit;
}

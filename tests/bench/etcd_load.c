/* Puts for etcd over its own protocol, gRPC, on plain TCP: what an etcd client library would send.
 *
 *     etcd_load OUTSTANDING SECONDS BYTES PORT...
 *
 * Keeps OUTSTANDING puts of BYTES outstanding, at most STREAMS_MAX on one connection; connections
 * are spread over the ports of 127.0.0.1. Prints etcd_* lines. A put counts when its answer has a
 * message: errors have none. HTTP/2 is what the load needs of it: headers without compression, and
 * windows that answers of this size never fill. */
#include "common/clock.h"
#include "common/histogram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    STREAMS_MAX = 64, /* 64 puts of 1 KiB are well inside the first window of 64 KiB */
    CONNECTIONS_MAX = 64,
    BYTES_MAX = 700,
    FRAME_HEADER = 9,
    IN_BYTES = 64 << 10,
    WARM_UP_US = 300 * 1000,
};
enum {
    FRAME_DATA = 0,
    FRAME_HEADERS = 1,
    FRAME_SETTINGS = 4,
    FRAME_PING = 6,
    FRAME_GOAWAY = 7,
    FRAME_WINDOW = 8
};
enum { FLAG_END_STREAM = 1, FLAG_ACK = 1, FLAG_END_HEADERS = 4 };

struct stream {
    uint32_t id;
    uint64_t sent_us;
    bool data;
};

struct connection {
    int fd;
    uint32_t id_last;
    struct stream streams[STREAMS_MAX];
    size_t streams_count;
    uint8_t in[IN_BYTES];
    size_t in_size;
    uint8_t out[STREAMS_MAX * 1200];
    size_t out_size;
};

static struct connection connections[CONNECTIONS_MAX];
static struct histogram took;
static uint64_t end_us, measure_us, number, failed;
static uint32_t value_bytes;

static void die(const char *what)
{
    (void)fprintf(stderr, "etcd_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint8_t *put_frame(uint8_t *at, size_t size, int type, int flags, uint32_t stream)
{
    const uint8_t head[FRAME_HEADER] = {
        (uint8_t)(size >> 16),   (uint8_t)(size >> 8),   (uint8_t)size,
        (uint8_t)type,           (uint8_t)flags,         (uint8_t)(stream >> 24),
        (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    memcpy(at, head, sizeof head);
    return at + sizeof head;
}

/* A header literally, without indexing. */
static uint8_t *put_header(uint8_t *at, const char *name, const char *value)
{
    *at++ = 0;
    *at++ = (uint8_t)strlen(name);
    memcpy(at, name, strlen(name));
    at += strlen(name);
    *at++ = (uint8_t)strlen(value);
    memcpy(at, value, strlen(value));
    return at + strlen(value);
}

/* A protobuf field of bytes. */
static uint8_t *put_field(uint8_t *at, int field, const void *data, size_t size)
{
    *at++ = (uint8_t)(field << 3 | 2);
    if (size > 127) {
        *at++ = (uint8_t)(size | 0x80);
        *at++ = (uint8_t)(size >> 7);
    } else {
        *at++ = (uint8_t)size;
    }
    memcpy(at, data, size);
    return at + size;
}

static void put_request(struct connection *c, struct stream *s, uint64_t now)
{
    static const uint8_t value[BYTES_MAX];
    static const char *const headers[][2] = {{":method", "POST"},
                                             {":scheme", "http"},
                                             {":path", "/etcdserverpb.KV/Put"},
                                             {":authority", "127.0.0.1"},
                                             {"content-type", "application/grpc"},
                                             {"te", "trailers"}};
    uint8_t block[512], body[BYTES_MAX + 128], *end = block;
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        end = put_header(end, headers[i][0], headers[i][1]);
    }
    size_t block_size = (size_t)(end - block);
    char key[32];
    (void)snprintf(key, sizeof key, "k-%012" PRIu64, number++);
    uint8_t *at = body + 5;
    at = put_field(at, 1, key, strlen(key));
    at = put_field(at, 2, value, value_bytes);
    size_t message = (size_t)(at - body) - 5;
    const uint8_t prefix[5] = {0, 0, 0, (uint8_t)(message >> 8), (uint8_t)message};
    memcpy(body, prefix, sizeof prefix);
    *s = (struct stream){.id = c->id_last += 2, .sent_us = now};
    uint8_t *out = c->out + c->out_size;
    out = put_frame(out, block_size, FRAME_HEADERS, FLAG_END_HEADERS, s->id);
    memcpy(out, block, block_size);
    out = put_frame(out + block_size, message + 5, FRAME_DATA, FLAG_END_STREAM, s->id);
    memcpy(out, body, message + 5);
    c->out_size = (size_t)(out + message + 5 - c->out);
}

static void flush(struct connection *c)
{
    for (size_t done = 0; done < c->out_size;) {
        ssize_t n = send(c->fd, c->out + done, c->out_size - done, MSG_NOSIGNAL);
        if (n <= 0) {
            die("send");
        }
        done += (size_t)n;
    }
    c->out_size = 0;
}

static void open_connection(struct connection *c, uint16_t port)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    const int on = 1;
    const uint8_t more[4] = {0x7f, 0, 0, 0}; /* the connection's window: enough for the whole run */
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        die("connect");
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->id_last = (uint32_t)-1; /* the first stream is 1 */
    memcpy(c->out, preface, sizeof preface - 1);
    uint8_t *at = put_frame(c->out + sizeof preface - 1, 0, FRAME_SETTINGS, 0, 0);
    at = put_frame(at, sizeof more, FRAME_WINDOW, 0, 0);
    memcpy(at, more, sizeof more);
    c->out_size = (size_t)(at + sizeof more - c->out);
    flush(c);
}

/* One stream has ended: count it and begin the next in its place. */
static void end_stream(struct connection *c, uint32_t id, uint64_t now)
{
    for (size_t i = 0; i < c->streams_count; i++) {
        struct stream *s = &c->streams[i];
        if (s->id != id) {
            continue;
        }
        if (!s->data) {
            failed++;
        } else if (s->sent_us >= measure_us && now < end_us) {
            histogram_record(&took, now - s->sent_us);
        }
        put_request(c, s, now);
        return;
    }
}

static void take_frame(struct connection *c, const uint8_t *frame, size_t size, uint64_t now)
{
    int type = frame[3], flags = frame[4];
    uint32_t id =
        ((uint32_t)frame[5] << 24 | (uint32_t)frame[6] << 16 | (uint32_t)frame[7] << 8 | frame[8]) &
        0x7fffffff;
    if ((type == FRAME_SETTINGS || type == FRAME_PING) && (flags & FLAG_ACK) == 0) {
        size_t echo = type == FRAME_PING ? size : 0;
        uint8_t *at = put_frame(c->out + c->out_size, echo, type, FLAG_ACK, 0);
        memcpy(at, frame + FRAME_HEADER, echo);
        c->out_size = (size_t)(at + echo - c->out);
    } else if (type == FRAME_GOAWAY) {
        errno = ECONNRESET;
        die("the server ended the connection");
    } else if (type == FRAME_DATA && size > 5) {
        for (size_t i = 0; i < c->streams_count; i++) {
            c->streams[i].data = c->streams[i].data || c->streams[i].id == id;
        }
    }
    if ((type == FRAME_DATA || type == FRAME_HEADERS) && (flags & FLAG_END_STREAM) != 0) {
        end_stream(c, id, now);
    }
}

static void on_readable(struct connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_size, sizeof c->in - c->in_size, 0);
    if (n <= 0) {
        die("recv");
    }
    c->in_size += (size_t)n;
    size_t at = 0;
    uint64_t now = clock_now_us(clock_real());
    while (c->in_size - at >= FRAME_HEADER) {
        const uint8_t *f = c->in + at;
        size_t size = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];
        if (c->in_size - at < FRAME_HEADER + size) {
            break;
        }
        take_frame(c, f, size, now);
        at += FRAME_HEADER + size;
    }
    memmove(c->in, c->in + at, c->in_size - at);
    c->in_size -= at;
    flush(c);
}

static void run(int poll, uint32_t outstanding, char **ports, int ports_count)
{
    uint64_t now = clock_now_us(clock_real());
    size_t count = (outstanding + STREAMS_MAX - 1) / STREAMS_MAX;
    for (size_t i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        open_connection(c, (uint16_t)strtoul(ports[i % (size_t)ports_count], NULL, 10));
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        (void)epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &e);
        while (c->streams_count < STREAMS_MAX && outstanding > 0) {
            put_request(c, &c->streams[c->streams_count++], now);
            outstanding--;
        }
        flush(c);
    }
    while (clock_now_us(clock_real()) < end_us) {
        struct epoll_event events[CONNECTIONS_MAX];
        int n = epoll_wait(poll, events, CONNECTIONS_MAX, 100);
        for (int i = 0; i < n; i++) {
            on_readable(events[i].data.ptr);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        (void)fputs("usage: etcd_load OUTSTANDING SECONDS BYTES PORT...\n", stderr);
        return 2;
    }
    uint32_t outstanding = (uint32_t)strtoul(argv[1], NULL, 10);
    uint64_t seconds = strtoul(argv[2], NULL, 10);
    value_bytes = (uint32_t)strtoul(argv[3], NULL, 10);
    if (outstanding == 0 || outstanding > STREAMS_MAX * CONNECTIONS_MAX ||
        value_bytes > BYTES_MAX) {
        (void)fprintf(stderr, "etcd_load: at most %d outstanding, %d bytes\n",
                      STREAMS_MAX * CONNECTIONS_MAX, BYTES_MAX);
        return 2;
    }
    measure_us = clock_now_us(clock_real()) + WARM_UP_US;
    end_us = measure_us + seconds * 1000000;
    run(epoll_create1(EPOLL_CLOEXEC), outstanding, argv + 4, argc - 4);
    (void)printf("acknowledged %" PRIu64 " count\nacknowledged_rate %.0f /s\n", took.count,
                 (double)took.count / (double)seconds);
    (void)printf("acknowledged_p50 %" PRIu64 " us\nacknowledged_p99 %" PRIu64 " us\n",
                 histogram_percentile(&took, 50), histogram_percentile(&took, 99));
    (void)printf("failed %" PRIu64 " count\n", failed);
    return failed == 0 && took.count > 0 ? 0 : 1;
}

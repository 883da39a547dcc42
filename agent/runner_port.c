#include "agent/runner_port.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <utlist.h>

struct runner_port_frame {
    struct runner_split split;
    struct runner_port_frame *prev, *next;
    size_t bytes;
    uint8_t data[];
};

/* One byte more than a packet may have: a longer one is seen as such. */
enum { SLOT_BYTES = RUNNER_PACKET_BYTES_MAX + 1 };

struct status packet_batch_open(struct packet_batch *b)
{
    b->memory = mem_alloc((size_t)RUNNER_PORT_BATCH_MAX * SLOT_BYTES);
    return status_of(b->memory == NULL ? STATUS_NOMEM : STATUS_OK);
}

void packet_batch_close(struct packet_batch *b)
{
    mem_free(b->memory);
    b->memory = NULL;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void poll_want(struct runner_port *p)
{
    int events = (p->ended ? 0 : UV_READABLE) | (p->queue != NULL ? UV_WRITABLE : 0);
    int rc = events == 0 ? uv_poll_stop(&p->poll) : uv_poll_start(&p->poll, events, on_poll);
    CHECK(rc == 0);
}

static void end(struct runner_port *p)
{
    if (p->ended) {
        return;
    }
    p->ended = true;
    struct runner_port_frame *f;
    struct runner_port_frame *tmp;
    DL_FOREACH_SAFE(p->queue, f, tmp) {
        DL_DELETE(p->queue, f);
        mem_free(f);
    }
    p->queue_bytes = 0;
    poll_want(p);
    p->events.on_end(p->events.data);
}

/* A packet that is no frame's: tells of a frame whose beginning is lost, and otherwise only
 * counts. */
static void packet_bad(struct runner_port *p, struct bytes packet, const struct errmsg *why)
{
    struct runner_header h;
    struct bytes data;
    if (status_is_ok(runner_packet_decode(packet, &h, &data, NULL)) &&
        (h.flags & RUNNER_FLAG_FIRST) == 0) {
        if ((h.flags & RUNNER_FLAG_MORE) == 0) {
            p->events.on_cut(p->events.data, h.type, h.id);
        }
        return;
    }
    if (p->packets_bad++ == 0) {
        LOG_WARN("runner sent a bad packet", LOG_STR("why", why->text));
    }
}

static void packet_take(struct runner_port *p, struct bytes packet)
{
    struct runner_frame frame;
    bool complete = false;
    struct errmsg msg = {{0}};
    if (!status_is_ok(runner_frames_take(&p->frames, packet, &frame, &complete, &msg))) {
        packet_bad(p, packet, &msg);
        return;
    }
    if (complete) {
        p->events.on_frame(p->events.data, &frame);
    }
}

/* One batch. Returns whether it was full, so that more may be there. */
static bool receive(struct runner_port *p)
{
    struct mmsghdr messages[RUNNER_PORT_BATCH_MAX];
    struct iovec vectors[RUNNER_PORT_BATCH_MAX];
    for (size_t i = 0; i < RUNNER_PORT_BATCH_MAX; i++) {
        vectors[i] = (struct iovec){p->batch->memory + i * SLOT_BYTES, SLOT_BYTES};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &vectors[i], .msg_iovlen = 1}};
    }
    int n = recvmmsg(p->fd, messages, RUNNER_PORT_BATCH_MAX, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            end(p);
        }
        return false;
    }
    for (int i = 0; i < n; i++) {
        if (messages[i].msg_len == 0) {
            end(p); /* no packet of the protocol is empty: the other end is closed */
            return false;
        }
        packet_take(p, bytes_of(vectors[i].iov_base, messages[i].msg_len));
        if (p->closing) {
            return false;
        }
    }
    return n == RUNNER_PORT_BATCH_MAX;
}

void runner_port_drain(struct runner_port *p)
{
    while (!p->ended && !p->closing && receive(p)) {
    }
}

/* Sends the packets that the socket takes. OK when all went, LIMIT when the socket is full,
 * UNAVAILABLE when the runner is gone. */
static enum status_code split_send(struct runner_port *p, struct runner_split *s)
{
    while (!runner_split_done(s)) {
        uint8_t header[RUNNER_HEADER_BYTES];
        struct bytes data;
        runner_split_packet(s, header, &data);
        struct iovec parts[2] = {{header, sizeof header},
                                 {(void *)(uintptr_t)data.data, data.size}};
        const struct msghdr m = {.msg_iov = parts, .msg_iovlen = data.size > 0 ? 2 : 1};
        if (sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == EAGAIN || errno == ENOBUFS ? STATUS_LIMIT : STATUS_UNAVAILABLE;
        }
        runner_split_advance(s);
    }
    return STATUS_OK;
}

static void queue_send(struct runner_port *p)
{
    while (p->queue != NULL) {
        struct runner_port_frame *f = p->queue;
        enum status_code code = split_send(p, &f->split);
        if (code == STATUS_LIMIT) {
            return;
        }
        if (code != STATUS_OK) {
            end(p);
            return;
        }
        DL_DELETE(p->queue, f);
        p->queue_bytes -= f->bytes;
        uint8_t type = f->split.frame.type;
        uint64_t id = f->split.frame.id;
        mem_free(f);
        p->events.on_sent(p->events.data, type, id);
    }
    poll_want(p);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct runner_port *p = poll->data;
    if (status < 0) {
        end(p);
        return;
    }
    if ((events & UV_READABLE) != 0 && !p->ended) {
        (void)receive(p); /* level-triggered: what is left wakes us again */
    }
    if ((events & UV_WRITABLE) != 0 && !p->ended && !p->closing) {
        queue_send(p);
    }
}

struct status runner_port_open(struct runner_port *p, uv_loop_t *loop, int fd,
                               struct packet_batch *batch, const struct runner_port_events *events,
                               struct errmsg *msg)
{
    CHECK(fd >= 0);
    *p = (struct runner_port){.fd = fd, .batch = batch, .events = *events};
    int rc = uv_poll_init(loop, &p->poll, fd);
    if (rc != 0) {
        return status_fail(msg, STATUS_IO, "poll the runner's channel: %s", uv_strerror(rc));
    }
    p->poll.data = p;
    poll_want(p);
    return status_ok();
}

static void on_closed(uv_handle_t *handle)
{
    struct runner_port *p = handle->data;
    p->closed(p->events.data);
}

void runner_port_close(struct runner_port *p, void (*closed)(void *data))
{
    CHECK(!p->closing);
    p->closing = true;
    p->closed = closed;
    struct runner_port_frame *f;
    struct runner_port_frame *tmp;
    DL_FOREACH_SAFE(p->queue, f, tmp) {
        DL_DELETE(p->queue, f);
        mem_free(f);
    }
    runner_frames_close(&p->frames);
    uv_close((uv_handle_t *)&p->poll, on_closed);
    (void)close(p->fd);
    p->fd = -1;
}

/* Queues a copy of what is left of the split. */
static struct status split_queue(struct runner_port *p, const struct runner_split *s)
{
    size_t bytes = sizeof(struct runner_port_frame) + s->frame.data.size;
    if (p->queue_bytes + bytes > RUNNER_PORT_QUEUE_BYTES_MAX) {
        return status_of(STATUS_LIMIT);
    }
    struct runner_port_frame *f = mem_alloc(bytes);
    if (f == NULL) {
        return status_of(STATUS_NOMEM);
    }
    f->split = *s;
    f->bytes = bytes;
    if (s->frame.data.size > 0) {
        memcpy(f->data, s->frame.data.data, s->frame.data.size);
    }
    f->split.frame.data = bytes_of(f->data, s->frame.data.size);
    DL_APPEND(p->queue, f);
    p->queue_bytes += bytes;
    poll_want(p);
    return status_ok();
}

struct status runner_port_send(struct runner_port *p, const struct runner_frame *frame,
                               bool *queued)
{
    if (p->ended || p->closing) {
        return status_of(STATUS_UNAVAILABLE);
    }
    struct runner_split s;
    TRY(runner_split_init(&s, frame, NULL));
    enum status_code code = p->queue == NULL ? split_send(p, &s) : STATUS_LIMIT;
    if (code == STATUS_LIMIT) {
        TRY(split_queue(p, &s));
        *queued = true;
        return status_ok();
    }
    if (code == STATUS_OK) {
        *queued = false;
    }
    return status_of(code);
}

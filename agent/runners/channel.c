#include "agent/runners/channel.h"

#include "common/check.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One byte more than a packet may have, so that a longer one shows. */
enum { SLOT_BYTES = RUNNER_PACKET_BYTES_MAX + 1, LOG_TEXT_BYTES_MAX = 1024 };

void channel_log(const char *format, ...)
{
    char line[LOG_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    size_t used = size < 0 ? 0 : (size_t)size;
    used = used < sizeof line - 1 ? used : sizeof line - 2;
    line[used] = '\n';
    ssize_t written = write(STDERR_FILENO, line, used + 1);
    (void)written; /* A log that cannot be written has nobody to be told. */
}

struct status channel_open(struct channel *c, int fd, struct errmsg *msg)
{
    int type = 0;
    socklen_t size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) {
        return status_fail(msg, STATUS_INVALID,
                           "descriptor %d is not a runner channel: an agent starts this program",
                           fd);
    }
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    uint8_t *packets = mem_alloc((size_t)CHANNEL_BATCH_MAX * SLOT_BYTES);
    if (packets == NULL) {
        return status_fail(msg, STATUS_NOMEM, "no memory for packets");
    }
    *c = (struct channel){.fd = fd, .packets = packets};
    for (size_t i = 0; i < CHANNEL_BATCH_MAX; i++) {
        c->vectors[i] = (struct iovec){packets + i * SLOT_BYTES, SLOT_BYTES};
        c->messages[i].msg_hdr.msg_iov = &c->vectors[i];
        c->messages[i].msg_hdr.msg_iovlen = 1;
    }
    return status_ok();
}

void channel_close(struct channel *c)
{
    runner_frames_close(&c->frames);
    mem_free(c->packets);
    *c = (struct channel){.fd = -1};
}

void channel_interrupt(int fd)
{
    int saved = errno;
    (void)shutdown(fd, SHUT_RD);
    errno = saved;
}

static int receive_once(struct channel *c, bool wait)
{
    if (!c->single) {
        int count = recvmmsg(c->fd, c->messages, CHANNEL_BATCH_MAX,
                             wait ? MSG_WAITFORONE : MSG_DONTWAIT, NULL);
        /* gVisor's recvmmsg knows no MSG_WAITFORONE, and says EINVAL. */
        if (count >= 0 || (errno != ENOSYS && errno != EPERM && errno != EINVAL)) {
            return count;
        }
        c->single = true;
    }
    ssize_t size = recv(c->fd, c->packets, SLOT_BYTES, wait ? 0 : MSG_DONTWAIT);
    if (size < 0) {
        return -1;
    }
    c->messages[0].msg_len = (unsigned)size;
    return 1;
}

static void wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    (void)poll(&p, 1, -1);
}

/* Fills the batch. FRAME here means: there are packets. */
static enum channel_event receive(struct channel *c, bool wait)
{
    c->batch_next = 0;
    c->batch_count = 0;
    for (;;) {
        int count = receive_once(c, wait);
        if (count > 0) {
            c->batch_count = (unsigned)count;
            return CHANNEL_FRAME;
        }
        if (count == 0 || (errno != EINTR && errno != EAGAIN)) {
            return CHANNEL_END;
        }
        if (errno == EAGAIN && !wait) {
            return CHANNEL_IDLE;
        }
        if (errno == EAGAIN) {
            wait_for(c->fd, POLLIN);
        }
    }
}

/* An empty packet and the end of the channel look alike to recv. */
static bool channel_ended(const struct channel *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) == 1;
}

enum channel_event channel_next(struct channel *c, bool wait, struct runner_frame *out)
{
    for (;;) {
        if (c->batch_next == c->batch_count) {
            enum channel_event event = receive(c, wait);
            if (event != CHANNEL_FRAME) {
                return event;
            }
        }
        unsigned i = c->batch_next++;
        CHECK(i < CHANNEL_BATCH_MAX);
        size_t size = c->messages[i].msg_len;
        if (size == 0 && channel_ended(c)) {
            return CHANNEL_END;
        }
        bool complete = false;
        struct errmsg msg = {0};
        struct bytes packet = bytes_of(c->packets + (size_t)i * SLOT_BYTES, size);
        struct status s = runner_frames_take(&c->frames, packet, out, &complete, &msg);
        if (!status_is_ok(s)) {
            channel_log("skep-runner: packet ignored: %s", msg.text);
        } else if (complete) {
            return CHANNEL_FRAME;
        }
    }
}

struct status channel_send(struct channel *c, const struct runner_frame *frame)
{
    struct runner_split split;
    TRY(runner_split_init(&split, frame, NULL));
    while (!runner_split_done(&split)) {
        uint8_t header[RUNNER_HEADER_BYTES];
        struct bytes data;
        runner_split_packet(&split, header, &data);
        struct iovec vectors[2] = {{header, sizeof header},
                                   {(void *)(uintptr_t)data.data, data.size}};
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = data.size > 0 ? 2 : 1};
        if (sendmsg(c->fd, &message, MSG_NOSIGNAL) >= 0) {
            runner_split_advance(&split);
        } else if (errno == EAGAIN) {
            wait_for(c->fd, POLLOUT);
        } else if (errno != EINTR) {
            return status_of(STATUS_UNAVAILABLE);
        }
    }
    return status_ok();
}

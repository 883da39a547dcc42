/* The runner's end of the channel to the agent: whole frames in and out of a SOCK_SEQPACKET socket.
 *
 *     channel_open -> channel_next: FRAME, FRAME, ... END -> channel_close
 *
 * Malformed packets are logged on standard error and passed over: the agent that comes after a
 * killed one must find a runner that still listens.
 *
 * Thread: one receives; any may send, one at a time (the caller locks). */
#ifndef AGENT_RUNNERS_CHANNEL_H
#define AGENT_RUNNERS_CHANNEL_H

#include "common/runner_frames.h"

#include <sys/socket.h>

enum { CHANNEL_BATCH_MAX = 32 };

struct channel {
    int fd;
    struct runner_frames frames;
    /* CHANNEL_BATCH_MAX packets of RUNNER_PACKET_BYTES_MAX + 1 bytes; only pages that packets reach
     * become memory. */
    uint8_t *packets;
    struct mmsghdr messages[CHANNEL_BATCH_MAX];
    struct iovec vectors[CHANNEL_BATCH_MAX];
    unsigned batch_count; /* packets of the last receive */
    unsigned batch_next;  /* of those, the first not yet looked at */
    bool single;          /* the kernel or a filter refuses recvmmsg */
};

enum channel_event {
    CHANNEL_FRAME, /* *out is a frame */
    CHANNEL_IDLE,  /* nothing there now */
    CHANNEL_END,   /* the other end is gone, or channel_interrupt was called */
};

/* Makes fd close-on-exec and gets the memory. INVALID when fd is not a SOCK_SEQPACKET socket,
 * NOMEM. fd stays the caller's. */
NODISCARD struct status channel_open(struct channel *c, int fd, struct errmsg *msg);
/* Frees what is inside; fd stays open. Safe on zeroed memory and twice. */
void channel_close(struct channel *c);

/* The next frame; its data is borrowed until the next call. Waits for one when wait is set (IDLE is
 * not answered then). */
enum channel_event channel_next(struct channel *c, bool wait, struct runner_frame *out);

/* Sends a frame, waiting for room. LIMIT for data over RUNNER_FRAME_BYTES_MAX; UNAVAILABLE when the
 * other end is gone. */
NODISCARD struct status channel_send(struct channel *c, const struct runner_frame *frame);

/* Makes channel_next answer END once what had arrived is read. Async-signal-safe. */
void channel_interrupt(int fd);

/* One line on standard error, which is the instance's log. */
void channel_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif

/* The agent's end of one runner's channel: a non-blocking SOCK_SEQPACKET socket on the loop.
 * Packets are received in batches and sent at once; what the socket does not take waits in a
 * bounded queue.
 *
 *     runner_port_open -> on_frame ... -> on_end -> runner_port_close
 *
 * Thread: the loop's. Callbacks come from the loop and from runner_port_drain. */
#ifndef AGENT_RUNNER_PORT_H
#define AGENT_RUNNER_PORT_H

#include "common/runner_frames.h"

#include <uv.h>

enum {
    RUNNER_PORT_QUEUE_BYTES_MAX = 16 << 20, /* waiting for the runner to read */
    RUNNER_PORT_BATCH_MAX = 16,             /* packets of one receive */
};

/* Room for one batch, shared by all ports of a loop. All zeros is a valid closed one. */
struct packet_batch {
    uint8_t *memory;
};
NODISCARD struct status packet_batch_open(struct packet_batch *b);
void packet_batch_close(struct packet_batch *b);

struct runner_port_frame;

struct runner_port_events {
    void *data;
    /* One whole frame, borrowed for the call. */
    void (*on_frame)(void *data, const struct runner_frame *frame);
    /* A frame's last packet without its beginning: a former agent read that. */
    void (*on_cut)(void *data, uint8_t type, uint64_t id);
    /* All packets of the frame of that type and id have been taken by the socket after waiting. */
    void (*on_sent)(void *data, uint8_t type, uint64_t id);
    /* The runner's end is closed; nothing comes any more. */
    void (*on_end)(void *data);
};

struct runner_port {
    uv_poll_t poll;
    int fd; /* owned; -1 when closed */
    bool ended;
    bool closing; /* the poll handle's close is under way */
    struct packet_batch *batch;
    struct runner_frames frames;
    struct runner_port_events events;
    struct runner_port_frame *queue; /* oldest first */
    uint64_t queue_bytes;
    uint64_t packets_bad;
    void (*closed)(void *data);
};

/* Takes fd on success. *p must stay in place until closed. IO. */
NODISCARD struct status runner_port_open(struct runner_port *p, uv_loop_t *loop, int fd,
                                         struct packet_batch *batch,
                                         const struct runner_port_events *events,
                                         struct errmsg *msg);
/* closed comes from the loop, once, with the events' data; no event comes after this call. A
 * port that was never opened (all zeros or never more than failed to open) must not be closed. */
void runner_port_close(struct runner_port *p, void (*closed)(void *data));

/* Sends, or queues a copy; *queued says which. LIMIT when the queue is full or the data is over
 * RUNNER_FRAME_BYTES_MAX, UNAVAILABLE when the runner is gone, NOMEM. */
NODISCARD struct status runner_port_send(struct runner_port *p, const struct runner_frame *frame,
                                         bool *queued);

/* Receives what is there now, without waiting for the loop. */
void runner_port_drain(struct runner_port *p);

#endif

/* Frames of the runner protocol made from packets, and packets made from frames. No I/O: the caller
 * sends and receives. Used by the agent, by libskep_runner and by skep-command-runner.
 *
 *     packet -> runner_frames_take -> complete? -> the frame
 *     frame  -> runner_split_init -> runner_split_packet, send, runner_split_advance
 *               ... until runner_split_done
 *
 * A sender may interleave at most RUNNER_FRAMES_OPEN_MAX frames of more than one packet; ours
 * finish one before they begin the next. When one more begins, the oldest unfinished frame is
 * dropped: it is what a killed agent left behind, and the channel must not be stuck with it.
 *
 * Thread: the owner's. */
#ifndef COMMON_RUNNER_FRAMES_H
#define COMMON_RUNNER_FRAMES_H

#include "common/runner_protocol.h"

enum { RUNNER_FRAMES_OPEN_MAX = 8 };

/* One whole frame. data is borrowed: see where the frame comes from. */
struct runner_frame {
    uint8_t type; /* enum runner_frame_type */
    uint16_t status;
    uint64_t id;
    uint64_t arg;
    struct bytes data;
};

/* Private to this module. */
struct runner_frame_open {
    struct runner_header head;
    struct buffer data;
};

/* Assembles the frames of one direction of one channel. All zeros is a valid empty one. */
struct runner_frames {
    struct runner_frame_open open[RUNNER_FRAMES_OPEN_MAX]; /* oldest first */
    size_t open_count;
    struct buffer last;     /* what the last frame of several packets borrows from */
    uint64_t dropped_count; /* unfinished frames dropped, by a first packet or for room */
};

/* Frees what is inside; empty and usable afterwards. Safe on zeroed memory and twice. */
void runner_frames_close(struct runner_frames *f);

/* Takes one packet. *complete says whether it ended a frame; *out is written only then, and its
 * data is borrowed from the packet or from f until the next call. status and arg of a frame are
 * those of its first packet. INVALID: runner_packet_decode refuses the packet, or it goes on with a
 * frame that was not begun; nothing changes. LIMIT: the frame would exceed RUNNER_FRAME_BYTES_MAX;
 * it is dropped. NOMEM: it is dropped. */
NODISCARD struct status runner_frames_take(struct runner_frames *f, struct bytes packet,
                                           struct runner_frame *out, bool *complete,
                                           struct errmsg *msg);

/* Drops the unfinished frame of that type and id; false when there is none. */
bool runner_frames_drop(struct runner_frames *f, uint8_t type, uint64_t id);

/* A frame on its way out. The frame's data is borrowed until it is done. */
struct runner_split {
    struct runner_frame frame;
    size_t sent;
    bool begun;
};

/* LIMIT when the data is over RUNNER_FRAME_BYTES_MAX; *s is unchanged then. */
NODISCARD struct status runner_split_init(struct runner_split *s, const struct runner_frame *frame,
                                          struct errmsg *msg);
/* The next packet: its header and its data (borrowed from the frame). May be asked again until
 * advanced. Not when done. */
void runner_split_packet(const struct runner_split *s, uint8_t header[RUNNER_HEADER_BYTES],
                         struct bytes *data);
/* The packet has been sent. */
void runner_split_advance(struct runner_split *s);
bool runner_split_done(const struct runner_split *s);

#endif

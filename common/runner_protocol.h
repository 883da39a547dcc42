/* The runner protocol: frames between an agent and a runner on the runner's fd 3, a connected Unix
 * SOCK_SEQPACKET socket.
 *
 * SEQPACKET and not STREAM (DESIGN.md section 8 said stream): an agent can be killed in the middle
 * of a write or read and its successor goes on with the same socket; packet borders let both sides
 * find the next frame, where a stream would stay out of step for ever.
 *
 * A packet is 24 bytes of header, little-endian, and at most RUNNER_PACKET_DATA_MAX bytes:
 *     u8 type, u8 flags, u16 status, u32 size (of the data in this packet), u64 id, u64 arg
 * A frame is one or more packets of the same type and id; all but the last carry RUNNER_FLAG_MORE.
 * The first carries RUNNER_FLAG_FIRST; a first packet drops whatever of an unfinished frame with
 * that id came before it. Frames of different ids may interleave. The data of a frame is at most
 * RUNNER_FRAME_BYTES_MAX bytes.
 *
 *     READY     runner -> agent   id 0, data: none. arg: invocations it can run at once
 *     INVOKE    agent -> runner   id: of the invocation, arg: time left in ms, data: input
 *     RESULT    runner -> agent   id, status: wire number of enum status_code (0 ok, FAILED for an
 *     error of the function), data: output or error text
 *     CANCEL    agent -> runner   id: best effort
 *     PARK      runner -> agent   ready for a snapshot
 *     RESTORED  agent -> runner   data: 48 bytes of entropy; arg: Unix time in us. Answered by
 *     RESTORED with the same id
 *     STOP      agent -> runner   finish what runs, then exit 0
 *
 * Thread: any; no shared state. */
#ifndef COMMON_RUNNER_PROTOCOL_H
#define COMMON_RUNNER_PROTOCOL_H

#include "common/buffer.h"
#include "common/status.h"

#include <stdint.h>

enum {
    RUNNER_FD = 3,
    RUNNER_HEADER_BYTES = 24,
    RUNNER_PACKET_DATA_MAX = 32 << 10,
    RUNNER_PACKET_BYTES_MAX = RUNNER_HEADER_BYTES + RUNNER_PACKET_DATA_MAX,
    RUNNER_FRAME_BYTES_MAX = 4 << 20,
};

enum runner_frame_type {
    RUNNER_READY = 1,
    RUNNER_INVOKE = 2,
    RUNNER_RESULT = 3,
    RUNNER_CANCEL = 4,
    RUNNER_PARK = 5,
    RUNNER_RESTORED = 6,
    RUNNER_STOP = 7,
};
enum { RUNNER_FLAG_FIRST = 1, RUNNER_FLAG_MORE = 2 };

struct runner_header {
    uint8_t type;
    uint8_t flags;
    uint16_t status;
    uint32_t size;
    uint64_t id;
    uint64_t arg;
};

/* Writes the header's 24 bytes. */
void runner_header_encode(const struct runner_header *h, uint8_t out[RUNNER_HEADER_BYTES]);
/* Decodes one packet; *data borrows from packet. INVALID for an unknown type or flags, a size that
 * is not the rest of the packet, or a size over the limit. */
NODISCARD struct status runner_packet_decode(struct bytes packet, struct runner_header *h,
                                             struct bytes *data, struct errmsg *msg);

#endif

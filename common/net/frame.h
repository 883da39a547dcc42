/* Frames of the link: 16 bytes of header, then the payload. Little-endian:
 *     u32 length of the payload, u8 kind, u8 flags (0), u16 zero, u64 sequence number
 * The sequence starts at 1 in each direction and rises by one with every frame of any kind.
 *
 * The reader is fed with bytes as they arrive and answers frames; whole frames inside one piece are
 * borrowed from it, frames spread over several pieces are put together in a buffer that grows as
 * bytes arrive, never because a length was announced.
 *
 * Thread: the owner's. */
#ifndef COMMON_NET_FRAME_H
#define COMMON_NET_FRAME_H

#include "common/buffer.h"
#include "common/status.h"

enum { FRAME_HEADER_BYTES = 16 };

enum frame_kind {
    FRAME_HEARTBEAT = 1, /* no payload */
    FRAME_DATA = 2,
    FRAME_BYE = 3, /* the sender is done and waits for the connection's end; payload: a reason */
};

/* Longest reason of a FRAME_BYE. */
enum { FRAME_BYE_BYTES_MAX = 256 };

struct frame {
    enum frame_kind kind;
    struct bytes payload;
};

void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], enum frame_kind kind,
                         uint32_t payload_bytes, uint64_t sequence);

struct frame_reader {
    struct buffer partial; /* a frame of which some bytes came */
    struct bytes input;    /* what is left of the piece given last */
    uint64_t sequence;     /* of the frame read last */
    uint32_t payload_max;
    bool partial_read; /* partial was answered as a frame: dropped by the next call */
};

/* payload_max may be changed between frames. */
void frame_reader_init(struct frame_reader *r, uint32_t payload_max);
void frame_reader_close(struct frame_reader *r);

/* The next piece, borrowed until frame_reader_next answered false. */
void frame_reader_feed(struct frame_reader *r, struct bytes piece);

/* *got: is there a whole frame? *out is valid until the next call and while the piece is. After an
 * error the stream is lost: INVALID (unknown kind, flags, a payload where none may be), LIMIT (over
 * payload_max), CORRUPT (a gap in the sequence), NOMEM. */
NODISCARD struct status frame_reader_next(struct frame_reader *r, struct frame *out, bool *got,
                                          struct errmsg *msg);

#endif

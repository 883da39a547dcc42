#include "common/net/frame.h"

#include "common/check.h"

#include <endian.h>
#include <inttypes.h>
#include <string.h>

/* A buffer that grew beyond this is given back once its frame was read. */
enum { PARTIAL_KEEP_BYTES = 64 << 10 };

void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], enum frame_kind kind,
                         uint32_t payload_bytes, uint64_t sequence)
{
    uint32_t length = htole32(payload_bytes);
    uint64_t number = htole64(sequence);
    memcpy(out, &length, sizeof length);
    out[4] = (uint8_t)kind;
    memset(out + 5, 0, 3);
    memcpy(out + 8, &number, sizeof number);
}

struct frame_header {
    uint32_t payload_bytes;
    enum frame_kind kind;
};

static struct status header_decode(const struct frame_reader *r, const uint8_t *data,
                                   struct frame_header *out, struct errmsg *msg)
{
    struct reader in = reader_of(bytes_of(data, FRAME_HEADER_BYTES));
    uint32_t payload_bytes = reader_u32(&in);
    uint8_t kind = reader_u8(&in);
    uint8_t flags = reader_u8(&in);
    uint16_t zero = reader_u16(&in);
    uint64_t sequence = reader_u64(&in);
    CHECK(!in.failed);
    if (kind < FRAME_HEARTBEAT || kind > FRAME_BYE || flags != 0 || zero != 0) {
        return status_fail(msg, STATUS_INVALID, "frame of kind %u with flags %u is not known", kind,
                           flags);
    }
    uint32_t limit = kind == FRAME_DATA ? r->payload_max : 0;
    if (kind == FRAME_BYE) {
        limit = FRAME_BYE_BYTES_MAX;
    }
    if (payload_bytes > limit) {
        return status_fail(msg, STATUS_LIMIT, "frame of %u bytes, at most %u are allowed",
                           payload_bytes, limit);
    }
    if (sequence != r->sequence + 1) {
        return status_fail(msg, STATUS_CORRUPT,
                           "frame number %" PRIu64 " came where %" PRIu64 " was due", sequence,
                           r->sequence + 1);
    }
    *out = (struct frame_header){.payload_bytes = payload_bytes, .kind = (enum frame_kind)kind};
    return status_ok();
}

void frame_reader_init(struct frame_reader *r, uint32_t payload_max)
{
    *r = (struct frame_reader){.payload_max = payload_max};
}

void frame_reader_close(struct frame_reader *r)
{
    buffer_close(&r->partial);
}

void frame_reader_feed(struct frame_reader *r, struct bytes piece)
{
    CHECK(r->input.size == 0);
    r->input = piece;
}

static void input_skip(struct frame_reader *r, size_t n)
{
    r->input = bytes_of(r->input.data + n, r->input.size - n);
}

/* Moves bytes of the input to partial until it holds `target`; *full: does it? */
static struct status partial_fill(struct frame_reader *r, size_t target, bool *full)
{
    CHECK(r->partial.size <= target);
    size_t want = target - r->partial.size;
    size_t n = want < r->input.size ? want : r->input.size;
    if (n > 0) {
        TRY(buffer_append(&r->partial, r->input.data, n));
        input_skip(r, n);
    }
    *full = n == want;
    return status_ok();
}

static void frame_answer(struct frame_reader *r, const struct frame_header *h, const uint8_t *data,
                         struct frame *out, bool *got)
{
    r->sequence++;
    *out = (struct frame){.kind = h->kind,
                          .payload = bytes_of(data + FRAME_HEADER_BYTES, h->payload_bytes)};
    *got = true;
}

static struct status partial_next(struct frame_reader *r, struct frame *out, bool *got,
                                  struct errmsg *msg)
{
    struct frame_header h;
    bool full = true;
    if (r->partial.size < FRAME_HEADER_BYTES) {
        TRY(partial_fill(r, FRAME_HEADER_BYTES, &full));
    }
    if (!full) {
        return status_ok();
    }
    TRY(header_decode(r, r->partial.data, &h, msg));
    TRY(partial_fill(r, FRAME_HEADER_BYTES + (size_t)h.payload_bytes, &full));
    if (full) {
        frame_answer(r, &h, r->partial.data, out, got);
        r->partial_read = true;
    }
    return status_ok();
}

struct status frame_reader_next(struct frame_reader *r, struct frame *out, bool *got,
                                struct errmsg *msg)
{
    *got = false;
    if (r->partial_read) {
        r->partial_read = false;
        r->partial.size = 0;
        if (r->partial.capacity > PARTIAL_KEEP_BYTES) {
            buffer_close(&r->partial);
        }
    }
    if (r->input.size == 0) {
        return status_ok();
    }
    if (r->partial.size > 0) {
        return partial_next(r, out, got, msg);
    }
    struct frame_header h;
    if (r->input.size >= FRAME_HEADER_BYTES) {
        TRY(header_decode(r, r->input.data, &h, msg));
        size_t whole = FRAME_HEADER_BYTES + (size_t)h.payload_bytes;
        if (r->input.size >= whole) {
            frame_answer(r, &h, r->input.data, out, got);
            input_skip(r, whole);
            return status_ok();
        }
    }
    struct status s = buffer_append(&r->partial, r->input.data, r->input.size);
    r->input = bytes_of(NULL, 0);
    return s;
}

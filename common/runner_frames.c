#include "common/runner_frames.h"

#include "common/check.h"

#include <inttypes.h>
#include <string.h>

void runner_frames_close(struct runner_frames *f)
{
    for (size_t i = 0; i < f->open_count; i++) {
        buffer_close(&f->open[i].data);
    }
    buffer_close(&f->last);
    *f = (struct runner_frames){0};
}

static size_t open_find(const struct runner_frames *f, uint8_t type, uint64_t id)
{
    size_t i = 0;
    while (i < f->open_count && (f->open[i].head.id != id || f->open[i].head.type != type)) {
        i++;
    }
    return i;
}

/* Removes slot i without counting it as dropped; its buffer must have been closed or taken. */
static void open_remove(struct runner_frames *f, size_t i)
{
    CHECK(i < f->open_count);
    f->open_count--;
    memmove(&f->open[i], &f->open[i + 1], (f->open_count - i) * sizeof f->open[0]);
    f->open[f->open_count] = (struct runner_frame_open){0};
}

static void open_drop(struct runner_frames *f, size_t i)
{
    buffer_close(&f->open[i].data);
    open_remove(f, i);
    f->dropped_count++;
}

bool runner_frames_drop(struct runner_frames *f, uint8_t type, uint64_t id)
{
    size_t i = open_find(f, type, id);
    if (i == f->open_count) {
        return false;
    }
    open_drop(f, i);
    return true;
}

static struct runner_frame frame_of(const struct runner_header *h, struct bytes data)
{
    return (struct runner_frame){h->type, h->status, h->id, h->arg, data};
}

/* Begins the frame of a first packet that has more behind it; returns its slot. */
static size_t open_begin(struct runner_frames *f, const struct runner_header *h)
{
    if (f->open_count == RUNNER_FRAMES_OPEN_MAX) {
        open_drop(f, 0);
    }
    size_t i = f->open_count++;
    f->open[i] = (struct runner_frame_open){.head = *h};
    return i;
}

/* Adds a packet's data to slot i; on failure the slot is dropped. */
static struct status open_append(struct runner_frames *f, size_t i, struct bytes data,
                                 struct errmsg *msg)
{
    struct runner_frame_open *o = &f->open[i];
    CHECK(o->data.size <= RUNNER_FRAME_BYTES_MAX);
    uint64_t id = o->head.id;
    if (data.size > RUNNER_FRAME_BYTES_MAX - o->data.size) {
        open_drop(f, i);
        return status_fail(msg, STATUS_LIMIT, "frame %" PRIu64 " is over the limit of %d bytes", id,
                           RUNNER_FRAME_BYTES_MAX);
    }
    struct status s = buffer_append(&o->data, data.data, data.size);
    if (!status_is_ok(s)) {
        open_drop(f, i);
        return status_fail(msg, s.code, "frame %" PRIu64 ": out of memory", id);
    }
    return s;
}

struct status runner_frames_take(struct runner_frames *f, struct bytes packet,
                                 struct runner_frame *out, bool *complete, struct errmsg *msg)
{
    struct runner_header h;
    struct bytes data;
    TRY(runner_packet_decode(packet, &h, &data, msg));
    bool first = (h.flags & RUNNER_FLAG_FIRST) != 0;
    bool more = (h.flags & RUNNER_FLAG_MORE) != 0;
    if (first && f->open_count > 0) {
        (void)runner_frames_drop(f, h.type, h.id);
    }
    if (first && !more) {
        *out = frame_of(&h, data);
        *complete = true;
        return status_ok();
    }
    size_t i = first ? open_begin(f, &h) : open_find(f, h.type, h.id);
    if (i == f->open_count) {
        return status_fail(msg, STATUS_INVALID,
                           "packet goes on with frame %" PRIu64 ", which was not begun", h.id);
    }
    TRY(open_append(f, i, data, msg));
    *complete = !more;
    if (!more) {
        buffer_close(&f->last);
        f->last = f->open[i].data;
        *out = frame_of(&f->open[i].head, bytes_of(f->last.data, f->last.size));
        open_remove(f, i);
    }
    return status_ok();
}

struct status runner_split_init(struct runner_split *s, const struct runner_frame *frame,
                                struct errmsg *msg)
{
    if (frame->data.size > RUNNER_FRAME_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "frame of %zu bytes is over the limit of %d",
                           frame->data.size, RUNNER_FRAME_BYTES_MAX);
    }
    *s = (struct runner_split){.frame = *frame};
    return status_ok();
}

static size_t split_size(const struct runner_split *s)
{
    size_t rest = s->frame.data.size - s->sent;
    return rest < RUNNER_PACKET_DATA_MAX ? rest : RUNNER_PACKET_DATA_MAX;
}

void runner_split_packet(const struct runner_split *s, uint8_t header[RUNNER_HEADER_BYTES],
                         struct bytes *data)
{
    CHECK(!runner_split_done(s));
    size_t size = split_size(s);
    bool more = size < s->frame.data.size - s->sent;
    struct runner_header h = {
        .type = s->frame.type,
        .flags = (uint8_t)((s->begun ? 0 : RUNNER_FLAG_FIRST) | (more ? RUNNER_FLAG_MORE : 0)),
        .status = s->frame.status,
        .size = (uint32_t)size,
        .id = s->frame.id,
        .arg = s->frame.arg,
    };
    runner_header_encode(&h, header);
    *data = size == 0 ? (struct bytes){0} : bytes_of(s->frame.data.data + s->sent, size);
}

void runner_split_advance(struct runner_split *s)
{
    CHECK(!runner_split_done(s));
    s->sent += split_size(s);
    s->begun = true;
}

bool runner_split_done(const struct runner_split *s)
{
    return s->begun && s->sent == s->frame.data.size;
}

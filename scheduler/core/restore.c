#include "scheduler/core/restore.h"

#include "common/mem.h"
#include "proto/codec.h"
#include "scheduler/core/core_internal.h"

#include <endian.h>
#include <inttypes.h>
#include <string.h>

enum { FRAME_HEAD = 4, FRAME_MAX = RESTORE_BYTES_MAX };

/* Never changed once made; a pin shares it. */
struct restore_piece {
    struct restore_piece *next;
    uint32_t refs;
    uint32_t size;
    uint8_t bytes[];
};

struct restore_pin {
    struct id128 id;
    uint64_t total;
    struct restore_piece *first;
    uint64_t pieces;
};

/* ---- Pieces ---- */

static struct restore_piece *piece_release(struct restore_piece *p)
{
    struct restore_piece *next = p->next;
    CHECK(p->refs > 0);
    if (--p->refs == 0) {
        mem_free(p);
    }
    return next;
}

void restore_close(struct restore *r)
{
    for (struct restore_piece *p = r->first; p != NULL;) {
        p = piece_release(p);
    }
    *r = (struct restore){.total = 0};
}

/* Out of memory ends the process, as everywhere in the apply. */
static void piece_add(struct restore *r, struct bytes data)
{
    struct restore_piece *p = mem_must(mem_alloc(sizeof *p + data.size));
    p->next = NULL;
    p->refs = 1;
    p->size = (uint32_t)data.size;
    memcpy(p->bytes, data.data, data.size);
    if (r->last == NULL) {
        r->first = p;
    } else {
        r->last->next = p;
    }
    r->last = p;
    r->size += data.size;
}

/* ---- Putting the state together ---- */

/* A job's frame and where its invocation stands in the order. */
struct restored_job {
    uint64_t index, place;
    struct bytes frame; /* of the backup, unless it was changed */
    bool changed;
    size_t offset; /* of the changed ones */
};

struct restored_jobs {
    struct restored_job *items;
    size_t count;
    struct buffer changed; /* blobs */
};

static void jobs_release(struct restored_jobs *l)
{
    mem_free(l->items);
    buffer_close(&l->changed);
}

static int by_index(const void *a, const void *b)
{
    const struct restored_job *x = a, *y = b;
    if (x->index != y->index) {
        return x->index < y->index ? -1 : 1;
    }
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Reads one frame; no job may stand behind the command that restores it. */
static struct status job_read(struct restored_jobs *l, struct bytes frame, uint64_t index_max,
                              struct arena *a, struct errmsg *msg)
{
    struct restored_job *to = &l->items[l->count];
    struct state_job j;
    TRY(state_job_decode(frame, a, &j, msg));
    *to = (struct restored_job){.index = j.index, .place = l->count, .frame = frame};
    l->count++;
    if (j.index <= index_max) {
        return status_ok();
    }
    struct buffer again = {0};
    j.index = index_max;
    struct status s = state_job_encode(&j, &again);
    to->changed = true;
    to->offset = l->changed.size;
    s = status_is_ok(s) ? buffer_put_blob(&l->changed, bytes_of(again.data, again.size)) : s;
    buffer_close(&again);
    return s;
}

/* All jobs in their order. The caller releases them, whatever is answered. */
static struct status jobs_read(struct reader *in, uint64_t count, uint64_t index_max,
                               struct restored_jobs *out, struct errmsg *msg)
{
    struct arena a = {.bytes_max = SIZE_MAX / 2};
    struct status s = status_ok();
    if (count > in->rest.size / FRAME_HEAD) {
        return status_fail(msg, STATUS_CORRUPT, "the backup's state is cut short");
    }
    out->items = mem_must(mem_zalloc((size_t)count, sizeof *out->items));
    while (out->count < count && status_is_ok(s)) {
        struct bytes frame = reader_blob(in, FRAME_MAX);
        s = in->failed ? status_fail(msg, STATUS_CORRUPT, "the backup's state is cut short")
                       : job_read(out, frame, index_max, &a, msg);
        arena_reset(&a);
    }
    arena_close(&a);
    if (status_is_ok(s) && count > 0) {
        qsort(out->items, out->count, sizeof *out->items, by_index);
    }
    return status_is_ok(s) || s.code == STATUS_NOMEM ? s : status_of(STATUS_CORRUPT);
}

/* Into the table, which is empty, and empty again after a failure. */
static struct status jobs_adopt(struct job_table *t, const struct restored_jobs *l, uint64_t now_ms,
                                struct errmsg *msg)
{
    struct status s = status_ok();
    for (size_t i = 0; i < l->count && status_is_ok(s); i++) {
        struct bytes frame = l->items[i].frame;
        if (l->items[i].changed) {
            size_t at = l->items[i].offset;
            struct reader in = reader_of(bytes_of(l->changed.data + at, l->changed.size - at));
            frame = reader_blob(&in, FRAME_MAX);
        }
        s = jobs_load(t, frame, now_ms, msg);
    }
    if (!status_is_ok(s)) {
        jobs_clear(t);
    }
    return s;
}

/* Functions and settings that a catalog of their own does not take would leave the real one half
 * changed. */
static struct status rehearse(const struct state *from, struct errmsg *msg)
{
    struct catalog scratch = {.index = 0};
    struct status s = catalog_import(&scratch, from, msg);
    catalog_close(&scratch);
    return s;
}

static struct status adopt(struct core *c, struct core_time now, struct bytes collected,
                           struct errmsg *msg)
{
    struct arena a = {.bytes_max = SIZE_MAX / 2};
    struct state from;
    struct restored_jobs jobs = {.count = 0};
    struct reader in = reader_of(collected);
    struct bytes head = reader_blob(&in, FRAME_MAX);
    struct status s = in.failed ? status_fail(msg, STATUS_CORRUPT, "the state is cut short")
                                : state_decode(head, &a, &from, msg);
    if (status_is_ok(s)) {
        s = rehearse(&from, msg);
    }
    if (status_is_ok(s)) {
        s = jobs_read(&in, from.jobs_count, c->catalog.index, &jobs, msg);
    }
    if (status_is_ok(s)) {
        s = jobs_adopt(&c->catalog.jobs, &jobs, durable_wall_ms(c, now), msg);
    }
    if (status_is_ok(s)) {
        catalog_adopt(&c->catalog, &from);
    }
    jobs_release(&jobs);
    arena_close(&a);
    return s;
}

/* All pieces are there. */
static struct status finish(struct core *c, struct core_time now, struct errmsg *msg)
{
    struct buffer collected = {0};
    struct status s = buffer_reserve(&collected, (size_t)c->restore.size);
    for (const struct restore_piece *p = c->restore.first; p != NULL && status_is_ok(s);
         p = p->next) {
        s = buffer_append(&collected, p->bytes, p->size);
    }
    restore_close(&c->restore);
    if (status_is_ok(s)) {
        s = adopt(c, now, bytes_of(collected.data, collected.size), msg);
    }
    buffer_close(&collected);
    CHECK(s.code != STATUS_NOMEM); /* A replica that cannot follow must stop. */
    if (status_is_ok(s)) {
        durable_limits(c);
        runtimes_sync(c, now);
    }
    return s;
}

/* ---- Applying ---- */

static bool state_empty(const struct core *c)
{
    return HASH_COUNT(c->catalog.functions) == 0 && HASH_COUNT(c->catalog.jobs.jobs) == 0;
}

void restore_check(struct core *c)
{
    if (c->restore.total != 0 && !state_empty(c)) {
        restore_close(&c->restore);
    }
}

static struct status piece_check(const struct core *c, const struct command_restore *p,
                                 struct errmsg *msg)
{
    const struct restore *r = &c->restore;
    if (!state_empty(c)) {
        return status_fail(msg, STATUS_CONFLICT,
                           "this cluster has %u functions and %u durable invocations; a backup is "
                           "restored into an empty cluster only",
                           HASH_COUNT(c->catalog.functions), HASH_COUNT(c->catalog.jobs.jobs));
    }
    if (p->total > RESTORE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT,
                           "the backup's state has %" PRIu64 " bytes; %d can be restored", p->total,
                           RESTORE_BYTES_MAX);
    }
    if (p->data.size == 0 || p->data.size > RESTORE_PIECE_BYTES_MAX || p->offset > p->total ||
        p->data.size > p->total - p->offset) {
        return status_fail(msg, STATUS_INVALID, "a piece of %zu bytes does not fit here",
                           p->data.size);
    }
    bool same = r->total == p->total && id_compare(r->id, p->restore) == 0;
    if (p->offset != 0 &&
        (!same || (p->offset != r->size && p->offset + p->data.size != r->size))) {
        return status_fail(msg, STATUS_CONFLICT,
                           "another restore began meanwhile, or a piece is missing; begin again");
    }
    return status_ok();
}

struct status restore_apply(struct core *c, struct core_time now, const struct command_restore *p,
                            struct errmsg *msg)
{
    struct restore *r = &c->restore;
    if (p->total == 0) {
        restore_close(r);
        return status_ok();
    }
    TRY(piece_check(c, p, msg));
    if (p->offset == 0) {
        restore_close(r);
        r->id = p->restore;
        r->total = p->total;
    } else if (p->offset != r->size) {
        return status_ok(); /* The last piece, given again. */
    }
    piece_add(r, p->data);
    return r->size == r->total ? finish(c, now, msg) : status_ok();
}

/* ---- Snapshots ---- */

struct restore_pin *restore_pin(const struct restore *r)
{
    if (r->first == NULL) {
        return NULL;
    }
    struct restore_pin *pin = mem_must(mem_zalloc(1, sizeof *pin));
    *pin = (struct restore_pin){.id = r->id, .total = r->total, .first = r->first};
    for (struct restore_piece *p = r->first; p != NULL; p = p->next) {
        p->refs++;
        pin->pieces++;
    }
    return pin;
}

/* The link behind the last pinned piece may change meanwhile: it is not read. */
struct status restore_pin_encode(const struct restore_pin *p, struct parts *out)
{
    uint64_t offset = 0;
    const struct restore_piece *piece = p == NULL ? NULL : p->first;
    struct buffer frame = {0};
    struct status s = status_ok();
    for (uint64_t i = 0; p != NULL && i < p->pieces && status_is_ok(s); i++) {
        piece = i == 0 ? piece : piece->next;
        const struct command cmd = {
            .type = COMMAND_RESTORE,
            .by = "",
            .command_restore = {.restore = p->id,
                                .offset = offset,
                                .total = p->total,
                                .data = bytes_of(piece->bytes, piece->size)}};
        frame.size = 0;
        s = command_encode(&cmd, &frame);
        struct buffer *to = status_is_ok(s) ? parts_next(out) : NULL;
        s = status_is_ok(s) && to == NULL ? status_of(STATUS_NOMEM) : s;
        s = status_is_ok(s) ? buffer_put_blob(to, bytes_of(frame.data, frame.size)) : s;
        offset += piece->size;
    }
    buffer_close(&frame);
    return s;
}

void restore_unpin(struct restore_pin *p)
{
    struct restore_piece *piece = p == NULL ? NULL : p->first;
    for (uint64_t i = 0; p != NULL && i < p->pieces; i++) {
        piece = piece_release(piece);
    }
    mem_free(p);
}

static struct status load_one(struct restore *r, struct bytes frame, struct arena *a,
                              struct errmsg *msg)
{
    struct command cmd;
    TRY(command_decode(frame, a, &cmd, msg));
    const struct command_restore *p = &cmd.command_restore;
    if (cmd.type != COMMAND_RESTORE || p->offset != r->size || p->total == 0 ||
        p->total > RESTORE_BYTES_MAX || p->data.size == 0 || p->data.size > p->total - p->offset ||
        (r->first != NULL && (r->total != p->total || id_compare(r->id, p->restore) != 0))) {
        return status_fail(msg, STATUS_CORRUPT, "a piece of a restore does not fit");
    }
    r->id = p->restore;
    r->total = p->total;
    piece_add(r, p->data);
    return status_ok();
}

struct status restore_load(struct restore *r, struct bytes frames, struct errmsg *msg)
{
    struct reader in = reader_of(frames);
    struct arena a = {.bytes_max = SIZE_MAX / 2};
    struct status s = status_ok();
    restore_close(r);
    while (in.rest.size > 0 && status_is_ok(s)) {
        struct bytes frame = reader_blob(&in, FRAME_MAX);
        s = in.failed ? status_fail(msg, STATUS_CORRUPT, "the snapshot is cut short")
                      : load_one(r, frame, &a, msg);
        arena_reset(&a);
    }
    arena_close(&a);
    if (!status_is_ok(s)) {
        restore_close(r);
    }
    return s;
}

/* Snapshots of the replicated state: pin -> encode elsewhere -> unpin; and restore. */
#include "common/mem.h"
#include "proto/codec.h"
#include "scheduler/core/core_internal.h"
#include "scheduler/core/spec.h"

#include <string.h>

enum { FRAME_BYTES_MAX = 1 << 30, JOB_FRAME_BYTES_MAX = 1 << 20 };

struct core_pin {
    struct buffer catalog; /* encoded when pinned: it is small beside the invocations */
    struct restore_pin *restore;
    struct job_pin *jobs;
};

struct core_pin *core_pin(struct core *c)
{
    struct core_pin *p = mem_zalloc(1, sizeof *p);
    struct arena a = {.bytes_max = SIZE_MAX / 2};
    struct state state;
    struct status s = p == NULL ? status_of(STATUS_NOMEM) : catalog_export(&c->catalog, &a, &state);
    if (status_is_ok(s)) {
        s = state_encode(&state, &p->catalog);
    }
    arena_close(&a);
    if (status_is_ok(s)) {
        p->jobs = jobs_pin(&c->catalog.jobs);
        s = p->jobs == NULL ? status_of(STATUS_NOMEM) : s;
    }
    if (!status_is_ok(s)) {
        if (p != NULL) {
            buffer_close(&p->catalog);
        }
        mem_free(p);
        return NULL;
    }
    p->restore = restore_pin(&c->restore);
    return p;
}

struct status core_pin_encode(const struct core_pin *p, struct parts *out)
{
    TRY(parts_put_blob(out, bytes_of(p->catalog.data, p->catalog.size)));
    TRY(jobs_pin_encode(p->jobs, out));
    return restore_pin_encode(p->restore, out);
}

void core_unpin(struct core *c, struct core_pin *p)
{
    jobs_unpin(&c->catalog.jobs, p->jobs);
    buffer_close(&p->catalog);
    restore_unpin(p->restore);
    mem_free(p);
}

static struct status restore_state(struct core *c, struct bytes frame, uint64_t *jobs,
                                   struct errmsg *msg)
{
    struct arena a = {.bytes_max = SIZE_MAX / 2};
    struct state state;
    struct status s = state_decode(frame, &a, &state, msg);
    if (status_is_ok(s)) {
        s = catalog_import(&c->catalog, &state, msg);
        *jobs = state.jobs_count;
    }
    arena_close(&a);
    return s;
}

struct status core_restore(struct core *c, struct core_time now, struct bytes snapshot,
                           struct errmsg *msg)
{
    struct runtime *f, *next;
    HASH_ITER(hh, c->runtimes, f, next) {
        f->current = NULL;
        f->jobs = NULL; /* The table goes away; runtimes_sync finds its successor. */
    }
    struct reader r = reader_of(snapshot);
    struct bytes frame = reader_blob(&r, FRAME_BYTES_MAX);
    uint64_t jobs = 0;
    struct status s = r.failed ? status_fail(msg, STATUS_CORRUPT, "the snapshot is cut short")
                               : restore_state(c, frame, &jobs, msg);
    c->time_seen_us = now.mono_us;
    uint64_t wall_ms = durable_wall_ms(c, now);
    for (; status_is_ok(s) && jobs > 0; jobs--) {
        frame = reader_blob(&r, JOB_FRAME_BYTES_MAX);
        s = r.failed ? status_fail(msg, STATUS_CORRUPT, "the snapshot is cut short")
                     : jobs_load(&c->catalog.jobs, frame, wall_ms, msg);
    }
    if (status_is_ok(s)) {
        s = restore_load(&c->restore, r.rest, msg);
    }
    if (!status_is_ok(s)) {
        catalog_close(&c->catalog);
        s = status_of(STATUS_CORRUPT);
    }
    runtimes_sync(c, now);
    return s;
}

void core_payloads(const struct core *c, void (*fn)(void *data, const struct digest *payload),
                   void *data)
{
    for (const struct job_payload *p = c->catalog.jobs.payloads; p != NULL; p = p->hh.next) {
        fn(data, &p->digest);
    }
}

bool core_payload_named(const struct core *c, const struct digest *payload)
{
    const struct job_payload *p;
    HASH_FIND(hh, c->catalog.jobs.payloads, payload, sizeof *payload, p);
    return p != NULL;
}

bool core_invocation_sensitive(const struct core *c, struct id128 invocation)
{
    const struct job *j = jobs_find(&c->catalog.jobs, invocation);
    const struct catalog_function *f =
        j == NULL ? NULL : catalog_function_find(&c->catalog, j->function->name);
    return f != NULL && spec_is_sensitive(&catalog_current(f)->spec);
}

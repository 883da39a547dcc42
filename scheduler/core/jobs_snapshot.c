/* Frames and the pages they hang in; pinning, encoding, loading. */
#include "proto/codec.h"
#include "scheduler/core/jobs_internal.h"

#include <string.h>

struct job_page {
    uint32_t holders; /* the table, and a pin */
    struct job_frame *frames[JOB_PAGE_SLOTS];
};

struct job_pin {
    struct job_page **pages;
    uint32_t count;
};

static void frame_retire(struct job_table *t, struct job_frame *f)
{
    if (f == NULL) {
        return;
    }
    t->bytes -= f->size;
    f->next = t->garbage;
    t->garbage = f;
}

void jobs_collect(struct job_table *t, size_t max)
{
    for (size_t i = 0; i < max && t->garbage != NULL && !t->pinned; i++) {
        struct job_frame *f = t->garbage;
        t->garbage = f->next;
        mem_free(f);
    }
}

/* ---- Slots ---- */

uint32_t slot_take(struct job_table *t)
{
    if (t->slots_free_count > 0) {
        return t->slots_free[--t->slots_free_count];
    }
    if (t->slots_count == t->pages_count * JOB_PAGE_SLOTS) {
        size_t bytes = (t->pages_count + 1) * sizeof *t->pages;
        t->pages = mem_must(mem_realloc(t->pages, bytes));
        struct job_page *page = mem_must(mem_zalloc(1, sizeof *page));
        page->holders = 1;
        t->pages[t->pages_count++] = page;
    }
    return t->slots_count++;
}

/* The slot's page, which no pin holds. */
static struct job_page *page_of(struct job_table *t, uint32_t slot)
{
    struct job_page **at = &t->pages[slot / JOB_PAGE_SLOTS];
    if ((*at)->holders > 1) {
        struct job_page *copy = mem_must(mem_dup(*at, sizeof **at));
        copy->holders = 1;
        (*at)->holders--;
        *at = copy;
    }
    return *at;
}

static void frame_set(struct job_table *t, uint32_t slot, struct job_frame *f)
{
    struct job_frame **at = &page_of(t, slot)->frames[slot % JOB_PAGE_SLOTS];
    frame_retire(t, *at);
    *at = f;
    t->bytes += f == NULL ? 0 : f->size;
}

void slot_release(struct job_table *t, uint32_t slot)
{
    frame_set(t, slot, NULL);
    if (t->slots_free_count == t->slots_free_capacity) {
        uint32_t capacity = t->slots_free_capacity == 0 ? 64 : 2 * t->slots_free_capacity;
        t->slots_free = mem_must(mem_realloc(t->slots_free, capacity * sizeof *t->slots_free));
        t->slots_free_capacity = capacity;
    }
    t->slots_free[t->slots_free_count++] = slot;
}

const struct job_frame *slot_frame(const struct job_table *t, uint32_t slot)
{
    return t->pages[slot / JOB_PAGE_SLOTS]->frames[slot % JOB_PAGE_SLOTS];
}

void slot_put_bytes(struct job_table *t, uint32_t slot, struct bytes frame)
{
    struct job_frame *f = mem_must(mem_alloc(sizeof *f + frame.size));
    f->next = NULL;
    f->size = (uint32_t)frame.size;
    memcpy(f->bytes, frame.data, frame.size);
    frame_set(t, slot, f);
}

void slot_put(struct job_table *t, uint32_t slot, const struct state_job *s)
{
    struct buffer bytes = {0};
    CHECK(status_is_ok(state_job_encode(s, &bytes))); /* Out of memory ends the process. */
    slot_put_bytes(t, slot, bytes_of(bytes.data, bytes.size));
    buffer_close(&bytes);
}

void jobs_content(const struct job_table *t, const struct job *j, struct arena *a,
                  struct state_job *out)
{
    const struct job_frame *f = slot_frame(t, j->slot);
    struct errmsg msg = {.text = ""};
    CHECK(status_is_ok(state_job_decode(bytes_of(f->bytes, f->size), a, out, &msg)));
}

void pages_close(struct job_table *t)
{
    CHECK(!t->pinned);
    for (uint32_t i = 0; i < t->pages_count; i++) {
        mem_free(t->pages[i]);
    }
    mem_free(t->pages);
    mem_free(t->slots_free);
    jobs_collect(t, SIZE_MAX);
}

/* ---- Pins ---- */

struct job_pin *jobs_pin(struct job_table *t)
{
    if (t->pinned) {
        return NULL;
    }
    struct job_pin *p = mem_zalloc(1, sizeof *p);
    struct job_page **pages = mem_dup(t->pages, t->pages_count * sizeof *pages);
    if (p == NULL || pages == NULL) {
        mem_free(p);
        mem_free(pages);
        return NULL;
    }
    *p = (struct job_pin){pages, t->pages_count};
    for (uint32_t i = 0; i < p->count; i++) {
        pages[i]->holders++;
    }
    t->pinned = true;
    return p;
}

struct status jobs_pin_encode(const struct job_pin *p, struct parts *out)
{
    for (uint32_t i = 0; i < p->count; i++) {
        for (uint32_t k = 0; k < JOB_PAGE_SLOTS; k++) {
            const struct job_frame *f = p->pages[i]->frames[k];
            if (f == NULL) {
                continue;
            }
            TRY(parts_put_blob(out, bytes_of(f->bytes, f->size)));
        }
    }
    return status_ok();
}

void jobs_unpin(struct job_table *t, struct job_pin *p)
{
    CHECK(t->pinned);
    for (uint32_t i = 0; i < p->count; i++) {
        if (--p->pages[i]->holders == 0) {
            mem_free(p->pages[i]);
        }
    }
    mem_free(p->pages);
    mem_free(p);
    t->pinned = false;
}

/* ---- Loading ---- */

static struct status content_check(const struct state_job *s, struct errmsg *msg)
{
    bool fits = s->state >= INVOCATION_QUEUED && s->state <= INVOCATION_CANCELED &&
                s->priority >= 1 && s->priority <= SPAWN_PRIORITY_MAX && !id_is_zero(s->invocation);
    if (!fits) {
        return status_fail(msg, STATUS_CORRUPT, "an invocation in the snapshot is out of range");
    }
    struct name name;
    TRY(name_parse("invocation's function", s->function, strlen(s->function), &name, msg));
    TRY(name_parse("invocation's tenant", s->tenant, strlen(s->tenant), &name, msg));
    return strlen(s->key) <= SPAWN_KEY_BYTES_MAX
               ? status_ok()
               : status_fail(msg, STATUS_CORRUPT, "an invocation's key is too long");
}

struct status jobs_load(struct job_table *t, struct bytes frame, uint64_t now_ms,
                        struct errmsg *msg)
{
    struct arena a = {0};
    struct state_job s;
    struct status status = state_job_decode(frame, &a, &s, msg);
    if (status_is_ok(status)) {
        status = content_check(&s, msg);
    }
    bool known = status_is_ok(status) &&
                 (jobs_find(t, s.invocation) != NULL ||
                  (s.key[0] != '\0' && job_key_find(t, s.function, s.tenant, s.key) != NULL));
    if (status_is_ok(status) && (known || HASH_COUNT(t->jobs) >= JOBS_MAX)) {
        status = status_fail(msg, STATUS_CORRUPT, "the snapshot holds an invocation twice");
    }
    if (status_is_ok(status)) {
        struct job *j = job_new(t, &s, now_ms);
        slot_put_bytes(t, j->slot, frame);
    }
    arena_close(&a);
    return status;
}

#include "common/parts.h"

#include "common/mem.h"

struct buffer *parts_next(struct parts *p)
{
    if (p->count > 0 && p->items[p->count - 1].size < PARTS_BYTES) {
        return &p->items[p->count - 1];
    }
    struct buffer *items = mem_grow(p->items, p->count, &p->capacity, sizeof *items);
    if (items == NULL) {
        return NULL;
    }
    p->items = items;
    if (p->count > 0) {
        p->bytes += p->items[p->count - 1].size;
    }
    p->items[p->count] = (struct buffer){0};
    return &p->items[p->count++];
}

struct status parts_put_blob(struct parts *p, struct bytes blob)
{
    struct buffer *to = parts_next(p);
    return to == NULL ? status_of(STATUS_NOMEM) : buffer_put_blob(to, blob);
}

size_t parts_size(const struct parts *p)
{
    return p->count == 0 ? 0 : p->bytes + p->items[p->count - 1].size;
}

void parts_close(struct parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        buffer_close(&p->items[i]);
    }
    mem_free(p->items);
    *p = (struct parts){0};
}

#include "common/parts.h"

#include "common/mem.h"

enum { PARTS_FIRST = 16 };

struct buffer *parts_next(struct parts *p)
{
    if (p->count > 0 && p->items[p->count - 1].size < PARTS_BYTES) {
        return &p->items[p->count - 1];
    }
    if (p->count == p->capacity) {
        size_t capacity = p->capacity == 0 ? PARTS_FIRST : p->capacity * 2;
        struct buffer *items = mem_realloc(p->items, capacity * sizeof *items);
        if (items == NULL) {
            return NULL;
        }
        p->items = items;
        p->capacity = capacity;
    }
    if (p->count > 0) {
        p->bytes += p->items[p->count - 1].size;
    }
    p->items[p->count] = (struct buffer){0};
    return &p->items[p->count++];
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

/* A growing list of digests. */
#ifndef SCHEDULER_API_DIGESTS_H
#define SCHEDULER_API_DIGESTS_H

#include "common/ids.h"
#include "common/mem.h"
#include "common/status.h"

#include <stdlib.h>

struct digests {
    struct digest *items;
    size_t count, capacity;
};

/* NOMEM. */
NODISCARD static inline struct status digests_add(struct digests *l, const struct digest *d)
{
    struct digest *items = mem_grow(l->items, l->count, &l->capacity, sizeof *items);
    if (items == NULL) {
        return status_of(STATUS_NOMEM);
    }
    l->items = items;
    l->items[l->count++] = *d;
    return status_ok();
}

static inline int digests_order(const void *a, const void *b)
{
    return digest_compare(a, b);
}

static inline void digests_sort(struct digests *l)
{
    if (l->count > 0) {
        qsort(l->items, l->count, sizeof l->items[0], digests_order);
    }
}

/* Of a sorted list; borrowed, NULL when it is not there. */
static inline const struct digest *digests_find(const struct digests *l, const struct digest *d)
{
    return l->count == 0 ? NULL : bsearch(d, l->items, l->count, sizeof l->items[0], digests_order);
}

static inline void digests_close(struct digests *l)
{
    mem_free(l->items);
    *l = (struct digests){.count = 0};
}

#endif

/* uthash with our allocator. Iteration is in order of insertion, so it is the same on every
 * replica. Out of memory ends the process: a table that cannot grow inside the replicated apply
 * must stop its replica, and every table has a limit that comes first. */
#ifndef COMMON_HASH_H
#define COMMON_HASH_H

#include "common/check.h"
#include "common/mem.h"

#include <stddef.h>
#include <stdint.h>

#define uthash_malloc(size) mem_must(mem_alloc(size))
#define uthash_free(p, size) mem_free(p)
#define uthash_fatal(text) check_failed(__FILE__, __LINE__, text)
#include <uthash.h>
#include <utlist.h>

/* FNV-1a (www.isthe.com/chongo/tech/comp/fnv), going on from h; a first one starts from
 * HASH_FNV1A. */
#define HASH_FNV1A UINT64_C(0xcbf29ce484222325)
static inline uint64_t hash_fnv1a(uint64_t h, const void *data, size_t size)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++) {
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    }
    return h;
}

#endif

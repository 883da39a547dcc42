#include "common/mem.h"

#include "common/check.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROW_FIRST = 16 };

static _Thread_local struct {
    unsigned delay;
    unsigned count;
    unsigned delivered;
} fault;

static bool fault_due(void)
{
    if (__builtin_expect(fault.count == 0, 1)) {
        return false;
    }
    if (fault.delay > 0) {
        fault.delay--;
        return false;
    }
    fault.count--;
    fault.delivered++;
    return true;
}

void *mem_alloc(size_t bytes)
{
    return fault_due() ? NULL : malloc(bytes == 0 ? 1 : bytes);
}

void *mem_zalloc(size_t count, size_t bytes)
{
    return fault_due() ? NULL : calloc(count == 0 ? 1 : count, bytes == 0 ? 1 : bytes);
}

void *mem_realloc(void *old, size_t bytes)
{
    return fault_due() ? NULL : realloc(old, bytes == 0 ? 1 : bytes);
}

void *mem_dup(const void *from, size_t bytes)
{
    CHECK(from != NULL || bytes == 0);
    void *copy = mem_alloc(bytes);
    if (copy != NULL && bytes > 0) {
        memcpy(copy, from, bytes);
    }
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_dup(text, strlen(text) + 1);
}

void *mem_grow(void *items, size_t count, size_t *capacity, size_t item_bytes)
{
    CHECK(count <= *capacity && item_bytes > 0);
    if (count < *capacity) {
        return items;
    }
    size_t wanted = *capacity == 0 ? GROW_FIRST : *capacity * 2;
    CHECK(wanted <= SIZE_MAX / item_bytes);
    void *grown = mem_realloc(items, wanted * item_bytes);
    if (grown != NULL) {
        *capacity = wanted;
    }
    return grown;
}

void mem_free(void *p)
{
    free(p);
}

void *mem_must(void *p)
{
    if (p == NULL) {
        (void)fputs("out of memory\n", stderr);
        abort();
    }
    return p;
}

void mem_fault(unsigned delay, unsigned count)
{
    fault.delay = delay;
    fault.count = count;
    fault.delivered = 0;
}

unsigned mem_fault_clear(void)
{
    unsigned delivered = fault.delivered;
    fault.delay = 0;
    fault.count = 0;
    fault.delivered = 0;
    return delivered;
}

void mem_wipe(void *p, size_t bytes)
{
    explicit_bzero(p, bytes);
}

#include "common/arena.h"

#include "common/check.h"
#include "common/mem.h"

#include <stdalign.h>
#include <stdint.h>
#include <string.h>

enum { ARENA_ALIGN = 16 };

struct arena_block {
    struct arena_block *next;
    size_t size;
    size_t used;
    alignas(ARENA_ALIGN) unsigned char data[];
};

static struct arena_block *block_new(struct arena *a, size_t bytes)
{
    size_t size = bytes > ARENA_BLOCK_BYTES ? bytes : ARENA_BLOCK_BYTES;
    struct arena_block *b = mem_alloc(sizeof *b + size);
    if (b == NULL) {
        return NULL;
    }
    b->size = size;
    b->used = 0;
    b->next = a->head;
    a->head = b;
    return b;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    size_t max = a->bytes_max == 0 ? ARENA_BYTES_MAX_DEFAULT : a->bytes_max;
    if (bytes > max - a->bytes) {
        return NULL;
    }
    /* What it takes counts, not what was asked for: many one-byte texts must not take 16 times
     * bytes_max. */
    size_t need = (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (need > max - a->bytes) {
        return NULL;
    }
    struct arena_block *b = a->head;
    if (b == NULL || need > b->size - b->used) {
        b = block_new(a, need);
        if (b == NULL) {
            return NULL;
        }
    }
    void *p = b->data + b->used;
    b->used += need;
    a->bytes += need;
    CHECK(b->used <= b->size);
    return p;
}

void *arena_zalloc(struct arena *a, size_t count, size_t bytes)
{
    size_t total;
    if (__builtin_mul_overflow(count, bytes, &total)) {
        return NULL;
    }
    void *p = arena_alloc(a, total);
    if (p != NULL) {
        memset(p, 0, total);
    }
    return p;
}

char *arena_text(struct arena *a, const char *text, size_t size)
{
    char *copy = arena_alloc(a, size + 1);
    if (copy != NULL) {
        memcpy(copy, text, size);
        copy[size] = '\0';
    }
    return copy;
}

static void free_blocks(struct arena_block *b)
{
    while (b != NULL) {
        struct arena_block *next = b->next;
        mem_free(b);
        b = next;
    }
}

void arena_reset(struct arena *a)
{
    struct arena_block *b = a->head;
    if (b != NULL) {
        free_blocks(b->next);
        b->next = NULL;
        b->used = 0;
        if (b->size > ARENA_BLOCK_BYTES) {
            mem_free(b);
            a->head = NULL;
        }
    }
    a->bytes = 0;
}

void arena_close(struct arena *a)
{
    free_blocks(a->head);
    a->head = NULL;
    a->bytes = 0;
}

/* Bump allocation with one free for everything: the memory of a decoded message.
 *
 * Thread: the owner's. */
#ifndef COMMON_ARENA_H
#define COMMON_ARENA_H

#include <stddef.h>

struct arena_block;

/* All zeros but bytes_max is a valid empty arena; bytes_max 0 means ARENA_BYTES_MAX_DEFAULT. */
struct arena {
    struct arena_block *head;
    size_t bytes;
    size_t bytes_max;
};

enum { ARENA_BYTES_MAX_DEFAULT = 64 << 20, ARENA_BLOCK_BYTES = 8 << 10 };

/* 16-byte aligned memory, not cleared; NULL when out of memory or over bytes_max. */
void *arena_alloc(struct arena *a, size_t bytes);
/* As arena_alloc, cleared; NULL also when count times bytes overflows. */
void *arena_zalloc(struct arena *a, size_t count, size_t bytes);
/* A copy of text[0..size) with a NUL behind it. */
char *arena_text(struct arena *a, const char *text, size_t size);
/* Forgets all allocations, keeping one ordinary block for the next use. */
void arena_reset(struct arena *a);
void arena_close(struct arena *a);

#endif

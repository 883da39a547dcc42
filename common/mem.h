/* The allocator all our code uses, with fault injection for tests: mem_fault(n, k) makes the n-th
 * allocation from now on and the k - 1 after it fail.
 *
 * Thread: any. The fault counters are per thread, so that parallel tests and daemon threads do not
 * disturb each other. */
#ifndef COMMON_MEM_H
#define COMMON_MEM_H

#include <stddef.h>
#include <stdint.h>

/* As malloc, calloc and realloc; NULL when out of memory or when a fault is due. Sizes of 0 are
 * taken as 1. */
void *mem_alloc(size_t bytes);
void *mem_zalloc(size_t count, size_t bytes);
void *mem_realloc(void *old, size_t bytes);
char *mem_strdup(const char *text);
void *mem_dup(const void *from, size_t bytes);
/* Room for one more in a growing array: items, or where they are now, with capacity doubled when
 * all of it was used. NULL: out of memory; the array is as it was. */
void *mem_grow(void *items, size_t count, size_t *capacity, size_t item_bytes);
void mem_free(void *p);

/* As the functions above, but ends the process with a clear line when out of memory: for daemon
 * start-up and the command line, and for the replicated apply, where a replica that cannot follow
 * must stop. */
void *mem_must(void *p);

/* The next `delay` allocations of this thread succeed, the `count` after them fail. */
void mem_fault(unsigned delay, unsigned count);
/* Ends fault injection; returns how many faults were delivered since mem_fault. */
unsigned mem_fault_clear(void);

/* Overwrites key material in a way the compiler keeps. */
void mem_wipe(void *p, size_t bytes);

#endif

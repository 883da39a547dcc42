/* uthash with our allocator. Iteration is in order of insertion, so it is the same on every
 * replica. Out of memory ends the process: a table that cannot grow inside the replicated apply
 * must stop its replica, and every table has a limit that comes first. */
#ifndef COMMON_HASH_H
#define COMMON_HASH_H

#include "common/check.h"
#include "common/mem.h"

#define uthash_malloc(size) mem_must(mem_alloc(size))
#define uthash_free(p, size) mem_free(p)
#define uthash_fatal(text) check_failed(__FILE__, __LINE__, text)
#include <uthash.h>
#include <utlist.h>

#endif

/* The name by which programs ask for a shared library: DT_SONAME of an ELF file (elf(5)), 64 bits,
 * little-endian.
 *
 * Thread: any; no shared state. */
#ifndef AGENT_GPU_SONAME_H
#define AGENT_GPU_SONAME_H

#include "common/buffer.h"

enum { SONAME_BYTES = 256 };

/* False when the file is none, has no such name, or one that is no plain file name. */
bool soname_of(struct bytes file, char out[static SONAME_BYTES]);

#endif

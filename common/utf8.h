/* UTF-8, as far as we must know it: texts of strangers go into JSON and Prometheus' format, which
 * allow nothing else.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_UTF8_H
#define COMMON_UTF8_H

#include <stddef.h>

/* The bytes of the well-formed character at the start of a NUL-terminated text: 1 to 4, or 0 when
 * there is none (at the NUL too). RFC 3629, section 4: no overlong forms, no surrogates, nothing
 * over U+10FFFF. */
size_t utf8_size(const char *text);

#endif

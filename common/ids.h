/* Typed, sortable ids. An id is 128 bits: 48 bits of Unix milliseconds, then 80 bits that differ;
 * its text is 26 characters of Crockford's base 32 (as ULID: github.com/ulid/spec), behind a prefix
 * that tells the kind: "i-01J...". Texts sort as the ids do. Nodes and schedulers are named by
 * their operator, functions by their author; those are texts with a length limit.
 *
 * Thread: any; there is no shared state. */
#ifndef COMMON_IDS_H
#define COMMON_IDS_H

#include "common/status.h"

#include <stdint.h>

struct id128 {
    uint64_t high; /* 48 bits of milliseconds, 16 bits of difference */
    uint64_t low;
};

struct invocation_id {
    struct id128 v;
};
struct instance_id {
    struct id128 v;
};

enum {
    ID_TEXT_BYTES = 26,
    ID_PREFIX_BYTES = 2,
    ID_STRING_BYTES = ID_PREFIX_BYTES + ID_TEXT_BYTES + 1
};

/* Names of functions, nodes, schedulers, users, secrets: [a-z0-9] first, then [a-z0-9._-], at most
 * NAME_BYTES_MAX. */
enum { NAME_BYTES_MAX = 63 };
struct name {
    char text[NAME_BYTES_MAX + 1];
};

/* A SHA-256 digest; also the id of what has that digest (code chunk, revision). */
enum { DIGEST_BYTES = 32, DIGEST_STRING_BYTES = 2 * DIGEST_BYTES + 1 };
struct digest {
    uint8_t v[DIGEST_BYTES];
};

/* An id from a time and 80 random bits (the low 16 of high_random, all of low_random). */
struct id128 id_make(uint64_t now_ms, uint64_t high_random, uint64_t low_random);
int id_compare(struct id128 a, struct id128 b);
bool id_is_zero(struct id128 id);

/* Writes PREFIX-TEXT and a NUL. */
void id_format(struct id128 id, char prefix, char out[ID_STRING_BYTES]);
/* Reads the whole of text. INVALID with a message that names the text; *out is written only on
 * success. */
NODISCARD struct status id_parse(const char *text, char prefix, struct id128 *out,
                                 struct errmsg *msg);

enum { INVOCATION_PREFIX = 'v', INSTANCE_PREFIX = 'i' };

/* INVALID for characters outside the set, LIMIT for texts over NAME_BYTES_MAX; the message names
 * `what`. The text may hold any bytes: it is quoted with escapes in the message. */
NODISCARD struct status name_parse(const char *what, const char *text, size_t size,
                                   struct name *out, struct errmsg *msg);

void digest_format(const struct digest *d, char out[DIGEST_STRING_BYTES]);
NODISCARD struct status digest_parse(const char *text, struct digest *out, struct errmsg *msg);
int digest_compare(const struct digest *a, const struct digest *b);
bool digest_is_zero(const struct digest *d);

#endif

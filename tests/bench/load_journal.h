/* What the load tool was promised: a text file with a line for each acknowledged spawn, and one for
 * each outcome that was seen.
 *
 *     a TIME_US SENT_US KEY ID               acknowledged (times: CLOCK_MONOTONIC); SENT_US is when
 *                                            the question that was answered was sent
 *     o TIME_US SENT_US ID STATE CODE HASH   an outcome; HASH is of its output
 *     c TIME_US SENT_US                      a call that succeeded
 *
 * Thread: the owner's. */
#ifndef BENCH_LOAD_JOURNAL_H
#define BENCH_LOAD_JOURNAL_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/status.h"
#include "proto/message.h"

#include <stdint.h>
#include <stdio.h>

struct load_seen {
    uint32_t state; /* 0: no outcome was seen */
    uint32_t code;
    uint64_t hash;
};

struct load_promise {
    struct id128 id;
    uint64_t number; /* of its key */
    struct load_seen seen;
};

struct load_promises {
    struct load_promise *rows; /* by id */
    size_t count;
};

struct load_seen load_seen_of(const struct outcome *o);
bool load_seen_equal(const struct load_seen *a, const struct load_seen *b);

void load_journal_acknowledged(FILE *f, uint64_t now_us, uint64_t sent_us, const char *key,
                               struct id128 id);
void load_journal_outcome(FILE *f, uint64_t now_us, uint64_t sent_us, struct id128 id,
                          const struct load_seen *seen);
void load_journal_call(FILE *f, uint64_t now_us, uint64_t sent_us);

/* Reads a whole journal whose keys are PREFIX-NUMBER. Two acknowledgements of one key with
 * different ids, or of one id twice with different keys, are INVALID, with a message. */
NODISCARD struct status load_journal_read(const char *path, struct load_promises *out,
                                          struct errmsg *msg);
void load_promises_close(struct load_promises *p);

#endif

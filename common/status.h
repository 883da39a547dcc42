/* The one error type. Foreign codes (errno, libuv, nng, OpenSSL, raft) are translated into it where
 * they enter.
 *
 * Thread: any; there is no shared state. */
#ifndef COMMON_STATUS_H
#define COMMON_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#define NODISCARD __attribute__((warn_unused_result))

/* One row a code: name, stable wire number, text. Numbers travel in messages and are never
 * reused. */
#define STATUS_CODES(X)                                                                            \
    X(OK, 0, "ok")                                                                                 \
    X(INVALID, 1, "invalid input")                                                                 \
    X(NOT_FOUND, 2, "not found")                                                                   \
    X(EXISTS, 3, "already exists")                                                                 \
    X(LIMIT, 4, "limit reached")                                                                   \
    X(DENIED, 5, "denied")                                                                         \
    X(UNAVAILABLE, 6, "not reachable")                                                             \
    X(TIMEOUT, 7, "deadline exceeded")                                                             \
    X(CANCELED, 8, "canceled")                                                                     \
    X(UNKNOWN, 9, "outcome unknown")                                                               \
    X(IO, 10, "input/output error")                                                                \
    X(NOMEM, 11, "out of memory")                                                                  \
    X(CORRUPT, 12, "corrupt data")                                                                 \
    X(NOT_LEADER, 13, "not the leader")                                                            \
    X(FAILED, 14, "function failed")                                                               \
    X(CRASHED, 15, "instance ended")                                                               \
    X(UNSUPPORTED, 16, "not supported")                                                            \
    X(CONFLICT, 17, "conflicting change")                                                          \
    X(INTERNAL, 18, "internal error")

enum status_code {
#define STATUS_ENUM_ROW(name, number, text) STATUS_##name = number,
    STATUS_CODES(STATUS_ENUM_ROW)
#undef STATUS_ENUM_ROW
        STATUS_CODE_MAX_
};

struct status {
    enum status_code code;
};

/* Room for one line of context. Lives on the caller's stack; an empty text means no context was
 * given. */
enum { ERRMSG_BYTES_MAX = 512 };
struct errmsg {
    char text[ERRMSG_BYTES_MAX];
};

static inline struct status status_ok(void)
{
    return (struct status){STATUS_OK};
}

static inline struct status status_of(enum status_code code)
{
    return (struct status){code};
}

static inline bool status_is_ok(struct status s)
{
    return s.code == STATUS_OK;
}

/* "NOT_FOUND", for logs and JSON. An unknown number answers "INTERNAL". */
const char *status_name(enum status_code code);

/* "not found", for people. */
const char *status_text(enum status_code code);

/* A code from its wire number; numbers this build does not know become INTERNAL. */
enum status_code status_from_wire(unsigned number);

/* Writes the formatted line to msg (which may be NULL) and returns code, so that a failure is one
 * statement. */
struct status status_fail(struct errmsg *msg, enum status_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of what msg holds, cutting the tail when it does not fit; returns s
 * unchanged. */
struct status status_prefix(struct errmsg *msg, struct status s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The code that fits an errno value: ENOENT is NOT_FOUND, ENOMEM is NOMEM, everything unlisted is
 * IO. */
enum status_code status_from_errno(int error);

/* Returns from the calling function when the expression is not OK. */
#define TRY(expression)                                                                            \
    do {                                                                                           \
        struct status try_status_ = (expression);                                                  \
        if (!status_is_ok(try_status_)) {                                                          \
            return try_status_;                                                                    \
        }                                                                                          \
    } while (0)

#endif

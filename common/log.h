/* Structured logs: one line an event on standard error, key=value or JSON. Libraries return,
 * daemons log; modules that live long (link, replica) log what nobody is there to be told.
 *
 *     LOG_INFO("peer connected", LOG_STR("peer", name), LOG_UINT("bytes", n));
 *
 * Values are escaped, so that a peer cannot forge a line. Lines over LOG_LINE_BYTES_MAX are cut and
 * end in "...". Thread: any; a line is written by one write(2). */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LOG_LINE_BYTES_MAX = 2048, LOG_FIELDS_MAX = 16 };
enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_KV, LOG_FORMAT_JSON };

struct log_field {
    const char *key;
    enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_UINT, LOG_FIELD_BOOL } kind;
    union {
        const char *text;
        int64_t i;
        uint64_t u;
        bool b;
    };
};

#define LOG_STR(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_STR, .text = (v)})
#define LOG_INT(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_INT, .i = (int64_t)(v)})
#define LOG_UINT(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_UINT, .u = (uint64_t)(v)})
#define LOG_BOOL(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_BOOL, .b = (v)})

/* Set once at start, before threads: component is the daemon's name and must outlive the process's
 * logging. */
void log_open(const char *component, enum log_level level, enum log_format format, int fd);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *event, const struct log_field *fields,
               size_t count);

/* Formats one line, newline included, into out; returns its length. For tests and for other
 * sinks. */
size_t log_line(char *out, size_t out_size, enum log_format format, uint64_t unix_us,
                enum log_level level, const char *component, const char *event,
                const struct log_field *fields, size_t count);

#define LOG_AT(level, event, ...)                                                                  \
    do {                                                                                           \
        if (log_enabled(level)) {                                                                  \
            const struct log_field log_fields_[] = {{0}, ##__VA_ARGS__};                           \
            log_write(level, event, log_fields_ + 1,                                               \
                      sizeof log_fields_ / sizeof log_fields_[0] - 1);                             \
        }                                                                                          \
    } while (0)
#define LOG_DEBUG(event, ...) LOG_AT(LOG_LEVEL_DEBUG, event, ##__VA_ARGS__)
#define LOG_INFO(event, ...) LOG_AT(LOG_LEVEL_INFO, event, ##__VA_ARGS__)
#define LOG_WARN(event, ...) LOG_AT(LOG_LEVEL_WARN, event, ##__VA_ARGS__)
#define LOG_ERROR(event, ...) LOG_AT(LOG_LEVEL_ERROR, event, ##__VA_ARGS__)

#endif

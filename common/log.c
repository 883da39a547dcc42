#include "common/log.h"

#include "common/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Written once by log_open before threads exist, read everywhere: the one piece of process-wide
 * state besides main.c. */
static struct {
    const char *component;
    enum log_level level;
    enum log_format format;
    int fd;
} sink = {"skep", LOG_LEVEL_INFO, LOG_FORMAT_KV, STDERR_FILENO};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_open(const char *component, enum log_level level, enum log_format format, int fd)
{
    sink.component = component;
    sink.level = level;
    sink.format = format;
    sink.fd = fd;
}

bool log_enabled(enum log_level level)
{
    return level >= sink.level;
}

struct line {
    char *out;
    size_t size; /* room for text; the newline and "..." are kept back */
    size_t used;
    bool cut;
};

static void put_char(struct line *l, char c)
{
    if (l->used < l->size) {
        l->out[l->used++] = c;
    } else {
        l->cut = true;
    }
}

static void put_text(struct line *l, const char *text)
{
    for (; *text != '\0'; text++) {
        put_char(l, *text);
    }
}

__attribute__((format(printf, 2, 3))) static void put_format(struct line *l, const char *format,
                                                             ...)
{
    char small[64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(small, sizeof small, format, args);
    va_end(args);
    put_text(l, small);
}

/* Whole or not at all, so that a cut line ends between two characters. */
static void put_bytes(struct line *l, const char *bytes, size_t size)
{
    if (l->cut || size > l->size - l->used) {
        l->cut = true;
        return;
    }
    memcpy(l->out + l->used, bytes, size);
    l->used += size;
}

/* The controls of terminals above ASCII, U+0080 to U+009F, as UTF-8. */
static bool high_control(const char *text, size_t size)
{
    return size == 2 && (unsigned char)text[0] == 0xC2 && (unsigned char)text[1] < 0xA0;
}

/* Bytes that are not UTF-8 become \u00NN: a line is valid JSON whatever a peer calls itself. */
static void put_quoted(struct line *l, const char *text)
{
    put_char(l, '"');
    while (*text != '\0') {
        unsigned char c = (unsigned char)*text;
        size_t size = utf8_size(text);
        if (c == '"' || c == '\\') {
            const char escaped[] = {'\\', (char)c};
            put_bytes(l, escaped, sizeof escaped);
        } else if (size == 0 || c < ' ' || c == 0x7F) {
            put_format(l, "\\u%04x", c);
            size = 1;
        } else if (high_control(text, size)) {
            put_format(l, "\\u%04x", (unsigned char)text[1]);
        } else {
            put_bytes(l, text, size);
        }
        text += size;
    }
    put_char(l, '"');
}

static bool plain(const char *text)
{
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c <= ' ' || c >= 0x7F || c == '"' || c == '=' || c == '\\') {
            return false;
        }
    }
    return true;
}

static void put_string(struct line *l, enum log_format format, const char *text)
{
    if (text == NULL) {
        text = "";
    }
    if (format == LOG_FORMAT_KV && plain(text)) {
        put_text(l, text);
    } else {
        put_quoted(l, text);
    }
}

static void put_key(struct line *l, enum log_format format, const char *key)
{
    if (format == LOG_FORMAT_JSON) {
        put_text(l, l->used > 1 ? "," : "");
        put_quoted(l, key);
        put_char(l, ':');
    } else {
        put_text(l, l->used > 0 ? " " : "");
        put_text(l, key);
        put_char(l, '=');
    }
}

static void put_field(struct line *l, enum log_format format, const struct log_field *f)
{
    put_key(l, format, f->key);
    switch (f->kind) {
    case LOG_FIELD_STR:
        put_string(l, format, f->text);
        break;
    case LOG_FIELD_INT:
        put_format(l, "%" PRId64, f->i);
        break;
    case LOG_FIELD_UINT:
        put_format(l, "%" PRIu64, f->u);
        break;
    case LOG_FIELD_BOOL:
        put_text(l, f->b ? "true" : "false");
        break;
    }
}

/* A JSON line that does not fit ends before the field that would break it, so that it stays valid
 * JSON. */
static void put_fields(struct line *l, enum log_format format, const struct log_field *fields,
                       size_t count)
{
    for (size_t i = 0; i < count && !l->cut; i++) {
        size_t before = l->used;
        put_field(l, format, &fields[i]);
        if (l->cut && format == LOG_FORMAT_JSON) {
            l->used = before;
        }
    }
}

size_t log_line(char *out, size_t out_size, enum log_format format, uint64_t unix_us,
                enum log_level level, const char *component, const char *event,
                const struct log_field *fields, size_t count)
{
    static const char tail[] = "...\n";
    if (out_size <= sizeof tail + 2) {
        return 0;
    }
    struct line l = {out, out_size - sizeof tail - 2, 0, false};
    time_t seconds = (time_t)(unix_us / 1000000);
    struct tm tm = {0};
    (void)gmtime_r(&seconds, &tm);
    char stamp[48];
    size_t stamp_size = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(stamp + stamp_size, sizeof stamp - stamp_size, ".%06uZ",
                   (unsigned)(unix_us % 1000000));

    put_text(&l, format == LOG_FORMAT_JSON ? "{" : "");
    const struct log_field head[] = {LOG_STR("time", stamp), LOG_STR("level", level_names[level]),
                                     LOG_STR("component", component), LOG_STR("event", event)};
    put_fields(&l, format, head, sizeof head / sizeof head[0]);
    put_fields(&l, format, fields, count);
    size_t used = l.used;
    if (format == LOG_FORMAT_JSON) {
        out[used++] = '}';
        out[used++] = '\n';
        return used;
    }
    const char *end = l.cut ? tail : "\n";
    memcpy(out + used, end, strlen(end));
    return used + strlen(end);
}

void log_write(enum log_level level, const char *event, const struct log_field *fields,
               size_t count)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    uint64_t unix_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    char line[LOG_LINE_BYTES_MAX];
    size_t used = log_line(line, sizeof line, sink.format, unix_us, level, sink.component, event,
                           fields, count);
    /* A log that cannot be written has nowhere to say so. */
    ssize_t written = write(sink.fd, line, used);
    (void)written;
}

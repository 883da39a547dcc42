/* Records as tables or JSON, failures with their exit codes, and input. */
#include "cli/cli.h"

#include "common/mem.h"
#include "common/units.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    COLUMNS_MAX = 24,
    DIGEST_SHOWN = 12,
    CELL_SHOWN_MAX = 80,
    TIMEOUT_MS_MAX = 24 * 3600 * 1000
};

static const char *find(const struct record *r, const char *key)
{
    for (size_t i = 0; i < r->fields_count; i++) {
        if (strcmp(r->fields[i].key, key) == 0) {
            return r->fields[i].value;
        }
    }
    return "";
}

static json_t *json_of(const struct records *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->rows_count; i++) {
        json_t *object = json_object();
        for (size_t k = 0; k < r->rows[i].fields_count; k++) {
            const struct pair *p = &r->rows[i].fields[k];
            json_t *value = p->value_kind == 1
                                ? json_integer((json_int_t)strtoull(p->value, NULL, 10))
                            : p->value_kind == 2 ? json_boolean(strcmp(p->value, "true") == 0)
                                                 : json_string(p->value);
            (void)json_object_set_new(object, p->key, value == NULL ? json_string("?") : value);
        }
        (void)json_array_append_new(list, object);
    }
    return list;
}

/* Takes the list. */
static int output_json(FILE *to, json_t *list)
{
    int failed = json_dumpf(list, to, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    (void)fputc('\n', to);
    json_decref(list);
    return failed == 0 ? CLI_DONE : CLI_FAILED;
}

/* Whole digests help nobody in a table. */
static int shown(const char *key, const char *value)
{
    int size = (int)strlen(value);
    return strcmp(key, "revision") == 0 && size > DIGEST_SHOWN ? DIGEST_SHOWN : size;
}

static void output_lines(FILE *to, const struct record *r)
{
    for (size_t i = 0; i < r->fields_count; i++) {
        (void)fprintf(to, "%-22s %s\n", r->fields[i].key, r->fields[i].value);
    }
}

static void output_table(FILE *to, const struct records *r, const char *const *columns)
{
    int widths[COLUMNS_MAX];
    size_t count = 0;
    for (; columns[count] != NULL && count < COLUMNS_MAX; count++) {
        widths[count] = (int)strlen(columns[count]);
        for (size_t i = 0; i < r->rows_count; i++) {
            int width = shown(columns[count], find(&r->rows[i], columns[count]));
            widths[count] =
                width > widths[count] && width <= CELL_SHOWN_MAX ? width : widths[count];
        }
    }
    for (size_t k = 0; k + 1 < count; k++) {
        (void)fprintf(to, "%-*s  ", widths[k], columns[k]);
    }
    (void)fprintf(to, "%s\n", columns[count - 1]);
    for (size_t i = 0; i < r->rows_count; i++) {
        for (size_t k = 0; k < count; k++) {
            const char *value = find(&r->rows[i], columns[k]);
            int width = shown(columns[k], value);
            (void)fprintf(to, "%-*.*s%s", k + 1 < count ? widths[k] : 0, width, value,
                          k + 1 < count ? "  " : "\n");
        }
    }
}

int output_records(FILE *to, bool json, const struct records *r, const char *const *columns)
{
    if (json) {
        return output_json(to, json_of(r));
    }
    if (columns == NULL) {
        for (size_t i = 0; i < r->rows_count; i++) {
            output_lines(to, &r->rows[i]);
        }
    } else {
        output_table(to, r, columns);
    }
    return CLI_DONE;
}

int output_whole(FILE *to, bool json, const struct records *whole, const char *key,
                 const struct records *parts, const char *const *columns)
{
    if (json) {
        json_t *list = json_of(whole);
        (void)json_object_set_new(json_array_get(list, 0), key, json_of(parts));
        return output_json(to, list);
    }
    (void)output_records(to, false, whole, NULL);
    if (parts->rows_count > 0) {
        (void)fputc('\n', to);
        output_table(to, parts, columns);
    }
    return CLI_DONE;
}

const char *record_value(const struct record *r, const char *key)
{
    return find(r, key);
}

/* ---- Failing ---- */

enum exit_code cli_exit_code(enum status_code code)
{
    switch (code) {
    case STATUS_OK:
        return CLI_DONE;
    case STATUS_INVALID:
    case STATUS_UNSUPPORTED:
        return CLI_USAGE;
    case STATUS_UNAVAILABLE:
    case STATUS_NOT_LEADER:
        return CLI_UNREACHABLE;
    case STATUS_DENIED:
        return CLI_DENIED;
    case STATUS_UNKNOWN:
        return CLI_UNKNOWN;
    default:
        return CLI_FAILED;
    }
}

void output_safe(FILE *to, struct bytes text)
{
    uint8_t last = ' ';
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        /* C0 but tabs and newlines; DEL; C1, alone or as UTF-8 (C2 80 to C2 9F). */
        bool c1 = c >= 0x80 && c < 0xA0 && (last < 0x80 || last == 0xC2);
        last = (c < ' ' && c != '\n' && c != '\t') || c == 0x7F || c1 ? '?' : c;
        (void)fputc(last, to);
    }
}

int cli_fail(struct status s, const char *message)
{
    const char *text = message[0] != '\0' ? message : status_text(s.code);
    (void)fputs("skep: ", stderr);
    output_safe(stderr, bytes_of(text, strlen(text)));
    (void)fputc('\n', stderr);
    return (int)cli_exit_code(s.code);
}

int cli_usage(const char *format, ...)
{
    (void)fputs("skep: ", stderr);
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    return CLI_USAGE;
}

/* ---- Input ---- */

struct status input_read(const char *path, size_t max, struct buffer *out, struct errmsg *msg)
{
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    struct status s = status_ok();
    for (;;) {
        s = buffer_reserve(out, 64 << 10);
        ssize_t got = status_is_ok(s) ? read(fd, out->data + out->size, 64 << 10) : 0;
        if (got < 0) {
            s = status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
        }
        if (got <= 0) {
            break;
        }
        out->size += (size_t)got;
        if (out->size > max) {
            s = status_fail(msg, STATUS_INVALID,
                            "%s is larger than the %zu bytes that a payload may have", path, max);
            break;
        }
    }
    if (!standard) {
        (void)close(fd);
    }
    return s;
}

struct status duration_of(const char *what, const char *text, uint64_t otherwise_ms, uint64_t *ms,
                          struct errmsg *msg)
{
    if (text == NULL) {
        *ms = otherwise_ms;
        return status_ok();
    }
    struct status s = unit_parse(UNIT_DURATION, text, strlen(text), ms, msg);
    return status_is_ok(s) ? s : status_prefix(msg, status_of(STATUS_INVALID), "%s", what);
}

struct status timeout_of(const char *text, uint32_t *ms, struct errmsg *msg)
{
    uint64_t wide_ms = 0;
    TRY(duration_of("--timeout", text, 0, &wide_ms, msg));
    if (wide_ms > TIMEOUT_MS_MAX) {
        return status_fail(msg, STATUS_INVALID, "--timeout: at most 24h is allowed");
    }
    *ms = (uint32_t)wide_ms;
    return status_ok();
}

#include "tests/unit/common/exposition.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES_MAX = 4096, LINES_MAX = 20000, NAME_BYTES = 160 };

struct sample {
    char name[NAME_BYTES];
    char labels[LINE_BYTES_MAX]; /* without le */
    bool has_le;
    double le;
    double value;
};

struct parser {
    char family[NAME_BYTES];
    char type[16];
    int stage; /* 0: nothing yet, 1: HELP seen, 2: TYPE seen, 3: samples */
    char seen[512][NAME_BYTES];
    size_t seen_count;
    /* The histogram series that is being read. */
    bool in_buckets;
    char bucket_labels[LINE_BYTES_MAX];
    double last_le, last_count, sum_seen;
    bool infinity_seen;
};

static const char *name_end(const char *at, bool colons)
{
    const char *start = at;
    while ((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || *at == '_' ||
           (colons && *at == ':') || (at > start && *at >= '0' && *at <= '9')) {
        at++;
    }
    return at == start ? NULL : at;
}

static bool take_name(const char **at, char out[NAME_BYTES])
{
    const char *end = name_end(*at, true);
    if (end == NULL || end - *at >= NAME_BYTES) {
        return false;
    }
    memcpy(out, *at, (size_t)(end - *at));
    out[end - *at] = '\0';
    *at = end;
    return true;
}

static bool take_number(const char *text, double *out)
{
    if (*text == '\0' || strpbrk(text, " \txXpP") != NULL) {
        return false;
    }
    char *end = NULL;
    *out = strtod(text, &end);
    return *end == '\0';
}

/* Between quotes, with the three escapes; returns what follows the closing quote. */
static const char *value_end(const char *at)
{
    for (; *at != '"'; at++) {
        if (*at == '\0' || *at == '\n') {
            return NULL;
        }
        if (*at == '\\') {
            at++;
            if (*at != '\\' && *at != '"' && *at != 'n') {
                return NULL;
            }
        }
    }
    return at + 1;
}

/* {a="b",le="1"}: checks the form, takes le out. */
static const char *take_labels(const char **from, struct sample *s)
{
    const char *at = *from;
    char names[16][NAME_BYTES];
    size_t count = 0;
    size_t used = 0;
    if (*at != '{') {
        return NULL;
    }
    do {
        const char *start = ++at;
        const char *end = name_end(at, false);
        if (end == NULL || count == 16 || end - at >= NAME_BYTES) {
            return "label name";
        }
        (void)snprintf(names[count], NAME_BYTES, "%.*s", (int)(end - at), at);
        for (size_t i = 0; i < count; i++) {
            if (strcmp(names[i], names[count]) == 0) {
                return "label twice";
            }
        }
        at = end;
        if (at[0] != '=' || at[1] != '"') {
            return "label without =\"";
        }
        const char *value = at + 2;
        at = value_end(value);
        if (at == NULL) {
            return "label value";
        }
        if (strcmp(names[count], "le") == 0) {
            char number[64];
            (void)snprintf(number, sizeof number, "%.*s", (int)(at - 1 - value), value);
            s->has_le = true;
            if (!take_number(number, &s->le)) {
                return "le is no number";
            }
        } else {
            used += (size_t)snprintf(s->labels + used, sizeof s->labels - used, "%.*s,",
                                     (int)(at - start), start);
        }
        count++;
    } while (*at == ',');
    if (*at != '}') {
        return "labels do not end";
    }
    *from = at + 1;
    return NULL;
}

static const char *parse_head(struct parser *p, const char *line)
{
    bool help = strncmp(line, "# HELP ", 7) == 0;
    if (!help && strncmp(line, "# TYPE ", 7) != 0) {
        return "comment that is neither HELP nor TYPE";
    }
    const char *at = line + 7;
    char name[NAME_BYTES];
    if (!take_name(&at, name) || *at++ != ' ' || *at == '\0') {
        return "HELP or TYPE without name and text";
    }
    if (!help) {
        if (p->stage != 1 || strcmp(name, p->family) != 0) {
            return "TYPE not behind its HELP";
        }
        if (strcmp(at, "counter") != 0 && strcmp(at, "gauge") != 0 &&
            strcmp(at, "histogram") != 0) {
            return "unknown TYPE";
        }
        (void)snprintf(p->type, sizeof p->type, "%s", at);
        p->stage = 2;
        return NULL;
    }
    if (p->stage == 1 || p->stage == 2) {
        return "family without samples";
    }
    if (p->in_buckets) {
        return "histogram without count";
    }
    for (const char *c = at; *c != '\0'; c++) {
        if (*c == '\\' && *++c != '\\' && *c != 'n') {
            return "escape in HELP";
        }
    }
    for (size_t i = 0; i < p->seen_count; i++) {
        if (strcmp(p->seen[i], name) == 0) {
            return "family twice";
        }
    }
    if (p->seen_count == 512) {
        return "too many families for the test";
    }
    (void)snprintf(p->seen[p->seen_count++], NAME_BYTES, "%s", name);
    (void)snprintf(p->family, NAME_BYTES, "%s", name);
    p->stage = 1;
    return NULL;
}

/* _bucket... _bucket{+Inf} _sum _count, for each set of labels. */
static const char *parse_histogram(struct parser *p, const struct sample *s)
{
    const char *suffix = s->name + strlen(p->family);
    if (p->in_buckets && strcmp(p->bucket_labels, s->labels) != 0) {
        return "histogram series mixed";
    }
    if (strcmp(suffix, "_bucket") == 0) {
        if (!s->has_le || p->infinity_seen) {
            return "bucket without le, or behind +Inf";
        }
        if (p->in_buckets && (s->le <= p->last_le || s->value < p->last_count)) {
            return "buckets do not rise";
        }
        p->in_buckets = true;
        memcpy(p->bucket_labels, s->labels, sizeof p->bucket_labels);
        p->last_le = s->le;
        p->last_count = s->value;
        p->infinity_seen = isinf(s->le) && s->le > 0;
        return NULL;
    }
    if (s->has_le || !p->infinity_seen) {
        return "sum or count before the last bucket";
    }
    if (strcmp(suffix, "_sum") == 0) {
        return NULL;
    }
    if (strcmp(suffix, "_count") != 0) {
        return "unknown histogram sample";
    }
    if (s->value < p->last_count || s->value > p->last_count) {
        return "count is not the last bucket's";
    }
    p->in_buckets = false;
    p->infinity_seen = false;
    return NULL;
}

static const char *parse_sample(struct parser *p, const char *line)
{
    static struct sample s;
    s = (struct sample){0};
    const char *at = line;
    if (p->stage < 2) {
        return "sample before HELP and TYPE";
    }
    if (!take_name(&at, s.name)) {
        return "sample name";
    }
    const char *error = take_labels(&at, &s);
    if (error != NULL) {
        return error;
    }
    if (*at++ != ' ' || !take_number(at, &s.value)) {
        return "sample value";
    }
    p->stage = 3;
    if (strcmp(p->type, "histogram") == 0) {
        return strncmp(s.name, p->family, strlen(p->family)) == 0 ? parse_histogram(p, &s)
                                                                  : "sample of another family";
    }
    if (s.has_le || strcmp(s.name, p->family) != 0) {
        return "sample of another family";
    }
    return strcmp(p->type, "counter") == 0 && !(s.value >= 0) ? "negative counter" : NULL;
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines without their numbers: a series that comes twice is then beside itself. */
static const char *find_twice(char **lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        *strrchr(lines[i], ' ') = '\0';
    }
    qsort(lines, count, sizeof lines[0], compare_lines);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(lines[i - 1], lines[i]) == 0) {
            return "sample twice";
        }
    }
    return NULL;
}

static const char *parse_lines(char *text)
{
    static struct parser p;
    static char *samples[LINES_MAX];
    p = (struct parser){0};
    size_t count = 0;
    const char *error = NULL;
    for (char *line = text; *line != '\0' && error == NULL;) {
        char *end = strchr(line, '\n');
        if (end == NULL || end == line || end - line >= LINE_BYTES_MAX || count == LINES_MAX) {
            return "line that is empty, too long or not ended";
        }
        *end = '\0';
        if (*line == '#') {
            error = parse_head(&p, line);
        } else {
            samples[count++] = line;
            error = parse_sample(&p, line);
        }
        line = end + 1;
    }
    if (error == NULL && (p.stage != 3 || p.in_buckets)) {
        error = "last family not complete";
    }
    return error != NULL ? error : find_twice(samples, count);
}

const char *exposition_error(struct bytes text)
{
    json_t *utf8 = json_stringn((const char *)text.data, text.size);
    if (utf8 == NULL) {
        return "not UTF-8";
    }
    json_decref(utf8);
    char *copy = calloc(1, text.size + 1);
    if (copy == NULL) {
        return "out of memory";
    }
    memcpy(copy, text.data, text.size);
    const char *error = strlen(copy) == text.size ? parse_lines(copy) : "NUL in the text";
    free(copy);
    return error;
}

const char *exposition_value(struct bytes text, const char *series)
{
    static char value[64];
    size_t size = strlen(series);
    const char *end = (const char *)text.data + text.size;
    for (const char *line = (const char *)text.data; line < end;) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        if (next == NULL) {
            break;
        }
        if ((size_t)(next - line) > size && memcmp(line, series, size) == 0 && line[size] == ' ') {
            (void)snprintf(value, sizeof value, "%.*s", (int)(next - line - (long)size - 1),
                           line + size + 1);
            return value;
        }
        line = next + 1;
    }
    return NULL;
}

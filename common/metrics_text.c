#include "common/metrics_text.h"

#include "common/check.h"
#include "common/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_STRING_BYTES = 40 };

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool word_valid(const char *text, bool colons)
{
    if (text == NULL || text[0] == '\0' || strlen(text) > METRICS_NAME_BYTES_MAX) {
        return false;
    }
    for (const char *at = text; *at != '\0'; at++) {
        bool digit = *at >= '0' && *at <= '9' && at != text;
        if (!letter(*at) && !digit && !(colons && *at == ':')) {
            return false;
        }
    }
    return true;
}

bool metrics_name_valid(const char *name)
{
    return word_valid(name, true);
}

static bool label_name_valid(const char *name)
{
    return word_valid(name, false) && strncmp(name, "__", 2) != 0 && strcmp(name, "le") != 0;
}

/* The value with its escapes; returns where it ends. Room for two bytes each is the caller's. */
static char *put_value(char *out, const char *value)
{
    const unsigned char *at = (const unsigned char *)value;
    const unsigned char *end = at + METRICS_LABEL_VALUE_BYTES_MAX;
    while (*at != '\0' && at < end) {
        size_t size = utf8_size((const char *)at);
        if (size == 0) {
            *out++ = '?';
            at++;
            continue;
        }
        if (size > (size_t)(end - at)) {
            break; /* a character is not cut in two */
        }
        if (*at == '\\' || *at == '"' || *at == '\n') {
            *out++ = '\\';
            *out++ = *at == '\n' ? 'n' : (char)*at;
        } else {
            memcpy(out, at, size);
            out += size;
        }
        at += size;
    }
    return out;
}

void metrics_labels_format(struct metric_labels labels, char out[METRICS_LABELS_TEXT_BYTES])
{
    CHECK(labels.count <= METRICS_LABELS_MAX);
    const struct metric_label *sorted[METRICS_LABELS_MAX];
    for (size_t i = 0; i < labels.count; i++) {
        const struct metric_label *label = &labels.labels[i];
        CHECK(label_name_valid(label->name));
        size_t at = i;
        for (; at > 0 && strcmp(sorted[at - 1]->name, label->name) > 0; at--) {
            sorted[at] = sorted[at - 1];
        }
        CHECK(at == 0 || strcmp(sorted[at - 1]->name, label->name) != 0);
        sorted[at] = label;
    }
    char *end = out;
    for (size_t i = 0; i < labels.count; i++) {
        size_t room = METRICS_LABELS_TEXT_BYTES - (size_t)(end - out);
        end += snprintf(end, room, "%s%s=\"", i == 0 ? "" : ",", sorted[i]->name);
        end = put_value(end, sorted[i]->value == NULL ? "" : sorted[i]->value);
        *end++ = '"';
    }
    *end = '\0';
}

/* Few digits where they are exact, as many as it takes otherwise. */
static void number_format(double value, char out[NUMBER_STRING_BYTES])
{
    if (__builtin_isnan(value)) {
        (void)snprintf(out, NUMBER_STRING_BYTES, "NaN");
    } else if (__builtin_isinf(value)) {
        (void)snprintf(out, NUMBER_STRING_BYTES, value < 0 ? "-Inf" : "+Inf");
    } else {
        (void)snprintf(out, NUMBER_STRING_BYTES, "%.15g", value);
        if (strtod(out, NULL) < value || strtod(out, NULL) > value) {
            (void)snprintf(out, NUMBER_STRING_BYTES, "%.17g", value);
        }
    }
}

/* A whole number in units of 1/divisor. */
static void amount_format(uint64_t value, uint64_t divisor, char out[NUMBER_STRING_BYTES])
{
    if (divisor <= 1) {
        (void)snprintf(out, NUMBER_STRING_BYTES, "%" PRIu64, value);
    } else {
        number_format((double)value / (double)divisor, out);
    }
}

static struct status print_line(struct buffer *out, const char *name, const char *suffix,
                                const char *labels, const char *number)
{
    const bool bare = labels[0] == '\0';
    return buffer_printf(out, "%s%s%s%s%s %s\n", name, suffix, bare ? "" : "{", labels,
                         bare ? "" : "}", number);
}

static struct status print_distribution(const struct series *s, struct buffer *out)
{
    const struct metric_def *def = s->family->def;
    const char *comma = s->labels[0] == '\0' ? "" : ",";
    char number[NUMBER_STRING_BYTES];
    uint64_t count = 0;
    for (size_t i = 0; i < def->bounds_count; i++) {
        count += s->distribution.counts[i];
        amount_format(def->bounds[i], def->divisor, number);
        TRY(buffer_printf(out, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", def->name, s->labels,
                          comma, number, count));
    }
    count += s->distribution.counts[def->bounds_count];
    TRY(buffer_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", def->name, s->labels, comma,
                      count));
    amount_format(s->distribution.sum, def->divisor, number);
    TRY(print_line(out, def->name, "_sum", s->labels, number));
    amount_format(count, 1, number);
    return print_line(out, def->name, "_count", s->labels, number);
}

static struct status print_series(const struct series *s, struct buffer *out)
{
    const struct metric_def *def = s->family->def;
    char number[NUMBER_STRING_BYTES];
    switch (s->family->kind) {
    case METRIC_COUNTER:
        amount_format(s->read_counter != NULL ? s->read_counter(s->data) : s->counter.value,
                      def->divisor, number);
        return print_line(out, def->name, "", s->labels, number);
    case METRIC_GAUGE:
        number_format(s->read_gauge != NULL ? s->read_gauge(s->data) : s->gauge.value, number);
        return print_line(out, def->name, "", s->labels, number);
    case METRIC_DISTRIBUTION:
        return print_distribution(s, out);
    }
    CHECK(false);
    return status_of(STATUS_INTERNAL);
}

static struct status print_head(const struct family *f, struct buffer *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    TRY(buffer_printf(out, "# HELP %s ", f->def->name));
    for (const char *at = f->def->help; *at != '\0'; at++) {
        const char escaped[] = {'\\', *at == '\n' ? 'n' : '\\'};
        if (*at == '\n' || *at == '\\') {
            TRY(buffer_append(out, escaped, sizeof escaped));
        } else {
            TRY(buffer_append(out, at, 1));
        }
    }
    return buffer_printf(out, "\n# TYPE %s %s\n", f->def->name, types[f->kind]);
}

struct status metrics_family_print(const struct family *f, struct buffer *out)
{
    TRY(print_head(f, out));
    for (const struct series *s = f->first; s != NULL; s = s->next) {
        TRY(print_series(s, out));
    }
    return status_ok();
}

/* Inside of metrics: what a family and a series are, and their text. Nobody else includes it.
 *
 * Thread: the registry's. */
#ifndef COMMON_METRICS_TEXT_H
#define COMMON_METRICS_TEXT_H

#include "common/metrics.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_DISTRIBUTION };

struct series {
    struct family *family;
    struct series *next, *previous; /* of the family */
    struct series *hash_next;
    uint64_t hash;
    char *labels; /* a="x",b="y": escaped, sorted by name; empty without labels */
    uint64_t (*read_counter)(void *data);
    double (*read_gauge)(void *data);
    void *data;
    struct counter counter;
    struct gauge gauge;
    struct distribution distribution; /* last: it ends in its counts */
};

struct family {
    const struct metric_def *def;
    enum metric_kind kind;
    struct series *first, *last;
};

/* Every byte of a value may need two, and a name, ="", and a comma are around it. */
enum {
    METRICS_LABELS_TEXT_BYTES =
        METRICS_LABELS_MAX * (METRICS_NAME_BYTES_MAX + 2 * METRICS_LABEL_VALUE_BYTES_MAX + 4) + 1
};

bool metrics_name_valid(const char *name);

/* Sorted by name, escaped, values cut at METRICS_LABEL_VALUE_BYTES_MAX. */
void metrics_labels_format(struct metric_labels labels, char out[METRICS_LABELS_TEXT_BYTES]);

/* HELP, TYPE and all series. NOMEM; what was appended until then stays. */
NODISCARD struct status metrics_family_print(const struct family *f, struct buffer *out);

#endif

/* The registry of everything a daemon counts, and its text for Prometheus (exposition format 0.0.4:
 * prometheus.io/docs/instrumenting/exposition_formats).
 *
 * A series is registered once and then updated through its handle, which costs an add:
 *
 *     static const struct metric_def calls = {"skep_calls_total", "Calls answered.", .divisor = 1};
 *     struct counter *ok = metrics_counter(m, &calls, METRIC_LABELS({"outcome", "ok"}));
 *     counter_add(ok, 1);
 *
 * Registering never fails: over METRICS_SERIES_MAX, or out of memory, it gives a handle that counts
 * into nothing, and skep_metrics_dropped_total tells. So no caller has an error path for a metric,
 * and a flood of label values costs a bounded amount of memory.
 *
 * Thread: the owner's (the loop thread). What other threads count they keep themselves, and a
 * callback reads it. */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include "common/buffer.h"
#include "common/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    METRICS_SERIES_MAX = 16384,
    METRICS_FAMILIES_MAX = 512,
    METRICS_LABELS_MAX = 8,
    METRICS_NAME_BYTES_MAX = 128,
    METRICS_LABEL_VALUE_BYTES_MAX = 128, /* longer values are cut */
    METRICS_BOUNDS_MAX = 32,
};

struct metrics;

/* What a family of series is. name is [a-zA-Z_:][a-zA-Z0-9_:]*, ends in _total for counters and in
 * the base unit otherwise (_seconds, _bytes). help is one sentence. Counters and distributions hold
 * whole numbers and are printed divided by divisor (1000000 for microseconds in a family of
 * seconds; 0 is taken as 1). bounds are a distribution's upper bounds, inclusive, rising, in
 * undivided units. The texts and bounds are borrowed for ever: use static const. */
struct metric_def {
    const char *name;
    const char *help;
    uint64_t divisor;
    const uint64_t *bounds;
    size_t bounds_count;
};

/* name is [a-zA-Z_][a-zA-Z0-9_]*, without a leading "__", not "le", borrowed for the call. value
 * may hold any bytes: bytes that are not UTF-8 become '?'. */
struct metric_label {
    const char *name;
    const char *value;
};
struct metric_labels {
    const struct metric_label *labels;
    size_t count;
};

/* METRIC_LABELS({"function", name}, {"outcome", "ok"}), or METRIC_NO_LABELS. */
#define METRIC_LABELS(...)                                                                         \
    ((struct metric_labels){(const struct metric_label[]){__VA_ARGS__},                            \
                            sizeof((const struct metric_label[]){__VA_ARGS__}) /                   \
                                sizeof(struct metric_label)})
#define METRIC_NO_LABELS ((struct metric_labels){NULL, 0})

/* Only ever grows. */
struct counter {
    uint64_t value;
};
struct gauge {
    double value;
};
/* How many values fell between each two bounds. */
struct distribution {
    const uint64_t *bounds;
    size_t bounds_count;
    uint64_t sum;
    uint64_t
        counts[METRICS_BOUNDS_MAX + 1]; /* each of its own range; the last is over all bounds */
};

/* series_max of 0 means METRICS_SERIES_MAX. NOMEM. */
NODISCARD struct status metrics_open(struct metrics **out, size_t series_max);
/* NULL is fine. All handles end. */
void metrics_free(struct metrics *m);

/* A handle, good until it is removed or the registry freed; the same name and labels, in any order,
 * give the same handle. One name has one kind. */
struct counter *metrics_counter(struct metrics *m, const struct metric_def *def,
                                struct metric_labels labels);
struct gauge *metrics_gauge(struct metrics *m, const struct metric_def *def,
                            struct metric_labels labels);
struct distribution *metrics_distribution(struct metrics *m, const struct metric_def *def,
                                          struct metric_labels labels);

/* Series whose value is asked for while printing, on the printing thread; fn may not touch the
 * registry. Registering the same series again replaces fn and data. A counter's fn gives undivided
 * values. */
void metrics_counter_callback(struct metrics *m, const struct metric_def *def,
                              struct metric_labels labels, uint64_t (*fn)(void *data), void *data);
void metrics_gauge_callback(struct metrics *m, const struct metric_def *def,
                            struct metric_labels labels, double (*fn)(void *data), void *data);

/* Ends a series: a function was deleted, a node left. The handle may not be used again. */
void metrics_remove_counter(struct metrics *m, struct counter *c);
void metrics_remove_gauge(struct metrics *m, struct gauge *g);
void metrics_remove_distribution(struct metrics *m, struct distribution *d);
/* Ends every callback series registered with this data, for whoever is about to free it. */
void metrics_remove_callbacks(struct metrics *m, const void *data);

static inline void counter_add(struct counter *c, uint64_t n)
{
    c->value += n;
}

static inline void gauge_set(struct gauge *g, double value)
{
    g->value = value;
}

static inline void gauge_add(struct gauge *g, double delta)
{
    g->value += delta;
}

static inline void distribution_record(struct distribution *d, uint64_t value)
{
    size_t i = 0;
    while (i < d->bounds_count && value > d->bounds[i]) {
        i++;
    }
    d->counts[i]++;
    d->sum += value;
}

size_t metrics_series_count(const struct metrics *m);

/* Appends the text of all series: families in the order of their first registration, series
 * likewise. NOMEM; the buffer's content is unchanged then. */
NODISCARD struct status metrics_print(const struct metrics *m, struct buffer *out);

/* The Content-Type of that text. */
#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif

#include "common/metrics.h"

#include "common/check.h"
#include "common/mem.h"
#include "common/metrics_text.h"

#include <string.h>

enum { HASH_BUCKETS_MIN = 64 };

/* The registry owns families, in order; a family owns its series, in order. All series hang in one
 * hash table by family and label text as well, so that registering is quick whatever their number.
 */
struct metrics {
    struct family *families[METRICS_FAMILIES_MAX];
    size_t families_count;
    struct series **hash;
    size_t hash_mask;
    size_t series_count;
    size_t series_max;
    uint64_t dropped;
    /* Where handles lead that could not be registered. The last has no bounds and one count behind
     * the struct. */
    struct counter sink_counter;
    struct gauge sink_gauge;
    struct distribution sink_distribution;
};

struct status metrics_open(struct metrics **out, size_t series_max)
{
    size_t limit = series_max == 0 ? METRICS_SERIES_MAX : series_max;
    CHECK(limit <= METRICS_SERIES_MAX);
    size_t buckets = HASH_BUCKETS_MIN;
    while (buckets < limit) {
        buckets *= 2;
    }
    struct metrics *m = mem_zalloc(1, sizeof *m + sizeof(uint64_t));
    struct series **hash = mem_zalloc(buckets, sizeof(struct series *));
    if (m == NULL || hash == NULL) {
        mem_free(m);
        mem_free(hash);
        return status_of(STATUS_NOMEM);
    }
    m->hash = hash;
    m->hash_mask = buckets - 1;
    m->series_max = limit;
    *out = m;
    return status_ok();
}

static void series_free(struct series *s)
{
    mem_free(s->labels);
    mem_free(s);
}

void metrics_free(struct metrics *m)
{
    if (m == NULL) {
        return;
    }
    for (size_t i = 0; i < m->families_count; i++) {
        for (struct series *s = m->families[i]->first; s != NULL;) {
            struct series *next = s->next;
            series_free(s);
            s = next;
        }
        mem_free(m->families[i]);
    }
    mem_free(m->hash);
    mem_free(m);
}

size_t metrics_series_count(const struct metrics *m)
{
    return m->series_count;
}

static void check_def(const struct metric_def *def, enum metric_kind kind)
{
    CHECK(metrics_name_valid(def->name));
    CHECK(def->help != NULL && def->help[0] != '\0');
    size_t size = strlen(def->name);
    CHECK_IMPLIES(kind == METRIC_COUNTER, size > 6 && strcmp(def->name + size - 6, "_total") == 0);
    CHECK((kind == METRIC_DISTRIBUTION) == (def->bounds_count > 0));
    CHECK(def->bounds_count <= METRICS_BOUNDS_MAX);
    for (size_t i = 1; i < def->bounds_count; i++) {
        CHECK(def->bounds[i - 1] < def->bounds[i]);
    }
}

/* The family of the name, made when there is none; NULL when it cannot be made. */
static struct family *family_get(struct metrics *m, const struct metric_def *def,
                                 enum metric_kind kind)
{
    for (size_t i = 0; i < m->families_count; i++) {
        struct family *f = m->families[i];
        if (f->def == def || strcmp(f->def->name, def->name) == 0) {
            CHECK(f->kind == kind);
            return f;
        }
    }
    check_def(def, kind);
    if (m->families_count == METRICS_FAMILIES_MAX) {
        return NULL;
    }
    struct family *f = mem_zalloc(1, sizeof *f);
    if (f != NULL) {
        f->def = def;
        f->kind = kind;
        m->families[m->families_count++] = f;
    }
    return f;
}

/* FNV-1a (Fowler, Noll, Vo). The values come from our operators' names; the table is as large as it
 * may get full. */
static uint64_t hash_of(const struct family *f, const char *labels)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const char *at = f->def->name; *at != '\0'; at++) {
        hash = (hash ^ (unsigned char)*at) * UINT64_C(1099511628211);
    }
    for (const char *at = labels; *at != '\0'; at++) {
        hash = (hash ^ (unsigned char)*at) * UINT64_C(1099511628211);
    }
    return hash;
}

static struct series *series_find(const struct metrics *m, const struct family *f, uint64_t hash,
                                  const char *labels)
{
    for (struct series *s = m->hash[hash & m->hash_mask]; s != NULL; s = s->hash_next) {
        if (s->hash == hash && s->family == f && strcmp(s->labels, labels) == 0) {
            return s;
        }
    }
    return NULL;
}

static struct series *series_make(struct family *f, uint64_t hash, const char *labels)
{
    size_t counts = f->kind == METRIC_DISTRIBUTION ? f->def->bounds_count + 1 : 0;
    struct series *s = mem_zalloc(1, sizeof *s + counts * sizeof(uint64_t));
    char *text = mem_strdup(labels);
    if (s == NULL || text == NULL) {
        mem_free(s);
        mem_free(text);
        return NULL;
    }
    s->family = f;
    s->hash = hash;
    s->labels = text;
    if (f->kind == METRIC_DISTRIBUTION) {
        s->distribution.bounds = f->def->bounds;
        s->distribution.bounds_count = f->def->bounds_count;
    }
    return s;
}

static void series_insert(struct metrics *m, struct series *s)
{
    struct family *f = s->family;
    s->previous = f->last;
    if (f->last != NULL) {
        f->last->next = s;
    } else {
        f->first = s;
    }
    f->last = s;
    struct series **bucket = &m->hash[s->hash & m->hash_mask];
    s->hash_next = *bucket;
    *bucket = s;
    m->series_count++;
}

static void series_remove(struct metrics *m, struct series *s)
{
    struct family *f = s->family;
    struct series **at = &m->hash[s->hash & m->hash_mask];
    while (*at != s) {
        CHECK(*at != NULL); /* it is of this registry, and is removed once */
        at = &(*at)->hash_next;
    }
    *at = s->hash_next;
    if (s->previous != NULL) {
        s->previous->next = s->next;
    } else {
        f->first = s->next;
    }
    if (s->next != NULL) {
        s->next->previous = s->previous;
    } else {
        f->last = s->previous;
    }
    m->series_count--;
    series_free(s);
}

/* The series, made when there is none; NULL when it cannot be made, which is counted. */
static struct series *series_get(struct metrics *m, const struct metric_def *def,
                                 enum metric_kind kind, struct metric_labels labels)
{
    char text[METRICS_LABELS_TEXT_BYTES];
    metrics_labels_format(labels, text);
    struct family *f = family_get(m, def, kind);
    uint64_t hash = f == NULL ? 0 : hash_of(f, text);
    struct series *s = f == NULL ? NULL : series_find(m, f, hash, text);
    if (s != NULL) {
        return s;
    }
    if (f != NULL && m->series_count < m->series_max) {
        s = series_make(f, hash, text);
    }
    if (s == NULL) {
        m->dropped++;
        return NULL;
    }
    series_insert(m, s);
    return s;
}

struct counter *metrics_counter(struct metrics *m, const struct metric_def *def,
                                struct metric_labels labels)
{
    struct series *s = series_get(m, def, METRIC_COUNTER, labels);
    return s == NULL ? &m->sink_counter : &s->counter;
}

struct gauge *metrics_gauge(struct metrics *m, const struct metric_def *def,
                            struct metric_labels labels)
{
    struct series *s = series_get(m, def, METRIC_GAUGE, labels);
    return s == NULL ? &m->sink_gauge : &s->gauge;
}

struct distribution *metrics_distribution(struct metrics *m, const struct metric_def *def,
                                          struct metric_labels labels)
{
    struct series *s = series_get(m, def, METRIC_DISTRIBUTION, labels);
    return s == NULL ? &m->sink_distribution : &s->distribution;
}

void metrics_counter_callback(struct metrics *m, const struct metric_def *def,
                              struct metric_labels labels, uint64_t (*fn)(void *data), void *data)
{
    struct series *s = series_get(m, def, METRIC_COUNTER, labels);
    if (s != NULL) {
        s->read_counter = fn;
        s->data = data;
    }
}

void metrics_gauge_callback(struct metrics *m, const struct metric_def *def,
                            struct metric_labels labels, double (*fn)(void *data), void *data)
{
    struct series *s = series_get(m, def, METRIC_GAUGE, labels);
    if (s != NULL) {
        s->read_gauge = fn;
        s->data = data;
    }
}

#define SERIES_OF(handle, member)                                                                  \
    ((struct series *)(void *)((char *)(handle)-offsetof(struct series, member)))

void metrics_remove_counter(struct metrics *m, struct counter *c)
{
    if (c != &m->sink_counter) {
        series_remove(m, SERIES_OF(c, counter));
    }
}

void metrics_remove_gauge(struct metrics *m, struct gauge *g)
{
    if (g != &m->sink_gauge) {
        series_remove(m, SERIES_OF(g, gauge));
    }
}

void metrics_remove_distribution(struct metrics *m, struct distribution *d)
{
    if (d != &m->sink_distribution) {
        series_remove(m, SERIES_OF(d, distribution));
    }
}

void metrics_remove_callbacks(struct metrics *m, const void *data)
{
    for (size_t i = 0; i < m->families_count; i++) {
        for (struct series *s = m->families[i]->first; s != NULL;) {
            struct series *next = s->next;
            if ((s->read_counter != NULL || s->read_gauge != NULL) && s->data == data) {
                series_remove(m, s);
            }
            s = next;
        }
    }
}

/* What the registry says of itself, so that a full one is noticed. */
static struct status print_own(const struct metrics *m, struct buffer *out)
{
    TRY(buffer_printf(out,
                      "# HELP skep_metrics_series Series registered, of at most %zu.\n"
                      "# TYPE skep_metrics_series gauge\n"
                      "skep_metrics_series %zu\n",
                      m->series_max, m->series_count));
    return buffer_printf(out,
                         "# HELP skep_metrics_dropped_total Series not registered: over the limit "
                         "or out of memory.\n"
                         "# TYPE skep_metrics_dropped_total counter\n"
                         "skep_metrics_dropped_total %llu\n",
                         (unsigned long long)m->dropped);
}

static struct status print_all(const struct metrics *m, struct buffer *out)
{
    for (size_t i = 0; i < m->families_count; i++) {
        if (m->families[i]->first != NULL) {
            TRY(metrics_family_print(m->families[i], out));
        }
    }
    return print_own(m, out);
}

struct status metrics_print(const struct metrics *m, struct buffer *out)
{
    size_t before = out->size;
    struct status s = print_all(m, out);
    if (!status_is_ok(s)) {
        out->size = before;
    }
    return s;
}

#include "tests/bench/load_journal.h"

#include "common/cleanup.h"
#include "common/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct load_seen load_seen_of(const struct outcome *o)
{
    /* FNV-1a. */
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < o->output.size; i++) {
        hash = (hash ^ o->output.data[i]) * UINT64_C(0x100000001b3);
    }
    return (struct load_seen){.state = o->state, .code = o->result_code, .hash = hash};
}

bool load_seen_equal(const struct load_seen *a, const struct load_seen *b)
{
    return a->state == b->state && a->code == b->code && a->hash == b->hash;
}

void load_journal_acknowledged(FILE *f, uint64_t now_us, uint64_t sent_us, const char *key,
                               struct id128 id)
{
    char text[ID_STRING_BYTES];
    id_format(id, INVOCATION_PREFIX, text);
    (void)fprintf(f, "a %" PRIu64 " %" PRIu64 " %s %s\n", now_us, sent_us, key, text);
}

void load_journal_outcome(FILE *f, uint64_t now_us, uint64_t sent_us, struct id128 id,
                          const struct load_seen *seen)
{
    char text[ID_STRING_BYTES];
    id_format(id, INVOCATION_PREFIX, text);
    (void)fprintf(f, "o %" PRIu64 " %" PRIu64 " %s %u %u %016" PRIx64 "\n", now_us, sent_us, text,
                  seen->state, seen->code, seen->hash);
}

void load_journal_call(FILE *f, uint64_t now_us, uint64_t sent_us)
{
    (void)fprintf(f, "c %" PRIu64 " %" PRIu64 "\n", now_us, sent_us);
}

/* ---- Reading ---- */

static int by_id(const void *a, const void *b)
{
    const struct load_promise *x = a, *y = b;
    return id_compare(x->id, y->id);
}

static int by_number(const void *a, const void *b)
{
    const struct load_promise *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* The number at the end of PREFIX-NUMBER. */
static bool key_number(const char *key, uint64_t *out)
{
    const char *dash = strrchr(key, '-');
    char *end = NULL;
    errno = 0;
    *out = dash == NULL ? 0 : strtoull(dash + 1, &end, 10);
    return dash != NULL && errno == 0 && end != dash + 1 && *end == '\0';
}

static void add(struct load_promises *p, size_t *capacity, const struct load_promise *row)
{
    if (p->count == *capacity) {
        *capacity = *capacity == 0 ? 4096 : *capacity * 2;
        p->rows = mem_must(mem_realloc(p->rows, *capacity * sizeof *p->rows));
    }
    p->rows[p->count++] = *row;
}

static struct status read_promises(FILE *f, struct load_promises *p, struct errmsg *msg)
{
    char line[512], key[SPAWN_KEY_BYTES_MAX + 1], id[ID_STRING_BYTES];
    size_t capacity = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        struct load_promise row = {.number = 0};
        if (line[0] == 'a' && sscanf(line, "a %*u %*u %128s %28s", key, id) == 2) {
            TRY(id_parse(id, INVOCATION_PREFIX, &row.id, msg));
            if (!key_number(key, &row.number)) {
                return status_fail(msg, STATUS_INVALID, "key %s does not end in a number", key);
            }
            add(p, &capacity, &row);
        }
    }
    return status_ok();
}

/* The last seen outcome counts; that an earlier one was the same is checked here too. */
static struct status read_outcomes(FILE *f, struct load_promises *p, struct errmsg *msg)
{
    char line[512], id[ID_STRING_BYTES];
    while (fgets(line, sizeof line, f) != NULL) {
        struct load_promise row = {.number = 0};
        if (line[0] != 'o' || sscanf(line, "o %*u %*u %28s %u %u %" SCNx64, id, &row.seen.state,
                                     &row.seen.code, &row.seen.hash) != 4) {
            continue;
        }
        TRY(id_parse(id, INVOCATION_PREFIX, &row.id, msg));
        struct load_promise *found = bsearch(&row, p->rows, p->count, sizeof row, by_id);
        if (found == NULL) {
            return status_fail(msg, STATUS_INVALID, "an outcome of %s, which was never promised",
                               id);
        }
        if (found->seen.state != 0 && !load_seen_equal(&found->seen, &row.seen)) {
            return status_fail(msg, STATUS_INVALID, "%s had two outcomes", id);
        }
        found->seen = row.seen;
    }
    return status_ok();
}

/* One id a key, and one key an id. */
static struct status make_unique(struct load_promises *p, struct errmsg *msg)
{
    char id[ID_STRING_BYTES];
    size_t kept = 0;
    qsort(p->rows, p->count, sizeof *p->rows, by_number);
    for (size_t i = 0; i < p->count; i++) {
        if (kept > 0 && p->rows[kept - 1].number == p->rows[i].number) {
            if (id_compare(p->rows[kept - 1].id, p->rows[i].id) != 0) {
                id_format(p->rows[i].id, INVOCATION_PREFIX, id);
                return status_fail(msg, STATUS_INVALID, "a key has two ids; one is %s", id);
            }
            continue;
        }
        p->rows[kept++] = p->rows[i];
    }
    p->count = kept;
    qsort(p->rows, p->count, sizeof *p->rows, by_id);
    for (size_t i = 1; i < p->count; i++) {
        if (id_compare(p->rows[i - 1].id, p->rows[i].id) == 0) {
            id_format(p->rows[i].id, INVOCATION_PREFIX, id);
            return status_fail(msg, STATUS_INVALID, "%s was promised for two keys", id);
        }
    }
    return status_ok();
}

struct status load_journal_read(const char *path, struct load_promises *out, struct errmsg *msg)
{
    AUTO_FILE FILE *f = fopen(path, "re");
    if (f == NULL) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    struct load_promises p = {.rows = NULL};
    struct status s = read_promises(f, &p, msg);
    if (status_is_ok(s) && p.count > 0) {
        s = make_unique(&p, msg);
    }
    if (status_is_ok(s) && p.count > 0) {
        rewind(f);
        s = read_outcomes(f, &p, msg);
    }
    if (!status_is_ok(s)) {
        load_promises_close(&p);
        return s;
    }
    *out = p;
    return status_ok();
}

void load_promises_close(struct load_promises *p)
{
    mem_free(p->rows);
    *p = (struct load_promises){.rows = NULL};
}

#include "simulations/linear.h"

#include "common/check.h"
#include "common/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEPS_MAX_DEFAULT = 2000000,
    BYTES_MAX_DEFAULT = 64 << 20,
    SLOTS_FIRST = 256,
    STATE_WORDS = sizeof(struct linear_state) / sizeof(uint64_t),
};

struct linear {
    struct linear_operation *operations;
    size_t count, capacity;
    uint64_t stamp;
};

struct linear *linear_new(void)
{
    return mem_must(mem_zalloc(1, sizeof(struct linear)));
}

void linear_free(struct linear *l)
{
    mem_free(l->operations);
    mem_free(l);
}

size_t linear_begin(struct linear *l, const struct linear_model *model, uint64_t key, uint32_t verb,
                    uint64_t argument0, uint64_t argument1)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity == 0 ? 256 : 2 * l->capacity;
        l->operations = mem_must(mem_realloc(l->operations, l->capacity * sizeof *l->operations));
    }
    l->operations[l->count] = (struct linear_operation){.model = model,
                                                        .key = key,
                                                        .verb = verb,
                                                        .argument = {argument0, argument1},
                                                        .open = true,
                                                        .begun = ++l->stamp};
    return l->count++;
}

void linear_end(struct linear *l, size_t operation, uint64_t result0, uint64_t result1,
                uint64_t result2)
{
    CHECK(operation < l->count);
    struct linear_operation *o = &l->operations[operation];
    CHECK(o->open && !o->dropped);
    o->open = false;
    o->result[0] = result0;
    o->result[1] = result1;
    o->result[2] = result2;
    o->ended = ++l->stamp;
}

void linear_drop(struct linear *l, size_t operation)
{
    CHECK(operation < l->count);
    l->operations[operation].dropped = true;
}

/* ---- One key's history as a list of calls and answers, in order of time ---- */

struct entry {
    const struct linear_operation *operation;
    bool is_call;
    uint64_t stamp;
    uint32_t number;     /* of the operation, within its key */
    struct entry *other; /* the call's answer, the answer's call */
    struct entry *prev, *next;
};

/* The set of configurations seen: open addressing over records of bits and state. */
struct seen {
    uint32_t *slots; /* record + 1; 0: free */
    size_t slots_count;
    uint64_t *records;
    size_t count, capacity, words; /* words: of one record */
};

struct search {
    struct entry *entries;
    struct entry head;
    struct seen seen;
    uint64_t *bits; /* of linearized operations, then the state */
    uint32_t words; /* of bits */
    struct linear_state state;
    struct {
        struct entry *call;
        struct linear_state before;
    } * stack;
    size_t depth;
    uint64_t left; /* answered operations that are not linearized */
    uint64_t steps;
    const struct entry *furthest; /* the answer that could not be passed, latest */
};

static uint64_t hash_words(const uint64_t *words, size_t count)
{
    uint64_t h = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < count; i++) {
        h = (h ^ words[i]) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    return h;
}

static uint32_t *seen_slot(const struct seen *s, const uint64_t *record)
{
    size_t at = hash_words(record, s->words) & (s->slots_count - 1);
    while (s->slots[at] != 0 && memcmp(&s->records[(s->slots[at] - 1) * s->words], record,
                                       s->words * sizeof *record) != 0) {
        at = (at + 1) & (s->slots_count - 1);
    }
    return &s->slots[at];
}

static void seen_grow(struct seen *s)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity == 0 ? SLOTS_FIRST / 2 : 2 * s->capacity;
        s->records = mem_must(mem_realloc(s->records, s->capacity * s->words * sizeof *s->records));
    }
    if (2 * (s->count + 1) <= s->slots_count) {
        return;
    }
    mem_free(s->slots);
    s->slots_count = s->slots_count == 0 ? SLOTS_FIRST : 2 * s->slots_count;
    s->slots = mem_must(mem_zalloc(s->slots_count, sizeof *s->slots));
    for (size_t i = 0; i < s->count; i++) {
        *seen_slot(s, &s->records[i * s->words]) = (uint32_t)i + 1;
    }
}

/* False when it was there already. */
static bool seen_add(struct seen *s, const uint64_t *record)
{
    seen_grow(s);
    uint32_t *slot = seen_slot(s, record);
    if (*slot != 0) {
        return false;
    }
    memcpy(&s->records[s->count * s->words], record, s->words * sizeof *record);
    *slot = (uint32_t)++s->count;
    return true;
}

static size_t seen_bytes(const struct seen *s)
{
    return s->capacity * s->words * sizeof *s->records + s->slots_count * sizeof *s->slots;
}

static int by_stamp(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->stamp < y->stamp ? -1 : x->stamp > y->stamp;
}

static void search_open(struct search *x, const struct linear_operation *const *operations,
                        uint32_t count)
{
    *x = (struct search){.words = (count + 63) / 64};
    x->entries = mem_must(mem_zalloc(2 * (size_t)count, sizeof *x->entries));
    x->stack = mem_must(mem_zalloc(count, sizeof *x->stack));
    x->bits = mem_must(mem_zalloc(x->words + STATE_WORDS, sizeof *x->bits));
    x->seen.words = x->words + STATE_WORDS;
    for (uint32_t i = 0; i < count; i++) {
        const struct linear_operation *o = operations[i];
        x->left += !o->open;
        x->entries[2 * i] =
            (struct entry){.operation = o, .is_call = true, .stamp = o->begun, .number = i};
        x->entries[2 * i + 1] = (struct entry){
            .operation = o, .stamp = o->open ? UINT64_MAX - i : o->ended, .number = i};
    }
    qsort(x->entries, 2 * (size_t)count, sizeof *x->entries, by_stamp);
    struct entry **calls = mem_must(mem_zalloc(count, sizeof(struct entry *)));
    struct entry *last = &x->head;
    for (size_t i = 0; i < 2 * (size_t)count; i++) {
        struct entry *e = &x->entries[i];
        e->prev = last;
        last->next = e;
        last = e;
        if (e->is_call) {
            calls[e->number] = e;
        } else {
            e->other = calls[e->number];
            e->other->other = e;
        }
    }
    mem_free(calls);
}

static void search_close(struct search *x)
{
    mem_free(x->entries);
    mem_free(x->stack);
    mem_free(x->bits);
    mem_free(x->seen.slots);
    mem_free(x->seen.records);
}

static void unlink_entry(struct entry *e)
{
    e->prev->next = e->next;
    if (e->next != NULL) {
        e->next->prev = e->prev;
    }
}

static void relink_entry(struct entry *e)
{
    e->prev->next = e;
    if (e->next != NULL) {
        e->next->prev = e;
    }
}

/* Takes this call as the next one to happen, if the model allows it and it leads somewhere new. */
static bool linearize(struct search *x, struct entry *call)
{
    struct linear_state after = x->state;
    const struct linear_operation *o = call->operation;
    x->steps++;
    if (!o->model->step(&after, o)) {
        return false;
    }
    uint64_t bit = UINT64_C(1) << (call->number % 64);
    x->bits[call->number / 64] |= bit;
    memcpy(&x->bits[x->words], after.v, sizeof after.v);
    if (!seen_add(&x->seen, x->bits)) {
        x->bits[call->number / 64] &= ~bit;
        return false;
    }
    x->stack[x->depth].call = call;
    x->stack[x->depth++].before = x->state;
    x->state = after;
    x->left -= !o->open;
    unlink_entry(call);
    unlink_entry(call->other);
    return true;
}

/* Takes the last one back; NULL when there is none. */
static struct entry *back_track(struct search *x)
{
    if (x->depth == 0) {
        return NULL;
    }
    struct entry *call = x->stack[--x->depth].call;
    x->state = x->stack[x->depth].before;
    x->left += !call->operation->open;
    x->bits[call->number / 64] &= ~(UINT64_C(1) << (call->number % 64));
    relink_entry(call->other);
    relink_entry(call);
    return call;
}

static enum linear_verdict search_run(struct search *x, const struct linear_limits *limits)
{
    struct entry *e = x->head.next;
    while (x->left > 0) {
        CHECK(e != NULL);
        if (x->steps > limits->steps_max || seen_bytes(&x->seen) > limits->bytes_max) {
            return LINEAR_GAVE_UP;
        }
        if (e->is_call) {
            e = linearize(x, e) ? x->head.next : e->next;
            continue;
        }
        if (x->furthest == NULL || e->stamp > x->furthest->stamp) {
            x->furthest = e;
        }
        e = back_track(x);
        if (e == NULL) {
            return LINEAR_VIOLATED;
        }
        e = e->next;
    }
    return LINEAR_HOLDS;
}

/* ---- All keys ---- */

static int by_key(const void *a, const void *b)
{
    const struct linear_operation *x = *(const struct linear_operation *const *)a;
    const struct linear_operation *y = *(const struct linear_operation *const *)b;
    int models = strcmp(x->model->name, y->model->name);
    if (models != 0) {
        return models;
    }
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return x->begun < y->begun ? -1 : 1;
}

static void report_key(struct linear_report *r, enum linear_verdict verdict,
                       const struct linear_operation *const *operations, uint32_t count,
                       const struct linear_operation *stuck)
{
    if (verdict == LINEAR_HOLDS || r->verdict == LINEAR_VIOLATED ||
        (r->verdict == LINEAR_GAVE_UP && verdict == LINEAR_GAVE_UP)) {
        return;
    }
    r->verdict = verdict;
    int size = snprintf(r->text, sizeof r->text, "%s %" PRIx64 " with %" PRIu32 " operations %s",
                        operations[0]->model->name, operations[0]->key, count,
                        verdict == LINEAR_VIOLATED ? "is not linearizable"
                                                   : "is undecided: the search gave up");
    if (stuck != NULL && size > 0 && (size_t)size < sizeof r->text) {
        (void)snprintf(r->text + size, sizeof r->text - (size_t)size,
                       "; no place for verb %" PRIu32 " (%" PRIx64 ", %" PRIx64 ") -> (%" PRIx64
                       ", %" PRIx64 ", %" PRIx64 ") at %" PRIu64 "..%" PRIu64,
                       stuck->verb, stuck->argument[0], stuck->argument[1], stuck->result[0],
                       stuck->result[1], stuck->result[2], stuck->begun, stuck->ended);
    }
}

static void check_key(struct linear_report *r, const struct linear_operation *const *operations,
                      size_t count, const struct linear_limits *limits)
{
    r->keys++;
    r->operations += count;
    if (count > LINEAR_KEY_OPERATIONS_MAX) {
        report_key(r, LINEAR_GAVE_UP, operations, (uint32_t)count, NULL);
        return;
    }
    struct search x;
    search_open(&x, operations, (uint32_t)count);
    enum linear_verdict verdict = search_run(&x, limits);
    r->steps += x.steps;
    report_key(r, verdict, operations, (uint32_t)count,
               x.furthest == NULL ? NULL : x.furthest->operation);
    search_close(&x);
}

struct linear_report linear_check(const struct linear *l, const struct linear_limits *limits)
{
    struct linear_limits used = {.steps_max = STEPS_MAX_DEFAULT, .bytes_max = BYTES_MAX_DEFAULT};
    struct linear_report r = {.verdict = LINEAR_HOLDS};
    if (limits != NULL) {
        used.steps_max = limits->steps_max != 0 ? limits->steps_max : used.steps_max;
        used.bytes_max = limits->bytes_max != 0 ? limits->bytes_max : used.bytes_max;
    }
    const struct linear_operation **sorted =
        mem_must(mem_zalloc(l->count + 1, sizeof(struct linear_operation *)));
    size_t count = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (!l->operations[i].dropped) {
            sorted[count++] = &l->operations[i];
        }
    }
    qsort(sorted, count, sizeof *sorted, by_key);
    for (size_t first = 0, end; first < count; first = end) {
        end = first + 1;
        while (end < count && sorted[end]->model == sorted[first]->model &&
               sorted[end]->key == sorted[first]->key) {
            end++;
        }
        check_key(&r, &sorted[first], end - first, &used);
    }
    mem_free(sorted);
    return r;
}

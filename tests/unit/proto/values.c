#include "tests/unit/proto/values.h"

#include "common/mem.h"

#include <stdio.h>
#include <string.h>

enum { ITEMS = 2 };

/* ---- Filling. n counts the fields, so that no two have the same value. ---- */

static uint64_t number(unsigned *n)
{
    return ++*n * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

static const char *text(struct arena *a, unsigned *n, const char *name)
{
    char out[64];
    int size = snprintf(out, sizeof out, "%s-%u", name, ++*n);
    return mem_must(arena_text(a, out, (size_t)size));
}

/* Bytes that a text could not hold. */
static struct bytes binary(struct arena *a, unsigned *n)
{
    uint8_t *data = mem_must(arena_alloc(a, 4));
    data[0] = 0;
    data[1] = 0xff;
    data[2] = (uint8_t)++ * n;
    data[3] = (uint8_t)(*n >> 8);
    return bytes_of(data, 4);
}

static struct digest some_digest(unsigned *n)
{
    struct digest d;
    for (size_t i = 0; i < sizeof d.v; i++) {
        d.v[i] = (uint8_t)number(n);
    }
    return d;
}

static struct id128 some_id(unsigned *n)
{
    uint64_t high = number(n);
    return (struct id128){high, number(n)};
}

#define FILL_U32(name) m->name = (uint32_t)number(n) | 1;
#define FILL_U64(name) m->name = number(n);
#define FILL_BOOL(name) m->name = true;
#define FILL_STR(name) m->name = text(a, n, #name);
#define FILL_BYTES(name) m->name = binary(a, n);
#define FILL_ID(name) m->name = some_id(n);
#define FILL_DIGEST(name) m->name = some_digest(n);
#define FILL_F(kind, name) FILL_##kind(name)
#define FILL_L(type, name)                                                                         \
    m->name = mem_must(arena_zalloc(a, ITEMS, sizeof m->name[0]));                                 \
    m->name##_count = ITEMS;                                                                       \
    for (size_t i = 0; i < ITEMS; i++) {                                                           \
        fill_##type(a, n, &m->name[i]);                                                            \
    }
#define FILL_M(type, name)                                                                         \
    m->name = mem_must(arena_zalloc(a, 1, sizeof *m->name));                                       \
    fill_##type(a, n, m->name);
#define FILLER(type, camel)                                                                        \
    static void fill_##type(struct arena *a, unsigned *n, struct type *m)                          \
    {                                                                                              \
        (void)a;                                                                                   \
        (void)n;                                                                                   \
        FIELDS_##type(FILL_F, FILL_L, FILL_M)                                                      \
    }
#define FILLER_BODY(type, camel, upper) FILLER(type, camel)

PARTS(FILLER)
MESSAGES(FILLER_BODY)
COMMANDS(FILLER_BODY)

/* ---- Comparing. ---- */

static bool texts_equal(const char *x, const char *y)
{
    return strcmp(x == NULL ? "" : x, y == NULL ? "" : y) == 0;
}

#define SAME_U32(name) same = same && x->name == y->name;
#define SAME_U64(name) same = same && x->name == y->name;
#define SAME_BOOL(name) same = same && x->name == y->name;
#define SAME_STR(name) same = same && texts_equal(x->name, y->name);
#define SAME_BYTES(name) same = same && bytes_equal(x->name, y->name);
#define SAME_ID(name) same = same && id_compare(x->name, y->name) == 0;
#define SAME_DIGEST(name) same = same && digest_compare(&x->name, &y->name) == 0;
#define SAME_F(kind, name) SAME_##kind(name)
#define SAME_L(type, name)                                                                         \
    same = same && x->name##_count == y->name##_count;                                             \
    for (size_t i = 0; same && i < x->name##_count; i++) {                                         \
        same = same_##type(&x->name[i], &y->name[i]);                                              \
    }
#define SAME_M(type, name)                                                                         \
    same = same && x->name != NULL && y->name != NULL && same_##type(x->name, y->name);
#define COMPARER(type, camel)                                                                      \
    static bool same_##type(const struct type *x, const struct type *y)                            \
    {                                                                                              \
        bool same = true;                                                                          \
        FIELDS_##type(SAME_F, SAME_L, SAME_M) return same;                                         \
    }
#define COMPARER_BODY(type, camel, upper) COMPARER(type, camel)

PARTS(COMPARER)
MESSAGES(COMPARER_BODY)
COMMANDS(COMPARER_BODY)

/* ---- Whole ones. ---- */

struct message value_message(struct arena *a, enum message_type type)
{
    unsigned n = 0;
    struct message m = {.type = type, .request = number(&n), .term = number(&n)};
    switch (type) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case MESSAGE_##upper:                                                                          \
        m.ty = (struct ty){0};                                                                     \
        fill_##ty(a, &n, &m.ty);                                                                   \
        break;
        MESSAGES(ROW_CASE)
#undef ROW_CASE
    case MESSAGE_NONE:
    case MESSAGE_TYPE_COUNT_:
        break;
    }
    return m;
}

struct message value_message_empty(struct arena *a, enum message_type type)
{
    struct message m;
    memset(&m, 0, sizeof m);
    m.type = type;
    if (type == MESSAGE_DEPLOY) {
        m.deploy.spec = mem_must(arena_zalloc(a, 1, sizeof *m.deploy.spec));
    } else if (type == MESSAGE_START) {
        m.start.spec = mem_must(arena_zalloc(a, 1, sizeof *m.start.spec));
    } else if (type == MESSAGE_IMAGE_PUT) {
        m.image_put.spec = mem_must(arena_zalloc(a, 1, sizeof *m.image_put.spec));
    } else if (type == MESSAGE_INSTANCE_EVENT) {
        m.instance_event.report = mem_must(arena_zalloc(a, 1, sizeof *m.instance_event.report));
    }
    return m;
}

struct command value_command(struct arena *a, enum command_type type)
{
    unsigned n = 0;
    struct command c = {.type = type, .time_ms = number(&n), .by = text(a, &n, "by")};
    switch (type) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case upper:                                                                                    \
        c.ty = (struct ty){0};                                                                     \
        fill_##ty(a, &n, &c.ty);                                                                   \
        break;
        COMMANDS(ROW_CASE)
#undef ROW_CASE
    case COMMAND_NONE:
    case COMMAND_TYPE_COUNT_:
        break;
    }
    return c;
}

struct state value_state(struct arena *a)
{
    unsigned n = 0;
    struct state s = {0};
    fill_state(a, &n, &s);
    return s;
}

struct function_spec value_spec(struct arena *a)
{
    unsigned n = 0;
    struct function_spec s = {0};
    fill_function_spec(a, &n, &s);
    return s;
}

bool message_equal(const struct message *x, const struct message *y)
{
    if (x->type != y->type || x->request != y->request || x->term != y->term) {
        return false;
    }
    switch (x->type) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case MESSAGE_##upper:                                                                          \
        return same_##ty(&x->ty, &y->ty);
        MESSAGES(ROW_CASE)
#undef ROW_CASE
    case MESSAGE_NONE:
    case MESSAGE_TYPE_COUNT_:
        break;
    }
    return false;
}

bool command_equal(const struct command *x, const struct command *y)
{
    if (x->type != y->type || x->time_ms != y->time_ms || !texts_equal(x->by, y->by)) {
        return false;
    }
    switch (x->type) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case upper:                                                                                    \
        return same_##ty(&x->ty, &y->ty);
        COMMANDS(ROW_CASE)
#undef ROW_CASE
    case COMMAND_NONE:
    case COMMAND_TYPE_COUNT_:
        break;
    }
    return false;
}

bool state_equal(const struct state *x, const struct state *y)
{
    return same_state(x, y);
}

bool spec_equal(const struct function_spec *x, const struct function_spec *y)
{
    return same_function_spec(x, y);
}

struct state_job value_state_job(struct arena *a)
{
    unsigned n = 0;
    struct state_job j = {0};
    fill_state_job(a, &n, &j);
    return j;
}

bool state_jobs_equal(const struct state_job *x, const struct state_job *y)
{
    return same_state_job(x, y);
}

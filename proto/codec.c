#include "proto/codec.h"

#include "common/check.h"
#include "skep.pb-c.h"

#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ids travel in memory order");
static_assert(sizeof(struct id128) == 16, "an id is 16 bytes");
static_assert(sizeof(struct digest) == DIGEST_BYTES, "a digest is its bytes");

#define ROW_ALIAS(type, camel) typedef Skep__V1__##camel pb_##type;
#define ROW_ALIAS_BODY(type, camel, upper) ROW_ALIAS(type, camel)
PARTS(ROW_ALIAS)
MESSAGES(ROW_ALIAS_BODY)
COMMANDS(ROW_ALIAS_BODY)

/* ---- Plain to generated. Texts and bytes are borrowed, lists of pointers live in the arena.
 * ---- */

static char *text_or_empty(const char *text)
{
    return text == NULL ? (char *)(uintptr_t)protobuf_c_empty_string : (char *)(uintptr_t)text;
}

static ProtobufCBinaryData binary_of(const void *data, size_t size)
{
    return (ProtobufCBinaryData){.len = size, .data = (uint8_t *)(uintptr_t)data};
}

#define ROW_ENCODE_U32(name) p->name = m->name;
#define ROW_ENCODE_U64(name) p->name = m->name;
#define ROW_ENCODE_BOOL(name) p->name = m->name;
#define ROW_ENCODE_STR(name) p->name = text_or_empty(m->name);
#define ROW_ENCODE_BYTES(name) p->name = binary_of(m->name.data, m->name.size);
#define ROW_ENCODE_ID(name)                                                                        \
    p->name = id_is_zero(m->name) ? binary_of(NULL, 0) : binary_of(&m->name, sizeof m->name);
#define ROW_ENCODE_DIGEST(name)                                                                    \
    p->name = digest_is_zero(&m->name) ? binary_of(NULL, 0) : binary_of(&m->name, sizeof m->name);
#define ROW_ENCODE_F(kind, name) ROW_ENCODE_##kind(name)
#define ROW_ENCODE_L(type, name)                                                                   \
    if (m->name##_count > 0) {                                                                     \
        pb_##type *items = arena_zalloc(a, m->name##_count, sizeof *items);                        \
        p->name = arena_zalloc(a, m->name##_count, sizeof(pb_##type *));                           \
        if (items == NULL || p->name == NULL) {                                                    \
            return false;                                                                          \
        }                                                                                          \
        for (size_t i = 0; i < m->name##_count; i++) {                                             \
            if (!encode_##type(a, &m->name[i], &items[i])) {                                       \
                return false;                                                                      \
            }                                                                                      \
            p->name[i] = &items[i];                                                                \
        }                                                                                          \
        p->n_##name = m->name##_count;                                                             \
    }
#define ROW_ENCODE_M(type, name)                                                                   \
    if (m->name != NULL) {                                                                         \
        p->name = arena_zalloc(a, 1, sizeof(pb_##type));                                           \
        if (p->name == NULL || !encode_##type(a, m->name, p->name)) {                              \
            return false;                                                                          \
        }                                                                                          \
    }
#define ROW_ENCODER(type, camel)                                                                   \
    static bool encode_##type(struct arena *a, const struct type *m, pb_##type *p)                 \
    {                                                                                              \
        (void)a;                                                                                   \
        skep__v1__##type##__init(p);                                                               \
        FIELDS_##type(ROW_ENCODE_F, ROW_ENCODE_L, ROW_ENCODE_M) return true;                       \
    }
#define ROW_ENCODER_BODY(type, camel, upper) ROW_ENCODER(type, camel)

PARTS(ROW_ENCODER)
MESSAGES(ROW_ENCODER_BODY)
COMMANDS(ROW_ENCODER_BODY)

/* ---- Generated to plain. ---- */

/* What to do with fields that this build does not know. */
enum unknown { UNKNOWN_SKIPPED, UNKNOWN_REFUSED };

static struct status known(const ProtobufCMessage *p, const char *type, struct errmsg *msg)
{
    if (p->n_unknown_fields == 0) {
        return status_ok();
    }
    return status_fail(msg, STATUS_UNSUPPORTED,
                       "%s: field %u is of a later version of Skep, which this build cannot read: "
                       "run that version",
                       type, p->unknown_fields[0].tag);
}

static struct status exact(const ProtobufCBinaryData *from, void *to, size_t size, const char *type,
                           const char *field, struct errmsg *msg)
{
    if (from->len == 0) {
        memset(to, 0, size);
        return status_ok();
    }
    if (from->len != size) {
        return status_fail(msg, STATUS_INVALID, "%s.%s: %zu bytes, %zu expected", type, field,
                           from->len, size);
    }
    memcpy(to, from->data, size);
    return status_ok();
}

#define ROW_DECODE_U32(type, name) m->name = p->name;
#define ROW_DECODE_U64(type, name) m->name = p->name;
#define ROW_DECODE_BOOL(type, name) m->name = p->name != 0;
#define ROW_DECODE_STR(type, name) m->name = p->name == NULL ? "" : p->name;
#define ROW_DECODE_BYTES(type, name) m->name = bytes_of(p->name.data, p->name.len);
#define ROW_DECODE_ID(type, name) TRY(exact(&p->name, &m->name, sizeof m->name, what, #name, msg));
#define ROW_DECODE_DIGEST(type, name)                                                              \
    TRY(exact(&p->name, &m->name, sizeof m->name, what, #name, msg));
#define ROW_DECODE_F(kind, name) ROW_DECODE_##kind(, name)
#define ROW_DECODE_L(type, name)                                                                   \
    m->name = NULL;                                                                                \
    m->name##_count = p->n_##name;                                                                 \
    if (p->n_##name > CODEC_LIST_MAX) {                                                            \
        return status_fail(msg, STATUS_LIMIT, "%s." #name ": %zu items, at most %d are allowed",   \
                           what, p->n_##name, CODEC_LIST_MAX);                                     \
    }                                                                                              \
    if (p->n_##name > 0) {                                                                         \
        m->name = arena_zalloc(a, p->n_##name, sizeof m->name[0]);                                 \
        if (m->name == NULL) {                                                                     \
            return status_fail(msg, STATUS_LIMIT, "%s." #name ": too large", what);                \
        }                                                                                          \
        for (size_t i = 0; i < p->n_##name; i++) {                                                 \
            TRY(decode_##type(a, p->name[i], &m->name[i], unknown, msg));                          \
        }                                                                                          \
    }
#define ROW_DECODE_M(type, name)                                                                   \
    if (p->name == NULL) {                                                                         \
        return status_fail(msg, STATUS_INVALID, "%s." #name ": missing", what);                    \
    }                                                                                              \
    m->name = arena_zalloc(a, 1, sizeof *m->name);                                                 \
    if (m->name == NULL) {                                                                         \
        return status_fail(msg, STATUS_LIMIT, "%s." #name ": too large", what);                    \
    }                                                                                              \
    TRY(decode_##type(a, p->name, m->name, unknown, msg));
#define ROW_DECODER(type, camel)                                                                   \
    static struct status decode_##type(struct arena *a, const pb_##type *p, struct type *m,        \
                                       enum unknown unknown, struct errmsg *msg)                   \
    {                                                                                              \
        static const char what[] = #type;                                                          \
        (void)a;                                                                                   \
        if (unknown == UNKNOWN_REFUSED) {                                                          \
            TRY(known(&p->base, what, msg));                                                       \
        }                                                                                          \
        FIELDS_##type(ROW_DECODE_F, ROW_DECODE_L, ROW_DECODE_M) return status_ok();                \
    }
#define ROW_DECODER_BODY(type, camel, upper) ROW_DECODER(type, camel)

PARTS(ROW_DECODER)
MESSAGES(ROW_DECODER_BODY)
COMMANDS(ROW_DECODER_BODY)

/* ---- Bytes. ---- */

/* Where protobuf-c unpacks to; it does not say why it gave up, so this does. */
struct unpacking {
    struct arena *arena;
    bool full;
};

static void *arena_allocate(void *data, size_t size)
{
    struct unpacking *u = data;
    void *p = arena_alloc(u->arena, size);
    u->full = u->full || p == NULL;
    return p;
}

static void arena_keep(void *data, void *p)
{
    (void)data;
    (void)p;
}

static ProtobufCAllocator allocator_of(struct unpacking *u)
{
    return (ProtobufCAllocator){.alloc = arena_allocate, .free = arena_keep, .allocator_data = u};
}

static struct status unpack_failed(const struct unpacking *u, const char *what, size_t size,
                                   struct errmsg *msg)
{
    return u->full ? status_fail(msg, STATUS_LIMIT, "%s of %zu bytes: too large", what, size)
                   : status_fail(msg, STATUS_INVALID, "%s of %zu bytes: malformed", what, size);
}

static struct status pack(const ProtobufCMessage *p, struct buffer *out)
{
    size_t size = protobuf_c_message_get_packed_size(p);
    if (size == 0) {
        return status_ok(); /* An empty buffer has no address to pack to. */
    }
    TRY(buffer_reserve(out, size));
    out->size += protobuf_c_message_pack(p, out->data + out->size);
    CHECK(out->size <= out->capacity);
    return status_ok();
}

struct status message_encode(const struct message *m, struct buffer *out)
{
    struct arena a = {0};
    Skep__V1__Envelope e;
    skep__v1__envelope__init(&e);
    e.version = ENVELOPE_FORM;
    e.request = m->request;
    e.term = m->term;
    bool made = false;
    union {
#define ROW_SLOT(type, camel, upper) pb_##type type;
        MESSAGES(ROW_SLOT)
#undef ROW_SLOT
    } body;
    switch (m->type) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case MESSAGE_##upper:                                                                          \
        made = encode_##ty(&a, &m->ty, &body.ty);                                                  \
        e.body_case = SKEP__V1__ENVELOPE__BODY_##upper;                                            \
        e.ty = &body.ty;                                                                           \
        break;
        MESSAGES(ROW_CASE)
#undef ROW_CASE
    case MESSAGE_NONE:
    case MESSAGE_TYPE_COUNT_:
        CHECK(!"a message has a type");
    }
    struct status s = made ? pack(&e.base, out) : status_of(STATUS_NOMEM);
    arena_close(&a);
    return s;
}

struct status message_decode(struct bytes in, struct arena *a, struct message *out,
                             struct errmsg *msg)
{
    struct unpacking unpacking = {.arena = a};
    ProtobufCAllocator allocator = allocator_of(&unpacking);
    Skep__V1__Envelope *e = skep__v1__envelope__unpack(&allocator, in.size, in.data);
    if (e == NULL) {
        return unpack_failed(&unpacking, "message", in.size, msg);
    }
    if (e->version != ENVELOPE_FORM) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "message in envelope form %u: this build reads form %d", e->version,
                           ENVELOPE_FORM);
    }
    struct message m;
    memset(&m, 0, sizeof m);
    m.request = e->request;
    m.term = e->term;
    switch (e->body_case) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case SKEP__V1__ENVELOPE__BODY_##upper:                                                         \
        m.type = MESSAGE_##upper;                                                                  \
        TRY(decode_##ty(a, e->ty, &m.ty, UNKNOWN_SKIPPED, msg));                                   \
        break;
        MESSAGES(ROW_CASE)
#undef ROW_CASE
    default:
        return status_fail(msg, STATUS_UNSUPPORTED, "message without a body that this build knows");
    }
    *out = m;
    return status_ok();
}

struct status command_encode(const struct command *c, struct buffer *out)
{
    struct arena a = {0};
    Skep__V1__Command e;
    skep__v1__command__init(&e);
    e.time_ms = c->time_ms;
    e.by = text_or_empty(c->by);
    bool made = false;
    union {
#define ROW_SLOT(type, camel, upper) pb_##type type;
        COMMANDS(ROW_SLOT)
#undef ROW_SLOT
    } body;
    switch (c->type) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case upper:                                                                                    \
        made = encode_##ty(&a, &c->ty, &body.ty);                                                  \
        e.body_case = SKEP__V1__COMMAND__BODY_##upper;                                             \
        e.ty = &body.ty;                                                                           \
        break;
        COMMANDS(ROW_CASE)
#undef ROW_CASE
    case COMMAND_NONE:
    case COMMAND_TYPE_COUNT_:
        CHECK(!"a command has a type");
    }
    struct status s = made ? pack(&e.base, out) : status_of(STATUS_NOMEM);
    arena_close(&a);
    return s;
}

struct status command_decode(struct bytes in, struct arena *a, struct command *out,
                             struct errmsg *msg)
{
    struct unpacking unpacking = {.arena = a};
    ProtobufCAllocator allocator = allocator_of(&unpacking);
    Skep__V1__Command *e = skep__v1__command__unpack(&allocator, in.size, in.data);
    if (e == NULL) {
        return unpack_failed(&unpacking, "command", in.size, msg);
    }
    struct command c;
    memset(&c, 0, sizeof c);
    c.time_ms = e->time_ms;
    c.by = e->by == NULL ? "" : e->by;
    switch (e->body_case) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case SKEP__V1__COMMAND__BODY_##upper:                                                          \
        c.type = upper;                                                                            \
        TRY(decode_##ty(a, e->ty, &c.ty, UNKNOWN_REFUSED, msg));                                   \
        break;
        COMMANDS(ROW_CASE)
#undef ROW_CASE
    default:
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "command without a body that this build knows: a later version of Skep "
                           "wrote it");
    }
    TRY(known(&e->base, "command", msg));
    *out = c;
    return status_ok();
}

/* Whole structures that travel on their own. */
#define STANDALONE_CODEC(type)                                                                     \
    struct status type##_encode(const struct type *from, struct buffer *out)                       \
    {                                                                                              \
        struct arena a = {.bytes_max = SIZE_MAX / 2};                                              \
        pb_##type p;                                                                               \
        struct status s =                                                                          \
            encode_##type(&a, from, &p) ? pack(&p.base, out) : status_of(STATUS_NOMEM);            \
        arena_close(&a);                                                                           \
        return s;                                                                                  \
    }                                                                                              \
    struct status type##_decode(struct bytes in, struct arena *a, struct type *out,                \
                                struct errmsg *msg)                                                \
    {                                                                                              \
        struct unpacking unpacking = {.arena = a};                                                 \
        ProtobufCAllocator allocator = allocator_of(&unpacking);                                   \
        pb_##type *p = skep__v1__##type##__unpack(&allocator, in.size, in.data);                   \
        if (p == NULL) {                                                                           \
            return unpack_failed(&unpacking, #type, in.size, msg);                                 \
        }                                                                                          \
        struct type m = {0};                                                                       \
        TRY(decode_##type(a, p, &m, UNKNOWN_REFUSED, msg));                                        \
        *out = m;                                                                                  \
        return status_ok();                                                                        \
    }

STANDALONE_CODEC(state)
STANDALONE_CODEC(state_job)
STANDALONE_CODEC(function_spec)

const char *message_type_name(enum message_type type)
{
    switch (type) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case MESSAGE_##upper:                                                                          \
        return #ty;
        MESSAGES(ROW_CASE)
#undef ROW_CASE
    case MESSAGE_NONE:
    case MESSAGE_TYPE_COUNT_:
        break;
    }
    return "none";
}

const char *command_type_name(enum command_type type)
{
    switch (type) {
#define ROW_CASE(ty, camel, upper)                                                                 \
    case upper:                                                                                    \
        return &(#ty)[sizeof "command"];
        COMMANDS(ROW_CASE)
#undef ROW_CASE
    case COMMAND_NONE:
    case COMMAND_TYPE_COUNT_:
        break;
    }
    return "none";
}

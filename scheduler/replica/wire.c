#include "scheduler/replica/wire.h"

#include "common/check.h"

#include <string.h>

enum {
    HEAD_BYTES = 4,
    ENTRY_HEAD_BYTES = 13, /* u64 term, u8 type, u32 length */
    FLAG_DISRUPT = 1,
    FLAG_PRE_VOTE = 2,
    CONFIGURATION_FORMAT = 1, /* of libraft's own encoding */
    ROLE_MAX = RAFT_SPARE,
};

static struct status put_head(struct buffer *out, enum wire_type type)
{
    TRY(buffer_put_u8(out, WIRE_VERSION));
    TRY(buffer_put_u8(out, (uint8_t)type));
    return buffer_put_u16(out, 0);
}

static struct status put_words(struct buffer *out, const uint64_t *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        TRY(buffer_put_u64(out, words[i]));
    }
    return status_ok();
}

struct status wire_put_append(struct buffer *out, const struct raft_append_entries *args,
                              unsigned first, unsigned count)
{
    CHECK(first <= args->n_entries);
    CHECK(count <= args->n_entries - first);
    CHECK(count <= WIRE_ENTRIES_MAX);
    const struct raft_entry *entries = args->entries;
    uint64_t prev_term = first == 0 ? args->prev_log_term : entries[first - 1].term;
    uint64_t words[] = {args->term, args->prev_log_index + first, prev_term, args->leader_commit};
    size_t bytes = HEAD_BYTES + sizeof words + 4 + (size_t)count * ENTRY_HEAD_BYTES;
    for (unsigned i = first; i < first + count; i++) {
        bytes += entries[i].buf.len;
    }
    TRY(buffer_reserve(out, bytes));
    TRY(put_head(out, WIRE_APPEND));
    TRY(put_words(out, words, sizeof words / sizeof words[0]));
    TRY(buffer_put_u32(out, count));
    for (unsigned i = first; i < first + count; i++) {
        TRY(buffer_put_u64(out, entries[i].term));
        TRY(buffer_put_u8(out, (uint8_t)entries[i].type));
        TRY(buffer_put_u32(out, (uint32_t)entries[i].buf.len));
    }
    for (unsigned i = first; i < first + count; i++) {
        TRY(buffer_append(out, entries[i].buf.base, entries[i].buf.len));
    }
    return status_ok();
}

static struct status put_vote(struct buffer *out, const struct raft_request_vote *v)
{
    uint64_t words[] = {v->term, v->candidate_id, v->last_log_index, v->last_log_term};
    unsigned flags = (v->disrupt_leader ? FLAG_DISRUPT : 0U) | (v->pre_vote ? FLAG_PRE_VOTE : 0U);
    TRY(put_head(out, WIRE_VOTE));
    TRY(put_words(out, words, sizeof words / sizeof words[0]));
    return buffer_put_u8(out, (uint8_t)flags);
}

static struct status put_vote_result(struct buffer *out, const struct raft_request_vote_result *v)
{
    TRY(put_head(out, WIRE_VOTE_RESULT));
    TRY(buffer_put_u64(out, v->term));
    TRY(buffer_put_u8(out, v->vote_granted ? 1 : 0));
    return buffer_put_u8(out, (uint8_t)v->pre_vote);
}

static struct status put_triple(struct buffer *out, enum wire_type type, uint64_t a, uint64_t b,
                                uint64_t c)
{
    uint64_t words[] = {a, b, c};
    TRY(put_head(out, type));
    return put_words(out, words, sizeof words / sizeof words[0]);
}

struct status wire_put(struct buffer *out, const struct raft_message *message)
{
    const struct raft_append_entries_result *result = &message->append_entries_result;
    const struct raft_timeout_now *now = &message->timeout_now;
    switch (message->type) {
    case RAFT_IO_APPEND_ENTRIES:
        return wire_put_append(out, &message->append_entries, 0, message->append_entries.n_entries);
    case RAFT_IO_APPEND_ENTRIES_RESULT:
        return put_triple(out, WIRE_APPEND_RESULT, result->term, result->rejected,
                          result->last_log_index);
    case RAFT_IO_REQUEST_VOTE:
        return put_vote(out, &message->request_vote);
    case RAFT_IO_REQUEST_VOTE_RESULT:
        return put_vote_result(out, &message->request_vote_result);
    case RAFT_IO_TIMEOUT_NOW:
        return put_triple(out, WIRE_TIMEOUT_NOW, now->term, now->last_log_index,
                          now->last_log_term);
    default:
        CHECK(!"a message type that travels whole");
        return status_of(STATUS_INTERNAL);
    }
}

static struct status put_configuration(struct buffer *out, const struct raft_configuration *conf)
{
    CHECK(conf->n <= REPLICA_MEMBERS_MAX);
    TRY(buffer_put_u8(out, (uint8_t)conf->n));
    for (unsigned i = 0; i < conf->n; i++) {
        const struct raft_server *s = &conf->servers[i];
        size_t size = strlen(s->address);
        CHECK(size <= REPLICA_ADDRESS_BYTES_MAX);
        TRY(buffer_put_u64(out, s->id));
        TRY(buffer_put_u8(out, (uint8_t)s->role));
        TRY(buffer_put_u8(out, (uint8_t)size));
        TRY(buffer_append(out, s->address, size));
    }
    return status_ok();
}

struct status wire_put_part(struct buffer *out, const struct wire_part *part)
{
    CHECK(part->data.size <= WIRE_PART_BYTES_MAX);
    uint64_t words[] = {part->term,       part->last_index, part->last_term,
                        part->conf_index, part->total,      part->offset};
    TRY(put_head(out, WIRE_PART));
    TRY(put_words(out, words, sizeof words / sizeof words[0]));
    TRY(put_configuration(out, &part->conf));
    return buffer_put_blob(out, part->data);
}

struct status wire_put_ack(struct buffer *out, const struct wire_part_ack *ack)
{
    return put_triple(out, WIRE_PART_ACK, ack->last_index, ack->last_term, ack->received);
}

static struct status invalid(void)
{
    return status_of(STATUS_INVALID);
}

/* An address as we write them: not empty, no NUL inside. */
static bool address_fits(struct bytes address)
{
    return address.size > 0 && address.size <= REPLICA_ADDRESS_BYTES_MAX &&
           memchr(address.data, 0, address.size) == NULL;
}

/* libraft decodes the payload of a RAFT_CHANGE entry without looking at lengths or roles; so
 * that happens here. u8 format, u64 count, then u64 id, NUL-terminated address, u8 role each;
 * zeros up to a multiple of 8. */
static bool change_payload_fits(struct bytes payload)
{
    struct reader r = reader_of(payload);
    if (reader_u8(&r) != CONFIGURATION_FORMAT) {
        return false;
    }
    uint64_t count = reader_u64(&r);
    if (r.failed || count > REPLICA_MEMBERS_MAX) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t id = reader_u64(&r);
        const uint8_t *end =
            r.failed || r.rest.size == 0 ? NULL : memchr(r.rest.data, 0, r.rest.size);
        if (id == 0 || end == NULL) {
            return false;
        }
        struct bytes address = reader_bytes(&r, (size_t)(end - r.rest.data));
        (void)reader_u8(&r);
        uint8_t role = reader_u8(&r);
        if (r.failed || role > ROLE_MAX || !address_fits(address)) {
            return false;
        }
    }
    return r.rest.size < 8;
}

static bool entry_fits(uint8_t type, uint32_t size)
{
    return type >= RAFT_COMMAND && type <= RAFT_CHANGE && size >= 8 && size % 8 == 0 &&
           size <= WIRE_ENTRY_BYTES_MAX;
}

/* Reads the heads of n entries into entries (lengths in buf.len); returns the sum of the
 * lengths. */
static uint64_t read_entry_heads(struct reader *r, struct raft_entry *entries, uint32_t n)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        entries[i].term = reader_u64(r);
        uint8_t type = reader_u8(r);
        uint32_t size = reader_u32(r);
        if (!entry_fits(type, size) || entries[i].term == 0) {
            r->failed = true;
            break;
        }
        entries[i].type = type;
        entries[i].buf.len = size;
        total += size;
    }
    return total;
}

static struct status fill_entries(struct reader *r, struct raft_entry *entries, uint32_t n,
                                  uint64_t total)
{
    if (r->failed || total != r->rest.size) {
        return invalid();
    }
    uint8_t *batch = raft_malloc(total);
    if (batch == NULL) {
        return status_of(STATUS_NOMEM);
    }
    memcpy(batch, r->rest.data, total);
    uint8_t *at = batch;
    for (uint32_t i = 0; i < n; i++) {
        struct raft_entry *e = &entries[i];
        e->batch = batch;
        e->buf.base = at;
        at += e->buf.len;
        if (e->type == RAFT_CHANGE && !change_payload_fits(bytes_of(e->buf.base, e->buf.len))) {
            raft_free(batch);
            return invalid();
        }
    }
    return status_ok();
}

static struct status decode_append(struct reader *r, struct raft_append_entries *out)
{
    struct raft_append_entries args = {0};
    args.term = reader_u64(r);
    args.prev_log_index = reader_u64(r);
    args.prev_log_term = reader_u64(r);
    args.leader_commit = reader_u64(r);
    uint32_t n = reader_u32(r);
    if (r->failed || n > WIRE_ENTRIES_MAX || n > r->rest.size / ENTRY_HEAD_BYTES) {
        return invalid();
    }
    if ((args.prev_log_index == 0) != (args.prev_log_term == 0) ||
        args.prev_log_index > UINT64_MAX - n) {
        return invalid();
    }
    if (n == 0) {
        if (r->rest.size != 0) {
            return invalid();
        }
        *out = args;
        return status_ok();
    }
    struct raft_entry *entries = raft_calloc(n, sizeof *entries);
    if (entries == NULL) {
        return status_of(STATUS_NOMEM);
    }
    uint64_t total = read_entry_heads(r, entries, n);
    struct status s = fill_entries(r, entries, n, total);
    if (!status_is_ok(s)) {
        raft_free(entries);
        return s;
    }
    args.entries = entries;
    args.n_entries = n;
    *out = args;
    return status_ok();
}

static struct status decode_configuration(struct reader *r, struct raft_configuration *out)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    uint8_t n = reader_u8(r);
    if (n > REPLICA_MEMBERS_MAX) {
        return invalid();
    }
    struct status s = status_ok();
    for (uint8_t i = 0; i < n && status_is_ok(s); i++) {
        char text[REPLICA_ADDRESS_BYTES_MAX + 1] = {0};
        uint64_t id = reader_u64(r);
        uint8_t role = reader_u8(r);
        struct bytes address = reader_bytes(r, reader_u8(r));
        if (r->failed || id == 0 || role > ROLE_MAX || !address_fits(address)) {
            s = invalid();
            break;
        }
        memcpy(text, address.data, address.size);
        int rv = raft_configuration_add(&conf, id, text, role);
        if (rv != 0) {
            s = rv == RAFT_NOMEM ? status_of(STATUS_NOMEM) : invalid();
        }
    }
    if (!status_is_ok(s)) {
        raft_configuration_close(&conf);
        return s;
    }
    *out = conf;
    return status_ok();
}

static struct status decode_part(struct reader *r, struct wire_part *out)
{
    struct wire_part part = {0};
    part.term = reader_u64(r);
    part.last_index = reader_u64(r);
    part.last_term = reader_u64(r);
    part.conf_index = reader_u64(r);
    part.total = reader_u64(r);
    part.offset = reader_u64(r);
    if (r->failed || part.last_index == 0 || part.last_term == 0 || part.total == 0 ||
        part.total > WIRE_SNAPSHOT_BYTES_MAX || part.offset >= part.total ||
        part.conf_index > part.last_index) {
        return invalid();
    }
    TRY(decode_configuration(r, &part.conf));
    part.data = reader_blob(r, WIRE_PART_BYTES_MAX);
    if (r->failed || r->rest.size != 0 || part.data.size == 0 ||
        part.data.size > part.total - part.offset) {
        raft_configuration_close(&part.conf);
        return invalid();
    }
    *out = part;
    return status_ok();
}

static struct status decode_vote(struct reader *r, struct raft_request_vote *out)
{
    struct raft_request_vote v = {0};
    v.term = reader_u64(r);
    v.candidate_id = reader_u64(r);
    v.last_log_index = reader_u64(r);
    v.last_log_term = reader_u64(r);
    unsigned flags = reader_u8(r);
    if (r->failed || v.candidate_id == 0 || flags > (FLAG_DISRUPT | FLAG_PRE_VOTE)) {
        return invalid();
    }
    v.disrupt_leader = (flags & FLAG_DISRUPT) != 0;
    v.pre_vote = (flags & FLAG_PRE_VOTE) != 0;
    *out = v;
    return status_ok();
}

static struct status decode_vote_result(struct reader *r, struct raft_request_vote_result *out)
{
    struct raft_request_vote_result v = {0};
    v.term = reader_u64(r);
    uint8_t granted = reader_u8(r);
    uint8_t pre_vote = reader_u8(r);
    if (r->failed || granted > 1 || pre_vote > raft_tribool_false) {
        return invalid();
    }
    v.vote_granted = granted == 1;
    v.pre_vote = (raft_tribool)pre_vote;
    *out = v;
    return status_ok();
}

static struct status decode_body(struct reader *r, struct wire_message *m)
{
    uint64_t words[3];
    switch (m->type) {
    case WIRE_APPEND:
        m->raft.type = RAFT_IO_APPEND_ENTRIES;
        return decode_append(r, &m->raft.append_entries);
    case WIRE_VOTE:
        m->raft.type = RAFT_IO_REQUEST_VOTE;
        return decode_vote(r, &m->raft.request_vote);
    case WIRE_VOTE_RESULT:
        m->raft.type = RAFT_IO_REQUEST_VOTE_RESULT;
        return decode_vote_result(r, &m->raft.request_vote_result);
    case WIRE_PART:
        return decode_part(r, &m->part);
    default:
        break;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        words[i] = reader_u64(r);
    }
    switch (m->type) {
    case WIRE_APPEND_RESULT:
        m->raft.type = RAFT_IO_APPEND_ENTRIES_RESULT;
        m->raft.append_entries_result =
            (struct raft_append_entries_result){words[0], words[1], words[2]};
        return status_ok();
    case WIRE_TIMEOUT_NOW:
        m->raft.type = RAFT_IO_TIMEOUT_NOW;
        m->raft.timeout_now = (struct raft_timeout_now){words[0], words[1], words[2]};
        return status_ok();
    case WIRE_PART_ACK:
        m->ack = (struct wire_part_ack){words[0], words[1], words[2]};
        return status_ok();
    default:
        return invalid();
    }
}

struct status wire_decode(struct bytes in, struct wire_message *out)
{
    struct reader r = reader_of(in);
    if (in.size > REPLICA_MESSAGE_BYTES_MAX || reader_u8(&r) != WIRE_VERSION) {
        return invalid();
    }
    struct wire_message m = {0};
    m.type = (enum wire_type)reader_u8(&r);
    if (reader_u16(&r) != 0 || r.failed) {
        return invalid();
    }
    TRY(decode_body(&r, &m));
    /* decode_append and decode_part consume their whole input or fail. */
    if (m.type != WIRE_APPEND && m.type != WIRE_PART && (r.failed || r.rest.size != 0)) {
        return invalid();
    }
    *out = m;
    return status_ok();
}

void wire_close(struct wire_message *m)
{
    if (m->type == WIRE_APPEND && m->raft.append_entries.n_entries > 0) {
        raft_free(m->raft.append_entries.entries[0].batch);
        raft_free(m->raft.append_entries.entries);
        m->raft.append_entries.entries = NULL;
        m->raft.append_entries.n_entries = 0;
    } else if (m->type == WIRE_PART) {
        raft_configuration_close(&m->part.conf);
        raft_configuration_init(&m->part.conf);
    }
}

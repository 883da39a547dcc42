/* The bytes between replicas: golden ones for version 1, and what a decoder must refuse. */
#include "scheduler/replica/inbound.h"
#include "scheduler/replica/outbox.h"
#include "scheduler/replica/proposals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>
#include <cmocka.h>

static void assert_bytes(const struct buffer *got, const uint8_t *want, size_t size)
{
    assert_int_equal(got->size, size);
    assert_memory_equal(got->data, want, size);
}

static struct wire_message decode(const struct buffer *b)
{
    struct wire_message m;
    assert_int_equal(wire_decode(bytes_of(b->data, b->size), &m).code, STATUS_OK);
    return m;
}

/* Every shorter prefix, one byte more, and an unknown version are refused. */
static void assert_only_whole(const struct buffer *b)
{
    struct wire_message m;
    for (size_t size = 0; size < b->size; size++) {
        assert_int_equal(wire_decode(bytes_of(b->data, size), &m).code, STATUS_INVALID);
    }
    struct buffer other = {0};
    assert_true(status_is_ok(buffer_append(&other, b->data, b->size)));
    assert_true(status_is_ok(buffer_put_u8(&other, 0)));
    assert_int_equal(wire_decode(bytes_of(other.data, other.size), &m).code, STATUS_INVALID);
    other.data[0] = 2;
    assert_int_equal(wire_decode(bytes_of(other.data, b->size), &m).code, STATUS_INVALID);
    buffer_close(&other);
}

#define U64(v) (v), 0, 0, 0, 0, 0, 0, 0

static void append_entries_keep_their_bytes(void **state)
{
    (void)state;
    static const uint8_t golden[] = {
        1,      1,   0,   0,   U64(9), U64(4), U64(3), U64(2), 2,  0, 0,  0, /* head, count */
        U64(8), 1,   8,   0,   0,      0,      U64(9), 2,      16, 0, 0,  0, /* entry heads */
        'a',    'b', 'c', 'd', 'e',    'f',    'g',    'h',                  /* payloads */
        0,      1,   2,   3,   4,      5,      6,      7,      8,  9, 10, 11, 12, 13, 14, 15,
    };
    char first[8] = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'};
    uint8_t second[16];
    for (size_t i = 0; i < sizeof second; i++) {
        second[i] = (uint8_t)i;
    }
    struct raft_entry entries[2] = {
        {.term = 8, .type = RAFT_COMMAND, .buf = {first, sizeof first}},
        {.term = 9, .type = RAFT_BARRIER, .buf = {second, sizeof second}},
    };
    struct raft_message out = {.type = RAFT_IO_APPEND_ENTRIES};
    out.append_entries = (struct raft_append_entries){9, 4, 3, 2, entries, 2};
    struct buffer b = {0};
    assert_true(status_is_ok(wire_put(&b, &out)));
    assert_bytes(&b, golden, sizeof golden);
    assert_only_whole(&b);
    struct wire_message m = decode(&b);
    const struct raft_append_entries *in = &m.raft.append_entries;
    assert_int_equal(m.raft.type, RAFT_IO_APPEND_ENTRIES);
    assert_int_equal(in->term, 9);
    assert_int_equal(in->prev_log_index, 4);
    assert_int_equal(in->prev_log_term, 3);
    assert_int_equal(in->leader_commit, 2);
    assert_int_equal(in->n_entries, 2);
    assert_ptr_equal(in->entries[0].batch, in->entries[1].batch);
    assert_memory_equal(in->entries[0].buf.base, first, sizeof first);
    assert_memory_equal(in->entries[1].buf.base, second, sizeof second);
    wire_close(&m);
    buffer_close(&b);
}

static void a_heartbeat_keeps_its_bytes(void **state)
{
    (void)state;
    static const uint8_t golden[] = {1, 1, 0, 0, U64(1), U64(0), U64(0), U64(0), 0, 0, 0, 0};
    struct raft_message out = {.type = RAFT_IO_APPEND_ENTRIES};
    out.append_entries.term = 1;
    struct buffer b = {0};
    assert_true(status_is_ok(wire_put(&b, &out)));
    assert_bytes(&b, golden, sizeof golden);
    assert_only_whole(&b);
    struct wire_message m = decode(&b);
    assert_null(m.raft.append_entries.entries);
    wire_close(&m);
    buffer_close(&b);
}

static void the_second_half_of_an_append_names_the_entry_before(void **state)
{
    (void)state;
    uint64_t payload = 0;
    struct raft_entry entries[3] = {
        {.term = 5, .type = RAFT_COMMAND, .buf = {&payload, 8}},
        {.term = 6, .type = RAFT_COMMAND, .buf = {&payload, 8}},
        {.term = 7, .type = RAFT_COMMAND, .buf = {&payload, 8}},
    };
    struct raft_append_entries args = {7, 10, 4, 1, entries, 3};
    struct buffer b = {0};
    assert_true(status_is_ok(wire_put_append(&b, &args, 2, 1)));
    struct wire_message m = decode(&b);
    assert_int_equal(m.raft.append_entries.prev_log_index, 12);
    assert_int_equal(m.raft.append_entries.prev_log_term, 6);
    assert_int_equal(m.raft.append_entries.n_entries, 1);
    assert_int_equal(m.raft.append_entries.entries[0].term, 7);
    wire_close(&m);
    buffer_close(&b);
}

static void small_messages_keep_their_bytes(void **state)
{
    (void)state;
    static const uint8_t result[] = {1, 2, 0, 0, U64(7), U64(8), U64(9)};
    static const uint8_t vote[] = {1, 3, 0, 0, U64(1), U64(2), U64(3), U64(4), 3};
    static const uint8_t voted[] = {1, 4, 0, 0, U64(5), 1, 2};
    static const uint8_t now[] = {1, 6, 0, 0, U64(4), U64(5), U64(6)};
    static const uint8_t ack[] = {1, 7, 0, 0, U64(11), U64(12), U64(13)};
    struct raft_message out[4] = {
        {.type = RAFT_IO_APPEND_ENTRIES_RESULT, .append_entries_result = {7, 8, 9}},
        {.type = RAFT_IO_REQUEST_VOTE, .request_vote = {1, 2, 3, 4, true, true}},
        {.type = RAFT_IO_REQUEST_VOTE_RESULT, .request_vote_result = {5, true, raft_tribool_false}},
        {.type = RAFT_IO_TIMEOUT_NOW, .timeout_now = {4, 5, 6}},
    };
    const struct bytes golden[4] = {
        {result, sizeof result}, {vote, sizeof vote}, {voted, sizeof voted}, {now, sizeof now}};
    for (size_t i = 0; i < 4; i++) {
        struct buffer b = {0};
        assert_true(status_is_ok(wire_put(&b, &out[i])));
        assert_bytes(&b, golden[i].data, golden[i].size);
        assert_only_whole(&b);
        struct wire_message m = decode(&b);
        assert_int_equal(m.raft.type, out[i].type);
        struct buffer again = {0};
        assert_true(status_is_ok(wire_put(&again, &m.raft)));
        assert_bytes(&again, golden[i].data, golden[i].size);
        buffer_close(&again);
        buffer_close(&b);
    }
    struct buffer b = {0};
    struct wire_part_ack put = {11, 12, 13};
    assert_true(status_is_ok(wire_put_ack(&b, &put)));
    assert_bytes(&b, ack, sizeof ack);
    assert_only_whole(&b);
    struct wire_message m = decode(&b);
    assert_int_equal(m.ack.received, 13);
    buffer_close(&b);
}

static struct wire_part a_part(uint64_t total, uint64_t offset, const char *data)
{
    return (struct wire_part){.term = 2,
                              .last_index = 100,
                              .last_term = 1,
                              .conf_index = 1,
                              .total = total,
                              .offset = offset,
                              .data = bytes_of(data, strlen(data))};
}

static void a_part_keeps_its_bytes(void **state)
{
    (void)state;
    static const uint8_t golden[] = {
        1, 5,      0, 0, U64(2), U64(100), U64(1), U64(1), U64(10), U64(4), /* head */
        1, U64(7), 1, 3, 'h',    ':',      '1',                             /* configuration */
        3, 0,      0, 0, 'x',    'y',      'z',
    };
    struct wire_part part = a_part(10, 4, "xyz");
    raft_configuration_init(&part.conf);
    assert_int_equal(raft_configuration_add(&part.conf, 7, "h:1", RAFT_VOTER), 0);
    struct buffer b = {0};
    assert_true(status_is_ok(wire_put_part(&b, &part)));
    assert_bytes(&b, golden, sizeof golden);
    assert_only_whole(&b);
    struct wire_message m = decode(&b);
    assert_int_equal(m.part.conf.n, 1);
    assert_string_equal(m.part.conf.servers[0].address, "h:1");
    assert_int_equal(m.part.offset, 4);
    wire_close(&m);
    raft_configuration_close(&part.conf);
    buffer_close(&b);
}

static void put_entry_message(struct buffer *b, uint8_t type, const void *payload, uint32_t size)
{
    static const uint8_t head[] = {1, 1, 0, 0, U64(1), U64(0), U64(0), U64(0), 1, 0, 0, 0, U64(1)};
    b->size = 0;
    assert_true(status_is_ok(buffer_append(b, head, sizeof head)));
    assert_true(status_is_ok(buffer_put_u8(b, type)));
    assert_true(status_is_ok(buffer_put_u32(b, size)));
    assert_true(status_is_ok(buffer_append(b, payload, size)));
}

static enum status_code code_of(const struct buffer *b)
{
    struct wire_message m;
    struct status s = wire_decode(bytes_of(b->data, b->size), &m);
    if (status_is_ok(s)) {
        wire_close(&m);
    }
    return s.code;
}

static void entries_libraft_cannot_take_are_refused(void **state)
{
    (void)state;
    uint8_t zeros[32] = {0};
    struct buffer b = {0};
    put_entry_message(&b, RAFT_COMMAND, zeros, 8);
    assert_int_equal(code_of(&b), STATUS_OK);
    put_entry_message(&b, RAFT_COMMAND, zeros, 12);
    assert_int_equal(code_of(&b), STATUS_INVALID);
    put_entry_message(&b, RAFT_COMMAND, zeros, 0);
    assert_int_equal(code_of(&b), STATUS_INVALID);
    put_entry_message(&b, 0, zeros, 8);
    assert_int_equal(code_of(&b), STATUS_INVALID);
    put_entry_message(&b, RAFT_CHANGE + 1, zeros, 8);
    assert_int_equal(code_of(&b), STATUS_INVALID);
    buffer_close(&b);
}

static void configurations_in_entries_are_checked(void **state)
{
    (void)state;
    struct raft_configuration conf;
    struct raft_buffer encoded;
    raft_configuration_init(&conf);
    assert_int_equal(raft_configuration_add(&conf, 7, "host:1", RAFT_VOTER), 0);
    assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
    raft_configuration_close(&conf);
    uint8_t *bytes = encoded.base;
    struct buffer b = {0};
    put_entry_message(&b, RAFT_CHANGE, bytes, (uint32_t)encoded.len);
    assert_int_equal(code_of(&b), STATUS_OK);
    bytes[1] = 200; /* more servers than there are */
    put_entry_message(&b, RAFT_CHANGE, bytes, (uint32_t)encoded.len);
    assert_int_equal(code_of(&b), STATUS_INVALID);
    bytes[1] = 1;
    memset(bytes + 17, 'x', encoded.len - 17); /* an address without an end */
    put_entry_message(&b, RAFT_CHANGE, bytes, (uint32_t)encoded.len);
    assert_int_equal(code_of(&b), STATUS_INVALID);
    raft_free(encoded.base);
    buffer_close(&b);
}

static void stored_commands_come_back_and_damaged_ones_are_corrupt(void **state)
{
    (void)state;
    uint8_t stored[16] = {3, 0, 0, 0, 0, 0, 0, 0, 'a', 'b', 'c'};
    struct bytes out;
    assert_int_equal(command_unwrap(bytes_of(stored, 16), &out).code, STATUS_OK);
    assert_int_equal(out.size, 3);
    assert_memory_equal(out.data, "abc", 3);
    stored[0] = 9;
    assert_int_equal(command_unwrap(bytes_of(stored, 16), &out).code, STATUS_CORRUPT);
    stored[0] = 0;
    assert_int_equal(command_unwrap(bytes_of(stored, 16), &out).code, STATUS_CORRUPT);
    stored[0] = 3;
    stored[4] = 1;
    assert_int_equal(command_unwrap(bytes_of(stored, 16), &out).code, STATUS_CORRUPT);
    assert_int_equal(command_unwrap(bytes_of(stored, 7), &out).code, STATUS_CORRUPT);
}

static struct status put(struct inbound *in, struct wire_part part, uint64_t *received,
                         bool *complete, struct raft_install_snapshot *out)
{
    struct wire_part_ack ack = {0};
    struct status s = inbound_put(in, 3, &part, 1000, &ack, complete, out);
    *received = ack.received;
    return s;
}

static void parts_in_any_repetition_make_one_snapshot(void **state)
{
    (void)state;
    struct inbound in = {0};
    struct raft_install_snapshot out = {0};
    uint64_t received;
    bool complete;
    assert_int_equal(put(&in, a_part(10, 4, "efg"), &received, &complete, &out).code, STATUS_OK);
    assert_int_equal(received, 0); /* the start is missing */
    assert_int_equal(put(&in, a_part(10, 0, "abcd"), &received, &complete, &out).code, STATUS_OK);
    assert_int_equal(received, 4);
    assert_int_equal(put(&in, a_part(10, 0, "abcd"), &received, &complete, &out).code, STATUS_OK);
    assert_int_equal(received, 4);
    assert_int_equal(put(&in, a_part(10, 7, "hij"), &received, &complete, &out).code, STATUS_OK);
    assert_int_equal(received, 4); /* a hole is not taken */
    assert_int_equal(put(&in, a_part(10, 4, "efghij"), &received, &complete, &out).code, STATUS_OK);
    assert_true(complete);
    assert_int_equal(received, 10);
    assert_memory_equal(out.data.base, "abcdefghij", 10);
    assert_int_equal(out.last_index, 100);
    raft_free(out.data.base);
    raft_configuration_close(&out.conf);
    assert_int_equal(put(&in, a_part(10, 4, "efghij"), &received, &complete, &out).code, STATUS_OK);
    assert_false(complete); /* a repeated end is only answered */
    assert_int_equal(received, 10);
    inbound_close(&in);
}

static void a_snapshot_sent_again_is_handed_over_again(void **state)
{
    (void)state;
    struct inbound in = {0};
    uint64_t received;
    bool complete;
    for (int i = 0; i < 2; i++) {
        struct raft_install_snapshot out = {0};
        assert_true(status_is_ok(put(&in, a_part(4, 0, "ab"), &received, &complete, &out)));
        assert_false(complete);
        assert_true(status_is_ok(put(&in, a_part(4, 2, "cd"), &received, &complete, &out)));
        assert_true(complete);
        assert_memory_equal(out.data.base, "abcd", 4);
        raft_free(out.data.base);
        raft_configuration_close(&out.conf);
    }
    inbound_close(&in);
}

static void a_silent_sender_is_forgotten(void **state)
{
    (void)state;
    struct inbound in = {0};
    struct raft_install_snapshot out;
    uint64_t received;
    bool complete;
    assert_true(status_is_ok(put(&in, a_part(10, 0, "abcd"), &received, &complete, &out)));
    inbound_tick(&in, 1000 + INBOUND_IDLE_MS_MAX);
    assert_non_null(in.data);
    inbound_tick(&in, 1001 + INBOUND_IDLE_MS_MAX);
    assert_null(in.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_entries_keep_their_bytes),
        cmocka_unit_test(a_heartbeat_keeps_its_bytes),
        cmocka_unit_test(the_second_half_of_an_append_names_the_entry_before),
        cmocka_unit_test(small_messages_keep_their_bytes),
        cmocka_unit_test(a_part_keeps_its_bytes),
        cmocka_unit_test(entries_libraft_cannot_take_are_refused),
        cmocka_unit_test(configurations_in_entries_are_checked),
        cmocka_unit_test(stored_commands_come_back_and_damaged_ones_are_corrupt),
        cmocka_unit_test(parts_in_any_repetition_make_one_snapshot),
        cmocka_unit_test(a_snapshot_sent_again_is_handed_over_again),
        cmocka_unit_test(a_silent_sender_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

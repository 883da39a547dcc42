/* What is encoded comes back whole, and out of memory is told and leaves things as they were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "proto/codec.h"
#include "tests/unit/proto/values.h"

#include <string.h>

enum { ALLOCATIONS_MAX = 1000 };

static struct bytes whole(const struct buffer *b)
{
    return bytes_of(b->data, b->size);
}

static void message_passes(const struct message *m)
{
    struct arena a = {0};
    struct buffer out = {0};
    struct message back;
    struct errmsg msg = {.text = ""};
    assert_int_equal(message_encode(m, &out).code, STATUS_OK);
    assert_int_equal(message_decode(whole(&out), &a, &back, &msg).code, STATUS_OK);
    if (!message_equal(m, &back)) {
        fail_msg("%s came back changed", message_type_name(m->type));
    }
    arena_close(&a);
    buffer_close(&out);
}

static void every_message_comes_back_with_every_field(void **state)
{
    (void)state;
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT_; type++) {
        struct arena a = {0};
        struct message m = value_message(&a, (enum message_type)type);
        message_passes(&m);
        arena_close(&a);
    }
}

static void every_empty_message_comes_back_empty(void **state)
{
    (void)state;
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT_; type++) {
        struct arena a = {0};
        struct message m = value_message_empty(&a, (enum message_type)type);
        message_passes(&m);
        arena_close(&a);
    }
}

static void every_command_comes_back_with_every_field(void **state)
{
    (void)state;
    for (int type = COMMAND_NONE + 1; type < COMMAND_TYPE_COUNT_; type++) {
        struct arena a = {0};
        struct buffer out = {0};
        struct command c = value_command(&a, (enum command_type)type), back;
        assert_int_equal(command_encode(&c, &out).code, STATUS_OK);
        assert_int_equal(command_decode(whole(&out), &a, &back, NULL).code, STATUS_OK);
        if (!command_equal(&c, &back)) {
            fail_msg("%s came back changed", command_type_name(c.type));
        }
        arena_close(&a);
        buffer_close(&out);
    }
}

static void a_state_comes_back_with_every_field(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer out = {0};
    struct state s = value_state(&a), back;
    assert_int_equal(state_encode(&s, &out).code, STATUS_OK);
    assert_int_equal(state_decode(whole(&out), &a, &back, NULL).code, STATUS_OK);
    assert_true(state_equal(&s, &back));
    arena_close(&a);
    buffer_close(&out);
}

static void a_job_comes_back_with_every_field(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer out = {0};
    struct state_job j = value_state_job(&a), back;
    assert_int_equal(state_job_encode(&j, &out).code, STATUS_OK);
    assert_int_equal(state_job_decode(whole(&out), &a, &back, NULL).code, STATUS_OK);
    assert_true(state_jobs_equal(&j, &back));
    arena_close(&a);
    buffer_close(&out);
}

static void a_spec_comes_back_and_encodes_the_same_each_time(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer out = {0}, again = {0};
    struct function_spec s = value_spec(&a), back;
    assert_int_equal(function_spec_encode(&s, &out).code, STATUS_OK);
    assert_int_equal(function_spec_decode(whole(&out), &a, &back, NULL).code, STATUS_OK);
    assert_true(spec_equal(&s, &back));
    assert_int_equal(function_spec_encode(&back, &again).code, STATUS_OK);
    assert_true(bytes_equal(whole(&out), whole(&again)));
    arena_close(&a);
    buffer_close(&out);
    buffer_close(&again);
}

/* The comparison must be able to fail, or the tests above prove nothing. */
static void a_changed_field_is_seen(void **state)
{
    (void)state;
    struct arena a = {0};
    struct message m = value_message(&a, MESSAGE_START), other = m;
    other.start.revision.v[31] ^= 1;
    assert_false(message_equal(&m, &other));
    struct function_spec spec = *m.start.spec;
    other = m;
    other.start.spec = &spec;
    assert_true(message_equal(&m, &other));
    spec.package_bytes++;
    assert_false(message_equal(&m, &other));
    arena_close(&a);
}

static void decoding_shares_no_bytes_with_its_input(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer out = {0};
    struct message m = value_message(&a, MESSAGE_CALL_REPLY), back;
    assert_int_equal(message_encode(&m, &out).code, STATUS_OK);
    assert_int_equal(message_decode(whole(&out), &a, &back, NULL).code, STATUS_OK);
    memset(out.data, 0xee, out.size);
    assert_true(message_equal(&m, &back));
    arena_close(&a);
    buffer_close(&out);
}

static void encoding_appends_to_what_is_there(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer out = {0};
    struct message m = value_message(&a, MESSAGE_CALL), back;
    assert_int_equal(buffer_append(&out, "head", 4).code, STATUS_OK);
    assert_int_equal(message_encode(&m, &out).code, STATUS_OK);
    assert_memory_equal(out.data, "head", 4);
    assert_int_equal(message_decode(bytes_of(out.data + 4, out.size - 4), &a, &back, NULL).code,
                     STATUS_OK);
    assert_true(message_equal(&m, &back));
    arena_close(&a);
    buffer_close(&out);
}

static void absent_texts_are_empty_after_decoding(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer out = {0};
    const struct message m = {.type = MESSAGE_QUERY};
    struct message back;
    assert_int_equal(message_encode(&m, &out).code, STATUS_OK);
    assert_int_equal(message_decode(whole(&out), &a, &back, NULL).code, STATUS_OK);
    assert_string_equal(back.query.what, "");
    assert_string_equal(back.query.name, "");
    arena_close(&a);
    buffer_close(&out);
}

static void a_copied_spec_is_equal_and_its_own(void **state)
{
    (void)state;
    struct arena from = {0}, to = {0};
    struct function_spec s = value_spec(&from), copy, expected;
    assert_int_equal(function_spec_copy(&to, &s, &copy).code, STATUS_OK);
    arena_close(&from); /* A copy that borrowed would be caught by the sanitizer here. */
    expected = value_spec(&from);
    assert_true(spec_equal(&copy, &expected));
    arena_close(&from);
    arena_close(&to);
}

static void names_of_types_are_their_rows(void **state)
{
    (void)state;
    assert_string_equal(message_type_name(MESSAGE_CALL), "call");
    assert_string_equal(message_type_name(MESSAGE_NODE_REGISTER), "node_register");
    assert_string_equal(message_type_name(MESSAGE_NONE), "none");
    assert_string_equal(message_type_name(MESSAGE_TYPE_COUNT_), "none");
    assert_string_equal(command_type_name(COMMAND_DEPLOY), "deploy");
    assert_string_equal(command_type_name(COMMAND_SCHEDULER_REMOVE), "scheduler_remove");
    assert_string_equal(command_type_name(COMMAND_NONE), "none");
}

/* ---- Out of memory. Each runs with the n-th allocation failing, until none fails any more.
 * ---- */

static void encoding_without_memory_leaves_the_buffer(void **state)
{
    (void)state;
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT_; type++) {
        struct arena a = {0};
        struct message m = value_message(&a, (enum message_type)type);
        struct buffer out = {0};
        assert_int_equal(buffer_append(&out, "head", 4).code, STATUS_OK);
        for (unsigned n = 0; n < ALLOCATIONS_MAX; n++) {
            mem_fault(n, 1);
            struct status s = message_encode(&m, &out);
            if (mem_fault_clear() == 0) {
                assert_int_equal(s.code, STATUS_OK);
                break;
            }
            assert_int_equal(s.code, STATUS_NOMEM);
            assert_int_equal(out.size, 4);
            assert_memory_equal(out.data, "head", 4);
        }
        assert_true(out.size > 4);
        arena_close(&a);
        buffer_close(&out);
    }
}

static void decoding_without_memory_leaves_the_result(void **state)
{
    (void)state;
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT_; type++) {
        struct arena a = {0};
        struct message m = value_message(&a, (enum message_type)type);
        struct buffer out = {0};
        assert_int_equal(message_encode(&m, &out).code, STATUS_OK);
        struct message back, before;
        memset(&back, 0x5a, sizeof back);
        before = back;
        for (unsigned n = 0; n < ALLOCATIONS_MAX; n++) {
            struct arena into = {0};
            struct errmsg msg = {.text = ""};
            mem_fault(n, 1);
            struct status s = message_decode(whole(&out), &into, &back, &msg);
            bool faulted = mem_fault_clear() > 0;
            assert_int_equal(s.code, faulted ? STATUS_LIMIT : STATUS_OK);
            assert_true(faulted ? msg.text[0] != '\0' : message_equal(&m, &back));
            if (faulted) {
                assert_memory_equal(&back, &before, sizeof back);
            }
            arena_close(&into);
            if (!faulted) {
                break;
            }
        }
        arena_close(&a);
        buffer_close(&out);
    }
}

static void commands_and_states_without_memory_fail_cleanly(void **state)
{
    (void)state;
    struct arena a = {0};
    struct command c = value_command(&a, COMMAND_DEPLOY);
    struct state s = value_state(&a);
    struct buffer command = {0}, snapshot = {0};
    bool command_done = false, state_done = false;
    for (unsigned n = 0; n < ALLOCATIONS_MAX && !(command_done && state_done); n++) {
        mem_fault(n, 1);
        struct status encoded = command_encode(&c, &command);
        command_done = mem_fault_clear() == 0;
        assert_int_equal(encoded.code, command_done ? STATUS_OK : STATUS_NOMEM);
        mem_fault(n, 1);
        encoded = state_encode(&s, &snapshot);
        state_done = mem_fault_clear() == 0;
        assert_int_equal(encoded.code, state_done ? STATUS_OK : STATUS_NOMEM);
        if (!command_done) {
            assert_int_equal(command.size, 0);
        } else if (!state_done) {
            command.size = 0;
        }
        assert_true(state_done || snapshot.size == 0);
    }
    command_done = state_done = false;
    for (unsigned n = 0; n < ALLOCATIONS_MAX && !(command_done && state_done); n++) {
        struct arena into = {0};
        struct command command_back;
        struct state state_back;
        mem_fault(n, 1);
        struct status decoded = command_decode(whole(&command), &into, &command_back, NULL);
        command_done = mem_fault_clear() == 0;
        assert_int_equal(decoded.code, command_done ? STATUS_OK : STATUS_LIMIT);
        arena_close(&into);
        mem_fault(n, 1);
        decoded = state_decode(whole(&snapshot), &into, &state_back, NULL);
        state_done = mem_fault_clear() == 0;
        assert_int_equal(decoded.code, state_done ? STATUS_OK : STATUS_LIMIT);
        arena_close(&into);
    }
    assert_true(command_done && state_done);
    arena_close(&a);
    buffer_close(&command);
    buffer_close(&snapshot);
}

static void copying_a_spec_without_memory_leaves_the_result(void **state)
{
    (void)state;
    struct arena from = {0};
    struct function_spec s = value_spec(&from);
    struct function_spec copy = {.cpu_millis = 77};
    for (unsigned n = 0; n < ALLOCATIONS_MAX; n++) {
        struct arena to = {.bytes_max = 16 * (size_t)n + 1};
        struct status copied = function_spec_copy(&to, &s, &copy);
        if (status_is_ok(copied)) {
            assert_true(spec_equal(&s, &copy));
            arena_close(&to);
            arena_close(&from);
            return;
        }
        assert_int_equal(copied.code, STATUS_NOMEM);
        assert_int_equal(copy.cpu_millis, 77);
        arena_close(&to);
    }
    fail_msg("the copy never had room");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back_with_every_field),
        cmocka_unit_test(every_empty_message_comes_back_empty),
        cmocka_unit_test(every_command_comes_back_with_every_field),
        cmocka_unit_test(a_state_comes_back_with_every_field),
        cmocka_unit_test(a_job_comes_back_with_every_field),
        cmocka_unit_test(a_spec_comes_back_and_encodes_the_same_each_time),
        cmocka_unit_test(a_changed_field_is_seen),
        cmocka_unit_test(decoding_shares_no_bytes_with_its_input),
        cmocka_unit_test(encoding_appends_to_what_is_there),
        cmocka_unit_test(absent_texts_are_empty_after_decoding),
        cmocka_unit_test(a_copied_spec_is_equal_and_its_own),
        cmocka_unit_test(names_of_types_are_their_rows),
        cmocka_unit_test(encoding_without_memory_leaves_the_buffer),
        cmocka_unit_test(decoding_without_memory_leaves_the_result),
        cmocka_unit_test(commands_and_states_without_memory_fail_cleanly),
        cmocka_unit_test(copying_a_spec_without_memory_leaves_the_result),
    };
    return cmocka_run_group_tests_name("proto round trip", tests, NULL, NULL);
}

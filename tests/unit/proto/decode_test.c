/* What does not decode: each error with its code and a message that names the place, nothing
 * written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "proto/codec.h"
#include "tests/unit/proto/values.h"
#include "tests/unit/proto/wire.h"

#include <string.h>

/* Numbers of skep.proto. */
enum {
    BODY_HELLO = 16,
    BODY_CHUNK_PUT = 22,
    BODY_DEPLOY = 25,
    BODY_RECORDS = 27,
    BODY_START = 37,
    BODY_INVOKE = 39,
    BODY_INSTANCE_EVENT = 43,
    BODY_UNKNOWN = 999,
    COMMAND_BODY_DEPLOY = 16,
    COMMAND_BODY_ROLLBACK = 18,
    COMMAND_BODY_UNKNOWN = 999,
    RECORDS_ROWS = 4,
    DEPLOY_SPEC = 1,
    STATE_FUNCTIONS = 3,
    FUNCTION_CURRENT = 2,
    FUNCTION_REVISIONS = 4,
    VERSION = 1,
};

static struct bytes whole(const struct buffer *b)
{
    return bytes_of(b->data, b->size);
}

static void expect_message(struct bytes in, enum status_code code, const char *text)
{
    struct arena a = {0};
    struct errmsg msg = {.text = ""};
    struct message out, before;
    memset(&out, 0x5a, sizeof out);
    before = out;
    assert_int_equal(message_decode(in, &a, &out, &msg).code, code);
    if (strstr(msg.text, text) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", msg.text, text);
    }
    assert_memory_equal(&out, &before, sizeof out);
    assert_int_not_equal(message_decode(in, &a, &out, NULL).code, STATUS_OK); /* msg may be NULL */
    arena_close(&a);
}

/* Expects that an envelope with this body of these bytes is refused; takes content. */
static void expect_body(unsigned body, struct buffer *content, enum status_code code,
                        const char *text)
{
    struct buffer in = {0};
    wire_envelope(&in, VERSION, body, content);
    expect_message(whole(&in), code, text);
    buffer_close(&in);
    buffer_close(content);
}

static void expect_command(struct bytes in, enum status_code code, const char *text)
{
    struct arena a = {0};
    struct errmsg msg = {.text = ""};
    struct command out, before;
    memset(&out, 0x5a, sizeof out);
    before = out;
    assert_int_equal(command_decode(in, &a, &out, &msg).code, code);
    assert_non_null(strstr(msg.text, text));
    assert_memory_equal(&out, &before, sizeof out);
    arena_close(&a);
}

static void expect_state(struct bytes in, enum status_code code, const char *text)
{
    struct arena a = {0};
    struct errmsg msg = {.text = ""};
    struct state out, before;
    memset(&out, 0x5a, sizeof out);
    before = out;
    assert_int_equal(state_decode(in, &a, &out, &msg).code, code);
    assert_non_null(strstr(msg.text, text));
    assert_memory_equal(&out, &before, sizeof out);
    arena_close(&a);
}

static void an_id_of_a_wrong_length_is_named(void **state)
{
    (void)state;
    uint8_t id[17] = {1};
    const size_t sizes[] = {1, 15, 17};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buffer invoke = {0};
        wire_bytes(&invoke, 1, id, sizes[i]);
        expect_body(BODY_INVOKE, &invoke, STATUS_INVALID, "invoke.invocation: ");
    }
    struct buffer instance = {0};
    wire_bytes(&instance, 3, id, 15);
    expect_body(BODY_INVOKE, &instance, STATUS_INVALID, "invoke.instance: 15 bytes, 16 expected");
}

static void a_digest_of_a_wrong_length_is_named(void **state)
{
    (void)state;
    uint8_t digest[33] = {1};
    const size_t sizes[] = {1, 31, 33};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buffer put = {0};
        wire_bytes(&put, 1, digest, sizes[i]);
        expect_body(BODY_CHUNK_PUT, &put, STATUS_INVALID, "chunk_put.digest: ");
    }
}

static void an_absent_id_is_zero(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer in = {0}, empty = {0};
    wire_envelope(&in, VERSION, BODY_INVOKE, &empty);
    struct message m;
    assert_int_equal(message_decode(whole(&in), &a, &m, NULL).code, STATUS_OK);
    assert_true(id_is_zero(m.invoke.invocation));
    assert_true(id_is_zero(m.invoke.instance));
    assert_int_equal(m.invoke.payload.size, 0);
    arena_close(&a);
    buffer_close(&in);
}

static void a_missing_nested_part_is_named(void **state)
{
    (void)state;
    struct buffer deploy = {0}, start = {0}, event = {0};
    expect_body(BODY_DEPLOY, &deploy, STATUS_INVALID, "deploy.spec: missing");
    expect_body(BODY_START, &start, STATUS_INVALID, "start.spec: missing");
    expect_body(BODY_INSTANCE_EVENT, &event, STATUS_INVALID, "instance_event.report: missing");
}

static void other_forms_of_the_envelope_are_unsupported_and_named(void **state)
{
    (void)state;
    const uint64_t versions[] = {0, ENVELOPE_FORM + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        struct buffer in = {0}, empty = {0};
        wire_envelope(&in, versions[i], BODY_HELLO, &empty);
        expect_message(whole(&in), STATUS_UNSUPPORTED, "envelope form");
        buffer_close(&in);
    }
}

static void an_unknown_or_absent_body_is_unsupported(void **state)
{
    (void)state;
    struct buffer unknown = {0}, absent = {0};
    expect_body(BODY_UNKNOWN, &unknown, STATUS_UNSUPPORTED, "without a body that this build knows");
    expect_body(0, &absent, STATUS_UNSUPPORTED, "without a body that this build knows");
}

static void an_unknown_field_is_skipped(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer in = {0}, hello = {0};
    wire_number(&hello, 1, 7);
    wire_bytes(&hello, 900, "from the future", 15);
    wire_envelope(&in, VERSION, BODY_HELLO, &hello);
    wire_number(&in, 901, 12345);
    struct message m;
    assert_int_equal(message_decode(whole(&in), &a, &m, NULL).code, STATUS_OK);
    assert_int_equal(m.type, MESSAGE_HELLO);
    assert_int_equal(m.hello.version_min, 7);
    arena_close(&a);
    buffer_close(&in);
    buffer_close(&hello);
}

/* Who left out what others apply would differ from them. */
static void an_unknown_field_of_a_command_is_unsupported_wherever_it_is(void **state)
{
    (void)state;
    struct arena a = {0};
    struct command c = value_command(&a, COMMAND_DEPLOY), out;
    struct buffer plain = {0}, top = {0}, body = {0}, spec = {0}, deploy = {0}, nested = {0};
    assert_int_equal(command_encode(&c, &plain).code, STATUS_OK);
    assert_int_equal(command_decode(whole(&plain), &a, &out, NULL).code, STATUS_OK);

    assert_int_equal(buffer_append(&top, plain.data, plain.size).code, STATUS_OK);
    wire_number(&top, 901, 1);
    expect_command(whole(&top), STATUS_UNSUPPORTED, "command: field 901 is of a later version");

    wire_number(&spec, 902, 1);
    wire_bytes(&deploy, DEPLOY_SPEC, spec.data, spec.size);
    wire_bytes(&nested, COMMAND_BODY_DEPLOY, deploy.data, deploy.size);
    expect_command(whole(&nested), STATUS_UNSUPPORTED, "function_spec: field 902");

    deploy.size = 0;
    wire_number(&deploy, 903, 1);
    wire_bytes(&body, COMMAND_BODY_DEPLOY, deploy.data, deploy.size);
    expect_command(whole(&body), STATUS_UNSUPPORTED, "command_deploy: field 903");
    arena_close(&a);
    buffer_close(&plain);
    buffer_close(&top);
    buffer_close(&body);
    buffer_close(&spec);
    buffer_close(&deploy);
    buffer_close(&nested);
}

static void an_unknown_field_of_a_state_is_unsupported_wherever_it_is(void **state)
{
    (void)state;
    struct arena a = {0};
    struct errmsg msg = {.text = ""};
    struct state out;
    struct state_job job;
    struct buffer function = {0}, nested = {0}, in = {0};
    wire_number(&function, 900, 1);
    wire_bytes(&nested, STATE_FUNCTIONS, function.data, function.size);
    assert_int_equal(state_decode(whole(&nested), &a, &out, &msg).code, STATUS_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "state_function: field 900 is of a later version"));
    wire_number(&in, 901, 1);
    assert_int_equal(state_decode(whole(&in), &a, &out, &msg).code, STATUS_UNSUPPORTED);
    assert_int_equal(state_job_decode(whole(&in), &a, &job, &msg).code, STATUS_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "state_job: field 901"));
    arena_close(&a);
    buffer_close(&function);
    buffer_close(&nested);
    buffer_close(&in);
}

static void the_last_of_two_bodies_counts(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer in = {0}, empty = {0};
    wire_envelope(&in, VERSION, BODY_HELLO, &empty);
    wire_bytes(&in, BODY_INVOKE, "", 0);
    struct message m;
    assert_int_equal(message_decode(whole(&in), &a, &m, NULL).code, STATUS_OK);
    assert_int_equal(m.type, MESSAGE_INVOKE);
    arena_close(&a);
    buffer_close(&in);
}

static void no_bytes_are_no_message(void **state)
{
    (void)state;
    expect_message(bytes_of(NULL, 0), STATUS_UNSUPPORTED, "form 0");
    expect_command(bytes_of(NULL, 0), STATUS_UNSUPPORTED, "without a body that this build knows");
}

static void garbage_is_invalid(void **state)
{
    (void)state;
    const uint8_t garbage[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    expect_message(bytes_of(garbage, sizeof garbage), STATUS_INVALID,
                   "message of 11 bytes: malformed");
    expect_command(bytes_of(garbage, sizeof garbage), STATUS_INVALID,
                   "command of 11 bytes: malformed");
    expect_state(bytes_of(garbage, sizeof garbage), STATUS_INVALID, "state of 11 bytes: malformed");
    struct arena a = {0};
    struct function_spec spec;
    assert_int_equal(function_spec_decode(bytes_of(garbage, sizeof garbage), &a, &spec, NULL).code,
                     STATUS_INVALID);
    arena_close(&a);
}

/* A body carries its length: every shorter message is refused. Copied, so that the sanitizer
 * sees a read past the end. */
static void every_message_cut_at_every_byte_is_refused(void **state)
{
    (void)state;
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT_; type++) {
        struct arena a = {0};
        struct buffer out = {0};
        struct message m = value_message(&a, (enum message_type)type);
        assert_int_equal(message_encode(&m, &out).code, STATUS_OK);
        for (size_t size = 0; size < out.size; size++) {
            uint8_t *cut = mem_must(mem_dup(out.data, size));
            struct arena into = {0};
            struct message back;
            struct status decoded = message_decode(bytes_of(cut, size), &into, &back, NULL);
            assert_true(decoded.code == STATUS_INVALID || decoded.code == STATUS_UNSUPPORTED);
            arena_close(&into);
            mem_free(cut);
        }
        arena_close(&a);
        buffer_close(&out);
    }
}

static void every_command_cut_at_every_byte_is_refused(void **state)
{
    (void)state;
    for (int type = COMMAND_NONE + 1; type < COMMAND_TYPE_COUNT_; type++) {
        struct arena a = {0};
        struct buffer out = {0};
        struct command c = value_command(&a, (enum command_type)type);
        assert_int_equal(command_encode(&c, &out).code, STATUS_OK);
        for (size_t size = 0; size < out.size; size++) {
            uint8_t *cut = mem_must(mem_dup(out.data, size));
            struct command back;
            struct arena into = {0};
            assert_int_not_equal(command_decode(bytes_of(cut, size), &into, &back, NULL).code,
                                 STATUS_OK);
            arena_close(&into);
            mem_free(cut);
        }
        arena_close(&a);
        buffer_close(&out);
    }
}

/* A state has no length around it: cut between two fields it is a shorter state, cut elsewhere
 * it is refused. */
static void a_state_cut_anywhere_is_refused_or_shorter(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer out = {0};
    struct state s = value_state(&a);
    assert_int_equal(state_encode(&s, &out).code, STATUS_OK);
    size_t refused = 0;
    for (size_t size = 0; size < out.size; size++) {
        uint8_t *cut = mem_must(mem_dup(out.data, size));
        struct arena into = {0};
        struct state back;
        struct status decoded = state_decode(bytes_of(cut, size), &into, &back, NULL);
        refused += !status_is_ok(decoded);
        assert_true(!status_is_ok(decoded) || !state_equal(&s, &back));
        arena_close(&into);
        mem_free(cut);
    }
    assert_true(refused > out.size / 2);
    arena_close(&a);
    buffer_close(&out);
}

static void a_list_of_the_limit_passes_and_one_more_does_not(void **state)
{
    (void)state;
    struct buffer records = {0}, in = {0};
    for (size_t i = 0; i < CODEC_LIST_MAX; i++) {
        wire_bytes(&records, RECORDS_ROWS, "", 0);
    }
    wire_envelope(&in, VERSION, BODY_RECORDS, &records);
    struct arena a = {0};
    struct message m;
    assert_int_equal(message_decode(whole(&in), &a, &m, NULL).code, STATUS_OK);
    assert_int_equal(m.records.rows_count, CODEC_LIST_MAX);
    arena_close(&a);
    buffer_close(&in);
    wire_bytes(&records, RECORDS_ROWS, "", 0);
    expect_body(BODY_RECORDS, &records, STATUS_LIMIT, "records.rows: 100001 items, at most 100000");
}

static void every_arena_too_small_is_a_limit(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer out = {0};
    struct message m = value_message(&a, MESSAGE_NODE_REGISTER);
    assert_int_equal(message_encode(&m, &out).code, STATUS_OK);
    bool passed = false;
    for (size_t max = 16; max < (64 << 10) && !passed; max += 16) {
        struct arena into = {.bytes_max = max};
        struct message back;
        struct errmsg msg = {.text = ""};
        struct status s = message_decode(whole(&out), &into, &back, &msg);
        passed = status_is_ok(s);
        assert_true(passed || s.code == STATUS_LIMIT);
        assert_true(passed || strstr(msg.text, "too large") != NULL);
        arena_close(&into);
    }
    assert_true(passed);
    arena_close(&a);
    buffer_close(&out);
}

static void bad_commands_are_named(void **state)
{
    (void)state;
    struct buffer in = {0};
    wire_bytes(&in, COMMAND_BODY_DEPLOY, "", 0);
    expect_command(whole(&in), STATUS_INVALID, "command_deploy.spec: missing");
    buffer_close(&in);
    struct buffer rollback = {0};
    wire_bytes(&rollback, 2, "short", 5);
    wire_bytes(&in, COMMAND_BODY_ROLLBACK, rollback.data, rollback.size);
    expect_command(whole(&in), STATUS_INVALID,
                   "command_function_rollback.revision: 5 bytes, 32 expected");
    buffer_close(&in);
    buffer_close(&rollback);
    wire_bytes(&in, COMMAND_BODY_UNKNOWN, "", 0);
    expect_command(whole(&in), STATUS_UNSUPPORTED, "without a body that this build knows");
    buffer_close(&in);
}

static void bad_states_are_named(void **state)
{
    (void)state;
    struct buffer in = {0}, function = {0};
    wire_bytes(&function, FUNCTION_CURRENT, "short", 5);
    wire_bytes(&in, STATE_FUNCTIONS, function.data, function.size);
    expect_state(whole(&in), STATUS_INVALID, "state_function.current: 5 bytes, 32 expected");
    buffer_close(&in);
    buffer_close(&function);
    wire_bytes(&function, FUNCTION_REVISIONS, "", 0);
    wire_bytes(&in, STATE_FUNCTIONS, function.data, function.size);
    expect_state(whole(&in), STATUS_INVALID, "state_revision.spec: missing");
    buffer_close(&in);
    buffer_close(&function);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_of_a_wrong_length_is_named),
        cmocka_unit_test(a_digest_of_a_wrong_length_is_named),
        cmocka_unit_test(an_absent_id_is_zero),
        cmocka_unit_test(a_missing_nested_part_is_named),
        cmocka_unit_test(other_forms_of_the_envelope_are_unsupported_and_named),
        cmocka_unit_test(an_unknown_or_absent_body_is_unsupported),
        cmocka_unit_test(an_unknown_field_is_skipped),
        cmocka_unit_test(an_unknown_field_of_a_command_is_unsupported_wherever_it_is),
        cmocka_unit_test(an_unknown_field_of_a_state_is_unsupported_wherever_it_is),
        cmocka_unit_test(the_last_of_two_bodies_counts),
        cmocka_unit_test(no_bytes_are_no_message),
        cmocka_unit_test(garbage_is_invalid),
        cmocka_unit_test(every_message_cut_at_every_byte_is_refused),
        cmocka_unit_test(every_command_cut_at_every_byte_is_refused),
        cmocka_unit_test(a_state_cut_anywhere_is_refused_or_shorter),
        cmocka_unit_test(a_list_of_the_limit_passes_and_one_more_does_not),
        cmocka_unit_test(every_arena_too_small_is_a_limit),
        cmocka_unit_test(bad_commands_are_named),
        cmocka_unit_test(bad_states_are_named),
    };
    return cmocka_run_group_tests_name("proto decoding", tests, NULL, NULL);
}

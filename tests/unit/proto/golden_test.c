/* Bytes that released builds speak. A failure here means that the wire format changed: old and
 * new programs would not understand each other, and logs and snapshots on disk could not be
 * read. Never change a row to make a test pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "proto/codec.h"
#include "tests/unit/proto/golden.h"
#include "tests/unit/proto/values.h"

#include <stdio.h>
#include <string.h>

/* Compares the bytes with hex; prints what they are when they differ. */
static void expect_bytes(const struct buffer *made, const char *hex)
{
    char *text = mem_must(mem_alloc(2 * made->size + 1));
    for (size_t i = 0; i < made->size; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", made->data[i]);
    }
    assert_string_equal(text, hex);
    mem_free(text);
}

static struct buffer bytes_from(const char *hex)
{
    struct buffer b = {0};
    for (size_t i = 0; hex[i] != '\0'; i += 2) {
        unsigned byte = 0;
        assert_int_equal(sscanf(hex + i, "%2x", &byte), 1);
        assert_int_equal(buffer_put_u8(&b, (uint8_t)byte).code, STATUS_OK);
    }
    return b;
}

static void message_is(enum message_type type, const char *hex)
{
    struct arena a = {0};
    struct buffer made = {0}, golden = bytes_from(hex);
    struct message m = value_message(&a, type), back;
    assert_int_equal(message_encode(&m, &made).code, STATUS_OK);
    expect_bytes(&made, hex);
    assert_int_equal(message_decode(bytes_of(golden.data, golden.size), &a, &back, NULL).code,
                     STATUS_OK);
    assert_true(message_equal(&m, &back));
    arena_close(&a);
    buffer_close(&made);
    buffer_close(&golden);
}

static void hello_keeps_its_bytes(void **state)
{
    (void)state;
    message_is(MESSAGE_HELLO, golden_hello);
}

static void call_keeps_its_bytes(void **state)
{
    (void)state;
    message_is(MESSAGE_CALL, golden_call);
}

static void call_reply_keeps_its_bytes(void **state)
{
    (void)state;
    message_is(MESSAGE_CALL_REPLY, golden_call_reply);
}

static void invoke_keeps_its_bytes(void **state)
{
    (void)state;
    message_is(MESSAGE_INVOKE, golden_invoke);
}

static void result_keeps_its_bytes(void **state)
{
    (void)state;
    message_is(MESSAGE_RESULT, golden_result);
}

static void node_register_keeps_its_bytes(void **state)
{
    (void)state;
    message_is(MESSAGE_NODE_REGISTER, golden_node_register);
}

static void a_registration_without_gpus_is_read(void **state)
{
    (void)state;
    struct arena a = {0};
    struct message m;
    struct buffer before = bytes_from(golden_node_register_before);
    assert_int_equal(message_decode(bytes_of(before.data, before.size), &a, &m, NULL).code,
                     STATUS_OK);
    assert_int_equal(m.node_register.instances_count, 2);
    assert_int_equal(m.node_register.gpu_count, 0);
    arena_close(&a);
    buffer_close(&before);
}

static void command_deploy_keeps_its_bytes(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer made = {0}, golden = bytes_from(golden_command_deploy);
    struct command c = value_command(&a, COMMAND_DEPLOY), back;
    assert_int_equal(command_encode(&c, &made).code, STATUS_OK);
    expect_bytes(&made, golden_command_deploy);
    assert_int_equal(command_decode(bytes_of(golden.data, golden.size), &a, &back, NULL).code,
                     STATUS_OK);
    assert_true(command_equal(&c, &back));
    arena_close(&a);
    buffer_close(&made);
    buffer_close(&golden);
}

static void state_keeps_its_bytes(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer made = {0}, golden = bytes_from(golden_state);
    struct state s = value_state(&a), back;
    assert_int_equal(state_encode(&s, &made).code, STATUS_OK);
    expect_bytes(&made, golden_state);
    assert_int_equal(state_decode(bytes_of(golden.data, golden.size), &a, &back, NULL).code,
                     STATUS_OK);
    assert_true(state_equal(&s, &back));
    arena_close(&a);
    buffer_close(&made);
    buffer_close(&golden);
}

/* The numbers of an envelope of nothing but a hello, as the protobuf specification says they
 * are. */
static void a_plain_hello_is_as_the_specification_says(void **state)
{
    (void)state;
    struct buffer made = {0};
    const struct message m = {.type = MESSAGE_HELLO,
                              .request = 5,
                              .hello = {.version_min = 1, .version_max = 1, .build = "b"}};
    assert_int_equal(message_encode(&m, &made).code, STATUS_OK);
    expect_bytes(&made, "0801"     /* version 1 */
                        "1005"     /* request 5 */
                        "820107"   /* field 16, 7 bytes */
                        "08011001" /* version_min 1, version_max 1 */
                        "1a0162"); /* build "b" */
    buffer_close(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_keeps_its_bytes),
        cmocka_unit_test(call_keeps_its_bytes),
        cmocka_unit_test(call_reply_keeps_its_bytes),
        cmocka_unit_test(invoke_keeps_its_bytes),
        cmocka_unit_test(result_keeps_its_bytes),
        cmocka_unit_test(node_register_keeps_its_bytes),
        cmocka_unit_test(a_registration_without_gpus_is_read),
        cmocka_unit_test(command_deploy_keeps_its_bytes),
        cmocka_unit_test(state_keeps_its_bytes),
        cmocka_unit_test(a_plain_hello_is_as_the_specification_says),
    };
    return cmocka_run_group_tests_name("proto golden bytes", tests, NULL, NULL);
}

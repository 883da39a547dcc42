/* Waiting for results, against a client that is scripted: which answers are waited out, and what
 * ends it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/durable.h"

#include <string.h>

enum { MANY = 100 };

/* What the questions are answered with, in turn; the last goes on. state is of those that are
 * OK. */
struct turn {
    enum message_type type;
    enum status_code code;
    uint32_t state;
};
static const struct turn *turns;
static size_t turns_count, asked;

static const struct turn ended = {MESSAGE_OUTCOME, STATUS_OK, INVOCATION_DONE};
static const struct turn queued = {MESSAGE_OUTCOME, STATUS_OK, INVOCATION_QUEUED};
static const struct turn unheld = {MESSAGE_OUTCOME, STATUS_UNAVAILABLE, 0};
static const struct turn full = {MESSAGE_OUTCOME, STATUS_LIMIT, 0};
static const struct turn unknown = {MESSAGE_OUTCOME, STATUS_NOT_FOUND, 0};
static const struct turn nobody = {MESSAGE_CALL_REPLY, STATUS_UNAVAILABLE, 0};

static void answer_next(struct message *out)
{
    const struct turn *t = &turns[asked < turns_count ? asked : turns_count - 1];
    asked++;
    *out = (struct message){.type = t->type};
    if (t->type == MESSAGE_CALL_REPLY) {
        out->call_reply = (struct call_reply){.code = t->code, .message = "gone", .leader = ""};
    } else {
        out->outcome = (struct outcome){.code = t->code,
                                        .message = "",
                                        .leader = "",
                                        .function = "f",
                                        .tenant = "t",
                                        .state = t->state,
                                        .result_message = "",
                                        .key = "",
                                        .node = ""};
    }
}

/* ---- The client ---- */

struct status client_answer_status(const struct message *answer, const char **message,
                                   const char **leader)
{
    bool own = answer->type == MESSAGE_CALL_REPLY;
    *message = own ? answer->call_reply.message : answer->outcome.message;
    *leader = "";
    return status_of(status_from_wire(own ? answer->call_reply.code : answer->outcome.code));
}

struct status client_ask(struct client *c, const struct message *m, uint32_t timeout_ms,
                         struct arena *a, struct message *answer, struct errmsg *msg)
{
    (void)c;
    (void)timeout_ms;
    (void)a;
    (void)msg;
    assert_int_equal(m->type, MESSAGE_OUTCOME_QUERY);
    answer_next(answer);
    return status_ok();
}

/* One in flight. */
struct status client_load_run(struct client *c, const struct client_load *load, struct errmsg *msg)
{
    (void)c;
    (void)msg;
    struct message m, answer;
    enum client_fill filled;
    while ((filled = load->fill(load->data, 0, &m)) != CLIENT_NO_MORE) {
        if (filled == CLIENT_FILLED) {
            answer_next(&answer);
            load->done(load->data, 0, &answer, 1);
        }
    }
    return status_ok();
}

void client_pause(struct client *c, uint32_t ms)
{
    (void)c;
    (void)ms;
}

void client_close(struct client *c)
{
    (void)c;
}

struct client *cli_connect(struct cli *cli, int *code)
{
    (void)code;
    return (struct client *)cli; /* Never looked into. */
}

bool cli_ask(struct cli *cli, struct client *c, const struct message *m, uint32_t timeout_ms,
             struct arena *a, struct message *answer, int *code)
{
    (void)cli;
    (void)c;
    (void)m;
    (void)timeout_ms;
    (void)a;
    (void)answer;
    (void)code;
    fail_msg("nothing else is asked");
    return false;
}

static void script(const struct turn *given, size_t count)
{
    turns = given;
    turns_count = count;
    asked = 0;
}

/* ---- One ---- */

static int one(uint64_t wait_ms, bool *told)
{
    struct cli cli = {.json = false};
    return outcome_print(&cli, NULL, (struct id128){1, 2}, wait_ms, told);
}

static void a_wait_goes_on_while_the_answer_passes(void **state)
{
    (void)state;
    const struct turn all[] = {queued, unheld, full, ended};
    bool told = false;
    script(all, 4);
    assert_int_equal(one(WAIT_MS_ALWAYS, &told), CLI_DONE);
    assert_int_equal(asked, 4);
    assert_true(told);
}

static void without_a_wait_the_first_answer_counts(void **state)
{
    (void)state;
    bool told = true;
    script(&unheld, 1);
    assert_int_not_equal(one(0, &told), CLI_DONE);
    assert_int_equal(asked, 1);
    assert_false(told);
}

static void an_unknown_id_is_not_waited_for(void **state)
{
    (void)state;
    bool told = true;
    script(&unknown, 1);
    assert_int_equal(one(WAIT_MS_ALWAYS, &told), cli_exit_code(STATUS_NOT_FOUND));
    assert_int_equal(asked, 1);
    assert_false(told);
}

static void the_longest_timeout_waits(void **state)
{
    (void)state;
    const struct turn all[] = {queued, queued, ended};
    char *args[] = {(char *)(uintptr_t) "v-00000000000000000000000001"};
    struct cli cli = {.options = {.wait = 1, .timeout = (char *)(uintptr_t) "18446744073709551s"},
                      .argc = 1,
                      .args = args};
    script(all, 3);
    assert_int_equal(verb_result(&cli), CLI_DONE);
    assert_int_equal(asked, 3);
}

/* ---- Many ---- */

static int many(bool *told)
{
    struct cli cli = {.json = false};
    struct id_list ids = {0};
    for (size_t i = 0; i < MANY; i++) {
        assert_true(status_is_ok(id_list_put(&ids, (struct id128){1, i})));
    }
    int code = outcomes_print(&cli, NULL, &ids, WAIT_MS_ALWAYS, told);
    id_list_close(&ids);
    return code;
}

static void a_wait_for_many_goes_on_while_answers_pass(void **state)
{
    (void)state;
    const struct turn all[] = {queued, unheld, full, ended};
    bool told = false;
    script(all, 4);
    assert_int_equal(many(&told), CLI_DONE);
    assert_int_equal(asked, 3 + MANY);
    assert_true(told);
}

static void a_wait_for_many_ends_when_nobody_answers(void **state)
{
    (void)state;
    const struct turn all[] = {ended, queued, nobody};
    bool told = true;
    script(all, 3);
    assert_int_equal(many(&told), CLI_UNREACHABLE);
    assert_int_equal(asked, 3);
    assert_false(told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wait_goes_on_while_the_answer_passes),
        cmocka_unit_test(without_a_wait_the_first_answer_counts),
        cmocka_unit_test(an_unknown_id_is_not_waited_for),
        cmocka_unit_test(the_longest_timeout_waits),
        cmocka_unit_test(a_wait_for_many_goes_on_while_answers_pass),
        cmocka_unit_test(a_wait_for_many_ends_when_nobody_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

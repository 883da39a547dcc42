/* What the manifest says becomes an argument vector. */
#include "agent/runners/runner_args.h"

#include "common/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect_args(const struct runner_recipe *r, const char *const *words)
{
    struct runner_args args = {0};
    struct errmsg msg = {0};
    struct status s = runner_args_make(r, &args, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(s));
    size_t i = 0;
    for (; words[i] != NULL; i++) {
        assert_non_null(args.items[i]);
        assert_string_equal(args.items[i], words[i]);
    }
    assert_int_equal(args.count, i);
    assert_null(args.items[i]);
    runner_args_close(&args);
    runner_args_close(&args);
}

static void expect_refused(const struct runner_recipe *r, enum status_code code, const char *text)
{
    struct runner_args args = {.count = 99};
    struct errmsg msg = {0};
    assert_int_equal(runner_args_make(r, &args, &msg).code, code);
    assert_string_equal(msg.text, text);
    assert_int_equal(args.count, 99);
}

static void python_runs_isolated(void **state)
{
    (void)state;
    static const char *const words[] = {
        "/usr/bin/python3", "-I", "-B", "/opt/skep/skep_runner.py", "/app",
        "thumb.py:resize",  NULL};
    expect_args(&(struct runner_recipe){.runtime = "python", .handler = "thumb.py:resize"}, words);
}

static void c_programs_are_below_app(void **state)
{
    (void)state;
    static const char *const words[] = {"/app/hello", NULL};
    expect_args(&(struct runner_recipe){.runtime = "c", .handler = "./hello"}, words);
    expect_args(&(struct runner_recipe){.runtime = "c", .handler = "hello"}, words);
    static const char *const deeper[] = {"/app/bin/..hello", NULL};
    expect_args(&(struct runner_recipe){.runtime = "c", .handler = "bin/..hello"}, deeper);
}

static void commands_stand_behind_the_runner(void **state)
{
    (void)state;
    static const char *const command[] = {"./thumb", "-", ""};
    static const char *const words[] = {
        "/opt/skep/skep-command-runner", "--", "./thumb", "-", "", NULL};
    expect_args(
        &(struct runner_recipe){.runtime = "command", .command = command, .command_count = 3},
        words);
}

static void refuses_unknown_runtimes(void **state)
{
    (void)state;
    expect_refused(&(struct runner_recipe){.runtime = "cobol", .handler = "x"}, STATUS_INVALID,
                   "runtime: not python, c or command: \"cobol\"");
    expect_refused(&(struct runner_recipe){0}, STATUS_INVALID,
                   "runtime: not python, c or command: \"\"");
}

static void refuses_python_handlers_of_another_form(void **state)
{
    (void)state;
    static const char *const wrong[] = {"thumb.py",  ":f",         ".py:f",   "thumb:f",
                                        "thumb.py:", "thumb.py:2", "x.py:a.", "thumb.py:f()"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        expect_refused(&(struct runner_recipe){.runtime = "python", .handler = wrong[i]},
                       STATUS_INVALID, "handler: not FILE.py:FUNCTION");
    }
}

static void refuses_paths_outside_the_code(void **state)
{
    (void)state;
    static const char *const c[] = {"/bin/sh", "../x", "a/../../x", "a/..", "a/"};
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        expect_refused(&(struct runner_recipe){.runtime = "c", .handler = c[i]}, STATUS_INVALID,
                       "handler: the program is not inside the code");
    }
    static const char *const python[] = {"/thumb.py:f", "../thumb.py:f"};
    for (size_t i = 0; i < sizeof python / sizeof python[0]; i++) {
        expect_refused(&(struct runner_recipe){.runtime = "python", .handler = python[i]},
                       STATUS_INVALID, "handler: the file is not inside the code");
    }
}

static void refuses_what_does_not_go_together(void **state)
{
    (void)state;
    static const char *const command[] = {"x"};
    static const char *const empty[] = {""};
    expect_refused(&(struct runner_recipe){"python", "a.py:f", command, 1}, STATUS_INVALID,
                   "command: not with runtime python");
    expect_refused(&(struct runner_recipe){"command", "a.py:f", command, 1}, STATUS_INVALID,
                   "handler: a command has none");
    expect_refused(&(struct runner_recipe){"command", "", empty, 1}, STATUS_INVALID,
                   "command: missing");
    expect_refused(&(struct runner_recipe){"command", NULL, NULL, 0}, STATUS_INVALID,
                   "command: missing");
    expect_refused(&(struct runner_recipe){"c", NULL, NULL, 0}, STATUS_INVALID, "handler: missing");
}

static void words_are_limited(void **state)
{
    (void)state;
    const char *command[RUNNER_ARGS_MAX];
    for (size_t i = 0; i < RUNNER_ARGS_MAX; i++) {
        command[i] = "x";
    }
    struct runner_recipe r = {"command", NULL, command, RUNNER_ARGS_MAX - 2};
    struct runner_args args;
    assert_true(status_is_ok(runner_args_make(&r, &args, NULL)));
    assert_int_equal(args.count, RUNNER_ARGS_MAX);
    runner_args_close(&args);
    r.command_count++;
    expect_refused(&r, STATUS_LIMIT, "command: 63 words are over the limit of 62");

    char longest[RUNNER_ARG_BYTES_MAX + 1];
    memset(longest, 'x', sizeof longest);
    longest[RUNNER_ARG_BYTES_MAX] = '\0';
    command[1] = longest;
    r.command_count = 2;
    expect_refused(&r, STATUS_LIMIT, "command: word 2 is over the limit of 4095 bytes");
    longest[RUNNER_ARG_BYTES_MAX - 1] = '\0';
    assert_true(status_is_ok(runner_args_make(&r, &args, NULL)));
    runner_args_close(&args);

    struct runner_recipe c = {"c", longest, NULL, 0};
    assert_int_equal(runner_args_make(&c, &args, NULL).code, STATUS_LIMIT);
    longest[RUNNER_ARG_BYTES_MAX - sizeof "/app/"] = '\0';
    assert_true(status_is_ok(runner_args_make(&c, &args, NULL)));
    assert_int_equal(strlen(args.items[0]), RUNNER_ARG_BYTES_MAX - 1);
    runner_args_close(&args);
}

static void out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    struct runner_recipe r = {.runtime = "python", .handler = "a.py:f"};
    for (unsigned n = 0; n < 7; n++) {
        struct runner_args args = {.count = 99};
        mem_fault(n, 1);
        struct status s = runner_args_make(&r, &args, NULL);
        assert_int_equal(mem_fault_clear(), 1);
        assert_int_equal(s.code, STATUS_NOMEM);
        assert_int_equal(args.count, 99);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(python_runs_isolated),
        cmocka_unit_test(c_programs_are_below_app),
        cmocka_unit_test(commands_stand_behind_the_runner),
        cmocka_unit_test(refuses_unknown_runtimes),
        cmocka_unit_test(refuses_python_handlers_of_another_form),
        cmocka_unit_test(refuses_paths_outside_the_code),
        cmocka_unit_test(refuses_what_does_not_go_together),
        cmocka_unit_test(words_are_limited),
        cmocka_unit_test(out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

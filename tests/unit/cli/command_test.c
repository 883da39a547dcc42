/* The built program, run without a cluster: usage errors, help, exit codes. SKEP_PROGRAM is its
 * path. Contexts come from an empty temporary folder, so nothing of the machine's own is read or
 * written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/cli.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT_BYTES = 64 << 10, ARGS_MAX = 12, RUN_MS_MAX = 30000 };

static char folder[64];
static char out_text[OUTPUT_BYTES], error_text[OUTPUT_BYTES];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/skep-command-test-XXXXXX");
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/contexts.yaml", folder);
    (void)unlink(path);
    return rmdir(folder);
}

static void read_all(const int fds[2], char *const texts[2])
{
    struct pollfd wait[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
    size_t sizes[2] = {0, 0};
    for (int open = 2; open > 0;) {
        assert_true(poll(wait, 2, RUN_MS_MAX) > 0);
        for (int k = 0; k < 2; k++) {
            if (wait[k].fd < 0 || wait[k].revents == 0) {
                continue;
            }
            assert_true(sizes[k] + 1 < OUTPUT_BYTES);
            ssize_t got = read(wait[k].fd, texts[k] + sizes[k], OUTPUT_BYTES - 1 - sizes[k]);
            assert_true(got >= 0);
            sizes[k] += (size_t)got;
            if (got == 0) {
                wait[k].fd = -1;
                open--;
            }
        }
    }
    texts[0][sizes[0]] = '\0';
    texts[1][sizes[1]] = '\0';
}

/* Runs skep with these words (ended by NULL), with nothing on standard input; fills out_text and
 * error_text, answers the exit code. */
static int run(const char *first, ...)
{
    char *argv[ARGS_MAX + 2] = {(char *)(uintptr_t)SKEP_PROGRAM};
    int argc = 1;
    va_list args;
    va_start(args, first);
    for (const char *word = first; word != NULL; word = va_arg(args, const char *)) {
        assert_true(argc <= ARGS_MAX);
        argv[argc++] = (char *)(uintptr_t)word;
    }
    va_end(args);
    int out[2], error[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(error, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, error[1], STDERR_FILENO), 0);
    char contexts[128];
    (void)snprintf(contexts, sizeof contexts, "SKEP_CONTEXTS=%s/contexts.yaml", folder);
    char *environment[] = {contexts, (char *)(uintptr_t) "PATH=/usr/bin:/bin", NULL};
    pid_t pid;
    assert_int_equal(posix_spawn(&pid, SKEP_PROGRAM, &actions, NULL, argv, environment), 0);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(out[1]);
    (void)close(error[1]);
    read_all((const int[]){out[0], error[0]}, (char *const[]){out_text, error_text});
    (void)close(out[0]);
    (void)close(error[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void holds(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", text, part);
    }
}

/* One line on standard error, which holds the text, and nothing on standard output. */
static void one_line(const char *part)
{
    holds(error_text, part);
    assert_string_equal(out_text, "");
    assert_memory_equal(error_text, "skep: ", 6);
    const char *end = strchr(error_text, '\n');
    assert_true(end != NULL && end[1] == '\0');
}

static void without_words_it_explains_itself_and_fails(void **state)
{
    (void)state;
    assert_int_equal(run(NULL), CLI_USAGE);
    holds(error_text, "skep deploy DIR");
    assert_string_equal(out_text, "");
}

static void help_lists_every_verb_and_the_exit_codes(void **state)
{
    (void)state;
    const char *const words[] = {"--help", "-h", "help"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(run(words[i], NULL), CLI_DONE);
        holds(out_text, "skep call NAME [-]");
        holds(out_text, "skep node drain NAME");
        holds(out_text, "Exit codes: 0 done");
        assert_string_equal(error_text, "");
    }
}

static void help_of_a_verb_lists_its_options_only(void **state)
{
    (void)state;
    assert_int_equal(run("call", "--help", NULL), CLI_DONE);
    holds(out_text, "--timeout");
    holds(out_text, "NAME [-]");
    assert_null(strstr(out_text, "--check-index"));
    assert_int_equal(run("node", "drain", "--help", NULL), CLI_DONE);
    holds(out_text, "skep node drain");
}

static void the_version_is_one_line(void **state)
{
    (void)state;
    assert_int_equal(run("version", NULL), CLI_DONE);
    assert_string_equal(out_text, "skep " SKEP_VERSION "\n");
}

static void an_unknown_verb_is_usage(void **state)
{
    (void)state;
    assert_int_equal(run("fly", NULL), CLI_USAGE);
    one_line("no such verb: fly; see skep --help");
    assert_int_equal(run("node", NULL), CLI_USAGE);
    one_line("node needs one of its verbs, such as: skep node list");
    assert_int_equal(run("node", "fly", "n1", NULL), CLI_USAGE);
    one_line("node needs one of its verbs");
}

static void an_unknown_option_is_usage(void **state)
{
    (void)state;
    assert_int_equal(run("ps", "--fly", NULL), CLI_USAGE);
    one_line("--fly: unknown option; see skep ps --help");
    assert_int_equal(run("node", "drain", "n1", "--fly", NULL), CLI_USAGE);
    one_line("see skep node drain --help");
    assert_int_equal(run("ps", "--check-index", "5", NULL), CLI_USAGE); /* Another verb's. */
    one_line("--check-index: unknown option");
}

static void a_bad_option_value_is_usage(void **state)
{
    (void)state;
    assert_int_equal(run("ps", "-o", "xml", NULL), CLI_USAGE);
    one_line("-o xml: not table or json");
    assert_int_equal(run("deploy", "/nowhere", "--check-index", "many", NULL), CLI_USAGE);
    one_line("many: invalid numeric value");
    assert_int_equal(run("call", "f", "--timeout", "soon", NULL), CLI_USAGE);
    one_line("--timeout");
    assert_int_equal(run("ps", "-o", NULL), CLI_USAGE);
    one_line("-o");
}

static void too_few_or_too_many_words_are_usage(void **state)
{
    (void)state;
    assert_int_equal(run("call", NULL), CLI_USAGE);
    one_line("usage: skep call NAME [-]");
    assert_int_equal(run("node", "show", NULL), CLI_USAGE);
    one_line("usage: skep node show NAME");
    assert_int_equal(run("function", "show", "a", "b", NULL), CLI_USAGE);
    one_line("usage: skep function show NAME");
}

static void two_payloads_are_usage(void **state)
{
    (void)state;
    assert_int_equal(run("call", "f", "--data", "x", "--file", "y", NULL), CLI_USAGE);
    one_line("give one of --data, --file and -");
    assert_int_equal(run("call", "f", "payload", NULL), CLI_USAGE);
    one_line("unexpected \"payload\"");
}

static void a_payload_file_that_is_not_there_fails(void **state)
{
    (void)state;
    assert_int_equal(run("call", "f", "--file", "/nowhere/at/all", NULL), CLI_FAILED);
    one_line("/nowhere/at/all: No such file or directory");
}

static void without_a_cluster_it_says_how_to_get_one(void **state)
{
    (void)state;
    assert_int_equal(run("ps", NULL), CLI_UNREACHABLE);
    one_line("no cluster is known here; start one with skep dev --detach");
    assert_int_equal(run("call", "f", NULL), CLI_UNREACHABLE);
    one_line("no cluster is known here");
    assert_int_equal(run("function", "delete", "f", "--yes", NULL), CLI_UNREACHABLE);
    one_line("no cluster is known here");
    assert_int_equal(run("metrics", NULL), CLI_UNREACHABLE);
    one_line("no cluster is known here");
}

static void destructive_verbs_want_yes_without_a_terminal(void **state)
{
    (void)state;
    assert_int_equal(run("function", "delete", "f", NULL), CLI_USAGE);
    one_line("this cannot be undone: give --yes");
    assert_int_equal(run("node", "remove", "n1", NULL), CLI_USAGE);
    one_line("this cannot be undone: give --yes");
    assert_int_equal(run("cluster", "remove", "s1", NULL), CLI_USAGE);
    one_line("this cannot be undone: give --yes");
}

static void an_empty_list_of_contexts_is_listed(void **state)
{
    (void)state;
    assert_int_equal(run("context", "list", NULL), CLI_DONE);
    assert_string_equal(out_text, "name  scheduler  current\n");
    assert_int_equal(run("context", "list", "-o", "json", NULL), CLI_DONE);
    assert_string_equal(out_text, "[]\n");
}

static void a_context_that_is_not_known_fails(void **state)
{
    (void)state;
    assert_int_equal(run("context", "use", "none", NULL), CLI_FAILED);
    one_line("none");
    assert_int_equal(run("context", "remove", "none", NULL), CLI_FAILED);
    one_line("no context is named none");
}

static void a_broken_contexts_file_is_named(void **state)
{
    (void)state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/contexts.yaml", folder);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    (void)fputs("nonsense: [\n", f);
    assert_int_equal(fclose(f), 0);
    int code = run("ps", NULL);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(code, CLI_USAGE);
    one_line("contexts.yaml");
}

static void required_options_are_asked_for(void **state)
{
    (void)state;
    assert_int_equal(run("cluster", "add", "s2", NULL), CLI_USAGE);
    one_line("--address HOST:PORT is required");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_words_it_explains_itself_and_fails),
        cmocka_unit_test(help_lists_every_verb_and_the_exit_codes),
        cmocka_unit_test(help_of_a_verb_lists_its_options_only),
        cmocka_unit_test(the_version_is_one_line),
        cmocka_unit_test(an_unknown_verb_is_usage),
        cmocka_unit_test(an_unknown_option_is_usage),
        cmocka_unit_test(a_bad_option_value_is_usage),
        cmocka_unit_test(too_few_or_too_many_words_are_usage),
        cmocka_unit_test(two_payloads_are_usage),
        cmocka_unit_test(a_payload_file_that_is_not_there_fails),
        cmocka_unit_test(without_a_cluster_it_says_how_to_get_one),
        cmocka_unit_test(destructive_verbs_want_yes_without_a_terminal),
        cmocka_unit_test(an_empty_list_of_contexts_is_listed),
        cmocka_unit_test(a_context_that_is_not_known_fails),
        cmocka_unit_test(a_broken_contexts_file_is_named),
        cmocka_unit_test(required_options_are_asked_for),
    };
    return cmocka_run_group_tests_name("skep without a cluster", tests, make_folder, remove_folder);
}

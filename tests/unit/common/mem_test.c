#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/check.h"
#include "common/mem.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void faults_come_when_and_as_often_as_told(void **state)
{
    (void)state;
    mem_fault(2, 2);
    void *p[6];
    for (size_t i = 0; i < 6; i++) {
        p[i] = mem_alloc(8);
    }
    assert_int_equal(mem_fault_clear(), 2);
    assert_non_null(p[0]);
    assert_non_null(p[1]);
    assert_null(p[2]);
    assert_null(p[3]);
    assert_non_null(p[4]);
    assert_non_null(p[5]);
    for (size_t i = 0; i < 6; i++) {
        mem_free(p[i]);
    }
}

static void every_allocator_can_fail(void **state)
{
    (void)state;
    mem_fault(0, 5);
    assert_null(mem_alloc(1));
    assert_null(mem_zalloc(1, 1));
    assert_null(mem_realloc(NULL, 1));
    assert_null(mem_strdup("x"));
    assert_null(mem_dup("x", 1));
    assert_int_equal(mem_fault_clear(), 5);
}

static void failed_realloc_leaves_the_old_block(void **state)
{
    (void)state;
    char *p = mem_strdup("kept");
    mem_fault(0, 1);
    assert_null(mem_realloc(p, 100));
    assert_int_equal(mem_fault_clear(), 1);
    assert_string_equal(p, "kept");
    mem_free(p);
}

static void cleared_faults_do_not_come(void **state)
{
    (void)state;
    mem_fault(0, 10);
    assert_int_equal(mem_fault_clear(), 0);
    void *p = mem_alloc(1);
    assert_non_null(p);
    mem_free(p);
}

static void no_bytes_still_give_a_pointer(void **state)
{
    (void)state;
    void *p[] = {mem_alloc(0), mem_zalloc(0, 8), mem_zalloc(8, 0), mem_realloc(NULL, 0),
                 mem_dup(NULL, 0)};
    for (size_t i = 0; i < sizeof p / sizeof p[0]; i++) {
        assert_non_null(p[i]);
        mem_free(p[i]);
    }
    mem_free(NULL);
}

static void zalloc_clears(void **state)
{
    (void)state;
    unsigned char *p = mem_zalloc(10, 10);
    assert_non_null(p);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(p[i], 0);
    }
    mem_free(p);
}

static void copies_are_equal_and_apart(void **state)
{
    (void)state;
    char text[] = "text";
    char *copy = mem_strdup(text);
    char *bytes = mem_dup(text, 2);
    text[0] = 'T';
    assert_string_equal(copy, "text");
    assert_memory_equal(bytes, "te", 2);
    mem_free(copy);
    mem_free(bytes);
}

static void wipe_overwrites(void **state)
{
    (void)state;
    char secret[] = "secret";
    mem_wipe(secret, sizeof secret);
    for (size_t i = 0; i < sizeof secret; i++) {
        assert_int_equal(secret[i], 0);
    }
}

/* The signal a child dies of when it runs fn, 0 when it ends by itself. */
static int signal_of(void (*fn)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL);
        int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(quiet, STDERR_FILENO);
        fn();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void fail_a_check(void)
{
    CHECK(1 + 1 == 3);
}

static void pass_a_check(void)
{
    CHECK(1 + 1 == 2);
    CHECK_IMPLIES(false, false);
    CHECK_IMPLIES(true, true);
    void *p = mem_must(mem_alloc(1));
    mem_free(p);
}

static void break_an_implication(void)
{
    CHECK_IMPLIES(true, false);
}

static void must_have_memory(void)
{
    (void)mem_must(NULL);
}

static void failed_checks_abort(void **state)
{
    (void)state;
    assert_int_equal(signal_of(fail_a_check), SIGABRT);
    assert_int_equal(signal_of(break_an_implication), SIGABRT);
    assert_int_equal(signal_of(must_have_memory), SIGABRT);
    assert_int_equal(signal_of(pass_a_check), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_come_when_and_as_often_as_told),
        cmocka_unit_test(every_allocator_can_fail),
        cmocka_unit_test(failed_realloc_leaves_the_old_block),
        cmocka_unit_test(cleared_faults_do_not_come),
        cmocka_unit_test(no_bytes_still_give_a_pointer),
        cmocka_unit_test(zalloc_clears),
        cmocka_unit_test(copies_are_equal_and_apart),
        cmocka_unit_test(wipe_overwrites),
        cmocka_unit_test(failed_checks_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

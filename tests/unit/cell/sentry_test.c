/* What the sentry makes of paths and of /proc/TID/status, without a cell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/sentry/where.h"

#include <errno.h>
#include <string.h>

static void assert_parts(const char *path, enum where_kind kind, long number, const char *rest)
{
    static struct where_parts parts;
    where_parts_of(path, &parts);
    assert_int_equal(parts.kind, kind);
    if (kind != WHERE_PLAIN) {
        assert_int_equal(parts.number, number);
        assert_string_equal(parts.rest, rest);
    }
}

static void the_own_process_is_recognized(void **state)
{
    (void)state;
    assert_parts("/proc/self", WHERE_SELF, 0, "");
    assert_parts("/proc/self/maps", WHERE_SELF, 0, "/maps");
    assert_parts("//proc/./self//fd/3", WHERE_SELF, 0, "//fd/3");
    assert_parts("/proc/thread-self/comm", WHERE_THREAD, 0, "/comm");
    assert_parts("/proc/17/exe", WHERE_SELF, 17, "/exe");
    assert_parts("/proc/17/fd/2", WHERE_SELF, 17, "/fd/2");
}

static void the_own_descriptors_have_names_in_dev(void **state)
{
    (void)state;
    assert_parts("/dev/fd", WHERE_OWN_FD, 0, "/fd");
    assert_parts("/dev/fd/9", WHERE_OWN_FD, 0, "/fd/9");
    assert_parts("/dev/stderr", WHERE_OWN_FD, 0, "/fd/2");
}

static void everything_else_is_looked_up_as_it_is(void **state)
{
    (void)state;
    static const char *const paths[] = {"",
                                        "/",
                                        "/proc",
                                        "/proc/17/maps",
                                        "/proc/selfx",
                                        "/procself",
                                        "/dev/null",
                                        "/dev/stdin2",
                                        "/tmp/proc/self",
                                        "/proc/../proc/self",
                                        "/proc/0x1/exe",
                                        "/proc/99999999999/exe"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_parts(paths[i], WHERE_PLAIN, 0, NULL);
    }
}

static void facts_are_read_from_status(void **state)
{
    (void)state;
    struct guest_facts f;
    assert_int_equal(
        guest_facts_parse("Name:\tx\nUmask:\t0027\nState:\tR\nTgid:\t4711\nPid:\t4712\n"
                          "NStgid:\t4711\t7\nNSpid:\t4712\t8\n",
                          &f),
        0);
    assert_int_equal(f.umask, 027);
    assert_int_equal(f.process, 4711);
    assert_int_equal(f.inner_process, 7);
    assert_int_equal(f.inner_thread, 8);
}

/* A process chooses its name. */
static void a_name_cannot_pose_as_a_fact(void **state)
{
    (void)state;
    struct guest_facts f;
    assert_int_equal(guest_facts_parse("Name:\tUmask:\t0777\nUmask:\t0022\nTgid:\t1\nNStgid:\t1\n"
                                       "NSpid:\t1\n",
                                       &f),
                     0);
    assert_int_equal(f.umask, 022);
    static const char *const bad[] = {
        "",
        "Name:\tx",
        "Name:\tx\nUmask:\t0022\n",
        "Name:\tx\nUmask:\t0o22\nTgid:\t1\nNStgid:\t1\nNSpid:\t1\n",
        "Name:\tx\nUmask:\t0022\nTgid:\t99999999999999\nNStgid:\t1\nNSpid:\t1\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(guest_facts_parse(bad[i], &f), -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_own_process_is_recognized),
        cmocka_unit_test(the_own_descriptors_have_names_in_dev),
        cmocka_unit_test(everything_else_is_looked_up_as_it_is),
        cmocka_unit_test(facts_are_read_from_status),
        cmocka_unit_test(a_name_cannot_pose_as_a_fact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

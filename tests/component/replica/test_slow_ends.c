/* io_destroy between libraft and the kernel. The contexts are none: the kernel refuses them. */
#include "scheduler/replica/aio_ends.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

static const unsigned long no_context = 0x5345;

static void a_context_is_noted_and_ends(void **state)
{
    (void)state;
    struct aio_ends ends = {.count = 0};
    aio_ends_enter();
    assert_int_equal(syscall(SYS_io_destroy, no_context), 0);
    aio_ends_leave();
    assert_true(aio_ends_take(&ends));
    assert_int_equal(ends.count, 1);
    assert_int_equal(ends.contexts[0], no_context);
    assert_false(aio_ends_take(&ends));
    errno = 0;
    aio_ends_destroy(&ends);
    assert_int_equal(errno, EINVAL); /* the kernel was asked */
}

static void without_a_host_the_kernel_is_asked_at_once(void **state)
{
    (void)state;
    struct aio_ends ends;
    assert_int_equal(syscall(SYS_io_destroy, no_context), -1);
    assert_int_equal(errno, EINVAL);
    assert_false(aio_ends_take(&ends));
}

static void over_the_limit_the_kernel_is_asked_at_once(void **state)
{
    (void)state;
    struct aio_ends ends;
    aio_ends_enter();
    for (unsigned i = 0; i < AIO_ENDS_MAX; i++) {
        assert_int_equal(syscall(SYS_io_destroy, no_context), 0);
    }
    assert_int_equal(syscall(SYS_io_destroy, no_context), -1);
    aio_ends_leave();
    assert_true(aio_ends_take(&ends));
    assert_int_equal(ends.count, AIO_ENDS_MAX);
}

static void other_calls_are_passed_on(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(syscall(SYS_close, fd), 0);
    assert_int_equal(syscall(SYS_close, fd), -1);
    assert_int_equal(errno, EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_context_is_noted_and_ends),
        cmocka_unit_test(without_a_host_the_kernel_is_asked_at_once),
        cmocka_unit_test(over_the_limit_the_kernel_is_asked_at_once),
        cmocka_unit_test(other_calls_are_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

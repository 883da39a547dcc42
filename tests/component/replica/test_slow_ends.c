/* Calls of libc between libraft and the kernel. The AIO contexts are none: the kernel refuses
 * them. */
#include "scheduler/replica/slow_ends.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

static const unsigned long no_context = 0x5345;

static void a_context_is_noted_and_ends(void **state)
{
    (void)state;
    struct slow_ends ends = {.contexts_count = 0};
    slow_ends_enter();
    assert_int_equal(syscall(SYS_io_destroy, no_context), 0);
    slow_ends_leave();
    assert_true(slow_ends_take(&ends));
    assert_int_equal(ends.contexts_count, 1);
    assert_int_equal(ends.contexts[0], no_context);
    assert_false(slow_ends_take(&ends));
    errno = 0;
    slow_ends_finish(&ends);
    assert_int_equal(errno, EINVAL); /* the kernel was asked */
}

static void without_a_host_the_kernel_is_asked_at_once(void **state)
{
    (void)state;
    struct slow_ends ends;
    assert_int_equal(syscall(SYS_io_destroy, no_context), -1);
    assert_int_equal(errno, EINVAL);
    assert_false(slow_ends_take(&ends));
}

static void over_the_limit_the_kernel_is_asked_at_once(void **state)
{
    (void)state;
    struct slow_ends ends;
    slow_ends_enter();
    for (unsigned i = 0; i < SLOW_ENDS_MAX; i++) {
        assert_int_equal(syscall(SYS_io_destroy, no_context), 0);
    }
    assert_int_equal(syscall(SYS_io_destroy, no_context), -1);
    slow_ends_leave();
    assert_true(slow_ends_take(&ends));
    assert_int_equal(ends.contexts_count, SLOW_ENDS_MAX);
}

static unsigned pieces;
static int piece_error;

/* In the place of libc's: counts, and fails when it is told to. */
int sync_file_range(int fd, off64_t offset, off64_t count, unsigned flags)
{
    (void)fd;
    (void)offset;
    (void)flags;
    assert_int_equal(count, SLOW_ENDS_PIECE_BYTES);
    pieces++;
    errno = piece_error;
    return piece_error == 0 ? 0 : -1;
}

static unsigned advices;

/* Likewise: this one takes no advice. */
int posix_fadvise(int fd, off_t offset, off_t count, int advice)
{
    (void)fd;
    (void)offset;
    (void)count;
    assert_int_equal(advice, POSIX_FADV_DONTNEED);
    advices++;
    return EINVAL;
}

static int make_file(char path[])
{
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
    return fd;
}

static void a_removed_file_lives_until_the_ends_are_finished(void **state)
{
    (void)state;
    char path[] = "/tmp/skep-ends.XXXXXX";
    int fd = make_file(path);
    struct slow_ends ends;
    struct stat st;
    slow_ends_enter();
    assert_int_equal(unlink(path), 0);
    slow_ends_leave();
    assert_int_equal(access(path, F_OK), -1);
    assert_true(slow_ends_take(&ends));
    assert_int_equal(ends.files_count, 1);
    assert_int_equal(fstat(ends.files[0], &st), 0);
    ino_t inode = st.st_ino;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_ino, inode);
    int kept = ends.files[0];
    slow_ends_finish(&ends);
    assert_int_equal(fcntl(kept, F_GETFD), -1);
    (void)close(fd);
}

static void what_cannot_be_removed_is_not_kept(void **state)
{
    (void)state;
    struct slow_ends ends;
    slow_ends_enter();
    assert_int_equal(unlink("/tmp"), -1);
    assert_int_equal(errno, EISDIR);
    assert_int_equal(unlink("/nonexistent/file"), -1);
    assert_int_equal(errno, ENOENT);
    slow_ends_leave();
    assert_false(slow_ends_take(&ends));
}

static void without_a_host_a_removed_file_is_gone(void **state)
{
    (void)state;
    char path[] = "/tmp/skep-ends.XXXXXX";
    struct slow_ends ends;
    (void)close(make_file(path));
    assert_int_equal(unlink(path), 0);
    assert_false(slow_ends_take(&ends));
}

static void a_large_file_is_written_back_piece_by_piece(void **state)
{
    (void)state;
    char path[] = "/tmp/skep-ends.XXXXXX";
    int fd = make_file(path);
    pieces = 0;
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(pieces, 0);
    assert_int_equal(ftruncate(fd, 2 * SLOW_ENDS_PIECE_BYTES + 1), 0);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(pieces, 3);
    piece_error = EIO;
    assert_int_equal(fsync(fd), -1);
    assert_int_equal(errno, EIO);
    piece_error = ENOSYS;
    assert_int_equal(fsync(fd), 0);
    piece_error = 0;
    (void)close(fd);
    assert_int_equal(fsync(fd), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(unlink(path), 0);
}

static void what_is_allocated_for_a_segment_is_written(void **state)
{
    (void)state;
    char path[] = "/tmp/skep-ends.XXXXXX";
    static uint8_t data[SLOW_ENDS_SEGMENT_BYTES], zeros[SLOW_ENDS_SEGMENT_BYTES];
    const off_t bytes = SLOW_ENDS_SEGMENT_BYTES;
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(posix_fallocate(fd, 0, bytes), 0);
    assert_int_equal(lseek(fd, 0, SEEK_DATA), 0); /* Not a hole, nor unwritten. */
    assert_int_equal(lseek(fd, 0, SEEK_HOLE), bytes);
    assert_int_equal(lseek(fd, 0, SEEK_END), bytes);
    assert_int_equal(pread(fd, data, sizeof data, 0), sizeof data);
    assert_memory_equal(data, zeros, sizeof data);
    assert_int_equal(advices, 1);
    piece_error = EIO;
    assert_int_equal(posix_fallocate(fd, 0, 2 * SLOW_ENDS_PIECE_BYTES), EIO);
    piece_error = 0;
    (void)close(fd);
    assert_int_equal(posix_fallocate(fd, 0, bytes), EBADF);
    assert_int_equal(unlink(path), 0);
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
        cmocka_unit_test(a_removed_file_lives_until_the_ends_are_finished),
        cmocka_unit_test(what_cannot_be_removed_is_not_kept),
        cmocka_unit_test(without_a_host_a_removed_file_is_gone),
        cmocka_unit_test(a_large_file_is_written_back_piece_by_piece),
        cmocka_unit_test(what_is_allocated_for_a_segment_is_written),
        cmocka_unit_test(other_calls_are_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "scheduler/replica/slow_ends.h"

#include "common/check.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
#define THREAD_SANITIZER
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER
#endif
#endif

enum { ARGUMENTS = 6, PIECE_PAUSE_NS = 500 * 1000, ZEROS_BYTES = 256 << 10 };

static _Thread_local unsigned hosts;
static _Thread_local struct slow_ends noted;

/* libc's function. Looked up once; twice by two threads does no harm. */
static void *next_of(_Atomic(void *) *found, const char *name)
{
    void *function = atomic_load_explicit(found, memory_order_relaxed);
    if (function == NULL) {
        function = dlsym(RTLD_NEXT, name);
        CHECK(function != NULL);
        atomic_store_explicit(found, function, memory_order_relaxed);
    }
    return function;
}

typedef long (*syscall_fn)(long number, ...);

static syscall_fn next_syscall(void)
{
    static _Atomic(void *) found;
    syscall_fn fn;
    *(void **)&fn = next_of(&found, "syscall");
    return fn;
}

static int next_unlink(const char *path)
{
    static _Atomic(void *) found;
    int (*fn)(const char *name);
    *(void **)&fn = next_of(&found, "unlink");
    return fn(path);
}

static int next_fsync(int fd)
{
    static _Atomic(void *) found;
    int (*fn)(int number);
    *(void **)&fn = next_of(&found, "fsync");
    return fn(fd);
}

static int next_posix_fallocate(int fd, off_t offset, off_t bytes)
{
    static _Atomic(void *) found;
    int (*fn)(int number, off_t from, off_t count);
    *(void **)&fn = next_of(&found, "posix_fallocate");
    return fn(fd, offset, bytes);
}

void slow_ends_enter(void)
{
    hosts++;
}

void slow_ends_leave(void)
{
    CHECK(hosts > 0);
    hosts--;
}

bool slow_ends_take(struct slow_ends *out)
{
    if (noted.contexts_count == 0 && noted.files_count == 0) {
        return false;
    }
    *out = noted;
    noted.contexts_count = 0;
    noted.files_count = 0;
    return true;
}

void slow_ends_finish(struct slow_ends *ends)
{
    for (size_t i = 0; i < ends->contexts_count; i++) {
        (void)next_syscall()(SYS_io_destroy, ends->contexts[i]);
    }
    for (size_t i = 0; i < ends->files_count; i++) {
        (void)close(ends->files[i]);
    }
    ends->contexts_count = 0;
    ends->files_count = 0;
}

/* In the place of libc's for the whole program. As libc's does, it passes six words on, whatever
 * the call needs of them. */
__attribute__((visibility("default"), no_sanitize("address", "undefined"))) long
syscall(long number, ...)
{
    long a[ARGUMENTS];
    va_list list;
    va_start(list, number);
    for (size_t i = 0; i < ARGUMENTS; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    if (number == SYS_io_destroy && hosts > 0 && noted.contexts_count < SLOW_ENDS_MAX) {
        noted.contexts[noted.contexts_count++] = (unsigned long)a[0];
        return 0;
    }
#ifdef THREAD_SANITIZER
    if (number == SYS_close) {
        return close((int)a[0]); /* libuv's: the sanitizer sees that the number is free again */
    }
#endif
    return next_syscall()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Likewise. */
__attribute__((visibility("default"))) int unlink(const char *path)
{
    bool keep = hosts > 0 && noted.files_count < SLOW_ENDS_MAX;
    int fd = keep ? open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    int rv = next_unlink(path);
    if (fd >= 0 && rv == 0) {
        noted.files[noted.files_count++] = fd;
    } else if (fd >= 0) {
        int error = errno;
        (void)close(fd);
        errno = error;
    }
    return rv;
}

/* Piece by piece. An error of the disk is told once: what it says here, fsync would not say
 * again. */
static int write_back(int fd)
{
    const unsigned how =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= SLOW_ENDS_PIECE_BYTES) {
        return 0;
    }
    for (off_t at = 0; at < st.st_size; at += SLOW_ENDS_PIECE_BYTES) {
        if (sync_file_range(fd, at, SLOW_ENDS_PIECE_BYTES, how) != 0) {
            return errno == EINVAL || errno == ENOSYS || errno == ESPIPE ? 0 : -1;
        }
        const struct timespec pause = {.tv_nsec = PIECE_PAUSE_NS};
        (void)nanosleep(&pause, NULL); /* Who waits for the disk goes first. */
    }
    return 0;
}

/* Likewise. */
__attribute__((visibility("default"))) int fsync(int fd)
{
    return write_back(fd) == 0 ? next_fsync(fd) : -1;
}

static int write_zeros(int fd, off_t offset, off_t bytes)
{
    static const uint8_t zeros[ZEROS_BYTES];
    for (off_t left = bytes; left > 0;) {
        size_t size = left < ZEROS_BYTES ? (size_t)left : ZEROS_BYTES;
        ssize_t n = pwrite(fd, zeros, size, offset + bytes - left);
        if (n < 0 && errno != EINTR) {
            return errno;
        }
        left -= n > 0 ? n : 0;
    }
    if (fsync(fd) != 0) {
        return errno;
    }
    /* Direct writes of the log go their fast way only where no page is cached. A file system that
     * takes no such advice still has the segment. */
    (void)posix_fadvise(fd, offset, bytes, POSIX_FADV_DONTNEED);
    return 0;
}

/* Likewise. */
__attribute__((visibility("default"))) int posix_fallocate(int fd, off_t offset, off_t bytes)
{
    int error = next_posix_fallocate(fd, offset, bytes);
    return error == 0 && bytes >= SLOW_ENDS_SEGMENT_BYTES ? write_zeros(fd, offset, bytes) : error;
}

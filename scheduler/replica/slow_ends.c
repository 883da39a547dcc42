#include "scheduler/replica/aio_ends.h"

#include "common/check.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef long (*syscall_fn)(long number, ...);

#ifdef __SANITIZE_THREAD__
#define THREAD_SANITIZER
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER
#endif
#endif

enum { ARGUMENTS = 6 };

static _Thread_local unsigned hosts;
static _Thread_local struct aio_ends noted;

/* libc's. Looked up once; twice by two threads does no harm. */
static syscall_fn next_syscall(void)
{
    static _Atomic(syscall_fn) found;
    syscall_fn fn = atomic_load_explicit(&found, memory_order_relaxed);
    if (fn == NULL) {
        *(void **)&fn = dlsym(RTLD_NEXT, "syscall");
        CHECK(fn != NULL);
        atomic_store_explicit(&found, fn, memory_order_relaxed);
    }
    return fn;
}

void aio_ends_enter(void)
{
    hosts++;
}

void aio_ends_leave(void)
{
    CHECK(hosts > 0);
    hosts--;
}

bool aio_ends_take(struct aio_ends *out)
{
    if (noted.count == 0) {
        return false;
    }
    *out = noted;
    noted.count = 0;
    return true;
}

void aio_ends_destroy(const struct aio_ends *ends)
{
    for (size_t i = 0; i < ends->count; i++) {
        (void)next_syscall()(SYS_io_destroy, ends->contexts[i]);
    }
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
    if (number == SYS_io_destroy && hosts > 0 && noted.count < AIO_ENDS_MAX) {
        noted.contexts[noted.count++] = (unsigned long)a[0];
        return 0;
    }
#ifdef THREAD_SANITIZER
    if (number == SYS_close) {
        return close((int)a[0]); /* libuv's: the sanitizer sees that the number is free again */
    }
#endif
    return next_syscall()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Checks for our own mistakes, always on. Never for input: what a peer, a disk, the kernel or an
 * operator can cause is a status. A failed check prints one line and aborts.
 *
 * Thread: any. */
#ifndef COMMON_CHECK_H
#define COMMON_CHECK_H

__attribute__((noreturn)) void check_failed(const char *file, int line, const char *condition);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) {                                                   \
            check_failed(__FILE__, __LINE__, #condition);                                          \
        }                                                                                          \
    } while (0)

#define CHECK_IMPLIES(premise, conclusion) CHECK(!(premise) || (conclusion))

/* For checks that walk whole structures: on in debug, sanitizer and simulation builds
 * (SKEP_CHECK_SLOW). */
#ifdef SKEP_CHECK_SLOW
#define CHECK_SLOW(condition) CHECK(condition)
#else
#define CHECK_SLOW(condition)                                                                      \
    do {                                                                                           \
        (void)sizeof(condition);                                                                   \
    } while (0)
#endif

#endif

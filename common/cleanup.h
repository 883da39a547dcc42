/* Scope cleanup for straight-line code: AUTO_CLOSE int fd = -1; AUTO_FREE char *text = NULL;
 * AUTO_FILE FILE *f = NULL;
 *
 * Thread: any. */
#ifndef COMMON_CLEANUP_H
#define COMMON_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_close(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
}

static inline void cleanup_free(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_file(FILE **file)
{
    if (*file != NULL) {
        (void)fclose(*file);
    }
}

#define AUTO_CLOSE __attribute__((cleanup(cleanup_close)))
#define AUTO_FREE __attribute__((cleanup(cleanup_free)))
#define AUTO_FILE __attribute__((cleanup(cleanup_file)))

/* Hands the descriptor out: the scope no longer closes it. */
static inline int fd_steal(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Hands the pointer out: the scope no longer frees it. */
#define PTR_STEAL(p)                                                                               \
    ({                                                                                             \
        __typeof__(p) steal_taken_ = (p);                                                          \
        (p) = NULL;                                                                                \
        steal_taken_;                                                                              \
    })

#endif

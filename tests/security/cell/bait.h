/* What the escape suite lays out on the host for attempts to reach: a secret, sockets, a process,
 * shared memory, and a hostile code folder. All of it is the test's own and removed by bait_close.
 *
 * Thread: the test's. Failures fail the test. */
#ifndef TESTS_SECURITY_CELL_BAIT_H
#define TESTS_SECURITY_CELL_BAIT_H

#include <sys/types.h>

enum { BAIT_PATH_BYTES = 256, BAIT_ENV_COUNT = 6 };

struct bait_world {
    char folder[BAIT_PATH_BYTES]; /* the secret's, not in the cell */
    char app[BAIT_PATH_BYTES];    /* bound at /app */
    char tmp[BAIT_PATH_BYTES];    /* what /tmp is inside, for outside */
    pid_t pid;
    int pipe_fd;
    int tcp_fd;
    int abstract_fd;
    long key;
    int shm, sem, msg;
    char *inside[BAIT_ENV_COUNT + 1]; /* KEY=VALUE, heap, NULL at the end */
    char *outside[BAIT_ENV_COUNT + 1];
};

/* Needs root: there are a setuid program and file capabilities in the code folder. */
void bait_open(struct bait_world *b, const char *guest);
/* The bait process lives and nothing of it was touched. */
void bait_check(const struct bait_world *b);
void bait_close(struct bait_world *b);

#endif

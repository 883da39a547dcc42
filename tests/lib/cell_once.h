/* One cell from a specification to its end, for tools, benches and the fuzzer; tests with cmocka
 * use tests/component/cell/harness.h.
 *
 * Life: cell_once_open, change `spec`, cell_once_start, then cell_once_wait_ready or
 * cell_once_wait, cell_once_close. What cannot be done ends the program with a line on standard
 * error.
 *
 * Thread: the caller's; no loop. Every wait has a deadline. */
#ifndef TESTS_LIB_CELL_ONCE_H
#define TESTS_LIB_CELL_ONCE_H

#include "agent/cell/cell_client.h"

enum { CELL_ONCE_MOUNTS_MAX = 16, CELL_ONCE_LOG_BYTES_MAX = 64 << 20 };

struct cell_once {
    char folder[128];
    struct cell_spec spec; /* borrows args and env from the caller */
    struct cell_mount mounts[CELL_ONCE_MOUNTS_MAX];
    struct cell_process process;
    struct cell_client client;
    int channel_fd; /* -1: not here yet */
    bool running;   /* skep-cell is not reaped */
    int exit_code;  /* of skep-cell, or minus the signal */
    bool started;
    bool ended;
    struct cell_event start_event;
    struct cell_event end_event;
};

/* A folder of its own under TMPDIR, limits of 64 MiB, one CPU, 64 processes, 16 MiB of /tmp; a
 * control group `GROUP/SERIAL` as root when group is not NULL. */
void cell_once_open(struct cell_once *c, const char *group, unsigned serial);
/* Binds source at target. */
void cell_once_mount(struct cell_once *c, const char *source, const char *target);
/* Writes the specification, the part that is not of the start itself. */
void cell_once_prepare(struct cell_once *c);
/* Starts skep-cell (the path of the program) on the folder; prepare comes before. */
void cell_once_start(struct cell_once *c, const char *program);
/* Until process 1 has sent its first packet on the runner channel; false: it ended before. */
bool cell_once_wait_ready(struct cell_once *c, int deadline_ms);
/* Until process 1 runs; false: it ended before. */
bool cell_once_wait_started(struct cell_once *c, int deadline_ms);
/* Until skep-cell has ended and is reaped; false at the deadline, when it still runs. */
bool cell_once_wait(struct cell_once *c, int deadline_ms);
/* Sends CELL_KILL, or SIGKILL to skep-cell where nobody listens. */
void cell_once_kill(struct cell_once *c);
/* What the cell said (the last bytes, at most what the ring holds) is appended to *text, which the
 * caller closes. */
void cell_once_read_log(const struct cell_once *c, struct buffer *text);
/* Writes the same to the descriptor. */
void cell_once_print_log(const struct cell_once *c, int fd);
/* As root: a mount namespace of this process's own, so that what others mount meanwhile does not
 * show and what a cell leaves does. */
void cell_once_own_mounts(void);
/* The mounts that this process sees. */
size_t cell_once_count_mounts(void);
/* Kills what still runs and removes the folder. */
void cell_once_close(struct cell_once *c);

/* Milliseconds of the monotonic clock. */
double cell_once_now_ms(void);
/* Ends the program with what and errno unless good. */
void cell_once_must(bool good, const char *what);

#endif

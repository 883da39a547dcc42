/* Runs cells for tests: a temporary folder, a specification to be changed, the start, what it said,
 * and the proof that nothing stays behind.
 *
 * Thread: the test's. Every wait has a deadline; missing it fails the test. */
#ifndef TESTS_COMPONENT_CELL_HARNESS_H
#define TESTS_COMPONENT_CELL_HARNESS_H

#include "agent/cell/cell_client.h"
#include "agent/cell/cgroup.h"

enum { HARNESS_DEADLINE_MS = 60000, HARNESS_PATH_BYTES = 512, HARNESS_ARGS_MAX = 8 };

struct harness {
    const char *program; /* skep-cell, or another that keeps its contract */
    char folder[HARNESS_PATH_BYTES];
    char cgroup_parent[64];
    struct cgroup_mounts mounts;
    struct cell_spec spec;
    struct cell_mount mount; /* the guest program at /guest */
    char *args[HARNESS_ARGS_MAX];
    char *env[2];
    struct cell_process process;
    struct cell_client client;
    int channel_fd;
    bool started;
    bool exited;
    long deadline_ms; /* of each wait */
    bool running;     /* skep-cell is not reaped yet */
    int exit_code;    /* of skep-cell */
    struct cell_event start_event;
    struct cell_event end_event;
    struct buffer log;
};

/* A specification with small limits that runs `guest ACTION ARGUMENT` (argument may be NULL). */
void harness_open(struct harness *h, const char *action, const char *argument);
/* Writes spec.json and starts skep-cell. */
void harness_start(struct harness *h);
/* Until HELLO and STARTED have come. */
void harness_wait_started(struct harness *h);
/* Until skep-cell has ended; then the log is read. */
void harness_wait_ended(struct harness *h);
/* start and wait_ended. */
void harness_run(struct harness *h);
/* Until the log holds the text. */
void harness_wait_log(struct harness *h, const char *text);
bool harness_log_has(const struct harness *h, const char *text);
/* Reads the log so far into h->log. */
void harness_read_log(struct harness *h);
/* Checks that no process, control group or mount is left, and removes the folder. */
void harness_close(struct harness *h);

/* Skips the test where it cannot run: without root there are no control groups. */
#define HARNESS_NEEDS_ROOT()                                                                       \
    do {                                                                                           \
        if (geteuid() != 0) {                                                                      \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

#endif

/* Drives a runner as an agent does: starts the program with one end of a socket pair as descriptor
 * 3, sends and receives frames. Waits are for conditions, each with a deadline; a missed one fails
 * the test.
 *
 * Thread: the test's. */
#ifndef TESTS_COMPONENT_RUNNERS_HARNESS_H
#define TESTS_COMPONENT_RUNNERS_HARNESS_H

#include "common/runner_frames.h"

#include <sys/types.h>

struct harness {
    pid_t pid;
    int fd;
    int log_fd; /* a file with what the program wrote to standard output and standard error */
    struct runner_frames frames;
    struct runner_frame last; /* what harness_receive got; borrowed until the next */
};

/* Starts argv[0]; env is KEY=VALUE words after the test's own environment; both end in NULL. */
void harness_start(struct harness *h, const char *const *argv, const char *const *env);
/* As harness_start, then waits for READY and checks its arg. */
void harness_ready(struct harness *h, const char *const *argv, const char *const *env,
                   uint64_t concurrency);
/* Sends STOP, expects exit code 0, closes all. */
void harness_stop(struct harness *h);
/* Waits for the end; returns the wait status. Closes all but the log. */
int harness_wait(struct harness *h);
/* Closes all, killing the program when it still runs. Safe twice. */
void harness_close(struct harness *h);

void harness_send(struct harness *h, uint8_t type, uint64_t id, uint64_t arg, const void *data,
                  size_t size);
void harness_invoke(struct harness *h, uint64_t id, const char *text);
/* One packet as it is. */
void harness_send_raw(struct harness *h, const void *packet, size_t size);
/* One packet of a frame, with these flags. */
void harness_send_packet(struct harness *h, uint64_t id, uint8_t flags, const void *data,
                         size_t size);

/* The next frame. */
const struct runner_frame *harness_receive(struct harness *h);
/* Receives a RESULT and checks its id, its status, and that its data is, or begins with, text. */
void harness_expect(struct harness *h, uint64_t id, enum status_code code, const char *text);
void harness_expect_prefix(struct harness *h, uint64_t id, enum status_code code, const char *text);

/* Waits until the log holds text. */
void harness_expect_log(struct harness *h, const char *text);

#endif

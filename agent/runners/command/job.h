/* One invocation of a command: a process group, its three pipes, and what becomes of them.
 *
 *     job_start -> job_write, job_read_output, job_read_error as poll says
 *               -> job_exited -> job_result, job_close
 *     job_kill at any time before the exit: the reason given wins over how the process ended.
 *
 * Thread: the only one. */
#ifndef AGENT_RUNNERS_COMMAND_JOB_H
#define AGENT_RUNNERS_COMMAND_JOB_H

#include "common/runner_frames.h"

#include <sys/types.h>

enum { JOB_LINE_BYTES_MAX = 512, JOB_TEXT_BYTES_MAX = 1024 };

struct job {
    uint64_t id;
    pid_t pid; /* also the process group; 0: the job is not in use */
    int input_fd;
    int output_fd;
    int error_fd;
    struct buffer input;
    size_t written;
    struct buffer output;
    char line[JOB_LINE_BYTES_MAX]; /* of standard error, the line that has not ended */
    size_t line_size;
    char last[JOB_LINE_BYTES_MAX]; /* the last line that was not empty */
    size_t last_size;
    uint64_t deadline_ms;    /* of the monotonic clock; UINT64_MAX: none */
    enum status_code killed; /* why we killed it; OK: we did not */
    int wait_status;         /* once it has exited */
    char text[JOB_TEXT_BYTES_MAX];
};

/* Starts argv with envp in a process group of its own. FAILED when the program cannot be executed,
 * LIMIT when the machine has no room; the message is for the caller of the function. *j is then not
 * in use. */
NODISCARD struct status job_start(struct job *j, const struct runner_frame *invoke, char **argv,
                                  char **envp, struct errmsg *msg);

/* Writes what can be written without waiting. A pipe that ended is closed and its descriptor
 * becomes -1. */
void job_write(struct job *j);
/* Reads at most one chunk, so that one busy process does not hold up the others; false when there
 * is nothing now. */
bool job_read_output(struct job *j);
bool job_read_error(struct job *j);

/* Kills the process group; the first reason is kept. */
void job_kill(struct job *j, enum status_code why);

/* The process has ended: ends the rest of its group too and takes what is still in its pipes. Call
 * it before the process is reaped, so that its number still means this group. */
void job_exited(struct job *j, int wait_status);

/* The RESULT of a job that has exited; borrows from it. */
struct runner_frame job_result(struct job *j);
void job_close(struct job *j);

#endif

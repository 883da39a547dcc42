#include "agent/runners/command/job.h"

#include "common/check.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a pipe holds at most (1 MiB without privileges) is drained at the end; more can only come
 * from a process that left its group. */
enum { CHUNK_BYTES = 64 << 10, DRAIN_CHUNKS_MAX = 32 };

/* A pipe, both ends close-on-exec, ours (0: the reading one, 1: the writing one) without waiting.
 * */
static int pipe_make(int ends[2], int ours)
{
    if (pipe2(ends, O_CLOEXEC) != 0) {
        ends[0] = -1;
        ends[1] = -1;
        return errno;
    }
    return fcntl(ends[ours], F_SETFL, O_NONBLOCK) == 0 ? 0 : errno;
}

static void close_both(int ends[2])
{
    cleanup_close(&ends[0]);
    cleanup_close(&ends[1]);
}

/* Starts argv on the far ends of the pipes; returns an errno value. */
static int spawn(pid_t *pid, int input, int output, int error, char **argv, char **envp)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    sigset_t defaults;
    (void)sigemptyset(&none);
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGPIPE);
    (void)sigaddset(&defaults, SIGTERM);
    (void)sigaddset(&defaults, SIGCHLD);
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed != 0) {
        return failed;
    }
    failed = posix_spawnattr_init(&attr);
    if (failed != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return failed;
    }
    short flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    (void)posix_spawnattr_setflags(&attr, flags);
    (void)posix_spawnattr_setpgroup(&attr, 0);
    (void)posix_spawnattr_setsigmask(&attr, &none);
    (void)posix_spawnattr_setsigdefault(&attr, &defaults);
    const int far[3] = {input, output, error};
    for (int fd = 0; fd < 3 && failed == 0; fd++) {
        failed = posix_spawn_file_actions_adddup2(&actions, far[fd], fd);
    }
    if (failed == 0) {
        failed = posix_spawnp(pid, argv[0], &actions, &attr, argv, envp);
    }
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static bool for_lack_of_room(int error)
{
    return error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE;
}

struct status job_start(struct job *j, const struct runner_frame *invoke, char **argv, char **envp,
                        struct errmsg *msg)
{
    CHECK(j->pid == 0);
    struct buffer input = {0};
    struct status s = buffer_append(&input, invoke->data.data, invoke->data.size);
    if (!status_is_ok(s)) {
        return status_fail(msg, STATUS_LIMIT, "no memory for the input");
    }
    int in[2] = {-1, -1};
    int out[2] = {-1, -1};
    int err[2] = {-1, -1};
    int failed = pipe_make(in, 1);
    failed = failed == 0 ? pipe_make(out, 0) : failed;
    failed = failed == 0 ? pipe_make(err, 0) : failed;
    pid_t pid = 0;
    if (failed == 0) {
        failed = spawn(&pid, in[0], out[1], err[1], argv, envp);
    }
    if (failed != 0) {
        buffer_close(&input);
        close_both(in);
        close_both(out);
        close_both(err);
        enum status_code code = for_lack_of_room(failed) ? STATUS_LIMIT : STATUS_FAILED;
        return status_fail(msg, code, "start %.256s: %s", argv[0], strerror(failed));
    }
    (void)close(in[0]);
    (void)close(out[1]);
    (void)close(err[1]);
    *j = (struct job){
        .id = invoke->id,
        .pid = pid,
        .input_fd = in[1],
        .output_fd = out[0],
        .error_fd = err[0],
        .input = input,
        .deadline_ms = UINT64_MAX,
    };
    return status_ok();
}

static void fd_end(int *fd)
{
    cleanup_close(fd);
    *fd = -1;
}

void job_write(struct job *j)
{
    while (j->input_fd >= 0 && j->written < j->input.size) {
        ssize_t n = write(j->input_fd, j->input.data + j->written, j->input.size - j->written);
        if (n > 0) {
            j->written += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            return;
        } else if (n == 0 || errno != EINTR) {
            break; /* It does not want to read the rest, which is its own business. */
        }
    }
    fd_end(&j->input_fd);
    buffer_close(&j->input);
}

/* Reads once: the bytes, 0 when there are none now, and closes *fd at the end. */
static size_t pipe_read(int *fd, uint8_t chunk[CHUNK_BYTES])
{
    for (;;) {
        ssize_t n = read(*fd, chunk, CHUNK_BYTES);
        if (n > 0) {
            return (size_t)n;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n == 0 || errno != EAGAIN) {
            fd_end(fd);
        }
        return 0;
    }
}

bool job_read_output(struct job *j)
{
    uint8_t chunk[CHUNK_BYTES];
    size_t size = j->output_fd < 0 ? 0 : pipe_read(&j->output_fd, chunk);
    bool fits = size <= RUNNER_FRAME_BYTES_MAX - j->output.size;
    if (!fits || !status_is_ok(buffer_append(&j->output, chunk, size))) {
        job_kill(j, fits ? STATUS_NOMEM : STATUS_LIMIT);
        fd_end(&j->output_fd);
    }
    return size > 0;
}

static void line_add(struct job *j, uint8_t byte)
{
    if (byte != '\n') {
        if (j->line_size < sizeof j->line) {
            j->line[j->line_size++] = (char)byte;
        }
        return;
    }
    if (j->line_size > 0) {
        memcpy(j->last, j->line, j->line_size);
        j->last_size = j->line_size;
        j->line_size = 0;
    }
}

static void log_write_all(const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(STDERR_FILENO, data, size);
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            return; /* A log that cannot be written has nobody to be told. */
        }
    }
}

bool job_read_error(struct job *j)
{
    uint8_t chunk[CHUNK_BYTES];
    size_t size = j->error_fd < 0 ? 0 : pipe_read(&j->error_fd, chunk);
    log_write_all(chunk, size);
    for (size_t i = 0; i < size; i++) {
        line_add(j, chunk[i]);
    }
    return size > 0;
}

void job_kill(struct job *j, enum status_code why)
{
    CHECK(j->pid > 1);
    if (j->killed == STATUS_OK) {
        j->killed = why;
    }
    (void)kill(-j->pid, SIGKILL);
}

void job_exited(struct job *j, int wait_status)
{
    CHECK(j->pid > 1);
    (void)kill(-j->pid, SIGKILL);
    j->wait_status = wait_status;
    fd_end(&j->input_fd);
    bool more = true;
    for (int i = 0; i < DRAIN_CHUNKS_MAX && more; i++) {
        more = job_read_output(j);
    }
    more = true;
    for (int i = 0; i < DRAIN_CHUNKS_MAX && more; i++) {
        more = job_read_error(j);
    }
}

/* The text of a job that ended badly by itself. */
static enum status_code describe(struct job *j)
{
    if (WIFSIGNALED(j->wait_status)) {
        int signal = WTERMSIG(j->wait_status);
        (void)snprintf(j->text, sizeof j->text, "killed by signal %d (%s)", signal,
                       strsignal(signal));
        return STATUS_CRASHED;
    }
    if (j->line_size > 0) {
        line_add(j, '\n');
    }
    (void)snprintf(j->text, sizeof j->text, "exit code %d%s%.*s", WEXITSTATUS(j->wait_status),
                   j->last_size > 0 ? ": " : "", (int)j->last_size, j->last);
    return STATUS_FAILED;
}

struct runner_frame job_result(struct job *j)
{
    struct runner_frame result = {.type = RUNNER_RESULT, .id = j->id};
    enum status_code code = j->killed;
    if (code == STATUS_LIMIT) {
        (void)snprintf(j->text, sizeof j->text, "the output is over the limit of %d bytes",
                       RUNNER_FRAME_BYTES_MAX);
    } else if (code != STATUS_OK) {
        (void)snprintf(j->text, sizeof j->text, "%s", status_text(code));
    } else if (!WIFEXITED(j->wait_status) || WEXITSTATUS(j->wait_status) != 0) {
        code = describe(j);
    } else {
        result.data = bytes_of(j->output.data, j->output.size);
        return result;
    }
    result.status = (uint16_t)code;
    result.data = bytes_of(j->text, strlen(j->text));
    return result;
}

void job_close(struct job *j)
{
    if (j->pid == 0) {
        return;
    }
    fd_end(&j->input_fd);
    fd_end(&j->output_fd);
    fd_end(&j->error_fd);
    buffer_close(&j->input);
    buffer_close(&j->output);
    *j = (struct job){0};
}

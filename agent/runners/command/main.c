/* skep-command-runner -- COMMAND...: process 1 of the cell of a `command:` function. Starts one
 * process an invocation: input on its standard input, output from its standard output, standard
 * error to the log.
 *
 *     exit code 0                       the output
 *     another exit code                 FAILED, with the code and the last line of standard error
 *     ended by a signal                 CRASHED
 *     timeout passed                    the process group is killed, TIMEOUT
 *     CANCEL                            the process group is killed, CANCELED
 *     output over RUNNER_FRAME_BYTES_MAX   the process group is killed, LIMIT
 *
 * What a process leaves running in its group is killed with it; when this is process 1 and no other
 * invocation runs, so is all else in the cell, so that invocations do not meet each other's
 * leftovers. Orphans are reaped. The process finds SKEP_INVOCATION and SKEP_TIMEOUT_MS in its
 * environment.
 *
 * One thread and one ppoll, during which alone signals arrive. */
#include "agent/runners/channel.h"
#include "agent/runners/command/job.h"

#include "common/check.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_STOPPED = 0,
    EXIT_CHANNEL = 1,
    EXIT_USAGE = 2,
    CONCURRENCY_MAX = 1024,
    JOB_FDS = 3,
    ENV_OURS = 2,
    ENV_BYTES_MAX = 64,
};

static volatile sig_atomic_t terminated;

struct runner {
    char **argv;
    struct channel channel;
    struct job *jobs;
    unsigned jobs_max;
    unsigned jobs_count; /* in use */
    struct pollfd *fds;  /* the channel, then JOB_FDS of each job */
    char **env;
    size_t env_count; /* of the inherited ones, which stand first */
    char env_ours[ENV_OURS][ENV_BYTES_MAX];
    sigset_t waiting; /* the signal mask during ppoll */
    bool stopping;
    bool lost; /* the channel is gone: nobody wants results */
};

static uint64_t now_ms(void)
{
    struct timespec t;
    int failed = clock_gettime(CLOCK_MONOTONIC, &t);
    CHECK(failed == 0);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void on_signal(int signal)
{
    if (signal == SIGTERM) {
        terminated = 1;
    }
}

static void kill_all(struct runner *r, enum status_code why)
{
    for (unsigned i = 0; i < r->jobs_max; i++) {
        if (r->jobs[i].pid != 0) {
            job_kill(&r->jobs[i], why);
        }
    }
}

static void channel_lost(struct runner *r)
{
    r->stopping = true;
    r->lost = true;
    kill_all(r, STATUS_CANCELED);
}

static void runner_send(struct runner *r, const struct runner_frame *frame)
{
    if (!r->lost && !status_is_ok(channel_send(&r->channel, frame))) {
        channel_lost(r);
    }
}

static void answer(struct runner *r, uint64_t id, enum status_code code, const char *text)
{
    struct runner_frame result = {
        .type = RUNNER_RESULT,
        .status = (uint16_t)code,
        .id = id,
        .data = bytes_of(text, strlen(text)),
    };
    runner_send(r, &result);
}

static struct job *job_find(struct runner *r, uint64_t id)
{
    for (unsigned i = 0; i < r->jobs_max; i++) {
        if (r->jobs[i].pid != 0 && r->jobs[i].id == id) {
            return &r->jobs[i];
        }
    }
    return NULL;
}

static struct job *job_free(struct runner *r)
{
    unsigned i = 0;
    while (i < r->jobs_max && r->jobs[i].pid != 0) {
        i++;
    }
    return i < r->jobs_max ? &r->jobs[i] : NULL;
}

static void on_invoke(struct runner *r, const struct runner_frame *frame)
{
    if (job_find(r, frame->id) != NULL) {
        channel_log("skep-runner: invocation %" PRIu64 " is already running", frame->id);
        return;
    }
    struct job *j = job_free(r);
    if (j == NULL) {
        answer(r, frame->id, STATUS_LIMIT, "more invocations at once than the runner offered");
        return;
    }
    (void)snprintf(r->env_ours[0], ENV_BYTES_MAX, "SKEP_INVOCATION=%" PRIu64, frame->id);
    (void)snprintf(r->env_ours[1], ENV_BYTES_MAX, "SKEP_TIMEOUT_MS=%" PRIu64, frame->arg);
    struct errmsg msg = {0};
    struct status s = job_start(j, frame, r->argv, r->env, &msg);
    if (!status_is_ok(s)) {
        channel_log("skep-runner: %s", msg.text);
        answer(r, frame->id, s.code, msg.text);
        return;
    }
    r->jobs_count++;
    uint64_t now = now_ms();
    if (frame->arg > 0 && frame->arg < UINT64_MAX - now) {
        j->deadline_ms = now + frame->arg;
    }
    job_write(j);
}

static void on_cancel(struct runner *r, uint64_t id)
{
    struct job *j = job_find(r, id);
    if (j != NULL) {
        job_kill(j, STATUS_CANCELED);
    } else if (runner_frames_drop(&r->channel.frames, RUNNER_INVOKE, id)) {
        answer(r, id, STATUS_CANCELED, "canceled before it began");
    }
}

static void on_frame(struct runner *r, const struct runner_frame *frame)
{
    struct runner_frame restored = {.type = RUNNER_RESTORED, .id = frame->id};
    switch (frame->type) {
    case RUNNER_INVOKE:
        on_invoke(r, frame);
        break;
    case RUNNER_CANCEL:
        on_cancel(r, frame->id);
        break;
    case RUNNER_RESTORED:
        runner_send(r,
                    &restored); /* Each invocation is a new process: there is nothing to reseed. */
        break;
    case RUNNER_STOP:
        r->stopping = true;
        break;
    default:
        channel_log("skep-runner: frame of type %u ignored", frame->type);
    }
}

static void receive(struct runner *r)
{
    struct runner_frame frame;
    while (!r->stopping) {
        enum channel_event event = channel_next(&r->channel, false, &frame);
        if (event == CHANNEL_IDLE) {
            return;
        }
        if (event == CHANNEL_END) {
            channel_lost(r);
            return;
        }
        on_frame(r, &frame);
    }
}

static void finish(struct runner *r, struct job *j, int wait_status)
{
    job_exited(j, wait_status);
    struct runner_frame result = job_result(j);
    runner_send(r, &result);
    job_close(j);
    r->jobs_count--;
}

static int wait_status_of(const siginfo_t *info)
{
    if (info->si_code == CLD_EXITED) {
        return W_EXITCODE(info->si_status, 0);
    }
    return W_EXITCODE(0, info->si_status);
}

/* Reaps all that has ended: the processes of jobs, and orphans that have become ours. A job's group
 * is killed while its leader is not reaped, since afterwards the number could be another's. True
 * when a job ended. */
static bool reap(struct runner *r)
{
    bool finished = false;
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
            return finished;
        }
        for (unsigned i = 0; i < r->jobs_max; i++) {
            if (r->jobs[i].pid == info.si_pid) {
                finish(r, &r->jobs[i], wait_status_of(&info));
                finished = true;
                break;
            }
        }
        (void)waitpid(info.si_pid, NULL, 0);
    }
}

/* As process 1, with no job left: ends all other processes of the cell and waits until they are
 * gone. */
static void sweep(void)
{
    (void)kill(-1, SIGKILL);
    pid_t gone = 0;
    do {
        gone = waitpid(-1, NULL, 0);
    } while (gone > 0 || (gone < 0 && errno == EINTR));
}

/* Kills what is late; returns the milliseconds until the next deadline, -1 without one. */
static int64_t check_deadlines(struct runner *r)
{
    uint64_t now = now_ms();
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < r->jobs_max; i++) {
        struct job *j = &r->jobs[i];
        if (j->pid == 0) {
            continue;
        }
        if (j->deadline_ms <= now) {
            job_kill(j, STATUS_TIMEOUT);
            j->deadline_ms = UINT64_MAX;
        }
        next = j->deadline_ms < next ? j->deadline_ms : next;
    }
    return next == UINT64_MAX ? -1 : (int64_t)(next - now);
}

static nfds_t fill_fds(struct runner *r)
{
    r->fds[0] = (struct pollfd){.fd = r->stopping ? -1 : r->channel.fd, .events = POLLIN};
    for (unsigned i = 0; i < r->jobs_max; i++) {
        const struct job *j = &r->jobs[i];
        struct pollfd *p = &r->fds[1 + i * JOB_FDS];
        bool used = j->pid != 0;
        p[0] = (struct pollfd){.fd = used ? j->input_fd : -1, .events = POLLOUT};
        p[1] = (struct pollfd){.fd = used ? j->output_fd : -1, .events = POLLIN};
        p[2] = (struct pollfd){.fd = used ? j->error_fd : -1, .events = POLLIN};
    }
    return 1 + (nfds_t)r->jobs_max * JOB_FDS;
}

static void serve_jobs(struct runner *r)
{
    for (unsigned i = 0; i < r->jobs_max; i++) {
        const struct pollfd *p = &r->fds[1 + i * JOB_FDS];
        if (p[0].revents != 0) {
            job_write(&r->jobs[i]);
        }
        if (p[1].revents != 0) {
            (void)job_read_output(&r->jobs[i]);
        }
        if (p[2].revents != 0) {
            (void)job_read_error(&r->jobs[i]);
        }
    }
}

static void serve(struct runner *r)
{
    while (!r->stopping || r->jobs_count > 0) {
        int64_t left = check_deadlines(r);
        struct timespec t = {left / 1000, (left % 1000) * 1000000};
        nfds_t count = fill_fds(r);
        int ready = ppoll(r->fds, count, left < 0 ? NULL : &t, &r->waiting);
        if (ready > 0) {
            serve_jobs(r);
        }
        if (ready > 0 && r->fds[0].revents != 0) {
            receive(r);
        }
        if (reap(r) && r->jobs_count == 0 && getpid() == 1) {
            sweep();
        }
        if (terminated) {
            r->stopping = true;
        }
    }
}

static void signals_open(struct runner *r)
{
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGCHLD);
    (void)sigaddset(&blocked, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &blocked, &r->waiting);
    (void)sigdelset(&r->waiting, SIGCHLD);
    (void)sigdelset(&r->waiting, SIGTERM);
    struct sigaction act = {.sa_handler = on_signal};
    (void)sigaction(SIGCHLD, &act, NULL);
    (void)sigaction(SIGTERM, &act, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL);
}

/* Standard descriptors that are closed would be taken by pipes. */
static void descriptors_open(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0) {
            (void)open("/dev/null", O_RDWR);
        }
    }
}

static unsigned concurrency(void)
{
    const char *text = getenv("SKEP_CONCURRENCY");
    unsigned long wanted = text == NULL ? 1 : strtoul(text, NULL, 10);
    if (wanted < 1) {
        return 1;
    }
    return wanted < CONCURRENCY_MAX ? (unsigned)wanted : CONCURRENCY_MAX;
}

static void runner_open(struct runner *r)
{
    r->jobs_max = concurrency();
    r->jobs = mem_must(mem_zalloc(r->jobs_max, sizeof *r->jobs));
    r->fds = mem_must(mem_zalloc(1 + (size_t)r->jobs_max * JOB_FDS, sizeof *r->fds));
    while (environ[r->env_count] != NULL) {
        r->env_count++;
    }
    r->env = mem_must(mem_zalloc(r->env_count + ENV_OURS + 1, sizeof *r->env));
    memcpy(r->env, environ, r->env_count * sizeof *r->env);
    for (size_t i = 0; i < ENV_OURS; i++) {
        r->env[r->env_count + i] = r->env_ours[i];
    }
    signals_open(r);
}

static void runner_close(struct runner *r)
{
    channel_close(&r->channel);
    mem_free(r->env);
    mem_free(r->fds);
    mem_free(r->jobs);
}

int main(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "--") != 0) {
        channel_log("usage: skep-command-runner -- COMMAND...");
        return EXIT_USAGE;
    }
    descriptors_open();
    struct runner r = {.argv = argv + 2};
    struct errmsg msg = {0};
    if (!status_is_ok(channel_open(&r.channel, RUNNER_FD, &msg))) {
        channel_log("skep-runner: %s", msg.text);
        return EXIT_USAGE;
    }
    runner_open(&r);
    struct runner_frame ready = {.type = RUNNER_READY, .arg = r.jobs_max};
    runner_send(&r, &ready);
    serve(&r);
    int code = r.lost ? EXIT_CHANNEL : EXIT_STOPPED;
    runner_close(&r);
    return code;
}

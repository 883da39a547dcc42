#include "agent/gvisor/watch.h"

#include "agent/gvisor/launcher.h"
#include "common/check.h"
#include "common/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    US_PER_MS = 1000,
    OOM_LOOK_MS = 1000,
    OOM_LOOK_STEP_MS = 1,
    SHELL_SIGNAL = 128, /* runsc's exit code for a signal is this and its number */
    SIGNALS_MAX = 64,
};

uint64_t watch_clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* runsc is process 1 of its namespace and takes all of that with it. */
static void kill_sandbox(struct watch *w)
{
    /* ESRCH: it has ended, and the loop is about to see it. */
    (void)syscall(SYS_pidfd_send_signal, w->sandbox.pidfd, SIGKILL, NULL, 0);
    w->kill_sent = true;
    w->kill_deadline_us = 0;
}

static void stop_sandbox(struct watch *w, uint64_t now_us)
{
    if (w->stop_asked) {
        return;
    }
    w->stop_asked = true;
    if (w->state == WATCH_STARTING) {
        kill_sandbox(w); /* Nothing of the function runs that could be asked. */
        return;
    }
    uint32_t stop_ms = w->spec->stop_ms != 0 ? w->spec->stop_ms : WATCH_STOP_MS_DEFAULT;
    w->kill_deadline_us = now_us + (uint64_t)stop_ms * US_PER_MS;
    sandbox_terminate(&w->sandbox, w->spec);
}

__attribute__((format(printf, 2, 3))) static void say(struct watch *w, const char *format, ...)
{
    size_t used = strlen(w->event.message);
    if (used > 0 && used + 3 < sizeof w->event.message) {
        memcpy(w->event.message + used, "; ", 3);
        used += 2;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(w->event.message + used, sizeof w->event.message - used, format, args);
    va_end(args);
}

/* ---- The ear ---- */

static void started(struct watch *w)
{
    w->state = WATCH_RUNNING;
    w->event.startup_us = watch_clock_us() - w->born_us;
    struct cell_event event = w->event;
    event.kind = CELL_EVENT_STARTED;
    if (w->port != NULL) {
        agent_port_tell(w->port, &event);
    }
}

/* Keeps the last words: half of what is there goes when they become too many. */
static void words_add(struct watch *w, char byte)
{
    if (w->words_size == WATCH_WORDS_BYTES_MAX) {
        w->words_size /= 2;
        memmove(w->words, w->words + WATCH_WORDS_BYTES_MAX - w->words_size, w->words_size);
    }
    bool plain = (byte >= ' ' && byte < 0x7F) || byte == '\n';
    w->words[w->words_size++] = plain ? byte : '?';
}

static void ear_take(struct watch *w, char byte)
{
    if (byte == LAUNCHER_READY && w->state == WATCH_STARTING) {
        started(w);
    } else if (byte == LAUNCHER_FAILED && !w->not_run) {
        w->not_run = true;
        w->words_size = 0;
    } else {
        words_add(w, byte);
    }
}

/* False when nothing was there. */
static bool ear_read(struct watch *w)
{
    char chunk[4096];
    ssize_t size = w->sandbox.ear_fd < 0 ? -1 : read(w->sandbox.ear_fd, chunk, sizeof chunk);
    for (ssize_t i = 0; i < size; i++) {
        ear_take(w, chunk[i]);
    }
    if (size == 0) {
        (void)close(w->sandbox.ear_fd);
        w->sandbox.ear_fd = -1;
    }
    return size > 0;
}

/* The last line that runsc or the launcher said; "" without. */
static const char *last_words(struct watch *w)
{
    while (w->words_size > 0 && w->words[w->words_size - 1] <= ' ') {
        w->words_size--;
    }
    w->words[w->words_size] = '\0';
    const char *line = strrchr(w->words, '\n');
    return line == NULL ? w->words : line + 1;
}

/* ---- Memory ---- */

/* The event says that the limit was hit somewhere at or above our group, a moment before a process
 * is killed: the group's own counter is the proof, looked at until it moves or the moment has
 * passed. */
static void on_oom_event(struct watch *w, uint64_t now_us)
{
    uint64_t ignored = 0;
    if ((w->oom_events & POLLIN) != 0) {
        (void)!read(w->oom_fd, &ignored, sizeof ignored);
    } else {
        char text[512];
        (void)!pread(w->oom_fd, text, sizeof text, 0); /* Re-arms the poll of a kernfs file. */
    }
    w->oom_look_until_us = now_us + OOM_LOOK_MS * US_PER_MS;
}

static void oom_look(struct watch *w, uint64_t now_us)
{
    struct cgroup_counters counters;
    cgroup_count(w->cgroup, &counters);
    if (counters.oom_kills > 0) {
        w->out_of_memory = true;
        w->oom_look_until_us = 0;
        kill_sandbox(w);
    } else if (now_us >= w->oom_look_until_us) {
        w->oom_look_until_us = 0;
    }
}

/* ---- The end ---- */

static void say_memory(struct watch *w)
{
    struct cgroup_counters counters;
    cgroup_count(w->cgroup, &counters);
    w->event.memory_peak_bytes = counters.memory_peak_bytes;
    w->event.pids_limit_hits = counters.pids_limit_hits;
    if (counters.oom_kills == 0 && !w->out_of_memory) {
        return;
    }
    w->out_of_memory = true;
    uint64_t limit = w->spec->memory_bytes + SANDBOX_MEMORY_BYTES;
    /* Newer kernels no longer count the hits in v1; a peak at the limit says the same. */
    if (counters.memory_limit_hits > 0 || counters.memory_peak_bytes >= limit / 16 * 15) {
        say(w, "memory limit of %" PRIu64 " MiB reached", w->spec->memory_bytes >> 20);
    } else {
        say(w, "killed because the machine ran out of memory");
    }
}

/* One that could not start, or that nobody let start. */
static void say_not_started(struct watch *w)
{
    const char *words = last_words(w);
    w->event.end = w->stop_asked && !w->not_run ? CELL_END_STOPPED : CELL_END_SETUP;
    if (w->event.end == CELL_END_STOPPED) {
        say(w, "stopped while being set up");
    } else if (w->too_late) {
        w->event.detail = ETIMEDOUT;
        say(w, "step runsc: took longer than %d ms", WATCH_SETUP_MS_MAX);
    } else if (w->not_run) {
        say(w, "step exec: %.200s", words);
    } else {
        say(w, "step runsc: %.200s", words[0] != '\0' ? words : "ended before the runner began");
    }
}

static void say_end(struct watch *w, const siginfo_t *info)
{
    bool exited = info->si_code == CLD_EXITED;
    int code = exited ? info->si_status : SHELL_SIGNAL + info->si_status;
    bool by_signal = code > SHELL_SIGNAL && code <= SHELL_SIGNAL + SIGNALS_MAX;
    w->event.detail = code;
    if (w->out_of_memory) {
        w->event.end = CELL_END_OOM;
    } else if (w->state == WATCH_STARTING || w->not_run) {
        w->event.detail = 0;
        say_not_started(w);
    } else if (w->stop_asked) {
        w->event.end = CELL_END_STOPPED;
        say(w, "stopped on request%s", w->kill_sent ? ", by force" : "");
    } else if (by_signal) {
        w->event.end = CELL_END_SIGNAL;
        w->event.detail = code - SHELL_SIGNAL;
        say(w, "signal %d: %s", w->event.detail, strsignal(w->event.detail));
    } else if (code == SHELL_SIGNAL) { /* What runsc says of itself, not of the function. */
        w->event.end = CELL_END_EXIT;
        say(w, "the sandbox ended: %.200s", last_words(w));
    } else {
        w->event.end = CELL_END_EXIT;
        say(w, "exit code %d", code);
    }
}

static void on_end(struct watch *w)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)w->sandbox.pidfd, &info, WEXITED | WNOHANG) != 0 ||
        info.si_pid == 0) {
        return;
    }
    while (ear_read(w)) {
    }
    logpump_close(&w->log);
    say_memory(w);
    say_end(w, &info);
    w->event.kind = CELL_EVENT_EXITED;
    w->state = WATCH_ENDED;
}

/* ---- The loop ---- */

enum { POLL_SANDBOX, POLL_LOG, POLL_EAR, POLL_OOM, POLL_SIGNAL, POLL_LISTEN, POLL_AGENT, POLLS };

static void polls_set(const struct watch *w, struct pollfd polls[POLLS])
{
    polls[POLL_SANDBOX] = (struct pollfd){.fd = w->sandbox.pidfd, .events = POLLIN};
    polls[POLL_LOG] = (struct pollfd){.fd = logpump_poll_fd(&w->log), .events = POLLIN};
    polls[POLL_EAR] = (struct pollfd){.fd = w->sandbox.ear_fd, .events = POLLIN};
    polls[POLL_OOM] = (struct pollfd){.fd = w->oom_fd, .events = w->oom_events};
    polls[POLL_SIGNAL] = (struct pollfd){.fd = w->signal_fd, .events = POLLIN};
    int listen_fd = w->port == NULL ? -1 : w->port->listen_fd;
    int agent_fd = w->port == NULL ? -1 : w->port->agent_fd;
    polls[POLL_LISTEN] = (struct pollfd){.fd = listen_fd, .events = POLLIN};
    polls[POLL_AGENT] = (struct pollfd){.fd = agent_fd, .events = POLLIN};
}

static int timeout_ms(const struct watch *w, uint64_t now_us)
{
    uint64_t until = UINT64_MAX;
    if (w->state == WATCH_STARTING && !w->kill_sent) {
        until = w->setup_deadline_us;
    }
    if (w->kill_deadline_us != 0 && w->kill_deadline_us < until) {
        until = w->kill_deadline_us;
    }
    int ms = -1;
    if (until != UINT64_MAX) {
        ms = until > now_us ? (int)((until - now_us + US_PER_MS - 1) / US_PER_MS) : 0;
    }
    if (logpump_pauses(&w->log) && (ms < 0 || ms > LOGPUMP_PAUSE_MS)) {
        ms = LOGPUMP_PAUSE_MS;
    }
    if (w->oom_look_until_us != 0 && (ms < 0 || ms > OOM_LOOK_STEP_MS)) {
        ms = OOM_LOOK_STEP_MS;
    }
    return ms;
}

static void deadlines_check(struct watch *w, uint64_t now_us)
{
    if (w->state == WATCH_STARTING && !w->kill_sent && now_us >= w->setup_deadline_us) {
        w->too_late = true;
        kill_sandbox(w);
    }
    if (w->kill_deadline_us != 0 && now_us >= w->kill_deadline_us) {
        kill_sandbox(w);
    }
    if (w->oom_look_until_us != 0 && w->state != WATCH_ENDED) {
        oom_look(w, now_us);
    }
}

static void on_signal(struct watch *w, uint64_t now_us)
{
    struct signalfd_siginfo info;
    if (read(w->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        stop_sandbox(w, now_us);
    }
}

static void on_agent(struct watch *w, uint64_t now_us)
{
    bool stop = false;
    bool kill = false;
    agent_port_receive(w->port, &stop, &kill);
    if (stop) {
        stop_sandbox(w, now_us);
    }
    if (kill) {
        w->stop_asked = true;
        kill_sandbox(w);
    }
}

static void turn(struct watch *w, const struct pollfd polls[POLLS], uint64_t now_us)
{
    if (polls[POLL_OOM].revents != 0) {
        on_oom_event(w, now_us);
    }
    if (polls[POLL_EAR].revents != 0) {
        (void)ear_read(w);
    }
    if (polls[POLL_LOG].revents != 0) {
        (void)logpump_move(&w->log);
    }
    if (polls[POLL_SIGNAL].revents != 0) {
        on_signal(w, now_us);
    }
    if (polls[POLL_AGENT].revents != 0) {
        on_agent(w, now_us);
    }
    if (polls[POLL_LISTEN].revents != 0) {
        agent_port_accept(w->port);
    }
    if (polls[POLL_SANDBOX].revents != 0) {
        on_end(w);
    }
}

void watch_run(struct watch *w)
{
    uint64_t now_us = watch_clock_us();
    w->state = WATCH_STARTING;
    w->setup_deadline_us = now_us + (uint64_t)WATCH_SETUP_MS_MAX * US_PER_MS;
    w->oom_look_until_us = now_us + 1; /* The watch began after the sandbox did. */
    w->event.pid = (uint32_t)w->sandbox.pid;
    while (w->state != WATCH_ENDED) {
        struct pollfd polls[POLLS];
        polls_set(w, polls);
        int n = poll(polls, POLLS, timeout_ms(w, now_us));
        CHECK(n >= 0 || (errno != EINVAL && errno != EFAULT));
        now_us = watch_clock_us();
        logpump_tick(&w->log, now_us);
        if (n > 0) {
            turn(w, polls, now_us);
        }
        deadlines_check(w, now_us);
    }
    cleanup_close(&w->sandbox.pidfd);
    cleanup_close(&w->sandbox.ear_fd);
    cleanup_close(&w->oom_fd);
}

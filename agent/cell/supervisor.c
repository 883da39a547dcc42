#include "agent/cell/supervisor.h"

#include "agent/cell/sentry/sentry.h"
#include "agent/cell/walls.h"
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
    LOG_CHUNK_BYTES = 64 << 10,
    LOG_PAUSE_MS = 5,
    OOM_LOOK_MS = 1000,
    OOM_LOOK_STEP_MS = 1,
    DRAIN_BYTES_MAX = 1 << 20, /* of a pipe whose writers are dead: its capacity */
};

uint64_t clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void signal_cell(const struct supervisor *s, int signal)
{
    /* ESRCH: it has ended, and the loop is about to see it. */
    (void)syscall(SYS_pidfd_send_signal, s->cell.pidfd, signal, NULL, 0);
}

/* Process 1 takes its whole pid namespace with it. */
static void kill_cell(struct supervisor *s)
{
    signal_cell(s, SIGKILL);
    s->kill_sent = true;
    s->kill_deadline_us = 0;
}

static void stop_cell(struct supervisor *s, uint64_t now_us)
{
    if (s->stop_asked) {
        return;
    }
    s->stop_asked = true;
    if (s->state == SUPERVISOR_STARTING) {
        kill_cell(s); /* Nothing of the cell runs that could be asked. */
        return;
    }
    uint32_t stop_ms = s->spec->stop_ms != 0 ? s->spec->stop_ms : SUPERVISOR_STOP_MS_DEFAULT;
    s->kill_deadline_us = now_us + (uint64_t)stop_ms * US_PER_MS;
    signal_cell(s, SIGTERM);
}

__attribute__((format(printf, 2, 3))) static void say(struct supervisor *s, const char *format, ...)
{
    size_t used = strlen(s->event.message);
    if (used > 0 && used + 3 < sizeof s->event.message) {
        memcpy(s->event.message + used, "; ", 3);
        used += 2;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(s->event.message + used, sizeof s->event.message - used, format, args);
    va_end(args);
}

/* Starting. */

static void started(struct supervisor *s)
{
    s->state = SUPERVISOR_RUNNING;
    s->event.startup_us = clock_us() - s->born_us;
    struct cell_event event = s->event;
    event.kind = CELL_EVENT_STARTED;
    agent_port_tell(s->port, &event);
}

static void setup_failed(struct supervisor *s, const struct walls_report *report)
{
    s->event.end = CELL_END_SETUP;
    s->event.detail = report->error;
    const char *name =
        report->step < STEP_KINDS_COUNT_ ? step_name((enum step_kind)report->step) : "?";
    int size = (int)strnlen(report->path, sizeof report->path);
    say(s, "step %s%s%.*s: %s", name, size > 0 ? " " : "", size, report->path,
        strerror(report->error));
}

static void on_report(struct supervisor *s)
{
    struct {
        char bytes[1 + sizeof(struct walls_report)];
    } in;
    ssize_t size = read(s->cell.report_fd, in.bytes, sizeof in.bytes);
    if (size < 0) {
        return;
    }
    const char *at = in.bytes;
    if (size > 0 && size != sizeof(struct walls_report) && *at == WALLS_READY) {
        s->ready = true;
        at++;
        size--;
    }
    if (size == sizeof(struct walls_report)) {
        struct walls_report report;
        memcpy(&report, at, sizeof report);
        setup_failed(s, &report);
    } else if (size > 0 || (at != in.bytes)) {
        return; /* Ready: the end, or a report, follows. */
    } else if (s->ready && s->event.end != CELL_END_SETUP) {
        started(s);
    }
    (void)close(s->cell.report_fd);
    s->cell.report_fd = -1;
}

/* The log. */

static void log_refill(struct supervisor *s, uint64_t now_us)
{
    uint64_t ms = (now_us - s->log_filled_us) / US_PER_MS;
    s->log_filled_us += ms * US_PER_MS;
    int64_t more =
        ms < 1000 ? (int64_t)ms * SUPERVISOR_LOG_BYTES_PER_MS : (int64_t)SUPERVISOR_LOG_BURST_BYTES;
    s->log_budget += more;
    if (s->log_budget > SUPERVISOR_LOG_BURST_BYTES) {
        s->log_budget = SUPERVISOR_LOG_BURST_BYTES;
    }
}

/* Moves one chunk; false when there was none. */
static bool log_pump(struct supervisor *s)
{
    static uint8_t chunk[LOG_CHUNK_BYTES];
    ssize_t size = read(s->cell.log_fd, chunk, sizeof chunk);
    if (size < 0) {
        return errno == EINTR;
    }
    if (size == 0) { /* The cell closed its output; poll would say so for ever. */
        (void)close(s->cell.log_fd);
        s->cell.log_fd = -1;
        return false;
    }
    logring_write(s->log, bytes_of(chunk, (size_t)size));
    s->log_budget -= size;
    return true;
}

static void log_drain(struct supervisor *s)
{
    for (int i = 0; s->cell.log_fd >= 0 && i < DRAIN_BYTES_MAX / 4096; i++) {
        if (!log_pump(s)) {
            return;
        }
    }
}

/* Memory. */

/* The event says that the limit was hit somewhere at or above the cell's group, a moment before a
 * process is killed: the group's own counter is the proof, looked at until it moves or the moment
 * has passed. */
static void on_oom_event(struct supervisor *s, uint64_t now_us)
{
    uint64_t ignored = 0;
    if ((s->oom_events & POLLIN) != 0) {
        (void)!read(s->oom_fd, &ignored, sizeof ignored);
    } else {
        char text[512];
        (void)!pread(s->oom_fd, text, sizeof text, 0); /* Re-arms the poll of a kernfs file. */
    }
    s->oom_look_until_us = now_us + OOM_LOOK_MS * US_PER_MS;
}

static void oom_look(struct supervisor *s, uint64_t now_us)
{
    struct cgroup_counters counters;
    cgroup_count(s->cgroup, &counters);
    if (counters.oom_kills > 0) {
        s->out_of_memory = true;
        s->oom_look_until_us = 0;
        kill_cell(s);
    } else if (now_us >= s->oom_look_until_us) {
        s->oom_look_until_us = 0;
    }
}

/* The end. */

static void say_limits(struct supervisor *s)
{
    struct cgroup_counters counters;
    cgroup_count(s->cgroup, &counters);
    s->event.memory_peak_bytes = counters.memory_peak_bytes;
    s->event.pids_limit_hits = counters.pids_limit_hits;
    if (counters.oom_kills > 0 || s->out_of_memory) {
        s->out_of_memory = true;
        /* Newer kernels no longer count the hits in v1; a peak at the limit says the same. */
        bool own_limit = counters.memory_limit_hits > 0 ||
                         counters.memory_peak_bytes >= s->spec->memory_bytes / 16 * 15;
        if (own_limit) {
            say(s, "memory limit of %" PRIu64 " MiB reached", s->spec->memory_bytes >> 20);
        } else {
            say(s, "killed because the machine ran out of memory");
        }
    }
}

static void say_pids(struct supervisor *s)
{
    if (s->event.pids_limit_hits > 0) {
        say(s, "process limit of %" PRIu32 " reached %" PRIu64 " times", s->spec->pids_max,
            s->event.pids_limit_hits);
    }
}

static void say_end(struct supervisor *s, const siginfo_t *info)
{
    bool exited = info->si_code == CLD_EXITED;
    int shell_code = exited ? info->si_status : 128 + info->si_status;
    if (s->event.end == CELL_END_SETUP) {
        return; /* Said where it happened. */
    }
    if (s->out_of_memory) {
        s->event.end = CELL_END_OOM;
        s->event.detail = shell_code;
    } else if (s->state == SUPERVISOR_STARTING) {
        s->event.end = s->stop_asked ? CELL_END_STOPPED : CELL_END_SETUP;
        s->event.detail = s->stop_asked ? shell_code : 0;
        say(s, s->stop_asked ? "stopped while being set up"
                             : "step set-up: the process was killed while it built");
    } else if (s->stop_asked) {
        s->event.end = CELL_END_STOPPED;
        s->event.detail = shell_code;
        say(s, "stopped on request%s", s->kill_sent ? ", by force" : "");
    } else if (exited) {
        s->event.end = CELL_END_EXIT;
        s->event.detail = info->si_status;
        say(s, "exit code %d", info->si_status);
    } else {
        s->event.end = CELL_END_SIGNAL;
        s->event.detail = info->si_status;
        say(s, "signal %d: %s", info->si_status, strsignal(info->si_status));
    }
}

static void on_end(struct supervisor *s)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)s->cell.pidfd, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) {
        return;
    }
    if (s->state == SUPERVISOR_STARTING && s->cell.report_fd >= 0) {
        on_report(s); /* "Ready" and the end may both be there, or a report. */
        if (s->cell.report_fd >= 0) {
            on_report(s);
        }
    }
    log_drain(s);
    say_limits(s);
    say_end(s, &info);
    say_pids(s);
    s->event.kind = CELL_EVENT_EXITED;
    s->state = SUPERVISOR_ENDED;
}

/* The loop. */

/* Without its sentry the cell could do nothing more: it ends. */
static void on_sentry_end(struct supervisor *s)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)s->cell.sentry_pidfd, &info, WEXITED | WNOHANG) != 0 ||
        info.si_pid == 0) {
        return;
    }
    cleanup_close(&s->cell.sentry_pidfd);
    s->cell.sentry_pidfd = -1;
    bool exited = info.si_code == CLD_EXITED;
    if (exited && info.si_status == 0) {
        return; /* Process 1 ended before it needed one. */
    }
    struct cgroup_counters counters;
    cgroup_count(s->cgroup, &counters);
    if (!exited && info.si_status == SIGKILL && counters.oom_kills > 0) {
        s->out_of_memory = true; /* It is in the cell's group, which may be ended as a whole. */
    } else if (s->event.end != CELL_END_SETUP) {
        s->event.end = CELL_END_SETUP;
        s->event.detail = 0;
        if (exited && info.si_status >= SENTRY_EXIT_STEP) {
            say(s, "step sentry: cannot %s",
                sentry_step_name((enum sentry_step)(info.si_status - SENTRY_EXIT_STEP)));
        } else {
            say(s, "the sentry was ended by signal %d", info.si_status);
        }
    }
    kill_cell(s);
}

/* Its control groups can go only when it is gone. */
static void sentry_end(struct supervisor *s)
{
    if (s->cell.sentry_pidfd >= 0) {
        (void)kill(s->cell.sentry_pid, SIGKILL); /* Ours and not yet reaped. */
        (void)waitid(P_PIDFD, (id_t)s->cell.sentry_pidfd, &(siginfo_t){0}, WEXITED);
        cleanup_close(&s->cell.sentry_pidfd);
        s->cell.sentry_pidfd = -1;
    }
}

enum {
    POLL_CELL,
    POLL_SENTRY,
    POLL_LOG,
    POLL_REPORT,
    POLL_OOM,
    POLL_SIGNAL,
    POLL_LISTEN,
    POLL_AGENT,
    POLLS
};

static void polls_set(const struct supervisor *s, struct pollfd polls[POLLS])
{
    int log_fd = s->log_budget > 0 ? s->cell.log_fd : -1;
    polls[POLL_CELL] = (struct pollfd){.fd = s->cell.pidfd, .events = POLLIN};
    polls[POLL_SENTRY] = (struct pollfd){.fd = s->cell.sentry_pidfd, .events = POLLIN};
    polls[POLL_LOG] = (struct pollfd){.fd = log_fd, .events = POLLIN};
    polls[POLL_REPORT] = (struct pollfd){.fd = s->cell.report_fd, .events = POLLIN};
    polls[POLL_OOM] = (struct pollfd){.fd = s->oom_fd, .events = s->oom_events};
    polls[POLL_SIGNAL] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    polls[POLL_LISTEN] = (struct pollfd){.fd = s->port->listen_fd, .events = POLLIN};
    polls[POLL_AGENT] = (struct pollfd){.fd = s->port->agent_fd, .events = POLLIN};
}

static int timeout_ms(const struct supervisor *s, uint64_t now_us)
{
    uint64_t until = UINT64_MAX;
    if (s->state == SUPERVISOR_STARTING && !s->kill_sent) {
        until = s->setup_deadline_us;
    }
    if (s->kill_deadline_us != 0 && s->kill_deadline_us < until) {
        until = s->kill_deadline_us;
    }
    int ms = -1;
    if (until != UINT64_MAX) {
        ms = until > now_us ? (int)((until - now_us + US_PER_MS - 1) / US_PER_MS) : 0;
    }
    if (s->log_budget <= 0 && s->cell.log_fd >= 0 && (ms < 0 || ms > LOG_PAUSE_MS)) {
        ms = LOG_PAUSE_MS;
    }
    if (s->oom_look_until_us != 0 && (ms < 0 || ms > OOM_LOOK_STEP_MS)) {
        ms = OOM_LOOK_STEP_MS;
    }
    return ms;
}

static void deadlines_check(struct supervisor *s, uint64_t now_us)
{
    if (s->state == SUPERVISOR_STARTING && !s->kill_sent && now_us >= s->setup_deadline_us) {
        s->event.end = CELL_END_SETUP;
        s->event.detail = ETIMEDOUT;
        say(s, "step set-up: took longer than %d ms", SUPERVISOR_SETUP_MS_MAX);
        kill_cell(s);
    }
    if (s->kill_deadline_us != 0 && now_us >= s->kill_deadline_us) {
        kill_cell(s);
    }
    if (s->oom_look_until_us != 0) {
        oom_look(s, now_us);
    }
}

static void on_signal(struct supervisor *s, uint64_t now_us)
{
    struct signalfd_siginfo info;
    if (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        stop_cell(s, now_us);
    }
}

static void on_agent(struct supervisor *s, uint64_t now_us)
{
    bool stop = false;
    bool kill = false;
    agent_port_receive(s->port, &stop, &kill);
    if (stop) {
        stop_cell(s, now_us);
    }
    if (kill) {
        s->stop_asked = true;
        kill_cell(s);
    }
}

static void turn(struct supervisor *s, const struct pollfd polls[POLLS], uint64_t now_us)
{
    if (polls[POLL_OOM].revents != 0) {
        on_oom_event(s, now_us);
    }
    if (polls[POLL_REPORT].revents != 0) {
        on_report(s);
    }
    if (polls[POLL_LOG].revents != 0) {
        (void)log_pump(s);
    }
    if (polls[POLL_SIGNAL].revents != 0) {
        on_signal(s, now_us);
    }
    if (polls[POLL_AGENT].revents != 0) {
        on_agent(s, now_us);
    }
    if (polls[POLL_LISTEN].revents != 0) {
        agent_port_accept(s->port);
    }
    if (polls[POLL_CELL].revents != 0) {
        on_end(s);
    } else if (polls[POLL_SENTRY].revents != 0) {
        on_sentry_end(s);
    }
}

void supervisor_run(struct supervisor *s)
{
    uint64_t now_us = clock_us();
    s->state = SUPERVISOR_STARTING;
    s->setup_deadline_us = now_us + SUPERVISOR_SETUP_MS_MAX * US_PER_MS;
    s->log_budget = SUPERVISOR_LOG_BURST_BYTES;
    s->log_filled_us = now_us;
    s->oom_look_until_us = now_us + 1; /* The watch began after process 1 did. */
    s->event.pid = (uint32_t)s->cell.pid;
    while (s->state != SUPERVISOR_ENDED) {
        struct pollfd polls[POLLS];
        polls_set(s, polls);
        int n = poll(polls, POLLS, timeout_ms(s, now_us));
        CHECK(n >= 0 || (errno != EINVAL && errno != EFAULT));
        now_us = clock_us();
        log_refill(s, now_us);
        if (n > 0) {
            turn(s, polls, now_us);
        }
        deadlines_check(s, now_us);
    }
    sentry_end(s);
    cleanup_close(&s->cell.pidfd);
    cleanup_close(&s->cell.log_fd);
    cleanup_close(&s->cell.report_fd);
    cleanup_close(&s->oom_fd);
}

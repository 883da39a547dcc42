/* Checks one by one: a child each, and what becomes of it. */
#include "agent/canary/check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name, *what;
    void (*run)(struct check *c);
} checks[] = {
#define CHECK_ROW(function, name, what) {name, what, check_##function},
    CANARY_CHECKS(CHECK_ROW)
#undef CHECK_ROW
};

const char *canary_check_name(size_t n)
{
    return checks[n].name;
}

const char *canary_check_what(size_t n)
{
    return checks[n].what;
}

/* ---- Verdicts ---- */

__attribute__((format(printf, 3, 0))) static void judge(struct check *c, char verdict,
                                                        const char *format, va_list args)
{
    char *detail = c->outcome.detail;
    c->outcome.verdict = verdict;
    (void)vsnprintf(detail, CANARY_DETAIL_BYTES, format, args);
    for (char *at = detail; *at != '\0'; at++) {
        *at = *at >= ' ' && *at <= '~' ? *at : '?';
    }
}

#define JUDGE(c, verdict, format)                                                                  \
    do {                                                                                           \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        judge(c, verdict, format, args);                                                           \
        va_end(args);                                                                              \
    } while (0)

void check_held(struct check *c, const char *format, ...)
{
    JUDGE(c, CANARY_HELD, format);
}

void check_breached(struct check *c, const char *format, ...)
{
    JUDGE(c, CANARY_BREACHED, format);
}

void check_none(struct check *c, const char *format, ...)
{
    JUDGE(c, CANARY_NONE, format);
}

void check_refused(struct check *c, const char *what)
{
    check_held(c, "%s: %s", what, strerrorname_np(errno));
}

bool check_call(struct check *c, const char *what, long result)
{
    if (result < 0) {
        check_refused(c, what);
        return false;
    }
    check_breached(c, "%s was done", what);
    return true;
}

bool check_permission(struct check *c, const char *what, long result)
{
    if (result < 0 && (errno == EPERM || errno == EACCES || errno == ENOSYS)) {
        check_refused(c, what);
        return false;
    }
    check_breached(c, "%s was allowed (%s)", what, result < 0 ? strerrorname_np(errno) : "done");
    return true;
}

bool check_read(struct check *c, const char *path)
{
    char text[CANARY_NONCE_BYTES + 1] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        check_refused(c, "open");
        return false;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    int error = errno;
    (void)close(fd);
    if (n < 0) {
        check_held(c, "read: %s", strerrorname_np(error));
        return false;
    }
    text[n] = '\0';
    check_breached(c, "%.90s holds %s", path, text);
    return true;
}

void check_open_any(struct check *c, const char *const *paths, int flags)
{
    for (size_t i = 0; paths[i] != NULL; i++) {
        int fd = open(paths[i], flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd >= 0) {
            (void)close(fd);
            check_breached(c, "%s can be opened", paths[i]);
            return;
        }
        check_refused(c, paths[i]);
    }
}

/* ---- Children ---- */

static long now_ms(void)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static _Noreturn void child(size_t n, const struct canary_targets *t, int report_fd)
{
    const struct rlimit none = {0, 0}, small = {1 << 20, 1 << 20}, seconds = {5, 5};
    struct check c = {.targets = t,
                      .outcome = {.verdict = CANARY_NOT_RUN, .detail = "it came to no verdict"}};
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGTRAP};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        (void)signal(faults[i], SIG_DFL); /* a handler of the caller would hide the end */
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)setrlimit(RLIMIT_FSIZE, &small);
    (void)setrlimit(RLIMIT_CPU, &seconds);
    checks[n].run(&c);
    _exit(write(report_fd, &c.outcome, sizeof c.outcome) == sizeof c.outcome ? 0 : 1);
}

/* What a child that said nothing ended by. */
static void outcome_of_end(int status, struct canary_outcome *out)
{
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (sig == SIGSYS) {
        *out = (struct canary_outcome){.verdict = CANARY_HELD, .detail = "ended by SIGSYS"};
        return;
    }
    out->verdict = CANARY_NOT_RUN;
    (void)snprintf(out->detail, sizeof out->detail, "ended by %s %d", sig != 0 ? "signal" : "exit",
                   sig != 0 ? sig : WEXITSTATUS(status));
}

/* Waits for what the child says; false: it was late and is killed. */
static bool report_read(int fd, pid_t pid, struct canary_outcome *out, ssize_t *got)
{
    long until = now_ms() + CANARY_CHECK_MS;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        long left = until - now_ms();
        int ready = poll(&p, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready <= 0) {
            (void)kill(pid, SIGKILL);
            return false;
        }
        *got = read(fd, out, sizeof *out);
        return true;
    }
}

void canary_check_run(size_t n, const struct canary_targets *t, struct canary_outcome *out)
{
    int fds[2];
    *out = (struct canary_outcome){.verdict = CANARY_NOT_RUN, .detail = "cannot fork"};
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(fds[0]);
        child(n, t, fds[1]);
    }
    (void)close(fds[1]);
    if (pid > 0) {
        struct canary_outcome said;
        ssize_t got = 0;
        int status = 0;
        bool in_time = report_read(fds[0], pid, &said, &got);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        if (!in_time) {
            (void)snprintf(out->detail, sizeof out->detail, "no end within %d ms", CANARY_CHECK_MS);
        } else if (got == sizeof said) {
            said.detail[sizeof said.detail - 1] = '\0';
            *out = said;
        } else {
            outcome_of_end(status, out);
        }
    }
    (void)close(fds[0]);
}

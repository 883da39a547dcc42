#include "agent/gvisor/sandbox.h"

#include "common/check.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_NOT_RUN = 127, PATH_BYTES_MAX = 4096 };

static struct status step_fail(struct errmsg *msg, const char *step, int error)
{
    return status_fail(msg, status_from_errno(error), "step %s: %s", step, strerror(error));
}

/* Pipes between the two processes; ours are non-blocking where the loop reads them. */
struct ends {
    int ear[2];
    int log[2];
    int go[2];
};

static void ends_close(struct ends *e)
{
    int *all[] = {e->ear, e->log, e->go};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        cleanup_close(&all[i][0]);
        cleanup_close(&all[i][1]);
        all[i][0] = -1;
        all[i][1] = -1;
    }
}

static struct status ends_open(struct ends *e, struct errmsg *msg)
{
    *e = (struct ends){{-1, -1}, {-1, -1}, {-1, -1}};
    if (pipe2(e->ear, O_CLOEXEC) != 0 || pipe2(e->log, O_CLOEXEC) != 0 ||
        pipe2(e->go, O_CLOEXEC) != 0 || fcntl(e->ear[0], F_SETFL, O_NONBLOCK) != 0 ||
        fcntl(e->log[0], F_SETFL, O_NONBLOCK) != 0) {
        struct status s = step_fail(msg, "pipes", errno);
        ends_close(e);
        return s;
    }
    return status_ok();
}

/* The command line, made before the clone. */
struct command {
    char root[PATH_BYTES_MAX + 32];
    char bundle[PATH_BYTES_MAX + 32];
    char platform[CELL_PLATFORM_BYTES_MAX + 16];
    const char *args[12];
};

static struct status command_make(const struct cell_spec *spec, struct command *c,
                                  struct errmsg *msg)
{
    *c = (struct command){.args = {NULL}};
    char folder[PATH_BYTES_MAX];
    if (spec->runsc[0] == '\0' || spec->platform[0] == '\0') {
        return status_fail(msg, STATUS_INVALID, "step runsc: no program or platform is named");
    }
    if (getcwd(folder, sizeof folder) == NULL) {
        return step_fail(msg, "runsc", errno);
    }
    (void)snprintf(c->root, sizeof c->root, "--root=%s/runsc", folder);
    (void)snprintf(c->bundle, sizeof c->bundle, "--bundle=%s", folder);
    (void)snprintf(c->platform, sizeof c->platform, "--platform=%s", spec->platform);
    size_t n = 0;
    c->args[n++] = spec->runsc;
    c->args[n++] = c->root;
    c->args[n++] = c->platform;
    c->args[n++] = "--network=none";
    c->args[n++] = "--ignore-cgroups";
    c->args[n++] = "run";
    c->args[n++] = c->bundle;
    c->args[n++] = spec->instance;
    c->args[n] = NULL;
    return status_ok();
}

/* ---- In the child, up to runsc ---- */

static _Noreturn void child_fail(const char *step)
{
    (void)dprintf(STDERR_FILENO, "step %s: %s\n", step, strerror(errno));
    _exit(EXIT_NOT_RUN);
}

static void oom_score_set(void)
{
    AUTO_CLOSE int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    /* When the machine runs short, a sandbox goes before the daemons. */
    if (fd < 0 || dprintf(fd, "%d", SANDBOX_OOM_SCORE) < 0) {
        child_fail("oom_score_adj");
    }
}

static char *const runsc_env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};

static _Noreturn void runsc_exec(const char *const *args)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)close_range(STDERR_FILENO + 1, ~0U, 0);
    (void)execve(args[0], (char *const *)(uintptr_t)args, runsc_env);
    child_fail(args[0]);
}

static _Noreturn void child(struct ends *e, int channel_fd, const struct command *c)
{
    char go = 0;
    (void)close(e->ear[0]);
    (void)close(e->go[1]); /* So that a dead parent is noticed. */
    if (dup2(channel_fd, STDIN_FILENO) < 0 || dup2(e->log[1], STDOUT_FILENO) < 0 ||
        dup2(e->ear[1], STDERR_FILENO) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 ||
        read(e->go[0], &go, 1) != 1) {
        _exit(EXIT_NOT_RUN);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        child_fail("private mounts");
    }
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0) {
        child_fail("mount proc");
    }
    oom_score_set();
    runsc_exec(c->args);
}

/* ---- In the parent ---- */

static struct status cgroup_make(const struct cell_spec *spec, struct cgroup *cgroup,
                                 struct errmsg *msg)
{
    struct cgroup_mounts mounts;
    struct status s = cgroup_mounts_find(&mounts, msg);
    if (status_is_ok(s)) {
        s = cgroup_open(cgroup, &mounts, spec->cgroup, msg);
    }
    if (status_is_ok(s)) {
        const struct cgroup_limits limits = {
            .memory_bytes = spec->memory_bytes + SANDBOX_MEMORY_BYTES,
            .cpu_millis = spec->cpu_millis,
            .pids_max = spec->pids_max + SANDBOX_PROCESSES,
        };
        s = cgroup_limit(cgroup, &limits, msg);
    }
    return status_prefix(msg, s, "step cgroup");
}

static pid_t clone_sandbox(int *pidfd)
{
    struct clone_args args = {
        .flags =
            CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };
    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static struct status start(const struct command *c, struct ends *e, int channel_fd,
                           struct cgroup *cgroup, struct sandbox *out, struct errmsg *msg)
{
    int pidfd = -1;
    pid_t pid = clone_sandbox(&pidfd);
    if (pid < 0) {
        return step_fail(msg, "clone into namespaces", errno);
    }
    if (pid == 0) {
        child(e, channel_fd, c);
    }
    struct status s = status_prefix(msg, cgroup_attach(cgroup, pid, msg), "step cgroup");
    if (status_is_ok(s) && write(e->go[1], "g", 1) != 1) {
        s = step_fail(msg, "go", errno);
    }
    if (!status_is_ok(s)) {
        (void)kill(pid, SIGKILL); /* Ours and not yet reaped: the number is its own. */
        (void)waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){0}, WEXITED);
        (void)close(pidfd);
        return s;
    }
    *out = (struct sandbox){
        .pid = pid,
        .pidfd = pidfd,
        .ear_fd = fd_steal(&e->ear[0]),
        .log_fd = fd_steal(&e->log[0]),
    };
    return status_ok();
}

struct status sandbox_start(const struct cell_spec *spec, int channel_fd, struct cgroup *cgroup,
                            struct sandbox *out, struct errmsg *msg)
{
    CHECK(cgroup->count == 0);
    struct command command;
    struct ends ends;
    if (geteuid() != 0) {
        return status_fail(msg, STATUS_DENIED, "step runsc: needs root, and the agent runs as %u",
                           geteuid());
    }
    TRY(command_make(spec, &command, msg));
    TRY(ends_open(&ends, msg));
    struct status s = spec->cgroup[0] != '\0' ? cgroup_make(spec, cgroup, msg) : status_ok();
    if (status_is_ok(s)) {
        s = start(&command, &ends, channel_fd, cgroup, out, msg);
    }
    if (!status_is_ok(s)) {
        (void)cgroup_close(cgroup);
    }
    ends_close(&ends);
    return s;
}

/* Entering a pid namespace counts for children only: the second child is inside, and ends with the
 * sandbox at the latest. It has none of our limits: it is runsc, not the function. */
void sandbox_terminate(const struct sandbox *s, const struct cell_spec *spec)
{
    struct command c;
    if (!status_is_ok(command_make(spec, &c, NULL))) {
        return;
    }
    const char *const args[] = {spec->runsc, c.root, "kill", spec->instance, "TERM", NULL};
    pid_t pid = fork();
    if (pid == 0) {
        int flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
        if (setns(s->pidfd, flags) == 0 && fork() == 0) {
            runsc_exec(args);
        }
        _exit(0);
    }
    if (pid > 0) {
        (void)waitpid(pid, NULL, 0);
    }
}

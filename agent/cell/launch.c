#include "agent/cell/launch.h"

#include "agent/cell/plan.h"
#include "agent/cell/root_scan.h"
#include "agent/cell/sentry/sentry.h"
#include "agent/cell/walls.h"
#include "common/check.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTSIDE_UID_DEFAULT = 65534, CELL_OOM_SCORE = 500 };

static struct status step_fail(struct errmsg *msg, const char *step, int error)
{
    return status_fail(msg, status_from_errno(error), "step %s: %s", step, strerror(error));
}

static struct status uid_choose(const struct cell_spec *spec, uint32_t *uid, struct errmsg *msg)
{
    if (geteuid() == 0) {
        *uid = spec->uid != 0 ? spec->uid : OUTSIDE_UID_DEFAULT;
        return status_ok();
    }
    if (spec->uid != 0 && spec->uid != geteuid()) {
        return status_fail(msg, STATUS_DENIED,
                           "step user map: uid %u needs root, and skep-cell runs as %u", spec->uid,
                           geteuid());
    }
    *uid = geteuid();
    return status_ok();
}

static struct status proc_write(pid_t pid, const char *file, const char *text, struct errmsg *msg)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        return status_fail(msg, status_from_errno(errno), "step user map: %s: %s", file,
                           strerror(errno));
    }
    return status_ok();
}

static struct status maps_write(pid_t pid, uint32_t uid, struct errmsg *msg)
{
    char text[64];
    if (geteuid() != 0) {
        TRY(proc_write(pid, "setgroups", "deny", msg));
    }
    uint32_t gid = geteuid() == 0 ? uid : getegid();
    (void)snprintf(text, sizeof text, "%d %u 1\n", CELL_INSIDE_UID, gid);
    TRY(proc_write(pid, "gid_map", text, msg));
    (void)snprintf(text, sizeof text, "%d %u 1\n", CELL_INSIDE_UID, uid);
    TRY(proc_write(pid, "uid_map", text, msg));
    /* When the machine runs short, a cell goes before the daemons. */
    (void)snprintf(text, sizeof text, "%d", CELL_OOM_SCORE);
    return proc_write(pid, "oom_score_adj", text, msg);
}

static void facts_of_mounts(const struct cell_spec *spec, struct plan_facts *facts)
{
    for (size_t i = 0; i < spec->mounts_count; i++) {
        struct stat st;
        /* A source that cannot be looked at fails in its step, with its name. */
        facts->mount_is_file[i] = lstat(spec->mounts[i].source, &st) == 0 && !S_ISDIR(st.st_mode);
    }
}

static struct status cgroup_make(const struct cell_spec *spec, struct cgroup *cgroup,
                                 struct errmsg *msg)
{
    struct cgroup_mounts mounts;
    struct status s = cgroup_mounts_find(&mounts, msg);
    if (status_is_ok(s)) {
        cgroup_mounts_drop(&mounts, spec->walls_not_needed);
        s = cgroup_open(cgroup, &mounts, spec->cgroup, msg);
    }
    if (status_is_ok(s)) {
        struct cgroup_limits limits = {
            .memory_bytes = spec->memory_bytes,
            .cpu_millis = spec->cpu_millis,
            .pids_max = spec->pids_max + 1, /* the sentry is one */
            .io_bps = spec->io_bps,
            .swap_needed = (spec->walls_not_needed & WALL_BIT(CGROUP_SWAP)) == 0,
            .io_needed = (spec->walls_not_needed & WALL_BIT(CGROUP_IO)) == 0,
        };
        s = cgroup_limit(cgroup, &limits, msg);
    }
    return status_prefix(msg, s, "step cgroup");
}

/* Pipes between the two processes; ours are non-blocking where the loop reads them. */
struct ends {
    int report[2];
    int log[2];
    int go[2];
    int sentry[2]; /* process 1 sends, the sentry receives */
};

static void ends_close(struct ends *e)
{
    int *all[] = {e->report, e->log, e->go, e->sentry};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        cleanup_close(&all[i][0]);
        cleanup_close(&all[i][1]);
        all[i][0] = -1;
        all[i][1] = -1;
    }
}

static struct status ends_open(struct ends *e, struct errmsg *msg)
{
    *e = (struct ends){{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
    if (pipe2(e->report, O_CLOEXEC) != 0 || pipe2(e->log, O_CLOEXEC) != 0 ||
        pipe2(e->go, O_CLOEXEC) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, e->sentry) != 0 ||
        fcntl(e->report[0], F_SETFL, O_NONBLOCK) != 0 ||
        fcntl(e->log[0], F_SETFL, O_NONBLOCK) != 0) {
        struct status s = step_fail(msg, "pipes", errno);
        ends_close(e);
        return s;
    }
    return status_ok();
}

/* Into the network namespace made ahead, for good: it belongs to the machine's user namespace, so
 * that nothing in the cell has power over it. */
static struct status netns_enter(const struct cell_spec *spec, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(spec->netns, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) {
        return step_fail(msg, "network namespace", errno);
    }
    return status_ok();
}

static pid_t clone_cell(int *pidfd, bool has_netns)
{
    struct clone_args args = {
        .flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                 CLONE_PIDFD | (has_netns ? 0 : (uint64_t)CLONE_NEWNET),
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };
    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static void end_child(pid_t pid, int pidfd)
{
    (void)kill(pid, SIGKILL); /* Ours and not yet reaped: the number is its own. */
    (void)waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){0}, WEXITED);
    (void)close(pidfd);
}

/* ---- The sentry ---- */

static int namespace_open(pid_t pid, const char *name)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* The kernel tells the sentry the numbers that its own pid namespace has: /proc must have the same.
 */
static bool proc_is_ours(int proc_fd)
{
    char text[32];
    ssize_t size = readlinkat(proc_fd, "self", text, sizeof text - 1);
    if (size <= 0) {
        return false;
    }
    text[size] = '\0';
    return strtol(text, NULL, 10) == (long)getpid();
}

static struct status sentry_fork(const struct ends *e, pid_t cell, struct launched *out,
                                 struct errmsg *msg)
{
    AUTO_CLOSE int user_fd = namespace_open(cell, "user");
    AUTO_CLOSE int mount_fd = namespace_open(cell, "mnt");
    AUTO_CLOSE int proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (user_fd < 0 || mount_fd < 0 || proc_fd < 0) {
        return step_fail(msg, "sentry's namespaces", errno);
    }
    if (!proc_is_ours(proc_fd)) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "step sentry: /proc is of another pid namespace");
    }
    int pidfd = -1;
    struct clone_args args = {
        .flags = CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) {
        return step_fail(msg, "sentry", errno);
    }
    if (pid == 0) {
        const struct sentry_start start = {
            .socket_fd = e->sentry[0],
            .user_fd = user_fd,
            .mount_fd = mount_fd,
            .proc_fd = proc_fd,
            .log_fd = e->log[1],
            .drop_groups = geteuid() == 0,
        };
        (void)close(e->sentry[1]); /* So that the end of process 1 is seen. */
        (void)close(e->go[1]);
        sentry_run(&start);
    }
    out->sentry_pid = pid;
    out->sentry_pidfd = pidfd;
    return status_ok();
}

/* It works for the cell and is paid by it. Where the machine allows, memory that runs short takes
 * the cell first. */
static struct status sentry_attach(struct cgroup *cgroup, pid_t pid, struct errmsg *msg)
{
    if (cgroup->count > 0) {
        TRY(status_prefix(msg, cgroup_attach(cgroup, pid, msg), "step cgroup"));
    }
    (void)!status_is_ok(proc_write(pid, "oom_score_adj", "-1000", NULL));
    return status_ok();
}

/* Clones both and lets process 1 go once its maps and limits are in place. */
static struct status start(const struct walls *w, struct ends *e, uint32_t uid,
                           struct cgroup *cgroup, struct launched *out, struct errmsg *msg)
{
    int pidfd = -1;
    pid_t pid = clone_cell(&pidfd, w->has_netns);
    if (pid < 0) {
        return step_fail(msg, "clone into namespaces", errno);
    }
    if (pid == 0) {
        (void)close(e->report[0]); /* So that the child notices a dead parent. */
        (void)close(e->go[1]);
        (void)close(e->sentry[0]);
        walls_build(w);
    }
    struct launched made = {.pid = pid, .pidfd = pidfd, .sentry_pidfd = -1};
    struct status s = maps_write(pid, uid, msg);
    if (status_is_ok(s)) {
        s = status_prefix(msg, cgroup_attach(cgroup, pid, msg), "step cgroup");
    }
    if (status_is_ok(s)) {
        s = sentry_fork(e, pid, &made, msg);
    }
    if (status_is_ok(s)) {
        s = sentry_attach(cgroup, made.sentry_pid, msg);
    }
    if (status_is_ok(s) && write(e->go[1], "g", 1) != 1) {
        s = step_fail(msg, "go", errno);
    }
    if (!status_is_ok(s)) {
        end_child(pid, pidfd);
        if (made.sentry_pidfd >= 0) {
            end_child(made.sentry_pid, made.sentry_pidfd);
        }
        return s;
    }
    made.report_fd = fd_steal(&e->report[0]);
    made.log_fd = fd_steal(&e->log[0]);
    *out = made;
    return status_ok();
}

static struct status launch_planned(const struct cell_spec *spec, const struct plan *plan,
                                    int channel_fd, struct cgroup *cgroup, struct launched *out,
                                    struct errmsg *msg)
{
    uint32_t uid = 0;
    struct ends ends;
    TRY(uid_choose(spec, &uid, msg));
    TRY(ends_open(&ends, msg));
    /* /dev/stdout can be opened by whom it belongs to. */
    if (geteuid() == 0 && fchown(ends.log[1], uid, uid) != 0) {
        struct status s = step_fail(msg, "pipes", errno);
        ends_close(&ends);
        return s;
    }
    static char *no_env[] = {NULL};
    struct walls w = {
        .plan = plan,
        .args = spec->args,
        .env = spec->env != NULL ? spec->env : no_env,
        .drop_groups = geteuid() == 0,
        .has_netns = spec->netns[0] != '\0',
        .go_fd = ends.go[0],
        .report_fd = ends.report[1],
        .log_fd = ends.log[1],
        .channel_fd = channel_fd,
        .sentry_fd = ends.sentry[1],
    };
    struct status s = spec->cgroup[0] != '\0' ? cgroup_make(spec, cgroup, msg) : status_ok();
    if (status_is_ok(s) && spec->netns[0] != '\0') {
        s = netns_enter(spec, msg);
    }
    if (status_is_ok(s)) {
        s = start(&w, &ends, uid, cgroup, out, msg);
    }
    if (!status_is_ok(s)) {
        (void)cgroup_close(cgroup);
    }
    ends_close(&ends);
    return s;
}

struct status launch(const struct cell_spec *spec, int channel_fd, struct cgroup *cgroup,
                     struct launched *out, struct errmsg *msg)
{
    CHECK(cgroup->count == 0);
    struct root_scan scan;
    TRY(status_prefix(msg, root_scan(spec, &scan, msg), "step root"));
    struct plan_facts facts = {
        .entries = scan.entries,
        .entries_count = scan.count,
        .has_cgroup = spec->cgroup[0] != '\0',
        .has_netns = spec->netns[0] != '\0',
    };
    facts_of_mounts(spec, &facts);
    struct plan plan;
    struct status s = status_prefix(msg, plan_build(spec, &facts, &plan, msg), "step plan");
    if (status_is_ok(s)) {
        s = launch_planned(spec, &plan, channel_fd, cgroup, out, msg);
        plan_close(&plan);
    }
    root_scan_close(&scan);
    return s;
}

#include "agent/gvisor/probe.h"

#include "agent/gvisor/bundle.h"
#include "agent/gvisor/watch.h"
#include "common/check.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROBE_MEMORY_BYTES = 64 << 20, PROBE_LOG_BYTES = 4 << 10 };

static const struct {
    const char *name;
    const char *needs; /* a file without which it is not tried; NULL: none */
} platforms[] = {{"kvm", "/dev/kvm"}, {"systrap", NULL}, {"ptrace", NULL}};

static struct status try_run(const struct cell_spec *spec, struct errmsg *msg)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return status_fail(msg, status_from_errno(errno), "socketpair: %s", strerror(errno));
    }
    AUTO_CLOSE int ours = pair[0];
    (void)ours; /* Kept open: the other end would see its end. */
    AUTO_CLOSE int theirs = pair[1];
    struct cgroup cgroup = {0};
    struct logring ring = {0};
    struct watch w = {.spec = spec, .cgroup = &cgroup, .oom_fd = -1, .signal_fd = -1};
    TRY(logring_create(&ring, AT_FDCWD, "log", PROBE_LOG_BYTES, msg));
    struct status s = bundle_write(spec, msg);
    if (status_is_ok(s)) {
        s = sandbox_start(spec, theirs, &cgroup, &w.sandbox, msg);
    }
    if (status_is_ok(s)) {
        w.born_us = watch_clock_us();
        logpump_init(&w.log, &ring, w.sandbox.log_fd, w.born_us);
        watch_run(&w);
        bool works = w.event.startup_us != 0 && w.event.end == CELL_END_EXIT && w.event.detail == 0;
        s = works ? s : status_fail(msg, STATUS_UNSUPPORTED, "%s", w.event.message);
    }
    logring_close(&ring);
    return s;
}

static struct status try_one(const char *folder, const char *runsc, const char *platform,
                             const char *runners, const char *root, struct errmsg *msg)
{
    static struct cell_mount mount; /* large, and the program has one thread */
    static struct cell_spec spec;
    spec = (struct cell_spec){.mounts = &mount,
                              .mounts_count = 1,
                              .memory_bytes = PROBE_MEMORY_BYTES,
                              .cpu_millis = 1000,
                              .pids_max = 16,
                              .tmp_bytes = 1 << 20};
    (void)snprintf(spec.instance, sizeof spec.instance, "probe");
    (void)snprintf(spec.root, sizeof spec.root, "%s", root);
    (void)snprintf(spec.runsc, sizeof spec.runsc, "%s", runsc);
    (void)snprintf(spec.platform, sizeof spec.platform, "%s", platform);
    (void)snprintf(mount.source, sizeof mount.source, "%s", runners);
    (void)snprintf(mount.target, sizeof mount.target, "/opt/skep");
    char own[CELL_STRING_BYTES_MAX];
    (void)snprintf(own, sizeof own, "%s/%s", folder, platform);
    if ((mkdir(folder, 0700) != 0 && errno != EEXIST) || mkdir(own, 0700) != 0 || chdir(own) != 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", own, strerror(errno));
    }
    return try_run(&spec, msg);
}

struct status probe_platforms(const char *folder, const char *runsc, const char *platform,
                              const char *runners, const char *root, const char **found,
                              struct errmsg *msg)
{
    struct status s = status_fail(msg, STATUS_UNSUPPORTED, "%s: no such platform", platform);
    bool any = strcmp(platform, "auto") == 0;
    for (size_t i = 0; i < sizeof platforms / sizeof platforms[0]; i++) {
        bool wanted = any ? platforms[i].needs == NULL || access(platforms[i].needs, R_OK) == 0
                          : strcmp(platform, platforms[i].name) == 0;
        if (!wanted) {
            continue;
        }
        s = try_one(folder, runsc, platforms[i].name, runners, root, msg);
        if (status_is_ok(s)) {
            *found = platforms[i].name;
            return s;
        }
        s = status_prefix(msg, s, "%s", platforms[i].name);
    }
    return s;
}

#include "agent/egress/netns.h"

#include "common/check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

struct visit {
    int fd;
    netns_fn fn;
    void *arg;
    struct status status;
    struct errmsg msg;
};

static void *visit_run(void *data)
{
    struct visit *v = data;
    if ((v->fd >= 0 ? setns(v->fd, CLONE_NEWNET) : unshare(CLONE_NEWNET)) != 0) {
        v->status = status_fail(&v->msg, status_from_errno(errno), "network namespace: %s",
                                strerror(errno));
    } else {
        v->status = v->fn(v->arg, &v->msg);
    }
    return NULL;
}

struct status netns_run(int fd, netns_fn fn, void *arg, struct errmsg *msg)
{
    struct visit v = {.fd = fd, .fn = fn, .arg = arg};
    pthread_t thread;
    int error = pthread_create(&thread, NULL, visit_run, &v);
    if (error != 0) {
        return status_fail(msg, STATUS_NOMEM, "thread: %s", strerror(error));
    }
    error = pthread_join(thread, NULL);
    CHECK(error == 0);
    if (!status_is_ok(v.status) && msg != NULL) {
        *msg = v.msg;
    }
    return v.status;
}

static struct status bind_own(void *arg, struct errmsg *msg)
{
    const char *path = arg;
    if (mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) != 0) {
        return status_fail(msg, status_from_errno(errno), "bind %s: %s", path, strerror(errno));
    }
    return status_ok();
}

struct status netns_make(const char *path, struct errmsg *msg)
{
    int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return status_fail(msg, errno == EEXIST ? STATUS_EXISTS : status_from_errno(errno),
                           "make %s: %s", path, strerror(errno));
    }
    (void)close(fd);
    struct status s = netns_run(-1, bind_own, (void *)(uintptr_t)path, msg);
    if (!status_is_ok(s)) {
        (void)unlink(path);
    }
    return s;
}

struct status netns_open(const char *path, int *fd, struct errmsg *msg)
{
    struct statfs st;
    int got = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (got < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    if (fstatfs(got, &st) != 0 || st.f_type != NSFS_MAGIC) {
        (void)close(got);
        return status_fail(msg, STATUS_NOT_FOUND, "%s: no network namespace", path);
    }
    *fd = got;
    return status_ok();
}

struct status netns_remove(const char *path, struct errmsg *msg)
{
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT) {
        return status_fail(msg, status_from_errno(errno), "umount %s: %s", path, strerror(errno));
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return status_fail(msg, status_from_errno(errno), "remove %s: %s", path, strerror(errno));
    }
    return status_ok();
}

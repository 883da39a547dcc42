/* Opening. */
#include "agent/cell/sentry/calls.h"
#include "agent/cell/sentry/where.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As the kernel numbers it: glibc says 0, because every file is large here. */
#define KERNEL_O_LARGEFILE 0100000ULL
#define PATH_FLAGS ((uint64_t)(O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC))

/* O_SYNC has O_DSYNC in it, O_TMPFILE has O_DIRECTORY. */
static const uint64_t flags_known = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND |
                                    O_NONBLOCK | O_SYNC | O_ASYNC | O_DIRECT | O_NOFOLLOW |
                                    O_NOATIME | O_CLOEXEC | O_PATH | O_TMPFILE | KERNEL_O_LARGEFILE;

struct opening {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

static bool makes_file(const struct opening *o)
{
    return (o->flags & O_CREAT) != 0 || (o->flags & O_TMPFILE) == O_TMPFILE;
}

/* What open(2) does with flags and modes that openat2(2) would refuse. */
static struct opening opening_of(uint64_t flags, uint64_t mode)
{
    struct opening o = {.flags = flags & flags_known};
    if ((o.flags & O_PATH) != 0) {
        o.flags &= PATH_FLAGS;
    }
    o.mode = makes_file(&o) ? mode & 07777 : 0;
    return o;
}

/* 1: it is a named pipe, whose opening may have to wait; 0: it was opened as asked. Landlock, which
 * binds the cell's own calls, cannot bind the sentry (a process of one domain may not look into
 * another), so that what it says of /proc is said here too: nothing is written there. */
static int settle(const struct sentry *s, int fd, const struct opening *o)
{
    struct stat st;
    bool writes = (o->flags & O_ACCMODE) != O_RDONLY;
    if ((o->flags & O_PATH) != 0 || (!writes && (o->flags & O_NONBLOCK) != 0)) {
        return 0;
    }
    if (fstat(fd, &st) != 0) {
        return -errno;
    }
    if (writes && st.st_dev == s->proc_device) {
        return -EACCES;
    }
    if ((o->flags & O_NONBLOCK) != 0) {
        return 0;
    }
    if (S_ISFIFO(st.st_mode) && (o->flags & O_ACCMODE) != O_RDWR) {
        return 1;
    }
    return fcntl(fd, F_SETFL, (int)(o->flags & ~(uint64_t)O_NONBLOCK)) == 0 ? 0 : -errno;
}

static struct answer open_blocking(const struct where *w, const struct opening *o)
{
    return answer_fd(where_open(w, o->flags, o->mode, o->resolve), (o->flags & O_CLOEXEC) != 0);
}

static int facts_mode(const struct call *c, struct opening *o)
{
    struct guest_facts facts;
    if (!makes_file(o)) {
        return 0;
    }
    int error = guest_facts_read(&c->guest, &facts);
    o->mode &= ~(uint64_t)facts.umask;
    return error;
}

static handler reopen;

/* Nothing may make the sentry wait: opened without blocking first, and only a named pipe that has
 * to wait is opened again, by a helper. */
static struct answer open_where(struct sentry *s, const struct call *c, const struct where *w,
                                struct opening *o, bool may_wait)
{
    int error = facts_mode(c, o);
    if (error < 0) {
        return answer(error);
    }
    if (may_wait) {
        return open_blocking(w, o);
    }
    uint64_t extra = (o->flags & O_PATH) != 0 ? 0 : O_NONBLOCK | O_NOCTTY;
    int fd = where_open(w, o->flags | extra, o->mode, o->resolve);
    bool pipe_waits = fd == -ENXIO && (o->flags & O_NONBLOCK) == 0;
    if (fd >= 0) {
        int settled = settle(s, fd, o);
        if (settled != 0) {
            (void)close(fd);
            fd = settled < 0 ? settled : fd;
            pipe_waits = settled > 0;
        }
    }
    return pipe_waits ? sentry_help(s, c, reopen) : answer_fd(fd, (o->flags & O_CLOEXEC) != 0);
}

static struct answer open_at(struct sentry *s, const struct call *c, int dirfd, uint64_t path,
                             struct opening o, bool may_wait)
{
    struct where w;
    bool below = (o.resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) != 0;
    int error = below ? where_find_below(&c->guest, dirfd, path, &w)
                      : where_find(&c->guest, dirfd, path, &w);
    struct answer a = error < 0 ? answer(error) : open_where(s, c, &w, &o, may_wait);
    where_close(&w);
    return a;
}

/* The structure may be longer than the one known here, if what is unknown is zero (openat2(2)). */
static struct answer open_how(struct sentry *s, const struct call *c, bool may_wait)
{
    struct open_how how = {0};
    uint8_t more[256];
    uint64_t size = c->a[3];
    if (size < sizeof how) {
        return answer(-EINVAL);
    }
    if (size > sizeof how + sizeof more) {
        return answer(-E2BIG);
    }
    int error = guest_read(&c->guest, c->a[2], &how, sizeof how);
    if (error == 0 && size > sizeof how) {
        error = guest_read(&c->guest, c->a[2] + sizeof how, more, size - sizeof how);
    }
    for (size_t i = 0; error == 0 && i < size - sizeof how; i++) {
        error = more[i] != 0 ? -E2BIG : 0;
    }
    if (error != 0) {
        return answer(error);
    }
    const struct opening o = {.flags = how.flags, .mode = how.mode, .resolve = how.resolve};
    bool strict = (how.flags & ~flags_known) != 0 || (how.mode & ~(uint64_t)07777) != 0 ||
                  (how.mode != 0 && !makes_file(&o));
    if ((how.flags & O_PATH) != 0) {
        return answer(-ENOSYS); /* Of openat it is native: see filter_table.c. */
    }
    return strict ? answer(-EINVAL) : open_at(s, c, (int)c->a[0], c->a[1], o, may_wait);
}

static struct answer open_any(struct sentry *s, const struct call *c, bool may_wait)
{
    switch (c->number) {
#ifdef SYS_open
    case SYS_open:
        return open_at(s, c, AT_FDCWD, c->a[0], opening_of(c->a[1], c->a[2]), may_wait);
    case SYS_creat:
        return open_at(s, c, AT_FDCWD, c->a[0], opening_of(O_CREAT | O_WRONLY | O_TRUNC, c->a[1]),
                       may_wait);
#endif
    case SYS_openat2:
        return open_how(s, c, may_wait);
    default:
        return open_at(s, c, (int)c->a[0], c->a[1], opening_of(c->a[2], c->a[3]), may_wait);
    }
}

/* In a helper. */
static struct answer reopen(struct sentry *s, const struct call *c)
{
    return open_any(s, c, true);
}

struct answer call_open(struct sentry *s, const struct call *c)
{
    return open_any(s, c, false);
}

struct answer call_truncate(struct sentry *s, const struct call *c)
{
    (void)s;
    struct where w;
    int error = where_find(&c->guest, AT_FDCWD, c->a[0], &w);
    int fd = error < 0 ? error : where_open(&w, O_WRONLY | O_NONBLOCK, 0, 0);
    where_close(&w);
    if (fd < 0) {
        return answer(fd == -ENXIO ? -EINVAL : fd);
    }
    int64_t result = ftruncate(fd, (off_t)c->a[1]) == 0 ? 0 : -errno;
    (void)close(fd);
    return answer(result);
}

struct answer call_statfs(struct sentry *s, const struct call *c)
{
    (void)s;
    struct where w;
    struct statfs st;
    int error = where_find(&c->guest, AT_FDCWD, c->a[0], &w);
    int fd = error < 0 ? error : where_open(&w, O_PATH, 0, 0);
    where_close(&w);
    if (fd < 0) {
        return answer(fd);
    }
    error = fstatfs(fd, &st) == 0 ? 0 : -errno;
    (void)close(fd);
    return answer(error == 0 ? guest_write(&c->guest, c->a[1], &st, sizeof st) : error);
}

/* Asking about names. The kernel's own look-up does the work below the sentry's root, which is the
 * cell's; it follows no link of /proc but the asking process's own. */
#include "agent/cell/sentry/calls.h"
#include "agent/cell/sentry/where.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STAT_FLAGS = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH };

static void link_stat(struct stat *st, const struct where *w)
{
    st->st_mode = S_IFLNK | 0777;
    st->st_size = 0;
    st->st_nlink = 1;
    (void)w;
}

static struct answer stat_at(const struct call *c, int dirfd, uint64_t path, uint64_t out,
                             int flags)
{
    struct where w;
    struct stat st;
    if ((flags & ~STAT_FLAGS) != 0) {
        return answer(-EINVAL);
    }
    int error = where_find(&c->guest, dirfd, path, &w);
    if (error == 0 && syscall(SYS_newfstatat, w.dirfd, w.path, &st, flags) != 0) {
        error = -errno;
    }
    if (error == 0 && w.linked && (flags & AT_SYMLINK_NOFOLLOW) != 0) {
        link_stat(&st, &w);
    }
    where_close(&w);
    return answer(error == 0 ? guest_write(&c->guest, out, &st, sizeof st) : error);
}

struct answer call_stat(struct sentry *s, const struct call *c)
{
    (void)s;
    return stat_at(c, AT_FDCWD, c->a[0], c->a[1], 0);
}

struct answer call_lstat(struct sentry *s, const struct call *c)
{
    (void)s;
    return stat_at(c, AT_FDCWD, c->a[0], c->a[1], AT_SYMLINK_NOFOLLOW);
}

struct answer call_newfstatat(struct sentry *s, const struct call *c)
{
    (void)s;
    return stat_at(c, (int)c->a[0], c->a[1], c->a[2], (int)c->a[3]);
}

struct answer call_statx(struct sentry *s, const struct call *c)
{
    (void)s;
    struct where w;
    struct statx st;
    int error = where_find(&c->guest, (int)c->a[0], c->a[1], &w);
    if (error == 0 &&
        syscall(SYS_statx, w.dirfd, w.path, (int)c->a[2], (unsigned)c->a[3], &st) != 0) {
        error = -errno;
    }
    if (error == 0 && w.linked && (c->a[2] & AT_SYMLINK_NOFOLLOW) != 0) {
        st.stx_mode = S_IFLNK | 0777;
        st.stx_size = 0;
        st.stx_nlink = 1;
    }
    where_close(&w);
    return answer(error == 0 ? guest_write(&c->guest, c->a[4], &st, sizeof st) : error);
}

static struct answer access_at(const struct call *c, int dirfd, uint64_t path, int mode, int flags)
{
    struct where w;
    int error = where_find(&c->guest, dirfd, path, &w);
    if (error == 0 && syscall(SYS_faccessat2, w.dirfd, w.path, mode, flags) != 0) {
        error = -errno;
    }
    where_close(&w);
    return answer(error);
}

struct answer call_access(struct sentry *s, const struct call *c)
{
    (void)s;
    return access_at(c, AT_FDCWD, c->a[0], (int)c->a[1], 0);
}

struct answer call_faccessat(struct sentry *s, const struct call *c)
{
    (void)s;
    return access_at(c, (int)c->a[0], c->a[1], (int)c->a[2], 0);
}

struct answer call_faccessat2(struct sentry *s, const struct call *c)
{
    (void)s;
    return access_at(c, (int)c->a[0], c->a[1], (int)c->a[2], (int)c->a[3]);
}

static struct answer readlink_at(const struct call *c, int dirfd, uint64_t path, uint64_t out,
                                 int64_t size)
{
    struct where w;
    char text[GUEST_PATH_BYTES];
    if (size <= 0) {
        return answer(-EINVAL);
    }
    size_t max = (uint64_t)size < sizeof text ? (size_t)size : sizeof text;
    int64_t n = where_find(&c->guest, dirfd, path, &w);
    if (n == 0 && w.linked) {
        n = (int64_t)strlen(w.link);
        n = (uint64_t)n < max ? n : (int64_t)max;
        memcpy(text, w.link, (size_t)n);
    } else if (n == 0) {
        n = readlinkat(w.dirfd, w.path, text, max);
        n = n < 0 ? -errno : n;
    }
    where_close(&w);
    if (n > 0) {
        int error = guest_write(&c->guest, out, text, (size_t)n);
        n = error < 0 ? error : n;
    }
    return answer(n);
}

struct answer call_readlink(struct sentry *s, const struct call *c)
{
    (void)s;
    return readlink_at(c, AT_FDCWD, c->a[0], c->a[1], (int)c->a[2]);
}

struct answer call_readlinkat(struct sentry *s, const struct call *c)
{
    (void)s;
    return readlink_at(c, (int)c->a[0], c->a[1], c->a[2], (int)c->a[3]);
}

/* The call has no form with a descriptor to start from: a relative path starts from where the
 * sentry stands. */
static int watch(int fd, const struct where *w, uint32_t mask)
{
    if (w->dirfd != AT_FDCWD && fchdir(w->dirfd) != 0) {
        return -errno;
    }
    int watch = inotify_add_watch(fd, w->path, mask);
    return watch >= 0 ? watch : -errno;
}

struct answer call_inotify_add_watch(struct sentry *s, const struct call *c)
{
    (void)s;
    struct where w;
    int result = where_find(&c->guest, AT_FDCWD, c->a[1], &w);
    int fd = result < 0 ? result : guest_take_fd(&c->guest, (int)c->a[0]);
    result = fd < 0 ? fd : watch(fd, &w, (uint32_t)c->a[2]);
    if (fd >= 0) {
        (void)close(fd);
    }
    where_close(&w);
    return answer(result);
}

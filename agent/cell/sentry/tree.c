/* Changing names and what belongs to them. The sentry has the cell's user and no right to go round
 * permissions; its own umask is 0, the process's is applied here. */
#include "agent/cell/sentry/calls.h"
#include "agent/cell/sentry/where.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

enum { MODE_BITS = 07777 };

static int64_t result_of(long result)
{
    return result < 0 ? -errno : result;
}

/* What is left of a mode for something new. */
static int masked(const struct call *c, uint64_t mode, mode_t *out)
{
    struct guest_facts facts;
    int error = guest_facts_read(&c->guest, &facts);
    if (error == 0) {
        *out = (mode_t)(mode & MODE_BITS & ~(uint64_t)facts.umask);
    }
    return error;
}

static struct answer mkdir_at(const struct call *c, int dirfd, uint64_t path, uint64_t mode)
{
    struct where w;
    mode_t bits = 0;
    int64_t result = where_find(&c->guest, dirfd, path, &w);
    result = result < 0 ? result : masked(c, mode, &bits);
    result = result < 0 ? result : result_of(mkdirat(w.dirfd, w.path, bits));
    where_close(&w);
    return answer(result);
}

struct answer call_mkdir(struct sentry *s, const struct call *c)
{
    (void)s;
    return mkdir_at(c, AT_FDCWD, c->a[0], c->a[1]);
}

struct answer call_mkdirat(struct sentry *s, const struct call *c)
{
    (void)s;
    return mkdir_at(c, (int)c->a[0], c->a[1], c->a[2]);
}

static struct answer unlink_at(const struct call *c, int dirfd, uint64_t path, int flags)
{
    struct where w;
    int64_t result = where_find(&c->guest, dirfd, path, &w);
    result = result < 0 ? result : result_of(unlinkat(w.dirfd, w.path, flags));
    where_close(&w);
    return answer(result);
}

struct answer call_rmdir(struct sentry *s, const struct call *c)
{
    (void)s;
    return unlink_at(c, AT_FDCWD, c->a[0], AT_REMOVEDIR);
}

struct answer call_unlink(struct sentry *s, const struct call *c)
{
    (void)s;
    return unlink_at(c, AT_FDCWD, c->a[0], 0);
}

struct answer call_unlinkat(struct sentry *s, const struct call *c)
{
    (void)s;
    return unlink_at(c, (int)c->a[0], c->a[1], (int)c->a[2]);
}

struct name {
    int dirfd;
    uint64_t path;
};

static struct answer rename_at(const struct call *c, struct name from, struct name to,
                               unsigned flags)
{
    struct where f;
    struct where t;
    t.owned = false;
    int64_t result = where_find(&c->guest, from.dirfd, from.path, &f);
    result = result < 0 ? result : where_find(&c->guest, to.dirfd, to.path, &t);
    result = result < 0
                 ? result
                 : result_of(syscall(SYS_renameat2, f.dirfd, f.path, t.dirfd, t.path, flags));
    where_close(&f);
    where_close(&t);
    return answer(result);
}

struct answer call_rename(struct sentry *s, const struct call *c)
{
    (void)s;
    return rename_at(c, (struct name){AT_FDCWD, c->a[0]}, (struct name){AT_FDCWD, c->a[1]}, 0);
}

struct answer call_renameat(struct sentry *s, const struct call *c)
{
    (void)s;
    unsigned flags = c->number == SYS_renameat2 ? (unsigned)c->a[4] : 0;
    return rename_at(c, (struct name){(int)c->a[0], c->a[1]}, (struct name){(int)c->a[2], c->a[3]},
                     flags);
}

static struct answer link_at(const struct call *c, struct name from, struct name to, int flags)
{
    struct where f;
    struct where t;
    t.owned = false;
    if ((flags & ~AT_SYMLINK_FOLLOW) != 0) {
        return answer((flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)) != 0 ? -EINVAL : -ENOENT);
    }
    int64_t result = where_find(&c->guest, from.dirfd, from.path, &f);
    result = result < 0 ? result : where_find(&c->guest, to.dirfd, to.path, &t);
    result = result < 0 ? result : result_of(linkat(f.dirfd, f.path, t.dirfd, t.path, flags));
    where_close(&f);
    where_close(&t);
    return answer(result);
}

struct answer call_link(struct sentry *s, const struct call *c)
{
    (void)s;
    return link_at(c, (struct name){AT_FDCWD, c->a[0]}, (struct name){AT_FDCWD, c->a[1]}, 0);
}

struct answer call_linkat(struct sentry *s, const struct call *c)
{
    (void)s;
    return link_at(c, (struct name){(int)c->a[0], c->a[1]}, (struct name){(int)c->a[2], c->a[3]},
                   (int)c->a[4]);
}

static struct answer symlink_at(const struct call *c, uint64_t target, struct name at)
{
    struct where w;
    char text[GUEST_PATH_BYTES];
    w.owned = false;
    int64_t result = guest_read_path(&c->guest, target, text);
    result = result < 0 ? result : where_find(&c->guest, at.dirfd, at.path, &w);
    result = result < 0 ? result : result_of(symlinkat(text, w.dirfd, w.path));
    where_close(&w);
    return answer(result);
}

struct answer call_symlink(struct sentry *s, const struct call *c)
{
    (void)s;
    return symlink_at(c, c->a[0], (struct name){AT_FDCWD, c->a[1]});
}

struct answer call_symlinkat(struct sentry *s, const struct call *c)
{
    (void)s;
    return symlink_at(c, c->a[0], (struct name){(int)c->a[1], c->a[2]});
}

static struct answer chmod_at(const struct call *c, int dirfd, uint64_t path, uint64_t mode)
{
    struct where w;
    int64_t result = where_find(&c->guest, dirfd, path, &w);
    result =
        result < 0 ? result : result_of(syscall(SYS_fchmodat, w.dirfd, w.path, mode & MODE_BITS));
    where_close(&w);
    return answer(result);
}

struct answer call_chmod(struct sentry *s, const struct call *c)
{
    (void)s;
    return chmod_at(c, AT_FDCWD, c->a[0], c->a[1]);
}

struct answer call_fchmodat(struct sentry *s, const struct call *c)
{
    (void)s;
    return chmod_at(c, (int)c->a[0], c->a[1], c->a[2]);
}

static struct answer chown_at(const struct call *c, struct name at, uint64_t uid, uint64_t gid,
                              int flags)
{
    struct where w;
    int64_t result = where_find(&c->guest, at.dirfd, at.path, &w);
    result =
        result < 0 ? result : result_of(fchownat(w.dirfd, w.path, (uid_t)uid, (gid_t)gid, flags));
    where_close(&w);
    return answer(result);
}

struct answer call_chown(struct sentry *s, const struct call *c)
{
    (void)s;
    return chown_at(c, (struct name){AT_FDCWD, c->a[0]}, c->a[1], c->a[2], 0);
}

struct answer call_lchown(struct sentry *s, const struct call *c)
{
    (void)s;
    return chown_at(c, (struct name){AT_FDCWD, c->a[0]}, c->a[1], c->a[2], AT_SYMLINK_NOFOLLOW);
}

struct answer call_fchownat(struct sentry *s, const struct call *c)
{
    (void)s;
    return chown_at(c, (struct name){(int)c->a[0], c->a[1]}, c->a[2], c->a[3], (int)c->a[4]);
}

/* Files, named pipes and sockets; a device node is refused, as for any user. */
static struct answer mknod_at(const struct call *c, struct name at, uint64_t mode)
{
    struct where w;
    mode_t bits = 0;
    uint64_t type = mode & S_IFMT;
    if (type != 0 && type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) {
        return answer(type == S_IFCHR || type == S_IFBLK ? -EPERM : -EINVAL);
    }
    int64_t result = where_find(&c->guest, at.dirfd, at.path, &w);
    result = result < 0 ? result : masked(c, mode, &bits);
    result = result < 0 ? result : result_of(mknodat(w.dirfd, w.path, (mode_t)type | bits, 0));
    where_close(&w);
    return answer(result);
}

struct answer call_mknod(struct sentry *s, const struct call *c)
{
    (void)s;
    return mknod_at(c, (struct name){AT_FDCWD, c->a[0]}, c->a[1]);
}

struct answer call_mknodat(struct sentry *s, const struct call *c)
{
    (void)s;
    return mknod_at(c, (struct name){(int)c->a[0], c->a[1]}, c->a[2]);
}

/* ---- Times ---- */

static struct answer times_at(const struct call *c, struct name at, const struct timespec *times,
                              int flags)
{
    struct where w;
    int64_t result = where_find(&c->guest, at.dirfd, at.path, &w);
    result = result < 0 ? result : result_of(utimensat(w.dirfd, w.path, times, flags));
    where_close(&w);
    return answer(result);
}

struct answer call_utimensat(struct sentry *s, const struct call *c)
{
    (void)s;
    struct timespec times[2];
    if (c->a[2] != 0 && guest_read(&c->guest, c->a[2], times, sizeof times) < 0) {
        return answer(-EFAULT);
    }
    return times_at(c, (struct name){(int)c->a[0], c->a[1]}, c->a[2] != 0 ? times : NULL,
                    (int)c->a[3]);
}

static struct answer utimes_at(const struct call *c, struct name at, uint64_t address)
{
    struct timeval given[2];
    struct timespec times[2];
    if (address == 0) {
        return times_at(c, at, NULL, 0);
    }
    if (guest_read(&c->guest, address, given, sizeof given) < 0) {
        return answer(-EFAULT);
    }
    for (size_t i = 0; i < 2; i++) {
        if (given[i].tv_usec < 0 || given[i].tv_usec >= 1000000) {
            return answer(-EINVAL);
        }
        times[i] = (struct timespec){.tv_sec = given[i].tv_sec, .tv_nsec = given[i].tv_usec * 1000};
    }
    return times_at(c, at, times, 0);
}

struct answer call_utimes(struct sentry *s, const struct call *c)
{
    (void)s;
    return utimes_at(c, (struct name){AT_FDCWD, c->a[0]}, c->a[1]);
}

struct answer call_futimesat(struct sentry *s, const struct call *c)
{
    (void)s;
    return c->a[1] == 0 ? answer(-EFAULT)
                        : utimes_at(c, (struct name){(int)c->a[0], c->a[1]}, c->a[2]);
}

struct answer call_utime(struct sentry *s, const struct call *c)
{
    (void)s;
    struct utimbuf given;
    if (c->a[1] == 0) {
        return times_at(c, (struct name){AT_FDCWD, c->a[0]}, NULL, 0);
    }
    if (guest_read(&c->guest, c->a[1], &given, sizeof given) < 0) {
        return answer(-EFAULT);
    }
    const struct timespec times[2] = {{.tv_sec = given.actime}, {.tv_sec = given.modtime}};
    return times_at(c, (struct name){AT_FDCWD, c->a[0]}, times, 0);
}

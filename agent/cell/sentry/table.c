/* Which handler does which system call. */
#include "agent/cell/sentry/calls.h"

#include <sys/syscall.h>

static handler *const handlers[] = {
    [SYS_openat] = call_open,
    [SYS_openat2] = call_open,
    [SYS_truncate] = call_truncate,
    [SYS_statfs] = call_statfs,
    [SYS_newfstatat] = call_newfstatat,
    [SYS_statx] = call_statx,
    [SYS_faccessat] = call_faccessat,
    [SYS_faccessat2] = call_faccessat2,
    [SYS_readlinkat] = call_readlinkat,
    [SYS_mkdirat] = call_mkdirat,
    [SYS_unlinkat] = call_unlinkat,
    [SYS_renameat] = call_renameat,
    [SYS_renameat2] = call_renameat,
    [SYS_linkat] = call_linkat,
    [SYS_symlinkat] = call_symlinkat,
    [SYS_fchmodat] = call_fchmodat,
    [SYS_fchownat] = call_fchownat,
    [SYS_mknodat] = call_mknodat,
    [SYS_utimensat] = call_utimensat,
    [SYS_inotify_add_watch] = call_inotify_add_watch,
    [SYS_connect] = call_connect,
    [SYS_bind] = call_bind,
    [SYS_sendto] = call_sendto,
    [SYS_open] = call_open,
    [SYS_creat] = call_open,
    [SYS_stat] = call_stat,
    [SYS_lstat] = call_lstat,
    [SYS_access] = call_access,
    [SYS_readlink] = call_readlink,
    [SYS_mkdir] = call_mkdir,
    [SYS_rmdir] = call_rmdir,
    [SYS_unlink] = call_unlink,
    [SYS_rename] = call_rename,
    [SYS_link] = call_link,
    [SYS_symlink] = call_symlink,
    [SYS_chmod] = call_chmod,
    [SYS_chown] = call_chown,
    [SYS_lchown] = call_lchown,
    [SYS_mknod] = call_mknod,
    [SYS_utime] = call_utime,
    [SYS_utimes] = call_utimes,
    [SYS_futimesat] = call_futimesat,
};

handler *call_handler(int number)
{
    return number >= 0 && (size_t)number < sizeof handlers / sizeof handlers[0] ? handlers[number]
                                                                                : NULL;
}

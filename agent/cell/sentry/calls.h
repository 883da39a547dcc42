/* The system calls that the sentry does on behalf of its cell: private to the sentry.
 *
 * A handler answers 0 or a positive value, a negative errno, or what answer_fd and answer_later
 * give.
 *
 * Thread: the sentry's only one. */
#ifndef AGENT_CELL_SENTRY_CALLS_H
#define AGENT_CELL_SENTRY_CALLS_H

#include "agent/cell/sentry/guest.h"

#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { SENTRY_WAITS_MAX = 64, SENTRY_HELPERS_MAX = 16 };

struct call {
    uint64_t id;
    struct guest guest;
    int number;
    const uint64_t *a;
};

struct answer {
    int64_t value;   /* 0 and more: the result; less: a negative errno */
    int fd;          /* >= 0: is put into the process, its number there is the result */
    bool fd_cloexec; /* there */
    bool later;      /* somebody else answers */
};

/* A connection that is being made. */
struct wait {
    uint64_t id;
    int fd;
    bool retry; /* no event tells: tried again every few milliseconds */
    struct sockaddr_storage address;
    socklen_t size;
};

/* A child that does a call that blocks. */
struct helper {
    uint64_t id;
    int pidfd;
};

struct sentry {
    int listener;
    int proc_fd;
    int log_fd;
    dev_t proc_device; /* the cell's own /proc */
    struct wait waits[SENTRY_WAITS_MAX];
    size_t waits_count;
    struct helper helpers[SENTRY_HELPERS_MAX];
    size_t helpers_count;
    uint64_t told[8]; /* one bit a system call: its first refusal is in the log */
};

typedef __typeof__(struct answer(struct sentry *, const struct call *)) handler;

static inline struct answer answer(int64_t value)
{
    return (struct answer){.value = value, .fd = -1};
}

/* fd is a descriptor of the sentry, owned by the answer, or a negative errno. */
static inline struct answer answer_fd(int fd, bool cloexec)
{
    return fd < 0 ? answer(fd) : (struct answer){.fd = fd, .fd_cloexec = cloexec};
}

static inline struct answer answer_later(void)
{
    return (struct answer){.fd = -1, .later = true};
}

/* The handler of a system call; NULL: none. */
handler *call_handler(int number);

/* files.c */
handler call_open, call_truncate, call_statfs;
/* looks.c */
handler call_stat, call_lstat, call_newfstatat, call_statx, call_access, call_faccessat,
    call_faccessat2, call_readlink, call_readlinkat, call_inotify_add_watch;
/* tree.c */
handler call_mkdir, call_mkdirat, call_rmdir, call_unlink, call_unlinkat, call_rename,
    call_renameat, call_link, call_linkat, call_symlink, call_symlinkat, call_chmod, call_fchmodat,
    call_chown, call_lchown, call_fchownat, call_mknod, call_mknodat, call_utime, call_utimes,
    call_utimensat, call_futimesat;
/* sockets.c */
handler call_connect, call_bind, call_sendto;

/* ---- sentry.c ---- */
/* Sends the answer and lets go of its descriptor. */
void sentry_answer(struct sentry *s, uint64_t id, struct answer a);
/* Does the call in a child: run is called there, and its answer is sent from there. */
struct answer sentry_help(struct sentry *s, const struct call *c, handler *run);
/* Goes on with the connection of w->fd (taken over), until it is made. */
struct answer sentry_wait(struct sentry *s, const struct wait *w);
/* One step of a wait: 0, a negative errno, or -EINPROGRESS. sockets.c */
int wait_step(struct wait *w);

#endif

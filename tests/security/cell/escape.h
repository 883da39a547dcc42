/* The escape suite: a table of attempts to get out of a cell, made by one static program
 * (escape_guest) inside a cell and, as a plain child process of the test, outside. An attempt that
 * fails inside is worth something only when it is seen to succeed outside; a row that cannot be
 * shown there says why.
 *
 * Outside every attempt runs as root in a process of its own with fresh mount and UTS namespaces
 * and, unless the row keeps it, a network namespace without a route. What would harm the machine
 * is made with an argument that the kernel refuses only after it has granted the permission. */
#ifndef TESTS_SECURITY_CELL_ESCAPE_H
#define TESTS_SECURITY_CELL_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

enum attempt_flags {
    KEEP_NET = 1,    /* reaches for the bait's sockets: the machine's network namespace */
    KEEP_NS = 2,     /* no namespaces at all */
    MAY_LACK = 4,    /* this machine may not have it: ENOSYS, ENOENT and the like are no failure */
    SAME = 8,        /* must be answered with the same errno inside and outside */
    SOLO = 16,       /* ends its cell, or may: has a cell of its own */
    AS_USER = 32,    /* outside as user 65534, to whom the thing is forbidden otherwise */
    HARMFUL = 64,    /* never made outside; `why` says why */
    ONLY_HERE = 128, /* not made outside: there is nothing there that it could hit (`why`) */
    MAY_DENY = 256,  /* this machine's root may not either (a container's, without some power) */
};

struct attempt {
    const char *name;
    const char *reference; /* CVE or class */
    /* >= 0: got out; -1: refused, errno says how. */
    long (*run)(const struct attempt *a);
    const char *path;
    long a;
    long b;
    unsigned flags;
    const char *why;
};

/* Each list ends with a row without a name. */
extern const struct attempt attempts_calls[];
extern const struct attempt attempts_paths[];
extern const struct attempt attempts_reach[];
extern const struct attempt attempts_sentry[];

/* What the test laid out on the host, from the environment; the same names inside and outside. */
struct bait {
    const char *folder; /* holds `secret`, `socket`; not in the cell */
    const char *app;    /* the code folder: /app inside, the same folder outside */
    const char *tmp;    /* a writable folder */
    long pid;           /* of the bait process */
    long port;          /* TCP on 127.0.0.1 */
    long key;           /* System V keys, and the POSIX queue /skep-bait-KEY */
};
extern struct bait bait;

enum { BAIT_SECRET_BYTES = 8 };
/* "secret\n": at the same address in the bait process, which is the same static program. */
extern char bait_secret[BAIT_SECRET_BYTES];

/* 0 when result is a success, or when errno is one of the two: the permission was granted. */
long passed(long result, int errno1, int errno2);
/* snprintf into one of four static buffers. */
const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* -1 with that errno. */
long refused(int error);
/* Opens; a success is closed again. */
long try_open(const char *path, int flags);
/* Runs the call in a child: its result (0 or an errno), -1 with EINTR when a signal ended it. */
long in_child(long (*call)(const void *), const void *argument);

#endif

/* A path that a process of the cell named, as something the sentry can act on: a descriptor to
 * start from and a path below it.
 *
 * The sentry's root is the cell's, so an absolute path is looked up as it is. What /proc/self means
 * depends on who asks: such paths are translated to the asking process before the look-up.
 * /proc/self/fd/N, exe, cwd and root (and /dev/fd/N, /dev/stdin...) become the machine's own entry
 * of that process, the only links of that kind that are followed (`magic`).
 *
 * Thread: the sentry's only one. */
#ifndef AGENT_CELL_SENTRY_WHERE_H
#define AGENT_CELL_SENTRY_WHERE_H

#include "agent/cell/sentry/guest.h"

#include <stdbool.h>

enum { WHERE_TEXT_BYTES = GUEST_PATH_BYTES + 64 };

struct where {
    int dirfd; /* or AT_FDCWD, when the path is absolute */
    bool owned;
    bool magic;  /* the path's end is a link of the machine's /proc that is to be followed */
    bool linked; /* the path named a link of /proc itself: link is its text */
    char link[32];
    char path[WHERE_TEXT_BYTES];
};

/* Reads the path at address, relative to the process's dirfd. An empty path is no error here. 0 or
 * a negative errno; *w must be closed in any case. */
int where_find(const struct guest *g, int dirfd, uint64_t address, struct where *w);
/* Without any translation: for look-ups that a process confines to dirfd by itself. */
int where_find_below(const struct guest *g, int dirfd, uint64_t address, struct where *w);
void where_close(struct where *w);
/* Opens it with flags, mode and openat2's resolve: a descriptor or a negative errno. */
int where_open(const struct where *w, uint64_t flags, uint64_t mode, uint64_t resolve);

/* What an absolute path has to do with /proc/self, told from its text alone. */
enum where_kind {
    WHERE_PLAIN,
    WHERE_SELF, /* /proc/self[/rest], or a number's fd, exe, cwd, root: rest follows the name */
    WHERE_THREAD,
    WHERE_OWN_FD, /* /dev/fd, /dev/stdin...: rest is "fd/0[/...]" */
};
struct where_parts {
    enum where_kind kind;
    long number; /* SELF that was asked for by number, 0: as "self" */
    char rest[WHERE_TEXT_BYTES];
};
/* Pure. */
void where_parts_of(const char *path, struct where_parts *out);

#endif

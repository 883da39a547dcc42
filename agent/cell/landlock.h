/* Landlock, the kernel's rules about files that a process puts on itself and its children
 * (landlock(7)): the second wall in front of the guest's files, and what is common with skep-cell's
 * own rules (confine.c).
 *
 * The constants and the ruleset are written down here: those of the machine we are built on may be
 * older than the kernel we run on.
 *
 * Thread: the caller's, which is the one that the rules bind. */
#ifndef AGENT_CELL_LANDLOCK_H
#define AGENT_CELL_LANDLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* What may be done below a path; the version of the interface that brought it is in
 * landlock.c. */
enum landlock_right {
    LANDLOCK_EXECUTE = 1 << 0,
    LANDLOCK_WRITE_FILE = 1 << 1,
    LANDLOCK_READ_FILE = 1 << 2,
    LANDLOCK_READ_DIR = 1 << 3,
    LANDLOCK_REMOVE_DIR = 1 << 4,
    LANDLOCK_REMOVE_FILE = 1 << 5,
    LANDLOCK_MAKE_CHAR = 1 << 6,
    LANDLOCK_MAKE_DIR = 1 << 7,
    LANDLOCK_MAKE_REG = 1 << 8,
    LANDLOCK_MAKE_SOCK = 1 << 9,
    LANDLOCK_MAKE_FIFO = 1 << 10,
    LANDLOCK_MAKE_BLOCK = 1 << 11,
    LANDLOCK_MAKE_SYM = 1 << 12,
    LANDLOCK_REFER = 1 << 13, /* rename and link between folders */
    LANDLOCK_TRUNCATE = 1 << 14,
    LANDLOCK_IOCTL_DEV = 1 << 15,
};

/* The version of the kernel's interface, 0: it has none or it is switched off. */
int landlock_abi(void);

/* The rights that a ruleset of this version knows, and so refuses where it does not grant them. */
uint64_t landlock_rights(int abi);

/* A ruleset that refuses all of `rights`, which the version knows, and, with `scoped` and where the
 * version can, signals and abstract sockets to and of processes outside. -1 and errno on failure;
 * the caller owns the descriptor, which is CLOEXEC. */
int landlock_open(int abi, uint64_t rights, bool scoped);
/* Grants rights below what fd is of. A file takes only rights of files. False and errno. */
bool landlock_allow(int ruleset, int fd, uint64_t rights);
/* Binds the calling thread and what it will start. It must have no_new_privs. False and errno. */
bool landlock_enter(int ruleset);

/* The guest's rules, in the finished root of a cell: read everywhere; execute everywhere but below
 * /dev, /proc and /tmp; write, and make anything but device nodes, below /tmp and /dev/shm; write
 * to device nodes in /dev; nothing written in /proc. 0 or an errno, ENOSYS where the kernel has
 * no Landlock. */
int landlock_guest(void);

#endif

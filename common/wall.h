/* The walls of a cell: the one table of what they are called, what each is for, how the agent
 * finds out at its start that the machine can build it (agent/cell/walls_probe.h), and whether an
 * operator may do without it: `cells.walls_not_needed` in the agent's configuration.
 *
 * A wall that is named there is not built and not probed. Any other that cannot be built is an
 * error, of the agent's start and of the cell's.
 *
 * docs/security.md has the table for people; a test compares them.
 *
 * Thread: any; no state. */
#ifndef COMMON_WALL_H
#define COMMON_WALL_H

#include "common/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One row a wall: name; name in configurations; may it be named as not needed; what it is for; how
 * it is probed. Without pid, mount or seccomp there would be no cell at all: those that every other
 * wall leans on are always needed. */
#define WALLS(X)                                                                                   \
    X(USER_NAMESPACE, "user_namespace", false,                                                     \
      "the cell's user is no user of the machine, and root nowhere",                               \
      "a user namespace is made, its one user mapped and taken")                                   \
    X(MOUNT_NAMESPACE, "mount_namespace", false, "a file tree of its own",                         \
      "a mount namespace is made and detached from the machine's")                                 \
    X(PID_NAMESPACE, "pid_namespace", false, "no process of others has a number inside",           \
      "a pid namespace is made and a process started in it")                                       \
    X(NET_NAMESPACE, "net_namespace", false, "no interface but those given to it",                 \
      "a network namespace is made and its loopback set up")                                       \
    X(IPC_NAMESPACE, "ipc_namespace", false, "System V and POSIX queues of its own",               \
      "an IPC namespace is made")                                                                  \
    X(UTS_NAMESPACE, "uts_namespace", false, "a host name of its own",                             \
      "a UTS namespace is made and its name set")                                                  \
    X(CGROUP_NAMESPACE, "cgroup_namespace", true, "the groups of others have no name inside",      \
      "a cgroup namespace is made")                                                                \
    X(CAPABILITIES, "capabilities", false, "no capability, not even over its own namespaces",      \
      "all are dropped, bounding set included, and read back as none")                             \
    X(NO_NEW_PRIVS, "no_new_privs", false, "no program gives privileges by being started",         \
      "the flag is set and read back")                                                             \
    X(SECCOMP, "seccomp", false, "system calls: native, mediated by the sentry, or refused",       \
      "a filter with a listener is installed and refuses a call")                                  \
    X(LANDLOCK, "landlock", true, "files once more: nothing is written but below /tmp and /dev",   \
      "a ruleset is entered and refuses to read a folder")                                         \
    X(READ_ONLY_ROOT, "read_only_root", false, "nothing of the tree can be changed",               \
      "a tree is made read-only and refuses a folder")                                             \
    X(TMPFS_LIMITS, "tmpfs_limits", false, "/tmp and /dev/shm have a size, and hold no programs",  \
      "one of a page is filled")                                                                   \
    X(MASKED_PROC, "masked_proc", false, "/proc has the cell's own processes and nothing else",    \
      "it is mounted with subset=pid, and has no /proc/sys")                                       \
    X(RLIMITS, "rlimits", false, "what one process may hold: files, locked memory, queues ...",    \
      "a limit is set and refuses a descriptor")                                                   \
    X(CGROUP_MEMORY, "cgroup_memory", true, "memory of the whole cell",                            \
      "a group is made and limited")                                                               \
    X(CGROUP_SWAP, "cgroup_swap", true, "its memory does not flow over into swap",                 \
      "the group's swap is limited")                                                               \
    X(CGROUP_CPU, "cgroup_cpu", true, "processor time: a quota, and a weight below it",            \
      "a group is made, limited and weighed")                                                      \
    X(CGROUP_PIDS, "cgroup_pids", true, "how many processes and threads",                          \
      "a group is made and "                                                                       \
      "limited")                                                                                   \
    X(CGROUP_IO, "cgroup_io", true,                                                                \
      "disks: a weight where the kernel has one, cells.io_bps "                                    \
      "where it is set",                                                                           \
      "a group is made and given them")

enum wall {
#define WALL_ENUM_ROW(id, name, excusable, purpose, probe) WALL_##id,
    WALLS(WALL_ENUM_ROW)
#undef WALL_ENUM_ROW
        WALLS_COUNT_,
};

/* Bits of walls: 1 << enum wall. */
typedef uint32_t wall_set;
#define WALL_BIT(id) (UINT32_C(1) << WALL_##id)
#define WALLS_CGROUP                                                                               \
    (WALL_BIT(CGROUP_MEMORY) | WALL_BIT(CGROUP_SWAP) | WALL_BIT(CGROUP_CPU) |                      \
     WALL_BIT(CGROUP_PIDS) | WALL_BIT(CGROUP_IO))

struct wall_row {
    const char *name;
    bool excusable;
    const char *purpose;
    const char *probe;
};

/* CHECKs its range. */
const struct wall_row *wall_row(enum wall wall);

/* The wall of that name. NOT_FOUND for an unknown one, DENIED for one that is always needed; the
 * message says what may be named. */
NODISCARD struct status wall_find_excusable(const char *name, enum wall *out, struct errmsg *msg);

enum { WALLS_TEXT_BYTES = 512 };
/* "landlock, cgroup_io"; "" for none. */
void walls_format(wall_set walls, char out[WALLS_TEXT_BYTES]);

#endif

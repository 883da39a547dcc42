/* The control group of one cell, on machines with cgroup v1, v2 or both (hybrid). The machine's
 * mounts are found, never changed; groups are made below them and removed again.
 *
 * Controllers used: memory, cpu, pids, io (v1: blkio), and cpuacct for reading (v2 has its figures
 * in cpu.stat).
 * Sources: cgroups(7), the kernel's admin-guide/cgroup-v1/memory.rst and admin-guide/cgroup-v2.rst.
 *
 * Thread: the owner's. */
#ifndef AGENT_CELL_CGROUP_H
#define AGENT_CELL_CGROUP_H

#include "common/status.h"
#include "common/wall.h"

#include <stdint.h>
#include <sys/types.h>

enum cgroup_controller {
    CGROUP_MEMORY,
    CGROUP_CPU,
    CGROUP_PIDS,
    CGROUP_CPUACCT,
    CGROUP_IO,
    CGROUP_CONTROLLERS_COUNT_,
};

enum { CGROUP_MOUNT_BYTES_MAX = 256, CGROUP_PATH_BYTES_MAX = 4096 };

/* Where each controller is mounted; an empty path: it is not. */
struct cgroup_mounts {
    struct cgroup_mount {
        char path[CGROUP_MOUNT_BYTES_MAX];
        bool v2;
    } of[CGROUP_CONTROLLERS_COUNT_];
    char v2[CGROUP_MOUNT_BYTES_MAX]; /* of the unified hierarchy, empty when there is none */
    /* bits of enum cgroup_controller that are not used although they may be here */
    unsigned dropped;
};

/* Reads the v1 controllers and the place of the v2 hierarchy out of the text of /proc/PID/mountinfo
 * (proc(5)). Lines that are not understood are skipped. */
void cgroup_mounts_parse(const char *mountinfo, struct cgroup_mounts *out);
/* Gives the controllers named in the text of the v2 root's cgroup.controllers to v2, where v1 lacks
 * them. */
void cgroup_mounts_add_v2(struct cgroup_mounts *mounts, const char *controllers);
/* Both, from this machine's files. IO; UNSUPPORTED when there is no cgroup mount at all. */
NODISCARD struct status cgroup_mounts_find(struct cgroup_mounts *out, struct errmsg *msg);

/* Forgets the controllers of walls that are not needed: groups are made without them. */
void cgroup_mounts_drop(struct cgroup_mounts *mounts, wall_set walls_not_needed);

struct cgroup_limits {
    uint64_t memory_bytes;
    uint32_t cpu_millis; /* the quota, and the weight where processors are short */
    uint32_t pids_max;
    uint64_t io_bps; /* from and to each disk, 0: no limit */
    /* The memory limit must hold for swap too: UNSUPPORTED where the kernel does not count it.
     * Without: where it does, swap is limited all the same. */
    bool swap_needed;
    bool io_needed; /* UNSUPPORTED where there is no io controller */
};

struct cgroup_place {
    char dir[CGROUP_MOUNT_BYTES_MAX + CGROUP_PATH_BYTES_MAX];
    size_t parents_made_at; /* length of the shortest parent we made; 0: none */
    int fd;
    bool v2;
    unsigned controllers; /* bits of enum cgroup_controller */
};

/* All zeros is a valid empty one, on which every call below does nothing. */
struct cgroup {
    struct cgroup_place places[CGROUP_CONTROLLERS_COUNT_];
    size_t count;
};

/* Makes the group `path` (relative, plain) below every controller's mount, parents too. An empty
 * group of that name is replaced. UNSUPPORTED when memory, cpu or pids is neither mounted nor
 * dropped; CONFLICT
 * when the group is in use; DENIED, IO. Nothing is left on failure. */
NODISCARD struct status cgroup_open(struct cgroup *g, const struct cgroup_mounts *mounts,
                                    const char *path, struct errmsg *msg);
/* Sets all limits; the message names the file that refused. */
NODISCARD struct status cgroup_limit(struct cgroup *g, const struct cgroup_limits *limits,
                                     struct errmsg *msg);
/* Moves the process into the group of every controller. */
NODISCARD struct status cgroup_attach(struct cgroup *g, pid_t pid, struct errmsg *msg);

/* A descriptor that polls with `events` (poll(2)) when the memory limit was hit: an eventfd (v1) or
 * memory.events (v2). -1 and OK for an empty group. The caller owns it and reads it after each
 * event. */
NODISCARD struct status cgroup_watch_oom(struct cgroup *g, int *fd, short *events,
                                         struct errmsg *msg);

struct cgroup_counters {
    uint64_t oom_kills; /* of its processes, by whatever shortage */
    uint64_t memory_limit_hits;
    uint64_t pids_limit_hits;
    uint64_t memory_peak_bytes;
};
/* What cannot be read stays 0. */
void cgroup_count(const struct cgroup *g, struct cgroup_counters *out);

/* True when removing what was made needs CAP_DAC_OVERRIDE even for root: the top folder of a v1
 * hierarchy is writable for nobody. */
bool cgroup_close_needs_override(const struct cgroup *g);

/* Removes the group and the parents that cgroup_open made and that are empty. The last process may
 * have ended a moment ago: waits for the kernel up to CGROUP_CLOSE_MS_MAX. Returns false when
 * something stays. Safe on zeroed memory and twice. */
enum { CGROUP_CLOSE_MS_MAX = 2000 };
bool cgroup_close(struct cgroup *g);

/* Removes an empty group by its path, for the agent's sweep after a skep-cell that was killed. OK
 * when it is not there; CONFLICT while processes or groups are in it. */
NODISCARD struct status cgroup_remove(const struct cgroup_mounts *mounts, const char *path,
                                      struct errmsg *msg);

#endif

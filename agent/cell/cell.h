/* The contract between skep-agent and skep-cell: the specification the agent writes, the socket
 * they talk on, and the exit report.
 *
 * The agent starts `skep-cell FOLDER [FD]` (cell_start in cell_client.h; never fork in the agent)
 * in a new session; FOLDER is the instance's, mode 0700:
 *
 *     spec.json  written by the agent before the start (decoded by cell_spec_decode, bounded)
 *     cell.pid   written by skep-cell: "PID STARTTIME", its own; the start time is field 22 of
 *                /proc/PID/stat, so that a reused pid is not mistaken
 *     cell.sock  SOCK_SEQPACKET listener of skep-cell; one agent at a time is served, a new
 *                connection replaces the old one
 *     log        the bounded log ring (logring.h), written by skep-cell from the cell's stdout and
 *                stderr, read by anyone
 *     exit.json  written once, atomically, when the cell has ended: what ended it and which limit,
 *                if one
 *
 * FD, when given, is an inherited SOCK_SEQPACKET descriptor that skep-cell serves as if it had been
 * accepted on cell.sock: the agent that starts a cell has its connection from the first instant on
 * and need not wait for cell.sock to appear.
 *
 * On each connection skep-cell sends one CELL_HELLO packet (one byte) whose ancillary data holds a
 * duplicate of the agent's end of the runner channel (the other end is the runner's fd 3).
 * skep-cell keeps its own duplicate, so the runner sees no end of file when the agent dies, and a
 * restarted agent goes on with the same channel. The runner channel is SOCK_SEQPACKET: see
 * common/runner_protocol.h.
 *
 * Packets agent -> cell: one byte. CELL_STOP: SIGTERM to the runner, SIGKILL after stop_ms.
 * CELL_KILL: SIGKILL now. SIGTERM to skep-cell itself means CELL_STOP.
 *
 * Packets cell -> agent: struct cell_event, fixed size. CELL_EVENT_STARTED {pid, startup_us}, sent
 * on every connection once process 1 runs; CELL_EVENT_EXITED {see exit.json's fields}, sent after
 * exit.json is in place.
 *
 * The cell's process ends when its pid namespace is empty; it removes its cgroup first, and
 * leaves FOLDER to the agent. Exit code 0: the cell ran, whatever ended it; 1: a wall could not be
 * built (CELL_END_SETUP); 2: wrong usage.
 *
 * When skep-cell itself is killed the whole cell dies with it; then there is no exit.json and the
 * cgroup stays: cgroup_remove (cgroup.h) is for that sweep. */
#ifndef AGENT_CELL_CELL_H
#define AGENT_CELL_CELL_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/status.h"
#include "common/wall.h"

#include <stdint.h>

enum {
    CELL_ARGS_MAX = 64,
    CELL_ENV_MAX = 128,
    CELL_STRING_BYTES_MAX = 4096,
    CELL_PLATFORM_BYTES_MAX = 16,
    CELL_MOUNTS_MAX = 128,
    CELL_DEVICES_MAX = 96,
    CELL_SPEC_BYTES_MAX = 256 << 10,
    CELL_LOG_BYTES_DEFAULT = 1 << 20,
    CELL_MEMORY_BYTES_MIN = 4 << 20,
    CELL_CPU_MILLIS_MIN = 10, /* the kernel takes no quota below 1 ms */
    CELL_IO_BPS_MIN = 64 << 10,
};

/* A host path bound read-only into the cell, a file or a folder. */
struct cell_mount {
    char source[CELL_STRING_BYTES_MAX];
    char target[CELL_STRING_BYTES_MAX]; /* absolute, inside the cell */
};

struct cell_spec {
    char instance[ID_STRING_BYTES];
    char hostname[NAME_BYTES_MAX + 1];
    /* The root: a folder bound read-only, or empty: a skeleton made of read-only binds of the
     * host's /usr (and /lib, /lib64, /bin links), which is the image `host` of the first form. */
    char root[CELL_STRING_BYTES_MAX];
    struct cell_mount *mounts; /* code at /app, runners at /opt/skep */
    size_t mounts_count;
    /* Character devices: source is the node outside, target its path in the cell, below /dev. The
     * cell reaches them with the rights that the node gives to everybody. */
    struct cell_mount *devices;
    size_t devices_count;
    uint32_t gpu; /* 1: the devices are GPUs, and their system calls (gpu_ioctls.h) are needed */
    char **args;  /* argv of process 1; args[0] is a path inside the cell */
    size_t args_count;
    char **env; /* KEY=VALUE; nothing else is inherited */
    size_t env_count;
    char workdir[CELL_STRING_BYTES_MAX];
    uint64_t memory_bytes; /* cgroup limit, swap included; required */
    uint32_t cpu_millis;   /* cgroup quota; required */
    uint32_t pids_max;     /* required */
    uint64_t tmp_bytes;    /* size of the writable tmpfs (/tmp), required */
    uint32_t files_max;    /* RLIMIT_NOFILE, 0: 1024 */
    uint64_t log_bytes;    /* of the ring, 0: CELL_LOG_BYTES_DEFAULT */
    uint32_t stop_ms;      /* SIGTERM to SIGKILL, 0: 5000 */
    /* Path below each controller's mount (v1) or the v2 mount, e.g. skep/NODE/INSTANCE; empty:
     * cgroups are declared not available on this machine by the agent's configuration, and only
     * resource limits of single processes hold. */
    char cgroup[CELL_STRING_BYTES_MAX];
    /* The file of a network namespace made ahead, in which skep-cell and its cell live, whose owner
     * has brought its loopback up and over which the cell has no power; empty: one of the cell's
     * own, with loopback only. */
    char netns[CELL_STRING_BYTES_MAX];
    /* Outside uid and gid the cell's user maps to; 0: the caller's when unprivileged, 65534
     * otherwise. */
    uint32_t uid;
    /* Walls that are not to be built on this machine; every other one must stand. */
    wall_set walls_not_needed;
    uint64_t io_bps; /* bytes a second from and to each disk, 0: no limit */
    /* Of skep-gvisor, which refuses an empty one: runsc's path and the platform it is to use. */
    char runsc[CELL_STRING_BYTES_MAX];
    char platform[CELL_PLATFORM_BYTES_MAX];
};

/* Appends the JSON text to *json. INVALID for a text that is not UTF-8; NOMEM. */
NODISCARD struct status cell_spec_encode(const struct cell_spec *spec, struct buffer *json,
                                         struct errmsg *msg);
/* Bounded; INVALID or LIMIT with a message that names the key; unknown keys are refused. Everything
 * inside *out is heap, freed by cell_spec_close; *out is written only on success. */
NODISCARD struct status cell_spec_decode(struct bytes json, struct cell_spec *out,
                                         struct errmsg *msg);
/* Safe on zeroed memory and twice. */
void cell_spec_close(struct cell_spec *spec);

enum cell_packet { CELL_HELLO = 1, CELL_STOP = 2, CELL_KILL = 3 };
enum cell_event_kind { CELL_EVENT_STARTED = 1, CELL_EVENT_EXITED = 2 };

/* Why the cell ended. */
enum cell_end {
    CELL_END_EXIT,   /* process 1 exited: detail is the exit code */
    CELL_END_SIGNAL, /* detail is the signal */
    CELL_END_OOM,    /* the memory limit killed it; detail as for STOPPED */
    /* a wall could not be built; message names the step; detail is an errno or 0 */
    CELL_END_SETUP,
    CELL_END_STOPPED, /* on request; detail is the exit code, or 128 + signal as shells say it */
    CELL_ENDS_COUNT_,
};

enum { CELL_MESSAGE_BYTES_MAX = 256 };

struct cell_event {
    uint32_t kind;
    uint32_t end;
    int32_t detail;
    uint32_t pid;        /* of process 1, outside */
    uint64_t startup_us; /* start of skep-cell to execve of process 1 */
    uint64_t memory_peak_bytes;
    uint64_t pids_limit_hits; /* forks refused by the pids limit */
    /* "memory limit of 64 MiB reached", "step pivot_root: ..." */
    char message[CELL_MESSAGE_BYTES_MAX];
};

enum { CELL_EXIT_BYTES_MAX = 4096 };

/* "exit", "signal", "oom", "setup", "stopped". */
const char *cell_end_name(enum cell_end end);
/* Makes the text of exit.json; bytes of the message that are not printable ASCII become '?'. NOMEM.
 * */
NODISCARD struct status cell_exit_encode(const struct cell_event *event, struct buffer *json);
/* Bounded; kind is CELL_EVENT_EXITED in *out. INVALID with a message that names the key. */
NODISCARD struct status cell_exit_decode(struct bytes json, struct cell_event *out,
                                         struct errmsg *msg);

#endif

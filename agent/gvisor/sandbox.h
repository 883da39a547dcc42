/* Starts runsc, alone in a pid, mount, network, ipc and uts namespace of its own: whatever runsc
 * starts (the sandbox, the gofer, the processes of the platform) ends with the first process of
 * that namespace, and that one ends with the supervisor.
 *
 * runsc is handed three descriptors, all pipes and sockets of ours (it changes the owner of what it
 * is given): 0 the runner's end of the channel, which gVisor imports with its packet borders; 1 the
 * log; 2 the ear, where runsc and the launcher (launcher.h) say what goes wrong.
 *
 * Thread: the only one of the supervisor. */
#ifndef AGENT_GVISOR_SANDBOX_H
#define AGENT_GVISOR_SANDBOX_H

#include "agent/cell/cell.h"
#include "agent/cell/cgroup.h"

#include <sys/types.h>

enum {
    /* What runsc, sentry and gofer need beside the function: on top of its limits. */
    SANDBOX_MEMORY_BYTES = 64 << 20,
    SANDBOX_PROCESSES = 192,
    SANDBOX_OOM_SCORE = 500,
};

struct sandbox {
    pid_t pid;
    int pidfd;
    int ear_fd; /* non-blocking */
    int log_fd; /* non-blocking: the function's standard output and error */
};

/* Runs the bundle in the working directory (bundle.h). channel_fd is borrowed. On failure nothing
 * runs and *cgroup is empty; on success it is open and the caller's to close. The message starts
 * with the step's name. */
NODISCARD struct status sandbox_start(const struct cell_spec *spec, int channel_fd,
                                      struct cgroup *cgroup, struct sandbox *out,
                                      struct errmsg *msg);

/* Sends SIGTERM to the function by way of another runsc: the first one hands no signals on. Nothing
 * is said when that fails; the caller has a deadline. */
void sandbox_terminate(const struct sandbox *s, const struct cell_spec *spec);

#endif

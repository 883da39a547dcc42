/* Processes and memory of the agent, of the host and of another cell. */
#include "agent/canary/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PIDS_SCANNED = 4096 };

/* Process 1, this one and its parent are of the cell. */
static bool ours(int pid)
{
    return pid == 1 || pid == getpid() || pid == getppid();
}

static bool has_process(struct check *c, int pid, const char *whose)
{
    if (pid <= 0) {
        check_none(c, "%s process is not known", whose);
        return false;
    }
    /* In a namespace of its own the number may be one of ours. */
    if (ours(pid) && getppid() == 1) {
        check_none(c, "%s process has a number that is also in the cell", whose);
        return false;
    }
    return true;
}

/* There, whether or not it may be signalled. */
static bool is_there(int pid)
{
    return kill(pid, 0) == 0 || errno == EPERM;
}

static void see_process(struct check *c, int pid, const char *whose)
{
    if (!has_process(c, pid, whose)) {
        return;
    }
    /* The filter's answer to every kill is no sight: a process that cannot be asks the same. */
    bool blind = is_there(0x3ffffff);
    if (is_there(pid) && !blind) {
        check_breached(c, "process %d is visible", pid);
    } else {
        check_refused(c, "kill");
    }
}

void check_agent_process(struct check *c)
{
    see_process(c, c->targets->agent_pid, "the agent's");
}

void check_other_process(struct check *c)
{
    see_process(c, c->targets->other_pid, "the other cell's");
}

static void memory_read(struct check *c, int pid, uint64_t at)
{
    char text[CANARY_NONCE_BYTES + 1] = "";
    struct iovec to = {text, CANARY_NONCE_BYTES};
    struct iovec from = {(void *)(uintptr_t)at, CANARY_NONCE_BYTES};
    if (process_vm_readv(pid, &to, 1, &from, 1, 0) > 0) {
        check_breached(c, "process %d holds %s", pid, text);
    } else if (errno == EFAULT) {
        check_breached(c, "process %d may be read", pid);
    } else {
        check_refused(c, "process_vm_readv");
    }
}

void check_agent_memory(struct check *c)
{
    if (has_process(c, c->targets->agent_pid, "the agent's")) {
        memory_read(c, c->targets->agent_pid, c->targets->agent_memory);
    }
}

/* Where its bait lies is not known: an address that is not there tells as much. */
void check_other_memory(struct check *c)
{
    if (has_process(c, c->targets->other_pid, "the other cell's")) {
        memory_read(c, c->targets->other_pid, 8);
    }
}

void check_agent_memory_file(struct check *c)
{
    char path[64], text[CANARY_NONCE_BYTES + 1] = "";
    if (!has_process(c, c->targets->agent_pid, "the agent's")) {
        return;
    }
    (void)snprintf(path, sizeof path, "/proc/%d/mem", c->targets->agent_pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        check_refused(c, "open");
        return;
    }
    if (pread(fd, text, CANARY_NONCE_BYTES, (off_t)c->targets->agent_memory) > 0) {
        check_breached(c, "%s holds %s", path, text);
    } else {
        check_breached(c, "%s can be opened", path);
    }
    (void)close(fd);
}

void check_agent_descriptors(struct check *c)
{
    if (!has_process(c, c->targets->agent_pid, "the agent's")) {
        return;
    }
    int pidfd = (int)syscall(SYS_pidfd_open, c->targets->agent_pid, 0);
    if (pidfd < 0) {
        check_refused(c, "pidfd_open");
        return;
    }
    (void)check_call(c, "pidfd_getfd", syscall(SYS_pidfd_getfd, pidfd, 0, 0));
    (void)close(pidfd);
}

void check_processes_visible(struct check *c)
{
    DIR *dir = opendir("/proc");
    int seen = 0;
    for (struct dirent *e = dir == NULL ? NULL : readdir(dir); e != NULL; e = readdir(dir)) {
        char *end = NULL;
        int pid = (int)strtol(e->d_name, &end, 10);
        if (*end == '\0' && pid > 0 && !ours(pid)) {
            seen = pid;
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    bool blind = is_there(0x3ffffff);
    for (int pid = 2; pid < PIDS_SCANNED && seen == 0 && !blind; pid++) {
        if (!ours(pid) && is_there(pid)) {
            seen = pid;
        }
    }
    if (seen > 0) {
        check_breached(c, "process %d is visible", seen);
    } else {
        check_held(c, "only the cell's own");
    }
}

void check_trace_agent(struct check *c)
{
    if (has_process(c, c->targets->agent_pid, "the agent's")) {
        /* SEIZE does not stop it, and the end of this process lets go of it. */
        (void)check_call(c, "PTRACE_SEIZE", ptrace(PTRACE_SEIZE, c->targets->agent_pid, 0, 0));
    }
}

void check_trace(struct check *c)
{
    (void)check_call(c, "PTRACE_TRACEME", ptrace(PTRACE_TRACEME, 0, 0, 0));
}

void check_shared_memory(struct check *c)
{
    if (c->targets->shm < 0) {
        check_none(c, "the agent laid no segment");
        return;
    }
    const char *at = shmat(c->targets->shm, NULL, SHM_RDONLY);
    if ((intptr_t)at == -1) {
        check_refused(c, "shmat");
        return;
    }
    check_breached(c, "segment %d holds %.*s", c->targets->shm, CANARY_NONCE_BYTES, at);
}

/* Namespaces, mounts, and interfaces of the kernel that no cell needs. */
#include "agent/canary/check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Namespaces ---- */

void check_user_namespaces(struct check *c)
{
    if (!check_call(c, "unshare(CLONE_NEWUSER)", unshare(CLONE_NEWUSER))) {
        long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) {
            _exit(0);
        }
        (void)check_call(c, "clone(CLONE_NEWUSER)", pid);
    }
}

void check_namespaces(struct check *c)
{
    static const struct {
        int flag;
        const char *what;
    } kinds[] = {{CLONE_NEWNS, "a mount namespace"}, {CLONE_NEWNET, "a network namespace"},
                 {CLONE_NEWPID, "a pid namespace"},  {CLONE_NEWIPC, "an ipc namespace"},
                 {CLONE_NEWUTS, "a uts namespace"},  {CLONE_NEWCGROUP, "a cgroup namespace"},
                 {0x00000080, "a time namespace"}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (check_call(c, kinds[i].what, unshare(kinds[i].flag))) {
            return;
        }
    }
}

void check_join_namespaces(struct check *c)
{
    static const char *const kinds[] = {"net", "mnt", "pid", "ipc", "uts", "cgroup", "user"};
    const int pids[] = {1, c->targets->agent_pid, c->targets->other_pid};
    check_held(c, "no namespace can be named");
    for (size_t p = 0; p < sizeof pids / sizeof pids[0]; p++) {
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && pids[p] > 0; i++) {
            char path[64];
            (void)snprintf(path, sizeof path, "/proc/%d/ns/%s", pids[p], kinds[i]);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd < 0) {
                check_refused(c, path);
                continue;
            }
            bool got = check_call(c, path, setns(fd, 0));
            (void)close(fd);
            if (got) {
                return;
            }
        }
    }
}

/* ---- Mounts: what comes about is taken back ---- */

void check_mounts(struct check *c)
{
    if (check_call(c, "mount tmpfs", mount("tmpfs", "/tmp", "tmpfs", 0, NULL)) ||
        check_call(c, "bind mount", mount("/", "/tmp", NULL, MS_BIND, NULL))) {
        (void)umount2("/tmp", MNT_DETACH);
        return;
    }
    if (!check_call(c, "remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL))) {
        (void)check_call(c, "umount", umount2("/proc", MNT_DETACH));
    }
}

void check_mount_files(struct check *c)
{
    if (!check_call(c, "fsopen", syscall(SYS_fsopen, "tmpfs", 1))) {
        (void)check_call(c, "open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1 | O_CLOEXEC));
    }
}

void check_change_root(struct check *c)
{
    (void)check_call(c, "chroot", chroot("/tmp"));
}

void check_host_name(struct check *c)
{
    char name[65];
    if (gethostname(name, sizeof name) != 0) {
        check_refused(c, "gethostname");
        return;
    }
    /* To what it is. */
    (void)check_permission(c, "sethostname", sethostname(name, strlen(name)));
}

/* ---- Calls ---- */

void check_bpf(struct check *c)
{
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY};
    map.key_size = 4;
    map.value_size = 4;
    map.max_entries = 1;
    (void)check_permission(c, "bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
}

void check_perf(struct check *c)
{
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE,
                                    .size = sizeof event,
                                    .config = PERF_COUNT_SW_TASK_CLOCK,
                                    .exclude_kernel = 1,
                                    .exclude_hv = 1};
    (void)check_permission(c, "perf_event_open",
                           syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
}

void check_io_uring(struct check *c)
{
    struct io_uring_params params = {0};
    (void)check_permission(c, "io_uring_setup", syscall(SYS_io_uring_setup, 1, &params));
}

void check_userfault(struct check *c)
{
    (void)check_permission(c, "userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC | 1));
}

void check_host_key(struct check *c)
{
    char text[CANARY_NONCE_BYTES + 1] = "";
    if (c->targets->key == 0) {
        check_none(c, "the agent laid no key");
        return;
    }
    if (syscall(SYS_keyctl, KEYCTL_READ, c->targets->key, text, CANARY_NONCE_BYTES) > 0) {
        check_breached(c, "key %d holds %s", c->targets->key, text);
    } else {
        check_refused(c, "keyctl");
    }
}

void check_keyrings(struct check *c)
{
    if (!check_call(
            c, "add_key",
            syscall(SYS_add_key, "user", "skep-canary", "x", 1, KEY_SPEC_PROCESS_KEYRING))) {
        (void)check_call(c, "keyctl",
                         syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
    }
}

void check_kernel_modules(struct check *c)
{
    if (!check_permission(c, "init_module", syscall(SYS_init_module, "skep", 4, ""))) {
        (void)check_permission(c, "finit_module", syscall(SYS_finit_module, -1, "", 0));
    }
}

/* Flags that no kernel knows: the permission is asked first. */
void check_kexec(struct check *c)
{
    if (!check_permission(c, "kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0xffff0000UL))) {
        (void)check_permission(c, "kexec_file_load",
                               syscall(SYS_kexec_file_load, -1, -1, 0, NULL, 0xffffUL));
    }
}

void check_kernel_log(struct check *c)
{
    char text[64];
    if (!check_permission(c, "syslog", syscall(SYS_syslog, 3, text, sizeof text))) {
        static const char *const paths[] = {"/dev/kmsg", "/proc/kmsg", NULL};
        check_open_any(c, paths, O_RDONLY);
    }
}

void check_swap(struct check *c)
{
    (void)check_permission(c, "swapon", syscall(SYS_swapon, "/nonexistent/skep-canary", 0));
}

void check_io_ports(struct check *c)
{
#ifdef __x86_64__
    if (!check_permission(c, "iopl", iopl(3))) {
        (void)check_permission(c, "ioperm", ioperm(0x80, 1, 1));
    }
#else
    check_none(c, "this kind of machine has none");
#endif
}

#ifdef __x86_64__
static long call_i386(void)
{
    long result = 20; /* getpid */
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static long call_x32(void)
{
    return syscall(0x40000000 + SYS_getpid);
}

/* Does the call say who makes it? In a child: the filter may end it. */
static bool other_table_works(long (*call)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        _exit(call() == (long)getpid() ? 7 : 0);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 7;
}
#endif

void check_calls_32(struct check *c)
{
#ifdef __x86_64__
    if (other_table_works(call_i386)) {
        check_breached(c, "calls of the i386 table work");
    } else if (other_table_works(call_x32)) {
        check_breached(c, "calls of the x32 table work");
    } else {
        check_held(c, "neither works");
    }
#else
    check_none(c, "this kind of machine has none");
#endif
}

void check_personality(struct check *c)
{
    (void)check_call(c, "personality", personality(ADDR_NO_RANDOMIZE));
}

/* ---- Switches: opened, never written to ---- */

void check_sysrq(struct check *c)
{
    static const char *const paths[] = {"/proc/sysrq-trigger", "/proc/sys/kernel/sysrq", NULL};
    check_open_any(c, paths, O_WRONLY);
}

void check_core_pattern(struct check *c)
{
    static const char *const paths[] = {"/proc/sys/kernel/core_pattern",
                                        "/proc/sys/kernel/modprobe",
                                        "/proc/sys/kernel/hotplug",
                                        "/sys/kernel/uevent_helper",
                                        "/proc/sys/fs/binfmt_misc/register",
                                        "/proc/sys/vm/overcommit_memory",
                                        NULL};
    check_open_any(c, paths, O_WRONLY);
}

/* The files at the top of every hierarchy that is mounted, and where they usually are. */
void check_cgroups(struct check *c)
{
    static const char *const usual[] = {
        "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs",
        "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/devices/devices.allow", NULL};
    check_open_any(c, usual, O_WRONLY);
    FILE *f = c->outcome.verdict == CANARY_BREACHED ? NULL : fopen("/proc/self/mountinfo", "re");
    char line[1024], point[512], path[600];
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strstr(line, " - cgroup") == NULL ||
            sscanf(line, "%*s %*s %*s %*s %511s", point) != 1) {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s/cgroup.procs", point);
        const char *const one[] = {path, NULL};
        check_open_any(c, one, O_WRONLY);
        if (c->outcome.verdict == CANARY_BREACHED) {
            break;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
}

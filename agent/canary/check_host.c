/* What tells of the host, devices, and rights. */
#include "agent/canary/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* ---- /proc and /sys ---- */

#define OPEN_CHECK(function, ...)                                                                  \
    void check_##function(struct check *c)                                                         \
    {                                                                                              \
        static const char *const paths[] = {__VA_ARGS__, NULL};                                    \
        check_open_any(c, paths, O_RDONLY);                                                        \
    }

OPEN_CHECK(proc_kallsyms, "/proc/kallsyms", "/proc/modules", "/proc/config.gz")
OPEN_CHECK(proc_sched, "/proc/sched_debug", "/proc/schedstat", "/proc/timer_list",
           "/proc/latency_stats", "/sys/kernel/debug/sched/debug")
OPEN_CHECK(proc_interrupts, "/proc/interrupts", "/proc/softirqs")
OPEN_CHECK(proc_memory, "/proc/kcore", "/proc/kmsg", "/proc/kpagecount", "/proc/kpageflags",
           "/proc/vmallocinfo", "/proc/slabinfo", "/proc/pagetypeinfo", "/proc/buddyinfo",
           "/proc/zoneinfo")
OPEN_CHECK(proc_keys, "/proc/keys", "/proc/key-users")
OPEN_CHECK(proc_hardware, "/proc/iomem", "/proc/ioports", "/proc/diskstats", "/proc/partitions",
           "/proc/mdstat", "/proc/acpi", "/proc/scsi", "/proc/bus/pci")
OPEN_CHECK(device_memory, "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/nvram")
OPEN_CHECK(device_control, "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control",
           "/dev/mapper/control", "/dev/vhost-net", "/dev/vfio/vfio", "/dev/userfaultfd",
           "/dev/uinput", "/dev/cpu/0/msr", "/dev/autofs", "/dev/btrfs-control")

void check_sys_files(struct check *c)
{
    DIR *dir = opendir("/sys");
    if (dir == NULL) {
        check_refused(c, "open /sys");
        return;
    }
    check_held(c, "/sys is empty");
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] != '.') {
            check_breached(c, "/sys/%.60s is there", e->d_name);
            break;
        }
    }
    (void)closedir(dir);
}

/* ---- Devices ---- */

void check_device_nodes(struct check *c)
{
    char path[64];
    const dev_t devices[] = {makedev(1, 1), makedev(8, 0), makedev(10, 232)};
    (void)snprintf(path, sizeof path, "/tmp/skep-canary-node.%d", (int)getpid());
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        mode_t kind = i == 1 ? S_IFBLK : S_IFCHR;
        if (check_call(c, "mknod", mknod(path, kind | 0600, devices[i]))) {
            (void)unlink(path);
            return;
        }
    }
}

void check_device_disks(struct check *c)
{
    DIR *dir = opendir("/dev");
    check_held(c, "none");
    for (const struct dirent *e = dir == NULL ? NULL : readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISBLK(st.st_mode)) {
            continue;
        }
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd >= 0) {
            (void)close(fd);
            check_breached(c, "/dev/%.60s can be opened", e->d_name);
            break;
        }
        check_refused(c, "open");
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

/* null, zero, full, random and urandom are everybody's; tty and ptmx are the caller's own. */
static bool harmless(dev_t device)
{
    unsigned minor_number = minor(device);
    if (major(device) == 5) {
        return minor_number == 0 || minor_number == 2;
    }
    return major(device) == 1 && (minor_number == 3 || minor_number == 5 || minor_number == 7 ||
                                  minor_number == 8 || minor_number == 9);
}

void check_device_others(struct check *c)
{
    DIR *dir = opendir("/dev");
    check_held(c, "none");
    for (const struct dirent *e = dir == NULL ? NULL : readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            (S_ISBLK(st.st_mode) || (S_ISCHR(st.st_mode) && !harmless(st.st_rdev)))) {
            check_breached(c, "/dev/%.60s is there (%u:%u)", e->d_name, major(st.st_rdev),
                           minor(st.st_rdev));
            break;
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

/* ---- Rights ---- */

void check_become_root(struct check *c)
{
    if (geteuid() == 0 || getegid() == 0) {
        check_breached(c, "it is root");
        return;
    }
    if (!check_call(c, "setuid", setuid(0)) && !check_call(c, "setgid", setgid(0))) {
        (void)check_call(c, "setresuid", setresuid(0, 0, 0));
    }
}

void check_uid_map(struct check *c)
{
    FILE *f = fopen("/proc/self/uid_map", "re");
    unsigned inside, outside, count;
    if (f == NULL) {
        check_refused(c, "open /proc/self/uid_map");
        return;
    }
    check_held(c, "no user of the map is root outside");
    while (fscanf(f, "%u %u %u", &inside, &outside, &count) == 3) {
        if (outside == 0) {
            check_breached(c, "user %u is root outside", inside);
            break;
        }
    }
    (void)fclose(f);
}

void check_groups(struct check *c)
{
    gid_t groups[64];
    int count = getgroups(64, groups);
    if (count > 0) {
        check_breached(c, "it is in group %u", (unsigned)groups[0]);
    } else {
        check_held(c, "none");
    }
}

void check_capabilities(struct check *c)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    if (syscall(SYS_capget, &head, data) != 0) {
        check_refused(c, "capget");
        return;
    }
    uint32_t any = data[0].effective | data[1].effective | data[0].permitted | data[1].permitted |
                   data[0].inheritable | data[1].inheritable;
    if (any != 0) {
        check_breached(c, "it has %08x%08x", data[1].permitted, data[0].permitted);
        return;
    }
    for (unsigned long cap = 0; cap <= 40; cap++) {
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1) {
            check_breached(c, "exec may give it capability %lu", cap);
            return;
        }
    }
    check_held(c, "none");
}

void check_new_privileges(struct check *c)
{
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) {
        check_held(c, "no_new_privs is set");
    } else {
        check_breached(c, "no_new_privs is not set");
    }
}

/* prctl may itself be refused; /proc says the same. */
void check_system_call_filter(struct check *c)
{
    int mode = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
    FILE *f = mode < 0 ? fopen("/proc/self/status", "re") : NULL;
    char line[256];
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        (void)sscanf(line, "Seccomp: %d", &mode);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    if (mode == 2) {
        check_held(c, "there is one");
    } else if (mode == 0) {
        check_breached(c, "there is none");
    } else {
        check_none(c, "nothing tells");
    }
}

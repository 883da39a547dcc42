/* Runs a command as if the machine lacked something, without touching the machine:
 *
 *     without THING [THING...] -- COMMAND...     landlock, userns or cgroups
 *
 * landlock: its system calls do not exist (a seccomp filter that children inherit). userns:
 * unshare(2) with CLONE_NEWUSER is refused. cgroups: in a mount namespace of the command's own no
 * controller is mounted. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int filter(struct sock_filter *code, unsigned short count)
{
    struct sock_fprog program = {.len = count, .filter = code};
    /* Root needs no no_new_privs for it, and would hand that on. */
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

static int without_landlock(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_landlock_create_ruleset, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_landlock_restrict_self, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return filter(code, sizeof code / sizeof code[0]);
}

static int without_userns(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWUSER, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return filter(code, sizeof code / sizeof code[0]);
}

static int without_cgroups(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        return -1;
    }
    return umount2("/sys/fs/cgroup", MNT_DETACH);
}

static const struct {
    const char *name;
    int (*run)(void);
} things[] = {
    {"landlock", without_landlock},
    {"userns", without_userns},
    {"cgroups", without_cgroups},
};

int main(int argc, char **argv)
{
    int at = 1;
    for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
        size_t i = 0;
        while (i < sizeof things / sizeof things[0] && strcmp(things[i].name, argv[at]) != 0) {
            i++;
        }
        if (i == sizeof things / sizeof things[0] || things[i].run() != 0) {
            (void)fprintf(stderr, "without: %s: %s\n", argv[at], strerror(errno));
            return 125;
        }
    }
    if (at + 1 >= argc) {
        return 125;
    }
    (void)execvp(argv[at + 1], argv + at + 1);
    (void)fprintf(stderr, "without: %s: %s\n", argv[at + 1], strerror(errno));
    return 125;
}

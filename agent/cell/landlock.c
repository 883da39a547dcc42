#include "agent/cell/landlock.h"

#include "common/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ABI_REFER = 2,     /* Linux 5.19 */
    ABI_TRUNCATE = 3,  /* 6.2 */
    ABI_IOCTL_DEV = 5, /* 6.10 */
    ABI_SCOPE = 6,     /* 6.12 */
    CREATE_RULESET_VERSION = 1,
    RULE_PATH_BENEATH = 1,
    SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0,
    SCOPE_SIGNAL = 1 << 1,
};

/* struct landlock_ruleset_attr of version 6; older kernels take it when what they do not know is
 * zero. TCP is not handled: the network namespace decides. */
struct ruleset {
    uint64_t handled_fs;
    uint64_t handled_net;
    uint64_t scoped;
};

struct path_rule {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

/* The rights that mean something on what is not a folder. */
enum {
    RIGHTS_OF_FILES = LANDLOCK_EXECUTE | LANDLOCK_WRITE_FILE | LANDLOCK_READ_FILE |
                      LANDLOCK_TRUNCATE | LANDLOCK_IOCTL_DEV,
    RIGHTS_READ = LANDLOCK_READ_FILE | LANDLOCK_READ_DIR,
    RIGHTS_PROGRAMS = RIGHTS_READ | LANDLOCK_EXECUTE,
    RIGHTS_DEVICES = RIGHTS_READ | LANDLOCK_WRITE_FILE | LANDLOCK_TRUNCATE | LANDLOCK_IOCTL_DEV,
    RIGHTS_SCRATCH = RIGHTS_READ | LANDLOCK_WRITE_FILE | LANDLOCK_REMOVE_DIR |
                     LANDLOCK_REMOVE_FILE | LANDLOCK_MAKE_DIR | LANDLOCK_MAKE_REG |
                     LANDLOCK_MAKE_SOCK | LANDLOCK_MAKE_FIFO | LANDLOCK_MAKE_SYM | LANDLOCK_REFER |
                     LANDLOCK_TRUNCATE,
};

int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
    return abi > 0 ? (int)abi : 0;
}

uint64_t landlock_rights(int abi)
{
    uint64_t rights = (LANDLOCK_MAKE_SYM << 1) - 1;
    rights |= abi >= ABI_REFER ? LANDLOCK_REFER : 0;
    rights |= abi >= ABI_TRUNCATE ? LANDLOCK_TRUNCATE : 0;
    rights |= abi >= ABI_IOCTL_DEV ? LANDLOCK_IOCTL_DEV : 0;
    return rights;
}

int landlock_open(int abi, uint64_t rights, bool scoped)
{
    struct ruleset r = {
        .handled_fs = rights,
        .scoped = scoped && abi >= ABI_SCOPE ? SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL : 0,
    };
    return (int)syscall(SYS_landlock_create_ruleset, &r, sizeof r, 0);
}

bool landlock_allow(int ruleset, int fd, uint64_t rights)
{
    struct path_rule rule = {.allowed = rights, .parent_fd = fd};
    return syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) == 0;
}

bool landlock_enter(int ruleset)
{
    return syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
}

static int allow_path(int ruleset, const char *path, uint64_t rights)
{
    AUTO_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);
    return fd >= 0 && landlock_allow(ruleset, fd, rights) ? 0 : errno;
}

/* A rule grants to all below it, so that programs cannot be granted at the root and taken back in
 * /tmp: each entry of the root is granted them by itself. */
static int allow_programs(int ruleset, uint64_t known)
{
    static const char *const without[] = {".", "..", "dev", "proc", "tmp"};
    AUTO_CLOSE int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int listed = root < 0 ? -1 : fcntl(root, F_DUPFD_CLOEXEC, 0);
    DIR *dir = listed < 0 ? NULL : fdopendir(listed);
    if (dir == NULL) {
        return errno;
    }
    int error = 0;
    for (const struct dirent *e = readdir(dir); e != NULL && error == 0; e = readdir(dir)) {
        bool skipped = false;
        for (size_t i = 0; i < sizeof without / sizeof without[0] && !skipped; i++) {
            skipped = strcmp(e->d_name, without[i]) == 0;
        }
        if (skipped) {
            continue;
        }
        AUTO_CLOSE int fd = openat(root, e->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) != 0) {
            error = errno;
        } else if (!S_ISLNK(st.st_mode)) {
            uint64_t rights =
                S_ISDIR(st.st_mode) ? RIGHTS_PROGRAMS : RIGHTS_PROGRAMS & RIGHTS_OF_FILES;
            error = landlock_allow(ruleset, fd, rights & known) ? 0 : errno;
        }
    }
    (void)closedir(dir);
    return error;
}

int landlock_guest(void)
{
    static const struct {
        const char *path;
        uint64_t rights;
    } rules[] = {
        {"/", RIGHTS_READ},
        {"/dev", RIGHTS_DEVICES},
        {"/dev/shm", RIGHTS_SCRATCH},
        {"/tmp", RIGHTS_SCRATCH},
    };
    int abi = landlock_abi();
    if (abi == 0) {
        return ENOSYS;
    }
    uint64_t known = landlock_rights(abi);
    AUTO_CLOSE int ruleset = landlock_open(abi, known, true);
    if (ruleset < 0) {
        return errno;
    }
    int error = allow_programs(ruleset, known);
    for (size_t i = 0; i < sizeof rules / sizeof rules[0] && error == 0; i++) {
        error = allow_path(ruleset, rules[i].path, rules[i].rights & known);
    }
    if (error == 0 && !landlock_enter(ruleset)) {
        error = errno;
    }
    return error;
}

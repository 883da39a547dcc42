#include "agent/cell/confine.h"

#include "agent/cell/landlock.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Every right of Landlock's first version: what is not granted below is refused (landlock(7)). */
enum {
    RIGHTS_FOLDER = LANDLOCK_READ_FILE | LANDLOCK_WRITE_FILE | LANDLOCK_READ_DIR |
                    LANDLOCK_REMOVE_FILE | LANDLOCK_MAKE_REG,
    RIGHTS_GROUP = LANDLOCK_READ_FILE | LANDLOCK_READ_DIR,
    RIGHTS_ABOVE_GROUP = LANDLOCK_REMOVE_DIR,
};

static int capabilities_set(uint64_t permitted, uint64_t effective)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.permitted = (uint32_t)permitted, .effective = (uint32_t)effective},
        {.permitted = (uint32_t)(permitted >> 32), .effective = (uint32_t)(effective >> 32)},
    };
    return (int)syscall(SYS_capset, &header, data);
}

/* The group itself, and whatever above it cgroup_close will remove. */
static bool allow_group(int ruleset, const struct cgroup_place *p)
{
    char above[sizeof p->dir];
    memcpy(above, p->dir, sizeof above);
    if (p->parents_made_at != 0) {
        above[p->parents_made_at] = '\0';
    }
    *strrchr(above, '/') = '\0';
    AUTO_CLOSE int fd = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && landlock_allow(ruleset, fd, RIGHTS_ABOVE_GROUP) &&
           landlock_allow(ruleset, p->fd, RIGHTS_GROUP);
}

static bool landlock(int folder_fd, const struct cgroup *g)
{
    int abi = landlock_abi();
    if (abi == 0) {
        return true;
    }
    AUTO_CLOSE int ruleset = landlock_open(abi, landlock_rights(1), false);
    if (ruleset < 0) {
        return false;
    }
    if (!landlock_allow(ruleset, folder_fd, RIGHTS_FOLDER)) {
        return false;
    }
    for (size_t i = 0; i < g->count; i++) {
        if (!allow_group(ruleset, &g->places[i])) {
            return false;
        }
    }
    return landlock_enter(ruleset);
}

/* What is left to do needs no capability: the folder and the groups belong to our user, and the
 * cell's user namespace is owned by it, which suffices to signal process 1 (user_namespaces(7)).
 * The exception is a group right below the top of a v1 hierarchy: removing it takes `kept`. */
struct status confine(int folder_fd, const struct cgroup *g, uint64_t kept, struct errmsg *msg)
{
    unsigned long cap = 0;
    while (cap < 64 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0) {
        cap++;
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 ||
        capabilities_set(kept, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return status_fail(msg, STATUS_IO, "step skep-cell's own privileges: %s", strerror(errno));
    }
    if (!landlock(folder_fd, g)) {
        return status_fail(msg, STATUS_IO, "step landlock: %s", strerror(errno));
    }
    return status_ok();
}

void confine_wake(uint64_t kept)
{
    if (kept != 0) {
        (void)capabilities_set(kept, kept);
    }
}

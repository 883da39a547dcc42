#include "agent/cell/cgroup.h"

#include "agent/cell/cell_usage.h"
#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    MOUNTINFO_BYTES_MAX = 1 << 20,
    FILE_BYTES_MAX = 4096,
    CPU_PERIOD_US = 100000,
    MAKE_TRIES_MAX = 8,
    CPU_SHARES_MIN = 2,
    CPU_SHARES_OF_ONE = 1024,
    CPU_WEIGHT_OF_ONE = 100, /* cgroup-v2.rst: the default, as 1024 shares are in v1 */
    CPU_WEIGHT_MAX = 10000,
    IO_WEIGHT = 100,
    DISKS_MAX = 64,
    CLOSE_PAUSE_MS = 1,
};

static const char *const controller_names[CGROUP_CONTROLLERS_COUNT_] = {
    [CGROUP_MEMORY] = "memory",   [CGROUP_CPU] = "cpu", [CGROUP_PIDS] = "pids",
    [CGROUP_CPUACCT] = "cpuacct", [CGROUP_IO] = "io",
};

static const char *v1_name(size_t controller)
{
    return controller == CGROUP_IO ? "blkio" : controller_names[controller];
}

/* Finding the mounts. */

/* True when the list, separated by any of `separators`, has the word. */
static bool list_has(const char *list, const char *separators, const char *word)
{
    size_t size = strlen(word);
    while (*list != '\0') {
        size_t item = strcspn(list, separators);
        if (item == size && strncmp(list, word, size) == 0) {
            return true;
        }
        list += item;
        list += *list != '\0' ? 1 : 0;
    }
    return false;
}

/* mountinfo writes space, tab, newline and backslash as three octal digits. */
static bool unescape(const char *from, char *out, size_t out_size)
{
    size_t n = 0;
    while (*from != '\0' && n + 1 < out_size) {
        unsigned byte = 0;
        if (from[0] == '\\' && sscanf(from + 1, "%3o", &byte) == 1 && byte <= 0xff) {
            out[n++] = (char)byte;
            from += 4;
        } else {
            out[n++] = *from++;
        }
    }
    out[n] = '\0';
    return *from == '\0';
}

static void mounts_add_line(struct cgroup_mounts *out, char *line)
{
    /* "ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG...] - TYPE SOURCE SUPER_OPTIONS" */
    char *tail = strstr(line, " - ");
    if (tail == NULL) {
        return;
    }
    *tail = '\0';
    char type[16];
    char super[512];
    char point[CGROUP_MOUNT_BYTES_MAX * 4];
    if (sscanf(tail + 3, "%15s %*s %511s", type, super) != 2 ||
        sscanf(line, "%*s %*s %*s %*s %1023s", point) != 1) {
        return;
    }
    char path[CGROUP_MOUNT_BYTES_MAX];
    if (!unescape(point, path, sizeof path)) {
        return;
    }
    if (strcmp(type, "cgroup2") == 0) {
        memcpy(out->v2, path, sizeof path);
        return;
    }
    if (strcmp(type, "cgroup") != 0) {
        return;
    }
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        if (list_has(super, ",", v1_name(i))) {
            memcpy(out->of[i].path, path, sizeof path);
            out->of[i].v2 = false;
        }
    }
}

void cgroup_mounts_parse(const char *mountinfo, struct cgroup_mounts *out)
{
    static_assert(CGROUP_MOUNT_BYTES_MAX * 4 == 1024, "the scan's width follows it");
    *out = (struct cgroup_mounts){0};
    while (*mountinfo != '\0') {
        char line[4096];
        size_t size = strcspn(mountinfo, "\n");
        if (size < sizeof line) {
            memcpy(line, mountinfo, size);
            line[size] = '\0';
            mounts_add_line(out, line);
        }
        mountinfo += size;
        mountinfo += *mountinfo == '\n' ? 1 : 0;
    }
}

void cgroup_mounts_add_v2(struct cgroup_mounts *mounts, const char *controllers)
{
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        if (mounts->of[i].path[0] == '\0' && list_has(controllers, " \n", controller_names[i])) {
            memcpy(mounts->of[i].path, mounts->v2, sizeof mounts->v2);
            mounts->of[i].v2 = true;
        }
    }
}

/* Reads a whole small file below a folder, NUL-terminated. */
static bool file_read(int folder_fd, const char *file, char *text, size_t text_size)
{
    AUTO_CLOSE int fd = openat(folder_fd, file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t size = 0;
    while (size + 1 < text_size) {
        ssize_t n = read(fd, text + size, text_size - 1 - size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return false;
        }
        if (n == 0) {
            break;
        }
        size += (size_t)n;
    }
    text[size] = '\0';
    return true;
}

struct status cgroup_mounts_find(struct cgroup_mounts *out, struct errmsg *msg)
{
    char *text = mem_alloc(MOUNTINFO_BYTES_MAX);
    if (text == NULL) {
        return status_of(STATUS_NOMEM);
    }
    if (!file_read(AT_FDCWD, "/proc/self/mountinfo", text, MOUNTINFO_BYTES_MAX)) {
        mem_free(text);
        return status_fail(msg, STATUS_IO, "read /proc/self/mountinfo: %s", strerror(errno));
    }
    struct cgroup_mounts found;
    cgroup_mounts_parse(text, &found);
    mem_free(text);
    if (found.v2[0] != '\0') {
        char controllers[FILE_BYTES_MAX];
        AUTO_CLOSE int fd = open(found.v2, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && file_read(fd, "cgroup.controllers", controllers, sizeof controllers)) {
            cgroup_mounts_add_v2(&found, controllers);
        }
    }
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        if (found.of[i].path[0] != '\0') {
            *out = found;
            return status_ok();
        }
    }
    return status_fail(msg, STATUS_UNSUPPORTED, "no cgroup controller is mounted");
}

void cgroup_mounts_drop(struct cgroup_mounts *mounts, wall_set walls_not_needed)
{
    static const struct {
        enum cgroup_controller controller;
        wall_set wall;
    } rows[] = {
        {CGROUP_MEMORY, WALL_BIT(CGROUP_MEMORY)},
        {CGROUP_CPU, WALL_BIT(CGROUP_CPU)},
        {CGROUP_PIDS, WALL_BIT(CGROUP_PIDS)},
        {CGROUP_IO, WALL_BIT(CGROUP_IO)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if ((walls_not_needed & rows[i].wall) != 0) {
            mounts->of[rows[i].controller].path[0] = '\0';
            mounts->dropped |= 1U << rows[i].controller;
        }
    }
}

/* Making a group. */

static struct status file_write(const struct cgroup_place *p, const char *file, const char *text,
                                struct errmsg *msg)
{
    AUTO_CLOSE int fd = openat(p->fd, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        return status_fail(msg, status_from_errno(errno), "%s/%s: %s", p->dir, file,
                           strerror(errno));
    }
    return status_ok();
}

static struct status number_write(const struct cgroup_place *p, const char *file, uint64_t value,
                                  struct errmsg *msg)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    return file_write(p, file, text, msg);
}

static bool file_exists(const struct cgroup_place *p, const char *file)
{
    return faccessat(p->fd, file, F_OK, 0) == 0;
}

/* Below a v2 group only the controllers that its parent hands down exist. */
static struct status v2_hand_down(const struct cgroup_place *p, const char *parent,
                                  struct errmsg *msg)
{
    char path[sizeof p->dir + 32];
    (void)snprintf(path, sizeof path, "%s/cgroup.subtree_control", parent);
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    char has[FILE_BYTES_MAX];
    ssize_t size = fd < 0 ? -1 : read(fd, has, sizeof has - 1);
    if (size < 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    has[size] = '\0';
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        if ((p->controllers & (1U << i)) == 0 || list_has(has, " \n", controller_names[i])) {
            continue;
        }
        char word[16];
        int word_size = snprintf(word, sizeof word, "+%s", controller_names[i]);
        if (write(fd, word, (size_t)word_size) != word_size) {
            return status_fail(msg, status_from_errno(errno), "%s: %s: %s", path, word,
                               strerror(errno));
        }
    }
    return status_ok();
}

/* Makes the parents of p->dir below the mount, whose path is mount_size bytes long. */
static struct status parents_make(struct cgroup_place *p, size_t mount_size, struct errmsg *msg)
{
    char path[sizeof p->dir];
    for (size_t at = mount_size; p->dir[at] != '\0';) {
        memcpy(path, p->dir, at);
        path[at] = '\0';
        if (at > mount_size && mkdir(path, 0755) == 0) {
            p->parents_made_at = p->parents_made_at == 0 ? at : p->parents_made_at;
        } else if (at > mount_size && errno != EEXIST) {
            return status_fail(msg, status_from_errno(errno), "mkdir %s: %s", path,
                               strerror(errno));
        }
        if (p->v2) {
            TRY(v2_hand_down(p, path, msg));
        }
        at += 1 + strcspn(p->dir + at + 1, "/");
    }
    return status_ok();
}

/* A group that ends beside us may remove a parent between two steps of ours: from the top again
 * then. */
static struct status dirs_make(struct cgroup_place *p, size_t mount_size, struct errmsg *msg)
{
    int error = 0;
    for (int i = 0; i < MAKE_TRIES_MAX; i++) {
        struct status s = parents_make(p, mount_size, msg);
        if (!status_is_ok(s) && s.code != STATUS_NOT_FOUND) {
            return s;
        }
        if (mkdir(p->dir, 0755) == 0) {
            return status_ok();
        }
        error = errno;
        if (error == EEXIST && rmdir(p->dir) != 0 && errno != ENOENT) {
            return status_fail(msg, STATUS_CONFLICT, "%s: in use: %s", p->dir, strerror(errno));
        }
        if (error != EEXIST && error != ENOENT) {
            break;
        }
    }
    return status_fail(msg, status_from_errno(error), "mkdir %s: %s", p->dir, strerror(error));
}

static void parents_remove(const struct cgroup_place *p)
{
    char path[sizeof p->dir];
    memcpy(path, p->dir, sizeof path);
    if (p->parents_made_at == 0) {
        return;
    }
    for (char *slash = strrchr(path, '/');
         slash != NULL && (size_t)(slash - path) >= p->parents_made_at;
         slash = strrchr(path, '/')) {
        *slash = '\0';
        if (rmdir(path) != 0) {
            return; /* Others are in it; theirs to remove. */
        }
    }
}

static struct status place_open(struct cgroup_place *p, size_t mount_size, struct errmsg *msg)
{
    struct status s = dirs_make(p, mount_size, msg);
    if (!status_is_ok(s)) {
        parents_remove(p);
        return s;
    }
    p->fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->fd < 0) {
        s = status_fail(msg, status_from_errno(errno), "open %s: %s", p->dir, strerror(errno));
        (void)rmdir(p->dir);
        parents_remove(p);
    }
    return s;
}

/* One place for each mount; controllers that share a mount share the place. */
static struct status places_list(struct cgroup *g, const struct cgroup_mounts *mounts,
                                 const char *path, struct errmsg *msg)
{
    for (unsigned i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        const struct cgroup_mount *m = &mounts->of[i];
        if (m->path[0] == '\0') {
            if (i == CGROUP_CPUACCT || i == CGROUP_IO || (mounts->dropped & (1U << i)) != 0) {
                continue;
            }
            return status_fail(msg, STATUS_UNSUPPORTED, "cgroup controller %s is not mounted",
                               v1_name(i));
        }
        char dir[sizeof g->places[0].dir];
        if ((size_t)snprintf(dir, sizeof dir, "%s/%s", m->path, path) >= sizeof dir) {
            return status_fail(msg, STATUS_LIMIT, "cgroup path is too long");
        }
        size_t at = 0;
        while (at < g->count && strcmp(g->places[at].dir, dir) != 0) {
            at++;
        }
        struct cgroup_place *p = &g->places[at];
        if (at == g->count) {
            memcpy(p->dir, dir, sizeof dir);
            p->v2 = m->v2;
            p->fd = -1;
            p->parents_made_at = 0;
            p->controllers = 0;
            g->count++;
        }
        p->controllers |= 1U << i;
    }
    return status_ok();
}

struct status cgroup_open(struct cgroup *g, const struct cgroup_mounts *mounts, const char *path,
                          struct errmsg *msg)
{
    CHECK(path[0] != '\0' && path[0] != '/');
    g->count = 0;
    struct status s = places_list(g, mounts, path, msg);
    size_t listed = g->count;
    for (g->count = 0; status_is_ok(s) && g->count < listed;) {
        struct cgroup_place *p = &g->places[g->count];
        s = place_open(p, strlen(p->dir) - strlen(path) - 1, msg);
        g->count += status_is_ok(s) ? 1 : 0;
    }
    if (!status_is_ok(s)) {
        (void)cgroup_close(g);
    }
    return s;
}

/* Limits every disk of the machine in the files, by its MAJOR:MINOR: what /sys/block calls a block
 * device with a device behind it (no loop device, no memory). */
static struct status disks_limit(const struct cgroup_place *p, const char *const *files,
                                 uint64_t bps, struct errmsg *msg)
{
    DIR *dir = opendir("/sys/block");
    if (dir == NULL) {
        return status_fail(msg, STATUS_UNSUPPORTED, "/sys/block: %s", strerror(errno));
    }
    struct status s = status_ok();
    size_t disks = 0;
    for (const struct dirent *e = readdir(dir); e != NULL && status_is_ok(s); e = readdir(dir)) {
        char path[NAME_MAX + 16];
        char number[32];
        (void)snprintf(path, sizeof path, "%s/device", e->d_name);
        if (e->d_name[0] == '.' || faccessat(dirfd(dir), path, F_OK, 0) != 0) {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s/dev", e->d_name);
        if (disks++ == DISKS_MAX) {
            s = status_fail(msg, STATUS_LIMIT, "more than %d disks", DISKS_MAX);
        } else if (!file_read(dirfd(dir), path, number, sizeof number)) {
            s = status_fail(msg, STATUS_IO, "/sys/block/%s: %s", path, strerror(errno));
        }
        number[strcspn(number, "\n")] = '\0';
        for (size_t i = 0; files[i] != NULL && status_is_ok(s); i++) {
            char text[128];
            if (p->v2) {
                (void)snprintf(text, sizeof text, "%s rbps=%" PRIu64 " wbps=%" PRIu64, number, bps,
                               bps);
            } else {
                (void)snprintf(text, sizeof text, "%s %" PRIu64, number, bps);
            }
            s = file_write(p, files[i], text, msg);
        }
    }
    (void)closedir(dir);
    return disks == 0 && status_is_ok(s)
               ? status_fail(msg, STATUS_UNSUPPORTED, "the machine has no disk to limit")
               : s;
}

/* The first of the files that is there: which one depends on the scheduler of the disks. */
static struct status io_weigh(const struct cgroup_place *p, const char *const *files,
                              struct errmsg *msg)
{
    for (size_t i = 0; files[i] != NULL; i++) {
        if (file_exists(p, files[i])) {
            return number_write(p, files[i], IO_WEIGHT, msg);
        }
    }
    return status_ok();
}

static struct status v1_io_limit(const struct cgroup_place *p, uint64_t bps, struct errmsg *msg)
{
    static const char *const weights[] = {"blkio.weight", "blkio.bfq.weight", NULL};
    static const char *const limits[] = {"blkio.throttle.read_bps_device",
                                         "blkio.throttle.write_bps_device", NULL};
    TRY(io_weigh(p, weights, msg));
    return bps == 0 ? status_ok() : disks_limit(p, limits, bps, msg);
}

static struct status v2_io_limit(const struct cgroup_place *p, uint64_t bps, struct errmsg *msg)
{
    static const char *const weights[] = {"io.weight", "io.bfq.weight", NULL};
    static const char *const limits[] = {"io.max", NULL};
    TRY(io_weigh(p, weights, msg));
    return bps == 0 ? status_ok() : disks_limit(p, limits, bps, msg);
}

static struct status swap_fail(const struct cgroup_place *p, struct errmsg *msg)
{
    return status_fail(msg, STATUS_UNSUPPORTED, "%s: the kernel does not count swap", p->dir);
}

static struct status v1_limit(const struct cgroup_place *p, const struct cgroup_limits *limits,
                              struct errmsg *msg)
{
    if ((p->controllers & (1U << CGROUP_MEMORY)) != 0) {
        /* The limit with swap may not be below the one without: this order. */
        TRY(number_write(p, "memory.limit_in_bytes", limits->memory_bytes, msg));
        if (file_exists(p, "memory.memsw.limit_in_bytes")) {
            TRY(number_write(p, "memory.memsw.limit_in_bytes", limits->memory_bytes, msg));
        } else if (limits->swap_needed) {
            return swap_fail(p, msg);
        }
    }
    if ((p->controllers & (1U << CGROUP_CPU)) != 0) {
        TRY(number_write(p, "cpu.cfs_period_us", CPU_PERIOD_US, msg));
        TRY(number_write(p, "cpu.cfs_quota_us", (uint64_t)limits->cpu_millis * CPU_PERIOD_US / 1000,
                         msg));
        uint64_t shares = (uint64_t)limits->cpu_millis * CPU_SHARES_OF_ONE / 1000;
        shares = shares < CPU_SHARES_MIN ? CPU_SHARES_MIN : shares;
        TRY(number_write(p, "cpu.shares", shares, msg));
    }
    if ((p->controllers & (1U << CGROUP_PIDS)) != 0) {
        TRY(number_write(p, "pids.max", limits->pids_max, msg));
    }
    return (p->controllers & (1U << CGROUP_IO)) != 0 ? v1_io_limit(p, limits->io_bps, msg)
                                                     : status_ok();
}

static struct status v2_limit(const struct cgroup_place *p, const struct cgroup_limits *limits,
                              struct errmsg *msg)
{
    if ((p->controllers & (1U << CGROUP_MEMORY)) != 0) {
        TRY(number_write(p, "memory.max", limits->memory_bytes, msg));
        if (file_exists(p, "memory.swap.max")) {
            TRY(number_write(p, "memory.swap.max", 0, msg));
        } else if (limits->swap_needed) {
            return swap_fail(p, msg);
        }
        TRY(number_write(p, "memory.oom.group", 1, msg));
    }
    if ((p->controllers & (1U << CGROUP_CPU)) != 0) {
        char text[64];
        (void)snprintf(text, sizeof text, "%" PRIu64 " %d",
                       (uint64_t)limits->cpu_millis * CPU_PERIOD_US / 1000, CPU_PERIOD_US);
        TRY(file_write(p, "cpu.max", text, msg));
        uint64_t weight = (uint64_t)limits->cpu_millis * CPU_WEIGHT_OF_ONE / 1000;
        weight = weight < 1 ? 1 : weight;
        weight = weight > CPU_WEIGHT_MAX ? CPU_WEIGHT_MAX : weight;
        TRY(number_write(p, "cpu.weight", weight, msg));
    }
    if ((p->controllers & (1U << CGROUP_PIDS)) != 0) {
        TRY(number_write(p, "pids.max", limits->pids_max, msg));
    }
    return (p->controllers & (1U << CGROUP_IO)) != 0 ? v2_io_limit(p, limits->io_bps, msg)
                                                     : status_ok();
}

static const struct cgroup_place *place_of(const struct cgroup *g,
                                           enum cgroup_controller controller)
{
    for (size_t i = 0; i < g->count; i++) {
        if ((g->places[i].controllers & (1U << controller)) != 0) {
            return &g->places[i];
        }
    }
    return NULL;
}

struct status cgroup_limit(struct cgroup *g, const struct cgroup_limits *limits, struct errmsg *msg)
{
    if ((limits->io_needed || limits->io_bps != 0) && place_of(g, CGROUP_IO) == NULL) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "cgroup controller io (v1: blkio) is not mounted");
    }
    for (size_t i = 0; i < g->count; i++) {
        const struct cgroup_place *p = &g->places[i];
        TRY(p->v2 ? v2_limit(p, limits, msg) : v1_limit(p, limits, msg));
    }
    return status_ok();
}

struct status cgroup_attach(struct cgroup *g, pid_t pid, struct errmsg *msg)
{
    for (size_t i = 0; i < g->count; i++) {
        TRY(number_write(&g->places[i], "cgroup.procs", (uint64_t)pid, msg));
    }
    return status_ok();
}

struct status cgroup_watch_oom(struct cgroup *g, int *fd, short *events, struct errmsg *msg)
{
    const struct cgroup_place *p = place_of(g, CGROUP_MEMORY);
    *fd = -1;
    *events = 0;
    if (p == NULL) {
        return status_ok();
    }
    if (p->v2) {
        AUTO_CLOSE int file = openat(p->fd, "memory.events", O_RDONLY | O_CLOEXEC);
        if (file < 0) {
            return status_fail(msg, STATUS_IO, "%s/memory.events: %s", p->dir, strerror(errno));
        }
        *fd = fd_steal(&file);
        *events = POLLPRI;
        return status_ok();
    }
    AUTO_CLOSE int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    AUTO_CLOSE int control = openat(p->fd, "memory.oom_control", O_RDONLY | O_CLOEXEC);
    if (event < 0 || control < 0) {
        return status_fail(msg, STATUS_IO, "%s/memory.oom_control: %s", p->dir, strerror(errno));
    }
    char text[32];
    (void)snprintf(text, sizeof text, "%d %d", event, control);
    TRY(file_write(p, "cgroup.event_control", text, msg));
    *fd = fd_steal(&event);
    *events = POLLIN;
    return status_ok();
}

static uint64_t number_read(const struct cgroup_place *p, const char *file)
{
    char text[FILE_BYTES_MAX];
    uint64_t value = 0;
    if (!file_read(p->fd, file, text, sizeof text) || sscanf(text, "%" SCNu64, &value) != 1) {
        return 0;
    }
    return value;
}

static uint64_t keyed_read(const struct cgroup_place *p, const char *file, const char *key)
{
    char text[FILE_BYTES_MAX];
    uint64_t value = 0;
    if (!file_read(p->fd, file, text, sizeof text) || !cell_usage_find(text, key, &value)) {
        return 0;
    }
    return value;
}

void cgroup_count(const struct cgroup *g, struct cgroup_counters *out)
{
    *out = (struct cgroup_counters){0};
    const struct cgroup_place *memory = place_of(g, CGROUP_MEMORY);
    const struct cgroup_place *pids = place_of(g, CGROUP_PIDS);
    if (memory != NULL && memory->v2) {
        out->oom_kills = keyed_read(memory, "memory.events", "oom_kill");
        out->memory_limit_hits = keyed_read(memory, "memory.events", "max");
        out->memory_peak_bytes = number_read(memory, "memory.peak");
    } else if (memory != NULL) {
        out->oom_kills = keyed_read(memory, "memory.oom_control", "oom_kill");
        out->memory_limit_hits =
            number_read(memory, "memory.failcnt") + number_read(memory, "memory.memsw.failcnt");
        out->memory_peak_bytes = number_read(memory, "memory.max_usage_in_bytes");
    }
    if (pids != NULL) {
        out->pids_limit_hits = keyed_read(pids, "pids.events", "max");
    }
}

/* Removing. */

static void pause_ms(long ms)
{
    struct timespec pause = {.tv_sec = 0, .tv_nsec = ms * 1000000};
    (void)nanosleep(&pause, NULL);
}

bool cgroup_close_needs_override(const struct cgroup *g)
{
    for (size_t i = 0; i < g->count; i++) {
        const struct cgroup_place *p = &g->places[i];
        char above[sizeof p->dir];
        memcpy(above, p->dir, sizeof above);
        if (p->parents_made_at != 0) {
            above[p->parents_made_at] = '\0';
        }
        *strrchr(above, '/') = '\0';
        struct stat st;
        if (stat(above, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & S_IWUSR) == 0) {
            return true;
        }
    }
    return false;
}

bool cgroup_close(struct cgroup *g)
{
    bool gone = true;
    for (size_t i = 0; i < g->count; i++) {
        struct cgroup_place *p = &g->places[i];
        int error = rmdir(p->dir) == 0 ? 0 : errno;
        for (int ms = 0; error == EBUSY && ms < CGROUP_CLOSE_MS_MAX; ms += CLOSE_PAUSE_MS) {
            pause_ms(CLOSE_PAUSE_MS);
            error = rmdir(p->dir) == 0 ? 0 : errno;
        }
        gone = gone && (error == 0 || error == ENOENT);
        parents_remove(p);
        if (p->fd >= 0) {
            (void)close(p->fd);
        }
    }
    g->count = 0;
    return gone;
}

struct status cgroup_remove(const struct cgroup_mounts *mounts, const char *path,
                            struct errmsg *msg)
{
    struct status s = status_ok();
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        char dir[CGROUP_MOUNT_BYTES_MAX + CGROUP_PATH_BYTES_MAX];
        int size = snprintf(dir, sizeof dir, "%s/%s", mounts->of[i].path, path);
        if (mounts->of[i].path[0] == '\0' || (size_t)size >= sizeof dir) {
            continue;
        }
        if (rmdir(dir) != 0 && errno != ENOENT) {
            s = status_fail(msg, errno == EBUSY ? STATUS_CONFLICT : status_from_errno(errno),
                            "rmdir %s: %s", dir, strerror(errno));
        }
    }
    return s;
}

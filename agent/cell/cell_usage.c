#include "agent/cell/cell_usage.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 4096 };

bool cell_usage_find(const char *text, const char *key, uint64_t *value)
{
    size_t size = strlen(key);
    while (*text != '\0') {
        if (strncmp(text, key, size) == 0 && text[size] == ' ') {
            char *end = NULL;
            errno = 0;
            unsigned long long number = strtoull(text + size + 1, &end, 10);
            if (errno != 0 || end == text + size + 1 || (*end != '\n' && *end != '\0')) {
                return false;
            }
            *value = number;
            return true;
        }
        text += strcspn(text, "\n");
        text += *text == '\n' ? 1 : 0;
    }
    return false;
}

static struct status file_read(const struct cgroup_mount *mount, const char *path, const char *file,
                               char text[FILE_BYTES_MAX], struct errmsg *msg)
{
    char full[CGROUP_MOUNT_BYTES_MAX + CGROUP_PATH_BYTES_MAX + 64];
    if ((size_t)snprintf(full, sizeof full, "%s/%s/%s", mount->path, path, file) >= sizeof full) {
        return status_fail(msg, STATUS_LIMIT, "cgroup path is too long");
    }
    AUTO_CLOSE int fd = open(full, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, FILE_BYTES_MAX - 1);
    if (size < 0) {
        /* A group removed between open and read answers ENODEV. */
        enum status_code code = errno == ENODEV ? STATUS_NOT_FOUND : status_from_errno(errno);
        return status_fail(msg, code, "%s: %s", full, strerror(errno));
    }
    text[size] = '\0';
    return status_ok();
}

static struct status number_read(const struct cgroup_mount *mount, const char *path,
                                 const char *file, uint64_t *out, struct errmsg *msg)
{
    char text[FILE_BYTES_MAX];
    TRY(file_read(mount, path, file, text, msg));
    return sscanf(text, "%" SCNu64, out) == 1
               ? status_ok()
               : status_fail(msg, STATUS_IO, "%s/%s/%s: not a number", mount->path, path, file);
}

static struct status cpu_read(const struct cgroup_mounts *mounts, const char *path, uint64_t *out,
                              struct errmsg *msg)
{
    if (mounts->of[CGROUP_CPUACCT].path[0] != '\0') {
        uint64_t ns = 0;
        TRY(number_read(&mounts->of[CGROUP_CPUACCT], path, "cpuacct.usage", &ns, msg));
        *out = ns / 1000;
        return status_ok();
    }
    const struct cgroup_mount *cpu = &mounts->of[CGROUP_CPU];
    if (!cpu->v2) {
        return status_ok();
    }
    char text[FILE_BYTES_MAX];
    TRY(file_read(cpu, path, "cpu.stat", text, msg));
    return cell_usage_find(text, "usage_usec", out)
               ? status_ok()
               : status_fail(msg, STATUS_IO, "%s/%s/cpu.stat: no usage_usec", cpu->path, path);
}

struct status cell_usage_read(const struct cgroup_mounts *mounts, const char *path,
                              struct cell_usage *out, struct errmsg *msg)
{
    const struct cgroup_mount *memory = &mounts->of[CGROUP_MEMORY];
    const struct cgroup_mount *pids = &mounts->of[CGROUP_PIDS];
    if (memory->path[0] == '\0' || pids->path[0] == '\0') {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "cgroup controllers memory and pids are needed");
    }
    struct cell_usage usage = {0};
    TRY(number_read(memory, path, memory->v2 ? "memory.current" : "memory.usage_in_bytes",
                    &usage.memory_bytes, msg));
    struct status s =
        number_read(memory, path, memory->v2 ? "memory.peak" : "memory.max_usage_in_bytes",
                    &usage.memory_peak_bytes, msg);
    if (!status_is_ok(s) && s.code != STATUS_NOT_FOUND) {
        return s;
    }
    TRY(cpu_read(mounts, path, &usage.cpu_usage_us, msg));
    uint64_t count = 0;
    TRY(number_read(pids, path, "pids.current", &count, msg));
    count -= count > 0 ? 1 : 0; /* The sentry is none of the function's. */
    usage.pids = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
    *out = usage;
    return status_ok();
}

/* The small texts: cell.pid, a stat line, a mount table, a flat keyed file. */
#include "agent/cell/cell_client.h"
#include "agent/cell/cell_usage.h"
#include "agent/cell/cgroup.h"
#include "common/check.h"
#include "common/mem.h"
#include "common/process_stat.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cgroup_mounts mounts;
    struct errmsg msg = {""};
    struct cell_pid pid = {0};
    uint64_t value = 0;
    if (status_is_ok(cell_pid_decode(bytes_of(data, size), &pid, &msg))) {
        CHECK(pid.pid > 0);
    }
    char *text = mem_must(mem_alloc(size + 1));
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    bool parsed = status_is_ok(process_start_time_parse(text, &value));
    bool found = cell_usage_find(text, "oom_kill", &value);
    (void)parsed;
    (void)found;
    cgroup_mounts_parse(text, &mounts);
    cgroup_mounts_add_v2(&mounts, text);
    for (size_t i = 0; i < CGROUP_CONTROLLERS_COUNT_; i++) {
        CHECK(memchr(mounts.of[i].path, '\0', sizeof mounts.of[i].path) != NULL);
    }
    mem_free(text);
    return 0;
}

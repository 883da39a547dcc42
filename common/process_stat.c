#include "common/process_stat.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAT_BYTES_MAX = 1024, FIELDS_FROM_STATE_TO_START = 19 };

struct status process_start_time_parse(const char *stat, uint64_t *ticks)
{
    /* The name in field 2 may hold spaces and brackets: count from its last bracket. */
    const char *at = strrchr(stat, ')');
    if (at == NULL || at[1] != ' ' || at[2] == '\0') {
        return status_of(STATUS_INVALID);
    }
    at += 2;
    if (*at == 'Z' || *at == 'X') {
        return status_of(STATUS_NOT_FOUND);
    }
    for (int i = 0; i < FIELDS_FROM_STATE_TO_START; i++) {
        at = strchr(at, ' ');
        if (at == NULL) {
            return status_of(STATUS_INVALID);
        }
        at++;
    }
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(at, &end, 10);
    if (errno != 0 || end == at || (*end != ' ' && *end != '\0' && *end != '\n')) {
        return status_of(STATUS_INVALID);
    }
    *ticks = value;
    return status_ok();
}

struct status process_start_time(pid_t pid, uint64_t *ticks)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return status_of(status_from_errno(errno));
    }
    char text[STAT_BYTES_MAX];
    ssize_t size = read(fd, text, sizeof text - 1);
    if (size < 0) {
        return status_of(errno == ESRCH ? STATUS_NOT_FOUND : status_from_errno(errno));
    }
    text[size] = '\0';
    return process_start_time_parse(text, ticks);
}

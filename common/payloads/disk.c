#include "common/payloads/disk.h"

#include <sys/statvfs.h>

enum { LEAST_FRACTION = 20 };

bool disk_is_short(int fd, uint64_t bytes_min, struct disk_room *out)
{
    struct statvfs st;
    if (bytes_min == 0 || fstatvfs(fd, &st) != 0) {
        return false;
    }
    uint64_t free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
    uint64_t part = (uint64_t)st.f_blocks * st.f_frsize / LEAST_FRACTION;
    uint64_t least = part < bytes_min ? part : bytes_min;
    if (free_bytes >= least) {
        return false;
    }
    *out = (struct disk_room){.free_bytes = free_bytes, .least_bytes = least};
    return true;
}

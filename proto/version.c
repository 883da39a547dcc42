#include "proto/version.h"

#include <stdio.h>

void version_text(struct version_range r, char out[VERSION_TEXT_BYTES])
{
    if (r.min == r.max) {
        (void)snprintf(out, VERSION_TEXT_BYTES, "version %u", r.max);
    } else {
        (void)snprintf(out, VERSION_TEXT_BYTES, "versions %u to %u", r.min, r.max);
    }
}

struct status version_check(const char *own, const char *peer, const struct hello *hello,
                            struct errmsg *msg)
{
    const struct version_range theirs = {.min = hello->version_min, .max = hello->version_max};
    uint32_t lowest = theirs.min > version_own.min ? theirs.min : version_own.min;
    uint32_t highest = theirs.max < version_own.max ? theirs.max : version_own.max;
    if (lowest <= highest) {
        return status_ok();
    }
    char we[VERSION_TEXT_BYTES], they[VERSION_TEXT_BYTES];
    version_text(version_own, we);
    version_text(theirs, they);
    return status_fail(msg, STATUS_UNSUPPORTED,
                       "upgrade %.80s first, one version at a time: %.80s speaks protocol %s (Skep "
                       "%.20s), %.80s %s (Skep %.20s), and only neighbours work together",
                       theirs.max < version_own.min ? peer : own, own, we, SKEP_VERSION, peer, they,
                       hello->build);
}

#include "scheduler/api/members_policy.h"

int members_policy_dead(const struct policy_member *m, size_t count, uint64_t dead_after_ms)
{
    int dead = -1;
    size_t voters = 0, live = 0;
    for (size_t i = 0; i < count; i++) {
        voters += m[i].voter ? 1 : 0;
        live += m[i].voter && m[i].silent_ms == 0 ? 1 : 0;
        if (m[i].silent_ms >= dead_after_ms && m[i].silent_ms > 0 &&
            (dead < 0 || m[i].silent_ms > m[dead].silent_ms)) {
            dead = (int)i;
        }
    }
    if (dead < 0 || dead_after_ms == 0) {
        return -1;
    }
    size_t remain = voters - (m[dead].voter ? 1 : 0);
    return remain > 0 && live > remain / 2 ? dead : -1;
}

/* Which member is dead for good: the policy behind the setting schedulers.dead_after.
 *
 * Thread: any; there is no state. */
#ifndef SCHEDULER_API_MEMBERS_POLICY_H
#define SCHEDULER_API_MEMBERS_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Shortest time after which a member may be taken for dead. */
enum { MEMBERS_DEAD_AFTER_MS_MIN = 10 * 1000 };

struct policy_member {
    bool voter;
    uint64_t silent_ms; /* 0: connected, or this member itself */
};

/* The member to remove: the one that has been silent longest, for at least dead_after_ms. -1: none,
 * also when those that are connected would be no majority of the voters that remain, or when no
 * other voter would be left. dead_after_ms 0: the policy is off. */
int members_policy_dead(const struct policy_member *m, size_t count, uint64_t dead_after_ms);

#endif

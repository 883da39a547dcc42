/* Deadlines of many calls: a hashed timing wheel (Varghese and Lauck, SOSP 1987, scheme 6). Insert
 * and remove are O(1).
 *
 * Thread: the owner's. */
#ifndef SCHEDULER_CORE_WHEEL_H
#define SCHEDULER_CORE_WHEEL_H

#include <stdint.h>

enum { WHEEL_SLOTS = 1024, WHEEL_SLOT_US = 8192 };

/* Part of what has the deadline. All zeros: not in a wheel. */
struct wheel_entry {
    struct wheel_entry *prev, *next;
    uint64_t deadline_us;
};

struct wheel {
    struct wheel_entry slots[WHEEL_SLOTS]; /* ring heads */
    uint64_t slot; /* the next one to look at, in units of WHEEL_SLOT_US since time 0 */
};

void wheel_init(struct wheel *w, uint64_t now_us);
/* e is not in a wheel. */
void wheel_add(struct wheel *w, struct wheel_entry *e, uint64_t deadline_us);
/* e may be in no wheel. */
void wheel_remove(struct wheel_entry *e);
/* Takes out one entry whose deadline has passed, or NULL. A deadline is seen at most WHEEL_SLOT_US
 * late. */
struct wheel_entry *wheel_expired(struct wheel *w, uint64_t now_us);

#endif

#include "scheduler/core/wheel.h"

#include "common/check.h"

#include <stddef.h>

void wheel_init(struct wheel *w, uint64_t now_us)
{
    for (int i = 0; i < WHEEL_SLOTS; i++) {
        w->slots[i] = (struct wheel_entry){&w->slots[i], &w->slots[i], 0};
    }
    w->slot = now_us / WHEEL_SLOT_US;
}

void wheel_add(struct wheel *w, struct wheel_entry *e, uint64_t deadline_us)
{
    CHECK(e->next == NULL);
    /* A deadline in the past goes where the next look is. Rounding up: an entry is never seen too
     * early. */
    uint64_t slot = deadline_us / WHEEL_SLOT_US + 1;
    if (slot < w->slot) {
        slot = w->slot;
    }
    struct wheel_entry *head = &w->slots[slot % WHEEL_SLOTS];
    e->deadline_us = deadline_us;
    e->next = head;
    e->prev = head->prev;
    head->prev->next = e;
    head->prev = e;
}

void wheel_remove(struct wheel_entry *e)
{
    if (e->next == NULL) {
        return;
    }
    e->prev->next = e->next;
    e->next->prev = e->prev;
    e->next = NULL;
    e->prev = NULL;
}

struct wheel_entry *wheel_expired(struct wheel *w, uint64_t now_us)
{
    uint64_t last = now_us / WHEEL_SLOT_US;
    if (last > w->slot + WHEEL_SLOTS) {
        w->slot = last - WHEEL_SLOTS; /* After a long pause one round sees every slot. */
    }
    while (w->slot <= last) {
        struct wheel_entry *head = &w->slots[w->slot % WHEEL_SLOTS];
        for (struct wheel_entry *e = head->next; e != head; e = e->next) {
            if (e->deadline_us <= now_us) {
                wheel_remove(e);
                return e;
            }
        }
        if (w->slot == last) {
            break; /* This slot fills on while its time lasts. */
        }
        w->slot++;
    }
    return NULL;
}

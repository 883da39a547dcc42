#include "common/net/mailbox.h"

#include "common/check.h"

#include <stddef.h>

void mailbox_init(struct mailbox *box, uv_async_t *wake)
{
    atomic_init(&box->newest, NULL);
    box->wake = wake;
}

void mailbox_put(struct mailbox *box, struct letter *letter)
{
    /* Once the letter is in, the loop may free its owner and, with the last one, the box: what the
     * wake-up needs is read before. */
    uv_async_t *wake = box->wake;
    struct letter *before = atomic_load_explicit(&box->newest, memory_order_relaxed);
    do {
        letter->next = before;
    } while (!atomic_compare_exchange_weak_explicit(&box->newest, &before, letter,
                                                    memory_order_acq_rel, memory_order_relaxed));
    if (before == NULL) {
        CHECK(uv_async_send(wake) == 0);
    }
}

struct letter *mailbox_take(struct mailbox *box)
{
    struct letter *newest = atomic_exchange_explicit(&box->newest, NULL, memory_order_acq_rel);
    struct letter *oldest = NULL;
    while (newest != NULL) {
        struct letter *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

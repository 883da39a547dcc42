/* Letters from nng's threads to the loop: a lock-free list that any thread appends to and the loop
 * takes whole. Whoever puts the first letter into an empty box wakes the loop.
 *
 *     any thread: mailbox_put          loop: wake -> mailbox_take -> handle each letter
 *
 * A letter is a member of what its sender owns; the box never allocates. A letter may be put again
 * only after the loop has taken it.
 *
 * Thread: mailbox_put on any, the rest on the loop's. */
#ifndef COMMON_NET_MAILBOX_H
#define COMMON_NET_MAILBOX_H

#include <stdatomic.h>
#include <uv.h>

struct letter {
    struct letter *next;
    unsigned kind;
};

struct mailbox {
    _Atomic(struct letter *) newest;
    uv_async_t *wake;
};

/* wake must stay open for as long as letters are put. */
void mailbox_init(struct mailbox *box, uv_async_t *wake);

void mailbox_put(struct mailbox *box, struct letter *letter);

/* All letters, oldest first, linked by next; NULL when there are none. */
struct letter *mailbox_take(struct mailbox *box);

#endif

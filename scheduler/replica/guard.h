/* The place between libraft and the raft_io that stores and sends.
 *
 *     replica.c -> libraft -> guard -> replica_host.io (uv_host.c: raft_uv's disk; simulator's)
 *
 * Bare libraft 0.15 is not safe: it acknowledges what it has not checked, goes on after a failed
 * write, and more. What can be cured without changing the library is cured here, by looking at
 * everything that passes between it and the world. Each cure is one rule, has a name
 * (enum guard_cure), and a comment where it stands that says what it cures and which commits cured
 * it upstream. Only a simulator's host can switch cures off, to show that a cure is needed.
 *
 *     guard.c        what passes through, messages in and out, time
 *     guard_disk.c   writes: order, fail-stop, what is on the disk
 *     guard_conf.c   configurations: which are committed, rollback
 *
 * Not a cure of a bug but part of every one: messages leave only to members, or to whom we are just
 * answering, at the address the configuration or the received message names, as libraft reads the
 * leader's address from a union that may hold something else; answers from servers that are no
 * members are dropped.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_REPLICA_GUARD_H
#define SCHEDULER_REPLICA_GUARD_H

#include "common/status.h"

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef RAFT_VERSION_NUMBER
#error "this backend is for libraft 0.15; later ones have another I/O contract"
#endif

/* The rules. Names in notes of bugs: S1 hold, S2 clamp, S3 stale, S4 tick, S5 vote,
 * D1 and D2 fatal and close, D3 serial, D4 mark, P prefix, M conf. */
enum guard_cure {
    GUARD_HOLD = 1 << 0,   /* commit by counting only what the own term has appended */
    GUARD_CLAMP = 1 << 1,  /* acknowledge and commit only what has been compared */
    GUARD_STALE = 1 << 2,  /* no acknowledgement for a write that an older term began */
    GUARD_TICK = 1 << 3,   /* no candidacy while own writes are on their way */
    GUARD_VOTE = 1 << 4,   /* one vote a term, to a transferee, too */
    GUARD_FATAL = 1 << 5,  /* stop at the first failed write */
    GUARD_SERIAL = 1 << 6, /* one truncation or snapshot at a time */
    GUARD_MARK = 1 << 7,   /* a disk that has lost entries does not start */
    GUARD_PREFIX = 1 << 8, /* entries that a snapshot has replaced are not appended again */
    GUARD_CONF = 1 << 9,   /* configurations: committed ones in snapshots, exact rollback */
    GUARD_AGAIN = 1 << 10, /* nothing is appended over writes that were truncated on their way */
    GUARD_SEND = 1 << 11,  /* a transfer's send request is not used after it may have died */
    GUARD_ZERO = 1 << 12,  /* no uninitialised bytes in barriers */
    GUARD_CLOSE = 1 << 13, /* writes that end during closing do not truncate the log */
    GUARD_BALLOT =
        1 << 14, /* no vote is refused for a leader that is silent, or for the own role */
    GUARD_PREVOTE = 1 << 15, /* pre-votes between servers of different terms come to an end */
    GUARD_ARRIVED = 1 << 16, /* a lost answer to a snapshot is asked for again */
    GUARD_MERGE = 1 << 17,   /* one append at a time; what waits for it is the next one */
};
#define GUARD_CURES 18

/* Of an append that MERGE makes of several; one of libraft's may be larger. */
#define GUARD_MERGE_BYTES_MAX (UINT64_C(2) << 20)
enum { GUARD_MERGE_ENTRIES_MAX = 16384 };

/* "hold" ...; NULL when there is no such cure. */
const char *guard_cure_name(unsigned bit);
/* The cure's bit; 0: no such name. */
uint32_t guard_cure_find(const char *name);

struct guard_request;

/* Oldest first; `last` is nothing while `first` is NULL. */
struct guard_queue {
    struct guard_request *first;
    struct guard_request *last;
};

struct guard_conf {
    uint64_t index;
    struct raft_configuration conf;
};

/* The configurations in log and snapshot, from the last one the snapshot on disk has on. */
struct guard_confs {
    struct guard_conf *items;
    size_t count;
    size_t capacity;
};

/* What a message that libraft is being given allows it to answer. */
struct guard_answer {
    raft_id id; /* the sender; 0: no message is being handled */
    const char *address;
    bool is_append;
    uint64_t checked; /* of an append: the last index that it compares */
};

struct guard {
    struct raft_io io; /* what libraft is given */
    struct raft_io *base;
    struct raft *raft;
    void (*fatal)(void *data, const char *why);
    void *data;
    uint32_t cures_off; /* enum guard_cure; for simulators */
    uint64_t mark;      /* an entry that this disk held and that is committed; 0: not known */

    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_io_close_cb close;
    uint64_t ticks;
    unsigned depth; /* of calls into libraft from here */
    bool failed;
    bool closing;
    struct guard_answer answer;
    const struct guard_request *ending; /* whose completion libraft is being told */

    struct guard_queue held;        /* completions withheld after a failure */
    struct guard_queue flying;      /* appends that the base has */
    struct guard_queue waiting;     /* appends and truncations that it does not have yet */
    struct guard_request *put_next; /* a snapshot behind a barrier */
    unsigned writes;                /* appends and snapshots that libraft waits for */
    unsigned unfinished;            /* of these: appends and installations */
    unsigned cut;                   /* appends on their way that have been truncated since */
    bool put_over;                  /* it is stored, but the base's callback may still run */
    bool putting;                   /* the base has a snapshot to store */
    bool truncating;                /* and a truncation of which it is not known that it is done */
    bool installing;                /* from the request until libraft has restored the state */

    struct guard_confs confs;
    raft_id timeout_from; /* a TimeoutNow that waits for own writes; 0: none */
    struct raft_timeout_now timeout_now;
};

/* Puts a guard on base for raft; `fatal` is called once, from inside libraft, so it may only
 * take note. cures_off and mark may be set before raft_init. */
void guard_init(struct guard *g, struct raft_io *base, struct raft *raft,
                void (*fatal)(void *data, const char *why), void *data);
/* When libraft has been closed. */
void guard_end(struct guard *g);

/* Gives libraft a message; what the message owns is libraft's from here, whatever comes of it. */
void guard_receive(struct guard *g, struct raft_message *message);

/* Brackets a call into libraft that does not come through here (raft_apply and the like). */
void guard_enter(struct guard *g);
void guard_leave(struct guard *g);

/* Once a turn of the loop, outside of all callbacks: begins what had to wait. */
void guard_turn(struct guard *g);

/* Stops for good, as after a storage error. */
void guard_fail(struct guard *g, const char *what, int raft_code);

#endif

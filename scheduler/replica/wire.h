/* The messages between replicas: every Raft RPC of libraft 0.15, the parts of a snapshot and
 * their acknowledgements, as bounded, versioned, little-endian bytes. A message is
 *
 *     u8 version (1) | u8 type | u16 zero | body
 *
 * and is refused as a whole when anything in it is unknown, out of range, too short or too long.
 * What a decoder accepts is safe to hand to libraft, which checks little by itself.
 *
 * Thread: any; there is no shared state. */
#ifndef SCHEDULER_REPLICA_WIRE_H
#define SCHEDULER_REPLICA_WIRE_H

#include "common/buffer.h"
#include "common/status.h"
#include "scheduler/replica/replica.h"

#include <raft.h>

enum {
    WIRE_VERSION = 1,
    WIRE_ENTRIES_MAX = 65536,        /* entries in one message */
    WIRE_APPEND_BYTES_MAX = 4 << 20, /* payload of one append message, or one single entry */
    WIRE_ENTRY_BYTES_MAX =
        REPLICA_COMMAND_BYTES_MAX + 16, /* a command with its prefix and padding */
    WIRE_PART_BYTES_MAX = 1 << 20,      /* snapshot bytes in one part */
};
#define WIRE_SNAPSHOT_BYTES_MAX ((uint64_t)REPLICA_SNAPSHOT_BYTES_MAX + 4096)

enum wire_type {
    WIRE_APPEND = 1,
    WIRE_APPEND_RESULT = 2,
    WIRE_VOTE = 3,
    WIRE_VOTE_RESULT = 4,
    WIRE_PART = 5,
    WIRE_TIMEOUT_NOW = 6,
    WIRE_PART_ACK = 7,
};

/* One piece of an InstallSnapshot; offset and total count bytes of the snapshot. */
struct wire_part {
    uint64_t term;
    uint64_t last_index;
    uint64_t last_term;
    uint64_t conf_index;
    struct raft_configuration conf;
    uint64_t total;
    uint64_t offset;
    struct bytes data; /* borrowed from the input */
};

/* The receiver has the bytes of that snapshot below `received`. */
struct wire_part_ack {
    uint64_t last_index;
    uint64_t last_term;
    uint64_t received;
};

struct wire_message {
    enum wire_type type;
    union {
        struct raft_message raft; /* all other types; server_id and server_address are not set */
        struct wire_part part;
        struct wire_part_ack ack;
    };
};

/* Appends one AppendEntries message that carries entries [first, first + count) of `args` and is
 * complete by itself: the previous index and term are those of the entry before. NOMEM. */
NODISCARD struct status wire_put_append(struct buffer *out, const struct raft_append_entries *args,
                                        unsigned first, unsigned count);
/* Appends any other Raft message, except InstallSnapshot, which travels as parts. NOMEM. */
NODISCARD struct status wire_put(struct buffer *out, const struct raft_message *message);
NODISCARD struct status wire_put_part(struct buffer *out, const struct wire_part *part);
NODISCARD struct status wire_put_ack(struct buffer *out, const struct wire_part_ack *ack);

/* Decodes one whole message. The entries of an append are one raft_malloc array with one
 * raft_malloc batch, a part's configuration is allocated by libraft. INVALID for bytes that are
 * not such a message, NOMEM; *out is then not written. */
NODISCARD struct status wire_decode(struct bytes in, struct wire_message *out);

/* Frees what wire_decode allocated, when it was not handed to libraft. */
void wire_close(struct wire_message *m);

#endif

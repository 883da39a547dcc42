/* The plain structs that Skep's programs speak in: what the cores see. Made from the rows of
 * rows.h, where each field is listed.
 *
 * A row F(STR, function) of message `call` is `const char *function` in `struct call`; L(pair,
 * labels) is `struct pair *labels` with `size_t labels_count`; M(function_spec, spec) is `struct
 * function_spec *spec`. Texts and bytes are borrowed: from the arena after decoding, from whoever
 * filled the struct before encoding.
 *
 * Thread: any; no shared state. */
#ifndef PROTO_MESSAGE_H
#define PROTO_MESSAGE_H

#include "common/buffer.h"
#include "common/ids.h"
#include "proto/rows.h"

#include <stdint.h>

#define ROW_DECLARE_U32(name) uint32_t name;
#define ROW_DECLARE_U64(name) uint64_t name;
#define ROW_DECLARE_BOOL(name) bool name;
#define ROW_DECLARE_STR(name) const char *name;
#define ROW_DECLARE_BYTES(name) struct bytes name;
#define ROW_DECLARE_ID(name) struct id128 name;
#define ROW_DECLARE_DIGEST(name) struct digest name;
#define ROW_DECLARE_F(kind, name) ROW_DECLARE_##kind(name)
#define ROW_DECLARE_L(type, name)                                                                  \
    struct type *name;                                                                             \
    size_t name##_count;
#define ROW_DECLARE_M(type, name) struct type *name;
#define ROW_STRUCT(type, camel)                                                                    \
    struct type {                                                                                  \
        FIELDS_##type(ROW_DECLARE_F, ROW_DECLARE_L, ROW_DECLARE_M)                                 \
    };
#define ROW_STRUCT_BODY(type, camel, upper) ROW_STRUCT(type, camel)

PARTS(ROW_STRUCT)
MESSAGES(ROW_STRUCT_BODY)
COMMANDS(ROW_STRUCT_BODY)

enum message_type {
    MESSAGE_NONE,
#define ROW_ENUM(type, camel, upper) MESSAGE_##upper,
    MESSAGES(ROW_ENUM)
#undef ROW_ENUM
        MESSAGE_TYPE_COUNT_
};

struct message {
    enum message_type type;
    uint64_t request; /* pairs an answer with its question; 0: no answer expected */
    uint64_t term;    /* of the leader that commands, 0 elsewhere */
    union {
#define ROW_MEMBER(type, camel, upper) struct type type;
        MESSAGES(ROW_MEMBER)
    };
};

enum command_type {
    COMMAND_NONE,
#define ROW_ENUM(type, camel, upper) upper,
    COMMANDS(ROW_ENUM)
#undef ROW_ENUM
        COMMAND_TYPE_COUNT_
};

struct command {
    enum command_type type;
    uint64_t time_ms; /* Unix, stamped by the proposer */
    const char *by;   /* whose request caused it, as role/name */
    union {
        COMMANDS(ROW_MEMBER)
#undef ROW_MEMBER
    };
};

/* States of an instance, in instance_report.state. */
enum instance_state {
    INSTANCE_STARTING = 1,
    INSTANCE_READY = 2,
    INSTANCE_STOPPING = 3,
    INSTANCE_ENDED = 4,
};

/* States of a durable invocation, in outcome.state and state_job.state: QUEUED (waiting, delayed or
 * running) -> DONE, DEAD or CANCELED; DEAD -> QUEUED by redrive. */
enum invocation_state {
    INVOCATION_QUEUED = 1,
    INVOCATION_DONE = 2,
    INVOCATION_DEAD = 3,
    INVOCATION_CANCELED = 4,
};

/* Modes of a node, in command_node_set.mode. */
enum node_mode { NODE_MODE_NORMAL = 0, NODE_MODE_CORDONED = 1, NODE_MODE_DRAINING = 2 };

/* What a check of a canary found, in isolation_result.verdict. HELD: the wall stood; BREACHED: what
 * must not be reached was; NOT_APPLICABLE: there is nothing to try on this machine; NOT_RUN: it did
 * not come to an answer. */
enum isolation_verdict {
    ISOLATION_HELD = 1,
    ISOLATION_BREACHED = 2,
    ISOLATION_NOT_APPLICABLE = 3,
    ISOLATION_NOT_RUN = 4,
};
/* In one report, and of each text in it, with its NUL. */
enum { ISOLATION_RESULTS_MAX = 128, ISOLATION_CHECK_BYTES = 48, ISOLATION_DETAIL_BYTES = 200 };
/* "held", "not applicable"; "unknown" for numbers outside. */
const char *isolation_verdict_name(uint32_t verdict);

/* How a node's GPUs are looked for, in gpu_inventory.state. NONE: there is no driver or no device,
 * which is normal; STARTING: not read yet; FAILING: the driver answers with errors; SILENT: the
 * driver does not answer, what is known of the devices is old. */
enum gpu_state {
    GPU_STATE_NONE = 0,
    GPU_STATE_OFF = 1,
    GPU_STATE_STARTING = 2,
    GPU_STATE_OK = 3,
    GPU_STATE_FAILING = 4,
    GPU_STATE_SILENT = 5,
    GPU_STATE_SIMULATED = 6,
};
/* In gpu_report.health. FAILED: unfit for work until it is repaired or reset; DEGRADED: works,
 * needs attention. */
enum gpu_health { GPU_HEALTH_OK = 0, GPU_HEALTH_DEGRADED = 1, GPU_HEALTH_FAILED = 2 };
/* Which numbers of a gpu_report hold something. */
enum gpu_known {
    GPU_KNOWS_MEMORY = 1 << 0, /* memory_bytes and memory_used_bytes */
    GPU_KNOWS_BUSY = 1 << 1,
    GPU_KNOWS_TEMPERATURE = 1 << 2,
    GPU_KNOWS_POWER = 1 << 3,
    GPU_KNOWS_PROCESSES = 1 << 4,
    GPU_KNOWS_ECC = 1 << 5,
    GPU_KNOWS_ROWS = 1 << 6,
    GPU_KNOWS_PAGES = 1 << 7,
    GPU_KNOWS_XID = 1 << 8, /* errors are listened for; xid_count 0: there were none */
};
/* Of a node, MIG instances included, and of each text about them, with its NUL. */
enum { GPUS_MAX = 64, GPU_TEXT_BYTES = 96 };
/* "ok", "silent"; "unknown" for numbers outside. */
const char *gpu_state_name(uint32_t state);
const char *gpu_health_name(uint32_t health);

enum {
    PAYLOAD_BYTES_MAX = 4 << 20, /* of an invocation's input or output */
    CHUNK_BYTES_MAX = 256 << 10,
    SPAWN_INLINE_BYTES_MAX = 16 << 10, /* larger payloads stay outside the log */
    SPAWN_KEY_BYTES_MAX = 128,
    SPAWN_PRIORITY_MAX = 9, /* the most urgent; 1 is the least */
    SPAWN_PRIORITY_DEFAULT = 5,
    SPAWN_TTL_MS_DEFAULT = 24 * 3600 * 1000,
    SPAWN_TTL_MS_MAX = 7 * 24 * 3600 * 1000,
    SCHEDULES_MAX = 16, /* of a function */
};

struct arena;
/* A deep copy in the arena. NOMEM; *out is unchanged then. */
NODISCARD struct status function_spec_copy(struct arena *a, const struct function_spec *from,
                                           struct function_spec *out);

NODISCARD struct status image_spec_copy(struct arena *a, const struct image_spec *from,
                                        struct image_spec *out);

/* A deep copy in the arena for keeping what a peer said: at most GPUS_MAX devices, texts cut to
 * GPU_TEXT_BYTES and with '?' for each byte that is not printable ASCII. NOMEM; *out is unchanged
 * then. */
NODISCARD struct status gpu_inventory_copy(struct arena *a, const struct gpu_inventory *from,
                                           struct gpu_inventory *out);

/* The same of a canary's results: at most ISOLATION_RESULTS_MAX of them go to *out, which is in the
 * arena; *count says how many. NOMEM; nothing is changed then. */
NODISCARD struct status isolation_results_copy(struct arena *a, const struct isolation_report *from,
                                               struct isolation_result **out, size_t *count);

/* "call", "node_register"; "none" for numbers outside. */
const char *message_type_name(enum message_type type);
const char *command_type_name(enum command_type type);

#endif

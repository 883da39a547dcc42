/* The function manifest: what skep.yaml says about a function, with every default filled in, as a
 * plain struct that needs no YAML. common/manifest_load.h reads the file.
 *
 * Thread: the owner's; no shared state. */
#ifndef COMMON_MANIFEST_H
#define COMMON_MANIFEST_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/manifest_limits.h"
#include "common/status.h"

#include <stdint.h>

enum runtime { RUNTIME_PYTHON, RUNTIME_C, RUNTIME_COMMAND, RUNTIME_COUNT_ };

/* How its payloads are to be handled. phi: protected health information. */
enum data_class { DATA_CLASS_PUBLIC, DATA_CLASS_INTERNAL, DATA_CLASS_PHI, DATA_CLASS_COUNT_ };

/* cell: Skep's own walls. gvisor: gVisor's kernel between the function and the machine's. */
enum isolation_kind { ISOLATION_CELL, ISOLATION_GVISOR, ISOLATION_COUNT_ };

struct text_pair {
    char *key;
    char *value;
};

/* A time that comes again, and what is spawned then. */
struct manifest_schedule {
    struct name name;
    char *cron; /* as common/cron.h reads it */
    char *payload;
    uint32_t catch_up; /* missed times that are made up for after an outage */
};

/* Everything inside is heap (mem_alloc) and belongs to the manifest. env and require are sorted by
 * key; keys differ. */
struct manifest {
    struct name name;
    enum runtime runtime;
    /* python: FILE.py:FUNCTION; c: the path of the program; both relative to the code's folder.
     * command: NULL. */
    char *handler;
    char *image;    /* NAME or NAME@sha256:DIGEST; NULL: the node's own root */
    char **command; /* runtime command only: argv */
    size_t command_count;
    uint32_t cpu_millis;
    uint64_t memory_bytes;
    uint64_t tmp_bytes;
    uint32_t processes_max;
    uint32_t scale_min;
    uint32_t scale_max;
    uint32_t concurrency;
    uint64_t idle_ms;
    uint32_t queue_max;  /* calls waiting for an instance; one more is refused */
    uint64_t timeout_ms; /* of one attempt */
    uint64_t startup_timeout_ms;
    struct text_pair *env;
    size_t env_count;
    struct text_pair *require; /* labels that a node must have */
    size_t require_count;
    /* what it may reach, as canonical texts of common/egress_rule.h; none: nothing */
    char **egress;
    size_t egress_count;
    uint32_t gpu_count;        /* devices of an instance; 0: none, and the two below are not set */
    char *gpu_model;           /* words of the model's name, or a MIG profile; NULL: any */
    uint64_t gpu_memory_bytes; /* of each device, at least */
    /* Of durable invocations. A failed attempt is tried again up to retries_max times, after
     * backoff, backoff * factor, ... at most cap. */
    uint32_t retries_max;
    uint64_t retry_backoff_ms;
    uint32_t retry_factor_milli;
    uint64_t retry_cap_ms;
    uint32_t running_max;       /* attempts at once; 0: no limit */
    uint32_t rate_milli;        /* starts a second, in thousandths; 0: no limit */
    uint32_t rate_burst;        /* starts at once after a rest; 0: none is given */
    uint32_t durable_queue_max; /* queued ones; one more is refused */
    uint64_t queue_age_ms;      /* one queued for longer fails; 0: none does */
    uint32_t poison_max;        /* an input that ended so many instances is not tried again */
    enum data_class data_class;
    enum isolation_kind isolation;
    struct manifest_schedule *schedules; /* in the order of the file */
    size_t schedules_count;
};

/* All defaults, no name, no handler. Infallible. */
void manifest_init(struct manifest *m);
/* Frees what is inside. Safe on zeroed memory and twice. */
void manifest_close(struct manifest *m);

/* "python", "c", "command". */
const char *runtime_name(enum runtime runtime);
NODISCARD struct status runtime_parse(const char *text, enum runtime *out, struct errmsg *msg);

/* "public", "internal", "phi". */
const char *data_class_name(enum data_class data_class);
NODISCARD struct status data_class_parse(const char *text, enum data_class *out,
                                         struct errmsg *msg);

/* "cell", "gvisor". */
const char *isolation_name(enum isolation_kind isolation);
NODISCARD struct status isolation_parse(const char *text, enum isolation_kind *out,
                                        struct errmsg *msg);

/* Appends a copy of the pair, keeping the list sorted by key. EXISTS for a key that is there,
 * NOMEM; unchanged then. */
NODISCARD struct status text_pairs_put(struct text_pair **pairs, size_t *count, const char *key,
                                       const char *value);
void text_pairs_close(struct text_pair *pairs, size_t count);

/* A node's label: the key is a name, the value [A-Za-z0-9._-]{1,63}. INVALID or LIMIT with a
 * message. */
NODISCARD struct status label_check(const char *key, const char *value, struct errmsg *msg);

/* Is every value within its bounds and do they fit together? The one validator: the loader and
 * whoever receives a manifest from a peer use it. On failure (INVALID, LIMIT) key holds the dotted
 * path of the faulty key as in skep.yaml ("scaling.max") and msg what is wrong with it, without the
 * key. */
NODISCARD struct status manifest_check(const struct manifest *m, char key[MANIFEST_KEY_BYTES],
                                       struct errmsg *msg);

/* Appends the canonical text: the same for equal manifests, different for different ones, on every
 * machine. The revision's digest is taken over it and the chunks' digests. NOMEM. */
NODISCARD struct status manifest_canonical(const struct manifest *m, struct buffer *out);

#endif

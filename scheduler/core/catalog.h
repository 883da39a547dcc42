/* The replicated state: functions and their revisions, nodes, tokens, revocations, settings,
 * schedulers. Applying a command is deterministic: the same commands in the same order give the
 * same catalog on every replica, and catalog_digest proves it.
 *
 * Out of memory while applying ends the process: a replica that cannot follow must stop.
 * Thread: the core's. */
#ifndef SCHEDULER_CORE_CATALOG_H
#define SCHEDULER_CORE_CATALOG_H

#include "common/arena.h"
#include "common/hash.h"
#include "common/status.h"
#include "proto/message.h"
#include "scheduler/core/images.h"
#include "scheduler/core/jobs.h"
#include "scheduler/core/keys.h"

enum {
    CATALOG_FUNCTIONS_MAX = 10000,
    CATALOG_REVISIONS_MAX = 10, /* of one function; older ones are forgotten */
    CATALOG_NODES_MAX = 5000,
    CATALOG_TOKENS_MAX = 1000,
    CATALOG_REVOKED_MAX = 10000,
    CATALOG_SETTINGS_MAX = 256,
    CATALOG_SCHEDULERS_MAX = 16,
    CATALOG_TEXT_BYTES_MAX = 256,
};

struct catalog_revision {
    struct digest id;
    struct function_spec spec; /* in arena */
    struct arena arena;
    uint64_t index;   /* of the command that made it */
    uint64_t time_ms; /* Unix */
    struct catalog_revision *prev, *next;
};

struct catalog_function {
    char name[NAME_BYTES_MAX + 1];
    struct digest current;
    uint64_t index;                     /* of the last change */
    struct catalog_revision *revisions; /* oldest first */
    UT_hash_handle hh;
};

struct catalog_node {
    char name[NAME_BYTES_MAX + 1];
    uint32_t mode; /* enum node_mode */
    uint64_t index;
    char reason[CATALOG_TEXT_BYTES_MAX]; /* of the mode; may be empty */
    UT_hash_handle hh;
};

struct catalog_token {
    char id[CATALOG_TEXT_BYTES_MAX];
    char role[CATALOG_TEXT_BYTES_MAX];
    char name[NAME_BYTES_MAX + 1];
    uint64_t expires_ms;
    char used_by[CATALOG_TEXT_BYTES_MAX]; /* empty: not used */
    UT_hash_handle hh;
};

struct catalog_revoked {
    char what[CATALOG_TEXT_BYTES_MAX]; /* a certificate's serial, or role/name */
    char reason[CATALOG_TEXT_BYTES_MAX];
    uint64_t time_ms;
    UT_hash_handle hh;
};

struct catalog_setting {
    char key[CATALOG_TEXT_BYTES_MAX];   /* a setting's key, or a scheduler's name */
    char value[CATALOG_TEXT_BYTES_MAX]; /* its value, or its address */
    UT_hash_handle hh;
};

struct catalog {
    uint64_t index;   /* of the last command applied */
    uint64_t time_ms; /* never goes back */
    struct catalog_function *functions;
    struct catalog_node *nodes;
    struct catalog_token *tokens;
    struct catalog_revoked *revoked;
    struct catalog_setting *settings;
    struct catalog_setting *schedulers;
    struct job_table jobs;
    struct key_table keys;
    struct image_table images;
};

/* All zeros is a valid empty catalog. */
void catalog_close(struct catalog *c);

/* Applies one committed command. The result is what its proposer is told; a command that is refused
 * changes nothing but index and time. */
struct status catalog_apply(struct catalog *c, uint64_t index, const struct command *cmd,
                            struct errmsg *msg);

struct catalog_function *catalog_function_find(const struct catalog *c, const char *name);
struct catalog_revision *catalog_revision_find(const struct catalog_function *f,
                                               const struct digest *id);
/* The revision that calls go to; never NULL. */
struct catalog_revision *catalog_current(const struct catalog_function *f);
struct catalog_node *catalog_node_find(const struct catalog *c, const char *name);
struct catalog_token *catalog_token_find(const struct catalog *c, const char *id);
const char *catalog_setting_find(const struct catalog *c, const char *key, const char *otherwise);
/* Is the certificate with this serial, or this role and name, revoked? */
bool catalog_is_revoked(const struct catalog *c, const char *serial, const char *role,
                        const char *name);

/* The whole state as plain structs that borrow from c and live in the arena. NOMEM. */
NODISCARD struct status catalog_export(const struct catalog *c, struct arena *a, struct state *out);
/* Replaces the whole state. CORRUPT for texts over their limits; c is empty then. */
NODISCARD struct status catalog_import(struct catalog *c, const struct state *s,
                                       struct errmsg *msg);
/* Takes functions, settings (in place of those of the same key) and schedules' times into a catalog
 * without functions, from a state that catalog_import has been seen to take. Settings beyond
 * CATALOG_SETTINGS_MAX are left out. */
void catalog_adopt(struct catalog *c, const struct state *s);

/* FNV-1a over everything, to compare replicas after every command
 * (www.isthe.com/chongo/tech/comp/fnv). */
uint64_t catalog_digest(const struct catalog *c);

#endif

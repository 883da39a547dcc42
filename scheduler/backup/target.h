/* Where scheduled backups are kept: a folder or an S3 bucket.
 *
 *     CLUSTER-20270131T083000Z-INDEX.skepbackup
 *
 * Names tell when a backup was made and from which state, and sort so. What has another name, or
 * another cluster's, is neither listed nor removed. A folder also has .new.NAME while one is
 * written; one that a killed scheduler left is removed by a listing once it is TARGET_NEW_S old.
 *
 * Thread: one at a time, blocking; never the loop's. */
#ifndef SCHEDULER_BACKUP_TARGET_H
#define SCHEDULER_BACKUP_TARGET_H

#include "common/config.h"
#include "common/status.h"

#include <stdatomic.h>
#include <stdint.h>

enum {
    TARGET_NAME_BYTES = 128,
    TARGET_ENTRIES_MAX = 20000, /* of one listing */
    TARGET_NEW_S = 3600,
};

struct target_entry {
    char name[TARGET_NAME_BYTES];
    uint64_t time_ms; /* Unix, whole seconds */
    uint64_t index;
    uint64_t bytes;
};

struct target_list {
    struct target_entry *items; /* newest first */
    size_t count, capacity;
};

struct target;

/* Reads the credentials file when there is one. canceled: once it is set, what is under way fails
 * soon; borrowed. INVALID, DENIED (a credentials file that others may read), NOT_FOUND, NOMEM. */
NODISCARD struct status target_open(struct target **out, const struct config_backup *config,
                                    const struct name *cluster, const atomic_bool *canceled,
                                    struct errmsg *msg);
void target_close(struct target *t); /* frees t; NULL is fine */

/* UNAVAILABLE, DENIED, NOT_FOUND, IO, LIMIT. */
NODISCARD struct status target_list(struct target *t, struct target_list *out, struct errmsg *msg);
void target_list_close(struct target_list *l);
/* Copies the whole file of that descriptor; it is there as a whole or not at all. */
NODISCARD struct status target_put(struct target *t, const char *name, int fd, uint64_t bytes,
                                   struct errmsg *msg);
/* One that is not there is fine. */
NODISCARD struct status target_remove(struct target *t, const char *name, struct errmsg *msg);

void target_name(const struct name *cluster, uint64_t time_ms, uint64_t index,
                 char out[TARGET_NAME_BYTES]);
/* Is it the name of a backup of this cluster? Fills in all but bytes. */
bool target_name_parse(const struct name *cluster, const char *name, size_t size,
                       struct target_entry *out);
/* NOMEM, LIMIT. */
NODISCARD struct status target_list_add(struct target_list *l, const struct target_entry *e);

#endif

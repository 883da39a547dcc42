/* Making a backup: the state is pinned on the loop, everything else happens on a thread of its own:
 *
 *     pin -> encode, chunks, payloads -> a file that no folder names any more -> done
 *
 * Failures: another pin is held (a snapshot is being stored: try again soon), the disk is nearly
 * full, code or a payload that the state names is not here (yet), canceled.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_API_BACKUP_MAKE_H
#define SCHEDULER_API_BACKUP_MAKE_H

#include "common/backup/backup.h"
#include "scheduler/api/server_internal.h"

#define BACKUP_TMP_FOLDER "backup-tmp"

/* How it ended. The file, open for reading, is for whoever is told: fd is -1 after a failure. */
struct made {
    struct status status;
    const char *why;
    int fd;
    uint64_t bytes, time_ms, index;
    struct backup_totals totals;
};

struct making;
/* Called once, on the loop. */
typedef void (*made_fn)(void *data, const struct made *made);

/* UNAVAILABLE: not now, for a moment. Other failures last longer. done is not called then. */
NODISCARD struct status making_start(struct server *s, made_fn done, void *data,
                                     struct making **out, struct errmsg *msg);
/* It ends soon; done is called all the same. */
void making_cancel(struct making *m);
/* The whole state is about to be replaced: ends those that still read it, and waits for that. */
void makings_unpin(struct server *s);

/* Makes the folder of temporary files and removes what a crash left there. */
NODISCARD struct status making_folder(const struct server *s, struct errmsg *msg);

#endif

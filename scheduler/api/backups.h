/* Backups, as users and the schedule ask for them (docs/backup.md).
 *
 * A user's, in order: backup_get at offset 0 -> the state is pinned and written to a file
 * (backup_make.h) -> backup_data, piece by piece at the user's pull -> the end: the file goes.
 * Failures: too many at once; not the leader, unless stale is set; the connection closes or is idle
 * for BACKUP_IDLE_MS: the file goes.
 *
 * A restore, in order: the user has put code and payloads -> backup_data with a piece of the state
 * -> command_restore -> ... -> the last piece replaces the empty state (scheduler/core/restore.h).
 *
 * Scheduled ones (backup_schedule.c): the leader looks at the target now and then: the newest there
 * is too old -> makes one -> puts it there -> removes those beyond `keep`. The next leader needs no
 * more than the target's own list to go on.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_API_BACKUPS_H
#define SCHEDULER_API_BACKUPS_H

#include "scheduler/api/server_internal.h"

enum {
    BACKUPS_MAX = 2, /* users' at once */
    BACKUP_PIECE_SENT_BYTES = 512 << 10,
    BACKUP_IDLE_MS = 120 * 1000,
    BACKUP_PIN_MS = 30 * 1000, /* how long one waits for another pin to end */
};

NODISCARD struct status backups_open(struct server *s, struct errmsg *msg);
/* Ends what is under way, then calls stopped, perhaps from inside. */
void backups_stop(struct server *s, void (*stopped)(struct server *s));
void backups_close(struct server *s); /* after stopped */
/* backup_get, and backup_data as a piece to restore. */
void backups_receive(struct server *s, struct session *from, const struct message *m);
/* The question "backups": what the target holds. */
void backups_query(struct server *s, struct session *from, const struct message *m);
void backups_session_closed(struct server *s, uint64_t handle);
void backups_tick(struct server *s, uint64_t now_us);

#endif

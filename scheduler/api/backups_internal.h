/* What backups.c and backup_schedule.c share. */
#ifndef SCHEDULER_API_BACKUPS_INTERNAL_H
#define SCHEDULER_API_BACKUPS_INTERNAL_H

#include "scheduler/api/backup_make.h"
#include "scheduler/api/backups.h"

struct backup_read;
struct backup_schedule;

struct backups {
    struct server *server;
    struct backup_read *reads; /* users' */
    size_t reads_count;
    uint64_t restore_session; /* whose pieces are taken */
    struct id128 restore;
    struct backup_schedule *schedule; /* NULL: none is configured */
    unsigned under_way;               /* what calls back */
    void (*stopped)(struct server *s);
    /* For metrics. */
    uint64_t made, failed, stored, store_failures, removed;
    uint64_t stored_at_s, stored_bytes, stored_us;
};

/* Something that calls back ends: it may be what backups_stop waits for. */
void backups_ended(struct backups *b);

/* backup_schedule.c */
NODISCARD struct status schedule_open(struct backups *b, struct errmsg *msg);
void schedule_close(struct backups *b);
void schedule_stop(struct backups *b);
void schedule_tick(struct backups *b, uint64_t now_us);
void schedule_query(struct backups *b, struct session *from, const struct message *m);

#endif

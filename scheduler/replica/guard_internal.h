/* What the parts of the guard share; see guard.h. */
#ifndef SCHEDULER_REPLICA_GUARD_INTERNAL_H
#define SCHEDULER_REPLICA_GUARD_INTERNAL_H

#include "scheduler/replica/guard.h"

enum guard_request_kind { GUARD_APPEND, GUARD_TRUNCATE, GUARD_PUT, GUARD_GET };

/* Stands for a request of libraft at the base, so that its completion passes here first. */
struct guard_request {
    struct guard *guard;
    struct guard_request *next;
    enum guard_request_kind kind;
    int status;
    bool install;                     /* of a put: it replaces the log */
    bool is_cut;                      /* of an append: truncated on its way */
    bool confirms;                    /* of an append: the first after a truncation */
    uint64_t term;                    /* of the server when it began */
    uint64_t first;                   /* of an append; of a truncation: where */
    uint64_t last;                    /* of an append: what of it still counts */
    unsigned trailing;                /* of a put */
    const struct raft_entry *entries; /* of an append; libraft's until the completion */
    unsigned count;
    unsigned group;                       /* of an append: requests that are one at the base */
    struct raft_entry *merged;            /* their entries, owned; NULL: it is alone */
    const struct raft_snapshot *snapshot; /* of a put; likewise */
    struct raft_buffer *bufs;             /* of an installation: the array */
    union {
        struct raft_io_append append;
        struct raft_io_snapshot_put put;
        struct raft_io_snapshot_get get;
    } base;
    union {
        struct raft_io_append *append;
        struct raft_io_snapshot_put *put;
        struct raft_io_snapshot_get *get;
    } user;
    union {
        raft_io_append_cb append;
        raft_io_snapshot_put_cb put;
        raft_io_snapshot_get_cb get;
    } cb;
};

static inline struct guard *guard_of(struct raft_io *io)
{
    return io->impl;
}

static inline bool guard_has(const struct guard *g, enum guard_cure cure)
{
    return (g->cures_off & (uint32_t)cure) == 0;
}

/* The term of an entry that is in libraft's log or is its snapshot's last; 0: neither. */
uint64_t guard_term_of(const struct raft_log *log, uint64_t index);

/* Frees what a raft_io has loaded; entries of one segment batch share one allocation. */
void guard_loaded_free(struct raft_snapshot *snapshot, struct raft_entry *entries, size_t count);

/* guard_disk.c: the disk's half of a raft_io. */
int guard_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[],
                 unsigned n, raft_io_append_cb cb);
int guard_truncate(struct raft_io *io, raft_index index);
int guard_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                       const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb);
int guard_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                       raft_io_snapshot_get_cb cb);
int guard_set_term(struct raft_io *io, raft_term term);
int guard_set_vote(struct raft_io *io, raft_id id);
/* Gives libraft everything that was withheld or waits. Only while closing. */
void guard_disk_release(struct guard *g);
/* Everything that waits will never begin. After a failure. */
void guard_disk_hold(struct guard *g);

/* guard_conf.c */
void guard_conf_close(struct guard *g);
/* What has been loaded. NOMEM or MALFORMED of libraft's. */
int guard_conf_loaded(struct guard *g, const struct raft_snapshot *snapshot, uint64_t first,
                      const struct raft_entry *entries, size_t count);
/* libraft has taken over what was loaded and is about to begin. */
void guard_conf_started(struct guard *g);
int guard_conf_appended(struct guard *g, uint64_t first, const struct raft_entry *entries,
                        unsigned count);
void guard_conf_truncated(struct guard *g, uint64_t index);
/* Puts the right configuration into a snapshot of the own state. */
int guard_conf_snapshot(struct guard *g, struct raft_snapshot *snapshot);
/* An installation replaces all. */
int guard_conf_replaced(struct guard *g, const struct raft_snapshot *snapshot);
/* Rolls libraft's configuration back when this message will truncate the one in force. */
int guard_conf_rollback(struct guard *g, const struct raft_append_entries *args);
/* After any call into libraft. */
void guard_conf_settle(struct guard *g);

#endif

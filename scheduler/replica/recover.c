/* A cluster of one out of what a lost majority has left, and the last entry of a folder, by which
 * the survivor with the most is found. libraft reads the folder, on a loop of its own; the member
 * must be stopped.
 *
 * libraft's raft_recover appends a configuration to the log, with term 1, whatever terms are
 * before it. A member that has it as its last entry would let anybody with an entry of a later term
 * replace it, but nobody else is left: the others are wiped before they are added again. */
#include "scheduler/replica/chores.h"
#include "scheduler/replica/guard_internal.h"
#include "scheduler/replica/uv_host.h"

#include "common/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

/* raft_uv on a folder, for as long as it takes to look at it. */
struct visit {
    uv_loop_t loop;
    struct raft_uv_transport transport;
    struct raft_io io;
};

/* The lock on a folder that holds a member's state. */
static struct status folder_take(const char *folder, int *lock, struct errmsg *msg)
{
    TRY(folder_check(folder, msg));
    if (replica_folder_empty(folder)) {
        return status_fail(msg, STATUS_NOT_FOUND, "%s holds no state of a scheduler", folder);
    }
    return folder_lock(folder, lock, msg);
}

/* The folder is locked. */
static struct status visit_open(struct visit *v, const char *folder, uint64_t id,
                                const char *address, struct errmsg *msg)
{
    *v = (struct visit){0};
    TRY(folder_fill_segments(folder, SEGMENT_BYTES, msg));
    if (uv_loop_init(&v->loop) != 0) {
        return status_fail(msg, STATUS_NOMEM, "event loop");
    }
    int rv = uv_disk_init(&v->io, &v->transport, &v->loop, folder);
    if (rv == 0) {
        rv = v->io.init(&v->io, id, address);
        if (rv == 0) {
            return status_ok();
        }
        raft_uv_close(&v->io);
    }
    struct status s =
        status_fail(msg, status_from_raft(rv).code, "open %s: %s", folder, v->io.errmsg);
    (void)uv_run(&v->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&v->loop);
    return s;
}

static void visit_closed(struct raft_io *io)
{
    (void)io;
}

static void visit_close(struct visit *v)
{
    v->io.close(&v->io, visit_closed);
    (void)uv_run(&v->loop, UV_RUN_DEFAULT);
    raft_uv_close(&v->io);
    (void)uv_loop_close(&v->loop);
}

static struct status visit_last(struct visit *v, const char *folder, uint64_t *term,
                                uint64_t *index, struct errmsg *msg)
{
    raft_term current;
    raft_id vote;
    raft_index start;
    struct raft_snapshot *snapshot = NULL;
    struct raft_entry *entries = NULL;
    size_t count = 0;
    int rv = v->io.load(&v->io, &current, &vote, &snapshot, &start, &entries, &count);
    if (rv != 0) {
        return status_fail(msg, status_from_raft(rv).code, "%s: %.180s; %s", folder, v->io.errmsg,
                           FOLDER_CURE);
    }
    *index = count > 0 ? start + count - 1 : snapshot == NULL ? 0 : snapshot->index;
    *term = count > 0 ? entries[count - 1].term : snapshot == NULL ? 0 : snapshot->term;
    guard_loaded_free(snapshot, entries, count);
    return status_ok();
}

/* The folder is locked. */
static struct status folder_last(const char *folder, uint64_t *term, uint64_t *index,
                                 struct errmsg *msg)
{
    struct visit v;
    TRY(visit_open(&v, folder, 1, "127.0.0.1:1", msg));
    struct status s = visit_last(&v, folder, term, index, msg);
    visit_close(&v);
    return s;
}

struct status replica_folder_last(const char *folder, uint64_t *term, uint64_t *index,
                                  struct errmsg *msg)
{
    AUTO_CLOSE int lock = -1;
    TRY(folder_take(folder, &lock, msg));
    return folder_last(folder, term, index, msg);
}

struct status replica_recover(const struct replica_config *config,
                              const struct replica_member *member, struct errmsg *msg)
{
    TRY(replica_config_check(config, msg));
    if (member->id != config->id || member->role != REPLICA_VOTER) {
        return status_fail(msg, STATUS_INVALID, "only the member itself can be the one that stays");
    }
    uint64_t term, index;
    AUTO_CLOSE int lock = -1;
    TRY(folder_take(config->folder, &lock, msg));
    TRY(folder_last(config->folder, &term, &index, msg));
    uint64_t mark = folder_mark_read(config->folder);
    struct raft_configuration conf;
    TRY(replica_configuration(member, 1, &conf, msg));
    struct visit v;
    struct status s = visit_open(&v, config->folder, config->id, config->address, msg);
    if (status_is_ok(s)) {
        int rv = v.io.recover(&v.io, &conf);
        if (rv != 0) {
            s = status_fail(msg, status_from_raft(rv).code, "recover %s: %s", config->folder,
                            v.io.errmsg);
        }
        visit_close(&v);
    }
    raft_configuration_close(&conf);
    if (status_is_ok(s) && mark > index) {
        folder_mark_remove(config->folder); /* what it says was there is lost for good */
    }
    return s;
}

bool replica_folder_waits(const char *folder)
{
    char path[CHORES_PATH_BYTES_MAX];
    int length = snprintf(path, sizeof path, "%s/" FOLDER_REJOIN, folder);
    return length > 0 && (size_t)length < sizeof path && access(path, F_OK) == 0;
}

static struct status wipe_locked(const char *folder, struct errmsg *msg)
{
    DIR *d = opendir(folder);
    if (d == NULL) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", folder, strerror(errno));
    }
    /* First, so that a crash in between leaves no folder that would be bootstrapped. */
    int fd = openat(dirfd(d), FOLDER_REJOIN, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool failed = fd < 0 || fsync(fd) != 0 || fsync(dirfd(d)) != 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    if (!failed) {
        folder_staging_remove(folder);
    }
    for (struct dirent *e = readdir(d); e != NULL && !failed; e = readdir(d)) {
        bool kept = e->d_name[0] == '.' || strcmp(e->d_name, FOLDER_REJOIN) == 0 ||
                    strcmp(e->d_name, FOLDER_LOCK) == 0;
        failed = !kept && unlinkat(dirfd(d), e->d_name, 0) != 0;
    }
    failed = failed || fsync(dirfd(d)) != 0;
    int error = errno;
    (void)closedir(d);
    return failed
               ? status_fail(msg, status_from_errno(error), "empty %s: %s", folder, strerror(error))
               : status_ok();
}

struct status replica_wipe(const char *folder, struct errmsg *msg)
{
    AUTO_CLOSE int lock = -1;
    TRY(folder_lock(folder, &lock, msg));
    return wipe_locked(folder, msg);
}

/* The first configuration of a new cluster.
 *
 * libraft writes term and first segment as separate files, so a crash between them would leave a
 * folder that looks used but holds no configuration. So they are made in a folder inside and
 * moved out, metadata last; metadata is also what tells an empty folder from a used one. */
#include "scheduler/replica/uv_host.h"

#include "common/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

bool replica_folder_empty(const char *folder)
{
    AUTO_CLOSE int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return errno == ENOENT;
    }
    return faccessat(dir, "metadata1", F_OK, 0) != 0 && faccessat(dir, "metadata2", F_OK, 0) != 0;
}

static struct status io_failed(struct errmsg *msg, const char *what, const char *path)
{
    int error = errno;
    return status_fail(msg, status_from_errno(error), "%s %s: %s", what, path, strerror(error));
}

struct status replica_configuration(const struct replica_member *members, size_t count,
                                    struct raft_configuration *out, struct errmsg *msg)
{
    if (count == 0 || count > REPLICA_MEMBERS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%zu members; 1 to %d are possible", count,
                           REPLICA_MEMBERS_MAX);
    }
    raft_configuration_init(out);
    for (size_t i = 0; i < count; i++) {
        const struct replica_member *m = &members[i];
        int role = m->role == REPLICA_VOTER   ? RAFT_VOTER
                   : m->role == REPLICA_SPARE ? RAFT_SPARE
                                              : RAFT_STANDBY;
        int rv = m->id == 0 || m->address[0] == '\0'
                     ? RAFT_INVALID
                     : raft_configuration_add(out, m->id, m->address, role);
        if (rv != 0) {
            raft_configuration_close(out);
            return status_fail(msg, status_from_raft(rv).code, "member %zu (%s): %s", i + 1,
                               m->address, raft_strerror(rv));
        }
    }
    return status_ok();
}

static int fsm_none(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    (void)fsm;
    (void)buf;
    *result = NULL;
    return 0;
}

static void write_closed(struct raft *raft)
{
    (void)raft;
}

/* Runs libraft's bootstrap in a folder, on a loop of its own. */
static struct status write_configuration(const struct replica_config *config, const char *folder,
                                         const struct raft_configuration *conf, struct errmsg *msg)
{
    uv_loop_t loop;
    struct raft_uv_transport transport;
    struct raft_io io = {0};
    struct raft raft = {0};
    struct raft_fsm fsm = {.version = 1, .apply = fsm_none};
    if (uv_loop_init(&loop) != 0) {
        return status_fail(msg, STATUS_NOMEM, "event loop");
    }
    int rv = uv_disk_init(&io, &transport, &loop, folder);
    bool have_io = rv == 0;
    if (rv == 0) {
        rv = raft_init(&raft, &io, &fsm, config->id, config->address);
        if (rv == 0) {
            rv = raft_bootstrap(&raft, conf);
            raft_close(&raft, write_closed);
        }
    }
    struct status s = status_ok();
    if (rv != 0) {
        s = status_fail(msg, status_from_raft(rv).code, "bootstrap %s: %s", folder,
                        io.errmsg[0] != '\0' ? io.errmsg : raft_strerror(rv));
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    if (have_io) {
        raft_uv_close(&io);
    }
    (void)uv_loop_close(&loop);
    return s;
}

static bool is_metadata(const char *name)
{
    return strncmp(name, "metadata", strlen("metadata")) == 0;
}

/* Moves the files of one kind, metadata or not, up into the folder. */
static struct status move_out(const char *staging, const char *folder, int folder_fd, bool metadata,
                              struct errmsg *msg)
{
    DIR *dir = opendir(staging);
    if (dir == NULL) {
        return io_failed(msg, "open", staging);
    }
    struct status s = status_ok();
    for (struct dirent *e = readdir(dir); e != NULL && status_is_ok(s); e = readdir(dir)) {
        if (e->d_name[0] != '.' && is_metadata(e->d_name) == metadata &&
            renameat(dirfd(dir), e->d_name, folder_fd, e->d_name) != 0) {
            s = io_failed(msg, "move bootstrap files to", folder);
        }
    }
    (void)closedir(dir);
    if (status_is_ok(s) && fsync(folder_fd) != 0) {
        s = io_failed(msg, "sync", folder);
    }
    return s;
}

struct status replica_bootstrap(const struct replica_config *config,
                                const struct replica_member *members, size_t count,
                                struct errmsg *msg)
{
    TRY(replica_config_check(config, msg));
    TRY(folder_check(config->folder, msg));
    if (!replica_folder_empty(config->folder)) {
        return status_fail(msg, STATUS_EXISTS, "%s holds a member's state already", config->folder);
    }
    char staging[4096];
    int length = snprintf(staging, sizeof staging, "%s/%s", config->folder, FOLDER_STAGING);
    if (length < 0 || (size_t)length >= sizeof staging) {
        return status_fail(msg, STATUS_LIMIT, "the folder's path is too long");
    }
    AUTO_CLOSE int folder_fd = open(config->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0) {
        return io_failed(msg, "open", config->folder);
    }
    folder_staging_remove(config->folder);
    if (mkdir(staging, 0700) != 0) {
        return io_failed(msg, "make", staging);
    }
    struct raft_configuration conf;
    struct status s = replica_configuration(members, count, &conf, msg);
    if (status_is_ok(s)) {
        s = write_configuration(config, staging, &conf, msg);
        raft_configuration_close(&conf);
    }
    if (status_is_ok(s)) {
        s = move_out(staging, config->folder, folder_fd, false, msg);
    }
    if (status_is_ok(s)) {
        s = move_out(staging, config->folder, folder_fd, true, msg);
    }
    if (status_is_ok(s)) {
        folder_staging_remove(config->folder); /* left behind it says that this was no damage */
    }
    return s;
}

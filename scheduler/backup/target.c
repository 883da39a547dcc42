#include "scheduler/backup/target.h"

#include "common/cleanup.h"
#include "common/dates.h"
#include "common/mem.h"
#include "scheduler/backup/s3.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20, STAMP_BYTES = 16 };

static const char suffix[] = ".skepbackup";
static const char temporary_prefix[] = ".new.";

struct target {
    struct name cluster;
    char *folder; /* NULL: a bucket */
    struct s3 *s3;
    const atomic_bool *canceled;
};

/* ---- Names ---- */

void target_name(const struct name *cluster, uint64_t time_ms, uint64_t index,
                 char out[TARGET_NAME_BYTES])
{
    struct date d;
    date_of_unix(time_ms / 1000, &d);
    (void)snprintf(out, TARGET_NAME_BYTES,
                   "%s-%04" PRIu32 "%02" PRIu32 "%02" PRIu32 "T%02" PRIu32 "%02" PRIu32 "%02" PRIu32
                   "Z-%" PRIu64 "%s",
                   cluster->text, d.year, d.month, d.day, d.hour, d.minute, d.second, index,
                   suffix);
}

static bool digits_take(const char **at, size_t count, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9') {
            return false;
        }
        *out = *out * 10 + (uint64_t)((*at)[i] - '0');
    }
    *at += count;
    return true;
}

static bool stamp_take(const char **at, uint64_t *time_ms)
{
    uint64_t v[6];
    static const size_t digits[6] = {4, 2, 2, 2, 2, 2};
    for (size_t i = 0; i < 6; i++) {
        if ((i == 3 && *(*at)++ != 'T') || !digits_take(at, digits[i], &v[i])) {
            return false;
        }
    }
    if (*(*at)++ != 'Z' || v[0] < DATE_YEAR_MIN || v[1] < 1 || v[1] > 12 || v[2] < 1 ||
        v[2] > date_days_of_month((uint32_t)v[0], (uint32_t)v[1]) || v[3] > 23 || v[4] > 59 ||
        v[5] > 59) {
        return false;
    }
    uint64_t days = date_days((uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2]);
    *time_ms = (((days * 24 + v[3]) * 60 + v[4]) * 60 + v[5]) * 1000;
    return true;
}

bool target_name_parse(const struct name *cluster, const char *name, size_t size,
                       struct target_entry *out)
{
    struct target_entry e = {.bytes = 0};
    size_t head = strlen(cluster->text);
    if (size >= sizeof e.name || memchr(name, '\0', size) != NULL) {
        return false;
    }
    memcpy(e.name, name, size);
    e.name[size] = '\0';
    if (strncmp(e.name, cluster->text, head) != 0 || e.name[head] != '-') {
        return false;
    }
    const char *at = e.name + head + 1;
    size_t rest = strlen(at);
    if (rest < STAMP_BYTES + 2 || !stamp_take(&at, &e.time_ms) || *at++ != '-') {
        return false;
    }
    size_t digits = strspn(at, "0123456789");
    if (digits == 0 || digits > 19 || !digits_take(&at, digits, &e.index) ||
        strcmp(at, suffix) != 0) {
        return false;
    }
    *out = e;
    return true;
}

/* ---- Lists ---- */

struct status target_list_add(struct target_list *l, const struct target_entry *e)
{
    if (l->count == TARGET_ENTRIES_MAX) {
        return status_of(STATUS_LIMIT);
    }
    struct target_entry *items = mem_grow(l->items, l->count, &l->capacity, sizeof *items);
    if (items == NULL) {
        return status_of(STATUS_NOMEM);
    }
    l->items = items;
    l->items[l->count++] = *e;
    return status_ok();
}

void target_list_close(struct target_list *l)
{
    mem_free(l->items);
    *l = (struct target_list){.count = 0};
}

static int newest_first(const void *a, const void *b)
{
    return strcmp(((const struct target_entry *)b)->name, ((const struct target_entry *)a)->name);
}

/* ---- Folders ---- */

static struct status folder_fail(const struct target *t, const char *what, int error,
                                 struct errmsg *msg)
{
    return status_fail(msg, status_from_errno(error), "%s: %s: %s", t->folder, what,
                       strerror(error));
}

/* Removes what a scheduler that was killed while it wrote has left. */
static void remove_stale(const struct target *t, int folder, const char *name)
{
    const size_t head = sizeof temporary_prefix - 1;
    struct target_entry e;
    struct stat st;
    if (strncmp(name, temporary_prefix, head) == 0 &&
        target_name_parse(&t->cluster, name + head, strlen(name + head), &e) &&
        fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        time(NULL) - st.st_mtime > TARGET_NEW_S) {
        (void)unlinkat(folder, name, 0);
    }
}

static struct status folder_list(const struct target *t, struct target_list *out,
                                 struct errmsg *msg)
{
    DIR *dir = opendir(t->folder);
    if (dir == NULL) {
        return folder_fail(t, "open", errno, msg);
    }
    struct status s = status_ok();
    for (struct dirent *d = readdir(dir); d != NULL && status_is_ok(s); d = readdir(dir)) {
        struct target_entry e;
        struct stat st;
        remove_stale(t, dirfd(dir), d->d_name);
        if (target_name_parse(&t->cluster, d->d_name, strlen(d->d_name), &e) &&
            fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
            e.bytes = (uint64_t)st.st_size;
            s = target_list_add(out, &e);
        }
    }
    (void)closedir(dir);
    return status_is_ok(s) ? s : status_fail(msg, s.code, "%s: too many backups", t->folder);
}

static struct status copy_piece(const struct target *t, int from, int to, uint64_t at, size_t size,
                                uint8_t *piece, struct errmsg *msg)
{
    if (atomic_load(t->canceled)) {
        return status_fail(msg, STATUS_CANCELED, "the scheduler is stopping");
    }
    for (size_t have = 0; have < size;) {
        ssize_t got = pread(from, piece + have, size - have, (off_t)(at + have));
        if (got <= 0) {
            return folder_fail(t, "read the backup", got < 0 ? errno : EIO, msg);
        }
        have += (size_t)got;
    }
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(to, piece + done, size - done);
        if (wrote < 0 && errno != EINTR) {
            return folder_fail(t, "write", errno, msg);
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return status_ok();
}

static struct status copy(const struct target *t, int from, int to, uint64_t bytes,
                          struct errmsg *msg)
{
    struct status s = status_ok();
    uint8_t *piece = mem_alloc(COPY_BYTES);
    if (piece == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    for (uint64_t at = 0; at < bytes && status_is_ok(s);) {
        size_t want = bytes - at < COPY_BYTES ? (size_t)(bytes - at) : COPY_BYTES;
        s = copy_piece(t, from, to, at, want, piece, msg);
        at += want;
    }
    mem_free(piece);
    if (status_is_ok(s) && fsync(to) != 0) {
        s = folder_fail(t, "write", errno, msg);
    }
    return s;
}

static struct status folder_put(const struct target *t, const char *name, int fd, uint64_t bytes,
                                struct errmsg *msg)
{
    AUTO_CLOSE int folder = open(t->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        return folder_fail(t, "open", errno, msg);
    }
    char temporary[TARGET_NAME_BYTES + sizeof temporary_prefix];
    (void)snprintf(temporary, sizeof temporary, "%s%s", temporary_prefix, name);
    AUTO_CLOSE int to =
        openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0) {
        return folder_fail(t, temporary, errno, msg);
    }
    struct status s = copy(t, fd, to, bytes, msg);
    if (status_is_ok(s) && (renameat(folder, temporary, folder, name) != 0 || fsync(folder) != 0)) {
        s = folder_fail(t, name, errno, msg);
    }
    if (!status_is_ok(s)) {
        (void)unlinkat(folder, temporary, 0);
    }
    return s;
}

static struct status folder_remove(const struct target *t, const char *name, struct errmsg *msg)
{
    AUTO_CLOSE int folder = open(t->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || (unlinkat(folder, name, 0) != 0 && errno != ENOENT)) {
        return folder_fail(t, name, errno, msg);
    }
    return status_ok();
}

/* ---- Either ---- */

struct status target_open(struct target **out, const struct config_backup *config,
                          const struct name *cluster, const atomic_bool *canceled,
                          struct errmsg *msg)
{
    struct target *t = mem_zalloc(1, sizeof *t);
    if (t == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    t->cluster = *cluster;
    t->canceled = canceled;
    struct status s = status_ok();
    if (strncmp(config->to, CONFIG_BACKUP_FOLDER, strlen(CONFIG_BACKUP_FOLDER)) == 0) {
        t->folder = mem_strdup(config->to + strlen(CONFIG_BACKUP_FOLDER));
        s = t->folder == NULL ? status_fail(msg, STATUS_NOMEM, "out of memory") : s;
    } else {
        s = s3_open(&t->s3, config, canceled, msg);
    }
    if (!status_is_ok(s)) {
        target_close(t);
        return s;
    }
    *out = t;
    return status_ok();
}

void target_close(struct target *t)
{
    if (t != NULL) {
        mem_free(t->folder);
        s3_close(t->s3);
        mem_free(t);
    }
}

struct status target_list(struct target *t, struct target_list *out, struct errmsg *msg)
{
    struct target_list list = {.count = 0};
    struct status s =
        t->folder != NULL ? folder_list(t, &list, msg) : s3_list(t->s3, &t->cluster, &list, msg);
    if (!status_is_ok(s)) {
        target_list_close(&list);
        return s;
    }
    if (list.count > 0) {
        qsort(list.items, list.count, sizeof list.items[0], newest_first);
    }
    *out = list;
    return status_ok();
}

struct status target_put(struct target *t, const char *name, int fd, uint64_t bytes,
                         struct errmsg *msg)
{
    return t->folder != NULL ? folder_put(t, name, fd, bytes, msg)
                             : s3_put(t->s3, name, fd, bytes, msg);
}

struct status target_remove(struct target *t, const char *name, struct errmsg *msg)
{
    return t->folder != NULL ? folder_remove(t, name, msg) : s3_remove(t->s3, name, msg);
}

#include "common/payloads/payload_store.h"

#include "common/check.h"
#include "common/chunks.h"
#include "common/cleanup.h"
#include "common/mem.h"
#include "common/payloads/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    FANS = 256,
    FAN_BYTES = 2,
    KEY_SUFFIX_BYTES = 4,
    NAME_BYTES = FAN_BYTES + 1 + DIGEST_STRING_BYTES - FAN_BYTES,
    KEY_NAME_BYTES = NAME_BYTES + KEY_SUFFIX_BYTES,
    STRIPES = 16,
    SEAL_ROOM_BYTES = 4096, /* what sealing may add to both files */
};

static const char temporary_prefix[] = "new.";
static const char key_suffix[] = ".key";

struct payload_store {
    struct payload_store_config config;
    char *path; /* for messages and for shred */
    int folder;
    _Atomic uint64_t temporary;       /* names new.N */
    pthread_mutex_t stripes[STRIPES]; /* one payload belongs to one stripe */
    pthread_mutex_t lock;             /* of what follows */
    struct payload_store_stats stats;
    bool dirty[FANS]; /* deletions that are not synced */
};

static void payload_name(const struct digest *digest, char out[NAME_BYTES])
{
    char hex[DIGEST_STRING_BYTES];
    digest_format(digest, hex);
    (void)snprintf(out, NAME_BYTES, "%.2s/%s", hex, hex + FAN_BYTES);
}

static void key_name(const char *name, char out[KEY_NAME_BYTES])
{
    (void)snprintf(out, KEY_NAME_BYTES, "%s%s", name, key_suffix);
}

static struct status store_fail(const struct payload_store *s, const char *what, int error,
                                struct errmsg *msg)
{
    return status_fail(msg, status_from_errno(error), "%s/%s: %s", s->path, what, strerror(error));
}

/* 0: go on; an errno or PAYLOAD_FAULT_CRASH otherwise. */
static int fault(const struct payload_store *s, enum payload_step step)
{
    return s->config.fault == NULL ? 0 : s->config.fault(s->config.fault_data, step);
}

static void stripe_lock(struct payload_store *s, const struct digest *digest)
{
    CHECK(pthread_mutex_lock(&s->stripes[digest->v[0] % STRIPES]) == 0);
}

static void stripe_unlock(struct payload_store *s, const struct digest *digest)
{
    CHECK(pthread_mutex_unlock(&s->stripes[digest->v[0] % STRIPES]) == 0);
}

/* ---- Walking ---- */

/* Calls fn for every name in a folder, but for the dotted ones; stops when it answers false. */
static struct status folder_each(const struct payload_store *s, const char *name,
                                 bool (*fn)(void *arg, int at, const char *name), void *arg,
                                 struct errmsg *msg)
{
    int fd = openat(s->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        return status_ok();
    }
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        int error = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return store_fail(s, name, error, msg);
    }
    bool more = true;
    errno = 0;
    for (struct dirent *d = readdir(dir); d != NULL && more; d = readdir(dir)) {
        more = d->d_name[0] == '.' || fn(arg, dirfd(dir), d->d_name);
        errno = 0;
    }
    int error = errno;
    (void)closedir(dir);
    return error == 0 ? status_ok() : store_fail(s, name, error, msg);
}

struct walk {
    const struct payload_store *store;
    char fan[FAN_BYTES + 1];
    bool (*fn)(void *data, const struct digest *digest, uint64_t bytes, int64_t written_s);
    void *data;
    struct payload_store_stats *count; /* of an open: counts, and removes what crashes left */
    bool stopped;
};

static bool digest_of_name(const char *fan, const char *name, size_t size, struct digest *out)
{
    char hex[DIGEST_STRING_BYTES];
    if (size != DIGEST_STRING_BYTES - 1 - FAN_BYTES) {
        return false;
    }
    (void)snprintf(hex, sizeof hex, "%s%.*s", fan, (int)size, name);
    return status_is_ok(digest_parse(hex, out, NULL));
}

/* A key file: counted while its payload is there, removed otherwise. */
static void count_key(struct walk *w, int at, const char *name, size_t stem)
{
    char payload[DIGEST_STRING_BYTES];
    struct stat st;
    (void)snprintf(payload, sizeof payload, "%.*s", (int)stem, name);
    if (fstatat(at, payload, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT) {
        (void)unlinkat(at, name, 0);
    } else if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        w->count->bytes += (uint64_t)st.st_size;
    }
}

static bool walk_name(void *arg, int at, const char *name)
{
    struct walk *w = arg;
    struct digest digest;
    struct stat st;
    size_t size = strlen(name);
    size_t stem = size > KEY_SUFFIX_BYTES ? size - KEY_SUFFIX_BYTES : 0;
    if (w->count != NULL && stem > 0 && strcmp(name + stem, key_suffix) == 0 &&
        digest_of_name(w->fan, name, stem, &digest)) {
        count_key(w, at, name, stem);
        return true;
    }
    if (!digest_of_name(w->fan, name, size, &digest) ||
        fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) {
        return true;
    }
    if (w->count != NULL) {
        w->count->count++;
        w->count->bytes += (uint64_t)st.st_size;
        return true;
    }
    w->stopped = !w->fn(w->data, &digest, (uint64_t)st.st_size, (int64_t)st.st_mtime);
    return !w->stopped;
}

static struct status walk_all(struct walk *w, struct errmsg *msg)
{
    for (unsigned fan = 0; fan < FANS && !w->stopped; fan++) {
        (void)snprintf(w->fan, sizeof w->fan, "%02x", fan);
        TRY(folder_each(w->store, w->fan, walk_name, w, msg));
    }
    return status_ok();
}

struct status payload_store_each(struct payload_store *s,
                                 bool (*fn)(void *data, const struct digest *digest, uint64_t bytes,
                                            int64_t written_s),
                                 void *data, struct errmsg *msg)
{
    struct walk w = {.store = s, .fn = fn, .data = data};
    return walk_all(&w, msg);
}

/* ---- Opening ---- */

static bool remove_temporary(void *arg, int at, const char *name)
{
    (void)arg;
    if (strncmp(name, temporary_prefix, sizeof temporary_prefix - 1) == 0) {
        (void)unlinkat(at, name, 0);
    }
    return true;
}

static struct status store_count(struct payload_store *s, struct errmsg *msg)
{
    TRY(folder_each(s, ".", remove_temporary, NULL, msg));
    struct walk w = {.store = s, .count = &s->stats};
    return walk_all(&w, msg);
}

struct status payload_store_open(struct payload_store **out,
                                 const struct payload_store_config *config, struct errmsg *msg)
{
    struct payload_store *s = mem_zalloc(1, sizeof *s);
    char *path = mem_strdup(config->folder);
    if (s == NULL || path == NULL) {
        mem_free(s);
        mem_free(path);
        return status_fail(msg, STATUS_NOMEM, "%s: out of memory", config->folder);
    }
    s->config = *config;
    s->config.folder = path;
    s->path = path;
    s->folder = -1;
    for (size_t i = 0; i < STRIPES; i++) {
        CHECK(pthread_mutex_init(&s->stripes[i], NULL) == 0);
    }
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    struct status status = status_ok();
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        status = store_fail(s, "", errno, msg);
    } else {
        s->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        status = s->folder >= 0 ? store_count(s, msg) : store_fail(s, "", errno, msg);
    }
    if (!status_is_ok(status)) {
        payload_store_close(s);
        return status;
    }
    *out = s;
    return status_ok();
}

void payload_store_close(struct payload_store *s)
{
    if (s == NULL) {
        return;
    }
    if (s->folder >= 0) {
        (void)close(s->folder);
    }
    for (size_t i = 0; i < STRIPES; i++) {
        (void)pthread_mutex_destroy(&s->stripes[i]);
    }
    (void)pthread_mutex_destroy(&s->lock);
    mem_free(s->path);
    mem_free(s);
}

struct payload_store_stats payload_store_stats(struct payload_store *s)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    struct payload_store_stats stats = s->stats;
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    return stats;
}

/* ---- Room ---- */

static struct status disk_check(const struct payload_store *s, struct errmsg *msg)
{
    struct disk_room room;
    if (disk_is_short(s->folder, s->config.free_bytes_min, &room)) {
        return status_fail(msg, STATUS_LIMIT,
                           "the scheduler's disk has only %llu MiB free; payloads over %d KiB are "
                           "refused below %llu MiB",
                           (unsigned long long)(room.free_bytes >> 20), 16,
                           (unsigned long long)(room.least_bytes >> 20));
    }
    return status_ok();
}

/* Takes room for so many bytes. */
static struct status room_take(struct payload_store *s, uint64_t bytes, struct errmsg *msg)
{
    TRY(disk_check(s, msg));
    struct status status = status_ok();
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    if (s->stats.bytes > s->config.bytes_max || bytes > s->config.bytes_max - s->stats.bytes) {
        status = status_fail(msg, STATUS_LIMIT,
                             "the scheduler's payload store is full: it holds %llu MiB of at most "
                             "%llu MiB (limits.payloads)",
                             (unsigned long long)(s->stats.bytes >> 20),
                             (unsigned long long)(s->config.bytes_max >> 20));
    } else {
        s->stats.bytes += bytes;
    }
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    return status;
}

static void room_give(struct payload_store *s, uint64_t bytes, int payloads)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    s->stats.bytes -= bytes < s->stats.bytes ? bytes : s->stats.bytes;
    if (payloads > 0) {
        s->stats.count += (uint64_t)payloads;
    } else if (payloads < 0 && s->stats.count > 0) {
        s->stats.count--;
    }
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
}

/* ---- Removing ---- */

static uint64_t size_at(const struct payload_store *s, const char *name)
{
    struct stat st;
    return fstatat(s->folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

static struct status key_remove(const struct payload_store *s, const char *name, struct errmsg *msg)
{
    if (s->config.sealing.shred != NULL) {
        char path[4096];
        int size = snprintf(path, sizeof path, "%s/%s", s->path, name);
        if (size > 0 && (size_t)size < sizeof path) {
            return s->config.sealing.shred(path, msg);
        }
    }
    return unlinkat(s->folder, name, 0) == 0 || errno == ENOENT ? status_ok()
                                                                : store_fail(s, name, errno, msg);
}

/* The key, then the payload. The stripe is locked. */
static struct status payload_remove(struct payload_store *s, const char *name, struct errmsg *msg)
{
    char key[KEY_NAME_BYTES];
    key_name(name, key);
    uint64_t key_bytes = size_at(s, key), bytes = size_at(s, name);
    TRY(key_remove(s, key, msg));
    room_give(s, key_bytes, 0);
    int error = fault(s, PAYLOAD_STEP_UNLINK);
    if (error == 0 && unlinkat(s->folder, name, 0) != 0) {
        error = errno;
    }
    if (error == ENOENT) {
        return status_ok();
    }
    if (error != 0) {
        return store_fail(s, name, error == PAYLOAD_FAULT_CRASH ? EIO : error, msg);
    }
    room_give(s, bytes, -1);
    char fan[FAN_BYTES + 1] = {name[0], name[1], '\0'};
    unsigned number = 0;
    CHECK(sscanf(fan, "%2x", &number) == 1 && number < FANS);
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    s->dirty[number] = true;
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    return status_ok();
}

struct status payload_store_delete(struct payload_store *s, const struct digest *digest,
                                   struct errmsg *msg)
{
    char name[NAME_BYTES];
    payload_name(digest, name);
    stripe_lock(s, digest);
    struct status status = payload_remove(s, name, msg);
    stripe_unlock(s, digest);
    return status;
}

static int folder_sync(const struct payload_store *s, const char *name)
{
    AUTO_CLOSE int fd = openat(s->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : errno;
}

struct status payload_store_sync(struct payload_store *s, struct errmsg *msg)
{
    bool dirty[FANS];
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    memcpy(dirty, s->dirty, sizeof dirty);
    memset(s->dirty, 0, sizeof s->dirty);
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    struct status status = status_ok();
    for (unsigned fan = 0; fan < FANS; fan++) {
        char name[FAN_BYTES + 1];
        (void)snprintf(name, sizeof name, "%02x", fan);
        int error = dirty[fan] ? folder_sync(s, name) : 0;
        if (error != 0 && error != ENOENT) {
            status = store_fail(s, name, error, msg);
            CHECK(pthread_mutex_lock(&s->lock) == 0);
            s->dirty[fan] = true;
            CHECK(pthread_mutex_unlock(&s->lock) == 0);
        }
    }
    return status;
}

/* ---- Reading ---- */

bool payload_store_has(const struct payload_store *s, const struct digest *digest)
{
    char name[NAME_BYTES];
    payload_name(digest, name);
    return faccessat(s->folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Replaces what out holds by the file, of which max bytes are read at most. */
static struct status file_read(const struct payload_store *s, const char *name, size_t max,
                               struct buffer *out, struct errmsg *msg)
{
    AUTO_CLOSE int fd = openat(s->folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        return errno == ENOENT ? status_fail(msg, STATUS_NOT_FOUND, "there is no payload %s", name)
                               : store_fail(s, name, errno, msg);
    }
    size_t size = (uint64_t)st.st_size < max ? (size_t)st.st_size : max;
    out->size = 0;
    struct status status = buffer_reserve(out, size + 1);
    if (!status_is_ok(status)) {
        return status_fail(msg, status.code, "payload %s: out of memory", name);
    }
    while (out->size < size) {
        ssize_t got = read(fd, out->data + out->size, size - out->size);
        if (got < 0 && errno != EINTR) {
            return store_fail(s, name, errno, msg);
        }
        if (got == 0) {
            break; /* cut: the digest tells */
        }
        out->size += got > 0 ? (size_t)got : 0;
    }
    return status_ok();
}

static struct status digest_check(const struct digest *digest, struct bytes data, const char *name,
                                  struct errmsg *msg)
{
    struct digest actual;
    struct status status = digest_of(&data, 1, &actual);
    if (!status_is_ok(status)) {
        return status_fail(msg, status.code, "payload %s: out of memory", name);
    }
    return digest_compare(&actual, digest) == 0
               ? status_ok()
               : status_fail(msg, STATUS_CORRUPT, "payload %s: the bytes have another digest",
                             name);
}

/* Opens what file_read gave, in place; key: the content of its key file. */
static struct status unseal(const struct payload_store *s, const struct digest *digest,
                            const char *name, struct bytes key, struct buffer *data,
                            struct errmsg *msg)
{
    if (s->config.sealing.open == NULL) {
        return status_fail(msg, STATUS_UNAVAILABLE,
                           "payload %s is sealed, and this scheduler has no cluster key", name);
    }
    struct buffer plain = {0};
    struct status status = s->config.sealing.open(s->config.sealing.data, digest,
                                                  bytes_of(data->data, data->size), key, &plain);
    if (!status_is_ok(status)) {
        buffer_close(&plain);
        return status_fail(msg, status.code == STATUS_NOT_FOUND ? STATUS_UNAVAILABLE : status.code,
                           "payload %s cannot be opened: %s", name, status_text(status.code));
    }
    buffer_close(data);
    *data = plain;
    return status_ok();
}

static struct status read_checked(const struct payload_store *s, const struct digest *digest,
                                  const char *name, struct buffer *out, struct errmsg *msg)
{
    char key_file[KEY_NAME_BYTES];
    struct buffer key = {0};
    key_name(name, key_file);
    TRY(file_read(s, name, PAYLOAD_STORE_BYTES_MAX + SEAL_ROOM_BYTES, out, msg));
    struct status status = file_read(s, key_file, SEAL_ROOM_BYTES, &key, msg);
    if (status_is_ok(status)) {
        status = unseal(s, digest, name, bytes_of(key.data, key.size), out, msg);
    } else if (status.code == STATUS_NOT_FOUND) {
        status = status_ok(); /* plain */
    }
    buffer_close(&key);
    TRY(status);
    return digest_check(digest, bytes_of(out->data, out->size), name, msg);
}

/* Reads and checks; removes what is damaged. The stripe is locked. */
static struct status read_or_remove(struct payload_store *s, const struct digest *digest,
                                    const char *name, struct buffer *out, struct errmsg *msg)
{
    struct status status = read_checked(s, digest, name, out, msg);
    if (status.code == STATUS_CORRUPT) {
        struct status removed = payload_remove(s, name, NULL);
        CHECK(pthread_mutex_lock(&s->lock) == 0);
        s->stats.corrupt++;
        CHECK(pthread_mutex_unlock(&s->lock) == 0);
        status = status_fail(msg, STATUS_CORRUPT, "%s/%s is damaged%s", s->path, name,
                             status_is_ok(removed) ? "; it was removed" : "");
    }
    if (!status_is_ok(status)) {
        out->size = 0;
    }
    return status;
}

struct status payload_store_get(struct payload_store *s, const struct digest *digest,
                                struct buffer *out, struct errmsg *msg)
{
    char name[NAME_BYTES];
    payload_name(digest, name);
    stripe_lock(s, digest);
    struct status status = read_or_remove(s, digest, name, out, msg);
    stripe_unlock(s, digest);
    return status;
}

/* ---- Writing ---- */

enum { TEMPORARY_BYTES = 32 };

/* One file on its way: crashed: leave everything as it is. */
struct writing {
    struct payload_store *store;
    char temporary[TEMPORARY_BYTES];
    const char *name;
    bool named, crashed;
};

/* An errno, 0, or PAYLOAD_FAULT_CRASH. */
static int write_all(const struct payload_store *s, int fd, struct bytes data)
{
    int error = fault(s, PAYLOAD_STEP_WRITE);
    for (size_t done = 0; error == 0 && done < data.size;) {
        ssize_t wrote = write(fd, data.data + done, data.size - done);
        if (wrote < 0 && errno != EINTR) {
            error = errno;
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    error = error == 0 ? fault(s, PAYLOAD_STEP_SYNC) : error;
    return error == 0 && fsync(fd) != 0 ? errno : error;
}

static struct status writing_end(struct writing *w, int error, struct errmsg *msg)
{
    if (error == PAYLOAD_FAULT_CRASH) {
        w->crashed = true;
        return status_fail(msg, STATUS_IO, "%s/%s: crashed", w->store->path, w->name);
    }
    return error == 0 ? status_ok() : store_fail(w->store, w->name, error, msg);
}

/* Writes, syncs and names one file; the folder is the caller's to sync. */
static struct status file_write(struct writing *w, struct bytes data, struct errmsg *msg)
{
    struct payload_store *s = w->store;
    (void)snprintf(w->temporary, sizeof w->temporary, "%s%llu", temporary_prefix,
                   (unsigned long long)atomic_fetch_add(&s->temporary, 1));
    AUTO_CLOSE int fd =
        openat(s->folder, w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int error = fd < 0 ? errno : write_all(s, fd, data);
    error = error == 0 ? fault(s, PAYLOAD_STEP_NAME) : error;
    if (error == 0 && renameat(s->folder, w->temporary, s->folder, w->name) != 0) {
        error = errno;
    }
    w->named = error == 0;
    return writing_end(w, error, msg);
}

static struct status fan_make(struct payload_store *s, const char *name, struct errmsg *msg)
{
    char fan[FAN_BYTES + 1] = {name[0], name[1], '\0'};
    if (mkdirat(s->folder, fan, 0700) == 0) {
        return fsync(s->folder) == 0 ? status_ok() : store_fail(s, fan, errno, msg);
    }
    return errno == EEXIST ? status_ok() : store_fail(s, fan, errno, msg);
}

static void writing_undo(const struct writing *w)
{
    if (!w->crashed && w->name != NULL) {
        (void)unlinkat(w->store->folder, w->named ? w->name : w->temporary, 0);
    }
}

/* Both files, and the folder. */
static struct status payload_write(struct payload_store *s, const char *name, struct bytes file,
                                   struct bytes key_file, struct errmsg *msg)
{
    char key[KEY_NAME_BYTES];
    struct writing of_key = {.store = s}, of_file = {.store = s};
    key_name(name, key);
    TRY(fan_make(s, name, msg));
    struct status status = status_ok();
    if (key_file.size > 0) {
        of_key.name = key;
        status = file_write(&of_key, key_file, msg);
    } else if (unlinkat(s->folder, key, 0) != 0 && errno != ENOENT) {
        status = store_fail(s, key, errno, msg); /* It would not belong to this file. */
    }
    if (status_is_ok(status)) {
        of_file.name = name;
        status = file_write(&of_file, file, msg);
    }
    if (status_is_ok(status)) {
        char fan[FAN_BYTES + 1] = {name[0], name[1], '\0'};
        int error = fault(s, PAYLOAD_STEP_FOLDER);
        error = error == 0 ? folder_sync(s, fan) : error;
        status = writing_end(&of_file, error, msg);
    }
    if (!status_is_ok(status) && !of_file.crashed && !of_key.crashed) {
        writing_undo(&of_file);
        writing_undo(&of_key);
    }
    return status;
}

static struct status seal_and_write(struct payload_store *s, const struct digest *digest,
                                    const char *name, struct bytes data, struct errmsg *msg)
{
    struct buffer file = {0}, key_file = {0};
    struct bytes out = data;
    if (s->config.sealing.seal != NULL) {
        struct status sealed =
            s->config.sealing.seal(s->config.sealing.data, digest, data, &file, &key_file);
        if (!status_is_ok(sealed)) {
            buffer_close(&file);
            buffer_close(&key_file);
            return status_fail(msg, sealed.code, "the payload cannot be sealed%s: %s",
                               sealed.code == STATUS_UNAVAILABLE ? " yet" : "",
                               status_text(sealed.code));
        }
        out = bytes_of(file.data, file.size);
    }
    uint64_t bytes = out.size + key_file.size;
    struct status status = room_take(s, bytes, msg);
    if (status_is_ok(status)) {
        status = payload_write(s, name, out, bytes_of(key_file.data, key_file.size), msg);
        room_give(s, status_is_ok(status) ? 0 : bytes, status_is_ok(status) ? 1 : 0);
    }
    buffer_close(&file);
    buffer_close(&key_file);
    return status;
}

/* What is there already counts only when it is whole. The stripe is locked. */
static struct status put_locked(struct payload_store *s, const struct digest *digest,
                                const char *name, struct bytes data, struct errmsg *msg)
{
    if (payload_store_has(s, digest)) {
        struct buffer there = {0};
        struct status status = read_or_remove(s, digest, name, &there, msg);
        if (there.data != NULL) {
            mem_wipe(there.data, there.capacity);
        }
        buffer_close(&there);
        if (status_is_ok(status)) {
            (void)utimensat(s->folder, name, NULL, AT_SYMLINK_NOFOLLOW);
            return status;
        }
        if (status.code != STATUS_CORRUPT && status.code != STATUS_NOT_FOUND) {
            return status;
        }
    }
    return seal_and_write(s, digest, name, data, msg);
}

struct status payload_store_put(struct payload_store *s, const struct digest *digest,
                                struct bytes data, struct errmsg *msg)
{
    char name[NAME_BYTES];
    payload_name(digest, name);
    if (data.size == 0 || data.size > PAYLOAD_STORE_BYTES_MAX) {
        return status_fail(msg, data.size == 0 ? STATUS_INVALID : STATUS_LIMIT,
                           "the payload has %zu bytes; 1 to %d are stored", data.size,
                           PAYLOAD_STORE_BYTES_MAX);
    }
    TRY(digest_check(digest, data, name, msg));
    stripe_lock(s, digest);
    struct status status = put_locked(s, digest, name, data, msg);
    stripe_unlock(s, digest);
    return status;
}

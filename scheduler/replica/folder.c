#include "scheduler/replica/folder.h"

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    METADATA_FILES = 2,
    METADATA_BYTES = 32, /* u64 format | u64 version | u64 term | u64 vote */
    MARK_MAGIC = 0x4d4b5053,
    MARK_VERSION = 1,
    MARK_BYTES = 24, /* u32 magic | u32 version | u64 index | u64 checksum */
};

#define SNAPSHOT "snapshot-" /* NAME, its state, and NAME.meta */

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static int folder_open(const char *folder)
{
    return open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static struct status io_failed(struct errmsg *msg, const char *what, const char *path)
{
    int error = errno;
    return status_fail(msg, status_from_errno(error), "%s %s: %s", what, path, strerror(error));
}

/* ---- What is missing ---- */

/* The version in a metadata file; 0: none, or torn. */
static uint64_t metadata_version(int dir, int number)
{
    char name[16];
    uint64_t words[METADATA_BYTES / 8];
    (void)snprintf(name, sizeof name, "metadata%d", number);
    AUTO_CLOSE int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, words, sizeof words, 0) != (ssize_t)sizeof words) {
        return 0;
    }
    return le64toh(words[1]);
}

static bool exists(int dir, const char *name)
{
    return faccessat(dir, name, F_OK, 0) == 0;
}

/* Segments are NUMBER-NUMBER and open-NUMBER. */
static bool holds_entries(const char *name)
{
    return begins(name, SNAPSHOT) || begins(name, "open-") || (name[0] >= '0' && name[0] <= '9');
}

static bool any_entries(int dir)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    if (d == NULL) {
        if (copy >= 0) {
            (void)close(copy);
        }
        return false;
    }
    bool any = false;
    for (struct dirent *e = readdir(d); e != NULL && !any; e = readdir(d)) {
        any = holds_entries(e->d_name);
    }
    (void)closedir(d);
    return any;
}

struct status folder_check(const char *folder, struct errmsg *msg)
{
    AUTO_CLOSE int dir = folder_open(folder);
    if (dir < 0) {
        return io_failed(msg, "open", folder);
    }
    bool present[METADATA_FILES] = {exists(dir, "metadata1"), exists(dir, "metadata2")};
    if (!present[0] && !present[1]) {
        /* A first start that was cut off leaves its staging folder, and is repeated; a member that
         * was wiped does not start so. */
        bool repeated = exists(dir, FOLDER_STAGING) && !exists(dir, FOLDER_REJOIN);
        if (repeated || !any_entries(dir)) {
            return status_ok();
        }
        return status_fail(msg, STATUS_CORRUPT,
                           "%s/metadata1 and metadata2 are missing beside a log: what this member "
                           "voted is lost; %s",
                           folder, FOLDER_CURE);
    }
    for (int i = 0; i < METADATA_FILES; i++) {
        /* They are written in turn, the first with version 1. */
        if (!present[i] && (i == 0 || metadata_version(dir, 1) > 1)) {
            return status_fail(msg, STATUS_CORRUPT,
                               "%s/metadata%d is missing: what this member voted may be lost; %s",
                               folder, i + 1, FOLDER_CURE);
        }
    }
    return status_ok();
}

struct status folder_lock(const char *folder, int *out, struct errmsg *msg)
{
    AUTO_CLOSE int dir = folder_open(folder);
    if (dir < 0) {
        return io_failed(msg, "open", folder);
    }
    AUTO_CLOSE int fd = openat(dir, FOLDER_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return io_failed(msg, "open the lock in", folder);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            return status_fail(msg, STATUS_CONFLICT, "%s is in use by another process", folder);
        }
        return io_failed(msg, "lock", folder);
    }
    *out = fd_steal(&fd);
    return status_ok();
}

struct status folder_fill_segments(const char *folder, uint64_t segment_bytes, struct errmsg *msg)
{
    DIR *d = opendir(folder);
    if (d == NULL) {
        return io_failed(msg, "open", folder);
    }
    struct status s = status_ok();
    for (struct dirent *e = readdir(d); e != NULL && status_is_ok(s); e = readdir(d)) {
        struct stat st;
        if (!begins(e->d_name, "open-") ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode) ||
            st.st_size == 0 || (uint64_t)st.st_size >= segment_bytes) {
            continue;
        }
        AUTO_CLOSE int fd = openat(dirfd(d), e->d_name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || ftruncate(fd, (off_t)segment_bytes) != 0) {
            s = io_failed(msg, "extend a segment in", folder);
        } else {
            LOG_WARN("open segment was cut short", LOG_STR("folder", folder),
                     LOG_STR("file", e->d_name), LOG_UINT("bytes", (uint64_t)st.st_size));
        }
    }
    (void)closedir(d);
    return s;
}

/* ---- The mark ---- */

static uint64_t mark_sum(uint64_t index)
{
    uint64_t sum = (index ^ 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;
    sum = (sum ^ (sum >> 31)) * 0x94d049bb133111ebULL;
    return sum ^ (sum >> 29);
}

uint64_t folder_mark_read(const char *folder)
{
    uint8_t bytes[MARK_BYTES];
    AUTO_CLOSE int dir = folder_open(folder);
    AUTO_CLOSE int fd = dir < 0 ? -1 : openat(dir, FOLDER_MARK, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        return 0;
    }
    struct reader r = reader_of(bytes_of(bytes, sizeof bytes));
    uint32_t magic = reader_u32(&r);
    uint32_t version = reader_u32(&r);
    bool ours = magic == MARK_MAGIC && version == MARK_VERSION;
    uint64_t index = reader_u64(&r);
    return ours && reader_u64(&r) == mark_sum(index) ? index : 0;
}

struct status folder_mark_write(const char *folder, uint64_t index)
{
    uint32_t words[2] = {htole32(MARK_MAGIC), htole32(MARK_VERSION)};
    uint64_t longs[2] = {htole64(index), htole64(mark_sum(index))};
    uint8_t bytes[MARK_BYTES];
    memcpy(bytes, words, sizeof words);
    memcpy(bytes + sizeof words, longs, sizeof longs);
    AUTO_CLOSE int dir = folder_open(folder);
    AUTO_CLOSE int fd =
        dir < 0 ? -1 : openat(dir, FOLDER_MARK, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || pwrite(fd, bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        return status_of(STATUS_IO);
    }
    return status_ok();
}

void folder_mark_remove(const char *folder)
{
    AUTO_CLOSE int dir = folder_open(folder);
    if (dir >= 0) {
        (void)unlinkat(dir, FOLDER_MARK, 0);
    }
}

/* ---- Space ---- */

struct status folder_space_read(const char *folder, struct folder_space *out)
{
    struct statvfs st;
    if (statvfs(folder, &st) != 0) {
        return status_of(status_from_errno(errno));
    }
    *out = (struct folder_space){.free_bytes = (uint64_t)st.f_bavail * st.f_frsize,
                                 .total_bytes = (uint64_t)st.f_blocks * st.f_frsize};
    return status_ok();
}

void folder_ballast_make(const char *folder, uint64_t bytes, uint64_t keep_free)
{
    struct folder_space space;
    AUTO_CLOSE int dir = folder_open(folder);
    if (bytes == 0 || dir < 0 || exists(dir, FOLDER_BALLAST) ||
        !status_is_ok(folder_space_read(folder, &space)) || space.free_bytes < bytes + keep_free) {
        return;
    }
    AUTO_CLOSE int fd = openat(dir, FOLDER_BALLAST, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return;
    }
    if (fallocate(fd, 0, 0, (off_t)bytes) != 0) {
        LOG_WARN("no ballast", LOG_STR("folder", folder), LOG_STR("why", strerror(errno)));
        (void)unlinkat(dir, FOLDER_BALLAST, 0);
    }
}

bool folder_ballast_drop(const char *folder)
{
    AUTO_CLOSE int dir = folder_open(folder);
    return dir >= 0 && unlinkat(dir, FOLDER_BALLAST, 0) == 0;
}

/* ---- Names ---- */

void folder_staging_remove(const char *folder)
{
    AUTO_CLOSE int dir = folder_open(folder);
    int staging =
        dir < 0 ? -1 : openat(dir, FOLDER_STAGING, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = staging < 0 ? NULL : fdopendir(staging);
    if (d == NULL) {
        if (staging >= 0) {
            (void)close(staging);
        }
        return;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        (void)unlinkat(dirfd(d), e->d_name, 0); /* not . and .., which are folders */
    }
    (void)closedir(d);
    (void)unlinkat(dir, FOLDER_STAGING, AT_REMOVEDIR);
}

void folder_newest_snapshot(const char *folder, char *out, size_t capacity)
{
    (void)snprintf(out, capacity, "%s", folder);
    DIR *d = opendir(folder);
    if (d == NULL) {
        return;
    }
    struct timespec newest = {0};
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        struct stat st;
        size_t length = strlen(e->d_name);
        bool meta = length > 5 && strcmp(e->d_name + length - 5, ".meta") == 0;
        if (!begins(e->d_name, SNAPSHOT) || meta || fstatat(dirfd(d), e->d_name, &st, 0) != 0) {
            continue;
        }
        if (st.st_mtim.tv_sec > newest.tv_sec ||
            (st.st_mtim.tv_sec == newest.tv_sec && st.st_mtim.tv_nsec >= newest.tv_nsec)) {
            newest = st.st_mtim;
            (void)snprintf(out, capacity, "%s/%s", folder, e->d_name);
        }
    }
    (void)closedir(d);
}

#include "common/package.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"
#include "common/units.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* ---- Paths ---- */

/* Bytes of the UTF-8 character at text (RFC 3629), 0 when it is none or not printable. */
static size_t utf8_printable(const unsigned char *text, size_t size)
{
    unsigned char c = text[0];
    if (c < 0x80) {
        return c >= ' ' && c != 0x7F ? 1 : 0;
    }
    size_t more = c >= 0xC2 && c <= 0xDF   ? 1
                  : (c & 0xF0) == 0xE0     ? 2
                  : c >= 0xF0 && c <= 0xF4 ? 3
                                           : 0;
    if (more == 0 || more >= size) {
        return 0;
    }
    uint32_t value = c & (0x3FU >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
        value = value << 6 | (text[i] & 0x3FU);
    }
    bool overlong = (more == 2 && value < 0x800) || (more == 3 && value < 0x10000);
    bool surrogate = value >= 0xD800 && value <= 0xDFFF;
    bool control = value < 0xA0; /* C1 */
    return overlong || surrogate || control || value > 0x10FFFF ? 0 : more + 1;
}

bool package_path_ok(const char *path, size_t size)
{
    if (size == 0 || size > PACKAGE_PATH_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < size;) {
        size_t step = utf8_printable((const unsigned char *)path + i, size - i);
        if (step == 0) {
            return false;
        }
        i += step;
    }
    size_t depth = 0;
    for (size_t at = 0; at <= size;) {
        const char *slash = memchr(path + at, '/', size - at);
        size_t end = slash != NULL ? (size_t)(slash - path) : size;
        size_t part = end - at;
        if (part == 0 || part > NAME_MAX || (part == 1 && path[at] == '.') ||
            (part == 2 && memcmp(path + at, "..", 2) == 0) || ++depth > PACKAGE_DEPTH_MAX) {
            return false;
        }
        at = end + 1;
    }
    return true;
}

bool package_link_ok(const char *path, const char *target)
{
    size_t depth = 0; /* of the folder that holds the link */
    for (const char *p = path; *p != '\0'; p++) {
        depth += *p == '/';
    }
    while (strncmp(target, "../", 3) == 0 && depth > 0) {
        target += 3;
        depth--;
    }
    if (strcmp(target, "..") == 0) {
        return depth > 0;
    }
    return package_path_ok(target, strlen(target));
}

static struct status fail_path(struct errmsg *msg, enum status_code code, const char *path,
                               const char *what)
{
    char quoted[QUOTE_STRING_BYTES];
    size_t size = strlen(path);
    text_quote(path, size, quoted);
    return size < sizeof quoted ? status_fail(msg, code, "%s: %s", quoted, what)
                                : status_fail(msg, code, "%s (%zu bytes): %s", quoted, size, what);
}

static struct status fail_errno(struct errmsg *msg, const char *path, int error)
{
    return fail_path(msg, status_from_errno(error), path, strerror(error));
}

/* ---- Packing: walk, sort, write ---- */

struct entry {
    char *path;   /* relative to the folder */
    char *target; /* links only */
    mode_t mode;
    uint64_t size;
};

struct walk {
    int root;
    struct entry *entries;
    size_t count;
    size_t capacity;
    uint64_t bytes;
};

static void walk_close(struct walk *w)
{
    for (size_t i = 0; i < w->count; i++) {
        mem_free(w->entries[i].path);
        mem_free(w->entries[i].target);
    }
    mem_free(w->entries);
}

/* Appends an entry with a copy of path. */
static struct status entry_add(struct walk *w, const char *path, const struct stat *st,
                               struct entry **out, struct errmsg *msg)
{
    if (w->count == PACKAGE_FILES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s: there are more than %d files and folders", path,
                           PACKAGE_FILES_MAX);
    }
    if (w->count == w->capacity) {
        size_t capacity = w->capacity == 0 ? 64 : 2 * w->capacity;
        struct entry *grown = mem_realloc(w->entries, capacity * sizeof *grown);
        if (grown == NULL) {
            return status_fail(msg, STATUS_NOMEM, "out of memory");
        }
        w->entries = grown;
        w->capacity = capacity;
    }
    struct entry e = {.path = mem_strdup(path), .mode = st->st_mode};
    if (e.path == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    w->entries[w->count] = e;
    *out = &w->entries[w->count++];
    return status_ok();
}

static struct status link_add(int folder, const char *name, struct entry *e, struct errmsg *msg)
{
    char target[PACKAGE_PATH_BYTES_MAX + 2];
    ssize_t size = readlinkat(folder, name, target, sizeof target - 1);
    if (size < 0) {
        return fail_errno(msg, e->path, errno);
    }
    target[size] = '\0';
    if (!package_link_ok(e->path, target)) {
        return fail_path(msg, STATUS_INVALID, e->path,
                         "a symbolic link that leads out of the folder");
    }
    e->target = mem_strdup(target);
    return e->target != NULL ? status_ok() : status_fail(msg, STATUS_NOMEM, "out of memory");
}

static struct status file_add(struct walk *w, struct entry *e, const struct stat *st,
                              struct errmsg *msg)
{
    e->size = (uint64_t)st->st_size;
    w->bytes += e->size;
    if (e->size > PACKAGE_BYTES_MAX || w->bytes > PACKAGE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s: the folder holds more than %d MiB", e->path,
                           PACKAGE_BYTES_MAX >> 20);
    }
    return status_ok();
}

/* What a file that cannot travel is; NULL for what can. */
static const char *odd_kind(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
        return NULL;
    case S_IFIFO:
        return "a fifo cannot be packed";
    case S_IFSOCK:
        return "a socket cannot be packed";
    default:
        return "a device cannot be packed";
    }
}

/* Takes the folder's descriptor. path holds the folder's own path, of `used` bytes, and has room
 * for PACKAGE_PATH_BYTES_MAX. Recursion ends at PACKAGE_DEPTH_MAX, which package_path_ok checks. */
static struct status walk_folder(struct walk *w, int fd, char *path, size_t used,
                                 struct errmsg *msg);

static struct status walk_name(struct walk *w, int folder, const char *name, char *path,
                               size_t used, struct errmsg *msg)
{
    size_t size = strlen(name);
    size_t whole = used + (used > 0 ? 1 : 0) + size;
    if (whole > PACKAGE_PATH_BYTES_MAX) {
        char quoted[QUOTE_STRING_BYTES];
        text_quote(used > 0 ? path : name, used > 0 ? used : size, quoted);
        return status_fail(msg, STATUS_LIMIT,
                           "%s: a path below it has %zu bytes, at most %d are allowed", quoted,
                           whole, PACKAGE_PATH_BYTES_MAX);
    }
    if (used > 0) {
        path[used] = '/';
    }
    memcpy(path + whole - size, name, size + 1);
    struct stat st;
    struct entry *e = NULL;
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return fail_errno(msg, path, errno);
    }
    if (!package_path_ok(path, whole)) {
        return fail_path(msg, STATUS_INVALID, path,
                         "a path must be printable UTF-8 of at most 64 levels");
    }
    const char *odd = odd_kind(st.st_mode);
    if (odd != NULL) {
        return fail_path(msg, STATUS_INVALID, path, odd);
    }
    TRY(entry_add(w, path, &st, &e, msg));
    if (S_ISLNK(st.st_mode)) {
        return link_add(folder, name, e, msg);
    }
    if (S_ISREG(st.st_mode)) {
        return file_add(w, e, &st, msg);
    }
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 ? walk_folder(w, fd, path, whole, msg) : fail_errno(msg, path, errno);
}

static struct status walk_folder(struct walk *w, int fd, char *path, size_t used,
                                 struct errmsg *msg)
{
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        (void)close(fd);
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    struct status s = status_ok();
    while (status_is_ok(s)) {
        errno = 0;
        struct dirent *d = readdir(dir);
        if (d == NULL) {
            path[used] = '\0';
            s = errno == 0 ? status_ok() : fail_errno(msg, path, errno);
            break;
        }
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0) {
            s = walk_name(w, fd, d->d_name, path, used, msg);
        }
    }
    (void)closedir(dir);
    return s;
}

static int entry_compare(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

/* The file's bytes, of which there must be as many as the walk saw. */
static struct status data_write(struct archive *a, const struct walk *w, const struct entry *e,
                                struct errmsg *msg)
{
    enum { PIECE_BYTES = 64 << 10 };
    AUTO_CLOSE int fd = openat(w->root, e->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    AUTO_FREE uint8_t *piece = fd >= 0 ? mem_alloc(PIECE_BYTES) : NULL;
    if (piece == NULL) {
        return fd < 0 ? fail_errno(msg, e->path, errno)
                      : status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    uint64_t left = e->size;
    for (;;) {
        ssize_t got = read(fd, piece, PIECE_BYTES);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_errno(msg, e->path, errno);
        }
        if ((uint64_t)got > left || (got == 0 && left > 0)) {
            return fail_path(msg, STATUS_CONFLICT, e->path, "changed while it was read");
        }
        if (got == 0) {
            return status_ok();
        }
        if (archive_write_data(a, piece, (size_t)got) != got) {
            return fail_path(msg, STATUS_IO, e->path, archive_error_string(a));
        }
        left -= (uint64_t)got;
    }
}

static struct status entry_write(struct archive *a, const struct walk *w, const struct entry *e,
                                 struct errmsg *msg)
{
    struct archive_entry *ae = archive_entry_new();
    if (ae == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    bool executable = S_ISDIR(e->mode) || S_ISLNK(e->mode) || (e->mode & 0111) != 0;
    archive_entry_set_pathname(ae, e->path);
    archive_entry_set_filetype(ae, e->mode & S_IFMT);
    archive_entry_set_perm(ae, executable ? 0755 : 0644);
    archive_entry_set_size(ae, (int64_t)e->size);
    archive_entry_set_mtime(ae, 0, 0);
    archive_entry_set_uid(ae, 0);
    archive_entry_set_gid(ae, 0);
    if (e->target != NULL) {
        archive_entry_set_symlink(ae, e->target);
    }
    struct status s = archive_write_header(a, ae) == ARCHIVE_OK
                          ? status_ok()
                          : fail_path(msg, STATUS_IO, e->path, archive_error_string(a));
    if (status_is_ok(s) && S_ISREG(e->mode)) {
        s = data_write(a, w, e, msg);
    }
    archive_entry_free(ae);
    return s;
}

static struct status archive_write_all(struct archive *a, const struct walk *w, int out,
                                       struct errmsg *msg)
{
    /* hdrcharset=BINARY: names travel as they are, whatever the locale. */
    if (archive_write_set_format_pax_restricted(a) != ARCHIVE_OK ||
        archive_write_add_filter_none(a) != ARCHIVE_OK ||
        archive_write_set_options(a, "hdrcharset=BINARY") != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(a, 64 << 10) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
        archive_write_open_fd(a, out) != ARCHIVE_OK) {
        return status_fail(msg, STATUS_IO, "start the archive: %s", archive_error_string(a));
    }
    for (size_t i = 0; i < w->count; i++) {
        TRY(entry_write(a, w, &w->entries[i], msg));
    }
    return archive_write_close(a) == ARCHIVE_OK
               ? status_ok()
               : status_fail(msg, STATUS_IO, "end the archive: %s", archive_error_string(a));
}

static struct status package_write(struct package *out, const struct walk *w, const char *folder,
                                   struct errmsg *msg)
{
    AUTO_CLOSE int fd = memfd_create("skep-package", MFD_CLOEXEC);
    struct archive *a = fd >= 0 ? archive_write_new() : NULL;
    if (a == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    struct status s = archive_write_all(a, w, fd, msg);
    (void)archive_write_free(a);
    TRY(s);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return fail_errno(msg, folder, errno);
    }
    if (st.st_size > PACKAGE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s: the package has more than %d MiB", folder,
                           PACKAGE_BYTES_MAX >> 20);
    }
    *out = (struct package){
        .fd = fd_steal(&fd), .size = (uint64_t)st.st_size, .entries_count = w->count};
    return status_ok();
}

struct status package_open(struct package *out, const char *folder, struct errmsg *msg)
{
    AUTO_CLOSE int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int walked = root >= 0 ? fcntl(root, F_DUPFD_CLOEXEC, 0) : -1;
    if (walked < 0) {
        return fail_errno(msg, folder, errno);
    }
    struct walk w = {.root = root};
    char path[PACKAGE_PATH_BYTES_MAX + 1] = "";
    struct status s = walk_folder(&w, walked, path, 0, msg);
    if (status_is_ok(s)) {
        if (w.count > 0) {
            qsort(w.entries, w.count, sizeof w.entries[0], entry_compare);
        }
        s = package_write(out, &w, folder, msg);
    }
    walk_close(&w);
    return s;
}

void package_close(struct package *p)
{
    if (p->size > 0) { /* even an empty archive has its end mark */
        (void)close(p->fd);
    }
    *p = (struct package){.fd = -1};
}

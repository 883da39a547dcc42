/* The unpacking half of package.h. Every entry is made with openat below a chain of real folders,
 * never through a link. */
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
#include <sys/stat.h>

enum { FOLDER_PATH_BYTES = 4096, BUILD_FOLDER_MODE = 0700, FOLDER_MODE = 0555 };

struct unpack {
    package_read_fn read;
    void *data;
    struct status read_status; /* of the last read */
    struct errmsg read_msg;
    int root;
    char **folders; /* made so far, to be closed to writing at the end */
    size_t folders_count;
    size_t folders_capacity;
    size_t entries;
    uint64_t bytes;
};

static struct status fail_entry(struct errmsg *msg, enum status_code code, const char *path,
                                const char *what)
{
    char quoted[QUOTE_STRING_BYTES];
    text_quote(path, strlen(path), quoted);
    return status_fail(msg, code, "archive entry \"%s\": %s", quoted, what);
}

static struct status fail_entry_errno(struct errmsg *msg, const char *path, int error)
{
    enum status_code code =
        error == ENOSPC || error == EDQUOT ? STATUS_LIMIT : status_from_errno(error);
    return fail_entry(msg, code, path, error == EEXIST ? "is there twice" : strerror(error));
}

/* The folder that path's last part goes into, reached without following links; *name is that part.
 * -1 with errno. */
static int parent_open(int root, const char *path, const char **name)
{
    int at = fcntl(root, F_DUPFD_CLOEXEC, 0);
    for (const char *slash; at >= 0 && (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        char part[NAME_MAX + 1];
        size_t size = (size_t)(slash - path);
        CHECK(size < sizeof part); /* package_path_ok */
        memcpy(part, path, size);
        part[size] = '\0';
        int next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        (void)close(at);
        errno = error;
        at = next;
    }
    *name = path;
    return at;
}

static struct status folder_make(struct unpack *u, int parent, const char *name, const char *path,
                                 struct errmsg *msg)
{
    if (u->folders_count == u->folders_capacity) {
        size_t capacity = u->folders_capacity == 0 ? 16 : 2 * u->folders_capacity;
        char **grown = mem_realloc(u->folders, capacity * sizeof *grown);
        if (grown == NULL) {
            return status_of(STATUS_NOMEM);
        }
        u->folders = grown;
        u->folders_capacity = capacity;
    }
    char *copy = mem_strdup(path);
    if (copy == NULL) {
        return status_of(STATUS_NOMEM);
    }
    if (mkdirat(parent, name, BUILD_FOLDER_MODE) != 0) {
        mem_free(copy);
        return fail_entry_errno(msg, path, errno);
    }
    u->folders[u->folders_count++] = copy;
    return status_ok();
}

static struct status piece_write(int fd, const void *data, size_t size, int64_t offset,
                                 const char *path, struct errmsg *msg)
{
    for (size_t done = 0; done < size;) {
        ssize_t wrote =
            pwrite(fd, (const uint8_t *)data + done, size - done, offset + (int64_t)done);
        if (wrote < 0 && errno != EINTR) {
            return fail_entry_errno(msg, path, errno);
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return status_ok();
}

static struct status fail_archive(struct unpack *u, struct archive *a, struct errmsg *msg)
{
    if (!status_is_ok(u->read_status)) {
        return status_fail(msg, u->read_status.code, "%s", u->read_msg.text);
    }
    if (archive_errno(a) == ENOMEM) {
        return status_of(STATUS_NOMEM);
    }
    const char *why = archive_error_string(a);
    char quoted[QUOTE_STRING_BYTES]; /* it may repeat the archive's bytes */
    text_quote(why != NULL ? why : "damaged", why != NULL ? strlen(why) : 7, quoted);
    return status_fail(msg, STATUS_CORRUPT, "the archive cannot be read: %s", quoted);
}

static struct status file_fill(struct unpack *u, struct archive *a, int fd, int64_t size,
                               const char *path, struct errmsg *msg)
{
    int64_t end = 0;
    for (;;) {
        const void *data;
        size_t piece;
        int64_t offset;
        int got = archive_read_data_block(a, &data, &piece, &offset);
        if (got == ARCHIVE_EOF) {
            break;
        }
        if (got != ARCHIVE_OK) {
            return fail_archive(u, a, msg);
        }
        if (offset < end || offset > size || piece > (uint64_t)(size - offset)) {
            return fail_entry(msg, STATUS_CORRUPT, path, "holds more than its size says");
        }
        TRY(piece_write(fd, data, piece, offset, path, msg));
        end = offset + (int64_t)piece;
    }
    return end == size ? status_ok()
                       : fail_entry(msg, STATUS_CORRUPT, path, "holds less than its size says");
}

static struct status file_make(struct unpack *u, struct archive *a, struct archive_entry *e,
                               int parent, const char *name, const char *path, struct errmsg *msg)
{
    int64_t size = archive_entry_size(e);
    if (!archive_entry_size_is_set(e) || size < 0 ||
        (uint64_t)size > PACKAGE_BYTES_MAX - u->bytes) {
        return fail_entry(msg, STATUS_LIMIT, path, "makes the package larger than 256 MiB");
    }
    u->bytes += (uint64_t)size;
    AUTO_CLOSE int fd =
        openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fail_entry_errno(msg, path, errno);
    }
    TRY(file_fill(u, a, fd, size, path, msg));
    bool executable = (archive_entry_perm(e) & 0111) != 0;
    return fchmod(fd, executable ? 0555 : 0444) == 0 ? status_ok()
                                                     : fail_entry_errno(msg, path, errno);
}

static struct status link_make(struct archive_entry *e, int parent, const char *name,
                               const char *path, struct errmsg *msg)
{
    const char *target = archive_entry_symlink(e);
    if (target == NULL || !package_link_ok(path, target)) {
        return fail_entry(msg, STATUS_INVALID, path,
                          "a symbolic link that leads out of the folder");
    }
    return symlinkat(target, parent, name) == 0 ? status_ok() : fail_entry_errno(msg, path, errno);
}

static struct status entry_make(struct unpack *u, struct archive *a, struct archive_entry *e,
                                struct errmsg *msg)
{
    const char *raw = archive_entry_pathname(e);
    char path[PACKAGE_PATH_BYTES_MAX + 1];
    size_t size = raw != NULL ? strlen(raw) : 0;
    unsigned type = archive_entry_filetype(e);
    if (type == AE_IFDIR && size > 1 && raw[size - 1] == '/') {
        size--; /* tar marks folders so */
    }
    if (size == 0 || !package_path_ok(raw, size)) {
        return fail_entry(msg, STATUS_INVALID, raw != NULL ? raw : "",
                          "is not a path inside the folder");
    }
    memcpy(path, raw, size);
    path[size] = '\0';
    if (++u->entries > PACKAGE_FILES_MAX) {
        return fail_entry(msg, STATUS_LIMIT, path, "is one file too many");
    }
    if (archive_entry_hardlink(e) != NULL) {
        return fail_entry(msg, STATUS_INVALID, path, "a hard link may not travel");
    }
    if (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK) {
        return fail_entry(msg, STATUS_INVALID, path,
                          "is neither a file, a folder nor a symbolic link");
    }
    const char *name;
    AUTO_CLOSE int parent = parent_open(u->root, path, &name);
    if (parent < 0) {
        return fail_entry(msg, errno == EMFILE || errno == ENFILE ? STATUS_LIMIT : STATUS_INVALID,
                          path, "does not lie in a folder of the archive");
    }
    if (type == AE_IFDIR) {
        return folder_make(u, parent, name, path, msg);
    }
    return type == AE_IFLNK ? link_make(e, parent, name, path, msg)
                            : file_make(u, a, e, parent, name, path, msg);
}

static ssize_t on_read(struct archive *a, void *data, const void **out)
{
    struct unpack *u = data;
    struct bytes piece = {0};
    u->read_status = u->read(u->data, &piece, &u->read_msg);
    if (!status_is_ok(u->read_status)) {
        archive_set_error(a, EIO, "the source failed");
        return ARCHIVE_FATAL;
    }
    *out = piece.data;
    return (ssize_t)piece.size;
}

static struct status entries_make(struct unpack *u, struct archive *a, struct errmsg *msg)
{
    if (archive_read_support_filter_none(a) != ARCHIVE_OK ||
        archive_read_support_format_tar(a) != ARCHIVE_OK ||
        archive_read_open(a, u, NULL, on_read, NULL) != ARCHIVE_OK) {
        return fail_archive(u, a, msg);
    }
    for (;;) {
        struct archive_entry *e;
        int got = archive_read_next_header(a, &e);
        if (got == ARCHIVE_EOF) {
            return status_ok();
        }
        if (got != ARCHIVE_OK) {
            return fail_archive(u, a, msg);
        }
        TRY(entry_make(u, a, e, msg));
    }
}

/* Closes the folders to writing, deepest first, and puts all on disk. */
static struct status folders_finish(struct unpack *u, struct errmsg *msg)
{
    for (size_t i = u->folders_count; i-- > 0;) {
        const char *name;
        AUTO_CLOSE int parent = parent_open(u->root, u->folders[i], &name);
        if (parent < 0 || fchmodat(parent, name, FOLDER_MODE, 0) != 0) {
            return fail_entry_errno(msg, u->folders[i], errno);
        }
    }
    /* A machine's crash must not leave a cut file under the final name. */
    if (syncfs(u->root) != 0 || fchmod(u->root, FOLDER_MODE) != 0) {
        return status_fail(msg, status_from_errno(errno), "finish the folder: %s", strerror(errno));
    }
    return status_ok();
}

static struct status unpack_into(struct unpack *u, struct errmsg *msg)
{
    struct archive *a = archive_read_new();
    struct status s = a != NULL ? entries_make(u, a, msg) : status_of(STATUS_NOMEM);
    if (a != NULL) {
        (void)archive_read_free(a);
    }
    if (status_is_ok(s)) {
        s = folders_finish(u, msg);
    }
    for (size_t i = 0; i < u->folders_count; i++) {
        mem_free(u->folders[i]);
    }
    mem_free(u->folders);
    return s.code == STATUS_NOMEM ? status_fail(msg, STATUS_NOMEM, "out of memory") : s;
}

struct status package_unpack(package_read_fn read, void *data, const char *folder,
                             struct errmsg *msg)
{
    char build[FOLDER_PATH_BYTES];
    int used = snprintf(build, sizeof build, "%s.XXXXXX", folder);
    if (used < 0 || (size_t)used >= sizeof build) {
        return status_fail(msg, STATUS_LIMIT, "the path of the folder to unpack into is too long");
    }
    if (mkdtemp(build) == NULL) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", folder, strerror(errno));
    }
    AUTO_CLOSE int root = open(build, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct unpack u = {.read = read, .data = data, .root = root};
    struct status s =
        root >= 0 ? unpack_into(&u, msg)
                  : status_fail(msg, status_from_errno(errno), "%s: %s", folder, strerror(errno));
    if (status_is_ok(s) && rename(build, folder) != 0) {
        enum status_code code = errno == ENOTEMPTY ? STATUS_EXISTS : status_from_errno(errno);
        s = status_fail(msg, code, "%s: %s", folder, strerror(errno));
    }
    if (!status_is_ok(s)) {
        struct status ignored = package_remove(build, NULL);
        (void)ignored;
    }
    return s;
}

static struct status bytes_read(void *data, struct bytes *piece, struct errmsg *msg)
{
    struct bytes *rest = data;
    (void)msg;
    *piece = *rest;
    *rest = bytes_of(NULL, 0);
    return status_ok();
}

struct status package_unpack_bytes(struct bytes archive, const char *folder, struct errmsg *msg)
{
    return package_unpack(bytes_read, &archive, folder, msg);
}

/* ---- Removing ---- */

/* Empties the folder, whose descriptor it takes. Recursion ends at twice PACKAGE_DEPTH_MAX. */
static int folder_empty(int fd, unsigned depth)
{
    DIR *dir = fd >= 0 && fchmod(fd, BUILD_FOLDER_MODE) == 0 && depth > 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        int error = fd >= 0 && depth == 0 ? ELOOP : errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        errno = error;
        return -1;
    }
    int failed = 0;
    for (struct dirent *d = readdir(dir); d != NULL && failed == 0; d = readdir(dir)) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
            unlinkat(fd, d->d_name, 0) == 0) {
            continue;
        }
        if (errno != EISDIR && errno != EPERM) {
            failed = -1;
            break;
        }
        int child = openat(fd, d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        failed = folder_empty(child, depth - 1) != 0 || unlinkat(fd, d->d_name, AT_REMOVEDIR) != 0
                     ? -1
                     : 0;
    }
    int error = errno;
    (void)closedir(dir);
    errno = error;
    return failed;
}

struct status package_remove(const char *folder, struct errmsg *msg)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        return status_ok();
    }
    if (folder_empty(fd, 2 * PACKAGE_DEPTH_MAX) != 0 || rmdir(folder) != 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", folder, strerror(errno));
    }
    return status_ok();
}

#include "common/image/unpack.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/image/beneath.h"
#include "common/mem.h"
#include "common/units.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#define uthash_malloc(size) mem_alloc(size)
#define uthash_free(p, size) mem_free(p)
#include <uthash.h>

static const char whiteout_prefix[] = ".wh.";
static const char whiteout_opaque[] = ".wh..wh..opq";
enum { WHITEOUT_PREFIX = sizeof whiteout_prefix - 1, READ_BYTES = 64 << 10 };

struct unpack_made {
    UT_hash_handle hh;
    char path[];
};

/* What one source allows. */
struct unpack_rules {
    bool whiteouts;
    bool plain; /* files and folders alone; links are left out too */
};

struct unpack_entry {
    struct image_unpack *u;
    struct archive *a;
    struct archive_entry *e;
    struct unpack_rules rules;
    char path[IMAGE_PATH_BYTES_MAX + 1]; /* clean, relative */
    const char *name;                    /* its last part */
    int parent;
};

static struct status fail_path(struct errmsg *msg, enum status_code code, const char *path,
                               const char *what)
{
    char quoted[QUOTE_STRING_BYTES];
    text_quote(path, strlen(path), quoted);
    return status_fail(msg, code, "entry \"%s\": %s", quoted, what);
}

static struct status fail_errno(struct errmsg *msg, const char *path, int error)
{
    enum status_code code =
        error == ENOSPC || error == EDQUOT ? STATUS_LIMIT : status_from_errno(error);
    return fail_path(msg, code, path, strerror(error));
}

/* ---- What the layer has made ---- */

static bool is_made(const struct image_unpack *u, const char *path)
{
    struct unpack_made *m;
    HASH_FIND_STR(u->made, path, m);
    return m != NULL;
}

static bool made_one(struct image_unpack *u, const char *path, size_t size)
{
    struct unpack_made *m;
    HASH_FIND(hh, u->made, path, size, m);
    if (m != NULL) {
        return true;
    }
    m = mem_alloc(sizeof *m + size + 1);
    if (m == NULL) {
        return false;
    }
    memset(&m->hh, 0, sizeof m->hh);
    memcpy(m->path, path, size);
    m->path[size] = '\0';
    HASH_ADD_KEYPTR(hh, u->made, m->path, size, m);
    if (m->hh.tbl == NULL) {
        mem_free(m);
        return false;
    }
    return true;
}

/* The path and the folders above it. */
static struct status made_add(struct image_unpack *u, const char *path)
{
    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        if (!made_one(u, path, (size_t)(slash - path))) {
            return status_of(STATUS_NOMEM);
        }
    }
    return made_one(u, path, strlen(path)) ? status_ok() : status_of(STATUS_NOMEM);
}

static void made_clear(struct image_unpack *u)
{
    struct unpack_made *m;
    struct unpack_made *next;
    HASH_ITER(hh, u->made, m, next) {
        HASH_DEL(u->made, m);
        mem_free(m);
    }
}

void image_unpack_init(struct image_unpack *u, int root)
{
    *u = (struct image_unpack){.root = root, .bytes_max = IMAGE_UNPACKED_BYTES_MAX};
}

void image_unpack_close(struct image_unpack *u)
{
    made_clear(u);
}

/* ---- Whiteouts ---- */

static bool made_keeps(void *data, const char *path)
{
    return is_made(data, path);
}

static struct status whiteout_apply(struct unpack_entry *x, struct errmsg *msg)
{
    struct image_unpack *u = x->u;
    if (strcmp(x->name, whiteout_opaque) == 0) {
        size_t size = x->name == x->path ? 0 : (size_t)(x->name - x->path) - 1;
        x->path[size] = '\0';
        return beneath_prune(u->root, x->path, made_keeps, u) == 0
                   ? status_ok()
                   : fail_errno(msg, x->path, errno);
    }
    const char *name = x->name + WHITEOUT_PREFIX;
    if (strncmp(name, whiteout_prefix, WHITEOUT_PREFIX) == 0) {
        return status_ok(); /* aufs's own bookkeeping */
    }
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return fail_path(msg, STATUS_INVALID, x->path, "is a whiteout of nothing");
    }
    size_t at = (size_t)(x->name - x->path);
    memmove(x->path + at, name, strlen(name) + 1);
    int failed = is_made(u, x->path) ? beneath_prune(u->root, x->path, made_keeps, u)
                                     : beneath_remove(x->parent, x->path + at);
    if (failed != 0 && errno == ENOTDIR) {
        return status_ok(); /* A file that this layer has brought. */
    }
    return failed == 0 || errno == ENOENT ? status_ok() : fail_errno(msg, x->path, errno);
}

/* ---- Making ---- */

static mode_t mode_of(struct archive_entry *e, mode_t owner)
{
    return (archive_entry_perm(e) & 01777) | owner;
}

/* Clears the place, unless a folder is to stand where one is. */
static struct status place_clear(struct unpack_entry *x, bool folder, bool *there,
                                 struct errmsg *msg)
{
    struct stat st;
    *there = false;
    if (fstatat(x->parent, x->name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? status_ok() : fail_errno(msg, x->path, errno);
    }
    if (folder && S_ISDIR(st.st_mode)) {
        *there = true;
        return status_ok();
    }
    return beneath_remove(x->parent, x->name) == 0 ? status_ok() : fail_errno(msg, x->path, errno);
}

static struct status folder_make(struct unpack_entry *x, struct errmsg *msg)
{
    bool there;
    TRY(place_clear(x, true, &there, msg));
    if (!there && mkdirat(x->parent, x->name, 0700) != 0) {
        return fail_errno(msg, x->path, errno);
    }
    AUTO_CLOSE int fd = openat(x->parent, x->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, mode_of(x->e, 0700)) != 0) {
        return fail_errno(msg, x->path, errno);
    }
    return status_ok();
}

static struct status piece_write(int fd, const void *data, size_t size, int64_t offset,
                                 const char *path, struct errmsg *msg)
{
    for (size_t done = 0; done < size;) {
        ssize_t wrote =
            pwrite(fd, (const uint8_t *)data + done, size - done, offset + (int64_t)done);
        if (wrote < 0 && errno != EINTR) {
            return fail_errno(msg, path, errno);
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return status_ok();
}

static struct status fail_archive(struct archive *a, struct errmsg *msg)
{
    if (archive_errno(a) == ENOMEM) {
        return status_of(STATUS_NOMEM);
    }
    const char *why = archive_error_string(a);
    char quoted[QUOTE_STRING_BYTES]; /* it may repeat the archive's bytes */
    text_quote(why != NULL ? why : "damaged", why != NULL ? strlen(why) : 7, quoted);
    return status_fail(msg, STATUS_CORRUPT, "the archive cannot be read: %s", quoted);
}

static struct status file_fill(struct unpack_entry *x, int fd, int64_t size, struct errmsg *msg)
{
    for (;;) {
        const void *data;
        size_t piece;
        int64_t offset;
        int got = archive_read_data_block(x->a, &data, &piece, &offset);
        if (got == ARCHIVE_EOF) {
            return ftruncate(fd, size) == 0 ? status_ok() : fail_errno(msg, x->path, errno);
        }
        if (got != ARCHIVE_OK) {
            return fail_archive(x->a, msg);
        }
        if (offset < 0 || offset > size || piece > (uint64_t)(size - offset)) {
            return fail_path(msg, STATUS_CORRUPT, x->path, "holds more than its size says");
        }
        TRY(piece_write(fd, data, piece, offset, x->path, msg));
    }
}

static struct status file_make(struct unpack_entry *x, struct errmsg *msg)
{
    struct image_unpack *u = x->u;
    int64_t size = archive_entry_size_is_set(x->e) ? archive_entry_size(x->e) : -1;
    if (size < 0 || (uint64_t)size > u->bytes_max - u->bytes) {
        return fail_path(msg, size < 0 ? STATUS_CORRUPT : STATUS_LIMIT, x->path,
                         size < 0 ? "has no size" : "makes the image too large");
    }
    u->bytes += (uint64_t)size;
    bool there;
    TRY(place_clear(x, false, &there, msg));
    AUTO_CLOSE int fd =
        openat(x->parent, x->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fail_errno(msg, x->path, errno);
    }
    TRY(file_fill(x, fd, size, msg));
    return fchmod(fd, mode_of(x->e, 0400)) == 0 ? status_ok() : fail_errno(msg, x->path, errno);
}

static struct status link_make(struct unpack_entry *x, struct errmsg *msg)
{
    const char *text = archive_entry_symlink(x->e);
    if (text == NULL || text[0] == '\0' || strlen(text) > IMAGE_PATH_BYTES_MAX) {
        return fail_path(msg, STATUS_INVALID, x->path, "is a link to nothing, or to too much");
    }
    bool there;
    TRY(place_clear(x, false, &there, msg));
    return symlinkat(text, x->parent, x->name) == 0 ? status_ok() : fail_errno(msg, x->path, errno);
}

static struct status hard_link_make(struct unpack_entry *x, struct errmsg *msg)
{
    char target[IMAGE_PATH_BYTES_MAX + 1];
    const char *name;
    if (!beneath_path_clean(archive_entry_hardlink(x->e), target, IMAGE_DEPTH_MAX) ||
        target[0] == '\0') {
        return fail_path(msg, STATUS_INVALID, x->path, "is a hard link to outside the image");
    }
    AUTO_CLOSE int from = beneath_parent(x->u->root, target, false, &name);
    struct stat st;
    if (from < 0 || fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || S_ISDIR(st.st_mode)) {
        return fail_path(msg, STATUS_INVALID, x->path, "is a hard link to what is not there");
    }
    if (strcmp(target, x->path) == 0) {
        return status_ok();
    }
    bool there;
    TRY(place_clear(x, false, &there, msg));
    return linkat(from, name, x->parent, x->name, 0) == 0 ? status_ok()
                                                          : fail_errno(msg, x->path, errno);
}

static bool entry_is_skipped(const struct unpack_entry *x)
{
    unsigned type = archive_entry_filetype(x->e);
    if (archive_entry_hardlink(x->e) != NULL) {
        return x->rules.plain;
    }
    return type != AE_IFREG && type != AE_IFDIR && (type != AE_IFLNK || x->rules.plain);
}

static struct status entry_make(struct unpack_entry *x, struct errmsg *msg)
{
    if (x->rules.whiteouts && strncmp(x->name, whiteout_prefix, WHITEOUT_PREFIX) == 0) {
        return whiteout_apply(x, msg);
    }
    if (entry_is_skipped(x)) {
        x->u->skipped += !x->rules.plain;
        return status_ok();
    }
    unsigned type = archive_entry_filetype(x->e);
    if (archive_entry_hardlink(x->e) != NULL) {
        TRY(hard_link_make(x, msg));
    } else if (type == AE_IFDIR) {
        TRY(folder_make(x, msg));
    } else if (type == AE_IFLNK) {
        TRY(link_make(x, msg));
    } else {
        TRY(file_make(x, msg));
    }
    return x->rules.whiteouts ? made_add(x->u, x->path) : status_ok();
}

/* path: of the entry, as the archive has it. */
static struct status entry_take(struct unpack_entry *x, const char *path, struct errmsg *msg)
{
    if (!beneath_path_clean(path, x->path, IMAGE_DEPTH_MAX)) {
        return fail_path(msg, STATUS_INVALID, path != NULL ? path : "",
                         "is not a path inside the image");
    }
    if (x->path[0] == '\0') {
        return status_ok(); /* The root itself. */
    }
    if (++x->u->entries > IMAGE_ENTRIES_MAX) {
        return fail_path(msg, STATUS_LIMIT, x->path, "is one entry too many");
    }
    x->parent = beneath_parent(x->u->root, x->path, true, &x->name);
    if (x->parent < 0) {
        return fail_path(msg, STATUS_INVALID, x->path, "does not lie in a folder of the image");
    }
    struct status s = entry_make(x, msg);
    (void)close(x->parent);
    return s;
}

static struct status layer_read(struct image_unpack *u, struct archive *a, int fd,
                                struct unpack_rules rules, struct errmsg *msg)
{
    if (lseek(fd, 0, SEEK_SET) != 0 || archive_read_support_filter_none(a) != ARCHIVE_OK ||
        archive_read_support_filter_gzip(a) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(a) != ARCHIVE_OK ||
        archive_read_support_format_tar(a) != ARCHIVE_OK ||
        archive_read_support_format_empty(a) != ARCHIVE_OK ||
        archive_read_open_fd(a, fd, READ_BYTES) != ARCHIVE_OK) {
        return fail_archive(a, msg);
    }
    struct unpack_entry *x = mem_zalloc(1, sizeof *x);
    struct status s = status_of(x == NULL ? STATUS_NOMEM : STATUS_OK);
    while (status_is_ok(s)) {
        *x = (struct unpack_entry){.u = u, .a = a, .rules = rules};
        int got = archive_read_next_header(a, &x->e);
        if (got == ARCHIVE_EOF) {
            break;
        }
        s = got == ARCHIVE_OK || got == ARCHIVE_WARN
                ? entry_take(x, archive_entry_pathname(x->e), msg)
                : fail_archive(a, msg);
    }
    mem_free(x);
    return s;
}

static struct status unpack_fd(struct image_unpack *u, int fd, struct unpack_rules rules,
                               struct errmsg *msg)
{
    made_clear(u);
    struct archive *a = archive_read_new();
    struct status s = a == NULL ? status_of(STATUS_NOMEM) : layer_read(u, a, fd, rules, msg);
    if (a != NULL) {
        (void)archive_read_free(a);
    }
    made_clear(u);
    return s.code == STATUS_NOMEM ? status_fail(msg, STATUS_NOMEM, "out of memory") : s;
}

struct status image_unpack_layer(struct image_unpack *u, int fd, struct errmsg *msg)
{
    return unpack_fd(u, fd, (struct unpack_rules){.whiteouts = true}, msg);
}

struct status image_unpack_outer(struct image_unpack *u, int fd, struct errmsg *msg)
{
    return unpack_fd(u, fd, (struct unpack_rules){.plain = true}, msg);
}

/* ---- A folder ---- */

static struct status folder_read(struct image_unpack *u, struct archive *a, const char *folder,
                                 struct errmsg *msg)
{
    size_t skip = strlen(folder);
    if (archive_read_disk_set_symlink_physical(a) != ARCHIVE_OK ||
        archive_read_disk_set_behavior(a, ARCHIVE_READDISK_NO_XATTR | ARCHIVE_READDISK_NO_ACL |
                                              ARCHIVE_READDISK_NO_FFLAGS) != ARCHIVE_OK ||
        archive_read_disk_open(a, folder) != ARCHIVE_OK) {
        return fail_archive(a, msg);
    }
    struct archive_entry *e = archive_entry_new();
    struct unpack_entry *x = mem_zalloc(1, sizeof *x);
    struct status s = status_of(x == NULL || e == NULL ? STATUS_NOMEM : STATUS_OK);
    while (status_is_ok(s)) {
        int got = archive_read_next_header2(a, e);
        if (got == ARCHIVE_EOF) {
            break;
        }
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN) {
            s = fail_archive(a, msg);
            break;
        }
        *x = (struct unpack_entry){.u = u, .a = a, .e = e};
        const char *path = archive_entry_pathname(e);
        CHECK(path != NULL && strlen(path) >= skip);
        s = entry_take(x, path + skip + (path[skip] == '/'), msg);
        if (status_is_ok(s) && archive_read_disk_can_descend(a) != 0 &&
            archive_read_disk_descend(a) < ARCHIVE_WARN) {
            s = fail_archive(a, msg);
        }
    }
    mem_free(x);
    archive_entry_free(e);
    return s;
}

struct status image_unpack_folder(struct image_unpack *u, const char *folder, struct errmsg *msg)
{
    struct archive *a = archive_read_disk_new();
    struct status s = a == NULL ? status_of(STATUS_NOMEM) : folder_read(u, a, folder, msg);
    if (a != NULL) {
        (void)archive_read_free(a);
    }
    return s.code == STATUS_NOMEM ? status_fail(msg, STATUS_NOMEM, "out of memory") : s;
}

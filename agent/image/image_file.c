#include "agent/image/image_file.h"

#include "common/check.h"
#include "common/chunks.h"
#include "common/cleanup.h"
#include "common/image_ref.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOP_TRIES_MAX = 16 /* others take free devices too */ };

void image_file_path(const char *folder, const struct digest *image, const char *suffix,
                     char out[IMAGE_FILE_PATH_BYTES])
{
    char hex[DIGEST_STRING_BYTES];
    digest_format(image, hex);
    int n = snprintf(out, IMAGE_FILE_PATH_BYTES, "%s/%s.%s", folder, hex, suffix);
    CHECK(n > 0 && n < IMAGE_FILE_PATH_BYTES);
}

static struct status fail(const char *path, const char *what, int error, struct errmsg *msg)
{
    enum status_code code =
        error == ENOSPC || error == EDQUOT ? STATUS_LIMIT : status_from_errno(error);
    return status_fail(msg, code, "%s %s: %s", what, path, strerror(error));
}

/* ---- The file ---- */

static struct status chunk_read(int fd, uint64_t bytes, uint32_t index, struct buffer *out)
{
    uint64_t at = (uint64_t)index * IMAGE_CHUNK_BYTES;
    size_t size = bytes - at < IMAGE_CHUNK_BYTES ? (size_t)(bytes - at) : IMAGE_CHUNK_BYTES;
    out->size = 0;
    TRY(buffer_reserve(out, size));
    while (out->size < size) {
        ssize_t got = pread(fd, out->data + out->size, size - out->size, (off_t)(at + out->size));
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return status_of(STATUS_IO);
        }
        out->size += got > 0 ? (size_t)got : 0;
    }
    return status_ok();
}

/* A chunk that cannot be read is one to be fetched. */
static struct status chunks_check(int fd, uint64_t bytes, const struct digest *chunks,
                                  uint32_t count, bool *missing)
{
    struct buffer chunk = {0};
    struct status s = status_ok();
    for (uint32_t i = 0; i < count && status_is_ok(s); i++) {
        struct digest actual;
        struct status got = chunk_read(fd, bytes, i, &chunk);
        const struct bytes part = bytes_of(chunk.data, chunk.size);
        missing[i] = true;
        if (status_is_ok(got)) {
            s = digest_of(&part, 1, &actual);
            missing[i] = !status_is_ok(s) || digest_compare(&actual, &chunks[i]) != 0;
        } else if (got.code == STATUS_NOMEM) {
            s = got;
        }
    }
    buffer_close(&chunk);
    return s;
}

struct status image_file_scan(const char *folder, const struct digest *image, uint64_t bytes,
                              const struct digest *chunks, uint32_t chunks_count, bool *missing,
                              struct errmsg *msg)
{
    char part[IMAGE_FILE_PATH_BYTES];
    char whole[IMAGE_FILE_PATH_BYTES];
    image_file_path(folder, image, "part", part);
    image_file_path(folder, image, "erofs", whole);
    (void)rename(whole, part);
    AUTO_CLOSE int fd = open(part, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        return fail(part, "open", errno, msg);
    }
    bool fresh = (uint64_t)st.st_size != bytes;
    int error = fresh && ftruncate(fd, 0) != 0 ? errno : 0;
    error = fresh && error == 0 ? posix_fallocate(fd, 0, (off_t)bytes) : error;
    if (error != 0) {
        (void)unlink(part);
        return fail(part, "make", error, msg);
    }
    if (fresh) {
        memset(missing, true, chunks_count * sizeof *missing);
        return status_ok();
    }
    struct status s = chunks_check(fd, bytes, chunks, chunks_count, missing);
    return status_is_ok(s) ? s : status_fail(msg, s.code, "out of memory");
}

struct status image_file_put(const char *folder, const struct digest *image, uint32_t index,
                             const struct digest *chunk, struct bytes data, struct errmsg *msg)
{
    char part[IMAGE_FILE_PATH_BYTES];
    struct digest actual;
    image_file_path(folder, image, "part", part);
    TRY(digest_of(&data, 1, &actual));
    if (data.size > IMAGE_CHUNK_BYTES || digest_compare(&actual, chunk) != 0) {
        return status_fail(msg, STATUS_CORRUPT, "chunk %u of the image has another digest", index);
    }
    AUTO_CLOSE int fd = open(part, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return fail(part, "open", errno, msg);
    }
    for (size_t done = 0; done < data.size;) {
        ssize_t wrote = pwrite(fd, data.data + done, data.size - done,
                               (off_t)index * IMAGE_CHUNK_BYTES + (off_t)done);
        if (wrote < 0 && errno != EINTR) {
            return fail(part, "write", errno, msg);
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return status_ok();
}

static struct status whole_digest(int fd, struct digest *out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t *data = mem_alloc(IMAGE_CHUNK_BYTES);
    bool good = ctx != NULL && data != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    struct status s = status_of(good ? STATUS_OK : STATUS_NOMEM);
    for (off_t at = 0; status_is_ok(s);) {
        ssize_t got = pread(fd, data, IMAGE_CHUNK_BYTES, at);
        if (got == 0) {
            (void)EVP_DigestFinal_ex(ctx, out->v, NULL);
            break;
        }
        if (got < 0) {
            s = status_of(STATUS_IO);
        } else {
            (void)EVP_DigestUpdate(ctx, data, (size_t)got);
            at += got;
        }
    }
    EVP_MD_CTX_free(ctx);
    mem_free(data);
    return s;
}

struct status image_file_finish(const char *folder, const struct digest *image, struct errmsg *msg)
{
    char part[IMAGE_FILE_PATH_BYTES];
    char whole[IMAGE_FILE_PATH_BYTES];
    struct digest actual;
    image_file_path(folder, image, "part", part);
    image_file_path(folder, image, "erofs", whole);
    AUTO_CLOSE int fd = open(part, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        return fail(part, "finish", errno, msg);
    }
    struct status s = whole_digest(fd, &actual);
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "read %s: %s", part, status_text(s.code));
    }
    if (digest_compare(&actual, image) != 0) {
        (void)unlink(part);
        return status_fail(msg, STATUS_CORRUPT,
                           "the image's chunks are right, and the whole has another digest: it "
                           "was not made by skep image import");
    }
    AUTO_CLOSE int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rename(part, whole) != 0 || dir < 0 || fsync(dir) != 0) {
        return fail(whole, "name", errno, msg);
    }
    return status_ok();
}

void image_file_remove(const char *folder, const struct digest *image)
{
    char path[IMAGE_FILE_PATH_BYTES];
    image_file_path(folder, image, "erofs", path);
    (void)unlink(path);
    image_file_path(folder, image, "part", path);
    (void)unlink(path);
}

/* ---- The mount ---- */

static bool is_mounted(const char *path)
{
    struct statx x;
    return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &x) == 0 &&
           (x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0 &&
           (x.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

bool image_file_mounted(const char *folder, const struct digest *image)
{
    char path[IMAGE_FILE_PATH_BYTES];
    image_file_path(folder, image, "mnt", path);
    return is_mounted(path);
}

static struct status fail_mount(const char *path, int error, struct errmsg *msg)
{
    if (error == EPERM || error == EACCES) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "mount an image: this agent may not mount; it must run as root");
    }
    if (error == ENODEV) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "mount an image: this node's kernel has no erofs");
    }
    return fail(path, "mount", error, msg);
}

static const unsigned long mount_flags = MS_RDONLY | MS_NODEV | MS_NOSUID;

/* Gives the file to a free loop device, which is free again when the last mount goes. */
static int loop_take(int file, char device[32])
{
    AUTO_CLOSE int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; control >= 0 && i < LOOP_TRIES_MAX; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        (void)snprintf(device, 32, "/dev/loop%d", number);
        int fd = number < 0 ? -1 : open(device, O_RDONLY | O_CLOEXEC);
        const struct loop_config config = {
            .fd = (__u32)file, .info = {.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR}};
        if (fd < 0) {
            return -1;
        }
        if (ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
            return fd;
        }
        int error = errno;
        (void)close(fd);
        errno = error;
        if (error != EBUSY) {
            return -1;
        }
    }
    return -1;
}

struct status image_file_mount_loop(const char *file, const char *at, struct errmsg *msg)
{
    char device[32];
    AUTO_CLOSE int fd = open(file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return fail(file, "open", errno, msg);
    }
    AUTO_CLOSE int loop = loop_take(fd, device);
    if (loop < 0) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "mount an image: the kernel cannot mount a file, and no loop device "
                           "can be had: %s",
                           strerror(errno));
    }
    return mount(device, at, "erofs", mount_flags, NULL) == 0 ? status_ok()
                                                              : fail_mount(at, errno, msg);
}

struct status image_file_mount(const char *folder, const struct digest *image, struct errmsg *msg)
{
    char file[IMAGE_FILE_PATH_BYTES];
    char at[IMAGE_FILE_PATH_BYTES];
    image_file_path(folder, image, "erofs", file);
    image_file_path(folder, image, "mnt", at);
    if (mkdir(at, 0700) != 0 && errno != EEXIST) {
        return fail(at, "make", errno, msg);
    }
    if (is_mounted(at) || mount(file, at, "erofs", mount_flags, NULL) == 0) {
        return status_ok();
    }
    struct status s =
        errno == ENOTBLK ? image_file_mount_loop(file, at, msg) : fail_mount(at, errno, msg);
    if (!status_is_ok(s)) {
        (void)rmdir(at);
    }
    return s;
}

static struct status unmount(const char *at, struct errmsg *msg)
{
    if (is_mounted(at) && umount2(at, MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
        return fail(at, "unmount", errno, msg);
    }
    return rmdir(at) == 0 || errno == ENOENT ? status_ok() : fail(at, "remove", errno, msg);
}

struct status image_file_unmount(const char *folder, const struct digest *image, struct errmsg *msg)
{
    char at[IMAGE_FILE_PATH_BYTES];
    image_file_path(folder, image, "mnt", at);
    return unmount(at, msg);
}

struct status image_files_unmount_all(const char *data, size_t *count, struct errmsg *msg)
{
    char folder[IMAGE_FILE_PATH_BYTES];
    struct status first = status_ok();
    (void)snprintf(folder, sizeof folder, "%s/images", data);
    *count = 0;
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return errno == ENOENT ? status_ok() : fail(folder, "open", errno, msg);
    }
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        char hex[DIGEST_STRING_BYTES];
        struct digest image;
        (void)snprintf(hex, sizeof hex, "%s", e->d_name);
        if (strlen(e->d_name) == sizeof hex - 1 + strlen(".mnt") &&
            strcmp(e->d_name + sizeof hex - 1, ".mnt") == 0 &&
            status_is_ok(digest_parse(hex, &image, NULL))) {
            struct status s = image_file_unmount(folder, &image, status_is_ok(first) ? msg : NULL);
            *count += status_is_ok(s);
            first = status_is_ok(first) ? s : first;
        }
    }
    (void)closedir(dir);
    return first;
}

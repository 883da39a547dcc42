#include "common/image/beneath.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/image/unpack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

bool beneath_path_clean(const char *path, char *out, unsigned depth_max)
{
    if (path == NULL) {
        return false;
    }
    while (path[0] == '/' || (path[0] == '.' && (path[1] == '/' || path[1] == '\0'))) {
        path++;
    }
    size_t size = strlen(path);
    while (size > 0 && path[size - 1] == '/') {
        size--;
    }
    if (size > IMAGE_PATH_BYTES_MAX) {
        return false;
    }
    unsigned depth = 0;
    for (size_t at = 0; at < size;) {
        const char *slash = memchr(path + at, '/', size - at);
        size_t part = slash == NULL ? size - at : (size_t)(slash - path) - at;
        bool dots = path[at] == '.' && (part == 1 || (part == 2 && path[at + 1] == '.'));
        if (part == 0 || part > NAME_MAX || dots || ++depth > depth_max) {
            return false;
        }
        at += part + 1;
    }
    memcpy(out, path, size);
    out[size] = '\0';
    return true;
}

static int folder_open(int root, const char *path)
{
    const struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, root, path[0] == '\0' ? "." : path, &how, sizeof how);
}

/* The missing folders of a path, from the top. */
static int folders_make(int root, const char *path)
{
    char part[IMAGE_PATH_BYTES_MAX + 1];
    for (const char *slash = strchr(path, '/');; slash = strchr(slash + 1, '/')) {
        size_t size = slash == NULL ? strlen(path) : (size_t)(slash - path);
        memcpy(part, path, size);
        part[size] = '\0';
        AUTO_CLOSE int there = folder_open(root, part);
        if (there < 0) {
            char *name = strrchr(part, '/');
            AUTO_CLOSE int above = -1;
            if (errno != ENOENT) {
                return -1;
            }
            if (name != NULL) {
                *name = '\0';
                above = folder_open(root, part);
            }
            if (mkdirat(name == NULL ? root : above, name == NULL ? part : name + 1, 0755) != 0) {
                return -1;
            }
        }
        if (slash == NULL) {
            return 0;
        }
    }
}

int beneath_parent(int root, const char *path, bool make, const char **name)
{
    char folder[IMAGE_PATH_BYTES_MAX + 1];
    const char *slash = strrchr(path, '/');
    size_t size = slash == NULL ? 0 : (size_t)(slash - path);
    CHECK(size < sizeof folder);
    memcpy(folder, path, size);
    folder[size] = '\0';
    *name = slash == NULL ? path : slash + 1;
    int fd = folder_open(root, folder);
    if (fd < 0 && errno == ENOENT && make && folders_make(root, folder) == 0) {
        fd = folder_open(root, folder);
    }
    return fd;
}

typedef bool (*keep_fn)(void *data, const char *path);

/* Empties the folder, whose descriptor it takes. path has room behind it; keep NULL keeps nothing
 * and needs no paths. */
static int empty(int fd, char *path, keep_fn keep, void *data, unsigned depth);

static int remove_one(int parent, char *path, const char *name, keep_fn keep, void *data,
                      unsigned depth)
{
    size_t size = strlen(path);
    if (depth == 0 || (keep != NULL && size + strlen(name) + 1 > IMAGE_PATH_BYTES_MAX)) {
        errno = ELOOP;
        return -1;
    }
    if (keep != NULL) {
        (void)snprintf(path + size, IMAGE_PATH_BYTES_MAX + 1 - size, "%s%s", size == 0 ? "" : "/",
                       name);
    }
    bool kept = keep != NULL && keep(data, path);
    int failed = 0;
    if (kept || unlinkat(parent, name, 0) != 0) {
        int child = kept || errno == EISDIR || errno == EPERM
                        ? openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                        : -1;
        if (child >= 0) {
            failed = empty(child, path, keep, data, depth - 1);
            failed = failed == 0 && !kept ? unlinkat(parent, name, AT_REMOVEDIR) : failed;
        } else {
            failed = kept ? 0 : -1; /* What is kept and no folder. */
        }
    }
    path[size] = '\0';
    return failed;
}

static int empty(int fd, char *path, keep_fn keep, void *data, unsigned depth)
{
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        (void)close(fd);
        return -1;
    }
    int failed = 0;
    for (struct dirent *d = readdir(dir); d != NULL && failed == 0; d = readdir(dir)) {
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0) {
            failed = remove_one(dirfd(dir), path, d->d_name, keep, data, depth);
        }
    }
    int error = errno;
    (void)closedir(dir);
    errno = error;
    return failed;
}

int beneath_remove(int parent, const char *name)
{
    char path[IMAGE_PATH_BYTES_MAX + 1] = "";
    return remove_one(parent, path, name, NULL, NULL, IMAGE_DEPTH_MAX + 2);
}

int beneath_prune(int root, const char *path, keep_fn keep, void *data)
{
    char at[IMAGE_PATH_BYTES_MAX + 1];
    (void)snprintf(at, sizeof at, "%s", path);
    int fd = folder_open(root, path);
    return fd < 0 ? -1 : empty(fd, at, keep, data, IMAGE_DEPTH_MAX + 2);
}

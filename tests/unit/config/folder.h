/* A temporary folder for one test, and small file helpers. */
#ifndef TESTS_UNIT_CONFIG_FOLDER_H
#define TESTS_UNIT_CONFIG_FOLDER_H

#include "common/package.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { FOLDER_BYTES = 64, PATH_BYTES = 512 };

struct folder {
    char path[FOLDER_BYTES];
};

static inline void folder_open(struct folder *f)
{
    (void)snprintf(f->path, sizeof f->path, "/tmp/skep-test.XXXXXX");
    assert_non_null(mkdtemp(f->path));
}

static inline void folder_close(struct folder *f)
{
    struct errmsg msg = {""};
    struct status s = package_remove(f->path, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(s));
}

static inline const char *folder_path(const struct folder *f, const char *name,
                                      char out[PATH_BYTES])
{
    (void)snprintf(out, PATH_BYTES, "%s/%s", f->path, name);
    return out;
}

static inline void file_put(const struct folder *f, const char *name, const void *data, size_t size,
                            mode_t mode)
{
    char path[PATH_BYTES];
    int fd = open(folder_path(f, name, path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), (ssize_t)size);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static inline void text_put(const struct folder *f, const char *name, const char *text)
{
    file_put(f, name, text, strlen(text), 0644);
}

static inline void folder_put(const struct folder *f, const char *name)
{
    char path[PATH_BYTES];
    assert_int_equal(mkdir(folder_path(f, name, path), 0755), 0);
}

static inline void link_put(const struct folder *f, const char *name, const char *target)
{
    char path[PATH_BYTES];
    assert_int_equal(symlink(target, folder_path(f, name, path)), 0);
}

static inline bool file_is(const struct folder *f, const char *name)
{
    char path[PATH_BYTES];
    struct stat st;
    return lstat(folder_path(f, name, path), &st) == 0;
}

#endif

#include "scheduler/replica/chores.h"

#include "common/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void chores_init(struct chores *c, const char *folder)
{
    *c = (struct chores){.files = true, .space = true};
    int length = snprintf(c->folder, sizeof c->folder, "%s", folder);
    CHECK(length >= 0);
    CHECK((size_t)length < sizeof c->folder);
}

/* Snapshots and closed segments. */
static bool is_removed_later(const char *name)
{
    size_t length = strlen(name);
    bool meta = length > 5 && strcmp(name + length - 5, ".meta") == 0;
    return (strncmp(name, "snapshot-", strlen("snapshot-")) == 0 && !meta) ||
           (name[0] >= '0' && name[0] <= '9');
}

static bool is_kept(const struct chores *c, ino_t inode)
{
    for (size_t i = 0; i < c->kept_count; i++) {
        if (c->kept[i].inode == inode) {
            return true;
        }
    }
    return false;
}

static void keep_new(struct chores *c)
{
    DIR *d = opendir(c->folder);
    if (d == NULL) {
        return;
    }
    for (struct dirent *e = readdir(d); e != NULL && c->kept_count < CHORES_FILES_MAX;
         e = readdir(d)) {
        if (!is_removed_later(e->d_name) || is_kept(c, e->d_ino)) {
            continue;
        }
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) {
            c->kept[c->kept_count].fd = fd;
            c->kept[c->kept_count++].inode = e->d_ino;
        }
    }
    (void)closedir(d);
}

static void close_removed(struct chores *c)
{
    size_t left = 0;
    for (size_t i = 0; i < c->kept_count; i++) {
        struct stat st;
        if (fstat(c->kept[i].fd, &st) == 0 && st.st_nlink > 0) {
            c->kept[left++] = c->kept[i];
        } else {
            (void)close(c->kept[i].fd);
        }
    }
    c->kept_count = left;
}

static void look_at_space(struct chores *c)
{
    if (c->mark > c->written && status_is_ok(folder_mark_write(c->folder, c->mark))) {
        c->written = c->mark;
    }
    folder_ballast_make(c->folder, c->ballast_bytes, c->keep_free);
    c->found_space = status_is_ok(folder_space_read(c->folder, &c->found));
}

void chores_run(struct chores *c)
{
    aio_ends_destroy(&c->ends);
    c->ends.count = 0;
    if (c->files) {
        close_removed(c);
        keep_new(c);
    }
    if (c->space) {
        look_at_space(c);
    }
    c->files = false;
    c->space = false;
}

void chores_close(struct chores *c)
{
    for (size_t i = 0; i < c->kept_count; i++) {
        (void)close(c->kept[i].fd);
    }
    c->kept_count = 0;
}

#include "agent/cell/sentry/where.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NUMBER_DIGITS_MAX = 9 };

/* The next component behind slashes and "."; empty at the end. */
static const char *component(const char *at, size_t *size)
{
    for (;;) {
        at += strspn(at, "/");
        *size = strcspn(at, "/");
        if (*size != 1 || at[0] != '.') {
            return at;
        }
        at++;
    }
}

static bool is(const char *at, size_t size, const char *word)
{
    return strlen(word) == size && memcmp(at, word, size) == 0;
}

static bool is_followed(const char *at, size_t size)
{
    return is(at, size, "exe") || is(at, size, "cwd") || is(at, size, "root");
}

static bool is_number(const char *at, size_t size)
{
    return size > 0 && size <= NUMBER_DIGITS_MAX && strspn(at, "0123456789") >= size;
}

static void proc_parts_of(const char *at, struct where_parts *out)
{
    size_t size = 0;
    at = component(at, &size);
    const char *rest = at + size;
    if (is(at, size, "self")) {
        out->kind = WHERE_SELF;
    } else if (is(at, size, "thread-self")) {
        out->kind = WHERE_THREAD;
    } else if (is_number(at, size)) {
        size_t next = 0;
        const char *what = component(rest, &next);
        if (is_followed(what, next) || is(what, next, "fd")) {
            out->kind = WHERE_SELF;
            out->number = strtol(at, NULL, 10);
        }
    }
    (void)snprintf(out->rest, sizeof out->rest, "%s", rest);
}

static void dev_parts_of(const char *at, struct where_parts *out)
{
    static const char *const names[] = {"stdin", "stdout", "stderr"};
    size_t size = 0;
    at = component(at, &size);
    if (is(at, size, "fd")) {
        out->kind = WHERE_OWN_FD;
        (void)snprintf(out->rest, sizeof out->rest, "/fd%s", at + size);
    }
    for (int i = 0; i < 3; i++) {
        if (is(at, size, names[i])) {
            out->kind = WHERE_OWN_FD;
            (void)snprintf(out->rest, sizeof out->rest, "/fd/%d%s", i, at + size);
        }
    }
}

void where_parts_of(const char *path, struct where_parts *out)
{
    size_t size = 0;
    out->kind = WHERE_PLAIN;
    out->number = 0;
    out->rest[0] = '\0';
    const char *at = component(path, &size);
    if (is(at, size, "proc")) {
        proc_parts_of(at + size, out);
    } else if (is(at, size, "dev")) {
        dev_parts_of(at + size, out);
    }
}

/* rest is what follows /proc/self and names a link to be followed ("/fd/7", "/exe"): then *name is
 * that, without the slash, and *behind what follows it. */
static bool followed_link(const char *rest, char name[32], const char **behind)
{
    size_t size = 0;
    const char *at = component(rest, &size);
    if (is_followed(at, size)) {
        (void)snprintf(name, 32, "%.*s", (int)size, at);
        *behind = at + size;
        return true;
    }
    if (!is(at, size, "fd")) {
        return false;
    }
    at = component(at + size, &size);
    if (!is_number(at, size)) {
        return false;
    }
    (void)snprintf(name, 32, "fd/%.*s", (int)size, at);
    *behind = at + size;
    return true;
}

static int set_path(struct where *w, const char *text)
{
    size_t size = strlen(text);
    if (size >= GUEST_PATH_BYTES) {
        return -ENAMETOOLONG;
    }
    memcpy(w->path, text, size + 1);
    return 0;
}

/* The process's own link: the end of the path, or where it goes on from. */
static int follow_own(const struct guest *g, const char *name, const char *behind, struct where *w)
{
    size_t size = 0;
    const char *next = component(behind, &size);
    if (size == 0) {
        w->dirfd = g->proc_fd;
        w->magic = true;
        guest_own_path(g, name, w->path);
        return 0;
    }
    int fd = guest_open_own(g, name, O_PATH | O_DIRECTORY);
    if (fd < 0) {
        return fd;
    }
    w->dirfd = fd;
    w->owned = true;
    char rest[WHERE_TEXT_BYTES];
    (void)snprintf(rest, sizeof rest, "%s", next);
    return set_path(w, rest);
}

static int translate(const struct guest *g, struct where *w)
{
    struct where_parts parts;
    where_parts_of(w->path, &parts);
    if (parts.kind == WHERE_PLAIN) {
        return 0;
    }
    struct guest_facts facts;
    int error = guest_facts_read(g, &facts);
    if (error < 0) {
        return error;
    }
    if (parts.number != 0 && parts.number != facts.inner_process) {
        return 0; /* Another's: looked up as it is, and its links are not followed. */
    }
    char name[32];
    const char *behind = NULL;
    if (followed_link(parts.rest, name, &behind)) {
        return follow_own(g, name, behind, w);
    }
    char text[WHERE_TEXT_BYTES + 64];
    if (parts.kind == WHERE_THREAD) {
        (void)snprintf(w->link, sizeof w->link, "%d/task/%d", (int)facts.inner_process,
                       (int)facts.inner_thread);
    } else {
        (void)snprintf(w->link, sizeof w->link, "%d", (int)facts.inner_process);
    }
    w->linked = parts.rest[0] == '\0' && parts.number == 0;
    (void)snprintf(text, sizeof text, "/proc/%s%s", w->link, parts.rest);
    return set_path(w, text);
}

/* A relative path whose first name has a special meaning in / or /proc. */
static bool may_be_special(const char *path)
{
    static const char *const names[] = {"proc", "dev", "self", "thread-self", "fd"};
    size_t size = 0;
    const char *at = component(path, &size);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (is(at, size, names[i])) {
            return true;
        }
    }
    return is_number(at, size);
}

static int start_name(int dirfd, char name[16])
{
    if (dirfd == AT_FDCWD) {
        (void)snprintf(name, 16, "cwd");
        return 0;
    }
    if (dirfd < 0) {
        return -EBADF;
    }
    (void)snprintf(name, 16, "fd/%d", dirfd);
    return 0;
}

/* Puts the start's own path before a relative one, where / or /proc is the start. */
static void make_absolute(const struct guest *g, const char *start, struct where *w)
{
    char own[GUEST_MAGIC_BYTES];
    char at[16];
    guest_own_path(g, start, own);
    ssize_t n = readlinkat(g->proc_fd, own, at, sizeof at - 1);
    if (n <= 0 || (size_t)n == sizeof at - 1) {
        return;
    }
    at[n] = '\0';
    if (strcmp(at, "/") != 0 && strcmp(at, "/proc") != 0 && strcmp(at, "/dev") != 0) {
        return;
    }
    char text[WHERE_TEXT_BYTES];
    if ((size_t)snprintf(text, sizeof text, "%s/%s", at, w->path) < GUEST_PATH_BYTES) {
        memcpy(w->path, text, strlen(text) + 1);
    }
}

static int start_open(const struct guest *g, const char *start, struct where *w)
{
    int fd = guest_open_own(g, start, O_PATH);
    if (fd < 0) {
        return fd == -ENOENT ? -EBADF : fd;
    }
    w->dirfd = fd;
    w->owned = true;
    return 0;
}

static int begin(const struct guest *g, uint64_t address, struct where *w)
{
    w->dirfd = AT_FDCWD;
    w->owned = false;
    w->magic = false;
    w->linked = false;
    w->path[0] = '\0';
    int size = guest_read_path(g, address, w->path);
    return size < 0 ? size : 0;
}

int where_find(const struct guest *g, int dirfd, uint64_t address, struct where *w)
{
    char start[16];
    int error = begin(g, address, w);
    if (error < 0) {
        return error;
    }
    if (w->path[0] == '/') {
        return translate(g, w);
    }
    error = start_name(dirfd, start);
    if (error < 0) {
        return error;
    }
    if (may_be_special(w->path)) {
        make_absolute(g, start, w);
        if (w->path[0] == '/') {
            return translate(g, w);
        }
    }
    return start_open(g, start, w);
}

int where_find_below(const struct guest *g, int dirfd, uint64_t address, struct where *w)
{
    char start[16];
    int error = begin(g, address, w);
    if (error == 0) {
        error = start_name(dirfd, start);
    }
    return error < 0 ? error : start_open(g, start, w);
}

void where_close(struct where *w)
{
    if (w->owned) {
        (void)close(w->dirfd);
        w->owned = false;
    }
}

int where_open(const struct where *w, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    if (w->magic) {
        int fd = openat(w->dirfd, w->path, (int)(flags | O_CLOEXEC | O_NOCTTY), (mode_t)mode);
        return fd >= 0 ? fd : -errno;
    }
    struct open_how how = {
        .flags = flags | O_CLOEXEC,
        .mode = mode,
        .resolve = resolve | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, w->dirfd, w->path, &how, sizeof how);
    return fd >= 0 ? fd : -errno;
}

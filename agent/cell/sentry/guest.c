#include "agent/cell/sentry/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

enum { PAGE_BYTES = 4096, FIRST_LOOK_BYTES = 256, STATUS_BYTES_MAX = 4096 };

int guest_read(const struct guest *g, uint64_t address, void *out, size_t size)
{
    struct iovec here = {.iov_base = out, .iov_len = size};
    struct iovec there = {.iov_base = (void *)(uintptr_t)address, .iov_len = size};
    ssize_t n = process_vm_readv(g->tid, &here, 1, &there, 1, 0);
    return n == (ssize_t)size ? 0 : -EFAULT;
}

int guest_write(const struct guest *g, uint64_t address, const void *data, size_t size)
{
    struct iovec here = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct iovec there = {.iov_base = (void *)(uintptr_t)address, .iov_len = size};
    ssize_t n = process_vm_writev(g->tid, &here, 1, &there, 1, 0);
    return n == (ssize_t)size ? 0 : -EFAULT;
}

/* Copies up to size bytes, page by page, so that what is there before a hole is had: how many. */
static size_t read_pieces(const struct guest *g, uint64_t address, char *out, size_t size)
{
    struct iovec here = {.iov_base = out, .iov_len = size};
    struct iovec there[3];
    unsigned count = 0;
    for (size_t done = 0; done < size && count < 3; count++) {
        size_t piece = PAGE_BYTES - ((address + done) & (PAGE_BYTES - 1));
        piece = piece < size - done ? piece : size - done;
        there[count].iov_base = (void *)(uintptr_t)(address + done);
        there[count].iov_len = piece;
        done += piece;
    }
    ssize_t n = process_vm_readv(g->tid, &here, 1, there, count, 0);
    return n > 0 ? (size_t)n : 0;
}

int guest_read_path(const struct guest *g, uint64_t address, char *out)
{
    static const size_t sizes[] = {FIRST_LOOK_BYTES, GUEST_PATH_BYTES};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = read_pieces(g, address, out, sizes[i]);
        const char *end = memchr(out, '\0', n);
        if (end != NULL) {
            return (int)(end - out);
        }
        if (n < sizes[i]) {
            return -EFAULT;
        }
    }
    return -ENAMETOOLONG;
}

void guest_own_path(const struct guest *g, const char *name, char out[GUEST_MAGIC_BYTES])
{
    (void)snprintf(out, GUEST_MAGIC_BYTES, "%d/%s", (int)g->tid, name);
}

int guest_open_own(const struct guest *g, const char *name, int flags)
{
    char path[GUEST_MAGIC_BYTES];
    guest_own_path(g, name, path);
    int fd = openat(g->proc_fd, path, flags | O_CLOEXEC | O_NOCTTY);
    return fd >= 0 ? fd : -errno;
}

int guest_take_fd(const struct guest *g, int fd)
{
    /* A thread of its own right in newer kernels; older ones take a process only. */
    int pidfd = (int)syscall(SYS_pidfd_open, g->tid, PIDFD_THREAD);
    if (pidfd < 0 && errno == EINVAL) {
        struct guest_facts facts;
        int error = guest_facts_read(g, &facts);
        if (error < 0) {
            return error;
        }
        pidfd = (int)syscall(SYS_pidfd_open, facts.process, 0);
    }
    if (pidfd < 0) {
        return -errno;
    }
    int taken = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    int error = errno;
    (void)close(pidfd);
    return taken >= 0 ? taken : -error;
}

/* The last number of the line that starts with key, read in base. */
static bool last_number(const char *text, const char *key, int base, long *out)
{
    const char *line = strstr(text, key);
    if (line == NULL) {
        return false;
    }
    const char *end = line + 1 + strcspn(line + 1, "\n");
    long value = 0;
    bool digits = false;
    for (const char *at = line + strlen(key); at < end; at++) {
        bool digit = *at >= '0' && *at < '0' + base;
        if (digit) {
            value = digits ? value * base + (*at - '0') : *at - '0';
            if (value > INT32_MAX) {
                return false;
            }
        }
        digits = digit;
        if (!digit && *at != ' ' && *at != '\t') {
            return false;
        }
    }
    *out = value;
    return end > line + strlen(key);
}

int guest_facts_parse(const char *text, struct guest_facts *out)
{
    long mask = 0;
    long process = 0;
    long inner_process = 0;
    long inner_thread = 0;
    /* The name, in the first line, is the process's to choose: looked for behind it. */
    const char *rest = strchr(text, '\n');
    if (rest == NULL || !last_number(rest, "\nUmask:", 8, &mask) ||
        !last_number(rest, "\nTgid:", 10, &process) ||
        !last_number(rest, "\nNStgid:", 10, &inner_process) ||
        !last_number(rest, "\nNSpid:", 10, &inner_thread)) {
        return -EINVAL;
    }
    *out = (struct guest_facts){
        .umask = (unsigned)mask & 0777,
        .process = (pid_t)process,
        .inner_process = (pid_t)inner_process,
        .inner_thread = (pid_t)inner_thread,
    };
    return 0;
}

int guest_facts_read(const struct guest *g, struct guest_facts *out)
{
    char text[STATUS_BYTES_MAX];
    int fd = guest_open_own(g, "status", O_RDONLY);
    if (fd < 0) {
        return -ESRCH;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (n <= 0) {
        return -ESRCH;
    }
    text[n] = '\0';
    return guest_facts_parse(text, out);
}

/* Sockets with addresses. The cell's network namespace decides what can be reached; addresses of
 * machines' metadata are refused here as well. */
#include "agent/cell/sentry/calls.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { SEND_BYTES_MAX = 1 << 20 };

struct address {
    struct sockaddr_storage at;
    socklen_t size;
};

static bool is_link_local_4(uint32_t address)
{
    return (ntohl(address) & 0xffff0000U) == 0xa9fe0000U; /* 169.254.0.0/16 */
}

/* Link-local addresses, where clouds keep what a machine may know and nobody else. */
static bool is_refused(const struct address *a)
{
    static const uint8_t metadata[16] = {0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54};
    if (a->at.ss_family == AF_INET && a->size >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, &a->at, sizeof in);
        return is_link_local_4(in.sin_addr.s_addr);
    }
    if (a->at.ss_family == AF_INET6 && a->size >= offsetof(struct sockaddr_in6, sin6_scope_id)) {
        struct sockaddr_in6 in;
        memcpy(&in, &a->at, sizeof in);
        uint32_t last;
        memcpy(&last, in.sin6_addr.s6_addr + 12, sizeof last);
        return IN6_IS_ADDR_LINKLOCAL(&in.sin6_addr) ||
               memcmp(in.sin6_addr.s6_addr, metadata, sizeof metadata) == 0 ||
               (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr) && is_link_local_4(last));
    }
    return false;
}

static int address_read(const struct call *c, uint64_t from, uint64_t size, struct address *out)
{
    if (size > sizeof out->at) {
        return -EINVAL;
    }
    memset(out, 0, sizeof *out);
    out->size = (socklen_t)size;
    int error = size > 0 ? guest_read(&c->guest, from, &out->at, size) : 0;
    return error == 0 && is_refused(out) ? -ENETUNREACH : error;
}

/* A socket's name in a folder, relative to the process's. */
static bool is_path(const struct address *a)
{
    return a->at.ss_family == AF_UNIX && a->size > offsetof(struct sockaddr_un, sun_path) &&
           ((const struct sockaddr_un *)&a->at)->sun_path[0] != '\0';
}

static int stand_where(const struct call *c, const struct address *a)
{
    if (!is_path(a) || ((const struct sockaddr_un *)&a->at)->sun_path[0] == '/') {
        return 0;
    }
    int cwd = guest_open_own(&c->guest, "cwd", O_PATH | O_DIRECTORY);
    if (cwd < 0) {
        return cwd;
    }
    int error = fchdir(cwd) == 0 ? 0 : -errno;
    (void)close(cwd);
    return error;
}

/* connect(2) that does not wait, whatever the socket's own mode: 0 or a negative errno. */
static int connect_now(int fd, const struct address *a, bool *blocking)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) {
        return -errno;
    }
    *blocking = (flags & O_NONBLOCK) == 0;
    if (*blocking && fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        return -errno;
    }
    int error = connect(fd, (const struct sockaddr *)&a->at, a->size) == 0 ? 0 : -errno;
    if (*blocking) {
        (void)fcntl(fd, F_SETFL, flags);
    }
    return error;
}

int wait_step(struct wait *w)
{
    if (w->retry) {
        struct address a = {.at = w->address, .size = w->size};
        bool blocking = false;
        int error = connect_now(w->fd, &a, &blocking);
        return error == -EAGAIN ? -EINPROGRESS : error;
    }
    struct pollfd ready = {.fd = w->fd, .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof error;
    if (poll(&ready, 1, 0) != 1) {
        return -EINPROGRESS;
    }
    return getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? -error : -errno;
}

struct answer call_connect(struct sentry *s, const struct call *c)
{
    struct address a;
    int error = address_read(c, c->a[1], c->a[2], &a);
    error = error < 0 ? error : stand_where(c, &a);
    int fd = error < 0 ? error : guest_take_fd(&c->guest, (int)c->a[0]);
    if (fd < 0) {
        return answer(fd);
    }
    bool blocking = false;
    error = connect_now(fd, &a, &blocking);
    bool full = error == -EAGAIN && a.at.ss_family == AF_UNIX;
    if (blocking && (error == -EINPROGRESS || full)) {
        /* A relative name is tried again from the same folder: the sentry stands in one only until
         * the next call, so such a one is not repeated. */
        bool repeat =
            full && ((const struct sockaddr_un *)&a.at)->sun_path[0] != '/' && is_path(&a);
        if (!repeat) {
            const struct wait w = {
                .id = c->id, .fd = fd, .retry = full, .address = a.at, .size = a.size};
            return sentry_wait(s, &w);
        }
    }
    (void)close(fd);
    return answer(error);
}

struct answer call_bind(struct sentry *s, const struct call *c)
{
    (void)s;
    struct address a;
    struct guest_facts facts = {0};
    int error = address_read(c, c->a[1], c->a[2], &a);
    error = error < 0 ? error : stand_where(c, &a);
    if (error == 0 && is_path(&a)) {
        error = guest_facts_read(&c->guest, &facts);
    }
    int fd = error < 0 ? error : guest_take_fd(&c->guest, (int)c->a[0]);
    if (fd < 0) {
        return answer(fd);
    }
    (void)umask((mode_t)facts.umask);
    error = bind(fd, (const struct sockaddr *)&a.at, a.size) == 0 ? 0 : -errno;
    (void)umask(0);
    (void)close(fd);
    return answer(error);
}

/* ---- sendto ---- */

static int64_t send_copy(const struct call *c, const struct address *a, int flags)
{
    size_t size = c->a[2];
    if (size > SEND_BYTES_MAX) {
        return -EMSGSIZE;
    }
    uint8_t *data = mem_alloc(size + 1);
    if (data == NULL) {
        return -ENOBUFS;
    }
    int64_t result = size > 0 ? guest_read(&c->guest, c->a[1], data, size) : 0;
    int fd = result < 0 ? (int)result : guest_take_fd(&c->guest, (int)c->a[0]);
    result = fd;
    if (fd >= 0) {
        result =
            sendto(fd, data, size, flags | MSG_NOSIGNAL, (const struct sockaddr *)&a->at, a->size);
        result = result < 0 ? -errno : result;
        (void)close(fd);
    }
    mem_free(data);
    return result;
}

static bool socket_waits(const struct call *c)
{
    int fd = guest_take_fd(&c->guest, (int)c->a[0]);
    bool waits = fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return waits && (c->a[3] & MSG_DONTWAIT) == 0;
}

static struct answer send_to(struct sentry *s, const struct call *c, bool may_wait);

/* In a helper. */
static struct answer send_blocking(struct sentry *s, const struct call *c)
{
    return send_to(s, c, true);
}

static struct answer send_to(struct sentry *s, const struct call *c, bool may_wait)
{
    struct address a;
    int error = address_read(c, c->a[4], c->a[5], &a);
    error = error < 0 ? error : stand_where(c, &a);
    if (error < 0) {
        return answer(error);
    }
    int64_t result = send_copy(c, &a, (int)c->a[3] | (may_wait ? 0 : MSG_DONTWAIT));
    if (result == -EAGAIN && !may_wait && socket_waits(c)) {
        return sentry_help(s, c, send_blocking);
    }
    return answer(result);
}

struct answer call_sendto(struct sentry *s, const struct call *c)
{
    return send_to(s, c, false);
}

#include "agent/cell/agent_port.h"

#include "common/check.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 8, ACCEPTS_PER_TURN_MAX = 16, PACKETS_PER_TURN_MAX = 16 };

static void agent_drop(struct agent_port *p)
{
    cleanup_close(&p->agent_fd);
    p->agent_fd = -1;
}

static bool send_hello(const struct agent_port *p)
{
    uint8_t hello = CELL_HELLO;
    struct iovec part = {.iov_base = &hello, .iov_len = sizeof hello};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &p->channel_fd, sizeof p->channel_fd);
    return sendmsg(p->agent_fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof hello;
}

static bool send_event(const struct agent_port *p, const struct cell_event *event)
{
    return send(p->agent_fd, event, sizeof *event, MSG_NOSIGNAL | MSG_DONTWAIT) ==
           (ssize_t)sizeof *event;
}

/* The new agent replaces the old one, which sees the end of its connection. */
static void agent_take(struct agent_port *p, int fd)
{
    agent_drop(p);
    p->agent_fd = fd;
    if (!send_hello(p) || (p->started && !send_event(p, &p->started_event))) {
        agent_drop(p);
    }
}

static bool peer_is_trusted(int fd)
{
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

struct status agent_port_open(struct agent_port *p, int agent_fd, int channel_fd,
                              struct errmsg *msg)
{
    *p = (struct agent_port){.listen_fd = -1, .agent_fd = -1, .channel_fd = channel_fd};
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "cell.sock"};
    mode_t mask = umask(0177);
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)unlink(address.sun_path);
    bool listening = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                     listen(fd, BACKLOG) == 0;
    int error = errno;
    (void)umask(mask);
    if (!listening) {
        cleanup_close(&agent_fd);
        cleanup_close(&p->channel_fd);
        return status_fail(msg, status_from_errno(error), "listen on cell.sock: %s",
                           strerror(error));
    }
    p->listen_fd = fd_steal(&fd);
    if (agent_fd >= 0) {
        agent_take(p, agent_fd);
    }
    return status_ok();
}

void agent_port_accept(struct agent_port *p)
{
    for (int i = 0; i < ACCEPTS_PER_TURN_MAX; i++) {
        int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) {
            continue;
        }
        if (fd < 0) {
            return;
        }
        if (peer_is_trusted(fd)) {
            agent_take(p, fd);
        } else {
            (void)close(fd);
        }
    }
}

void agent_port_receive(struct agent_port *p, bool *stop, bool *kill)
{
    for (int i = 0; i < PACKETS_PER_TURN_MAX && p->agent_fd >= 0; i++) {
        uint8_t packet[2];
        ssize_t size = recv(p->agent_fd, packet, sizeof packet, MSG_DONTWAIT);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (size == 1 && packet[0] == CELL_STOP) {
            *stop = true;
        } else if (size == 1 && packet[0] == CELL_KILL) {
            *kill = true;
        } else {
            agent_drop(p); /* The end, or not one of ours. */
        }
    }
}

void agent_port_tell(struct agent_port *p, const struct cell_event *event)
{
    if (event->kind == CELL_EVENT_STARTED) {
        p->started = true;
        p->started_event = *event;
    }
    if (p->agent_fd >= 0 && !send_event(p, event)) {
        agent_drop(p);
    }
}

void agent_port_close(struct agent_port *p)
{
    cleanup_close(&p->listen_fd);
    cleanup_close(&p->channel_fd);
    agent_drop(p);
    p->listen_fd = -1;
    p->channel_fd = -1;
}

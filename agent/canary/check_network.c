/* Sockets of the host, of another cell, of the schedulers; addresses that no cell may reach. */
#include "agent/canary/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECT_MS = 700 };

static void connect_abstract(struct check *c, const char *name)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t size = strlen(name);
    if (size == 0 || size + 1 > sizeof to.sun_path) {
        check_none(c, "there is no such socket");
        return;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        check_refused(c, "socket");
        return;
    }
    memcpy(to.sun_path + 1, name, size);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + size);
    (void)check_call(c, "connect", connect(fd, (const struct sockaddr *)&to, length));
    (void)close(fd);
}

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* 0 when the connection came to be, else an errno; ETIMEDOUT when nothing answered. */
static int connect_to(const union address *to)
{
    int fd = socket(to->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return errno;
    }
    socklen_t size = to->any.sa_family == AF_INET ? sizeof to->v4 : sizeof to->v6;
    int error = connect(fd, &to->any, size) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        socklen_t length = sizeof error;
        error = ETIMEDOUT;
        if (poll(&p, 1, CONNECT_MS) == 1 &&
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
            error = errno;
        }
    }
    (void)close(fd);
    return error;
}

/* "IP:PORT" or "[IP]:PORT". */
static bool address_read(const char *text, union address *out)
{
    char host[CANARY_TEXT_BYTES];
    const char *colon = strrchr(text, ':');
    if (colon == NULL) {
        return false;
    }
    size_t size = (size_t)(colon - text);
    bool bracket = size > 2 && text[0] == '[' && text[size - 1] == ']';
    (void)snprintf(host, sizeof host, "%.*s", (int)(bracket ? size - 2 : size), text + bracket);
    uint16_t port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    *out = (union address){.v4 = {.sin_family = AF_INET, .sin_port = port}};
    if (inet_pton(AF_INET, host, &out->v4.sin_addr) == 1) {
        return true;
    }
    *out = (union address){.v6 = {.sin6_family = AF_INET6, .sin6_port = port}};
    return inet_pton(AF_INET6, host, &out->v6.sin6_addr) == 1;
}

static void loopback_port(struct check *c, unsigned port)
{
    union address to = {.v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)}};
    if (port == 0) {
        check_none(c, "there is no such port");
        return;
    }
    to.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    errno = connect_to(&to);
    (void)check_call(c, "connect", errno == 0 ? 0 : -1);
}

void check_host_socket(struct check *c)
{
    connect_abstract(c, c->targets->socket);
}

void check_other_socket(struct check *c)
{
    connect_abstract(c, c->targets->other_socket);
}

void check_host_port(struct check *c)
{
    loopback_port(c, c->targets->port);
}

void check_other_port(struct check *c)
{
    loopback_port(c, c->targets->other_port);
}

void check_scheduler_ports(struct check *c)
{
    size_t tried = 0;
    for (size_t i = 0; i < c->targets->addresses_count; i++) {
        union address to;
        if (!address_read(c->targets->addresses[i], &to)) {
            continue; /* a host's name: there is no resolver here */
        }
        tried++;
        errno = connect_to(&to);
        if (errno == 0) {
            check_breached(c, "%s answers", c->targets->addresses[i]);
            return;
        }
        check_refused(c, "connect");
    }
    if (tried == 0) {
        check_none(c, "no scheduler has a numeric address");
    }
}

/* An answer of any kind means that packets get there. */
void check_metadata_address(struct check *c)
{
    static const char *const addresses[] = {"169.254.169.254:80", "[fd00:ec2::254]:80"};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        union address to = {.v4 = {.sin_family = AF_INET}};
        (void)address_read(addresses[i], &to);
        errno = connect_to(&to);
        if (errno == 0 || errno == ECONNREFUSED || errno == ECONNRESET) {
            check_breached(c, "%s answers", addresses[i]);
            return;
        }
        check_refused(c, "connect");
    }
}

/* From /proc/net/dev: asking needs no right. */
void check_interfaces(struct check *c)
{
    FILE *f = fopen("/proc/self/net/dev", "re");
    if (f == NULL) {
        check_refused(c, "open /proc/self/net/dev");
        return;
    }
    char line[512], name[32];
    check_held(c, "only lo");
    while (fgets(line, sizeof line, f) != NULL) {
        if (strchr(line, ':') != NULL && sscanf(line, " %31[^: ]", name) == 1 &&
            strcmp(name, "lo") != 0 && strcmp(name, "sit0") != 0 && strcmp(name, "tunl0") != 0 &&
            strcmp(name, "ip6tnl0") != 0) {
            check_breached(c, "%s is there", name);
            break;
        }
    }
    (void)fclose(f);
}

struct socket_kind {
    const char *what;
    int family, type, protocol;
};

/* Breached by the first of them that opens. */
static void sockets_any(struct check *c, const struct socket_kind *kinds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int fd = socket(kinds[i].family, kinds[i].type | SOCK_CLOEXEC, kinds[i].protocol);
        if (check_call(c, kinds[i].what, fd)) {
            (void)close(fd);
            return;
        }
    }
}

void check_raw_sockets(struct check *c)
{
    static const struct socket_kind kinds[] = {
        {"a raw ICMP socket", AF_INET, SOCK_RAW, IPPROTO_ICMP},
        {"a raw TCP socket", AF_INET, SOCK_RAW, IPPROTO_TCP},
        {"a raw IP socket", AF_INET, SOCK_RAW, IPPROTO_RAW},
        {"a raw ICMPv6 socket", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6},
    };
    sockets_any(c, kinds, sizeof kinds / sizeof kinds[0]);
}

void check_packet_sockets(struct check *c)
{
    static const struct socket_kind kinds[] = {
        {"a raw packet socket", AF_PACKET, SOCK_RAW, 0},
        {"a packet socket", AF_PACKET, SOCK_DGRAM, 0},
    };
    sockets_any(c, kinds, sizeof kinds / sizeof kinds[0]);
}

void check_netlink_sockets(struct check *c)
{
    static const struct socket_kind kinds[] = {
        {"a route socket", AF_NETLINK, SOCK_RAW, 0},
        {"a diag socket", AF_NETLINK, SOCK_RAW, 4},
        {"an audit socket", AF_NETLINK, SOCK_RAW, 9},
        {"a netfilter socket", AF_NETLINK, SOCK_RAW, 12},
        {"a uevent socket", AF_NETLINK, SOCK_RAW, 15},
    };
    sockets_any(c, kinds, sizeof kinds / sizeof kinds[0]);
}

void check_other_sockets(struct check *c)
{
    static const struct socket_kind kinds[] = {
        {"an alg socket", AF_ALG, SOCK_SEQPACKET, 0},
        {"a vsock socket", AF_VSOCK, SOCK_STREAM, 0},
        {"an xdp socket", AF_XDP, SOCK_RAW, 0},
        {"a key socket", AF_KEY, SOCK_RAW, 2},
        {"a can socket", AF_CAN, SOCK_RAW, 1},
        {"a bluetooth socket", AF_BLUETOOTH, SOCK_RAW, 1},
        {"a tipc socket", AF_TIPC, SOCK_STREAM, 0},
        {"an rds socket", AF_RDS, SOCK_SEQPACKET, 0},
        {"an sctp socket", AF_INET, SOCK_STREAM, IPPROTO_SCTP},
        {"a kcm socket", AF_KCM, SOCK_DGRAM, 0},
    };
    sockets_any(c, kinds, sizeof kinds / sizeof kinds[0]);
}

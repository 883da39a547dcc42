#include "agent/egress/rtnl.h"

#include "common/check.h"
#include "common/mem.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUEST_BYTES = 1024 };

struct rtnl {
    struct mnl_socket *socket;
    unsigned sequence;
};

struct request {
    union {
        struct nlmsghdr head;
        char bytes[REQUEST_BYTES];
    };
};

struct status rtnl_open(struct rtnl **out, struct errmsg *msg)
{
    struct rtnl *r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    r->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (r->socket == NULL || mnl_socket_bind(r->socket, 0, MNL_SOCKET_AUTOPID) != 0) {
        struct status s =
            status_fail(msg, status_from_errno(errno), "rtnetlink: %s", strerror(errno));
        rtnl_close(r);
        return s;
    }
    *out = r;
    return status_ok();
}

void rtnl_close(struct rtnl *r)
{
    if (r == NULL) {
        return;
    }
    if (r->socket != NULL) {
        (void)mnl_socket_close(r->socket);
    }
    mem_free(r);
}

static void *begin(struct rtnl *r, struct request *q, uint16_t type, uint16_t flags, size_t extra)
{
    memset(q, 0, sizeof *q);
    struct nlmsghdr *head = mnl_nlmsg_put_header(q->bytes);
    head->nlmsg_type = type;
    head->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    head->nlmsg_seq = ++r->sequence;
    return mnl_nlmsg_put_extra_header(head, extra);
}

/* Sends and waits for the kernel's verdict. */
static struct status ask(struct rtnl *r, struct request *q, struct errmsg *msg, const char *what)
{
    char answer[REQUEST_BYTES * 4];
    CHECK(q->head.nlmsg_len <= sizeof q->bytes);
    ssize_t n = mnl_socket_sendto(r->socket, &q->head, q->head.nlmsg_len);
    if (n >= 0) {
        n = mnl_socket_recvfrom(r->socket, answer, sizeof answer);
    }
    if (n > 0) {
        n = mnl_cb_run(answer, (size_t)n, r->sequence, mnl_socket_get_portid(r->socket), NULL,
                       NULL);
    }
    if (n < 0) {
        enum status_code code = errno == EEXIST   ? STATUS_EXISTS
                                : errno == ENODEV ? STATUS_NOT_FOUND
                                                  : status_from_errno(errno);
        return status_fail(msg, code, "%s: %s", what, strerror(errno));
    }
    return status_ok();
}

struct status rtnl_veth_add(struct rtnl *r, const char *name, const char *peer, int peer_ns,
                            struct errmsg *msg)
{
    struct request q;
    (void)begin(r, &q, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(&q.head, IFLA_IFNAME, name);
    struct nlattr *info = mnl_attr_nest_start(&q.head, IFLA_LINKINFO);
    mnl_attr_put_strz(&q.head, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(&q.head, IFLA_INFO_DATA);
    struct nlattr *other = mnl_attr_nest_start(&q.head, VETH_INFO_PEER);
    (void)mnl_nlmsg_put_extra_header(&q.head, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(&q.head, IFLA_IFNAME, peer);
    mnl_attr_put_u32(&q.head, IFLA_NET_NS_FD, (uint32_t)peer_ns);
    mnl_attr_nest_end(&q.head, other);
    mnl_attr_nest_end(&q.head, data);
    mnl_attr_nest_end(&q.head, info);
    return ask(r, &q, msg, "make a veth pair");
}

struct status rtnl_link_delete(struct rtnl *r, const char *name, struct errmsg *msg)
{
    struct request q;
    (void)begin(r, &q, RTM_DELLINK, 0, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(&q.head, IFLA_IFNAME, name);
    return ask(r, &q, msg, "delete a veth pair");
}

/* Without IPv6 there is nothing to say. */
static struct status no_link_local(struct rtnl *r, const char *name, struct errmsg *msg)
{
    struct request q;
    if (access("/proc/sys/net/ipv6", F_OK) != 0) {
        return status_ok();
    }
    (void)begin(r, &q, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(&q.head, IFLA_IFNAME, name);
    struct nlattr *families = mnl_attr_nest_start(&q.head, IFLA_AF_SPEC);
    struct nlattr *six = mnl_attr_nest_start(&q.head, AF_INET6);
    mnl_attr_put_u8(&q.head, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(&q.head, six);
    mnl_attr_nest_end(&q.head, families);
    return ask(r, &q, msg, "keep a link without link-local addresses");
}

struct status rtnl_link_up(struct rtnl *r, const char *name, struct errmsg *msg)
{
    struct request q;
    TRY(no_link_local(r, name, msg)); /* IPv6 makes one of its own otherwise */
    struct ifinfomsg *link = begin(r, &q, RTM_NEWLINK, 0, sizeof *link);
    link->ifi_flags = IFF_UP;
    link->ifi_change = IFF_UP;
    mnl_attr_put_strz(&q.head, IFLA_IFNAME, name);
    return ask(r, &q, msg, "bring a link up");
}

static size_t address_size(const struct ip_range *a)
{
    return a->v6 ? 16 : 4;
}

struct status rtnl_address_add(struct rtnl *r, const char *name, const struct ip_range *address,
                               struct errmsg *msg)
{
    struct request q;
    struct ifaddrmsg *a = begin(r, &q, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof *a);
    a->ifa_family = address->v6 ? AF_INET6 : AF_INET;
    a->ifa_prefixlen = address->bits;
    a->ifa_flags = IFA_F_NODAD;
    a->ifa_index = if_nametoindex(name);
    mnl_attr_put(&q.head, IFA_LOCAL, address_size(address), address->address);
    mnl_attr_put(&q.head, IFA_ADDRESS, address_size(address), address->address);
    return ask(r, &q, msg, "give a link its address");
}

struct status rtnl_route_add(struct rtnl *r, const struct ip_range *gateway, struct errmsg *msg)
{
    struct request q;
    struct rtmsg *route = begin(r, &q, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof *route);
    route->rtm_family = gateway->v6 ? AF_INET6 : AF_INET;
    route->rtm_table = RT_TABLE_MAIN;
    route->rtm_protocol = RTPROT_STATIC;
    route->rtm_scope = RT_SCOPE_UNIVERSE;
    route->rtm_type = RTN_UNICAST;
    mnl_attr_put(&q.head, RTA_GATEWAY, address_size(gateway), gateway->address);
    return ask(r, &q, msg, "make a default route");
}

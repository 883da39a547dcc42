/* Networks of instances, for real: the test is a machine of its own (a network namespace) with a
 * wire to another one, the world, which answers at several addresses and ports. A connection is
 * made when the kernel behind a listening socket says so; nobody need accept it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/egress/egress_host.h"
#include "agent/egress/netns.h"
#include "agent/egress/nft.h"
#include "agent/egress/rtnl.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID_A "i-01ARZ3NDEKTSV4RRFFQ69G5FAV"
#define ID_B "i-01ARZ3NDEKTSV4RRFFQ69G5FAW"
#define OWN "198.18.0.1"
#define WORLD "198.18.0.2"
#define WORLD6 "fd00:77::2"

enum { PORT = 4430, PORT_OTHER = 4431, DNS = 53, LISTENERS_MAX = 16, DEADLINE_MS = 20000 };

static char folder[64];
static int world_ns = -1;
static int listeners[LISTENERS_MAX];
static size_t listeners_count;
static struct config_network network;
static struct egress_host *host;

#define OK(expression)                                                                             \
    do {                                                                                           \
        struct errmsg ok_msg_ = {{0}};                                                             \
        struct errmsg *msg = &ok_msg_;                                                             \
        struct status ok_ = (expression);                                                          \
        if (!status_is_ok(ok_)) {                                                                  \
            fail_msg("%s: %s: %s", #expression, status_name(ok_.code), msg->text);                 \
        }                                                                                          \
    } while (0)

/* ---- Sockets in other namespaces ---- */

struct dial {
    int type;
    const char *address;
    uint16_t port;
    bool listens;
    int fd; /* out */
    int error;
};

static socklen_t address_make(const struct dial *d, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    struct sockaddr_in *four = (void *)out;
    struct sockaddr_in6 *six = (void *)out;
    if (strchr(d->address, ':') != NULL) {
        *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(d->port)};
        assert_int_equal(inet_pton(AF_INET6, d->address, &six->sin6_addr), 1);
        return sizeof *six;
    }
    *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(d->port)};
    assert_int_equal(inet_pton(AF_INET, d->address, &four->sin_addr), 1);
    return sizeof *four;
}

static struct status dial_run(void *arg, struct errmsg *msg)
{
    struct dial *d = arg;
    struct sockaddr_storage address;
    (void)msg;
    socklen_t size = address_make(d, &address);
    d->error = 0;
    d->fd = socket(address.ss_family, d->type | SOCK_CLOEXEC, 0);
    int rc =
        d->listens ? bind(d->fd, (void *)&address, size) : connect(d->fd, (void *)&address, size);
    if (rc == 0 && d->listens && d->type == SOCK_STREAM) {
        rc = listen(d->fd, 64);
    }
    if (rc == 0 && !d->listens && d->type == SOCK_DGRAM) {
        rc = send(d->fd, "?", 1, 0) == 1 ? 0 : -1;
    }
    if (rc != 0) {
        d->error = errno;
        (void)close(d->fd);
        d->fd = -1;
    }
    return status_ok();
}

static int cell_ns(const char *id)
{
    char path[256];
    int fd = -1;
    (void)snprintf(path, sizeof path, "%s/netns/%s", folder, id);
    OK(netns_open(path, &fd, msg));
    return fd;
}

/* From inside a cell; the descriptor stays open. */
static struct dial dial_from(const char *id, int type, const char *address, uint16_t port)
{
    struct dial d = {.type = type, .address = address, .port = port};
    int ns = cell_ns(id);
    OK(netns_run(ns, dial_run, &d, msg));
    (void)close(ns);
    return d;
}

/* 0, or the errno. */
static int connects(const char *id, const char *address, uint16_t port)
{
    struct dial d = dial_from(id, SOCK_STREAM, address, port);
    if (d.fd >= 0) {
        (void)close(d.fd);
    }
    return d.error;
}

#define REACHES(id, address, port) assert_int_equal(connects(id, address, port), 0)
#define REFUSED(id, address, port) assert_int_equal(connects(id, address, port), EHOSTUNREACH)

static int listen_in(int ns, int type, const char *address, uint16_t port)
{
    struct dial d = {.type = type, .address = address, .port = port, .listens = true};
    if (ns >= 0) {
        OK(netns_run(ns, dial_run, &d, msg));
    } else {
        OK(dial_run(&d, msg));
    }
    assert_int_equal(d.error, 0);
    assert_true(listeners_count < LISTENERS_MAX);
    listeners[listeners_count++] = d.fd;
    return d.fd;
}

/* Until something has come; the kernel may take its time. */
static void await(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
}

/* ---- The machine and the world ---- */

static struct ip_range range(const char *text)
{
    struct ip_range r;
    OK(ip_range_parse(text, &r, msg));
    return r;
}

/* As ip_range_parse, but with the address inside its prefix. */
static void address_add(struct rtnl *r, const char *link, const char *address, uint8_t bits)
{
    struct ip_range a = range(address);
    a.bits = bits;
    OK(rtnl_address_add(r, link, &a, msg));
}

static struct status world_make(void *arg, struct errmsg *msg)
{
    struct rtnl *r;
    (void)arg;
    TRY(rtnl_open(&r, msg));
    address_add(r, "eth0", WORLD, 24);
    address_add(r, "eth0", "169.254.169.254", 32);
    address_add(r, "eth0", "203.0.113.5", 32);
    address_add(r, "eth0", "[" WORLD6 "]", 64);
    struct status s = rtnl_link_up(r, "lo", msg);
    if (status_is_ok(s)) {
        s = rtnl_link_up(r, "eth0", msg);
    }
    rtnl_close(r);
    return s;
}

static void setting(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, value, 1), 1);
    (void)close(fd);
}

static char forwarding(void)
{
    char c = '?';
    int fd = open("/proc/sys/net/ipv4/ip_forward", O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, &c, 1), 1);
    (void)close(fd);
    return c;
}

static void host_open(void)
{
    OK(egress_host_open(&host, folder, "n1", &network, msg));
}

static int machine_open(void **state)
{
    (void)state;
    char path[128];
    struct rtnl *r;
    struct ip_range gateway = range(WORLD);
    (void)snprintf(folder, sizeof folder, "/tmp/skep-egress.XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(unshare(CLONE_NEWNET | CLONE_NEWNS), 0);
    assert_int_equal(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    (void)snprintf(path, sizeof path, "%s/world", folder);
    OK(netns_make(path, msg));
    OK(netns_open(path, &world_ns, msg));
    OK(rtnl_open(&r, msg));
    OK(rtnl_veth_add(r, "wire", "eth0", world_ns, msg));
    address_add(r, "wire", OWN, 24);
    address_add(r, "wire", "[fd00:77::1]", 64);
    OK(rtnl_link_up(r, "lo", msg));
    OK(rtnl_link_up(r, "wire", msg));
    OK(netns_run(world_ns, world_make, NULL, msg));
    OK(rtnl_route_add(r, &gateway, msg));
    rtnl_close(r);
    listeners_count = 0;
    (void)listen_in(world_ns, SOCK_STREAM, "0.0.0.0", PORT);
    (void)listen_in(world_ns, SOCK_STREAM, "0.0.0.0", PORT_OTHER);
    (void)listen_in(world_ns, SOCK_STREAM, WORLD6, PORT);
    network_defaults(&network);
    host_open();
    return 0;
}

static size_t count_in(const char *path, const char *prefix)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        count += e->d_name[0] != '.' && strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    }
    (void)closedir(dir);
    return count;
}

static size_t links(void)
{
    size_t count = 0;
    struct if_nameindex *all = if_nameindex();
    for (struct if_nameindex *i = all; i->if_index != 0; i++) {
        count += strncmp(i->if_name, EGRESS_LINK_PREFIX, 4) == 0;
    }
    if_freenameindex(all);
    return count;
}

static bool table_is_there(void)
{
    char name[EGRESS_TABLE_BYTES];
    uint64_t packets;
    egress_table_name("n1", folder, name);
    return status_is_ok(nft_counter(name, "refused", &packets, NULL));
}

static void assert_nothing_left(void)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/netns", folder);
    assert_int_equal(links(), 0);
    assert_false(table_is_there());
    assert_int_equal(count_in(path, ""), 0);
    assert_int_equal(forwarding(), '0');
}

static int machine_close(void **state)
{
    (void)state;
    char path[128];
    OK(egress_host_remove(host, ID_A, msg));
    OK(egress_host_remove(host, ID_B, msg));
    egress_host_end(host);
    egress_host_close(host);
    (void)snprintf(path, sizeof path, "%s/netns/resolv.conf", folder);
    (void)unlink(path);
    assert_nothing_left();
    for (size_t i = 0; i < listeners_count; i++) {
        (void)close(listeners[i]);
    }
    (void)close(world_ns);
    (void)snprintf(path, sizeof path, "%s/world", folder);
    OK(netns_remove(path, msg));
    (void)snprintf(path, sizeof path, "%s/netns", folder);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static void add(const char *id, const char *rule)
{
    char text[EGRESS_RULE_BYTES];
    (void)snprintf(text, sizeof text, "%s", rule);
    char *rules[] = {text};
    OK(egress_host_add(host, id, rules, 1, msg));
}

/* ---- Tests ---- */

static void what_a_rule_allows_is_reached_and_nothing_else(void **state)
{
    (void)state;
    add(ID_A, WORLD "/32:4430/tcp");
    REACHES(ID_A, WORLD, PORT);
    REFUSED(ID_A, WORLD, PORT_OTHER);
    REFUSED(ID_A, "203.0.113.5", PORT);
    assert_int_equal(connects(ID_A, WORLD6, PORT), ENETUNREACH);
    assert_int_equal(connects(ID_A, "127.0.0.1", PORT), ECONNREFUSED); /* its own loopback is up */
    uint64_t refused = 0;
    OK(egress_host_watch(host, &refused, msg));
    assert_true(refused >= 2);
}

static void metadata_is_refused_whatever_the_rules_say(void **state)
{
    (void)state;
    add(ID_A, "0.0.0.0/0:1-65535/tcp");
    REACHES(ID_A, "203.0.113.5", PORT);
    REFUSED(ID_A, "169.254.169.254", PORT);
}

static void the_agent_s_own_addresses_are_refused(void **state)
{
    (void)state;
    (void)listen_in(-1, SOCK_STREAM, "0.0.0.0", PORT);
    add(ID_A, "0.0.0.0/0:1-65535/tcp");
    struct egress_place place;
    char gateway[IP_RANGE_BYTES];
    egress_place_of(&network, 0, &place);
    ip_range_format(&place.host4, gateway);
    gateway[strcspn(gateway, "/")] = '\0';
    REFUSED(ID_A, OWN, PORT);
    REFUSED(ID_A, gateway, PORT);
}

static void schedulers_are_refused_from_the_moment_they_are_known(void **state)
{
    (void)state;
    char known[] = "203.0.113.5:7400";
    char *addresses[] = {known};
    add(ID_A, "0.0.0.0/0:1-65535/tcp");
    REACHES(ID_A, "203.0.113.5", PORT);
    OK(egress_host_schedulers(host, addresses, 1, msg));
    REFUSED(ID_A, "203.0.113.5", PORT);
    REACHES(ID_A, WORLD, PORT);
}

static void other_cells_are_refused(void **state)
{
    (void)state;
    add(ID_A, "0.0.0.0/0:1-65535/tcp");
    add(ID_B, "0.0.0.0/0:1-65535/tcp");
    struct egress_place place;
    char other[IP_RANGE_BYTES];
    egress_place_of(&network, 1, &place);
    ip_range_format(&place.cell4, other);
    other[strcspn(other, "/")] = '\0';
    int ns = cell_ns(ID_B);
    (void)listen_in(ns, SOCK_STREAM, other, PORT);
    (void)close(ns);
    REACHES(ID_B, other, PORT);
    REFUSED(ID_A, other, PORT);
}

static void nothing_comes_in(void **state)
{
    (void)state;
    add(ID_A, WORLD "/32:4430/tcp");
    struct egress_place place;
    char cell[IP_RANGE_BYTES];
    egress_place_of(&network, 0, &place);
    ip_range_format(&place.cell4, cell);
    cell[strcspn(cell, "/")] = '\0';
    struct dial d = {.type = SOCK_DGRAM, .address = cell, .port = PORT};
    OK(dial_run(&d, msg));
    assert_int_equal(d.error, EPERM);
}

static void one_connection_more_than_allowed_is_refused(void **state)
{
    (void)state;
    network.connections = 3;
    add(ID_A, WORLD "/32:4430/tcp");
    struct dial open[3];
    for (size_t i = 0; i < 3; i++) {
        open[i] = dial_from(ID_A, SOCK_STREAM, WORLD, PORT);
        assert_int_equal(open[i].error, 0);
    }
    REFUSED(ID_A, WORLD, PORT);
    const struct linger reset = {.l_onoff = 1};
    for (size_t i = 0; i < 3; i++) {
        (void)setsockopt(open[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        (void)close(open[i].fd);
    }
    REACHES(ID_A, WORLD, PORT);
}

static void bandwidth_beyond_the_limit_is_dropped(void **state)
{
    (void)state;
    network.bandwidth = CONFIG_BANDWIDTH_MIN;
    add(ID_A, WORLD "/32:4430/udp");
    int sink = listen_in(world_ns, SOCK_DGRAM, WORLD, PORT);
    struct dial d = dial_from(ID_A, SOCK_DGRAM, WORLD, PORT);
    assert_int_equal(d.error, 0);
    char packet[1024] = {0};
    /* At once four times of what the limit lets pass in a burst. */
    for (size_t i = 0; i < 4 * EGRESS_BURST_BYTES_MIN / sizeof packet; i++) {
        (void)send(d.fd, packet, sizeof packet, MSG_DONTWAIT);
    }
    (void)close(d.fd);
    await(sink);
    size_t come = 0;
    while (recv(sink, packet, sizeof packet, MSG_DONTWAIT) >= 0) {
        come++;
    }
    assert_true(come > 1);
    assert_true(come * sizeof packet <= 2 * EGRESS_BURST_BYTES_MIN);
    char table[EGRESS_TABLE_BYTES];
    uint64_t limited = 0;
    egress_table_name("n1", folder, table);
    OK(nft_counter(table, "limited", &limited, msg));
    assert_true(limited > 0);
}

static void names_are_asked_of_the_resolver_alone(void **state)
{
    (void)state;
    egress_host_close(host);
    OK(network_resolver_parse(WORLD, &network.resolver, msg));
    network.has_resolver = true;
    host_open();
    int asked = listen_in(world_ns, SOCK_DGRAM, "0.0.0.0", DNS);
    (void)listen_in(world_ns, SOCK_STREAM, "0.0.0.0", DNS);
    add(ID_A, "10.0.0.0/8:443/tcp");
    char c;
    struct dial d = dial_from(ID_A, SOCK_DGRAM, WORLD, DNS);
    await(asked);
    assert_int_equal(recv(asked, &c, 1, MSG_DONTWAIT), 1);
    (void)close(d.fd);
    REACHES(ID_A, WORLD, DNS);
    REFUSED(ID_A, "203.0.113.5", DNS);
    REFUSED(ID_A, WORLD, PORT);
    char path[128];
    char text[64] = "";
    (void)snprintf(path, sizeof path, "%s/netns/resolv.conf", folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    (void)close(fd);
    assert_string_equal(text, "nameserver " WORLD "\n");
}

static void ipv6_needs_a_node_that_forwards_it(void **state)
{
    (void)state;
    char rule[] = "[fd00:77::2]/128:4430/tcp";
    char *rules[] = {rule};
    struct status s = egress_host_add(host, ID_A, rules, 1, NULL);
    assert_int_equal(s.code, STATUS_UNSUPPORTED);
    assert_int_equal(links(), 0);
    setting("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    add(ID_A, rule);
    REACHES(ID_A, WORLD6, PORT);
    REFUSED(ID_A, WORLD, PORT);
    assert_int_equal(connects(ID_A, "fd00:77::1", PORT), EACCES); /* the agent's own */
}

static void flushed_rules_come_back(void **state)
{
    (void)state;
    add(ID_A, WORLD "/32:4430/tcp");
    OK(nft_apply("flush ruleset", msg));
    uint64_t refused = 0;
    OK(egress_host_watch(host, &refused, msg));
    REFUSED(ID_A, WORLD, PORT_OTHER);
    REACHES(ID_A, WORLD, PORT);
}

static void the_next_agent_goes_on_with_what_is_there(void **state)
{
    (void)state;
    add(ID_A, WORLD "/32:4430/tcp");
    egress_host_end(host); /* it has an instance: nothing happens */
    egress_host_close(host);
    OK(nft_apply("flush ruleset", msg));
    host_open();
    OK(egress_host_adopt(host, msg));
    REACHES(ID_A, WORLD, PORT);
    REFUSED(ID_A, WORLD, PORT_OTHER);
    add(ID_B, WORLD "/32:4431/tcp"); /* at another place of the pool */
    REACHES(ID_B, WORLD, PORT_OTHER);
    REACHES(ID_A, WORLD, PORT);
}

static void a_used_up_pool_is_said_and_leaves_nothing(void **state)
{
    (void)state;
    OK(network_pool_parse("100.64.0.0/30", false, &network.pool, msg));
    char rule[] = WORLD "/32:4430/tcp";
    char *rules[] = {rule};
    struct rtnl *r;
    OK(rtnl_open(&r, msg));
    add(ID_A, rule);
    /* Another agent of this machine has the other place. */
    OK(rtnl_veth_add(r, "skep64400002", "eth9", world_ns, msg));
    struct errmsg why = {{0}};
    struct status s = egress_host_add(host, ID_B, rules, 1, &why);
    assert_int_equal(s.code, STATUS_LIMIT);
    assert_non_null(strstr(why.text, "network.pool"));
    OK(rtnl_link_delete(r, "skep64400002", msg));
    rtnl_close(r);
    add(ID_B, rule);
    REACHES(ID_B, WORLD, PORT);
}

static void the_machine_forwards_for_cells_alone(void **state)
{
    (void)state;
    assert_int_equal(forwarding(), '0');
    add(ID_A, WORLD "/32:4430/tcp");
    assert_int_equal(forwarding(), '1');
    OK(egress_host_remove(host, ID_A, msg));
    assert_true(table_is_there());
    egress_host_end(host);
    assert_nothing_left();
}

static void a_dead_agent_s_networks_are_cleared(void **state)
{
    (void)state;
    add(ID_A, WORLD "/32:4430/tcp");
    add(ID_B, WORLD "/32:4430/tcp");
    OK(egress_host_clear(folder, msg));
    assert_nothing_left();
}

static void the_probe_leaves_nothing(void **state)
{
    (void)state;
    OK(egress_host_probe(host, msg));
    assert_nothing_left();
}

#define MACHINE_TEST(name) cmocka_unit_test_setup_teardown(name, machine_open, machine_close)

int main(void)
{
    if (geteuid() != 0) {
        return 77;
    }
    const struct CMUnitTest tests[] = {
        MACHINE_TEST(what_a_rule_allows_is_reached_and_nothing_else),
        MACHINE_TEST(metadata_is_refused_whatever_the_rules_say),
        MACHINE_TEST(the_agent_s_own_addresses_are_refused),
        MACHINE_TEST(schedulers_are_refused_from_the_moment_they_are_known),
        MACHINE_TEST(other_cells_are_refused),
        MACHINE_TEST(nothing_comes_in),
        MACHINE_TEST(one_connection_more_than_allowed_is_refused),
        MACHINE_TEST(bandwidth_beyond_the_limit_is_dropped),
        MACHINE_TEST(names_are_asked_of_the_resolver_alone),
        MACHINE_TEST(ipv6_needs_a_node_that_forwards_it),
        MACHINE_TEST(flushed_rules_come_back),
        MACHINE_TEST(the_next_agent_goes_on_with_what_is_there),
        MACHINE_TEST(a_used_up_pool_is_said_and_leaves_nothing),
        MACHINE_TEST(the_machine_forwards_for_cells_alone),
        MACHINE_TEST(a_dead_agent_s_networks_are_cleared),
        MACHINE_TEST(the_probe_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

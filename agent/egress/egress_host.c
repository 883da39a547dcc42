#include "agent/egress/egress_host.h"

#include "agent/egress/netns.h"
#include "agent/egress/nft.h"
#include "agent/egress/rtnl.h"
#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CELL_LINK "eth0"
#define FORWARD4 "/proc/sys/net/ipv4/ip_forward"
#define FORWARD6 "/proc/sys/net/ipv6/conf/all/forwarding"

enum { RULES_BYTES_MAX = 64 << 10 }; /* of a cell */

struct egress_host {
    char folder[EGRESS_PATH_BYTES_MAX - ID_STRING_BYTES - 32];
    char table[EGRESS_TABLE_BYTES];
    const struct config_network *network;
    struct ip_range refused[EGRESS_SCHEDULERS_MAX];
    size_t refused_count;
    bool table_made;
    bool only_cells;
    uint32_t next_slot;
};

/* ---- Files ---- */

static void path_of(const struct egress_host *h, const char *name, const char *suffix,
                    char out[EGRESS_PATH_BYTES_MAX])
{
    (void)snprintf(out, EGRESS_PATH_BYTES_MAX, "%s/%s%s", h->folder, name, suffix);
}

static struct status text_write(const char *path, const void *text, size_t size, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 || write(fd, text, size) != (ssize_t)size) {
        return status_fail(msg, status_from_errno(errno), "write %s: %s", path, strerror(errno));
    }
    return status_ok();
}

/* A setting of the kernel that is 0 or not. */
static bool setting_is_on(const char *path)
{
    char c = '0';
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, &c, 1) == 1 && c != '0';
}

static struct status setting_put(const char *path, const char *value, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, 1) != 1) {
        return status_fail(msg, status_from_errno(errno), "write %s: %s", path, strerror(errno));
    }
    return status_ok();
}

static struct status resolv_write(const struct egress_host *h, struct errmsg *msg)
{
    char path[EGRESS_PATH_BYTES_MAX];
    char address[IP_RANGE_BYTES];
    char text[IP_RANGE_BYTES + 64];
    path_of(h, "resolv.conf", "", path);
    if (!h->network->has_resolver) {
        (void)unlink(path);
        return status_ok();
    }
    ip_range_format(&h->network->resolver, address);
    address[strcspn(address, "/")] = '\0';
    int n = snprintf(text, sizeof text, "nameserver %s\n", address);
    CHECK(n > 0 && (size_t)n < sizeof text);
    return text_write(path, text, (size_t)n, msg);
}

struct status egress_host_open(struct egress_host **out, const char *data, const char *node,
                               const struct config_network *network, struct errmsg *msg)
{
    struct egress_host *h = mem_zalloc(1, sizeof *h);
    if (h == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    h->network = network;
    egress_table_name(node, data, h->table);
    int n = snprintf(h->folder, sizeof h->folder, "%s/netns", data);
    struct status s = status_ok();
    if (n < 0 || (size_t)n >= sizeof h->folder) {
        s = status_fail(msg, STATUS_LIMIT, "data: path is too long");
    } else if (mkdir(h->folder, 0700) != 0 && errno != EEXIST) {
        s = status_fail(msg, status_from_errno(errno), "make %s: %s", h->folder, strerror(errno));
    }
    if (status_is_ok(s)) {
        s = resolv_write(h, msg);
    }
    if (!status_is_ok(s)) {
        mem_free(h);
        return s;
    }
    char path[EGRESS_PATH_BYTES_MAX];
    path_of(h, "ip_forward", "", path);
    h->only_cells = access(path, F_OK) == 0;
    *out = h;
    return status_ok();
}

void egress_host_close(struct egress_host *h)
{
    mem_free(h);
}

/* ---- The table ---- */

static struct status apply(struct buffer *text, struct status made, struct errmsg *msg)
{
    if (status_is_ok(made)) {
        made = buffer_append(text, "", 1);
    }
    if (!status_is_ok(made)) {
        return status_fail(msg, made.code, "out of memory");
    }
    return nft_apply((const char *)text->data, msg);
}

static struct status table_apply(const struct egress_host *h, struct errmsg *msg)
{
    const struct egress_table t = {
        .name = h->table,
        .network = h->network,
        .refused = h->refused,
        .refused_count = h->refused_count,
        .only_cells = h->only_cells,
    };
    struct buffer text = {0};
    struct status s = apply(&text, egress_table_text(&t, &text), msg);
    buffer_close(&text);
    return s;
}

/* The note is there before the setting is: it is never forgotten. */
static struct status forwarding_on(struct egress_host *h, struct errmsg *msg)
{
    if (setting_is_on(FORWARD4)) {
        return status_ok();
    }
    char path[EGRESS_PATH_BYTES_MAX];
    path_of(h, "ip_forward", "", path);
    TRY(text_write(path, "0\n", 2, msg));
    h->only_cells = true;
    return status_ok();
}

static struct status table_make(struct egress_host *h, struct errmsg *msg)
{
    if (h->table_made) {
        return status_ok();
    }
    char path[EGRESS_PATH_BYTES_MAX];
    path_of(h, "table", "", path);
    TRY(text_write(path, h->table, strlen(h->table), msg));
    TRY(forwarding_on(h, msg));
    TRY(table_apply(h, msg)); /* before anything is forwarded */
    if (h->only_cells) {
        TRY(setting_put(FORWARD4, "1", msg));
    }
    h->table_made = true;
    return status_ok();
}

/* ---- Schedulers ---- */

static void refuse_name(struct egress_host *h, const char *address)
{
    char host[CONFIG_ADDRESS_BYTES_MAX + 1];
    const char *colon = strrchr(address, ':');
    const char *from = address[0] == '[' ? address + 1 : address;
    size_t size = colon == NULL ? strlen(from) : (size_t)(colon - from);
    size -= size > 0 && from[size - 1] == ']' ? 1 : 0;
    (void)snprintf(host, sizeof host, "%.*s", (int)size, from);
    struct addrinfo *found = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int rc = getaddrinfo(host, NULL, &hints, &found);
    if (rc != 0) {
        LOG_WARN("cells cannot be kept from a scheduler: its address is not known",
                 LOG_STR("scheduler", address), LOG_STR("why", gai_strerror(rc)));
        return;
    }
    for (const struct addrinfo *a = found; a != NULL && h->refused_count < EGRESS_SCHEDULERS_MAX;
         a = a->ai_next) {
        struct ip_range *r = &h->refused[h->refused_count];
        if (a->ai_family == AF_INET) {
            const struct sockaddr_in *in = (const void *)a->ai_addr;
            *r = (struct ip_range){.bits = IP_V4_BITS};
            memcpy(r->address, &in->sin_addr, 4);
            h->refused_count++;
        } else if (a->ai_family == AF_INET6) {
            const struct sockaddr_in6 *in = (const void *)a->ai_addr;
            *r = (struct ip_range){.v6 = true, .bits = IP_V6_BITS};
            memcpy(r->address, &in->sin6_addr, 16);
            h->refused_count++;
        }
    }
    freeaddrinfo(found);
}

struct status egress_host_schedulers(struct egress_host *h, char *const *addresses, size_t count,
                                     struct errmsg *msg)
{
    h->refused_count = 0;
    for (size_t i = 0; i < count; i++) {
        refuse_name(h, addresses[i]);
    }
    return h->table_made ? table_apply(h, msg) : status_ok();
}

/* ---- One network ---- */

static struct status loopback_up(void *arg, struct errmsg *msg)
{
    struct rtnl *r;
    (void)arg;
    TRY(rtnl_open(&r, msg));
    struct status s = rtnl_link_up(r, "lo", msg);
    rtnl_close(r);
    return s;
}

/* Inside: the address, the way out. */
struct inside {
    const struct egress_place *place;
    bool v6;
};

static struct status inside_fill(struct rtnl *r, const struct inside *in, struct errmsg *msg)
{
    TRY(rtnl_address_add(r, CELL_LINK, &in->place->cell4, msg));
    if (in->v6) {
        TRY(rtnl_address_add(r, CELL_LINK, &in->place->cell6, msg));
    }
    TRY(rtnl_link_up(r, CELL_LINK, msg));
    TRY(rtnl_route_add(r, &in->place->host4, msg));
    return in->v6 ? rtnl_route_add(r, &in->place->host6, msg) : status_ok();
}

static struct status inside_make(void *arg, struct errmsg *msg)
{
    struct rtnl *r;
    TRY(rtnl_open(&r, msg));
    struct status s = inside_fill(r, arg, msg);
    rtnl_close(r);
    return s;
}

/* The IPv4 address of the cell's link. */
static struct status inside_look(void *arg, struct errmsg *msg)
{
    struct ip_range *out = arg;
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0) {
        return status_fail(msg, status_from_errno(errno), "addresses: %s", strerror(errno));
    }
    struct status s = status_of(STATUS_NOT_FOUND);
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next) {
        if (a->ifa_addr != NULL && a->ifa_addr->sa_family == AF_INET &&
            strcmp(a->ifa_name, CELL_LINK) == 0) {
            const struct sockaddr_in *in = (const void *)a->ifa_addr;
            *out = (struct ip_range){.bits = IP_V4_BITS};
            memcpy(out->address, &in->sin_addr, 4);
            s = status_ok();
        }
    }
    freeifaddrs(all);
    return s;
}

/* The first free place of the pool: a link's name can be had once on a machine. */
static struct status pair_make(struct egress_host *h, struct rtnl *r, int ns,
                               struct egress_place *place, struct errmsg *msg)
{
    uint32_t slots = egress_slots(h->network);
    for (uint32_t i = 0; i < slots; i++) {
        egress_place_of(h->network, (h->next_slot + i) % slots, place);
        struct status s = rtnl_veth_add(r, place->link, CELL_LINK, ns, msg);
        if (s.code != STATUS_EXISTS) {
            h->next_slot = (h->next_slot + i + 1) % slots;
            return s;
        }
    }
    return status_fail(msg, STATUS_LIMIT, "network.pool: all %u addresses are in use", slots);
}

static struct status pair_fill(struct rtnl *r, int ns, const struct inside *in, struct errmsg *msg)
{
    TRY(rtnl_address_add(r, in->place->link, &in->place->host4, msg));
    if (in->v6) {
        TRY(rtnl_address_add(r, in->place->link, &in->place->host6, msg));
    }
    return netns_run(ns, inside_make, (void *)(uintptr_t)in, msg);
}

struct wish {
    struct egress_rule rules[MANIFEST_EGRESS_MAX];
    size_t count;
    bool v6;
};

static struct status wish_read(const struct egress_host *h, char *const *rules, size_t count,
                               struct wish *out, struct errmsg *msg)
{
    if (count > MANIFEST_EGRESS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "network.egress: more than %d rules",
                           MANIFEST_EGRESS_MAX);
    }
    *out = (struct wish){.count = count, .v6 = h->network->has_resolver && h->network->resolver.v6};
    for (size_t i = 0; i < count; i++) {
        TRY(egress_rule_parse(rules[i], &out->rules[i], msg));
        out->v6 = out->v6 || out->rules[i].to.v6;
    }
    if (out->v6 && !setting_is_on(FORWARD6)) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "an IPv6 rule needs net.ipv6.conf.all.forwarding=1 on the node");
    }
    return status_ok();
}

static struct status rules_make(const struct egress_host *h, const char *id,
                                const struct egress_place *place, const struct wish *wish,
                                struct errmsg *msg)
{
    char path[EGRESS_PATH_BYTES_MAX];
    struct buffer text = {0};
    struct status made =
        egress_cell_text(h->table, h->network, place, wish->rules, wish->count, &text);
    path_of(h, id, ".nft", path);
    struct status s =
        status_is_ok(made) ? text_write(path, text.data, text.size, msg) : status_ok();
    if (status_is_ok(s)) {
        s = apply(&text, made, msg);
    }
    buffer_close(&text);
    return s;
}

/* In this order a crash at any place leaves what egress_host_remove removes, and nothing passes
 * before the rules are there. */
static struct status network_make(struct egress_host *h, struct rtnl *r, int ns, const char *id,
                                  const struct wish *wish, struct errmsg *msg)
{
    struct egress_place place;
    TRY(netns_run(ns, loopback_up, NULL, msg));
    TRY(pair_make(h, r, ns, &place, msg));
    const struct inside in = {.place = &place, .v6 = wish->v6};
    struct status s = pair_fill(r, ns, &in, msg);
    if (status_is_ok(s)) {
        s = rules_make(h, id, &place, wish, msg);
    }
    if (status_is_ok(s)) {
        s = rtnl_link_up(r, place.link, msg);
    }
    if (!status_is_ok(s)) {
        (void)!status_is_ok(rtnl_link_delete(r, place.link, NULL)); /* s says more */
    }
    return s;
}

struct status egress_host_add(struct egress_host *h, const char *id, char *const *rules,
                              size_t count, struct errmsg *msg)
{
    struct wish wish;
    char path[EGRESS_PATH_BYTES_MAX];
    AUTO_CLOSE int ns = -1;
    struct rtnl *r = NULL;
    TRY(wish_read(h, rules, count, &wish, msg));
    TRY(table_make(h, msg));
    path_of(h, id, "", path);
    TRY(netns_make(path, msg));
    struct status s = netns_open(path, &ns, msg);
    if (status_is_ok(s)) {
        s = rtnl_open(&r, msg);
    }
    if (status_is_ok(s)) {
        s = network_make(h, r, ns, id, &wish, msg);
    }
    rtnl_close(r);
    if (!status_is_ok(s)) {
        (void)!status_is_ok(egress_host_remove(h, id, NULL)); /* s says more */
    }
    return s;
}

/* Where the instance's pair is. NOT_FOUND when it has none. */
static struct status address_find(const char *path, struct ip_range *out)
{
    AUTO_CLOSE int ns = -1;
    TRY(netns_open(path, &ns, NULL));
    return netns_run(ns, inside_look, out, NULL);
}

static struct status place_find(const struct egress_host *h, const char *path,
                                struct egress_place *out)
{
    struct ip_range address;
    uint32_t slot;
    TRY(address_find(path, &address));
    TRY(egress_slot_of(h->network, &address, &slot));
    egress_place_of(h->network, slot, out);
    return status_ok();
}

/* The pair first: without rules nothing may pass. */
static struct status pair_remove(struct egress_host *h, const struct egress_place *place,
                                 struct errmsg *msg)
{
    struct rtnl *r;
    TRY(rtnl_open(&r, msg));
    struct status s = rtnl_link_delete(r, place->link, msg);
    rtnl_close(r);
    if (!status_is_ok(s) && s.code != STATUS_NOT_FOUND) {
        return s;
    }
    struct buffer text = {0};
    s = apply(&text, egress_cell_remove_text(h->table, place, &text), msg);
    buffer_close(&text);
    if (s.code == STATUS_IO) {
        /* Somebody has flushed all of it, which is not nothing to take away from. */
        s = table_apply(h, msg);
    }
    return s;
}

struct status egress_host_remove(struct egress_host *h, const char *id, struct errmsg *msg)
{
    char path[EGRESS_PATH_BYTES_MAX];
    struct egress_place place;
    path_of(h, id, "", path);
    if (status_is_ok(place_find(h, path, &place))) {
        TRY(pair_remove(h, &place, msg));
    }
    TRY(netns_remove(path, msg));
    path_of(h, id, ".nft", path);
    (void)unlink(path);
    return status_ok();
}

/* ---- All of them ---- */

void egress_host_each(const struct egress_host *h, void (*fn)(void *arg, const char *id), void *arg)
{
    DIR *dir = opendir(h->folder);
    if (dir == NULL) {
        return;
    }
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct id128 id;
        if (status_is_ok(id_parse(e->d_name, INSTANCE_PREFIX, &id, NULL))) {
            fn(arg, e->d_name);
        }
    }
    (void)closedir(dir);
}

struct again {
    const struct egress_host *host;
    struct status status;
    struct errmsg *msg;
};

static void rules_again(void *arg, const char *id)
{
    struct again *a = arg;
    char path[EGRESS_PATH_BYTES_MAX];
    char text[RULES_BYTES_MAX];
    struct egress_place place;
    path_of(a->host, id, "", path);
    if (!status_is_ok(place_find(a->host, path, &place))) {
        return;
    }
    path_of(a->host, id, ".nft", path);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (n > 0) {
        text[n] = '\0';
        struct status s = nft_apply(text, a->msg);
        a->status = status_is_ok(s) ? a->status : s;
    }
}

struct status egress_host_adopt(struct egress_host *h, struct errmsg *msg)
{
    struct again again = {.host = h, .status = status_ok(), .msg = msg};
    TRY(table_make(h, msg));
    egress_host_each(h, rules_again, &again);
    return again.status;
}

struct status egress_host_watch(struct egress_host *h, uint64_t *refused, struct errmsg *msg)
{
    if (!h->table_made) {
        *refused = 0;
        return status_ok();
    }
    struct status s = nft_counter(h->table, "refused", refused, msg);
    if (status_is_ok(s)) {
        return s;
    }
    LOG_ERROR("the rules of cells' networks were gone: putting them back",
              LOG_STR("table", h->table));
    *refused = 0;
    h->table_made = false;
    return egress_host_adopt(h, msg);
}

static void count_one(void *arg, const char *id)
{
    size_t *count = arg;
    (void)id;
    (*count)++;
}

/* Is there a pair of any agent? */
static bool pairs_exist(void)
{
    bool found = false;
    struct if_nameindex *all = if_nameindex();
    for (const struct if_nameindex *i = all; i != NULL && i->if_index != 0; i++) {
        found = found || strncmp(i->if_name, EGRESS_LINK_PREFIX, strlen(EGRESS_LINK_PREFIX)) == 0;
    }
    if_freenameindex(all);
    return found;
}

/* Forwarding first: without rules nothing may pass. */
static struct status table_remove(const struct egress_host *h, const char *table,
                                  struct errmsg *msg)
{
    char path[EGRESS_PATH_BYTES_MAX];
    path_of(h, "ip_forward", "", path);
    if (access(path, F_OK) == 0 && !pairs_exist()) {
        TRY(setting_put(FORWARD4, "0", msg));
    }
    struct buffer text = {0};
    struct status s = apply(&text, egress_table_remove_text(table, &text), msg);
    buffer_close(&text);
    TRY(s);
    (void)unlink(path);
    path_of(h, "table", "", path);
    (void)unlink(path);
    return status_ok();
}

void egress_host_end(struct egress_host *h)
{
    size_t count = 0;
    struct errmsg msg = {{0}};
    egress_host_each(h, count_one, &count);
    if (count > 0 || !h->table_made) {
        return;
    }
    if (!status_is_ok(table_remove(h, h->table, &msg))) {
        LOG_WARN("cannot take the rules of cells' networks away", LOG_STR("why", msg.text));
        return;
    }
    h->only_cells = false;
    h->table_made = false;
}

struct clearing {
    const struct egress_host *host;
    struct status status;
    struct errmsg *msg;
};

static void clear_one(void *arg, const char *id)
{
    struct clearing *c = arg;
    char path[EGRESS_PATH_BYTES_MAX];
    struct ip_range address;
    path_of(c->host, id, "", path);
    struct status s = status_ok();
    if (status_is_ok(address_find(path, &address))) {
        char link[EGRESS_LINK_BYTES];
        struct rtnl *r;
        egress_link_of(&address, link);
        s = rtnl_open(&r, c->msg);
        if (status_is_ok(s)) {
            s = rtnl_link_delete(r, link, c->msg);
            rtnl_close(r);
        }
    }
    if (status_is_ok(s) || s.code == STATUS_NOT_FOUND) {
        s = netns_remove(path, c->msg);
    }
    path_of(c->host, id, ".nft", path);
    (void)unlink(path);
    c->status = status_is_ok(c->status) ? s : c->status;
}

struct status egress_host_clear(const char *data, struct errmsg *msg)
{
    struct egress_host h = {0};
    char path[EGRESS_PATH_BYTES_MAX];
    char table[EGRESS_TABLE_BYTES] = "";
    (void)snprintf(h.folder, sizeof h.folder, "%s/netns", data);
    struct clearing c = {.host = &h, .status = status_ok(), .msg = msg};
    egress_host_each(&h, clear_one, &c);
    TRY(c.status);
    path_of(&h, "table", "", path);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || read(fd, table, sizeof table - 1) <= 0) {
        return status_ok(); /* there never was one */
    }
    return table_remove(&h, table, msg);
}

/* ---- The probe ---- */

static struct status probe_inside(void *arg, struct errmsg *msg)
{
    const struct egress_host *h = arg;
    struct egress_host trial = {.network = h->network};
    struct egress_place place;
    struct egress_rule rule;
    struct rtnl *r;
    TRY(egress_rule_parse("192.0.2.1/32:443/tcp", &rule, msg));
    (void)snprintf(trial.table, sizeof trial.table, "%s", h->table);
    TRY(table_apply(&trial, msg));
    egress_place_of(h->network, 0, &place);
    struct buffer text = {0};
    struct status s =
        apply(&text, egress_cell_text(h->table, h->network, &place, &rule, 1, &text), msg);
    buffer_close(&text);
    TRY(s);
    TRY(rtnl_open(&r, msg));
    AUTO_CLOSE int ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    s = rtnl_veth_add(r, place.link, CELL_LINK, ns, msg);
    rtnl_close(r);
    return s;
}

struct status egress_host_probe(const struct egress_host *h, struct errmsg *msg)
{
    if (geteuid() != 0) {
        return status_fail(msg, STATUS_DENIED, "the agent is not root");
    }
    return netns_run(-1, probe_inside, (void *)(uintptr_t)h, msg);
}

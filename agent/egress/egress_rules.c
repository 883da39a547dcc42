#include "agent/egress/egress_rules.h"

#include "common/check.h"
#include "common/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- Places ---- */

uint32_t egress_slots(const struct config_network *n)
{
    CHECK(n->pool.bits >= CONFIG_POOL_BITS_MIN && n->pool.bits <= CONFIG_POOL_BITS_MAX);
    return UINT32_C(1) << (IP_V4_BITS - n->pool.bits - 1);
}

static uint32_t last_word(const struct ip_range *r)
{
    const uint8_t *at = r->address + (r->v6 ? 12 : 0);
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The pool's address number `offset`, alone with its neighbour. */
static struct ip_range nth(const struct ip_range *pool, uint32_t offset)
{
    struct ip_range r = *pool;
    uint32_t word = last_word(pool) + offset;
    uint8_t *at = r.address + (r.v6 ? 12 : 0);
    at[0] = (uint8_t)(word >> 24);
    at[1] = (uint8_t)(word >> 16);
    at[2] = (uint8_t)(word >> 8);
    at[3] = (uint8_t)word;
    r.bits = r.v6 ? IP_V6_BITS - 1 : IP_V4_BITS - 1;
    return r;
}

void egress_link_of(const struct ip_range *cell4, char out[EGRESS_LINK_BYTES])
{
    (void)snprintf(out, EGRESS_LINK_BYTES, EGRESS_LINK_PREFIX "%08x", last_word(cell4) & ~1U);
}

void egress_place_of(const struct config_network *n, uint32_t slot, struct egress_place *out)
{
    CHECK(slot < egress_slots(n));
    *out = (struct egress_place){
        .host4 = nth(&n->pool, slot * 2),
        .cell4 = nth(&n->pool, slot * 2 + 1),
        .host6 = nth(&n->pool6, slot * 2),
        .cell6 = nth(&n->pool6, slot * 2 + 1),
    };
    egress_link_of(&out->cell4, out->link);
}

struct status egress_slot_of(const struct config_network *n, const struct ip_range *cell4,
                             uint32_t *slot)
{
    struct ip_range one = *cell4;
    one.bits = IP_V4_BITS;
    if (one.v6 || !ip_range_holds(&n->pool, &one)) {
        return status_of(STATUS_NOT_FOUND);
    }
    *slot = (last_word(cell4) - last_word(&n->pool)) / 2;
    return status_ok();
}

void egress_table_name(const char *node, const char *data, char out[EGRESS_TABLE_BYTES])
{
    (void)snprintf(out, EGRESS_TABLE_BYTES, "skep_%s_%08x", node,
                   (unsigned)(hash_fnv1a(HASH_FNV1A, data, strlen(data)) & UINT32_MAX));
}

/* ---- Texts ---- */

/* Formatted lines, each behind its table's name; the first failure stays. */
struct writer {
    struct buffer *out;
    const char *table;
    struct status status;
};

#define PUT(w, format, ...)                                                                        \
    do {                                                                                           \
        if (status_is_ok((w)->status)) {                                                           \
            (w)->status = buffer_printf((w)->out, format "\n", __VA_ARGS__);                       \
        }                                                                                          \
    } while (0)

static void put_address(char out[IP_RANGE_BYTES], const struct ip_range *r)
{
    ip_range_format(r, out);
    out[strcspn(out, "/")] = '\0';
}

static const char *family_of(const struct ip_range *r)
{
    return r->v6 ? "ip6" : "ip";
}

static void put_refused(struct writer *w, const struct ip_range *r)
{
    char range[IP_RANGE_BYTES];
    ip_range_format(r, range);
    PUT(w, "add element inet %s refused%c { %s }", w->table, r->v6 ? '6' : '4', range);
}

static void put_sets(struct writer *w, const struct egress_table *t)
{
    static const char *const families[][2] = {{"4", "ipv4_addr"}, {"6", "ipv6_addr"}};
    for (size_t i = 0; i < 2; i++) {
        const char *n = families[i][0];
        PUT(w, "add set inet %s cells%s { type %s; }", w->table, n, families[i][1]);
        PUT(w, "add set inet %s refused%s { type %s; flags interval; auto-merge; }", w->table, n,
            families[i][1]);
        PUT(w, "flush set inet %s refused%s", w->table, n);
    }
    PUT(w, "add set inet %s links { type ifname; }", w->table);
    PUT(w, "add map inet %s from_cells { type ifname : verdict; }", w->table);
    PUT(w, "add map inet %s to_cells { type ifname : verdict; }", w->table);
    const struct egress_refusal *refusal;
    for (size_t i = 0; (refusal = egress_refusal_at(i)) != NULL; i++) {
        struct ip_range r;
        struct status s = ip_range_parse(refusal->range, &r, NULL);
        CHECK(status_is_ok(s));
        put_refused(w, &r);
    }
    put_refused(w, &t->network->pool);
    put_refused(w, &t->network->pool6);
    for (size_t i = 0; i < t->refused_count; i++) {
        put_refused(w, &t->refused[i]);
    }
}

static void put_chain(struct writer *w, const char *chain, const char *hook)
{
    PUT(w, "add chain inet %s %s%s", w->table, chain, hook);
    PUT(w, "flush chain inet %s %s", w->table, chain);
}

#define NEIGHBOURS "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"

static void put_chains(struct writer *w, const struct egress_table *t)
{
    put_chain(w, "refuse", "");
    PUT(w, "add rule inet %s refuse counter name refused reject with icmpx type admin-prohibited",
        w->table);
    put_chain(w, "forward", " { type filter hook forward priority 0; policy accept; }");
    PUT(w, "add rule inet %s forward iifname vmap @from_cells", w->table);
    PUT(w, "add rule inet %s forward oifname vmap @to_cells", w->table);
    if (t->only_cells) {
        PUT(w,
            "add rule inet %s forward iifname != \"" EGRESS_LINK_PREFIX
            "*\" oifname != \"" EGRESS_LINK_PREFIX "*\" meta nfproto ipv4 drop",
            w->table);
    }
    put_chain(w, "input", " { type filter hook input priority 0; policy accept; }");
    PUT(w, "add rule inet %s input iifname @links " NEIGHBOURS, w->table);
    if (t->network->has_resolver) {
        char resolver[IP_RANGE_BYTES];
        put_address(resolver, &t->network->resolver);
        PUT(w,
            "add rule inet %s input iifname @links %s daddr %s meta l4proto { tcp, udp } th dport "
            "53 accept",
            w->table, family_of(&t->network->resolver), resolver);
    }
    PUT(w, "add rule inet %s input iifname @links goto refuse", w->table);
    put_chain(w, "output", " { type filter hook output priority 0; policy accept; }");
    PUT(w, "add rule inet %s output oifname @links " NEIGHBOURS, w->table);
    PUT(w, "add rule inet %s output oifname @links ct state established,related accept", w->table);
    PUT(w, "add rule inet %s output oifname @links drop", w->table);
    put_chain(w, "post", " { type nat hook postrouting priority srcnat; policy accept; }");
    PUT(w, "add rule inet %s post ip saddr @cells4 masquerade", w->table);
    PUT(w, "add rule inet %s post ip6 saddr @cells6 masquerade", w->table);
}

struct status egress_table_text(const struct egress_table *t, struct buffer *out)
{
    struct writer w = {.out = out, .table = t->name, .status = status_ok()};
    PUT(&w, "add table inet %s", t->name);
    PUT(&w, "add counter inet %s refused", t->name);
    PUT(&w, "add counter inet %s limited", t->name);
    put_sets(&w, t);
    put_chains(&w, t);
    return w.status;
}

struct status egress_table_remove_text(const char *table, struct buffer *out)
{
    return buffer_printf(out, "add table inet %s\ndelete table inet %s\n", table, table);
}

static uint64_t burst_of(uint64_t bandwidth)
{
    uint64_t burst = bandwidth / 10;
    burst = burst < EGRESS_BURST_BYTES_MIN ? EGRESS_BURST_BYTES_MIN : burst;
    return burst > UINT32_MAX / 2 ? UINT32_MAX / 2 : burst;
}

static void put_limit(struct writer *w, const struct config_network *n, char chain,
                      const char *link)
{
    PUT(w,
        "add rule inet %s %c_%s limit rate over %" PRIu64 " bytes/second burst %" PRIu64
        " bytes counter name limited drop",
        w->table, chain, link, n->bandwidth, burst_of(n->bandwidth));
}

static void put_rule(struct writer *w, const char *link, const struct egress_rule *r)
{
    char range[IP_RANGE_BYTES];
    char ports[16];
    ip_range_format(&r->to, range);
    (void)snprintf(ports, sizeof ports, "%u", r->port_first);
    if (r->port_last != r->port_first) {
        (void)snprintf(ports, sizeof ports, "%u-%u", r->port_first, r->port_last);
    }
    /* nft takes a range of all addresses for a mistake. */
    if (r->to.bits == 0) {
        PUT(w, "add rule inet %s c_%s meta nfproto %s %s dport %s goto n_%s", w->table, link,
            r->to.v6 ? "ipv6" : "ipv4", r->udp ? "udp" : "tcp", ports, link);
    } else {
        PUT(w, "add rule inet %s c_%s %s daddr %s %s dport %s goto n_%s", w->table, link,
            family_of(&r->to), range, r->udp ? "udp" : "tcp", ports, link);
    }
}

static void put_new(struct writer *w, const struct config_network *n, const char *link,
                    const struct egress_rule *rules, size_t count)
{
    if (n->has_resolver) {
        char resolver[IP_RANGE_BYTES];
        put_address(resolver, &n->resolver);
        PUT(w, "add rule inet %s c_%s %s daddr %s meta l4proto { tcp, udp } th dport 53 goto n_%s",
            w->table, link, family_of(&n->resolver), resolver, link);
    }
    PUT(w, "add rule inet %s c_%s ip daddr @refused4 goto refuse", w->table, link);
    PUT(w, "add rule inet %s c_%s ip6 daddr @refused6 goto refuse", w->table, link);
    for (size_t i = 0; i < count; i++) {
        put_rule(w, link, &rules[i]);
    }
    PUT(w, "add rule inet %s c_%s goto refuse", w->table, link);
}

/* Adds, or takes away what was added before. */
static void put_elements(struct writer *w, const char *verb, const struct egress_place *p)
{
    char cell4[IP_RANGE_BYTES];
    char cell6[IP_RANGE_BYTES];
    put_address(cell4, &p->cell4);
    put_address(cell6, &p->cell6);
    PUT(w, "%s element inet %s from_cells { \"%s\" : goto c_%s }", verb, w->table, p->link,
        p->link);
    PUT(w, "%s element inet %s to_cells { \"%s\" : goto r_%s }", verb, w->table, p->link, p->link);
    PUT(w, "%s element inet %s links { \"%s\" }", verb, w->table, p->link);
    PUT(w, "%s element inet %s cells4 { %s }", verb, w->table, cell4);
    PUT(w, "%s element inet %s cells6 { %s }", verb, w->table, cell6);
}

static void put_cell_chains(struct writer *w, const char *link)
{
    static const char kinds[] = {'c', 'n', 'r'};
    for (size_t i = 0; i < sizeof kinds; i++) {
        PUT(w, "add chain inet %s %c_%s", w->table, kinds[i], link);
        PUT(w, "flush chain inet %s %c_%s", w->table, kinds[i], link);
    }
}

struct status egress_cell_text(const char *table, const struct config_network *network,
                               const struct egress_place *place, const struct egress_rule *rules,
                               size_t count, struct buffer *out)
{
    struct writer w = {.out = out, .table = table, .status = status_ok()};
    const char *link = place->link;
    char cell4[IP_RANGE_BYTES];
    char cell6[IP_RANGE_BYTES];
    put_address(cell4, &place->cell4);
    put_address(cell6, &place->cell6);
    put_cell_chains(&w, link);
    PUT(&w, "add rule inet %s n_%s ct count over %u goto refuse", table, link,
        network->connections);
    PUT(&w, "add rule inet %s n_%s accept", table, link);
    PUT(&w, "add rule inet %s c_%s ip saddr != %s drop", table, link, cell4);
    PUT(&w, "add rule inet %s c_%s ip6 saddr != %s drop", table, link, cell6);
    put_limit(&w, network, 'c', link);
    PUT(&w, "add rule inet %s c_%s ct state established,related accept", table, link);
    PUT(&w, "add rule inet %s c_%s ct state != new drop", table, link);
    /* Somebody else's rule has sent it elsewhere than where the cell wanted. */
    PUT(&w, "add rule inet %s c_%s ct status dnat goto refuse", table, link);
    put_new(&w, network, link, rules, count);
    put_limit(&w, network, 'r', link);
    PUT(&w, "add rule inet %s r_%s ct state established,related accept", table, link);
    PUT(&w, "add rule inet %s r_%s drop", table, link);
    put_elements(&w, "add", place);
    return w.status;
}

struct status egress_cell_remove_text(const char *table, const struct egress_place *place,
                                      struct buffer *out)
{
    static const char kinds[] = {'c', 'n', 'r'};
    struct writer w = {.out = out, .table = table, .status = status_ok()};
    /* Added first, so that what is not there is no error. */
    put_cell_chains(&w, place->link);
    put_elements(&w, "add", place);
    put_elements(&w, "delete", place);
    for (size_t i = 0; i < sizeof kinds; i++) {
        PUT(&w, "delete chain inet %s %c_%s", table, kinds[i], place->link);
    }
    return w.status;
}

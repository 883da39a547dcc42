#include "common/egress_rule.h"

#include "common/check.h"
#include "common/units.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* Metadata services lie in the link-local ranges, and where a row says so. */
static const struct egress_refusal refusals[] = {
    {"0.0.0.0/8", "no destination"},
    {"127.0.0.0/8", "loopback"},
    {"169.254.0.0/16", "link-local, with metadata services"},
    {"100.100.100.200/32", "a metadata service"},
    {"168.63.129.16/32", "a metadata service"},
    {"192.0.0.192/32", "a metadata service"},
    {"224.0.0.0/3", "multicast, broadcast and reserved"},
    {"[::]/96", "loopback and IPv4 in IPv6"},
    {"[::ffff:0:0]/96", "IPv4 in IPv6"},
    {"[64:ff9b::a9fe:0]/112", "link-local behind a translator"},
    {"[2002:a9fe::]/32", "link-local behind a tunnel"},
    {"[fd00:ec2::254]/128", "a metadata service"},
    {"[fd20:ce::254]/128", "a metadata service"},
    {"[fe80::]/9", "link-local and site-local"},
    {"[ff00::]/8", "multicast"},
};

const struct egress_refusal *egress_refusal_at(size_t i)
{
    return i < sizeof refusals / sizeof refusals[0] ? &refusals[i] : NULL;
}

/* ---- Numbers ---- */

/* Decimal, without sign, blanks or leading zeros; moves *at behind it. */
static bool number_read(const char **at, uint32_t max, uint32_t *out)
{
    const char *p = *at;
    uint32_t value = 0;
    if (*p < '0' || *p > '9' || (p[0] == '0' && p[1] >= '0' && p[1] <= '9')) {
        return false;
    }
    for (; *p >= '0' && *p <= '9'; p++) {
        value = value * 10 + (uint32_t)(*p - '0');
        if (value > max) {
            return false;
        }
    }
    *at = p;
    *out = value;
    return true;
}

/* ---- Ranges ---- */

static uint8_t mask_of(uint8_t bits, size_t byte)
{
    if (bits >= (byte + 1) * 8) {
        return 0xff;
    }
    if (bits <= byte * 8) {
        return 0;
    }
    return (uint8_t)(0xffU << (8 - (bits - byte * 8)));
}

static size_t address_size(const struct ip_range *r)
{
    return r->v6 ? 16 : 4;
}

static struct status bits_check(const struct ip_range *r, struct errmsg *msg)
{
    struct ip_range cut = *r;
    for (size_t i = 0; i < address_size(r); i++) {
        cut.address[i] &= mask_of(r->bits, i);
    }
    if (memcmp(cut.address, r->address, sizeof cut.address) == 0) {
        return status_ok();
    }
    char text[IP_RANGE_BYTES];
    ip_range_format(&cut, text);
    return status_fail(msg, STATUS_INVALID,
                       "the address has bits beyond its first %u; did you mean %s?", r->bits, text);
}

/* Moves *at behind the range. */
static struct status range_read(const char **at, struct ip_range *out, struct errmsg *msg)
{
    struct ip_range r = {.v6 = (*at)[0] == '['};
    const char *from = *at + (r.v6 ? 1 : 0);
    size_t size = strcspn(from, r.v6 ? "]" : "/:");
    char text[INET6_ADDRSTRLEN];
    char quoted[QUOTE_STRING_BYTES];
    text_quote(from, size, quoted);
    if (r.v6 && from[size] != ']') {
        return status_fail(msg, STATUS_INVALID, "\"[%s\" lacks its \"]\"", quoted);
    }
    if (size >= sizeof text) {
        return status_fail(msg, STATUS_INVALID, "\"%s\" is no address", quoted);
    }
    memcpy(text, from, size);
    text[size] = '\0';
    if (inet_pton(r.v6 ? AF_INET6 : AF_INET, text, r.address) != 1) {
        return status_fail(msg, STATUS_INVALID,
                           "\"%s\" is no IPv%c address (names are not looked up; an IPv6 address "
                           "stands in brackets)",
                           quoted, r.v6 ? '6' : '4');
    }
    const char *p = from + size + (r.v6 ? 1 : 0);
    uint32_t bits = r.v6 ? IP_V6_BITS : IP_V4_BITS;
    if (*p == '/') {
        p++;
        if (!number_read(&p, bits, &bits)) {
            return status_fail(msg, STATUS_INVALID, "behind \"/\" goes a number from 0 to %u",
                               r.v6 ? IP_V6_BITS : IP_V4_BITS);
        }
    }
    r.bits = (uint8_t)bits;
    TRY(bits_check(&r, msg));
    *at = p;
    *out = r;
    return status_ok();
}

struct status ip_range_parse(const char *text, struct ip_range *out, struct errmsg *msg)
{
    struct ip_range r;
    const char *at = text;
    TRY(range_read(&at, &r, msg));
    if (*at != '\0') {
        char quoted[QUOTE_STRING_BYTES];
        text_quote(at, strlen(at), quoted);
        return status_fail(msg, STATUS_INVALID, "\"%s\" does not belong behind a range", quoted);
    }
    *out = r;
    return status_ok();
}

void ip_range_format(const struct ip_range *r, char out[IP_RANGE_BYTES])
{
    char text[INET6_ADDRSTRLEN];
    CHECK(inet_ntop(r->v6 ? AF_INET6 : AF_INET, r->address, text, sizeof text) != NULL);
    (void)snprintf(out, IP_RANGE_BYTES, "%s/%u", text, r->bits);
}

bool ip_range_holds(const struct ip_range *outer, const struct ip_range *inner)
{
    if (outer->v6 != inner->v6 || outer->bits > inner->bits) {
        return false;
    }
    for (size_t i = 0; i < address_size(outer); i++) {
        if (((outer->address[i] ^ inner->address[i]) & mask_of(outer->bits, i)) != 0) {
            return false;
        }
    }
    return true;
}

/* ---- Rules ---- */

static struct status ports_read(const char **at, struct egress_rule *r, struct errmsg *msg)
{
    uint32_t first = 0;
    uint32_t last = 0;
    const char *p = *at;
    bool good = number_read(&p, UINT16_MAX, &first);
    last = first;
    if (good && *p == '-') {
        p++;
        good = number_read(&p, UINT16_MAX, &last);
    }
    if (!good || first == 0 || last < first) {
        return status_fail(msg, STATUS_INVALID,
                           "behind \":\" goes a port from 1 to 65535, or two as 8000-8099");
    }
    r->port_first = (uint16_t)first;
    r->port_last = (uint16_t)last;
    *at = p;
    return status_ok();
}

static struct status refusal_check(const struct egress_rule *r, struct errmsg *msg)
{
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct ip_range range;
        struct status s = ip_range_parse(refusals[i].range, &range, NULL);
        CHECK(status_is_ok(s));
        if (ip_range_holds(&range, &r->to)) {
            return status_fail(msg, STATUS_INVALID, "%s is always refused: %s", refusals[i].range,
                               refusals[i].why);
        }
    }
    return status_ok();
}

static struct status rule_read(const char *text, struct egress_rule *r, struct errmsg *msg)
{
    const char *at = text;
    if (strlen(text) >= EGRESS_RULE_BYTES) {
        return status_fail(msg, STATUS_INVALID, "has %zu bytes, at most %d are allowed",
                           strlen(text), EGRESS_RULE_BYTES - 1);
    }
    TRY(range_read(&at, &r->to, msg));
    if (*at != ':') {
        return status_fail(msg, STATUS_INVALID,
                           "lacks its port; a rule is RANGE:PORT, as 10.0.0.0/8:443");
    }
    at++;
    TRY(ports_read(&at, r, msg));
    r->udp = strcmp(at, "/udp") == 0;
    if (*at != '\0' && !r->udp && strcmp(at, "/tcp") != 0) {
        char quoted[QUOTE_STRING_BYTES];
        text_quote(at, strlen(at), quoted);
        return status_fail(msg, STATUS_INVALID, "\"%s\" is neither /tcp nor /udp", quoted);
    }
    return refusal_check(r, msg);
}

struct status egress_rule_parse(const char *text, struct egress_rule *out, struct errmsg *msg)
{
    struct egress_rule r = {0};
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, strlen(text), quoted);
    TRY(status_prefix(msg, rule_read(text, &r, msg), "rule \"%s\"", quoted));
    *out = r;
    return status_ok();
}

void egress_rule_format(const struct egress_rule *r, char out[EGRESS_RULE_BYTES])
{
    char range[IP_RANGE_BYTES];
    char address[IP_RANGE_BYTES];
    char ports[16];
    ip_range_format(&r->to, range);
    size_t size = strcspn(range, "/");
    (void)snprintf(address, sizeof address, "%.*s", (int)size, range);
    (void)snprintf(ports, sizeof ports, "%u", r->port_first);
    if (r->port_last != r->port_first) {
        (void)snprintf(ports, sizeof ports, "%u-%u", r->port_first, r->port_last);
    }
    (void)snprintf(out, EGRESS_RULE_BYTES, "%s%s%s/%u:%s/%s", r->to.v6 ? "[" : "", address,
                   r->to.v6 ? "]" : "", r->to.bits, ports, r->udp ? "udp" : "tcp");
}

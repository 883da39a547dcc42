/* What a function may reach: one line of network.egress, and the ranges of addresses behind it.
 *
 *     RULE     = RANGE ":" PORT [ "-" PORT ] [ "/tcp" | "/udp" ]        tcp when not given
 *     RANGE    = IPv4 [ "/" BITS ] | "[" IPv6 "]" [ "/" BITS ]          one address when not given
 *
 *     10.0.0.0/8:443    192.0.2.7:5432-5433/tcp    [2001:db8::]/32:53/udp
 *
 * The canonical text has everything: 10.0.0.0/8:443/tcp.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_EGRESS_RULE_H
#define COMMON_EGRESS_RULE_H

#include "common/status.h"

#include <stdint.h>

enum {
    EGRESS_RULE_BYTES = 80, /* of a canonical text and its NUL, and of what is read */
    IP_RANGE_BYTES = 52,    /* of "[IPv6]/128" and its NUL */
    IP_V4_BITS = 32,
    IP_V6_BITS = 128,
};

/* Addresses that share their first bits; an IPv4 address has the first four bytes. */
struct ip_range {
    bool v6;
    uint8_t address[16];
    uint8_t bits;
};

struct egress_rule {
    struct ip_range to;
    uint16_t port_first, port_last;
    bool udp;
};

/* Reads the whole of text, RANGE as above. INVALID, with what is wrong; bits of the address beyond
 * the range are wrong. */
NODISCARD struct status ip_range_parse(const char *text, struct ip_range *out, struct errmsg *msg);
/* "10.0.0.0/8", "2001:db8::/32": without brackets, as nft and people write it. */
void ip_range_format(const struct ip_range *r, char out[IP_RANGE_BYTES]);
bool ip_range_holds(const struct ip_range *outer, const struct ip_range *inner);

/* Reads the whole of text. INVALID with what is wrong, also for a rule whose addresses are always
 * refused. */
NODISCARD struct status egress_rule_parse(const char *text, struct egress_rule *out,
                                          struct errmsg *msg);
/* The canonical text, which egress_rule_parse reads back as the same rule. */
void egress_rule_format(const struct egress_rule *r, char out[EGRESS_RULE_BYTES]);

/* What no rule opens, on any node: row i, or NULL behind the last. */
struct egress_refusal {
    const char *range;
    const char *why;
};
const struct egress_refusal *egress_refusal_at(size_t i);

#endif

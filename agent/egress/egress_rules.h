/* The text of the nftables rules of one agent and of its cells: decided here, applied elsewhere.
 *
 *     forward   from a cell's link -> its chain: limits, established, refused ranges, its rules;
 *               to a cell's link -> established only
 *     input     nothing from cells but questions to a resolver on this machine
 *     output    nothing to cells but answers
 *     post      their addresses are masqueraded
 *
 * Every text may be applied again: what is there already is replaced.
 *
 * Thread: any; no shared state, no I/O. */
#ifndef AGENT_EGRESS_EGRESS_RULES_H
#define AGENT_EGRESS_EGRESS_RULES_H

#include "common/buffer.h"
#include "common/config.h"
#include "common/egress_rule.h"

enum { EGRESS_LINK_BYTES = 16, EGRESS_TABLE_BYTES = 96, EGRESS_BURST_BYTES_MIN = 128 << 10 };

/* Names of links begin so, on every agent. */
#define EGRESS_LINK_PREFIX "skep"

/* The two ends of slot's pair: host and cell, /31 and /127. */
struct egress_place {
    char link[EGRESS_LINK_BYTES]; /* made of the host's IPv4 address: taken when that is */
    struct ip_range host4, cell4, host6, cell6;
};

/* How many pairs a pool has room for. */
uint32_t egress_slots(const struct config_network *n);
/* slot is less than egress_slots. */
void egress_place_of(const struct config_network *n, uint32_t slot, struct egress_place *out);
/* The slot that a cell's IPv4 address belongs to. NOT_FOUND when it is of another pool. */
NODISCARD struct status egress_slot_of(const struct config_network *n, const struct ip_range *cell4,
                                       uint32_t *slot);

/* The link that a cell with this IPv4 address hangs on. */
void egress_link_of(const struct ip_range *cell4, char out[EGRESS_LINK_BYTES]);

/* "skep_NODE_HASH": agents of one name on one machine have different data folders. */
void egress_table_name(const char *node, const char *data, char out[EGRESS_TABLE_BYTES]);

struct egress_table {
    const char *name;
    const struct config_network *network;
    const struct ip_range *refused; /* beside what is refused everywhere: schedulers */
    size_t refused_count;
    bool only_cells; /* this machine forwards for cells alone */
};
/* NOMEM. */
NODISCARD struct status egress_table_text(const struct egress_table *t, struct buffer *out);
NODISCARD struct status egress_table_remove_text(const char *table, struct buffer *out);

/* What one cell may do. NOMEM. */
NODISCARD struct status egress_cell_text(const char *table, const struct config_network *network,
                                         const struct egress_place *place,
                                         const struct egress_rule *rules, size_t count,
                                         struct buffer *out);
NODISCARD struct status egress_cell_remove_text(const char *table, const struct egress_place *place,
                                                struct buffer *out);

#endif

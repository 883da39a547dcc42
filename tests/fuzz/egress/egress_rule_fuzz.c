/* A rule of network.egress: what is read is written and read back as the same, and nothing of it
 * breaks out of its line in the text for nft. */
#include "agent/egress/egress_rules.h"
#include "common/check.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[256];
    size = size < sizeof text ? size : sizeof text - 1;
    memcpy(text, data, size);
    text[size] = '\0';
    struct egress_rule rule;
    struct errmsg msg = {{0}};
    if (!status_is_ok(egress_rule_parse(text, &rule, &msg))) {
        CHECK(msg.text[0] != '\0');
        return 0;
    }
    char canonical[EGRESS_RULE_BYTES];
    char again[EGRESS_RULE_BYTES];
    struct egress_rule back;
    egress_rule_format(&rule, canonical);
    struct status s = egress_rule_parse(canonical, &back, &msg);
    CHECK(status_is_ok(s));
    egress_rule_format(&back, again);
    CHECK(strcmp(canonical, again) == 0);
    struct config_network network;
    struct egress_place place;
    struct buffer none = {0};
    struct buffer one = {0};
    network_defaults(&network);
    egress_place_of(&network, 7, &place);
    s = egress_cell_text("t", &network, &place, NULL, 0, &none);
    CHECK(status_is_ok(s));
    s = egress_cell_text("t", &network, &place, &rule, 1, &one);
    CHECK(status_is_ok(s));
    size_t lines = 0;
    for (size_t i = 0; i < one.size; i++) {
        lines += one.data[i] == '\n';
    }
    for (size_t i = 0; i < none.size; i++) {
        lines -= none.data[i] == '\n';
    }
    CHECK(lines == 1);
    buffer_close(&none);
    buffer_close(&one);
    return 0;
}

/* Rules of network.egress, and the texts that nft gets of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/egress/egress_rules.h"

#include <string.h>

static void becomes(const char *text, const char *canonical)
{
    struct egress_rule rule;
    struct errmsg msg = {{0}};
    char out[EGRESS_RULE_BYTES];
    if (!status_is_ok(egress_rule_parse(text, &rule, &msg))) {
        fail_msg("%s: %s", text, msg.text);
    }
    egress_rule_format(&rule, out);
    assert_string_equal(out, canonical);
}

static void is_refused(const char *text, const char *says)
{
    struct egress_rule rule;
    struct errmsg msg = {{0}};
    assert_int_equal(egress_rule_parse(text, &rule, &msg).code, STATUS_INVALID);
    if (strstr(msg.text, says) == NULL) {
        fail_msg("%s says \"%s\", which lacks \"%s\"", text, msg.text, says);
    }
}

static void rules_have_one_canonical_text(void **state)
{
    (void)state;
    becomes("10.0.0.0/8:443", "10.0.0.0/8:443/tcp");
    becomes("192.0.2.7:5432/tcp", "192.0.2.7/32:5432/tcp");
    becomes("192.0.2.7/32:5432-5432", "192.0.2.7/32:5432/tcp");
    becomes("0.0.0.0/0:1-65535/udp", "0.0.0.0/0:1-65535/udp");
    becomes("[2001:DB8:0::]/32:53/udp", "[2001:db8::]/32:53/udp");
    becomes("[2001:db8::1]:443", "[2001:db8::1]/128:443/tcp");
    becomes("[::]/0:443", "[::]/0:443/tcp");
    becomes("[2001:db8:1111:2222:3333:4444:5555:6666]/128:10000-20000/tcp",
            "[2001:db8:1111:2222:3333:4444:5555:6666]/128:10000-20000/tcp");
}

static void what_is_no_rule_is_refused_with_its_reason(void **state)
{
    (void)state;
    is_refused("", "no IPv4 address");
    is_refused("10.0.0.0/8", "lacks its port");
    is_refused("10.0.0.0/33:1", "0 to 32");
    is_refused("10.0.0.0/08:1", "0 to 32");
    is_refused("10.0.0.0/:1", "0 to 32");
    is_refused("10.0.0.1/8:1", "did you mean 10.0.0.0/8?");
    is_refused("[2001:db8::1]/64:1", "did you mean 2001:db8::/64?");
    is_refused("2001:db8::/32:53", "in brackets");
    is_refused("[2001:db8::/32:53", "lacks its \"]\"");
    is_refused("[2001:db8::]/129:53", "0 to 128");
    is_refused("[10.0.0.1]:53", "no IPv6 address");
    is_refused("example.org:443", "not looked up");
    is_refused("10.0.0.0/8:", "1 to 65535");
    is_refused("10.0.0.0/8:0", "1 to 65535");
    is_refused("10.0.0.0/8:65536", "1 to 65535");
    is_refused("10.0.0.0/8:99999999999", "1 to 65535");
    is_refused("10.0.0.0/8:20-10", "1 to 65535");
    is_refused("10.0.0.0/8:-10", "1 to 65535");
    is_refused("10.0.0.0/8:80/sctp", "neither /tcp nor /udp");
    is_refused("10.0.0.0/8:80 ", "neither");
    is_refused("10.0.0.0/8:80/tcp; drop", "neither");
    is_refused("10.0.0.0/8:00000000000000000000000000000000000000000000000000000000000000000000080",
               "at most");
}

static void what_is_always_refused_can_be_no_rule(void **state)
{
    (void)state;
    is_refused("169.254.169.254:80", "metadata");
    is_refused("169.254.0.0/17:80", "always refused");
    is_refused("127.0.0.1:80", "loopback");
    is_refused("100.100.100.200:80", "metadata");
    is_refused("224.0.0.1:5353/udp", "multicast");
    is_refused("[::1]:80", "loopback");
    is_refused("[::ffff:169.254.169.254]:80", "IPv4 in IPv6");
    is_refused("[fe80::1]:80", "link-local");
    is_refused("[fd00:ec2::254]:80", "metadata");
    is_refused("[64:ff9b::a9fe:a9fe]:80", "translator");
    becomes("169.0.0.0/8:80", "169.0.0.0/8:80/tcp"); /* it is wider: the rest of it counts */
}

static void places_of_a_pool_do_not_meet(void **state)
{
    (void)state;
    struct config_network n;
    struct egress_place p;
    char text[IP_RANGE_BYTES];
    uint32_t slot;
    network_defaults(&n);
    assert_int_equal(egress_slots(&n), 8192);
    egress_place_of(&n, 0, &p);
    assert_string_equal(p.link, "skep64408000");
    egress_place_of(&n, 8191, &p);
    assert_string_equal(p.link, "skep6440bffe");
    ip_range_format(&p.host4, text);
    assert_string_equal(text, "100.64.191.254/31");
    ip_range_format(&p.cell4, text);
    assert_string_equal(text, "100.64.191.255/31");
    ip_range_format(&p.cell6, text);
    assert_string_equal(text, "fd53:6b65:70ea::3fff/127");
    assert_int_equal(egress_slot_of(&n, &p.cell4, &slot).code, STATUS_OK);
    assert_int_equal(slot, 8191);
    p.cell4.address[0] = 10;
    assert_int_equal(egress_slot_of(&n, &p.cell4, &slot).code, STATUS_NOT_FOUND);
}

static const char *cell_text(const struct config_network *n, const char *rule, struct buffer *out)
{
    struct egress_rule r;
    struct egress_place p;
    assert_int_equal(egress_rule_parse(rule, &r, NULL).code, STATUS_OK);
    egress_place_of(n, 1, &p);
    assert_int_equal(egress_cell_text("t", n, &p, &r, 1, out).code, STATUS_OK);
    assert_int_equal(buffer_append(out, "", 1).code, STATUS_OK);
    return (const char *)out->data;
}

static void refusals_come_before_what_a_rule_opens(void **state)
{
    (void)state;
    struct config_network n;
    struct buffer out = {0};
    network_defaults(&n);
    const char *text = cell_text(&n, "0.0.0.0/0:443", &out);
    const char *refused = strstr(text, "ip daddr @refused4 goto refuse");
    const char *opened = strstr(text, "meta nfproto ipv4 tcp dport 443 goto n_");
    assert_non_null(refused);
    assert_non_null(opened);
    assert_true(refused < opened);
    assert_null(strstr(text, "dport 53"));
    buffer_close(&out);
}

static void limits_and_the_resolver_are_the_configuration_s(void **state)
{
    (void)state;
    struct config_network n;
    struct buffer out = {0};
    network_defaults(&n);
    n.bandwidth = 12345678;
    n.connections = 77;
    n.has_resolver = true;
    assert_int_equal(network_resolver_parse("[fd00::2]", &n.resolver, NULL).code, STATUS_OK);
    const char *text = cell_text(&n, "[2001:db8::]/32:53/udp", &out);
    assert_non_null(strstr(text, "limit rate over 12345678 bytes/second burst 1234567 bytes"));
    assert_non_null(strstr(text, "ct count over 77 goto refuse"));
    assert_non_null(strstr(text, "ip6 daddr fd00::2 meta l4proto { tcp, udp } th dport 53"));
    assert_non_null(strstr(text, "ip6 daddr 2001:db8::/32 udp dport 53 goto n_"));
    buffer_close(&out);
}

static void agents_of_one_name_have_tables_of_their_own(void **state)
{
    (void)state;
    char a[EGRESS_TABLE_BYTES];
    char b[EGRESS_TABLE_BYTES];
    egress_table_name("n1", "/a", a);
    egress_table_name("n1", "/b", b);
    assert_int_equal(strncmp(a, "skep_n1_", 8), 0);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_have_one_canonical_text),
        cmocka_unit_test(what_is_no_rule_is_refused_with_its_reason),
        cmocka_unit_test(what_is_always_refused_can_be_no_rule),
        cmocka_unit_test(places_of_a_pool_do_not_meet),
        cmocka_unit_test(refusals_come_before_what_a_rule_opens),
        cmocka_unit_test(limits_and_the_resolver_are_the_configuration_s),
        cmocka_unit_test(agents_of_one_name_have_tables_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

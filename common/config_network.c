/* The network section of an agent's configuration. */
#include "common/config.h"

#include "common/check.h"
#include "common/units.h"

#include <string.h>

struct status network_pool_parse(const char *text, bool v6, struct ip_range *out,
                                 struct errmsg *msg)
{
    struct ip_range r;
    int min = v6 ? CONFIG_POOL6_BITS_MIN : CONFIG_POOL_BITS_MIN;
    int max = v6 ? CONFIG_POOL6_BITS_MAX : CONFIG_POOL_BITS_MAX;
    TRY(ip_range_parse(text, &r, msg));
    if (r.v6 != v6 || r.bits < min || r.bits > max) {
        return status_fail(msg, STATUS_INVALID, "must be an IPv%c range of /%d to /%d",
                           v6 ? '6' : '4', min, max);
    }
    *out = r;
    return status_ok();
}

struct status network_resolver_parse(const char *text, struct ip_range *out, struct errmsg *msg)
{
    static const char *const own[] = {"127.0.0.0/8", "[::]/96"};
    struct ip_range r;
    TRY(ip_range_parse(text, &r, msg));
    if (r.bits != (r.v6 ? IP_V6_BITS : IP_V4_BITS)) {
        return status_fail(msg, STATUS_INVALID, "must be one address, as 10.0.0.2 or [fd00::2]");
    }
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        struct ip_range loopback;
        struct status s = ip_range_parse(own[i], &loopback, NULL);
        CHECK(status_is_ok(s));
        if (ip_range_holds(&loopback, &r)) {
            return status_fail(msg, STATUS_INVALID,
                               "a cell's loopback is its own: no resolver can be at %s", text);
        }
    }
    *out = r;
    return status_ok();
}

void network_defaults(struct config_network *n)
{
    *n = (struct config_network){
        .bandwidth = CONFIG_BANDWIDTH_DEFAULT,
        .connections = CONFIG_CELL_CONNECTIONS_DEFAULT,
    };
    struct status s = network_pool_parse(CONFIG_POOL_DEFAULT, false, &n->pool, NULL);
    CHECK(status_is_ok(s));
    s = network_pool_parse(CONFIG_POOL6_DEFAULT, true, &n->pool6, NULL);
    CHECK(status_is_ok(s));
}

#include "scheduler/core/isolation_policy.h"

#include "scheduler/core/catalog.h"

#include <string.h>

bool isolation_is_gvisor(const struct function_spec *spec)
{
    return spec->isolation != NULL && strcmp(spec->isolation, "gvisor") == 0;
}

struct status isolation_check(const struct function_spec *spec, struct errmsg *msg)
{
    const char *text = spec->isolation == NULL ? "" : spec->isolation;
    if (text[0] != '\0' && strcmp(text, "cell") != 0 && strcmp(text, "gvisor") != 0) {
        return status_fail(msg, STATUS_INVALID, "isolation: \"%.40s\" is not cell or gvisor", text);
    }
    if (isolation_is_gvisor(spec) && spec->egress_count > 0) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "isolation: gvisor has no network; it does not go with network.egress");
    }
    if (isolation_is_gvisor(spec) && spec->gpu_count > 0) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "isolation: gvisor hands no devices in; it does not go with "
                           "resources.gpu");
    }
    return status_ok();
}

struct status isolation_allow(const struct catalog *c, const struct function_spec *spec,
                              struct errmsg *msg)
{
    const char *required = catalog_setting_find(c, ISOLATION_SETTING, "");
    if (strcmp(required, "gvisor") == 0 && !isolation_is_gvisor(spec)) {
        return status_fail(msg, STATUS_DENIED,
                           "isolation: this cluster demands gvisor (setting " ISOLATION_SETTING
                           "), and the function asks for cell");
    }
    return status_ok();
}

struct status isolation_setting_check(const char *key, const char *value, struct errmsg *msg)
{
    if (strcmp(key, ISOLATION_SETTING) == 0 && value[0] != '\0' && strcmp(value, "cell") != 0 &&
        strcmp(value, "gvisor") != 0) {
        return status_fail(msg, STATUS_INVALID,
                           ISOLATION_SETTING ": \"%.40s\" is not cell or gvisor", value);
    }
    return status_ok();
}

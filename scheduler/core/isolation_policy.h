/* How strongly a function is kept apart, and what the cluster demands: the setting
 * isolation.required. Pure.
 *
 * Thread: any; no shared state. */
#ifndef SCHEDULER_CORE_ISOLATION_POLICY_H
#define SCHEDULER_CORE_ISOLATION_POLICY_H

#include "common/status.h"
#include "proto/message.h"

struct catalog;

#define ISOLATION_SETTING "isolation.required"

/* Only on nodes with gVisor. */
bool isolation_is_gvisor(const struct function_spec *spec);

/* Is what the spec asks for known, and does it go together with the rest of it? INVALID,
 * UNSUPPORTED. */
NODISCARD struct status isolation_check(const struct function_spec *spec, struct errmsg *msg);

/* DENIED, naming the setting, when the cluster demands more than the spec asks for. */
NODISCARD struct status isolation_allow(const struct catalog *c, const struct function_spec *spec,
                                        struct errmsg *msg);

/* INVALID when the key is the setting's and the value is none of its own ("" removes it). */
NODISCARD struct status isolation_setting_check(const char *key, const char *value,
                                                struct errmsg *msg);

#endif

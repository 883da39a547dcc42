/* What the checks share; private to this folder. A check sets its verdict once, by one of these. */
#ifndef AGENT_CANARY_CHECK_H
#define AGENT_CANARY_CHECK_H

#include "agent/canary/canary.h"

struct check {
    const struct canary_targets *targets;
    struct canary_outcome outcome;
};

void check_held(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_breached(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_none(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Held with the name of errno. */
void check_refused(struct check *c, const char *what);
/* Breached when result is not negative, else held with the name of errno; true when breached. */
bool check_call(struct check *c, const char *what, long result);
/* Breached when the kernel went on to look at the arguments, that is errno is anything but "you may
 * not" or "there is no such call". For calls that must not succeed in earnest. */
bool check_permission(struct check *c, const char *what, long result);
/* Breached when the first bytes of the file can be read; the detail says what they are. */
bool check_read(struct check *c, const char *path);
/* Breached when one of them can be opened with the flags; paths ends with NULL. */
void check_open_any(struct check *c, const char *const *paths, int flags);

#define CHECK_DECLARE(function, name, what) void check_##function(struct check *c);
CANARY_CHECKS(CHECK_DECLARE)
#undef CHECK_DECLARE

#endif

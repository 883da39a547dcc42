#include "common/net/identity.h"

#include <stdio.h>
#include <string.h>

static const char scheme[] = "skep://";
enum { SCHEME_BYTES = sizeof scheme - 1 };

static const char *const role_names[ROLE_COUNT_] = {
    [ROLE_NONE] = "none", [ROLE_SCHEDULER] = "scheduler", [ROLE_AGENT] = "agent",
    [ROLE_USER] = "user", [ROLE_JOIN] = "join",
};

const char *role_name(enum role role)
{
    return (unsigned)role < ROLE_COUNT_ ? role_names[role] : role_names[ROLE_NONE];
}

/* ROLE_NONE when the bytes name no role. */
static enum role role_find(const char *text, size_t size)
{
    for (unsigned i = ROLE_SCHEDULER; i < ROLE_COUNT_; i++) {
        if (strlen(role_names[i]) == size && memcmp(role_names[i], text, size) == 0) {
            return (enum role)i;
        }
    }
    return ROLE_NONE;
}

struct status role_parse(const char *text, enum role *out, struct errmsg *msg)
{
    enum role found = role_find(text, strlen(text));
    if (found == ROLE_NONE) {
        return status_fail(msg, STATUS_INVALID,
                           "role \"%.20s\" is none of scheduler, agent, user, join", text);
    }
    *out = found;
    return status_ok();
}

struct status identity_parse(const char *uri, size_t size, struct identity *out, struct errmsg *msg)
{
    if (size < SCHEME_BYTES || memcmp(uri, scheme, SCHEME_BYTES) != 0) {
        return status_fail(msg, STATUS_INVALID,
                           "the identity does not have the form skep://CLUSTER/ROLE/NAME");
    }
    const char *end = uri + size;
    const char *cluster = uri + SCHEME_BYTES;
    const char *slash = memchr(cluster, '/', (size_t)(end - cluster));
    const char *role = slash == NULL ? NULL : slash + 1;
    const char *second = role == NULL ? NULL : memchr(role, '/', (size_t)(end - role));
    if (second == NULL) {
        return status_fail(msg, STATUS_INVALID,
                           "the identity does not have the form skep://CLUSTER/ROLE/NAME");
    }
    struct identity parsed = {.role = role_find(role, (size_t)(second - role))};
    if (parsed.role == ROLE_NONE) {
        return status_fail(msg, STATUS_INVALID,
                           "the identity's role is none of scheduler, agent, user, join");
    }
    struct status s =
        name_parse("identity's cluster", cluster, (size_t)(slash - cluster), &parsed.cluster, msg);
    if (status_is_ok(s)) {
        s = name_parse("identity's name", second + 1, (size_t)(end - second - 1), &parsed.name,
                       msg);
    }
    if (!status_is_ok(s)) {
        return status_of(STATUS_INVALID);
    }
    *out = parsed;
    return status_ok();
}

void identity_format(const struct identity *id, char out[IDENTITY_URI_BYTES])
{
    (void)snprintf(out, IDENTITY_URI_BYTES, "%s%s/%s/%s", scheme, id->cluster.text,
                   role_name(id->role), id->name.text);
}

/* Where a cluster key comes from, as text: its forms only. Nothing is opened here, so that a
 * configuration is checked without its keys. */
#include "common/seal/wrap.h"

#include <string.h>

enum { CREDENTIAL_NAME_BYTES_MAX = 255 };

const char *wrap_after(const char *text, const char *prefix)
{
    size_t size = strlen(prefix);
    return strncmp(text, prefix, size) == 0 ? text + size : NULL;
}

struct status cluster_key_check(const char *from, struct errmsg *msg)
{
    const char *path = wrap_after(from, WRAP_FROM_FILE);
    const char *name = wrap_after(from, WRAP_FROM_CREDENTIAL);
    if (strlen(from) > WRAP_FROM_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has over %d bytes", WRAP_FROM_BYTES_MAX);
    }
    if (path != NULL && path[0] != '/') {
        return status_fail(msg, STATUS_INVALID, "file: takes an absolute path");
    }
    if (name != NULL && (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL ||
                         strlen(name) > CREDENTIAL_NAME_BYTES_MAX)) {
        return status_fail(msg, STATUS_INVALID,
                           "credential: takes the name of a credential, not a path");
    }
    if (path == NULL && name == NULL && wrap_after(from, WRAP_FROM_TOKEN) == NULL) {
        return status_fail(msg, STATUS_INVALID,
                           "is none of file:PATH, credential:NAME and pkcs11:URI");
    }
    return status_ok();
}

/* The URI out of a peer's certificate: what parses is formatted back to the same bytes. */
#include "common/check.h"
#include "common/net/identity.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct identity id;
    struct errmsg msg = {""};
    if (status_is_ok(identity_parse((const char *)data, size, &id, &msg))) {
        char uri[IDENTITY_URI_BYTES];
        identity_format(&id, uri);
        CHECK(strlen(uri) == size);
        CHECK(memcmp(uri, data, size) == 0);
    } else {
        CHECK(msg.text[0] != '\0');
    }
    return 0;
}

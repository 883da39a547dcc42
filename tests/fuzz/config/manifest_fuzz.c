/* skep.yaml: whatever the bytes, one line of error or a manifest that its own check accepts. */
#include "common/check.h"
#include "common/manifest_load.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest m;
    struct errmsg msg = {""};
    struct status s = manifest_parse("f", bytes_of(data, size), &m, &msg);
    if (!status_is_ok(s)) {
        CHECK(strncmp(msg.text, "f:", 2) == 0);
        CHECK(strpbrk(msg.text, "\n\r\x1b") == NULL);
        return 0;
    }
    char key[MANIFEST_KEY_BYTES];
    struct buffer canonical = {0};
    CHECK(status_is_ok(manifest_check(&m, key, &msg)));
    CHECK(status_is_ok(manifest_canonical(&m, &canonical)));
    buffer_close(&canonical);
    manifest_close(&m);
    return 0;
}

/* Sealed snapshots from a disk or another scheduler: the head, the list of parts, the opening. An
 * input is the snapshot as stored. Real ones cannot be made by mutation; the corpus holds one under
 * the key that is given here, so that the opened path is walked too. */
#include "common/check.h"
#include "common/seal/snapshot_seal.h"

#include <openssl/err.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct seal_key key = {{'f', 'u', 'z', 'z'}};
    struct keyring *ring = keyring_new();
    struct snapshot_head head;
    struct errmsg msg = {.text = ""};
    struct buffer plain = {0};
    CHECK(ring != NULL && status_is_ok(keyring_put(ring, 1, &key)));
    if (snapshot_is_sealed(bytes_of(data, size)) &&
        status_is_ok(snapshot_head_read(bytes_of(data, size), &head, &msg))) {
        CHECK(head.rest.data >= data && head.rest.data + head.rest.size == data + size);
        struct status s = snapshot_open(ring, &head, &plain, &msg);
        CHECK(status_is_ok(s) || (plain.size == 0 && msg.text[0] != '\0'));
        CHECK(plain.size <= size);
    }
    CHECK(ERR_peek_error() == 0);
    buffer_close(&plain);
    keyring_free(ring);
    return 0;
}
